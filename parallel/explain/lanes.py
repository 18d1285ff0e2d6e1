"""When everything runs: a decoding or prefill pass and a training step as slices of time, per class of ranks.

All ranks of a pipeline stage do the same at the same time: a stage is a class. Its compute lane holds operators, its
communication lane collectives; a slice that is hidden lies beside the work that hides it. A pass is laid out layer by layer as
it is priced, and ends when the price says. A training step is its schedule executed (`collectives.pipelines`) on the stages' own
times; the update follows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from collectives.pipelines import SCHEDULES as PIPELINES
from collectives.pipelines import Costs, Run, causes, execute
from parallel.explain.scene import ServeScene, TrainScene, one
from parallel.explain.serving import exchange_share
from parallel.models import layer_order
from parallel.serving.phases import COMPUTE as SERVED
from parallel.serving.phases import term_names
from parallel.training.layer import COMPUTE
from parallel.training.layouts import Layout, chunk_times
from parallel.training.splits import place
from parallel.training.step import SCHEDULES, placement
from topo.columns import Column
from topo.errors import InfeasibleError

BEFORE: Final = ("vector", "attention", "attention core", "kv read")
"""Operators of a layer before its tokens go to the experts."""
MOST_ACTIONS: Final = 200_000
"""Actions of a training step that are laid out; beyond, a trace is too large to be read."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Something that runs: on which stage, in which lane, from when to when; `about` says more."""

    stage: int
    lane: str
    name: str
    start_s: float
    end_s: float
    about: Mapping[str, float | str]


# --- a pass -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Clock:
    """Where a stage is in time, and what it has done."""

    stage: int
    now_s: float
    done: list[Slice]

    def run(self, lane: str, name: str, seconds: float, **about: float | str) -> None:
        """Do something, one after the other."""
        if seconds > 0:
            self.done.append(Slice(self.stage, lane, name, self.now_s, self.now_s + seconds, about))
            self.now_s += seconds

    def beside(self, lane: str, name: str, start_s: float, seconds: float, **about: float | str) -> None:
        """Do something at a time of its own."""
        if seconds > 0:
            self.done.append(Slice(self.stage, lane, name, start_s, start_s + seconds, about))


def pass_slices(scene: ServeScene) -> list[Slice]:
    """Return one pass of a replica: every layer of every stage, hops between stages, and the wait for the slowest."""
    order, kinds = layer_order(scene.point.model), range(len(scene.kinds))
    times = [sum(scene.layer(name)[k] for name in term_names(scene.cols)) for k in kinds]
    stages, head = int(scene.read("pp")), one(scene.layers["head"])
    chunks = place(order, times, stages, last=head).virtual
    clock, layer = _Clock(0, 0.0, []), 0
    hop, decoding = one(scene.passes["hop"]), scene.point.phase == "decode"
    for stage, chunk in enumerate(chunks):
        clock.stage = stage
        for index in range(layer, layer + chunk.layers):
            _lay_out(scene, clock, order[index], index)
        layer += chunk.layers
        if stage == stages - 1:
            clock.run("compute", "head", head)
        if stage < stages - 1 or decoding:
            clock.run("communication", "hop to the next stage", hop)
    if scene.terms.get("imbalance"):
        clock.beside("compute", "imbalance", clock.now_s, scene.seconds - clock.now_s)
    return clock.done


def _lay_out(scene: ServeScene, clock: _Clock, kind: int, index: int) -> None:
    """Lay out one layer: its micro-batches one after the other, or the exchange of one beside the work of the other."""
    parts = int(scene.parts)
    passed = ("cp",) * ("cp" in scene.cols)
    each = {name: scene.layer(name)[kind] / parts for name in (*SERVED, "tp", "busy ep", *passed)}
    about: dict[str, float | str] = {"layer": index, "kind": scene.kinds[kind].name}
    share = exchange_share(scene)
    if share is None or not each["busy ep"]:
        for part in range(parts):
            _in_turn(scene, clock, each, about | {"micro-batch": part})
        return
    for part in range(parts):
        start, now = clock.now_s, about | {"micro-batch": part}
        _work(clock, each, 1.0 / (1.0 - share), now)
        other: dict[str, float | str] = {**about, "micro-batch": parts - 1 - part}
        clock.beside("communication", "dispatch and combine", start, each["busy ep"], **other)
        clock.now_s = max(clock.now_s, start + each["busy ep"])
        clock.run("communication", "keys and values", each.get("cp", 0.0), **now)


def _in_turn(scene: ServeScene, clock: _Clock, each: Mapping[str, float], about: dict[str, float | str]) -> None:
    """Lay out attention, dispatch, experts, combine."""
    swap = scene.exchange
    load = scene.point.serve.hot.busiest(scene.moe.experts, scene.ranks) if scene.moe else 1.0
    _run_all(clock, each, [name for name in SERVED if name in BEFORE], 1.0, about)
    clock.run("communication", "keys and values", each.get("cp", 0.0), **about)
    clock.run("communication", "all-reduce", each["tp"] / 2.0, **about)
    if swap is not None and each["busy ep"]:
        clock.run("communication", "dispatch", load * swap.dispatch_s, **about)
    _run_all(clock, each, [name for name in SERVED if name not in BEFORE], 1.0, about)
    if swap is not None and each["busy ep"]:
        clock.run("communication", "combine", load * swap.combine_s, **about)
    clock.run("communication", "all-reduce", each["tp"] / 2.0, **about)


def _work(clock: _Clock, each: Mapping[str, float], slower: float, about: dict[str, float | str]) -> None:
    """Lay out the operators and all-reduces of a micro-batch, slowed down by what runs beside them."""
    _run_all(clock, each, [name for name in SERVED if name in BEFORE], slower, about)
    clock.run("compute", "all-reduce", slower * each["tp"] / 2.0, **about)
    _run_all(clock, each, [name for name in SERVED if name not in BEFORE], slower, about)
    clock.run("compute", "all-reduce", slower * each["tp"] / 2.0, **about)


def _run_all(
    clock: _Clock, each: Mapping[str, float], names: list[str], slower: float, about: dict[str, float | str]
) -> None:
    for name in names:
        clock.run("compute", name, slower * each[name], **about)


# --- a training step ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Played:
    """A training step that was executed.

    Attributes
    ----------
    run, costs, causes : as `collectives.pipelines` has them
    slices : what each action is made of, and the update
    seconds : from the first action to the end of the update
    """

    run: Run
    costs: Costs
    causes: Mapping[str, Column]
    slices: tuple[Slice, ...]
    seconds: float


def play(scene: TrainScene) -> Played:
    """Execute a step's schedule on the times of its stages.

    Raises
    ------
    InfeasibleError
        The step has more actions than a trace can hold.
    """
    stages, m, chunks = int(scene.read("pp")), int(scene.microbatches), int(scene.read("vpp"))
    actions = 2 * stages * m * chunks
    if actions > MOST_ACTIONS:
        by = f"the step has {actions:,} actions"
        raise InfeasibleError("trace", f"{MOST_ACTIONS:,} actions", by, "trace a smaller global batch")
    code = int(scene.read("schedule"))
    name = "1f1b" if code == 0 and chunks == 1 else SCHEDULES[code]
    order = PIPELINES[name].order(stages, m, chunks)
    layout, scale = placement(scene.job, scene.cols), scene.job.scale
    if len(layout.virtual) != order.virtuals:
        raise InfeasibleError(
            "trace", f"the schedule {name}", f"it has {order.chunks} chunks a stage", f"set vpp to {order.chunks}"
        )
    ahead, back, weights = (scale * times for times in _virtual(scene, layout))
    waits = scale * (scene.job.engine.boundary_s * (stages > 1) + one(scene.stages["amax"]))
    ahead, back = ahead + waits, back + waits + _contended(scene) / (m * chunks + stages - 1)
    costs = Costs(ahead, back - weights, weights, hop_s=scale * one(scene.stages["hop"]) if stages > 1 else 0.0)
    run = execute(order, costs)
    inside = [*_inside(scene, run), *_update(scene, stages, float(run.step_s))]
    return Played(run, costs, causes(order, costs), tuple(inside), max(each.end_s for each in inside))


def _contended(scene: TrainScene) -> float:
    """Seconds that a hidden gradient reduction takes from the backward work of a stage, all of a step."""
    return scene.job.fitted.shared["contention"] * (scene.busy.get("dp", 0.0) - scene.terms.get("dp", 0.0))


def _virtual(scene: TrainScene, layout: Layout) -> tuple[Column, Column, Column]:
    """Return forward, backward and weight-gradient seconds of each virtual stage for one micro-batch."""
    kinds = range(len(scene.kinds))
    whole = [one(scene.stages[f"layer {k}"]) for k in kinds]
    ahead = [one(layer["forward share"]) for layer in scene.shown]
    weights = [one(layer["weights share"]) for layer in scene.shown]
    ends = {way: one(scene.layers[f"{way} head"]) for way in ("forward", "backward")}
    ends["backward"] -= scene.put_off  # waits for the drain, which is drawn empty
    join = {way: one(scene.layers[f"{way} mtp"]) for way in ("forward", "backward")}
    order = layer_order(scene.point.model)

    def times(layers: list[float], last: float, module: float) -> Column:
        return chunk_times(layout, order, layers, last=last, mtp=module)

    behind = [seconds - first for seconds, first in zip(whole, ahead, strict=True)]
    return (
        times(ahead, ends["forward"], ends["forward"] + join["forward"] + ahead[-1]),
        times(behind, ends["backward"], ends["backward"] + join["backward"] + behind[-1]),
        times(weights, 0.0, weights[-1]),
    )


def _inside(scene: TrainScene, run: Run) -> Iterator[Slice]:
    """Yield what each action is made of: operators in proportion, collectives so that they end with it."""
    parts = {way: _parts(scene, way) for way in ("forward", "backward")}
    start, end, row = run.start_s.tolist(), run.end_s.tolist(), 0
    for stage, actions in enumerate(run.order.actions):
        for action in actions:
            work, sent = parts["forward" if action.kind == "F" else "backward"]
            length = end[row] - start[row]
            at = start[row]
            for name, share in work.items():
                yield Slice(stage, "compute", name, at, at + share * length, {"micro-batch": action.microbatch})
                at += share * length
            at = end[row] - min(sum(sent.values()), 1.0) * length
            for name, share in sent.items() if action.kind != "W" else ():
                stop = min(at + share * length, end[row])
                yield Slice(stage, "communication", name, at, stop, {"micro-batch": action.microbatch})
                at = stop
            row += 1


def _parts(scene: TrainScene, way: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the shares of a direction that operators take, and those that collectives are at work, hidden or not."""
    counts = np.array(scene.counts)
    rows = {name: float(counts @ scene.layer(f"{way} {name}")) for name in COMPUTE}
    if way == "backward":
        rows["recompute"] = float(counts @ [one(layer["recompute"]) for layer in scene.shown])
    rows["head"] += (1.0 + scene.modules) * one(scene.layers[f"{way} head"])
    sent = {name: float(counts @ scene.layer(f"{way} {name}")) for name in ("tp", "cp", "ep")}
    if way == "backward":
        sent["tp"] += float(counts @ scene.layer("hideable tp"))
    whole = one(scene.stages["forward share"])
    whole = whole if way == "forward" else one(scene.stages["total"]) - whole
    shares = [{name: seconds / whole for name, seconds in held.items() if seconds > 0} for held in (rows, sent)]
    return shares[0], shares[1]


def _update(scene: TrainScene, stages: int, start_s: float) -> Iterator[Slice]:
    """Yield what follows the pipeline on every stage: the reduction that is not hidden, the optimizer, the host."""
    for stage in range(stages):
        at = start_s
        for name, lane in (
            ("dp", "communication"),
            ("optimizer", "compute"),
            ("step", "compute"),
            ("evaluation", "compute"),
        ):
            seconds = scene.terms.get(name, 0.0)
            yield Slice(stage, lane, name, at, at + seconds, {})
            at += seconds
