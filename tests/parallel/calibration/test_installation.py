"""One's own runs calibrate an installation: one factor, written as a section that a scenario takes."""

import copy
import json

import pytest
import yaml

from clusters.measurements import read_json
from parallel.calibration.installation import calibrate_file
from parallel.scenario import train
from parallel.validation.sets import validate
from topo.errors import SpecError

RUNS = ["simumax_b200_llama3_70b_l12_tp8_pp1_dp1_mbc4_cef", "zb_1.5b_m24_1F1B"]


@pytest.fixture
def own(tmp_path):
    def write(change=lambda case: None, ids=RUNS):
        shipped = read_json("training_cases.json")
        cases = [copy.deepcopy(case) for case in shipped["cases"] if case["id"] in ids]
        for case in cases:
            change(case)
        path = tmp_path / "runs.json"
        path.write_text(json.dumps({**shipped, "cases": cases}))
        return path

    return write


def stretch(by):
    def change(case):
        measured = case["measured"]
        for key in ("iter_time_s",):
            if measured.get(key):
                measured[key] *= by
        if measured.get("tokens_per_s_per_gpu"):
            measured["tokens_per_s_per_gpu"] /= by

    return change


def test_steps_that_take_twice_as_long_double_the_factor(own, tmp_path):
    once = calibrate_file(own(), tmp_path / "a.yaml")["constants"]["installation"]
    twice = calibrate_file(own(stretch(2.0)), tmp_path / "b.yaml")["constants"]["installation"]
    assert twice == pytest.approx(2.0 * once, rel=1e-3)


def test_the_factor_is_the_median_of_measured_over_predicted(own, tmp_path):
    found = calibrate_file(own(ids=RUNS[:1]), tmp_path / "a.yaml")
    (row,) = [row for row in validate("training", own(ids=RUNS[:1]))["rows"] if row["predicted"]]
    assert found["constants"]["installation"] == pytest.approx(row["measured"] / row["predicted"], rel=1e-3)
    assert found["runs"][0]["installed"] == pytest.approx(row["measured"], rel=1e-3)


def test_the_written_section_scales_the_step_of_a_scenario(own, tmp_path):
    calibrate_file(own(stretch(3.0)), tmp_path / "mine.yaml")
    section = yaml.safe_load((tmp_path / "mine.yaml").read_text())["software"]
    scenario = {
        "model": "llama-3.1-8b",
        "cluster": "hgx-h100",
        "accelerators": 16,
        "workload": {"sequence": 4096, "global_batch": 64, "precision": "bf16"},
        "strategy": {"tp": 4},
    }
    plain, installed = (tmp_path / name for name in ("plain.yaml", "installed.yaml"))
    plain.write_text(yaml.safe_dump(scenario))
    installed.write_text(yaml.safe_dump({**scenario, "software": section}))
    assert train(installed)["step_time_s"] == pytest.approx(section["installation"] * train(plain)["step_time_s"])


def test_a_file_of_runs_that_cannot_be_priced_names_every_reason(own, tmp_path):
    path = own(lambda case: case["batch"].update(micro=None))
    with pytest.raises(SpecError) as error:
        calibrate_file(path, tmp_path / "a.yaml")
    assert len(error.value.faults) == len(RUNS)
    assert all("micro-batch" in fault.problem for fault in error.value.faults)
