"""What a point comes to on a cluster: with its split held, or with the split searched anew."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from clusters.build import build
from clusters.spec import ClusterSpec
from parallel import results, rules
from parallel.exchange import REAL
from parallel.executors import run
from parallel.explain.point import Point
from parallel.placement import domain_size
from parallel.priced import Priced
from parallel.strategy import Columns
from parallel.sweeps.spaces import space_of
from parallel.sweeps.task import PHASES, Bound, Task


@dataclass(frozen=True)
class Outcome:
    """A priced point, or why there is none.

    Attributes
    ----------
    tokens_per_s : of the whole cluster; 0 where nothing runs
    seconds : a step, a pass or a token
    terms : its exposed seconds
    strategy : the split in words
    point : the split in numbers; None where nothing runs
    broken : the limit that it breaks, and by how much; empty where it keeps all of them
    points : strategies looked at
    """

    tokens_per_s: float = 0.0
    accelerators: int = 0
    seconds: float = float("nan")
    terms: Mapping[str, float] = field(default_factory=dict)
    strategy: Mapping[str, Any] = field(default_factory=dict)
    point: Point | None = None
    broken: str = ""
    points: int = 0

    @property
    def feasible(self) -> bool:
        """Whether it runs, fits in memory and keeps the limits."""
        return self.tokens_per_s > 0.0 and not self.broken

    @property
    def tokens_per_s_per_gpu(self) -> float:
        """Rate of one accelerator bought."""
        return self.tokens_per_s / self.accelerators if self.accelerators else 0.0


def held(point: Point, spec: ClusterSpec | None = None) -> Outcome:
    """Price a point with its split held, on its own cluster or on another.

    A split that fills its domains fills those of the other cluster.
    """
    spec = spec or point.cluster
    split = dict(point.strategy)
    if spec is not point.cluster and split.get("used") == domain_size(point.built):
        split["used"] = float(domain_size(build(spec)))
    moved = replace(point, cluster=spec, strategy=split)
    bound, cols = moved.bound, moved.cols
    wrong = int(rules.first_broken(PHASES[point.phase].rules, cols, bound.setting)[0])
    if wrong >= 0:
        return Outcome(broken=f"breaks the rule: {PHASES[point.phase].rules[wrong].name}", points=1)
    return _outcome(moved, bound, cols, moved.price())


def searched(point: Point, spec: ClusterSpec | None = None) -> Outcome:
    """Return the best split of the point's model on its own cluster or on another; the point's split stands by.

    An assumption of the point that a search does not take, such as another exchange, leaves the split held.
    """
    spec = spec or point.cluster
    stays = held(point, spec)
    if point.exchange != REAL:
        return stays
    best = best_of(point, spec)
    if best.feasible and stays.feasible:
        winner = max((stays, best), key=lambda one: one.tokens_per_s)
    else:
        winner = stays if stays.feasible else best
    return replace(winner, points=stays.points + best.points)


def best_of(point: Point, spec: ClusterSpec) -> Outcome:
    """Search the phase's space on a cluster; where nothing is feasible, say what is nearest and which limit it breaks."""
    space = space_of(point.phase, build(spec), point.model)
    task = Task(point.phase, point.model, spec, point.train, point.serve, space)
    found = run(task, executor="serial")
    index = found.best if found.best >= 0 else found.nearest
    if index < 0:
        most = max(found.rejected, key=lambda name: found.rejected[name], default="an empty space")
        said = "memory: no split fits" if found.rejected.get("memory") else f"no split is valid: {most}"
        return Outcome(broken=said, points=found.points)
    bound = Bound.of(task)
    cols = bound.at(np.array([index], dtype=np.int64))
    moved = replace(point, cluster=spec, strategy={name: float(cols[name][0]) for name in cols})
    return replace(_outcome(moved, bound, cols, bound.price(cols)), points=found.points)


def _outcome(point: Point, bound: Bound, cols: Columns, priced: Priced) -> Outcome:
    """Read off one priced row, and hold it against memory and the limit of its phase."""
    many = bound.cluster.accelerators
    return Outcome(
        tokens_per_s=float(priced.extra["tokens_per_s_per_gpu"][0]) * many,
        accelerators=many,
        seconds=float(priced.seconds[0]),
        terms=results.at(priced.terms, 0),
        strategy=results.strategy_of(bound, cols, 0),
        point=point,
        broken=_broken(bound, priced),
        points=1,
    )


def _broken(bound: Bound, priced: Priced) -> str:
    phase, needed, held_bytes = PHASES[bound.task.phase], float(priced.memory_bytes[0]), bound.cluster.accelerator
    if needed > held_bytes.usable_bytes:
        return f"memory: needs {needed / 2**30:.1f} GiB of {held_bytes.usable_bytes / 2**30:.1f}"
    latency, limit = float(phase.latency(priced)[0]), phase.limit_s(bound.task)
    return f"{phase.limit_name}: takes {latency * 1e3:.4g} ms of {limit * 1e3:.4g}" if latency > limit else ""
