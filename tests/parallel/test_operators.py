"""Operators against the model's own counts, against published activation figures, and against hand sums."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.io import model_names, read_model
from parallel.models import (
    Attention,
    LayerKind,
    Mlp,
    Model,
    Moe,
    attended_positions,
    compressed,
    flops_per_token_forward,
    kv_values_per_token,
    score_flops,
)
from parallel.operators import (
    Operator,
    attention_core,
    decode_attention,
    experts_hit,
    feed_forward,
    fused_core,
    gemm_flops,
    head,
    index_projections,
    index_scores,
    kv_width,
    norm,
    routed_experts,
    sequence_attention,
)
from topo.columns import ColumnLike, column

quick = settings(max_examples=50, deadline=None)
# Compressed attention has operators of its own: tests/parallel/serving/test_compressed.py.
every_model = pytest.mark.parametrize("name", [name for name in model_names() if not compressed(read_model(name))])
GPT = Attention("gqa", heads=16, kv_heads=16, head_dim=64)
WINDOWED = Attention("gqa", heads=64, kv_heads=8, head_dim=64, sliding_window=128)
DEEPSEEK = read_model("deepseek-v3").layers[1]


def number(value: ColumnLike) -> float:
    return float(column(value))


def layer(
    kind: LayerKind, h: float, t: float, context: float, tp: float = 1.0, ep: float = 1.0, *, fused: bool = True
) -> list[Operator]:
    """One layer as training builds it, without tensor-parallel experts."""
    return [
        norm("attention norm", t, h, tp),
        *sequence_attention(kind.attention, h, t, context, tp, fused=fused),
        norm("mlp norm", t, h, tp),
        *feed_forward(kind.mlp, h, t, tp, ep, 1.0, tokens_in_group=t / tp * ep),
    ]


def index_of(attention: Attention, t: float, context: float) -> list[Operator]:
    """Index scores of a whole sequence, where there are any."""
    return index_scores(attention, t, context / 2.0, t) if attention.indexer else []


def work(operators: list[Operator]) -> float:
    """FLOPs of GEMMs and attention cores; vector operations are counted in bytes alone."""
    return sum(number(gemm_flops(op)) if "gemm" in op.kind else number(op.flops) for op in operators)


# --- work ---------------------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("context", [512, 4096])
def test_operators_of_all_layers_do_the_work_that_the_model_counts(name: str, context: int) -> None:
    # The model counts weights and mean attended positions; operators multiply shapes. MLA is expanded in both. The gate
    # of a shared expert (one column, Qwen2-MoE) is the only weight without an operator, and no shipped model has it.
    model, t = read_model(name), 3.0 * context
    layers = sum(kind.count * work(layer(kind, model.hidden, t, context)) for kind in model.layers)
    found = layers + work(head(model.hidden, model.vocab, t, 1.0))
    assert found == pytest.approx(t * number(sum(flops_per_token_forward(model, context).values())), rel=1e-12)


@every_model
def test_splits_over_tp_and_ep_neither_lose_nor_invent_work(name: str) -> None:
    # Of tp ranks together only MLA's down-projections and an indexer are worked tp times. Every rank of ep brings as many
    # tokens.
    model, t, tp, ep = read_model(name), 4096.0, 2.0, 4.0
    for kind in model.layers:
        a = kind.attention
        latent = a.q_lora_rank + a.kv_lora_rank + a.qk_rope_head_dim if a.kind == "mla" else 0
        one = work(layer(kind, model.hidden, t, 4096.0))
        split = work(layer(kind, model.hidden, t, 4096.0, tp, ep if isinstance(kind.mlp, Moe) else 1.0))
        whole = 2.0 * t * model.hidden * latent + work(
            [*index_projections(a, model.hidden, t), *index_of(a, t, 4096.0)]
        )
        assert tp * split == pytest.approx(one + (tp - 1.0) * whole, rel=1e-12)


@pytest.mark.parametrize("context", [64, 128, 200, 256, 4096])
def test_a_window_hides_the_same_positions_from_the_operator_and_from_the_count(context: int) -> None:
    core = fused_core(WINDOWED, 10.0, context, 1.0)
    assert number(core.flops) == pytest.approx(
        10.0 * number(score_flops(WINDOWED, attended_positions(WINDOWED, context)))
    )
    mean = np.mean([min(i + 0.5, 128) for i in range(context)])  # the positions before a token and half of itself
    assert number(attended_positions(WINDOWED, context)) == pytest.approx(mean, rel=1e-12)


def test_an_unfused_core_computes_the_whole_square_window_or_not() -> None:
    full = replace(WINDOWED, sliding_window=0)
    for attention in (full, WINDOWED):
        core = attention_core(attention, 8192.0, 4096.0, 1.0, fused=False)
        assert [op.name for op in core] == ["scores", "softmax", "values"]
        assert work(core) == 4.0 * 8192 * 4096 * 64 * 64
    assert work(attention_core(full, 8192.0, 4096.0, 1.0, fused=False)) == 2.0 * work(
        attention_core(full, 8192.0, 4096.0, 1.0)
    )


@every_model
@pytest.mark.parametrize("kind_index", [0, -1])
def test_tp_divides_split_gemms_but_not_the_latent(name: str, kind_index: int) -> None:
    model, t = read_model(name), 1024.0
    kind = model.layers[kind_index]
    kind = replace(kind, mlp=Mlp(8192))  # experts are divided over their own axis
    one, four = layer(kind, model.hidden, t, 4096.0), layer(kind, model.hidden, t, 4096.0, tp=4.0)
    assert [op.name for op in one] == [op.name for op in four]
    for a, b in zip(one, four, strict=True):
        parts = 1.0 if a.name == "mla down" or a.name.startswith("index") else 4.0
        assert work([a]) == pytest.approx(parts * work([b]))
        assert number(a.bytes) == pytest.approx((1.0 if a.name.startswith("index") else 4.0) * number(b.bytes))


def test_key_value_heads_are_copied_beyond_one_per_rank() -> None:
    attention = Attention("gqa", heads=32, kv_heads=4, head_dim=128)
    qkv = sequence_attention(attention, 4096, 1.0, 1.0, np.array([1.0, 4.0, 8.0]))[0]
    assert np.asarray(qkv.n).tolist() == [(32 + 8) * 128, (8 + 2) * 128, (4 + 2) * 128]


# --- cache --------------------------------------------------------------------------------------------------------


@every_model
def test_cache_width_at_tp_1_is_what_the_model_caches(name: str) -> None:
    for kind in read_model(name).layers:
        assert number(kv_width(kind.attention, 1.0)) == kv_values_per_token(kind.attention)


@pytest.mark.parametrize("tp", [1.0, 8.0])
def test_decoding_with_mla_reads_576_values_per_token_and_layer_at_any_tp(tp: float) -> None:
    core = next(op for op in decode_attention(DEEPSEEK.attention, 7168, 5.0, 1000.0, tp, 2.0) if op.term == "kv read")
    assert number(core.bytes) == 5 * 1000 * 576 * 2
    assert number(core.flops) == 2.0 * 5 * 1000 * 128 / tp * (
        576 + 512
    )  # scores on latent and rope, sums of the latent


def test_decoding_behind_a_window_reads_the_window() -> None:
    core = next(op for op in decode_attention(WINDOWED, 2880, 3.0, [64.0, 5000.0], 1.0, 2.0) if op.term == "kv read")
    assert np.asarray(core.bytes).tolist() == [3 * 64 * 2 * 8 * 64 * 2, 3 * 128 * 2 * 8 * 64 * 2]


@every_model
def test_decoding_one_token_multiplies_every_attention_weight_once(name: str) -> None:
    # Absorbed MLA applies the up-projection of keys to queries and that of values to sums: the same weights, once.
    model = read_model(name)
    for kind in model.layers:
        found = [op for op in decode_attention(kind.attention, model.hidden, 1.0, 0.0, 1.0, 2.0) if "gemm" in op.kind]
        alone = flops_per_token_forward(replace(model, layers=(replace(kind, count=1),), pattern=()), 1)
        assert sum(number(gemm_flops(op)) for op in found) == number(alone["attention_projections"])


# --- experts ------------------------------------------------------------------------------------------------------


def test_one_token_hits_k_experts_and_many_hit_all() -> None:
    assert experts_hit(256, 8, [0, 1, 1e6]) == pytest.approx(np.array([0.0, 8.0, 256.0]))
    assert experts_hit(8, 8, 1) == pytest.approx(8.0)


@pytest.mark.parametrize(("experts", "topk", "tokens"), [(16, 2, 5), (64, 8, 10), (256, 8, 32), (8, 2, 1)])
def test_experts_hit_equals_a_draw_of_random_routings(experts: int, topk: int, tokens: int) -> None:
    draws = 1000
    rng = np.random.default_rng(7)
    chosen = np.argpartition(rng.random((draws, tokens, experts)), topk - 1, axis=-1)[..., :topk]
    hit = np.zeros((draws, experts), dtype=bool)
    np.put_along_axis(hit, chosen.reshape(draws, -1), values=True, axis=1)
    counts = hit.sum(axis=1)
    error = counts.std() / np.sqrt(draws)
    assert abs(number(experts_hit(experts, topk, tokens)) - counts.mean()) <= 4 * error + 1e-9


@quick
@given(st.integers(1, 512), st.integers(1, 16), st.integers(0, 10**5), st.integers(0, 10**5))
def test_experts_hit_grows_with_tokens_and_stays_between_bounds(experts: int, topk: int, a: int, b: int) -> None:
    topk = min(topk, experts)
    few, many = (number(experts_hit(experts, topk, tokens)) for tokens in sorted((a, b)))
    assert 0 <= few <= many <= experts * (1 + 1e-9)
    assert few <= topk * min(a, b) * (1 + 1e-9)  # each token hits at most k more


def test_72_ranks_hold_288_slots_of_256_experts() -> None:
    assert isinstance(DEEPSEEK.mlp, Moe)
    ops = routed_experts(DEEPSEEK.mlp, 7168, 1e6, 72.0, 1.0, tokens_in_group=72e6)
    up = next(op for op in ops if op.name == "experts up")
    assert number(up.groups) * 72 == pytest.approx(288)
    assert number(up.m) * number(up.groups) == pytest.approx(1e6 * 8)  # rows in = rows out, spread over the slots


@quick
@given(st.sampled_from([1, 2, 8, 32, 64, 72, 256]), st.sampled_from([1.0, 2.0, 4.0]), st.floats(1, 1e5))
def test_expert_rows_are_tokens_times_topk_however_they_are_spread(ep: int, etp: float, tokens: float) -> None:
    assert isinstance(DEEPSEEK.mlp, Moe)
    ops = routed_experts(DEEPSEEK.mlp, 7168, tokens, ep, etp, tokens_in_group=tokens * ep)
    up, down = (next(op for op in ops if op.name == f"experts {way}") for way in ("up", "down"))
    for op in (up, down):
        assert number(op.m) * number(op.groups) == pytest.approx(tokens * 8 * etp)
    assert work([up]) == pytest.approx(tokens * 8 * 2 * 7168 * 4096)  # etp shares the rows and splits the width
    assert number(up.groups) <= np.ceil(256 / ep) * (1 + 1e-9)


# --- recomputation --------------------------------------------------------------------------------------------------

S, B, H = 1024.0, 2.0, 1024.0
A = 16.0
GPT_LAYER = LayerKind("dense", GPT, Mlp(4096, gated=False), 1)


def test_modules_name_what_selective_recomputation_redoes() -> None:
    operators = layer(GPT_LAYER, H, S * B, S, fused=False)
    core = [op.name for op in operators if "core_attn" in op.modules]
    assert core == ["scores", "softmax", "values"]
    assert [op.name for op in operators if "mlp" in op.modules] == ["mlp up", "mlp activation", "mlp down"]


def test_backward_moves_more_bytes_than_forward_where_it_reads_two_tensors() -> None:
    operators = layer(GPT_LAYER, H, S * B, S)
    passes = {op.name: op.backward_passes for op in operators if op.kind == "vector"}
    assert passes == {"attention norm": 1.0, "mlp norm": 1.0, "rope": 1.0, "mlp activation": 1.5}


# --- shapes are columns -------------------------------------------------------------------------------------------


@quick
@given(st.lists(st.sampled_from([1.0, 2.0, 4.0, 8.0]), min_size=1, max_size=5), st.floats(1, 1e4))
def test_columns_equal_scalars(tps: list[float], tokens: float) -> None:
    for kind in (DEEPSEEK, GPT_LAYER):
        together = layer(kind, 4096, tokens, 4096.0, np.array(tps))  # type: ignore[arg-type]
        for index, tp in enumerate(tps):
            for a, b in zip(together, layer(kind, 4096, tokens, 4096.0, tp), strict=True):
                for field in ("m", "n", "k", "groups", "flops", "bytes"):
                    value = np.broadcast_to(getattr(a, field), (len(tps),))[index]
                    assert value == pytest.approx(number(getattr(b, field)), rel=1e-12)


def test_the_gate_of_a_shared_expert_is_the_one_weight_without_an_operator() -> None:
    moe = Moe(experts=8, topk=2, intermediate=64, shared_intermediate=128, shared_gate=True)
    model = Model("gated", 256, 1000, (LayerKind("moe", GPT, moe, 1),))
    counted = number(sum(flops_per_token_forward(model, 512).values()))
    found = work(layer(model.layers[0], 256, 512.0, 512.0)) + work(head(256, 1000, 512.0, 1.0))
    assert 512 * counted - found == pytest.approx(512 * 2 * 256)
