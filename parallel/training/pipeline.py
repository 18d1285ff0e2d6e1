"""One pipeline under one schedule, or all of them side by side: the step, why stages wait, what is held, what to do.

Stage times are given, not derived: this is the question "which schedule for these stages and these links", apart from
any model. Layers may be placed on the stages (`parallel.training.splits`), and then the stages are as unequal as that makes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from collectives.pipelines import SCHEDULES, Costs, Order, Run, causes, execute, hops_s
from parallel.training.layouts import Layout, chunk_times, describe
from parallel.training.splits import balanced_layout, place
from topo.columns import Column, column
from topo.errors import Fault, SpecError

ALL = "all"
_WORTH_SAYING = 0.05  # of the step
_NEAR = 0.03  # steps that differ by less are told apart by what they hold


@dataclass(frozen=True)
class Pipeline:
    """What runs: stages and micro-batches, seconds of a mean stage and of each link, and layers where these are known.

    Attributes
    ----------
    stages, microbatches : p and m
    chunks : virtual stages per stage, for schedules that leave it open
    forward_s, backward_s : one micro-batch through a mean stage, all of its chunks
    weight_s : the part of the backward that is the gradient of the weights; half of it where not given
    links_s : a hop over each link between neighbouring stages
    layers, head : layers to be placed, and how many of them embedding, head and loss weigh together on the last stage
    layout : an explicit placement instead
    optimizer_s : the optimizer step of a stage
    asynchronous : whether a stage goes on working while it sends
    synchronised : whether every stage waits for all others before its optimizer step; zero-bubble schedules earn their name
        where not
    """

    stages: int
    microbatches: int
    forward_s: float
    backward_s: float
    chunks: int = 1
    weight_s: float | None = None
    links_s: tuple[float, ...] = ()
    layers: int = 0
    head: float = 0.0
    layout: Layout | None = None
    optimizer_s: float = 0.0
    asynchronous: bool = True
    synchronised: bool = True

    def __post_init__(self) -> None:
        wrong = [
            (name, value, f"must be {least} or more")
            for name, least in (("stages", 1), ("microbatches", 1), ("chunks", 1), ("layers", 0), ("head", 0.0))
            if (value := getattr(self, name)) < least
        ]
        if not 0 < self.forward_s < np.inf:
            wrong.append(("forward_s", self.forward_s, "must be a time above nought"))
        wrong += [
            (name, value, "must be a time")
            for name in ("backward_s", "optimizer_s")
            if not 0 <= (value := getattr(self, name)) < np.inf
        ]
        if self.weight_s is not None and not 0 <= self.weight_s <= self.backward_s:
            wrong.append(("weight_s", self.weight_s, "is part of the backward, and cannot be longer"))
        if len(self.links_s) not in (0, self.stages - 1):
            wrong.append(("links_s", len(self.links_s), f"must name {self.stages - 1} links"))
        if self.layout is not None and self.layout.stages != self.stages:
            wrong.append(("layout", str(self.layout), f"is for {self.layout.stages} stages, not {self.stages}"))
        if wrong:
            raise SpecError([Fault(name, value, problem) for name, value, problem in wrong])

    @property
    def weight(self) -> float:
        """Seconds of the gradient of the weights."""
        return self.backward_s / 2 if self.weight_s is None else self.weight_s

    @property
    def links(self) -> tuple[float, ...]:
        """A hop over each link, nought where none was given."""
        return self.links_s or (0.0,) * (self.stages - 1)


@dataclass(frozen=True)
class Played:
    """A schedule that was run: its name, what it cost, when everything ran, why stages waited, where layers sit."""

    schedule: str
    costs: Costs
    run: Run
    causes: Mapping[str, Column]
    layout: Layout | None

    @property
    def order(self) -> Order:
        """The order that was run."""
        return self.run.order


def play(pipe: Pipeline, schedule: str) -> Played:
    """Run a pipeline under a schedule.

    Raises
    ------
    SpecError
        If the schedule is unknown or cannot run with so many stages, micro-batches or chunks.

    Examples
    --------
    >>> print(play(Pipeline(4, 8, 1.0, 2.0), "1f1b").run.step_s)
    33.0
    """
    if schedule not in SCHEDULES:
        raise SpecError([Fault("schedule", schedule, "is not known", f"choose one of {', '.join(SCHEDULES)}")])
    chunks = SCHEDULES[schedule].chunks or pipe.chunks
    order = SCHEDULES[schedule].order(pipe.stages, pipe.microbatches, chunks)
    layout = _layout(pipe, order)
    share = _shares(pipe, order, layout) / order.chunks
    training = float(SCHEDULES[schedule].training)
    costs = Costs(
        pipe.forward_s * share,
        training * (pipe.backward_s - pipe.weight) * share,
        training * pipe.weight * share,
        hop_s=hops_s(order, pipe.links) if order.boundaries else 0.0,
        optimizer_s=training * pipe.optimizer_s,
        asynchronous=pipe.asynchronous,
        synchronised=pipe.synchronised,
    )
    return Played(schedule, costs, execute(order, costs), causes(order, costs), layout)


def _layout(pipe: Pipeline, order: Order) -> Layout | None:
    """Place the layers on the virtual stages of an order; a V or two directions are balanced chunk by chunk."""
    if pipe.layout is not None:
        if pipe.layout.chunks != order.chunks:
            problem = f"has {pipe.layout.chunks} chunk(s) per stage, the schedule {order.chunks}"
            raise SpecError([Fault("layout", str(pipe.layout), problem)])
        return pipe.layout
    if not pipe.layers:
        return None
    kinds, round_robin = (0,) * pipe.layers, [v % order.stages for v in range(order.virtuals)]
    if list(order.device[0]) == round_robin and len(order.device) == 1:
        return place(kinds, [1.0], order.stages, order.chunks, last=pipe.head)
    flat = balanced_layout(kinds, [1.0], order.virtuals, last=pipe.head)
    return Layout(order.stages, flat.virtual)


def _shares(pipe: Pipeline, order: Order, layout: Layout | None) -> Column:
    """Return the time of each virtual stage over that of the mean one."""
    if layout is None:
        return np.ones(order.virtuals)
    times = chunk_times(layout, (0,) * layout.layers, [1.0], last=pipe.head, mtp=1.0)
    return np.asarray(times / times.mean())


def compare(pipe: Pipeline, schedules: Sequence[str] = ()) -> tuple[list[Played], list[dict[str, str]]]:
    """Run several schedules, all training schedules unless named: those that ran, and those that cannot with the reason.

    Schedules that leave the chunks open take two where the pipeline has one, as one would make them plain 1F1B.

    Examples
    --------
    >>> played, skipped = compare(Pipeline(4, 8, 1.0, 2.0), ["gpipe", "1f1b"])
    >>> [(row.schedule, float(row.run.step_s)) for row in played], skipped
    ([('gpipe', 33.0), ('1f1b', 33.0)], [])
    """
    played, skipped = [], []
    open_chunks = replace(pipe, chunks=max(pipe.chunks, 2)) if pipe.layout is None else pipe
    for name in schedules or [name for name in SCHEDULES if SCHEDULES[name].training]:
        try:
            played.append(play(pipe if name in SCHEDULES and SCHEDULES[name].chunks else open_chunks, name))
        except SpecError as error:
            if name not in SCHEDULES:
                raise
            skipped.append({"schedule": name, "skipped_because": str(error)})
    return played, skipped


def row(played: Played) -> dict[str, Any]:
    """Return what is to be said of a schedule, JSON-ready.

    `terms` are means over the stages and add up to the step; `round_trip_s` is the way down the pipeline and back over its
    links, without work: what a schedule pays at least.

    Examples
    --------
    >>> told = row(play(Pipeline(4, 8, 1.0, 2.0), "1f1b"))
    >>> told["step_time_s"], told["terms"]["work"], told["terms"]["fill"], told["peak_in_flight"]
    (33.0, 24.0, 4.5, 4.0)
    """
    run, order = played.run, played.order

    def clean(seconds: float) -> float:
        return 0.0 if abs(seconds) < 1e-12 * run.step_s else float(seconds)

    stages = [
        {
            "stage": stage,
            "busy_s": float(run.busy_s[stage]),
            "idle_s": float(run.idle_s[stage]),
            "causes": {name: clean(seconds[stage]) for name, seconds in played.causes.items()},
            "in_flight": float(run.in_flight[stage]),
        }
        for stage in range(order.stages)
    ]
    return {
        "schedule": played.schedule,
        "chunks": order.chunks,
        "step_time_s": float(run.step_s),
        "bubble_s": float(run.idle_s.mean()),
        "bubble_share": float(run.idle_s.mean() / run.step_s),
        "terms": {
            "work": float(run.busy_s.mean()),
            **{name: clean(seconds.mean()) for name, seconds in played.causes.items()},
        },
        "peak_in_flight": float(run.in_flight.max()),
        "round_trip_s": 2.0 * float(column(played.costs.hop_s).sum()) / len(order.device),
        "parameter_copies": SCHEDULES[played.schedule].parameter_copies,
        "placement": describe(played.layout) if played.layout else None,
        "layout": str(played.layout) if played.layout else None,
        "stages": stages,
    }


HINTS = {
    "fill": "more micro-batches per step, or more chunks per stage, spread the fill and drain",
    "drain": "more micro-batches per step, or more chunks per stage, spread the fill and drain",
    "stall": "the order makes stages wait for these times of forward and backward; another order may not",
    "imbalance": "the slowest stage sets the pace of all: move layers off it, or split the ends off",
    "hop latency": "hold more micro-batches in flight, or put the slow link elsewhere",
    "exposed communication": "communication keeps stages from working: overlap it",
}
"""What to do about a cause of waits."""


def advice(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what follows from the terms: which schedule is fastest, what it saves where, what it asks, what is left.

    Parameters
    ----------
    rows : of `row`

    Examples
    --------
    >>> for line in advice([row(play(Pipeline(4, 8, 1.0, 2.0, links_s=(0.0, 1.0, 0.0)), "1f1b"))]):
    ...     print(line)
    round trips over the links that are waited for, as too few micro-batches are in flight: 1f1b 4 times (8 s)
    1f1b: hop latency is 8 s, 20% of the step; hold more micro-batches in flight, or put the slow link elsewhere
    """
    best = min(rows, key=lambda r: (r["step_time_s"], r["peak_in_flight"]))
    said = []
    if len(rows) > 1:
        said += _against(best, next((r for r in rows if r["schedule"] == "1f1b"), rows[0]))
        said += _leaner(best, rows)
    said += _again(rows)
    left = max((item for item in best["terms"].items() if item[0] in HINTS), key=lambda item: item[1])
    if left[1] > _WORTH_SAYING * best["step_time_s"]:
        share = left[1] / best["step_time_s"]
        said.append(f"{best['schedule']}: {left[0]} is {_s(left[1])}, {share:.0%} of the step; {HINTS[left[0]]}")
    return said


def _against(best: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """Say what the fastest schedule saves over another, by the cause that shrinks most, and what it asks for that."""
    if best is base:
        return [f"{best['schedule']} is the fastest, {_s(best['step_time_s'])}"]
    saved = base["step_time_s"] - best["step_time_s"]
    less = {name: base["terms"][name] - best["terms"][name] for name in HINTS}
    cause = max(less, key=lambda name: less[name])
    line = (
        f"{best['schedule']} is the fastest: {_s(best['step_time_s'])}, {saved / base['step_time_s']:.1%} less than "
        f"{base['schedule']}, mostly for less {cause} ({_s(best['terms'][cause])} instead of {_s(base['terms'][cause])})"
    )
    asks = []
    if best["peak_in_flight"] > base["peak_in_flight"]:
        asks.append(f"activations of {best['peak_in_flight']:g} micro-batches instead of {base['peak_in_flight']:g}")
    if best["chunks"] > base["chunks"]:
        asks.append(f"{best['chunks']} times the messages")
    if best["parameter_copies"] > base["parameter_copies"]:
        asks.append("the parameters twice")
    return [line, *([f"{best['schedule']} asks for {' and '.join(asks)}"] if asks else [])]


def _leaner(best: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the schedule that is nearly as fast and holds least, if it holds less than the fastest."""
    near = [r for r in rows if r["step_time_s"] <= (1 + _NEAR) * best["step_time_s"]]
    lean = min(near, key=lambda r: (r["peak_in_flight"], r["parameter_copies"], r["step_time_s"]))
    if lean["peak_in_flight"] >= best["peak_in_flight"]:
        return []
    slower = lean["step_time_s"] / best["step_time_s"] - 1
    return [f"{lean['schedule']} takes {slower:.1%} longer and holds {lean['peak_in_flight']:g} micro-batches at most"]


def _again(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the schedules that wait for their links more often than a pipeline must, once down and once back."""
    paid = {}
    for told in rows:
        once, waited = told["round_trip_s"], told["terms"]["hop latency"]
        if once > 0 and waited > 3.0 * once and waited > _WORTH_SAYING * told["step_time_s"]:
            paid[told["schedule"]] = f"{waited / once:.0f} times ({_s(waited)})"
    if not paid:
        return []
    listed = ", ".join(f"{name} {often}" for name, often in paid.items())
    return [f"round trips over the links that are waited for, as too few micro-batches are in flight: {listed}"]


def _s(seconds: float) -> str:
    """Write a time with three figures."""
    scale, unit = next((row for row in ((1.0, "s"), (1e3, "ms")) if seconds * row[0] >= 1.0), (1e6, "us"))
    return f"{seconds * scale:.3g} {unit}"


def document(pipe: Pipeline, schedule: str = ALL) -> tuple[dict[str, Any], list[Played]]:
    """Return what `podscale pipeline --json` prints, and the schedules as run, for drawings and traces.

    Examples
    --------
    >>> told, played = document(Pipeline(4, 8, 1.0, 2.0), "gpipe")
    >>> [row["schedule"] for row in told["rows"]], told["rows"][0]["peak_in_flight"], len(played)
    (['gpipe'], 8.0, 1)
    """
    played, skipped = compare(pipe) if schedule == ALL else ([play(pipe, schedule)], [])
    if not played:
        raise SpecError([Fault("schedule", row["schedule"], row["skipped_because"]) for row in skipped])
    rows = [row(each) for each in played]
    trained = any(SCHEDULES[each.schedule].training for each in played)
    told = {
        "stages": pipe.stages,
        "microbatches": pipe.microbatches,
        "forward_s": pipe.forward_s,
        "backward_s": pipe.backward_s if trained else 0.0,
        "weight_s": pipe.weight if trained else 0.0,
        "links_s": list(pipe.links),
        "optimizer_s": pipe.optimizer_s if trained else 0.0,
        "synchronised": pipe.synchronised,
        "rows": rows,
        "skipped": skipped,
        "advice": advice(rows),
    }
    return told, played
