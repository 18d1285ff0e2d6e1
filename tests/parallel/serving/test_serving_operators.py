"""Operators of a serving pass against the weights they multiply and against each other."""

import numpy as np
import pytest

from parallel.hotexperts import BALANCED, UNTOLD
from parallel.hybrids import hybrid, served_model
from parallel.models import Attention, Moe, attention_matrices, weights
from parallel.operators import Operator, gemm_flops
from parallel.serving.operators import (
    LINEAR,
    cache_read,
    grouped_experts,
    layer_linear,
    moe_linear,
    prompt_flops,
    shared_expert,
)
from topo.columns import ColumnLike, column

LLAMA = Attention("gqa", heads=64, kv_heads=8, head_dim=128)
R1 = served_model("deepseek-r1").layers[1]
DELTA = hybrid("qwen3.5-397b-a17b").layers[0]


def value(size: ColumnLike) -> float:
    return float(column(size))


def flops(ops: list[Operator]) -> float:
    return float(np.sum([gemm_flops(op) for op in ops if op.kind in ("gemm", "grouped_gemm")]))


@pytest.mark.parametrize(("attention", "hidden"), [(LLAMA, 8192), (R1.attention, 7168), (DELTA.attention, 4096)])
def test_the_gemms_of_one_token_multiply_every_weight_once(attention: Attention, hidden: int) -> None:
    ops = LINEAR[attention.kind](attention, hidden, 1.0, 1.0)
    assert flops(ops) == pytest.approx(2.0 * weights(attention_matrices(attention, hidden)))


def test_tensor_parallelism_splits_all_but_the_latent_down_projections() -> None:
    whole, eighth = (flops(LINEAR["mla"](R1.attention, 7168, 1.0, tp)) for tp in (1.0, 8.0))
    down = 2.0 * 7168 * (1536 + 512 + 64)
    assert eighth == pytest.approx((whole - down) / 8 + down)


def test_grouped_heads_are_copied_beyond_one_for_each_rank() -> None:
    assert cache_read(LLAMA, 8).values == cache_read(LLAMA, 16).values == 256.0


def test_the_latent_is_cached_whole_on_every_rank() -> None:
    assert cache_read(R1.attention, 1).values == cache_read(R1.attention, 8).values == 576.0


def test_a_recurrent_layer_reads_its_state_and_no_cache() -> None:
    read = cache_read(DELTA.attention, 1)
    assert (read.values, read.flops) == (0.0, 0.0)
    assert read.state_bytes == 2 * 4 * 2**20  # 4 MiB, read and written
    assert prompt_flops(DELTA.attention, 1) == 0.0


def test_absorbed_attention_does_more_arithmetic_than_prompts_need() -> None:
    assert cache_read(R1.attention, 1).flops > prompt_flops(R1.attention, 1)


def test_one_token_hits_as_many_experts_as_it_chooses() -> None:
    assert isinstance(R1.mlp, Moe)
    up = next(op for op in moe_linear(R1.mlp, 7168, 1.0, 1.0, 1.0, 1.0) if op.name == "experts up")
    assert value(up.groups) == pytest.approx(8.0)
    assert value(up.m) == pytest.approx(1.0)


def test_expert_ranks_share_hits_and_rows() -> None:
    assert isinstance(R1.mlp, Moe)
    one, eight = (moe_linear(R1.mlp, 7168, 1e6, 1.0, 1.0, ep, BALANCED)[5] for ep in (1.0, 8.0))
    assert value(eight.groups) == pytest.approx(value(one.groups) / 8, rel=0.01)
    assert flops([eight]) == pytest.approx(flops([one]) / 8, rel=0.01)


@pytest.mark.parametrize("tokens", [4.0, 64.0, 4096.0])
def test_the_busiest_of_expert_ranks_has_more_than_its_share(tokens: float) -> None:
    assert isinstance(R1.mlp, Moe)
    one, even, uneven = (
        moe_linear(R1.mlp, 7168, tokens, 1.0, 1.0, ep, hot)[5]
        for ep, hot in ((1.0, BALANCED), (8.0, BALANCED), (8.0, UNTOLD))
    )
    assert value(one.groups) / 8 <= value(even.groups) <= 32
    assert flops([one]) / 8 < flops([even]) < flops([uneven])


def test_attention_groups_bring_their_tokens_to_the_same_experts() -> None:
    assert isinstance(R1.mlp, Moe)
    apart = moe_linear(R1.mlp, 7168, 64.0, 8.0, 1.0, 8.0)[5]
    together = moe_linear(R1.mlp, 7168, 512.0, 1.0, 1.0, 8.0)[5]
    assert flops([apart]) == pytest.approx(flops([together]))


def test_shared_experts_start_beside_the_others() -> None:
    assert isinstance(R1.mlp, Moe)
    ops, beside = layer_linear(R1, 7168, 1.0, 8.0, 1.0, 8.0, 1.0)
    assert beside == shared_expert(R1.mlp, 7168, 1.0, 8.0)
    assert not any(op.term == "shared expert" for op in ops)


def test_grouped_experts_fill_their_slots_with_copies() -> None:
    assert isinstance(R1.mlp, Moe)
    ops = {op.name: op for op in grouped_experts(R1.mlp, 7168, 1e6, 72.0)}
    assert value(ops["experts up"].groups) == pytest.approx(4.0)  # 288 slots of 256 experts on 72 ranks
    assert flops([ops["experts up"]]) == pytest.approx(2.0 * 1e6 * 8 * 2 * 2048 * 7168, rel=0.005)
