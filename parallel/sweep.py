"""A sweep is ``(task, lo, hi)``: decode the rows, reject what is invalid, price the rest, keep the best."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from clusters.build import Cluster, build
from clusters.spec import ClusterSpec
from parallel import rules
from parallel.models import Model, Moe
from parallel.placement import fillings
from parallel.precision import RECIPES, recipe
from parallel.priced import Priced, joined
from parallel.search import Found, merge, pareto
from parallel.serving import phases as serving
from parallel.serving.phases import ServeJob
from parallel.strategy import Columns, Index, Space, powers_of_two
from parallel.training import step as training
from parallel.training.layer import RECOMPUTE, TrainJob
from parallel.workload import ServeWorkload, TrainWorkload
from topo.columns import Column
from topo.errors import Fault, SpecError

BLOCK = 1 << 15  # rows per block: fits the cache; part of the definition, so that any executor gives the same bits


@dataclass(frozen=True)
class Task:
    """One search: a phase of a workload, on a model and a cluster, over a space of strategies."""

    phase: str
    model: Model
    cluster: ClusterSpec
    train: TrainWorkload
    serve: ServeWorkload
    space: Space


def _precision_axis(names: tuple[str, ...]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Return the axis of several recipes; none where the workload's own is meant."""
    codes = tuple(float(list(RECIPES).index(recipe(name).name)) for name in names)
    return (("precision", codes),) if codes else ()


def space_of(phase: str, cluster: Cluster, model: Model, precisions: tuple[str, ...] = ()) -> Space:
    """Return the strategies of a phase worth a look, in the named recipes or in the workload's own."""
    if phase == "train":
        return train_space(cluster, model, precisions)
    return serve_space(cluster, model, phase, precisions)


def train_space(cluster: Cluster, model: Model, precisions: tuple[str, ...] = ()) -> Space:
    """Return the training strategies worth a look: powers of two, all placements, recomputation and ZeRO stages."""
    experts = max((k.mlp.experts for k in model.layers if isinstance(k.mlp, Moe)), default=1)
    return Space(
        (
            *_precision_axis(precisions),
            ("used", fillings(cluster)),
            ("order", (0, 1)),
            ("tp", (1, 2, 4, 8)),
            ("sp", (1,)),
            ("cp", (1,)),
            ("ep", tuple(p for p in powers_of_two(experts) if p <= 256)),
            ("etp", (1,)),
            ("micro_batch", (1, 2, 4)),
            ("pp", powers_of_two(16)),
            ("recompute", tuple(range(len(RECOMPUTE)))),
            ("ep_overlap", (0, 1) if experts > 1 else (0,)),
            ("vpp", (1, 2, 4)),
            ("schedule", (0,)),
            ("zero", (1, 2, 3)),
        )
    )


def serve_space(cluster: Cluster, model: Model, phase: str, precisions: tuple[str, ...] = ()) -> Space:
    """Return the serving strategies worth a look: expert groups of powers of two and of whole domains."""
    experts = max((k.mlp.experts for k in model.layers if isinstance(k.mlp, Moe)), default=1)
    wide = set(powers_of_two(experts)) if experts > 1 else {1}
    if experts > 1:
        wide |= {tier.size for tier in cluster.tiers if tier.plane == "scale-up" and 1 < tier.size <= 4 * experts}
        wide |= {2 * size for size in wide if 2 * size <= 2 * experts}
    batches = (
        tuple(sorted({max(1, p * quarter // 4) for p in powers_of_two(1024) for quarter in (4, 5, 6, 7)}))
        if phase == "decode"
        else (0.125, 0.25, 0.5, 1, 2, 4, 8, 16)
    )
    return Space(
        (
            *_precision_axis(precisions),
            ("used", fillings(cluster)),
            ("tp", (1, 2, 4, 8)),
            ("ep", tuple(sorted(wide))),
            ("pp", (1, 2, 4, 8)),
            ("microbatches", (1, 2) if experts > 1 else (1,)),
            ("batch", batches),
        )
    )


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
        cols = self.task.space.at(index)
        if self.task.phase != "train":
            return cols
        setting = self.setting
        return cols.derive(
            "dp", ("used", "tp", "cp", "pp", "micro_batch"), lambda sub: rules.data_parallel(setting, sub)
        )

    @property
    def setting(self) -> rules.Setting:
        """What the rules may ask about."""
        work = self.task.train if self.task.phase == "train" else self.task.serve
        return rules.Setting(self.task.model, self.cluster, work)

    def price(self, cols: Columns) -> Priced:
        """Price valid rows. Each precision has kernels of its own: rows of one precision are priced together."""
        if "precision" not in cols:
            return PHASES[self.task.phase].price(self, cols)
        parts = []
        for code in np.unique(cols["precision"]):
            rows = np.flatnonzero(cols["precision"] == code)
            name = tuple(RECIPES)[int(code)]
            train, serve = replace(self.task.train, precision=name), replace(self.task.serve, precision=name)
            bound = replace(self, task=replace(self.task, train=train, serve=serve))
            block = cols if len(rows) == cols.rows else cols.take(rows)
            parts.append((rows, PHASES[self.task.phase].price(bound, block)))
        return joined(parts, cols.rows)


@dataclass(frozen=True)
class PhaseOf:
    """How a phase is searched: its rules, its prices, and the limit on its latency."""

    rules: tuple[rules.Rule, ...]
    price: Callable[[Bound, Columns], Priced]
    latency: Callable[[Priced], Column]
    limit_s: Callable[[Task], float]
    limit_name: str


PHASES: dict[str, PhaseOf] = {
    "train": PhaseOf(
        rules.TRAIN_RULES,
        lambda b, c: training.price(TrainJob.of(b.task.model, b.cluster, b.task.train), c),
        lambda p: p.seconds,
        lambda task: np.inf,
        "none",
    ),
    "prefill": PhaseOf(
        rules.SERVE_RULES,
        lambda b, c: serving.price(ServeJob.of(b.task.model, b.cluster, b.task.serve), "prefill", c),
        lambda p: p.extra["ttft_s"],
        lambda task: task.serve.ttft_s,
        "TTFT limit",
    ),
    "decode": PhaseOf(
        rules.SERVE_RULES,
        lambda b, c: serving.price(ServeJob.of(b.task.model, b.cluster, b.task.serve), "decode", c),
        lambda p: p.seconds,
        lambda task: task.serve.tpot_s,
        "TPOT limit",
    ),
}


def evaluate(bound: Bound, lo: int, hi: int) -> Found:
    """Judge and price rows ``lo … hi-1`` (at most one block) and reduce them."""
    phase = PHASES[bound.task.phase]
    cols = bound.at(np.arange(lo, hi, dtype=np.int64))
    broken = rules.first_broken(phase.rules, cols, bound.setting)
    rejected = {
        rule.name: int(count)
        for rule, count in zip(phase.rules, np.bincount(broken + 1, minlength=len(phase.rules) + 1)[1:], strict=True)
        if count
    }
    rows = np.flatnonzero(broken < 0)
    if len(rows) == 0:
        return Found(points=cols.rows, rejected=rejected)
    priced = bound.price(cols.take(rows))
    index = lo + rows
    needed, latency, rate = priced.memory_bytes, phase.latency(priced), priced.extra["tokens_per_s_per_gpu"]
    sound = np.isfinite(needed) & np.isfinite(latency) & np.isfinite(rate)  # a row without a price may not win
    fits = sound & (needed <= bound.cluster.accelerator.usable_bytes)
    limit = phase.limit_s(bound.task)
    feasible = fits & (latency <= limit)
    refused = {
        "no finite price": int(np.sum(~sound)),
        "memory": int(np.sum(sound & ~fits)),
        phase.limit_name: int(np.sum(fits & (latency > limit))),
    }
    rejected |= {name: count for name, count in refused.items() if count}
    front = np.flatnonzero(fits)
    front = front[pareto(1.0 / latency[front], rate[front])]
    value = np.where(feasible, rate, -np.inf)
    best = int(np.argmax(value))
    nearest = int(np.argmin(np.where(fits, latency, np.inf)))
    return Found(
        points=cols.rows,
        feasible=int(np.sum(feasible)),
        rejected=rejected,
        front=index[front],
        front_x=1.0 / latency[front],
        front_y=rate[front],
        best=int(index[best]) if feasible.any() else -1,
        best_value=float(value[best]),
        nearest=int(index[nearest]) if fits.any() else -1,
        nearest_value=float(latency[nearest]) if fits.any() else np.inf,
    )


def evaluate_range(task: Task, lo: int, hi: int) -> Found:
    """Evaluate a range of whole blocks in order; this is the unit of work of every executor."""
    np.empty(
        4 << 20
    )  # once freed, glibc stops returning temporaries of a block to the system: 3 times fewer page faults
    bound = Bound.of(task)
    found = Found()
    for start in range(lo, hi, BLOCK):
        found = merge(found, evaluate(bound, start, min(start + BLOCK, hi)))
    return found
