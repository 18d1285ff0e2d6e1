"""What the sections of a scenario file stand for: its cluster, its pool, its model, its split."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from clusters.spec import ClusterSpec, focus, load, parse, with_
from parallel import rules
from parallel.explain.point import Point
from parallel.io import read_model
from parallel.models import Model
from parallel.placement import ORDERS, domain_size
from parallel.strategy import Columns
from parallel.training.layer import RECOMPUTE
from parallel.training.step import SCHEDULES
from parallel.training.written import written
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from parallel.scenariofile import RlFile, ServeFile, TrainFile, TrainStrategyFile

T = TypeVar("T")
OPTIONAL = ("replicate", "recompute_layers")
"""Columns of a training strategy that stand only where a file gives them."""


def given(section: Any) -> dict[str, Any]:
    """Return the fields of a section that say something."""
    return {name: value for name, value in section.model_dump().items() if value is not None}


def _beside(name: str, path: str | Path) -> str:
    """Return a file named in a scenario as seen from the scenario, if it is one; else the name as it stands."""
    near = os.path.normpath(Path(path).parent / name)
    return near if Path(near).exists() else name


def cluster_of(file: "TrainFile | ServeFile | RlFile", path: str | Path) -> ClusterSpec:
    """Return the cluster of a scenario, of as many accelerators as it says."""
    spec = load(_beside(file.cluster, path)) if isinstance(file.cluster, str) else parse(file.cluster, str(path))
    return with_(spec, accelerators=file.accelerators) if file.accelerators else spec


def pool_of(spec: ClusterSpec, field: str, name: str | None, path: str | Path) -> ClusterSpec:
    """Return the pool that a field of the scenario names; a cluster of unlike pools wants one."""
    if spec.pools and name is None:
        known = ", ".join(held.name for held in spec.pools)
        raise SpecError(
            [Fault(field, None, "is missing: the cluster has unlike pools", f"name one of {known}", str(path))]
        )
    try:
        return focus(spec, name or "")
    except SpecError as error:
        raise SpecError([replace(fault, field=field, file=str(path)) for fault in error.faults]) from None


def model_of(name: str, path: str | Path) -> Model:
    """Return the model that a scenario names; a path is seen from the scenario."""
    return read_model(_beside(name, path))


def split_as(point: Point, strategy: "TrainStrategyFile") -> Point:
    """Return a training step split as a file says; what it leaves to the cluster and the batch is filled in."""
    split = strategy.model_dump()
    if (layout := split.pop("layout")) is not None:
        stages, chunks = split["pp"], split["vpp"]
        written(layout, point.model, stages, chunks, point.train.software.mtp)
        point = replace(point, train=replace(point.train, layout=layout))
    bound = point.bound
    split = {name: value for name, value in split.items() if value is not None or name not in OPTIONAL}
    split |= {
        "used": split.pop("ranks_per_domain") or domain_size(bound.cluster),
        "order": ORDERS.index(split["order"]),
        "recompute": RECOMPUTE.index(split["recompute"]),
        "schedule": SCHEDULES.index(
            {"1f1b": "interleaved", None: "interleaved"}.get(named := split["schedule"], named)
        ),
        "ep_overlap": float(split["ep_overlap"]),
        "sp": float(split["sp"]),
    }
    dp = split.pop("dp")
    split["dp"] = dp or float(rules.data_parallel(bound.setting, Columns.of(**split))[0])
    return replace(point, strategy={name: float(value) for name, value in split.items()})


def every(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Call one after the other; the faults of all come in one error."""
    found: list[T] = []
    faults: list[Fault] = []
    for call in calls:
        try:
            found.append(call())
        except SpecError as error:
            faults += error.faults
    if faults:
        raise SpecError(faults)
    return found
