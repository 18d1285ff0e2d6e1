"""Least cuts and lightest paths without a graph library, against NetworkX on the same orbits."""

from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo import orbitcuts
from topo.blueprint import Blueprint
from topo.builders import ScaleOut, cluster_blueprint
from topo.domains import ScaleUp
from topo.orbitcuts import cut, lightest
from topo.orbits import OrbitGraph, as_graph, orbit_graph

GB = 1e9
WIRES = st.dictionaries(st.tuples(*[st.sampled_from("abcdefgh")] * 2), st.integers(0, 9), max_size=30)


def cluster(domains: int, oversubscription: float) -> Blueprint:
    up = ScaleUp(8, 900 * GB, 1e-6, "nvlink", switches=4)
    return cluster_blueprint("c", domains, up, ScaleOut(50 * GB, "ib", radix=8, oversubscription=oversubscription))


def block_and_rest(found: OrbitGraph) -> tuple[list[str], list[str]]:
    ends = {name: member for name, member in found.members.items() if member.node.kind == "accelerator"}
    mine = [name for name, member in ends.items() if member.orbit.cells["domain"]]
    return mine, [name for name in ends if name not in mine]


def test_a_cut_is_the_sum_of_what_crosses_it() -> None:
    found = orbit_graph(cluster(9, 1.0), [{"unit": 0, "domain": 0}])
    assert cut(found, *block_and_rest(found)) == 8 * 50 * GB


def test_what_is_not_joined_has_no_flow() -> None:
    found = orbit_graph(cluster(9, 1.0), [{"unit": 0, "domain": 0}])
    assert cut(OrbitGraph(found.members, ()), *block_and_rest(found)) == 0


@given(WIRES)
@settings(max_examples=80, deadline=None)
def test_the_flow_is_that_of_networkx(capacity: dict[tuple[str, str], int]) -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from("abcdefgh<>")
    graph.add_edges_from((u, v, {"capacity": most}) for (u, v), most in capacity.items())
    graph.add_edges_from([("<", "a"), ("<", "b"), ("g", ">"), ("h", ">")])
    assert orbitcuts._flow(capacity, "ab", "gh") == nx.maximum_flow_value(graph, "<", ">")


@given(st.integers(9, 24), st.sampled_from([1.0, 2.0, 3.0]))
@settings(max_examples=20, deadline=None)
def test_the_path_is_as_light_as_that_of_networkx(domains: int, oversubscription: float) -> None:
    found = orbit_graph(cluster(domains, oversubscription), [{"unit": 0, "domain": 0}])
    left, right = block_and_rest(found)
    path = lightest(found, left, right)
    taken_s = sum(found.joints[ends].latency_s for ends in pairwise(path))
    least_s = nx.multi_source_dijkstra_path_length(as_graph(found), set(left), weight="latency_s")
    assert taken_s == pytest.approx(min(least_s[orbit] for orbit in right))
    assert (path[0] in left, path[-1] in right) == (True, True)


def test_scipy_finds_the_same_where_arcs_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    found = orbit_graph(cluster(9, 2.0), [{"unit": 0, "domain": 0}])
    few = cut(found, *block_and_rest(found))
    monkeypatch.setattr(orbitcuts, "_MANY_JOINTS", 0)
    assert cut(found, *block_and_rest(found)) == few > 0
