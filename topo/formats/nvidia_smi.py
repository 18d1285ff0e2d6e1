"""``nvidia-smi topo -m``: one host as a matrix of words, one for each pair of GPUs and NICs.

The words are nested: a pair within one PCIe bridge (PIX) is within the same host bridge (PHB), NUMA node (NODE) and
host (SYS). So each word draws classes of devices, and the classes are the nodes of the PCIe tree. ``NV#`` says that #
NVLinks join a pair, and hides the PCIe word of that pair; what the NICs and the NUMA column say of the two stands in.

Format: the output and its legend as pasted in NVIDIA/nccl issues 933, 1505, 1737, deepseek-ai/DeepEP issue 145 (NIC
columns, NUMA columns, NIC Legend), NVIDIA/nccl-tests issue 78 and kubernetes/kubernetes issue 53497 (older: mlx5_0,
mlx4_0 columns, no NUMA column); the header's underline as escape codes: NVIDIA/daqiri pull request 31.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from topo.errors import SpecError
from topo.formats.base import Figures, Imported, Source, Unused, add_link, checked

if TYPE_CHECKING:
    import networkx as nx

DEFAULT_RATES = {
    "nvlink": 25e9,  # one NVLink of generations 2 to 4 (NVIDIA H100 page: 18 links, 900 GB/s of both directions)
    "PIX": 16e9 * 16 * 128 / 130 / 8,  # PCIe 4.0 x16: 16 GT/s a lane, 128b/130b (PCI-SIG)
    "PXB": 16e9 * 16 * 128 / 130 / 8,  # the same link between two PCIe switches
    "PHB": 16e9 * 16 * 128 / 130 / 8,  # the same link into a host bridge
    "NODE": 5000e9,  # between host bridges of one NUMA node: no limit (NCCL topo.h, LOC_BW)
    "SYS": 24e9,  # between NUMA nodes (NCCL topo.h, AMD_ZEN34_BW; its table runs from 6 to 40 GB/s)
}
"""Bytes/s per direction: of one NVLink; of the edge that leads up into a class of each word."""

DEFAULT_LATENCIES = {
    "nvlink": 0.6e-6,  # GPU to GPU (NCCL tuning.cc, hwLatencies: NVLink, LL)
    "PIX": 0.5e-6,  # half of GPU to GPU over PCIe (NCCL tuning.cc, hwLatencies: PCI, LL, 1.0 us): two edges make one
    "PXB": 0.0,
    "PHB": 0.0,
    "NODE": 0.0,
    "SYS": 0.0,
}
"""Seconds: of an NVLink from GPU to GPU; of a device's own PCIe link; of each edge further up."""

MAX_NVLINKS = 18
"""NVLinks of a GPU (NVIDIA H100 and B200 pages). More than that in direct meshes must be a switch."""

LEVELS = ("PIX", "PXB", "PHB", "NODE", "SYS")
KINDS_OF_LEVELS = {"PIX": "switch", "PXB": "switch", "PHB": "host", "NODE": "host", "SYS": "host"}
_NODE_NAMES = {"PIX": "pix", "PXB": "pxb", "PHB": "bridge", "NODE": "numa", "SYS": "host"}
_OLDER = {"SOC": "SYS", "PSB": "PIX"}  # words of drivers before 384, and of boards with a switch of their own
_COLUMNS = ("CPU Affinity", "NUMA Affinity", "GPU NUMA ID")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_HEADER = re.compile(r"^\s*GPU\d+(\s|$)")
_LEGEND = re.compile(r"^\s*(X|SYS|SOC|NODE|PHB|PXB|PIX|PSB|NV#)\s*=")
_NIC = re.compile(r"^\s*(NIC\d+)\s*:\s*(\S+)\s*$")
_NVLINKS = re.compile(r"NV(\d{1,3})")


@dataclass
class _Matrix:
    """What the file says: devices in order, the word of each pair and its line, what stands behind the columns."""

    devices: list[str]
    header: int
    words: dict[tuple[str, str], str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    unused: list[Unused] = field(default_factory=list)


def read(source: Source, rates: Figures, latencies: Figures) -> Imported:
    r"""Return one host: GPUs, NICs, the PCIe tree above them, and NVLinks between pairs or to one switch.

    GPUs that all show the same ``NV#`` are joined by an ``nvswitch`` node where direct links would need more than
    `MAX_NVLINKS` a GPU; else by one edge a pair, of # links.

    Raises
    ------
    SpecError
        With the line, where a row is missing, short, not symmetric or holds a word that the legend doesn't.

    Examples
    --------
    >>> text = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV2\t0-19\nGPU1\tNV2\t X \t0-19\n"
    >>> graph = read(Source("a", text), DEFAULT_RATES, DEFAULT_LATENCIES).graph
    >>> graph.edges["GPU0", "GPU1"]["bandwidth_Bps"], list(graph["host0"])
    (50000000000.0, ['GPU0', 'GPU1'])
    """
    import networkx as nx

    matrix = _parse(source)
    graph: nx.Graph[Any] = nx.Graph()
    for device in matrix.devices:
        gpu = device.startswith("GPU")
        held = {"domain": 0} if gpu else {"domain": None}
        graph.add_node(
            device, kind="accelerator" if gpu else "nic", part="", **held, **matrix.attributes.get(device, {})
        )
    _nvlinks(graph, matrix, rates["nvlink"], latencies["nvlink"])
    _tree(graph, matrix, rates, latencies)
    where = {f"node {device}": line for device, line in matrix.rows.items()}
    return checked(source, graph, matrix.unused, where)


def _parse(source: Source) -> _Matrix:
    lines = [_ESCAPE.sub("", line) for line in source.lines]
    at = next((i for i, line in enumerate(lines) if _HEADER.match(line) and "X" not in line.split()), None)
    if at is None:
        raise source.error(1, "holds no header", "expected a line that starts with GPU0")
    devices = _devices(source, lines[at], at + 1)
    matrix = _Matrix(devices, at + 1)
    matrix.unused += [source.unused(i + 1, "stands before the matrix") for i in range(at) if lines[i].strip()]
    columns = [name for name in _COLUMNS if name in " ".join(lines[at].split())]
    for number, line in enumerate(lines[at + 1 :], at + 2):
        cells = line.split()
        if not cells:
            continue
        if cells[0] in devices and cells[0] not in matrix.rows:
            _row(source, matrix, number, cells, columns)
        elif nic := _NIC.match(line):
            matrix.attributes.setdefault(nic[1], {})["device"] = nic[2]
            if nic[1] not in devices:
                matrix.unused.append(source.unused(number, f"the matrix has no {nic[1]}"))
        elif not _LEGEND.match(line) and line.strip() not in {"Legend:", "NIC Legend:"}:
            matrix.unused.append(source.unused(number, "is no row of the matrix and no word of its legend"))
    missing = [device for device in devices if device not in matrix.rows]
    if missing:
        raise source.error(len(lines), f"ends before the rows of {', '.join(missing[:4])}", "give the whole output")
    _symmetric(source, matrix)
    return matrix


def _devices(source: Source, header: str, number: int) -> list[str]:
    devices: list[str] = []
    for word in header.split():
        if word in {"CPU", "NUMA", "GPU"}:
            break
        devices.append(word)
    if len(set(devices)) < len(devices):
        raise source.error(number, "names a device twice", "give one matrix")
    return devices


def _row(source: Source, matrix: _Matrix, number: int, cells: list[str], columns: list[str]) -> None:
    device, words = cells[0], cells[1 : 1 + len(matrix.devices)]
    if len(words) < len(matrix.devices):
        raise source.error(
            number, f"has {len(words)} of {len(matrix.devices)} words", "expected one word for each device"
        )
    for other, cell in zip(matrix.devices, words, strict=True):
        word = _OLDER.get(cell, cell)
        if (word == "X") != (other == device) or (word not in {"X", *LEVELS} and not _NVLINKS.fullmatch(word)):
            raise source.error(
                number,
                f"holds a wrong word in the column of {other}",
                "expected X on the diagonal, else NV# or one of " + ", ".join(LEVELS),
                cell,
            )
        matrix.words[device, other] = word
    matrix.rows[device] = number
    behind = cells[1 + len(matrix.devices) :]
    if len(behind) <= len(columns):
        held = {name.lower().replace(" ", "_"): text for name, text in zip(columns, behind, strict=False)}
        matrix.attributes.setdefault(device, {}).update(held)
    else:
        matrix.unused.append(Unused(number, " ".join(behind), "stands behind the columns that the header names"))


def _symmetric(source: Source, matrix: _Matrix) -> None:
    faults = [
        source.fault(
            matrix.rows[b], f"says {matrix.words[b, a]} of {a}, whose row says {matrix.words[a, b]} of {b}", "mend one"
        )
        for a, b in combinations(matrix.devices, 2)
        if matrix.words[a, b] != matrix.words[b, a]
    ]
    if faults:
        raise SpecError(faults)


# --- NVLink ----------------------------------------------------------------------------------------------------------


def _nvlinks(graph: "nx.Graph[Any]", matrix: _Matrix, rate_Bps: float, latency_s: float) -> None:
    import networkx as nx

    pairs: nx.Graph[Any] = nx.Graph()
    for a, b in combinations(matrix.devices, 2):
        if found := _NVLINKS.fullmatch(matrix.words[a, b]):
            pairs.add_edge(a, b, links=max(1, int(found[1])))
    switches = 0
    for group in [sorted(one, key=matrix.devices.index) for one in nx.connected_components(pairs)]:
        inside = pairs.subgraph(group)
        counts = {int(held["links"]) for _, _, held in inside.edges(data=True)}
        links = min(counts)
        whole = inside.number_of_edges() == len(group) * (len(group) - 1) // 2 and len(counts) == 1
        if whole and len(group) > 2 and (len(group) - 1) * links > MAX_NVLINKS:
            name = f"nvswitch{switches}"
            switches += 1
            graph.add_node(name, kind="switch", domain=0, part="")
            for device in group:
                add_link(graph, device, name, links * rate_Bps, latency_s / 2, links=links, plane="scale-up")
        else:
            for a, b, held in inside.edges(data=True):
                add_link(graph, a, b, held["links"] * rate_Bps, latency_s, links=held["links"], plane="scale-up")


# --- PCIe ------------------------------------------------------------------------------------------------------------


def _word(matrix: _Matrix, a: str, b: str) -> str | None:
    """Return the PCIe word of a pair, or what the NUMA column says where NVLinks hide it."""
    word = matrix.words[a, b]
    if word in LEVELS:
        return word
    numa = [matrix.attributes.get(device, {}).get("numa_affinity", "N/A") for device in (a, b)]
    return "NODE" if numa[0] == numa[1] != "N/A" else None


def _merged(groups: list[list[str]], joined: Iterator[tuple[str, str]]) -> list[list[int]]:
    """Return which groups (by position) a relation between their members makes one."""
    import networkx as nx

    home = {device: i for i, group in enumerate(groups) for device in group}
    graph: nx.Graph[int] = nx.empty_graph(len(groups))
    graph.add_edges_from((home[a], home[b]) for a, b in joined)
    return [sorted(part) for part in nx.connected_components(graph)]


def _tree(graph: "nx.Graph[Any]", matrix: _Matrix, rates: Figures, latencies: Figures) -> None:
    """Add the classes of each word as nodes, from the narrowest word up; a class of one member needs no node."""
    devices = matrix.devices
    words = {(a, b): _word(matrix, a, b) for a, b in combinations(devices, 2)}
    groups, tops = [[device] for device in devices], list(devices)
    for level in LEVELS:
        joined = (pair for pair, word in words.items() if word == level)
        parts = _merged(groups, joined) if level != "SYS" else [list(range(len(groups)))]
        made = 0
        next_tops = []
        for part in parts:
            if len(part) == 1:
                next_tops.append(tops[part[0]])
                continue
            name = f"{_NODE_NAMES[level]}{made}"
            made += 1
            graph.add_node(name, kind=KINDS_OF_LEVELS[level], domain=None, part="")
            for member in part:
                own = len(groups[member]) == 1
                rate_Bps = min(rates[level], rates["PIX"]) if own else rates[level]
                latency_s = latencies["PIX"] if own else latencies[level]
                add_link(graph, name, tops[member], rate_Bps, latency_s, link="")
            next_tops.append(name)
        groups = [[device for member in part for device in groups[member]] for part in parts]
        tops = next_tops
