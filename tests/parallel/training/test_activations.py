"""Activations of a layer: Korthikanti's published formulas and figures, recomputation by module, formats and frameworks."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.io import model_names, read_model
from parallel.models import Attention, LayerKind, Mlp, Model, Moe, compressed
from parallel.priced import total
from parallel.strategy import Columns
from parallel.training.activations import MODES, MODULES, layer_bytes, layer_tensors, loss_bytes, shape_of
from parallel.training.frameworks import FRAMEWORKS
from parallel.workload import Software, TrainWorkload

# Training refuses the others.
TRAINED = [name for name in model_names() if not compressed(read_model(name))]
quick = settings(max_examples=50, deadline=None)
LLAMA = LayerKind("dense", Attention("gqa", heads=32, kv_heads=8, head_dim=128), Mlp(14336), 32)
GPT = LayerKind("dense", Attention("gqa", heads=64, kv_heads=64, head_dim=96), Mlp(4 * 6144, gated=False), 48)
GPT_22B = Model("22b", 6144, 51200, (GPT,), tied_embeddings=True)
LLAMA_8B = Model("8b", 4096, 128256, (LLAMA,))


def columns(**changes: float) -> Columns:
    return Columns.of(**{"tp": 1, "sp": 1, "cp": 1, "ep": 1, "etp": 1, "micro_batch": 1} | changes)


def work_of(*, framework: str = "engine", fused_attention: bool = True, **changes: Any) -> TrainWorkload:
    software = Software(framework=framework, attention="engine" if fused_attention else "unfused")
    return dataclasses.replace(TrainWorkload(sequence=2048, precision="bf16"), software=software, **changes)


def layer(model: Model, work: TrainWorkload, index: int = 0, **changes: float) -> dict[str, float]:
    found = layer_bytes(model, model.layers[index], columns(**changes), work)
    return {name: float(value[0]) for name, value in found.items()}


MEGATRON = work_of(framework="megatron-lm", fused_attention=False)


# --- Korthikanti 2205.05198 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "sp", "per_token"),
    [
        ("none", 0, "10 + 24/t + 5as/(ht)"),
        ("none", 1, "34/t + 5as/(ht)"),
        ("selective", 0, "10 + 24/t"),
        ("selective", 1, "34/t"),
        ("full", 1, "2/t"),
    ],
)
def test_table_2_of_korthikanti(mode: str, sp: int, per_token: str) -> None:
    t, a, s, h = 8, 64, 2048, 6144
    formula = {
        "10 + 24/t + 5as/(ht)": 10 + 24 / t + 5 * a * s / (h * t),
        "34/t + 5as/(ht)": 34 / t + 5 * a * s / (h * t),
        "10 + 24/t": 10 + 24 / t,
        "34/t": 34 / t,
        "2/t": 2 / t,
    }[per_token]
    assert layer(GPT_22B, MEGATRON, tp=t, sp=sp, micro_batch=4)[f"kept {mode}"] == pytest.approx(4 * s * h * formula)


def test_figure_1_of_korthikanti_22b_keeps_59_gib() -> None:
    # 48 layers on one stage, tensor parallel 8: 59.25 GiB without recomputation, 9.56 GiB with selective and sequence
    # parallelism.
    none = 48 * layer(GPT_22B, MEGATRON, tp=8, sp=0, micro_batch=4)["kept none"] / 2**30
    selective = 48 * layer(GPT_22B, MEGATRON, tp=8, sp=1, micro_batch=4)["kept selective"] / 2**30
    assert [none, selective] == pytest.approx([59.25, 9.5625], rel=1e-3)


# --- what a layer keeps -------------------------------------------------------------------------------------------


def test_a_llama_layer_by_hand() -> None:
    # Per token: two norms in and out 4·4096, q, k, v 6144, output 4096, up, gate and their product 3·14336: 2 bytes each;
    # and one FP32 sum per head.
    per_token = 2 * (4 * 4096 + 6144 + 4096 + 3 * 14336) + 4 * 32
    assert layer(LLAMA_8B, work_of())["kept none"] == 2048 * per_token


def test_fused_attention_frees_next_to_nothing_when_redone() -> None:
    found = layer(LLAMA_8B, work_of())
    assert found["kept none"] - found["kept selective"] == 2048 * 4 * 32


def test_fp8_keeps_the_inputs_of_matrix_products_in_one_byte() -> None:
    # Norm outputs and the MLP product in 1 byte; the projection's input beside attention's own BF16 output.
    bf16, fp8 = (layer(LLAMA_8B, work_of(precision=name))["kept none"] / 2048 for name in ("bf16", "fp8"))
    assert bf16 - fp8 == 2 * 4096 + 14336 - 4096
    torch = [work_of(precision=name, framework="torch-fsdp") for name in ("bf16", "fp8")]
    assert layer(LLAMA_8B, torch[0]) == layer(LLAMA_8B, torch[1])


@pytest.mark.parametrize("module", MODULES)
def test_every_module_saves_something_somewhere(module: str) -> None:
    work = work_of(fused_attention=False, recompute_modules=(module,))
    model = read_model("deepseek-v3")
    saved = [found["kept none"] - found["kept selective"] for found in (layer(model, work, i) for i in (0, 1))]
    assert max(saved) > 0
    assert min(saved) >= 0


@quick
@given(st.sampled_from(TRAINED), st.sampled_from(sorted(FRAMEWORKS)), st.sampled_from([1, 2, 4, 8]))
def test_recomputing_more_keeps_less(name: str, framework: str, tp: int) -> None:
    work = work_of(framework=framework)
    found = [layer(read_model(name), work, i, tp=tp) for i in range(len(read_model(name).layers))]
    for each in found:
        if not FRAMEWORKS[framework].saves_products or FRAMEWORKS[framework].fused:
            assert each["kept full"] <= each["kept selective"] <= each["kept none"] <= each["held"]
        assert each["kept full"] <= each["kept none"]


@quick
@given(st.sampled_from(TRAINED), st.sampled_from([1, 2, 4]), st.integers(1, 8))
def test_bytes_grow_with_the_tokens(name: str, cp: int, micro_batch: int) -> None:
    one, many = (layer(read_model(name), work_of(), cp=cp, micro_batch=b) for b in (1, micro_batch))
    for mode in MODES:
        assert many[f"kept {mode}"] == pytest.approx(micro_batch * one[f"kept {mode}"])


def test_the_busiest_experts_rank_holds_its_share_of_rows() -> None:
    moe = LayerKind("routed", LLAMA.attention, Moe(64, 8, 1024), 1)
    model = Model("moe", 4096, 1000, (moe,))
    even, uneven = (layer(model, work_of(imbalance=x))["kept none"] for x in (1.0, 1.5))
    per_row = 2 * (4096 + 3 * 1024)
    assert uneven - even == pytest.approx(0.5 * 8 * 2048 * per_row)


def test_compiled_blocks_drop_the_product_that_no_backward_reads() -> None:
    eager, compiled = (
        layer(LLAMA_8B, work_of(framework=name))["kept selective"] for name in ("torch-fsdp", "torch-fsdp-blocks")
    )
    assert eager - compiled == 2 * 2048 * 4096
    # input, wq, wv, w1 and attention's output, and the sums
    assert compiled == 2048 * (2 * (4096 + 4096 + 1024 + 14336 + 4096) + 4 * 32)


def test_columns_equal_scalars() -> None:
    model, work = read_model("deepseek-v3"), work_of(sequence=4096)
    block = Columns.of(tp=[1, 2, 8], sp=1, cp=1, ep=8, etp=1, micro_batch=[1, 2, 1])
    for index, kind in enumerate(model.layers):
        together = layer_bytes(model, kind, block, work)
        for row in range(3):
            alone = layer(model, work, index, **block.row(row))
            assert {name: float(np.broadcast_to(value, (3,))[row]) for name, value in together.items()} == alone


# --- the loss -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FRAMEWORKS))
def test_logits_take_what_the_loss_of_a_framework_makes_of_them(name: str) -> None:
    row = FRAMEWORKS[name]
    for tp, per_logit in ((1, row.logit_bytes), (8, row.split_logit_bytes)):
        found = float(loss_bytes(LLAMA_8B, columns(tp=tp, sp=0), work_of(framework=name))[0])
        assert found == pytest.approx(2048 * (per_logit * 128256 / tp + 4 * 4096))


def test_an_mtp_module_has_logits_of_its_own() -> None:
    model = read_model("deepseek-v3")
    one, none = (float(loss_bytes(dataclasses.replace(model, mtp_layers=n), columns(), work_of())[0]) for n in (1, 0))
    assert one - none == 4 * 2048 * model.vocab


def test_tensors_are_told_apart_by_name() -> None:
    model = read_model("deepseek-v3")
    for kind in model.layers:
        shape = shape_of(model, work_of(), columns())
        tensors = layer_tensors(kind, shape, work_of())
        assert len({x.name for x in tensors}) == len(tensors)
        assert float(total(x.size_bytes for x in tensors)[0]) > 0
