"""Prices: every figure has a unit, a source and a range that holds it, and belongs to a part that exists."""

import pytest

from clusters import catalogue, entries
from clusters.build import list_rows
from clusters.economics import economics
from clusters.figures import DATA, read_yaml


def test_every_figure_has_its_unit_source_and_range():
    figures = [(section, figure) for section, held in economics().items() for figure in held.values()]
    assert len(figures) > 15
    for section, figure in figures:
        assert figure.unit in entries.ECONOMICS[section]
        assert figure.verified
        assert catalogue.sources()[figure.source].url
        assert figure.range is None or figure.range[0] <= figure.value <= figure.range[1]


def test_the_file_obeys_the_tables_that_a_users_own_obeys():
    sections = read_yaml((DATA / "economics.yaml").read_text(encoding="utf-8"))
    assert list(entries.economics_faults(sections, catalogue.sources(), "e.yaml", catalogue.names())) == []


def test_every_figure_has_a_range_or_says_that_its_source_is_the_only_one():
    rows = list_rows("economics")
    assert all(row["low"] is not None or row["note"].startswith("single source") for row in rows)
    assert sum(row["low"] is None for row in rows) <= 4


def test_every_source_that_a_note_names_is_known():
    notes = " ".join(row["note"] for row in list_rows("economics"))
    named = {word.strip("();,.:'") for word in notes.split() if "-" in word and word.strip("();,.:'")[0].isalpha()}
    strays = {word for word in named if word not in catalogue.sources()}
    assert not strays


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
        ("optics", "osfp-800g-power"),
        ("optics", "osfp-1600g-power"),
        ("optics", "co-packaged-1600g-power"),
        ("capital", "h100-sxm-all-in"),
        ("capital", "gb200-nvl72-rack"),
        ("capital", "vr200-nvl72-rack"),
        ("hosts", "gb300-nvl72-tray-power"),
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
