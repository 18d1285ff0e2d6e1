"""Rows that explain themselves: plain, complete, and true to the prices behind them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from parallel import results
from parallel.placement import ORDERS
from parallel.strategy import Columns
from parallel.sweeps.task import Bound
from parallel.training.layer import RECOMPUTE

PHASES = ["train", "prefill", "decode"]
every_phase = pytest.mark.parametrize("phase", PHASES)


def rows_of(bound: Bound, cols: Columns) -> list[dict]:
    priced = bound.price(cols)
    return [results.row_of(bound, cols, priced, index) for index in range(0, cols.rows, max(cols.rows // 10, 1))]


@every_phase
@pytest.mark.parametrize("model", ["deepseek-v3", "llama-3.1-70b"])
def test_a_row_adds_up_and_is_plain_json(phase, model, bind, valid):
    bound = bind(phase, model, "gb200-nvl72", 576)
    for row in rows_of(bound, valid(bound, 200)):
        assert json.loads(json.dumps(row, allow_nan=False)) == row
        assert math.fsum(row["terms"].values()) == pytest.approx(row["step_time_s"], rel=1e-12)
        assert all(row["busy"][name] >= value * (1 - 1e-12) for name, value in row["terms"].items())
        assert row["gpus_used"] + row["gpus_idle"] == 576
        assert row["gpus_idle"] >= 0
        assert row["memory_share"] == pytest.approx(
            math.fsum(row["memory_bytes"].values()) / bound.cluster.accelerator.usable_bytes
        )
        assert row["terms"][row["bottleneck"]] == max(row["terms"].values())
        assert results.STOPS[row["bottleneck"]] in row["stops"]


@every_phase
def test_each_phase_tells_the_latency_that_is_its_own(phase, bind, valid):
    bound = bind(phase, "deepseek-v3", "gb200-nvl72", 576)
    row = rows_of(bound, valid(bound, 200))[0]
    assert (row["ttft_s"] is not None) == (phase == "prefill")
    assert (row["tpot_s"] is not None) == (phase == "decode")
    assert (row["mfu"] is not None) == (phase == "train")


@every_phase
@pytest.mark.parametrize("model", ["deepseek-v3", "llama-3.1-70b"])
def test_every_term_has_a_sentence_for_what_would_shorten_it(phase, model, bind, valid):
    bound = bind(phase, model, "hgx-h100", 256)
    assert set(bound.price(valid(bound, 20)).terms) <= set(results.STOPS)


def test_coded_columns_are_told_by_name(bind):
    bound = bind("train", "deepseek-v3", "gb200-nvl72", 576)
    cols = bound.at(np.arange(0, bound.task.space.size, 997))
    for index in range(cols.rows):
        row = results.strategy_of(bound, cols, index)
        assert row["order"] == ORDERS[int(cols["order"][index])]
        assert row["recompute"] == RECOMPUTE[int(cols["recompute"][index])]
        assert row["ranks_per_domain"] == cols["used"][index]
        assert isinstance(row["ep_overlap"], bool)
        assert "used" not in row


def test_a_serving_row_tells_its_attention_replicas(bind):
    bound = bind("decode", "deepseek-v3", "gb200-nvl72", 576)
    cols = Columns.of(used=72, tp=2, ep=64, pp=1, microbatches=1, batch=8)
    assert results.strategy_of(bound, cols, 0)["attention_dp"] == 32


def test_zeros_are_left_out_of_terms():
    assert results.at({"a": np.array([0.0, 1.0]), "b": np.array([2.0, 0.0])}, 1) == {"a": 1.0}


def test_what_forbids_a_larger_batch_is_named(bind):
    """Memory first, then the limit, then only the largest term."""
    bound = bind("decode", "llama-3.1-70b", "hgx-h100", 256)

    def said(bound: Bound, batch: float) -> str:
        cols = Columns.of(used=8, tp=8, ep=1, pp=1, microbatches=1, batch=batch)
        return results.stops(bound, cols, bound.price(cols), 0)

    assert "larger batch" not in said(bound, 16)
    assert said(bound, 128).startswith("no memory for a larger batch")
    now = bound.price(Columns.of(used=8, tp=8, ep=1, pp=1, microbatches=1, batch=16)).seconds[0]
    tight = Bound.of(replace(bound.task, serve=replace(bound.task.serve, tpot_s=1.01 * now)))
    assert said(tight, 16).startswith("the TPOT limit forbids a larger batch")


def test_accelerators_that_fill_no_domain_are_named(bind, valid):
    bound = bind("decode", "llama-3.1-70b", "gb200-nvl72", 100)
    row = rows_of(bound, valid(bound, 50))[0]
    assert row["warnings"] == ["28 accelerators do not fill a domain and stay idle"]
    assert row["gpus_idle"] >= 28


def test_rates_divide_by_the_accelerators_bought(bind):
    exact, spare = (
        bind("decode", "llama-3.1-70b", "gb200-nvl72", 72),
        bind("decode", "llama-3.1-70b", "gb200-nvl72", 100),
    )
    cols = Columns.of(used=72, tp=8, ep=1, pp=1, microbatches=1, batch=8)
    one, two = (bound.price(cols).extra["tokens_per_s_per_gpu"][0] for bound in (exact, spare))
    assert two == pytest.approx(one * 72 / 100)
