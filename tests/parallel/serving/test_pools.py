"""Two pools in balance: the closed form against `runs.disaggregated`, and against a simulation step by step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.catalogue import accelerator
from parallel.hybrids import served_model
from parallel.serving.engines import engine
from parallel.serving.mappings import Worker
from parallel.serving.passes import Split
from parallel.serving.pipelines import slot_s
from parallel.serving.pools import LOAD, Matched, matched, prompt_s, simulated, token_s, workers
from parallel.serving.runs import Run, disaggregated, limits_of, moved_s, worker
from parallel.serving.steps import steps_of

ISL, OSL = 2048, 512
MODEL, PART = served_model("llama-3.1-70b"), accelerator("h200-sxm")


def pair(prefill: Split, decode: Split, batch: float, name: str = "vllm") -> tuple[Worker, Worker, Matched]:
    base = engine(name)
    run = Run(name, MODEL, PART, "fp8", decode, 1, ISL, OSL)
    made = []
    for split in (prefill, decode):
        replica, cost = worker(run, split, base, base.defaults)
        made.append(Worker(replica, cost, limits_of(replica, base.defaults, base), base.defaults))
    first, second = made
    seconds = prompt_s(first, ISL), moved_s(second.replica, ISL), token_s(second, batch, ISL, OSL)
    found = matched(first, second, batch, (ISL, OSL), seconds, base, gpus=64)
    assert found
    return first, second, found


@pytest.mark.parametrize("name", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("batch", [4, 32, 96])
def test_given_its_clients_the_other_closed_form_finds_the_same_batch(name: str, batch: int) -> None:
    _, second, found = pair(Split(2), Split(4), batch, name)
    run = Run(
        name,
        MODEL,
        PART,
        "fp8",
        Split(4),
        found.clients,
        ISL,
        OSL,
        prefill=Split(2),
        workers=found.workers,
    )
    told = disaggregated(run, engine(name))
    assert told.tpot_s == pytest.approx(found.tpot_s, rel=0.02)
    assert told.ttft_s == pytest.approx(found.ttft_s, rel=0.05, abs=0.02)
    assert second.split.ranks == 4


@pytest.mark.parametrize("batch", [8, 64])
def test_a_simulation_of_both_pools_follows_the_balance(batch: int) -> None:
    first, second, found = pair(Split(2), Split(4), batch)
    prefill, decode = simulated(first, second, found, (ISL, OSL), 600)
    assert not prefill.saturated
    assert np.mean(decode.tpot_s) == pytest.approx(found.tpot_s, rel=0.1)
    assert np.mean(prefill.ttft_s) >= prompt_s(first, ISL)


@settings(max_examples=50, deadline=None)
@given(
    one=st.floats(0.1, 10),
    other=st.floats(0.1, 10),
    ranks=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    gpus=st.integers(1, 256),
)
def test_workers_fit_and_prefill_keeps_its_share(one: float, other: float, ranks: tuple[int, int], gpus: int) -> None:
    before, after = workers(one, other, ranks, gpus)
    assert before * ranks[0] + after * ranks[1] <= gpus
    assert after * one <= LOAD * before * other * (1 + 1e-9)
    more = -(-(after + 1) * one // (LOAD * other))
    assert more * ranks[0] + (after + 1) * ranks[1] > gpus


def test_for_a_rate_there_are_as_few_workers_as_serve_it() -> None:
    first, second, found = pair(Split(2), Split(4), 16)
    seconds = prompt_s(first, ISL), moved_s(second.replica, ISL), found.tpot_s
    few = matched(first, second, 16, (ISL, OSL), seconds, engine("vllm"), requests_per_s=found.requests_per_s)
    assert few == found


def test_stages_of_a_prefill_worker_take_prompts_one_behind_the_other() -> None:
    base, run = engine("vllm"), Run("vllm", MODEL, PART, "fp8", Split(2, pp=4), 1, ISL, OSL)
    made = {}
    for split in (Split(2), Split(2, pp=4)):
        replica, cost = worker(run, split, base, base.defaults)
        steps = steps_of(replica, cost, limits_of(replica, base.defaults, base), base.defaults, (ISL, OSL))
        made[split] = Worker(replica, steps.cost, steps.limits, base.defaults)
    one, four = made.values()
    assert prompt_s(four, ISL) == pytest.approx(prompt_s(one, ISL), rel=0.02)  # every layer, one after the other
    assert slot_s(four.cost, ISL, ISL) == pytest.approx(prompt_s(four, ISL) / 4, rel=0.1)
    assert slot_s(one.cost, ISL, ISL) == prompt_s(one, ISL)
    long = 8 * base.defaults.tokens  # eight chunks on four stages: eleven slots
    assert prompt_s(four, long) / (slot_s(four.cost, base.defaults.tokens, long) / 8) == pytest.approx(11, rel=0.1)
