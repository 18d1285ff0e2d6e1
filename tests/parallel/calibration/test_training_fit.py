"""The fit of training constants: it finds constants that made its rows, and is held near its start without rows."""

import numpy as np
import pytest

from clusters import software
from clusters.measurements import read_json
from clusters.software import varied
from parallel.calibration.training import FREE, FROZEN, Problem, placed
from parallel.validation.training_rows import Rows, rows_of

FEW = ("Korthikanti", "SimuMax")
TRUE = {"sustained/ampere": 0.7, "sustained/b200-sxm": 0.5}


@pytest.fixture(scope="module")
def rows():
    document = read_json("training_cases.json")
    cases = [case for case in document["cases"] if any(name in case["source"]["name"] for name in FEW)]
    return rows_of({**document, "cases": cases})


def test_constants_that_made_the_rows_are_found_again(rows) -> None:
    tables = software.document()["constants"]
    made = Rows(rows.cases, rows.blocks, rows.predicted_s(varied(tables, TRUE)))
    start = {"sustained/ampere": 0.9, "sustained/b200-sxm": 0.65}
    problem = Problem(made, placed(tables, start), start)
    logs, errors, _, _ = problem.solve(problem.in_fit, problem.found, 6)
    assert dict(zip(start, np.exp(logs), strict=True)) == pytest.approx(TRUE, rel=0.02)
    assert np.median(np.abs(errors)) < 0.01


def test_a_constant_that_no_row_can_move_stays_where_it_starts(rows) -> None:
    tables = software.document()["constants"]
    start = {"sustained/hopper": 0.5, "sustained/b200-sxm": 0.65}
    problem = Problem(rows, placed(tables, start), start)
    logs, *_ = problem.solve(problem.in_fit, problem.found, 2)
    assert np.exp(logs[0]) == pytest.approx(0.5)


def test_leaving_rows_out_changes_what_they_alone_decide(rows) -> None:
    tables = software.document()["constants"]
    start = {"sustained/ampere": 0.9, "sustained/b200-sxm": 0.65}
    problem = Problem(rows, placed(tables, start), start)
    logs, errors, slopes, _ = problem.solve(problem.in_fit, problem.found, 4)
    early = np.array(["Korthikanti" in case["source"]["name"] for case in rows.cases])
    left = problem.without(early, logs, errors, slopes)
    assert np.exp(left[0]) == pytest.approx(0.9, rel=1e-3)
    assert left[1] == pytest.approx(logs[1], abs=1e-3)


GENERATIONS = (("sustained", "blackwell"), ("sustained", "blackwell-ultra"))
"""What parts without runs of their own take: as the fitted ones of their generation."""


def test_every_constant_of_the_tables_is_fitted_or_frozen() -> None:
    tables = software.document()["constants"]
    numbers = {
        "/".join(path)
        for path, value in _leaves(tables, ())
        if isinstance(value, float) and path[-1] != "default" and path not in GENERATIONS
    }
    assert numbers == {path for path in (*FREE, *FROZEN) if path != "formats/blackwell/bf16"}


def _leaves(table, path):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value
