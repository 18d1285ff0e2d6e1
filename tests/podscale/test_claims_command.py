"""`podscale claim`: JSON, inputs, drawings, and how it ends on what it does not know."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from podscale import claimplots, claimwords, cli

KEYS = {"id", "claim", "source", "inputs", "expected", "simple", "full", "computed", "verdict", "note"}


def answer(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert cli.main([*args, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_claim_has_the_keys_of_the_door(capsys: pytest.CaptureFixture[str]) -> None:
    row = answer(capsys, "claim", "active-experts")["rows"][0]
    assert set(row) >= KEYS
    assert (row["expected"], row["simple"]) == (8.0, 32.0)


def test_another_input_is_another_answer(capsys: pytest.CaptureFixture[str]) -> None:
    base = answer(capsys, "claim", "train-interval", "--set", "accelerator=gb200")["rows"][0]
    fast = answer(capsys, "claim", "train-interval", "--set", "accelerator=GB200", "--set", "hbm-bandwidth=16TB/s")
    assert fast["rows"][0]["simple"] == pytest.approx(base["simple"] / 2)


def test_a_reader_sees_answers_cases_and_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["claim", "train-interval", "-q"]) == 0
    said = capsys.readouterr().out
    for word in ("20 ms", "rubin-vr200", "hbm_bandwidth", "holds on these parts only"):
        assert word in said


@pytest.mark.parametrize("suffix", claimplots.SUFFIXES)
def test_a_claim_is_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path, suffix: str) -> None:
    target = tmp_path / "made" / f"claim{suffix}"
    answer(capsys, "claim", "train-interval", "--plot", str(target))
    text = target.read_text(encoding="utf-8")
    svg = text[text.index("<svg") : text.index("</svg>") + 6]
    root = ElementTree.fromstring(svg)  # noqa: S314  (our own text)
    drawn = [element for element in root.iter() if element.get("class") in ("simple", "full")]
    assert len(drawn) >= 2 * 13  # both answers for every part, and the key
    assert "<script" not in text


def test_a_claim_without_cases_is_drawn_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "one.svg"
    answer(capsys, "claim", "active-experts", "--plot", str(target))
    root = ElementTree.fromstring(target.read_text(encoding="utf-8"))  # noqa: S314  (our own text)
    assert {"simple", "full"} <= {element.get("class") for element in root.iter()}


def test_a_chart_of_its_own_is_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "fast.svg"
    document = answer(capsys, "claim", "fast-mode", "--plot", str(target))
    text = target.read_text(encoding="utf-8")
    assert document["chart"]["title"] in text
    assert text.count("<polyline") == 2 * len(document["chart"]["lines"])  # each line, and its key
    assert all(name in text for name in document["chart"]["marks"])


def test_prices_are_told_with_their_day_and_beside_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["claim", "api-price", "-q"]) == 0
    said = capsys.readouterr().out
    for word in ("three interactivities", "Public prices", "2025-02-08", "rubin-vr200", "Most sensitive to", "sglang"):
        assert word in said


def test_a_claim_that_no_number_moves_says_so() -> None:
    assert claimwords.sensitivity({"moves_most": None}).startswith("No number")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("claim", "fastmode"), "fast-mode"),
        (("claim", "active-experts", "--set", "model"), "NAME=VALUE"),
        (("claim", "train-interval", "--set", "hbm_bandwidth=8TB"), "TB/s"),
        (("claim", "train-interval", "--set", "accelerator=h1000"), "h100"),
        (("claim", "active-experts", "--plot", "claim.png"), ".svg or .html"),
        (("claims", "--set", "colour=red"), "no claim"),
    ],
)
def test_what_it_does_not_know_ends_with_two(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], said: str
) -> None:
    assert cli.main(list(args)) == 2
    assert said in capsys.readouterr().err


def test_scales_hold_their_values_and_have_round_ticks() -> None:
    log = claimplots.scale([1.0, 1000.0, None], 0.0, 100.0)
    assert log.log
    assert 0.0 <= log.at(1.0) < log.at(1000.0) <= 100.0
    flat = claimplots.scale([2.0, 3.0], 0.0, 100.0)
    assert not flat.log
    assert flat.at(0.0) == 0.0
    assert all(tick in (0.0, 1.0, 2.0, 3.0) for tick in flat.ticks())
    long = claimplots.scale([300.0, 4e6], 0.0, 100.0)
    assert [claimwords.tick(tick, "s") for tick in long.ticks("s")] == ["10 min", "60 min", "10 h", "4 days", "40 days"]
    below = claimplots.scale([-0.5, 0.5], 0.0, 1.0)
    assert below.at(-0.5) == 0.0
