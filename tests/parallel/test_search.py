"""Fronts and winners: against brute force, and the same for any partition of the rows."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.search import Found, merge, pareto

FEW = st.integers(0, 6).map(float)  # few values: ties are common
POINTS = st.lists(st.tuples(FEW, FEW), max_size=40)
quick = settings(max_examples=60, deadline=None)


def beaten(point, others):
    """Whether another point is as good in both objectives and better in one."""
    return any(o[0] >= point[0] and o[1] >= point[1] and o != point for o in others)


def same(a: Found, b: Found) -> None:
    for item in fields(Found):
        left, right = getattr(a, item.name), getattr(b, item.name)
        if isinstance(left, np.ndarray):
            assert np.array_equal(left, right), item.name
            assert left.dtype == right.dtype
        else:
            assert left == right, item.name


def reduced(points, lo, hi) -> Found:
    """What a block of rows lo … hi-1 comes to, written without the library's fronts: latency is 1/x, y the objective."""
    rows = range(lo, hi)
    ok = [row for row in rows if points[row][0] > 0]
    front = [
        row
        for row in ok
        if not beaten(points[row], [points[o] for o in ok]) and points[row] not in [points[o] for o in ok if o < row]
    ]
    front.sort(key=lambda row: -points[row][0])
    best = max(ok, key=lambda row: (points[row][1], -row), default=-1)
    nearest = max(ok, key=lambda row: (points[row][0], -row), default=-1)
    rejected = {"zero": len(rows) - len(ok)} if len(ok) < len(rows) else {}
    return Found(
        points=len(rows),
        feasible=len(ok),
        rejected=rejected,
        front=np.array(front, dtype=np.int64),
        front_x=np.array([points[row][0] for row in front], dtype=np.float64),
        front_y=np.array([points[row][1] for row in front], dtype=np.float64),
        best=best,
        best_value=points[best][1] if best >= 0 else -np.inf,
        nearest=nearest,
        nearest_value=1.0 / points[nearest][0] if nearest >= 0 else np.inf,
    )


@quick
@given(POINTS)
def test_the_front_is_what_brute_force_leaves(points):
    x, y = (
        (np.array(column, dtype=np.float64) for column in zip(*points, strict=True)) if points else (np.empty(0),) * 2
    )
    front = pareto(x, y).tolist()
    assert {points[row] for row in front} == {point for point in points if not beaten(point, points)}
    assert all(points.index(points[row]) == row for row in front)  # of equals the first
    assert np.all(np.diff(x[front]) < 0)
    assert np.all(np.diff(y[front]) > 0)


def test_one_row_is_its_own_front_and_none_has_none():
    assert pareto(np.array([3.0]), np.array([1.0])).tolist() == [0]
    assert pareto(np.empty(0), np.empty(0)).tolist() == []


@quick
@given(POINTS, st.data())
def test_any_partition_merged_in_order_finds_the_same(points, data):
    size = len(points)
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=6)))
    found = Found()
    for lo, hi in zip([0, *cuts], [*cuts, size], strict=True):
        found = merge(found, reduced(points, lo, hi))
    same(found, merge(Found(), reduced(points, 0, size)))


@quick
@given(POINTS, POINTS, POINTS)
def test_merging_is_associative(a, b, c):
    points = a + b + c
    first, second, third = len(a), len(a) + len(b), len(points)
    parts = reduced(points, 0, first), reduced(points, first, second), reduced(points, second, third)
    same(merge(merge(parts[0], parts[1]), parts[2]), merge(parts[0], merge(parts[1], parts[2])))


@quick
@given(POINTS)
def test_nothing_is_the_identity(points):
    found = reduced(points, 0, len(points))
    same(merge(found, Found()), merge(Found(), found))
    same(merge(found, Found()), found)


@pytest.mark.parametrize("first", [True, False])
def test_of_equal_values_the_lower_index_wins_whatever_the_order(first):
    low = Found(points=1, feasible=1, best=3, best_value=7.0, nearest=4, nearest_value=0.5)
    high = Found(points=1, feasible=1, best=9, best_value=7.0, nearest=8, nearest_value=0.5)
    both = merge(low, high) if first else merge(high, low)
    assert (both.best, both.nearest) == (3, 4)


def test_an_infeasible_part_does_not_hide_a_feasible_one():
    good = Found(points=1, feasible=1, best=5, best_value=0.0, nearest=5, nearest_value=1.0)
    assert merge(Found(points=9), good).best == 5
    assert merge(good, Found(points=9)).best == 5
    assert merge(Found(), Found()).best == -1


def test_reasons_of_rejection_add_up():
    both = merge(Found(rejected={"memory": 2, "heads": 1}), Found(rejected={"memory": 3, "TPOT limit": 4}))
    assert both.rejected == {"TPOT limit": 4, "heads": 1, "memory": 5}
