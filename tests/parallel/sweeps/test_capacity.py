"""Capacity plans: arithmetic by hand on measurements made up, limits, and one real measurement."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.sweeps import capacity as plan
from parallel.sweeps.capacity import Kind, Measured
from parallel.sweeps.specfile import read_sweep

SWEEPS = Path(__file__).parents[3] / "examples" / "sweeps"
# 10 cells of 100 units of 1 s each, 2 s to prune; the driver needs 4 ms for a result and 1 ms for a task
ONE = Kind("one", cells=10, points=1e9, left=1e8, units=100, prune_s=2.0, unit_s=1.0, priced=1e5)
TOLD = Measured((ONE,), 2000, 80, 1000, result_s=0.004, memory_bytes=1e8, task_s=0.001)


def test_one_core_prunes_every_cell_once_and_does_every_unit() -> None:
    assert plan.work_s(TOLD) == 10 * (2 + 100)
    assert plan.seconds(TOLD, 1) == pytest.approx(1020 + 1000 * 0.004)


def test_every_worker_prunes_every_cell_that_it_gets_a_unit_of() -> None:
    assert plan.work_s(TOLD, 50) == 10 * (100 + 50 * 2)
    assert plan.work_s(TOLD, 100) == plan.work_s(TOLD, 1000) == 10 * (100 + 100 * 2)


def test_the_driver_is_the_limit_beyond_the_cores_that_it_keeps_busy() -> None:
    assert plan.driver_s(TOLD) == pytest.approx(1000 * 0.005)
    assert plan.useful_cores(TOLD) == pytest.approx(200)
    free = replace(TOLD, kinds=(replace(ONE, prune_s=0.0),))
    assert plan.seconds(free, 100) == pytest.approx(10)
    assert plan.seconds(free, 200) == pytest.approx(plan.seconds(free, 5000)) == pytest.approx(5)


def test_no_number_of_cores_is_faster_than_the_longest_unit() -> None:
    few = replace(TOLD, kinds=(replace(ONE, cells=1, units=4),))
    assert plan.seconds(few, 1000) == 3.0


def test_more_cells_take_proportionally_longer() -> None:
    assert plan.seconds(plan.scaled(TOLD, 7), 64) == pytest.approx(7 * plan.seconds(TOLD, 64))


@settings(max_examples=50, deadline=None)
@given(cores=st.integers(2, 10_000), more=st.integers(1, 1000))
def test_more_cores_are_never_slower_where_pruning_is_free(cores: int, more: int) -> None:
    free = replace(TOLD, kinds=(replace(ONE, prune_s=0.0),))
    assert plan.seconds(free, cores + more) <= plan.seconds(free, cores) <= plan.seconds(free, 1)


def test_lines_say_what_is_measured_assumed_and_computed() -> None:
    made = {line["name"]: line for line in plan.lines(TOLD, 1000, 1e12)}
    assert made["strategies"]["value"] == 1e10
    assert made["refused before any is decoded"]["value"] == pytest.approx(0.9)
    assert made["rate of one core, strategies judged"]["value"] == pytest.approx(1e6)
    assert made["rate of one core, priced in full"]["value"] == pytest.approx(1e5)
    assert made["driver's limit"]["value"] == pytest.approx(200)
    assert made["10^12 strategies on 1,000 cores"]["value"] == pytest.approx(100 * plan.seconds(TOLD, 1000))
    assert made["10^12 priced in full on 1,000 cores"]["value"] == pytest.approx(10_000 * plan.seconds(TOLD, 1000))
    assert "the driver sets the pace" in made["this sweep on 1,000 cores"]["rests_on"]
    assert {line["how"] for line in made.values()} == {"measured", "assumed", "computed"}
    assert made["driver, one task in Ray"]["how"] == "assumed"


def test_where_nothing_can_be_built_there_are_no_lines() -> None:
    assert plan.lines(replace(TOLD, kinds=()), 1000, 1e12) == []


def test_a_sweep_is_measured_kind_by_kind() -> None:
    asked = read_sweep(SWEEPS / "domains.yaml")
    told = plan.measure(asked)
    assert [kind.name for kind in told.kinds] == ["deepseek-v3, train", "deepseek-v3, decode"]
    assert told.total(lambda _: 1.0) == asked.cells
    assert all(kind.unit_s > 0 and 0 < kind.priced <= kind.left <= kind.points for kind in told.kinds)
    assert 100 < told.done_bytes < 100_000


def test_a_sampled_search_is_one_unit_per_cell() -> None:
    told = plan.measure(replace(read_sweep(SWEEPS / "domains.yaml"), budget=1000))
    assert [kind.units for kind in told.kinds] == [1, 1]
    assert all(kind.priced <= 1000 for kind in told.kinds)
