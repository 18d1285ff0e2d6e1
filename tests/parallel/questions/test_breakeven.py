"""Break-evens against a fine grid, mirrored designs, and designs that never meet."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.explain.point import Point
from parallel.questions import breakeven
from parallel.questions.breakeven import axis, break_even, monotone
from parallel.questions.figures import moved, set_field
from parallel.questions.outcome import best_of
from topo.errors import SpecError

QUICK = {"override.accelerator.peak_bf16": "2000TFLOP/s", "override.accelerator.hbm_capacity": "60GB"}
ROOMY = {"override.accelerator.peak_bf16": "500TFLOP/s", "override.accelerator.hbm_capacity": "160GB"}
"""Arithmetic against room for larger batches: which one wins depends on the bandwidth of the memory."""


@pytest.fixture
def asked(point: Callable[..., Point]) -> Point:
    patient = point("decode", "llama-3.1-70b", "hgx-h100", 16)
    return replace(patient, serve=replace(patient.serve, tpot_s=10.0))


def test_the_bracket_holds_the_place_where_a_fine_grid_turns(asked: Point) -> None:
    over = axis("hbm-bandwidth=0.2TB/s..40TB/s")
    document = break_even(asked, QUICK, ROOMY, over, tolerance=0.01)
    (curve,) = document["curves"]
    assert len(curve["break_evens"]) >= 1
    for found in curve["break_evens"]:
        assert found["low"] < found["value"] < found["high"] <= found["low"] * 1.0101
        pair = breakeven._pairs(asked, (QUICK, ROOMY), over, {}, document["margin"])
        assert pair(found["low"])["ahead"] == found["before"] != found["after"] == pair(found["high"])["ahead"]
    assert document["points"] > 0
    assert "stops beating" in document["answer"]


def test_mirrored_designs_have_mirrored_answers(asked: Point) -> None:
    over = axis("hbm-bandwidth=0.2TB/s..40TB/s")
    one, other = (break_even(asked, *designs, over, grid=5) for designs in ((QUICK, ROOMY), (ROOMY, QUICK)))
    swap = {"a": "b", "b": "a", "even": "even", "none": "none"}
    for left, right in zip(one["curves"][0]["points"], other["curves"][0]["points"], strict=True):
        assert (left["value"], left["ahead"]) == (right["value"], swap[right["ahead"]])
        assert left["ratio"] == pytest.approx(1.0 / right["ratio"])


def test_who_always_wins_is_said_plainly(asked: Point) -> None:
    better = {"override.accelerator.hbm_bandwidth": "8TB/s"}
    document = break_even(asked, {}, better, axis("scale-up-bandwidth=300GB/s..900GB/s"), grid=3)
    assert document["curves"][0]["always"] == "b"
    assert document["curves"][0]["break_evens"] == []
    assert (
        "HBM bandwidth 8TB/s beats as it is everywhere in scale-up bandwidth 300 GB/s to 900 GB/s" in document["answer"]
    )
    assert "they never break even there" in document["answer"]


def test_designs_that_do_not_differ_where_it_counts_are_even(asked: Point) -> None:
    document = break_even(
        asked, {}, {"override.accelerator.peak_fp8": "3PFLOP/s"}, axis("hbm-bandwidth=3TB/s..5TB/s"), grid=2
    )
    assert document["curves"][0]["always"] == "even"
    assert "are even" in document["answer"]


def test_a_design_that_cannot_run_loses_and_says_why(asked: Point) -> None:
    document = break_even(
        asked, {}, {"override.accelerator.hbm_capacity": "9GB"}, axis("hbm-bandwidth=3TB/s..5TB/s"), grid=2
    )
    (curve,) = document["curves"]
    assert curve["always"] == "a"
    assert all(point["ratio"] is None and "memory" in point["broken"]["b"] for point in curve["points"])


def test_a_second_figure_gives_a_curve_for_each_of_its_values(asked: Point) -> None:
    document = break_even(
        asked,
        QUICK,
        ROOMY,
        axis("hbm-bandwidth=0.2TB/s..40TB/s"),
        axis("scale-up-bandwidth=100GB/s..900GB/s"),
        rows=3,
        grid=5,
    )
    assert [round(curve["across"] / 1e9) for curve in document["curves"]] == [100, 300, 900]
    assert document["answer"].startswith("At 100 GB/s of scale-up bandwidth: ")
    first = document["curves"][0]["points"][0]
    spec = asked.cluster
    for path, value in QUICK.items():
        spec = set_field(spec, path, value)
    spec = moved(spec, {axis("hbm-bandwidth=1..2").figure: 2e11, axis("scale-up-bandwidth=1..2").figure: 1e11})
    assert first["a"] == pytest.approx(best_of(asked, spec).tokens_per_s_per_gpu)


@settings(max_examples=40, deadline=None)
@given(st.floats(1.1, 60.0), st.floats(0.001, 0.2))
def test_bisection_closes_in_on_a_known_place(place: float, tolerance: float) -> None:
    over = axis("oversubscription=1..64")

    def pair(value: float) -> dict[str, object]:
        ahead = "a" if value < place else "b"
        return {"value": value, "ahead": ahead, "ratio": value / place, "points": 1}

    curve = breakeven._curve(pair, over, 5, tolerance)
    (found,) = curve["break_evens"]
    assert found["low"] <= place <= found["high"] <= found["low"] * (1 + tolerance) * (1 + 1e-12)
    assert curve["monotone"]


def test_whole_numbers_stay_whole() -> None:
    over = axis("accelerators=8..64")
    curve = breakeven._curve(
        lambda value: {"value": value, "ahead": "a" if value < 20 else "b", "ratio": 1.0, "points": 1}, over, 3, 1e-6
    )
    assert (curve["break_evens"][0]["low"], curve["break_evens"][0]["high"]) == (19.0, 20.0)
    assert all(point["value"].is_integer() for point in curve["points"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("oversubscription", "is no range"),
        ("oversubscription=8..1", "does not rise"),
        ("nic-bandwidth=4..oops", "is not a quantity"),
        ("oversubscripton=1..2", "did you mean oversubscription"),
    ],
)
def test_a_range_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        axis(text)


def test_every_fault_of_a_question_comes_at_once(asked: Point) -> None:
    over = axis("scale_out.nic=100Gb/s..200Gb/s")
    with pytest.raises(SpecError) as error:
        break_even(asked, {"scale_out.nic": "1Tb/s"}, {"scale_out.nic": "1Tb/s"}, over, over, grid=1)
    assert {fault.field for fault in error.value.faults} == {"designs", "over", "across", "grid"}


def test_ratios_that_turn_are_not_monotone() -> None:
    values = np.linspace(1, 2, 5).tolist()
    assert monotone(values)
    assert monotone(values[::-1])
    assert not monotone([*values, 1.0])
