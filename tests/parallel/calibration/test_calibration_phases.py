"""Bands of measured/predicted: order statistics where there are enough rows, Student's where there are few."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.calibration import phases
from parallel.serving.bands import document
from parallel.validation.phases import measured, predicted_s, rows


@pytest.fixture(scope="module")
def scored() -> list[phases.Row]:
    return rows()


def test_shipped_bands_are_those_of_the_shipped_rows(scored: list[phases.Row]) -> None:
    made = phases.bands(scored)
    for phase, held in document()["bands"].items():
        assert {name: entry["n"] for name, entry in made[phase].items()} == {name: e["n"] for name, e in held.items()}
        for name, entry in held.items():
            assert [made[phase][name][end] for end in ("low", "high")] == pytest.approx(
                [entry[end] for end in ("low", "high")], rel=0.05
            )


def test_nine_rows_in_ten_lie_in_their_interval(scored: list[phases.Row]) -> None:
    inside = [row["interval"][0] <= row["measured"] <= row["interval"][1] for row in scored]
    assert 0.88 <= np.mean(inside) <= 1.0


def test_rows_are_of_three_kinds_and_reach_production_groups(scored: list[phases.Row]) -> None:
    assert {row["kind"].split(", ")[1] for row in scored} == {"steady state", "decode worker", "prompt alone"}
    assert max(row["ranks"] for row in scored) == 144
    assert sum(row["phase"] == "decode" for row in scored) > 100


def test_the_batch_of_a_decode_worker_is_littles() -> None:
    """4 clients, 921.6 answer tokens of 5.317 ms each and 195.5 ms to the first: 3.85 decode at once, on 4 workers of 8."""
    first = next(row for row in measured() if row.id == "kimik2_5_gb200_trtllm_fp4_disagg_1024x1024_c4_cfg759")
    decoding = 4 * 921.6 * 5.316830920749418 / (195.51323120103916 + 921.6 * 5.316830920749418)
    assert first.batch * first.ranks == pytest.approx(decoding / 4)
    assert first.seconds == pytest.approx(5.316830920749418e-3)
    assert predicted_s(first) is not None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.2, 5.0), min_size=2, max_size=60))
def test_a_band_holds_all_rows_but_one_in_twenty_at_either_end(ratios: list[float]) -> None:
    low, high = phases.ends(ratios)
    out = sum(ratio < low * (1 - 1e-12) for ratio in ratios), sum(ratio > high * (1 + 1e-12) for ratio in ratios)
    assert max(out) <= 0.05 * (len(ratios) + 1)


def test_the_next_draw_lies_in_a_band_of_few_as_often_as_it_should() -> None:
    draw = np.random.default_rng(7)
    for n in (5, 25):
        hits = [
            low <= x[-1] <= high for x in draw.lognormal(0, 0.2, (400, n + 1)) for low, high in [phases.ends(x[:-1])]
        ]
        assert np.mean(hits) > 0.86
