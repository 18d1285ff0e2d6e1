"""Even and balanced splits against every split there is, and against the value that sweeps price."""

from itertools import combinations_with_replacement, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.training.layouts import describe, of_sizes, stage_times
from parallel.training.splits import balanced_layout, even_layout, place
from parallel.training.stages import slowest_stage
from topo.errors import InfeasibleError, SpecError

quick = settings(max_examples=50, deadline=None)
costs = st.one_of(st.integers(1, 5).map(float), st.floats(0.5, 5.0))
ends = st.one_of(st.just(0.0), st.floats(0.0, 12.0))


def every_split(layers: int, virtual: int) -> list[list[int]]:
    cuts = combinations_with_replacement(range(layers + 1), virtual - 1)
    return [[b - a for a, b in pairwise((0, *cut, layers))] for cut in cuts]


@quick
@given(st.lists(st.integers(0, 1), min_size=1, max_size=9), costs, costs, st.integers(1, 4), ends, ends)
def test_a_balanced_split_is_the_best_and_the_most_even(
    order: list[int], a: float, b: float, stages: int, first: float, last: float
) -> None:
    layout = balanced_layout(order, [a, b], stages, first=first, last=last)
    found = stage_times(layout, order, [a, b], first=first, last=last)
    splits = [of_sizes(sizes, stages) for sizes in every_split(len(order), stages)]
    times = np.array([stage_times(split, order, [a, b], first=first, last=last) for split in splits])
    best = times.max(axis=1)
    assert found.max() == pytest.approx(best.min())
    alike = (times[best <= best.min() * (1 + 1e-9)] ** 2).sum(axis=1).min()
    assert (found**2).sum() == pytest.approx(alike)


@quick
@given(st.integers(0, 3), st.integers(1, 5), costs, costs, st.integers(1, 2), ends, ends)
def test_an_interleaved_split_is_the_best_there_is(
    dense: int, rest: int, a: float, b: float, stages: int, first: float, last: float
) -> None:
    order = [0] * dense + [1] * rest
    layout = balanced_layout(order, [a, b], stages, 2, first=first, last=last)
    splits = [of_sizes(sizes, stages) for sizes in every_split(len(order), 2 * stages)]
    best = min(stage_times(split, order, [a, b], first=first, last=last).max() for split in splits)
    found = stage_times(layout, order, [a, b], first=first, last=last).max()
    assert best * (1 - 1e-9) <= found <= best + max(a, b)


@pytest.mark.parametrize(("stages", "chunks"), [(8, 1), (16, 1), (4, 4), (2, 8), (8, 2), (16, 2), (5, 3)])
@pytest.mark.parametrize(("dense", "rest", "cost"), [(0, 61, 1.0), (3, 58, 0.4), (0, 126, 1.0), (0, 94, 1.0)])
def test_the_placement_is_as_fast_as_the_sweep_says(
    stages: int, chunks: int, dense: int, rest: int, cost: float
) -> None:
    order, times = (0,) * dense + (1,) * rest, [cost, 1.0]
    layout = place(order, times, stages, chunks, last=1.7, mtp=1)
    found = stage_times(layout, order, times, last=0.7, mtp=1.0).max()
    priced = slowest_stage(times, [dense, rest], stages, last=1.7, chunks=chunks, order=order)
    assert found == pytest.approx(float(priced), rel=1e-4)


def test_61_layers_stand_on_8_and_16_stages() -> None:
    order = (0,) * 3 + (1,) * 58
    eight, sixteen = (place(order, [0.4, 1.0], p, last=1.5, mtp=1) for p in (8, 16))
    assert describe(eight) == "8 stages: embedding + 9, 2 × 7, 4 × 8, 6 + MTP + head"
    assert (sixteen.layers, sixteen.stages) == (61, 16)
    assert stage_times(sixteen, order, [0.4, 1.0], last=0.5, mtp=1.0).max() == 4.0


def test_chunks_are_even_where_the_layers_divide_and_balanced_where_not() -> None:
    assert str(place((0,) * 16, [1.0], 4, 2, last=3.0)) == "Ett|(tt|)*6ttL"
    # 126 layers on 8 x 8 chunks: one layer less beside the embedding and the head, as MLPerf's entries count them.
    uneven = place((0,) * 126, [1.0], 8, 8, first=1.0, last=1.0)
    assert uneven == even_layout(126, 8, 8, count_embedding=True, count_loss=True)


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ({"layers": 8, "stages": 4}, "Ett|tt|tt|ttL"),
        ({"layers": 8, "stages": 2, "chunks": 4}, "Et|(t|)*6tL"),
        ({"layers": 14, "stages": 4, "count_embedding": True, "count_loss": True}, "Et*3|t*4|t*4|t*3L"),
        ({"layers": 61, "stages": 16, "last_layers": 1}, "Et*4|(t*4|)*14tL"),
        ({"layers": 61, "stages": 8, "first_layers": 7, "last_layers": 6}, "Et*7|(t*8|)*6t*6L"),
        (
            {"layers": 20, "stages": 4, "first_layers": 4, "last_layers": 4, "chunks": 2},
            "Ett|t*3|t*3|tt|tt|t*3|t*3|ttL",
        ),
    ],
)
def test_the_options_of_megatron_core_split_as_it_does(wish: dict[str, Any], text: str) -> None:
    assert str(even_layout(**wish)) == text


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"layers": 61, "stages": 8}, "61 layers do not divide over 8 stages"),
        ({"layers": 61, "stages": 16, "chunks": 4, "last_layers": 1}, "do not divide into 4 chunks"),
        ({"layers": 8, "stages": 4, "first_layers": 2, "count_loss": True}, "contradict"),
        ({"layers": 8, "stages": 2, "first_layers": 2, "last_layers": 2}, "4 layers do not divide over 0 stages"),
        ({"layers": 2, "stages": 4, "first_layers": 5}, "fewer layers than none"),
    ],
)
def test_an_even_split_that_does_not_divide_is_refused(wish: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        even_layout(**wish)


def test_a_stage_with_less_room_takes_fewer_layers() -> None:
    # One-forward-one-backward: stage i holds 4 - i micro-batches of a layer's activations.
    in_flight = np.array([4.0, 3.0, 2.0, 1.0])
    free = place((0,) * 12, [1.0], 4)
    tight = place((0,) * 12, [1.0], 4, sizes=[in_flight], limit=8.0)
    assert [c.layers for c in free.virtual] == [3, 3, 3, 3]
    assert [c.layers for c in tight.virtual] == [2, 2, 4, 4]
    even = place((0,) * 8, [1.0], 2, 2, sizes=[[3.0, 1.0]], limit=9.0)
    assert stage_times(even, (0,) * 8, [1.0]).tolist() == [3.0, 5.0]


def test_no_room_anywhere_is_infeasible_by_so_much() -> None:
    with pytest.raises(InfeasibleError, match="the leanest split exceeds it by 1 GB"):
        place((0,) * 12, [1.0], 4, sizes=[1e9], limit=2e9)
    with pytest.raises(InfeasibleError, match="memory of a stage"):
        place((0,) * 12, [1.0], 2, 3, sizes=[1e9], limit=2e9)
