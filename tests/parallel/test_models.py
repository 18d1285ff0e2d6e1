"""Counts of models against published totals, hand sums and properties that hold for every shape."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel import models as m
from parallel.io import model_names, read_model
from topo.errors import SpecError

# Numbers of values in the published weights, as the safetensors headers count them.
WEIGHTS = {
    "deepseek-v3": 671_026_419_200,
    "deepseek-v4-pro": 1_572_997_201_763,
    "gpt-oss-120b": 116_829_156_672,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "mixtral-8x22b": 140_630_071_296,
    "mixtral-8x7b": 46_702_792_704,
    "qwen3-235b-a22b": 235_093_634_560,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-32b": 32_762_123_264,
}
PUBLISHED = [name for name in model_names() if read_model(name).published_parameters]

# Active parameters in billions as their authors print them; True: the input table counted in.
ACTIVE = [
    ("deepseek-v3", True, 37.55),
    ("deepseek-v3", False, 36.62),
    ("gpt-oss-120b", False, 5.13),
    ("mixtral-8x7b", True, 12.9),
    ("mixtral-8x22b", True, 39.1),
    ("qwen3-235b-a22b", True, 22.2),
    ("qwen3-30b-a3b", True, 3.35),
    ("kimi-k2", True, 32.86),
]
# Bytes of the published BF16 weights of GLM-5.2: total_size in model.safetensors.index.json of zai-org/GLM-5.2. It is GLM-5
# with an index in 22 of its 79 layers, the drafting one included; the routers' biases are FP32.
GLM_52_BYTES = 1_506_659_919_872

# Bytes of the published weights of DeepSeek-V4-Flash by format (headers of its 46 safetensors, 159,609,485,896 bytes with
# scales and the tables of tokens, which are left out here). Experts hold two values in a byte.
V4_BYTES = {"I8": 141_733_920_768, "F8_E4M3": 6_023_020_544, "BF16": 2_830_518_528, "F32": 144_672_072}
VALUES = {"I8": 2.0, "F8_E4M3": 1.0, "BF16": 0.5, "F32": 0.25}

# Bytes per token of the bf16 cache, by hand: 2 B · layers · (2 · kv_heads · head_dim, or latent + rope).
CACHE = {
    "deepseek-v3": 2 * 61 * (512 + 64),
    "deepseek-v3.2": 61 * (2 * (512 + 64) + 128 + 4),
    "glm-5": 78 * (2 * (512 + 64) + 128 + 4),
    "glm-5.2": 78 * 2 * (512 + 64) + 21 * (128 + 4),
    "deepseek-v4-flash": 2 * 584 + 21 * (584 + 128 + 4) / 4 + 20 * 584 / 128,
    "deepseek-v4-pro": 30 * (584 + 128 + 4) / 4 + 31 * 584 / 128,
    "kimi-k2": 2 * 61 * (512 + 64),
    "llama-3.1-8b": 2 * 32 * 2 * 8 * 128,
    "llama-3.1-70b": 2 * 80 * 2 * 8 * 128,
    "llama-3.1-405b": 2 * 126 * 2 * 8 * 128,
    "gpt3-175b": 2 * 96 * 2 * 12288,
    "mixtral-8x7b": 2 * 32 * 2 * 8 * 128,
    "qwen3-235b-a22b": 2 * 94 * 2 * 4 * 128,
    "gpt-oss-120b": 2 * 36 * 2 * 8 * 64,
}


def dense(hidden=64, heads=4, kv_heads=2, head_dim=16, intermediate=128, count=3, gated=True):
    attention = m.Attention("gqa", heads, kv_heads, head_dim)
    return m.LayerKind("dense", attention, m.Mlp(intermediate, gated), count)


@st.composite
def attentions(draw):
    kv_heads = draw(st.integers(1, 4))
    heads, head_dim = kv_heads * draw(st.integers(1, 4)), draw(st.integers(1, 16))
    if draw(st.booleans()):
        return m.Attention(
            "gqa",
            heads,
            kv_heads,
            head_dim,
            bias=draw(st.booleans()),
            output_bias=draw(st.booleans()),
            sliding_window=draw(st.integers(0, 64)),
            qk_norm=draw(st.sampled_from(["none", "head", "full"])),
            sinks=draw(st.booleans()),
        )
    latent = draw(st.tuples(st.integers(0, 9), *[st.integers(1, 9)] * 4))
    return m.Attention("mla", heads, heads, head_dim, *latent)


@st.composite
def mlps(draw):
    width, gated, bias = draw(st.integers(1, 64)), draw(st.booleans()), draw(st.booleans())
    if draw(st.booleans()):
        return m.Mlp(width, gated, bias)
    experts = draw(st.integers(1, 16))
    topk, shared = draw(st.integers(1, experts)), draw(st.integers(0, 64))
    return m.Moe(experts, topk, width, shared, gated, bias=bias, router_bias=draw(st.booleans()))


@st.composite
def random_models(draw):
    kinds = tuple(
        m.LayerKind(f"kind {i}", draw(attentions()), draw(mlps()), draw(st.integers(1, 5)))
        for i in range(draw(st.integers(1, 3)))
    )
    return m.Model(
        "random",
        draw(st.integers(1, 64)),
        draw(st.integers(1, 500)),
        kinds,
        tied_embeddings=draw(st.booleans()),
        learned_positions=draw(st.integers(0, 50)),
        mtp_layers=draw(st.integers(0, 2)),
        norm=draw(st.sampled_from(["rmsnorm", "layernorm"])),
    )


models = settings(max_examples=50, deadline=None)


@pytest.mark.parametrize("name", PUBLISHED)
def test_total_is_within_half_a_percent_of_the_published_total(name):
    model = read_model(name)
    assert m.parameters(model) == pytest.approx(model.published_parameters, rel=5e-3)


@pytest.mark.parametrize(("name", "values"), WEIGHTS.items())
def test_total_equals_the_number_of_values_in_the_published_weights(name, values):
    assert m.parameters(read_model(name)) == values


@pytest.mark.parametrize(("name", "count_embedding", "billions"), ACTIVE)
def test_active_parameters_agree_with_the_printed_ones(name, count_embedding, billions):
    assert m.active_parameters(read_model(name), count_embedding) / 1e9 == pytest.approx(billions, rel=3e-3)


@pytest.mark.parametrize(("name", "size_bytes"), CACHE.items())
def test_cache_per_token_is_the_hand_value(name, size_bytes):
    assert m.kv_bytes_per_token(read_model(name)) == size_bytes


def test_deepseek_v3_caches_70272_bytes_per_token():
    assert m.kv_bytes_per_token(read_model("deepseek-v3"), bytes_per_value=2) == 70_272


def test_glm_5_2_counts_the_published_weights_and_glm_5_has_57_more_indexers() -> None:
    indexer = 2048 * 32 * 128 + 6144 * (128 + 32) + 2 * 128
    biases = 76 * 256 * 2  # four bytes instead of two
    later, first = (m.parameters(read_model(name), with_mtp=True) for name in ("glm-5.2", "glm-5"))
    assert 2 * later + biases == GLM_52_BYTES
    assert first - later == 57 * indexer


def test_deepseek_v4_flash_counts_every_value_of_its_published_weights_by_format() -> None:
    model = read_model("deepseek-v4-flash")
    assert m.parameters(model, with_mtp=True) == sum(VALUES[name] * size for name, size in V4_BYTES.items())
    kinds = [*model.layers, replace(m.module_kind(model), name="module", count=1)]
    experts = sum(kind.count * 256 * m.expert_parameters(model, kind) for kind in kinds)
    assert experts == 2 * V4_BYTES["I8"]
    narrow = 2 * 4096**2
    for kind in kinds:
        matrices = m.attention_matrices(kind.attention, 4096)
        wide = ("compressor", "index_compressor", "index_weight")
        narrow += kind.count * m.weights({name: held for name, held in matrices.items() if name not in wide})
        narrow += kind.count * m.shared_parameters(model, kind)
    assert narrow == V4_BYTES["F8_E4M3"]


def test_deepseek_v4_pro_counts_its_prediction_module() -> None:
    # safetensors headers: 25,840,145,979 values without scales
    model = read_model("deepseek-v4-pro")
    assert m.parameters(model, with_mtp=True) - m.parameters(model) == 25_840_145_979


def test_deepseek_v4_activates_what_its_card_says() -> None:
    found = [m.active_parameters(read_model(f"deepseek-v4-{name}"), False) / 1e9 for name in ("flash", "pro")]
    assert found == pytest.approx([13, 49], rel=0.025)


def test_a_long_prompt_of_deepseek_v4_sees_windows_and_entries() -> None:
    flops = m.flops_per_token_forward(read_model("deepseek-v4-flash"), 65536, causal=False)
    seen = 43 * 128 + 21 * 512 + 20 * 65536 / 128
    assert float(flops["attention_scores"]) == 4 * 64 * 512 * seen + 21 * 2 * 64 * 128 * 65536 / 4


def test_residual_streams_add_two_projections_a_layer_and_one_at_the_end() -> None:
    plain = m.Model("plain", 64, 1000, (dense(),))
    four = replace(plain, streams=4)
    assert m.parameters(four) - m.parameters(plain) == 3 * 2 * (24 * 4 * 64 + 24 + 3) + 4 * 4 * 64 + 4 + 1
    assert m.joined_parameters(plain) == m.stream_parameters(plain) == 0


def test_a_module_drafts_with_an_index_of_its_own_whatever_the_last_layer_does() -> None:
    last = m.Attention("mla", 8, 8, 16, 16, 32, 16, 8, 16, indexer=m.Indexer(0, 0, 64))
    own = replace(last, indexer=m.Indexer(2, 8, 64))
    kinds = (m.LayerKind("own", own, m.Mlp(64), 1), m.LayerKind("shared", last, m.Mlp(64), 1))
    assert m.module_kind(m.Model("tiny", 32, 100, kinds, mtp_layers=1)).attention == own
    assert m.module_kind(read_model("deepseek-v3")) == read_model("deepseek-v3").layers[-1]


def test_an_indexer_adds_three_matrices_and_a_norm() -> None:
    sparse, dense = read_model("deepseek-v3.2"), read_model("deepseek-v3")
    each = 1536 * 64 * 128 + 7168 * 128 + 7168 * 64 + 2 * 128
    assert m.parameters(sparse) - m.parameters(dense) == 61 * each
    assert (m.indexed(sparse), m.indexed(dense)) == (True, False)


def test_sparse_attention_scores_all_positions_and_weighs_the_chosen_ones() -> None:
    sparse, dense = (m.flops_per_token_forward(read_model(f"deepseek-v3{more}"), 65536) for more in (".2", ""))
    chosen = 2048 - 2048**2 / (2 * 65536)
    assert float(dense["attention_scores"]) == 61 * 2 * 128 * 320 * 32768
    assert float(sparse["attention_scores"]) == 61 * 2 * (128 * 320 * chosen + 64 * 128 * 32768)


def test_cache_of_one_layer_is_given_by_kind():
    by_kind = m.kv_bytes_per_token_by_kind(read_model("deepseek-v3"))
    assert by_kind == {"dense": 1152, "moe": 1152}


def test_cache_in_one_byte_is_half_of_that_in_two():
    assert m.kv_bytes_per_token(read_model("llama-3.1-70b"), 1) * 2 == m.kv_bytes_per_token(read_model("llama-3.1-70b"))


def test_deepseek_v3_attention_is_the_sum_of_its_five_matrices_and_two_norms():
    model = read_model("deepseek-v3")
    matrices = 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168
    assert m.attention_parameters(model, model.layers[1]) == matrices + 1536 + 512


def test_deepseek_v3_has_three_dense_layers_below_58_of_experts():
    model = read_model("deepseek-v3")
    assert [(kind.name, kind.count) for kind in model.layers] == [("dense", 3), ("moe", 58)]
    assert m.layer_order(model) == (0,) * 3 + (1,) * 58


def test_one_routed_expert_of_deepseek_v3_is_three_matrices():
    model = read_model("deepseek-v3")
    assert m.expert_parameters(model, model.layers[1]) == 3 * 7168 * 2048
    assert m.expert_parameters(model, model.layers[0]) == 0


def test_mtp_module_adds_a_layer_a_projection_and_three_norms():
    model = read_model("deepseek-v3")
    layer = m.layer_parameters(model, model.layers[-1])
    assert m.parameters(model, with_mtp=True) - m.parameters(model) == layer + 2 * 7168**2 + 3 * 7168
    assert layer == pytest.approx(11.5e9, rel=2e-3)  # README_WEIGHTS.md: 11.5 B beyond the shared tables


def test_gpt3_layer_is_twelve_h_squared_and_thirteen_h():
    model = read_model("gpt3-175b")
    h = 12288  # 4h² attention + 8h² MLP; biases 3h + h + 4h + h, two LayerNorms 4h
    assert m.layer_parameters(model, model.layers[0]) == 12 * h * h + 13 * h


def test_tied_table_is_counted_once_and_stays_active_without_the_embedding():
    model = m.Model("tied", 64, 1000, (dense(),), tied_embeddings=True)
    untied = replace(model, tied_embeddings=False)
    assert m.parameters(untied) - m.parameters(model) == 64 * 1000
    assert m.active_parameters(model, False) == m.active_parameters(untied, False) == m.parameters(model)


def test_alternating_layers_follow_the_pattern():
    model = read_model("gpt-oss-120b")
    assert m.layer_order(model)[:4] == (0, 1, 0, 1)
    assert [kind.attention.sliding_window for kind in model.layers] == [128, 0]


def test_windowed_layers_stop_growing_at_their_window():
    model = read_model("gpt-oss-120b")
    per_layer = 2 * 8 * 64 * 2
    assert float(m.kv_bytes_per_sequence(model, 100)) == 36 * per_layer * 100
    assert float(m.kv_bytes_per_sequence(model, 10_000)) == 18 * per_layer * (10_000 + 128)


def test_causal_attention_sees_half_the_sequence_and_decode_all_of_it():
    attention = m.Attention("gqa", 4, 4, 16)
    assert float(m.attended_positions(attention, 4096)) == 2048
    assert float(m.attended_positions(attention, 4096, causal=False)) == 4096
    assert float(m.attended_positions(attention, 0)) == 0


@pytest.mark.parametrize(("context", "window"), [(1000, 1), (1000, 64), (1000, 999), (64, 128)])
def test_mean_of_a_sliding_window_agrees_with_the_sum_over_positions(context, window):
    counted = np.minimum(np.arange(1, context + 1), window).mean()
    attention = m.Attention("gqa", 1, 1, 1, sliding_window=window)
    assert float(m.attended_positions(attention, context)) == pytest.approx(counted, abs=0.51)


def test_forward_flops_of_llama_8b_by_hand():
    model = read_model("llama-3.1-8b")
    flops = m.flops_per_token_forward(model, 8192)
    assert float(flops["attention_projections"]) == 2 * 32 * 2 * 4096 * (4096 + 1024)
    assert float(flops["attention_scores"]) == 32 * 4 * 4096 * 4096  # layers · 4 · heads·d · 8192/2
    assert float(flops["mlp"]) == 2 * 32 * 3 * 4096 * 14336
    assert float(flops["head"]) == 2 * 4096 * 128256
    assert float(flops["experts"]) == float(flops["router"]) == 0


def test_training_flops_of_deepseek_v3_match_an_independent_count():
    """386.5 and 433.9 TFLOP/s at 1,543.2 tokens/s per GPU, sequence 4,096: recomputed from arXiv 2412.19437."""
    model = read_model("deepseek-v3")
    for causal, teraflops in ((True, 386.5), (False, 433.9)):
        forward = sum(float(part) for part in m.flops_per_token_forward(model, 4096, causal).values())
        assert 3 * forward * 1543.2 / 1e12 == pytest.approx(teraflops, rel=1e-3)


def test_flops_take_a_column_of_contexts():
    contexts = np.array([1024, 2048, 4096])
    flops = m.flops_per_token_forward(read_model("mixtral-8x7b"), contexts)
    assert all(part.shape == (3,) for part in flops.values())
    one = m.flops_per_token_forward(read_model("mixtral-8x7b"), 2048)
    assert {name: float(part[1]) for name, part in flops.items()} == {name: float(part) for name, part in one.items()}


@given(random_models())
@models
def test_active_never_exceeds_the_total(model):
    assert m.active_parameters(model, count_embedding=False) <= m.parameters(model)
    assert m.active_parameters(model) <= m.parameters(model) <= m.parameters(model, with_mtp=True)


@given(random_models())
@models
def test_layers_and_ends_add_up_to_the_total(model):
    layers = 0
    for kind in model.layers:
        routed = kind.mlp.experts if isinstance(kind.mlp, m.Moe) else 0
        parts = m.attention_parameters(model, kind) + m.norm_parameters(model) + m.mlp_parameters(model, kind)
        parts += m.router_parameters(model, kind) + m.shared_parameters(model, kind)
        layers += kind.count * (parts + routed * m.expert_parameters(model, kind))
    ends = m.embedding_parameters(model) + m.final_norm_parameters(model) + m.head_parameters(model)
    assert layers + ends == m.parameters(model)


@given(random_models())
@models
def test_twice_the_layers_hold_twice_the_layer_parameters_and_cache(model):
    double = replace(model, layers=tuple(replace(kind, count=2 * kind.count) for kind in model.layers))
    ends = m.embedding_parameters(model) + m.final_norm_parameters(model) + m.head_parameters(model)
    assert m.parameters(double) - ends == 2 * (m.parameters(model) - ends)
    assert m.kv_bytes_per_token(double) == 2 * m.kv_bytes_per_token(model)


def without_vectors(kind):
    attention = replace(kind.attention, bias=False, output_bias=False, qk_norm="none", sinks=False)
    routed = {"router_bias": False} if isinstance(kind.mlp, m.Moe) else {}
    return replace(kind, attention=attention, mlp=replace(kind.mlp, bias=False, **routed))


@given(random_models(), st.integers(1, 10_000))
@models
def test_every_active_weight_but_the_norms_multiplies_once(model, context):
    plain = replace(model, layers=tuple(map(without_vectors, model.layers)))
    flops = m.flops_per_token_forward(plain, context)
    multiplied = sum(float(part) for name, part in flops.items() if name != "attention_scores") / 2
    latents = sum(k.count * (k.attention.q_lora_rank + k.attention.kv_lora_rank) for k in plain.layers)
    norms = m.layer_count(plain) * m.norm_parameters(plain) + m.final_norm_parameters(plain) + latents
    assert m.active_parameters(plain, count_embedding=False) - multiplied == norms
    assert m.parameters(plain) <= m.parameters(model)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: m.Attention("gqa", 30, 8, 128), "kv_heads"),
        (lambda: m.Attention("linear", 8, 8, 128), "kind"),
        (lambda: m.Attention("mla", 8, 8, 128), "kv_lora_rank"),
        (lambda: m.Attention("gqa", 8, 8, 128, qk_norm="each"), "qk_norm"),
        (lambda: m.Mlp(0), "intermediate"),
        (lambda: m.Moe(8, 9, 64), "topk"),
        (lambda: m.Moe(8, 2, 64, groups=3), "groups"),
        (lambda: m.Moe(8, 2, 64, groups=2, topk_groups=3), "topk_groups"),
        (lambda: dense(count=0), "count"),
        (lambda: m.Model("none", 64, 10, ()), "layers"),
        (lambda: m.Model("twins", 64, 10, (dense(), dense())), "layers"),
        (lambda: m.Model("norm", 64, 10, (dense(),), norm="batchnorm"), "norm"),
        (lambda: m.Model("order", 64, 10, (dense(),), pattern=(0, 1)), "pattern"),
    ],
)
def test_a_shape_that_contradicts_itself_is_refused_by_field(make, field):
    with pytest.raises(SpecError) as caught:
        make()
    assert field in [fault.field for fault in caught.value.faults]
    assert all(fault.remedy for fault in caught.value.faults)


def test_all_faults_of_a_record_come_at_once():
    with pytest.raises(SpecError) as caught:
        m.Attention("gqa", -1, 0, True)
    assert [fault.field for fault in caught.value.faults] == ["heads", "kv_heads", "head_dim"]
