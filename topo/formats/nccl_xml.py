"""NCCL's topology as XML: what ``NCCL_TOPO_DUMP_FILE`` writes and ``NCCL_TOPO_FILE`` reads.

Read as NCCL reads it (NVIDIA/nccl, src/graph/xml.cc and topo.cc): a tree of PCIe devices under each ``<cpu>`` (a NUMA
node), GPUs by class 0x03 or a ``<gpu>`` inside, NICs by a ``<nic>``; NVLinks from each GPU to a GPU, a switch (class
0x068000) or its CPU (0x068001); all CPUs of a host joined. Two things differ. Bandwidths are those of the wire, where
NCCL uses measured ones. And each switch that the file names stays a node, where NCCL makes one of all.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from topo.formats.base import Figures, Imported, Source, Unused, add_link, checked
from topo.formats.xmltree import Element, parse_xml

if TYPE_CHECKING:
    import networkx as nx

DEFAULT_RATES = {
    "sm60": 20e9,  # NVLink 1 (NVIDIA P100 whitepaper: 40 GB/s of both directions)
    "sm70": 25e9,  # NVLink 2 (V100 whitepaper: 50 GB/s of both directions)
    "sm80": 25e9,  # NVLink 3 (A100 whitepaper: 12 links, 600 GB/s of both directions)
    "sm86": 14.0625e9,  # NVLink 3, four links of a bridge (RTX A6000 data sheet: 112.5 GB/s of both directions)
    "sm90": 25e9,  # NVLink 4 (H100 page: 18 links, 900 GB/s of both directions)
    "sm100": 50e9,  # NVLink 5 (B200 page: 18 links, 1.8 TB/s of both directions)
    "SYS": 24e9,  # between NUMA nodes (NCCL topo.h, AMD_ZEN34_BW; its table runs from 6 to 40 GB/s)
    "LOC": 5000e9,  # a NIC without PCIe, a link inside a PCIe switch (NCCL topo.h, LOC_BW)
}
"""Bytes/s per direction: of one NVLink by the GPU's `sm`; of what the file gives no speed for."""

DEFAULT_LATENCIES = {
    "nvlink": 0.6e-6,  # GPU to GPU (NCCL tuning.cc, hwLatencies: NVLink, LL)
    "pci": 0.5e-6,  # half of GPU to GPU over PCIe (NCCL tuning.cc, hwLatencies: PCI, LL, 1.0 us): two edges make one
    "SYS": 0.0,
    "LOC": 0.0,
}
"""Seconds: of an NVLink from GPU to GPU; of a GPU's or NIC's own PCIe link (links further up add none)."""

_SPEED = re.compile(r"\s*(\d+(?:\.\d+)?) GT/s")
_USED = {  # what NCCL reads or prints of each element; all else is reported
    "system": {"cpu"},
    "cpu": {"pci", "nic"},
    "pci": {"pci", "gpu", "nic", "pcilink"},
    "gpu": {"nvlink", "c2c"},
    "nic": {"net"},
}


def pcie_bandwidth(gigatransfers: float, lanes: int) -> float:
    """Return what a PCIe link carries per direction: transfers × lanes × coding / 8 bits.

    Coding is 8b/10b up to 5 GT/s, 128b/130b up to 32 GT/s, and 242 of 256 bytes of a flit at 64 GT/s (PCI-SIG, PCI
    Express Base Specifications 3.0 and 6.0).

    Examples
    --------
    >>> pcie_bandwidth(16, 16) / 1e9
    31.50769230769231
    """
    coding = 0.8 if gigatransfers <= 5 else 128 / 130 if gigatransfers <= 32 else 242 / 256
    return gigatransfers * 1e9 * lanes * coding / 8


@dataclass
class _System:
    """The graph while it grows, GPUs by bus, CPUs by host, NVLinks by their two ends, and what couldn't be used."""

    source: Source
    rates: Figures
    latencies: Figures
    graph: "nx.Graph[Any]"
    many: bool
    gpus: dict[tuple[int, str], str] = field(default_factory=dict)
    gpu_elements: list[tuple[str, Element, str, int]] = field(default_factory=list)
    pcilinks: list[tuple[str, Element, int]] = field(default_factory=list)
    cpus: dict[int, list[str]] = field(default_factory=dict)
    nvlinks: dict[tuple[str, str], int] = field(default_factory=dict)
    where: dict[str, int] = field(default_factory=dict)
    unused: list[Unused] = field(default_factory=list)

    def drop(self, element: Element, why: str) -> None:
        """Report an element and all that is in it."""
        self.unused.append(self.source.unused(element.line, why))
        for child in element.children:
            self.drop(child, f"stands in <{element.tag}> of line {element.line}, which is not used")

    def add(self, host: int, name: str, kind: str, element: Element, **more: Any) -> str:
        """Add a node under a name of its own."""
        full = f"host{host}/{name}" if self.many else name
        if full in self.graph:
            raise self.source.error(element.line, f"repeats {name} of line {self.where[f'node {full}']}", "rename one")
        domain = host if kind == "accelerator" else None
        self.graph.add_node(full, kind=kind, domain=domain, part="", **more)
        self.where[f"node {full}"] = element.line
        return full

    def number(self, element: Element, name: str, default: int | None = None) -> int:
        """Return a whole number among the attributes."""
        text = element.attributes.get(name)
        if text is None and default is not None:
            return default
        try:
            return int(text or "", 0)
        except ValueError:
            raise self.source.error(
                element.line, f"<{element.tag}> needs a whole number {name}", f'write {name}="1"', text
            ) from None

    def word(self, element: Element, name: str) -> str:
        """Return an attribute that must be there."""
        text = element.attributes.get(name, "")
        if not text:
            raise self.source.error(element.line, f"<{element.tag}> has no {name}", f"expected {name}=…")
        return text


def read(source: Source, rates: Figures, latencies: Figures) -> Imported:
    """Return the hosts of a topology file: NUMA nodes, PCIe switches, GPUs, NICs and NVLink switches.

    GPUs are named by rank (``gpu3``) or, without one, by bus. Where ``host_hash`` tells several hosts apart, names
    start with ``host0/``; NVLink switches are shared, as in NCCL. The speed of a NIC's ports is its `network_Bps`:
    the file doesn't say what they lead to.

    Raises
    ------
    SpecError
        With the line, where the XML or an attribute is malformed or the version isn't 1.

    Examples
    --------
    >>> text = '''<system version="1">
    ...   <cpu numaid="0">
    ...     <pci busid="0000:07:00.0" class="0x030200" link_speed="16.0 GT/s PCIe" link_width="16">
    ...       <gpu dev="0" sm="80" rank="0" gdr="1"/>
    ...     </pci>
    ...   </cpu>
    ... </system>'''
    >>> graph = read(Source("a.xml", text), DEFAULT_RATES, DEFAULT_LATENCIES).graph
    >>> [(a, b, f"{held['bandwidth_Bps']:.3g}") for a, b, held in graph.edges(data=True)]
    [('cpu0', 'gpu0', '3.15e+10')]
    """
    import networkx as nx

    root = parse_xml(source, "system")
    if root.attributes.get("version") != "1":
        raise source.error(
            root.line, "is not version 1", 'expected <system version="1">', root.attributes.get("version")
        )
    cpus = [child for child in root.children if child.tag == "cpu"]
    hashes = list(dict.fromkeys(cpu.attributes.get("host_hash", "") for cpu in cpus))
    system = _System(source, rates, latencies, nx.Graph(), len(hashes) > 1)
    for child in _known(system, root):
        _cpu(system, child, hashes.index(child.attributes.get("host_hash", "")))
    for gpu, element, cpu, host in system.gpu_elements:
        _gpu_links(system, gpu, element, cpu, host)
    for switch, element, host in system.pcilinks:
        _pcilink(system, switch, element, host)
    return checked(source, system.graph, system.unused, system.where)


def _known(system: _System, element: Element) -> Iterator[Element]:
    """Yield the children that the format has; report the others."""
    for child in element.children:
        if child.tag in _USED.get(element.tag, ()):
            yield child
        else:
            system.drop(child, f"<{child.tag}> in <{element.tag}> says nothing of the wiring")


def _cpu(system: _System, cpu: Element, host: int) -> None:
    name = system.add(host, f"cpu{system.number(cpu, 'numaid')}", "host", cpu)
    for other in system.cpus.setdefault(host, []):
        add_link(system.graph, other, name, system.rates["SYS"], system.latencies["SYS"])
    system.cpus[host].append(name)
    for child in _known(system, cpu):
        if child.tag == "pci":
            _pci(system, child, name, name, host)
        else:
            _nic(system, child, f"nic-{child.line}", name, (system.rates["LOC"], system.latencies["LOC"]), host)


def _pci(system: _System, pci: Element, parent: str, cpu: str, host: int) -> None:
    bus, group = system.word(pci, "busid"), system.word(pci, "class")
    inside = list(_known(system, pci))
    children = {tag: [child for child in inside if child.tag == tag] for tag in _USED["pci"]}
    rate_Bps = _pci_rate(system, pci)
    link = (rate_Bps, system.latencies["pci"])
    if children["gpu"] or group.startswith("0x0302"):
        for gpu in children["gpu"] or [pci]:
            rank = gpu.attributes.get("rank")
            name = system.add(host, f"gpu{rank}" if rank else f"gpu-{bus}", "accelerator", gpu, busid=bus)
            system.gpus.setdefault((host, bus.lower()), name)
            add_link(system.graph, parent, name, *link)
            if gpu is not pci:
                system.gpu_elements.append((name, gpu, cpu, host))
    elif children["nic"] or group.startswith("0x02"):
        _nic(system, (children["nic"] or [pci])[0], f"nic-{bus}", parent, link, host)
    elif children["pci"] or children["pcilink"]:
        name = system.add(host, f"pci-{bus}", "switch", pci, busid=bus)
        add_link(system.graph, parent, name, rate_Bps, 0.0)
        for child in children["pci"]:
            _pci(system, child, name, cpu, host)
        system.pcilinks += [(name, child, host) for child in children["pcilink"]]
        return
    else:
        system.drop(pci, "leads to no GPU and no NIC")
        return
    for child in (*children["nic"][1:], *children["pci"], *children["pcilink"]):
        system.drop(child, "stands in a GPU or NIC")


def _pci_rate(system: _System, pci: Element) -> float:
    """Return a device's bandwidth; without a known speed 8 GT/s, without a width 16 lanes, as NCCL takes it."""
    text = pci.attributes.get("link_speed", "")
    found = _SPEED.match(text)
    lanes = system.number(pci, "link_width", 0)
    speed = float(found[1]) if found else 0.0
    if not speed or lanes <= 0:
        system.unused.append(
            system.source.unused(pci.line, f"link_speed {text!r}, link_width {lanes}: unknown is 8 GT/s and 16 lanes")
        )
    return pcie_bandwidth(speed or 8.0, lanes if lanes > 0 else 16)


def _nic(system: _System, nic: Element, name: str, parent: str, link: tuple[float, float], host: int) -> None:
    nets = list(_known(system, nic)) if nic.tag == "nic" else []
    speeds = [system.number(net, "speed", 0) for net in nets]
    for net, speed in zip(nets, speeds, strict=True):
        if speed <= 0:
            system.unused.append(system.source.unused(net.line, "gives no speed: 10000 Mb/s, as NCCL takes it"))
    ports = [net.attributes.get("name", "") for net in nets]
    more: dict[str, Any] = {"ports": ports} if ports else {}
    if speeds:
        more["network_Bps"] = sum(speed if speed > 0 else 10_000 for speed in speeds) * 1e6 / 8
    label = ports[0] if ports and ports[0] and not _taken(system, ports[0], host) else name
    node = system.add(host, label, "nic", nic, **more)
    add_link(system.graph, parent, node, *link)


def _taken(system: _System, name: str, host: int) -> bool:
    return (f"host{host}/{name}" if system.many else name) in system.graph


# --- NVLink, C2C and links between PCIe switches -----------------------------------------------------------------------


def _gpu_links(system: _System, gpu: str, element: Element, cpu: str, host: int) -> None:
    sm = f"sm{element.attributes.get('sm', '')}"
    rate_Bps = system.rates.get(sm, system.rates["sm80"])
    latency_s = system.latencies["nvlink"]
    nvlinks = [child for child in _known(system, element) if child.tag == "nvlink"]
    if nvlinks and sm not in system.rates:
        known = ", ".join(key for key in system.rates if key.startswith("sm"))
        system.unused.append(system.source.unused(element.line, f"{sm} is none of {known}: taken as sm80, as in NCCL"))
    for child in element.children:
        if child.tag == "c2c":
            links = system.number(child, "count")
            bandwidth_Bps = links * system.number(child, "bw") * 1e6  # NCCL: bw × count / 1000 is GB/s
            if bandwidth_Bps <= 0:
                raise system.source.error(child.line, "joins with no bandwidth", "expected count and bw above 0")
            add_link(system.graph, cpu, gpu, bandwidth_Bps, latency_s, links=links)
    for child in nvlinks:
        links = system.number(child, "count")
        if links < 1:
            raise system.source.error(child.line, "joins with no link", "expected count of 1 or more", links)
        far = _nvlink_end(system, child, cpu, host)
        if far is None or far == gpu:
            system.unused.append(system.source.unused(child.line, "its target is no other GPU of this file"))
            continue
        direct = system.graph.nodes[far]["kind"] == "accelerator"
        told = system.nvlinks.get((far, gpu)) if direct else None
        if told is None:
            system.nvlinks[gpu, far] = system.nvlinks.get((gpu, far), 0) + links
            seconds = latency_s if direct else latency_s / 2
            add_link(system.graph, gpu, far, links * rate_Bps, seconds, links=links, plane="scale-up")
        elif told != links:
            raise system.source.error(child.line, f"counts {links} links, {far} counts {told}", "mend one")


def _nvlink_end(system: _System, link: Element, cpu: str, host: int) -> str | None:
    target, group = system.word(link, "target"), system.word(link, "tclass")
    if group.startswith("0x03"):
        return system.gpus.get((host, target.lower()))
    if group == "0x068001":
        return cpu
    name = f"nvswitch-{target}"
    if name not in system.graph:
        system.graph.add_node(name, kind="switch", domain=0, part="", busid=target)
        system.where[f"node {name}"] = link.line
    return name


def _pcilink(system: _System, switch: str, link: Element, host: int) -> None:
    name = f"pci-{system.word(link, 'target')}"
    far = f"host{host}/{name}" if system.many else name
    if far not in system.graph or far == switch:
        system.unused.append(system.source.unused(link.line, "its target is no other PCIe switch of this file"))
    elif not system.graph.has_edge(switch, far):
        add_link(system.graph, switch, far, system.rates["LOC"], system.latencies["LOC"])
