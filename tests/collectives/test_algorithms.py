"""Every algorithm of the table: hand values, limits, properties, and oracles that enumerate ranks."""

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.algorithms import ALGORITHMS, NCCL, Price, best
from collectives.bounds import lower_bound
from collectives.groups import members
from collectives.path import IDEAL, QUICK, Hop, LANE_Bps, LinkModel, Path, Shares, share_at
from collectives.point_to_point import send_recv
from collectives.span import rates
from topo.errors import SpecError

EACH = [(op, name) for op, table in ALGORITHMS.items() for name in table]
each_algorithm = pytest.mark.parametrize(("op", "name"), EACH, ids=[f"{op}-{name}" for op, name in EACH])
ONE_PARTNER = (
    "recursive_doubling",
    "recursive_halving",
    "rabenseifner",
    "swing",
    "bruck",
    "pat",
    "neighbor",
    "binomial",
)
FLAT = (Hop(100e9, 0.0, IDEAL),)
TWO = (Hop(100e9, 0.0, IDEAL, in_network_reduction=True), Hop(10e9, 0.0, IDEAL, plane="scale-out"))
REAL = (
    Hop(450e9, 1e-6, LinkModel(8e-6, 0.8e-6, 0.8, 1e-6), "scale-up", in_network_reduction=True),
    Hop(50e9, 4e-6, LinkModel(20e-6, 2e-6, 0.9, 2e-6), "scale-out"),
    Hop(25e9, 7e-6, LinkModel(25e-6, 2e-6, 0.9, 3e-6), "scale-out", in_network_reduction=True),
)


def price(op: str, name: str) -> Price:
    return ALGORITHMS[op][name].fn


models = st.builds(
    LinkModel, st.floats(0, 1e-4), st.floats(0, 1e-5), st.floats(0.3, 1.0), st.floats(0, 1e-5) | st.just(0.0)
)
latencies = st.floats(0, 1e-4)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Shares, Shares]:
    """Shares of a direct network, for rings and for exchanges; half the time none."""
    if draw(st.booleans()):
        return (), ()
    counts = sorted(draw(st.sets(st.integers(2, 70), min_size=1, max_size=4)))
    shares = sorted(draw(st.lists(st.floats(0.05, 1.0), min_size=len(counts), max_size=len(counts))))
    rings = tuple(zip(map(float, counts), shares, strict=True))
    slower = draw(st.lists(st.floats(0.1, 1.0), min_size=len(counts), max_size=len(counts)))
    exchanges = tuple((most, share * slow) for (most, share), slow in zip(rings, slower, strict=True))
    return rings, exchanges if draw(st.booleans()) else ()


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Path]:
    """Members of a random nested group, and a path of switches and direct networks: planes get no faster outward."""
    up, out = draw(st.sampled_from([(1, 0), (2, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]))
    blocks = np.cumprod(draw(st.lists(st.integers(1, 9), min_size=up + out, max_size=up + out)))
    ranks = members(draw(st.integers(1, 64)), draw(st.integers(1, 8)), (*map(int, blocks), 10**6))[:-1]
    ranks[-1] = max(ranks[-1], draw(st.integers(1, 64)))
    hops: list[Hop] = []
    for plane, count in (("scale-up", up), ("scale-out", out)):
        speed = draw(st.floats(1e9, 1e12))
        for _ in range(count):
            adds, share = draw(st.booleans()), draw(st.floats(0.5, 1.0))
            rings, exchanges = draw(tables())
            hops.append(Hop(speed, draw(latencies), draw(models), plane, adds and not rings, share, rings, exchanges))
            speed *= draw(st.floats(0.1, 1.0))
    return ranks, tuple(hops)


sizes = st.floats(0, 1e11)


# Hand values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "name", "path", "ranks", "milliseconds"),
    [
        ("all_reduce", "ring", FLAT, [8], 14.0),  # 2·7/8·800 MB / 100 GB/s
        ("all_reduce", "ring", TWO, [8, 16], 18.75),  # 2·15/16·800 MB / (8·10 GB/s)
        ("all_reduce", "tree", TWO, [8, 16], 20.0),  # 2·800 MB / (8·10 GB/s)
        ("all_reduce", "hierarchical", TWO, [8, 16], 24.0),  # 14 + 2·1/2·100 MB / 10 GB/s
        ("all_reduce", "nvls", TWO, [8, 8], 9.0),  # (1 + 1/8)·800 MB / 100 GB/s
        ("all_reduce", "nvls", TWO, [8, 16], 10.0),  # max(9, 2·1/2·100 MB / 10 GB/s)
        ("all_reduce", "recursive_doubling", TWO, [8, 16], 104.0),  # 3·800 MB / 100 GB/s + 800 MB / 10 GB/s
        ("all_reduce", "rabenseifner", TWO, [8, 16], 24.0),  # as hierarchical: near partners first
        ("all_reduce", "nvls", (FLAT[0], FLAT[0], FLAT[0]), [4, 8, 16], 15.0),  # one plane's ports: a ring's 2·15/16
        ("all_gather", "ring", TWO, [8, 16], 9.375),
        ("all_gather", "recursive_doubling", TWO, [8, 16], 43.5),  # 7/16·800 MB / 100 GB/s + 8/16·800 MB / 10 GB/s
        ("broadcast", "chain", TWO, [8, 16], 10.0),  # eight chains, one per port
        ("broadcast", "binomial", FLAT, [16], 32.0),  # 4·800 MB / 100 GB/s
        ("all_gather", "direct", TWO, [8, 16], 40.0),  # 8/16·800 MB / 10 GB/s
        ("all_gather", "hierarchical", TWO, [8, 16], 12.0),
        ("reduce_scatter", "ring", FLAT, [8], 7.0),
        ("all_to_all", "pairwise", TWO, [8, 16], 43.5),  # 7/16·800 MB / 100 GB/s + 8/16·800 MB / 10 GB/s
        ("all_to_all", "direct", TWO, [8, 16], 40.0),
        ("all_to_all", "hierarchical", TWO, [8, 16], 47.0),  # 7/8·800 MB / 100 GB/s + 1/2·800 MB / 10 GB/s
        ("all_to_all", "direct", TWO, [8, 64], 70.0),  # a group of 64 on domains of 72: 56/64·800 MB / 10 GB/s
        ("send_recv", "direct", TWO, [8, 16], 80.0),
    ],
)
def test_bandwidth_hand_values(op: str, name: str, path: Path, ranks: list[int], milliseconds: float) -> None:
    assert price(op, name)(800e6, ranks, path) * 1e3 == pytest.approx(milliseconds, rel=1e-12)


def test_latency_hand_values() -> None:
    inner, outer = LinkModel(5e-6, 1e-6, 1.0), LinkModel(20e-6, 2e-6, 1.0)
    path = (Hop(1e9, 1e-6, inner), Hop(1e9, 8e-6, outer, "scale-out"))
    ranks = [4, 8]  # per step 2 us inside, 10 us outside; base 20 us, paid once
    expected_us = {
        ("all_reduce", "ring"): 20 + 2 * (5 * 2 + 2 * 10),
        ("all_reduce", "tree"): 20 + 2 * 3 * 2 + 6 * 1 * 10,  # a chain of four inside, a tree of two outside
        ("all_reduce", "hierarchical"): 20 + 2 * (3 * 2 + 1 * 10),
        ("all_gather", "ring"): 20 + 5 * 2 + 2 * 10,
        ("all_gather", "direct"): 20 + 2 * 2 + 1 * 10,
        ("all_gather", "hierarchical"): 20 + 3 * 2 + 1 * 10,
        ("all_to_all", "pairwise"): 20 + 3 * 2 + 4 * 10,
        ("all_to_all", "pxn"): 20 + 3 * 1 + 1 + 2 + 8,
        ("all_reduce", "rabenseifner"): 20 + 2 * (2 * 2 + 10),
        ("all_gather", "bruck"): 20 + 3 * 10,  # some message crosses in every round
        ("broadcast", "chain"): 20 + 5 * 2 + 2 * 10,
        ("broadcast", "binomial"): 20 + 3 * 10,
        ("barrier", "dissemination"): 20 + 3 * 10,
        ("all_to_all", "direct"): 20 + 8 + 3 * 1 + 4 * 2,
        ("all_to_all", "hierarchical"): 20 + 3 * 2 + 1 * 10,
        ("send_recv", "direct"): 20 + 10,
    }
    for (op, name), microseconds in expected_us.items():
        assert price(op, name)(0.0, ranks, path) * 1e6 == pytest.approx(microseconds), (op, name)


def test_the_ramp_is_a_square_root_of_the_wire_time() -> None:
    path = (Hop(1e9, 0.0, LinkModel(0.0, 0.0, 0.5, 1e-6)),)
    wire_s = 7 / 8 * 8e6 / 1e9
    assert price("all_gather", "ring")(8e6, [8], path) == pytest.approx(wire_s / 0.5 + (1e-6 * wire_s) ** 0.5)


def test_bulk_fills_its_pipeline_and_small_messages_take_the_quick_protocol() -> None:
    path = (Hop(1e9, 0.0, LinkModel(0.0, 0.0, 0.5, bulk_s=1e-6)),)
    small, large = price("all_gather", "ring")([1e3, 1e6], [5], path)
    assert small == pytest.approx(4 / 5 * 1e3 / (QUICK * 1e9))
    assert large == pytest.approx(4 / 5 * 1e6 / 0.5e9 + 4**0.5 * 1e-6)


@settings(max_examples=50, deadline=None)
@given(st.floats(1, 1e10), st.integers(2, 64), st.floats(0, 1e-4))
def test_two_protocols_never_cost_more_than_either(size: float, ranks: int, bulk_s: float) -> None:
    def seconds(**shape: float) -> float:
        return float(price("all_gather", "ring")(size, [ranks], (Hop(1e9, 0.0, LinkModel(0.0, 0.0, 0.8, **shape)),)))

    assert seconds() * (1 - 1e-12) <= seconds(bulk_s=bulk_s) <= seconds() + bulk_s * (ranks - 1) ** 0.5 + 1e-12
    assert seconds(bulk_s=bulk_s) <= max(seconds(), (1 - 1 / ranks) * size / (QUICK * 1e9)) + 1e-12


def test_small_messages_of_an_exchange_have_a_lane_each_and_fill_the_bulk_once() -> None:
    """450 GB/s: 32 KiB to each peer in 5.5 us, and after a filling of 7 us; many lanes are no more than the wire."""
    path = (Hop(450e9, 0.0, LinkModel(0.0, 0.0, 1.0, bulk_s=7e-6)),)
    for ranks in (2, 8):
        assert price("all_to_all", "direct")(ranks * 2.0**15, [ranks], path) == pytest.approx(2**15 / LANE_Bps)
    assert price("all_to_all", "direct")(36e9, [8], path) == pytest.approx(0.07 + 7e-6)
    assert price("all_to_all", "direct")(1e3, [512], path) == pytest.approx(511 / 512 * 1e3 / (QUICK * 450e9))


def test_a_kernel_that_adds_in_the_switches_waits_as_often_for_any_group() -> None:
    path = (Hop(100e9, 1e-6, LinkModel(5e-6, 2e-6, 1.0), in_network_reduction=True, reduction_efficiency=0.8),)
    assert price("all_reduce", "multimem")(0.0, [[4, 8]], path) == pytest.approx([13e-6, 13e-6])
    assert price("all_reduce", "multimem")(8e9, [8], path) == pytest.approx(0.1125 + 13e-6)
    assert not ALGORITHMS["all_reduce"]["multimem"].valid([8], FLAT)
    assert not ALGORITHMS["all_reduce"]["multimem"].valid([8, 16], TWO)


def test_a_copied_piece_weighs_most_on_a_pair() -> None:
    path = (Hop(1e9, 0.0, LinkModel(0.0, 0.0, 1.0, own_piece=0.5)),)
    pair, eight = price("all_gather", "ring")(8e9, [[2, 8]], path)
    assert (pair, eight) == pytest.approx((4 + 2, 7 + 0.5))
    assert price("all_reduce", "ring")(8e9, [8], path) == pytest.approx(14 + 0.5)
    assert price("all_to_all", "direct")(8e9, [8], path) == pytest.approx(7 + 0.5)


def test_two_shots_wait_for_every_peer_between_them_and_one_for_none() -> None:
    path = (Hop(1e9, 1e-6, LinkModel(5e-6, 2e-6, 1.0)),)
    assert price("all_reduce", "one_shot")(0.0, [8], path) == pytest.approx(5e-6 + 1e-6)
    assert price("all_reduce", "two_shot")(0.0, [8], path) == pytest.approx(5e-6 + 2e-6 + 8 * 2e-6)


def test_nvls_follows_published_hopper_bandwidths() -> None:
    # NCCL issue 1455: 8 × H100, 370 GB/s effective port; 258, 265, 270, 273 GB/s algbw at 5 to 8 ranks.
    path = (Hop(370e9, 0.0, IDEAL, in_network_reduction=True, reduction_efficiency=0.85),)
    bandwidths = 1e9 / price("all_reduce", "nvls")(1e9, [[5, 6, 7, 8]], path)
    assert bandwidths == pytest.approx(np.array([258e9, 265e9, 270e9, 273e9]), rel=0.03)


# Limits ------------------------------------------------------------------------------------------------------------


@each_algorithm
def test_a_group_of_one_costs_nothing(op: str, name: str) -> None:
    assert price(op, name)([0.0, 1e9], [[1, 1]] * 3, REAL).tolist() == [0.0, 0.0]


@each_algorithm
def test_zero_bytes_cost_the_latency_alone(op: str, name: str) -> None:
    seconds = price(op, name)(0.0, [8, 64, 512], REAL)
    assert 25e-6 < seconds < 5e-3


@each_algorithm
def test_a_tier_that_the_group_does_not_span_changes_nothing(op: str, name: str) -> None:
    wide = price(op, name)(1e8, [8, 8, 8], REAL)
    assert wide == pytest.approx(float(price(op, name)(1e8, [8], REAL[:1])), rel=1e-15)


@pytest.mark.parametrize(
    ("op", "name"),
    [
        ("all_reduce", "ring"),
        ("all_gather", "ring"),
        ("reduce_scatter", "ring"),
        ("all_to_all", "pairwise"),
        ("send_recv", "direct"),
    ],
)
def test_the_bandwidth_optimal_algorithm_meets_the_bound_on_one_tier(op: str, name: str) -> None:
    assert price(op, name)(1e9, [[2, 7, 64]], FLAT) == pytest.approx(lower_bound(op, 1e9, [[2, 7, 64]], FLAT))


# Properties --------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(cases(), sizes, st.floats(1e-7, 1e-4) | st.just(0.0))
def test_no_algorithm_beats_its_bound(case: tuple[np.ndarray, Path], size: float, bulk_s: float) -> None:
    ranks, road = case
    path = tuple(replace(hop, model=replace(hop.model, bulk_s=bulk_s)) for hop in road)
    for op, name in EACH:
        if ALGORITHMS[op][name].valid(ranks, path):
            assert price(op, name)(size, ranks, path) >= lower_bound(op, size, ranks, path) * (1 - 1e-12), (op, name)


@settings(max_examples=60, deadline=None)
@given(cases(), sizes, sizes)
def test_more_bytes_take_no_less(case: tuple[np.ndarray, Path], one: float, two: float) -> None:
    ranks, path = case
    for op, name in EACH:
        few, many = price(op, name)([min(one, two), max(one, two)], ranks, path)
        assert few <= many, (op, name)


@settings(max_examples=60, deadline=None)
@given(cases(), sizes, st.floats(0.01, 100))
def test_slowing_every_part_slows_the_whole(case: tuple[np.ndarray, Path], size: float, factor: float) -> None:
    ranks, path = case
    slower = tuple(
        replace(
            hop,
            bandwidth_Bps=hop.bandwidth_Bps / factor,
            latency_s=hop.latency_s * factor,
            model=replace(
                hop.model,
                base_s=hop.model.base_s * factor,
                step_s=hop.model.step_s * factor,
                ramp_s=hop.model.ramp_s * factor,
            ),
        )
        for hop in path
    )
    for op, name in EACH:
        seconds = factor * float(price(op, name)(size, ranks, path))
        assert price(op, name)(size, ranks, slower) == pytest.approx(seconds), (op, name)


@each_algorithm
def test_columns_equal_scalars(op: str, name: str) -> None:
    generator = np.random.default_rng(3)
    ranks = np.cumprod(generator.integers(1, 9, (3, 40)), axis=0)
    bytes_ = generator.uniform(0, 1e9, 40)
    seconds = price(op, name)(bytes_, ranks, REAL)
    assert seconds.shape == (40,)
    for row in range(40):
        scalar = price(op, name)(bytes_[row], ranks[:, row], REAL)
        assert scalar.shape == ()
        assert scalar == pytest.approx(seconds[row], rel=1e-12)


@each_algorithm
def test_bytes_and_members_broadcast(op: str, name: str) -> None:
    fn = price(op, name)
    assert fn([1e3, 1e6], [8, 16, 32], REAL).shape == (2,)
    assert fn(1e6, [[8, 8], [16, 8], [32, 8]], REAL).shape == (2,)
    assert fn([[1e3], [1e6], [1e9]], [[8, 8], [16, 8], [32, 8]], REAL).shape == (3, 2)
    assert lower_bound(op, [[1e3], [1e6], [1e9]], [[8, 8], [16, 8], [32, 8]], REAL).shape == (3, 2)


# Oracles -----------------------------------------------------------------------------------------------------------


def tier_between(one: int, two: int, blocks: list[int]) -> int:
    return next(tier for tier, block in enumerate(blocks) if one // block == two // block)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.lists(st.floats(1e-7, 1e-4), min_size=3, max_size=3))
def test_ring_latency_is_the_slowest_walk_round_the_ring(ratios: list[int], delays: list[float]) -> None:
    blocks = np.cumprod(ratios).tolist()
    delays.sort()  # an outer tier is no quicker
    path = tuple(Hop(1e9, delays[tier], IDEAL) for tier in range(len(blocks)))
    n = blocks[-1]
    edges = [delays[tier_between(rank, (rank + 1) % n, blocks)] for rank in range(n)] if n > 1 else []
    slowest = max((sum(edges) - edge for edge in edges), default=0.0)
    assert price("all_gather", "ring")(0.0, blocks, path) == pytest.approx(slowest, abs=1e-15)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=3, max_size=3))
def test_all_to_all_bytes_equal_counted_destinations(ratios: list[int]) -> None:
    blocks = np.cumprod(ratios).tolist()
    n, speeds = blocks[-1], [7e9, 3e9, 2e9]
    path = tuple(
        Hop(speed, 0.0, IDEAL, plane)
        for speed, plane in zip(speeds, ("scale-up", "scale-out", "scale-out"), strict=True)
    )
    to = [sum(tier_between(0, rank, blocks) == tier for rank in range(1, n)) / n for tier in range(3)]
    pairwise = sum(share / speed for share, speed in zip(to, speeds, strict=True))
    direct = max(to[0] / 7e9, (to[1] + to[2]) / 3e9 * (to[1] > 0), to[2] / 2e9)
    assert price("all_to_all", "pairwise")(1.0, blocks, path) == pytest.approx(pairwise, rel=1e-12)
    assert price("all_to_all", "direct")(1.0, blocks, path) == pytest.approx(direct, rel=1e-12)


def optimal_all_gather(domains: int, inner: int, up: float, out: float) -> float:
    """Seconds per byte of output by maximum flows on the graph itself (ForestColl, arXiv 2402.06787)."""
    graph: nx.DiGraph[object] = nx.DiGraph()
    ranks = [(domain, rank) for domain in range(domains) for rank in range(inner)]
    for domain, rank in ranks:
        for switch, speed in ((("up", domain), up), ("out", out)):
            graph.add_edge((domain, rank), switch, capacity=speed)
            graph.add_edge(switch, (domain, rank), capacity=speed)
    low, high = 0.0, (up + out) / (len(ranks) - 1)
    for _ in range(40):
        rate = (low + high) / 2
        for node in ranks:
            graph.add_edge("source", node, capacity=rate)
        enough = len(ranks) * rate * (1 - 1e-9)
        feasible = nx.maximum_flow_value(graph, "source", ranks[0]) >= enough  # every rank is like the first
        low, high = (rate, high) if feasible else (low, rate)
    return 1 / (len(ranks) * low)


@pytest.mark.parametrize(("domains", "inner", "up"), [(2, 4, 4.0), (3, 2, 9.0), (2, 3, 1.5), (4, 2, 2.0)])
def test_the_bound_is_the_optimum_of_the_graph(domains: int, inner: int, up: float) -> None:
    path = (Hop(up, 0.0, IDEAL), Hop(1.0, 0.0, IDEAL, "scale-out"))
    ranks = [inner, domains * inner]
    optimum = optimal_all_gather(domains, inner, up, 1.0)
    assert lower_bound("all_gather", 1.0, ranks, path) == pytest.approx(optimum, rel=1e-6)
    assert best("all_gather", 1.0, ranks, path)[0] >= optimum * (1 - 1e-6)


# Direct networks ---------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(cases(), sizes, st.integers(2, 9))
def test_shares_of_one_are_a_switch(case: tuple[np.ndarray, Path], size: float, most: int) -> None:
    ranks, path = case
    plain = tuple(replace(hop, shares=(), exchange_shares=(), in_network_reduction=False) for hop in path)
    whole = tuple(replace(hop, shares=((most, 1.0),), exchange_shares=((2, 1.0), (99, 1.0))) for hop in plain)
    for op, name in EACH:
        assert price(op, name)(size, ranks, whole) == price(op, name)(size, ranks, plain), (op, name)
        assert lower_bound(op, size, ranks, whole) == lower_bound(op, size, ranks, plain), (op, name)


@settings(max_examples=50, deadline=None)
@given(tables(), st.integers(2, 80), st.integers(1, 9), models, latencies)
def test_a_share_is_a_slower_link(
    rows: tuple[Shares, Shares], ranks: int, outer: int, model: LinkModel, latency_s: float
) -> None:
    rings, exchanges = rows
    beyond = Hop(10e9, 2e-6, IDEAL, "scale-out")
    path = (Hop(100e9, latency_s, model, shares=rings, exchange_shares=exchanges), beyond)
    share, exchanged = share_at(rings, ranks), share_at(exchanges or rings, ranks)
    pair = share_at(rings, 2)
    inside = outer == 1
    slow: dict[str | tuple[str, str], float] = {
        "one_shot": exchanged, "two_shot": exchanged, "pairwise": min(exchanged, pair),
        ("all_gather", "direct"): exchanged, ("reduce_scatter", "direct"): exchanged,
        ("all_to_all", "direct"): exchanged, ("all_to_all", "hierarchical"): exchanged,
        ("send_recv", "direct"): pair if inside else 1.0, "linear": exchanged, "pxn": exchanged,
        **dict.fromkeys(ONE_PARTNER, min(exchanged, pair)),
    }  # fmt: skip
    for op, name in EACH:
        if name in ("scatter_all_gather", "reduce_scatter_gather"):  # one partner at a time, then a ring
            continue
        speed = 100e9 * slow.get((op, name), slow.get(name, share))
        slower = (Hop(speed, latency_s, model), beyond)
        expected = float(price(op, name)(1e8, [ranks, ranks * outer], slower))
        assert price(op, name)(1e8, [ranks, ranks * outer], path) == pytest.approx(expected, rel=1e-12), (op, name)


# The choice --------------------------------------------------------------------------------------------------------


def test_best_is_the_least_of_the_valid_ones() -> None:
    bytes_ = np.geomspace(1, 1e10, 30)
    for op, table in ALGORITHMS.items():
        seconds, winner, names = best(op, bytes_, [8, 64, 512], REAL)
        every = np.array(
            [
                np.where(table[name].valid([8, 64, 512], REAL), table[name].fn(bytes_, [8, 64, 512], REAL), np.inf)
                for name in names
            ]
        )
        assert seconds.tolist() == every.min(axis=0).tolist()
        assert winner.tolist() == every.argmin(axis=0).tolist()


def test_switches_that_do_not_add_are_never_asked_to() -> None:
    _, winner, names = best("all_reduce", np.geomspace(1, 1e10, 30), [8, 64], TWO)
    assert "nvls" in {names[index] for index in winner}
    _, winner, names = best("all_reduce", np.geomspace(1, 1e10, 30), [8], FLAT)
    assert "nvls" not in {names[index] for index in winner}
    _, winner, names = best("all_reduce", 1e3, [1, 8], TWO)  # one rank per domain: the adding switches are not crossed
    assert names[winner] != "nvls"


def test_small_messages_take_the_tree_and_large_ones_the_ring() -> None:
    model = LinkModel(5e-6, 1e-6, 0.8)
    path = (Hop(400e9, 1e-6, model), Hop(50e9, 1e-6, model, plane="scale-out"))
    _, winner, names = best("all_reduce", [1e3, 1e11], [8, 384], path, among=("tree", "ring"))
    assert [names[index] for index in winner] == ["tree", "ring"]


def test_the_choice_can_be_limited() -> None:
    for op in ALGORITHMS:
        seconds, winner, names = best(op, 1e6, [8, 64, 512], REAL, among=NCCL[op])
        assert names == NCCL[op]
        assert seconds == price(op, names[winner])(1e6, [8, 64, 512], REAL)
        assert seconds >= best(op, 1e6, [8, 64, 512], REAL)[0]
    assert best("all_reduce", 1.0, [8], FLAT, among=["nvls"])[0] == np.inf
    with pytest.raises(SpecError, match="write some of ring"):
        best("all_gather", 1.0, [8], FLAT, among=["nvls"])
    with pytest.raises(SpecError, match="write some of ring"):
        best("all_gather", 1.0, [8], FLAT, among=[])


def test_send_recv_of_a_rank_to_itself_is_free() -> None:
    assert send_recv(1e9, -1, REAL) == 0.0
    assert send_recv([0.0, 1e9], [[0], [1]], REAL).shape == (2, 2)


# Errors ------------------------------------------------------------------------------------------------------------


def test_unknown_operations_and_wrong_shapes_name_the_remedy() -> None:
    with pytest.raises(SpecError, match="write one of all_reduce"):
        best("all_shuffle", 1.0, [8], FLAT)
    with pytest.raises(SpecError, match="write one of all_reduce"):
        lower_bound("all_shuffle", 1.0, [8], FLAT)
    with pytest.raises(SpecError, match="one row for each of the 2 hops"):
        best("all_reduce", 1.0, [8], TWO)
    with pytest.raises(SpecError, match="write -1 to 1"):
        send_recv(1.0, 2, TWO)
    with pytest.raises(SpecError, match="write -1 to 1"):
        send_recv(1.0, [-2, 0], TWO)
    with pytest.raises(SpecError, match="from the accelerator outwards"):
        best("all_reduce", 1.0, [8, 16], TWO[::-1])
    with pytest.raises(SpecError, match="is empty"):
        rates((), 0)
