"""Sums and copies in switches, on the graph: where a reducer of a schedule stands, and what its messages load.

A reducer is any adding switch over the ranks that exchange messages with it: those nearest to the farthest of the ranks
and, among them, nearest to all together. Where several are alike (the planes of a scale-up domain, the spines of a rail)
each takes an equal part, as chunks are spread over them.

Messages to a reducer are added at every switch on the way that can add, so that a link behind it carries their bytes
once; messages from it are copied at the same switches. A switch that cannot add passes them on one by one.

Sources: Graham et al. 2016, "Scalable Hierarchical Aggregation Protocol (SHArP)" (aggregation trees of switches); NVIDIA,
NVLink SHARP (multimem in the NVSwitches; addresses interleaved over all of them).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from topo.errors import Fault, SpecError
from topo.relays import Floats, Ints, Mask, listed

if TYPE_CHECKING:
    from collectives.ladder.jobs import Messages, Placed
    from collectives.ladder.network import Network
    from collectives.schedule import Schedule

HOPS: int = 8
"""Doublings by which the last adding switch before a link is found: routes of up to 2^8 links."""


def served(plan: "Schedule") -> dict[int, Ints]:
    """Return the ranks that exchange messages with each reducer of a schedule, by the rank that it works for.

    >>> from collectives.schedule import schedule
    >>> {owner: ranks.tolist() for owner, ranks in served(schedule("all_reduce", "nvls", 4, 8.0, inner=2)).items()}
    {0: [0, 1], 1: [0, 1], 2: [2, 3], 3: [2, 3]}
    """
    parts = [np.zeros(0, np.int64)]
    for each in plan.rounds:
        for here, there in ((each.sender, each.receiver), (each.receiver, each.sender)):
            mine = here < 0
            parts.append(np.unique((-1 - here[mine]) * plan.ranks + there[mine]))
    owner, rank = np.divmod(np.unique(np.concatenate(parts)), plan.ranks)
    owners, start = np.unique(owner, return_index=True)
    return dict(zip(owners.tolist(), np.split(rank, start[1:]), strict=True))


def roots(net: "Network", ends: Ints) -> Ints:
    """Return the positions of the adding switches that serve some ends best; none where no such switch reaches them all."""
    r = net.routes
    if r is None or not len(net.adders):
        return np.zeros(0, np.int64)
    if "adders" not in net.memo:
        net.memo["adders"] = r.toward(net.adders)
    k, end = np.divmod(np.arange(len(net.adders) * len(ends)), len(ends))
    cost = net.memo["adders"].choices(k, net.ends[ends][end])[3].reshape(len(net.adders), len(ends))
    farthest, total = cost.max(axis=1), cost.sum(axis=1)
    if np.isinf(farthest.min()):
        return np.zeros(0, np.int64)
    near = farthest == farthest.min()
    return np.asarray(net.adders[near & (total == total[near].min())])


def reducing(jobs: "Sequence[Placed]", net: "Network") -> "tuple[list[Placed], Network]":
    """Return jobs whose reducers are further ends of a network, and that network.

    Raises
    ------
    SpecError
        Naming the jobs whose ranks no adding switch joins.
    """
    faults, found, stands, many = list[Fault](), [], list[Ints](), len(net.ends)
    known: dict[bytes, Ints] = {}
    for i, job in enumerate(jobs):
        number = np.full(job.schedule.ranks, -1)
        for owner, ranks in served(job.schedule).items() if job.schedule.network else ():
            ends = np.unique(job.ends[ranks])
            if ends.tobytes() not in known:
                known[ends.tobytes()] = roots(net, ends)
            stands.append(known[ends.tobytes()])
            number[owner] = many + len(stands) - 1
            if not len(stands[-1]):
                lost = [net.wires.names[node] for node in net.ends[ends[:4]].tolist()]
                remedy = "use the closed form, or an algorithm whose ranks add"
                faults.append(Fault(f"jobs[{i}].places", lost, "share no switch that adds", remedy))
        found.append(job._replace(ends=np.concatenate([job.ends, number[::-1]])) if job.schedule.network else job)
    if faults:
        raise SpecError(listed(faults, "jobs"))
    return found, net.beside(stands)


def _alike(key: Ints) -> Ints:
    """Return how many of the same key came before each item: what tells the messages of one pair apart.

    >>> _alike(np.array([7, 8, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(key, kind="stable")
    start = np.flatnonzero(np.diff(key[order], prepend=-1))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.repeat(start, np.diff(start, append=len(order)))
    return place


def _streams(owner: Ints, near: Ints, far: Ints, adds: Mask) -> Ints:
    """Return what each message is part of on each link of its route: the sum of the last adding switch, or itself.

    `near` and `far` are the ends of the links, in the direction of travel (against it, for copies). Sums are numbered by
    switch, messages after them.
    """
    size = len(adds)
    stream = np.where(adds[near], near, size + owner)
    leads = owner * size + far
    order = np.argsort(leads, kind="stable")
    wanted = owner * size + near
    at = np.minimum(np.searchsorted(leads[order], wanted), len(order) - 1)
    before = order[at]
    before = np.where((leads[before] == wanted) & ~adds[near], before, np.arange(len(owner)))
    for _ in range(HOPS):
        before = before[before]
    return np.asarray(stream[before])


def merged(net: "Network", sent: "Messages", row: Ints, scale: float) -> Floats:
    """Return the bytes on every arc of messages to and from reducers, `scale` bytes on the wire for one of payload.

    Messages of one sum (or copies of one result) share a link behind (before) a switch that adds; the k-th message of a
    pair belongs to the k-th sum.
    """
    tail, head = (side.astype(np.int64) for side in net.wires.arcs[:2])
    total = np.zeros(len(net.bandwidth_Bps))
    adds = np.zeros(net.wires.size, dtype=bool)
    adds[net.adders] = True
    ways = ((sent.destination, sent.source, tail, head), (sent.source, sent.destination, head, tail))
    for reducer, rank, near, far in ways:
        mine = np.flatnonzero(reducer >= len(net.ends))
        if not len(mine):
            continue
        turn = _alike(reducer[mine] * net.size + rank[mine])
        group = turn * net.size + reducer[mine]
        owner, arc, share = net.rows.entries(row[mine])
        stream = _streams(owner, near[arc], far[arc], adds)
        amount = share * sent.size_bytes[mine][owner] * scale
        order = np.lexsort((stream, group[owner], arc))
        keys = np.stack([stream, group[owner], arc])[:, order]
        start = np.flatnonzero(np.diff(keys, axis=1, prepend=-1).any(axis=0))
        total += np.bincount(keys[2][start], np.maximum.reduceat(amount[order], start), len(total))
    return total
