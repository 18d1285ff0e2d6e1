"""``ibnetdiscover``: every switch and channel adapter of an InfiniBand subnet, and what each of their ports leads to.

The file knows no accelerators: **each channel adapter stands for the accelerator behind it** (kind accelerator), and
adapters of one host name share a `domain`. A switch's aggregation node, which the tool lists as one more adapter, says
that the switch sums on the way (`in_network_reduction`); it is no node of its own.

Format: linux-rdma/rdma-core, infiniband-diags/ibnetdiscover.c (``out_switch``, ``out_ca``, ``out_switch_port``,
``out_ca_port``, ``dump_linkspeedext_compat``, ``dump_topology``) and its man page's "Topology file format". Names of HDR
switches and lines without a rate: NVIDIA/topograph, pkg/ib/ib_test.go. Aggregation nodes as in the filters of public
scripts around ``ibnetdiscover -p`` ("Mellanox Technologies Aggregation Node").
"""

import re
from dataclasses import dataclass, field
from typing import Any

from topo.errors import SpecError
from topo.formats.base import Figures, Imported, Source, Unused, add_link, checked

DEFAULT_RATES = {
    # Bits/s of data per lane / 8: InfiniBand Trade Association roadmap; 8b/10b to QDR, 64b/66b from FDR10 on.
    "SDR": 2e9 / 8,
    "DDR": 4e9 / 8,
    "QDR": 8e9 / 8,
    "FDR10": 10e9 / 8,
    "FDR": 14.0625e9 * 64 / 66 / 8,
    "EDR": 25e9 / 8,
    "HDR": 50e9 / 8,
    "NDR": 100e9 / 8,
    "XDR": 200e9 / 8,
    "???": 0.0,  # what the tool prints of a speed newer than itself: must be given
}
"""Bytes/s per direction of one lane of each speed."""

DEFAULT_LATENCIES = {
    "link": 130e-9,  # one switch on the way (NVIDIA Quantum QM8700 product brief: below 130 ns from port to port)
}
"""Seconds from end to end of a link."""

_KINDS = {"Switch": "S", "Ca": "H", "Rt": "R"}
_IDS = re.compile(r"^(vendid|devid|sysimgguid|switchguid|caguid|rtguid)=(0x[0-9a-fA-F]+)(\([0-9a-fA-F]+\))?\s*(#.*)?$")
_NODE = re.compile(r'^(Switch|Ca|Rt)\s+(\d+)\s+"([^"]+)"\s*(?:#\s*"(.*)"(.*))?$')
_PORT = re.compile(
    r"^\[(\d+)\](?:\[ext \d+\])?(?:\(([0-9a-fA-F]+)\))?\s*"
    r'"([^"]+)"\[(\d+)\](?:\[ext \d+\])?\s*(?:\(([0-9a-fA-F]+)\))?\s*(?:#\s*(.*))?$'
)
_RATE = re.compile(r"\b(1|2|4|8|12)x(\?\?\?|[A-Z]+\d*)(?=\s|$)")
_NAME = re.compile(r'"(.*)"')
_HEADING = re.compile(r"^(Chassis \d+|Non-Chassis Nodes|Hostname:)")
_AGGREGATION = "Aggregation Node"


@dataclass
class _Fabric:
    """Nodes by GUID name, each end of each link with its line, ids waiting for the record that they stand before."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    where: dict[str, int] = field(default_factory=dict)
    ports: dict[tuple[str, int], tuple[str, int, str, int]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    owner: str = ""
    unused: list[Unused] = field(default_factory=list)


def read(source: Source, rates: Figures, latencies: Figures) -> Imported:
    """Return the subnet: switches, adapters as accelerators, and links with their widths and speeds.

    Nodes carry the names of the file (``S-…``, ``H-…``) and their description as `label`. A link is listed from both
    ends; a peer without a record of its own is taken from the line that names it, and that line is reported.

    Raises
    ------
    SpecError
        With the line, where a record is malformed, the ends of a link disagree, or a rate is unknown.

    Examples
    --------
    >>> text = '''Switch 2 "S-01" # "leaf" base port 0 lid 1 lmc 0
    ... [1] "H-0a"[1](a) # "n1 mlx5_0" lid 2 4xNDR
    ... [2] "H-0b"[1](b) # "n2 mlx5_0" lid 3 4xNDR
    ... '''
    >>> found = read(Source("a", text), DEFAULT_RATES, DEFAULT_LATENCIES)
    >>> found.graph.edges["S-01", "H-0a"]["bandwidth_Bps"], len(found.unused)
    (50000000000.0, 2)
    """
    fabric = _Fabric()
    for number, line in enumerate(source.lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            _line(source, fabric, number, text)
    if fabric.ids:
        raise source.error(len(source.lines), "ends before the record of these ids", "give the whole output")
    if not fabric.nodes:
        raise source.error(1, "holds no record", 'expected Switch or Ca, a number of ports and "S-…" or "H-…"')
    return _graph(source, fabric, rates, latencies)


def _line(source: Source, fabric: _Fabric, number: int, text: str) -> None:
    if found := _IDS.match(text):
        fabric.ids[found[1]] = found[2]
        fabric.owner = ""
    elif found := _NODE.match(text):
        _record(source, fabric, number, found)
    elif text.startswith("["):
        _port(source, fabric, number, text)
    elif re.match(r"^(Switch|Ca|Rt|vendid|devid|sysimgguid|\w+guid)\b", text):
        raise source.error(number, "is cut short", 'expected e.g. Switch 40 "S-…" # "name" base port 0 lid 1 lmc 0')
    else:
        why = "is a heading" if _HEADING.match(text) else "is no id, record or port"
        fabric.unused.append(source.unused(number, why))


def _record(source: Source, fabric: _Fabric, number: int, found: re.Match[str]) -> None:
    kind, ports, name = found[1], int(found[2]), found[3]
    if f"node {name}" in fabric.where:
        raise source.error(number, f"repeats {name} of line {fabric.where[f'node {name}']}", "keep one record")
    fabric.where[f"node {name}"] = number
    fabric.nodes[name] = {"letter": _KINDS[kind], "label": found[4] or "", "ports": ports, **fabric.ids}
    fabric.ids, fabric.owner = {}, name


def _port(source: Source, fabric: _Fabric, number: int, text: str) -> None:
    found = _PORT.match(text)
    rate = None if found is None else _RATE.search((found[6] or "").rpartition('"')[2])
    if found is None or rate is None:
        problem = "is cut short or malformed" if found is None else "gives no width and speed"
        raise source.error(number, problem, 'expected e.g. [1] "S-…"[23] # "name" lid 1 4xHDR')
    if not fabric.owner:
        raise source.error(number, "is a port of no record", "expected Switch, Ca or Rt before it")
    here = (fabric.owner, int(found[1]))
    if here in fabric.ports:
        raise source.error(number, f"repeats port {found[1]} of line {fabric.ports[here][3]}", "keep one")
    fabric.ports[here] = (found[3], int(found[4]), rate[0], number)


def _peers(source: Source, fabric: _Fabric) -> None:
    """Add the peers that have no record, from the lines that name them."""
    for far, _, _, number in list(fabric.ports.values()):
        if far not in fabric.nodes:
            label = _NAME.search(source.lines[number - 1].partition("#")[2])
            fabric.nodes[far] = {"letter": far[:1], "label": label[1] if label else ""}
            fabric.where[f"node {far}"] = number
            fabric.unused.append(source.unused(number, f"{far} has no record of its own: taken from this line"))


def _graph(source: Source, fabric: _Fabric, rates: Figures, latencies: Figures) -> Imported:
    import networkx as nx

    _peers(source, fabric)
    graph: nx.Graph[Any] = nx.Graph()
    summing = set()
    for name, held in fabric.nodes.items():
        letter, more = held["letter"], {key: value for key, value in held.items() if key != "letter"}
        if letter == "H" and _AGGREGATION in held["label"]:
            summing.add(name)
        elif letter == "H":
            host, _, adapter = held["label"].partition(" ")
            graph.add_node(name, kind="accelerator", domain=host or None, part="", adapter=adapter, **more)
        else:
            graph.add_node(name, kind="switch", domain=None, part="", **more)
    faults = []
    for (near, port), (far, far_port, rate, number) in fabric.ports.items():
        back = fabric.ports.get((far, far_port))
        if back is not None and back[:3] != (near, port, rate):
            faults.append(
                source.fault(number, f"leads to {far}[{far_port}], which line {back[3]} says otherwise", "mend one")
            )
        elif near == far:
            fabric.unused.append(source.unused(number, "joins a node to itself"))
        elif near in summing or far in summing:
            for node in {near, far} & set(graph):
                graph.nodes[node]["in_network_reduction"] = True
        elif back is None or (near, port) < (far, far_port):
            bandwidth_Bps = _bandwidth(source, number, rate, rates)
            add_link(graph, near, far, bandwidth_Bps, latencies["link"], link=rate, plane="scale-out")
    if faults:
        raise SpecError(faults)
    return checked(source, graph, fabric.unused, fabric.where)


def _bandwidth(source: Source, number: int, rate: str, rates: Figures) -> float:
    width, speed = rate.split("x", 1)
    if not rates.get(speed):
        remedy = f"give rates={{{speed!r}: bytes per second of a lane}}"
        raise source.error(number, "has a speed without a figure", remedy, rate)
    return int(width) * rates[speed]
