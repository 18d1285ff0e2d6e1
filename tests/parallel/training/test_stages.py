"""The slowest stage against every contiguous split of the layer list."""

from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.training.stages import slowest_stage

BRACKET = 1e-11  # of the total: sums in another order

quick = settings(max_examples=50, deadline=None)
costs = st.one_of(st.integers(1, 6).map(float), st.floats(0.1, 10.0))
ends = st.one_of(st.just(0.0), st.integers(0, 12).map(float), st.floats(0.0, 30.0))
kinds = st.lists(st.tuples(costs, st.integers(1, 6)), min_size=1, max_size=2)


def brute_force(layers: list[float], stages: int, first: float, last: float) -> float:
    """Try every place of the stages-1 cuts; a stage may be left without layers (embedding or head alone)."""
    best = np.inf
    for cuts in combinations_with_replacement(range(len(layers) + 1), stages - 1):
        borders = (0, *cuts, len(layers))
        times = [sum(layers[a:b]) for a, b in pairwise(borders)]
        times[0] += first
        times[-1] += last
        best = min(best, max(times))
    return best


def split(layers: list[tuple[float, int]]) -> tuple[list[float], list[int]]:
    return [cost for cost, _ in layers], [count for _, count in layers]


@quick
@given(kinds, st.integers(1, 5), ends, ends)
def test_slowest_stage_equals_brute_force(
    layers: list[tuple[float, int]], stages: int, first: float, last: float
) -> None:
    listed = [cost for cost, count in layers for _ in range(count)]
    stages = min(stages, len(listed))
    found = float(slowest_stage([c for c, _ in layers], [n for _, n in layers], stages, first=first, last=last))
    expected = brute_force(listed, stages, first, last)
    assert found == pytest.approx(expected, abs=BRACKET * (first + last + sum(listed)))


@quick
@given(st.lists(st.tuples(costs, costs, ends, st.integers(1, 8)), min_size=1, max_size=6))
def test_columns_equal_scalars(rows: list[tuple[float, float, float, int]]) -> None:
    a, b, last, stages = (np.array(values) for values in zip(*rows, strict=True))
    together = slowest_stage([a, b], [3, 5], stages, last=last)
    alone = [float(slowest_stage([x, y], [3, 5], p, last=e)) for x, y, e, p in rows]
    assert together.tolist() == alone


@quick
@given(kinds, ends, ends)
def test_more_stages_are_never_slower_and_never_beat_the_mean(
    layers: list[tuple[float, int]], first: float, last: float
) -> None:
    stages = np.arange(1, 9)
    found = slowest_stage([c for c, _ in layers], [n for _, n in layers], stages, first=first, last=last)
    whole = first + last + sum(c * n for c, n in layers)
    assert np.all(np.diff(found) <= BRACKET * whole)
    assert np.all(found >= whole / stages * (1 - 1e-9))
    assert np.all(found >= max(first, last, *(c for c, _ in layers)) * (1 - 1e-9))
    assert found[0] == pytest.approx(whole)


@pytest.mark.parametrize(
    ("layers", "stages", "first", "last", "expected"),
    [
        (([1.0], [8]), 4, 0.0, 0.0, 2.0),  # 2 each
        (([1.0], [9]), 4, 0.0, 0.0, 3.0),  # one over
        (([1.0, 3.0], [3, 3]), 4, 0.0, 0.0, 3.0),  # 1 1 1 | 3 | 3 | 3
        (([1.0], [7]), 2, 1.0, 0.0, 4.0),  # embedding and 3, 4
        (([1.0], [2]), 3, 10.0, 10.0, 10.0),  # embedding alone, both layers, head alone
        (([0.1], [61]), 61, 0.0, 0.0, 0.1),  # one layer per stage
    ],
)
def test_hand_values(
    layers: tuple[list[float], list[int]], stages: int, first: float, last: float, expected: float
) -> None:
    assert float(slowest_stage(*layers, stages, first=first, last=last)) == pytest.approx(expected, rel=1e-6)


@quick
@given(kinds, st.integers(1, 4), st.integers(2, 3), ends, ends)
def test_chunks_that_the_layers_divide_over_hold_as_many_layers_each(
    layers: list[tuple[float, int]], stages: int, chunks: int, first: float, last: float
) -> None:
    listed = [cost for cost, count in layers for _ in range(count)]
    per_chunk, rest = divmod(len(listed), stages * chunks)
    found = float(slowest_stage(*split(layers), stages, first=first, last=last, chunks=chunks))
    if rest:
        assert found == float(slowest_stage(*split(layers), stages, first=first, last=last))
        return
    times = [0.0] * stages
    for index, cost in enumerate(listed):
        times[index // per_chunk % stages] += cost
    times[0] += first
    times[-1] += last
    assert found == pytest.approx(max(times))


def test_an_even_split_follows_the_order_of_the_kinds() -> None:
    # Two kinds in turn, one layer per chunk on two stages: every dear layer lands on the second.
    assert float(slowest_stage([1.0, 5.0], [4, 4], 2, chunks=4, order=(0, 1) * 4)) == 20.0
    assert float(slowest_stage([1.0, 5.0], [4, 4], 2, chunks=4)) == 12.0


def test_even_and_balanced_rows_stand_in_one_column() -> None:
    stages, chunks = np.array([2.0, 4.0, 4.0, 3.0]), np.array([2.0, 3.0, 1.0, 4.0])
    together = slowest_stage([1.0, 2.0], [4, 20], stages, last=0.5, chunks=chunks)
    alone = [
        float(slowest_stage([1.0, 2.0], [4, 20], p, last=0.5, chunks=v)) for p, v in zip(stages, chunks, strict=True)
    ]
    assert together.tolist() == alone


@quick
@given(kinds, st.integers(1, 4), ends, st.lists(st.integers(1, 4), min_size=2, max_size=2), st.integers(3, 12))
def test_a_stage_never_holds_more_than_the_limit(
    layers: list[tuple[float, int]], stages: int, last: float, sizes: list[int], limit: int
) -> None:
    listed = [(cost, sizes[kind]) for kind, (cost, count) in enumerate(layers) for _ in range(count)]
    best = np.inf
    for cuts in combinations_with_replacement(range(len(listed) + 1), stages - 1):
        parts = [listed[a:b] for a, b in pairwise((0, *cuts, len(listed)))]
        if all(sum(size for _, size in part) <= limit for part in parts):
            times = [sum(cost for cost, _ in part) for part in parts]
            best = min(best, max(*times[:-1], times[-1] + last) if stages > 1 else times[0] + last)
    found = slowest_stage(*split(layers), stages, last=last, sizes=sizes[: len(layers)], limit=limit)
    assert float(found) == pytest.approx(best, abs=BRACKET * (last + sum(cost for cost, _ in listed)))


def test_an_even_split_is_exact_and_not_the_end_of_a_bisection() -> None:
    assert float(slowest_stage([0.1], [64], 8)) == pytest.approx(0.8, rel=1e-14)


def test_deepseek_v3_on_16_stages_holds_four_expert_layers_at_most() -> None:
    # 3 dense and 58 expert layers of one second, head worth one: 62 seconds on 16 stages cannot be below 4.
    found = float(slowest_stage([1.0, 1.0], [3, 58], 16, last=1.0))
    assert found == pytest.approx(4.0, abs=62 * BRACKET)
