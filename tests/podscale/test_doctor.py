"""The command `doctor`: every finding has a state, every fault a remedy; only what is needed breaks it."""

import json
import os
import socket
from typing import Any

import pytest
import typer

from podscale.commands import doctor as door
from podscale.commands.doctor import doctor

Capture = pytest.CaptureFixture[str]


def rows(capsys: Capture, **flags: Any) -> dict[str, dict[str, Any]]:
    doctor(as_json=True, **flags)
    document = json.loads(capsys.readouterr().out)
    assert document["ok"]
    return {row["check"]: row for row in document["rows"]}


def broken(capsys: Capture, **flags: Any) -> dict[str, dict[str, Any]]:
    with pytest.raises(typer.Exit) as caught:
        doctor(as_json=True, **flags)
    assert caught.value.exit_code == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["ok"]
    return {row["check"]: row for row in document["rows"]}


def test_a_sound_installation_has_all_that_is_needed(capsys: Capture) -> None:
    found = rows(capsys)
    assert {"podscale", "Python", "numpy", "networkx", "cores", "memory", "catalogue", "output folder", "Ray"} <= set(
        found
    )
    assert {row["state"] for row in found.values()} <= {"ok", "warning", "missing"}
    assert all(row["remedy"] for row in found.values() if row["state"] != "ok")


def test_ray_is_not_started_unless_asked(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel.executors.ray.session", lambda address: pytest.fail("Ray was started"))
    assert "not started" in rows(capsys)["Ray"]["found"]


def test_a_package_that_is_too_old_breaks_it(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["numpy>=99.1", "no-such-package>=2"])
    found = broken(capsys)
    assert found["numpy"]["remedy"] == "pip install 'numpy>=99.1'"
    assert "at least 99.1" in found["numpy"]["found"]
    assert found["no-such-package"]["found"] == "not installed"


def test_an_extra_that_is_absent_is_no_fault_but_says_what_it_would_give(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["no-such-package>=2; extra == 'tables'"])
    row = rows(capsys)["extra tables"]
    assert (row["state"], row["remedy"]) == ("warning", "pip install 'podscale[tables]'")
    assert "would give Parquet" in row["found"]


def test_a_catalogue_of_ones_own_that_is_not_there_breaks_it(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODSCALE_CATALOGUE", "/no/such/folder")
    row = broken(capsys)["own catalogue"]
    assert "is no folder" in row["found"]
    assert row["needed"]


def test_a_folder_that_cannot_be_written_is_told(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    row = rows(capsys)["output folder"]
    assert row["state"] == "warning"
    assert "Permission denied" in row["found"]


def test_no_color_is_told(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "no colour (NO_COLOR)" in rows(capsys)["terminal"]["found"]


def test_an_address_where_nothing_listens_is_told_at_once(capsys: Capture) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    row = broken(capsys, address=f"127.0.0.1:{port}")["Ray"]
    assert "nothing answers" in row["found"]
    assert "ray start --head" in row["remedy"]


def test_memory_is_the_least_of_machine_and_control_group() -> None:
    size = door.memory_bytes()
    assert size is not None
    assert 0 < size <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_the_table_ends_with_the_verdict(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    doctor()
    assert capsys.readouterr().out.rstrip().endswith("podscale has what it needs.")


@pytest.mark.ray
def test_ray_starts_and_runs_a_task(capsys: Capture) -> None:
    assert "one task" in rows(capsys, ray=True)["Ray"]["found"]
