"""Scenarios of reinforcement learning: terms, ratios, faults, and published loops."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from parallel.rl.answer import rl
from parallel.rl.loop import Answers
from parallel.rl.stages import LOADED_Bps, packed
from parallel.spread import Spread
from topo.errors import InfeasibleError, SpecError

SCENARIO = Path(__file__).parents[3] / "examples/scenarios/rl-7b-h800.yaml"
SMALL: dict[str, Any] = {
    "model": "llama-3.1-8b", "cluster": "hgx-h100", "accelerators": 16, "staleness": 2,
    "answers": {"prompts": 64, "samples": 8, "lengths": {"median": 800, "p90": 3000, "most": 8000}},
    "trainer": {"strategy": {"tp": 2, "recompute": "full"}},
}  # fmt: skip
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    def run(**changes: Any) -> dict[str, Any]:
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump({**SMALL, **changes}))
        return rl(file)

    return run


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    return rl(SCENARIO)


def test_terms_add_up_to_the_step_in_every_arrangement(shipped: dict[str, Any]) -> None:
    assert json.loads(json.dumps(shipped, allow_nan=False))
    for row in (shipped, shipped["in_turns"], *shipped["ratios"]):
        assert sum(row["terms"].values()) == pytest.approx(row["step_time_s"], rel=1e-9)
        assert all(row["busy"][name] >= seconds * (1 - 1e-9) for name, seconds in row["terms"].items())


def test_the_best_ratio_is_the_fastest_and_its_pools_are_busy(shipped: dict[str, Any]) -> None:
    best = shipped["best"]
    assert best["step_time_s"] == min(row["step_time_s"] for row in shipped["ratios"] if row["step_time_s"])
    assert best["idle"]["writing"] < 0.05
    assert best["idle"]["training"] < 0.25
    few, many = shipped["ratios"][0], shipped["ratios"][-1]
    assert few["idle"]["training"] > 0.5 > few["idle"]["writing"]
    assert many["idle"]["writing"] > 0.2


def test_areal_is_about_twice_as_fast_side_by_side(shipped: dict[str, Any]) -> None:
    """Published: 57.7 h in turns and 25.4 h side by side for 1,000 steps (AReaL blog v0.3), 2.27 times; lengths are not."""
    assert shipped["speedup"] == pytest.approx(57.7 / 25.4, rel=0.25)
    hours = [row["step_time_s"] * 1000 / 3600 for row in (shipped["in_turns"], shipped["best"])]
    assert hours == [pytest.approx(57.7, rel=0.6), pytest.approx(25.4, rel=0.6)]


@pytest.mark.parametrize(
    ("size_bytes", "published_s"),
    [(213e9, 3.47), (470e9, 6.22), (689e9, 10.19), (1030e9, 14.36), (689e9, 11.33), (1030e9, 16.04)],
)
def test_weights_go_round_as_fast_as_published(size_bytes: float, published_s: float) -> None:
    """MoonshotAI/checkpoint-engine, README: GLM-4.5-Air, Qwen3-235B, DeepSeek-V3.1, Kimi-K2 on 8 to 256 accelerators."""
    assert size_bytes / LOADED_Bps == pytest.approx(published_s, rel=0.16)


def test_in_turns_is_what_no_staleness_asks_for(ask: Ask) -> None:
    told = ask(staleness=0)
    assert told["arrangement"] == "in turns"
    assert told["ratios"] == []
    assert told["speedup"] == 1.0
    assert told["step_time_s"] == told["in_turns"]["step_time_s"]


def test_a_longer_tail_costs_the_loop_in_turns_more(ask: Ask) -> None:
    """The same mean, written in turns and side by side."""
    narrow, wide = (
        ask(answers={"prompts": 64, "samples": 8, "lengths": lengths})
        for lengths in ([1000.0], [500.0] * 15 + [8500.0])
    )
    assert narrow["workload"]["mean_tokens"] == wide["workload"]["mean_tokens"]
    assert wide["in_turns"]["step_time_s"] > 2 * narrow["in_turns"]["step_time_s"]
    assert wide["speedup"] > narrow["speedup"]


def test_a_measured_update_is_a_term_as_it_is(ask: Ask) -> None:
    told = ask(rollout={"update_s": "12s"})
    assert told["terms"]["weight update"] == 12.0
    assert told["update"]["bound_by"] == "as measured"


def test_a_named_ratio_is_the_only_one(ask: Ask) -> None:
    told = ask(rollout={"accelerators": 8})
    assert [(row["writing_accelerators"], row["training_accelerators"]) for row in told["ratios"]] == [(8, 8)]


def test_packing_keeps_tokens_and_pairs() -> None:
    answers = Answers(4, 100.0, 100.0, Spread(values=(100.0, 300.0, 500.0, 700.0)))
    tokens, sequence = packed(answers)
    assert tokens == 200 + 400 + 600 + 800
    assert tokens * sequence == pytest.approx(200**2 + 400**2 + 600**2 + 800**2)


def test_what_does_not_fit_says_so(ask: Ask) -> None:
    with pytest.raises(InfeasibleError):
        ask(model="llama-3.1-405b")
    with pytest.raises(SpecError) as error:
        ask(rollout={"tp": 3, "ep": 2})
    assert {fault.field for fault in error.value.faults} == {"rollout.ep", "rollout.tp"}
    with pytest.raises(SpecError, match="leave no trainer"):
        ask(rollout={"accelerators": 16})
    with pytest.raises(SpecError, match="did you mean staleness"):
        ask(stalenes=1)
