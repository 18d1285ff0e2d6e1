"""Fronts, winners and counts: against brute force, and the same for any partition of the rows in any order."""

import json
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.sweeps.found import (
    BINS_PER_DECADE,
    Found,
    above,
    bin_edge,
    binned,
    from_json,
    merge,
    merged,
    pareto,
    ranked,
    to_json,
)

Point = tuple[float, ...]
Same = Callable[[Found, Found], None]
FEW = st.integers(0, 6).map(float)  # few values: ties are common
quick = settings(max_examples=60, deadline=None)
MOST = 3


def points_of(width: int) -> st.SearchStrategy[list[Point]]:
    return st.lists(st.tuples(*[FEW] * width), max_size=40)


def beaten(point: Point, others: Sequence[Point]) -> bool:
    """Whether another point is as good in all objectives and better in one."""
    return any(o != point and all(x >= y for x, y in zip(o, point, strict=True)) for o in others)


def reduced(points: Sequence[Point], rows: Sequence[int]) -> Found:
    """What some rows come to, written without the library's fronts: latency is 1/x, ranked by the last objective."""
    ok = [row for row in sorted(rows) if points[row][0] > 0]
    front = [
        row
        for row in ok
        if not beaten(points[row], [points[o] for o in ok]) and points[row] not in [points[o] for o in ok if o < row]
    ]
    front.sort(key=lambda row: tuple(-value for value in points[row]))
    top = sorted(ok, key=lambda row: (-points[row][-1], row))[:MOST]
    nearest = max(ok, key=lambda row: (points[row][0], -row), default=-1)
    width = len(points[0]) if points else 2
    return Found(
        points=len(rows),
        feasible=len(ok),
        rejected={"zero": len(rows) - len(ok)} if len(ok) < len(rows) else {},
        front=np.array(front, dtype=np.int64),
        front_values=np.array([points[row] for row in front], dtype=np.float64).reshape(-1, width),
        top=np.array(top, dtype=np.int64),
        top_values=np.array([points[row][-1] for row in top], dtype=np.float64),
        most=MOST,
        nearest=nearest,
        nearest_value=1.0 / points[nearest][0] if nearest >= 0 else np.inf,
        counts=binned(np.array([points[row][-1] for row in ok], dtype=np.float64)),
        poisoned=tuple((row, "boom") for row in sorted(rows) if points[row][-1] == 6.0),
        islands=tuple(sorted(points[row][-1] for row in ok)),
    )


@quick
@given(st.integers(1, 3).flatmap(points_of))
def test_the_front_is_what_brute_force_leaves(points: list[Point]) -> None:
    columns = [np.array(column, dtype=np.float64) for column in zip(*points, strict=True)] or [np.empty(0)] * 2
    front = pareto(*columns).tolist()
    assert {points[row] for row in front} == {point for point in points if not beaten(point, points)}
    assert all(points.index(points[row]) == row for row in front)  # of equals the first
    assert [points[row] for row in front] == sorted((points[row] for row in front), reverse=True)


@quick
@given(points_of(3))
def test_the_front_of_three_objectives_is_large_where_none_beats_another(points: list[Point]) -> None:
    spread = [(x, y, -x - y) for x, y, _ in dict.fromkeys(points)]
    columns = [np.array([p[k] for p in spread]) for k in range(3)]
    assert sorted(spread[row] for row in pareto(*columns)) == sorted(set(spread))


@pytest.mark.parametrize("width", [1, 2, 3])
def test_one_row_is_its_own_front_and_none_has_none(width: int) -> None:
    assert pareto(*[np.array([3.0])] * width).tolist() == [0]
    assert pareto(*[np.empty(0)] * width).tolist() == []


@quick
@given(points_of(2).filter(bool), points_of(2).filter(bool))
def test_rows_that_a_front_reaches_are_those_that_cannot_join_it(held: list[Point], new: list[Point]) -> None:
    front = np.array(held)[pareto(*np.array(held).T)]
    passed = above(front, np.array(new))
    for point, is_above in zip(new, passed, strict=True):
        assert is_above == (not any(all(f >= v for f, v in zip(row, point, strict=True)) for row in front.tolist()))


@quick
@given(st.integers(1, 3).flatmap(points_of), st.data())
def test_any_partition_merged_in_any_order_gives_the_same_bits(
    same: Same, points: list[Point], data: st.DataObject
) -> None:
    owner = data.draw(st.lists(st.integers(0, 4), min_size=len(points), max_size=len(points)))
    parts = [reduced(points, [row for row in range(len(points)) if owner[row] == part]) for part in range(5)]
    expected = merge(Found(), reduced(points, range(len(points))))
    same(merged(data.draw(st.permutations(parts))), expected)


@quick
@given(points_of(2), st.integers(0, 40), st.integers(0, 40))
def test_merging_is_associative_and_commutative(same: Same, points: list[Point], one: int, other: int) -> None:
    low, high = sorted((min(one, len(points)), min(other, len(points))))
    spans = (range(low), range(low, high), range(high, len(points)))
    a, b, c = (reduced(points, span) for span in spans)
    same(merge(merge(a, b), c), merge(a, merge(b, c)))
    same(merge(a, b), merge(b, a))


@quick
@given(points_of(2))
def test_nothing_is_the_identity(same: Same, points: list[Point]) -> None:
    found = reduced(points, range(len(points)))
    same(merge(found, Found()), found)
    same(merge(Found(), found), found)


@quick
@given(points_of(2))
def test_a_strategy_that_two_climbs_end_at_is_kept_once(points: list[Point]) -> None:
    found = reduced(points, range(len(points)))
    twice = merge(found, found)
    assert twice.top.tolist() == found.top.tolist()
    assert twice.front.tolist() == found.front.tolist()
    assert twice.poisoned == found.poisoned


@quick
@given(st.integers(1, 3).flatmap(points_of), st.floats(1e-300, 1e300))
def test_json_gives_back_every_bit(same: Same, points: list[Point], scale: float) -> None:
    scaled = [tuple(float(np.nextafter(value * 0.1 + 0.1, scale)) for value in point) for point in points]
    for found in (reduced(scaled, range(len(scaled))), Found(nearest_value=float("inf"), islands=(-np.inf, 0.1))):
        same(from_json(json.loads(json.dumps(to_json(found)))), found)


@quick
@given(st.lists(FEW, max_size=200), st.integers(1, 5))
def test_the_best_are_those_that_sorting_all_gives(values: list[float], most: int) -> None:
    index = np.arange(len(values)) * 3
    kept, best = ranked(index, np.array(values), most)
    expected = sorted(range(len(values)), key=lambda row: (-values[row], row))[:most]
    assert kept.tolist() == [3 * row for row in expected]
    assert best.tolist() == [values[row] for row in expected]


@quick
@given(st.lists(st.floats(1e-8, 1e11), max_size=50), st.integers(0, 50))
def test_histograms_count_every_value_once_in_its_bin_and_add_up(values: list[float], cut: int) -> None:
    counts = binned(np.array(values))
    assert counts.sum() == len(values)
    assert np.array_equal(binned(np.array(values[:cut])) + binned(np.array(values[cut:])), counts)
    for value in values:
        place = int(np.flatnonzero(binned(np.array([value])))[0])
        assert bin_edge(place) * (1 - 1e-6) <= value <= bin_edge(place + 1) * (1 + 1e-6)


def test_values_beyond_a_histogram_fall_into_its_ends() -> None:
    counts = binned(np.array([0.0, 1e-30, 1e30]))
    assert (counts[0], counts[-1], counts.sum()) == (2, 1, 3)
    assert bin_edge(BINS_PER_DECADE) / bin_edge(0) == pytest.approx(10.0)


def test_more_of_the_best_are_kept_where_one_side_keeps_more(same: Same) -> None:
    points: list[Point] = [(1.0, float(v)) for v in range(5)]
    few, many = Found(), reduced(points, range(5))
    same(reduce(merge, [few, many, few]), many)
    assert many.top.tolist() == [4, 3, 2]
