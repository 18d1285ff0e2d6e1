"""The sweep file as Pydantic checks it: imported only while a file is read; every fault comes back at once."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BeforeValidator, Field, PositiveInt, WithJsonSchema

from clusters.build import Cluster, build
from clusters.fieldvalues import quantity
from clusters.spec import ClusterSpec, load, parse, with_
from parallel.io import read_model, read_yaml
from parallel.precision import RECIPES
from parallel.scenariofile import Section, SoftwareFile, check
from parallel.sweeps.objectives import OBJECTIVES
from parallel.sweeps.plan import FIGURES, Sweep, vary_faults, works
from parallel.sweeps.spaces import SPACES, narrowed, space_of
from parallel.sweeps.task import PHASES, Ask
from parallel.workload import Software
from topo.errors import Fault, SpecError

T = TypeVar("T")
TRIED: Final = 64
"""Clusters that are tried before the axes of a sweep stay unchecked."""


def _list(value: Any) -> Any:
    """Return one value as a list of one."""
    return value if isinstance(value, list) else [value]


class _OneOrMore:
    """Lets the schema of a list take one item in its place."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        schema = handler(core)
        return {"anyOf": [schema["items"], schema]}


SEVERAL = (BeforeValidator(_list), _OneOrMore())


Quantity = WithJsonSchema({"type": ["string", "number"]})


Names = Annotated[list[str], *SEVERAL]
Counts = Annotated[list[PositiveInt], *SEVERAL]
Seconds = Annotated[list[Annotated[float, BeforeValidator(quantity("seconds")), Quantity]], *SEVERAL]
Numbers = Annotated[list[Annotated[float, Field(gt=0)]], *SEVERAL]
AxisValues = Annotated[list[float | str], *SEVERAL]


def _of(known: Iterable[str]) -> Any:
    """Type of one of a few names, or a list of them."""
    return Annotated[list[Literal[tuple(known)]], *SEVERAL]  # type: ignore[misc]


class TrainFields(Section):
    """What is trained; a list of values varies."""

    sequence: Counts | None = None
    global_batch: Counts | None = None
    precision: _of(RECIPES) | None = None  # type: ignore[valid-type]
    gradient_bytes: Numbers | None = None
    imbalance: Numbers | None = None
    software: SoftwareFile | None = None


class ServeFields(Section):
    """What is served; a list of values varies."""

    isl: Counts | None = None
    osl: Counts | None = None
    tpot_s: Seconds | None = Field(None, description="limit on the time per output token")
    ttft_s: Seconds | None = Field(None, description="limit on the time to the first token")
    precision: _of(RECIPES) | None = None  # type: ignore[valid-type]
    kv_bytes: Numbers | None = None
    imbalance: Numbers | None = None


class StrategyFields(Section):
    """Axes to narrow; what is left out takes every value that can be valid."""

    space: Literal[tuple(SPACES)] = "all"  # type: ignore[valid-type]
    train: dict[str, AxisValues] = Field(default_factory=dict)
    serve: dict[str, AxisValues] = Field(default_factory=dict)


class SweepFile(Section):
    """One sweep: what is asked, on what, within which limits, and what is kept."""

    name: str = "sweep"
    note: str = ""
    models: Names = Field(alias="model", default_factory=lambda: ["deepseek-v3"])
    phases: _of(PHASES) = Field(default_factory=lambda: list(PHASES))  # type: ignore[valid-type]
    cluster: Annotated[list[str | dict[str, Any]], *SEVERAL] = Field(
        description="a system, a cluster file, or the fields of one; a list of several"
    )
    vary: dict[str, Annotated[list[Any], *SEVERAL]] = Field(
        default_factory=dict, description="fields of the cluster file, as dotted paths, with their values"
    )
    train: TrainFields = TrainFields()
    serve: ServeFields = ServeFields()
    strategy: StrategyFields = StrategyFields()
    limits: dict[Literal[(*FIGURES, *OBJECTIVES)], float | str] = Field(default_factory=dict)  # type: ignore[valid-type]
    front: _of(OBJECTIVES) = Field(default_factory=lambda: list(Ask().front))  # type: ignore[valid-type]
    rank: Literal[tuple(OBJECTIVES)] = Ask().rank  # type: ignore[valid-type]
    top: PositiveInt = Field(1, description="how many of the best to keep of each group")
    group: Names = Field(
        default_factory=lambda: ["model", "phase"],
        description="settings whose every combination has winners of its own",
    )
    histogram: bool = False
    budget: int = Field(0, ge=0, description="strategies of each cell that a sampled search may price; 0: all")


SweepFile.model_config["populate_by_name"] = True


def read_sweep(path: str | Path) -> Sweep:
    """Return the sweep of a file.

    Raises
    ------
    SpecError
        With every fault of the file, of the models and clusters that it names, and of the fields that it varies.
    """
    given = dict(read_yaml(path))
    if "models" in given:
        given["model"] = given.pop("models")
    try:
        file = check(SweepFile, given, str(path))
    except SpecError as error:
        found = [replace(fault, field=fault.field.removesuffix(".[key]")) for fault in error.faults]
        raise SpecError([*found, *_other_faults(given, found, path)]) from None
    return sweep_of(file, path)


def _other_faults(given: Mapping[str, Any], found: list[Fault], path: str | Path) -> tuple[Fault, ...]:
    """Return what else is wrong in a file, beside the sections in which faults were found."""
    broken = {fault.field.split(".")[0] for fault in found}
    if "cluster" in broken:
        return ()
    hidden = broken | {"group"}  # it may name what a broken section varies
    try:
        sweep_of(check(SweepFile, {key: given[key] for key in given if key not in hidden}, str(path)), path)
    except SpecError as error:
        return error.faults
    return ()


def sweep_of(file: SweepFile, path: str | Path = "") -> Sweep:
    """Return the sweep of checked fields; names of files are as seen from `path`."""
    faults: list[Fault] = []

    def each(names: list[Any], look_up: Callable[[Any], T]) -> list[T]:
        found = []
        for name in names:
            try:
                found.append(look_up(name))
            except SpecError as error:
                faults.extend(replace(fault, file=fault.file or str(path)) for fault in error.faults)
        return found

    models = each(file.models, lambda name: read_model(_beside(name, path)))
    clusters = each(file.cluster, lambda entry: _cluster(entry, path))
    asked = each([file], lambda file: works(tuple(file.phases), _fields(file.train), _fields(file.serve)))
    figures, objectives = _limits(file, path, faults)
    ask = Ask(tuple(file.front), file.rank, file.top, limited=True, histogram=file.histogram, limits=objectives)
    if not (models and clusters and asked):
        raise SpecError(faults)
    made = Sweep(
        name=file.name,
        models=tuple(models),
        clusters=tuple(clusters),
        vary=tuple((name, tuple(values)) for name, values in file.vary.items()),
        works=asked[0],
        strategies=tuple(
            (side, tuple((axis, tuple(values)) for axis, values in getattr(file.strategy, side).items()))
            for side in ("train", "serve")
        ),
        space=file.strategy.space,
        ask=ask,
        limits=figures,
        group=tuple(file.group),
        budget=file.budget,
        file=str(path),
    )
    faults += [*vary_faults(made), *_axis_faults(made), *_group_faults(made)]
    if faults:
        raise SpecError(faults)
    return made


def _fields(section: TrainFields | ServeFields) -> dict[str, Any]:
    """Return the fields of a workload: one value as it is, several as a tuple."""
    found: dict[str, Any] = {}
    for name, value in section.model_dump(exclude_none=True).items():
        if name == "software":
            found[name] = Software(**value)
        else:
            found[name] = value[0] if len(value) == 1 else tuple(value)
    return found


def _cluster(entry: str | dict[str, Any], path: str | Path) -> ClusterSpec:
    """Return the cluster of an entry; fields beside `base` change the system or file that it names."""
    if isinstance(entry, str):
        return load(_beside(entry, path))
    if "base" not in entry:
        return parse(entry, str(path))
    changes = {name: value for name, value in entry.items() if name not in ("base", "name")}
    base = load(_beside(entry["base"], path))
    try:
        changed = with_(base, **changes)
    except SpecError as error:
        raise SpecError(
            [replace(fault, field=f"cluster.{fault.field}", file=str(path)) for fault in error.faults]
        ) from None
    return replace(changed, name=str(entry.get("name", changed.name)))


def _beside(name: str, path: str | Path) -> str:
    """Return a file named in a sweep as seen from the sweep, if it is one; else the name as it stands."""
    near = os.path.normpath(Path(path).parent / name)
    return near if Path(near).is_file() else name


def _limits(
    file: SweepFile, path: str | Path, faults: list[Fault]
) -> tuple[tuple[tuple[str, float], ...], tuple[tuple[str, float], ...]]:
    """Return limits of the whole cluster, and of single strategies, in SI."""
    found: Mapping[str, float | str] = file.limits
    read: dict[str, float] = {}
    for name, value in found.items():
        unit = FIGURES[name].unit if name in FIGURES else OBJECTIVES[name].unit
        try:
            read[name] = _read(value, unit)
        except ValueError as error:
            faults.append(Fault(f"limits.{name}", value, str(error), "write a number in SI", str(path)))
    return (
        tuple((name, value) for name, value in read.items() if name in FIGURES),
        tuple((name, value) for name, value in read.items() if name not in FIGURES),
    )


def _read(value: float | str, unit: str) -> float:
    if isinstance(value, str) and unit not in UNITS:
        raise ValueError(f"is text, and {unit or 'a plain number'} is not written so")
    return float(quantity(UNITS[unit])(value)) if isinstance(value, str) else float(value)


UNITS: Mapping[str, str] = {"W": "power", "USD": "price", "s": "seconds", "B": "bytes"}
"""Unit of a figure -> the kind of quantity that its text is."""


def _group_faults(sweep: Sweep) -> list[Fault]:
    known = set().union(sweep.settings(0), *(dict(work.said) for work in sweep.works))
    remedy = f"choose from {', '.join(sorted(known))}"
    return [
        Fault("group", name, "is no setting of this sweep", remedy, sweep.file)
        for name in sweep.group
        if name not in known
    ]


def _axis_faults(sweep: Sweep) -> list[Fault]:
    """Return the axes that no space has, asked of the first cluster that can be wired."""
    cluster = _wired(sweep)
    faults: list[Fault] = []
    if cluster is None:
        return faults
    for side, axes in sweep.strategies:
        space = space_of("train" if side == "train" else "decode", cluster, sweep.models[0], (), sweep.space)
        try:
            narrowed(space, dict(axes), f"strategy.{side}", sweep.file)
        except SpecError as error:
            faults += error.faults
    return faults


def _wired(sweep: Sweep) -> Cluster | None:
    """Return the first cluster that can be wired, as it stands or varied."""
    cells = range(0, sweep.cells, len(sweep.models) * len(sweep.works))[:TRIED]
    ways = (*(partial(with_, spec) for spec in sweep.clusters), *(partial(sweep.cluster, cell) for cell in cells))
    for way in ways:
        try:
            return build(way())
        except SpecError:
            continue
    return None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a sweep file, with which editors complete and check it."""
    return SweepFile.model_json_schema(by_alias=True)
