"""What a pipeline does when: work, waits by cause and messages of an executed schedule, and their Chrome trace.

A training step and a pass of serving have traces too: what their stages do is told by `parallel.explain.lanes`.

The waits of a stage have causes, and their totals are exact (`collectives.pipelines.causes`). Which of several causes a
single gap is due to is a question of the whole schedule, not of the gap; gaps are told apart so that the totals hold: fill
from the front, drain from the back, the other causes in proportion in between.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from collectives.pipelines import Costs, Run, transfers
from topo.columns import Column, ColumnLike, column

if TYPE_CHECKING:
    from parallel.explain.lanes import Slice

KINDS = {
    "F": "forward",
    "B": "backward",
    "I": "gradient of inputs",
    "W": "gradient of weights",
    "O": "optimizer",
}
"""What the letters of actions stand for; the optimizer is none, but drawn as one."""

COLLECTIVES = 100
"""Track of the collectives of a stage, below those of its messages."""
_IN_BETWEEN = ("stall", "imbalance", "hop latency", "exposed communication")


@dataclass(frozen=True, slots=True)
class Work:
    """One action on a stage; of a `paired` forward and backward both run from start to end."""

    stage: int
    start_s: float
    end_s: float
    kind: str
    microbatch: int
    chunk: int
    pipe: int
    paired: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """A time in which a stage waits, and why."""

    stage: int
    start_s: float
    end_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class Message:
    """Activations (or gradients) of a micro-batch on their way."""

    sender: int
    receiver: int
    start_s: float
    end_s: float
    microbatch: int
    gradients: bool


def work(run: Run) -> list[Work]:
    """Return all actions of a run, stage by stage.

    >>> from collectives.pipelines import SCHEDULES, Costs, execute
    >>> run = execute(SCHEDULES["1f1b"].order(2, 1, 1), Costs(1.0, 1.0, 1.0, hop_s=0.5))
    >>> [(w.stage, w.kind, w.start_s, w.end_s) for w in work(run)]
    [(0, 'F', 0.0, 1.0), (0, 'B', 5.0, 7.0), (1, 'F', 1.5, 2.5), (1, 'B', 2.5, 4.5)]
    """
    order = run.order
    start, end = run.start_s.tolist(), run.end_s.tolist()
    ranks = [_ranks(devices) for devices in order.device]
    out: list[Work] = []
    for stage, actions in enumerate(order.actions):
        for place, action in enumerate(actions):
            row, chunk = len(out), ranks[action.pipe][action.virtual]
            paired = action.paired or (place + 1 < len(actions) and actions[place + 1].paired)
            out.append(Work(stage, start[row], end[row], action.kind, action.microbatch, chunk, action.pipe, paired))
    return out


def _ranks(devices: Sequence[int]) -> list[int]:
    """Return for each virtual stage the how manieth of its device it is.

    >>> _ranks((0, 1, 1, 0))
    [0, 0, 1, 1]
    """
    return [devices[:virtual].count(device) for virtual, device in enumerate(devices)]


def messages(run: Run, costs: Costs) -> list[Message]:
    """Return what travels between stages, in the order of sending.

    >>> from collectives.pipelines import SCHEDULES, Costs, execute
    >>> costs = Costs(1.0, 1.0, 1.0, hop_s=0.5)
    >>> sent = messages(execute(SCHEDULES["1f1b"].order(2, 1, 1), costs), costs)
    >>> [(m.sender, m.receiver, m.start_s, m.end_s, m.gradients) for m in sent]
    [(0, 1, 1.0, 1.5, False), (1, 0, 4.5, 5.0, True)]
    """
    order = run.order
    flat = [(stage, action) for stage, actions in enumerate(order.actions) for action in actions]
    ahead = _per_boundary(costs.hop_s, order.boundaries)
    back = ahead if costs.hop_back_s is None else _per_boundary(costs.hop_back_s, order.boundaries)
    out = []
    for producer, consumer, boundary, gradients in transfers(order):
        (sender, action), receiver = flat[producer], flat[consumer][0]
        if sender != receiver:
            start = float(run.end_s[producer])
            end = start + float((back if gradients else ahead)[boundary])
            out.append(Message(sender, receiver, start, end, action.microbatch, gradients))
    return sorted(out, key=lambda message: (message.start_s, message.end_s))


def _per_boundary(hop_s: ColumnLike, boundaries: int) -> Column:
    """Return one hop per boundary."""
    return np.broadcast_to(column(hop_s), max(boundaries, 1))


def waits(run: Run, costs: Costs, causes: Mapping[str, Column]) -> list[Wait]:
    """Return the gaps between the actions, each cut by cause so that every stage's totals are those of `causes`.

    Where the optimizer waits for nobody, a stage's step begins with its own first action, and only then.
    Where a cause takes waiting away (imbalance, on a stage with more work than the mean), the others shrink in proportion.

    >>> from collectives.pipelines import SCHEDULES, Costs, causes, execute
    >>> order, costs = SCHEDULES["1f1b"].order(2, 1, 1), Costs(1.0, 1.0, 1.0, hop_s=0.5)
    >>> for w in waits(execute(order, costs), costs, causes(order, costs)):
    ...     print(w.stage, w.start_s, w.end_s, w.cause)
    0 1.0 4.0 fill
    0 4.0 5.0 hop latency
    1 0.0 1.0 fill
    1 1.0 1.5 hop latency
    1 4.5 5.0 hop latency
    1 5.0 7.0 drain
    """
    out, row = [], 0
    last = np.broadcast_to(column(costs.optimizer_s), run.order.stages)
    for stage, actions in enumerate(run.order.actions):
        rows = slice(row, row + len(actions))
        row += len(actions)
        start, end = run.start_s[rows].tolist(), run.end_s[rows].tolist()
        begins = _begins(costs, start)
        gaps = _gaps(start, end, begins, begins + float(run.step_s - last[stage]))
        due = {name: float(seconds[stage]) for name, seconds in causes.items()}
        out += [Wait(stage, *told) for told in _told(gaps, due)]
    return out


def _begins(costs: Costs, starts: Sequence[float]) -> float:
    """Return when a stage's step begins: with everyone's, or with its own first action."""
    return 0.0 if costs.synchronised else starts[0]


def updates(run: Run, costs: Costs) -> list[Work]:
    """Return the optimizer steps, each at the end of its stage's step; none where they take no time.

    >>> from collectives.pipelines import SCHEDULES, Costs, execute
    >>> costs = Costs(1.0, 1.0, 1.0, optimizer_s=0.5)
    >>> [(w.stage, w.start_s, w.end_s) for w in updates(execute(SCHEDULES["1f1b"].order(2, 1, 1), costs), costs)]
    [(0, 6.0, 6.5), (1, 6.0, 6.5)]
    """
    out, row = [], 0
    seconds = np.broadcast_to(column(costs.optimizer_s), run.order.stages)
    for stage, actions in enumerate(run.order.actions):
        end = _begins(costs, [float(run.start_s[row])]) + float(run.step_s)
        row += len(actions)
        if seconds[stage] > 0:
            out.append(Work(stage, end - float(seconds[stage]), end, "O", 0, 0, 0, paired=False))
    return out


def _gaps(starts: Sequence[float], ends: Sequence[float], begins: float, until: float) -> list[tuple[float, float]]:
    """Return the times without an action from `begins` to `until`.

    >>> _gaps([1.0, 2.0], [2.0, 3.0], 0.0, 5.0)
    [(0.0, 1.0), (3.0, 5.0)]
    """
    smallest = 1e-9 * until
    edges = zip([begins, *ends], [*starts, until], strict=True)
    return [(end, start) for end, start in edges if start - end > smallest]


def _told(gaps: Sequence[tuple[float, float]], causes: Mapping[str, float]) -> list[tuple[float, float, str]]:
    """Cut gaps by cause: fill from the front, drain from the back, the rest in proportion in between."""
    whole = sum(end - start for start, end in gaps)
    due = {name: max(seconds, 0.0) for name, seconds in causes.items()}
    scale = whole / sum(due.values()) if sum(due.values()) else 0.0
    fill, drain = scale * due.pop("fill", 0.0), scale * due.pop("drain", 0.0)
    between = {name: due.get(name, 0.0) for name in _IN_BETWEEN if due.get(name, 0.0) > 0.0}
    share = {name: seconds / sum(between.values()) for name, seconds in between.items()}
    out, seen = [], 0.0
    for start, end in gaps:
        length = end - start
        front = min(max(fill - seen, 0.0), length)
        back = min(max(seen + length - (whole - drain), 0.0), length - front)
        rest = length - front - back
        parts = [("fill", front), *((name, rest * part) for name, part in share.items()), ("drain", back)]
        at = start
        for name, part in parts:
            if part > 1e-6 * length:
                out.append((at, min(at + part, end), name))
                at += part
        seen += length
    return out


def trace(
    run: Run, costs: Costs, causes: Mapping[str, Column], title: str = "pipeline", inside: "Sequence[Slice]" = ()
) -> dict[str, Any]:
    """Return a run in the Trace Event Format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

    `inside` is what the actions are made of: operators are nested in them, collectives have a track of their own.

    One process per stage; a track of its work and waits, and as many tracks of sent messages as are under way at once, so
    that no two events of a track overlap. Times in microseconds.
    Source: Trace Event Format (Google, 2016), complete events ("X") and metadata ("M").

    Examples
    --------
    >>> from collectives.pipelines import SCHEDULES, Costs, causes, execute
    >>> order, costs = SCHEDULES["1f1b"].order(2, 1, 1), Costs(1e-3, 1e-3, 1e-3, hop_s=5e-4)
    >>> made = trace(execute(order, costs), costs, causes(order, costs))
    >>> first = next(event for event in made["traceEvents"] if event["ph"] == "X")
    >>> first["name"], first["ts"], first["dur"], first["pid"], first["tid"]
    ('F0', 0.0, 1000.0, 0, 0)
    """
    events = [
        _event(
            f"{w.kind}{w.microbatch}",
            KINDS[w.kind],
            (w.start_s, w.end_s),
            (w.stage, 0),
            {"micro-batch": w.microbatch, "chunk": w.chunk, "direction": w.pipe},
        )
        for w in work(run)
    ]
    events += [_event("optimizer", KINDS["O"], (w.start_s, w.end_s), (w.stage, 0), {}) for w in updates(run, costs)]
    events += [_event(w.cause, "bubble", (w.start_s, w.end_s), (w.stage, 0), {}) for w in waits(run, costs, causes)]
    names = {(stage, 0): "compute" for stage in range(run.order.stages)}
    for message, lane in _lanes(messages(run, costs)):
        what = "gradients" if message.gradients else "activations"
        track = (message.sender, 1 + lane)
        names[track] = "communication" + (f" {lane + 1}" if lane else "")
        said = {"micro-batch": message.microbatch, "to stage": message.receiver}
        events.append(_event(f"{what} {message.microbatch}", "send", (message.start_s, message.end_s), track, said))
    events += _sliced(inside, names, {"compute": (0, "compute"), "communication": (COLLECTIVES, "collectives")})
    return _document(events, names, title, float(run.step_s))


def pass_trace(slices: "Sequence[Slice]", title: str, seconds: float) -> dict[str, Any]:
    """Return one prefill or decoding pass in the Trace Event Format: a process per stage, a track for each of its lanes.

    >>> from parallel.explain.lanes import Slice
    >>> made = pass_trace([Slice(0, "compute", "attention", 0.0, 1e-3, {"layer": 0})], "pass", 1e-3)
    >>> [event["name"] for event in made["traceEvents"] if event["ph"] == "X"], made["otherData"]["step_s"]
    (['attention'], 0.001)
    """
    names: dict[tuple[int, int], str] = {}
    events = _sliced(slices, names, {"compute": (0, "compute"), "communication": (1, "communication")})
    return _document(events, names, title, seconds)


def _sliced(
    slices: "Sequence[Slice]", names: dict[tuple[int, int], str], lanes: Mapping[str, tuple[int, str]]
) -> list[dict[str, Any]]:
    """Return slices as events, and name the tracks that they are in."""
    events = []
    for held in slices:
        lane, name = lanes[held.lane]
        names.setdefault((held.stage, lane), name)
        events.append(_event(held.name, held.lane, (held.start_s, held.end_s), (held.stage, lane), held.about))
    return events


def _document(
    events: list[dict[str, Any]], names: Mapping[tuple[int, int], str], title: str, seconds: float
) -> dict[str, Any]:
    """Return the whole trace, its events in the order of their tracks, an outer one before those inside it."""
    events.sort(key=lambda event: (event["pid"], event["tid"], event["ts"], -event["dur"]))
    return {
        "traceEvents": [*_named(names), *events],
        "displayTimeUnit": "ms",
        "otherData": {"title": title, "step_s": seconds},
    }


def _event(
    name: str, category: str, span_s: tuple[float, float], track: tuple[int, int], args: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a complete event; both ends are rounded to whole nanoseconds, so that what touches does not overlap."""
    start, end = (round(moment * 1e9) for moment in span_s)
    pid, tid = track
    times = {"ts": start / 1e3, "dur": (end - start) / 1e3}
    return {"name": name, "cat": category, "ph": "X", **times, "pid": pid, "tid": tid, "args": dict(args)}


def _named(tracks: Mapping[tuple[int, int], str]) -> list[dict[str, Any]]:
    """Return the names of processes and threads, in the order of the stages."""
    out = []
    for (stage, lane), name in sorted(tracks.items()):
        if lane == 0:
            out.append({"name": "process_name", "ph": "M", "pid": stage, "tid": 0, "args": {"name": f"stage {stage}"}})
            out.append({"name": "process_sort_index", "ph": "M", "pid": stage, "tid": 0, "args": {"sort_index": stage}})
        out.append({"name": "thread_name", "ph": "M", "pid": stage, "tid": lane, "args": {"name": name}})
        out.append({"name": "thread_sort_index", "ph": "M", "pid": stage, "tid": lane, "args": {"sort_index": lane}})
    return out


def _lanes(sent: Sequence[Message]) -> list[tuple[Message, int]]:
    """Give every message the first lane of its sender that is free; messages that take no time are left out."""
    free: dict[int, list[float]] = {}
    out = []
    for message in sent:
        lanes = free.setdefault(message.sender, [])
        if message.end_s - message.start_s < 1e-9:
            continue
        lane = next((i for i, until in enumerate(lanes) if until <= message.start_s + 1e-12), len(lanes))
        lanes[lane : lane + 1] = [message.end_s]
        out.append((message, lane))
    return out
