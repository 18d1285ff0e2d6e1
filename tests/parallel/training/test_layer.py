"""A layer of a training step: what hides behind what, what the host adds, and what the software switches change."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.kernels import memory_s
from parallel.operators import Operator
from parallel.placement import group_members
from parallel.priced import Priced
from parallel.roofline import gradients_s
from parallel.strategy import Columns
from parallel.training.footprint import stage_loads
from parallel.training.layer import (
    TrainJob,
    _priced,
    biased_experts,
    collective,
    host_s,
    layer_prices,
    tensor_exposed_s,
)
from parallel.training.step import DEFAULTS, SCHEDULES, price
from parallel.workload import GRAPHS, TP_OVERLAPS, Software
from topo.errors import SpecError

quick = settings(max_examples=50, deadline=None)
seconds = st.floats(0.0, 10.0)
DENSE = {"used": 8, "tp": 4, "ep": 1, "micro_batch": 1, "dp": 2, "pp": 2}
ROUTED = {"used": 72, "tp": 1, "ep": 8, "micro_batch": 1, "dp": 8, "pp": 4}


@pytest.fixture
def dense(bind):
    return bind("train", "llama-3.1-8b", "hgx-h100", 16)


@pytest.fixture
def routed(bind):
    return bind("train", "deepseek-v3", "gb200-nvl72", 72)


def step(bound, split, **changes) -> Priced:
    work = bound.task.train
    job = TrainJob.of(bound.task.model, bound.cluster, replace(work, software=Software(**changes)))
    return price(job, Columns.of(**split))


@quick
@given(seconds, seconds, st.sampled_from([1.0, 2.0, 4.0]))
def test_a_layer_takes_at_least_the_longer_of_chip_and_host(chip: float, launching: float, power: float) -> None:
    added = float(host_s(np.array(chip), np.array(launching), power))
    assert added >= -1e-12
    assert max(chip, launching) <= chip + added + 1e-12 <= 2.0 ** (1.0 / power) * max(chip, launching) + 1e-9


@quick
@given(*[seconds] * 5, st.sampled_from([1.0, 2.0, 8.0]))
def test_overlap_never_exposes_more_than_none(ahead, back, hideable, behind, products, tp) -> None:
    get = {"forward tp": ahead, "backward tp": back, "hideable tp": hideable, "column backward": behind}
    get = {name: np.array(value) for name, value in get.items()}
    shown = {mode: float(tensor_exposed_s(mode, get, np.array(products), np.array(tp))) for mode in TP_OVERLAPS}
    assert shown["none"] == pytest.approx(ahead + back + hideable)
    assert all(0.0 <= value <= shown["none"] + 1e-12 for value in shown.values())
    assert shown["chunked"] >= shown["none"] / tp - 1e-12  # the first piece of each has nothing to hide behind


def test_graphs_take_kernels_from_the_host(routed) -> None:
    host = {name: float(step(routed, ROUTED, graphs=name).terms["host"][0]) for name in GRAPHS}
    assert host["full"] == 0.0
    assert host["full"] < host["attention"] < host["router"] < host["none"]


def test_a_slow_host_shows_only_where_micro_batches_are_small(dense) -> None:
    small, large = (step(dense, {**DENSE, "micro_batch": size}) for size in (1, 8))
    assert small.terms["host"][0] / small.seconds[0] > large.terms["host"][0] / large.seconds[0]


def test_adapters_have_no_weight_gradients_reduction_or_optimizer(dense) -> None:
    everything, adapters = (step(dense, DENSE, trains=name) for name in ("all", "lora"))
    share = adapters.terms["mlp"][0] / everything.terms["mlp"][0]
    assert 2.0 / 3.0 < share < 0.72  # two products of three, with the casts of all
    assert adapters.busy["dp"][0] == adapters.terms["optimizer"][0] == 0.0


def test_a_prediction_module_costs_a_layer_and_a_head(routed) -> None:
    plain, trained = (step(routed, ROUTED, mtp=flag) for flag in (False, True))
    assert trained.terms["head"][0] > 2.0 * plain.terms["head"][0]
    layers = sum(kind.count for kind in routed.task.model.layers)
    routed_layers = routed.task.model.layers[-1].count
    grown = trained.terms["experts"][0] / plain.terms["experts"][0]
    assert grown == pytest.approx((routed_layers + 1) / routed_layers)
    assert trained.seconds[0] < plain.seconds[0] * (1 + 6.0 / layers)


def test_torch_recomputes_all_but_the_last_product(dense) -> None:
    split = {**DENSE, "recompute": 2, "tp": 1, "dp": 8, "zero": 3}
    kinds = {"fsdp": "llm-foundry", "megatron-core": "engine"}  # both of fused kernels
    torch, megatron = (step(dense, split, engine=name, framework=kept).terms for name, kept in kinds.items())
    done = sum(torch[name][0] for name in ("attention", "mlp")) / 3.0
    assert torch["recompute"][0] < megatron["recompute"][0]
    assert torch["recompute"][0] > 0.5 * done


def test_an_exchange_by_all_to_all_is_priced_as_nccls(routed) -> None:
    split = Columns.of(**ROUTED, order=0, sp=1, cp=1, etp=1)
    job = TrainJob.of(routed.task.model, routed.cluster, routed.task.train)
    layer, work = routed.task.model.layers[-1], routed.task.train
    rows = np.array([2.0 * work.sequence * layer.mlp.topk * routed.task.model.hidden])
    once = float(collective(job, "all_to_all", rows, group_members(routed.cluster, split, "ep"))[0])
    found = step(routed, ROUTED, dispatcher="alltoall", mtp=False)
    micro_batches = work.global_batch / ROUTED["dp"]
    assert found.busy["ep"][0] == pytest.approx(job.scale * 4.0 * once * layer.count * micro_batches / ROUTED["pp"])


def test_unoverlapped_gradients_are_exposed_whole(dense) -> None:
    hidden, shown = (step(dense, DENSE, dp_overlap=flag) for flag in (True, False))
    assert shown.terms["dp"][0] == shown.busy["dp"][0] == hidden.busy["dp"][0]
    assert hidden.terms["dp"][0] < shown.terms["dp"][0]


def test_an_installation_scales_every_term(dense) -> None:
    once, twice = (step(dense, DENSE, installation=by) for by in (1.0, 2.0))
    for name, value in once.terms.items():
        assert twice.terms[name] == pytest.approx(2.0 * value), name


def test_unknown_software_is_refused_with_every_fault_and_the_nearest() -> None:
    with pytest.raises(SpecError) as error:
        Software(engine="megatron", graphs="ful", installation=-1.0)
    assert {fault.field for fault in error.value.faults} == {"engine", "graphs", "installation"}
    assert "did you mean full" in str(error.value)


def test_blocking_launches_hide_behind_nothing(dense) -> None:
    """Each kernel waits for the one before, so that host and chip add up."""
    split = {**DENSE, "micro_batch": 8}
    hidden, open_ = (step(dense, split, blocking=flag) for flag in (False, True))
    layers, m, stages = 32.0, 512.0 / 16.0, 2.0
    job = TrainJob.of(dense.task.model, dense.cluster, dense.task.train)
    prices = layer_prices(job, Columns.of(**split).filled({"sp": 1, "cp": 1, "etp": 1}))
    counted = sum(prices[f"0 kernels {way}"][0] for way in ("forward", "backward")) + 2.0 * prices["0 kernels sent"][0]
    host_s = m / stages * layers * counted * job.engine.kernel_host_s
    assert open_.terms["host"][0] == pytest.approx(job.scale * host_s)
    assert hidden.terms["host"][0] < 0.1 * open_.terms["host"][0]


def test_layers_profiled_alone_launch_no_collectives(dense) -> None:
    columns = Columns.of(**DENSE).filled({"sp": 1, "cp": 1, "etp": 1})
    priced = []
    for sends in (True, False):
        job = TrainJob.of(dense.task.model, dense.cluster, replace(dense.task.train, software=Software(sends=sends)))
        priced.append(layer_prices(job, columns))
    changed = {name for name, value in priced[0].items() if not np.array_equal(value, priced[1][name])}
    assert changed == {"0 kernels sent"}
    assert priced[1]["0 kernels sent"][0] == 0.0
    usual, alone = (step(dense, DENSE, sends=flag).terms["host"][0] for flag in (True, False))
    assert alone < usual


def test_overlapping_the_exchange_costs_the_host_more(routed) -> None:
    split = {**ROUTED, "vpp": 2}
    plain, overlapped = (step(routed, {**split, "ep_overlap": flag}) for flag in (0, 1))
    assert overlapped.terms["host"][0] > plain.terms["host"][0]


def test_adding_gradients_up_moves_them_three_times_beside_the_product(dense) -> None:
    """BF16 gradients of FP32 sums: 2 bytes read, 4 read and 4 written for each weight."""
    rows = [Operator("up", "gemm", "mlp", "mlp", m=4096.0, n=1024.0, k=4096.0)]
    work = dense.task.train
    jobs = [
        TrainJob.of(dense.task.model, dense.cluster, replace(work, software=Software(framework=name)))
        for name in ("megatron-core", "megatron-deepspeed")
    ]
    fused, apart = (_priced(job, rows[0]) for job in jobs)
    kernels, hbm_Bps = jobs[0].chip.kernels["bf16"], dense.cluster.accelerator.hbm_Bps
    products = [gradients_s(rows[0], job.chip)[1] for job in jobs]
    assert apart[2] - products[1] == pytest.approx(memory_s(10.0 * 1024 * 4096, kernels, hbm_Bps))
    assert fused[2] == products[0] > products[1]  # it reads and writes the sum itself
    assert apart[:2] == fused[:2]


def deferring(bound, deferred: int, **split) -> tuple[TrainJob, Columns]:
    work = replace(bound.task.train, software=Software(deferred=deferred))
    return TrainJob.of(bound.task.model, bound.cluster, work), Columns.of(**{**DENSE, **split})


def test_a_gradient_of_the_head_put_off_relieves_the_last_stage_until_the_drain_is_full(dense) -> None:
    """m·w leaves the slowest stage and what outlasts (p - 1)·(b + c) comes back; the mean of the other stage stays as it was."""
    jobs, cols = zip(*(deferring(dense, deferred, vpp=2) for deferred in (0, 3, 10_000)), strict=True)
    plain, some, every = (price(job, each) for job, each in zip(jobs, cols, strict=True))
    m = plain.extra["microbatches"][0]
    filled = cols[0].filled({"sp": 1, "cp": 1, "etp": 1})
    weight_s = layer_prices(jobs[0], filled)["weights head"][0] * jobs[0].scale
    assert plain.terms["imbalance"][0] - some.terms["imbalance"][0] == pytest.approx(3.0 * weight_s, rel=1e-6)
    stayed = every.terms["bubble"][0] - plain.terms["bubble"][0]
    assert 0.0 < stayed < m * weight_s
    assert plain.terms["imbalance"][0] - every.terms["imbalance"][0] == pytest.approx(m * weight_s, rel=1e-6)
    assert every.seconds[0] < some.seconds[0] < plain.seconds[0]


def test_without_stages_nothing_is_put_off(dense) -> None:
    plain, put = (price(*deferring(dense, deferred, pp=1, dp=4)) for deferred in (0, 10_000))
    assert plain.seconds[0] == put.seconds[0]
    assert plain.memory_bytes[0] == put.memory_bytes[0]


@pytest.mark.parametrize("vpp", [2, 4])
def test_putting_more_off_never_takes_longer_while_the_last_stage_is_the_slowest_and_holds_no_less(
    dense, vpp: int
) -> None:
    rows = [price(*deferring(dense, deferred, vpp=vpp)) for deferred in (0, 1, 7, 50, 200, 10_000)]
    for less, more in pairwise(rows):
        assert more.seconds[0] <= less.seconds[0] * (1.0 + 1e-12)
        assert more.memory["activations"][0] >= less.memory["activations"][0]


def test_what_is_put_off_keeps_the_input_of_the_head_and_the_gradient_of_its_logits(dense) -> None:
    """On the last of two stages: BF16, the one split by sequence parallelism, the other over the vocabulary."""
    loads = []
    for deferred in (0, 5):
        job, cols = deferring(dense, deferred)
        loads.append(stage_loads(job.model, job.work, cols.filled(DEFAULTS), SCHEDULES)["active last"][0])
    model, t = dense.task.model, dense.task.train.sequence
    assert loads[1] - loads[0] == pytest.approx(5 * 2.0 * t * (model.hidden + model.vocab) / 4)


def test_experts_with_biases_move_more_and_launch_more(bind) -> None:
    """GPT-OSS: clamps and biases that no kernel fuses, 2 launches for each of 16 local experts and 5 more."""
    bound = bind("train", "gpt-oss-120b", "hgx-h100", 64)
    moe = bound.task.model.layers[0].mlp
    assert moe.bias
    one = np.array([1.0])
    clamp, bias = biased_experts(moe, 2880.0, 4096.0 * one, 8.0 * one, one)
    rows = 4096.0 * 4.0
    assert clamp.bytes[0] == rows * 8.0 * 2.0 * 2880.0
    assert bias.bytes[0] == rows * 28.0 * 2880.0
    assert clamp.launches + bias.launches[0] == 2.0 * 16 + 5.0
