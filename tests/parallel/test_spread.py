"""Distributions: hand values, limits, and NumPy's own draws as the oracle."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.spread import Spread
from topo.errors import SpecError

spreads = st.builds(
    lambda median, ratio, most: Spread(median, median * ratio, most),
    st.floats(0.1, 1e4),
    st.floats(1.0, 20.0),
    st.one_of(st.just(math.inf), st.floats(0.1, 1e6)),
)


def test_a_lognormal_has_the_moments_that_draws_have() -> None:
    held = Spread(60.0, 600.0, 5000.0)
    drawn = np.minimum(np.random.default_rng(0).lognormal(math.log(60.0), held.sigma, 400_000), 5000.0)
    assert held.mean == pytest.approx(drawn.mean(), rel=0.02)
    assert held.mean_up_to(100.0) == pytest.approx(np.minimum(drawn, 100.0).mean(), rel=0.01)
    assert held.below(300.0) == pytest.approx((drawn <= 300.0).mean(), abs=0.005)


@settings(max_examples=50, deadline=None)
@given(spreads, st.floats(1e-3, 1e6), st.floats(1.0, 10.0))
def test_a_larger_limit_never_shortens_the_mean_nor_leaves_more_above(
    held: Spread, limit: float, factor: float
) -> None:
    assert held.mean_up_to(limit) <= held.mean_up_to(factor * limit) * (1 + 1e-9)
    assert held.below(limit) <= held.below(factor * limit)
    assert held.mean_up_to(limit) <= min(limit, held.most) * (1 + 1e-9)


@settings(max_examples=50, deadline=None)
@given(spreads, st.floats(0.1, 5.0))
def test_the_mean_up_to_a_limit_is_that_of_what_is_drawn(held: Spread, factor: float) -> None:
    drawn = held.draw(2000)
    assert np.all(np.diff(drawn) >= 0)
    assert np.all(drawn <= held.most)
    limit = factor * held.median
    assert held.mean_up_to(limit) == pytest.approx(np.minimum(drawn, limit).mean(), rel=0.01)


def test_the_longest_of_many_draws_is_longer_than_the_middle_of_the_last_part() -> None:
    held = Spread(100.0, 1000.0)
    assert held.draw(8, longest_of=8192)[-1] > held.draw(8)[-1] > held.draw(8)[-2]


def test_a_list_of_values_is_drawn_as_it_is() -> None:
    held = Spread(values=(5.0, 1.0, 3.0))
    assert held.draw(3).tolist() == [1.0, 3.0, 5.0]
    assert held.below(3.0) == pytest.approx(2 / 3)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(SpecError) as error:
        Spread(-1.0, -2.0, 0.0)
    assert {fault.field for fault in error.value.faults} == {"median", "p90", "most"}
