"""What it costs to get from one node of a graph to another, and the next steps on the way.

A route goes up (out of the source's host), across (the fabric) and down (into the destination's host). Accelerators
are the ends of routes and NICs are the plugs between; only what is left, the switches, hosts and sites (`hubs`), needs
a search. So a graph of 4,096 accelerators is searched over a few hundred hubs, once, and every pair follows by look-up:

    cost(s → d) = min over hubs u that s can reach in one step, v that reach d in one step: c(s, u) + C(u, v) + c(v, d)

A step is one link, or two with a plug in the middle. Costs are whole numbers held in float64, so that ties are exact.
Who may relay, and why, stands in `topo.relays`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from topo.errors import Fault, SpecError
from topo.relays import Floats, Ints, Mask, Steps, components, kind_faults, relays, spans, steps_of
from topo.wires import Wires, wires

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from topo.wires import AnyGraph

Weight = Literal["latency", "hops", "hops, then latency"]

_EXACT = 2.0**53
"""Whole numbers below this are exact in float64."""


# --- what it costs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """cost = links · per_link + latency / unit_s · per_unit, in whole numbers: exact ties, links and latency in one."""

    per_link: float
    per_unit: float
    unit_s: float

    def cost(self, latency_s: Floats) -> Floats:
        """Return the cost of single links."""
        return self.per_link + np.rint(latency_s / self.unit_s) * self.per_unit

    def links(self, cost: Floats) -> Floats:
        """Return how many links a path of this cost has."""
        return cost // self.per_link if self.per_link > self.per_unit else cost % self.per_unit

    def latency_s(self, cost: Floats) -> Floats:
        """Return how long a path of this cost takes (0 where latency is no part of the cost)."""
        if not self.per_unit:
            return np.zeros_like(cost)
        return (cost % self.per_link if self.per_link > self.per_unit else cost // self.per_unit) * self.unit_s


def _scale(w: Wires, weight: Weight) -> Scale:
    """Return the finest scale, from a picosecond up, at which the longest path that can be has an exact cost.

    A path passes a node twice at most (see `topo.relays.Steps`), so it has fewer links than twice the nodes, and takes
    no longer than that many of the slowest links.
    """
    if weight == "hops":
        return Scale(1.0, 0.0, 1.0)
    most_links = 2.0 ** np.ceil(np.log2(2 * w.size + 1))
    longest_s = 2 * float(np.sort(w.latency_s)[::-1][: w.size].sum())
    unit_s = 1e-12
    while longest_s / unit_s + 2 * w.size >= _EXACT / most_links:
        unit_s *= 10
    if weight == "latency":
        return Scale(1.0, float(most_links), unit_s)
    return Scale(float(2.0 ** np.ceil(np.log2(longest_s / unit_s + 2 * w.size + 2))), 1.0, unit_s)


def _lightest(size: int, tail: Ints, head: Ints, cost: Floats) -> "csr_matrix":
    """Return costs as a matrix, of parallel steps the lightest (a sparse matrix would add them up)."""
    from scipy.sparse import csr_matrix

    order = np.lexsort((cost, head, tail))
    tail, head, cost = tail[order], head[order], cost[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (tail[1:] != tail[:-1]) | (head[1:] != head[:-1])
    return csr_matrix((cost[first], (tail[first], head[first])), shape=(size, size))


@dataclass(frozen=True)
class Routes:
    """All shortest routes of a graph, found on demand and kept. Make it with `routes`; use it for many patterns.

    Attributes
    ----------
    wires
        The graph; node positions and arcs below are its.
    relay
        Kinds of node that pass traffic on.
    steps, scale, cost
        Moves between states, and the cost of each, shape (steps,).
    """

    wires: Wires
    relay: tuple[str, ...]
    steps: Steps
    scale: Scale
    cost: Floats
    _rows: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def hubs(self) -> Ints:
        """States that traffic can pass through."""
        return np.flatnonzero(self.steps.hub)

    @cached_property
    def hub_number(self) -> Ints:
        """Position of each state in `hubs`, -1 for ends."""
        number = np.full(len(self.steps.node), -1)
        number[self.hubs] = np.arange(len(self.hubs))
        return number

    @cached_property
    def _matrix(self) -> "csr_matrix":
        """Cost from hub to hub in one step, seen backwards (a search from v finds the way to v)."""
        steps, number = self.steps, self.hub_number
        both = np.flatnonzero(steps.hub[steps.tail] & steps.hub[steps.head])
        return _lightest(len(self.hubs), number[steps.head[both]], number[steps.tail[both]], self.cost[both])

    @cached_property
    def island(self) -> Ints:
        """Which hubs hang together, shape (hubs,)."""
        matrix = self._matrix.tocoo()
        return components(len(self.hubs), matrix.row.astype(np.int64), matrix.col.astype(np.int64))

    @cached_property
    def onward(self) -> tuple[Ints, Ints, Ints]:
        """Steps by tail, as (first, count) per state and their order; those from a hub to an end are left out."""
        steps = self.steps
        kept = np.flatnonzero(~steps.hub[steps.tail] | steps.hub[steps.head])
        order = kept[np.argsort(steps.tail[kept], kind="stable")]
        count = np.bincount(steps.tail[order], minlength=len(steps.node))
        return np.cumsum(count) - count, count, order

    @cached_property
    def _landings(self) -> tuple[Ints, Ints, Ints, Ints, Floats]:
        """Last steps by the end they lead to, as (first, count) per node; their steps, hubs and costs.

        A hub that is itself the destination has no last step (-1) but is landed on, in either copy.
        """
        steps = self.steps
        last = np.flatnonzero(steps.hub[steps.tail] & ~steps.hub[steps.head])
        end = np.concatenate([steps.node[self.hubs], steps.head[last]])
        step = np.concatenate([np.full(len(self.hubs), -1), last])
        hub = np.concatenate([np.arange(len(self.hubs)), self.hub_number[steps.tail[last]]])
        cost = np.concatenate([np.zeros(len(self.hubs)), self.cost[last]])
        order = np.lexsort((hub, self.island[hub], end)) if len(hub) else np.zeros(0, np.int64)
        count = np.bincount(end, minlength=self.wires.size)
        return np.cumsum(count) - count, count, step[order], hub[order], cost[order]

    def table(self, hubs: Ints) -> tuple[Floats, Ints]:
        """Return costs from every hub to `hubs`, and the row of each of `hubs` in it: searched once, then kept."""
        from scipy.sparse.csgraph import dijkstra

        size = len(self.hubs)
        table = self._rows.get("table", np.zeros((0, size)))
        row = self._rows.get("row", np.full(size, -1))
        missing = np.unique(hubs[row[hubs] < 0])
        if missing.size:
            alone = np.bincount(self.island, minlength=size)[self.island[missing]] == 1
            found = np.full((len(missing), size), np.inf)
            found[alone, missing[alone]] = 0.0
            if not alone.all():
                found[~alone] = dijkstra(self._matrix, indices=missing[~alone])
            row[missing] = len(table) + np.arange(len(missing))
            table = np.concatenate([table, found])
            self._rows.update(table=table, row=row)
        return table, row[hubs]

    def toward(self, destinations: Ints) -> "Toward":
        """Return the look-up of costs to `destinations` (positions, each once)."""
        first, count, step, hub, cost = self._landings
        owner, at = spans(first[destinations], count[destinations])
        table, row = self.table(hub[at])
        islands = int(self.island.max(initial=-1)) + 1
        key = owner * islands + self.island[hub[at]]  # sorted, as the landings are
        tally = np.bincount(key, minlength=len(destinations) * islands)
        return Toward(
            self, destinations, islands, np.cumsum(tally) - tally, tally, step[at], hub[at], cost[at], table, row
        )


@dataclass(frozen=True)
class Toward:
    """Costs to some destinations. Destination k is landed on, from island i, by the range of landings at k·islands + i."""

    routes: Routes
    destinations: Ints
    islands: int
    first: Ints
    count: Ints
    step: Ints
    hub: Ints
    landing_cost: Floats
    table: Floats
    row: Ints

    @cached_property
    def most(self) -> int:
        """The most landings that a destination has on one island."""
        return int(self.count.max(initial=0))

    def togo(self, k: Ints, state: Ints) -> Floats:
        """Return the cost from states (hubs, or ends) to destinations number k; inf where there is no way."""
        hub = self.routes.hub_number[state]
        togo = np.where(state == self.destinations[k], 0.0, np.inf)
        inside = np.flatnonzero(hub >= 0)
        hub = hub[inside]
        cell = k[inside] * self.islands + self.routes.island[hub]
        first, count = self.first[cell], self.count[cell]
        for j in range(self.most):
            some = np.flatnonzero(count > j)
            at, here = first[some] + j, inside[some]
            togo[here] = np.minimum(togo[here], self.table[self.row[at], hub[some]] + self.landing_cost[at])
        return togo

    def choices(self, k: Ints, state: Ints) -> tuple[Ints, Ints, Floats, Floats]:
        """Return the next steps of items at `state` on their way to destinations number k.

        Returns
        -------
        item, step, rest, best
            All steps on shortest paths: of which item, the step, the cost that remains after it; and, for every item,
            the cost from its state (inf where there is no way). Items must not stand at their destination.
        """
        inside = self.routes.steps.hub[state]
        best = np.full(len(state), np.inf)
        parts = []
        for which, find in ((np.flatnonzero(~inside), self._first_steps), (np.flatnonzero(inside), self._next_steps)):
            if which.size:
                item, step, best[which] = find(k[which], state[which])
                parts.append((which[item], step))
        item, step = (np.concatenate(found) for found in zip(*parts, strict=True))
        return item, step, best[item] - self.routes.cost[step], best

    def _first_steps(self, k: Ints, end: Ints) -> tuple[Ints, Ints, Floats]:
        """Return (item, step, cost of each item) at ends: of all steps, those that start a shortest path."""
        first, count, order = self.routes.onward
        item, at = spans(first[end], count[end])
        step = order[at]
        total = self.togo(k[item], self.routes.steps.head[step]) + self.routes.cost[step]
        best = np.full(len(end), np.inf)
        np.minimum.at(best, item, total)
        good = np.flatnonzero((total == best[item]) & (total < np.inf))
        return item[good], step[good], best

    def _next_steps(self, k: Ints, state: Ints) -> tuple[Ints, Ints, Floats]:
        """Return (item, step, cost of each item) at hubs: towards every hub to land on that is on a shortest path.

        Many items share a hub and a landing hub, so the steps from one towards the other are found once for all.
        """
        best = self.togo(k, state)
        hub = self.routes.hub_number[state]
        cell = k * self.islands + self.routes.island[hub]
        item, at = spans(self.first[cell], self.count[cell])
        good = self.table[self.row[at], hub[item]] + self.landing_cost[at] == best[item]
        good &= best[item] < np.inf
        item, at = item[good], at[good]
        landed = (self.hub[at] == hub[item]) & (self.step[at] >= 0)
        course, which = np.unique(self.row[at] * len(self.routes.hubs) + hub[item], return_inverse=True)
        first, count, step = self._onward(*np.divmod(course, len(self.routes.hubs)))
        owner, position = spans(first[which], count[which])
        item, step = (
            np.concatenate([item[owner], item[landed]]),
            np.concatenate([step[position], self.step[at[landed]]]),
        )
        if self.most > 1:
            item, step = np.divmod(np.unique(item * len(self.routes.cost) + step), len(self.routes.cost))
        return item, step, best

    def _onward(self, row: Ints, hub: Ints) -> tuple[Ints, Ints, Ints]:
        """Return, for hubs and rows of the table, the steps on shortest paths: (first, count) of each, and the steps."""
        first, count, order = self.routes.onward
        state = self.routes.hubs[hub]
        owner, at = spans(first[state], count[state])
        step = order[at]
        after = self.table[row[owner], self.routes.hub_number[self.routes.steps.head[step]]]
        good = after + self.routes.cost[step] == self.table[row[owner], hub[owner]]
        number = np.bincount(owner[good], minlength=len(hub))
        return np.cumsum(number) - number, number, step[good]


def routes(
    graph: "AnyGraph | Wires | Routes",
    weight: Weight = "latency",
    relay: Sequence[str] | None = None,
    arcs: Mask | None = None,
) -> Routes:
    """Return the shortest routes of a graph: least latency, then fewest links (or fewest links alone).

    Parameters
    ----------
    graph
        The graph; `Routes` pass through, and the other arguments are not read.
    weight
        "latency" (ties go to fewer links), "hops" (all paths with the fewest links), or "hops, then latency".
    relay
        Kinds of node that pass traffic on; by default `relays(graph)`.
    arcs
        Which arcs to use, shape (arcs,); by default all.

    Raises
    ------
    SpecError
        When a kind or the weight is unknown.

    Examples
    --------
    >>> import networkx as nx
    >>> g = nx.star_graph(4)
    >>> nx.set_node_attributes(g, {n: {"kind": "accelerator" if n else "switch"} for n in g})
    >>> nx.set_edge_attributes(g, {e: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for e in g.edges})
    >>> r = routes(g)
    >>> r.relay, r.hubs.tolist()
    (('switch', 'nic', 'host', 'site'), [0])
    """
    if isinstance(graph, Routes):
        return graph
    w = wires(graph)
    relay = relays(w) if relay is None else tuple(relay)
    faults = kind_faults(relay)
    if weight not in ("latency", "hops", "hops, then latency"):
        faults.append(Fault("weight", weight, "is unknown", "write latency or hops"))
    if faults:
        raise SpecError(faults)
    steps = steps_of(w, relay, np.arange(len(w.arcs[0])) if arcs is None else np.flatnonzero(arcs))
    scale = _scale(w, weight)
    per_arc = scale.cost(w.arcs[3])
    return Routes(w, relay, steps, scale, per_arc[steps.first] + np.where(steps.second < 0, 0.0, per_arc[steps.second]))
