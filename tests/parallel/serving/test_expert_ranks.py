"""Experts on several ranks in a pass: against runs that differ in nothing else, and two micro-batches by hand."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from clusters.catalogue import accelerator
from clusters.measurements import read_csv
from parallel.exchange import EXCHANGES, sm_share
from parallel.hybrids import served_model
from parallel.serving.engines import engine
from parallel.serving.passes import PassCost, Split, interpolated
from parallel.serving.runs import Run, answer, worker
from parallel.serving.swaps import GATHERED, swaps
from parallel.validation.cases import Skip
from parallel.validation.serving_rows import cells, run_of

SGLANG = engine("sglang")


def twins() -> list[tuple[float, float]]:
    """Return the measured and the predicted time per token of a run with expert ranks over those of one without."""
    found: dict[tuple[object, ...], dict[float, tuple[Run, float]]] = defaultdict(dict)
    for row in cells(read_csv("serving_silicon.csv")):
        try:
            run = run_of(row)
        except Skip:
            continue
        if run.prefill is None and not run.drafted:
            named = (run.model.name, run.engine, run.version, run.part.name, run.precision)
            alike = (*named, run.clients, run.isl, run.osl, run.split.tp, run.split.dp)
            found[alike][run.split.ep] = run, float(row["tpot_ms"])
    pairs = []
    for each in found.values():
        if 1.0 not in each:
            continue
        (whole, whole_ms), engines = each[1.0], engine(each[1.0][0].engine)
        for ep, (run, ms) in each.items():
            if ep > 1:
                predicted = answer(run, engines).tpot_s / answer(whole, engines).tpot_s
                pairs.append((ms / whole_ms, predicted))
    return pairs


def test_runs_that_differ_in_expert_ranks_alone_differ_as_measured() -> None:
    measured, predicted = np.array(twins()).T
    assert len(measured) >= 13
    assert np.median(np.abs(predicted / measured - 1.0)) < 0.012
    assert np.median(np.abs(1.0 / measured - 1.0)) > 0.02  # what even ranks would be off by


@pytest.fixture(scope="module")
def prompts() -> PassCost:
    model = served_model("deepseek-v3")
    split = Split(1.0, 32.0, 1.0, 32.0)
    run = Run("sglang", model, accelerator("h100-sxm"), "fp8", split, 1.0, 4096.0, 1.0)
    return worker(run, split, SGLANG, SGLANG.defaults)[1]


def test_an_exchange_that_is_hidden_takes_its_multiprocessors_from_the_other_half(prompts: PassCost) -> None:
    tokens, half = 16384.0, 8192.0
    share, seconds = min(prompts.beside, key=lambda way: interpolated(way[1], half))
    assert share == pytest.approx(sm_share(EXCHANGES["normal"], "h100-sxm"))
    moved = SGLANG.prefill * interpolated(seconds, half)
    compute = prompts(0, 0, half, 0) - moved
    assert prompts.overlapped(0, 0, tokens, 0) == pytest.approx(2.0 * max(moved, compute + share * moved))


def test_two_halves_are_never_slower_than_in_turn_and_never_faster_than_the_longer(prompts: PassCost) -> None:
    for tokens in (64.0, 1024.0, 16384.0):
        together, half = prompts.overlapped(0, 0, tokens, 0), prompts(0, 0, tokens / 2, 0)
        assert half < together <= 2.0 * half
    assert replace(prompts, beside=()).overlapped(0, 0, 1024.0, 0) == pytest.approx(2.0 * prompts(0, 0, 512.0, 0))


def test_ways_of_an_exchange_are_named_by_their_kernels() -> None:
    model, split = served_model("deepseek-v3"), Split(1.0, 32.0, 1.0, 32.0)
    run = Run("sglang", model, accelerator("h100-sxm"), "fp8", split, 1.0, 4096.0, 1.0)
    held = worker(run, split, SGLANG, SGLANG.defaults)[0]
    moe = next(kind.mlp for kind in model.layers if hasattr(kind.mlp, "experts"))
    assert set(swaps(held, moe, np.array([64.0]))) == {GATHERED, *EXCHANGES}
