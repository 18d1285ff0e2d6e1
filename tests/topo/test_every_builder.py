"""Quotient against full graph, for flows, cuts and tiers, over small fabrics of every builder, uneven and faulty ones."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from topo.blueprint import Blueprint, Level
from topo.builders import ScaleOut, cluster_blueprint
from topo.changes import Change, spans
from topo.compose import Core, Fibre, Span, joined
from topo.direct import FullMesh, Torus
from topo.domains import Domain, ScaleUp
from topo.errors import SpecError
from topo.flows import max_flow
from topo.graphs import expand, flat
from topo.nested import Nested, Tie
from topo.orbits import quotient
from topo.tiers import Pool, pools, tiers
from topo.wide import Row, direct_blueprint, sites

GB = 1e9


@st.composite
def domains(draw: st.DrawFn) -> Domain:
    """A scale-up domain of every kind."""
    kinds: list[Domain] = [
        ScaleUp(draw(st.integers(1, 5)), 96.0 * GB, 1e-6, "up", draw(st.integers(1, 2))),
        ScaleUp(
            2 * draw(st.integers(1, 3)), 96.0 * GB, 1e-6, "up", 2, 2, 2, draw(st.sampled_from([1.0, 2.0])), sub_planes=2
        ),
        FullMesh(draw(st.integers(2, 5)), 60.0 * GB, 1e-6, "up"),
        Torus((draw(st.integers(2, 4)), draw(st.integers(1, 3))), 24.0 * GB, 1e-6, "up", draw(st.booleans())),
        Nested(
            (Tie("chip", 2, 24.0 * GB, 1e-6, "up"), Tie("board", draw(st.integers(1, 3)), 12.0 * GB, 2e-6, "up", 1))
        ),
    ]
    return draw(st.sampled_from(kinds))


@st.composite
def halls(draw: st.DrawFn) -> Blueprint:
    """Equal domains in a fat tree of some sort, or joined directly."""
    up = draw(domains())
    if draw(st.integers(0, 3)) == 0:
        rows = (
            Row("row", draw(st.integers(1, 4)), 8.0, 3e-6, "laser", draw(st.sampled_from(["ring", "line", "set"]))),
        )
        return direct_blueprint("x", rows, up, 4 * GB)
    out = ScaleOut(
        4 * GB,
        "out",
        rails=draw(st.sampled_from([1, 2])),
        radix=draw(st.sampled_from([8, 16])),
        oversubscription=draw(st.sampled_from([(1.0, 1.0), (3.0, 1.0), (1.0, 3.0)])),
        planes=draw(st.sampled_from([1, 2])),
        spines=draw(st.sampled_from(["auto", "rail"])),
        top=draw(st.sampled_from(["core", "mesh", "ocs"])),
    )
    try:
        return cluster_blueprint("x", draw(st.integers(2, 6)), up, out)
    except SpecError:
        return cluster_blueprint("x", 1, up, None)


@st.composite
def fabrics(draw: st.DrawFn) -> Blueprint:
    """A hall, several, or two unlike ones, with up to two things slow or gone."""
    bp = draw(halls())
    shape = draw(st.sampled_from(["hall", "hall", "sites", "core", "fibre"]))
    try:
        if shape == "sites":
            bp = sites(bp, 2, 6 * GB, 10.0)
        elif shape != "hall":
            rates = {"a": 6 * GB, "b": 6 * GB}
            top = Core("out", rates) if shape == "core" else Fibre((Span("a", "b", 6 * GB, 10.0),))
            bp = joined("x", {"a": bp, "b": draw(halls())}, top)
    except SpecError:  # a hall that nothing leads out of, or names that are taken
        assume(False)
    assume(sum(bp.population(node.axes) for node in bp.nodes) <= 220)
    return replace(bp, changes=tuple(draw(st.lists(changes(bp), max_size=2))))


@st.composite
def changes(draw: st.DrawFn, bp: Blueprint) -> Change:
    """A node or a link somewhere, at half its rate, or a switch that is gone."""
    link = draw(st.sampled_from(bp.links))

    def somewhere(name: str) -> dict[str, int | range]:
        own = bp.closure(bp.node(name).axes)
        return {axis: draw(st.integers(0, bp.axis[axis].size - 1)) for axis in own if draw(st.booleans())}

    at = somewhere(link.a)
    if draw(st.booleans()):
        return Change(link.a, spans(at), link.b, spans(somewhere(link.b)), 0.5)
    return Change(link.b, spans(somewhere(link.b)), factor=0.0 if bp.node(link.b).kind == "switch" else 0.5)


def _flow(graph: "nx.Graph[str]", left: Iterable[str], right: Iterable[str]) -> float:
    arcs: nx.DiGraph[str] = nx.DiGraph()
    arcs.add_nodes_from(("<", ">"))
    for u, v, held in graph.edges(data=True):
        arcs.add_edge(u, v, capacity=round(held["bandwidth_Bps"]))
        arcs.add_edge(v, u, capacity=round(held["bandwidth_Bps"]))
    arcs.add_edges_from(("<", node) for node in left)
    arcs.add_edges_from((node, ">") for node in right)
    return float(nx.maximum_flow_value(arcs, "<", ">"))


def _block(bp: Blueprint, level: Level, pool: Pool, held: dict[str, int]) -> tuple[int, ...]:
    return tuple(held[axis] for axis in bp.own(level, pool.classes[0]))


def _slowest(bp: Blueprint, graph: "nx.Graph[str]", pool: Pool, level: Level, inner: Level | None) -> float | None:
    """Cut every child block of every block (without changes: of the first) from its siblings, with NetworkX."""
    names = {node.name for node in pool.classes}
    ends = {node: held["coordinates"] for node, held in graph.nodes(data=True) if held["node_class"] in names}
    children: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for node, at in ends.items():
        children[(node,) if inner is None else _block(bp, inner, pool, at)].append(node)
    axes = bp.own(level, pool.classes[0])
    rates = []
    for child in children.values() if bp.changes else list(children.values())[:1]:
        place = {axis: ends[child[0]][axis] for axis in axes}
        block = [n for n, at in graph.nodes("coordinates") if all(at.get(axis) == v for axis, v in place.items())]
        rest = [node for node in block if node in ends and node not in child]
        if not rest:
            continue
        plane = nx.Graph([e for e in graph.subgraph(block).edges(data=True) if e[2]["plane"] == level.plane])
        plane.add_nodes_from([*child, *rest])
        rate = _flow(plane, child, rest) / min(len(child), len(rest))
        if len(rest) < len(child):
            own = bp.own(inner, pool.classes[0]) if inner else ()
            mine = {axis: ends[child[0]][axis] for axis in own}
            within = {n for n in block if all(graph.nodes[n]["coordinates"].get(a) == v for a, v in mine.items())}
            outside = [node for node in plane if node not in (within if inner else child)]
            rate = min(rate, _flow(plane, child, outside) / len(child))
        rates.append(rate)
    return min(rates, default=None)


@settings(max_examples=60, deadline=None)
@given(fabrics())
def test_tiers_of_every_builder_equal_cuts_of_the_full_graph(bp: Blueprint) -> None:
    graph = expand(bp)
    expected = []
    for pool in pools(bp):
        inner = None
        for level in bp.levels:
            rate = _slowest(bp, graph, pool, level, inner)
            if rate is not None:
                expected.append((pool.name, level.name, rate))
                inner = level
    if any(rate == 0 for *_, rate in expected):
        with pytest.raises(SpecError, match="not joined"):
            tiers(bp)
        return
    found = [(tier.pool, tier.name, tier.bandwidth_Bps) for tier in tiers(bp)]
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in expected], rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(fabrics(), st.data())
def test_flows_between_any_two_blocks_are_those_of_the_full_graph(bp: Blueprint, data: st.DataObject) -> None:
    graph = expand(bp)
    ends = {node: held for node, held in graph.nodes(data=True) if held["kind"] == "accelerator"}
    assume(len(ends) > 1)
    one = data.draw(st.sampled_from(sorted(ends)))
    axes = data.draw(st.sampled_from(range(len(ends[one]["coordinates"]) + 1)))
    mark = dict(list(ends[one]["coordinates"].items())[: axes + 1])
    inside = [n for n, held in ends.items() if mark.items() <= held["coordinates"].items()]
    rest = [n for n in ends if n not in inside]
    assume(rest)
    small = quotient(bp, [mark])
    left = [n for n, h in small.nodes(data=True) if h["kind"] == "accelerator" and _marked(h["cells"], mark)]
    right = [n for n, h in small.nodes(data=True) if h["kind"] == "accelerator" and n not in left]
    assert sum(small.nodes[n]["multiplicity"] for n in left) == len(inside)
    arcs: nx.DiGraph[str] = nx.DiGraph(
        [(u, v, {"capacity": round(h["bandwidth_Bps"])}) for u, v, h in small.edges(data=True)]
    )
    arcs.add_nodes_from([*left, *right])
    arcs.add_edges_from([("<", n) for n in left] + [(n, ">") for n in right])
    full = _flow(graph, inside, rest)
    assert nx.maximum_flow_value(arcs, "<", ">") == pytest.approx(full, rel=1e-6)
    assert max_flow(flat(bp), inside, rest) == pytest.approx(full, rel=1e-6)


def _marked(cells: dict[str, tuple[tuple[int, int], ...]], mark: dict[str, int]) -> bool:
    return all((value, value + 1) in cells.get(axis, ()) for axis, value in mark.items())
