"""Quantities: parsed as people write them, refused with what to write, and back again."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.units import EXAMPLES, UNITS, format_quantity, parse_quantity, to_si


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("400Gb/s", "bandwidth", 50e9),
        ("400 Gbps", "bandwidth", 50e9),
        ("900 GB/s", "bandwidth", 900e9),
        ("1.8TB/s", "bandwidth", 1.8e12),
        ("1GiB/s", "bandwidth", 2.0**30),
        ("80GB", "bytes", 80e9),
        ("80 GiB", "bytes", 80 * 2.0**30),
        ("700ns", "seconds", 700e-9),
        ("2 µs", "seconds", 2e-6),
        ("100k", "count", 100_000),
        ("1_024", "count", 1024),
        ("2.5PFLOP/s", "flops", 2.5e15),
        ("1.2kW", "power", 1200),
        ("35kUSD", "price", 35_000),
        ("1e9", "bandwidth", 1e9),
        (5e10, "bandwidth", 5e10),
        (np.int64(8), "count", 8),
    ],
)
def test_a_quantity_becomes_its_si_value(text, dimension, value):
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("fast", "bandwidth"),
        ("400Gb", "bandwidth"),
        ("80Gb", "bytes"),
        ("12.5", "count"),
        ("1.5e400", "bytes"),
        (10**400, "count"),
        (math.nan, "seconds"),
        (True, "count"),
        (None, "bytes"),
        ([1], "bytes"),
        ("", "bytes"),
    ],
)
def test_what_is_no_quantity_is_refused_with_what_to_write(text, dimension):
    with pytest.raises(ValueError, match="write for instance") as error:
        parse_quantity(text, dimension)
    assert EXAMPLES[dimension] in str(error.value)


@given(st.sampled_from(sorted(UNITS)), st.floats(1e-6, 1e17))
@settings(max_examples=100, deadline=None)
def test_formatting_and_parsing_round_trip(dimension, value):
    value = float(round(value)) if dimension == "count" else value
    assert parse_quantity(format_quantity(value, dimension), dimension) == pytest.approx(value, rel=1e-13)


@given(st.sampled_from([(d, u) for d, units in UNITS.items() for u in units]), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_every_unit_scales_linearly(unit, number):
    dimension, name = unit
    assert parse_quantity(f"{number}{name}", dimension) == pytest.approx(number * UNITS[dimension][name], rel=1e-15)


def test_every_dimension_has_examples_that_parse():
    for dimension, text in EXAMPLES.items():
        for example in text.split(" (")[0].split(", "):
            assert parse_quantity(example, dimension) > 0


def test_a_bit_is_an_eighth_of_a_byte():
    assert parse_quantity("8Gb/s", "bandwidth") == parse_quantity("1GB/s", "bandwidth")


def test_catalogue_units_without_a_dimension_count_as_they_stand():
    assert (to_si(18, "links"), to_si(2020, "year"), to_si(50, "MiB")) == (18, 2020, 50 * 2**20)
