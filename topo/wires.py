"""A graph as arrays: what flows, routes and refinement compute on, from a NetworkX graph of any origin."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topo.blueprint import KINDS

if TYPE_CHECKING:
    import networkx as nx

    AnyGraph = nx.Graph[Any] | nx.DiGraph[Any]

Indices = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Wires:
    """Node i is `names[i]`, of kind ``KINDS[kind[i]]``; wire j joins `tail[j]` and `head[j]`, alike in both directions.

    Attributes
    ----------
    names
        Node names, in the graph's order.
    kind
        Index into `topo.blueprint.KINDS`, shape (nodes,).
    tail, head
        Ends of each wire, shape (wires,). A directed graph has one wire for each direction.
    bandwidth_Bps, latency_s
        Per direction and wire, shape (wires,).
    directed
        Whether a wire runs from tail to head only.
    """

    names: Sequence[Any]
    kind: npt.NDArray[np.int8]
    tail: Indices
    head: Indices
    bandwidth_Bps: npt.NDArray[np.float64]
    latency_s: npt.NDArray[np.float64]
    directed: bool = False

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return len(self.kind)

    @cached_property
    def index(self) -> dict[Any, int]:
        """Position of each node name."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def accelerators(self) -> Indices:
        """Positions of the accelerators, in the graph's order."""
        return np.flatnonzero(self.kind == KINDS.index("accelerator")).astype(np.int32)

    @cached_property
    def arcs(self) -> tuple[Indices, Indices, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Every direction of every wire: from, to, bytes/s, seconds."""
        if self.directed:
            return self.tail, self.head, self.bandwidth_Bps, self.latency_s
        return (
            np.concatenate([self.tail, self.head]),
            np.concatenate([self.head, self.tail]),
            np.concatenate([self.bandwidth_Bps, self.bandwidth_Bps]),
            np.concatenate([self.latency_s, self.latency_s]),
        )


def wires(graph: "AnyGraph | Wires") -> Wires:
    """Return a graph that follows `topo.schema` as arrays (arrays pass through).

    Examples
    --------
    >>> import networkx as nx
    >>> g = nx.Graph()
    >>> g.add_nodes_from(["a", "b"], kind="accelerator")
    >>> g.add_edge("a", "b", bandwidth_Bps=9e9, latency_s=1e-6)
    >>> w = wires(g)
    >>> w.size, w.tail.tolist(), w.head.tolist(), w.bandwidth_Bps.tolist()
    (2, [0], [1], [9000000000.0])
    """
    if isinstance(graph, Wires):
        return graph
    names = list(graph)
    index = {name: i for i, name in enumerate(names)}
    numbers = {kind: i for i, kind in enumerate(KINDS)}
    ends = np.dtype([("tail", np.int32), ("head", np.int32), ("bandwidth_Bps", np.float64), ("latency_s", np.float64)])
    rows = np.fromiter(
        ((index[u], index[v], held["bandwidth_Bps"], held["latency_s"]) for u, v, held in graph.edges(data=True)),
        ends,
        graph.number_of_edges(),
    )
    return Wires(
        names=names,
        kind=np.fromiter((numbers[held["kind"]] for _, held in graph.nodes(data=True)), np.int8, len(names)),
        tail=rows["tail"].copy(),
        head=rows["head"].copy(),
        bandwidth_Bps=rows["bandwidth_Bps"].copy(),
        latency_s=rows["latency_s"].copy(),
        directed=graph.is_directed(),
    )
