"""The quotient of any graph by colour refinement: nodes that look alike, however far one looks, become one node.

Two nodes get one colour if their links lead, alike in kind and number, to nodes of one colour: the coarsest equitable
partition. It needs no blueprint, so it serves imported graphs, and graphs with faults.

**What is exact on it** (Grohe, Kersting, Mladenov, Selman, "Dimension reduction via colour refinement", ESA 2014): with
c(A, B) the capacity from all of class A to all of class B, every node of A has c(A, B)/|A| to B, and every node of B
has c(A, B)/|B| from A.

* Maximum flows, and so minimum cuts, from some classes to others. Summed over classes, a flow of the graph is one of the
  quotient. Spread over the links of A to B in proportion to their capacity, a flow F of the quotient is one of the
  graph: it fits, and each node of A sends F(A, B)/|A| and gets F(B, A)/|A|, so it balances wherever F does.
* Distances from a class to any node: where one node of A has a link to B, all have, so paths lift.

Marks make the sets in question classes; hence the graph attribute `exact_between_marks`. **What is not:** questions
inside a class. Two triangles and a hexagon have one quotient, a node with a self-loop, yet only one of them is connected.
"""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topo.blueprint import KINDS
from topo.errors import Fault, SpecError
from topo.wires import Indices, Wires

if TYPE_CHECKING:
    import networkx as nx

    from topo.wires import AnyGraph

Ints = npt.NDArray[np.int64]
Marks = Collection[Hashable] | Mapping[Any, Hashable]
"""Names of nodes that are each told apart, or node name → label: nodes of one label start alike, apart from others."""


@dataclass(frozen=True)
class _NodeKey:
    """What nodes must share to look alike at first sight."""

    kind: str
    part: str = ""
    in_network_reduction: bool = False


@dataclass(frozen=True)
class _LinkKey:
    """What links must share to be alike."""

    bandwidth_Bps: float
    latency_s: float
    link: str = ""
    links: float = 1
    plane: str | None = None


@dataclass(frozen=True)
class _Coded:
    """A graph of numbers: node i looks like ``node_keys[node[i]]``, wire j like ``link_keys[wire[j]]``."""

    names: Any
    node: Ints
    node_keys: list[_NodeKey]
    tail: Indices
    head: Indices
    wire: Ints
    link_keys: list[_LinkKey]
    directed: bool

    @property
    def arcs(self) -> tuple[Indices, Indices, Ints]:
        """Every direction of every wire: from, to, key."""
        if self.directed:
            return self.tail, self.head, self.wire
        ends = np.concatenate([self.tail, self.head]), np.concatenate([self.head, self.tail])
        return *ends, np.tile(self.wire, 2)


def _coded_wires(w: Wires) -> _Coded:
    rates_Bps, rate = np.unique(w.bandwidth_Bps, return_inverse=True)
    delays_s, delay = np.unique(w.latency_s, return_inverse=True)
    pairs, wire = np.unique(rate * np.int64(len(delays_s)) + delay, return_inverse=True)
    keys = [_LinkKey(float(rates_Bps[p // len(delays_s)]), float(delays_s[p % len(delays_s)])) for p in pairs.tolist()]
    return _Coded(
        w.names, w.kind.astype(np.int64), [_NodeKey(kind) for kind in KINDS], w.tail, w.head, wire, keys, w.directed
    )


def _coded(graph: "AnyGraph | Wires") -> _Coded:
    """Return the graph with one number for what is alike, in nodes and in links."""
    if isinstance(graph, Wires):
        return _coded_wires(graph)
    names, edges = list(graph), list(graph.edges(data=True))
    index = {name: i for i, name in enumerate(names)}
    nodes: dict[tuple[Any, ...], int] = {}
    links: dict[tuple[Any, ...], int] = {}
    node = (
        nodes.setdefault((n["kind"], n.get("part", ""), n.get("in_network_reduction", False)), len(nodes))
        for _, n in graph.nodes(data=True)
    )
    wire = (
        links.setdefault(
            (e["bandwidth_Bps"], e["latency_s"], e.get("link", ""), e.get("links", 1), e.get("plane")), len(links)
        )
        for *_, e in edges
    )
    return _Coded(
        names=names,
        node=np.fromiter(node, np.int64, len(names)),
        node_keys=[_NodeKey(*key) for key in nodes],
        tail=np.fromiter((index[u] for u, *_ in edges), np.int32, len(edges)),
        head=np.fromiter((index[v] for _, v, _ in edges), np.int32, len(edges)),
        wire=np.fromiter(wire, np.int64, len(edges)),
        link_keys=[_LinkKey(*key) for key in links],
        directed=graph.is_directed(),
    )


def _marked(names: Any, marks: Marks) -> tuple[Ints, list[Hashable]]:
    """Return the number of each node's label (0 is none), and the labels 1, 2, …; or a SpecError with every fault."""
    if isinstance(marks, str):
        raise SpecError([Fault("marks", marks, "is one name, not a collection", "write a list")])
    wanted = dict(marks) if isinstance(marks, Mapping) else {name: name for name in marks}
    number = np.zeros(len(names), np.int64)
    if not wanted:
        return number, []
    index = {name: i for i, name in enumerate(names)}
    faults = [Fault("marks", name, "is no node of the graph") for name in wanted if name not in index]
    if faults:
        raise SpecError(faults)
    labels = {label: i for i, label in enumerate(dict.fromkeys(wanted.values()), start=1)}
    for name, label in wanted.items():
        number[index[name]] = labels[label]
    return number, list(labels)


# --- refinement ------------------------------------------------------------------------------------------------------


def _by_appearance(colour: npt.NDArray[Any]) -> Ints:
    """Renumber colours 0, 1, … in the order of their first nodes."""
    _, first, which = np.unique(colour, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[which]


def _ranks(rows: list[npt.NDArray[np.uint64]]) -> Ints:
    """Return a number for each row of a table (given by its columns), the same for equal rows."""
    order = np.lexsort(rows)
    changes = np.any([row[order][1:] != row[order][:-1] for row in rows], axis=0)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.concatenate([[0], np.cumsum(changes)])
    return rank


def _stable(colour: Ints, coded: _Coded) -> Ints:
    """Refine colours until no node's links tell it from another of its colour.

    A round sums, over a node's links, (random number of the link's key) × (random number of the neighbour's colour),
    in two independent sets of 64-bit numbers. Equal multisets have equal sums; unlike ones differ, but for a chance
    below 2^-100 for each pair of nodes. The numbers come from a fixed seed.
    """
    near, far, key = coded.arcs
    if coded.directed:  # what comes in counts as well as what goes out
        near, far = np.concatenate([near, far]), np.concatenate([far, near])
        key = np.concatenate([key, key + len(coded.link_keys)])
    order = np.argsort(near, kind="stable")
    far, key = far[order], key[order]
    degree = np.bincount(near, minlength=len(colour))
    joined = np.flatnonzero(degree)
    start = (np.cumsum(degree) - degree)[joined]
    random = np.random.default_rng(0)
    weights = [random.integers(0, 2**64, 2 * len(coded.link_keys), np.uint64)[key] for _ in range(2)]
    count = 0
    while len(joined) and count < (count := int(colour.max()) + 1):
        seen = [colour.astype(np.uint64)]
        for weight in weights:
            seen.append(np.zeros(len(colour), np.uint64))
            seen[-1][joined] = np.add.reduceat(weight * random.integers(0, 2**64, count, np.uint64)[colour][far], start)
        colour = _ranks(seen)
    return colour


def colours(graph: "AnyGraph | Wires", marks: Marks = ()) -> Ints:
    """Return the class of each node in the coarsest equitable partition that respects kinds, parts and marks.

    Nodes of one class agree in `kind`, `part`, `in_network_reduction` and mark, and in how many links of each kind
    (`bandwidth_Bps`, `latency_s`, `link`, `links`, `plane`; out and in) they have to each class. Classes are numbered in
    the order of their first nodes. Arrays (`Wires`) know kind, bandwidth and latency only.

    Examples
    --------
    A path of five: the ends are alike, their neighbours are alike.

    >>> import networkx as nx
    >>> path = nx.path_graph("abcde")
    >>> nx.set_node_attributes(path, "accelerator", "kind")
    >>> nx.set_edge_attributes(path, {edge: {"bandwidth_Bps": 50e9, "latency_s": 1e-6} for edge in path.edges})
    >>> colours(path).tolist(), colours(path, marks=["a"]).tolist()
    ([0, 1, 2, 1, 0], [0, 1, 2, 3, 4])
    """
    coded = _coded(graph)
    return _classes(coded, _marked(coded.names, marks)[0])


def _classes(coded: _Coded, mark: Ints) -> Ints:
    return _by_appearance(_stable(_by_appearance(coded.node + len(coded.node_keys) * mark), coded))


# --- the quotient ----------------------------------------------------------------------------------------------------


def refine(graph: "AnyGraph | Wires", marks: Marks = ()) -> "nx.DiGraph[Any]":
    """Return the quotient of any graph by colour refinement.

    Each class is named after its first member. Nodes carry `multiplicity` (members), `kind`, `part`,
    `in_network_reduction`, `example` (that member's name) and, where marked, `mark` (the label). An edge u→v carries
    `bandwidth_Bps`, the **total** from all members of u to all members of v, `links` (how many in all), and the least
    `latency_s`, with the `link` (and `plane`, if given) of a link that has it. Each direction of a link counts where it
    leads; a self-loop is what a class has inside, both directions. The graph carries `exact_between_marks`.

    Where few nodes are alike the quotient is about as large as the graph: `colours` tells, at less cost.

    Parameters
    ----------
    graph
        Any graph that follows `topo.schema`, or its arrays.
    marks
        Names of nodes that are told apart, or node name → label for sets of nodes. Flows and distances from marked
        sets are exact: see the module.

    Returns
    -------
    nx.DiGraph
        Frozen: copy it before changing it.

    Raises
    ------
    SpecError
        With every mark that names no node.

    Examples
    --------
    A switch and four accelerators, one of which is marked: 3 × 50 GB/s come from the others.

    >>> import networkx as nx
    >>> star = nx.star_graph(4)
    >>> nx.set_node_attributes(star, {n: {"kind": "accelerator" if n else "switch"} for n in star})
    >>> nx.set_edge_attributes(star, {edge: {"bandwidth_Bps": 50e9, "latency_s": 1e-6} for edge in star.edges})
    >>> quotient = refine(star, marks=[4])
    >>> list(quotient.nodes("multiplicity"))
    [(0, 1), (1, 3), (4, 1)]
    >>> [(u, v, rate / 1e9) for u, v, rate in quotient.edges(data="bandwidth_Bps") if v == 0]
    [(1, 0, 150.0), (4, 0, 50.0)]
    """
    import networkx as nx

    coded = _coded(graph)
    mark, labels = _marked(coded.names, marks)
    colour = _classes(coded, mark)
    _, first, members = np.unique(colour, return_index=True, return_counts=True)
    names = [coded.names[i] for i in first.tolist()]
    quotient: nx.DiGraph[Any] = nx.DiGraph(exact_between_marks=True)
    for name, i, count in zip(names, first.tolist(), members.tolist(), strict=True):
        quotient.add_node(name, multiplicity=count, **vars(coded.node_keys[coded.node[i]]), example=name)
        if mark[i]:
            quotient.nodes[name]["mark"] = labels[mark[i] - 1]
    quotient.add_edges_from((names[u], names[v], held) for u, v, held in _between(colour, coded))
    nx.freeze(quotient)
    return quotient


def _between(colour: Ints, coded: _Coded) -> list[tuple[int, int, dict[str, Any]]]:
    """Return each pair of classes that links lead from and to, with the attributes of all those links together."""
    tail, head, key = coded.arcs
    if not len(key):
        return []
    count = int(colour.max()) + 1
    pair = colour[tail] * count + colour[head]
    order = np.argsort(pair, kind="stable")
    pair, key = pair[order], key[order]
    start = np.flatnonzero(np.concatenate([[True], pair[1:] != pair[:-1]]))
    keys = coded.link_keys
    quickest = sorted(range(len(keys)), key=lambda k: keys[k].latency_s)
    rank = np.empty(len(keys), np.int64)
    rank[quickest] = np.arange(len(keys))
    bandwidth_Bps = np.add.reduceat(np.array([k.bandwidth_Bps for k in keys], np.float64)[key], start)
    links = np.add.reduceat(np.array([k.links for k in keys])[key], start)
    least = np.minimum.reduceat(rank[key], start)
    ends = zip(*(part.tolist() for part in (*np.divmod(pair[start], count), bandwidth_Bps, links, least)), strict=True)
    return [
        (u, v, {"bandwidth_Bps": rate_Bps, "links": many, **_shown(keys[quickest[at]])})
        for u, v, rate_Bps, many, at in ends
    ]


def _shown(key: _LinkKey) -> dict[str, Any]:
    held: dict[str, Any] = {"latency_s": key.latency_s, "link": key.link}
    return held if key.plane is None else {**held, "plane": key.plane}
