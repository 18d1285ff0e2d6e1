"""`podscale serve --search`, `--flags`, and a calibrated engine, through the front door."""

import json
from pathlib import Path

import pytest
import yaml

from podscale.cli import main

SCENARIO = {
    "name": "mine",
    "model": "llama-3.1-8b",
    "cluster": "hgx-h100",
    "engine": "vllm",
    "load": {"clients": 16},
    "workload": {"isl": 1000, "osl": 200, "precision": "fp8", "tpot_s": "30ms"},
}


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(SCENARIO))
    return file


def test_a_search_prints_the_best_the_front_and_what_was_ruled_out(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(scenario), "--search", "--flags"]) == 0
    told = capsys.readouterr().out
    for words in ("aggregated", "fewest GPUs", "Front", "Ruled out", "zero-shot", "vllm serve meta-llama/Llama-3.1-8B"):
        assert words in told


def test_a_search_as_json_holds_points_and_speed(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(scenario), "--search", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["points"] >= told["feasible"] > 0
    assert told["mappings_per_s"] > 0
    assert told["best"]["aggregated"]["simulated"]["percentiles"]["ttft_s"]["p99"] > 0


def test_flags_are_printed_for_every_engine_and_the_departures_too(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(scenario), "--flags"]) == 0
    told = capsys.readouterr().out
    for words in ("vllm serve", "sglang.launch_server", "trtllm-serve", "options.yaml:", "A step departs every"):
        assert words in told


@pytest.mark.parametrize(
    ("change", "argv", "words"),
    [
        ({"engine": "none", "load": None, "phase": "decode"}, ["--flags"], "are an engine's"),
        ({}, ["--search", "--trace", "t.json"], "is of one deployment"),
        ({"workload": {**SCENARIO["workload"], "kv_bytes": 0.5}}, ["--flags"], "has no cache of so many bytes"),  # type: ignore[dict-item]
    ],
)
def test_flags_that_make_no_sense_are_refused(
    tmp_path: Path, change: dict[str, object], argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in {**SCENARIO, **change}.items() if v is not None}))
    assert main(["serve", str(file), *argv]) == 2
    assert words in capsys.readouterr().err


def test_a_load_test_calibrates_through_the_front_door(
    tmp_path: Path, scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = {
        "backend": "vllm",
        "model_id": "meta-llama/Llama-3.1-8B",
        "max_concurrency": 4,
        "completed": 10,
        "total_input_tokens": 10_000,
        "total_output_tokens": 2_000,
        "mean_ttft_ms": 80.0,
        "mean_tpot_ms": 7.0,
    }
    (tmp_path / "run.json").write_text(json.dumps(bench))
    out = tmp_path / "own.yaml"
    told = ["--accelerator", "h100-sxm", "--precision", "fp8", "--tp", "1"]
    assert main(["calibrate", "serving", str(tmp_path / "run.json"), "--out", str(out), *told]) == 0
    assert "one-point calibrated" in capsys.readouterr().out
    scenario.write_text(yaml.safe_dump({**SCENARIO, "calibration": "own.yaml"}))
    assert main(["serve", str(scenario)]) == 0
    assert "Trust: one-point calibrated" in capsys.readouterr().out
    assert main(["calibrate", "training", "x", "--out", "y", "--tp", "2"]) == 2
