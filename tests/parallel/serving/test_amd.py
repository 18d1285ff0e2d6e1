"""What AMD's parts get: whole tiles, experts at the rate of AITER's tables, published serving rows that nothing is fitted to."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.attention import attention_model
from clusters.catalogue import accelerator
from clusters.measurements import read_csv
from parallel.operators import Operator
from parallel.precision import Recipe
from parallel.serving.engines import engine
from parallel.serving.kernels import engine_chip, work_s
from parallel.validation.published import read, rows_of

BLOCKS = Recipe("fp8", "fp8-block", "fp8-block", "fp8-block", "bf16", dispatch="fp8-block", combine="bf16")


def chip_of(name: str):
    return engine_chip(accelerator(name), BLOCKS, engine("vllm"))


def experts_s(name: str, tokens: float, hidden: float, inner: float, experts: float, top: float) -> float:
    """Both products of a layer's experts, each token at `top` of them drawn at random."""
    hit = experts * (1.0 - (1.0 - top / experts) ** tokens)
    shapes = ((2.0 * inner, hidden), (hidden, inner))
    ops = [Operator("x", "grouped_gemm", "x", "experts", tokens * top / hit, n, k, hit) for n, k in shapes]
    return sum(float(np.ravel(work_s(op, chip_of(name)))[0]) for op in ops)


@pytest.mark.parametrize(("name", "median", "p90"), [("mi300x", 0.12, 0.2), ("mi355x", 0.09, 0.2)])
def test_experts_take_what_the_fused_kernels_of_aiter_took(name: str, median: float, p90: float) -> None:
    rows = read_csv("moe_aiter.csv")
    ours = {key: values[rows["system"] == name] for key, values in rows.items()}
    keys = ("tokens", "hidden", "intermediate", "experts", "top_k")
    priced = [experts_s(name, *map(float, row)) for row in zip(*(ours[key] for key in keys), strict=True)]
    off = np.abs(np.array(priced) / (ours["latency_us"] * 1e-6) - 1.0)
    assert np.median(off) < median
    assert np.quantile(off, 0.9) < p90


@given(st.integers(1, 64), st.integers(1, 64))
def test_rows_of_one_tile_compute_alike_where_tiles_are_whole(one: int, other: int) -> None:
    machine = chip_of("mi355x")
    free = {key: replace(model, quantise_bytes=0.0, hbm_efficiency=1e9) for key, model in machine.kernels.items()}
    alone = replace(machine, kernels=free)  # memory out of the way
    first, second = (
        float(work_s(Operator("x", "gemm", "x", "mlp", float(m), 4096.0, 7168.0), alone)) for m in (one, other)
    )
    assert first == pytest.approx(second, rel=0.2)
    assert machine.kernels["fp8-block"].whole_tiles
    assert not chip_of("h100-sxm").kernels["fp8-block"].whole_tiles


def test_fused_attention_of_cdna_is_its_own() -> None:
    for generation in ("cdna3", "cdna4"):
        assert attention_model(generation).note == ""
        assert 0.3 < attention_model(generation).forward < attention_model("hopper").forward


def test_rows_of_amd_that_nothing_is_fitted_to() -> None:
    found = defaultdict(list)
    for row in rows_of([case for case in read(None) if str(case.get("group")).startswith("AMD")]):
        assert row["skipped_because"] is None
        found[row["group"], row["metric"]].append(row["predicted"] / row["measured"])
    ratios = {key: np.array(values) for key, values in found.items()}
    latency = ratios["published AMD MI300X latency", "batch_latency"]
    assert latency.size == 32
    assert np.median(np.abs(latency - 1.0)) < 0.06
    assert np.all((latency > 1 / 1.2) & (latency < 1.2))
    for part in ("MI325X", "MI355X"):
        assert np.median(np.abs(ratios[f"published AMD {part}", "tpot"] - 1.0)) < 0.2
