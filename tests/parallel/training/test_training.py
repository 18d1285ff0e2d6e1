"""A training step: terms that add up, limits, directions, and one pipeline by hand."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from clusters.build import path
from clusters.software import training_constants
from clusters.spec import with_
from collectives.pipelines import SCHEDULES
from collectives.point_to_point import farthest
from parallel.models import active_parameters, layer_count
from parallel.placement import group_members, members_of
from parallel.strategy import Columns
from parallel.sweeps.task import Bound, Task
from parallel.training.frameworks import FUSED_UPDATE, SEPARATE_UPDATE
from parallel.training.layer import COMPUTE, RECOMPUTE, TrainJob, collective
from parallel.training.step import reduction_prices
from parallel.workload import Software
from topo.columns import column

PLACES = [("gb200-nvl72", 576, None), ("gb200-nvl72", 1024, 8), ("gb200-nvl72", 1152, 576), ("hgx-h100", 256, None)]
MODELS = ["deepseek-v3", "llama-3.1-70b", "mixtral-8x7b"]
TALK = ("tp", "cp", "ep", "pp", "dp")

everywhere = pytest.mark.parametrize("place", PLACES, ids=lambda p: f"{p[1]} {p[0]} by {p[2] or 'default'}")
every_model = pytest.mark.parametrize("model", MODELS)


def rewired(bound: Bound, **changes) -> Bound:
    """The same search on the same accelerators, wired otherwise."""
    task = bound.task
    spec = with_(task.cluster, **changes)
    return Bound.of(Task(task.phase, task.model, spec, task.train, task.serve, task.space))


def pinned(bound: Bound, nic: str) -> Bound:
    """The cluster with another NIC rate and nothing else: same link constants, same switches."""
    out = bound.task.cluster.scale_out
    same = {"link": out.link, "radix": out.radix, "latency": out.latency_s, "switch": out.switch}
    return rewired(bound, scale_out={"nic": nic, **same})


@everywhere
@every_model
def test_terms_add_up_and_expose_no_more_than_is_busy(model, place, bind, valid):
    bound = bind("train", model, *place)
    cols = valid(bound, 700)
    priced = bound.price(cols)
    assert cols.rows > 100
    assert np.sum(list(priced.terms.values()), axis=0) == pytest.approx(priced.seconds, rel=1e-12)
    assert np.sum(list(priced.memory.values()), axis=0) == pytest.approx(priced.memory_bytes, rel=1e-12)
    for name, exposed in priced.terms.items():
        assert np.all(exposed >= 0), name
        assert np.all(exposed <= priced.busy[name] * (1 + 1e-12)), name


@every_model
def test_every_term_tells_its_work_before_overlap(model, bind, valid):
    bound = bind("train", model, "hgx-h100", 256)
    priced = bound.price(valid(bound, 50))
    assert set(priced.terms) == set(priced.busy)


@everywhere
@every_model
def test_a_block_prices_every_row_as_if_it_were_alone(model, place, bind, valid):
    bound = bind("train", model, *place)
    cols = valid(bound, 700)
    together = bound.price(cols)
    for row in np.linspace(0, cols.rows - 1, 8).astype(int):
        alone = bound.price(cols.take(np.array([row])))
        assert alone.seconds[0] == pytest.approx(together.seconds[row], rel=1e-12)
        for part in ("terms", "busy", "memory", "extra"):
            one, many = getattr(alone, part), getattr(together, part)
            assert list(one) == list(many)
            for name in one:
                assert one[name][0] == pytest.approx(many[name][row], rel=1e-12, abs=1e-15), name


@every_model
def test_prices_are_finite_and_utilisation_stays_below_one(model, bind, valid):
    for place in PLACES:
        bound = bind("train", model, *place)
        priced = bound.price(valid(bound, 700))
        for columns in (priced.terms, priced.busy, priced.memory, priced.extra):
            assert all(np.isfinite(values).all() for values in columns.values())
        assert np.all((priced.extra["mfu"] > 0) & (priced.extra["mfu"] < 1))
        assert np.all(priced.extra["gpus_used"] <= bound.cluster.usable)


def test_computation_takes_at_least_six_flops_per_parameter_and_token(bind, valid):
    bound = bind("train", "llama-3.1-70b", "hgx-h100", 256)
    task, part = bound.task, bound.cluster.accelerator
    priced = bound.price(valid(bound, 700))
    flops = 6.0 * (active_parameters(task.model) - task.model.vocab * task.model.hidden) * task.train.tokens
    compute_s = sum(priced.terms[name] for name in COMPUTE)
    assert np.all(compute_s * priced.extra["gpus_used"] * part.peak_flops["fp8"] > flops)
    assert np.all(compute_s * priced.extra["gpus_used"] * part.peak_flops["fp8"] < 20 * flops)


@pytest.mark.parametrize("model", ["llama-3.1-70b", "mixtral-8x7b"])
def test_links_without_end_leave_computation_alone(model, bind, valid):
    """What stays of the terms is software: launches and steps of the collectives."""
    bound = bind("train", model, "hgx-h100", 256)
    free = {"scale_up": {"bandwidth": 1e18, "latency": 0}, "scale_out": {"nic": 1e18, "radix": 64, "latency": 0}}
    ideal = rewired(bound, **free)
    cols = valid(bound, 700)
    real, free_s = bound.price(cols), ideal.price(cols)
    # software time is per collective: micro-batches of thousands of tokens pay little of it
    talk = {name: free_s.terms[name] / free_s.seconds for name in TALK}
    assert all(np.median(share) < 0.02 for share in talk.values())
    assert np.median(sum(talk.values())) < 0.1 * np.median(sum(real.terms[name] for name in TALK) / real.seconds)
    for name in COMPUTE:
        assert free_s.terms[name] == pytest.approx(real.terms[name], rel=1e-12), name


@everywhere
@every_model
def test_half_the_nic_speeds_nothing_up(model, place, bind, valid):
    bound = bind("train", model, *place)
    cols = valid(bound, 700)
    ratio = pinned(bound, "25GB/s").price(cols).seconds / pinned(bound, "50GB/s").price(cols).seconds
    assert np.all(ratio >= 1 - 1e-12)
    assert np.all(ratio < 2.2)  # half the bandwidth, and what stood exactly hidden before
    assert np.max(ratio) > 1.05


@every_model
def test_half_the_nic_slows_every_strategy_that_leaves_a_box_of_eight(model, bind, valid):
    bound = bind("train", model, "hgx-h100", 256)
    cols = valid(bound, 700)
    cols = cols.take(cols["tp"] * cols["pp"] * cols["dp"] > 8)
    half, full = pinned(bound, "25GB/s").price(cols), pinned(bound, "50GB/s").price(cols)
    assert cols.rows > 100
    assert np.all(half.seconds > full.seconds)


@every_model
def test_half_the_nic_leaves_strategies_inside_a_domain_alone(model, bind, valid, changed):
    bound = bind("train", model, "gb200-nvl72", 144)
    cols = valid(bound, 700)
    cols = cols.take(cols["tp"] * cols["pp"] <= 64)
    cols = changed(cols, used=64, dp=64 // (cols["tp"] * cols["pp"]))
    cols = cols.take((cols["tp"] * cols["dp"]) % cols["ep"] == 0)
    half, full = pinned(bound, "25GB/s").price(cols), pinned(bound, "50GB/s").price(cols)
    assert cols.rows > 100
    assert half.seconds == pytest.approx(full.seconds, rel=1e-12)


@every_model
def test_a_wider_domain_slows_no_strategy_that_it_holds(model, bind, valid, changed):
    """64 accelerators as boxes of 8, then inside one domain: every group moves to the faster network."""
    narrow = bind("train", model, "gb200-nvl72", 64, 8)
    wide = bind("train", model, "gb200-nvl72", 64, 64)
    cols = valid(narrow, 700)
    before, after = narrow.price(cols), wide.price(changed(cols, used=64))
    assert np.array_equal(before.extra["gpus_used"], after.extra["gpus_used"])
    assert np.all(after.seconds <= before.seconds * (1 + 1e-12))
    assert np.any(after.seconds < 0.9 * before.seconds)


@every_model
def test_racks_of_72_run_a_strategy_as_fast_as_boxes_of_8_or_faster(model, bind, valid, changed):
    """512 ranks, 64 in each of 8 racks. Pipelines that fit no rack may meet one more switch: a thousandth."""
    boxes, racks = bind("train", model, "gb200-nvl72", 512, 8), bind("train", model, "gb200-nvl72", 576, 72)
    cols = valid(boxes, 700)
    ratio = racks.price(changed(cols, used=64)).seconds / boxes.price(cols).seconds
    assert np.all(ratio <= 1.001)
    assert np.median(ratio) < 0.999


@pytest.mark.parametrize("model", ["llama-3.1-70b", "deepseek-v3"])
def test_every_zero_stage_needs_less_memory_than_the_one_before(model, bind, valid, changed):
    bound = bind("train", model, "gb200-nvl72", 576)
    cols = valid(bound, 700)
    shards = group_members(bound.cluster, cols, "edp")[-1]
    spread = (cols["dp"] >= 4) & (shards >= 4) & (np.ceil(layer_count(bound.task.model) / cols["pp"]) >= 4)
    cols = cols.take(spread)
    held = [bound.price(changed(cols, zero=stage)).memory_bytes for stage in (0, 1, 2, 3)]
    for stage in (0, 1, 2):
        assert np.all(held[stage + 1] < held[stage]), stage
    parts = bound.price(changed(cols, zero=3)).memory
    whole = bound.price(changed(cols, zero=0)).memory
    assert np.all(parts["gradients"] <= whole["gradients"] / 4 * (1 + 1e-12))


@every_model
def test_recomputing_costs_time_and_frees_activations(model, bind, valid, changed):
    bound = bind("train", model, "hgx-h100", 256)
    cols = changed(valid(bound, 700), ep_overlap=0)
    none, selective, full = (bound.price(changed(cols, recompute=code)) for code in range(len(RECOMPUTE)))
    assert np.all(none.terms["recompute"] == 0)
    assert np.all(full.terms["recompute"] > selective.terms["recompute"])
    assert np.all(selective.terms["recompute"] > 0)
    assert np.all(full.seconds > none.seconds)
    busy_stage = np.ceil(layer_count(bound.task.model) / cols["pp"]) >= 8  # below, one working layer outweighs it
    assert busy_stage.any()
    assert np.all(full.memory_bytes[busy_stage] < none.memory_bytes[busy_stage])


def test_a_full_recomputation_is_one_more_forward(bind):
    """Forward once more: its share of forward and backward of the layers lies between 1/4 and 1/2."""
    bound = bind("train", "llama-3.1-8b", "hgx-h100", 32)
    cols = Columns.of(used=8, tp=1, ep=1, micro_batch=1, dp=32, pp=1, recompute=RECOMPUTE.index("full"))
    priced = bound.price(cols)
    layers = sum(priced.terms[name][0] for name in COMPUTE if name != "head")
    assert 0.25 < priced.terms["recompute"][0] / layers < 0.5


def test_recomputing_some_layers_of_each_stage_costs_their_share(bind):
    """Llama 8B has 32 layers, 8 to a stage: 2 of them cost a quarter of recomputing all."""
    bound = bind("train", "llama-3.1-8b", "hgx-h100", 32)
    same = {"used": 8, "tp": 1, "ep": 1, "micro_batch": 1, "dp": 8, "pp": 4, "recompute": RECOMPUTE.index("full")}
    full = bound.price(Columns.of(**same))
    some = bound.price(Columns.of(**same, recompute_layers=[2, 8, 100]))
    assert some.terms["recompute"] / full.terms["recompute"] == pytest.approx([0.25, 1.0, 1.0])
    assert some.memory["activations"][0] > some.memory["activations"][1] == full.memory["activations"]
    assert some.seconds[0] < some.seconds[1] == full.seconds


def test_hybrid_sharding_sums_among_neighbours_then_over_copies(bind):
    """32 ranks as 4 copies of 8 shards: a reduction inside the node, then an all-reduce of an eighth between nodes."""
    bound = bind("train", "llama-3.1-8b", "hgx-h100", 32)
    job = TrainJob.of(bound.task.model, bound.cluster, bound.task.train)
    cols = Columns.of(used=8, order=0, tp=1, cp=1, ep=1, etp=1, dp=32, pp=1, replicate=[1, 4]).filled({"zero": 3})
    prices = reduction_prices(job, cols)
    layers = prices["stage layers"]  # a bucket each
    size = bound.task.train.gradient_bytes * prices["dense parameters"] / layers
    inside, between = (group_members(bound.cluster, cols, name) for name in ("dp", "copies"))
    assert inside.T.tolist() == [[8.0, 32.0], [8.0, 8.0]]
    assert between[:, 1].tolist() == [1.0, 4.0]
    scattered = collective(job, "reduce_scatter", size, inside)
    summed = collective(job, "all_reduce", size / np.array([32.0, 8.0]), between)
    assert prices["reduce dp"] == pytest.approx(layers * (scattered + np.array([0.0, 1.0]) * summed))
    assert prices["gather dp"][1] < prices["gather dp"][0]  # weights never leave the node


def test_first_and_last_stage_add_up_the_gradients_of_a_tied_table(bind):
    """Stage 0 and stage 3 of 8 replicas each: ranks 0 and 192 of 256, in two boxes of eight; nobody else takes part."""
    bound = bind("train", "llama-3.1-8b", "hgx-h100", 256)
    model, work = bound.task.model, bound.task.train
    tied, apart = (TrainJob.of(replace(model, tied_embeddings=held), bound.cluster, work) for held in (True, False))
    cols = Columns.of(used=8, order=0, tp=8, cp=1, ep=1, etp=1, dp=[8, 32], pp=[4, 1]).filled({"zero": 1})
    assert reduction_prices(apart, cols)["reduce tied"].tolist() == [0.0, 0.0]
    table_bytes = work.gradient_bytes * model.vocab * model.hidden / 8
    pair = members_of(bound.cluster, column([8.0]), 2.0, 192.0)
    shared = collective(tied, "all_reduce", column([table_bytes]), pair)
    assert reduction_prices(tied, cols)["reduce tied"] == pytest.approx([shared[0], 0.0])


def test_an_optimizer_step_kernel_by_kernel_streams_twice_as_much(bind):
    """Per FP16 parameter: gradients copied, unscaled, measured and clipped 26 bytes, Adam 28, weights copied 6, zeroes 2."""
    assert SEPARATE_UPDATE == 26 + 28 + 6 + 2
    bound = bind("train", "llama-3.1-8b", "hgx-h100", 32)
    cols = Columns.of(used=8, tp=1, ep=1, micro_batch=1, dp=32, pp=1, zero=0)
    seconds = [
        Bound.of(replace(bound.task, train=replace(bound.task.train, software=Software(framework=name))))
        .price(cols)
        .terms["optimizer"][0]
        for name in ("megatron-lm", "megatron-core")
    ]
    assert seconds[0] / seconds[1] == pytest.approx(SEPARATE_UPDATE / FUSED_UPDATE)


def test_copies_of_shards_trade_memory_for_the_network(bind):
    bound = bind("train", "llama-3.1-8b", "hgx-h100", 32)
    same = {"used": 8, "tp": 1, "ep": 1, "micro_batch": 1, "dp": 32, "pp": 1, "zero": 3}
    plain, one, four = (
        bound.price(Columns.of(**same, **copies)) for copies in ({}, {"replicate": 1}, {"replicate": 4})
    )
    assert one.seconds == plain.seconds
    assert four.memory["optimizer"][0] == pytest.approx(4.0 * plain.memory["optimizer"][0])


def slowest_by_hand(layer_s: float, head_s: float, layers: int, stages: int) -> float:
    """The least slowest stage over every contiguous split, the head on the last stage."""
    cuts = combinations(range(1, layers), stages - 1)
    sizes = (np.diff((0, *cut, layers)) for cut in cuts)
    return min(max(max(size) * layer_s, size[-1] * layer_s + head_s) for size in sizes)


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_step_is_micro_batches_times_the_slowest_stage_and_the_bubble(chunks, bind):
    """Llama 8B, 4 stages, 8 micro-batches: the slowest stage from the prices of one stage, the bubble from the schedule."""
    bound = bind("train", "llama-3.1-8b", "hgx-h100", 32)
    same = {"used": 8, "tp": 1, "ep": 1, "micro_batch": 1, "dp": 8}
    m = bound.task.train.global_batch / 8
    whole = bound.price(Columns.of(**same, pp=1)).terms
    head = whole["head"][0] / m
    layers = sum(whole[name][0] for name in (*COMPUTE, "host")) / m - head
    cols = Columns.of(**same, pp=4, vpp=chunks, cp=1, order=0)
    priced = bound.price(cols)

    even = layers / 4 + head  # chunks are even where the layers divide
    slow = even if chunks > 1 else slowest_by_hand(layers / 32, head, 32, 4)
    rest = (layers + head - slow) / 3
    rows = 2.0 * bound.task.train.sequence * bound.task.model.hidden  # BF16 activations of one micro-batch
    scale = TrainJob.of(bound.task.model, bound.cluster, bound.task.train).scale
    alone = float(farthest(column(rows), group_members(bound.cluster, cols, "pp"), path(bound.cluster, "send_recv"))[0])
    hop = scale * alone
    assert hop < rest / 6  # short hops: how forward and backward share a stage does not matter
    schedule = SCHEDULES["interleaved" if chunks > 1 else "1f1b"]
    bubble = float(schedule.bubble_s(4, m, chunks, rest / 3, 2 * rest / 3, hop))
    waits = scale * 2 * m * chunks * training_constants().engines["megatron-core"].boundary_s
    beside = sum(priced.terms[name][0] for name in ("dp", "optimizer", "step", "contention"))
    # the slowest stage is bisected to 2.4e-7 of the total
    assert priced.seconds[0] - beside == pytest.approx(m * slow + bubble + waits, rel=1e-6)
    if chunks == 1:
        assert priced.terms["bubble"][0] == pytest.approx(3 * rest, rel=1e-6)
        hops = 2 * hop * (3 + (m - 1) - np.ceil((m - 1) / 4))
        assert priced.terms["pp"][0] == pytest.approx(hops + waits, rel=1e-9)


def test_more_micro_batches_thin_the_bubble_out(bind):
    bound = bind("train", "llama-3.1-8b", "hgx-h100", 32)
    cols = Columns.of(used=8, tp=1, ep=1, micro_batch=[1, 2, 4], dp=8, pp=4)
    priced = bound.price(cols)
    share = priced.terms["bubble"] / priced.seconds
    assert share[0] < share[1] < share[2]


def test_interleaving_shortens_the_bubble(bind):
    bound = bind("train", "llama-3.1-8b", "hgx-h100", 32)
    priced = bound.price(Columns.of(used=8, tp=1, ep=1, micro_batch=1, dp=8, pp=4, vpp=[1, 2, 4]))
    assert np.all(np.diff(priced.terms["bubble"]) < 0)
    assert priced.terms["bubble"][1] == pytest.approx(2.0 * priced.terms["bubble"][2])


def test_overlapping_the_exchange_hides_it_behind_computation(bind, valid, changed):
    bound = bind("train", "deepseek-v3", "gb200-nvl72", 576)
    cols = valid(bound, 700)
    cols = cols.take(cols["ep"] > 1)
    alone, beside = (bound.price(changed(cols, ep_overlap=flag)) for flag in (0, 1))
    assert np.all(beside.terms["ep"] <= alone.terms["ep"])
    assert beside.busy["ep"] == pytest.approx(alone.busy["ep"])
    assert alone.terms["ep"] == pytest.approx(alone.busy["ep"])
