"""The rung of flows: all messages under way share the links max-min fairly, and rates change when one starts or ends.

Messages of one connection (a pair of ranks of a job) go one after the other; connections run side by side.

Progressive filling (Bertsekas and Gallager, Data Networks, §6.5.2): raise all rates together until a link is full, fix
the rates of the flows on it, go on with the others. A message splits over its routes in fixed shares.
"""

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np

from collectives.ladder.events import Run, runs
from collectives.ladder.jobs import Placed, Price, priced
from collectives.ladder.network import Network
from collectives.ladder.wire import Wire
from topo.relays import Floats, Ints

Message = tuple[int, int, int, int, float]
"""Job, round, source, destination, payload."""


def fair_rates(flow: Ints, arc: Ints, weight: Floats, capacity: Floats, flows: int) -> Floats:
    """Return max-min fair rates of flows that use `weight` of their rate on each arc; inf for flows on no arc.

    Two flows share an arc of 10, one of them goes on over an arc of 2.

    >>> fair_rates(np.array([0, 1, 1]), np.array([0, 0, 1]), np.ones(3), np.array([10.0, 2.0]), 2).tolist()
    [8.0, 2.0]
    """
    rate = np.full(flows, np.inf)
    left, arcs = capacity.astype(np.float64).copy(), len(capacity)
    while len(flow):
        demand = np.bincount(arc, weight, arcs)
        level = np.divide(left, demand, out=np.full(arcs, np.inf), where=demand > 0)
        least = level.min()
        fixed = np.zeros(flows, dtype=bool)
        fixed[flow[level[arc] <= least * (1 + 1e-9)]] = True
        rate[fixed] = least
        gone = fixed[flow]
        left = np.maximum(left - least * np.bincount(arc[gone], weight[gone], arcs), 0.0)
        flow, arc, weight = flow[~gone], arc[~gone], weight[~gone]
    return rate


class Flows:
    """The state of a simulation; `run` plays it to the end."""

    def __init__(self, jobs: Sequence[Placed], net: Network, wire: Wire) -> None:
        self.net, self.wire, self.jobs = net, wire, runs(jobs, wire.buffered)
        self.now = 0.0
        self.busy_s = np.zeros(len(net.bandwidth_Bps))
        self.tokens = np.full(len(net.bandwidth_Bps), wire.burst_bytes)
        self.cores = [0.0] * (wire.cores or len(net.ends))
        self.fixed_s = wire.latency_s(len(net.ends))
        self.left: list[float] = []
        self.routes: list[tuple[Ints, Floats]] = []
        self.who: list[Message] = []
        self.events: list[tuple[float, int, int, Message]] = []
        self.number = 0
        self.known: dict[tuple[int, int], tuple[Ints, Floats, float]] = {}
        self.lines: dict[tuple[int, int, int], deque[Message]] = {}
        self.own: dict[tuple[int, int], int] = {}

    def route(self, source: int, destination: int) -> tuple[Ints, Floats, float]:
        """Return arcs, bytes on each for a byte of payload (acknowledgements among them), and the latency."""
        found = self.known.get((source, destination))
        if found is None:
            there, back = (np.array([end]) for end in (source, destination))
            row = self.net.row(there, back)
            _, arc, share = self.net.rows.entries(row)
            weight, self.own[source, destination] = share * self.wire.framing, len(arc)
            if self.wire.acknowledging:
                reverse = self.net.row(back, there)
                _, arc_back, share_back = self.net.rows.entries(reverse)
                arc = np.concatenate([arc, arc_back])
                weight = np.concatenate([weight, share_back * self.wire.acknowledging])
            latency_s = float(self.net.latency_s[row[0]] + self.wire.hop_s * self.net.hops[row[0]])
            found = self.known[source, destination] = (arc, weight, latency_s)
        return found

    def post(self, run: Run, rank: int) -> None:
        """Hand to the connections of a rank what it may send."""
        for round_, destination, payload in run.advance(rank):
            line = self.lines.setdefault((run.number, rank, destination), deque())
            line.append((run.number, round_, rank, destination, payload))
            if len(line) == 1:
                self._begin(line[0])

    def _begin(self, message: Message) -> None:
        """Put a message on the links, less what the token buckets on its route hold."""
        _, _, source, destination, payload = message
        arc, weight, _ = self.route(source, destination)
        if self.wire.burst_bytes and len(arc):
            ahead = arc[: self.own[source, destination]]
            credit = min(float(self.tokens[ahead].min()), payload * self.wire.framing)
            self.tokens[ahead] -= credit
            payload -= credit / self.wire.framing
        self.left.append(payload)
        self.routes.append((arc, weight))
        self.who.append(message)

    def run(self, jobs: Sequence[Placed]) -> None:
        """Start every job when it is due and play until nothing moves."""
        for run, job in zip(self.jobs, jobs, strict=True):
            for rank in job.ends.tolist():
                self._plan(job.start_s, 0, (run.number, -1, rank, rank, 0.0))
        while self.events or self.left:
            self._move()

    def _plan(self, when: float, kind: int, what: Message) -> None:
        self.number += 1
        heappush(self.events, (when, self.number, kind, what))

    def _move(self) -> None:
        """Go to the next moment at which a message ends, arrives or is dealt with."""
        rates, usage = self._rates()
        left = np.array(self.left)
        finish = np.divide(left, rates, out=np.zeros(len(left)), where=np.isfinite(rates))
        step = float(finish.min(initial=np.inf))
        if self.events:
            step = min(step, max(self.events[0][0] - self.now, 0.0))
        self.now += step
        self.busy_s += step * usage / self.net.bandwidth_Bps
        self.tokens = np.minimum(self.tokens + (self.net.bandwidth_Bps - usage) * step, self.wire.burst_bytes)
        ended = finish <= step * (1 + 1e-9)
        self.left = np.where(ended, 0.0, left - np.where(np.isfinite(rates), rates, 0.0) * step).tolist()
        if ended.any():
            self._end(ended)
        while self.events and self.events[0][0] <= self.now * (1 + 1e-12):
            _, _, kind, what = heappop(self.events)
            (self._start, self._arrive, self._finish)[kind](what)

    def _rates(self) -> tuple[Floats, Floats]:
        """Rates of the messages under way, and what each arc carries."""
        count = [len(arc) for arc, _ in self.routes]
        flow = np.repeat(np.arange(len(count)), count)
        arc = np.concatenate([arc for arc, _ in self.routes]) if count else np.zeros(0, np.int64)
        weight = np.concatenate([weight for _, weight in self.routes]) if count else np.zeros(0)
        rates = fair_rates(flow, arc, weight, self.net.bandwidth_Bps, len(count))
        carried = np.where(np.isfinite(rates[flow]), rates[flow], 0.0) * weight
        return rates, np.bincount(arc, carried, len(self.busy_s)).astype(np.float64)

    def _end(self, ended: "np.typing.NDArray[np.bool_]") -> None:
        """Take messages off the links."""
        for i in np.flatnonzero(ended).tolist():
            who = self.who[i]
            self._plan(self.now + self.fixed_s + self.route(who[2], who[3])[2], 1, who)
            if not self.wire.buffered and self.jobs[who[0]].done(who[1], who[2], self.now):
                self.post(self.jobs[who[0]], who[2])
        gone = [self.who[i] for i in np.flatnonzero(ended).tolist()]
        kept = [i for i in range(len(self.left)) if i >= len(ended) or not ended[i]]
        self.left = [self.left[i] for i in kept]
        self.routes = [self.routes[i] for i in kept]
        self.who = [self.who[i] for i in kept]
        for job, _, source, destination, _ in gone:
            line = self.lines[job, source, destination]
            line.popleft()
            if line:
                self._begin(line[0])

    def _start(self, what: Message) -> None:
        self.post(self.jobs[what[0]], what[2])

    def _arrive(self, what: Message) -> None:
        """Queue a whole message for a core."""
        core = self.cores.index(min(self.cores)) if self.wire.cores else what[3]
        work_s = self.wire.message_s + self.wire.copy_s_per_byte * what[4]
        self.cores[core] = max(self.cores[core], self.now) + work_s
        self._plan(self.cores[core], 2, what)

    def _finish(self, what: Message) -> None:
        """Deliver a message; its receiver may go on."""
        if self.jobs[what[0]].done(what[1], what[3], self.now):
            self.post(self.jobs[what[0]], what[3])


def flow(jobs: Sequence[Placed], net: Network, wire: Wire) -> Price:
    """Price with max-min fair sharing: what overlapping groups and jobs get on links that keep queues apart."""
    flows = Flows(jobs, net, wire)
    flows.run(jobs)
    return priced(net, jobs, [run.end for run in flows.jobs], flows.busy_s, "flow")
