"""Distances: hops between all accelerators, shortest paths of pairs and how many there are, and disjoint ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topo.blueprint import KINDS
from topo.errors import Fault, SpecError
from topo.loads import apart, chunks, descend
from topo.relays import Floats, Ints, Pairs, kind_faults, listed, pair_positions, positions
from topo.routes import Weight, routes
from topo.wires import Wires, wires

if TYPE_CHECKING:
    from topo.wires import AnyGraph

_WORDS = 64
"""Sources searched at once, in words of 64."""

Bits = npt.NDArray[np.uint64]


# --- hops between all ------------------------------------------------------------------------------------------------


def _bits(row: Ints, number: Ints, rows: int, size: int) -> Bits:
    """Return sets of numbers below `size`, one per row: number[i] is in the set of row[i]."""
    sets = np.zeros((rows, -(-size // 64)), dtype=np.uint64)
    np.bitwise_or.at(sets, (row, number // 64), np.uint64(1) << (number % 64).astype(np.uint64))
    return sets


def _spread(bits: Bits, tail: Ints, head: Ints, start: Ints) -> Bits:
    """Return, for every node, the union of the sets of the nodes with an arc to it (arcs sorted by head)."""
    out = np.zeros_like(bits)
    if len(tail):
        out[head[start]] = np.bitwise_or.reduceat(bits[tail], start, axis=0)
    return out


def hops(graph: "AnyGraph | Wires", sources: Mapping[Any, int] | None = None) -> dict[int, int]:
    """Return how many ordered pairs of accelerators are how many links apart.

    Any node may be on the way, accelerators too: a message can always be handed on by software. A breadth-first search
    from 4,096 sources at once, whose sets are bits (numpy, O(links · sources / 64) per hop).

    Parameters
    ----------
    graph
        The graph.
    sources
        Accelerators that stand for others, with how many each stands for: one per class of a symmetric graph.

    Returns
    -------
    dict
        links → pairs, ascending. With all accelerators as sources the pairs are P · (P - 1).

    Raises
    ------
    SpecError
        Naming unknown sources, and accelerators that cannot be reached.

    Examples
    --------
    >>> import networkx as nx
    >>> g = nx.cycle_graph(6)
    >>> nx.set_node_attributes(g, "accelerator", "kind")
    >>> nx.set_edge_attributes(g, {e: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for e in g.edges})
    >>> hops(g), hops(g, {0: 6}), diameter(g)
    ({1: 12, 2: 12, 3: 6}, {1: 12, 2: 12, 3: 6}, 3)
    """
    w = wires(graph)
    start = w.accelerators.astype(np.int64) if sources is None else positions(w, list(sources), "sources")
    times = np.ones(len(start), np.int64) if sources is None else np.fromiter(sources.values(), np.int64, len(start))
    tail, head = w.arcs[0].astype(np.int64), w.arcs[1].astype(np.int64)
    order = np.argsort(head, kind="stable")
    tail, head = tail[order], head[order]
    first = np.flatnonzero(np.diff(head, prepend=-1)).astype(np.int64)
    found: dict[int, int] = {}
    faults: list[Fault] = []
    for lo in range(0, len(start), 64 * _WORDS):
        faults += _search(w, start[lo : lo + 64 * _WORDS], times[lo : lo + 64 * _WORDS], (tail, head, first), found)
    if faults:
        raise SpecError(listed(faults, "accelerators"))
    return dict(sorted(found.items()))


def _search(w: Wires, start: Ints, times: Ints, arcs: tuple[Ints, Ints, Ints], found: dict[int, int]) -> list[Fault]:
    """Add the pairs of some sources to `found`; return the accelerators that one of them cannot reach."""
    number = np.arange(len(start))
    front = seen = _bits(start, number, w.size, len(start))
    factors, group = np.unique(times, return_inverse=True)
    masks = _bits(group, number, len(factors), len(start))
    whole = np.bitwise_or.reduce(masks, axis=0)
    for links in range(1, w.size):
        front = _spread(front, *arcs) & ~seen
        if not front.any():
            break
        seen = seen | front
        here = front[w.accelerators]
        pairs = sum(
            n * int(np.bitwise_count(here & mask).sum()) for n, mask in zip(factors.tolist(), masks, strict=True)
        )
        if pairs:
            found[links] = found.get(links, 0) + pairs
    lost = w.accelerators[((seen[w.accelerators] & whole) != whole).any(axis=1)]
    return [
        Fault(f"node {w.names[i]}", None, "cannot be reached from all accelerators", "join the parts") for i in lost
    ]


def diameter(graph: "AnyGraph | Wires", sources: Mapping[Any, int] | None = None) -> int:
    """Return the most links between two accelerators (0 for one alone): the last key of `hops`."""
    return max(hops(graph, sources), default=0)


# --- pairs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shortest:
    """Shortest paths of pairs, one value per pair.

    Attributes
    ----------
    latency_s
        Of the links of the path (with weight "hops": of the fastest of those with the fewest links).
    hops
        Links of the path.
    paths
        How many paths are equally short: the path diversity. A float, since it grows as a product; exact below 2^53.
    """

    latency_s: Floats
    hops: Ints
    paths: Floats


def shortest(
    graph: "AnyGraph | Wires", pairs: Pairs, weight: Weight = "latency", relay: Sequence[str] | None = None
) -> Shortest:
    """Return latency, links and number of the shortest paths of each pair.

    Parameters
    ----------
    graph
        The graph.
    pairs
        (source, destination) names, or an integer array of positions, shape (pairs, 2).
    weight
        "latency": least latency, then fewest links. "hops": fewest links.
    relay
        Kinds of node that may be on the way; by default `topo.relays.relays`.

    Raises
    ------
    SpecError
        Naming unknown nodes, and pairs without a path.

    Examples
    --------
    Two accelerators under three switches.

    >>> import networkx as nx
    >>> g = nx.complete_bipartite_graph(2, 3)
    >>> nx.set_node_attributes(g, {n: {"kind": "accelerator" if n < 2 else "switch"} for n in g})
    >>> nx.set_edge_attributes(g, {e: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for e in g.edges})
    >>> found = shortest(g, [(0, 1)])
    >>> found.hops.tolist(), (found.latency_s * 1e9).round().tolist(), found.paths.tolist()
    ([2], [2000.0], [3.0])
    """
    r = routes(wires(graph), weight, relay)
    source, destination = pair_positions(r.wires, pairs)
    moves = np.flatnonzero(source != destination)
    cost, paths = np.zeros(len(source)), np.ones(len(source))
    for part, toward, k in chunks(r, destination[moves]):
        here, each = moves[part], np.arange(len(part))
        _, paths[here], cost[here] = descend(toward, k, each, source[here], np.ones(len(part)), "every")
    lost = np.isinf(cost)
    if lost.any():
        raise SpecError(listed(apart(r.wires, source[lost], destination[lost]), "pairs"))
    if weight == "hops":
        latency_s = shortest(graph, np.stack([source, destination], axis=1), "hops, then latency", relay).latency_s
    else:
        latency_s = r.scale.latency_s(cost)
    return Shortest(latency_s, r.scale.links(cost).astype(np.int64), paths)


def disjoint_paths(graph: "AnyGraph | Wires", a: Any, b: Any, relay: Sequence[str] = KINDS) -> int:
    """Return how many paths from a to b share no link: how many links must fail to part them (Menger).

    A maximum flow with one unit per link and direction; parallel links of one edge count as one.

    Parameters
    ----------
    graph
        The graph.
    a, b
        Names of two nodes.
    relay
        Kinds of node that may be on the way; by default all.

    Raises
    ------
    SpecError
        When a node or kind is unknown, or both nodes are the same.

    Examples
    --------
    >>> import networkx as nx
    >>> g = nx.cycle_graph(6)
    >>> nx.set_node_attributes(g, "accelerator", "kind")
    >>> nx.set_edge_attributes(g, {e: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for e in g.edges})
    >>> disjoint_paths(g, 0, 3), disjoint_paths(g, 0, 3, relay=("switch",))
    (2, 0)
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    w = wires(graph)
    start, end = positions(w, [a, b], "nodes").tolist()
    faults = kind_faults(relay)
    if start == end:
        faults.append(Fault("nodes", a, "is both ends", "name two nodes"))
    if faults:
        raise SpecError(faults)
    tail, head = w.arcs[0], w.arcs[1]
    passes = np.isin(w.kind, [KINDS.index(kind) for kind in relay])
    used = (passes[tail] | (tail == start)) & (passes[head] | (head == end))
    ones = np.ones(int(used.sum()), dtype=np.int32)
    matrix = csr_array((ones, (tail[used], head[used])), shape=(w.size, w.size), dtype=np.int32)
    return int(maximum_flow(matrix, start, end).flow_value)
