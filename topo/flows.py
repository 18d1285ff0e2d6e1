"""Maximum flow and minimum cut between sets of nodes, exact and fast on any graph; bisections are such cuts.

All sources become one node and all sinks another, which is exact because nothing limits a flow inside either set, and
leaves one matrix of capacities in whole grains of bandwidth. SciPy's Dinic solves it, but holds 32 bits (and answers 0,
without an error, where they overflow). So the flow is found digit by digit (capacity scaling; Gabow, "Scaling algorithms
for network problems", J. Computer and System Sciences 31, 1985): a coarse unit that fits, then what is left over in
finer units, until the unit is one grain. Where all bandwidths are multiples of a large one, the first digit is the last.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topo.errors import Fault, SpecError
from topo.wires import Indices, Wires, wires

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from topo.wires import AnyGraph

Nodes = Collection[Any] | npt.NDArray[np.integer[Any]]
"""Node names, or a NumPy array of positions in the graph's order."""

_MOST = 2**30 - 2
"""Largest flow in one pass, in units: a residual capacity is up to twice as much, and must fit 32 bits."""


@dataclass(frozen=True, eq=False)
class Cut:
    """The links that part two sets of nodes at least bandwidth.

    Attributes
    ----------
    value_Bps
        Bytes/s that cross from the sources' side: the sum over `crossing`, which is also the maximum flow.
    graph
        The graph as arrays.
    inside
        Whether each node is on the sources' side, shape (nodes,). Of all least cuts, the one nearest the sources.
    crossing
        Positions of the cut's wires.
    """

    value_Bps: float
    graph: Wires
    inside: npt.NDArray[np.bool_]
    crossing: Indices

    @cached_property
    def side(self) -> frozenset[Any]:
        """Names of the nodes on the sources' side."""
        return frozenset(self.graph.names[i] for i in np.flatnonzero(self.inside).tolist())

    @cached_property
    def links(self) -> tuple[tuple[Any, Any], ...]:
        """Names of both ends of each wire of the cut, the one on the sources' side first."""
        pairs = zip(self.graph.tail[self.crossing].tolist(), self.graph.head[self.crossing].tolist(), strict=True)
        names = self.graph.names
        return tuple((names[u], names[v]) if self.inside[u] else (names[v], names[u]) for u, v in pairs)

    @property
    def per_accelerator_Bps(self) -> float:  # noqa: N802  (the unit is part of the name)
        """Bytes/s for each accelerator of the smaller side (a bisection's figure of merit)."""
        ours = int(self.inside[self.graph.accelerators].sum())
        return self.value_Bps / max(1, min(ours, len(self.graph.accelerators) - ours))


# --- who stands where ------------------------------------------------------------------------------------------------


def _positions(w: Wires, field: str, nodes: Nodes) -> tuple[Indices, list[Fault]]:
    """Return the distinct positions of nodes, and what is wrong with them."""
    if isinstance(nodes, str):
        return np.empty(0, np.int32), [Fault(field, nodes, "is one name, not a collection", "write a list")]
    if isinstance(nodes, np.ndarray) and nodes.dtype.kind in "iu":
        known = (nodes >= 0) & (nodes < w.size)
        faults = [Fault(field, i, f"is no position below {w.size}") for i in nodes[~known].tolist()]
        at = nodes[known]
    else:
        faults = [Fault(field, name, "is no node of the graph") for name in nodes if name not in w.index]
        at = np.array([w.index[name] for name in nodes if name in w.index], np.int32)
    if len(nodes) == 0:
        faults.append(Fault(field, None, "are empty", "name at least one node"))
    return np.unique(at).astype(np.int32), faults


def _ends(w: Wires, sources: Nodes, sinks: Nodes) -> tuple[Indices, Indices]:
    """Return the positions of both sets, or a SpecError with all that is wrong with them and with the bandwidths."""
    (left, faults), (right, others) = _positions(w, "sources", sources), _positions(w, "sinks", sinks)
    faults += others
    faults += [
        Fault("sinks", w.names[i], "is a source too", "leave it out of one of them")
        for i in np.intersect1d(left, right).tolist()
    ]
    faults += [
        Fault(
            f"edge {w.names[w.tail[j]]} - {w.names[w.head[j]]}.bandwidth_Bps", float(w.bandwidth_Bps[j]), "is no rate"
        )
        for j in np.flatnonzero(~((w.bandwidth_Bps >= 0) & (w.bandwidth_Bps < np.inf))).tolist()
    ]
    if faults:
        raise SpecError(faults)
    return left, right


# --- the cut ---------------------------------------------------------------------------------------------------------


def _whole(bandwidth_Bps: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return bandwidths in whole multiples of the largest unit that they share, after rounding to a grain.

    The grain is 1 byte/s, but less where their total is below 2^40 bytes/s (at most 2^-39 of it), and more where it is
    2^60 or above (at most 2^-59 of it).

    >>> _whole(np.array([50e9, 100e9, 75e9])).tolist()
    [2, 4, 3]
    """
    exponent = np.frexp(bandwidth_Bps.sum())[1]
    grains = np.rint(np.ldexp(bandwidth_Bps, -np.clip(0, exponent - 60, exponent - 40))).astype(np.int64)
    whole: npt.NDArray[np.int64] = grains // (np.gcd.reduce(grains) or 1)
    return whole


def _source_side(arcs: "csr_array[np.int64]", s: int, t: int) -> npt.NDArray[np.bool_]:
    """Return which nodes are on the side of s in the least cut from s to t that is nearest to s; arcs[u, v] is whole.

    Each pass sends what it can in a unit that is coarse enough for 32 bits, and cuts. What is left over that cut is
    below one unit per arc, and bounds what the next pass can add. Arcs wider than the bound are trimmed to just above
    it, so that they never fill up.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    bound = min(int(arcs[[s], :].sum()), int(arcs[:, [t]].sum()))
    while True:
        unit = max(1, -(-bound // _MOST))
        trimmed = np.minimum(arcs.data // unit, bound // unit + 1).astype(np.int32)
        room = csr_array((trimmed, arcs.indices, arcs.indptr), shape=arcs.shape)
        flow = csr_array(maximum_flow(room, s, t, method="dinic").flow)
        unused = csr_array(room - flow)
        unused.eliminate_zeros()
        inside = np.zeros(arcs.shape[0], np.bool_)
        inside[breadth_first_order(unused, s, return_predecessors=False)] = True
        if unit == 1:
            return inside
        arcs = csr_array(arcs - flow.astype(np.int64) * unit)
        over = arcs.tocoo()
        bound = min(bound, int(over.data[inside[over.row] & ~inside[over.col]].sum()))


def min_cut(graph: "AnyGraph | Wires", sources: Nodes, sinks: Nodes) -> Cut:
    """Return the links of least total bandwidth whose loss parts every source from every sink.

    The cut is exact where bandwidths are whole bytes/s that total less than 2^60 (its value too, up to a float's 2^53).
    Otherwise they are rounded to a grain (see `_whole`; 1 byte/s or less up to 2^60), and the value exceeds the true one
    by at most half a grain for each wire of either cut.

    Parameters
    ----------
    graph
        Any graph that follows `topo.schema`, or its arrays.
    sources, sinks
        Node names, or NumPy arrays of positions. Nothing limits what a set sends or takes but its links.

    Raises
    ------
    SpecError
        With every unknown node, empty set, node in both sets, or bandwidth that is negative or not finite.

    Examples
    --------
    Two leaves of two accelerators each, 50 GB/s down, one uplink of 60 GB/s between the leaves.

    >>> import networkx as nx
    >>> g = nx.Graph()
    >>> g.add_nodes_from("abcd", kind="accelerator")
    >>> g.add_nodes_from(["left", "right"], kind="switch")
    >>> for u, v in [("a", "left"), ("b", "left"), ("c", "right"), ("d", "right")]:
    ...     g.add_edge(u, v, bandwidth_Bps=50e9, latency_s=1e-6)
    >>> g.add_edge("left", "right", bandwidth_Bps=60e9, latency_s=1e-6)
    >>> cut = min_cut(g, ["a", "b"], ["c", "d"])
    >>> cut.value_Bps / 1e9, cut.links, sorted(cut.side)
    (60.0, (('left', 'right'),), ['a', 'b', 'left'])
    """
    from scipy.sparse import csr_array

    w = wires(graph)
    left, right = _ends(w, sources, sinks)
    node = np.arange(w.size, dtype=np.int32)
    s, t = left[0], right[0]
    node[left], node[right] = s, t
    tail, head = node[w.tail], node[w.head]
    capacity = _whole(w.bandwidth_Bps)
    if not w.directed:
        tail, head, capacity = np.concatenate([tail, head]), np.concatenate([head, tail]), np.tile(capacity, 2)
    useful = (tail != head) & (head != s) & (tail != t)
    arcs = csr_array((capacity[useful], (tail[useful], head[useful])), shape=(w.size, w.size))
    inside = _source_side(arcs, int(s), int(t))[node]
    crossing = inside[w.tail] & ~inside[w.head] if w.directed else inside[w.tail] != inside[w.head]
    return Cut(float(w.bandwidth_Bps[crossing].sum()), w, inside, np.flatnonzero(crossing).astype(np.int32))


def max_flow(graph: "AnyGraph | Wires", sources: Nodes, sinks: Nodes) -> float:
    """Return the most bytes/s that the sources together can send to the sinks: the value of `min_cut`, see there.

    >>> import networkx as nx
    >>> ring = nx.cycle_graph(["a", "b", "c", "d"])
    >>> nx.set_node_attributes(ring, "accelerator", "kind")
    >>> nx.set_edge_attributes(ring, {edge: {"bandwidth_Bps": 50e9, "latency_s": 0.0} for edge in ring.edges})
    >>> max_flow(ring, ["a"], ["c"]) / 1e9
    100.0
    """
    return min_cut(graph, sources, sinks).value_Bps


# --- splits ----------------------------------------------------------------------------------------------------------


def halves(graph: "AnyGraph | Wires") -> tuple[Indices, Indices]:
    """Return the default split: positions of the first and the second half of the accelerators, in the graph's order.

    Raises
    ------
    SpecError
        When there are fewer than two.
    """
    accelerators = wires(graph).accelerators
    if len(accelerators) < 2:
        raise SpecError([Fault("graph", len(accelerators), "holds fewer than two accelerators, and has no halves")])
    middle = len(accelerators) // 2
    return accelerators[:middle], accelerators[middle:]


def bisection(graph: "AnyGraph | Wires", left: Nodes | None = None) -> Cut:
    """Return the least cut between `left` (the first half of the accelerators) and all other accelerators.

    Of `left`, names or positions, only the accelerators count. In a directed graph the cut is from left to right.

    >>> import networkx as nx
    >>> mesh = nx.complete_graph(4)
    >>> nx.set_node_attributes(mesh, "accelerator", "kind")
    >>> nx.set_edge_attributes(mesh, {edge: {"bandwidth_Bps": 50e9, "latency_s": 0.0} for edge in mesh.edges})
    >>> bisection(mesh).value_Bps / 1e9, bisection(mesh, left=[0]).per_accelerator_Bps / 1e9
    (200.0, 150.0)
    """
    w = wires(graph)
    if left is None:
        return min_cut(w, *halves(w))
    chosen, faults = _positions(w, "left", left)
    ours = w.accelerators[np.isin(w.accelerators, chosen)]
    if not faults and not 0 < len(ours) < len(w.accelerators):
        what = f"holds {len(ours)} of {len(w.accelerators)} accelerators"
        faults = [Fault("left", None, what, "leave at least one on either side")]
    if faults:
        raise SpecError(faults)
    return min_cut(w, ours, w.accelerators[~np.isin(w.accelerators, ours)])


def _labels(graph: "AnyGraph") -> dict[str, dict[int, Any]]:
    """Return, for each coordinate axis and for the domain, the value of each accelerator that has one."""
    found: dict[str, dict[int, Any]] = {}
    for i, (_, held) in enumerate(graph.nodes(data=True)):
        if held["kind"] == "accelerator":
            for axis, value in {"domain": held.get("domain"), **held.get("coordinates", {})}.items():
                if value is not None:
                    found.setdefault(axis, {})[i] = value
    return found


def natural_splits(graph: "AnyGraph | Wires") -> dict[str, Indices]:
    """Return the splits that a cluster's build suggests, by name: positions of the accelerators on the left.

    ``order`` is `halves`. Each coordinate axis that accelerators carry (see `topo.graphs.expand`), and their
    `domain`, gives the split of its values, in order of appearance, into a first and a second half: whole blocks, in
    every block of the parent axis alike. Arrays carry no coordinates and give ``order`` only.

    >>> import networkx as nx
    >>> g = nx.Graph()
    >>> for gpu in range(4):
    ...     g.add_node(gpu, kind="accelerator", domain=gpu // 2, coordinates={"slot": gpu % 2})
    >>> {name: left.tolist() for name, left in natural_splits(g).items()}
    {'order': [0, 1], 'domain': [0, 1], 'slot': [0, 2]}
    """
    splits = {"order": halves(graph)[0]}
    for axis, value in ({} if isinstance(graph, Wires) else _labels(graph)).items():
        values = list(dict.fromkeys(value.values()))
        first = set(values[: len(values) // 2])
        if first:
            splits[axis] = np.array([i for i, at in value.items() if at in first], np.int32)
    return splits


def worst_split(graph: "AnyGraph | Wires", splits: Mapping[str, Nodes] | None = None) -> tuple[str, Cut]:
    """Return the name and the cut of the split with the least bytes/s per accelerator of its smaller side.

    Parameters
    ----------
    graph
        Any graph, or its arrays.
    splits
        Left sides by name (names or positions); `natural_splits` unless given.

    Examples
    --------
    A square with two slow sides: parting the slow pairs costs two slow links, parting the fast ones two fast links.

    >>> import networkx as nx
    >>> square = nx.Graph()
    >>> for gpu, column in zip("abcd", (0, 1, 1, 0)):
    ...     square.add_node(gpu, kind="accelerator", coordinates={"column": column})
    >>> for u, v, bandwidth_Bps in (("a", "b", 20e9), ("b", "c", 50e9), ("c", "d", 20e9), ("d", "a", 50e9)):
    ...     square.add_edge(u, v, bandwidth_Bps=bandwidth_Bps, latency_s=1e-6)
    >>> name, cut = worst_split(square)
    >>> name, cut.per_accelerator_Bps / 1e9
    ('column', 20.0)
    """
    w = wires(graph)
    cuts = {name: bisection(w, left) for name, left in (natural_splits(graph) if splits is None else splits).items()}
    if not cuts:
        raise SpecError([Fault("splits", None, "are empty", "name at least one left side")])
    return min(cuts.items(), key=lambda item: item[1].per_accelerator_Bps)
