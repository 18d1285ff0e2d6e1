"""What traffic puts on links: ECMP and packet spraying, and flows hashed to paths.

Traffic is three arrays (source, destination, bytes or bytes/s); loads come back per arc of `Wires.arcs`, each direction
apart. A pattern is pushed down the shortest routes towards all its destinations at once, the furthest first, so that
what meets at a node on its way to one destination goes on as one.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from topo.errors import Fault, SpecError
from topo.relays import Floats, Ints, listed, positions
from topo.routes import Routes, Toward, Weight, routes
from topo.wires import Wires, wires

if TYPE_CHECKING:
    from topo.wires import AnyGraph

Spread = Literal["even", "hash"]
Nodes = Sequence[Any] | npt.NDArray[np.integer[Any]]
Split = Literal["even", "hash", "every"]
Traffic = tuple[Nodes, Nodes, npt.ArrayLike]
"""Sources, destinations (names, or integer arrays of positions in the graph), and what each pair sends."""

_CHUNK = 1 << 17
"""Pairs priced at once: enough to hide NumPy's overhead, few enough to stay in cache."""

_CELLS = 1 << 22
"""Most (destination, island of hubs) cells looked up at once."""


# --- pushing traffic down the routes ---------------------------------------------------------------------------------


def mix(*keys: Ints | int) -> Floats:
    """Return a number in [0, 1) for each combination of keys, as a switch's hash would (splitmix64, Steele 2014)."""
    x = np.zeros(1, dtype=np.uint64)
    for key in keys:
        x = x + np.asarray(key).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return np.asarray((x >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def _merge(group: Ints, state: Ints, amount: Floats, groups: int, states: int) -> tuple[Ints, Ints, Floats]:
    """Add up what a group has at one state."""
    key = group * states + state
    if groups * states <= 8 * len(key):
        total = np.bincount(key, amount, minlength=groups * states).astype(np.float64)
        key = np.flatnonzero(total)
        return key // states, key % states, total[key]
    key, inverse = np.unique(key, return_inverse=True)
    return key // states, key % states, np.bincount(inverse, amount).astype(np.float64)


def one_each(item: Ints, draw: Floats) -> Ints:
    """Return, of the choices of each item, the one that its draw in [0, 1) falls on."""
    order = np.argsort(item, kind="stable")
    count = np.bincount(item, minlength=len(draw))
    chosen: Ints = order[(np.cumsum(count) - count + (draw * count).astype(np.int64))[count > 0]]
    return chosen


def descend(
    toward: Toward,
    k: Ints,
    group: Ints,
    state: Ints,
    amount: Floats,
    how: Split,
    hashed: tuple[int, Ints] | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Push amounts from states to destinations ``k[group]``; return loads per step, arrivals per group, cost per item.

    At each state a group's amount is split evenly over the next steps ("even"), goes down one of them ("hash", by a seed
    and a number for each group), or down every one in full ("every", which counts paths). Items with no way cost inf.
    """
    steps, scale, states = toward.routes.steps, toward.routes.scale, len(toward.routes.steps.node)
    loads, arrived = np.zeros(len(steps.tail)), np.zeros(len(k))
    pending: dict[int, list[tuple[Ints, Ints, Floats]]] = defaultdict(list)
    cost: Floats | None = None
    while True:
        item, step, rest, best = toward.choices(k[group], state)
        cost = best if cost is None else cost
        if hashed:
            one = one_each(item, mix(hashed[0], hashed[1][group], steps.node[state]))
            item, step, rest = item[one], step[one], rest[one]
        elif how == "even":
            amount = amount / np.maximum(np.bincount(item, minlength=len(amount)), 1)
        group, state, amount = group[item], steps.head[step], amount[item]
        loads += np.bincount(step, amount, minlength=len(loads))
        there = rest == 0
        arrived += np.bincount(group[there], amount[there], minlength=len(arrived))
        links = scale.links(rest).astype(np.int64)
        for level in np.unique(links[~there]).tolist():
            at = links == level
            pending[level].append((group[at], state[at], amount[at]))
        if not pending:
            return loads, arrived, cost
        group, state, amount = (np.concatenate(parts) for parts in zip(*pending.pop(max(pending)), strict=True))
        if not hashed:
            group, state, amount = _merge(group, state, amount, len(k), states)


def chunks(r: Routes, destination: Ints, most: int = _CHUNK) -> Iterator[tuple[Ints, Toward, Ints]]:
    """Yield (pairs, look-up, k of each pair), pairs with one destination together, in blocks that bound the memory."""
    order = np.argsort(destination, kind="stable")
    islands = int(r.island.max(initial=0)) + 1
    fresh = np.diff(destination[order], prepend=-1) != 0
    block = np.maximum((np.cumsum(fresh) - 1) // max(1, _CELLS // islands), np.arange(len(order)) // most)
    for part in np.split(order, np.flatnonzero(np.diff(block)) + 1):
        if part.size:
            ends, k = np.unique(destination[part], return_inverse=True)
            yield part, r.toward(ends), k


def apart(w: Wires, source: Ints, destination: Ints) -> list[Fault]:
    """Name the pairs that no route joins."""
    return [
        Fault(
            f"pair {w.names[a]} -> {w.names[b]}",
            None,
            "has no route through nodes that may relay",
            "join them, or let more kinds relay",
        )
        for a, b in sorted(set(zip(source.tolist(), destination.tolist(), strict=True)))
    ]


# --- loads -----------------------------------------------------------------------------------------------------------


def travelling(w: Wires, traffic: Traffic, spread: str, flows: int) -> tuple[Ints, Ints, Floats]:
    """Return sources, destinations and amounts of what has to travel."""
    source, destination = positions(w, traffic[0], "sources"), positions(w, traffic[1], "destinations")
    amount = np.asarray(traffic[2], dtype=np.float64).ravel()
    faults = []
    if len(source) != len(destination) or len(amount) not in (1, len(source)):
        sizes = (len(source), len(destination), len(amount))
        faults.append(Fault("traffic", sizes, "are unlike lengths", "give one source, destination and amount per pair"))
    if not (np.isfinite(amount) & (amount >= 0)).all():
        faults.append(Fault("traffic amounts", None, "are not all 0 or more, and finite"))
    if spread not in ("even", "hash"):
        faults.append(Fault("spread", spread, "is unknown", "write even or hash"))
    if flows < 1:
        faults.append(Fault("flows", flows, "must be at least 1"))
    if faults:
        raise SpecError(faults)
    amount = np.broadcast_to(amount, source.shape)
    moves = (source != destination) & (amount > 0)
    return source[moves], destination[moves], amount[moves]


def link_loads(
    graph: "AnyGraph | Wires | Routes",
    traffic: Traffic,
    spread: Spread = "even",
    seed: int = 0,
    flows: int = 1,
    weight: Weight = "latency",
    relay: Sequence[str] | None = None,
) -> Floats:
    """Return the load that traffic puts on every arc, over shortest routes: ``load(e) = Σ_pairs amount · share(pair, e)``.

    Parameters
    ----------
    graph
        The graph, or its `routes` (make them once where many patterns are priced).
    traffic
        Sources, destinations, amounts (one for all, or one per pair), in bytes or bytes/s.
    spread
        "even": every node splits what goes to one destination evenly over its next steps, as ECMP or packet spraying
        would at best. "hash": every flow takes one of them, by a hash of seed, flow and node.
    seed, flows
        For "hash": the draw, and the flows (queue pairs) over which each pair splits its amount evenly.
    weight, relay
        As for `routes`, unless `graph` is that.

    Returns
    -------
    np.ndarray
        In the unit of the amounts, shape (arcs,), in the order of `Wires.arcs`.

    Raises
    ------
    SpecError
        Naming unknown nodes, bad amounts, and pairs without a route.

    Examples
    --------
    Four accelerators on one switch: the last receives from the three others.

    >>> import networkx as nx
    >>> g = nx.star_graph(4)
    >>> nx.set_node_attributes(g, {n: {"kind": "accelerator" if n else "switch"} for n in g})
    >>> nx.set_edge_attributes(g, {e: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for e in g.edges})
    >>> link_loads(g, ([1, 2, 3], [4, 4, 4], 10.0)).tolist()
    [0.0, 0.0, 0.0, 30.0, 10.0, 10.0, 10.0, 0.0]
    """
    r = routes(graph, weight, relay)
    source, destination, amount = travelling(r.wires, traffic, spread, flows)
    loads, faults = np.zeros(len(r.cost)), list[Fault]()
    copies = flows if spread == "hash" else 1
    for part, toward, k in chunks(r, destination, max(1, _CHUNK // copies)):
        if spread == "hash":
            flow = (part[:, None] * flows + np.arange(flows)).ravel()
            state, each = source[part].repeat(flows), (amount[part] / flows).repeat(flows)
            each_one = np.arange(len(flow))
            found, _, cost = descend(toward, k.repeat(flows), each_one, state, each, "hash", (seed, flow))
        else:
            found, _, cost = descend(toward, np.arange(len(toward.destinations)), k, source[part], amount[part], "even")
        loads += found
        lost = part[np.isinf(cost[::copies])]
        faults += apart(r.wires, source[lost], destination[lost])
    if faults:
        raise SpecError(listed(faults, "pairs"))
    return _on_arcs(r, loads)


def _on_arcs(r: Routes, loads: Floats) -> Floats:
    """Return loads of steps as loads of arcs."""
    arcs, double = len(r.wires.arcs[0]), r.steps.second >= 0
    total = np.bincount(r.steps.first, loads, minlength=arcs)
    return np.asarray(total + np.bincount(r.steps.second[double], loads[double], minlength=arcs), dtype=np.float64)


def busiest_s(graph: "AnyGraph | Wires", loads_bytes: Floats) -> float:
    """Return how long the busiest arc takes: ``max over arcs of load / bandwidth``; the time of a round less its latency.

    >>> import networkx as nx
    >>> g = nx.Graph([(0, 1, {"bandwidth_Bps": 1e9, "latency_s": 0.0})])
    >>> nx.set_node_attributes(g, "accelerator", "kind")
    >>> busiest_s(g, np.array([2e9, 0.0]))
    2.0
    """
    return float(np.max(loads_bytes / wires(graph).arcs[2], initial=0.0))
