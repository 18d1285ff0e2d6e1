"""Colour refinement: by hand, against a plain refinement, and the theorem on flows and distances."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.errors import SpecError
from topo.flows import max_flow
from topo.refine import colours, refine
from topo.wires import wires

if TYPE_CHECKING:
    from topo.wires import AnyGraph

SLOW = {"bandwidth_Bps": 50e9, "latency_s": 2e-6, "link": "ib", "links": 1, "plane": "scale-out"}
FAST = {"bandwidth_Bps": 900e9, "latency_s": 1e-6, "link": "nvlink", "links": 18, "plane": "scale-up"}


def _dressed(graph: "AnyGraph", held: dict[str, Any] = SLOW) -> "AnyGraph":
    graph.add_nodes_from(list(graph), kind="accelerator")
    graph.add_edges_from(list(graph.edges), **held)
    return graph


def _members(quotient: "nx.DiGraph[Any]") -> list[int]:
    return [held["multiplicity"] for _, held in quotient.nodes(data=True)]


@st.composite
def _graphs(draw: st.DrawFn) -> "AnyGraph":
    """Draw a graph with much symmetry: disjoint or joined copies of a small one, now and then a link changed."""
    size, copies = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    graph: AnyGraph = nx.DiGraph() if draw(st.booleans()) else nx.Graph()
    kinds = [draw(st.sampled_from(["accelerator", "switch"])) for _ in range(size)]
    pairs = [(u, v) for u in range(size) for v in range(size) if u != v]
    links = draw(st.lists(st.tuples(st.sampled_from(pairs), st.sampled_from([SLOW, FAST])), min_size=1, max_size=6))
    hub = draw(st.none() | st.integers(0, size - 1))
    for copy in range(copies):
        graph.add_nodes_from(((copy, u), {"kind": kinds[u]}) for u in range(size))
        graph.add_edges_from(((copy, u), (copy, v), dict(held)) for (u, v), held in links)
        if hub is not None:
            graph.add_node("hub", kind="switch")
            graph.add_edge((copy, hub), "hub", **SLOW)
            graph.add_edge("hub", (copy, hub), **SLOW)
    if draw(st.booleans()):
        graph.edges[draw(st.sampled_from(sorted(graph.edges, key=str)))]["bandwidth_Bps"] = 33e9
    return graph


def _plainly_refined(graph: "AnyGraph", marks: dict[Any, Any]) -> list[int]:
    """Return the coarsest equitable partition by sorting what each node sees, until nothing changes."""
    key = {(u, v): tuple(held.values()) for u, v, held in graph.to_directed().edges(data=True)}
    colour: dict[Any, Any] = {n: (graph.nodes[n]["kind"], marks.get(n)) for n in graph}
    for _ in graph:
        seen = {
            n: (
                colour[n],
                frozenset(Counter((k, colour[v]) for (u, v), k in key.items() if u == n).items()),
                frozenset(Counter((k, colour[u]) for (u, v), k in key.items() if v == n).items()),
            )
            for n in graph
        }
        number = {value: i for i, value in enumerate(dict.fromkeys(seen.values()))}
        colour = {n: number[seen[n]] for n in graph}
    return [colour[n] for n in graph]


@settings(max_examples=60, deadline=None)
@given(_graphs(), st.data())
def test_classes_are_those_of_a_plain_refinement(graph: "AnyGraph", data: st.DataObject) -> None:
    marks = data.draw(st.dictionaries(st.sampled_from(list(graph)), st.sampled_from("xy"), max_size=3))
    assert colours(graph, marks).tolist() == _plainly_refined(graph, marks)


@settings(max_examples=60, deadline=None)
@given(_graphs(), st.data())
def test_flows_and_distances_between_marked_sets_are_those_of_the_full_graph(
    graph: "AnyGraph", data: st.DataObject
) -> None:
    order = data.draw(st.permutations(list(graph)))
    cut = data.draw(st.integers(1, len(order) - 1))
    sources, sinks = order[:cut][:3], order[cut:][:3]
    quotient = refine(graph, {**dict.fromkeys(sources, "source"), **dict.fromkeys(sinks, "sink")})
    ends = {
        label: [
            n for n, held in quotient.nodes(data=True) if held.get("mark") == label
        ]  # a label may split into classes
        for label in ("source", "sink")
    }
    assert quotient.graph["exact_between_marks"]
    assert _flow(quotient, ends["source"], ends["sink"]) == _flow(graph, sources, sinks)
    assert max_flow(quotient, ends["source"], ends["sink"]) == max_flow(graph, sources, sinks)
    assert _distance_s(quotient, ends["source"], ends["sink"]) == pytest.approx(_distance_s(graph, sources, sinks))


def _flow(graph: "AnyGraph", sources: list[Any], sinks: list[Any]) -> int:
    flow: nx.DiGraph[Any] = nx.DiGraph()
    flow.add_nodes_from(("<", ">"))
    flow.add_edges_from(
        (u, v, {"capacity": int(held["bandwidth_Bps"])}) for u, v, held in graph.to_directed().edges(data=True)
    )
    flow.add_edges_from(("<", node) for node in sources)
    flow.add_edges_from((node, ">") for node in sinks)
    return int(nx.maximum_flow_value(flow, "<", ">"))


def _distance_s(graph: "AnyGraph", sources: list[Any], sinks: list[Any]) -> float:
    reached = nx.multi_source_dijkstra_path_length(graph, set(sources), weight="latency_s")
    return min((reached[n] for n in sinks if n in reached), default=np.inf)


@settings(max_examples=40, deadline=None)
@given(_graphs())
def test_members_links_and_bandwidth_add_up(graph: "AnyGraph") -> None:
    quotient = refine(graph)
    both = 1 if graph.is_directed() else 2
    assert sum(_members(quotient)) == len(graph)
    for what in ("links", "bandwidth_Bps"):
        whole = both * sum(held[what] for *_, held in graph.edges(data=True))
        assert sum(held[what] for *_, held in quotient.edges(data=True)) == pytest.approx(whole)
    assert all(graph.nodes[held["example"]]["kind"] == held["kind"] for _, held in quotient.nodes(data=True))


def test_two_triangles_and_a_hexagon_look_alike_until_marked() -> None:
    triangles = _dressed(nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)))
    hexagon = _dressed(nx.cycle_graph(6))
    for graph in (triangles, hexagon):
        quotient = refine(graph)
        assert dict(quotient.nodes("multiplicity")) == {0: 6}
        assert quotient.edges[0, 0] == {**SLOW, "bandwidth_Bps": 600e9, "links": 12}
    assert (max_flow(triangles, [0], [3]), max_flow(hexagon, [0], [3])) == (0.0, 100e9)
    assert max_flow(refine(triangles, [0, 3]), [0], [3]) == 0.0
    assert max_flow(refine(hexagon, [0, 3]), [0], [3]) == 100e9


def test_a_fault_splits_only_what_can_see_it() -> None:
    """Four boxes of four on leaves under one spine: a missing link tells apart its GPU, its box and the others."""
    tree: nx.Graph[Any] = nx.Graph()
    tree.add_node("spine", kind="switch", part="q3400", in_network_reduction=True)
    for box in range(4):
        tree.add_edge(f"leaf{box}", "spine", **{**SLOW, "links": 4, "bandwidth_Bps": 200e9})
        tree.add_edges_from((f"gpu{box}{g}", f"leaf{box}", SLOW) for g in range(4))
    nx.set_node_attributes(tree, {n: "accelerator" if n[0] == "g" else "switch" for n in tree}, "kind")
    assert sorted(_members(refine(tree))) == [1, 4, 16]
    tree.edges["gpu20", "leaf2"]["bandwidth_Bps"] = 10e9
    quotient = refine(tree)
    assert dict(quotient.nodes("multiplicity")) == {
        "spine": 1, "leaf0": 3, "gpu00": 12, "leaf2": 1, "gpu20": 1, "gpu21": 3
    }  # fmt: skip
    assert quotient.nodes["spine"] == {
        "multiplicity": 1, "kind": "switch", "part": "q3400", "in_network_reduction": True, "example": "spine"
    }  # fmt: skip
    assert quotient.edges["gpu21", "leaf2"] == {**SLOW, "bandwidth_Bps": 150e9, "links": 3}


@pytest.mark.parametrize("what", [{"part": "other"}, {"in_network_reduction": True}, {"kind": "nic"}])
def test_unlike_parts_are_not_alike(what: dict[str, Any]) -> None:
    pair = _dressed(nx.cycle_graph(2))
    assert colours(pair).tolist() == [0, 0]
    pair.nodes[1].update(what)
    assert colours(pair).tolist() == [0, 1]


@pytest.mark.parametrize("what", ["latency_s", "link", "plane"])
def test_unlike_links_tell_their_ends_apart(what: str) -> None:
    four = _dressed(nx.Graph([(0, 1), (2, 3)]))
    four.edges[2, 3].update({what: FAST[what]})
    assert colours(four).tolist() == [0, 0, 1, 1]


def test_between_two_classes_the_quickest_link_gives_its_latency_and_key() -> None:
    """Each of two accelerators has a slow link to one switch and a fast one to the other; the switches are alike."""
    g: nx.Graph[int] = nx.Graph()
    g.add_nodes_from((0, 1), kind="accelerator")
    g.add_nodes_from((2, 3), kind="switch")
    for u, v, held in ((0, 2, SLOW), (0, 3, FAST), (1, 2, FAST), (1, 3, SLOW)):
        g.add_edge(u, v, **held)
    quotient = refine(g)
    assert quotient.edges[0, 2] == {**FAST, "bandwidth_Bps": 1900e9, "links": 38}


def test_what_comes_in_counts_in_a_directed_graph() -> None:
    """0 → 1 and 2 alone: 1 sends nothing, like 2, but is sent something."""
    g = _dressed(nx.DiGraph([(0, 1)]))
    g.add_node(2, kind="accelerator")
    assert colours(g).tolist() == [0, 1, 2]


def test_arrays_give_the_classes_of_their_graph() -> None:
    ring = _dressed(nx.cycle_graph(9))
    assert colours(wires(ring), [0]).tolist() == colours(ring, [0]).tolist() == [0, 1, 2, 3, 4, 4, 3, 2, 1]
    quotient = refine(wires(ring), [0])
    assert quotient.edges[4, 4] == {"bandwidth_Bps": 100e9, "links": 2, "latency_s": 2e-6, "link": ""}


def test_a_graph_without_links_is_its_kinds() -> None:
    g: nx.Graph[int] = nx.Graph()
    g.add_nodes_from(range(3), kind="accelerator")
    assert list(refine(g).nodes("multiplicity")) == [(0, 3)]


def test_the_quotient_is_frozen_and_marks_are_checked() -> None:
    ring = _dressed(nx.cycle_graph(4))
    assert nx.is_frozen(refine(ring))
    with pytest.raises(SpecError) as caught:
        refine(ring, ["a", 0, "b"])
    assert [fault.value for fault in caught.value.faults] == ["a", "b"]
    with pytest.raises(SpecError, match="is one name, not a collection"):
        colours(ring, "gpu0")
