"""One's own runs calibrate an installation: one factor, written as a section that a scenario takes."""

import copy
import json

import numpy as np
import pytest
import yaml

from clusters.measurements import read_json
from clusters.software import document
from parallel.calibration.installation import calibrate_file, factor
from parallel.scenario import train
from parallel.validation.sets import validate
from parallel.validation.training import carried
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


def share(runs):
    held = document()["installation"]
    return carried(held["between"], held["within"], runs)


def test_of_steps_that_take_twice_as_long_the_factor_carries_what_installations_differ_by(own, tmp_path):
    once = calibrate_file(own(), tmp_path / "a.yaml")["constants"]["installation"]
    twice = calibrate_file(own(stretch(2.0)), tmp_path / "b.yaml")["constants"]["installation"]
    assert twice == pytest.approx(2.0 ** share(len(RUNS)) * once, rel=1e-3)
    assert 1.0 < twice / once < 2.0


def test_more_runs_carry_more_and_a_factor_never_overshoots_its_runs():
    measured, predicted = np.array([1.2, 1.2, 1.2, 1.2]), np.ones(4)
    found = [factor(measured[:n], predicted[:n], 0.01, 0.01) for n in range(1, 5)]
    assert found == sorted(found)
    assert 1.0 < found[0] == pytest.approx(1.2**0.5)
    assert found[-1] < 1.2


def test_installations_that_do_not_differ_are_left_alone_and_exact_runs_carry_whole():
    assert factor(np.array([1.3]), np.array([1.0]), 0.0, 0.01) == 1.0
    assert factor(np.array([1.3]), np.array([1.0]), 0.01, 0.0) == pytest.approx(1.3)


def test_the_factor_is_a_power_of_the_median_of_measured_over_predicted(own, tmp_path):
    found = calibrate_file(own(ids=RUNS[:1]), tmp_path / "a.yaml")
    (row,) = [row for row in validate("training", own(ids=RUNS[:1]))["rows"] if row["predicted"]]
    ratio = row["measured"] / row["predicted"]
    assert found["constants"]["installation"] == pytest.approx(ratio ** share(1), rel=1e-3)
    assert found["runs"][0]["installed"] == pytest.approx(row["predicted"] * ratio ** share(1), rel=1e-3)


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
