"""Routes that keep to rails: first inside the domain to the accelerator on the destination's rail, then out (PXN).

NCCL 2.12 sends a message for a NIC on another rail over NVLink to the local GPU whose own NIC is on that rail, so that
it crosses one leaf and no spine (NVIDIA blog, "Doubling all2all performance with NCCL 2.12"). A rail is not written down
anywhere: the aligned peer is the accelerator of the source's domain from which the way to the destination is shortest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from topo.blueprint import KINDS
from topo.errors import Fault, SpecError
from topo.loads import Spread, Traffic, apart, chunks, link_loads, travelling
from topo.relays import Floats, Ints, components, listed, spans
from topo.routes import Routes, routes
from topo.wires import Wires, wires

if TYPE_CHECKING:
    from topo.wires import AnyGraph


def scale_up_domains(graph: "AnyGraph | Wires") -> Ints:
    """Return the scale-up domain of every node, a running number; -1 outside.

    What hangs together without NICs and without edges whose `plane` is "scale-out" (arrays know no planes: there, only
    NICs part domains), and holds an accelerator.

    Examples
    --------
    >>> import networkx as nx
    >>> g = nx.path_graph(["a", "b", "nic", "leaf"])
    >>> nx.set_node_attributes(g, dict(zip(g, ("accelerator", "accelerator", "nic", "switch"))), "kind")
    >>> nx.set_edge_attributes(g, {e: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for e in g.edges})
    >>> scale_up_domains(g).tolist()
    [0, 0, -1, -1]
    """
    w = wires(graph)
    nic = w.kind == KINDS.index("nic")
    kept = ~(nic[w.tail] | nic[w.head])
    if not isinstance(graph, Wires):
        kept &= np.array([held.get("plane") != "scale-out" for _, _, held in graph.edges(data=True)], dtype=bool)
    group = components(w.size, w.tail[kept].astype(np.int64), w.head[kept].astype(np.int64))
    held = np.unique(group[w.accelerators])
    number = np.full(w.size, -1)
    number[held] = np.arange(len(held))
    return number[group]


@dataclass(frozen=True)
class RailRoutes:
    """Routes over rails.

    Attributes
    ----------
    peer
        Position of the accelerator by whose NIC each pair's message leaves (the source itself, where it is on the
        rail, or the message stays in its domain), shape (pairs,).
    loads
        Of every arc, both legs together, in the unit of the amounts, shape (arcs,).
    """

    peer: Ints
    loads: Floats


def rail_aware(
    graph: "AnyGraph | Wires",
    traffic: Traffic,
    domain: Ints | None = None,
    spread: Spread = "even",
    seed: int = 0,
    flows: int = 1,
    relay: Sequence[str] | None = None,
) -> RailRoutes:
    """Return aligned peers and link loads of traffic that changes rails inside the source's domain only.

    Of several peers equally near, the source is taken; else the one with the destination's number in its own domain;
    else they share the destinations in turn.

    Parameters
    ----------
    graph
        The graph.
    traffic
        Sources, destinations, amounts.
    domain
        Domain of every node, -1 outside, shape (nodes,); by default `scale_up_domains`.
    spread, seed, flows, relay
        As for `link_loads`.

    Raises
    ------
    SpecError
        Naming unknown nodes, bad amounts, and pairs that no peer can join.

    Examples
    --------
    Two boxes of two accelerators, two rails, nothing between the rails: a0 reaches b1 by a1.

    >>> import networkx as nx
    >>> g = nx.Graph()
    >>> g.add_nodes_from(["a0", "a1", "b0", "b1"], kind="accelerator")
    >>> g.add_nodes_from(["na0", "na1", "nb0", "nb1"], kind="nic")
    >>> g.add_nodes_from(["leaf0", "leaf1"], kind="switch")
    >>> edges = [("a0", "a1"), ("b0", "b1")] + [(x, "n" + x) for x in ("a0", "a1", "b0", "b1")]
    >>> edges += [("n" + x, "leaf" + x[1]) for x in ("a0", "a1", "b0", "b1")]
    >>> g.add_edges_from(edges, bandwidth_Bps=1e9, latency_s=1e-6)
    >>> found = rail_aware(g, (["a0"], ["b1"], 5.0))
    >>> list(g)[found.peer[0]], float(found.loads.sum())
    ('a1', 25.0)
    """
    w = wires(graph)
    domain = scale_up_domains(graph) if domain is None else np.asarray(domain, dtype=np.int64)
    if len(domain) != w.size:
        raise SpecError([Fault("domain", len(domain), f"is not one number for each of {w.size} nodes")])
    r = routes(w, "latency", relay)
    source, destination, amount = travelling(w, traffic, spread, flows)
    peer = _peers(r, source, destination, domain)
    moved, sent = peer != source, peer != destination
    same = domain[w.arcs[0]] == domain[w.arcs[1]]
    plane = routes(w, "latency", r.relay, arcs=same & (domain[w.arcs[0]] >= 0))
    loads = link_loads(r, (peer[sent], destination[sent], amount[sent]), spread, seed, flows)
    if moved.any():
        loads = loads + link_loads(plane, (source[moved], peer[moved], amount[moved]), spread, seed, flows)
    return RailRoutes(peer, loads)


def _peers(r: Routes, source: Ints, destination: Ints, domain: Ints) -> Ints:
    """Return, for every pair, the accelerator of the source's domain that is nearest to the destination."""
    members = r.wires.accelerators.astype(np.int64)
    members = members[domain[members] >= 0]
    members = members[np.argsort(domain[members], kind="stable")]
    count = np.bincount(domain[members], minlength=int(domain.max(initial=-1)) + 1)
    first = np.cumsum(count) - count
    rank = np.zeros(r.wires.size, dtype=np.int64)
    rank[members] = np.arange(len(members)) - first[domain[members]]
    peer = source.copy()
    member = np.isin(source, members)
    away = np.flatnonzero(member & (domain[source] != domain[destination]))
    cases, case = np.unique(domain[source[away]] * r.wires.size + destination[away], return_inverse=True)
    home, end = np.divmod(cases, r.wires.size)
    cost = np.full((len(cases), int(count.max(initial=0))), np.inf)  # of each member of the domain, by rank
    for part, toward, k in chunks(r, end, max(1, (1 << 17) // max(1, cost.shape[1]))):
        owner, at = spans(first[home[part]], count[home[part]])
        cost[part[owner], rank[members[at]]] = toward.choices(k[owner], members[at])[3]
    nearest = cost.min(axis=1, initial=np.inf)
    lost = np.isinf(nearest)[case]
    if lost.any():
        raise SpecError(listed(apart(r.wires, source[away][lost], destination[away][lost]), "pairs"))
    tied = cost == nearest[:, None]
    aligned = rank[end] % count[home]
    turn = rank[end] % np.maximum(tied.sum(axis=1), 1)
    pick = np.where(tied[np.arange(len(cases)), aligned], aligned, (tied.cumsum(axis=1) > turn[:, None]).argmax(axis=1))
    pick = pick[case]
    own = tied[case, rank[source[away]]]
    peer[away] = np.where(own, source[away], members[first[home[case]] + pick])
    return peer
