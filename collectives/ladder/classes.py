"""Pairs that load a network alike, priced as one: what makes thousands of rounds of thousands of messages affordable.

Ends on one switch (or one set of switches, at equal cost and rate) are exchangeable but for their own cables. So a pair's
route is: the source's cable, a way that depends only on the two sets of switches, the destination's cable. A round then
needs only how many messages each class of pairs has; and links that every class loads alike (the parallel uplinks of a
leaf) are one column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from collectives.ladder.jobs import Messages
from collectives.ladder.network import Network, Rows, shares
from topo.relays import Floats, Ints
from topo.routes import Routes

LEAST: int = 64
"""Ends below which classes are not worth finding."""


class Homes(NamedTuple):
    """First or last steps of ends: the end's number, the hub, the cost, the seconds per byte of the slowest link."""

    end: Ints
    hub: Ints
    cost: Floats
    slowness: Floats
    step: Ints


@dataclass(frozen=True)
class Classes:
    """Classes of pairs.

    Attributes
    ----------
    table
        Class of each pair of ends, shape (ends, ends).
    rows
        Shared links of each class, as numbers of columns.
    column, column_Bps
        An arc of every column, and its bytes/s.
    own_s
        Seconds per byte on the busiest of the ends' own cables, per class.
    latency_s, hops
        Of each class.
    cable
        The arc of that cable, for a pair that stands for the class.
    """

    table: npt.NDArray[np.int32] | npt.NDArray[np.uint16]
    rows: Rows
    column: Ints
    column_Bps: Floats
    own_s: Floats
    latency_s: Floats
    hops: Floats
    cable: Ints

    def count(self, turns: Sequence[Messages]) -> tuple[Ints, Ints, Ints]:
        """Return, for rounds of as many messages, in their order: the round, a class in it, and how many pairs it has."""
        kinds = len(self.own_s)
        pairs = np.stack([sent.source * len(self.table) + sent.destination for sent in turns], axis=1)
        found = self.table.ravel().take(pairs, mode="clip") + np.arange(len(turns)) * kinds
        if kinds > 8 * len(pairs):
            at, count = np.unique(found, return_counts=True)
        else:
            tally = np.bincount(found.ravel(), minlength=len(turns) * kinds)
            at = np.flatnonzero(tally)
            count = tally[at]
        return at // kinds, at % kinds, count


def _homes(r: Routes, number: Ints, first: bool) -> Homes | None:
    """Return the steps from ends to hubs (or back); None where ends reach each other without one."""
    steps = r.steps
    end, hub = (steps.tail, steps.head) if first else (steps.head, steps.tail)
    mine = np.flatnonzero(~steps.hub[end])
    mine = mine[number[steps.node[end[mine]]] >= 0]
    inside = steps.hub[hub[mine]]
    if (number[steps.node[hub[mine[~inside]]]] >= 0).any():
        return None
    mine = mine[inside]
    bandwidth_Bps = r.wires.arcs[2]
    second = steps.second[mine]
    slowness = 1 / bandwidth_Bps[steps.first[mine]]
    slowness = np.maximum(slowness, np.where(second >= 0, 1 / bandwidth_Bps[second], 0.0))
    order = np.lexsort((r.hub_number[hub[mine]], number[steps.node[end[mine]]]))
    mine, slowness = mine[order], slowness[order]
    return Homes(number[steps.node[end[mine]]], r.hub_number[hub[mine]], r.cost[mine], slowness, mine)


def classes(net: Network) -> Classes | None:
    """Return the classes of pairs of a network, or None where they are too few, or each pair is its own.

    Needs routes of the graph that split evenly, ends that pass nothing on, and cables that serve one end each.
    """
    r = net.routes
    if r is None or net.spread != "even" or len(net.ends) < LEAST or r.steps.hub[net.ends].any():
        return None
    number = np.full(net.wires.size, -1)
    number[net.ends] = np.arange(len(net.ends))
    out, back = _homes(r, number, True), _homes(r, number, False)
    if out is None or back is None or not (_alone(r, out) and _alone(r, back)):
        return None
    table, pairs = _table(r, out, back, len(net.ends))
    if table is None:
        return None
    rows = shares(r, net.ends[pairs // len(net.ends)], net.ends[pairs % len(net.ends)])
    return _collapsed(net, table, rows)


def _alone(r: Routes, homes: Homes) -> bool:
    """Return whether no arc of these steps serves two ends."""
    arcs = np.concatenate([r.steps.first[homes.step], r.steps.second[homes.step]])
    pairs = np.unique(np.stack([arcs, np.concatenate([homes.end, homes.end])], axis=1)[arcs >= 0], axis=0)
    return len(np.unique(pairs[:, 0])) == len(pairs)


def _table(r: Routes, out: Homes, back: Homes, ends: int) -> tuple[npt.NDArray[np.int32] | None, Ints]:
    """Return the class of every pair, and a pair for each class; None where some pairs have no route through hubs."""
    best = np.full((ends, ends), np.inf)
    table = np.full((ends, ends), -1, np.int32)
    used = 0
    wanted = np.unique(back.hub)
    row = np.zeros(len(r.hubs), dtype=np.int64)
    distance, row[wanted] = r.table(wanted)
    for island in np.unique(r.island[out.hub]).tolist():
        here, there = (np.flatnonzero(r.island[homes.hub] == island) for homes in (out, back))
        sources, source_class, firsts = _alike(out, here)
        targets, target_class, lasts = _alike(back, there)
        cost = np.full((len(firsts), len(lasts)), np.inf)
        for a, some in enumerate(firsts):
            for b, others in enumerate(lasts):
                ways = distance[np.ix_(row[back.hub[others]], out.hub[some])].T
                cost[a, b] = (out.cost[some][:, None] + ways + back.cost[others]).min()
        block = np.ix_(sources, targets)
        found = cost[source_class[:, None], target_class]
        names = (used + source_class[:, None] * len(lasts) + target_class).astype(np.int32)
        used += len(firsts) * len(lasts)
        held, known = best[block], table[block]
        tie = (found == held) & np.isfinite(found)
        merged = np.where(found < held, names, known)
        if tie.any():
            both, which = np.unique(np.stack([known[tie], names[tie]], axis=1), axis=0, return_inverse=True)
            merged[tie] = used + which.ravel()
            used += len(both)
        best[block], table[block] = np.minimum(found, held), merged
    np.fill_diagonal(table, used)
    if (table < 0).any():
        return None, np.zeros(0, np.int64)
    pair = np.full(used + 1, -1)
    pair[table.ravel()] = np.arange(ends * ends)
    kept = np.flatnonzero(pair >= 0)
    rename = np.full(used + 1, -1, np.int32)
    rename[kept] = np.arange(len(kept))
    return rename[table], pair[kept]


def _alike(homes: Homes, here: Ints) -> tuple[Ints, Ints, list[Ints]]:
    """Return ends, the class of each, and for each class the homes of one of its ends."""
    ends, start, count = np.unique(homes.end[here], return_index=True, return_counts=True)
    seen: dict[tuple[float, ...], int] = {}
    found, members = np.zeros(len(ends), np.int64), list[Ints]()
    for i, (first, size) in enumerate(zip(start.tolist(), count.tolist(), strict=True)):
        mine = here[first : first + size]
        key = (*homes.hub[mine].tolist(), *homes.cost[mine].tolist(), *homes.slowness[mine].tolist())
        if key not in seen:
            seen[key] = len(members)
            members.append(mine)
        found[i] = seen[key]
    return ends, found, members


def _collapsed(net: Network, table: npt.NDArray[np.int32], rows: Rows) -> Classes:
    """Return classes with their own cables apart, and one arc for all that every class loads alike."""
    bandwidth_Bps, arcs = net.bandwidth_Bps, len(net.bandwidth_Bps)
    own = np.zeros(arcs, dtype=bool)
    r = net.routes
    if r is not None:
        edge = ~r.steps.hub[r.steps.tail] | ~r.steps.hub[r.steps.head]
        mine = np.concatenate([r.steps.first[edge], r.steps.second[edge]])
        own[mine[mine >= 0]] = True
    number = len(rows.start)
    owner, arc, share = rows.entries(np.arange(number))
    latency_s = np.bincount(owner, share * net.wires.arcs[3][arc], number).astype(np.float64)
    hops = np.bincount(owner, share, number).astype(np.float64)
    own_s, cable = np.zeros(number), np.full(number, -1)
    at = np.flatnonzero(own[arc])
    slow = share[at] / bandwidth_Bps[arc[at]]
    np.maximum.at(own_s, owner[at], slow)
    top = slow == own_s[owner[at]]
    cable[owner[at][top]] = arc[at][top]
    left = np.flatnonzero(~own[arc])
    owner, arc, share = owner[left], arc[left], share[left]
    mark = np.bincount(arc, np.random.default_rng(0).random(number)[owner] * share, arcs)
    used = np.flatnonzero(np.bincount(arc, minlength=arcs))
    _, first = np.unique(np.stack([mark[used], bandwidth_Bps[used]], axis=1), axis=0, return_index=True)
    column = np.sort(used[first])
    number_of = np.full(arcs, -1)
    number_of[column] = np.arange(len(column))
    keep = number_of[arc] >= 0
    kept = Rows.of(number, owner[keep], number_of[arc[keep]], share[keep])
    small = table.astype(np.uint16) if number < 2**16 else table
    return Classes(small, kept, column, bandwidth_Bps[column], own_s, latency_s, hops, cable)
