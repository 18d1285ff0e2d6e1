"""Rungs that price round by round: with a barrier after each (stepwise), and without (dependency).

A round's messages load links together; the busiest one counts. With a token bucket, a link that paused passes
`burst_bytes` at once: link a is done at F(a) - burst/B(a), where F(a) = max(F(a), start) + load/B(a) is when its bucket
would be full again.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from collectives.ladder.classes import Classes, classes
from collectives.ladder.jobs import Messages, Placed, Price, arc_name, priced, rounds
from collectives.ladder.network import Network
from collectives.ladder.reducers import merged
from collectives.ladder.wire import Wire
from topo.relays import Floats, Ints

TOGETHER: int = 32
"""Rounds priced at once: a line of the cache holds the classes of as many pairs."""


def loads(net: Network, wire: Wire, sent: Messages) -> tuple[Ints, Floats]:
    """Return the row of every message, and the bytes on every arc: data there, acknowledgements back."""
    row = net.row(sent.source, sent.destination)
    total = _carried(net, sent, row, wire.framing)
    if wire.acknowledging:
        back = sent._replace(source=sent.destination, destination=sent.source)
        total = total + _carried(net, back, net.row(back.source, back.destination), wire.acknowledging)
    return row, total


def _carried(net: Network, sent: Messages, row: Ints, scale: float) -> Floats:
    """Return the bytes on every arc: of messages on their own, and of sums and copies."""
    size_bytes, total = sent.size_bytes * scale, np.zeros(len(net.bandwidth_Bps))
    if net.size > len(net.ends):
        to_switch = np.maximum(sent.source, sent.destination) >= len(net.ends)
        size_bytes = np.where(to_switch, 0.0, size_bytes)
        total = merged(net, sent, row, scale)
    owner, arc, share = net.rows.entries(row)
    return np.asarray(total + np.bincount(arc, share * size_bytes[owner], len(net.bandwidth_Bps)), dtype=np.float64)


def alike(net: Network, wire: Wire) -> Classes | None:
    """Return the classes of pairs where they tell all that a round needs: nothing on the way back, no shaping, no cores."""
    if wire.acknowledging or wire.burst_bytes or wire.message_s or wire.copy_s_per_byte:
        return None
    if "classes" not in net.memo:
        net.memo["classes"] = classes(net)
    found: Classes | None = net.memo["classes"]
    return found


class Turns(NamedTuple):
    """Rounds priced by classes: the longest latency of each, how long its busiest link is busy, and that link."""

    latency_s: Floats
    busiest_s: Floats
    link: Ints


def by_class(found: Classes, net: Network, wire: Wire, turns: Sequence[Messages]) -> Turns:
    """Return the price of rounds of as many messages, in each of which every end sends and gets at most one, of one size."""
    many, columns = len(turns), len(found.column)
    turn, present, count = found.count(turns)
    first = np.searchsorted(turn, np.arange(many))
    scale = np.array([sent.size_bytes[0] for sent in turns]) * wire.framing
    own_s = found.own_s[present]
    most_s = np.maximum.reduceat(own_s, first)
    top = np.flatnonzero(own_s == most_s[turn])
    link = found.cable[present[top[np.searchsorted(turn[top], np.arange(many))]]]
    owner, arc, share = found.rows.entries(present)
    if len(arc):
        load = np.bincount(turn[owner] * columns + arc, share * count[owner], many * columns)
        each_s = load.reshape(many, columns) / found.column_Bps
        busiest = each_s.argmax(axis=1)
        shared_s = each_s[np.arange(many), busiest]
        link = np.where(shared_s > most_s, found.column[busiest], link)
        most_s = np.maximum(most_s, shared_s)
    latency_s = found.latency_s[present]
    if wire.hop_s:
        latency_s = latency_s + found.hops[present] * wire.hop_s
    return Turns(np.maximum.reduceat(latency_s, first) + wire.latency_s(len(net.ends)), scale * most_s, link)


def _batches(
    found: Classes | None, number: int, each: Iterable[tuple[Messages, int]]
) -> Iterator[tuple[list[tuple[Messages, int]], bool]]:
    """Yield rounds, some together where classes tell all of them: alike in how many messages, one for every end."""
    held: list[tuple[Messages, int]] = []
    for sent, repeat in each:
        simple = found is not None and _simple(sent, number, held[-1][0].source if held else None)
        if held and (not simple or len(held) == TOGETHER or len(sent.source) != len(held[0][0].source)):
            yield held, True
            held = []
        if simple:
            held.append((sent, repeat))
        elif len(sent.source):
            yield [(sent, repeat)], False
    if held:
        yield held, True


def _simple(sent: Messages, number: int, known: Ints | None) -> bool:
    """Return whether a round has messages, all of one size, and no end sends or gets two; none of `known` comes twice."""
    if not len(sent.source) or (sent.size_bytes.strides[0] and np.ptp(sent.size_bytes)):
        return False
    return (sent.source is known or _once_each(sent.source, number)) and _once_each(sent.destination, number)


def _once_each(ends: Ints, number: int) -> bool:
    """Return whether no end comes twice."""
    seen = np.zeros(number, dtype=bool)
    seen[ends] = True
    return bool(np.count_nonzero(seen) == len(ends))


def handling_s(net: Network, wire: Wire, sent: Messages) -> Floats:
    """Return how long after its last byte each message is dealt with, the links' own latency included.

    Switches have no software. Receivers that share cores queue for them; with many messages each, all but the last are
    dealt with meanwhile.
    """
    row = net.row(sent.source, sent.destination)
    fixed_s = np.where(sent.destination < len(net.ends), wire.latency_s(len(net.ends)), 0.0)
    if not (wire.message_s or wire.copy_s_per_byte):
        return np.asarray(net.latency_s[row] + net.hops[row] * wire.hop_s + fixed_s)
    queue = max(1.0, wire.crowd(len(np.unique(sent.destination))))
    core_s = (wire.message_s + wire.copy_s_per_byte * sent.size_bytes) * queue * (sent.destination < len(net.ends))
    return np.asarray(net.latency_s[row] + net.hops[row] * wire.hop_s + fixed_s + core_s)


def stepwise(jobs: Sequence[Placed], net: Network, wire: Wire) -> Price:
    """Price with a barrier after every round: ``Σ over rounds of (longest latency + busiest link)``.

    Rounds of several jobs run side by side, first with first; their starts are taken as one. The default of one
    collective: 1 % from measurements of a megabyte and more at the median (reference: the project's MPI testbed).
    """
    bandwidth_Bps = net.bandwidth_Bps
    rest_s = wire.burst_bytes / bandwidth_Bps
    full_s, busy_s = np.zeros(len(bandwidth_Bps)), np.zeros(len(bandwidth_Bps))
    now, wire_s, ends = 0.0, 0.0, [0.0] * len(jobs)
    kinds = alike(net, wire) if net.size == len(net.ends) else None
    for batch, simple in _batches(kinds, len(net.ends), rounds(jobs, wire.buffered)):
        if simple and kinds:
            quick = by_class(kinds, net, wire, [sent for sent, _ in batch])
            for (sent, repeat), latency_s, link_s, link in zip(batch, *(part.tolist() for part in quick), strict=True):
                now += repeat * (latency_s + link_s)
                wire_s += repeat * link_s
                busy_s[link] += repeat * link_s
                _ended(ends, sent, now)
            continue
        sent, repeat = batch[0]
        _, total = loads(net, wire, sent)
        after_s = float(handling_s(net, wire, sent).max())
        used = np.flatnonzero(total)
        each_s = total[used] / bandwidth_Bps[used]
        busy_s[used] += each_s * repeat
        left, before = repeat, -1.0
        while left:
            full_s[used] = np.maximum(full_s[used], now) + each_s
            link_s = max(float((full_s[used] - rest_s[used]).max(initial=now)) - now, 0.0)
            same = abs(link_s - before) <= 1e-12 * before
            times = left if same or not wire.burst_bytes else 1
            now += times * (link_s + after_s)
            full_s[used] += (times - 1) * (link_s + after_s)
            wire_s, left, before = wire_s + times * link_s, left - times, link_s
        _ended(ends, sent, now)
    return Price(now, tuple(ends), {"wire": wire_s, "latency": now - wire_s}, arc_name(net, busy_s), "stepwise")


def _ended(ends: list[float], sent: Messages, now: float) -> None:
    """Note that the jobs of a round have come so far."""
    for job in np.unique(sent.job).tolist() if len(ends) > 1 else (0,):
        ends[job] = now


def dependency(jobs: Sequence[Placed], net: Network, wire: Wire) -> Price:
    """Price without barriers: a rank goes on once it has received, so that the longest chain of messages counts.

    A link's load is that of its round (all jobs' together) and starts with the round's first message on it; what is
    left of earlier rounds goes first.
    """
    bandwidth_Bps = net.bandwidth_Bps
    rest_s = wire.burst_bytes / bandwidth_Bps
    full_s, busy_s = np.zeros(len(bandwidth_Bps)), np.zeros(len(bandwidth_Bps))
    clock = np.repeat([[job.start_s] for job in jobs], net.size, axis=1)
    for sent, repeat in rounds(jobs, wire.buffered):
        if not len(sent.source):
            continue
        row, total = loads(net, wire, sent)
        after_s = handling_s(net, wire, sent)
        owner, arc, _ = net.rows.entries(row)
        used = np.flatnonzero(total)
        each_s = total[used] / bandwidth_Bps[used]
        busy_s[used] += each_s * repeat
        for left in range(repeat, 0, -1):
            start = clock[sent.job, sent.source]
            first = np.full(len(total), np.inf)
            np.minimum.at(first, arc, start[owner])
            known = np.isfinite(first[used])
            before = full_s[used], clock.copy()
            full_s[used] = np.maximum(full_s[used], np.where(known, first[used], 0.0)) + each_s
            end = start.copy()
            np.maximum.at(end, owner, (full_s - rest_s)[arc])
            np.maximum.at(clock, (sent.job, sent.destination), end + after_s)
            if not wire.buffered:
                np.maximum.at(clock, (sent.job, sent.source), end)
            gained = np.concatenate([full_s[used] - before[0], (clock - before[1])[sent.job, sent.destination]])
            if left > 1 and np.ptp(gained) <= 1e-12 * gained.max():
                full_s[used] += (left - 1) * gained[0]
                clock[sent.job, sent.destination] += (left - 1) * gained[0] * _once(sent)
                break
    return priced(net, jobs, [float(each.max()) for each in clock], busy_s, "dependency")


def _once(sent: Messages) -> Floats:
    """Return 1 for every message (assignment with repeated indices adds once)."""
    return np.ones(len(sent.source))
