"""Pipelines under engines, tied to an exact event simulation of micro-batches on stages."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.build import build
from clusters.catalogue import accelerator
from clusters.spec import parse
from parallel.io import read_model
from parallel.roofline import chip
from parallel.serving.engines import engine, serving_recipe
from parallel.serving.passes import (
    GRID,
    Replica,
    Split,
    cache_positions,
    pass_cost,
    position_bytes,
    stage_counts,
    weight_bytes,
)
from parallel.serving.pipelines import Pipeline, crossings, pipeline

VLLM = engine("vllm")


def replica(model: str, split: Split, accelerators: int = 32) -> Replica:
    cluster = build(parse({"accelerator": "h200-sxm", "accelerators": accelerators}))
    held, part = read_model(model), accelerator("h200-sxm")
    return Replica(held, cluster, chip(part, serving_recipe(held, "fp8", part)), split, 1.0)


LLAMA = replica("llama-3.1-70b", Split(tp=4, pp=4))
DEEPSEEK = replica("deepseek-v3", Split(tp=8, etp=1, ep=8, pp=4))
PIPES = {"llama": pipeline(LLAMA, VLLM, 2048.0), "deepseek": pipeline(DEEPSEEK, VLLM, 2048.0)}

Work = tuple[float, float, float, float]


def stages_of(held: Replica, pipe: Pipeline) -> list[int]:
    """Index into `pipe.stages` of every stage, from the first to the last."""
    counts = stage_counts(held.model, held.split.pp)
    kinds = [(count, at == len(counts) - 1) for at, count in enumerate(counts)]
    order = list(dict.fromkeys(kinds))
    return [order.index(kind) for kind in kinds]


def ended(held: Replica, pipe: Pipeline, cycles: Sequence[Sequence[Work]]) -> np.ndarray:
    """When each micro-batch of each cycle has come through: stages serve in order, a pass begins as the last one is through."""
    stages, parts = stages_of(held, pipe), len(cycles[0])
    free, ready, found = [0.0] * len(stages), [0.0] * parts, []
    for cycle in cycles:
        for batch, work in enumerate(cycle):
            hop = np.interp(work[0] + work[2], GRID, pipe.hops_s) / (len(stages) - 1)
            now = ready[batch]
            for stage, kind in enumerate(stages):
                now = max(now, free[stage]) + pipe.stages[kind][1](*work)
                free[stage] = now
                now += hop if stage + 1 < len(stages) else pipe.back_s
            ready[batch] = now
        found.append(list(ready))
    return np.array(found)


@pytest.mark.parametrize("name", PIPES)
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 32, 512])
def test_cycles_are_as_long_as_those_of_every_single_pass_on_every_stage(name: str, batch: int) -> None:
    held, pipe = {"llama": LLAMA, "deepseek": DEEPSEEK}[name], PIPES[name]
    parts = min(batch, pipe.depth)
    each = (batch / parts, batch / parts * 4000.0, 0.0, 0.0)
    times = ended(held, pipe, [[each] * parts] * 20)
    cycle = (times[-1] - times[9]).mean() / 10
    assert pipe(batch, batch * 4000.0, 0.0, 0.0) == pytest.approx(cycle, rel=0.01)


EACH, TOKENS = 16.0, 2000.0
BARE = (EACH, EACH * 4000.0, 0.0, 0.0)
FED = (EACH, EACH * 4000.0, TOKENS, TOKENS * 4000.0)


def added(pipe: Pipeline, chunks: int) -> float:
    """Seconds that so many chunks add to a cycle."""
    fed = pipe(4 * EACH, 4 * EACH * 4000.0, chunks * TOKENS, chunks * TOKENS * 4000.0)
    return fed - pipe(4 * EACH, 4 * EACH * 4000.0, 0.0, 0.0)


def delay(held: Replica, pipe: Pipeline, chunks: int, fed_cycles: int) -> float:
    """Seconds by which such cycles delay all that comes after."""
    fed, bare = [FED] * chunks + [BARE] * (4 - chunks), [BARE] * 4
    with_prompts = [bare] * 10 + [fed] * fed_cycles + [bare] * 10
    last = ended(held, pipe, with_prompts)[-1] - ended(held, pipe, [bare] * len(with_prompts))[-1]
    return float(last.mean())


@pytest.mark.parametrize("name", PIPES)
@pytest.mark.parametrize("cycles", [1, 10])
def test_one_chunk_in_a_cycle_delays_everyone_by_all_that_it_adds(name: str, cycles: int) -> None:
    held, pipe = {"llama": LLAMA, "deepseek": DEEPSEEK}[name], PIPES[name]
    assert cycles * added(pipe, 1) == pytest.approx(delay(held, pipe, 1, cycles), rel=0.05)


@pytest.mark.parametrize("name", PIPES)
@pytest.mark.parametrize("chunks", [2, 4])
def test_chunks_that_follow_each_other_share_one_delay(name: str, chunks: int) -> None:
    held, pipe = {"llama": LLAMA, "deepseek": DEEPSEEK}[name], PIPES[name]
    more = delay(held, pipe, chunks, 30) - delay(held, pipe, chunks, 10)
    assert 20 * added(pipe, chunks) == pytest.approx(more, rel=0.05)
    alone = delay(held, pipe, chunks, 1)  # the last chunk of a lone burst is through (c − 1) slots after the cycle
    assert added(pipe, chunks) * (1 + (chunks - 1) / 4) == pytest.approx(alone, rel=0.06)


@pytest.mark.parametrize("chunks", [1, 3, 4, 5, 8])
def test_a_first_token_comes_when_the_last_chunk_is_through(chunks: int) -> None:
    pipe, tokens = PIPES["llama"], 2048.0
    isl = chunks * tokens
    works = [(0.0, 0.0, tokens, tokens * isl / 2.0)] * chunks
    cycles = [[work] for work in works]
    stages, free, now = stages_of(LLAMA, pipe), [0.0] * 4, 0.0
    for (work,) in cycles:
        now = 0.0
        for stage, kind in enumerate(stages):
            now = max(now, free[stage]) + pipe.stages[kind][1](*work)
            free[stage] = now
            now += np.interp(tokens, GRID, pipe.hops_s) / 3 if stage < 3 else pipe.back_s
    told, left = pipe.lag_s(isl), float(chunks)
    while left > 0:
        fed = min(left, 4.0) * tokens
        told, left = told + pipe(0.0, 0.0, fed, fed * isl / 2.0), left - 4.0
    assert told == pytest.approx(now, rel=0.03)


def test_one_sequence_takes_all_stages_one_after_the_other() -> None:
    pipe, whole = PIPES["llama"], pass_cost(LLAMA, VLLM)
    hops = pipe.hops_s[0] + pipe.back_s
    assert pipe(1, 4000, 0, 0) == pytest.approx(whole(1, 4000, 0, 0) + hops, rel=1e-9)


def test_many_sequences_are_bounded_by_the_slowest_stage() -> None:
    pipe = PIPES["deepseek"]
    slowest = max(cost(256, 256 * 4000.0, 0, 0) for _, cost in pipe.stages)
    assert 1024 / pipe(1024, 1024 * 4000.0, 0, 0) == pytest.approx(256 / slowest)


def test_the_terms_of_a_cycle_add_up() -> None:
    for pipe in PIPES.values():
        for batch in (1, 3, 64, 777):
            assert sum(pipe.parts(batch, batch * 3000.0).values()) == pytest.approx(pipe(batch, batch * 3000.0, 0, 0))


def test_one_stage_is_no_pipeline() -> None:
    one = replica("llama-3.1-70b", Split(tp=4))
    assert stage_counts(one.model, 1) == ((80,),)
    assert weight_bytes(one) == weight_bytes(replica("llama-3.1-70b", Split(tp=4, pp=1)))


def test_stages_free_weights_but_a_sequence_needs_as_much_cache_on_all_of_them() -> None:
    one, four = replica("llama-3.1-70b", Split(tp=4)), LLAMA
    assert weight_bytes(four) < weight_bytes(one) / 3.5
    assert 4 * position_bytes(four) == pytest.approx(position_bytes(one))
    assert cache_positions(four, 0.9, of_rest=False) > 4 * cache_positions(one, 0.9, of_rest=False)


@given(st.integers(1, 61))
@settings(max_examples=30, deadline=None)
def test_every_layer_has_its_stage(stages: int) -> None:
    model = read_model("deepseek-v3")
    counts = stage_counts(model, stages)
    assert np.array(counts).sum(axis=0).tolist() == [3, 58]
    sizes = [sum(kinds) for kinds in counts]
    assert max(sizes) - min(sizes) <= 1
    assert sizes[-1] == min(sizes)


def test_hops_cross_boxes_only_where_stages_do() -> None:
    cluster = build(parse({"accelerator": "h200-sxm", "accelerators": 32}))
    assert dict(crossings(cluster, 4, 8)) == {1: 3}
    assert dict(crossings(cluster, 2, 4)) == {0: 1}
