"""What a rank holds: hand values, sharding rules, and every rank of a job added up against the model's own count."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.io import model_names, read_model
from parallel.memory import (
    PLACES,
    attention_shard,
    cache_bytes,
    expert_shard,
    fullest_stage,
    serving_weights,
    stage_layers,
    stage_parameters,
)
from parallel.models import (
    Attention,
    LayerKind,
    Mlp,
    Model,
    final_norm_parameters,
    kv_bytes_per_sequence,
    kv_bytes_per_token,
    layer_count,
    layer_order,
    layer_parameters,
    norm_parameters,
    parameters,
)
from parallel.precision import recipe
from parallel.strategy import Columns
from parallel.workload import ServeWorkload
from topo.columns import Column

quick = settings(max_examples=50, deadline=None)
every_model = pytest.mark.parametrize("name", model_names())
LLAMA = "llama-3.1-8b"
GQA = Attention("gqa", heads=4, kv_heads=2, head_dim=16)


@lru_cache
def model_of(name: str) -> Model:
    return read_model(name)


def split(**changes: float | Sequence[float]) -> Columns:
    return Columns.of(
        **{"tp": 1, "cp": 1, "pp": 1, "ep": 1, "etp": 1, "dp": 1, "vpp": 1, "zero": 0, "recompute": 0, "ep_overlap": 0}
        | changes
    )


def held(name: str, **changes: float) -> float:
    """Parameters per rank of the fullest stage."""
    found = stage_parameters(model_of(name), split(**changes))
    return float(found["dense parameters"][0] + found["expert parameters"][0])


# --- parameters ---------------------------------------------------------------------------------------------------


@every_model
def test_one_rank_holds_the_whole_model(name: str) -> None:
    assert held(name) == pytest.approx(parameters(model_of(name)), rel=1e-12)


def test_llama_8b_takes_two_bytes_per_weight_on_one_rank() -> None:
    assert held(LLAMA) == 8_030_261_248
    weights = serving_weights(model_of(LLAMA), split(), recipe("bf16"))
    assert weights[0] == pytest.approx(2 * (8_030_261_248), rel=1e-12)


@quick
@given(
    st.sampled_from(model_names()),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.sampled_from([1, 2, 8, 64, 72, 256]),
    st.sampled_from([1, 2]),
)
def test_all_ranks_together_hold_the_model_at_least(name: str, tp: int, pp: int, ep: int, etp: int) -> None:
    found = stage_parameters(model_of(name), split(tp=tp, pp=pp, ep=ep, etp=etp))
    together = pp * (tp * found["dense parameters"][0] + ep * etp * found["expert parameters"][0])
    assert together >= parameters(model_of(name)) * (1 - 1e-12)


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_nothing_but_norms_is_held_twice_where_tp_divides_everything(tp: int) -> None:
    # GPT-3: every matrix and bias counts as split, the two norms of each layer and the last one are on every rank.
    model = model_of("gpt3-175b")
    norms = 96 * norm_parameters(model) + final_norm_parameters(model)
    assert tp * held("gpt3-175b", tp=tp) == pytest.approx(parameters(model) + (tp - 1) * norms, rel=1e-12)
    assert tp * held("gpt3-175b", tp=tp) == pytest.approx(parameters(model), rel=2e-4)


def test_even_stages_hold_the_layers_once() -> None:
    # 32 layers on 4 stages of 8; each stage is charged the larger end (the input table) and the last norm.
    model = model_of(LLAMA)
    table, norm = 128256 * 4096, 4096
    assert 4 * (held(LLAMA, pp=4) - table - norm) == pytest.approx(parameters(model) - 2 * table - norm, rel=1e-12)


def test_tied_tables_are_held_by_the_first_and_the_last_stage() -> None:
    one, two = (held("gpt3-175b", pp=pp) for pp in (1, 2))
    table = (50257 + 2048) * 12288
    assert 2 * (two - table) == pytest.approx(one - table, rel=1e-4)


def test_the_latent_is_held_whole_and_key_value_heads_are_copied_beyond_one_per_rank() -> None:
    deepseek, qwen = model_of("deepseek-v3"), model_of("qwen3-235b-a22b")
    latent = 7168 * 1536 + 7168 * 576
    shard = attention_shard(deepseek, deepseek.layers[1], np.array([1.0, 8.0]))
    assert shard[1] - latent == pytest.approx((shard[0] - latent) / 8)
    four, eight = attention_shard(qwen, qwen.layers[0], np.array([4.0, 8.0]))  # 4 key-value heads of 128
    one_head_each = 2 * 4096 * 128
    assert eight - one_head_each == pytest.approx((four - one_head_each) / 2)


@pytest.mark.parametrize(("ep", "experts"), [(1, 256), (8, 32), (64, 4), (72, 4), (256, 1), (288, 1)])
def test_a_rank_holds_whole_experts_redundant_ones_included(ep: int, experts: int) -> None:
    model = model_of("deepseek-v3")
    assert float(expert_shard(model, model.layers[1], ep, 1.0)) == experts * 3 * 7168 * 2048
    assert float(expert_shard(model, model.layers[0], ep, 1.0)) == 0


@every_model
@pytest.mark.parametrize("pp", [1, 2, 4, 7, 16])
def test_no_run_of_layers_is_heavier_than_the_fullest_stage(name: str, pp: int) -> None:
    model = model_of(name)
    order, size = layer_order(model), -(-layer_count(model) // pp)
    found = [float(n) for n in fullest_stage(model, pp)]
    weights = [layer_parameters(model, kind) for kind in model.layers]
    runs = [sum(weights[i] for i in order[start : start + size]) for start in range(len(order) - size + 1)]
    assert sum(found) == size
    assert all(n <= kind.count for n, kind in zip(found, model.layers, strict=True))
    assert sum(n * weight for n, weight in zip(found, weights, strict=True)) == max(runs)


@quick
@given(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 20))
def test_random_alternations_are_bounded_too(pattern: list[int], repeats: int, pp: int) -> None:
    kinds = sorted(set(pattern))
    order = tuple(kinds.index(i) for i in pattern) * repeats
    layers = tuple(LayerKind(f"{i}", GQA, Mlp(64 << i), order.count(i)) for i in range(len(kinds)))
    model = Model("random", 64, 100, layers, pattern=tuple(kinds.index(i) for i in pattern))
    size = -(-len(order) // pp)
    found = [float(n) for n in fullest_stage(model, pp)]
    weights = [layer_parameters(model, kind) for kind in layers]
    runs = [sum(weights[i] for i in order[start : start + size]) for start in range(len(order) - size + 1)]
    assert sum(found) == size
    assert sum(n * weight for n, weight in zip(found, weights, strict=True)) >= max(runs)


def test_alternating_layers_stay_mixed_on_a_stage_with_the_longer_cache_first() -> None:
    # gpt-oss alternates windowed and full attention: 36 layers on 4 stages are 4 and 5 of each kind, not 9 of one.
    found = fullest_stage(model_of("gpt-oss-120b"), np.array([1.0, 2.0, 4.0]))
    assert [n.tolist() for n in found] == [[18, 9, 4], [18, 9, 5]]


def test_the_ends_go_short_of_a_layer_first() -> None:
    places = [[float(stage_layers(model_of("deepseek-v3"), pp, place)) for place in PLACES] for pp in (1, 4, 15, 60)]
    assert places == [[61, 61, 61], [15, 16, 15], [4, 5, 4], [1, 2, 1]]


# --- serving ------------------------------------------------------------------------------------------------------


def cache(name: str, sequences: float, context: float, *, kv_bytes: float = 2.0, **changes: float) -> float:
    work = ServeWorkload(kv_bytes=kv_bytes)
    found: Column = cache_bytes(model_of(name), split(**changes), np.array([sequences]), context, work)
    return float(found[0])


def test_deepseek_v3_caches_70272_bytes_per_token_over_all_layers_at_any_tp() -> None:
    assert cache("deepseek-v3", 1, 1) == cache("deepseek-v3", 1, 1, tp=8) == 70_272
    assert cache("deepseek-v3", 3, 1000, kv_bytes=1.0) == 3 * 1000 * 70_272 / 2


@pytest.mark.parametrize("name", ["deepseek-v4-flash", "deepseek-v4-pro"])
def test_entries_windows_and_what_waits_add_up_to_a_sequence(name: str) -> None:
    for context in (1, 100, 8192):
        assert cache(name, 1, context) == pytest.approx(float(kv_bytes_per_sequence(model_of(name), context)))


@pytest.mark.parametrize("name", [n for n in model_names() if n != "gpt-oss-120b" and "-v4-" not in n])
def test_one_token_takes_the_bytes_that_the_model_counts(name: str) -> None:
    assert cache(name, 1, 1) == kv_bytes_per_token(model_of(name))


def test_a_window_bounds_the_cache_of_its_layers() -> None:
    each = 2 * 8 * 64 * 2
    assert cache("gpt-oss-120b", 1, 4096) == 18 * each * (128 + 4096)
    assert cache("gpt-oss-120b", 1, 4096, pp=2) == 9 * each * (128 + 4096)


@pytest.mark.parametrize("name", [LLAMA, "gpt3-175b", "gpt-oss-120b"])
@pytest.mark.parametrize("pp", [2, 4])
def test_pipelining_does_not_shrink_the_cache_of_the_sequences_per_accelerator(name: str, pp: int) -> None:
    # The lecture's point: pp stages need pp times as many sequences in flight, so the weights per accelerator fall and
    # the cache per accelerator does not.
    per_accelerator = 64.0
    cached = [cache(name, per_accelerator * stages, 8192, pp=stages) for stages in (1, pp)]
    weights = [serving_weights(model_of(name), split(pp=stages), recipe("bf16"))[0] for stages in (1, pp)]
    assert cached[1] >= cached[0]
    assert cached[1] <= cached[0] * (1 + 1 / 4)  # stages of 5 and 4 full layers: the fullest is charged
    if name != "gpt-oss-120b":
        assert cached[1] == cached[0]
    assert weights[1] < 0.65 * weights[0]


def test_tp_divides_the_cache_down_to_one_head() -> None:
    found = [cache("qwen3-235b-a22b", 1, 1000, tp=tp) for tp in (1, 2, 4, 8)]
    assert found == [found[0], found[0] / 2, found[0] / 4, found[0] / 4]


def test_weights_of_each_role_take_their_own_format() -> None:
    model = model_of("deepseek-v3")
    bf16, fp8, nvfp4 = (serving_weights(model, split(), recipe(name))[0] for name in ("bf16", "fp8", "nvfp4"))
    tables = 2 * 129280 * 7168 + 7168
    small = 58 * (256 * 7168 + 256) + 61 * 2 * 7168
    assert bf16 == 2 * parameters(model)
    assert fp8 == parameters(model) + tables + small
    routed = 58 * 256 * 3 * 7168 * 2048
    assert nvfp4 < fp8
    assert bf16 - nvfp4 > (2 - 0.5625) * routed


def test_experts_spread_over_the_ranks_of_tp_where_ep_is_smaller() -> None:
    # Serving spreads routed experts over max(ep, tp) ranks; memory and time must agree.
    model = model_of("mixtral-8x7b")
    found = [float(serving_weights(model, split(tp=8, ep=ep), recipe("bf16"))[0]) for ep in (1, 4, 8)]
    assert found[0] == found[1] == found[2]
    assert 8 * found[0] == pytest.approx(2 * parameters(model), rel=1e-3)


@quick
@given(st.sampled_from(model_names()), st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=4))
def test_columns_equal_scalars(name: str, tps: list[int]) -> None:
    together = stage_parameters(model_of(name), split(tp=tps, pp=4, ep=8))
    for index, tp in enumerate(tps):
        alone = stage_parameters(model_of(name), split(tp=tp, pp=4, ep=8))
        for key, value in together.items():
            assert np.broadcast_to(value, (len(tps),))[index] == alone[key]
