"""Operators on one accelerator: hand values, bounds, monotonicity, fallbacks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.kernels import (
    CONSTANTS,
    PRECISIONS,
    gemm_bytes,
    gemm_s,
    grouped_gemm_s,
    interval,
    kernel,
    memory_s,
    reread_bytes,
    table,
    under_load,
    waves,
)
from topo.errors import SpecError

PEAK, HBM = 1e15, 3e12
MEASURED = [
    (name, precision) for name, entry in table()["measured"].items() for precision in entry if precision in PRECISIONS
]
shapes = st.tuples(*[st.integers(1, 40_000)] * 3)
models = st.sampled_from(MEASURED).map(lambda key: kernel(*key))


def test_an_ideal_kernel_is_the_roofline() -> None:
    ideal = replace(
        kernel("h100-sxm"),
        launch_s=0.0,
        efficiency=1.0,
        wave=0.0,
        k_ramp=0.0,
        hbm_efficiency=1.0,
        hbm_ramp_s=0.0,
        norm=60.0,
    )
    compute_s, stream_s = 2 * 4096**3 / PEAK, 2 * 4096**2 * 3 / HBM
    assert gemm_s(4096, 4096, 4096, ideal, PEAK, HBM) == pytest.approx(max(compute_s, stream_s), rel=1e-3)
    assert gemm_s(1, 4096, 4096, ideal, PEAK, HBM) == pytest.approx(2 * (4096**2 + 2 * 4096) / HBM, rel=1e-3)


def test_sharp_waves_round_up_and_soft_waves_do_not() -> None:
    base = replace(kernel("h100-sxm"), multiprocessors=132, tile=(128, 128))
    tiles = 133 * 128 * 128.0
    assert waves(128, tiles / 128, replace(base, wave=1.0)) == 2
    assert waves(128, tiles / 128, replace(base, wave=0.0)) == pytest.approx(133 / 132)
    assert waves(1, 128, replace(base, wave=1.0)) == 1


@settings(max_examples=50, deadline=None)
@given(shape=shapes, model=models)
def test_no_kernel_beats_its_roofline(shape: tuple[int, int, int], model) -> None:
    m, n, k = shape
    bound = max(2.0 * m * n * k / PEAK, float(gemm_bytes(m, n, k, 2, 2, 2)) / HBM)
    assert gemm_s(m, n, k, model, PEAK, HBM) >= bound + model.launch_s


@settings(max_examples=50, deadline=None)
@given(shape=shapes, model=models, axis=st.sampled_from([0, 1, 2]), more=st.integers(1, 5000))
def test_a_larger_product_takes_no_less_time(shape, model, axis: int, more: int) -> None:
    larger = list(shape)
    larger[axis] += more
    assert gemm_s(*larger, model, PEAK, HBM) >= gemm_s(*shape, model, PEAK, HBM) * (1 - 1e-12)


@settings(max_examples=50, deadline=None)
@given(shape=shapes, model=models, experts=st.integers(1, 64))
def test_one_grouped_kernel_is_between_one_product_and_as_many_launches(shape, model, experts: int) -> None:
    one = gemm_s(*shape, model, PEAK, HBM)
    grouped = grouped_gemm_s(shape[0], experts, shape[1], shape[2], model, PEAK, HBM)
    assert one * (1 - 1e-12) <= grouped <= experts * one * (1 + 1e-12)


def test_columns_broadcast_and_equal_their_scalars() -> None:
    model = kernel("gb200", "nvfp4")
    m, n = np.array([[1.0], [300.0], [0.25]]), np.array([1024.0, 5000.0])
    block = gemm_s(m, n, 7168, model, 1e16, 8e12, 0.5625, 0.5625, 2.0)
    assert block.shape == (3, 2)
    assert block.dtype == np.float64
    for i, j in np.ndindex(3, 2):
        assert block[i, j] == pytest.approx(
            float(gemm_s(m[i, 0], n[j], 7168, model, 1e16, 8e12, 0.5625, 0.5625)), rel=1e-12
        )
    assert gemm_s(1, 1, 1, model, 1e16, 8e12).shape == ()


def test_memory_time_is_launch_plus_stream_plus_ramp() -> None:
    model = replace(kernel("h100-sxm"), launch_s=1e-6, hbm_efficiency=0.5, hbm_ramp_s=4e-6)
    assert memory_s(1e6, model, 1e12) == pytest.approx(1e-6 + 2e-6 + 2e-6)
    assert memory_s(1e6, model, 1e12, launches=0) == pytest.approx(4e-6)


def test_large_bf16_products_run_near_the_published_best() -> None:
    """Best published BF16 products: 271 of 312 TFLOP/s on A100, 795 of 989 on H100, 1745 of 2250 on B200."""
    for name, peak, best, hbm in (
        ("a100-sxm-80", 312e12, 271e12, 2.0e12),
        ("h100-sxm", 989e12, 795e12, 3.35e12),
        ("b200-sxm", 2250e12, 1745e12, 8e12),
    ):
        rate = 2 * 16384.0**3 / gemm_s(16384, 16384, 16384, kernel(name), peak, hbm)
        assert 0.75 * best < rate < 1.1 * best


def test_at_most_eight_constants_each_within_its_physical_range() -> None:
    assert len(CONSTANTS) <= 8
    for key in MEASURED:
        model = kernel(*key)
        assert model.note == ""
        assert 0 < model.efficiency <= 1
        assert 0 < model.hbm_efficiency <= 1
        assert 0 <= model.wave <= 1
        assert model.norm >= 1
        assert model.sustained > 0


def test_unmeasured_parts_borrow_from_their_generation_and_say_so() -> None:
    for name, like in (
        ("h800-sxm", "h100-sxm"),
        ("gb300", "b300-sxm"),
        ("h20", "h200-sxm"),
        ("a100-sxm-40", "a100-sxm-80"),
    ):
        borrowed = kernel(name)
        assert borrowed.launch_s == kernel(like).launch_s
        assert like in borrowed.note
    assert kernel("h20").multiprocessors == 78
    assert kernel("mi300x").efficiency == 0.511
    assert "no rows of this family" in kernel("wafer-9000").note


def test_every_fallback_points_to_a_measured_part() -> None:
    assert {entry["like"] for entry in table()["fallback"].values()} <= set(table()["measured"])


def test_a_precision_without_rows_runs_as_the_nearest_that_has() -> None:
    assert "constants of fp8-block" in kernel("h100-sxm", "nvfp4").note
    assert kernel("a100-sxm-80", "fp8").efficiency == kernel("a100-sxm-80").efficiency
    assert kernel("H100_SXM", "BF16") == kernel("h100-sxm", "bf16")
    with pytest.raises(SpecError, match="nvfp4"):
        kernel("h100-sxm", "fp7")


def test_sustained_clocks_slow_only_the_arithmetic() -> None:
    model = replace(kernel("h100-sxm"), sustained=0.5)
    slowed = under_load(model)
    assert slowed.efficiency == pytest.approx(model.efficiency / 2)
    assert memory_s(1e9, slowed, HBM) == memory_s(1e9, model, HBM)
    assert under_load(slowed) == slowed


def test_activations_are_read_again_only_where_they_outgrow_the_cache_of_such_a_part() -> None:
    down = replace(kernel("l40s"), cache_bytes=1e6, tile=(128, 128))
    assert down.rereads
    assert reread_bytes(1000, 4096, 500, 2, down) == 0  # 1 MB fits
    assert reread_bytes(1000, 128, 5000, 2, down) == 0  # one column of tiles passes once
    assert reread_bytes(1000, 384, 5000, 2, down) == pytest.approx(2 * 9e6)
    assert reread_bytes(1000, 384, 5000, 2, replace(down, rereads=False)) == 0


def test_intervals_hold_the_prediction_of_every_measured_part() -> None:
    for key in MEASURED:
        model = kernel(*key)
        low, high = interval(1.0, np.array([1e-3, 1.0, 1e3]), model)
        assert (low <= 1.0).all()
        assert (high >= 1.0).all()
        assert (low < high).all()


def test_a_borrowed_model_has_no_residuals() -> None:
    assert kernel("h800-sxm").bands == ()
    assert kernel("a100-sxm-80", "fp8").bands == ()
    with pytest.raises(ValueError, match="no residuals of h800-sxm"):
        interval(1.0, 1.0, kernel("h800-sxm"))


def test_weight_only_precisions_are_measured_on_ampere_and_run_as_bf16_elsewhere() -> None:
    assert kernel("a100-sxm-80", "w4a16").note == ""
    assert "constants of bf16" in kernel("h100-sxm", "int4-wo").note
    assert "constants of fp8" in kernel("h100-sxm", "sq").note


def test_a_part_borrows_what_its_die_lacks_from_the_next_generation_of_its_maker() -> None:
    borrowed, like = kernel("mi325x", "bf16"), kernel("mi355x", "bf16")
    assert (borrowed.launch_s, borrowed.hbm_efficiency) == (like.launch_s, like.hbm_efficiency)
    assert (borrowed.multiprocessors, borrowed.efficiency) == (304, 0.6)  # its own best product over the other's
    assert [name in borrowed.note for name in ("mi300x", "mi355x")] == [True, True]
    own = kernel("mi325x", "fp8-block")
    assert (own.efficiency, own.multiprocessors) == (kernel("mi300x", "fp8-block").efficiency, 304)


def test_a_cast_in_a_kernel_of_its_own_starts_once_more() -> None:
    apart = replace(kernel("mi300x", "fp8-block"), launch_s=5e-6, quantise_bytes=3.0)
    inside = replace(apart, cast_starts=0.0)
    more = gemm_s(64, 4096, 7168, apart, 2.61e15, 5.3e12) - gemm_s(64, 4096, 7168, inside, 2.61e15, 5.3e12)
    assert apart.cast_starts == 1.0
    assert float(more) == pytest.approx(5e-6)
