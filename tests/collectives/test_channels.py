"""Channels of a ring: every rank once, every port once in and once out, and no change of rail between blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectives.channels import ring_orders
from topo.errors import SpecError


@given(st.integers(1, 8), st.integers(1, 9))
def test_every_channel_visits_every_rank_once(inner: int, blocks: int) -> None:
    orders = ring_orders(inner * blocks, inner)
    assert len(orders) == (1 if blocks == 1 else inner)
    assert (np.sort(orders, axis=1) == np.arange(inner * blocks)).all()


@given(st.integers(2, 8), st.integers(1, 5))
def test_every_port_of_every_block_is_left_by_once_and_on_the_rail_of_the_next(inner: int, pairs: int) -> None:
    blocks = 2 * pairs
    orders = ring_orders(inner * blocks, inner).reshape(inner, blocks, inner)
    out, into = orders[:, :, -1] % inner, np.roll(orders[:, :, 0] % inner, -1, axis=1)
    assert (out == into).all()
    assert (np.sort(out, axis=0) == np.arange(inner)[:, None]).all()


def test_blocks_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SpecError, match="does not divide"):
        ring_orders(10, 4)
