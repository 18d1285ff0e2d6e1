"""What a pass costs and what a cache holds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.build import build
from clusters.catalogue import accelerator
from clusters.spec import parse
from parallel.hybrids import served_model
from parallel.models import Moe
from parallel.operators import Operator
from parallel.roofline import chip, forward_s
from parallel.serving.engines import engine, serving_recipe
from parallel.serving.kernels import work_s
from parallel.serving.passes import (
    GRID,
    PassCost,
    Replica,
    Split,
    cache_positions,
    pass_cost,
    position_bytes,
    reduce_s,
    weight_bytes,
)
from parallel.serving.swaps import swaps

VLLM = engine("vllm")


def replica(
    name: str = "llama-3.1-70b", part: str = "h200-sxm", precision: str = "fp8", split: Split | None = None
) -> Replica:
    model, held = served_model(name), accelerator(part)
    cluster = build(parse({"accelerator": part, "accelerators": held.domain}))
    return Replica(model, cluster, chip(held, serving_recipe(model, precision, held)), split or Split(tp=8), 1.0)


COST = pass_cost(replica(), VLLM)


def test_the_curve_passes_through_its_points() -> None:
    for tokens, seconds in zip(GRID, COST.linear_s, strict=True):
        assert COST.linear(tokens) == pytest.approx(seconds)
    assert COST.linear(2 * GRID[-1]) == pytest.approx(2 * COST.linear_s[-1])


@settings(max_examples=50, deadline=None)
@given(b=st.integers(1, 512), context=st.integers(1, 8192), prompt=st.integers(0, 8192))
def test_more_of_anything_takes_no_less(b: int, context: int, prompt: int) -> None:
    n = float(b * context)
    base = COST(b, n, prompt, prompt * prompt / 2)
    assert COST(b, n + context, prompt, prompt * prompt / 2) >= base
    assert COST(b, n, prompt + 100, (prompt + 100) ** 2 / 2) >= base
    assert COST(b, n, 40_000, 40_000**2 / 2) > COST(b, n, 30_000, 30_000**2 / 2)


def test_a_pass_with_a_prompt_takes_no_less_than_the_host_needs_for_its_kernels() -> None:
    assert COST(1, 1, 1, 1) == pytest.approx(VLLM.eager_s * COST.kernels)
    assert COST(1, 1, 0, 0) < 0.5 * COST(1, 1, 1, 1)
    slow = replace(COST, engine=replace(VLLM, eager_s=0.0))
    assert COST(1, 1, 30_000, 30_000**2 / 2) == slow(1, 1, 30_000, 30_000**2 / 2)


def test_a_pass_of_nothing_but_one_token_reads_the_weights_once() -> None:
    held = replica(split=Split())
    seconds = pass_cost(held, replace(VLLM, launch=0.0, request_s=0.0))(1, 1, 0, 0)
    floor = weight_bytes(held) / held.chip.accelerator.hbm_Bps
    assert floor < seconds < 1.4 * floor


def test_an_engine_factor_of_two_doubles_the_starts_alone() -> None:
    twice = replace(COST, engine=replace(VLLM, launch=2 * VLLM.launch))
    assert twice(8, 8000, 0, 0) - COST(8, 8000, 0, 0) == pytest.approx(VLLM.launch * COST.kernels * COST.kernel_s)


def test_experts_over_attention_groups_exchange_and_overlap_hides_it() -> None:
    wide = pass_cost(replica("deepseek-r1", split=Split(1, 8, 1, 8)), VLLM)
    narrow = pass_cost(replica("deepseek-r1", split=Split(8, 1, 8, 1)), VLLM)
    assert max(wide.swap_s) > 0.0 == max(narrow.swap_s)
    serial = wide(512, 512 * 2000, 0, 0)
    half = wide(256, 256 * 2000, 0, 0)
    assert half < wide.overlapped(512, 512 * 2000, 0, 0) < serial + half


def test_a_reduction_among_one_rank_is_free() -> None:
    assert reduce_s(replica().cluster, np.ones(3), 1.0).tolist() == [0.0] * 3


def test_few_rows_take_a_small_tile() -> None:
    machine = replica().chip
    skinny, wide = (Operator("x", "gemm", "mlp", "mlp", m=m, n=4096, k=7168) for m in (1, 128))
    start = machine.kernels["bf16"].launch_s
    assert float(work_s(skinny, machine)) < float(forward_s(skinny, machine) - start)
    assert float(work_s(wide, machine)) == pytest.approx(float(forward_s(wide, machine) - start), rel=0.02)


def test_a_window_bounds_what_a_sequence_reads() -> None:
    oss = pass_cost(replica("gpt-oss-120b", split=Split(tp=1)), VLLM)
    full = sum(count for count, *_, window in oss.reads if not window)
    assert full == 18
    assert oss.cache(1, 1e6) < 0.6 * pass_cost(replica("llama-3.1-8b", split=Split(tp=1)), VLLM).cache(1, 1e6)


def test_cache_holds_what_weights_leave() -> None:
    held = replica("llama-3.1-70b", "h100-sxm", "fp8", Split(tp=4))
    device = held.chip.accelerator.usable_bytes
    assert cache_positions(held, 0.9, of_rest=False) * position_bytes(held) == pytest.approx(
        0.9 * device - weight_bytes(held) - 2e9
    )
    assert cache_positions(held, 0.9, of_rest=True) > cache_positions(held, 0.8, of_rest=True)


def test_a_model_too_large_leaves_no_position() -> None:
    assert cache_positions(replica("deepseek-r1", "h100-sxm", "fp8", Split(tp=4)), 0.9, of_rest=False) == 0.0


def test_costs_are_plain_numbers() -> None:
    assert isinstance(COST, PassCost)
    assert isinstance(COST(1, 1, 0, 0), float)


def test_a_pass_beyond_the_captured_graphs_waits_for_the_host() -> None:
    bounded = replace(COST, graphs=8)
    assert bounded(8, 8000, 0, 0) == COST(8, 8000, 0, 0)
    assert bounded(9, 9000, 0, 0) == pytest.approx(VLLM.eager_s * COST.kernels)
    assert sum(bounded.parts(9, 9000).values()) == pytest.approx(bounded(9, 9000, 0, 0))


def test_a_prompt_under_a_window_meets_no_more_than_the_window() -> None:
    long = 65536.0
    windowed = replace(COST, pair_s=tuple((pair_s, 128) for pair_s, _ in COST.pair_s))
    scores = [cost(0, 0, long, long * long / 2) - cost(0, 0, long, 0) for cost in (windowed, COST)]
    assert scores[0] / scores[1] == pytest.approx(128 / (long / 2))


@pytest.mark.parametrize(("part", "ranks", "gathers"), [("h200-sxm", 8, True), ("gb200", 32, False)])
def test_engines_gather_and_scatter_inside_one_box(part: str, ranks: int, gathers: bool) -> None:
    one = replica("deepseek-v3", part, "fp8", Split(1, ranks, 1, ranks))
    moe = next(kind.mlp for kind in one.model.layers if isinstance(kind.mlp, Moe))
    wire_s = 2 * (ranks - 1) * 256 * 7168 * 2.0 / accelerator(part).scale_up_Bps  # all rows in, all partial sums out
    assert (min(way[0] for way in swaps(one, moe, np.array([256.0])).values()) > wire_s) == gathers


def test_an_fp8_cache_doubles_the_arithmetic_of_reads_on_blackwell_alone() -> None:
    for part, ratio in (("b200-sxm", 2.0), ("h200-sxm", 1.0)):
        one = replica("deepseek-v3", part, "fp8")
        wide, narrow = (pass_cost(replace(one, kv_bytes=width), VLLM).reads[0][2] for width in (2.0, 1.0))
        assert wide / narrow == pytest.approx(ratio)
