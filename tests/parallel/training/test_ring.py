"""Ring attention: what merging the steps moves, against Transformer Engine's loop written out; what a step of it costs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.models import Attention
from parallel.operators import fused_core
from parallel.priced import Priced
from parallel.strategy import Columns
from parallel.training.layer import TrainJob, layer_prices
from parallel.training.ring import in_steps, key_gradient_bytes, merge, result_bytes
from parallel.training.step import DEFAULTS, price

quick = settings(max_examples=50, deadline=None)
LLAMA = Attention("gqa", heads=32, kv_heads=8, head_dim=128)
SPLIT = {"used": 8, "tp": 1, "ep": 1, "micro_batch": 1, "pp": 1}
COPY, ADD = 2.0 * 2.0, 3.0 * 2.0


@pytest.fixture
def dense(bind):
    return bind("train", "llama-3.1-8b", "hgx-h100", 16)


def step(bound, cp: int, **changes) -> Priced:
    job = TrainJob.of(bound.task.model, bound.cluster, replace(bound.task.train, **changes))
    return price(job, Columns.of(**SPLIT, cp=cp, dp=16 // cp))


def last_rank(cp: int) -> tuple[float, float, float]:
    """Bytes per result, gradient of a query and of a key: the branches of AttnFuncWithCPAndKVP2P for rank cp - 1."""
    rank, out, dq, dkv = cp - 1, 0.0, 0.0, 0.0
    for i in range(cp):
        assert i <= rank  # the last rank never takes the branch of half its queries
        out += COPY if i == 0 else ADD
        dq += ADD if i > cp - rank - 1 else COPY
        if i == cp - 1:
            dkv += ADD
        else:
            dkv += 0.5 * (COPY if i == 0 else ADD)
    return out, dq, dkv


@pytest.mark.parametrize("cp", [2, 3, 4, 8])
def test_bytes_are_those_of_the_loop_written_out(cp: int) -> None:
    out, dq, dkv = last_rank(cp)
    assert float(result_bytes(1.0, cp)) == out == dq
    assert float(key_gradient_bytes(1.0, cp)) == dkv


def test_a_ring_of_one_merges_nothing() -> None:
    op = merge(LLAMA, 4096.0, 1.0, np.array([1.0, 2.0]))
    assert op.bytes[0] == op.launches[0] == 0.0 < op.bytes[1]
    core = fused_core(LLAMA, 4096.0, 8192.0, 1.0)
    assert float(in_steps(core, 1.0).k) == float(core.k)


@quick
@given(st.integers(2, 64), st.sampled_from([1.0, 2.0, 4.0, 8.0]))
def test_a_longer_ring_moves_more_and_heads_share_it(cp: int, tp: float) -> None:
    one, longer = (merge(LLAMA, 4096.0, 1.0, size).bytes for size in (cp, cp + 1))
    assert longer > one
    assert float(merge(LLAMA, 4096.0, tp, cp).bytes) == pytest.approx(float(one) / tp)


def test_a_ring_costs_memory_time_of_attention_in_megatron_core(dense) -> None:
    job = TrainJob.of(dense.task.model, dense.cluster, dense.task.train)
    cols = Columns.of(**{**SPLIT, "used": [8, 8], "cp": [1, 2], "dp": [16, 8]}).filled(DEFAULTS)
    found = layer_prices(job, cols)
    alone, ring = found["0 forward vector"]
    assert ring > 0.5 * alone  # half the tokens, and the merging
    assert found["0 forward attention core"][1] > 0.5 * found["0 forward attention core"][0]
    torch = replace(dense.task.train, software=replace(dense.task.train.software, engine="fsdp"))
    plain = layer_prices(TrainJob.of(dense.task.model, dense.cluster, torch), cols)["0 forward vector"]
    assert ring / alone > 1.05 * plain[1] / plain[0]


def test_terms_still_add_up_to_the_step(dense) -> None:
    found = step(dense, 2)
    assert sum(float(value[0]) for value in found.terms.values()) == pytest.approx(float(found.seconds[0]))
