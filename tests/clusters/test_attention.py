"""Fused attention: published shares of the peak, and the roofline's two limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.attention import attention_model, attention_s
from clusters.catalogue import accelerator, names
from clusters.kernels import kernel, memory_s

H100 = kernel("h100-sxm", "bf16")
PEAK, HBM = 989e12, 3.35e12

sizes = st.floats(0.0, 1e16)


@pytest.mark.parametrize("generation", ["ampere", "hopper", "blackwell"])
def test_published_generations_carry_no_note_and_lie_in_the_published_range(generation: str) -> None:
    model = attention_model(generation)
    assert model.note == ""
    assert 0.26 <= model.forward <= 0.75
    assert model.backward == pytest.approx(0.86 * model.forward)


def test_an_unpublished_generation_takes_the_default_and_says_so() -> None:
    model, default = attention_model("rubin"), attention_model("hopper")
    assert (model.forward, model.backward, model.latent) == (default.forward, default.backward, default.latent)
    assert "rubin" in model.note
    assert "hopper" in model.note


def test_attention_to_a_latent_has_its_own_figure_where_one_is_public() -> None:
    assert attention_model("hopper").latent == pytest.approx(580 / 989, abs=1e-3)
    assert attention_model("blackwell").latent == attention_model("blackwell").forward


@pytest.mark.parametrize("name", names())
def test_every_accelerator_of_the_catalogue_has_attention(name: str) -> None:
    model = attention_model(accelerator(name).generation)
    assert 0 < model.backward < model.forward < 1


@settings(max_examples=50, deadline=None)
@given(sizes, sizes, st.floats(0.1, 1.0))
def test_time_is_above_both_limits_and_the_launch(flops: float, size_bytes: float, efficiency: float) -> None:
    seconds = float(attention_s(flops, size_bytes, efficiency, H100, PEAK, HBM))
    assert seconds >= H100.launch_s
    assert seconds >= flops / PEAK
    assert seconds >= size_bytes / HBM


def test_without_work_it_is_a_memory_bound_kernel() -> None:
    size_bytes = np.array([0.0, 1e6, 1e9])
    assert attention_s(0.0, size_bytes, 0.5, H100, PEAK, HBM).tolist() == memory_s(size_bytes, H100, HBM).tolist()


def test_without_traffic_it_is_the_share_of_the_peak() -> None:
    seconds = attention_s(989e12, 0.0, 0.5, H100, PEAK, HBM)
    assert seconds - H100.launch_s == pytest.approx(2.0)


def test_columns_broadcast_against_each_other() -> None:
    seconds = attention_s(np.array([[1e12], [1e15]]), np.array([1e6, 1e9, 1e12]), 0.5, H100, PEAK, HBM)
    assert seconds.shape == (2, 3)
    assert seconds[1, 2] == attention_s(1e15, 1e12, 0.5, H100, PEAK, HBM)
