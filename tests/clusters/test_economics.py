"""Prices: every figure has a unit, a source and a range that holds it, and belongs to a part that exists."""

import pytest

from clusters import catalogue
from clusters.build import list_rows
from clusters.economics import economics

UNITS = {"USD/h", "USD", "of capital", "of IT power", "ratio", "USD/kWh", "USD/kW-month", "W", "years", "per year"}


def test_every_figure_has_its_unit_source_and_range():
    figures = [figure for section in economics().values() for figure in section.values()]
    assert len(figures) > 15
    for figure in figures:
        assert figure.unit in UNITS
        assert figure.verified
        assert catalogue.sources()[figure.source].url
        assert figure.range is None or figure.range[0] <= figure.value <= figure.range[1]


def test_hours_are_those_of_accelerators_of_the_catalogue():
    assert {*economics()["gpu_hour"]} <= {*catalogue.names()}


def test_they_can_be_listed():
    rows = {row["name"]: row for row in list_rows("economics")}
    assert (rows["facility/pue"]["low"], rows["facility/pue"]["high"]) == (1.10, 1.58)
    assert rows["gpu_hour/h100-sxm"]["unit"] == "USD/h"


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("capital", "lifetime"),
        ("capital", "financing-rate"),
        ("facility", "pue"),
        ("facility", "electricity"),
        ("facility", "cooling"),
        ("gpu_hour", "h100-sxm"),
        ("hosts", "dgx-h100-power"),
        ("optics", "osfp-1600g-power"),
    ],
)
def test_what_a_bill_of_ownership_needs_has_a_default_inside_a_range(section, key):
    figure = economics()[section][key]
    assert figure.range is not None
    assert figure.range[0] < figure.range[1]


def test_cooling_is_nine_tenths_of_what_the_facility_adds():
    cooling, pue = economics()["facility"]["cooling"], economics()["facility"]["pue"]
    assert cooling.value == pytest.approx(0.9 * (pue.value - 1))
    assert cooling.range == pytest.approx([0.9 * (bound - 1) for bound in pue.range], abs=0.005)
