"""Prefill and decode: terms that add up, how batches and stages act, what two micro-batches can hide."""

from dataclasses import replace

import numpy as np
import pytest

from clusters.build import path
from clusters.spec import with_
from collectives.point_to_point import farthest
from parallel.exchange import EXCHANGES, candidates
from parallel.models import active_parameters
from parallel.placement import members_of
from parallel.serving.phases import COMPUTE, ServeJob, communication_limit, price, replicas, stage_ranks
from parallel.strategy import Columns
from parallel.sweeps.task import Bound, Task
from topo.columns import column

PLACES = [("gb200-nvl72", 576, None), ("gb200-nvl72", 1024, 8), ("gb200-nvl72", 1152, 576), ("hgx-h100", 256, None)]
MODELS = ["deepseek-v3", "llama-3.1-70b", "mixtral-8x7b"]
PHASES = ["prefill", "decode"]

everywhere = pytest.mark.parametrize("place", PLACES, ids=lambda p: f"{p[1]} {p[0]} by {p[2] or 'default'}")
every_model = pytest.mark.parametrize("model", MODELS)
every_phase = pytest.mark.parametrize("phase", PHASES)


def rewired(bound: Bound, **changes) -> Bound:
    """The same search on the same accelerators, wired otherwise."""
    task = bound.task
    return Bound.of(Task(task.phase, task.model, with_(task.cluster, **changes), task.train, task.serve, task.space))


def job_of(bound: Bound, **work) -> ServeJob:
    return ServeJob.of(bound.task.model, bound.cluster, replace(bound.task.serve, **work))


@everywhere
@every_model
@every_phase
def test_terms_add_up_and_expose_no_more_than_is_busy(phase, model, place, bind, valid):
    bound = bind(phase, model, *place)
    priced = bound.price(valid(bound, 500))
    assert set(priced.terms) == set(priced.busy)
    assert np.sum(list(priced.terms.values()), axis=0) == pytest.approx(priced.seconds, rel=1e-12)
    assert np.sum(list(priced.memory.values()), axis=0) == pytest.approx(priced.memory_bytes, rel=1e-12)
    for name, exposed in priced.terms.items():
        assert np.all(exposed >= 0), name
        assert np.all(exposed <= priced.busy[name] * (1 + 1e-12)), name
    for columns in (priced.terms, priced.busy, priced.memory, priced.extra):
        assert all(np.isfinite(values).all() for values in columns.values())


@everywhere
@every_model
@every_phase
def test_a_block_prices_every_row_as_if_it_were_alone(phase, model, place, bind, valid):
    bound = bind(phase, model, *place)
    cols = valid(bound, 500)
    together = bound.price(cols)
    for row in np.linspace(0, cols.rows - 1, 6).astype(int):
        alone = bound.price(cols.take(np.array([row])))
        assert alone.seconds[0] == pytest.approx(together.seconds[row], rel=1e-12)
        for part in ("terms", "busy", "memory", "extra"):
            one, many = getattr(alone, part), getattr(together, part)
            assert list(one) == list(many)
            for name in one:
                assert one[name][0] == pytest.approx(many[name][row], rel=1e-12, abs=1e-15), name


@every_model
@every_phase
def test_a_pass_takes_at_least_two_flops_per_parameter_and_token(phase, model, bind, valid):
    bound = bind(phase, model, "hgx-h100", 256)
    shape, part = bound.task.model, bound.cluster.accelerator
    priced = bound.price(valid(bound, 500))
    per_token = 2.0 * (active_parameters(shape) - 2 * shape.vocab * shape.hidden)
    rate = priced.extra["tokens_per_s_per_gpu"] * bound.cluster.accelerators / priced.extra["gpus_used"]
    assert np.all(rate * per_token < part.peak_flops["fp8"])


@every_model
def test_reading_cache_and_weights_takes_at_least_their_bytes_over_the_bandwidth(model, bind, valid):
    """One pass reads every cached value and, without experts, every weight but the input embedding."""
    bound = bind("decode", model, "hgx-h100", 256)
    cols = valid(bound, 500)
    cols = cols.take(cols["pp"] == 1)
    priced = bound.price(cols)
    cache_s = priced.memory["kv cache"] / bound.cluster.accelerator.hbm_Bps
    assert np.all(priced.terms["kv read"] >= cache_s * (1 - 1e-12))
    if model == "llama-3.1-70b":
        weights_s = priced.memory["weights"] / bound.cluster.accelerator.hbm_Bps
        table_s = bound.task.model.vocab * bound.task.model.hidden * 2 / cols["tp"] / bound.cluster.accelerator.hbm_Bps
        assert np.all(sum(priced.terms[name] for name in COMPUTE) >= weights_s - table_s + cache_s)


@every_model
def test_a_larger_batch_raises_tpot_and_throughput_up_to_a_knee(model, bind, changed):
    bound = bind("decode", model, "gb200-nvl72", 576)
    ep = 64 if model == "deepseek-v3" else 8 if model == "mixtral-8x7b" else 1
    batch = 2.0 ** np.arange(13)
    cols = Columns.of(used=72, tp=1, ep=ep, pp=1, microbatches=1, batch=batch)
    priced = bound.price(cols)
    rate = priced.extra["tokens_per_s_per_gpu"]
    assert np.all(np.diff(priced.seconds) > 0)
    assert np.all(np.diff(rate) > 0)
    gain = rate[1:] / rate[:-1]
    assert gain[0] > 1.6  # small batches read the same weights for more tokens
    assert gain[-1] < 1.2  # large ones read the cache and compute


@everywhere
@every_model
def test_twice_the_batch_never_lowers_tpot_nor_throughput(model, place, bind, valid, changed):
    bound = bind("decode", model, *place)
    cols = valid(bound, 500)
    one, two = bound.price(cols), bound.price(changed(cols, batch=2 * cols["batch"]))
    assert np.all(two.seconds > one.seconds)
    assert np.all(two.extra["tokens_per_s_per_gpu"] > one.extra["tokens_per_s_per_gpu"] * (1 - 1e-9))
    assert two.memory["kv cache"] == pytest.approx(2 * one.memory["kv cache"])


@everywhere
@every_model
def test_sequences_in_flight_are_rate_times_time(model, place, bind, valid):
    """Little's law: every replica holds batch · ranks sequences in each of its pp passes."""
    bound = bind("decode", model, *place)
    cols = valid(bound, 500)
    priced = bound.price(cols)
    in_flight = replicas(bound.cluster, cols) * cols["batch"] * stage_ranks(cols) * cols["pp"]
    rate = priced.extra["tokens_per_s_per_gpu"] * bound.cluster.accelerators
    assert rate * priced.seconds == pytest.approx(in_flight, rel=1e-12)


@every_model
def test_stages_divide_weights_but_not_the_time_per_token(model, bind, valid, changed):
    """A token visits every stage: the slowest one sets the pace, pp times over, and hops come on top."""
    bound = bind("decode", model, "hgx-h100", 256)
    cols = changed(valid(bound, 500), pp=1)
    whole = bound.price(cols)
    for pp in (2, 4, 8):
        cut = bound.price(changed(cols, pp=pp))
        assert np.all(cut.seconds >= whole.seconds * (1 - 1e-12))
        assert np.all(cut.memory["weights"] < whole.memory["weights"])
        hop = cut.busy["pp"]
        assert np.all(hop > 0)
        assert np.all(cut.seconds <= whole.seconds + cut.terms["imbalance"] + hop)


@pytest.mark.parametrize(("nic", "held_up_by"), [("400Gb/s", "imbalance"), ("10Gb/s", "pp")])
def test_a_token_takes_the_slowest_stage_times_their_number_or_all_stages_and_their_hops(nic, held_up_by, bind):
    """Llama 70B in four stages of 20 layers, the head on the last: its prices from one stage, the hop from the wire."""
    bound = rewired(bind("decode", "llama-3.1-70b", "hgx-h100", 256), scale_out={"nic": nic})
    same = {"used": 8, "tp": 8, "ep": 1, "microbatches": 1, "batch": 16}
    whole = bound.price(Columns.of(**same, pp=1))
    head = whole.terms["head"][0]
    slowest = (whole.seconds[0] - head) / 4 + head
    rows = 2.0 * 16 * 8192  # BF16, each rank sends its share of the 128 sequences
    spread = members_of(bound.cluster, column(8.0), 4.0, 8.0)
    hop = float(farthest(column(rows), spread, path(bound.cluster, "send_recv")))
    cut = bound.price(Columns.of(**same, pp=4))
    assert cut.seconds[0] == pytest.approx(max(4 * slowest, whole.seconds[0] + 4 * hop), rel=1e-5)
    assert cut.terms[held_up_by][0] > 0
    assert cut.terms["imbalance"][0] * cut.terms["pp"][0] == 0
    assert cut.memory["kv cache"] == pytest.approx(whole.memory["kv cache"])  # fewer layers of more sequences


@every_model
@every_phase
@everywhere
def test_two_micro_batches_never_beat_the_larger_of_computation_and_exchange(phase, model, place, bind, valid):
    bound = bind(phase, model, *place)
    cols = valid(bound, 500)
    priced = bound.price(cols)
    compute = sum(priced.terms[name] for name in (*COMPUTE, "tp"))
    assert np.all(priced.seconds >= compute * (1 - 1e-12))
    assert np.all(priced.seconds >= priced.busy["ep"] * (1 - 1e-12))
    alone = cols["microbatches"] == 1
    assert priced.terms["ep"][alone] == pytest.approx(priced.busy["ep"][alone])
    assert np.all(priced.terms["contention"][alone] == 0)


@pytest.mark.parametrize("model", ["deepseek-v3", "mixtral-8x7b"])
@every_phase
@everywhere
def test_auto_is_as_fast_as_the_best_kernels_by_name(phase, model, place, bind, valid):
    bound = bind(phase, model, *place)
    cols = valid(bound, 500)
    auto = price(job_of(bound), phase, cols).seconds
    with np.errstate(all="ignore"):  # one-sided kernels do not reach past a domain: infinite there
        named = [price(job_of(bound, exchange=name), phase, cols).seconds for name in candidates("auto", phase)]
    best = np.nanmin(np.where(np.isfinite(named), named, np.inf), axis=0)
    assert auto == pytest.approx(best, rel=1e-9)


def test_kernels_lend_the_multiprocessors_that_their_entry_says(bind):
    bound = bind("decode", "deepseek-v3", "gb200-nvl72", 144, 72)
    cols = Columns.of(used=64, tp=1, ep=64, pp=1, microbatches=2, batch=256)
    for name in ("one-sided", "low-latency-rdma"):
        priced = price(job_of(bound, exchange=name), "decode", cols)
        share = EXCHANGES[name].sm_share
        lent = priced.terms["contention"][0] / sum(priced.terms[term][0] for term in (*COMPUTE, "tp"))
        assert (lent > 0) == (share > 0)
        assert lent <= share / (1 - share)


def test_nothing_hides_beside_low_latency_kernels_that_store_over_nvlink(bind):
    bound = bind("decode", "deepseek-v3", "gb200-nvl72", 144, 72)
    cols = Columns.of(used=64, tp=1, ep=64, pp=1, microbatches=2, batch=256)
    priced = price(job_of(bound, exchange="low-latency"), "decode", cols)
    assert EXCHANGES["low-latency"].sm_share is None
    assert priced.terms["ep"][0] == priced.busy["ep"][0] > 0
    assert priced.terms["contention"][0] == 0


@every_model
@every_phase
def test_a_wider_domain_slows_no_strategy_that_it_holds(phase, model, bind, valid, changed):
    narrow = bind(phase, model, "gb200-nvl72", 128, 8)
    wide = bind(phase, model, "gb200-nvl72", 128, 64)
    cols = valid(narrow, 500)
    before, after = narrow.price(cols), wide.price(changed(cols, used=64))
    assert np.array_equal(before.extra["gpus_used"], after.extra["gpus_used"])
    assert np.all(after.seconds <= before.seconds * (1 + 1e-12))
    if model == "deepseek-v3":
        assert np.any(after.seconds < 0.8 * before.seconds)


@everywhere
@every_model
@every_phase
def test_half_the_nic_speeds_nothing_up(phase, model, place, bind, valid):
    bound = bind(phase, model, *place)
    out = bound.task.cluster.scale_out
    same = {"link": out.link, "radix": out.radix, "latency": out.latency_s, "switch": out.switch}
    cols = valid(bound, 500)
    full, half = (rewired(bound, scale_out={"nic": nic, **same}).price(cols) for nic in ("50GB/s", "25GB/s"))
    assert np.all(half.seconds >= full.seconds * (1 - 1e-12))
    inside = stage_ranks(cols) * cols["pp"] == 1
    assert half.seconds[inside] == pytest.approx(full.seconds[inside])


def test_half_the_nic_slows_an_exchange_between_boxes(bind):
    bound = bind("decode", "deepseek-v3", "hgx-h100", 256)
    out = bound.task.cluster.scale_out
    same = {"link": out.link, "radix": out.radix, "latency": out.latency_s, "switch": out.switch}
    cols = Columns.of(used=8, tp=1, ep=64, pp=1, microbatches=1, batch=[16, 128])
    full, half = (rewired(bound, scale_out={"nic": nic, **same}).price(cols) for nic in ("50GB/s", "25GB/s"))
    assert np.all(half.seconds > 1.05 * full.seconds)
    assert half.terms["ep"][1] == pytest.approx(2 * full.terms["ep"][1], rel=0.15)


def test_more_expert_ranks_hold_fewer_weights_each(bind):
    bound = bind("decode", "deepseek-v3", "gb200-nvl72", 576)
    priced = bound.price(Columns.of(used=72, tp=1, ep=[8, 16, 32, 64, 128, 256], pp=1, microbatches=1, batch=32))
    weights = priced.memory["weights"]
    assert np.all(np.diff(weights) < 0)
    experts_GB = 58 * 256 * 3 * 7168 * 2048 / 1e9  # FP8: a byte per weight
    assert (weights[0] - weights[1]) / 1e9 == pytest.approx(experts_GB / 8 - experts_GB / 16)


def test_the_cache_of_a_latent_is_counted_by_hand(bind):
    """61 layers of 512 + 64 values, BF16, for 32 sequences at the mean context of 4,096 + 512 tokens."""
    bound = bind("decode", "deepseek-v3", "gb200-nvl72", 576)
    priced = bound.price(Columns.of(used=72, tp=1, ep=64, pp=1, microbatches=1, batch=32))
    assert priced.memory["kv cache"][0] == pytest.approx(32 * 4608 * 61 * 576 * 2)


def test_a_prompt_waits_half_a_pass_on_average(bind):
    bound = bind("prefill", "llama-3.1-70b", "hgx-h100", 256)
    priced = bound.price(Columns.of(used=8, tp=8, ep=1, pp=[1, 4], microbatches=1, batch=1))
    assert priced.extra["ttft_s"][0] == pytest.approx(1.5 * priced.seconds[0])
    assert priced.seconds[1] < priced.extra["ttft_s"][1] < 1.5 * priced.seconds[1]  # stages start passes more often


@every_phase
def test_the_communication_limit_is_the_exchange_alone(phase, bind, valid):
    bound = bind(phase, "deepseek-v3", "gb200-nvl72", 576)
    cols = valid(bound, 500)
    cols = cols.take(stage_ranks(cols) > 1)
    job = job_of(bound)
    limit, full = communication_limit(job, phase, cols), price(job, phase, cols)
    assert limit.terms["ep"] == pytest.approx(limit.seconds)
    assert np.all(limit.seconds <= full.busy["ep"] * (1 + 1e-12))
    assert np.all(limit.seconds <= full.seconds * (1 + 1e-12))
    assert np.all(limit.extra["tokens_per_s_per_gpu"] >= full.extra["tokens_per_s_per_gpu"] * (1 - 1e-12))


def steps_of(bound: Bound, **work) -> tuple:
    cols = Columns.of(used=72, tp=1, ep=72, pp=1, microbatches=1, batch=[4.0, 64.0])
    return price(job_of(bound, **work), "decode", cols), cols


def test_drafts_yield_their_tokens_for_one_check_and_their_passes(bind):
    bound = bind("decode", "deepseek-v3", "gb200-nvl72", 72, None)
    plain, _ = steps_of(bound)
    none, _ = steps_of(bound, drafts=2, holds=(0.0, 0.0))
    sure, _ = steps_of(bound, drafts=2, holds=(1.0, 1.0))
    assert np.all(none.seconds > plain.seconds)
    assert none.seconds == pytest.approx(3 * sure.seconds)
    assert np.sum(list(sure.terms.values()), axis=0) == pytest.approx(sure.seconds)
    assert np.all(sure.extra["tokens_per_s_per_gpu"] == pytest.approx(3 * none.extra["tokens_per_s_per_gpu"]))
    assert np.all(sure.memory["weights"] > plain.memory["weights"])
    assert sure.terms["drafts"][0] < 0.1 * sure.seconds[0]


def test_reads_of_a_cache_are_shared_by_all_tokens_that_are_checked(bind):
    bound = bind("decode", "llama-3.1-70b", "hgx-h100", 8, None)
    cols = Columns.of(used=8, tp=8, ep=1, pp=1, microbatches=1, batch=[4.0])
    plain = price(job_of(bound, isl=60000), "decode", cols)
    checked = price(job_of(bound, isl=60000, drafts=3, holds=(0.0, 0.0, 0.0), drafter="eagle"), "decode", cols)
    assert checked.terms["kv read"][0] == pytest.approx(plain.terms["kv read"][0], rel=0.01)


def test_hot_experts_lengthen_the_busiest_rank_and_copies_ease_it(bind):
    bound = bind("decode", "deepseek-v3", "gb200-nvl72", 72, None)
    even, hot, eased, measured = (
        steps_of(bound, **work)[0]
        for work in ({}, {"zipf": 0.6}, {"zipf": 0.6, "expert_copies": 32}, {"imbalance": 1.5})
    )
    for name in ("experts", "ep"):
        assert np.all(even.terms[name] <= eased.terms[name])
        assert np.all(eased.terms[name] < hot.terms[name])
    assert measured.terms["ep"] == pytest.approx(1.5 * even.terms["ep"])
    assert np.all(eased.memory["weights"] >= even.memory["weights"])  # 72 ranks have slots to spare
