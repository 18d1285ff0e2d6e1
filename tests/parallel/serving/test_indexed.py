"""Attention over positions that an indexer chooses: by hand, in its limits, as properties, and against published runs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.build import build
from clusters.catalogue import accelerator
from clusters.spec import parse
from parallel.io import read_model
from parallel.models import Attention, Indexer, chosen_positions, kv_bytes_per_sequence
from parallel.operators import Operator, decode_attention, sparse_heads
from parallel.serving.drafts import draft_memory
from parallel.serving.engines import Engine, engine, serving_recipe
from parallel.serving.indexed import Indexed, chosen_prompt, index_linear
from parallel.serving.kernels import engine_chip
from parallel.serving.passes import PassCost, Replica, Split, dealt_s, pass_cost, position_bytes
from parallel.serving.phases import PHASES, ServeJob
from parallel.serving.queueing import OpenLoop, simulate
from parallel.serving.runs import limits_of
from parallel.serving.steps import split_faults
from parallel.serving.transfer import request_bytes
from parallel.speculation import Drafts
from parallel.training.layer import TrainJob
from parallel.workload import ServeWorkload, TrainWorkload
from topo.columns import ColumnLike, column
from topo.errors import SpecError

quick = settings(max_examples=60, deadline=None)
V3, V32, GLM = (read_model(name) for name in ("deepseek-v3", "deepseek-v3.2", "glm-5"))
ATT = V32.layers[1].attention
ALONE, TENSOR = Split(1, 8, 1, 8), Split(8, 1, 1, 8)
TOPK, KEY, LATENT = 2048, 132, 1152


def replica(
    model: str = "deepseek-v3.2", split: Split = ALONE, part: str = "h200-sxm", kv: float = 2.0, name: str = "sglang"
) -> tuple[Replica, Engine]:
    held, base, one = read_model(model), engine(name), accelerator(part)
    cluster = build(parse({"accelerator": part, "accelerators": 8}))
    recipe = serving_recipe(held, "fp8", one)
    return Replica(held, cluster, engine_chip(one, recipe, base), split, kv, regime=base.regime), base


def cost(model: str = "deepseek-v3.2", split: Split = ALONE, part: str = "h200-sxm", kv: float = 2.0) -> PassCost:
    return pass_cost(*replica(model, split, part, kv))


SPARSE, DENSE = cost(), cost("deepseek-v3")
OWN, SHARED = cost("glm-5"), cost("glm-5.2")


def kernel_s(held: PassCost, which: int, b: float, n: float) -> float:
    """Seconds of the scores (0), the choice (1) or the attention (2) of all layers of a decoding pass."""
    return sum(held.rows_s([layers.reads(b, n, 1.0)[which]]) for layers in held.indexed)


def number(value: ColumnLike) -> float:
    return column(value).item()


# --- by hand ------------------------------------------------------------------------------------------------------


def test_a_position_holds_a_latent_and_an_index_key() -> None:
    assert position_bytes(replica()[0]) == 61 * (LATENT + KEY)
    assert position_bytes(replica(kv=1.0)[0]) == 61 * (
        656 + KEY
    )  # a scale for each 128 values, the rotary part in BF16
    assert position_bytes(replica("glm-5")[0]) == 78 * (LATENT + KEY)
    assert position_bytes(replica("deepseek-v3", kv=1.0)[0]) == 61 * 576


def test_a_step_at_128k_reads_all_keys_and_few_latents() -> None:
    (scores, choice, attention), *_ = [layers.reads(1.0, 131072.0, 1.0) for layers in SPARSE.indexed]
    assert scores[1] == 131072 * (KEY + 4)
    assert choice[1] == 131072 * 4
    assert attention[1] == TOPK * LATENT
    peaks = replica()[0].chip.accelerator.peak_flops
    assert scores[2] == pytest.approx(131072 * 2 * 64 * 128 / (0.55 * peaks["fp8"]))
    assert attention[2] == pytest.approx(TOPK * 2 * 128 * 1088 / (0.586 * peaks["bf16"]))


def test_an_indexer_starts_nine_kernels_in_every_layer() -> None:
    assert SPARSE.kernels - DENSE.kernels == 61 * 9
    assert len(index_linear(V3.layers[0].attention, 7168, 1.0)) == 0


def test_layers_that_share_an_index_neither_score_nor_hold_keys() -> None:
    assert OWN.kernels - SHARED.kernels == 57 * 9
    scores, choice, attention = SHARED.indexed[1].reads(2.0, 2 * 50_000.0, 1.0)
    assert (SHARED.indexed[1].count, scores[1:], choice[1:]) == (57, (0.0, 0.0), (0.0, 0.0))
    assert attention[1:] == OWN.indexed[1].reads(2.0, 2 * 50_000.0, 1.0)[2][1:]
    assert position_bytes(replica("glm-5.2")[0]) == 78 * LATENT + 21 * KEY


@given(st.floats(1.0, 256.0), st.floats(1.0, 200_000.0), st.sampled_from([0.0, 1.0, 4096.0]))
@settings(max_examples=50, deadline=None)
def test_sharing_an_index_never_takes_longer(b: float, context: float, prompt: float) -> None:
    assert SHARED(b, b * context, prompt, prompt * context) <= OWN(b, b * context, prompt, prompt * context)


def test_drafts_share_the_keys_and_choose_latents_of_their_own() -> None:
    one, two = (SPARSE.indexed[0].reads(4.0, 4 * 50_000.0, each) for each in (1.0, 2.0))
    assert two[0][1] - one[0][1] == 4 * 50_000 * 4  # scores alone
    assert (two[2][1], two[0][2]) == (2 * one[2][1], 2 * one[0][2])
    held = draft_memory(replica()[0], Drafts(1, (0.85,)))
    assert held[1] == LATENT + KEY


def test_fewer_heads_than_a_kernel_takes_are_padded_on_hopper_alone() -> None:
    found = [number(sparse_heads(ATT, tp, part)) for tp in (1, 8) for part in ("hopper", "blackwell")]
    assert found == [128, 128, 64, 16]
    wide, narrow = (cost(split=split).indexed[0].chosen_s for split in (ALONE, TENSOR))
    assert wide == 2 * narrow


def test_every_rank_scores_for_itself() -> None:
    wide, narrow = (cost(split=split).indexed[0] for split in (ALONE, TENSOR))
    assert (wide.score_s, wide.key_bytes) == (narrow.score_s, narrow.key_bytes)
    assert wide.pair_s == 8 * narrow.pair_s


def test_what_moves_and_what_waits_holds_the_keys() -> None:
    work = ServeWorkload(isl=4096, kv_bytes=2.0)
    assert request_bytes(V32, work) == request_bytes(V3, work) + 61 * 4096 * KEY
    assert number(kv_bytes_per_sequence(V32, 50_000)) == 50_000 * position_bytes(replica()[0])


# --- limits -------------------------------------------------------------------------------------------------------


@quick
@given(b=st.integers(1, 256), context=st.integers(1, TOPK))
def test_up_to_topk_positions_attention_is_dense_and_the_indexer_comes_on_top(b: int, context: int) -> None:
    n = float(b * context)
    indexer = kernel_s(SPARSE, 0, b, n) + kernel_s(SPARSE, 1, b, n)
    assert SPARSE.cache(b, n) == pytest.approx(DENSE.cache(b, n) + indexer, rel=1e-9)


@quick
@given(tokens=st.integers(1, TOPK))
def test_a_short_prompt_attends_as_in_the_dense_model(tokens: int) -> None:
    pairs = tokens * tokens / 2.0
    assert sum(layers.prompts(tokens, pairs)[2][2] * layers.count for layers in SPARSE.indexed) == pytest.approx(
        sum(pair_s for pair_s, _ in DENSE.pair_s) * pairs
    )


def test_four_ranks_that_deal_hold_a_quarter_each_and_fill_the_padded_heads() -> None:
    plain, dealt = (replica(split=replace(TENSOR, dcp=dcp))[0] for dcp in (1.0, 4.0))
    assert position_bytes(plain) == 4 * position_bytes(dealt)
    one, quarter = (cost(split=replace(TENSOR, dcp=dcp)).indexed[0] for dcp in (1.0, 4.0))
    assert [a[1] for a in one.reads(2, 1e5, 1)] == pytest.approx([4 * a[1] for a in quarter.reads(2, 1e5, 1)])
    assert one.score_s == pytest.approx(4 * quarter.score_s)
    assert one.chosen_s == pytest.approx(4 * quarter.chosen_s)  # 64 heads, 48 of them padded, against 64 over a quarter


def test_ranks_that_deal_gather_candidates_too_of_prompts_as_well() -> None:
    held, _ = replica(split=replace(TENSOR, dcp=4.0))
    one = np.array([64.0])
    assert dealt_s(held, ATT, one)[0] > dealt_s(held, V3.layers[1].attention, one)[0]
    assert cost(split=replace(TENSOR, dcp=4.0)).dealt_prompts


# --- properties ---------------------------------------------------------------------------------------------------


@quick
@given(b=st.integers(1, 64), context=st.integers(1, 200_000), more=st.integers(1, 10_000))
def test_a_longer_context_takes_no_less(b: int, context: int, more: int) -> None:
    assert SPARSE(b, b * float(context + more), 0, 0) >= SPARSE(b, b * float(context), 0, 0)


@quick
@given(b=st.integers(1, 64), context=st.integers(1, 200_000))
def test_sparse_is_no_more_than_dense_and_the_indexer(b: int, context: int) -> None:
    n = b * float(context)
    assert SPARSE.cache(b, n) <= (DENSE.cache(b, n) + kernel_s(SPARSE, 0, b, n) + kernel_s(SPARSE, 1, b, n)) * (
        1 + 1e-9
    )


@quick
@given(st.integers(0, 9000), st.integers(1, 9000))
def test_the_mean_of_chosen_positions_is_that_of_the_sum(first: int, tokens: int) -> None:
    counted = np.minimum(np.arange(first, first + tokens) + 0.5, TOPK).mean()
    assert number(chosen_positions(first, first + tokens, TOPK)) == pytest.approx(counted, rel=1e-3, abs=0.2)


@quick
@given(st.integers(1, 60_000), st.sampled_from([512, 8192, 16_384]))
def test_chunks_of_a_prompt_attend_to_what_the_whole_does(tokens: int, chunk: int) -> None:
    one = replace(SPARSE.indexed[0], pair_s=SPARSE.indexed[0].chosen_s)
    parts = [(float(min(chunk, tokens - at)), float(at)) for at in range(0, tokens, chunk)]
    found = sum(one.prompts(take, take * (at + take / 2))[2][2] for take, at in parts)
    assert found == pytest.approx(one.prompts(tokens, tokens * tokens / 2)[2][2])
    several = one.prompts(3.0 * tokens, 3 * tokens * tokens / 2)[2][2]  # three prompts in one pass
    assert several == pytest.approx(3 * one.prompts(tokens, tokens * tokens / 2)[2][2])


def test_beyond_topk_a_step_grows_by_keys_and_scores_alone() -> None:
    long, longer = 8 * 200_000.0, 8 * 400_000.0
    added = [held.cache(8, longer) - held.cache(8, long) for held in (SPARSE, DENSE)]
    read = 61 * (longer - long) * (KEY + 4 + 4) / SPARSE.hbm_Bps / SPARSE.hbm_efficiency
    assert added[0] == pytest.approx(read, rel=0.1)  # the ramp of the memory comes on top
    assert added[0] < 0.1 * added[1]


# --- a phase by itself --------------------------------------------------------------------------------------------


def phase_ops(name: str, model: str, **changes: float) -> dict[str, Operator]:
    cluster = build(parse({"accelerator": "h200-sxm", "accelerators": 8}))
    work = ServeWorkload(**{"isl": 32768, "osl": 1024, **changes})  # type: ignore[arg-type]
    held = read_model(model)
    job = ServeJob.of(held, cluster, work)
    ops = PHASES[name].attention(job, held.layers[1], np.array([16.0]), np.array([1.0]))
    return {op.name: op for op in ops}


def test_phases_count_what_engines_count() -> None:
    sparse, one = phase_ops("decode", "deepseek-v3.2"), SPARSE.indexed[0]
    context = 32768 + 512.0
    scores, choice, attention = one.reads(16.0, 16 * context, 1.0)
    assert number(sparse["index scores"].bytes) == pytest.approx(scores[1])
    assert number(sparse["index top-k"].bytes) == pytest.approx(choice[1])
    assert number(sparse["kv read"].bytes) == pytest.approx(attention[1])
    assert number(sparse["kv read"].flops) == 16 * TOPK * 2 * 128 * 1088
    assert number(phase_ops("decode", "deepseek-v3")["kv read"].bytes) == 16 * context * LATENT


def test_cached_tokens_are_scored_and_not_projected() -> None:
    fresh = phase_ops("prefill", "deepseek-v3.2", isl=65536, cached=32768)
    assert number(fresh["index scores"].flops) == 16 * 49152 * 2 * 64 * 128
    assert number(fresh["attention core"].flops) == 16 * TOPK * 2 * 128 * 1088
    short = phase_ops("prefill", "deepseek-v3.2", isl=2000)
    assert number(short["attention core"].flops) == number(
        phase_ops("prefill", "deepseek-v3", isl=2000)["attention core"].flops
    )


@pytest.mark.parametrize("first", [0.0, 5000.0])
def test_a_prompt_gains_beyond_seven_times_topk(first: float) -> None:
    dense = 2 * 128 * 320
    lengths = (20_000.0, 60_000.0)
    found = [
        number(chosen_prompt(ATT, 7168, 1, first, last, 1, "")[-1].flops) / ((first + last) / 2) for last in lengths
    ]
    assert found[1] < found[0] < dense


def test_decoding_takes_a_column_of_contexts_and_splits() -> None:
    ops = decode_attention(ATT, 7168, 4.0, [1000.0, 100_000.0], [1.0, 8.0], 2.0, generation="hopper")
    read = next(op for op in ops if op.name == "kv read")
    assert np.asarray(read.bytes).tolist() == [4 * 1000 * LATENT, 4 * TOPK * LATENT]


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes"), [("gqa", {}), ("mla", {"q_lora_rank": 0}), ("mla", {"sliding_window": 128})]
)
def test_an_index_stands_on_latents_and_without_a_window(kind: str, changes: dict[str, int]) -> None:
    sizes = {
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
        **changes,
    }
    with pytest.raises(SpecError, match="indexes positions of latent attention"):
        Attention(kind, 4, 4, 8, indexer=Indexer(2, 8, 16), **sizes)


@pytest.mark.parametrize(
    ("model", "tp", "dcp", "fine"),
    [
        ("deepseek-v3.2", 8, 4, True),
        ("deepseek-v3.2", 8, 8, False),  # 128 gathered heads
        ("deepseek-v3.2", 4, 2, False),  # 32 heads of a rank
        ("glm-5", 8, 8, True),
    ],
)
def test_ranks_deal_where_one_kernel_takes_their_heads(model: str, tp: int, dcp: int, fine: bool) -> None:
    faults = split_faults(read_model(model), Split(tp=float(tp), dcp=float(dcp)))
    assert [fault.field for fault in faults] == ([] if fine else ["strategy.dcp"])
    assert all("fit one kernel" in fault.problem for fault in faults)


@pytest.mark.parametrize(("model", "pp", "fine"), [("glm-5.2", 1, True), ("glm-5.2", 2, False), ("glm-5", 2, True)])
def test_a_stage_begins_with_an_index_of_its_own(model: str, pp: int, fine: bool) -> None:
    # The second half of 78 layers begins at 39; GLM-5.2 has indexes at 38 and 42.
    faults = split_faults(read_model(model), Split(tp=8.0, pp=float(pp)))
    assert [fault.field for fault in faults] == ([] if fine else ["strategy.pp"])


@pytest.mark.parametrize("model", ["deepseek-v3.2", "glm-5"])
def test_training_names_the_model_and_refuses(model: str) -> None:
    cluster = build(parse({"accelerator": "h100-sxm", "accelerators": 8}))
    with pytest.raises(SpecError, match=f"model = '{model}': chooses positions by an indexer"):
        TrainJob.of(read_model(model), cluster, TrainWorkload())


# --- published runs -----------------------------------------------------------------------------------------------

# Seconds in which eight H200 answered random prompts that all came at once: (input, output tokens, prompts). vLLM 0.13 over
# tensor ranks, SGLang 0.5.6 over attention groups. Source: gpustack/gpustack, docs/performance-lab/deepseek-v3.2/h200.md,
# "Other Benchmark Cases".
ANSWERED_S = {
    ("vllm", Split(8, 1, 8, 1), 2.0): {
        (2000, 100, 500): 96.10,
        (4000, 200, 500): 210.54,
        (32000, 100, 100): 330.61,
        (1000, 2000, 100): 96.39,
    },
    ("sglang", Split(1, 8, 8, 1), 2.0): {
        (2000, 100, 500): 37.89,
        (4000, 200, 500): 102.21,
        (32000, 100, 100): 160.14,
        (1000, 2000, 100): 80.99,
    },
}


def answered_s(name: str, split: Split, kv: float, asked: tuple[int, int, int], model: str = "deepseek-v3.2") -> float:
    held, base = replica(model, split, kv=kv, name=name)
    isl, osl, count = asked
    each = -(-count // int(split.dp))
    passes = replace(pass_cost(held, base), graphs=base.defaults.graphs)
    limits = limits_of(held, base.defaults, base)
    return simulate(passes, limits, OpenLoop((0.0,) * each), [isl] * each, [osl] * each).seconds


def test_published_answers_of_deepseek_v32_on_eight_h200() -> None:
    # None of them was fitted. The worst is vLLM's at 2,000 tokens: that release attends absorbed where nothing is left out.
    errors = {
        (name, asked): answered_s(name, split, kv, asked) / measured - 1.0
        for (name, split, kv), runs in ANSWERED_S.items()
        for asked, measured in runs.items()
    }
    assert np.median(np.abs(list(errors.values()))) < 0.15
    assert max(abs(error) for key, error in errors.items() if key != ("vllm", (2000, 100, 500))) < 0.25
    assert errors["vllm", (2000, 100, 500)] == pytest.approx(-0.4, abs=0.05)


def test_attention_groups_gain_more_over_tensor_ranks_than_the_dense_model_would() -> None:
    # Measured 2.06 at 32,000 tokens: tensor ranks score the same positions, and pad their heads.
    asked = (32000, 100, 100)
    (tensor, groups), dense = ANSWERED_S, "deepseek-v3"
    gains = [
        answered_s(*tensor, asked, model) / answered_s(*groups, asked, model) for model in ("deepseek-v3.2", dense)
    ]
    assert gains[1] < 2.06 < gains[0] < 2.06 * 1.25


# Seconds of a decoding step of SGLang over eight B200, 4,096 input and 512 output tokens, by the sequences of all groups.
# Source: sgl-project/sglang issue 15025, nightly of 8 January 2026 (DP8).
STEP_S = {1: 19.18e-3, 8: 19.88e-3, 16: 25.30e-3, 64: 64 / 2392.6}


def test_published_steps_of_deepseek_v32_on_eight_b200() -> None:
    passes = cost(split=Split(1, 8, 8, 1), part="b200-sxm", kv=1.0)
    errors = [passes(max(n / 8, 1.0), max(n / 8, 1.0) * 4352.0, 0, 0) / s - 1.0 for n, s in STEP_S.items()]
    assert -0.35 < min(errors) < max(errors) < 0.05


def test_constants_of_layers_are_plain_numbers() -> None:
    assert all(isinstance(layers, Indexed) for layers in SPARSE.indexed)
    assert isinstance(SPARSE(1, 1, 1, 1), float)
    assert DENSE.indexed == ()
