"""The attribute schema and its check."""

import networkx as nx
import pytest

from topo.builders import ScaleOut, cluster_blueprint
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.graphs import expand
from topo.schema import SCHEMA, validate


def _pair() -> "nx.Graph[str]":
    graph: nx.Graph[str] = nx.Graph()
    graph.add_node("a", kind="accelerator")
    graph.add_node("b", kind="accelerator")
    graph.add_edge("a", "b", bandwidth_Bps=1e9, latency_s=0.0)
    return graph


def test_a_minimal_graph_and_every_built_graph_pass() -> None:
    validate(_pair())
    validate(expand(cluster_blueprint("x", 3, ScaleUp(4, 9e11, 1e-6, "nvlink", switches=2), ScaleOut(5e10, "ib"))))


def test_one_accelerator_alone_passes() -> None:
    graph: nx.Graph[str] = nx.Graph()
    graph.add_node("a", kind="accelerator")
    validate(graph)


@pytest.mark.parametrize("name", [attribute.name for attribute in SCHEMA if attribute.on == "edge"])
def test_a_wrong_edge_attribute_is_named(name: str) -> None:
    graph = _pair()
    graph.edges["a", "b"][name] = None
    with pytest.raises(SpecError, match=name):
        validate(graph)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "400Gb/s", True])
def test_a_bandwidth_that_is_no_positive_number_is_refused(value: object) -> None:
    graph = _pair()
    graph.edges["a", "b"]["bandwidth_Bps"] = value
    with pytest.raises(SpecError, match="bytes per second above 0"):
        validate(graph)


def test_all_faults_come_at_once() -> None:
    graph = _pair()
    graph.add_node("c", kind="accelerator")
    graph.add_node("d")
    graph.add_node("e", kind="toaster", part=3)
    graph.add_edge("a", "a", bandwidth_Bps=1.0, latency_s=-1.0)
    graph.add_edge("d", "e")
    with pytest.raises(SpecError) as caught:
        validate(graph)
    problems = str(caught.value)
    for word in (
        "node d.kind",
        "toaster",
        "e.part",
        "latency_s = -1.0",
        "d - e.bandwidth_Bps",
        "itself",
        "joined to nothing",
    ):
        assert word in problems


def test_accelerators_that_cannot_reach_each_other_are_found() -> None:
    graph = nx.union(_pair(), nx.relabel_nodes(_pair(), {"a": "c", "b": "d"}))
    with pytest.raises(SpecError, match=r"node c: cannot reach a and back \(2 such"):
        validate(graph)
    one_way = nx.DiGraph(_pair())
    one_way.remove_edge("a", "b")
    with pytest.raises(SpecError, match="cannot reach"):
        validate(one_way)


def test_a_graph_without_accelerators_is_refused() -> None:
    graph: nx.Graph[str] = nx.Graph()
    graph.add_node("s", kind="switch")
    with pytest.raises(SpecError, match="hold no accelerator"):
        validate(graph)
