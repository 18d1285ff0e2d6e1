"""Hosts from nvidia-smi's matrix and NCCL's XML."""

from pathlib import Path

import networkx as nx
import pytest

from topo.errors import SpecError
from topo.formats import nccl_xml, nvidia_smi, read

FILES = Path(__file__).parent / "formats"
HGX = (FILES / "hgx.txt").read_text()
DIRECT = (FILES / "direct.xml").read_text()


def _matrix(size: int, word: str) -> str:
    names = [f"GPU{i}" for i in range(size)]
    rows = ["\t".join([a, *("X" if a == b else word for b in names)]) for a in names]
    return "\t" + "\t".join(names) + "\n" + "\n".join(rows) + "\n"


# --- nvidia-smi ------------------------------------------------------------------------------------------------------


def test_equal_words_of_eight_gpus_are_a_switch() -> None:
    graph = read(FILES / "hgx.txt", rates={"nvlink": 25e9}).graph
    held = graph.edges["GPU3", "nvswitch0"]
    assert held["bandwidth_Bps"] == 18 * 25e9
    assert held["links"] == 18
    assert held["plane"] == "scale-up"
    assert sorted(graph["nvswitch0"]) == [f"GPU{i}" for i in range(8)]
    assert graph.nodes["NIC2"] == {"kind": "nic", "domain": None, "part": "", "device": "mlx5_4"}
    assert graph.nodes["GPU5"]["cpu_affinity"] == "48-95,144-191"
    assert graph.nodes["GPU5"]["gpu_numa_id"] == "N/A"


def test_words_of_nics_give_the_tree_that_nvlinks_hide() -> None:
    graph = read(FILES / "hgx.txt").graph
    tree = graph.subgraph(node for node in graph if node != "nvswitch0")
    assert nx.is_tree(tree)
    assert nx.shortest_path(tree, "GPU0", "NIC0") == ["GPU0", "pxb0", "NIC0"]
    assert nx.shortest_path(tree, "GPU0", "GPU2") == ["GPU0", "pxb0", "numa0", "pxb1", "GPU2"]
    assert nx.shortest_path(tree, "GPU0", "NIC3") == ["GPU0", "pxb0", "numa0", "host0", "numa1", "pxb3", "NIC3"]
    assert graph.nodes["pxb0"]["kind"] == "switch"
    assert graph.nodes["numa0"]["kind"] == graph.nodes["host0"]["kind"] == "host"


def test_unequal_words_are_a_mesh() -> None:
    graph = read(FILES / "hybrid-mesh.txt").graph
    assert graph.edges["GPU0", "GPU3"]["bandwidth_Bps"] == 2 * graph.edges["GPU0", "GPU1"]["bandwidth_Bps"]
    assert not graph.has_edge("GPU0", "GPU5")
    links = {node: 0 for node in graph if node.startswith("GPU")}
    for a, b, held in graph.edges(data=True):
        if held.get("plane") == "scale-up":
            links[a] += held["links"]
            links[b] += held["links"]
    assert set(links.values()) == {6}
    assert nx.shortest_path(graph, "GPU0", "mlx5_0") == ["GPU0", "pix0", "mlx5_0"]


@pytest.mark.parametrize(
    ("size", "word", "switched"),
    [(2, "NV12", False), (4, "NV4", False), (4, "NV6", False), (4, "NV18", True), (8, "NV6", True), (16, "NV6", True)],
)
def test_a_mesh_of_more_links_than_a_gpu_has_is_a_switch(size: int, word: str, switched: bool) -> None:
    assert ("nvswitch0" in read(_matrix(size, word)).graph) is switched


@pytest.mark.parametrize("word", ["PIX", "PXB", "PHB", "NODE", "SYS", "SOC", "PSB"])
def test_each_pcie_word_joins_at_its_level(word: str) -> None:
    graph = read(_matrix(3, word)).graph
    (top,) = set(graph) - {"GPU0", "GPU1", "GPU2"}
    level = {"SOC": "SYS", "PSB": "PIX"}.get(word, word)
    assert graph.nodes[top]["kind"] == nvidia_smi.KINDS_OF_LEVELS[level]
    limit = min(nvidia_smi.DEFAULT_RATES["PIX"], nvidia_smi.DEFAULT_RATES[level])
    assert graph.edges["GPU1", top]["bandwidth_Bps"] == limit


def test_one_gpu_alone_is_a_host() -> None:
    assert list(read("\tGPU0\tCPU Affinity\nGPU0\t X \t0-7\n").graph) == ["GPU0"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("GPU3\tNV18\tNV18", "GPU3\tNV18", "line 5, found = 'X': holds a wrong word in the column of GPU2"),
        ("GPU3\tNV18", "GPU3\tNV17", "line 5: says NV17 of GPU0, whose row says NV18"),
        ("GPU3\tNV18", "GPU3\tNVX", "line 5, found = 'NVX': holds a wrong word in the column of GPU0"),
        ("NIC3\tSYS", "NIC4\tSYS", "ends before the rows of NIC3"),
        ("\nGPU7\t", "\nGPU7\nGPU7\t", "line 9: has 0 of 12 words"),
    ],
)
def test_a_wrong_matrix_names_its_line(old: str, new: str, problem: str) -> None:
    assert old in HGX
    with pytest.raises(SpecError, match=problem):
        read(HGX.replace(old, new, 1), "nvidia-smi")


def test_a_matrix_that_ends_early_names_what_is_missing() -> None:
    with pytest.raises(SpecError, match="ends before the rows of GPU6, GPU7, NIC0, NIC1"):
        read("\n".join(HGX.split("\n")[:7]) + "\n")


def test_a_second_matrix_and_shell_lines_are_reported() -> None:
    found = read(f"$ nvidia-smi topo -m\n{HGX}\n{HGX}")
    whys = [one.why for one in found.unused]
    assert whys[0] == "stands before the matrix"
    assert len(whys) == 1 + 1 + 12  # the second header and its rows; its legend is the same


# --- NCCL ------------------------------------------------------------------------------------------------------------


def test_nvlinks_of_each_switch_stay_apart() -> None:
    graph = read(FILES / "nvswitch.xml").graph
    switches = [node for node in graph if node.startswith("nvswitch")]
    assert [graph.edges["gpu2", node]["links"] for node in switches] == [2, 4, 6]
    assert sum(graph.edges["gpu2", node]["bandwidth_Bps"] for node in switches) == 300e9
    assert graph.nodes["mlx5_1"]["network_Bps"] == 25e9
    assert graph.nodes["eth0"]["network_Bps"] == 1.25e9
    assert nx.shortest_path(graph, "gpu0", "mlx5_0") == ["gpu0", "pci-0000:00:00.0", "mlx5_0"]
    assert graph.edges["cpu0", "cpu1"]["bandwidth_Bps"] == nccl_xml.DEFAULT_RATES["SYS"]


def test_pcie_links_carry_what_the_wire_does() -> None:
    graph = read(FILES / "nvswitch.xml").graph
    assert graph.edges["gpu0", "pci-0000:00:00.0"]["bandwidth_Bps"] == pytest.approx(31.5e9, rel=1e-3)
    assert graph.edges["cpu0", "eth0"]["bandwidth_Bps"] == pytest.approx(15.75e9, rel=1e-3)
    assert nccl_xml.pcie_bandwidth(2.5, 1) == 0.25e9
    assert nccl_xml.pcie_bandwidth(64, 16) == pytest.approx(121e9)


def test_direct_nvlinks_are_one_edge_and_c2c_adds_to_pcie() -> None:
    graph = read(DIRECT).graph
    assert graph.edges["gpu0", "gpu1"]["bandwidth_Bps"] == 100e9
    assert graph.edges["gpu0", "gpu1"]["links"] == 4
    extra = graph.edges["cpu0", "gpu0"]["bandwidth_Bps"] - graph.edges["cpu0", "gpu1"]["bandwidth_Bps"]
    assert extra == pytest.approx(447.12e9)
    assert graph.edges["cpu0", "veth"]["bandwidth_Bps"] == nccl_xml.DEFAULT_RATES["LOC"]


def test_hosts_of_a_fused_file_share_switches_and_nothing_else() -> None:
    text = (FILES / "nvswitch.xml").read_text()
    cpu = text[text.index("  <cpu") : text.rindex("</system>")]
    other = cpu.replace("0x8393fb66b8b750c5", "0x1").replace('rank="', 'rank="1')
    graph = read(f'<system version="1">\n{cpu}{other}</system>\n').graph
    assert "host0/gpu0" in graph
    assert "host1/gpu10" in graph
    assert not graph.has_edge("host0/cpu0", "host1/cpu0")
    assert len(graph["nvswitch-0000:c4:00.0"]) == 8
    assert graph.nodes["host1/gpu10"]["domain"] == 1


def test_a_file_for_nccl_without_gpu_elements_is_read() -> None:
    text = DIRECT.replace('<gpu dev="0"', '<ignored dev="0"').replace("</gpu>", "</ignored>", 1)
    found = read(text)
    assert "gpu-0000:01:00.0" in found.graph
    assert sum("not used" in one.why or "says nothing" in one.why for one in found.unused) == 4


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('version="1"', 'version="2"', "line 2, found = '2': is not version 1"),
        ('numaid="0"', "", "line 3: <cpu> needs a whole number numaid"),
        ('busid="0000:02:00.0" ', "", "line 11: <pci> has no busid"),
        ('link_width="16"', 'link_width="wide"', "line 4, found = 'wide': <pci> needs a whole number link_width"),
        (
            'count="4" tclass="0x030200"/>\n      </gpu>',
            'count="3" tclass="0x030200"/>\n      </gpu>',
            "line 13: counts 3",
        ),
        ('rank="1"', 'rank="0"', "line 12: repeats gpu0 of line 5"),
        ("</gpu>", "</cpu>", "line 9: is not XML inside <gpu>"),
        ("<system", "<!DOCTYPE a [<!ENTITY b 'c'>]>\n<system", "line 2: declares a document type"),
        ("system", "graphs", "is not <system>"),
    ],
)
def test_a_wrong_xml_names_its_line(old: str, new: str, problem: str) -> None:
    assert old in DIRECT
    with pytest.raises(SpecError, match=problem):
        read(DIRECT.replace(old, new), "nccl-xml")


def test_entities_are_never_expanded() -> None:
    bomb = '<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY x "xxxxxxxx"><!ENTITY y "&x;&x;&x;">]>\n<graphml>&y;</graphml>'
    for form in ("nccl-xml", "graphml"):
        with pytest.raises(SpecError, match="document type"):
            read(bomb, form)
