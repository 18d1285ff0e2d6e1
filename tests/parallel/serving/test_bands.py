"""Bands about priced passes: what they rest on, and that answers beyond the runs say so."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.serving.bands import around, band, document

PHASES = ("prefill", "decode")


@pytest.mark.parametrize("phase", PHASES)
def test_bands_hold_nine_passes_in_ten_that_they_have_not_seen(phase: str) -> None:
    held = document()["held_out"][phase]["all"]
    assert held["n"] == document()["bands"][phase]["all"]["n"]
    assert 0.85 <= held["coverage"] <= 0.95


@pytest.mark.parametrize(("phase", "width"), [("prefill", "all"), ("prefill", "fp8"), ("decode", "fp8")])
def test_a_band_is_no_wider_than_four_median_errors(phase: str, width: str) -> None:
    entry = document()["bands"][phase][width]
    assert entry["low"] < entry["middle"] < entry["high"]
    assert entry["high"] - entry["low"] <= 4.0 * entry["median_ape"]


def test_a_band_with_long_tails_is_as_wide_as_nine_in_ten_of_its_errors() -> None:
    entry = document()["bands"]["decode"]["fp4"]  # half of its errors are below 5 %, one in ten is above 20
    assert entry["high"] - entry["low"] <= 2.5 * entry["p90_ape"]


def test_a_format_without_runs_of_its_own_has_the_band_of_all_and_says_so() -> None:
    limits, note = around("decode", "bf16", "h100-sxm", 8, 0.02)
    everything, own = band("decode", "bf16")
    assert limits == (everything.low, everything.high)
    assert not own
    assert "too few in bf16" in note


@pytest.mark.parametrize(
    ("part", "ranks", "seconds", "words"),
    [
        ("gb300", 64, 0.02, "none ran on gb300"),
        ("h100-sxm", 576, 0.02, "groups of 576 ranks"),
        ("h100-sxm", 64, 1e-4, "a pass under"),
    ],
)
def test_what_lies_beyond_the_runs_is_named(part: str, ranks: int, seconds: float, words: str) -> None:
    note = around("decode", "fp8", part, ranks, seconds)[1]
    assert words in note
    assert note.count("beyond them") == 1


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(PHASES), st.sampled_from(["fp8", "fp4", "bf16"]), st.integers(1, 2000), st.floats(1e-5, 10.0))
def test_every_pass_has_a_band_and_a_reason(phase: str, width: str, ranks: int, seconds: float) -> None:
    (low, high), note = around(phase, width, "h100-sxm", ranks, seconds)
    assert 0 < low < high
    assert note.split()[0].isdigit()
