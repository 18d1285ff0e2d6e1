"""Round trips of node-link JSON and GraphML, against NetworkX's own readers."""

import json
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.blueprint import KINDS, PLANES
from topo.errors import SpecError
from topo.formats import read, write

FILES = Path(__file__).parent / "formats"
BOTH = ("node-link", "graphml")

names = st.one_of(st.text(min_size=1), st.integers(), st.tuples(st.text(), st.integers(0, 9)))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=5,
)
extras = st.dictionaries(st.from_regex(r"[a-z]{3,8}_[a-z]{1,4}", fullmatch=True), values, max_size=3)


@st.composite
def graphs(draw: st.DrawFn) -> "nx.Graph[Any]":
    """Return a connected graph that follows the schema, with attributes and names of every kind."""
    graph: nx.Graph[Any] = nx.Graph() if draw(st.booleans()) else nx.DiGraph()
    nodes = draw(st.lists(names, min_size=1, max_size=6, unique_by=(repr, hash)))
    for node in nodes:
        kind = "accelerator" if node == nodes[0] else draw(st.sampled_from(KINDS))
        graph.add_node(node, kind=kind, domain=draw(st.sampled_from([None, 0, "a", (0, 1)])), part="p", **draw(extras))
    for i, node in enumerate(nodes[1:], 1):
        other = draw(st.sampled_from(nodes[:i]))
        for a, b in [(node, other), (other, node)]:
            if not graph.has_edge(a, b):
                held = {"latency_s": draw(st.floats(0, 1)), "plane": draw(st.sampled_from(PLANES))}
                graph.add_edge(a, b, bandwidth_Bps=draw(st.floats(1e-9, 1e15)), **held, **draw(extras))
    graph.graph.update(draw(extras))
    return graph


@pytest.mark.parametrize("form", BOTH)
@given(graph=graphs())
@settings(max_examples=50, deadline=None)
def test_what_is_written_reads_as_the_same_graph(
    tmp_path_factory: pytest.TempPathFactory, form: str, graph: "nx.Graph[Any]"
) -> None:
    path = tmp_path_factory.mktemp("graphs") / "graph"
    write(graph, path, form)
    back = read(path, form)
    assert not back.unused
    assert nx.utils.graphs_equal(back.graph, graph)
    assert type(back.graph) is type(graph)
    assert back.graph.graph == graph.graph
    assert [type(node) for node in back.graph] == [type(node) for node in graph]


@pytest.mark.parametrize("form", BOTH)
def test_not_a_number_and_keys_of_any_kind_come_back(form: str, tmp_path: Path) -> None:
    graph = read(FILES / "pair.graphml").graph
    graph.nodes["a"]["odd"] = {0: float("nan"), (1, 2): float("inf"), "__tuple__": [1]}
    write(graph, tmp_path / "a", form)
    odd = read(tmp_path / "a", form).graph.nodes["a"]["odd"]
    assert repr(odd) == repr(graph.nodes["a"]["odd"])


def test_networkx_reads_what_is_written(tmp_path: Path) -> None:
    graph = read(FILES / "hgx.txt").graph
    for node in graph:
        graph.nodes[node].pop("domain")
    write(graph, tmp_path / "a.graphml", "graphml")
    back = nx.read_graphml(tmp_path / "a.graphml")
    back.graph.clear()
    assert nx.utils.graphs_equal(back, graph)
    write(graph, tmp_path / "a.json", "node-link")
    assert nx.utils.graphs_equal(
        nx.node_link_graph(json.loads((tmp_path / "a.json").read_text()), edges="edges"), graph
    )


@pytest.mark.parametrize("edges", ["links", "edges"])
def test_what_networkx_writes_is_read(edges: str, tmp_path: Path) -> None:
    graph = read(FILES / "hybrid-mesh.txt").graph
    text = json.dumps(nx.node_link_data(graph, edges=edges), indent=1)
    assert nx.utils.graphs_equal(read(text).graph, graph)
    for node in graph:
        graph.nodes[node].pop("domain")
    nx.write_graphml(graph, tmp_path / "a.graphml")
    assert nx.utils.graphs_equal(read(tmp_path / "a.graphml").graph, graph)


@pytest.mark.parametrize("name", ["pair.json", "pair.graphml"])
def test_a_hand_written_file_is_read(name: str) -> None:
    graph = read(FILES / name).graph
    assert graph.nodes["s"]["kind"] == "switch"
    assert graph.edges["a", "s"]["bandwidth_Bps"] == (1e11 if name == "pair.json" else 5e10)
    assert graph.edges["a", "s"]["latency_s"] == 1e-6


def test_parallel_edges_of_json_are_summed() -> None:
    graph = read(FILES / "pair.json").graph
    assert graph.edges["a", "s"]["links"] == 2
    assert ("b", 0) in graph


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        ("pair.json", '"kind": "switch"', '"kind": "swich"', "line 5, node s.kind = 'swich'"),
        ("pair.json", '"bandwidth_Bps": 1e11', '"bandwidth_Bps": -1', r"line 10, edge .* - s.bandwidth_Bps = -1"),
        ("pair.json", '"id": "s"', '"name": "s"', "line 5: has no 'id'"),
        ("pair.json", '"target": "s", "key": 1', '"target": "t", "key": 1', "line 9: leads to t, which is no node"),
        ("pair.json", '"id": "s"', '"id": "a"', "line 5: repeats node a"),
        ("pair.json", '"id": "s"', '"id": {"s": []}', "line 5: 'id' is no name"),
        ("pair.json", '"kind": "switch"', '"kind": "x", "kind": "y"', "line 5: says 'kind' twice"),
        ("pair.json", '"id": "s", ', '"id": "s" ', "line 5: is not JSON"),
        ("pair.json", '"links"', '"arcs"', "line 1: holds no edges"),
        ("pair.graphml", ">switch<", ">swich<", "line 11, node s.kind = 'swich'"),
        ("pair.graphml", ">5e10<", ">fast<", "line 12, found = 'fast': is no double"),
        ("pair.graphml", 'source="b"', 'source="c"', "line 13: leads to c, which is no node"),
        ("pair.graphml", 'id="s"', 'id="a"', "line 11: repeats node a"),
        ("pair.graphml", 'id="s"', "", "line 11: <node> has no id"),
        ("pair.graphml", 'key="d1"', 'key="d9"', "line 12: <data> has a key"),
        ("pair.graphml", 'type="double"', 'type="decimal"', "line 4, found = 'decimal': has an unknown"),
        ("pair.graphml", "</graph>", "</grph>", "line 14: is not XML inside <graph>"),
    ],
)
def test_a_wrong_file_names_its_line(name: str, old: str, new: str, problem: str) -> None:
    text = (FILES / name).read_text()
    assert old in text
    with pytest.raises(SpecError, match=problem):
        read(text.replace(old, new, 1))


def test_an_attribute_that_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    graph = read(FILES / "pair.graphml").graph
    graph.nodes["a"]["id"] = 3
    with pytest.raises(SpecError, match=r"node a\.id = 3: has a name that this format takes"):
        write(graph, tmp_path / "a", "node-link")
    graph.nodes["a"]["id"] = object()
    for form in ("graphml", "infragraph"):
        with pytest.raises(SpecError, match="holds a object, which JSON cannot"):
            write(graph, tmp_path / "a", form)
