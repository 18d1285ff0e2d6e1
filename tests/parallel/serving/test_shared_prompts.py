"""Prefill context parallelism: what ranks that share a prompt compute, hold and tell each other, and what engines allow."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.build import Cluster, build, path
from clusters.spec import load, with_
from clusters.tunings import collective_s
from parallel.explain.account import explain
from parallel.hybrids import hybrid, hybrid_names
from parallel.io import read_model
from parallel.memory import serving_weights
from parallel.placement import members_of
from parallel.priced import Priced
from parallel.scenario import serve, serve_points
from parallel.serving.contexts import expanded
from parallel.serving.engines import engine, serving_recipe
from parallel.serving.flags import Deployment, faults, launch
from parallel.serving.kernels import engine_chip, work_s
from parallel.serving.mappings import Ask, sharing
from parallel.serving.passes import PassCost, Replica, Split, cache_positions, pass_cost, position_bytes
from parallel.serving.phases import ServeJob, price
from parallel.serving.search import search_file
from parallel.serving.steps import prompt_terms, split_faults
from parallel.strategy import Columns
from parallel.sweeps.cut import cut, living
from parallel.sweeps.spaces import narrowed, space_of
from parallel.sweeps.task import Bound, Task
from parallel.workload import ServeWorkload, TrainWorkload
from topo.errors import SpecError

quick = settings(max_examples=30, deadline=None)
SGLANG = engine("sglang")
LLAMA, DEEPSEEK, SPARSE = (read_model(name) for name in ("llama-3.1-405b", "deepseek-v3", "deepseek-v3.2"))
QWEN, GLM = (read_model(name) for name in ("qwen3-235b-a22b", "glm-5"))
K128, MILLION = 131072, 2**20


@lru_cache
def cluster(accelerators: int, free: bool = False) -> Cluster:
    made = build(with_(load("hgx-h100"), accelerators=accelerators))
    tiers = tuple(replace(tier, bandwidth_Bps=1e9 * tier.bandwidth_Bps, latency_s=0.0) for tier in made.tiers)
    return replace(made, tiers=tiers, fingerprint=f"{made.fingerprint}, free") if free else made


def prefill(
    cp: int | None, isl: int = K128, *, model: Any = LLAMA, tp: int = 8, ep: int = 1, ranks: int = 0, prompts: float = 1.0,
    free: bool = False, **work: Any,
) -> Priced:  # fmt: skip
    """Price so many prompts for each group of tp·cp ranks; no column where cp is None."""
    job = ServeJob.of(model, cluster(ranks or tp * (cp or 1), free), ServeWorkload(isl=isl, precision="fp8", **work))
    shared = {} if cp is None else {"cp": cp}
    batch = prompts / (tp * (cp or 1))
    return price(job, "prefill", Columns.of(used=8, tp=tp, ep=ep, pp=1, microbatches=1, batch=batch, **shared))


def one(column: Any) -> float:
    return float(np.ravel(column)[0])


# --- the deal -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cp", [2, 3, 8])
@pytest.mark.parametrize("dealing", ["zigzag", "interleave"])
def test_either_deal_gives_every_rank_as_many_pairs_by_brute_force(cp: int, dealing: str) -> None:
    tokens = 48 * cp
    size = tokens // (2 * cp)
    owner = [min(t // size, 2 * cp - 1 - t // size) if dealing == "zigzag" else t % cp for t in range(tokens)]
    pairs = np.bincount(owner, weights=np.arange(1, tokens + 1))
    assert np.bincount(owner).tolist() == [tokens / cp] * cp
    assert pairs / (tokens * (tokens + 1) / 2) == pytest.approx([1 / cp] * cp, rel=2 / size)


# --- without an engine ----------------------------------------------------------------------------------------------


def test_one_rank_is_as_no_column_at_all() -> None:
    plain, single = prefill(None, 8192, prompts=4), prefill(1, 8192, prompts=4)
    assert one(plain.seconds) == one(single.seconds)
    assert "cp" not in plain.terms
    assert one(single.terms["cp"]) == one(single.busy["cp"]) == one(single.memory["kv blocks"]) == 0.0
    for name, value in plain.terms.items():
        assert one(value) == one(single.terms[name])
    for name, value in plain.memory.items():
        assert one(value) == one(single.memory[name])


@pytest.mark.parametrize("cp", [2, 4, 16])
def test_a_rank_computes_its_part_of_the_prompt_and_nothing_twice(cp: int) -> None:
    whole, shared = prefill(1), prefill(cp, free=True)
    part = prefill(1, prompts=1 / cp)  # as many tokens, which see as many positions
    for name in ("attention", "attention core", "mlp", "vector"):
        assert one(shared.terms[name]) == pytest.approx(one(part.terms[name]), rel=1e-12)
    assert one(shared.terms["attention core"]) == pytest.approx(one(whole.terms["attention core"]) / cp, rel=1e-3)
    assert one(shared.terms["head"]) == one(whole.terms["head"])
    assert one(shared.terms["cp"]) == 0.0


def test_latents_of_other_ranks_are_expanded_again() -> None:
    shared = prefill(4, model=DEEPSEEK, ep=32, free=True)
    part = prefill(1, model=DEEPSEEK, ep=32, prompts=0.25, ranks=32, free=True)
    again = one(shared.terms["attention"]) / one(part.terms["attention"])
    att, own = DEEPSEEK.layers[0].attention, K128 / 4
    assert [one(op.m) for op in expanded(att, 3 * own, 8.0)] == [3 * own]
    assert 1.1 < again < 2.0
    assert expanded(SPARSE.layers[0].attention, 1.0, 8.0) == []


def test_a_ring_passes_blocks_on_and_hides_behind_attention() -> None:
    cp, isl = 4, 16384
    told = prefill(cp, isl, kv_bytes=2.0)
    block = isl / cp * 2 * 128 * 1 * 2.0  # positions, key and value of one head, bytes
    group = members_of(cluster(32), np.array([8.0]), np.array([4.0]), np.array([8.0]))
    from collectives.point_to_point import farthest

    step = one(farthest(np.array([block]), group, path(cluster(32), "send_recv", "nccl")))
    core = one(told.terms["attention core"]) / 126
    assert one(told.busy["cp"]) == pytest.approx(126 * 3 * step)
    assert one(told.terms["cp"]) == pytest.approx(126 * 3 * max(step - core / cp, 0.0), abs=1e-12)
    assert one(told.memory["kv blocks"]) == 2 * block


def test_cached_positions_travel_and_hide_worse() -> None:
    fresh, late = prefill(4, 128000), prefill(4, 128000, cached=126720)
    assert one(late.busy["cp"]) == one(fresh.busy["cp"])
    assert one(late.terms["cp"]) > one(fresh.terms["cp"]) == 0.0


def test_under_an_indexer_all_keys_come_first() -> None:
    told = prefill(8, 65536, model=SPARSE, tp=1, ep=8, kv_bytes=2.0)
    assert one(told.terms["cp"]) == one(told.busy["cp"]) > 0.0
    dense = prefill(8, 65536, model=DEEPSEEK, tp=1, ep=8, kv_bytes=2.0)
    assert one(dense.terms["cp"]) < one(dense.busy["cp"])


def test_weights_are_repeated_and_experts_are_not() -> None:
    eight, sixty_four = prefill(1), prefill(8)
    assert one(eight.memory["weights"]) == one(sixty_four.memory["weights"])
    assert one(eight.memory["kv cache"]) == pytest.approx(8 * one(sixty_four.memory["kv cache"]))
    recipe, cols = serving_recipe(DEEPSEEK, "fp8", cluster(8).accelerator), {"tp": [2.0], "ep": [1.0], "pp": [1.0]}
    columns = {name: np.array(value) for name, value in cols.items()}
    shared = serving_weights(DEEPSEEK, {**columns, "cp": np.array([4.0])}, recipe)
    assert one(shared) == one(serving_weights(DEEPSEEK, {**columns, "ep": np.array([8.0])}, recipe))


def test_a_ring_over_the_network_takes_longer_than_inside_a_box() -> None:
    inside, across = prefill(4, 8192, tp=2, ranks=8), prefill(4, 8192, tp=8)
    assert one(inside.busy["cp"]) < one(across.busy["cp"])


@quick
@given(
    cp=st.sampled_from([1, 2, 4, 8]),
    tokens=st.integers(10, 17),
    model=st.sampled_from([LLAMA, QWEN, GLM]),
    prompts=st.sampled_from([1, 3]),
)
def test_free_links_make_more_ranks_no_slower_and_terms_add_up(cp: int, tokens: int, model: Any, prompts: int) -> None:
    ep = 1 if model is LLAMA else 128
    made = [prefill(n, 2**tokens, model=model, ep=ep, ranks=128, prompts=prompts, free=True) for n in (cp, 2 * cp)]
    for told in made:
        assert sum(map(one, told.terms.values())) == pytest.approx(one(told.seconds), rel=1e-9)
        assert all(one(told.busy[name]) >= one(value) - 1e-12 for name, value in told.terms.items())
    busy = [sum(one(value) for name, value in told.busy.items() if name not in ("tp", "ep", "cp")) for told in made]
    assert busy[1] <= busy[0] * (1 + 1e-9)


def test_published_prefills_of_llama_405b() -> None:
    """Yang et al. 2411.01783 on boxes of eight H100 96 GB, abstract and figures 6 to 8; nothing is fitted to them."""
    measured = {(16, MILLION): 77.0, (16, K128): 3.8, (8, K128): 5.85}
    errors = {key: one(prefill(*key, kv_bytes=2.0).seconds) / seconds - 1 for key, seconds in measured.items()}
    assert errors[16, MILLION] == pytest.approx(0.06, abs=0.02)
    assert errors[8, K128] == pytest.approx(-0.24, abs=0.03)
    assert errors[16, K128] == pytest.approx(-0.41, abs=0.03)
    slower = [one(prefill(1, tp=tp).seconds) / one(prefill(tp // 8).seconds) for tp in (16, 64)]
    assert slower == pytest.approx([1.15, 2.0], rel=0.2)  # tensor ranks over two boxes, and over eight


# --- files ----------------------------------------------------------------------------------------------------------

PREFILL: dict[str, Any] = {
    "phase": "prefill",
    "model": "llama-3.1-405b",
    "cluster": "hgx-h100",
    "accelerators": 32,
    "workload": {"isl": 65536, "precision": "fp8"},
    "strategy": {"tp": 8, "cp": 4, "batch": 1 / 32},
}
Write = Callable[..., Path]


def test_a_file_deals_prompts_out_and_its_account_holds(write: Write) -> None:
    file = write(PREFILL, strategy={"tp": 8, "cp": 4, "batch": 1 / 32}, workload={"isl": 2048, "precision": "fp8"})
    answer = serve(file)
    assert answer["strategy"]["cp"] == 4
    assert answer["strategy"]["attention_dp"] == 1
    assert answer["gpus_used"] == 32
    told = explain(serve_points(file)["prefill"])
    for term in told["terms"]:
        assert term["computed_s"] == pytest.approx(term["seconds"], rel=1e-9, abs=1e-12), term["name"]
        assert term["computed_busy_s"] == pytest.approx(term["busy_s"], rel=1e-9, abs=1e-12), term["name"]
    for holder in told["memory"]:
        assert holder["computed_bytes"] == pytest.approx(holder["bytes"], rel=1e-9), holder["name"]
    [passed] = [term for term in told["terms"] if term["name"] == "cp"]
    assert passed["seconds"] > 0
    assert sum(row["times"] * row["seconds"] for row in passed["collectives"]) == pytest.approx(passed["busy_s"])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"phase": "decode"}, "strategy.cp"),
        ({"strategy": {"tp": 8, "cp": 5, "ep": 1, "batch": 1}}, "strategy.used, tp, cp, ep, pp"),
        ({"workload": {"isl": 6}}, "strategy.cp"),
    ],
)
def test_a_file_is_told_what_cannot_be(write: Write, changes: dict[str, Any], field: str) -> None:
    file = write({**PREFILL, "accelerators": 16 if "strategy" in changes else 32}, **changes)
    with pytest.raises(SpecError) as error:
        serve(file)
    assert field.replace("used", "ranks_per_domain") in [fault.field for fault in error.value.faults]


def test_experts_lie_on_all_ranks_of_a_prompt(write: Write) -> None:
    narrow = {"tp": 2, "cp": 4, "ep": 4, "batch": 1 / 8}
    told = serve(write(PREFILL, cluster="hgx-h200", accelerators=8, model="deepseek-v3", strategy=narrow))
    assert told["strategy"]["attention_dp"] == 1
    assert told["gpus_used"] == 8


def test_a_prefill_pool_deals_prompts_out(write: Write) -> None:
    cluster_of = {
        "pools": [
            {"name": name, "accelerator": "h200-sxm", "accelerators": 32} for name in ("old", "new")
        ]
    }  # fmt: skip
    base = {
        "model": "llama-3.1-405b",
        "cluster": cluster_of,
        "pools": {"prefill": "old", "decode": "new"},
        "workload": {"isl": 65536, "osl": 512, "precision": "fp8"},
        "strategies": {"prefill": {"tp": 8, "batch": 1 / 8}, "decode": {"tp": 8, "batch": 1}},
    }
    shared = {"prefill": {"tp": 8, "cp": 4, "batch": 1 / 32}, "decode": {"tp": 8, "batch": 1}}
    plain, dealt = serve(write(base)), serve(write(base, strategies=shared))
    assert dealt["ttft_s"] < 0.35 * plain["ttft_s"]
    assert dealt["pools"]["prefill"]["strategy"]["cp"] == 4
    with pytest.raises(SpecError) as error:
        serve(write(base, strategies={**shared, "decode": {"tp": 8, "cp": 2, "batch": 1}}))
    assert [fault.field for fault in error.value.faults] == ["strategies.decode.cp"]


# --- under an engine ------------------------------------------------------------------------------------------------


@lru_cache
def cost(model: str, split: Split) -> tuple[Replica, PassCost]:
    held = read_model(model)
    made = build(with_(load("hgx-h200"), accelerators=max(int(split.ranks), 8)))
    machine = engine_chip(made.accelerator, serving_recipe(held, "fp8", made.accelerator), SGLANG)
    replica = Replica(held, made, machine, split, 2.0, regime=SGLANG.regime)
    return replica, pass_cost(replica, SGLANG)


def test_one_rank_is_as_before_under_an_engine() -> None:
    assert cost("deepseek-v3", Split(8, 1, 1, 8))[1] == cost("deepseek-v3", Split(8, 1, 1, 8, cp=1.0))[1]
    assert cost("deepseek-v3", Split(8, 1, 1, 8))[1].shared_s == ()


def test_a_pass_is_a_rank_of_the_linear_layers_and_pairs_and_what_is_gathered() -> None:
    replica, shared = cost("llama-3.1-405b", Split(8, cp=4))
    _, plain = cost("llama-3.1-405b", Split(8))
    tokens, pairs = 8192.0, 8192.0 * 30000
    parts = shared.fed(0.0, tokens, pairs)
    group = members_of(replica.cluster, np.array([8.0]), np.array([4.0]), np.array([8.0]))
    sizes = [2 * tokens * 256, *[2 * tokens * 16384]]  # keys and values of a head in BF16; hidden states, once
    road = path(replica.cluster, "all_gather", "nccl")
    sent = [one(collective_s("all_gather", np.array([size]), group, road, "nccl")) for size in sizes]
    assert parts["cp"] == pytest.approx(126 * sent[0] + sent[1])
    assert parts["scores"] == pytest.approx(plain.fed(0.0, tokens, pairs)["scores"] / 4)
    assert parts["linear"] == pytest.approx(plain.linear(tokens / 4))
    added = shared(8.0, 8e4, tokens, pairs) - shared(8.0, 8e4, 0.0, 0.0)
    fed = shared.fed(8.0, tokens, pairs)
    assert added == pytest.approx(SGLANG.prefill * (sum(fed.values()) - shared.linear(8.0)), rel=1e-6)


def test_a_latent_cache_is_expanded_again_by_every_rank() -> None:
    replica, shared = cost("deepseek-v3", Split(2, 1, 1, 8, cp=4))
    dense = replace(replica, model=SPARSE)
    assert shared.fed(0, 8192, 8192)["cp"] > pass_cost(dense, SGLANG).fed(0, 8192, 8192)["cp"]
    att = replica.model.layers[0].attention
    [up] = expanded(att, np.array([8192 * 0.75]), 2.0)
    assert shared.fed(0, 8192, 8192)["cp"] > 61 * one(work_s(up, replica.chip))


def test_what_is_scored_for_every_rank_is_shared_out() -> None:
    chunk = (0.0, 8192.0, 8192.0 * 100000)
    whole, shared = (cost("deepseek-v3.2", split)[1] for split in (Split(8, 1, 1, 8), Split(1, 1, 1, 8, cp=8)))
    ratio = whole.fed(*chunk)["scores"] / shared.fed(*chunk)["scores"]
    assert 4.0 < ratio < 8.0  # index scores by eight; heads that a kernel pads meet chosen positions as before


def test_decoding_repeats_itself_on_the_ranks_of_a_prompt() -> None:
    (one_group, plain), (many, shared) = (cost("llama-3.1-405b", split) for split in (Split(8), Split(8, cp=4)))
    assert shared(16, 16e4, 0, 0) == plain(16, 16e4, 0, 0)
    assert position_bytes(many) == position_bytes(one_group)
    assert cache_positions(many, 0.9, of_rest=False) == cache_positions(one_group, 0.9, of_rest=False)


def test_the_terms_of_a_prompt_add_up_to_its_passes() -> None:
    _, shared = cost("deepseek-v3", Split(2, 1, 1, 8, cp=4))
    terms = prompt_terms(shared, 20000, 8192)
    each = 20000 / 3
    passes = sum(shared(0, 0, each, each * (at + 0.5) * each) for at in range(3))
    assert sum(terms.values()) == pytest.approx(passes)
    assert terms["cp"] > 0
    assert min(terms.values()) >= 0


@pytest.mark.parametrize(
    ("split", "fine"),
    [(Split(8, cp=4), True), (Split(8, dcp=2, cp=2), False)],
)
def test_a_dealt_cache_and_shared_prompts_exclude_each_other(split: Split, fine: bool) -> None:
    found = [fault.field for fault in split_faults(DEEPSEEK, split)]
    assert found == ([] if fine else ["strategy.cp"])
    assert [fault.field for fault in split_faults(hybrid(hybrid_names()[0]), Split(1, cp=2))] == ["strategy.cp"]


def deployment(split: Split, **changes: Any) -> Deployment:
    return Deployment("m", split, SGLANG.defaults, 2.0, 131072, **changes)


@pytest.mark.parametrize(
    ("name", "split", "changes", "words"),
    [
        ("vllm", Split(2, 1, 1, 8, cp=4), {}, ["--tensor-parallel-size 2", "--prefill-context-parallel-size 4"]),
        ("sglang", Split(2, 1, 1, 8, cp=4), {}, ["--tp-size 8", "--attn-cp-size 4", "--cp-strategy zigzag"]),
        ("sglang", Split(1, 1, 1, 8, cp=8), {"indexed": True}, ["--enable-prefill-cp", "--cp-strategy interleave"]),
        ("sglang", Split(2, 2, 1, 8, cp=2), {"role": "prefill"}, ["--tp-size 8", "--dp-size 2", "--attn-cp-size 2"]),
    ],
)
def test_engines_are_told_in_their_own_words(
    name: str, split: Split, changes: dict[str, Any], words: list[str]
) -> None:
    made = launch(deployment(split, **changes), name)
    command = " ".join(made.command)
    assert [word for word in words if word not in command] == []
    assert any("shared prompt" in note for note in made.notes)


def test_no_flag_says_it_where_nothing_is_shared() -> None:
    for name in ("vllm", "sglang", "trtllm"):
        assert "cp-" not in " ".join(launch(deployment(Split(8)), name).command)


@pytest.mark.parametrize(
    ("name", "split", "changes"),
    [
        ("trtllm", Split(8, cp=2), {}),
        ("vllm", Split(1, 4, 1, 8, cp=2), {}),
        ("vllm", Split(8, cp=2), {"role": "decode"}),
        ("sglang", Split(8, cp=2), {"role": "decode"}),
    ],
)
def test_engines_refuse_what_they_have_no_words_for(name: str, split: Split, changes: dict[str, Any]) -> None:
    assert [fault.field for fault in faults(deployment(split, **changes), name)] == ["strategy.cp"]


SERVED: dict[str, Any] = {
    "model": "deepseek-v3.2",
    "cluster": "hgx-h200",
    "engine": "sglang",
    "load": {"clients": 2},
    "workload": {"isl": 60000, "osl": 256, "precision": "fp8"},
    "strategy": {"tp": 1, "cp": 8, "ep": 8},
}


def test_a_deployment_that_shares_prompts_answers_sooner(write: Write) -> None:
    shared, plain = serve(write(SERVED)), serve(write(SERVED, strategy={"tp": 8, "ep": 8}))
    assert shared["ttft_s"] < 0.5 * plain["ttft_s"]
    assert shared["strategy"] == {"tp": 1, "attention_dp": 1, "ep": 8, "etp": 1, "cp": 8, "replicas": 1}
    assert shared["prompt"]["terms"]["cp"] > 0
    assert "prompt" not in plain
    assert any(note.startswith("cp") for note in shared["warnings"])
    assert "faults" in shared["deploy"]["trtllm"]


def test_a_split_that_does_not_tile_is_refused(write: Write) -> None:
    with pytest.raises(SpecError) as error:
        serve(write(SERVED, strategy={"tp": 2, "cp": 4, "ep": 12}))
    assert [fault.field for fault in error.value.faults] == ["strategy.ep"]


# --- the search -----------------------------------------------------------------------------------------------------

ASKED: dict[str, Any] = {
    "model": "llama-3.1-70b",
    "cluster": "hgx-h200",
    "engine": "sglang",
    "workload": {"isl": 65536, "osl": 200, "precision": "fp8", "ttft_s": 60.0},
}


def test_prompts_are_shared_where_nothing_else_is_in_time(write: Write) -> None:
    slow = search_file(write(ASKED))
    assert all("cp" not in row["strategy"] for row in slow["front"])
    fast = search_file(write(ASKED, accelerators=16, workload={**ASKED["workload"], "ttft_s": 1.8}))
    best = fast["best"]["aggregated"]
    assert best["strategy"]["cp"] > 1
    assert best["simulated"]["keeps_limits"]
    assert f"--attn-cp-size {best['strategy']['cp']}" in fast["deploy"]["server"]["text"]
    assert search_file(write(ASKED), cp=True)["points"] > slow["points"]


def test_dense_models_share_over_further_ranks_and_hybrids_over_none() -> None:
    ask = Ask(LLAMA, cluster(32), "fp8", 65536, 1, ())
    assert [(one.tp, one.cp) for one in sharing(ask, Split(8.0))] == [(8.0, 2.0), (8.0, 4.0)]
    assert list(sharing(replace(ask, model=hybrid(hybrid_names()[0])), Split(8.0))) == []
    assert list(sharing(replace(ask, isl=3), Split(8.0))) == []


def test_a_sweep_has_the_axis_where_it_is_asked_for() -> None:
    spec, work = with_(load("hgx-h100"), accelerators=32), ServeWorkload(isl=32768, ttft_s=60.0)
    plain = space_of("prefill", cluster(32), LLAMA)
    space = narrowed(plain, {"cp": (1, 4), "tp": (8,), "pp": (1,)})
    bound = Bound.of(Task("prefill", LLAMA, spec, TrainWorkload(), work, space))
    rest = cut(bound)
    rows = np.concatenate(list(living(bound, rest.levels, rest.heads, {})))
    cols = bound.at(rows)
    assert sorted(set(cols["cp"].tolist())) == [1.0, 4.0]
    assert np.all(cols["batch"] * cols["tp"] * cols["cp"] >= 1)
    priced, at = bound.price(cols), int(np.flatnonzero((cols["cp"] == 4) & (cols["batch"] == 0.125))[0])
    alone = price(ServeJob.of(LLAMA, bound.cluster, work), "prefill", cols.take(np.array([at])))
    assert one(alone.seconds) == pytest.approx(float(priced.seconds[at]), rel=1e-12)
    assert "cp" not in dict(plain.axes)
