"""What software does between the products of a step: agreeing on FP8 scales, evaluating, and getting faster by release."""

from dataclasses import replace
from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.software import MIDDLE, NEWEST, release_years
from parallel.models import layer_count
from parallel.placement import group_members
from parallel.priced import Priced
from parallel.strategy import Columns
from parallel.training.layer import TrainJob, collective
from parallel.training.step import AMAX_BYTES, DEFAULTS, forward_only_s, price, stage_prices
from parallel.workload import AMAX, Software, TrainWorkload
from topo.columns import column
from topo.errors import SpecError

SPLIT = {"used": 8, "tp": 4, "ep": 1, "micro_batch": 1, "pp": 4, "vpp": 2}
quick = settings(max_examples=25, deadline=None)


@pytest.fixture
def dense(bind):
    return bind("train", "llama-3.1-8b", "hgx-h100", 64)


def job_of(bound, precision="fp8", fitted=None, **changes) -> TrainJob:
    work = replace(bound.task.train, precision=precision, software=Software(**changes))
    return TrainJob.of(bound.task.model, bound.cluster, work, fitted)


def step(bound, precision="fp8", dp=4, **changes) -> Priced:
    return price(job_of(bound, precision, **changes), Columns.of(**SPLIT, dp=dp))


def test_scales_are_agreed_on_twice_for_every_chunk_and_micro_batch(dense) -> None:
    job, cols = job_of(dense, amax="all"), Columns.of(**SPLIT, dp=4).filled(DEFAULTS)
    m = job.work.global_batch / 4
    size_bytes = column(AMAX_BYTES * layer_count(job.model) / 4)
    one = float(collective(job, "all_reduce", size_bytes, group_members(job.cluster, cols, "stage"))[0])
    assert price(job, cols).terms["amax"][0] == pytest.approx(job.scale * 2 * m * 2 * one)


def test_the_wider_the_group_that_agrees_the_longer_it_takes(dense) -> None:
    waits = {name: step(dense, amax=name).terms["amax"][0] for name in AMAX}
    assert waits["none"] == 0.0 < waits["tp"] < waits["all"]
    replicas = [float(step(dense, amax="all", dp=dp).terms["amax"][0]) * dp for dp in (1, 2, 4)]
    assert replicas == sorted(replicas)
    assert replicas[0] < replicas[-1]


def test_products_in_bf16_have_no_scales(dense) -> None:
    assert step(dense, "bf16", amax="all").terms["amax"][0] == 0.0


def test_an_evaluation_is_a_share_of_forward_passes(dense) -> None:
    job, cols = job_of(dense), Columns.of(**SPLIT, dp=4).filled(DEFAULTS)
    work = replace(job.work, evaluation_sequences=3 * job.work.global_batch, evaluation_steps=10)
    evaluating = TrainJob.of(job.model, job.cluster, work)
    plain, held = price(job, cols), price(evaluating, cols)
    added = float(held.terms["evaluation"][0])
    assert held.seconds[0] - plain.seconds[0] == pytest.approx(added)
    assert 0.25 < added / 0.3 / plain.seconds[0] < 0.4  # a forward pass: a third of a step, with its own bubble


def test_on_one_stage_an_evaluation_is_the_forward_of_all_micro_batches(dense) -> None:
    cols = Columns.of(**SPLIT | {"pp": 1, "vpp": 1}, dp=16).filled(DEFAULTS)
    job = job_of(dense)
    stage, m = stage_prices(job, cols), job.work.global_batch / 16
    stages = {**stage, "slow": stage["total"], "microbatches": column([m]), "forward": column([0.0])}
    assert float(forward_only_s(job, stages, cols)[0]) == pytest.approx(m * float(stage["forward share"][0]))


@quick
@given(st.integers(1, 20000), st.integers(1, 4096), st.integers(1, 50))
def test_the_last_batch_of_an_evaluation_is_filled_up(sequences: int, batch: int, steps: int) -> None:
    work = TrainWorkload(global_batch=batch, evaluation_sequences=sequences, evaluation_steps=steps)
    whole = work.evaluated * steps
    assert whole == pytest.approx(round(whole))
    assert sequences <= whole * batch + 1e-6 < sequences + batch + 1e-6


def test_later_releases_are_faster_in_every_second_by_the_same_share(dense) -> None:
    plain, later = step(dense, release=MIDDLE), step(dense)
    saved = exp(-job_of(dense).engine.yearly * release_years(NEWEST))
    assert later.seconds[0] == pytest.approx(saved * plain.seconds[0])
    assert all(later.terms[name][0] == pytest.approx(saved * plain.terms[name][0]) for name in plain.terms)
    assert saved < 1.0 < exp(-job_of(dense).engine.yearly * release_years("23.05"))


@pytest.mark.parametrize("wrong", ["2024", "24.13", "24.00", "latest", "24"])
def test_a_release_is_a_year_and_a_month(wrong) -> None:
    with pytest.raises(SpecError) as caught:
        Software(release=wrong)
    assert [fault.field for fault in caught.value.faults] == ["release"]


def test_an_evaluation_needs_steps_between_and_no_negative_sequences() -> None:
    with pytest.raises(SpecError) as caught:
        TrainWorkload(evaluation_sequences=-1, evaluation_steps=0)
    assert {fault.field for fault in caught.value.faults} == {"evaluation_sequences", "evaluation_steps"}


@quick
@given(st.sampled_from([1.0, 2.0, 4.0, 8.0]), st.sampled_from([1.0, 2.0]), st.sampled_from([0, 1]))
def test_the_ranks_of_a_stage_are_all_but_the_pipelines(dp: float, cp: float, order: int) -> None:
    from parallel.placement import GROUPS

    cols = {
        name: np.array([value]) for name, value in (("tp", 4.0), ("cp", cp), ("dp", dp), ("pp", 2.0), ("order", order))
    }
    assert GROUPS["stage"](cols)[0] == GROUPS["tp-cp"](cols)[0] * dp == 4.0 * cp * dp
