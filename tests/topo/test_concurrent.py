"""All-to-all throughput, by hand and against a linear program with one commodity per source on every node and link."""

from dataclasses import replace
from itertools import product
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import lil_array

from collectives.direct import torus_shares
from topo.blueprint import Axis, Blueprint, Level, LinkClass, NodeClass
from topo.builders import ScaleOut, cluster_blueprint
from topo.changes import degrade, without
from topo.compose import Core, joined
from topo.concurrent import all_to_all_bound, all_to_all_Bps, cut_bound_Bps, tier_exchange_Bps
from topo.cutbounds import graph_bound_Bps
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.graphs import expand, flat
from topo.orbitflow import arc_orbits
from topo.orbits import orbit_graph
from topo.tiers import tiers

GB = 1e9
HGX = ScaleUp(8, 450 * GB, 1e-6, "nvlink", switches=4)


def _torus(*shape: int, order: str = "ring", link_Bps: float = 100 * GB) -> Blueprint:
    names = "xyz"[: len(shape)]
    axes = tuple(Axis(name, size, order=order) for name, size in zip(names, shape, strict=True))  # type: ignore[arg-type]
    links = tuple(LinkClass("chip", "chip", link_Bps, 1e-6, "ici", along=(name,)) for name in names)
    return Blueprint(
        "torus", axes, (NodeClass("chip", "accelerator", tuple(names)),), links, (Level("torus", "torus"),)
    )


def _boards(boards: int, slots: int, mesh_Bps: float, board_Bps: float) -> Blueprint:
    """Boards with a switch each, and every accelerator of all boards linked to every other."""
    return Blueprint(
        "boards",
        (Axis("board", boards), Axis("slot", slots, "board")),
        (NodeClass("gpu", "accelerator", ("slot",)), NodeClass("switch", "switch", ("board",))),
        (
            LinkClass("gpu", "gpu", mesh_Bps, 1e-6, "xgmi", along=("board", "slot")),
            LinkClass("gpu", "switch", board_Bps, 1e-6, "nvlink"),
        ),
        (Level("board", axes=("board",)), Level("mesh", "mesh")),
    )


# --- an independent linear program -----------------------------------------------------------------------------------


def _oracle_Bps(graph: "nx.Graph[str]", children: list[list[str]], *, relay: bool = True) -> float:  # noqa: N802
    """Maximise t: each child sends t · |child| · |other| to every other child, over nodes and links one by one."""
    arcs = [
        (u, v, h["bandwidth_Bps"] / GB) for a, b, h in graph.edges(data=True) for u, v in ((a, b), (b, a)) if a != b
    ]
    if not arcs:
        return 0.0
    sinks = [f"sink {i}" for i in range(len(children))]
    arcs += [(name, sink, np.inf) for names, sink in zip(children, sinks, strict=True) for name in names]
    node = {name: i for i, name in enumerate([*graph, *sinks])}
    size, wide = len(node), len(arcs)
    equal = lil_array((size * len(children), wide * len(children) + 1))
    rows = size * len(children)
    load = lil_array((wide, wide * len(children) + 1))
    open_ = []
    for k, mine in enumerate(children):
        at = dict(node)
        at |= dict.fromkeys(mine, node[mine[0]])  # nothing limits what a child gathers
        for j, (u, v, _) in enumerate(arcs):
            if at[u] != at[v]:
                equal[k * size + at[v], k * wide + j] += 1
                equal[k * size + at[u], k * wide + j] -= 1
            load[j, k * wide + j] = 1
            own_sink = v == sinks[k]
            kinds = [graph.nodes[end]["kind"] if end in graph else "sink" for end in (u, v)]
            relays = kinds[0] == "accelerator" and kinds[1] not in ("accelerator", "sink") and u not in mine
            open_.append((0, 0 if own_sink or (relays and not relay) else None))
        for other, sink in zip(children, sinks, strict=True):
            if other is not mine:
                equal[k * size + node[sink], wide * len(children)] = -len(mine) * len(other)
                equal[k * size + at[mine[0]], wide * len(children)] += len(mine) * len(other)
    bounded = [j for j, arc in enumerate(arcs) if np.isfinite(arc[2])]
    goal = np.zeros(wide * len(children) + 1)
    goal[-1] = -1
    solve: Any = linprog
    found = solve(
        goal,
        A_ub=load.tocsr()[bounded],
        b_ub=[arcs[j][2] for j in bounded],
        A_eq=equal.tocsr(),
        b_eq=np.zeros(rows),
        bounds=[*open_, (0, None)],
    )
    total = sum(map(len, children))
    return float(-found.fun) * GB * (total - min(map(len, children)))


def _accelerators(graph: "nx.Graph[str]") -> list[str]:
    return [name for name, held in graph.nodes(data=True) if held["kind"] == "accelerator"]


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_one_switch_fills_every_link() -> None:
    box = cluster_blueprint("box", 1, HGX, None)
    rate = all_to_all_Bps(box)
    assert rate.bandwidth_Bps == pytest.approx(450 * GB, rel=1e-9)
    assert (rate.accelerators, rate.commodities, rate.exact) == (8, 1, True)
    (limit,) = rate.limits
    assert (limit.link, limit.plane) == ("nvlink", "scale-up")
    assert limit.weight == pytest.approx(1)


def test_two_boxes_on_a_leaf_send_eight_fifteenths_outside() -> None:
    two = cluster_blueprint("two", 2, HGX, ScaleOut(50 * GB, "ib"))
    assert all_to_all_Bps(two).bandwidth_Bps == pytest.approx(50 * GB * 15 / 8, rel=1e-9)


def test_four_to_one_at_the_leaf_is_felt_by_all_to_all() -> None:
    """16 boxes under each of two leaves: 128 of 255 peers are behind uplinks of 12.5 GB/s per accelerator."""
    out = ScaleOut(50 * GB, "ib", rails=1, radix=160, levels=2, oversubscription=4)
    bp = cluster_blueprint("oversubscribed", 32, HGX, out)
    assert bp.axis["unit"].size == 2
    rate = all_to_all_Bps(bp)
    assert rate.bandwidth_Bps == pytest.approx(12.5 * GB * 255 / 128, rel=1e-9)
    assert [(held.a[:4], held.b[:5], held.link) for held in rate.limits] == [("leaf", "spine", "ib")]
    assert tier_exchange_Bps(bp, "leaf").bandwidth_Bps == pytest.approx(50 * GB, rel=1e-9)
    assert tier_exchange_Bps(bp, "spine").bandwidth_Bps == pytest.approx(12.5 * GB, rel=1e-9)


@pytest.mark.parametrize("size", [2, 4, 6, 16])
def test_an_even_ring_carries_8b_n_minus_1_over_n_squared(size: int) -> None:
    rate = tier_exchange_Bps(_torus(size), "torus")
    assert rate.bandwidth_Bps == pytest.approx(8 * 100 * GB * (size - 1) / size**2, rel=1e-9)


@pytest.mark.parametrize("order", ["ring", "line"])
@pytest.mark.parametrize("shape", [(5,), (4, 4), (4, 8), (3, 5), (2, 2, 4), (3, 4, 5), (6, 6)])
def test_tori_and_meshes_are_those_of_the_closed_form(shape: tuple[int, ...], order: str) -> None:
    """R = (m - 1)/m · min over axes of k c/⌊k²/4⌋, with c = 2b on a ring and b on a line; and what `torus_shares` says."""
    closed = order == "ring"
    line_Bps = 200.0 if closed else 100.0
    by_hand = (1 - 1 / np.prod(shape)) * min(k * line_Bps / (k * k // 4) for k in shape)
    rate = tier_exchange_Bps(_torus(*shape, order=order, link_Bps=100.0), "torus")
    assert rate.bandwidth_Bps == pytest.approx(by_hand, rel=1e-9)
    whole_Bps = sum(100.0 * (2 if closed else min(2, k - 1)) for k in shape)
    _, exchanges = torus_shares(shape, (200.0,) * len(shape), (closed,) * len(shape), bandwidth_Bps=whole_Bps)
    assert rate.bandwidth_Bps == pytest.approx(exchanges[-1][1] * whole_Bps, rel=1e-9)


def test_a_torus_of_8960_chips_is_as_slow_as_its_longest_axis() -> None:
    rate = all_to_all_Bps(_torus(16, 20, 28))
    assert rate.bandwidth_Bps == pytest.approx(8 * 100 * GB / 28 * 8959 / 8960, rel=1e-9)
    assert (rate.accelerators, rate.commodities, rate.exact) == (8960, 1, True)


def test_three_levels_of_16384_accelerators_are_a_few_dozen_variables() -> None:
    """Of 16,383 peers 7 are in the box; what goes to the others fills the NICs."""
    bp = cluster_blueprint("big", 2048, HGX, ScaleOut(50 * GB, "ib", levels=3))
    rate = all_to_all_Bps(bp)
    assert (rate.accelerators, rate.commodities) == (16384, 1)
    assert rate.variables < 200
    assert rate.bandwidth_Bps == pytest.approx(50 * GB * 16383 / 16376, rel=1e-9)


def test_oversubscribed_leaves_of_16384_accelerators_halve_it_but_for_what_stays_below_them() -> None:
    """A leaf of 64 ports, 2:1, takes 42 boxes: 336 accelerators send 25 GB/s each to the 16,048 others."""
    bp = cluster_blueprint("big", 2048, HGX, ScaleOut(50 * GB, "ib", levels=3, oversubscription=2.0))
    assert bp.axis["domain"].size == 42
    rate = all_to_all_Bps(bp)
    assert rate.bandwidth_Bps == pytest.approx(25 * GB * 16383 / (16384 - 336), rel=1e-9)
    assert rate.bandwidth_Bps <= cut_bound_Bps(bp) * (1 + 1e-9)


def test_a_rail_only_fabric_exchanges_at_full_rate_because_domains_forward_inside() -> None:
    """No link between rails: accelerators reach other rails through their own or the other box's switches."""
    bp = Blueprint(
        "rails",
        (Axis("domain", 3), Axis("rail", 4)),
        (
            NodeClass("gpu", "accelerator", ("domain", "rail")),
            NodeClass("switch", "switch", ("domain",)),
            NodeClass("leaf", "switch", ("rail",)),
        ),
        (
            LinkClass("gpu", "switch", 450 * GB, 1e-6, "nvlink"),
            LinkClass("gpu", "leaf", 50 * GB, 1e-6, "ib", plane="scale-out"),
        ),
        (Level("domain", axes=("domain",)), Level("leaf", plane="scale-out")),
    )
    assert tier_exchange_Bps(bp, "leaf").bandwidth_Bps == pytest.approx(50 * GB, rel=1e-9)
    assert all_to_all_Bps(bp).bandwidth_Bps == pytest.approx(50 * GB * 11 / 8, rel=1e-9)
    assert all_to_all_Bps(bp, relay=False).bandwidth_Bps == 0.0


def test_an_accelerator_that_must_not_relay_leaves_the_links_of_a_mesh_to_their_ends() -> None:
    """A path of three: the middle forwards over links to its like either way; over a switch only where it may."""
    line = _torus(3, order="line")
    assert all_to_all_Bps(line, relay=False).bandwidth_Bps == pytest.approx(100 * GB, rel=1e-9)


def test_a_slow_nic_slows_all_to_all_unless_others_relay() -> None:
    two = cluster_blueprint("two", 2, HGX, ScaleOut(50 * GB, "ib", rails=1))
    slow = degrade(two, "nic", {"slot": 3}, to="leaf", factor=0.5)
    assert all_to_all_Bps(slow, relay=False).bandwidth_Bps == pytest.approx(25 * GB * 15 / 8, rel=1e-9)
    assert all_to_all_Bps(slow).bandwidth_Bps == pytest.approx(375 / 8 * GB * 15 / 8, rel=1e-9)
    assert tier_exchange_Bps(slow, "leaf").bandwidth_Bps == pytest.approx(tiers(slow)[1].bandwidth_Bps, rel=1e-9)


def test_pools_talk_among_themselves_or_all_together() -> None:
    old = cluster_blueprint("boxes", 2, HGX, ScaleOut(50 * GB, "ndr"), "h100")
    new = cluster_blueprint("rack", 1, ScaleUp(4, 900 * GB, 1e-6, "nvlink5"), None, "b200")
    both = joined("both", {"old": old, "new": new}, Core("xdr", {"old": 800 * GB, "new": 80 * GB}))
    assert all_to_all_Bps(both, "new.accelerator").accelerators == 4
    assert all_to_all_Bps(both, "new.accelerator").bandwidth_Bps == pytest.approx(920 * GB, rel=1e-9)
    assert all_to_all_Bps(both).bandwidth_Bps == pytest.approx(80 * GB * 19 / (16 * 4), rel=1e-9)
    with pytest.raises(SpecError, match="no pool"):
        all_to_all_Bps(both, "newer")


def test_links_of_a_mesh_over_two_axes_are_told_apart_by_what_their_ends_share() -> None:
    """On-board links may not lend their bandwidth to those between boards, which fill first: 1 GB/s for each pair."""
    bp = _boards(2, 4, 1 * GB, 9 * GB)
    (member,) = [held for held in orbit_graph(bp).members.values() if held.node.name == "gpu"]
    assert {k: round(7 * v, 9) for k, v in arc_orbits(bp, bp.links[0], member.orbit, member.orbit).items()} == {
        ("slot",): 3,
        ("board",): 4,
    }
    assert all_to_all_Bps(bp).bandwidth_Bps == pytest.approx(7 * GB, rel=1e-9)


# --- limits and errors -----------------------------------------------------------------------------------------------


def test_what_is_too_large_gives_the_bound_of_a_cut_and_says_so() -> None:
    lost = without(_torus(4, 4), {"x": 0, "y": 0})
    exact, bound = all_to_all_Bps(lost), all_to_all_Bps(lost, most_variables=10)
    assert (exact.exact, bound.exact, bound.limits) == (True, False, ())
    assert bound.bandwidth_Bps == cut_bound_Bps(lost) >= exact.bandwidth_Bps * (1 - 1e-9)
    tier = tier_exchange_Bps(lost, "torus", most_variables=10)
    assert (tier.exact, tier.accelerators) == (False, 15)
    assert tier.bandwidth_Bps >= tier_exchange_Bps(lost, "torus").bandwidth_Bps
    graph = expand(lost)
    assert not all_to_all_bound(graph, most_variables=10).exact
    assert all_to_all_bound(graph, most_variables=10).bandwidth_Bps >= exact.bandwidth_Bps * (1 - 1e-9)


def test_what_is_not_joined_has_no_rate() -> None:
    apart = Blueprint(
        "apart",
        (Axis("domain", 2), Axis("slot", 2, "domain")),
        (NodeClass("gpu", "accelerator", ("slot",)), NodeClass("switch", "switch", ("domain",))),
        (LinkClass("gpu", "switch", 9 * GB, 1e-6, "nvlink"),),
        (Level("domain", axes=("domain",)), Level("all", plane="scale-out")),
    )
    rate = all_to_all_Bps(apart)
    assert (rate.bandwidth_Bps, rate.accelerators, rate.limits, rate.exact) == (0.0, 4, (), True)
    assert tier_exchange_Bps(apart, "all").bandwidth_Bps == 0.0
    assert tier_exchange_Bps(apart, "domain").bandwidth_Bps == pytest.approx(9 * GB, rel=1e-9)
    assert all_to_all_bound(expand(apart)).bandwidth_Bps == 0.0
    assert graph_bound_Bps(expand(apart)) == cut_bound_Bps(apart) == 0.0


def test_questions_without_an_answer_are_refused() -> None:
    one = cluster_blueprint("one", 1, ScaleUp(1, 0.0, 0.0, ""), ScaleOut(50 * GB, "ib"))
    with pytest.raises(SpecError, match="two or more"):
        all_to_all_Bps(one)
    with pytest.raises(SpecError, match="two or more"):
        cut_bound_Bps(one)
    with pytest.raises(SpecError, match="two children"):
        tier_exchange_Bps(one, "leaf")
    with pytest.raises(SpecError, match="no level"):
        tier_exchange_Bps(one, "rack")
    for ask in (all_to_all_bound, graph_bound_Bps):
        with pytest.raises(SpecError, match="fewer than two"):
            ask(expand(one))


# --- every builder, changes included, against every node and link ----------------------------------------------------


@st.composite
def _switched(draw: st.DrawFn) -> Blueprint:
    layers = draw(st.sampled_from([1, 1, 2]))
    size = draw(st.integers(1, 4)) if layers == 1 else 4
    up = ScaleUp(size, 90 * GB, 1e-6, "nvlink", draw(st.integers(1, 2)), layers, 2, draw(st.sampled_from([1.0, 2.0])))
    out = ScaleOut(
        50 * GB,
        "ib",
        rails=draw(st.integers(1, 2)),
        radix=draw(st.sampled_from([4, 6, 8])),
        oversubscription=draw(st.sampled_from([1.0, 1.5, 3.0])),
    )
    try:
        return cluster_blueprint("switched", draw(st.integers(2, 12 // size)), up, out)
    except SpecError:
        return cluster_blueprint("switched", 2, up, replace(out, radix=64))


@st.composite
def _direct(draw: st.DrawFn) -> Blueprint:
    shape = draw(st.sampled_from([(5,), (6,), (2, 4), (3, 3), (4, 3), (2, 2, 3)]))
    return _torus(*shape, order=draw(st.sampled_from(["ring", "line", "set"])))


@st.composite
def _cases(draw: st.DrawFn) -> Blueprint:
    meshes = st.builds(
        _boards, st.integers(1, 3), st.integers(2, 3), st.just(1 * GB), st.sampled_from([1 * GB, 9 * GB])
    )
    bp = draw(_switched() | _direct() | meshes)
    if draw(st.booleans()):
        link = draw(st.sampled_from(bp.links))
        own = bp.closure(bp.node(link.a).axes)
        at = {axis: draw(st.integers(0, bp.axis[axis].size - 1)) for axis in own if draw(st.booleans())}
        whole = draw(st.booleans()) and len(at) == len(own)
        return degrade(bp, link.a, at) if whole else degrade(bp, link.a, at, to=link.b, factor=0.5)
    return bp


@settings(max_examples=40, deadline=None)
@given(_cases(), st.booleans())
def test_orbits_graph_and_oracle_agree_and_no_bound_is_below(bp: Blueprint, relay: bool) -> None:
    graph = expand(bp)
    ends = _accelerators(graph)
    if len(ends) < 2:
        return
    oracle_Bps = _oracle_Bps(graph, [[name] for name in ends], relay=relay)
    rate = all_to_all_Bps(bp, relay=relay)
    assert rate.exact
    assert rate.bandwidth_Bps == pytest.approx(oracle_Bps, rel=1e-6)
    assert all_to_all_bound(flat(bp), relay=relay).bandwidth_Bps == pytest.approx(oracle_Bps, rel=1e-6)
    assert cut_bound_Bps(bp) >= oracle_Bps * (1 - 1e-9)
    assert graph_bound_Bps(graph) >= oracle_Bps * (1 - 1e-9)
    if rate.bandwidth_Bps:
        assert sum(held.weight for held in rate.limits) == pytest.approx(1, abs=1e-5)


def _tier_oracle_Bps(bp: Blueprint, level: Level, inner: Level | None) -> float:  # noqa: N802
    """Price each block of a level by itself, and take the slowest."""
    graph = expand(bp)
    node = next(held for held in bp.nodes if held.kind == "accelerator")
    block = bp.own(level, node)
    child = bp.own(inner, node) if inner else bp.closure(node.axes)
    slowest = np.inf
    for values in product(*(range(bp.axis[axis].size) for axis in block)):
        place = dict(zip(block, values, strict=True))
        near = [n for n, h in graph.nodes(data=True) if all(h["coordinates"].get(a) == v for a, v in place.items())]
        part: nx.Graph[str] = nx.Graph()
        part.add_nodes_from((name, graph.nodes[name]) for name in near)
        part.add_edges_from(
            (u, v, h) for u, v, h in graph.edges(data=True) if u in part and v in part and h["plane"] == level.plane
        )
        children: dict[tuple[int, ...], list[str]] = {}
        for name in _accelerators(part):
            at = graph.nodes[name]["coordinates"]
            children.setdefault(tuple(at[axis] for axis in child), []).append(name)
        if len(children) > 1:
            slowest = min(slowest, _oracle_Bps(part, list(children.values())))
    return slowest


@settings(max_examples=40, deadline=None)
@given(_cases())
def test_a_tier_exchanges_what_its_slowest_block_does_node_by_node(bp: Blueprint) -> None:
    inner = None
    for level in bp.levels:
        oracle_Bps = _tier_oracle_Bps(bp, level, inner)
        if np.isfinite(oracle_Bps):
            found = tier_exchange_Bps(bp, level.name)
            uneven = not bp.changes and any(axis.last is not None for axis in bp.axes)
            assert found.bandwidth_Bps >= oracle_Bps * (1 - 1e-6)
            if not uneven:
                assert found.bandwidth_Bps == pytest.approx(oracle_Bps, rel=1e-6)
        inner = level


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.sampled_from([1, 2, 8]), st.sampled_from([8, 16, 64]))
def test_switches_that_block_nothing_exchange_at_the_tiers_bandwidth(domains: int, size: int, radix: int) -> None:
    bp = cluster_blueprint("fabric", domains, replace(HGX, size=size), ScaleOut(50 * GB, "ib", radix=radix))
    for tier in tiers(bp):
        rate = tier_exchange_Bps(bp, tier.name)
        assert rate.bandwidth_Bps == pytest.approx(tier.bandwidth_Bps, rel=1e-9)
        assert rate.exact
