"""One's own load test calibrates an engine: constants where there are runs enough, factors where not."""

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clusters.catalogue import accelerator
from clusters.measurements import read_csv
from parallel.calibration import serving_own
from parallel.calibration.load_tests import read_results
from parallel.calibration.serving_own import Measured, calibrate_file, errors, fit
from parallel.hybrids import served_model
from parallel.scenario import serve
from parallel.serving.engines import engine
from parallel.serving.passes import Split
from parallel.serving.runs import Run, answer
from parallel.serving.trust import trusted
from parallel.validation.serving_rows import cells
from topo.errors import SpecError

BENCH = {
    "backend": "vllm",
    "model_id": "meta-llama/Llama-3.1-70B-Instruct",
    "max_concurrency": 8,
    "completed": 80,
    "total_input_tokens": 80_000,
    "total_output_tokens": 16_000,
    "mean_ttft_ms": 200.0,
    "mean_tpot_ms": 12.0,
}
TOLD: dict[str, Any] = {"accelerator": "h200-sxm", "precision": "fp8", "tp": 4}


def runs(truth: Any, loads: tuple[int, ...] = (1, 4, 16, 32)) -> list[Measured]:
    """Runs as an engine with other constants would have measured them."""
    model, part = served_model("llama-3.1-70b"), accelerator("h200-sxm")
    made = []
    for clients in loads:
        run = Run("vllm", model, part, "fp8", Split(tp=4), clients, 1000 * (1 + clients % 3), 200)
        found = answer(run, truth)
        made.append(Measured(f"c{clients}", run, "0.1", (found.tpot_s, found.ttft_s)))
    return made


def results(folder: Path, *documents: dict[str, Any], name: str = "run.json") -> Path:
    file = folder / name
    file.write_text("\n".join(json.dumps(one) for one in documents))
    return file


def test_an_engine_with_other_constants_is_found_again() -> None:
    base = engine("vllm")
    truth = replace(base, launch=1.3 * base.launch, prefill=1.2 * base.prefill, offset_s=2.0 * base.offset_s)
    found = fit(runs(truth), base).trust
    assert found.level == "engine-version calibrated"
    assert found.engine.launch == pytest.approx(truth.launch, rel=0.05)
    assert found.engine.prefill == pytest.approx(truth.prefill, rel=0.15)


def test_every_run_is_nearer_after_a_fit_and_unseen_than_before() -> None:
    base = engine("vllm")
    found = fit(runs(replace(base, launch=1.4 * base.launch, offset_s=3.0 * base.offset_s)), base)
    assert found.unseen is not None
    before, after, unseen = (np.median(np.abs(one), axis=0) for one in (found.before, found.after, found.unseen))
    assert (after < before).all()
    assert unseen[0] < 0.5 * before[0]


def test_leaving_a_run_out_in_the_linear_problem_is_near_to_a_new_fit() -> None:
    base = engine("vllm")
    held = runs(replace(base, launch=1.2 * base.launch))
    held[0] = replace(held[0], seconds=(1.1 * held[0].seconds[0], held[0].seconds[1]))
    whole = fit(held, base)
    again = fit(held[1:], base).trust.engine
    assert whole.unseen is not None
    assert whole.unseen[0] == pytest.approx(errors(held[:1], again)[0], abs=0.03)


def test_two_runs_give_a_factor_on_each_time() -> None:
    base = engine("vllm")
    held = runs(base, (2, 8))
    found = fit([replace(one, seconds=(1.5 * one.seconds[0], 0.5 * one.seconds[1])) for one in held], base)
    assert found.trust.level == "one-point calibrated"
    assert found.trust.tpot == pytest.approx(1.5, rel=1e-3)
    assert found.trust.ttft == pytest.approx(0.5, rel=1e-3)
    assert found.unseen is None


def test_the_result_of_a_load_generator_becomes_a_calibration_that_a_scenario_names(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    told = calibrate_file(results(tmp_path, BENCH), out, **TOLD)
    assert told["runs"][0]["tpot"]["after"] == pytest.approx(0.012, rel=1e-3)
    scenario = {
        "model": "llama-3.1-70b",
        "cluster": {"accelerator": "h200-sxm", "accelerators": 4, "domain": 4},
        "engine": "vllm",
        "calibration": "mine.yaml",
        "load": {"clients": 8},
        "workload": {"isl": 1000, "osl": 200, "precision": "fp8"},
        "strategy": {"tp": 4},
    }
    file = tmp_path / "scenario.yaml"
    file.write_text(yaml.safe_dump(scenario))
    served = serve(file)
    assert served["trust"]["level"] == "one-point calibrated"
    assert served["trust"]["zero_shot"]["tpot_s"] * told["constants"]["tpot"] == pytest.approx(served["tpot_s"])
    assert sum(served["terms"].values()) == pytest.approx(served["tpot_s"])
    assert not any("one-point" in note for note in served["warnings"])
    file.write_text(yaml.safe_dump({**scenario, "strategy": {"tp": 2}}))
    assert any("one-point calibrated on" in note for note in serve(file)["warnings"])


def test_a_table_of_ten_runs_brings_a_band_of_its_own(tmp_path: Path) -> None:
    rows = [
        row
        for row in cells(read_csv("serving_silicon.csv"))
        if row["engine_version"] == "0.19.0" and row["tp"] == "2" and row["model"].endswith("M2.5")
    ][:10]
    file = tmp_path / "own.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    told = calibrate_file(file, tmp_path / "mine.yaml")
    held = told["residuals"]["tpot"]["after"]["held_out"]
    assert told["calibration"]["bands"]["tpot aggregated"] == [held["low"], held["high"]]
    assert not any("fewer than" in note for note in told["warnings"])


@pytest.mark.parametrize(
    ("document", "want"),
    [
        (BENCH, {"isl": 1000.0, "osl": 200.0, "concurrency": 8, "ttft_ms": 200.0}),
        ({**BENCH, "backend": "sglang", "tp": "8"}, {"engine": "sglang", "tp": "8"}),
        (
            {
                "time_to_first_token": {"unit": "s", "avg": 0.2},
                "inter_token_latency": {"unit": "ms", "avg": 12.0},
                "input_sequence_length": {"avg": 1000.0},
                "output_sequence_length": {"avg": 200.0},
                "input_config": {"endpoint": {"model_names": ["m"]}, "loadgen": {"concurrency": 8}},
            },
            {"ttft_ms": 200.0, "tpot_ms": 12.0, "concurrency": 8, "model": "m", "isl": 1000.0},
        ),
    ],
    ids=["vllm", "sglang with metadata", "aiperf"],
)
def test_results_are_read_by_the_key_that_tells_their_generator(
    tmp_path: Path, document: dict[str, Any], want: dict[str, Any]
) -> None:
    [(_, found)] = read_results(results(tmp_path, document))
    assert {key: found[key] for key in want} == want


def test_a_folder_is_read_whole_lines_and_files_alike(tmp_path: Path) -> None:
    results(tmp_path, BENCH, {**BENCH, "max_concurrency": 4}, name="a.jsonl")
    results(tmp_path, {**BENCH, "max_concurrency": 2}, name="b.json")
    results(tmp_path, {"other": 1}, name="c.json")
    assert [held["concurrency"] for _, held in read_results(tmp_path)] == [8, 4, 2]


@pytest.mark.parametrize(
    ("told", "document", "words"),
    [
        ({}, BENCH, ["lacks system", "--accelerator"]),
        (TOLD, {**BENCH, "max_concurrency": None, "request_rate": 4.0}, ["clients not stated", "fixed number"]),
        (TOLD, {**BENCH, "model_id": "nobody/knows"}, ["model not known"]),
        (TOLD, {"x": 1}, ["no known load generator"]),
        (
            {**TOLD, "engine": "sglang", "tp": 3, "ep": 2},
            {**BENCH, "model_id": "deepseek-ai/DeepSeek-V3"},
            ["split not of one replica"],
        ),
    ],
)
def test_a_run_that_cannot_be_used_says_what_it_lacks(
    tmp_path: Path, told: dict[str, Any], document: dict[str, Any], words: list[str]
) -> None:
    file = results(tmp_path, document)
    with pytest.raises(SpecError) as error:
        calibrate_file(file, tmp_path / "out.yaml", **told)
    assert all(word in str(error.value) for word in words)


def test_runs_of_two_engines_are_refused_with_the_flag_that_chooses(tmp_path: Path) -> None:
    file = results(tmp_path, BENCH, {**BENCH, "backend": "sglang"})
    with pytest.raises(SpecError, match="--engine"):
        calibrate_file(file, tmp_path / "out.yaml", **TOLD)


def test_a_calibration_of_another_engine_is_refused(tmp_path: Path) -> None:
    calibrate_file(results(tmp_path, BENCH), tmp_path / "mine.yaml", **TOLD)
    with pytest.raises(SpecError, match="another engine"):
        trusted("sglang", tmp_path / "mine.yaml")


def test_a_shipped_table_is_gzip_or_plain(tmp_path: Path) -> None:
    row = next(row for row in cells(read_csv("serving_silicon.csv")) if row["mode"] == "agg" and row["concurrency"])
    text = ",".join(row) + "\n" + ",".join(row.values()) + "\n"
    file = tmp_path / "own.csv.gz"
    file.write_bytes(gzip.compress(text.encode()))
    assert len(serving_own.read_runs(file)) == 1
