"""The testbed's rows: every error figure within what is promised, on wirings the constants have seen and not."""

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusters import measurements, testbed
from clusters.calibration.testbed import FITTED, neighbours
from parallel.validation.sets import validate
from parallel.validation.testbed import SKIPS
from topo.errors import SpecError


@cache
def scored(fidelity: str) -> dict[str, Any]:
    return validate("testbed", fidelity=fidelity)


def errors(document: dict[str, Any], least: float, most: float = np.inf) -> Any:
    return np.array(
        [row["ape"] for row in document["rows"] if row["ape"] is not None and least <= row["bytes"] <= most]
    )


def test_large_messages_at_the_best_rung_are_within_the_promise() -> None:
    found = errors(scored("auto"), 2**20)
    assert len(found) > 290
    assert np.median(found) <= 0.009
    assert np.quantile(found, 0.9) <= 0.06
    assert found.max() <= 0.20


def test_large_messages_stepwise_are_within_the_promise() -> None:
    found = errors(scored("stepwise"), 2**20)
    assert np.median(found) <= 0.012
    assert np.quantile(found, 0.9) <= 0.10


def test_small_messages_at_the_best_rung_are_within_the_promise() -> None:
    assert np.quantile(errors(scored("auto"), 2**16, 2**16), 0.9) <= 0.15


def test_constants_fitted_to_half_of_the_wirings_serve_the_other_half() -> None:
    for half in testbed.stack()["held_out"].values():
        assert half["unseen"]["fifo"]["median"] <= 0.012
        assert half["unseen"]["fifo"]["p90"] <= 0.06
        assert half["unseen"]["stepwise"]["p90"] <= 0.10


def test_a_handful_of_constants_serve_all_wirings() -> None:
    document = scored("auto")
    assert document["constants"]["fitted"] == len(FITTED) == 5
    assert set(testbed.stack()["wire"]) | {"relay_s"} >= set(FITTED)


def test_only_rendezvous_is_skipped_and_every_other_row_has_an_interval() -> None:
    rows = scored("auto")["rows"]
    skipped = [row for row in rows if row["predicted"] is None]
    assert {row["skipped_because"] for row in skipped} == {"protocol other than eager: rndv"}
    assert all(row["skipped_because"].split(":")[0] in SKIPS for row in skipped)
    assert all(row["interval"] is not None or row["interval_note"] for row in rows if row["predicted"] is not None)
    coverage = scored("auto")["summary"]["coverage"]
    assert 0.85 <= coverage <= 0.97


def own_file(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    file = tmp_path / "mine.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_a_wiring_of_ones_own_is_priced_by_its_links(tmp_path: Path) -> None:
    row = {"topology": "mine", "op": "shift", "algorithm": "by1", "proto": "eager", "bytes": 2**20, "median_s": 0.2}
    more = [row | {"op": op, "algorithm": name} for op, name in (("gossip", "x"), ("allreduce", "magic"))]
    more += [row | {"topology": "other"}, row | {"algorithm": "by9"}, row | {"proto": "rndv"}]
    nodes = [{"id": f"h{i}", "rank": i} for i in range(3)] + [{"id": "s"}]
    links = [{"u": f"h{i}", "v": "s", "rate_mbit": 40} for i in range(3)]
    wirings = tmp_path / "wirings.json"
    wirings.write_text(json.dumps({"topologies": {"mine": {"nodes": nodes, "links": links}}}))
    document = validate("testbed", own_file(tmp_path, [row, *more]), "stepwise", wirings)
    first, *others = document["rows"]
    assert first["predicted"] == pytest.approx(2**20 * 4047 / 3948 * 8 / 40e6, rel=0.02)
    assert [other["skipped_because"].split(":")[0] for other in others] == [
        "operation without a schedule",
        "algorithm without a schedule",
        "wiring not given",
        "group that the algorithm does not run on",
        "protocol other than eager",
    ]
    assert document["summary"]["n"] == 6


def test_faults_of_wirings_are_told(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"topologies": {"x": {"nodes": [{"id": 1}], "links": [{"u": 1, "v": 2}]}, "y": 3}}))
    with pytest.raises(SpecError, match="joins no two nodes") as told:
        testbed.wirings(bad)
    assert len(told.value.faults) == 2
    bad.write_text("[]")
    with pytest.raises(SpecError, match="is missing"):
        testbed.wirings(bad)
    with pytest.raises(SpecError, match="cannot be read"):
        testbed.wirings(tmp_path / "none.json")
    with pytest.raises(SpecError, match="is no rung"):
        validate("testbed", fidelity="guess")


def test_noisy_rows_count_by_their_fastest_repetition() -> None:
    table = measurements.read_csv("mpi_testbed.csv")
    rows = testbed.rows()
    chosen = np.array(testbed.measured(rows))
    noisy = table["spread_rel"] > 0.15
    assert (chosen == np.where(noisy, table["min_s"], table["median_s"])).all()


def test_the_ladder_of_figures_goes_up_and_down_by_one() -> None:
    for value in (1e-5, 8e-6, 1.2e-4):
        low, high = neighbours(value)
        assert low < value < high
        assert neighbours(low)[1] == pytest.approx(value)
