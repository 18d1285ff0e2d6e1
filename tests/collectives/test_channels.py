"""Channels of a ring: every rank once, every port once in and once out, and no change of rail between blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectives.channels import mesh_orders, ring_orders
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


def taken(orders: np.ndarray) -> np.ndarray:
    """Count how many of some closed rings take each link, shape (ranks, ranks)."""
    count = np.zeros((orders.shape[1],) * 2, dtype=int)
    np.add.at(count, (orders, np.roll(orders, -1, axis=1)), 1)
    return count


@given(st.integers(2, 41))
def test_rings_of_a_mesh_visit_every_rank_and_share_no_link(ranks: int) -> None:
    orders = mesh_orders(ranks)
    assert (np.sort(orders, axis=1) == np.arange(ranks)).all()
    assert taken(orders).max() == 1
    assert len(orders) >= max(ranks - 2, 1)


@pytest.mark.parametrize("ranks", [2, 3, 5, 8, 9, 15])
def test_rings_of_a_mesh_take_every_link_of_odd_counts_and_of_eight(ranks: int) -> None:
    assert (taken(mesh_orders(ranks)) == 1 - np.eye(ranks, dtype=int)).all()


@given(st.integers(1, 5), st.integers(1, 5))
def test_channels_through_meshes_take_every_link_inside_once_and_keep_to_their_rail(half: int, pairs: int) -> None:
    inner, blocks = 2 * half, 2 * pairs
    orders = ring_orders(inner * blocks, inner, mesh=True)
    count = taken(orders)
    for block in range(blocks):
        own = slice(block * inner, (block + 1) * inner)
        assert (count[own, own] == 1 - np.eye(inner, dtype=int)).all()
    ends = orders.reshape(inner, blocks, inner) % inner
    assert (ends[:, :, -1] == np.roll(ends[:, :, 0], -1, axis=1)).all()
