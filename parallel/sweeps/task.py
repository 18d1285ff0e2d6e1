"""One search: a phase of a workload, on a model and a cluster, over a space of strategies; and what it is searched for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from clusters.build import Cluster, build
from clusters.spec import ClusterSpec
from parallel import rules
from parallel.models import Model
from parallel.precision import RECIPES
from parallel.priced import Priced, joined
from parallel.serving import phases as serving
from parallel.serving.phases import ServeJob
from parallel.strategy import Columns, Index, Space
from parallel.training import step as training
from parallel.training.layer import TrainJob
from parallel.workload import ServeWorkload, TrainWorkload
from topo.columns import Column
from topo.errors import Fault, SpecError


@dataclass(frozen=True)
class Ask:
    """What is looked for.

    Attributes
    ----------
    front : objectives of the Pareto front, keys of `parallel.sweeps.objectives.OBJECTIVES`
    rank : the objective that the best are ranked by
    most : how many of the best are kept
    limited : whether the front keeps to the limits; else memory alone bounds it
    histogram : whether to count the ranking objective over all feasible strategies
    limits : largest (for objectives that are better large: smallest) allowed value, by objective
    """

    front: tuple[str, ...] = ("interactivity", "tokens_per_s_per_gpu")
    rank: str = "tokens_per_s_per_gpu"
    most: int = 1
    limited: bool = False
    histogram: bool = False
    limits: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Task:
    """One search: a phase of a workload, on a model and a cluster, over a space of strategies."""

    phase: str
    model: Model
    cluster: ClusterSpec
    train: TrainWorkload
    serve: ServeWorkload
    space: Space
    ask: Ask = field(default_factory=Ask)


@dataclass(frozen=True)
class Bound:
    """A task bound to its built cluster: how to complete, judge and price a block of its strategies."""

    task: Task
    cluster: Cluster

    @classmethod
    def of(cls, task: Task) -> "Bound":
        """Build the cluster (cached by its fingerprint) and bind it."""
        if task.phase not in PHASES:
            raise SpecError([Fault("phase", task.phase, "no such phase", f"choose one of {', '.join(PHASES)}")])
        return cls(task, build(task.cluster))

    def at(self, index: Index) -> Columns:
        """Return the strategies of the given indices, with the columns that follow from the others."""
        return self.completed(self.task.space.at(index))

    def completed(self, cols: Columns) -> Columns:
        """Return the columns and those that follow from them, as far as what they follow from is there."""
        for name, axes, formula in PHASES[self.task.phase].follows:
            if name not in cols and all(axis in cols for axis in axes):
                cols = cols.derive(name, axes, partial(formula, self.setting))
        return cols

    @property
    def setting(self) -> rules.Setting:
        """What the rules may ask about."""
        work = self.task.train if self.task.phase == "train" else self.task.serve
        return rules.Setting(self.task.model, self.cluster, work)

    def price(self, cols: Columns) -> Priced:
        """Price valid rows. Each precision has kernels of its own: rows of one precision are priced together."""
        phase = PHASES[self.task.phase]
        if "precision" not in cols:
            return phase.price(self, cols)
        parts = []
        for name, rows in _by_precision(cols):
            train, serve = replace(self.task.train, precision=name), replace(self.task.serve, precision=name)
            bound = replace(self, task=replace(self.task, train=train, serve=serve))
            parts.append((rows, phase.price(bound, cols if len(rows) == cols.rows else cols.take(rows))))
        return joined(parts, cols.rows)


def _by_precision(cols: Columns) -> Iterator[tuple[str, Index]]:
    """Yield each recipe and its rows."""
    for code in np.unique(cols["precision"]):
        yield tuple(RECIPES)[int(code)], np.flatnonzero(cols["precision"] == code)


Follow = tuple[str, tuple[str, ...], Callable[[rules.Setting, Mapping[str, Column]], Column]]
"""A column that follows from others: its name, what it follows from, and how."""


@dataclass(frozen=True)
class PhaseOf:
    """How a phase is searched: its rules, its prices, the columns that follow from others, the limit on its latency."""

    rules: tuple[rules.Rule, ...]
    price: Callable[[Bound, Columns], Priced]
    latency: Callable[[Priced], Column]
    limit_s: Callable[[Task], float]
    limit_name: str
    follows: tuple[Follow, ...] = ()


PHASES: dict[str, PhaseOf] = {
    "train": PhaseOf(
        rules.TRAIN_RULES,
        lambda b, c: training.price(TrainJob.of(b.task.model, b.cluster, b.task.train), c),
        lambda p: p.seconds,
        lambda task: np.inf,
        "none",
        (("dp", ("used", "tp", "cp", "pp", "micro_batch"), rules.data_parallel),),
    ),
    "prefill": PhaseOf(
        rules.SERVE_RULES,
        lambda b, c: serving.price(ServeJob.of(b.task.model, b.cluster, b.task.serve), "prefill", c),
        lambda p: p.extra["ttft_s"],
        lambda task: task.serve.ttft_s,
        "TTFT limit",
    ),
    "decode": PhaseOf(
        rules.DECODE_RULES,
        lambda b, c: serving.price(ServeJob.of(b.task.model, b.cluster, b.task.serve), "decode", c),
        lambda p: p.seconds,
        lambda task: task.serve.tpot_s,
        "TPOT limit",
    ),
}
