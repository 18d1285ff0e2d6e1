"""Blueprints: validation, the expanded graph, and the quotient against it."""

import math
from collections import Counter, defaultdict
from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.blueprint import KINDS, Axis, Blueprint, Level, LinkClass, NodeClass, Order
from topo.changes import Change, spans
from topo.errors import SpecError
from topo.graphs import expand, flat
from topo.orbits import quotient
from topo.schema import validate
from topo.symmetry import coordinates

ALL = (Level("all"),)


def _pods() -> Blueprint:
    """Two units of three and of one domain, two rails: accelerator - leaf - spine, accelerator - crossbar."""
    return Blueprint(
        "pods",
        (Axis("unit", 2), Axis("domain", 3, "unit", last=1), Axis("rail", 2), Axis("plane", 2)),
        (
            NodeClass("gpu", "accelerator", ("domain", "rail"), "gpu"),
            NodeClass("crossbar", "switch", ("domain",), "scale-up-switch"),
            NodeClass("leaf", "switch", ("unit", "rail"), "switch"),
            NodeClass("spine", "switch", ("plane",), "switch"),
        ),
        (
            LinkClass("gpu", "crossbar", 900.0, 1e-6, "nvlink", plane="scale-up"),
            LinkClass("gpu", "leaf", 50.0, 2e-6, "ib", plane="scale-out"),
            LinkClass("leaf", "spine", 75.0, 2e-6, "ib", count=2, plane="scale-out"),
        ),
        (
            Level("domain", axes=("domain",)),
            Level("leaf", plane="scale-out", axes=("unit",)),
            Level("spine", plane="scale-out"),
        ),
    )


def test_expand_counts_nodes_edges_and_domains_of_an_uneven_cluster() -> None:
    graph = expand(_pods())
    validate(graph)
    assert Counter(nx.get_node_attributes(graph, "node_class").values()) == {
        "gpu": 8,
        "crossbar": 4,
        "leaf": 4,
        "spine": 2,
    }
    assert graph.number_of_edges() == 8 + 8 + 8
    held = graph.nodes["gpu[unit=1,domain=0,rail=1]"]
    assert (held["kind"], held["part"], held["domain"]) == ("accelerator", "gpu", 3)
    assert held["coordinates"] == {"unit": 1, "domain": 0, "rail": 1}
    assert graph.nodes["spine[plane=0]"]["domain"] is None
    wire = graph.edges["leaf[unit=0,rail=1]", "spine[plane=1]"]
    assert (wire["bandwidth_Bps"], wire["latency_s"], wire["link"], wire["links"]) == (150.0, 2e-6, "ib", 2)


def test_quotient_of_an_uneven_cluster_by_hand() -> None:
    graph = quotient(_pods(), [{"unit": 0, "domain": 1}])
    assert nx.get_node_attributes(graph, "multiplicity") == {
        "gpu[unit=0,domain=1,rail=*]": 2,
        "gpu[unit=0,domain=*,rail=*]": 4,
        "gpu[unit=1,domain=*,rail=*]": 2,
        "crossbar[unit=0,domain=1]": 1,
        "crossbar[unit=0,domain=*]": 2,
        "crossbar[unit=1,domain=*]": 1,
        "leaf[unit=0,rail=*]": 2,
        "leaf[unit=1,rail=*]": 2,
        "spine[plane=*]": 2,
    }
    assert graph.edges["gpu[unit=0,domain=*,rail=*]", "leaf[unit=0,rail=*]"]["bandwidth_Bps"] == 4 * 50.0
    assert graph.edges["spine[plane=*]", "leaf[unit=1,rail=*]"]["bandwidth_Bps"] == 2 * 2 * 150.0
    assert not graph.has_edge("gpu[unit=1,domain=*,rail=*]", "leaf[unit=0,rail=*]")


def test_quotient_is_cached_and_frozen() -> None:
    graph = quotient(_pods(), [{"unit": 0}])
    assert quotient(_pods(), [{"unit": 0}, {"unit": range(1)}]) is graph
    with pytest.raises(nx.NetworkXError):
        graph.add_node("more")


def test_ranges_mark_sets_and_overlaps_are_told_apart() -> None:
    bp = Blueprint(
        "flat",
        (Axis("slot", 10),),
        (NodeClass("gpu", "accelerator", ("slot",)), NodeClass("switch", "switch", ())),
        (LinkClass("gpu", "switch", 1.0, 0.0, "x"),),
        ALL,
    )
    graph = quotient(bp, [{"slot": range(4)}, {"slot": 2}, {"slot": range(3, 6)}])
    assert sorted(nx.get_node_attributes(graph, "multiplicity").values()) == sorted([2, 1, 1, 2, 4, 1])
    assert graph.nodes["gpu[slot=2]"]["example"] == {"slot": 2}


@pytest.mark.parametrize(
    ("mark", "word"),
    [
        ({"row": 0}, "no axis"),
        ({"unit": 2}, "not inside"),
        ({"unit": -1}, "not inside"),
    ],
)
def test_wrong_marks_are_named(mark: dict[str, int], word: str) -> None:
    with pytest.raises(SpecError, match=word):
        quotient(_pods(), [mark])


def test_every_fault_of_a_blueprint_is_reported_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        Blueprint(
            "bad",
            (Axis("a", 0), Axis("b", 2, "z"), Axis("c", 2, None, last=1), Axis("a", 1)),
            (NodeClass("x", "gpu", ("q",)), NodeClass("x", "switch", ())),
            (),
            (Level("l", axes=("w",)),),
        )
    assert len(caught.value.faults) == 9


def test_every_fault_of_links_and_levels_is_reported_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        Blueprint(
            "bad",
            (Axis("a", 2), Axis("b", 2)),
            (NodeClass("x", "accelerator", ("a",)), NodeClass("y", "switch", ("a",)), NodeClass("z", "switch", ("b",))),
            (
                LinkClass("x", "y", -1.0, 0.0, ""),
                LinkClass("y", "x", 1.0, -1.0, ""),
                LinkClass("x", "x", math.inf, math.nan, "", count=0),
                LinkClass("x", "w", 1.0, 0.0, "", plane="sideways"),  # type: ignore[arg-type]
            ),
            (Level("l"), Level("m", axes=("b", "a"), plane="other")),  # type: ignore[arg-type]
        )
    text = str(caught.value)
    for word in (
        "is there twice",
        "above 0",
        "0 or more",
        "joins a class to itself",
        "at least 1",
        "is no node class",
        "is joined to nothing",
        "sideways",
        "end with the whole",
        "is on no accelerator",
        "do not contain",
        "other",
    ):
        assert word in text


@st.composite
def blueprints(draw: st.DrawFn) -> Blueprint:
    """Small random blueprints: axes in a forest with remainders, classes on any axes, links between any classes."""
    axes: list[Axis] = []
    order: Order
    for i in range(draw(st.integers(1, 4))):
        size = draw(st.sampled_from([2, 3] if i == 0 else [2, 3, 1]))
        parent = draw(st.sampled_from([None, *(axis.name for axis in axes)]))
        last = draw(st.none() | st.integers(1, size)) if parent else None
        order = draw(st.sampled_from(("set", "ring", "line"))) if last is None else "set"
        if order != "set":
            size = draw(st.integers(2 if i == 0 else 1, 5))
        axes.append(Axis(f"x{i}", size, parent, last, order))
    names = [axis.name for axis in axes]
    subsets = st.lists(st.sampled_from(names), unique=True).map(tuple)
    classes = [NodeClass("gpu", "accelerator", tuple(dict.fromkeys((names[0], *draw(subsets)))))]
    classes += [NodeClass(f"s{i}", draw(st.sampled_from(KINDS)), draw(subsets)) for i in range(draw(st.integers(1, 3)))]
    pairs = [(a.name, b.name) for i, a in enumerate(classes) for b in classes[i + 1 :]]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, min_size=1))
    used = {name for pair in chosen for name in pair}
    chosen += [("gpu", c.name) for c in classes[1:] if c.name not in used] + (
        [] if "gpu" in used else [("gpu", classes[1].name)]
    )
    links = [
        LinkClass(a, b, draw(st.integers(1, 9)), 1e-6, "wire", draw(st.integers(1, 2)))
        for a, b in dict.fromkeys(chosen)
    ]
    bare = Blueprint("random", tuple(axes), tuple(classes), tuple(links), ALL)
    for node in draw(st.lists(st.sampled_from(classes), unique=True)):
        own = bare.closure(node.axes)
        leaves = [name for name in own if all(bare.axis[other].within != name for other in own)]
        rows = [(name,) for name in leaves if bare.axis[name].order != "set"]
        sets = tuple(name for name in leaves if bare.axis[name].order == "set")
        ways = [*rows, *([sets] if sets else [])]
        links += [
            LinkClass(node.name, node.name, draw(st.integers(1, 9)), 2e-6, "lane", along=along)
            for along in (draw(st.lists(st.sampled_from(ways), unique=True)) if ways else ())
        ]
    wired = Blueprint("random", tuple(axes), tuple(classes), tuple(links), ALL)
    return replace(wired, changes=tuple(draw(st.lists(_changes(wired), max_size=2))))


@st.composite
def _changes(draw: st.DrawFn, bp: Blueprint) -> Change:
    """A node somewhere or a link somewhere, gone (links and switches only) or at half its rate."""

    def some(name: str) -> dict[str, int | range]:
        own = bp.closure(bp.node(name).axes)
        at: dict[str, int | range] = {}
        for axis in draw(st.lists(st.sampled_from(own), unique=True)) if own else ():
            low = draw(st.integers(0, bp.axis[axis].size - 1))
            at[axis] = range(low, draw(st.integers(low + 1, bp.axis[axis].size)))
        return at

    link = draw(st.sampled_from(bp.links))
    node, to = draw(st.permutations((link.a, link.b)))
    if draw(st.booleans()):
        return Change(node, spans(some(node)), to, spans(some(to)), draw(st.sampled_from([0.0, 0.5])))
    return Change(node, spans(some(node)), factor=0.5 if bp.node(node).kind == "accelerator" else 0.0)


def _orbit_of(graph: "nx.DiGraph[str]", node_class: str, at: dict[str, int]) -> str:
    """Find the orbit whose marked intervals hold these coordinates: the one with the most of them."""
    fits = [
        (sum(_told_apart(cell) for cell in held["cells"].values()), orbit)
        for orbit, held in graph.nodes(data=True)
        if held["node_class"] == node_class and all(_in(cell, at[axis]) for axis, cell in held["cells"].items())
    ]
    return max(fits)[1]


def _told_apart(cell: tuple[tuple[int, int], ...]) -> int:
    """How many marks a cell lies in; the mirror images of a ring or line are one."""
    single = sum(high == low + 1 for low, high in cell)
    return len(cell) - max(0, single - 1)


def _in(cell: tuple[tuple[int, int], ...], value: int) -> bool:
    """Whether a value is one of a cell's own (several on a mirrored ring or line), and in all its intervals."""
    single = {low for low, high in cell if high == low + 1}
    return (not single or value in single) and all(low <= value < high for low, high in cell if high > low + 1)


@st.composite
def marked(draw: st.DrawFn) -> tuple[Blueprint, list[dict[str, int]]]:
    bp = draw(blueprints())
    ends = [node for node in bp.nodes if node.kind == "accelerator"]
    places = [at for node in ends for at in coordinates(bp, bp.closure(node.axes)) if at]
    return bp, draw(st.lists(st.sampled_from(places), max_size=2)) if places else []


@settings(max_examples=80, deadline=None)
@given(marked())
def test_quotient_is_an_equitable_partition_of_the_full_graph(case: tuple[Blueprint, list[dict[str, int]]]) -> None:
    """Each orbit holds `multiplicity` nodes, and each of them sees the same capacity towards each other orbit."""
    bp, marks = case
    full, small = expand(bp), quotient(bp, marks)
    orbit = {node: _orbit_of(small, held["node_class"], held["coordinates"]) for node, held in full.nodes(data=True)}
    assert Counter(orbit.values()) == nx.get_node_attributes(small, "multiplicity")
    assert sum(held["links"] for *_, held in small.edges(data=True)) == 2 * sum(
        held["links"] for *_, held in full.edges(data=True)
    )
    for node in full:
        seen: dict[str, float] = defaultdict(float)
        for peer in full[node]:
            seen[orbit[peer]] += full.edges[node, peer]["bandwidth_Bps"]
        many = small.nodes[orbit[node]]["multiplicity"]
        assert seen == {peer: held["bandwidth_Bps"] / many for peer, held in small[orbit[node]].items()}


@settings(max_examples=60, deadline=None)
@given(blueprints())
def test_arrays_and_expanded_graph_are_the_same(bp: Blueprint) -> None:
    graph, arrays = expand(bp), flat(bp)
    assert list(arrays.names) == list(graph)
    assert [KINDS[kind] for kind in arrays.kind] == [held["kind"] for _, held in graph.nodes(data=True)]
    seen: dict[frozenset[str], float] = defaultdict(float)
    for u, v, rate_Bps in zip(arrays.tail, arrays.head, arrays.bandwidth_Bps, strict=True):
        seen[frozenset((arrays.names[u], arrays.names[v]))] += float(rate_Bps)
    assert seen == {frozenset((u, v)): held["bandwidth_Bps"] for u, v, held in graph.edges(data=True)}


def _flow(graph: "nx.Graph[str]", left: list[str], right: list[str]) -> float:
    """Maximum flow between two sets, through a super source and sink."""
    arcs: nx.DiGraph[str] = nx.DiGraph()
    arcs.add_nodes_from(("<", ">"))
    for u, v, held in graph.edges(data=True):
        for pair in ((u, v),) if graph.is_directed() else ((u, v), (v, u)):
            arcs.add_edge(*pair, capacity=held["bandwidth_Bps"])
    arcs.add_edges_from(("<", node) for node in left)
    arcs.add_edges_from((node, ">") for node in right)
    return nx.maximum_flow_value(arcs, "<", ">")


@settings(max_examples=60, deadline=None)
@given(blueprints(), st.data())
def test_flow_between_two_accelerators_is_the_same_on_quotient_and_full_graph(
    bp: Blueprint, data: st.DataObject
) -> None:
    full = expand(bp)
    ends = [node for node, held in full.nodes(data=True) if held["node_class"] == "gpu"]
    a, b = data.draw(st.lists(st.sampled_from(ends), min_size=2, max_size=2, unique=True))
    small = quotient(bp, [full.nodes[a]["coordinates"], full.nodes[b]["coordinates"]])
    left, right = (_orbit_of(small, "gpu", full.nodes[node]["coordinates"]) for node in (a, b))
    assert small.nodes[left]["multiplicity"] == small.nodes[right]["multiplicity"] == 1
    assert _flow(small, [left], [right]) == _flow(full, [a], [b])


@settings(max_examples=60, deadline=None)
@given(blueprints(), st.data())
def test_flow_between_a_block_and_the_rest_is_the_same_on_quotient_and_full_graph(
    bp: Blueprint, data: st.DataObject
) -> None:
    full = expand(bp)
    own = bp.closure(bp.node("gpu").axes)
    axis = data.draw(st.sampled_from([axis for axis in own if bp.population((axis,)) > 1]))
    path = bp.closure((axis,))
    block = data.draw(st.sampled_from(list(coordinates(bp, path))))
    ends = {node: held for node, held in full.nodes(data=True) if held["node_class"] == "gpu"}
    inside = [node for node, held in ends.items() if all(held["coordinates"][a] == v for a, v in block.items())]
    rest = [node for node in ends if node not in inside]
    small = quotient(bp, [block])
    left = {_orbit_of(small, "gpu", ends[node]["coordinates"]) for node in inside}
    right = {_orbit_of(small, "gpu", ends[node]["coordinates"]) for node in rest}
    assert not left & right
    assert _flow(small, sorted(left), sorted(right)) == _flow(full, inside, rest)
