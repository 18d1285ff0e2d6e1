"""A cache dealt over tensor ranks: bytes, talk between the ranks, and what engines allow."""

from dataclasses import replace

import numpy as np
import pytest

from clusters.build import build, path
from clusters.catalogue import accelerator
from clusters.spec import parse
from clusters.tunings import collective_s
from parallel.io import read_model
from parallel.placement import members_of
from parallel.roofline import chip
from parallel.serving.dealt import dealt_s
from parallel.serving.engines import engine, serving_recipe
from parallel.serving.passes import GRID, Replica, Split, cache_positions, pass_cost, position_bytes
from parallel.serving.steps import split_faults

VLLM = engine("vllm")


def replica(model: str, split: Split) -> Replica:
    cluster, held, part = build(parse({"accelerator": "h200-sxm", "accelerators": 8})), read_model(model), "h200-sxm"
    recipe = serving_recipe(held, "fp8", accelerator(part))
    return Replica(held, cluster, chip(accelerator(part), recipe), split, 1.0)


WIDE = Split(8, 1, 1, 8)


def test_one_rank_that_deals_is_none() -> None:
    one, plain = (replica("deepseek-v3", split) for split in (replace(WIDE, dcp=1.0), WIDE))
    assert pass_cost(one, VLLM) == pass_cost(plain, VLLM)
    assert pass_cost(one, VLLM).dealt_s == ()


@pytest.mark.parametrize(("model", "dcp"), [("deepseek-v3", 2), ("deepseek-v3", 8), ("qwen3-235b-a22b", 2)])
def test_cache_bytes_fall_by_as_many_as_deal_and_room_grows(model: str, dcp: int) -> None:
    plain, dealt = replica(model, WIDE), replica(model, replace(WIDE, dcp=float(dcp)))
    assert position_bytes(plain) == dcp * position_bytes(dealt)
    room = [cache_positions(held, 0.9, of_rest=False) for held in (plain, dealt)]
    assert room[1] == pytest.approx(dcp * room[0])


def test_reads_fall_and_scores_stay() -> None:
    plain, dealt = (pass_cost(replica("deepseek-v3", replace(WIDE, dcp=dcp)), VLLM) for dcp in (1.0, 8.0))
    for one, other in zip(plain.reads, dealt.reads, strict=True):
        assert (one[0], one[1], one[2]) == (other[0], 8 * other[1], other[2])
    assert dealt.cache(16, 16 * 60000.0) < plain.cache(16, 16 * 60000.0)


def test_ranks_gather_queries_and_sums_and_scatter_outputs() -> None:
    held = replica("deepseek-v3", replace(WIDE, dcp=4.0))
    att, cluster = held.model.layers[0].attention, held.cluster
    group = members_of(cluster, np.array([8.0]), np.array([4.0]), np.ones(1))
    rows = 32 * 128 / 8 * 4  # tokens, heads of a rank, ranks that deal
    sizes = {"q": 2 * rows * 576, "sums": 4 * rows * 4, "out": 2 * rows * 512}
    seconds = [
        float(collective_s(op, np.array([sizes[name]]), group, path(cluster, op, "nccl"), "nccl")[0])
        for name, op in (("q", "all_gather"), ("sums", "all_gather"), ("out", "reduce_scatter"))
    ]
    assert float(dealt_s(held, att, np.array([32.0]))[0]) == pytest.approx(sum(seconds))


def test_outputs_go_all_to_all_or_are_scattered() -> None:
    held, helix = (replica("deepseek-v3", replace(WIDE, dcp=8.0, dcp_comm=name)) for name in ("ag_rs", "a2a"))
    att, tokens = held.model.layers[0].attention, np.array([16.0])
    group = members_of(held.cluster, np.array([8.0]), np.array([8.0]), np.ones(1))
    rows = 16 * 128 / 8 * 8
    seconds = [
        float(collective_s(op, np.array([size]), group, path(held.cluster, op, "nccl"), "nccl")[0])
        for op, size in (("all_gather", 2 * rows * 576), ("all_to_all", rows * (2 * 512 + 4)))
    ]
    assert float(dealt_s(helix, att, tokens)[0]) == pytest.approx(sum(seconds))
    assert pass_cost(helix, VLLM).dealt_s != pass_cost(held, VLLM).dealt_s
    wrong = split_faults(read_model("deepseek-v3"), Split(tp=8, dcp_comm="a2a"))
    assert [fault.field for fault in wrong] == ["strategy.dcp_comm"]


def test_new_prompt_tokens_of_a_latent_cache_need_no_talk() -> None:
    for model, more in (("deepseek-v3", False), ("qwen3-235b-a22b", True)):
        cost = pass_cost(replica(model, replace(WIDE, dcp=2.0)), replace(VLLM, eager_s=0.0))
        silent = replace(cost, dealt_s=(0.0,) * len(GRID))
        added = cost(16, 16000, 4000, 1e6) - silent(16, 16000, 4000, 1e6)
        alone = cost(16, 16000, 0, 0) - silent(16, 16000, 0, 0)
        assert (added > 1.5 * alone) is more
        assert sum(cost.parts(16, 16000).values()) == pytest.approx(cost(16, 16000, 0, 0))


@pytest.mark.parametrize(
    ("model", "tp", "dcp", "fine"),
    [
        ("deepseek-v3", 8, 8, True),  # one latent, eight copies
        ("deepseek-v3", 8, 3, False),
        ("qwen3-235b-a22b", 8, 2, True),  # four key-value heads
        ("qwen3-235b-a22b", 8, 4, False),
        ("llama-3.1-70b", 8, 2, False),  # eight heads on eight ranks
    ],
)
def test_only_ranks_that_would_hold_copies_deal(model: str, tp: int, dcp: int, fine: bool) -> None:
    faults = split_faults(read_model(model), Split(tp=float(tp), dcp=float(dcp)))
    assert [fault.field for fault in faults] == ([] if fine else ["strategy.dcp"])
