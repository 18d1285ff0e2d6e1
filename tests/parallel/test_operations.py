"""A whole run: hand values, limit cases, and the published run that the catalogue's figure comes from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.build import build
from clusters.spec import load, with_
from parallel.operations import DAY_S, Run, checkpoint_interval_s, goodput, job_mtbf_s, whole_run
from topo.errors import SpecError

times = st.floats(1e-3, 1e6)


@pytest.fixture(scope="module")
def cluster():
    return build(with_(load("hgx-h100"), accelerators=16_384))


def test_the_job_of_llama_3_is_interrupted_every_three_hours():
    assert job_mtbf_s(54 * 24 * 16_384 / 419, 16_384) == pytest.approx(54 * DAY_S / 419)


@given(times, times, st.floats(0, 1e5), st.floats(0.2, 5.0))
def test_no_other_interval_between_checkpoints_beats_the_best_by_more_than_second_order(written, mtbf, restart, factor):
    """Young's interval is best to first order in τ/M: the restart and the product of both losses are left out."""
    best = checkpoint_interval_s(written, mtbf)
    if best > mtbf / 10:
        return
    here, there = (goodput(written, tau, mtbf, 0.0) for tau in (best, factor * best))
    assert there <= here * (1.0 + 0.01)
    assert goodput(written, best, mtbf, restart) <= here


def test_without_interruptions_all_time_is_progress():
    assert goodput(0.0, 0.0, float("inf"), 1e9) == 1.0


def test_tokens_become_days_hours_energy_and_dollars(cluster):
    told = whole_run(
        Run(tokens=1e12, unit_mtbf_h=1e12, restart_s=0.0, overlapped=1.0, usd_per_hour=2.0),
        cluster,
        10.0,
        1e7,
        16_384,
        1e12,
    )
    assert told["steps"] == 1e5
    assert told["days"] == pytest.approx(1e6 / DAY_S, rel=1e-6)
    assert told["accelerator_hours"] == pytest.approx(told["days"] * 24 * 16_384)
    assert told["cost_usd"] == pytest.approx(2.0 * told["accelerator_hours"])
    assert told["goodput"] == pytest.approx(1.0)


def test_llama_3_405b_keeps_more_than_nine_tenths_of_its_time(cluster):
    """Published: effective training time above 90 % (arXiv 2407.21783 §3.3.4)."""
    told = whole_run(Run(tokens=15.6e12), cluster, 4.6, 16e6, 16_384, 14 * 405e9)
    assert 0.90 < told["goodput"] < 0.97
    assert told["interruptions"] == pytest.approx(told["days"] / 54 * 419, rel=0.01)


@given(st.floats(1e3, 1e9))
def test_more_reliable_accelerators_waste_less(unit):
    mtbf = [job_mtbf_s(hours, 1000) for hours in (unit, 2 * unit)]
    less, more = (goodput(3.0, checkpoint_interval_s(3.0, m), m, 600.0) for m in mtbf)
    assert more > less


def test_every_fault_of_a_run_comes_at_once():
    with pytest.raises(SpecError) as error:
        Run(tokens=0, unit_mtbf_h=-1, restart_s=-1, overlapped=2)
    assert [fault.field for fault in error.value.faults] == [
        "run.tokens",
        "run.unit_mtbf_h",
        "run.restart_s",
        "run.overlapped",
    ]
