"""The routes of pairs as rows of numbers: which share of a pair's bytes crosses which arc.

A row is found once and kept. Routes are the graph's own shortest ones (split evenly as ECMP or spraying would at best,
or hashed to one path each), or given node by node, as installed in a real network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from topo.errors import Fault, SpecError
from topo.loads import apart, chunks, mix, one_each
from topo.rails import rail_aware
from topo.relays import Floats, Ints, listed, positions, spans
from topo.routes import Routes, routes
from topo.wires import Wires, wires

if TYPE_CHECKING:
    from topo.wires import AnyGraph

Given = Mapping[tuple[Any, Any], Sequence[Any]]
"""(source, destination) → the nodes of the route between, both ends included."""


@dataclass(frozen=True)
class Rows:
    """Routes, one row each: entries start[i] … start[i] + count[i] - 1 of `arc` and `share`, in the order of travel."""

    start: Ints
    count: Ints
    arc: Ints
    share: Floats

    @classmethod
    def of(cls, number: int, row: Ints, arc: Ints, share: Floats) -> "Rows":
        """Return rows 0 … number-1 from entries sorted by row."""
        count = np.bincount(row, minlength=number)
        return cls(np.cumsum(count) - count, count, arc, share)

    def entries(self, row: Ints) -> tuple[Ints, Ints, Floats]:
        """Return, for rows laid end to end, which of `row` each entry is of, its arc and its share."""
        owner, at = spans(self.start[row], self.count[row])
        return owner, self.arc[at], self.share[at]


class Growing:
    """An array that grows by doubling, so that adding to it a thousand times copies it a few times only."""

    def __init__(self, dtype: type) -> None:
        self.room: npt.NDArray[Any] = np.zeros(64, dtype)
        self.size = 0

    def add(self, more: npt.NDArray[Any]) -> None:
        """Append."""
        if self.size + len(more) > len(self.room):
            grown = np.zeros(2 * (self.size + len(more)), self.room.dtype)
            grown[: self.size] = self.held
            self.room = grown
        self.room[self.size : self.size + len(more)] = more
        self.size += len(more)

    @property
    def held(self) -> npt.NDArray[Any]:
        """What is in it."""
        return self.room[: self.size]


class Found:
    """Rows found so far, with latency and links of each."""

    def __init__(self) -> None:
        self.start, self.count, self.arc = Growing(np.int64), Growing(np.int64), Growing(np.int64)
        self.share, self.latency_s, self.hops = Growing(np.float64), Growing(np.float64), Growing(np.float64)

    def add(self, rows: Rows, arc_latency_s: Floats) -> None:
        """Append rows."""
        number = len(rows.start)
        owner, arc, share = rows.entries(np.arange(number))
        self.latency_s.add(np.bincount(owner, share * arc_latency_s[arc], number))
        self.hops.add(np.bincount(owner, share, number))
        self.start.add(rows.start + self.arc.size)
        self.count.add(rows.count)
        self.arc.add(rows.arc)
        self.share.add(rows.share)


@dataclass
class Network:
    """Arcs, and the rows of the pairs of `ends` found so far. Make it with `network`; use it for many schedules.

    Attributes
    ----------
    wires
        The graph; arcs are those of `Wires.arcs`.
    ends
        Node positions that send and receive.
    routes, given
        Where rows come from: the graph's shortest routes, or installed ones (arcs of each pair of positions).
    spread, seed
        How the graph's own routes are used.
    adders
        Positions of the switches that can add.
    stand
        Of every end, further ones included (`beside`), the number of its set of nodes; empty where there are no further.
    """

    wires: Wires
    ends: Ints
    routes: Routes | None
    given: Mapping[tuple[int, int], list[int]]
    spread: Literal["even", "hash"] = "even"
    seed: int = 0
    adders: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    stand: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    found: Found = field(default_factory=Found, repr=False)
    memo: dict[str, Any] = field(default_factory=dict, repr=False)
    _table: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 0), np.int32), repr=False)

    @property
    def bandwidth_Bps(self) -> Floats:  # noqa: N802  (the unit)
        """Bytes/s of every arc."""
        return self.wires.arcs[2]

    @property
    def rows(self) -> Rows:
        """The rows found so far."""
        found = self.found
        return Rows(found.start.held, found.count.held, found.arc.held, found.share.held)

    @property
    def latency_s(self) -> Floats:
        """Latency of the links of each row."""
        return self.found.latency_s.held

    @property
    def hops(self) -> Floats:
        """Links of each row."""
        return self.found.hops.held

    def single(self) -> "Network":
        """Return this network with one path per pair: itself, or, where pairs split evenly, with hashed routes."""
        if self.routes is None or self.spread == "hash":
            return self
        return Network(self.wires, self.ends, self.routes, {}, "hash", self.seed, self.adders)

    def beside(self, stands: Sequence[Ints]) -> "Network":
        """Return this network with more ends, each on all of some nodes: what goes there is spread over them evenly.

        They follow `ends` in number. Rows found are kept for both networks.
        """
        if not stands:
            return self
        nodes: list[Ints] = self.memo.setdefault("nodes", list(self.ends[:, None]))
        number: dict[bytes, int] = self.memo.setdefault("numbers", {})
        for stand in stands:
            if number.setdefault(stand.tobytes(), len(nodes)) == len(nodes):
                nodes.append(stand)
        self._fit(len(nodes))
        further = [number[stand.tobytes()] for stand in stands]
        return replace(self, stand=np.concatenate([np.arange(len(self.ends)), further]))

    @property
    def size(self) -> int:
        """How many ends there are, further ones included."""
        return len(self.stand) or len(self.ends)

    def _fit(self, size: int) -> None:
        """Make room for the rows of so many ends."""
        if len(self._table) < size:
            table = np.full((size, size), -1, np.int32)
            table[: len(self._table), : len(self._table)] = self._table
            self._table = table

    def row(self, source: Ints, destination: Ints) -> Ints:
        """Return the rows of pairs, given as numbers of `ends` (and of further ones, after them)."""
        if len(self.stand):
            source, destination = self.stand[source], self.stand[destination]
        self._fit(len(self.ends))
        found = self._table[source, destination]
        if (found < 0).any():
            missing = np.unique(source[found < 0] * len(self._table) + destination[found < 0])
            a, b = np.divmod(missing, len(self._table))
            self._add(a, b)
            found = self._table[source, destination]
        return found.astype(np.int64)

    def _add(self, a: Ints, b: Ints) -> None:
        """Find the rows of new pairs."""
        if max(int(a.max()), int(b.max())) >= len(self.ends):
            more = self._spread(a, b)
        else:
            more = self._routed(self.routes, self.ends[a], self.ends[b]) if self.routes else self._installed(a, b)
        self._table[a, b] = self.found.start.size + np.arange(len(a))
        self.found.add(more, self.wires.arcs[3])

    def _spread(self, a: Ints, b: Ints) -> Rows:
        """Rows between ends that may stand on several nodes: the mean of the routes between all, every arc once."""
        nodes: list[Ints] = self.memo["nodes"]
        ways = [(i, u, v) for i, (x, y) in enumerate(zip(a, b, strict=True)) for u in nodes[x] for v in nodes[y]]
        pair, source, destination = np.array(ways, dtype=np.int64).T
        found = self._routed(self.routes, source, destination) if self.routes else self._installed(source, destination)
        owner, arc, share = found.entries(np.arange(len(ways)))
        key, same = np.unique(pair[owner] * len(self.bandwidth_Bps) + arc, return_inverse=True)
        part = share / np.bincount(pair)[pair[owner]]
        mean = np.bincount(same, part, len(key)).astype(np.float64)
        return Rows.of(len(a), *np.divmod(key, len(self.bandwidth_Bps)), mean)

    def _routed(self, r: Routes, source: Ints, destination: Ints) -> Rows:
        """Rows of the graph's own routes; pairs that no switch joins go by a peer on the rail (`topo.rails`)."""
        try:
            return shares(r, source, destination, self.spread, self.seed)
        except SpecError:
            peer = rail_aware(self.wires, (source, destination, 1.0)).peer
        legs = [shares(r, *leg, self.spread, self.seed) for leg in ((source, peer), (peer, destination))]
        owner, arc, share = (
            np.concatenate(part) for part in zip(*(leg.entries(np.arange(len(peer))) for leg in legs), strict=True)
        )
        order = np.argsort(owner, kind="stable")
        return Rows.of(len(peer), owner[order], arc[order], share[order])

    def _installed(self, a: Ints, b: Ints) -> Rows:
        """Rows of installed routes; SpecError naming the pairs that have none."""
        pairs = list(zip(self.ends[a].tolist(), self.ends[b].tolist(), strict=True))
        lost = [(u, v) for u, v in pairs if u != v and (u, v) not in self.given]
        if lost:
            ends = np.array(lost, dtype=np.int64)
            raise SpecError(listed(apart(self.wires, ends[:, 0], ends[:, 1]), "pairs"))
        ways = [self.given.get(pair, []) for pair in pairs]
        arcs = np.array([arc for way in ways for arc in way], dtype=np.int64)
        row = np.repeat(np.arange(len(ways)), [len(way) for way in ways])
        return Rows.of(len(ways), row, arcs, np.ones(len(arcs)))

    def path(self, source: int, destination: int) -> list[int]:
        """Return the arcs of a pair's route, in order; for routes that are one path each."""
        row = self.row(np.array([source]), np.array([destination]))[0]
        start = self.rows.start[row]
        return [int(arc) for arc in self.rows.arc[start : start + self.rows.count[row]]]


def network(
    graph: "AnyGraph | Wires | Routes",
    ends: Sequence[Any] | npt.NDArray[np.integer[Any]],
    given: Given | None = None,
    spread: Literal["even", "hash"] = "even",
    seed: int = 0,
    adders: Sequence[Any] | npt.NDArray[np.integer[Any]] | None = None,
) -> Network:
    """Return the network between some nodes of a graph.

    Parameters
    ----------
    graph
        The graph, or its `topo.routes.routes`. Of a graph, routes with the fewest links are taken, as switches route, and
        of those the fastest; by latency alone, neighbours in a box might talk over their NICs.
    ends
        Names or positions of the nodes that send and receive.
    given
        Installed routes; where they are given, no others are used.
    spread, seed
        "even": split at every node over its next steps. "hash": one path per pair, by a hash of the seed.
    adders
        Names or positions of the switches that can add; by default those of a graph with `in_network_reduction`, and
        none of arrays, which don't say.

    Raises
    ------
    SpecError
        Naming unknown nodes, and steps of given routes that are no links.

    Examples
    --------
    >>> import networkx as nx
    >>> g = nx.cycle_graph(4)
    >>> nx.set_node_attributes(g, "accelerator", "kind")
    >>> nx.set_edge_attributes(g, {e: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for e in g.edges})
    >>> net = network(g, [0, 1, 2])
    >>> rows = net.row(np.array([0, 0]), np.array([1, 2]))
    >>> net.rows.count[rows].tolist(), net.hops[rows].tolist()
    ([1, 4], [1.0, 2.0])
    """
    found = graph if isinstance(graph, Routes) else None
    w = found.wires if found else wires(graph)  # type: ignore[arg-type]
    places = positions(w, ends, "places")
    if adders is None and not isinstance(graph, Wires | Routes):
        adders = [node for node, adds in graph.nodes(data="in_network_reduction") if adds]
    able = positions(w, [] if adders is None else adders, "adders")
    if given is not None:
        return Network(w, places, None, _arcs_of(w, given), adders=able)
    return Network(w, places, found or routes(w, "hops, then latency"), {}, spread, seed, able)


def _arcs_of(w: Wires, given: Given) -> dict[tuple[int, int], list[int]]:
    """Return installed routes as arcs between positions."""
    tail, head, *_ = w.arcs
    names = w.names
    arc = {(names[a], names[b]): i for i, (a, b) in enumerate(zip(tail.tolist(), head.tolist(), strict=True))}
    faults, found = [], {}
    for (source, destination), nodes in given.items():
        steps = list(pairwise(nodes))
        lost = [step for step in steps if step not in arc]
        if lost or nodes[0] != source or nodes[-1] != destination:
            what = f"{lost[0][0]} -> {lost[0][1]} is no link" if lost else "does not run between the two"
            faults.append(Fault(f"route {source} -> {destination}", None, what))
            continue
        found[w.index[source], w.index[destination]] = [arc[step] for step in steps]
    if faults:
        raise SpecError(listed(faults, "routes"))
    return found


def shares(r: Routes, source: Ints, destination: Ints, spread: str = "even", seed: int = 0) -> Rows:
    """Return the shortest routes of pairs of positions: which share of a pair's bytes crosses which arc, in order."""
    parts, faults = [], list[Fault]()
    moves = np.flatnonzero(source != destination)
    for part, toward, k in chunks(r, destination[moves]):
        pair = moves[part]
        group, state, amount = np.arange(len(part)), source[pair], np.ones(len(part))
        while len(group):
            item, step, rest, best = toward.choices(k[group], state)
            lost = pair[group[np.isinf(best)]]
            faults += apart(r.wires, source[lost], destination[lost])
            if spread == "hash":
                ends = source[pair[group]] * r.wires.size + destination[pair[group]]
                one = one_each(item, mix(seed, ends, r.steps.node[state]))
                item, step, rest = item[one], step[one], rest[one]
            else:
                amount = amount / np.maximum(np.bincount(item, minlength=len(amount)), 1)
            parts.append((pair[group[item]], rest, step, amount[item]))
            on = rest > 0
            key = group[item[on]] * len(r.steps.node) + r.steps.head[step[on]]
            key, same = np.unique(key, return_inverse=True)
            group, state = np.divmod(key, len(r.steps.node))
            amount = np.bincount(same, amount[item[on]], minlength=len(key)).astype(np.float64)
    if faults:
        raise SpecError(listed(faults, "pairs"))
    if not parts:
        return Rows.of(len(source), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    pair, rest, step, share = (np.concatenate(found) for found in zip(*parts, strict=True))
    order = np.lexsort((step, -rest, pair))
    pair, step, share = pair[order], step[order], share[order]
    arcs = np.stack([r.steps.first[step], r.steps.second[step]], axis=1)
    used = arcs >= 0
    return Rows.of(len(source), np.repeat(pair, used.sum(axis=1)), arcs[used], np.repeat(share, used.sum(axis=1)))
