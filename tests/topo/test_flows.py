"""Flows and cuts, by hand and against NetworkX's own maximum flow."""

import math
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.errors import SpecError
from topo.flows import Cut, Nodes, bisection, halves, max_flow, min_cut, natural_splits, worst_split
from topo.wires import Wires, wires

if TYPE_CHECKING:
    from topo.wires import AnyGraph

GB = 1e9

ROUND_BPS = st.sampled_from([1e9, 25e9, 50e9, 450e9, 1e12])
WHOLE_BPS = st.integers(10**9, 10**12).map(float)
WIDE_BPS = st.one_of(st.integers(1, 9).map(float), st.integers(10**12, 10**15).map(float))


@st.composite
def _cases(draw: st.DrawFn, rates_Bps: st.SearchStrategy[float]) -> "tuple[AnyGraph, list[int], list[int]]":
    """Draw a random graph of up to nine nodes, directed or not, with sources and sinks."""
    size = draw(st.integers(2, 9))
    graph: AnyGraph = nx.DiGraph() if draw(st.booleans()) else nx.Graph()
    graph.add_nodes_from(range(size), kind="accelerator")
    pairs = [(u, v) for u in range(size) for v in range(size) if u != v]
    for u, v in draw(st.lists(st.sampled_from(pairs), max_size=20)):
        graph.add_edge(u, v, bandwidth_Bps=draw(rates_Bps), latency_s=1e-6)
    order = draw(st.permutations(range(size)))
    left = draw(st.integers(1, size - 1))
    right = draw(st.integers(1, size - left))
    return graph, order[:left], order[left : left + right]


def _oracle(graph: "AnyGraph", sources: list[int], sinks: list[int]) -> int:
    """Return NetworkX's maximum flow, in integers, from a node that feeds all sources to one that drains all sinks."""
    flow: nx.DiGraph[Any] = nx.DiGraph()
    flow.add_nodes_from(("<", ">"))
    flow.add_edges_from(
        (u, v, {"capacity": int(held["bandwidth_Bps"])}) for u, v, held in graph.to_directed().edges(data=True)
    )
    flow.add_edges_from(("<", node) for node in sources)
    flow.add_edges_from((node, ">") for node in sinks)
    return int(nx.maximum_flow_value(flow, "<", ">"))


@pytest.mark.parametrize("rates_Bps", [ROUND_BPS, WHOLE_BPS, WIDE_BPS], ids=["round", "whole", "wide"])
def test_flow_is_exactly_that_of_networkx_and_the_cut_parts_the_sets(rates_Bps: st.SearchStrategy[float]) -> None:
    @settings(max_examples=60, deadline=None)
    @given(_cases(rates_Bps))
    def check(case: "tuple[AnyGraph, list[int], list[int]]") -> None:
        graph, sources, sinks = case
        cut = min_cut(graph, sources, sinks)
        assert cut.value_Bps == _oracle(graph, sources, sinks) == max_flow(wires(graph), sources, sinks)
        assert cut.value_Bps == math.fsum(graph.edges[link]["bandwidth_Bps"] for link in cut.links)
        assert set(sources) <= cut.side
        assert not set(sinks) & cut.side
        assert all(u in cut.side and v not in cut.side for u, v in cut.links)
        rest = graph.copy()
        rest.remove_edges_from(cut.links)
        assert not any(nx.has_path(rest, u, v) for u in sources for v in sinks)

    check()


@settings(max_examples=40, deadline=None)
@given(_cases(WHOLE_BPS))
def test_flow_in_an_undirected_graph_is_the_same_both_ways(case: "tuple[AnyGraph, list[int], list[int]]") -> None:
    graph, sources, sinks = case
    both: nx.Graph[int] = nx.Graph(graph)
    assert max_flow(both, sources, sinks) == max_flow(both, sinks, sources)


def _arrays(pairs: list[tuple[int, int]], rates_Bps: Any) -> Wires:
    ends = np.array(pairs, np.int32)
    size = int(ends.max()) + 1
    zeros = np.zeros(len(pairs))
    return Wires(range(size), np.zeros(size, np.int8), ends[:, 0], ends[:, 1], np.array(rates_Bps, float), zeros)


def test_totals_beyond_32_bits_without_a_common_unit_stay_exact() -> None:
    """A million links of some 1 TB/s and no common divisor: 1e18 bytes/s, in three passes."""
    rates_Bps = np.random.default_rng(7).integers(10**12 - 10**6, 10**12, 10**6).astype(float)
    zeros = np.zeros(10**6, np.int32)
    w = Wires(range(2), np.zeros(2, np.int8), zeros, zeros + 1, rates_Bps, zeros.astype(float))
    assert max_flow(w, [0], [1]) == rates_Bps.sum()


def test_a_wide_link_that_carries_the_whole_flow_is_not_taken_for_the_cut() -> None:
    """0 -100- 1 -90- 2 -90- 3 with 1 - 2 a thousand times wider than any flow."""
    chain = _arrays([(0, 1), (1, 2), (2, 3)], [100e9, 1e15, 90e9])
    cut = min_cut(chain, [0], [3])
    assert (cut.value_Bps, cut.links) == (90e9, ((2, 3),))


@pytest.mark.parametrize("scale", [1e-6, 1 / 3, 1e18])
def test_rates_of_any_magnitude_keep_their_precision(scale: float) -> None:
    ring = _arrays([(0, 1), (1, 2), (2, 3), (3, 0)], np.array([1.0, 1.7, 1.1, 1.3]) * scale)
    assert max_flow(ring, [0], [2]) == pytest.approx(2.1 * scale, rel=1e-9)


def test_parallel_wires_add_up_and_parts_that_are_not_joined_have_no_flow() -> None:
    w = _arrays([(0, 1), (1, 0), (0, 1), (2, 3)], [50e9, 25e9, 5e9, 50e9])
    assert max_flow(w, [0], [1]) == 80e9
    cut = min_cut(w, [0, 1], [2, 3])
    assert (cut.value_Bps, cut.links, cut.side) == (0.0, (), frozenset({0, 1}))
    assert max_flow(_arrays([(0, 1)], [0.0]), [0], [1]) == 0.0


def test_a_directed_link_carries_one_way_only() -> None:
    g: nx.DiGraph[str] = nx.DiGraph()
    g.add_nodes_from("ab", kind="accelerator")
    g.add_edge("a", "b", bandwidth_Bps=50e9, latency_s=0.0)
    assert (max_flow(g, ["a"], ["b"]), max_flow(g, ["b"], ["a"])) == (50e9, 0.0)


def test_all_faults_of_the_sets_are_named_at_once() -> None:
    w = _arrays([(0, 1), (1, 2)], [50e9, -1.0])
    with pytest.raises(SpecError) as caught:
        min_cut(w, [0, 7], [0, 8])
    said = [(fault.field, fault.value, fault.problem) for fault in caught.value.faults]
    assert said == [
        ("sources", 7, "is no node of the graph"),
        ("sinks", 8, "is no node of the graph"),
        ("sinks", 0, "is a source too"),
        ("edge 1 - 2.bandwidth_Bps", -1.0, "is no rate"),
    ]
    with pytest.raises(SpecError, match=r"sources: are empty.*\n.*sinks = 'gpu0': is one name"):
        min_cut(w, [], "gpu0")
    with pytest.raises(SpecError, match="sources = 3: is no position below 3"):
        min_cut(w, np.array([3]), np.array([0]))


# --- splits ----------------------------------------------------------------------------------------------------------


def _fat_tree(domains: int, slots: int, uplinks_Bps: list[float]) -> "nx.Graph[Any]":
    """Domains of `slots` accelerators on a leaf each, leaves on one spine, by uplinks of unlike bandwidth."""
    g: nx.Graph[Any] = nx.Graph()
    for d in range(domains):
        for s in range(slots):
            g.add_node((d, s), kind="accelerator", domain=d, coordinates={"rack": d, "slot": s})
            g.add_edge((d, s), f"leaf{d}", bandwidth_Bps=50 * GB, latency_s=1e-6)
        g.add_edge(f"leaf{d}", "spine", bandwidth_Bps=uplinks_Bps[d], latency_s=1e-6)
    nx.set_node_attributes(g, {n: "switch" for n in g if isinstance(n, str)}, "kind")
    return g


def test_bisection_of_an_oversubscribed_tree_is_its_uplinks() -> None:
    tree = _fat_tree(4, 4, [100 * GB] * 4)
    cut = bisection(tree)
    assert (cut.value_Bps, cut.per_accelerator_Bps) == (200 * GB, 25 * GB)
    assert cut.links == (("leaf0", "spine"), ("leaf1", "spine"))
    assert bisection(tree, [*((0, s) for s in range(4)), "leaf0"]).per_accelerator_Bps == 25 * GB
    left, right = halves(tree)
    assert len(left) == len(right) == 8
    assert [wires(tree).names[i] for i in left] == [(d, s) for d in (0, 1) for s in range(4)]


def test_worst_split_names_the_axis_that_hurts() -> None:
    """All is even, until slots 0 and 1 of every rack hang on a thin cable."""
    tree = _fat_tree(4, 4, [200 * GB] * 4)
    assert list(natural_splits(tree)) == ["order", "domain", "rack", "slot"]
    name, cut = worst_split(tree)
    assert (name, cut.per_accelerator_Bps) == ("order", 50 * GB)
    for d in range(4):
        for s in (0, 1):
            tree.edges[(d, s), f"leaf{d}"]["bandwidth_Bps"] = 10 * GB
    name, cut = worst_split(tree)
    assert (name, cut.per_accelerator_Bps) == ("slot", 10 * GB)


def test_worst_split_of_stated_splits_and_of_arrays() -> None:
    ring = _arrays([(i, (i + 1) % 8) for i in range(8)], [50e9] * 8)
    assert list(natural_splits(ring)) == ["order"]
    splits: dict[str, Nodes] = {"odd": [1, 3, 5, 7], "half": [0, 1, 2, 3], "one": np.array([5])}
    name, cut = worst_split(ring, splits)
    assert (name, cut.value_Bps, cut.per_accelerator_Bps) == ("half", 100e9, 25e9)
    assert isinstance(cut, Cut)


def test_splits_that_leave_a_side_empty_are_refused() -> None:
    tree = _fat_tree(1, 1, [50 * GB])
    with pytest.raises(SpecError, match="fewer than two accelerators"):
        halves(tree)
    pair = _fat_tree(2, 1, [50 * GB] * 2)
    with pytest.raises(SpecError, match="left: holds 0 of 2 accelerators"):
        bisection(pair, ["spine"])
    with pytest.raises(SpecError, match="left = 'nobody'"):
        bisection(pair, ["nobody"])
    with pytest.raises(SpecError, match="splits: are empty"):
        worst_split(pair, {})
