"""The search over engines, splits and clients: limits kept, fronts, demands, and the simulation behind the winners."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusters.build import build
from clusters.spec import load, parse
from parallel.io import read_model
from parallel.scenario import serve
from parallel.serving.mappings import splits
from parallel.serving.passes import Split
from parallel.serving.search import search_file
from topo.errors import InfeasibleError, SpecError

SCENARIO: dict[str, Any] = {
    "model": "llama-3.1-70b",
    "cluster": "hgx-h200",
    "engine": "vllm",
    "workload": {"isl": 2000, "osl": 500, "precision": "fp8", "ttft_s": 2.0, "tpot_s": 0.03},
}
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(write: Callable[..., Path]) -> Ask:
    return lambda **changes: search_file(write(SCENARIO, **changes))


def test_the_best_keeps_its_limits_in_the_simulation_too(ask: Ask) -> None:
    told = ask()
    best = told["best"]["aggregated"]
    assert best["simulated"]["keeps_limits"]
    assert best["tpot_s"] <= 0.03
    assert best["ttft_s"] <= 2.0
    assert best["simulated"]["tpot_s"] == pytest.approx(best["tpot_s"], rel=0.1)
    assert best["simulated"]["ttft_s"] == pytest.approx(best["ttft_s"], rel=0.5)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_closed_form_and_simulation_agree_on_what_wins(ask: Ask, engine: str) -> None:
    for best in ask(engine=engine)["best"].values():
        assert best["simulated"]["tpot_s"] == pytest.approx(best["tpot_s"], rel=0.1)


def test_points_are_feasible_or_rejected_and_the_front_has_no_point_below_another(ask: Ask) -> None:
    told = ask(engine=None)
    assert told["engines"] == ["vllm", "sglang", "trtllm"]
    assert told["points"] == told["feasible"] + sum(told["rejected"].get(name, 0) for name in ("TPOT", "TTFT"))
    front = [(row["tokens_per_s_per_gpu"], row["tokens_per_s_per_user"]) for row in told["front"]]
    assert front == sorted(front, reverse=True)
    assert [user for _, user in front] == sorted(user for _, user in front)
    assert all(row["ttft_s"] <= 2.0 for row in told["front"])


def test_the_winner_served_by_itself_has_the_same_time_per_token(ask: Ask, tmp_path: Path) -> None:
    best = ask()["best"]["aggregated"]
    split = best["strategy"]
    file = tmp_path / "one.yaml"
    scenario = {**SCENARIO, "load": {"clients": round(best["clients"])}, "strategy": {"tp": split["tp"]}}
    file.write_text(yaml.safe_dump(scenario))
    assert serve(file)["tpot_s"] == pytest.approx(best["tpot_s"], rel=0.25)


def test_a_demand_is_met_with_the_fewest_accelerators_that_do(ask: Ask) -> None:
    few, many = (ask(load={"requests_per_s": rate})["fewest"] for rate in (1.0, 8.0))
    assert few["gpus_used"] <= many["gpus_used"] <= 8
    assert few["requests_per_s"] >= 1.0
    assert many["requests_per_s"] >= 8.0
    assert ask(load={"clients": 8})["fewest"]["clients"] >= 8


def test_a_demand_beyond_the_cluster_is_said_to_be(ask: Ask) -> None:
    told = ask(load={"requests_per_s": 1e5})
    assert told["fewest"] is None
    assert any("does not fit on 8" in note for note in told["warnings"])


def test_the_flags_of_the_best_come_with_it(ask: Ask) -> None:
    told = ask(engine="sglang")
    assert all("sglang.launch_server" in one["text"] for one in told["deploy"].values())


def test_limits_that_nothing_keeps_name_what_came_nearest(ask: Ask) -> None:
    with pytest.raises(InfeasibleError, match="nearest: TTFT"):
        ask(workload={**SCENARIO["workload"], "tpot_s": 1e-4})


def test_a_model_that_fits_nowhere_is_infeasible(ask: Ask) -> None:
    with pytest.raises(InfeasibleError, match="memory"):
        ask(model="deepseek-v3", cluster="hgx-h100", workload={**SCENARIO["workload"], "precision": "bf16"})


def test_a_calibration_without_its_engine_is_refused(ask: Ask) -> None:
    with pytest.raises(SpecError, match="is of one engine"):
        ask(engine=None, calibration="mine.yaml")


@pytest.mark.parametrize("domain", [8, 72, 576])
def test_every_domain_is_a_size_of_a_replica(domain: int) -> None:
    spec = parse({"accelerator": "gb200", "accelerators": 576, "domain": domain})
    found = list(splits(read_model("deepseek-v3"), build(spec)))
    assert Split(1.0, min(domain, 256), 1.0, min(domain, 256)) in found or domain == 576
    assert all(one.tp * one.dp == one.etp * one.ep and one.ranks <= 576 for one in found)
    assert any(one.ranks == domain for one in found)


def test_experts_are_not_split_further_than_they_go() -> None:
    found = list(splits(read_model("gpt-oss-120b"), build(load("gb200-nvl72"))))
    assert max(one.ep for one in found) <= 128
    assert all(2880 % one.etp == 0 for one in found)


def test_stages_are_found_where_no_single_stage_holds_the_model(ask: Ask) -> None:
    told = ask(
        model="llama-3.1-405b", cluster={"accelerator": "a100-sxm-40", "accelerators": 32}, engine="sglang",
        workload={"isl": 2000, "osl": 500, "precision": "bf16"},
    )  # fmt: skip
    assert {row["strategy"].get("pp", 1) for row in told["front"]} == {2}
    best = told["best"]["aggregated"]
    assert best["gpus_used"] == 32
    assert best["simulated"]["tpot_s"] == pytest.approx(best["tpot_s"], rel=0.25)
    assert "--pp-size 2" in told["deploy"]["server"]["text"]


def test_the_cache_is_dealt_where_it_is_what_ends_the_climb(ask: Ask) -> None:
    changes: dict[str, Any] = {"model": "llama-3.1-405b", "cluster": "hgx-h100", "accelerators": 16}
    work = {"isl": 8000, "osl": 500, "precision": "bf16", "tpot_s": 0.2}
    found = [ask(**changes, engine=engine, workload=work)["front"] for engine in ("vllm", "sglang")]
    dealt = [[row["strategy"].get("dcp", 1) for row in front] for front in found]
    assert max(dealt[0]) == 2
    assert max(dealt[1]) == 1


def test_room_enough_brings_no_stages_and_no_dealt_cache(ask: Ask) -> None:
    told = ask()
    assert all("pp" not in row["strategy"] and "dcp" not in row["strategy"] for row in told["front"])


def test_drafts_are_searched_with_where_they_are_given(ask: Ask) -> None:
    deep = {"model": "deepseek-v3", "engine": "sglang"}
    plain, drafted = ask(**deep), ask(**deep, drafts={"tokens": 2, "acceptance": 0.8})
    best = [told["best"]["aggregated"]["tokens_per_s_per_gpu"] for told in (plain, drafted)]
    assert best[1] > best[0]
    assert "--speculative-num-steps 2" in drafted["deploy"]["server"]["text"]
    simulated = drafted["best"]["aggregated"]
    assert simulated["simulated"]["tpot_s"] == pytest.approx(simulated["tpot_s"], rel=0.15)
