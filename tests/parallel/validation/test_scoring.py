"""Error tables against hand values and against their definitions."""

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.validation import scoring


def row(measured: float, predicted: float | None, group: str = "a", interval: tuple[float, float] | None = None):
    return {"measured": measured, "predicted": predicted, "group": group, "interval": interval}


def test_hand_values_of_one_group():
    figures = scoring.score([row(10, 9), row(10, 12), row(10, 16), row(10, None)])
    assert figures["n"] == 4
    assert figures["predicted"] == 3
    assert figures["skipped"] == 1
    assert figures["median_ape"] == pytest.approx(0.2)
    assert figures["mean_ape"] == pytest.approx((0.1 + 0.2 + 0.6) / 3)
    assert figures["p90_ape"] == pytest.approx(0.52)  # linear between the 2nd and 3rd of three: 0.2 + 0.8 · 0.4
    assert figures["bias"] == pytest.approx(0.2)


def test_bias_is_signed_where_the_error_is_not():
    figures = scoring.score([row(10, 9), row(10, 8), row(10, 7)])
    assert figures["bias"] == pytest.approx(-0.2)
    assert figures["median_ape"] == pytest.approx(0.2)


def test_a_figure_of_no_rows_is_none():
    figures = scoring.score([row(1, None)])
    assert [figures[key] for key in ("median_ape", "mean_ape", "p90_ape", "bias", "coverage", "width")] == [None] * 6


def test_macro_average_weighs_groups_not_rows():
    rows = [*(row(1, 1.1, "many") for _ in range(99)), row(1, 1.5, "few"), row(1, None, "unpredicted")]
    figures, groups = scoring.summary(rows)
    assert figures["median_ape"] == pytest.approx(0.1)
    assert figures["macro_median_ape"] == pytest.approx(0.3)
    assert set(groups) == {"many", "few", "unpredicted"}
    assert groups["unpredicted"]["median_ape"] is None


def test_coverage_and_width_use_only_rows_with_an_interval():
    rows = [row(10, 10, interval=(9, 11)), row(10, 10, interval=(11, 15)), row(10, 10)]
    assert scoring.coverage(rows) == pytest.approx(0.5)
    assert scoring.width(rows) == pytest.approx(0.3)


positive = st.floats(0.01, 100)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=30), st.randoms())
def test_figures_do_not_depend_on_the_order_or_the_unit(pairs, random):
    rows = [row(m, p) for m, p in pairs]
    shuffled = [row(1e3 * m, 1e3 * p) for m, p in random.sample(pairs, len(pairs))]
    before, after = scoring.score(rows), scoring.score(shuffled)
    for key, value in before.items():
        assert after[key] == (value if value is None else pytest.approx(value, rel=1e-9, abs=1e-12))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=30))
def test_median_and_mean_agree_with_the_standard_library(pairs):
    figures = scoring.score([row(m, p) for m, p in pairs])
    errors = [abs(p / m - 1) for m, p in pairs]
    assert figures["median_ape"] == pytest.approx(statistics.median(errors))
    assert figures["mean_ape"] == pytest.approx(statistics.fmean(errors))
    assert figures["median_ape"] <= figures["p90_ape"] + 1e-12 <= max(errors) + 1e-9
