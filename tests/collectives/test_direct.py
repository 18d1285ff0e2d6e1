"""Tables of direct networks and prices on them: hand values, and oracles that walk every message or fill every link."""

from collections import Counter
from dataclasses import replace
from itertools import product
from math import prod

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.algorithms import ALGORITHMS, Price
from collectives.all_reduce import ring
from collectives.all_to_all import direct
from collectives.bounds import lower_bound
from collectives.direct import mesh_shares, torus_shares
from collectives.path import IDEAL, Hop
from collectives.point_to_point import send_recv
from topo.errors import SpecError

Place = tuple[int, ...]
EACH = [(op, name) for op, table in ALGORITHMS.items() for name in table]


def price(op: str, name: str) -> Price:
    return ALGORITHMS[op][name].fn


def walked(shape: Place, link_Bps: tuple[float, ...], wrap: tuple[bool, ...]) -> float:
    """Rate of an all-to-all: send 1 from every place to every other, axis after axis, and find the fullest link.

    A message takes the shorter way round a ring, half each way where both are as long. A place has one link in each
    direction of each axis.
    """
    load: Counter[tuple[Place, int, int]] = Counter()
    places = list(product(*map(range, shape)))
    for start, end in product(places, places):
        at = start
        for axis, size in enumerate(shape):
            ahead = (end[axis] - at[axis]) % size
            if not wrap[axis]:
                ways = [(1, ahead, 1.0)] if end[axis] >= at[axis] else [(-1, at[axis] - end[axis], 1.0)]
            elif 2 * ahead == size:
                ways = [(1, ahead, 0.5), (-1, ahead, 0.5)]
            else:
                ways = [(1, ahead, 1.0)] if 2 * ahead < size else [(-1, size - ahead, 1.0)]
            for step, hops, part in ways:
                here = list(at)
                for _ in range(hops):
                    load[tuple(here), axis, step] += part  # type: ignore[assignment]
                    here[axis] = (here[axis] + step) % size
            at = (*at[:axis], end[axis], *at[axis + 1 :])
    return (len(places) - 1) * min(link_Bps[axis] / full for (_, axis, _), full in load.items())


@st.composite
def tori(draw: st.DrawFn) -> tuple[Place, tuple[float, ...], tuple[bool, ...]]:
    """A small torus or mesh of one to three axes, more than one place."""
    axes = draw(st.integers(1, 3))
    shape = draw(st.tuples(*[st.integers(1, (9, 5, 4)[axes - 1])] * axes).filter(lambda sizes: prod(sizes) > 1))
    return shape, draw(st.tuples(*[st.floats(1e9, 1e11)] * axes)), draw(st.tuples(*[st.booleans()] * axes))


def extents(members: int, shape: Place) -> Place:
    """Sides of the sub-torus of a row of the table."""
    sides = []
    for size in shape:
        sides.append(min(size, members))
        members //= sides[-1]
    return tuple(sides)


# Meshes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 8, 64])
def test_a_group_has_the_links_that_it_holds_both_ends_of(size: int) -> None:
    shares, exchange_shares = mesh_shares(size)
    assert shares == exchange_shares
    for members, share in shares:
        ends = sum(one != two for one in range(int(members)) for two in range(int(members)))
        assert share == pytest.approx(ends / members / (size - 1))
    assert shares[-1] == (size, 1.0)


# Tori --------------------------------------------------------------------------------------------------------------


def test_four_of_4096_have_half_of_one_axis() -> None:
    rings, exchanges = map(dict, torus_shares((16, 16, 16), (100e9,) * 3, (True,) * 3))
    assert list(rings) == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    assert rings[4] == pytest.approx(1 / 6)
    assert [rings[16], rings[32], rings[256], rings[4096]] == pytest.approx([1 / 3, 1 / 2, 2 / 3, 1])
    # reference figure of a torus of even sides: S·n/(8·B_link) for S bytes, (m - 1)/m of them sent
    assert exchanges[4096] * 300e9 == pytest.approx(4095 / 4096 * 8 * 50e9 / 16)


def test_a_mesh_without_wrap_has_the_links_of_its_corner() -> None:
    rings, exchanges = torus_shares((4, 4), (100e9, 100e9), (False, False))
    assert dict(rings)[16] == 0.5
    assert exchanges[-1][1] * 200e9 == pytest.approx(15 / 16 * 4 * 50e9 / 4)
    corner, _ = torus_shares((4, 4), (100e9, 100e9), (False, False), bandwidth_Bps=100e9)
    assert corner == ((2, 0.5), (4, 0.5), (8, 1.0), (16, 1.0))


def test_two_without_wrap_have_one_link() -> None:
    assert torus_shares((2,), (100e9,), (False,))[0] == ((2, 1.0),)
    rings = dict(torus_shares((2, 4), (100e9, 100e9), (False, True))[0])  # 50 + 100 GB/s in all
    assert rings == pytest.approx({2: 1 / 3, 4: 2 / 3, 8: 1.0})


@settings(max_examples=60, deadline=None)
@given(tori())
def test_exchange_rates_equal_walked_messages(case: tuple[Place, tuple[float, ...], tuple[bool, ...]]) -> None:
    shape, axis_Bps, wrap = case
    _, exchanges = torus_shares(shape, axis_Bps, wrap, bandwidth_Bps=1e12)
    for members, share in exchanges:
        sides = extents(int(members), shape)
        assert prod(sides) == members
        closed = tuple(wraps and side == size for wraps, side, size in zip(wrap, sides, shape, strict=True))
        assert share * 1e12 == pytest.approx(walked(sides, tuple(axis / 2 for axis in axis_Bps), closed), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(tori())
def test_tables_fit_a_hop(case: tuple[Place, tuple[float, ...], tuple[bool, ...]]) -> None:
    shape, axis_Bps, wrap = case
    rings, exchanges = torus_shares(shape, axis_Bps, wrap)
    hop = Hop(sum(axis_Bps), 0.0, IDEAL, shares=rings, exchange_shares=exchanges)  # refuses what is out of order
    assert rings[-1][0] == prod(shape)
    if all(wraps or size <= 2 for wraps, size in zip(wrap, shape, strict=True)):
        assert rings[-1][1] == pytest.approx(1.0)
    ranks = np.array([members for members, _ in rings])[None]
    assert (ring(1e9, ranks, (hop,)) > 0).all()
    assert (direct(1e9, ranks, (hop,)) >= (1 - 1 / ranks) * 1e9 / hop.bandwidth_Bps * (1 - 1e-12)).all()


# Prices ------------------------------------------------------------------------------------------------------------

MESH = (Hop(448e9, 0.0, IDEAL, shares=mesh_shares(8)[0]),)  # 8 × MI300X, one link of 64 GB/s per pair
BUS = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "all_to_all": 1.0}


@pytest.mark.parametrize(
    ("op", "name"), [("all_reduce", "ring"), ("all_reduce", "two_shot"), ("all_gather", "ring"), ("all_gather", "direct"),
                     ("reduce_scatter", "ring"), ("all_to_all", "direct"), ("all_to_all", "hierarchical")]
)  # fmt: skip
def test_a_full_mesh_gives_a_group_the_links_between_its_members(op: str, name: str) -> None:
    ranks = np.array([2.0, 4.0, 7.0, 8.0])
    seconds = price(op, name)(1e9, ranks[None], MESH)
    busbw = BUS[op] * (ranks - 1) / ranks * 1e9 / seconds
    assert busbw / 1e9 == pytest.approx(64 * (ranks - 1))


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_one_partner_at_a_time_has_one_link_of_a_mesh(ranks: int) -> None:
    assert send_recv(64e9, 0, MESH) == pytest.approx(1.0)
    assert price("send_recv", "direct")(64e9, [ranks], MESH) == pytest.approx(1.0)
    assert price("all_to_all", "pairwise")(ranks * 64e9, [ranks], MESH) == pytest.approx(ranks - 1.0)


@pytest.mark.parametrize("ranks", [2, 3, 5, 8])
def test_the_bound_on_a_mesh_is_the_optimum_of_its_links(ranks: int) -> None:
    pairs = [(one, two) for one in range(ranks) for two in range(ranks) if one != two]

    def arrives(rate: float) -> bool:
        """Whether rank 0 gets all that every rank sends of its own at a rate (ForestColl, arXiv 2402.06787)."""
        graph: nx.DiGraph[object] = nx.DiGraph()
        graph.add_edges_from((one, two, {"capacity": 64.0}) for one, two in pairs)
        graph.add_edges_from(("source", rank, {"capacity": rate}) for rank in range(ranks))
        return bool(nx.maximum_flow_value(graph, "source", 0) >= ranks * rate * (1 - 1e-9))

    rate = 1 / ranks / float(lower_bound("all_gather", 1e9, [ranks], MESH))
    assert arrives(rate * (1 - 1e-6))
    assert not arrives(rate * (1 + 1e-6))
    assert lower_bound("all_to_all", 1e9, [ranks], MESH) == pytest.approx(1e9 / ranks / 64e9)
    assert lower_bound("send_recv", 1e9, [ranks], MESH) == pytest.approx(1e9 / 64e9)


def test_a_tier_of_blocks_counts_the_blocks_that_a_group_occupies() -> None:
    path = (Hop(100e9, 0.0, IDEAL), Hop(40e9, 0.0, IDEAL, shares=((2, 0.5), (4, 1.0))))
    seconds = price("all_gather", "hierarchical")(64e9, [[8, 8, 4], [8, 16, 16]], path)
    outer = [0.0, 0.5 / 8 * 64 / 20, 0.75 / 4 * 64 / 40]  # one block; two of four; all four
    inner = [7 / 8 * 0.64, 7 / 8 * 0.64, 3 / 4 * 0.64]
    assert seconds == pytest.approx(np.add(inner, outer))


def test_more_links_cost_no_more() -> None:
    for op, name in EACH:
        seconds = [
            float(price(op, name)(1e9, [4], (replace(MESH[0], shares=((4, share), (8, 1.0))),)))
            for share in (0.1, 0.3, 0.9)
        ]
        assert seconds == sorted(seconds, reverse=True), (op, name)


def test_bytes_and_members_broadcast_on_direct_networks() -> None:
    path = (*MESH, Hop(50e9, 1e-6, IDEAL, "scale-out"))
    ranks = np.array([[2, 4, 8], [16, 4, 32]])
    sizes_bytes = np.array([[1e3], [1e9]])
    for op, name in EACH:
        table = price(op, name)(sizes_bytes, ranks, path)
        assert table.shape == lower_bound(op, sizes_bytes, ranks, path).shape == (2, 3)
        for row, column in np.ndindex(2, 3):
            assert table[row, column] == pytest.approx(
                float(price(op, name)(sizes_bytes[row, 0], ranks[:, column], path))
            )


# Errors ------------------------------------------------------------------------------------------------------------


def test_every_wrong_argument_is_named() -> None:
    with pytest.raises(SpecError, match="write 2 or more"):
        mesh_shares(1)
    with pytest.raises(SpecError, match="write an axis of 2 or more"):
        torus_shares((1, 1), (1.0, 1.0), (True, True))
    with pytest.raises(SpecError) as caught:
        torus_shares((4, 0), (1.0, -1.0, float("nan")), (True,), bandwidth_Bps=0.0)
    assert [fault.field for fault in caught.value.faults] == [
        "shape[1]",
        "axis_Bps[1]",
        "axis_Bps[2]",
        "bandwidth_Bps",
        "shape, axis_Bps, wrap",
    ]
