"""The verdict on a strategy: which stage, what is largest, and the nearest change that fits."""

from functools import partial

import numpy as np
import pytest

from clusters.build import build
from clusters.spec import load
from parallel.io import read_model
from parallel.memory import PLACES
from parallel.priced import Priced
from parallel.strategy import Columns
from parallel.training.step import DEFAULTS, TrainJob, price
from parallel.training.verdict import STEPS, Change, Verdict, nearest, verdict
from parallel.workload import TrainWorkload

MODEL = read_model("llama-3.1-70b")
WORK = TrainWorkload(sequence=8192, global_batch=256, precision="bf16")
CAPACITY = 80e9


def row_of(**changes: float) -> dict[str, float]:
    base = {"used": 8, "tp": 8, "ep": 1, "micro_batch": 1, "pp": 4, "dp": 2}
    return Columns.of(**base | changes).filled(DEFAULTS).row(0)


@pytest.fixture(scope="module")
def job() -> TrainJob:
    return TrainJob.of(MODEL, build(load("hgx-h100")), WORK)


def test_what_fits_needs_no_change(job: TrainJob) -> None:
    found = verdict(MODEL, WORK, row_of(), CAPACITY, partial(price, job))
    assert found.fits
    assert found.change is None
    assert set(found.stages) == set(PLACES)


def test_the_bytes_are_those_of_the_price(job: TrainJob) -> None:
    for changes in ({}, {"micro_batch": 4}, {"pp": 2, "dp": 4}, {"pp": 1, "dp": 8, "zero": 3}):
        row = row_of(**changes)
        priced = price(job, Columns.of(**row))
        assert verdict(MODEL, WORK, row, CAPACITY).needed_bytes == pytest.approx(float(priced.memory_bytes[0]))


def test_the_nearest_change_fits_and_is_one_setting(job: TrainJob) -> None:
    row = row_of(micro_batch=4)
    found = verdict(MODEL, WORK, row, CAPACITY, partial(price, job))
    assert not found.fits
    assert found.change is not None
    assert len(found.change.altered) == 1
    assert found.change.memory_bytes <= CAPACITY
    assert found.largest == "activations"
    assert found.change.said in found.said


def test_of_single_changes_the_fastest_is_taken() -> None:
    def fake(cols: Columns) -> Priced:
        seconds = np.where(cols["recompute"] == 2, 3.0, np.where(cols["zero"] == 2, 2.0, 9.0))
        return Priced(seconds, {}, {}, {"all": np.where(cols["zero"] == 3, 2.0, 1.0)}, {})

    found = nearest(MODEL, row_of(), 1.5, fake)
    assert found == Change({"zero": 2}, 1.0, 2.0)


def test_several_settings_change_only_where_one_does_not_do() -> None:
    def fake(cols: Columns) -> Priced:
        both = (cols["recompute"] == 2) & (cols["zero"] == 3)
        return Priced(np.ones(cols.rows), {}, {}, {"all": np.where(both, 1.0, 9.0)}, {})

    found = nearest(MODEL, row_of(), 2.0, fake)
    assert found is not None
    assert found.altered == {"recompute": 2, "zero": 3}


def test_nothing_fits_says_so() -> None:
    def fake(cols: Columns) -> Priced:
        return Priced(np.ones(cols.rows), {}, {}, {"all": np.full(cols.rows, 9.0)}, {})

    assert nearest(MODEL, row_of(), 1.0, fake) is None
    assert f"no change of up to {STEPS} settings fits" in Verdict(1.0, {"last": {"weights": 2.0}}).said


def test_a_pipeline_of_one_stage_has_one_place() -> None:
    assert set(verdict(MODEL, WORK, row_of(pp=1, dp=8), CAPACITY).stages) == {"last"}
    assert set(verdict(MODEL, WORK, row_of(pp=2, dp=4), CAPACITY).stages) == {"first", "last"}


def test_accelerators_stay_as_many_and_groups_divide() -> None:
    seen: list[Columns] = []

    def fake(cols: Columns) -> Priced:
        seen.append(cols)
        return Priced(np.ones(cols.rows), {}, {}, {"all": np.full(cols.rows, 9.0)}, {})

    nearest(MODEL, row_of(dp=4), 1.0, fake)
    for cols in seen:
        assert np.all(cols["tp"] * cols["pp"] * cols["dp"] == 8 * 4 * 4)
        assert np.all(cols["dp"] >= 1)
