"""A scenario that names an engine: both phases under a load, and what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallel.scenario import serve
from topo.errors import InfeasibleError, SpecError

SCENARIO: dict[str, Any] = {
    "name": "mine",
    "model": "llama-3.1-70b",
    "cluster": "hgx-h200",
    "engine": "vllm",
    "load": {"clients": 16},
    "workload": {"isl": 2000, "osl": 500, "precision": "fp8"},
    "strategy": {"tp": 4},
}
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(write: Callable[..., Path]) -> Ask:
    return lambda **changes: serve(write(SCENARIO, **changes))


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_terms_add_up_to_the_time_of_a_token(ask: Ask, engine: str) -> None:
    told = ask(engine=engine)
    assert sum(told["terms"].values()) == pytest.approx(told["tpot_s"], rel=1e-9)
    assert all(seconds >= 0 for seconds in told["terms"].values())
    assert told["interval"][0] < told["tpot_s"] < told["interval"][1]
    assert told["percentiles"]["ttft_s"]["p50"] <= told["percentiles"]["ttft_s"]["p99"]


def test_a_closed_loop_obeys_littles_law(ask: Ask) -> None:
    told = ask(load={"clients": 64})
    cycle = told["ttft_s"] + 499 * told["tpot_s"]
    assert told["requests_per_s"] == pytest.approx(64 / cycle, rel=0.1)


def test_more_load_is_slower_for_each_and_faster_for_all(ask: Ask) -> None:
    few, many = ask(load={"clients": 4}), ask(load={"clients": 64})
    assert many["tpot_s"] > few["tpot_s"]
    assert many["tokens_per_s_per_gpu"] > few["tokens_per_s_per_gpu"]


def test_requests_at_a_rate_are_served_at_that_rate_until_it_is_too_high(ask: Ask) -> None:
    calm = ask(load={"requests_per_s": 2})
    assert not calm["saturated"]
    assert calm["requests_per_s"] == pytest.approx(2, rel=0.15)
    rushed = ask(load={"requests_per_s": 500})
    assert rushed["saturated"]
    assert rushed["requests_per_s"] < 100
    assert any("saturated" in note for note in rushed["warnings"])


def test_an_idle_load_prices_as_the_bare_step(ask: Ask) -> None:
    told = ask(load={"clients": 1}, strategy={"tp": 8})
    assert told["tpot_s"] == pytest.approx(told["step_time_s"], rel=0.02)


def test_wide_experts_run_attention_data_parallel(ask: Ask) -> None:
    told = ask(model="deepseek-r1", cluster="hgx-b200", strategy={"tp": 1, "ep": 8})
    assert (told["strategy"]["attention_dp"], told["strategy"]["replicas"]) == (8, 1)
    assert told["terms"]["ep"] > 0


def test_limits_that_are_missed_are_told(ask: Ask) -> None:
    told = ask(workload={"isl": 2000, "osl": 500, "tpot_s": 0.001, "ttft_s": 0.001})
    assert "TTFT" in told["limit_broken"]
    assert "TPOT" in told["limit_broken"]


def test_every_fault_of_load_and_split_is_told(ask: Ask) -> None:
    with pytest.raises(SpecError) as error:
        ask(load={"clients": 4, "requests_per_s": 1}, phase="decode")
    assert {fault.field for fault in error.value.faults} == {"load", "phase"}
    with pytest.raises(SpecError) as error:
        ask(strategy={"tp": 3, "pp": 2, "ep": 4})
    assert {fault.field for fault in error.value.faults} == {"strategy.tp", "strategy.pp", "strategy.ep"}


def test_a_load_without_an_engine_is_refused(ask: Ask) -> None:
    with pytest.raises(SpecError, match="none is named"):
        ask(engine=None)


def test_a_model_that_leaves_no_room_is_infeasible(ask: Ask) -> None:
    with pytest.raises(InfeasibleError, match="leave room"):
        ask(model="deepseek-r1", strategy={"tp": 2})


def test_a_replica_larger_than_the_cluster_is_refused(ask: Ask) -> None:
    with pytest.raises(SpecError, match="fewer than"):
        ask(model="deepseek-r1", strategy={"tp": 16})
