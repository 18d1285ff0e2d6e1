"""What is priced, and what comes back: schedules on places of a graph, and seconds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from collectives.ladder.network import Network
from collectives.ladder.wire import Wire
from collectives.schedule import Round, Schedule
from topo.errors import Fault, SpecError
from topo.relays import Floats, Ints, positions


@dataclass(frozen=True)
class Job:
    """A schedule, the nodes that its ranks stand on (names, or an integer array of positions), and when it starts."""

    schedule: Schedule
    places: Sequence[Any] | npt.NDArray[np.integer[Any]]
    start_s: float = 0.0


@dataclass(frozen=True)
class Price:
    """What jobs cost on a graph.

    Attributes
    ----------
    seconds
        From the first start to the last end.
    jobs
        How long each job takes, from its own start.
    terms
        Parts of `seconds`; they add up to it. ``wire``: the busiest link of every round (stepwise), or of the whole
        (other rungs). ``latency`` (stepwise) or ``waiting``: the rest.
    busiest
        Ends of the link that is busy longest, or None.
    fidelity
        The rung.
    """

    seconds: float
    jobs: tuple[float, ...]
    terms: Mapping[str, float]
    busiest: tuple[Any, Any] | None
    fidelity: str = field(default="")


class Messages(NamedTuple):
    """The messages of a round, of all jobs: job, ends of the network, payload."""

    job: Ints
    source: Ints
    destination: Ints
    size_bytes: Floats


class Placed(NamedTuple):
    """A job on a network: which end of it every rank is; with reducers, that of rank o's is ends[-1-o]."""

    schedule: Schedule
    ends: Ints
    start_s: float


Rung = Callable[[Sequence[Placed], Network, Wire], Price]


def check(jobs: Sequence[Job], adding: str = "") -> None:
    """Raise SpecError with everything wrong about jobs; `adding` says why reducers are, if they are."""
    faults = [] if jobs else [Fault("jobs", None, "is empty", "give at least one")]
    for i, job in enumerate(jobs):
        if len(job.places) != job.schedule.ranks:
            problem = f"are not the {job.schedule.ranks} of the schedule"
            faults.append(Fault(f"jobs[{i}].places", len(job.places), problem, "give one node per rank"))
        if job.schedule.network and adding:
            problem = f"needs {job.schedule.network} in the network"
            faults.append(Fault(f"jobs[{i}].schedule", job.schedule.algorithm, problem, adding))
        if not 0 <= job.start_s < np.inf:
            faults.append(Fault(f"jobs[{i}].start_s", job.start_s, "is no time from 0"))
    if faults:
        raise SpecError(faults)


def placed(jobs: Sequence[Job], net: Network) -> list[Placed]:
    """Return jobs with their ranks as ends of the network; SpecError naming places that are none of its ends."""
    number = np.full(net.wires.size, -1)
    number[net.ends] = np.arange(len(net.ends))
    found = []
    for i, job in enumerate(jobs):
        nodes = positions(net.wires, job.places, f"jobs[{i}].places")
        ends = number[nodes]
        if (ends < 0).any():
            lost = [net.wires.names[node] for node in nodes[ends < 0][:5].tolist()]
            raise SpecError(
                [Fault(f"jobs[{i}].places", lost, "are no ends of the network", "name them when it is made")]
            )
        found.append(Placed(job.schedule, ends, job.start_s))
    return found


def messages(job: int, ends: Ints, each: Round) -> Messages:
    """Return a round of one job between ends of the network."""
    return Messages(np.full(len(each.sender), job), ends.take(each.sender), ends.take(each.receiver), each.size_bytes)


def in_order(each: Round) -> Messages:
    """Return a round of the only job, whose ranks are the ends of the network in their order."""
    return Messages(np.zeros(len(each.sender), np.int64), each.sender, each.receiver, each.size_bytes)


def together(parts: Sequence[Messages]) -> Messages:
    """Return messages as one round."""
    if len(parts) == 1:
        return parts[0]
    job, source, destination, size_bytes = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Messages(job, source, destination, size_bytes)


def rounds(jobs: Sequence[Placed], buffered: bool = False) -> Iterator[tuple[Messages, int]]:
    """Yield (messages, repeat): round t of every job side by side, a posted schedule as one round.

    Where sends are buffered, a message moves up to the first round in which its sender has all it waits for.
    """
    if len(jobs) == 1 and not (jobs[0].schedule.posted or buffered):
        ends = jobs[0].ends
        same = np.array_equal(ends, np.arange(len(ends)))
        for each in jobs[0].schedule.rounds:
            yield in_order(each) if same else messages(0, ends, each), each.repeat
        return
    runs = [list(_runs(i, job)) for i, job in enumerate(jobs)]
    if buffered:
        runs = [_early(run) for run in runs]
    if all([repeat for _, repeat in run] == [repeat for _, repeat in runs[0]] for run in runs):
        for side in zip(*runs, strict=True):
            yield together([each for each, _ in side]), side[0][1]
        return
    flat = [[each for each, repeat in run for _ in range(repeat)] for run in runs]
    for column in zip_longest(*flat):
        yield together([each for each in column if each is not None]), 1


def _runs(i: int, job: Placed) -> Iterator[tuple[Messages, int]]:
    """Yield the rounds of a job."""
    parts = ((messages(i, job.ends, each), each.repeat) for each in job.schedule.rounds)
    if not job.schedule.posted:
        yield from parts
        return
    whole = [each for each, repeat in parts for _ in range(repeat)]
    if whole:
        yield together(whole), 1


def _early(run: list[tuple[Messages, int]]) -> list[tuple[Messages, int]]:
    """Return the rounds of a job by when each message can be posted: one round after the last that its sender got."""
    flat = [each for each, repeat in run for _ in range(repeat)]
    got = np.full(
        1 + max((int(max(each.source.max(), each.destination.max())) for each in flat if len(each.job)), default=0), -1
    )
    parts: dict[int, list[Messages]] = {}
    moved = False
    for number, each in enumerate(flat):
        when = got[each.source] + 1
        moved |= bool((when != number).any())
        for level in np.unique(when).tolist():
            parts.setdefault(level, []).append(Messages(*(column[when == level] for column in each)))
        np.maximum.at(got, each.destination, when)
    return [(together(parts[level]), 1) for level in sorted(parts)] if moved else run


def priced(net: Network, jobs: Sequence[Placed], ends_s: Sequence[float], busy_s: Floats, fidelity: str) -> Price:
    """Return the price of jobs that end when told, with the seconds that each arc was busy."""
    first = min(job.start_s for job in jobs)
    seconds = max(0.0, max(ends_s) - first)
    wire = min(float(busy_s.max(initial=0.0)), seconds)
    terms = {"wire": wire, "waiting": seconds - wire}
    own = tuple(max(0.0, end - job.start_s) for end, job in zip(ends_s, jobs, strict=True))
    return Price(seconds, own, terms, arc_name(net, busy_s), fidelity)


def arc_name(net: Network, busy_s: Floats) -> tuple[Any, Any] | None:
    """Return the ends of the busiest arc."""
    if not busy_s.any():
        return None
    arc = int(busy_s.argmax())
    return net.wires.names[net.wires.arcs[0][arc]], net.wires.names[net.wires.arcs[1][arc]]
