"""Memories: every figure has its source and range, drain times order the tiers, and bytes cost what they should."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters import catalogue, entries
from clusters.build import list_rows
from clusters.figures import DATA, read_yaml
from clusters.memories import (
    GB,
    YEAR_S,
    break_even_s,
    drain_s,
    holding_usd,
    holding_usd_per_byte_s,
    memories,
    memory,
    memory_rows,
)
from clusters.units import UNITS
from topo.errors import SpecError

DIMENSIONS = {"bandwidth": "bandwidth", "capacity": "bytes", "latency": "seconds"}
KINDS = ("hbm", "host", "pool", "flash", "disk")
POSITIVE = st.floats(1e-6, 1e6)


@pytest.mark.parametrize("name", memories())
def test_every_memory_has_sourced_figures_with_their_ranges(name):
    held = memory(name)
    assert held.kind in KINDS
    assert held.per in ("accelerator", "device")
    assert {"bandwidth", "capacity", "price"} <= {*held.figures}
    assert held.figures["price"].range is not None
    for key, figure in held.figures.items():
        assert figure.unit in ({"USD/GB"} if key == "price" else UNITS[DIMENSIONS[key]])
        assert figure.tier == catalogue.sources()[figure.source].tier
        assert figure.range is None or figure.range[0] <= figure.value <= figure.range[1]


def test_every_figure_of_its_own_has_a_range_or_a_note():
    rows = read_yaml((DATA / "memories.yaml").read_text(encoding="utf-8"))
    bare = [
        f"{name}.{key}"
        for name, row in rows.items()
        for key, f in row["figures"].items()
        if not {"range", "note"} & {*f}
    ]
    assert not bare


def test_the_file_obeys_the_tables_that_a_users_own_obeys():
    assert entries.part_faults([], [], catalogue.sources(), [DATA / "memories.yaml"]) == []


def test_the_tiers_drain_one_after_the_other():
    names = ("hbm-h100", "grace-lpddr-c2c", "host-ddr-pcie5", "local-nvme-gen5", "disk")
    drains = [memory(name).drain_s for name in names]
    assert drains == sorted(drains)
    assert drains[0] == pytest.approx(0.024, rel=0.02)
    assert drains[2] == pytest.approx(256 / 63)
    assert drains[-1] / 3600 == pytest.approx(22.4, rel=0.01)


def test_faster_memory_costs_more_for_a_byte():
    price = {kind: max(memory(n).usd_per_byte for n in memories() if memory(n).kind == kind) for kind in KINDS}
    assert price["flash"] > price["disk"]
    assert price["host"] == price["pool"] > price["flash"]
    assert price["hbm"] > price["host"]


def test_hbm_is_that_of_its_accelerator():
    part = catalogue.accelerator("h100")
    assert (memory("hbm-h100").capacity_bytes, memory("hbm-h100").drain_s) == (part.hbm_bytes, part.drain_s)


def test_a_link_bounds_what_it_carries():
    assert memory("host-ddr-pcie4").bandwidth_Bps * 2 == memory("host-ddr-pcie5").bandwidth_Bps
    assert memory("grace-lpddr-c2c").bandwidth_Bps == 450e9
    assert memory("grace-lpddr-c2c").price_usd == pytest.approx(480 * 8)


def test_rows_are_listed_with_drain_and_price():
    rows = {row["name"]: row for row in list_rows("memories")}
    assert list(rows) == list(memories())
    assert rows["disk"]["drain_s"] == pytest.approx(80_537, rel=1e-4)
    low, high = rows["disk"]["usd_per_GB_range"]
    assert low < rows["disk"]["usd_per_GB"] < high
    assert rows == {row["name"]: row for row in memory_rows()}


def test_a_misspelt_memory_gets_the_nearest():
    with pytest.raises(SpecError, match="did you mean disk"):
        memory("dis")


def test_ten_dollars_a_gigabyte_over_ten_years_is_a_dollar_a_year():
    assert holding_usd(GB, YEAR_S, 10 / GB, 10 * YEAR_S) == pytest.approx(1.0)


@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE)
def test_holding_breaks_even_when_it_has_cost_as_much(usd, size_bytes, usd_per_byte, lifetime_s):
    seconds = break_even_s(usd, size_bytes, usd_per_byte, lifetime_s)
    assert holding_usd(size_bytes, seconds, usd_per_byte, lifetime_s) == pytest.approx(usd)


@given(POSITIVE, POSITIVE)
def test_a_whole_memory_held_for_its_life_costs_its_price(capacity_bytes, usd_per_byte):
    assert holding_usd_per_byte_s(usd_per_byte, 5.0) * capacity_bytes * 5.0 == pytest.approx(
        usd_per_byte * capacity_bytes
    )
    assert drain_s(capacity_bytes, capacity_bytes) == 1.0
