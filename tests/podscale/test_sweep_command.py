"""`podscale sweep`: JSON, files, what is left of a stopped run, and how it ends."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from parallel.executors.store import Store
from parallel.explain.point import Point
from parallel.sweeps import answer as answers
from parallel.sweeps.specfile import read_sweep
from podscale import cli

SWEEP = """
name: small
model: [mixtral-8x7b, llama-3.1-8b]
phases: [train, decode]
cluster: {base: hgx-h100, accelerators: 16}
vary: {domain: [4, 8], scale_out.oversubscription: [1, 2]}
train: {global_batch: 64}
strategy: {space: usual, train: {tp: [1, 2], vpp: [1]}, serve: {tp: [1, 2], batch: [1, 8, 64]}}
"""
KEYS = {"points", "feasible", "seconds", "front", "best", "cells", "rejected", "poisoned", "executor", "answer"}


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP, encoding="utf-8")
    return path


def told(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> dict[str, Any]:
    assert cli.main(["sweep", *args, "--json"]) == code
    out = capsys.readouterr().out
    assert out.count("\n") == 1  # one document and nothing else
    document: dict[str, Any] = json.loads(out)
    return document


def test_json_has_the_keys_of_the_door(capsys: pytest.CaptureFixture[str], spec: Path) -> None:
    document = told(capsys, str(spec))
    assert set(document) >= KEYS
    assert document["executor"] == "serial"  # too small for Ray
    assert len(document["cells"]) == 16
    assert not (spec.parent / ".podscale").exists() or not list((spec.parent / ".podscale").rglob("*.jsonl"))


def test_a_row_of_the_document_is_priced_again(capsys: pytest.CaptureFixture[str], spec: Path) -> None:
    for row in told(capsys, str(spec))["best"]:
        again = Point.from_dict(row["point"]).price()
        assert float(again.extra["tokens_per_s_per_gpu"][0]) == pytest.approx(row["tokens_per_s_per_gpu"], rel=1e-12)


def test_a_reader_sees_the_answer_the_best_the_cells_and_what_was_refused(
    capsys: pytest.CaptureFixture[str], spec: Path
) -> None:
    assert cli.main(["sweep", str(spec)]) == 0
    said = capsys.readouterr()
    for word in ("Best of each", "Every cell", "mixtral-8x7b", "oversubscription", "priced in full", "refused:"):
        assert word in said.out
    assert "pricing strategies" not in said.err  # no bar where nobody watches
    assert cli.main(["sweep", str(spec), "--quiet"]) == 0
    quiet = capsys.readouterr().out
    assert "Best of each" in quiet
    assert "Every cell" not in quiet


@pytest.mark.parametrize("front", ["[tokens_per_s_per_gpu, interactivity]", "[memory_bytes, mfu]", "step_time_s"])
def test_the_drawn_tables_rank_by_what_was_asked(capsys: pytest.CaptureFixture[str], spec: Path, front: str) -> None:
    spec.write_text(SWEEP.replace("[train, decode]", "train") + f"front: {front}\nrank: mfu\n", encoding="utf-8")
    assert cli.main(["sweep", str(spec)]) == 0
    assert "Every cell" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_the_answer_is_written_to_a_file(capsys: pytest.CaptureFixture[str], spec: Path, suffix: str) -> None:
    out = spec.parent / "made" / f"answer{suffix}"
    document = told(capsys, str(spec), "--out", str(out))
    assert document["out"] == str(out)
    text = out.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"] if suffix == ".json" else list(csv.DictReader(text.splitlines()))
    assert [int(cell["points"]) for cell in cells] == [cell["points"] for cell in document["cells"]]


def test_a_file_of_no_known_form_is_refused_before_anything_is_priced(
    capsys: pytest.CaptureFixture[str], spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "drive", None)
    assert cli.main(["sweep", str(spec), "--out", "answer.xlsx"]) == 2
    said = capsys.readouterr().err
    for word in ("--out", "answer.xlsx", ".json, .csv, .parquet"):
        assert word in said


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("--executor", "dask"), "choose auto, serial, ray"),
        (("--budget", "many"), "--budget"),
        (("--bugdet", "3"), "--budget"),
    ],
)
def test_a_flag_that_is_wrong_ends_with_two(
    capsys: pytest.CaptureFixture[str], spec: Path, args: tuple[str, ...], word: str
) -> None:
    assert cli.main(["sweep", str(spec), *args]) == 2
    assert word in capsys.readouterr().err


def test_a_file_that_is_wrong_ends_with_two_and_all_its_faults(capsys: pytest.CaptureFixture[str], spec: Path) -> None:
    spec.write_text(SWEEP + "rank: speed\nbugdet: 3\n", encoding="utf-8")
    document = told(capsys, str(spec), code=2)
    assert {fault["field"] for fault in document["error"]["faults"]} == {"rank", "bugdet"}
    assert cli.main(["sweep", "nowhere.yaml"]) == 2


def test_a_sweep_of_which_nothing_is_feasible_ends_with_three(capsys: pytest.CaptureFixture[str], spec: Path) -> None:
    spec.write_text(SWEEP + "limits: {power_W: 1}\n", encoding="utf-8")
    document = told(capsys, str(spec), code=3)
    assert document["feasible"] == 0
    assert all("a limit of 1 W" in cell["infeasible"] for cell in document["cells"])
    assert cli.main(["sweep", str(spec)]) == 3
    assert "No strategy of this sweep is feasible" in capsys.readouterr().out


def test_a_budget_is_kept_and_its_regret_told(capsys: pytest.CaptureFixture[str], spec: Path) -> None:
    spec.write_text(SWEEP.replace("[train, decode]", "decode").replace("[4, 8]", "8"), encoding="utf-8")
    document = told(capsys, str(spec), "--budget", "8")
    whole = told(capsys, str(spec))
    assert document["priced"] <= 8 * len(document["cells"]) < whole["priced"]
    assert all(0 <= cell["regret"] <= 1 for cell in document["cells"])
    assert cli.main(["sweep", str(spec), "--budget", "8"]) == 0
    assert "sampled: the best of a cell may be" in " ".join(capsys.readouterr().out.split())


def interrupted(spec: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a sweep and press Ctrl-C once so many units are finished; return the exit code."""
    left = [after]
    add = Store.add

    def counted(self: Store, unit: Any, done: Any) -> None:
        add(self, unit, done)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", counted)
        return cli.main(["sweep", str(spec), "--quiet"])


def test_what_is_finished_survives_ctrl_c_and_resume_goes_on(
    capsys: pytest.CaptureFixture[str], spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = told(capsys, str(spec))
    code = interrupted(spec, 5, monkeypatch)
    assert code not in (0, 2, 3)
    said = capsys.readouterr().err
    assert "--resume" in said
    store = Store(read_sweep(spec).fingerprint)
    assert store.path.exists()
    assert str(store.path) in said.replace("\n", "")
    assert len(list(store.read())) == 5
    resumed = told(capsys, str(spec), "--resume")
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    assert not store.path.exists()


def test_without_resume_a_sweep_begins_anew(
    capsys: pytest.CaptureFixture[str], spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(spec, 5, monkeypatch)
    done: list[Any] = []
    add = Store.add

    def counted(self: Store, unit: Any, found: Any) -> None:
        done.append(unit)
        add(self, unit, found)

    monkeypatch.setattr(Store, "add", counted)
    capsys.readouterr()
    told(capsys, str(spec))
    assert len(done) == 16


def test_resume_of_nothing_is_a_whole_sweep_and_of_another_state_a_fault(
    capsys: pytest.CaptureFixture[str], spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(capsys, str(spec), "--resume")["points"] > 0
    store = Store(read_sweep(spec).fingerprint)
    store.path.parent.mkdir(parents=True, exist_ok=True)
    store.path.write_text('{"plan": "another"}\n', encoding="utf-8")
    assert cli.main(["sweep", str(spec), "--resume"]) == 2
    assert "another sweep" in capsys.readouterr().err


def test_the_starter_runs(capsys: pytest.CaptureFixture[str], spec: Path) -> None:
    assert cli.main(["new", "sweep", "--out", "mine.yaml"]) == 0
    capsys.readouterr()
    text = Path("mine.yaml").read_text(encoding="utf-8")
    Path("mine.yaml").write_text(text.replace("[train, prefill, decode]", "[decode]"), encoding="utf-8")
    document = told(capsys, "mine.yaml", "--executor", "serial")
    assert [cell["domain"] for cell in document["cells"]] == [8, 72, 576]
    assert document["feasible"] > 0
