"""Interleaved chunks of unequal layers, against the executed schedule."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from collectives.pipelines import SCHEDULES, Costs, step_s
from parallel.training.layouts import chunk_times
from parallel.training.stages import slowest_stage
from parallel.training.uneven import dealt, eighths, layout, stretch, stretched, uneven


def closed_s(layers: int, stages: int, chunks: int, microbatches: int, end: float) -> float:
    """Seconds of the closed form, layers of one second."""
    slow = float(slowest_stage([1.0], [layers], stages, last=end, chunks=chunks))
    return microbatches * slow + (layers + end - slow) / chunks


def executed_s(layers: int, stages: int, chunks: int, microbatches: int, end: float, forward: float) -> float:
    """Seconds of the executed schedule on the placement that is priced."""
    parts = eighths([np.array([1.0])], np.array([end]))[:, 0].tolist()
    times = chunk_times(layout((0,) * layers, parts, stages, chunks), (0,) * layers, [1.0], last=end)
    costs = Costs(times * forward, times * (1 - forward) / 2, times * (1 - forward) / 2)
    return float(step_s(SCHEDULES["interleaved"].order(stages, microbatches, chunks), costs))


def beyond_s(layers: int, stages: int, chunks: int, microbatches: int, end: float) -> float:
    """Seconds that are priced beyond the closed form."""
    numbers = [np.array([float(x)]) for x in (end, stages, chunks, microbatches)]
    return float(stretched((0,) * layers, [np.ones(1)], *numbers)[0]) * (layers + end)


@given(
    stages=st.integers(2, 12),
    chunks=st.integers(2, 5),
    rounds=st.integers(1, 6),
    more=st.integers(1, 60),
    end=st.floats(0.0, 3.0),
    forward=st.floats(0.25, 0.4),
)
@example(stages=16, chunks=7, rounds=1, more=14, end=0.6, forward=1 / 3)
@settings(max_examples=40, deadline=None)
def test_the_price_is_the_executed_step_to_4_percent(
    stages: int, chunks: int, rounds: int, more: int, end: float, forward: float
) -> None:
    layers, m = stages * chunks + more, rounds * stages
    assume(layers % (stages * chunks))
    executed = executed_s(layers, stages, chunks, m, end, forward)
    priced = closed_s(layers, stages, chunks, m, end) + beyond_s(layers, stages, chunks, m, end)
    assert priced == pytest.approx(executed, rel=0.04)


def test_the_closed_form_alone_misses_a_sixth() -> None:
    """46 layers on 2 × 16 chunks: full stages of three layers, in chunks of one and two."""
    executed = executed_s(46, 16, 2, 128, 0.3, 1 / 3)
    assert closed_s(46, 16, 2, 128, 0.3) < 0.9 * executed
    assert closed_s(46, 16, 2, 128, 0.3) + beyond_s(46, 16, 2, 128, 0.3) == pytest.approx(executed, rel=0.01)


def test_chunks_that_are_alike_add_nothing() -> None:
    assert not uneven(96, np.array([8.0]), np.array([4.0]))[0]
    assert beyond_s(96, 8, 4, 32, 1.7) == 0.0
    assert stretch((0,) * 96, (8,), 0, 8, 4)[:, 0] == pytest.approx(0.0, abs=1e-12)


def test_a_step_between_two_rounds_lies_between_theirs() -> None:
    at = [beyond_s(46, 16, 2, m, 0.3) for m in (16, 24, 32, 40, 48, 64)]
    assert at[1] == pytest.approx((at[0] + at[2]) / 2)
    assert at[3] == pytest.approx((at[2] + at[4]) / 2)
    assert at[5] - at[4] == pytest.approx(at[4] - at[2])


def test_columns_are_rows_side_by_side() -> None:
    rows = [(46, 16, 2, 64, 0.3), (46, 8, 3, 16, 9.0), (46, 8, 1, 16, 0.3), (46, 8, 3, 24, 0.3)]
    _, p, v, m, end = (np.array(x, dtype=float) for x in zip(*rows, strict=True))
    together = stretched((0,) * 46, [np.ones(4)], end, p, v, m) * (46 + end)
    assert together.tolist() == [beyond_s(*row) for row in rows]


@given(layers=st.integers(4, 130), stages=st.integers(2, 16), chunks=st.integers(2, 8), end=st.floats(0.0, 6.0))
@settings(max_examples=60, deadline=None)
def test_layers_are_dealt_once_and_as_evenly_as_they_go(layers: int, stages: int, chunks: int, end: float) -> None:
    assume(layers >= stages * chunks)
    counts = dealt(layers, stages, chunks, end)
    assert counts.sum() == layers
    assert counts.min() >= 0
    each = counts.sum(axis=0)
    assert (
        max(each[:-1].max(), each[-1] + end) == float(slowest_stage([1.0], [layers], stages, last=end))
        or each[:-1].max() - each[:-1].min() <= 1
    )
    assert np.all(counts[:, :-1].max(axis=1) - counts[:, :-1].min(axis=1) <= 1)


def test_a_layer_that_is_nearly_nothing_still_counts() -> None:
    assert eighths([np.array([1e-6]), np.array([1.0])], np.array([0.0]))[:, 0].tolist() == [1, 8, 0]
