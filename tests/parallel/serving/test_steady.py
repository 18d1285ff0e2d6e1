"""The closed form against the simulation that it stands for."""

import numpy as np
import pytest

from clusters.catalogue import accelerator
from parallel.hybrids import served_model
from parallel.serving.engines import engine, launched
from parallel.serving.passes import Split
from parallel.serving.queueing import ClosedLoop, Limits, Served, StepCost, simulate
from parallel.serving.runs import Run, limits_of, worker
from parallel.serving.steady import ROUNDS, Steady, steady


def both(step_s: StepCost, limits: Limits, clients: int, isl: float, osl: float) -> tuple[Served, Steady]:
    draw = np.random.default_rng(1)
    count = ROUNDS * clients
    inputs = draw.integers(int(0.9 * isl), int(1.1 * isl) + 1, count).tolist()
    outputs = draw.integers(int(0.9 * osl), int(1.1 * osl) + 1, count).tolist()
    served = simulate(step_s, limits, ClosedLoop(clients), inputs, outputs)
    return served, steady(step_s, limits, clients, isl, osl)


@pytest.mark.parametrize("engine_name", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize(("isl", "osl"), [(1000, 1000), (8000, 1000), (1000, 4000)])
@pytest.mark.parametrize("clients", [1, 4, 32])
def test_closed_form_follows_the_simulation(engine_name: str, isl: float, osl: float, clients: int) -> None:
    model, chip, base = served_model("llama-3.1-70b"), accelerator("h200-sxm"), engine(engine_name)
    run = Run(engine_name, model, chip, "fp8", Split(tp=4), clients, isl, osl)
    replica, cost = worker(run, run.split, base, base.defaults)
    served, closed = both(cost, limits_of(replica, base.defaults, base), clients, isl, osl)
    assert closed.tpot_s == pytest.approx(np.mean(served.tpot_s), rel=0.05)
    assert closed.ttft_s == pytest.approx(np.mean(served.ttft_s), rel=0.35)


def test_closed_form_of_polling_follows_the_simulation() -> None:
    model, chip, base = served_model("deepseek-r1"), accelerator("b200-sxm"), engine("sglang")
    run = Run("sglang", model, chip, "fp4", Split(8, 1, 1, 8), 32, 1024, 1024)
    chosen = launched(base, model, chip, "fp4", 8, 32, 1024, 1024)
    replica, cost = worker(run, run.split, base, chosen)
    served, closed = both(cost, limits_of(replica, chosen, base), 32, 922, 922)
    assert closed.tpot_s == pytest.approx(np.mean(served.tpot_s), rel=0.08)
    assert closed.ttft_s == pytest.approx(np.mean(served.ttft_s), rel=0.35)


def test_a_cache_for_half_the_clients_queues_the_others_and_is_flagged() -> None:
    limits = Limits(sequences=100, tokens=1000, positions=8 * 1100.0)
    served, closed = both(lambda b, n, p, q: 0.01 + 1e-5 * p, limits, 16, 100, 1000)
    assert served.saturated
    assert closed.saturated
    assert closed.ttft_s == pytest.approx(np.mean(served.ttft_s), rel=0.25)
    assert closed.tpot_s == pytest.approx(np.mean(served.tpot_s), rel=0.05)


def test_one_client_waits_for_nobody() -> None:
    closed = steady(lambda b, n, p, q: 0.01 * (b > 0) + 0.5 * (p > 0), Limits(8, 100, 1e9), 1, 50, 101)
    assert closed.ttft_s == pytest.approx(0.5)
    assert closed.tpot_s == pytest.approx(0.01)
    assert not closed.saturated


@pytest.mark.parametrize("split", [Split(1, 8, 1, 8), Split(2, 4, 1, 8), Split(1, 72, 1, 72)])
@pytest.mark.parametrize("engine_name", ["vllm", "sglang", "trtllm"])
def test_closed_form_of_attention_groups_and_experts_follows_the_simulation(engine_name: str, split: Split) -> None:
    model, chip, base = served_model("deepseek-r1"), accelerator("gb200"), engine(engine_name)
    replica, cost = worker(Run(engine_name, model, chip, "fp8", split, 16, 4096, 1024), split, base, base.defaults)
    served, closed = both(cost, limits_of(replica, base.defaults, base), 16, 4096, 1024)
    assert closed.tpot_s == pytest.approx(np.mean(served.tpot_s), rel=0.06)
    assert closed.ttft_s == pytest.approx(np.mean(served.ttft_s), rel=0.35)
