"""Steps with drafts: what they cost, what they hold, and the speedups that NVIDIA measured."""

from dataclasses import replace

import pytest

from clusters.build import build
from clusters.catalogue import accelerator
from clusters.spec import parse
from parallel.hybrids import served_model
from parallel.io import read_model
from parallel.roofline import chip
from parallel.serving.drafts import Drafting, draft_cost, draft_memory, drafting, in_steps
from parallel.serving.engines import engine, serving_recipe
from parallel.serving.passes import Replica, Split, pass_cost, position_bytes, weight_bytes
from parallel.serving.queueing import ClosedLoop, Limits, simulate
from parallel.serving.runs import Run, worker
from parallel.serving.steps import steps_of
from parallel.speculation import drafts_of, drafts_yielding

VLLM, TRTLLM = engine("vllm"), engine("trtllm")


def replica(model: str = "deepseek-v3", split: Split | None = None) -> Replica:
    cluster, held, part = build(parse({"accelerator": "h200-sxm", "accelerators": 8})), read_model(model), "h200-sxm"
    recipe = serving_recipe(held, "fp8", accelerator(part))
    return Replica(held, cluster, chip(accelerator(part), recipe), split or Split(8, 1, 1, 8), 1.0)


DEEPSEEK = replica()
COST = pass_cost(DEEPSEEK, VLLM)


def test_a_pass_of_single_tokens_is_the_pass_itself() -> None:
    assert COST.checking(1.0, 16, 16 * 4000.0, 2000.0, 1e6) == COST(16, 16 * 4000.0, 2000.0, 1e6)


def test_checking_reads_a_cache_once_for_all_tokens_of_its_sequence() -> None:
    bare = replace(COST, engine=replace(VLLM, launch=0.0, request_s=0.0))
    reads = tuple((n, values, 0.0, state, window) for n, values, _, state, window in bare.reads)
    streaming = replace(bare, reads=reads, linear_s=(0.0,) * len(bare.linear_s), head_s=(0.0, 0.0))
    assert streaming.checking(4.0, 16, 1e6, 0, 0) == streaming(16, 1e6, 0, 0)
    bound = replace(streaming, reads=bare.reads, hbm_Bps=1e30)
    assert bound.checking(4.0, 16, 1e6, 0, 0) == pytest.approx(4 * bound(16, 1e6, 0, 0))


def test_a_step_is_one_check_and_as_many_drafts() -> None:
    small = draft_cost(DEEPSEEK, VLLM, drafts_of(3, 0.8))
    step = Drafting(COST, small, drafts_of(3, 0.8))
    once = small.checking(4.0, 16, 64000, 0, 0) + 2 * small(16, 64000, 0, 0)
    assert step(16, 64000, 0, 0) == pytest.approx(COST.checking(4.0, 16, 64000, 0, 0) + once)
    assert step(0, 0, 500, 1e5) == pytest.approx(COST(0, 0, 500, 1e5) + small(0, 0, 500, 1e5))
    assert sum(step.parts(16, 64000).values()) * step.drafts.yielded == pytest.approx(step(16, 64000, 0, 0))


def test_a_drafting_layer_costs_about_its_share_of_the_model() -> None:
    share = draft_cost(DEEPSEEK, VLLM, drafts_of(1, 0.85))(16, 64000, 0, 0) / COST(16, 64000, 0, 0)
    assert 1 / 61 < share < 3 / 61
    weights, each = draft_memory(DEEPSEEK, drafts_of(1, 0.85))
    assert each == pytest.approx(position_bytes(DEEPSEEK) / 61)
    assert 1 / 61 < weights / weight_bytes(DEEPSEEK) < 1.5 / 61


def test_drafts_that_hold_more_often_make_tokens_faster_and_those_that_never_do_slower() -> None:
    times = []
    for rate in (0.0, 0.5, 0.9):
        held = drafting(DEEPSEEK, COST, drafts_of(3, rate), 1000)
        times.append(held(4, 16000, 0, 0) / held.drafts.yielded)
    assert times == sorted(times, reverse=True)
    assert times[0] > COST(4, 16000, 0, 0) > times[2]


def test_requests_counted_in_steps_take_the_time_of_all_their_tokens() -> None:
    limits, drafts = Limits(64, 8192, 1e5), drafts_of(2, 0.8)
    steps = steps_of(DEEPSEEK, COST, limits, VLLM.defaults, (1000, 500), drafts)
    assert in_steps(limits, drafts, 1000, 500).positions / (1000 + 500 / drafts.yielded) == pytest.approx(1e5 / 1500)
    outputs = [round(steps.outputs(500))] * 8
    served = steps.as_tokens(simulate(steps.cost, steps.limits, ClosedLoop(4), [1000] * 8, outputs))
    bare = steps.cost(4, 4 * (1000 + steps.outputs(500) / 2), 0, 0) / drafts.yielded
    assert served.tpot_s.mean() == pytest.approx(bare, rel=0.05)


def test_a_model_of_its_own_drafts_too() -> None:
    llama = replica("llama-3.1-70b", Split(tp=4))
    drafts = drafts_of(4, 0.7, "model", read_model("llama-3.1-8b"))
    small = draft_cost(llama, VLLM, drafts)
    assert small(8, 16000, 0, 0) == pytest.approx(
        pass_cost(replica("llama-3.1-8b", Split(tp=4)), replace(VLLM, request_s=0.0))(8, 16000, 0, 0)
    )


MEASURED = {
    1: (1.92, 198 / 111),
    2: (2.58, 250 / 111),
    3: (2.82, 253 / 111),
    4: (2.99, 245 / 111),
    5: (3.01, 239 / 111),
}
"""Drafts -> (acceptance length, speed over that without drafts): DeepSeek-R1 in NVFP4 on eight B200, one request.

Source: NVIDIA/TensorRT-LLM, tech blog 1, "Pushing Latency Boundaries", table of multi-token prediction.
"""


@pytest.mark.parametrize("tokens", MEASURED)
def test_speedups_by_drafts_are_those_that_were_measured(tokens: int) -> None:
    length, speedup = MEASURED[tokens]
    run = Run("trtllm", served_model("deepseek-r1"), accelerator("b200-sxm"), "fp4", Split(8, 1, 8, 1), 1.0, 2048, 1)
    held, cost = worker(run, run.split, TRTLLM, replace(TRTLLM.defaults, kv_bytes=1.0))
    made = drafting(held, cost, drafts_yielding(tokens, length), 0.0)
    found = cost(1, 2048, 0, 0) * length / made(1, 2048, 0, 0)
    assert found == pytest.approx(speedup, rel=0.08)  # popular experts make checking drafts cheaper than it was
