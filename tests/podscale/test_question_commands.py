"""`podscale sensitivity`, `break-even`, `size` and `diff`: documents, tables, drawings, exit codes."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from podscale import cli, questionplots, questionwords
from topo.errors import SpecError

SCENARIO = """
name: Llama 3.1 8B on two boxes
phase: decode
model: llama-3.1-8b
cluster: hgx-h100
accelerators: 16
workload: {isl: 1024, osl: 256, tpot_s: 0.05, precision: bf16}
strategy: {tp: 2, batch: 64}
"""
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO)
    return str(path)


def asked(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> dict[str, Any]:
    assert cli.main([*args, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.main(list(args)) == 0
    return " ".join(capsys.readouterr().out.split())


BREAK_EVEN = ("--a", "domain=8", "--b", "domain=4", "--over", "oversubscription=1..4", "--grid", "3")


def test_sensitivity_as_document_and_as_table(
    capsys: pytest.CaptureFixture[str], scenario: str, tmp_path: Path
) -> None:
    drawing = tmp_path / "bars.svg"
    document = asked(capsys, "sensitivity", scenario, "--plot", str(drawing))
    assert {row["figure"] for row in document["rows"]} >= {"hbm_bandwidth", "peak_bf16", "nic_bandwidth", "domain"}
    assert document["account"]["sum"] == pytest.approx(1.0)
    root = ET.fromstring(drawing.read_text())  # noqa: S314  (our own drawing)
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert "HBM bandwidth" in texts
    assert "split searched anew" in texts
    said = printed(capsys, "sensitivity", scenario, "--no-search")
    assert "Buy next:" in said
    assert "HBM bandwidth" in said
    assert "fixed" in said


def test_break_even_as_document_and_as_table(capsys: pytest.CaptureFixture[str], scenario: str, tmp_path: Path) -> None:
    drawing = tmp_path / "turn.html"
    document = asked(capsys, "break-even", scenario, *BREAK_EVEN, "--plot", str(drawing))
    assert [curve["across"] for curve in document["curves"]] == [None]
    assert drawing.read_text().startswith("<!doctype html>")
    assert "A: domain 8" in printed(capsys, "break-even", scenario, *BREAK_EVEN)
    surface = tmp_path / "surface.svg"
    across = ("--across", "nic-bandwidth=100Gb/s..400Gb/s", "--rows", "2", "--plot", str(surface))
    assert "Where they break even" in printed(capsys, "break-even", scenario, *BREAK_EVEN, *across)
    ET.fromstring(surface.read_text())  # noqa: S314  (our own drawing)


def test_size_as_document_and_as_table(capsys: pytest.CaptureFixture[str], scenario: str) -> None:
    document = asked(capsys, "size", scenario, "--tokens-per-s", "1e5", "--power", "1MW")
    assert document["tokens_per_s"] >= 1e5
    assert document["power_W"] <= 1e6
    said = printed(capsys, "size", scenario, "--tokens-per-s", "1e5")
    assert "What binds:" in said
    assert "Sizes tried" in said


def test_diff_as_document_and_as_table(capsys: pytest.CaptureFixture[str], scenario: str, tmp_path: Path) -> None:
    files = []
    for name, text in (("a", SCENARIO), ("b", SCENARIO.replace("tp: 2, batch: 64", "tp: 4, batch: 32"))):
        (tmp_path / f"{name}.yaml").write_text(text)
        document = asked(capsys, "serve", str(tmp_path / f"{name}.yaml"))
        files.append(str(tmp_path / f"{name}.json"))
        Path(files[-1]).write_text(json.dumps(document))
    found = asked(capsys, "diff", *files)
    (row,) = found["rows"]
    assert row["strategy"]["tp"] == [2, 4]
    whole = 1.0 / row["b"] - 1.0 / row["a"]
    assert sum(held["change"] for held in row["terms"]) == pytest.approx(whole)
    said = printed(capsys, "diff", *files)
    assert "TP 2 → 4" in said
    assert "share of it" in said
    assert "No rate changed" in printed(capsys, "diff", files[0], files[0])


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("sensitivity", "{}", "--step", "3"), 2, "no small step"),
        (("sensitivity", "{}", "--plot", "bars.png"), 2, ".svg or .html"),
        (("break-even", "{}", "--a", "domain", "--b", "domain=4", "--over", "domain=1..2"), 2, "FIELD=VALUE"),
        (
            ("break-even", "{}", "--a", "domain=8", "--b", "domain=4", "--over", "oversubscripton=1..2"),
            2,
            "did you mean",
        ),
        (("size", "{}"), 2, "nothing is asked for"),
        (("size", "{}", "--power", "1MB"), 2, "not a unit of power"),
        (("size", "{}", "--tokens-per-s", "1e12", "--most", "64"), 3, "of what is needed"),
        (("diff", "{}", "no-such.json"), 2, "JSON"),
    ],
)
def test_what_cannot_be_answered_says_why(
    args: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str], scenario: str
) -> None:
    assert cli.main([part.replace("{}", scenario) for part in args]) == code
    assert said in capsys.readouterr().err


def test_a_drawing_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="cannot be written"):
        questionplots.write("<svg/>", tmp_path / "file" / "x.svg")


def test_an_idle_figure_is_one_that_moves_nothing() -> None:
    assert not questionwords.idle({"held": 0.0, "searched": 0.1, "gain": None})
