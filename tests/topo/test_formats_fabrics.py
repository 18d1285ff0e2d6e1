"""Fabrics from ibnetdiscover, and from and to ASTRA-sim and infragraph."""

import json
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.errors import SpecError
from topo.formats import astra_sim, read, write
from topo.formats.astra_sim import BLOCKS, Dimension, expand, recognise

FILES = Path(__file__).parent / "formats"
SUBNET = (FILES / "subnet.topo").read_text()
CLUSTER = (FILES / "cluster.yaml").read_text()
POD = (FILES / "pod.yml").read_text()
LEAF, SPINE = "S-2c5eab0300000a01", "S-2c5eab0300000b01"


# --- ibnetdiscover ---------------------------------------------------------------------------------------------------


def test_parallel_links_are_summed_and_each_is_counted_once() -> None:
    graph = read(FILES / "subnet.topo").graph
    assert graph.edges[LEAF, SPINE]["bandwidth_Bps"] == 2 * 400e9 / 8
    assert graph.edges[LEAF, SPINE]["links"] == 2
    assert graph.edges[LEAF, "H-a088c20300000c03"]["bandwidth_Bps"] == 200e9 / 8
    assert graph.nodes["H-a088c20300000c03"]["domain"] == "node2"
    assert graph.nodes["H-a088c20300000c03"]["adapter"] == "mlx5_0"
    assert graph.nodes[LEAF]["devid"] == "0xd2f2"


def test_an_aggregation_node_makes_its_switch_sum() -> None:
    graph = read(FILES / "subnet.topo").graph
    assert [node for node in graph if graph.nodes[node].get("in_network_reduction")] == [LEAF]
    assert "H-2c5eab0300000a09" not in graph


def test_a_peer_without_a_record_comes_from_the_line_that_names_it() -> None:
    found = read(FILES / "subnet.topo")
    assert found.graph.nodes["H-a088c20300000c04"]["label"] == "node2 mlx5_1"
    (one,) = found.unused
    assert "has no record of its own" in one.why


@pytest.mark.parametrize(
    ("rate", "gigabits"),
    [("4xSDR", 8), ("4xQDR", 32), ("4xFDR10", 40), ("4xFDR", 54.5454), ("1xEDR", 25), ("12xHDR", 600)],
)
def test_rates_are_those_of_data(rate: str, gigabits: float) -> None:
    graph = read(SUBNET.replace("4xNDR", rate)).graph
    assert graph.edges[LEAF, SPINE]["bandwidth_Bps"] == pytest.approx(2 * gigabits * 1e9 / 8, rel=1e-5)


def test_a_speed_newer_than_the_tool_needs_a_rate() -> None:
    text = SUBNET.replace("4xNDR", "4x???")
    with pytest.raises(SpecError, match=r"line 23, found = '4x\?\?\?': has a speed without a figure"):
        read(text)
    assert read(SUBNET.replace("4xNDR", "4xXDR")).graph.edges[LEAF, SPINE]["bandwidth_Bps"] == 2e11
    assert read(text, rates={"???": 25e9}).graph.edges[LEAF, SPINE]["bandwidth_Bps"] == 2e11


def test_grouping_and_full_output_are_read() -> None:
    text = SUBNET.replace("lid 3 4xNDR", "lid 3 4xNDR s=4 w=2 v=4").replace("[33]", "[33][ext 9]", 1)
    found = read("Chassis 1 (guid 0x1)\n\n# Spine Nodes" + text)
    assert found.graph.number_of_edges() == 6
    assert found.unused[0].why == "is a heading"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('Switch\t64 "S-', "Switch\t64 S-", "line 10: is cut short"),
        ("lid 1 4xNDR", "lid 1", "line 11: gives no width and speed"),
        ('[1]\t"S-', "[1]\t", "line 11: is cut short or malformed"),
        ("[2]\t", "[1]\t", "line 12: repeats port 1 of line 11"),
        ('"[34]', '"[33]', "line 12: leads to S-2c5eab0300000a01.33., which line 2[0-9] says otherwise"),
        ("Ca\t1", "Xx\t1", "repeats|ends before|no record"),
    ],
)
def test_a_wrong_subnet_names_its_line(old: str, new: str, problem: str) -> None:
    assert old in SUBNET
    with pytest.raises(SpecError, match=problem):
        read(SUBNET.replace(old, new, 1), "ibnetdiscover")


# --- ASTRA-sim -------------------------------------------------------------------------------------------------------


def test_a_gigabyte_is_two_to_the_thirtieth() -> None:
    graph = read(FILES / "pod.yml").graph
    assert graph.edges["npu0", "npu1"]["bandwidth_Bps"] == 200 * 2**30
    assert graph.edges["npu0", "npu2"] == {
        "bandwidth_Bps": 100 * 2**30, "latency_s": 500 * 1e-9, "link": "", "links": 1,
    }  # fmt: skip
    assert sorted(graph["switch2.3"]) == ["npu11", "npu3"]


dimensions = st.lists(
    st.builds(
        Dimension,
        st.sampled_from(BLOCKS),
        st.integers(2, 5),
        st.integers(1, 400).map(lambda g: float(g) * astra_sim.GIGABYTE),
        st.integers(0, 3000).map(lambda ns: ns * 1e-9),
    ),
    min_size=1,
    max_size=3,
).map(tuple)


@given(dimensions)
@settings(max_examples=50, deadline=None)
def test_what_is_written_reads_as_the_same_graph(
    tmp_path_factory: pytest.TempPathFactory, dims: tuple[Dimension, ...]
) -> None:
    path = tmp_path_factory.mktemp("astra") / "net.yml"
    graph = expand(dims)
    write(graph, path, "astra-sim")
    back = read(path)
    assert not back.unused
    assert {frozenset(edge) for edge in back.graph.edges} == {frozenset(edge) for edge in graph.edges}
    for a, b, held in graph.edges(data=True):
        assert back.graph.edges[a, b]["bandwidth_Bps"] == held["bandwidth_Bps"]
        assert back.graph.edges[a, b]["latency_s"] == pytest.approx(held["latency_s"], rel=1e-9)


def test_a_torus_of_any_origin_is_recognised() -> None:
    grid = nx.grid_graph((4, 6), periodic=True)
    graph: nx.Graph[Any] = nx.convert_node_labels_to_integers(grid, ordering="sorted")
    nx.set_node_attributes(graph, dict.fromkeys(graph, "accelerator"), "kind")
    nx.set_edge_attributes(graph, {e: {"bandwidth_Bps": 5e10, "latency_s": 1e-6} for e in graph.edges})
    assert [(one.block, one.size) for one in recognise(graph)] == [("Ring", 4), ("Ring", 6)]


def _edited(change: Any) -> "nx.Graph[Any]":
    graph = expand((Dimension("Ring", 4, 5e10, 5e-7), Dimension("Switch", 2, 1e10, 1e-6)))
    change(graph)
    return graph


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda g: g.remove_edge("npu0", "npu1"), "no product"),
        (lambda g: g.edges["npu4", "npu5"].update(bandwidth_Bps=1.0), "no product"),
        (lambda g: g.nodes["switch1.0"].update(kind="nic"), "holds switch1.0 of kind nic"),
        (lambda g: g.add_edge("switch1.0", "switch1.1", bandwidth_Bps=1.0, latency_s=0.0), "joins switch"),
    ],
)
def test_a_graph_that_is_no_product_is_refused_with_the_reason(change: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=problem):
        write(_edited(change), tmp_path / "net.yml", "astra-sim")


def test_a_directed_graph_is_refused(tmp_path: Path) -> None:
    for form in ("astra-sim", "infragraph"):
        with pytest.raises(SpecError, match="directed"):
            write(nx.DiGraph(expand((Dimension("Ring", 4, 1.0, 0.0),))), tmp_path / "net", form)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("Ring,", "Torus,", "line 2, found = 'Torus': topology holds a wrong value. write one of Ring"),
        ("[ 2, 4, 2 ]", "[ 2, 4 ]", "line 3: npus_count has 2 entries for 3 dimensions"),
        ("[ 2, 4, 2 ]", "[ 2, 4, 1 ]", "line 3, found = 1: npus_count holds"),
        ("200.0,", "0,", "line 4, found = 0: bandwidth holds"),
        ("50.0, 500.0", "-1, fast", "line 5, found = -1: latency holds(.|\n)*found = 'fast'"),
        ("latency:", "latencies:", "gives no list latency"),
        ("[ 2, 4, 2 ]", "[ 2, 4, 2", "line 4: is not YAML"),
        ("npus_count", "topology", "line 3: says 'topology' twice"),
        ("[ 2, 4, 2 ]", "[ 2, 99999, 2 ]", "line 3: stands for more than 5000000 links"),
    ],
)
def test_a_wrong_network_file_names_its_line(old: str, new: str, problem: str) -> None:
    assert old in POD
    with pytest.raises(SpecError, match=problem):
        read(POD.replace(old, new, 1), "astra-sim")


# --- infragraph ------------------------------------------------------------------------------------------------------


def test_slices_compositions_and_schemes_expand() -> None:
    graph = read(FILES / "cluster.yaml", rates={"pcie": 3e10}, latencies={"pcie": 1e-7}).graph
    assert sorted(graph["server.1.nvlsw.0"]) == [f"server.1.xpu.{i}" for i in range(4)]
    assert graph.has_edge("server.0.xpu.2", "server.0.card.1.asic.0")
    assert not graph.has_edge("server.0.xpu.2", "server.0.card.0.asic.0")
    assert sorted(graph["server.1.cpu.0"]) == ["server.1.card.0.asic.0", "server.1.card.1.asic.0"]
    assert graph.edges["server.1.card.1.port.0", "leaf.0.port.3"] == {
        "bandwidth_Bps": 50e9, "latency_s": 0.5e-6, "link": "optics", "links": 1,
    }  # fmt: skip
    assert graph.edges["server.0.cpu.0", "server.0.card.0.asic.0"]["latency_s"] == 1e-7
    assert graph.nodes["server.1.xpu.3"]["domain"] == "server.1"
    assert graph.nodes["server.1.card.0.asic.0"]["kind"] == "nic"


def test_yaml_and_json_are_the_same_file() -> None:
    text = json.dumps({"infrastructure": yaml.safe_load(CLUSTER)}, indent=1)
    assert nx.utils.graphs_equal(read(text, rates={"pcie": 3e10}).graph, read(CLUSTER, rates={"pcie": 3e10}).graph)


def test_a_link_without_a_bandwidth_needs_a_rate() -> None:
    with pytest.raises(SpecError, match="line 20: link pcie has no bandwidth"):
        read(FILES / "cluster.yaml")
    with pytest.raises(SpecError, match="no link of this file"):
        read(FILES / "cluster.yaml", rates={"pcie": 3e10, "pci": 1.0})


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("device: box", "device: bix", "line 44: no device is called bix. known: box, card, leaf"),
        ("choice: xpu", "choice: gpu", "line 7, found = 'gpu': component xpu has no known choice"),
        ("xpu[0:4:2]", "xpu[0:5:2]", "line 20: 'xpu.0:5:2.' reaches past the 4"),
        ("xpu[0:4:2]", "xpu[a]", "line 20: 'xpu.a.' holds no slice"),
        ("component: nvlsw", "component: sw", "line 19: 'sw' names nothing here"),
        ("card[0:2].asic[0]", "card[0:2]", "line 20: 'card.0:2.' ends at a device"),
        ("scheme: one2one", "scheme: ring", "line 20, found = 'ring': has a scheme that"),
        ("link: fabric", "link: fibre", "line 19: no link is called fibre. known: fabric, pcie"),
        (
            "gigabytes_per_second: 450",
            "gigabytes: 450",
            "line 14, found = 'gigabytes_per_second': bandwidth has no figure",
        ),
        ("name: asic, count: 1, choice: nic", "name: card, count: 1, choice: device", "device card is in itself"),
        ("count: 2}", "count: 0}", "line 44, found = 0: gives no count"),
        ("  edges:", "  connections:", "schema 0.x"),
    ],
)
def test_a_wrong_infrastructure_names_its_line(old: str, new: str, problem: str) -> None:
    assert old in CLUSTER
    with pytest.raises(SpecError, match=problem):
        read(CLUSTER.replace(old, new, 1), "infragraph", rates={"pcie": 3e10})


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_infragraph_gives_back_what_was_written(ending: str, tmp_path: Path) -> None:
    graph = read(FILES / "hgx.txt").graph
    graph.add_node(("site", 1), kind="site", part="hall", in_network_reduction=False, at=(0, None))
    graph.add_edge(("site", 1), "host0", bandwidth_Bps=1e9, latency_s=1e-3, link="fibre", plane="scale-out")
    write(graph, tmp_path / f"a.{ending}", "infragraph")
    back = read(tmp_path / f"a.{ending}")
    assert not back.unused
    assert nx.utils.graphs_equal(back.graph, graph)
    assert list(back.graph) == list(graph)


def test_what_is_written_is_infragraphs_own_form_without_our_descriptions(tmp_path: Path) -> None:
    graph = read(FILES / "hgx.txt").graph
    write(graph, tmp_path / "a.json", "infragraph")
    document = json.loads((tmp_path / "a.json").read_text())
    for row in (*document["devices"][0]["components"], *document["devices"][0]["links"]):
        del row["description"]
    plain = read(json.dumps(document)).graph
    assert sorted(d for _, d in plain.degree()) == sorted(d for _, d in graph.degree())
    assert sum(plain.edges[e]["bandwidth_Bps"] for e in plain.edges) == pytest.approx(
        sum(graph.edges[e]["bandwidth_Bps"] for e in graph.edges)
    )
    assert nx.could_be_isomorphic(plain, graph)
