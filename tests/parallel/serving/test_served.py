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
        ask(strategy={"tp": 3, "pp": 200, "ep": 4})
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


DEEP: dict[str, Any] = {"model": "deepseek-v3", "strategy": {"tp": 8, "ep": 8}}


def test_one_stage_and_one_rank_that_deals_change_nothing(ask: Ask) -> None:
    assert ask(strategy={"tp": 4, "pp": 1, "dcp": 1}) == ask()


def test_stages_hold_what_no_single_stage_does(ask: Ask) -> None:
    changes: dict[str, Any] = {"model": "llama-3.1-405b", "cluster": "hgx-h100", "accelerators": 16}
    asked = {"workload": {"isl": 2000, "osl": 500, "precision": "bf16"}}
    with pytest.raises(InfeasibleError, match="leave room"):
        ask(**changes, **asked, strategy={"tp": 8})
    told = ask(**changes, **asked, strategy={"tp": 8, "pp": 2})
    assert (told["strategy"]["pp"], told["gpus_used"], told["pipeline"]["layers"]) == (2, 16, [63, 63])
    assert sum(told["terms"].values()) == pytest.approx(told["tpot_s"])
    assert told["terms"]["hops"] > 0
    held = told["pipeline"]
    assert held["weight_bytes"]["these"] == told["memory_bytes"]["weights"] < 0.55 * held["weight_bytes"]["one_stage"]
    assert 2 * held["position_bytes"]["these"] == pytest.approx(held["position_bytes"]["one_stage"])
    assert "--pipeline-parallel-size 2" in told["deploy"]["vllm"]["text"]
    assert any("pp" in note for note in told["warnings"])


def test_a_dealt_cache_holds_a_longer_context(ask: Ask) -> None:
    plain, dealt = ask(**DEEP), ask(**{**DEEP, "strategy": {"tp": 8, "ep": 8, "dcp": 8}})
    assert dealt["longest_context"] == pytest.approx(8 * plain["longest_context"], rel=1e-6)
    assert dealt["terms"]["kv read"] < plain["terms"]["kv read"]
    assert dealt["terms"]["dcp"] > 0
    assert dealt["memory_bytes"]["weights"] == plain["memory_bytes"]["weights"]


def test_drafts_that_hold_are_worth_their_passes(ask: Ask) -> None:
    plain = ask(**DEEP)
    told = ask(**DEEP, drafts={"tokens": 3, "acceptance": 0.8})
    assert told["drafts"]["tokens_per_step"] == pytest.approx(2.952)
    assert 1.3 < plain["tpot_s"] / told["tpot_s"] < 2.952
    assert sum(told["terms"].values()) == pytest.approx(told["tpot_s"])
    assert told["memory_bytes"]["draft"] > 0
    assert told["longest_context"] < plain["longest_context"]
    assert told["tokens_per_s_per_gpu"] > 1.2 * plain["tokens_per_s_per_gpu"]


def test_a_closed_loop_with_drafts_obeys_littles_law(ask: Ask) -> None:
    told = ask(**DEEP, drafts={"tokens": 2, "acceptance": [0.8, 0.5]}, load={"clients": 32})
    cycle = told["ttft_s"] + 499 * told["tpot_s"]
    assert told["requests_per_s"] == pytest.approx(32 / cycle, rel=0.1)


def test_hot_experts_lengthen_and_copies_shorten(ask: Ask) -> None:
    wide = {**DEEP, "strategy": {"tp": 1, "ep": 8}, "load": {"clients": 256}}
    work = {"isl": 2000, "osl": 500, "precision": "fp8"}
    untold, even, hot, copied = (
        ask(**wide, workload={**work, **more})
        for more in ({}, {"imbalance": 1.0}, {"zipf": 0.8}, {"zipf": 0.8, "expert_copies": 32})
    )
    assert even["tpot_s"] < untold["tpot_s"] < hot["tpot_s"]
    assert copied["tpot_s"] < hot["tpot_s"]
    assert copied["memory_bytes"]["weights"] > even["memory_bytes"]["weights"]
    assert "public benchmarks" in untold["experts"]["rows"]


def test_every_fault_of_stages_drafts_and_experts_is_told(ask: Ask) -> None:
    with pytest.raises(SpecError) as error:
        ask(
            strategy={"tp": 4, "pp": 2, "dcp": 2},
            drafts={"tokens": 1, "acceptance": 0.8},
            workload={"isl": 2000, "osl": 500, "zipf": 0.5},
        )
    found = {fault.field for fault in error.value.faults}
    assert found == {"strategy.pp", "strategy.dcp", "drafts.method", "workload.zipf"}
    with pytest.raises(SpecError, match=r"drafts.acceptance"):
        ask(**DEEP, drafts={"tokens": 2, "acceptance": [0.5, 0.9]})


def test_what_an_operator_sets_is_priced_and_told(tmp_path):
    text = "engine: vllm\nload: {clients: 16}\nmodel: llama-3.1-70b\ncluster: hgx-h100\nstrategy: {tp: 8}\n"
    told = {}
    for name, settings in {"usual": "{}", "eager": "{graphs: 0}", "small": "{memory: 0.3, tokens: 2048}"}.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"{text}settings: {settings}\n", encoding="utf-8")
        told[name] = serve(file)
    assert told["eager"]["tpot_s"] > 2 * told["usual"]["tpot_s"]
    assert "--enforce-eager" in told["eager"]["deploy"]["vllm"]["text"]
    assert "--enforce-eager" not in told["usual"]["deploy"]["vllm"]["text"]
    assert told["small"]["longest_context"] < told["usual"]["longest_context"] / 2
    assert "--max-num-batched-tokens 2048" in told["small"]["deploy"]["vllm"]["text"]
    alone = tmp_path / "alone.yaml"
    alone.write_text(
        "model: llama-3.1-70b\ncluster: hgx-h100\nstrategy: {tp: 8}\nsettings: {graphs: 0}\n", encoding="utf-8"
    )
    with pytest.raises(SpecError, match="are of an engine, and none is named"):
        serve(alone)
