"""The blackboard's arithmetic: hand values, limits, and what has to hold between its equations."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel import rooflines

POSITIVE = st.floats(1e-3, 1e6)


def test_compute_counts_two_flops_for_each_weight_and_token() -> None:
    assert rooflines.compute_s(2400, 100e9, 4.8e17) == pytest.approx(1e-3)


def test_weights_are_read_once_whatever_the_batch() -> None:
    assert rooflines.weights_s(1e12, 0.5, 5e14) == pytest.approx(1e-3)


def test_caches_are_read_for_every_sequence() -> None:
    assert rooflines.cache_s(2, 1000, 2e3, 4e6) == 1.0


@settings(max_examples=50, deadline=None)
@given(POSITIVE, POSITIVE)
def test_a_pass_is_at_least_either_term_and_at_most_both(compute: float, memory: float) -> None:
    assert max(compute, memory) == rooflines.pass_s(compute, memory) <= compute + memory


@settings(max_examples=50, deadline=None)
@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE)
def test_the_batch_in_time_ends_in_time(seconds: float, weights: float, cache: float, compute: float) -> None:
    batch = rooflines.batch_at(seconds, weights, cache, compute)
    spent = rooflines.pass_s(batch * compute, weights + batch * cache)
    assert batch == 0.0 or spent <= seconds * (1 + 1e-9)
    assert (batch == 0.0) == (seconds <= weights)


def test_the_batch_without_caches_is_bound_by_compute() -> None:
    assert rooflines.batch_at(1.0, 0.5, 0.0, 0.25) == 4.0
    assert rooflines.batch_at(1.0, 0.5, 0.25, 0.0) == 2.0


def test_the_optimal_batch_is_where_both_terms_meet() -> None:
    flops, bandwidth, active = 3e15, 1e13, 10e9  # 300 FLOP a byte, a multiply-add counted as one
    batch = rooflines.optimal_batch(flops / bandwidth, 256, 32)
    weights = rooflines.weights_s(8 * active, 1.0, bandwidth)
    assert batch == 2400
    assert active * batch / flops == pytest.approx(weights)


def test_trains_and_waits() -> None:
    interval = rooflines.drain_s(186e9, 8e12)
    assert interval == pytest.approx(0.02325)
    assert rooflines.worst_wait_s(interval) == 2 * interval
    assert rooflines.departures_per_s(interval) * interval == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e9, 1e12), st.floats(1e3, 1e7), st.floats(50, 1000), st.sampled_from([1.0, 2.0]))
def test_the_leak_inverts_the_balance(active: float, context: float, ratio: float, flops: float) -> None:
    cache = rooflines.leaked_kv_bytes(active, context, ratio, flops)
    assert rooflines.balanced_context(active, cache, ratio, flops) == pytest.approx(context)


@settings(max_examples=50, deadline=None)
@given(st.floats(1, 1e9), st.floats(1, 1e9))
def test_sparse_attention_never_reads_more_than_there_is(context: float, dense: float) -> None:
    assert rooflines.sparse_context(context, dense) <= context


def test_sparse_attention_is_a_square_root_beyond_the_dense_part() -> None:
    more = rooflines.sparse_context(400e3, 100e3) / rooflines.sparse_context(100e3, 100e3)
    assert more == pytest.approx(2.0)


def test_the_rack_condition_at_the_lectures_numbers() -> None:
    assert rooflines.rack_condition(8, 1, 8) == 2.0
    assert rooflines.rack_condition(8, 1, 18) < 1.0


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([2, 8, 64, 72]), st.sampled_from([1, 8, 72]), st.floats(1, 50))
def test_crossing_slows_down_by_the_ratio_at_most(ranks: int, domain: int, ratio: float) -> None:
    assert 1.0 <= rooflines.crossing_slowdown(ranks, domain, ratio) <= ratio * (1 + 1e-9)


def test_the_bubble_vanishes_without_stages_and_with_many_micro_batches() -> None:
    assert rooflines.bubble_share(1, 8) == 0.0
    assert rooflines.bubble_share(8, 1e9) < 1e-8


def test_equal_costs_are_equal() -> None:
    served, efficiency, active = 150e12, 0.3, 100e9
    tokens = rooflines.equal_cost_tokens(served, efficiency)
    assert 6 * active * tokens == pytest.approx(2 * active * served / efficiency)


def test_a_hundred_billion_on_150_trillion_is_75_times_chinchilla() -> None:
    assert rooflines.past_chinchilla(150e12, 100e9) == 75.0


@settings(max_examples=50, deadline=None)
@given(st.floats(0.0, 0.99), st.floats(1.0, 1e6))
def test_amdahl_is_bound_by_what_is_left(share: float, speedup: float) -> None:
    assert 1.0 - 1e-9 <= rooflines.amdahl(share, speedup) <= 1.0 / (1.0 - share) + 1e-9


def test_growth_composes() -> None:
    assert rooflines.growth_per(10.0, 21.0, 42.0) == pytest.approx(100.0)
    assert math.isclose(rooflines.recompute_time(), 4 / 3)
