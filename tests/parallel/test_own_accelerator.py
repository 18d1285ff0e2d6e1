"""An accelerator that only a cluster file knows is priced from end to end, and every answer says what it borrows."""

from pathlib import Path

import pytest

from parallel.compare import CompareRequest, compare
from parallel.scenario import serve
from topo.errors import SpecError

CLUSTERS = Path(__file__).parents[2] / "examples" / "clusters"
OWN = "{name: my-chip, like: h100, peak_bf16: 1.2PFLOP/s, hbm_capacity: 192GB, hbm_bandwidth: 8TB/s}"
SCENARIO = f"""
phase: decode
model: llama-3.1-8b
cluster: {{accelerator: {OWN}, accelerators: 8}}
workload: {{precision: fp8}}
strategy: {{tp: 8, batch: 16}}
"""


def small(file, **changes):
    fields = {"model": "llama-3.1-8b", "domains": (8, 16), "global_batch": 4608, "executor": "serial", **changes}
    return compare(CompareRequest(cluster=str(file), **fields))


def test_every_phase_runs_on_every_wiring_and_says_what_is_borrowed():
    document = small(CLUSTERS / "my-own.yaml")
    assert document["workload"]["accelerator"] == "my-chip"
    assert {(row["domain"], row["phase"]) for row in document["rows"]} == {
        (domain, phase) for domain in (8, 16) for phase in ("train", "prefill", "decode")
    }
    for row in document["rows"]:
        assert row["infeasible"] is None
        assert any("no measurement of my-chip" in warning for warning in row["warnings"])
    named = {row["name"]: row["source"] for row in document["assumptions"]}
    assert named["my-chip: hbm_bandwidth"] == "set in the cluster file"


def test_a_file_that_overrides_figures_is_compared_too():
    document = small(CLUSTERS / "h200-faster-memory.yaml", phases=("decode",))
    assert "set in the cluster file" in {row["source"] for row in document["assumptions"]}


def test_a_scenario_may_describe_its_accelerator(tmp_path):
    file = tmp_path / "scenario.yaml"
    file.write_text(SCENARIO, encoding="utf-8")
    slow = tmp_path / "slow.yaml"
    slow.write_text(SCENARIO.replace("8TB/s", "2TB/s"), encoding="utf-8")
    assert serve(file)["tpot_s"] < serve(slow)["tpot_s"]


def test_faults_of_the_accelerator_are_told_with_the_scenarios_name(tmp_path):
    file = tmp_path / "scenario.yaml"
    file.write_text(SCENARIO.replace("192GB", "192XB").replace("peak_bf16", "peak_bf"), encoding="utf-8")
    with pytest.raises(SpecError) as error:
        serve(file)
    fields = {fault.field for fault in error.value.faults}
    assert {"accelerator.hbm_capacity", "accelerator.peak_bf", "accelerator.peak_bf16"} <= fields
    assert all(fault.file == str(file) for fault in error.value.faults)
