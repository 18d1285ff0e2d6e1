"""The rung of queues: pieces of messages wait their turn at every link, first come, first served.

A connection (a pair of ranks of one job) keeps `window` pieces in the queue of its first link, so that the connections
of a rank take turns there, as sockets do; further on, pieces queue in the order in which they come. A piece goes on to
the next link as soon as that can send it without a pause (cut-through). What the max-min rung cannot show follows from
the queues: messages of fast peers stand in front of the one that a slow rank waits for.
"""

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np

from collectives.ladder.events import runs
from collectives.ladder.jobs import Placed, Price, priced
from collectives.ladder.network import Network
from collectives.ladder.wire import Wire

Pair = tuple[int, int, int]
"""Job, source, destination: a connection."""


class Piece:
    """A part of a message on its way."""

    __slots__ = ("head_s", "hop", "last", "message", "pair", "payload", "round", "size", "tail_s")

    def __init__(self, pair: Pair, round_: int, message: float, count: int, framing: float) -> None:
        self.pair, self.round, self.message, self.payload = pair, round_, message, message / count
        self.size = self.payload * framing
        self.hop, self.head_s, self.tail_s, self.last = 0, 0.0, 0.0, False


class Queues:
    """The state of a simulation; `run` plays it to the end. Events are (time, running number, what to call, with what)."""

    def __init__(self, jobs: Sequence[Placed], net: Network, wire: Wire) -> None:
        self.net, self.wire, self.jobs = net, wire, runs(jobs, wire.buffered)
        self.bandwidth_Bps = net.bandwidth_Bps.tolist()
        self.latency_s = net.wires.arcs[3].tolist()
        self.full_s = [0.0] * len(self.bandwidth_Bps)
        self.busy_s = [0.0] * len(self.bandwidth_Bps)
        self.paths: dict[tuple[int, int], list[int]] = {}
        self.waiting: dict[Pair, deque[Piece]] = {}
        self.queued: dict[Pair, int] = {}
        self.cores = [0.0] * (wire.cores or len(net.ends))
        self.fixed_s = wire.latency_s(len(net.ends))
        self.segment = wire.frame_bytes if wire.frame_bytes > 1 else 0.0
        self.events: list[tuple[float, int, int, Piece]] = []
        self.number = 0
        self.calls = (self.cross, self.refill, self.arrive, self.finish)

    def at(self, now: float, call: int, piece: Piece) -> None:
        """Plan an event."""
        self.number += 1
        heappush(self.events, (now, self.number, call, piece))

    def path(self, source: int, destination: int) -> list[int]:
        """Return the arcs of a route."""
        found = self.paths.get((source, destination))
        if found is None:
            found = self.paths[source, destination] = self.net.path(source, destination)
        return found

    def run(self, jobs: Sequence[Placed]) -> None:
        """Start every job and play all events."""
        for run, job in zip(self.jobs, jobs, strict=True):
            for rank in job.ends.tolist():
                self.post(run.number, rank, job.start_s)
        while self.events:
            now, _, call, piece = heappop(self.events)
            self.calls[call](now, piece)

    def post(self, job: int, rank: int, now: float) -> None:
        """Hand to the connections of a rank what it may send."""
        wire = self.wire
        for round_, destination, payload in self.jobs[job].advance(rank):
            pair = (job, rank, destination)
            count = wire.pieces
            if self.segment:
                count = max(1, min(count, int(np.ceil(payload * wire.framing / self.segment))))
            pieces = [Piece(pair, round_, payload, count, wire.framing) for _ in range(count)]
            pieces[-1].last = True
            if rank == destination:
                self.at(now, 2, pieces[-1])
                continue
            self.waiting.setdefault(pair, deque()).extend(pieces)
            self.fill(pair, now)

    def fill(self, pair: Pair, now: float) -> None:
        """Put pieces of a connection in the queue of its first link, as many as the window holds."""
        waiting = self.waiting[pair]
        while waiting and self.queued.get(pair, 0) < self.wire.window:
            self.queued[pair] = self.queued.get(pair, 0) + 1
            piece = waiting.popleft()
            piece.head_s = piece.tail_s = now
            self.at(now, 0, piece)

    def cross(self, now: float, piece: Piece) -> None:
        """Send a piece over the next link of its route."""
        path = self.path(*piece.pair[1:])
        arc = path[piece.hop]
        bandwidth_Bps, burst = self.bandwidth_Bps[arc], self.wire.burst_bytes
        turn = max(self.full_s[arc], piece.head_s) + (min(self.segment, piece.size) - burst) / bandwidth_Bps
        self.full_s[arc] = max(self.full_s[arc], now) + piece.size / bandwidth_Bps
        self.busy_s[arc] += piece.size / bandwidth_Bps
        piece.head_s = max(piece.head_s, turn) + self.latency_s[arc]
        leaves = max(piece.tail_s, self.full_s[arc] - burst / bandwidth_Bps)
        piece.tail_s = leaves + self.latency_s[arc]
        if piece.hop == 0:
            self.at(max(leaves, now), 1, piece)
        piece.hop += 1
        if piece.hop < len(path):
            self.at(max(piece.head_s, piece.tail_s - piece.size / self.bandwidth_Bps[path[piece.hop]]), 0, piece)
            return
        self.acknowledge(now, piece)
        if piece.last:
            self.at(piece.tail_s + self.fixed_s + self.wire.hop_s * len(path), 2, piece)

    def acknowledge(self, now: float, piece: Piece) -> None:
        """Take the time of acknowledgements from the links on the way back."""
        size = piece.payload * self.wire.acknowledging
        if size:
            for arc in self.path(piece.pair[2], piece.pair[1]):
                self.full_s[arc] = max(self.full_s[arc], now) + size / self.bandwidth_Bps[arc]
                self.busy_s[arc] += size / self.bandwidth_Bps[arc]

    def refill(self, now: float, piece: Piece) -> None:
        """Queue the next piece of a connection, now that one has left its first link; a send ends with its last."""
        self.queued[piece.pair] -= 1
        self.fill(piece.pair, now)
        job, source, _ = piece.pair
        if piece.last and not self.wire.buffered and self.jobs[job].done(piece.round, source, now):
            self.post(job, source, now)

    def arrive(self, now: float, piece: Piece) -> None:
        """Queue a whole message for a core."""
        core = self.cores.index(min(self.cores)) if self.wire.cores else piece.pair[2]
        work_s = self.wire.message_s + self.wire.copy_s_per_byte * piece.message
        self.cores[core] = max(self.cores[core], now) + work_s
        self.at(self.cores[core], 3, piece)

    def finish(self, now: float, piece: Piece) -> None:
        """Deliver a message; its receiver may go on."""
        job, _, destination = piece.pair
        if self.jobs[job].done(piece.round, destination, now):
            self.post(job, destination, now)


def fifo(jobs: Sequence[Placed], net: Network, wire: Wire) -> Price:
    """Price by playing every queue: exact in the order of things, in time proportional to pieces times links."""
    queues = Queues(jobs, net, wire)
    queues.run(jobs)
    return priced(net, jobs, [run.end for run in queues.jobs], np.array(queues.busy_s), "fifo")
