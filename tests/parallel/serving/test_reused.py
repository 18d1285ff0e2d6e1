"""Prompts that come back, in the answer of `serve`: prefill alone, on two pools, and under an engine."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from parallel.scenario import serve
from topo.errors import SpecError

ROOT = Path(__file__).parents[3]
REUSE: dict[str, Any] = {
    "shared": 500, "history": 6000, "returns": 0.8, "revisit": {"median": "60s", "p90": "10min"},
    "tiers": ["host-ddr-pcie5", {"memory": "local-nvme-gen5", "devices": 8}],
}  # fmt: skip
ALONE: dict[str, Any] = {
    "model": "llama-3.1-70b", "cluster": "hgx-h200", "accelerators": 8, "phase": "prefill",
    "workload": {"isl": 8000, "osl": 500, "precision": "fp8", "ttft_s": 10}, "strategy": {"tp": 4, "batch": 0.5},
}  # fmt: skip
UNDER: dict[str, Any] = {
    **{key: value for key, value in ALONE.items() if key not in ("phase", "strategy")},
    "engine": "vllm", "load": {"clients": 32}, "strategy": {"tp": 4},
}  # fmt: skip
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(write: Callable[..., Path]) -> Ask:
    return lambda base, **changes: serve(write(base, **changes))


def reuse(**changes: Any) -> dict[str, Any]:
    return {**REUSE, **changes}


@pytest.mark.parametrize("base", [ALONE, UNDER], ids=["prefill", "engine"])
def test_prompts_that_come_back_are_answered_sooner_and_more_often(ask: Ask, base: dict[str, Any]) -> None:
    before, after = ask(base), ask(base, reuse=REUSE)
    assert after["ttft_s"] < before["ttft_s"]
    assert after["tokens_per_s_per_gpu"] > before["tokens_per_s_per_gpu"]
    assert after["reuse"]["without"]["ttft_s"] == pytest.approx(before["ttft_s"], rel=0.05)
    assert 0 < after["reuse"]["hit_rate"] <= 0.8
    assert [tier["name"] for tier in after["reuse"]["tiers"]] == ["hbm", "host-ddr-pcie5", "local-nvme-gen5"]


def test_terms_of_prefill_add_up_with_the_reload_among_them(ask: Ask) -> None:
    told = ask(ALONE, reuse=REUSE)
    assert math.fsum(told["terms"].values()) == pytest.approx(told["step_time_s"], rel=1e-12)
    rows = told["reuse"]["tiers"]
    assert told["terms"]["reload"] == pytest.approx(sum(row["hits"] * row["reload_s"] for row in rows))
    assert json.loads(json.dumps(told["terms"], allow_nan=False))


def test_loading_layer_by_layer_hides_the_reload_behind_the_pass(ask: Ask) -> None:
    plain, hidden = (ask(ALONE, reuse=reuse(layerwise=flag)) for flag in (False, True))
    assert hidden["terms"].get("reload", 0.0) < plain["terms"]["reload"]
    assert hidden["busy"]["reload"] == pytest.approx(plain["busy"]["reload"], rel=1e-6)


@pytest.mark.parametrize("base", [ALONE, UNDER], ids=["prefill", "engine"])
def test_nothing_in_common_changes_nothing(ask: Ask, base: dict[str, Any]) -> None:
    before, after = ask(base), ask(base, reuse=reuse(shared=0, history=0))
    assert after["ttft_s"] == pytest.approx(before["ttft_s"], rel=0.01)
    assert after["tokens_per_s_per_gpu"] == pytest.approx(before["tokens_per_s_per_gpu"], rel=0.01)


def test_a_shared_head_is_found_by_all_without_any_memory(ask: Ask) -> None:
    """Half of the prompt computed: the rest of the linear layers, and three quarters of the attention pairs."""
    told = ask(ALONE, reuse=reuse(shared=4000, history=0, returns=0.0, tiers=[]))
    alone = ask(ALONE)
    assert told["terms"]["mlp"] == pytest.approx(alone["terms"]["mlp"] / 2, rel=0.05)
    assert told["terms"]["attention core"] == pytest.approx(0.75 * alone["terms"]["attention core"], rel=0.05)


def test_a_memory_too_slow_says_so_and_sets_what_is_found(ask: Ask) -> None:
    told = ask(UNDER, reuse=reuse(tiers=[{"memory": "disk", "devices": 1}], returns=1.0))
    disk = told["reuse"]["tiers"][1]
    assert disk["hits"] < disk["meets"]
    assert not disk["faster"]
    assert any("disk is asked for" in note for note in told["warnings"])
    assert any("more slowly than it is computed" in note for note in told["warnings"])


def test_more_sessions_than_memory_find_less(ask: Ask) -> None:
    soon, late = (
        ask(UNDER, reuse=reuse(tiers=["host-ddr-pcie5"], revisit={"median": pause, "p90": pause}))
        for pause in ("5s", "2h")
    )
    assert soon["reuse"]["hit_rate"] == pytest.approx(0.8)
    assert late["reuse"]["hit_rate"] == 0.0
    assert soon["ttft_s"] < late["ttft_s"]


def test_the_caches_of_two_pools_wait_beside_prefill(tmp_path: Path) -> None:
    raw = yaml.safe_load((ROOT / "examples/scenarios/old-with-new.yaml").read_text())
    raw["cluster"] = str(ROOT / "examples/clusters/old-with-new.yaml")
    raw["reuse"] = {**REUSE, "shared": 100, "history": 3000, "returns": 0.9}
    file = tmp_path / "pools.yaml"
    file.write_text(yaml.safe_dump(raw))
    told = serve(file)
    first = told["pools"]["prefill"]
    assert told["rates"]["prefill"] > first["reuse"]["without"]["requests_per_s"]
    assert math.fsum(first["terms"].values()) == pytest.approx(first["step_time_s"], rel=1e-12)
    assert "reuse" not in told["pools"]["decode"]


def test_every_fault_comes_with_its_remedy(ask: Ask) -> None:
    with pytest.raises(SpecError) as error:
        ask(ALONE, phase="decode", reuse=reuse(tiers=["hbm-h100", "host-dr-pcie5"]), cold_start={"source": "tape"})
    faults = {fault.field: fault for fault in error.value.faults}
    assert set(faults) == {"reuse", "reuse.tiers.0", "reuse.tiers.1", "cold_start.source"}
    assert all(fault.remedy for fault in faults.values())
    with pytest.raises(SpecError, match="leave nothing of 8000"):
        ask(ALONE, reuse=reuse(history=8000))


# --- cold start ----------------------------------------------------------------------------------------------------------


def test_weights_come_at_the_rate_of_the_slowest_stage(ask: Ask) -> None:
    """Two drives of 14 GB/s for eight accelerators: 3.5 GB/s each, less than their bus."""
    told = ask(UNDER, cold_start={"source": "local-nvme-gen5", "devices": 2, "before_s": "10s"})["cold_start"]
    assert told["bottleneck"] == "source"
    assert told["terms"]["weights"] == pytest.approx(told["weight_bytes"] / 3.5e9, rel=1e-3)
    assert told["seconds"] == pytest.approx(sum(told["terms"].values()))
    assert told["terms"]["before"] == 10.0


def test_a_fast_source_is_held_up_by_the_bus_or_the_network_card(ask: Ask) -> None:
    drives = {"source": "local-nvme-gen5", "devices": 64}
    near, far = (ask(ALONE, cold_start={**drives, "network": flag})["cold_start"] for flag in (False, True))
    assert (near["bottleneck"], far["bottleneck"]) == ("bus", "network card")
    assert far["seconds"] > near["seconds"]


def test_peers_send_over_the_wiring_and_more_donors_are_faster(ask: Ask) -> None:
    wide = {**UNDER, "accelerators": 64, "load": {"clients": 128}}
    one, four = (ask(wide, cold_start={"source": "peers", "donors": n})["cold_start"] for n in (1, 4))
    assert one["bottleneck"] == "wire"
    assert one["terms"]["weights"] == pytest.approx(15 / 3 * four["terms"]["weights"], rel=0.01)


def test_seventy_billion_parameters_from_a_network_take_what_the_wire_says() -> None:
    """Published: 130 GB at 5 GB/s take 26 s to download (ServerlessLLM 2401.14351 §2)."""
    from parallel.serving.coldstart import Start

    assert Start({"source": 5e9}, 0.0, 130e9, 0.0).load_s == 26.0
