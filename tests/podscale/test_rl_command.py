"""`podscale rl`, and what `podscale serve` draws of caches that wait and of cold starts."""

import json
from pathlib import Path

import pytest

import podscale
from podscale.cli import main

SCENARIOS = Path(__file__).parents[2] / "examples/scenarios"


def test_rl_answers_in_json_and_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rl", str(SCENARIOS / "rl-7b-h800.yaml"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"step_time_s", "tokens_per_s_per_gpu", "terms", "busy", "ratios", "in_turns", "best", "speedup"} <= set(
        document
    )
    shown = str(podscale.rl(SCENARIOS / "rl-7b-h800.yaml"))
    for said in ("A step takes", "wait for answers", "Who writes and who trains", "then all", "The whole run"):
        assert said in shown


def test_serve_draws_caches_that_wait_and_the_cold_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(SCENARIOS / "llama-70b-sessions.yaml")]) == 0
    shown = capsys.readouterr().out
    for said in ("find their history", "Caches that wait", "host-ddr-pcie5", "computed again", "Cold start:"):
        assert said in shown


def test_a_wrong_scenario_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: llama-3.1-8b\ncluster: hgx-h100\nanswers: {prompts: 8}\n")
    assert main(["rl", str(file)]) == 2
    assert "answers.lengths" in capsys.readouterr().err
