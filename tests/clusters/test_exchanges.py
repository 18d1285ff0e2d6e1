"""Constants of exchange kernels: the script finds what is known, and the committed file is what it produces."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from clusters.calibration import exchanges
from clusters.calibration.residuals import residuals
from clusters.catalogue import read_yaml
from clusters.exchanges import KERNELS, multiprocessors, workers
from clusters.measurements import read_csv
from clusters.tunings import EXCHANGES, REGIMES, tuning
from collectives.moe import COPIES
from collectives.moe_kernel import WORK


@pytest.fixture(scope="module")
def tables():
    return read_csv("moe_all2all.csv"), read_csv("moe_all2all_gb200_onesided.csv")


@pytest.fixture(scope="module")
def jobs(tables):
    inside = {job.where: job for job in exchanges.jobs(*tables)}
    known = {where: tuning(*where).model for where in inside}
    return inside | {job.where: job for job in exchanges.jobs(*tables, known)}


def entries():
    for link, ops in read_yaml(EXCHANGES.read_text("utf-8"))["constants"].items():
        for op, regimes in ops.items():
            for regime, entry in regimes.items():
                yield (link, op, regime), entry


def test_every_entry_has_five_constants_at_most_with_residuals_and_source() -> None:
    for where, entry in entries():
        held = [key for key in ("base_s", "efficiency", "step_s", "ramp_s", *WORK) if key in entry]
        assert len(held) <= 5, where
        assert entry["residuals"]["n"] > 0
        assert entry["source"]
        assert entry["ranks"][0] <= entry["ranks"][1]


def test_every_kernel_measured_is_fitted_on_every_link(jobs) -> None:
    assert set(jobs) == {where for where, _ in entries()}
    assert {regime for _, _, regime in jobs} == set(exchanges.BACKENDS.values()) == set(KERNELS)
    assert set(KERNELS) <= set(REGIMES)
    assert {kernel.copies for kernel in KERNELS.values()} == set(COPIES)


@pytest.mark.parametrize(
    "where",
    [
        ("nvlink4", "moe_combine", "low-latency"),
        ("nvlink5", "moe_dispatch", "one-sided"),
        ("nvlink4", "moe_dispatch", "normal-v2"),
        ("ib-ndr", "moe_dispatch", "low-latency"),
        ("ib-ndr", "moe_combine", "normal"),
    ],
)
def test_the_committed_constants_and_residuals_come_from_the_script(jobs, where) -> None:
    job, stated = jobs[where], tuning(*where)
    assert residuals(job.price(stated.model), job.measured_s) == pytest.approx(dict(stated.residuals), rel=1e-3)
    again = exchanges.fit(job)
    for key in ("base_s", "efficiency", *WORK):
        assert getattr(again, key) == pytest.approx(getattr(stated.model, key), rel=0.02, abs=1e-12)
    held = dict(entries())[where].get("held_out", {})
    assert exchanges.held_out(job) == {name: pytest.approx(figures, rel=0.02) for name, figures in held.items()}


@pytest.mark.parametrize(
    ("where", "constants"),
    [
        (("nvlink5", "moe_combine", "low-latency"), {"efficiency": 0.5, "expert_s": 4e-8, "token_s": 3e-6}),
        (("ib-ndr", "moe_combine", "normal"), {"efficiency": 0.6, "token_s": 5e-6, "byte_s": 2e-10}),
    ],
)
def test_the_fit_recovers_constants_it_is_given(jobs, where, constants) -> None:
    job, truth = jobs[where], exchanges.model_of({"base_s": 21e-6, **constants})
    priced = job.price(truth)
    tables, start = {}, 0
    for key, rows in job.tables.items():
        tables[key] = {**rows, "latency_us": priced[start : start + rows["ep_size"].size] * 1e6}
        start += rows["ep_size"].size
    found = exchanges.fit(replace(job, tables=tables))
    for key in job.free:
        assert getattr(found, key) == pytest.approx(getattr(truth, key), rel=0.01)


def test_a_constant_that_explains_nothing_is_left_out(jobs) -> None:
    job = jobs["nvlink5", "moe_dispatch", "normal"]
    assert job.fixed == {"efficiency": 0.7}
    assert tuning(*job.where).model.efficiency == 0.7
    assert "64 multiprocessors" in tuning(*job.where).note
    assert tuning("nvlink4", "moe_dispatch", "low-latency-v2").model.base_s == 0


def test_one_shape_alone_does_not_tell_tokens_from_bytes(jobs) -> None:
    job, inside = jobs["ib-ndr", "moe_dispatch", "normal"], tuning("nvlink4", "moe_dispatch", "normal").model
    assert job.fixed == {"byte_s": inside.byte_s}
    assert tuning(*job.where).model.byte_s == inside.byte_s


def test_every_system_and_number_of_ranks_weighs_the_same(jobs) -> None:
    job = jobs["ib-ndr", "moe_dispatch", "low-latency"]
    ranks, weights = job.column("ep_size"), job.weights
    assert np.sum(weights[ranks == 16]) == pytest.approx(np.sum(weights[ranks == 64]))


def test_wide_normal_exchanges_are_set_aside_with_their_reason(jobs) -> None:
    for phase, count in (("dispatch", 138), ("combine", 24)):
        job = jobs["ib-ndr", f"moe_{phase}", "normal"]
        assert sum(rows["ep_size"].size for rows in job.aside.values()) == count
        assert "17 GB/s of 50" in tuning(*job.where).note


def test_kernels_take_what_they_are_lent_or_all_there_is() -> None:
    assert multiprocessors("gb300") == 152
    assert workers("normal", "h100-sxm", 256, lent=[4, 24]).tolist() == [4, 24]
    assert workers("low-latency", "h100-sxm", [8, 384]).tolist() == [8, 128]
    assert workers("two-sided", "b200-sxm", 256) == 148


def test_the_script_writes_what_is_committed(tmp_path, monkeypatch, jobs, capsys) -> None:
    one = jobs["ib-ndr", "moe_dispatch", "low-latency"]
    monkeypatch.setattr(exchanges, "jobs", lambda *given: [one] if given[-1] is None else [])
    exchanges.main(["--out", str(tmp_path / "mine.yaml")])
    written = yaml.safe_load((tmp_path / "mine.yaml").read_text("utf-8"))["constants"]
    assert written == {"ib-ndr": {"moe_dispatch": {"low-latency": dict(entries())[one.where]}}}
    assert "64 ranks: " in capsys.readouterr().out
