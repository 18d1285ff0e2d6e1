"""Who may pass traffic on, and the moves that leaves: what routes are searched on.

Hardware forwards packets in switches; a GPU forwards only if software copies them, and a NIC passes only what its own
host sends or gets. So accelerators relay only where told to, a NIC never turns traffic back into the fabric, and no path
enters a third host and leaves it again. In a direct network (torus, mesh) accelerators hold the routers, and relay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topo.blueprint import KINDS
from topo.errors import Fault, SpecError
from topo.wires import Wires, wires

if TYPE_CHECKING:
    from topo.wires import AnyGraph

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Pairs = Sequence[tuple[Any, Any]] | npt.NDArray[np.integer[Any]]

RELAYS = ("switch", "nic", "host", "site")
"""The kinds of node that pass traffic on, where accelerators do not."""

SHOWN = 20
"""How many faults of one sort are listed before the rest is counted."""

_ACCELERATOR, _NIC, _HOST = (KINDS.index(kind) for kind in ("accelerator", "nic", "host"))


# --- arrays ----------------------------------------------------------------------------------------------------------


def spans(start: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Return, for ranges ``start[i] … start[i] + count[i] - 1`` laid end to end, the i of each element and its value.

    >>> [x.tolist() for x in spans(np.array([5, 9, 0]), np.array([2, 0, 3]))]
    [[0, 0, 2, 2, 2], [5, 6, 0, 1, 2]]
    """
    owner = np.repeat(np.arange(len(count)), count)
    before = np.cumsum(count) - count
    return owner, np.arange(len(owner)) + (start - before)[owner]


def components(size: int, tail: Ints, head: Ints) -> Ints:
    """Return which of `size` nodes hang together by the arcs given, whichever way those point: a number for each."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    matrix = csr_matrix((np.ones(len(tail)), (tail, head)), shape=(size, size))
    return np.asarray(connected_components(matrix, directed=False)[1], dtype=np.int64)


def listed(faults: Sequence[Fault], what: str) -> list[Fault]:
    """Return the first `SHOWN` faults, and one that counts the others."""
    more = len(faults) - SHOWN
    return [*faults[:SHOWN], Fault(what, None, f"{more} more like these")] if more > 0 else list(faults)


def positions(w: Wires, nodes: Sequence[Any] | npt.NDArray[np.integer[Any]], what: str) -> Ints:
    """Return positions of nodes in a graph's order, from names, or from an integer array that holds positions.

    Raises
    ------
    SpecError
        Naming every node that the graph lacks (the first `SHOWN`).
    """
    if isinstance(nodes, np.ndarray) and np.issubdtype(nodes.dtype, np.integer):
        found = nodes.astype(np.int64).ravel()
        wrong = np.flatnonzero((found < 0) | (found >= w.size))
        faults = [
            Fault(f"{what}[{i}]", int(found[i]), "is no position in the graph", f"use 0 to {w.size - 1}") for i in wrong
        ]
    else:
        index = w.index
        faults = [
            Fault(f"{what}[{i}]", node, "is no node of the graph") for i, node in enumerate(nodes) if node not in index
        ]
        found = np.array([index.get(node, -1) for node in nodes], dtype=np.int64)
    if faults:
        raise SpecError(listed(faults, what))
    return found


def pair_positions(w: Wires, pairs: Pairs) -> tuple[Ints, Ints]:
    """Return positions of sources and of destinations, from pairs of names or an integer array of shape (pairs, 2)."""
    if isinstance(pairs, np.ndarray) and np.issubdtype(pairs.dtype, np.integer):
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise SpecError([Fault("pairs", pairs.shape, "is no array of pairs", "give it the shape (pairs, 2)")])
        return positions(w, pairs[:, 0], "sources"), positions(w, pairs[:, 1], "destinations")
    return positions(w, [a for a, _ in pairs], "sources"), positions(w, [b for _, b in pairs], "destinations")


# --- who may relay ---------------------------------------------------------------------------------------------------


def relays(graph: "AnyGraph | Wires") -> tuple[str, ...]:
    """Return the kinds that pass traffic on: `RELAYS`, and accelerators where they form a direct network.

    They do where some accelerators hang together by links of their own, but not each with each (a torus, a mesh, a
    full mesh that lost a link): then the only way between two of them is through others.

    >>> import networkx as nx
    >>> ring, full = nx.cycle_graph(5), nx.complete_graph(5)
    >>> for g in ring, full:
    ...     nx.set_node_attributes(g, "accelerator", "kind")
    ...     nx.set_edge_attributes(g, {e: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for e in g.edges})
    >>> "accelerator" in relays(ring), "accelerator" in relays(full)
    (True, False)
    """
    w = wires(graph)
    is_accelerator = w.kind == _ACCELERATOR
    own = is_accelerator[w.tail] & is_accelerator[w.head]
    if not own.any():
        return RELAYS
    low, high = np.minimum(w.tail[own], w.head[own]).astype(np.int64), np.maximum(w.tail[own], w.head[own])
    ends = np.unique(low * w.size + high)
    group = components(w.size, ends // w.size, ends % w.size)
    members = np.bincount(group[is_accelerator], minlength=w.size)
    joined = np.bincount(group[ends // w.size], minlength=w.size)
    return ("accelerator", *RELAYS) if (joined < members * (members - 1) // 2).any() else RELAYS


def kind_faults(relay: Sequence[str]) -> list[Fault]:
    """Name the kinds of node that there are not."""
    return [
        Fault("relay", kind, "is no kind of node", f"known: {', '.join(KINDS)}") for kind in relay if kind not in KINDS
    ]


@dataclass(frozen=True)
class Steps:
    """Moves between states. A state is a node, or (`node` says of which) its copy for traffic that came from outside.

    Attributes
    ----------
    node
        Node of each state; the first `size` states are the nodes themselves.
    hub
        Whether traffic can pass through the state.
    tail, head
        States that each step joins.
    first, second
        Arcs (positions in `Wires.arcs`) of each step; second is -1 where there is one.
    """

    node: Ints
    hub: Mask
    tail: Ints
    head: Ints
    first: Ints
    second: Ints


def _plugged(w: Wires, plug: Mask, inner: Mask, arcs: Ints) -> tuple[Ints, Ints]:
    """Return (arc in, arc out) of all ways through a plug, but those from the fabric back into it."""
    tail, head = w.arcs[0], w.arcs[1]
    into, out = arcs[plug[head[arcs]]], arcs[plug[tail[arcs]]]
    out = out[np.argsort(tail[out], kind="stable")]
    count = np.bincount(tail[out], minlength=w.size)
    at = head[into]
    which, position = spans((np.cumsum(count) - count)[at], count[at])
    a, b = into[which], out[position]
    has_inner = np.zeros(w.size, dtype=bool)
    has_inner[head[into][inner[tail[into]]]] = True
    fine = (tail[a] != head[b]) & (inner[tail[a]] | inner[head[b]] | ~has_inner[head[a]])
    return a[fine], b[fine]


def _inner(w: Wires, hub: Mask, tail: Ints, head: Ints) -> Mask:
    """Return which nodes are on the host's side of a NIC: accelerators, hosts, and hubs that hang together with one."""
    core = (w.kind == _ACCELERATOR) | (w.kind == _HOST)
    both = hub[tail] & hub[head]
    region = components(w.size, tail[both], head[both])
    holds = np.zeros(w.size, dtype=bool)
    holds[region[hub & core]] = True
    holds[region[head[hub[head] & core[tail]]]] = True
    holds[region[tail[hub[tail] & core[head]]]] = True
    return np.asarray(core | (hub & holds[region]), dtype=bool)


def steps_of(w: Wires, relay: Sequence[str], arcs: Ints) -> Steps:
    """Return the moves that the rule of relaying leaves."""
    tail, head = w.arcs[0].astype(np.int64), w.arcs[1].astype(np.int64)
    passes = np.isin(w.kind, [KINDS.index(kind) for kind in relay])
    nic = w.kind == _NIC
    cabled = arcs[nic[tail[arcs]] & nic[head[arcs]]]  # a NIC cabled to a NIC is searched like a switch
    plug = passes & nic
    plug[tail[cabled]] = plug[head[cabled]] = False
    hub = passes & ~plug
    inner = _inner(w, hub, tail[arcs], head[arcs])
    a, b = _plugged(w, plug, inner, arcs)
    t, h = np.concatenate([tail[arcs], tail[a]]), np.concatenate([head[arcs], head[b]])
    first, second = np.concatenate([arcs, a]), np.concatenate([np.full(len(arcs), -1), b])

    # Hubs of a host that the fabric can enter get a copy: arrived there, traffic can go on inside, but not out again.
    indoor = hub & inner
    within = indoor[t] & indoor[h]
    entered = hub[t] & ~inner[t] & indoor[h]
    host = components(w.size, t[within], h[within])
    copied = indoor & np.isin(host, host[h[entered]])
    copies = np.flatnonzero(copied)
    copy = np.full(w.size, -1)
    copy[copies] = w.size + np.arange(len(copies))
    again = copied[t] & (copied[h] | ~hub[h])
    return Steps(
        node=np.concatenate([np.arange(w.size), copies]),
        hub=np.concatenate([hub, np.ones(len(copies), dtype=bool)]),
        tail=np.concatenate([t, copy[t[again]]]),
        head=np.concatenate([np.where(entered, copy[h], h), np.where(copied[h], copy[h], h)[again]]),
        first=np.concatenate([first, first[again]]),
        second=np.concatenate([second, second[again]]),
    )
