"""The network file of ASTRA-sim's analytical backend: dimensions of rings, full meshes and switches, nested.

Format and meaning: astra-sim/astra-network-analytical. ``common/network-parser/NetworkParser.cc``: the four lists and
their limits. ``common/NetworkFunction.cc``: **1 GB is 2^30 B**, so ``50.0`` is 53.7e9 bytes/s. Latencies are ns of each
link (``congestion_aware/network/Link.cc``), so a switch is crossed in two. ``MultiDimTopology.cc``: NPU i has address
i mod n0, i / n0 mod n1, …; each line of NPUs along a dimension is one ring, mesh or switch.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo.errors import Fault, SpecError
from topo.formats.base import MAX_LINKS, Figures, Imported, Source, checked
from topo.formats.located import Located, parse_yaml

if TYPE_CHECKING:
    import networkx as nx

DEFAULT_RATES: dict[str, float] = {}
DEFAULT_LATENCIES: dict[str, float] = {}

GIGABYTE = 2**30
"""Bytes of what this format calls GB (NetworkFunction.cc, ``bw_GBps_to_Bpns``)."""

BLOCKS = ("Ring", "FullyConnected", "Switch")
_LISTS = ("topology", "npus_count", "bandwidth", "latency")


@dataclass(frozen=True)
class Dimension:
    """One dimension: `size` NPUs as a Ring, FullyConnected or Switch, with links of this figure per direction."""

    block: str
    size: int
    bandwidth_Bps: float
    latency_s: float

    def pairs(self) -> list[tuple[int, int]]:
        """Return which NPUs of a line are joined (none, through a switch)."""
        if self.block == "Ring" and self.size > 2:
            return [(i, (i + 1) % self.size) for i in range(self.size)]
        return [] if self.block == "Switch" else list(combinations(range(self.size), 2))

    def links(self) -> int:
        """Count the links of a line."""
        return self.size * (self.size - 1) // 2 if self.block == "FullyConnected" else self.size


def expand(dimensions: tuple[Dimension, ...]) -> "nx.Graph[Any]":
    """Return the product of the dimensions: nodes ``npu0`` …, ``switch1.0`` … (dimension, line).

    Examples
    --------
    >>> graph = expand((Dimension("Ring", 4, 5e10, 5e-7), Dimension("Switch", 2, 1e10, 1e-6)))
    >>> graph.number_of_nodes(), sorted(graph["npu0"])
    (12, ['npu1', 'npu3', 'switch1.0'])
    """
    import networkx as nx

    total = math.prod(one.size for one in dimensions)
    graph: nx.Graph[Any] = nx.Graph()
    graph.add_nodes_from((f"npu{i}" for i in range(total)), kind="accelerator", domain=None, part="")
    stride = 1
    for number, one in enumerate(dimensions):
        held: dict[str, Any] = {"bandwidth_Bps": one.bandwidth_Bps, "latency_s": one.latency_s, "link": "", "links": 1}
        starts = [i for i in range(total) if i // stride % one.size == 0]
        for line, start in enumerate(starts):
            npus = [f"npu{start + k * stride}" for k in range(one.size)]
            graph.add_edges_from(((npus[a], npus[b]) for a, b in one.pairs()), **held)
            if one.block == "Switch":
                graph.add_node(f"switch{number}.{line}", kind="switch", domain=None, part="")
                graph.add_edges_from(((npu, f"switch{number}.{line}") for npu in npus), **held)
        stride *= one.size
    graph.graph["astra_sim"] = [[one.block, one.size] for one in dimensions]
    return graph


def read(source: Source, rates: Figures, latencies: Figures) -> Imported:  # noqa: ARG001 - every reader's signature
    r"""Return the NPUs and switches of a network file.

    Raises
    ------
    SpecError
        With the line, where a list is missing, of another length, or holds what ASTRA-sim refuses.

    Examples
    --------
    >>> text = "topology: [ Switch ]\nnpus_count: [ 8 ]\nbandwidth: [ 400.0 ]\nlatency: [ 936.25 ]"
    >>> read(Source("a.yml", text), {}, {}).graph.edges["npu0", "switch0.0"]["bandwidth_Bps"] == 400 * 2**30
    True
    """
    value = parse_yaml(source)
    if not isinstance(value, Located):
        raise source.error(1, "is no mapping", f"expected the lists {', '.join(_LISTS)}")
    lists = _lists(source, value)
    dimensions = tuple(
        Dimension(block, size, float(bandwidth) * GIGABYTE, float(latency) * 1e-9)
        for block, size, bandwidth, latency in zip(*lists, strict=True)
    )
    total = math.prod(one.size for one in dimensions)
    if sum(total // one.size * one.links() for one in dimensions) > MAX_LINKS:
        raise source.error(value.at("npus_count"), f"stands for more than {MAX_LINKS} links", "give smaller counts")
    unused = [source.unused(value.at(key), "is no key of this format") for key in value if key not in _LISTS]
    return checked(source, expand(dimensions), unused)


def _lists(source: Source, value: Located) -> list[list[Any]]:
    faults = []
    for name in _LISTS:
        held = value.get(name)
        if not isinstance(held, list) or not held:
            faults.append(source.fault(value.at(name), f"gives no list {name}", f"write {name}: [ … ]"))
        elif isinstance(value.get("topology"), list) and len(held) != len(value["topology"]):
            problem = f"{name} has {len(held)} entries for {len(value['topology'])} dimensions"
            faults.append(source.fault(value.at(name), problem, "give one for each"))
        else:
            faults += [
                source.fault(value.at(name), f"{name} holds a wrong value", _RIGHT[name][1], one)
                for one in held
                if not _RIGHT[name][0](one)
            ]
    if faults:
        raise SpecError(faults)
    return [value[name] for name in _LISTS]


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


_RIGHT: dict[str, tuple[Any, str]] = {
    "topology": (lambda v: v in BLOCKS, f"write one of {', '.join(BLOCKS)}"),
    "npus_count": (lambda v: isinstance(v, int) and _real(v) and v > 1, "write a whole number above 1"),
    "bandwidth": (lambda v: _real(v) and v > 0, "write GB/s (2^30 bytes) above 0"),
    "latency": (lambda v: _real(v) and v >= 0, "write ns, 0 or more"),
}


# --- writing ---------------------------------------------------------------------------------------------------------

_Wiring = tuple[dict[tuple[int, int], tuple[float, float]], list[tuple[tuple[int, float, float], ...]]]


def write(graph: "nx.Graph[Any]", path: Path) -> None:
    """Write a graph that is a product of rings, full meshes and switches, its accelerators in ASTRA-sim's order.

    Raises
    ------
    SpecError
        When it is no such product, saying what stands in the way.
    """
    dimensions = recognise(graph)

    def numbers(values: Iterator[float]) -> str:
        return ", ".join(format(value, ".12g") if value % 1 else f"{value:.1f}" for value in values)

    text = "\n".join([
        f"topology: [ {', '.join(one.block for one in dimensions)} ]",
        f"npus_count: [ {', '.join(str(one.size) for one in dimensions)} ]",
        f"bandwidth: [ {numbers(one.bandwidth_Bps / GIGABYTE for one in dimensions)} ]  # GB/s, 1 GB is 2^30 bytes",
        f"latency: [ {numbers(round(one.latency_s * 1e9, 6) for one in dimensions)} ]  # ns",
        "",
    ])  # fmt: skip
    path.write_text(text, encoding="utf-8")


def recognise(graph: "nx.Graph[Any]") -> tuple[Dimension, ...]:
    """Return the dimensions whose product a graph is, with its accelerators in their order.

    Raises
    ------
    SpecError
        When there are none.

    Examples
    --------
    >>> made = (Dimension("Ring", 4, 5e10, 5e-7), Dimension("Switch", 2, 1e10, 1e-6))
    >>> recognise(expand(made)) == made
    True
    """
    wiring = _wiring(graph)
    total = sum(held["kind"] == "accelerator" for _, held in graph.nodes(data=True))
    for dimensions in _candidates(wiring, 1, total):
        if _alike(_wiring(expand(dimensions)), wiring):
            return dimensions
    raise _refusal("is no product of rings, full meshes and switches over its accelerators in their order")


def _refusal(problem: str) -> SpecError:
    return SpecError([Fault("graph", None, problem, "write it as node-link or graphml, which hold any graph")])


def _wiring(graph: "nx.Graph[Any]") -> _Wiring:
    """Return the links of accelerators by position, and each switch as its links."""
    if graph.is_directed():
        raise _refusal("is directed, and ASTRA-sim's links are alike in both directions")
    npus = [node for node, held in graph.nodes(data=True) if held["kind"] == "accelerator"]
    index = {node: i for i, node in enumerate(npus)}
    direct: dict[tuple[int, int], tuple[float, float]] = {}
    switches: dict[Any, list[tuple[int, float, float]]] = {}
    for node, held in graph.nodes(data=True):
        if held["kind"] == "switch":
            switches[node] = []
        elif held["kind"] != "accelerator":
            raise _refusal(f"holds {node} of kind {held['kind']}, and ASTRA-sim knows NPUs and switches only")
    for a, b, held in graph.edges(data=True):
        figures = (float(held["bandwidth_Bps"]), float(held["latency_s"]))
        if a in index and b in index:
            direct[min(index[a], index[b]), max(index[a], index[b])] = figures
        elif a in switches and b in switches:
            raise _refusal(f"joins switch {a} to switch {b}, and ASTRA-sim's switches lead to NPUs only")
        else:
            npu, switch = (a, b) if a in index else (b, a)
            switches[switch].append((index[npu], *figures))
    return direct, sorted(tuple(sorted(links)) for links in switches.values())


def _candidates(wiring: _Wiring, stride: int, total: int) -> Iterator[tuple[Dimension, ...]]:
    """Yield the dimensions from `stride` up that agree with all links of NPU 0."""
    if stride == total:
        yield ()
        return
    direct, switches = wiring
    mine = {b: figures for (a, b), figures in direct.items() if a == 0}
    lines = [links for links in switches if links and links[0][0] == 0]
    for size in (n for n in range(2, total // stride + 1) if total // stride % n == 0):
        line = [k * stride for k in range(size)]
        found = []
        if all(mine.get(b) == mine.get(stride) is not None for b in (line[1], line[-1])):
            found.append(("Ring", *mine[stride]))
        if size > 3 and all(mine.get(b) == mine.get(stride) is not None for b in line[1:]):
            found.append(("FullyConnected", *mine[stride]))
        found += [("Switch", *links[0][1:]) for links in lines if [npu for npu, *_ in links] == line]
        for block, bandwidth_Bps, latency_s in found:
            one = Dimension(block, size, bandwidth_Bps, latency_s)
            for others in _candidates(wiring, stride * size, total):
                yield (one, *others)


def _alike(mine: _Wiring, other: _Wiring) -> bool:
    def close(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return len(a) == len(b) and all(math.isclose(x, y, rel_tol=1e-9) for x, y in zip(a, b, strict=True))

    return (
        mine[0].keys() == other[0].keys()
        and all(close(mine[0][pair], other[0][pair]) for pair in mine[0])
        and len(mine[1]) == len(other[1])
        and all(
            len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
            for a, b in zip(mine[1], other[1], strict=True)
        )
    )
