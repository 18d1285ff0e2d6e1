"""A sweep as asked: models, clusters and what varies of them, workloads, strategies, limits; decoded cell by cell.

A cell is one task: a phase of one workload of one model on one cluster. Cells are numbered, clusters slowest, and made
when their number comes up, so that a plan of a hundred thousand of them is as small as its file.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import product
from math import isnan
from typing import Any, Final

import numpy as np

from clusters.build import Cluster, bill, build
from clusters.spec import ClusterSpec, content, with_
from parallel.models import Model
from parallel.sweeps.spaces import narrowed, space_of
from parallel.sweeps.task import Ask, Task
from parallel.workload import ServeWorkload, TrainWorkload
from topo.errors import Fault, InfeasibleError, SpecError

Axes = tuple[tuple[str, tuple[Any, ...]], ...]


@dataclass(frozen=True)
class Work:
    """One phase of one workload; `said` are the fields of it that the sweep varies."""

    phase: str
    train: TrainWorkload
    serve: ServeWorkload
    said: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Sweep:
    """One sweep.

    Attributes
    ----------
    clusters : what `vary` starts from
    vary : fields of the clusters, as dotted paths, with their values
    works : phases and workloads, see `works`
    strategies : axes to narrow, by "train" and "serve"
    space : name of the space that they narrow, a key of `parallel.sweeps.spaces.SPACES`
    limits : largest value of a figure of the whole cluster, by a key of `FIGURES`
    group : settings whose every combination has winners and a front of its own
    budget : strategies of each cell that a sampled search may price; 0 for all of them
    """

    name: str
    models: tuple[Model, ...]
    clusters: tuple[ClusterSpec, ...]
    vary: Axes = ()
    works: tuple[Work, ...] = ()
    strategies: tuple[tuple[str, Axes], ...] = ()
    space: str = "all"
    ask: Ask = field(default_factory=lambda: Ask(limited=True))
    limits: tuple[tuple[str, float], ...] = ()
    group: tuple[str, ...] = ("model", "phase")
    budget: int = 0
    file: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Numbers of clusters, of values of each varied field, of models, and of works."""
        return (len(self.clusters), *(len(values) for _, values in self.vary), len(self.models), len(self.works))

    @property
    def cells(self) -> int:
        """How many tasks there are."""
        return int(np.prod(self.shape, dtype=np.int64))

    def cluster(self, cell: int) -> ClusterSpec:
        """Return the cluster of a cell, not wired yet."""
        base, *varied, _, _ = (int(place) for place in np.unravel_index(cell, self.shape))
        values = (values[place] for (_, values), place in zip(self.vary, varied, strict=True))
        changes = dict(zip((name for name, _ in self.vary), values, strict=True))
        return _changed(self.clusters[base], json.dumps(changes))

    def task(self, cell: int) -> Task:
        """Return the task of a cell.

        Raises
        ------
        SpecError
            The cluster cannot be wired so.
        InfeasibleError
            The cluster breaks a limit of its own: watts, dollars, parts.
        """
        spec = self.cluster(cell)
        cluster = build(spec)
        *_, model, work = (int(place) for place in np.unravel_index(cell, self.shape))
        for name, limit in self.limits:
            FIGURES[name].check(cluster, limit)
        asked = self.works[work]
        side = "train" if asked.phase == "train" else "serve"
        space = space_of(asked.phase, cluster, self.models[model], (), self.space)
        axes = dict(dict(self.strategies).get(side, ()))
        space = narrowed(space, axes, f"strategy.{side}", self.file) if axes else space
        return Task(asked.phase, self.models[model], spec, asked.train, asked.serve, space, self.ask)

    def settings(self, cell: int) -> dict[str, Any]:
        """Return what tells a cell from the others, by name."""
        base, *varied, model, work = (int(place) for place in np.unravel_index(cell, self.shape))
        fields = {name: values[place] for (name, values), place in zip(self.vary, varied, strict=True)}
        asked = self.works[work]
        named = {"cluster": self.clusters[base].name, "model": self.models[model].name, "phase": asked.phase}
        return {**named, **fields, **dict(asked.said)}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that a result depends on, the program's version included."""
        from importlib.metadata import version

        told = {
            "podscale": version("podscale"),
            "clusters": [content(spec) for spec in self.clusters],
            "models": [asdict(model) for model in self.models],
            "works": [asdict(work) for work in self.works],
            "rest": [self.vary, self.strategies, self.space, asdict(self.ask), self.limits, self.budget],
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


@lru_cache(maxsize=64)
def _changed(base: ClusterSpec, changes: str) -> ClusterSpec:
    """Return a cluster with some fields changed: a JSON object, for values may be lists and sections."""
    return with_(base, **json.loads(changes)) if changes != "{}" else base


@dataclass(frozen=True)
class Figure:
    """A figure of the whole cluster that a sweep may limit."""

    unit: str
    value: Callable[[Cluster], float]

    def check(self, cluster: Cluster, limit: float) -> None:
        """Raise an `InfeasibleError` where the figure is above the limit, or not known."""
        found = self.value(cluster)
        if not found <= limit:
            said = (
                "a figure that is public for none of its parts" if isnan(found) else f"{found:,.6g} {self.unit}".strip()
            )
            raise InfeasibleError(
                cluster.name, f"a limit of {limit:,.6g} {self.unit}".strip(), said, "a smaller cluster"
            )


def _billed(key: str) -> Callable[[Cluster], float]:
    def value(cluster: Cluster) -> float:
        told = bill(cluster)[key]
        return float("nan") if told is None else float(told)

    return value


def _ports(cluster: Cluster) -> float:
    from topo.ports import ports

    return float(sum(row.used for row in ports(cluster.blueprint)))


FIGURES: Final[Mapping[str, Figure]] = {
    "power_W": Figure("W", _billed("power_W")),
    "price_usd": Figure("USD", _billed("price_usd")),
    "ports": Figure("switch ports", _ports),
    "accelerators": Figure("", lambda cluster: float(cluster.accelerators)),
}
"""Figures of a cluster that `limits` of a sweep may name; watts and dollars are those of the parts whose figure is public."""


def works(phases: tuple[str, ...], train: Mapping[str, Any], serve: Mapping[str, Any]) -> tuple[Work, ...]:
    """Return every workload of every phase: fields with a tuple of values vary, the others stay.

    >>> [work.said for work in works(("train",), {"sequence": (4096, 8192), "precision": "fp8"}, {})]
    [(('sequence', 4096),), (('sequence', 8192),)]
    """
    found = []
    for phase in phases:
        fields = train if phase == "train" else serve
        varied = {name: value for name, value in fields.items() if isinstance(value, tuple) and name not in _TUPLES}
        fixed = {name: value for name, value in fields.items() if name not in varied}
        for values in product(*varied.values()):
            said = dict(zip(varied, values, strict=True))
            kept = {**fixed, **said}
            one = TrainWorkload(**kept) if phase == "train" else TrainWorkload()
            other = ServeWorkload(**kept) if phase != "train" else ServeWorkload()
            found.append(Work(phase, one, other, tuple(said.items())))
    return tuple(found)


_TUPLES: Final = frozenset({"recompute_modules"})


def vary_faults(sweep: Sweep) -> list[Fault]:
    """Return the faults of a field that no value of makes a cluster: a misspelt field, not a wiring too large.

    A wiring that cannot be built together with others is a row of the answer, with its reason.
    """
    faults: list[Fault] = []
    for name, values in sweep.vary:
        errors: tuple[Fault, ...] = ()
        for base, value in product(sweep.clusters, values):
            try:
                _changed(base, json.dumps({name: value}))
                break
            except SpecError as error:
                errors = error.faults
        else:
            faults += [replace(fault, field=f"vary.{fault.field}", file=sweep.file) for fault in errors]
    return faults
