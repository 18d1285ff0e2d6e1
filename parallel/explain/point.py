"""One priced row, complete: everything that its price depends on, in a form that a JSON document can carry.

A row of a document is explained by pricing it again. `Point.to_dict` is what a document keeps of it, `Point.from_dict` reads
it back; the same fields give the same price, whatever file the row came from.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, TypeVar

from clusters.build import Cluster, build
from clusters.spec import ClusterSpec, focus, parse
from parallel import rules
from parallel.exchange import REAL, ExchangeRules
from parallel.io import model_names, read_model
from parallel.models import Attention, Compression, Indexer, LayerKind, Mlp, Model, Moe
from parallel.precision import RECIPES
from parallel.priced import Priced
from parallel.serving import phases as serving
from parallel.serving.phases import ServeJob
from parallel.strategy import Columns, Space
from parallel.sweeps.task import PHASES, Bound, Task
from parallel.training.step import DEFAULTS
from parallel.workload import ServeWorkload, Software, TrainWorkload
from topo.errors import Fault, SpecError

T = TypeVar("T")
NO_SPACE: Final = Space((("one", (1.0,)),))
"""The space of a task that is one row."""
NEEDED: Final = ("phase", "model", "cluster", "strategy")
"""Keys without which there is no point; workloads have defaults."""
KEYS: Final = (*NEEDED, "train", "serve", "pool", "exchange")
LIMITS: Final = ("tpot_s", "ttft_s")
"""Limits that JSON cannot hold where there is none: infinite, written as null."""


@dataclass(frozen=True)
class Point:
    """A model, split one way, on one cluster, doing one thing.

    Attributes
    ----------
    phase : train, prefill or decode
    strategy : one number for each raw column of the phase (codes for names, as `parallel.sweeps.spaces.NAMES` orders them)
    exchange : assumptions of the expert exchange, where they differ from those of the full model
    """

    phase: str
    model: Model
    cluster: ClusterSpec
    train: TrainWorkload = field(default_factory=TrainWorkload)
    serve: ServeWorkload = field(default_factory=ServeWorkload)
    strategy: Mapping[str, float] = field(default_factory=dict)
    exchange: ExchangeRules = REAL

    @property
    def work(self) -> TrainWorkload | ServeWorkload:
        """The workload of the phase."""
        return self.train if self.phase == "train" else self.serve

    @property
    def task(self) -> Task:
        """The search that holds this one row."""
        return Task(self.phase, self.model, self.cluster, self.train, self.serve, NO_SPACE)

    @property
    def bound(self) -> Bound:
        """The task on its built cluster."""
        return Bound.of(self.task)

    @property
    def built(self) -> Cluster:
        """The cluster as built."""
        return build(self.cluster)

    @property
    def cols(self) -> Columns:
        """The strategy as columns of length one; what a training split leaves out has its default."""
        return Columns.of(**({**DEFAULTS, **self.strategy} if self.phase == "train" else self.strategy))

    @property
    def settled(self) -> "Point":
        """The same point with the precision of its strategy, where it has one, in the workloads.

        >>> point = Point("decode", read_model("llama-3.1-8b"), parse({"accelerator": "h100-sxm", "accelerators": 8}),
        ...     strategy={"precision": 0.0, "tp": 1.0})
        >>> point.settled.serve.precision, sorted(point.settled.strategy)
        ('bf16', ['tp'])
        """
        if "precision" not in self.strategy:
            return self
        name = tuple(RECIPES)[int(self.strategy["precision"])]
        rest = {key: value for key, value in self.strategy.items() if key != "precision"}
        train, serve = replace(self.train, precision=name), replace(self.serve, precision=name)
        return replace(self, train=train, serve=serve, strategy=rest)

    def split(self, **changes: float) -> "Point":
        """Return the same point split otherwise."""
        return replace(self, strategy={**self.strategy, **changes})

    def check(self, file: str = "") -> None:
        """Raise one `SpecError` with every rule that the strategy breaks."""
        rules.check(PHASES[self.phase].rules, self.cols, self.bound.setting, file)

    def price(self, cols: Columns | None = None) -> Priced:
        """Price the point, or other columns in its place."""
        cols = self.cols if cols is None else cols
        if self.exchange == REAL or self.phase == "train":
            return self.bound.price(cols)
        return serving.price(ServeJob.of(self.model, self.built, self.serve, self.exchange), self.phase, cols)

    def to_dict(self) -> dict[str, Any]:
        """Return what a JSON document keeps: plain values, from which `from_dict` makes the same point.

        >>> point = Point("decode", read_model("llama-3.1-8b"), parse({"accelerator": "h100-sxm", "accelerators": 8}),
        ...     strategy={"tp": 1.0, "ep": 1.0})
        >>> held = point.to_dict()
        >>> held["model"], held["cluster"], held["strategy"]["tp"]
        ('llama-3.1-8b', {'accelerator': 'h100-sxm', 'accelerators': 8}, 1.0)
        >>> Point.from_dict(held) == point
        True
        """
        shipped = self.model.name in model_names() and read_model(self.model.name) == self.model
        made: dict[str, Any] = {
            "phase": self.phase,
            "model": self.model.name if shipped else asdict(self.model),
            "cluster": json.loads(self.cluster.written),
            "train": asdict(self.train),
            "serve": {name: None if value == math.inf else value for name, value in asdict(self.serve).items()},
            "strategy": {name: float(value) for name, value in self.strategy.items()},
        }
        if self.cluster.focus:
            made["pool"] = self.cluster.focus
        if self.exchange != REAL:
            made["exchange"] = asdict(self.exchange)
        return made

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], file: str = "") -> "Point":
        """Return the point of a document.

        Raises
        ------
        SpecError
            With every key that is missing, unknown or wrong.

        Examples
        --------
        >>> Point.from_dict({"phase": "decode", "modell": "llama-3.1-8b"}, "row.json")
        Traceback (most recent call last):
        ...
        topo.errors.SpecError: row.json: point.model: is missing. add it.
        row.json: point.cluster: is missing. add it.
        row.json: point.strategy: is missing. add it.
        row.json: point.modell: no such field. choose from phase, model, cluster, strategy, train, serve, pool, exchange.
        """
        missing = [Fault(f"point.{key}", None, "is missing", "add it", file) for key in NEEDED if key not in data]
        faults = [*missing, *_unknown(data, KEYS, "point", file)]
        if "phase" in data and data["phase"] not in PHASES:
            remedy = f"choose one of {', '.join(PHASES)}"
            faults.append(Fault("point.phase", data["phase"], "no such phase", remedy, file))
        if faults:
            raise SpecError(faults)
        readers: dict[str, Callable[[], Any]] = {
            "model": lambda: _model(data["model"], file),
            "cluster": lambda: focus(parse(data["cluster"], file), data.get("pool") or ""),
            "train": lambda: _train(data.get("train") or {}, file),
            "serve": lambda: _serve(data.get("serve") or {}, file),
            "strategy": lambda: _numbers(data["strategy"], file),
            "exchange": lambda: _record(ExchangeRules, data.get("exchange") or {}, "point.exchange", file),
        }
        return cls(data["phase"], **_read_all(readers))


def _read_all(readers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Call every reader; the faults of all come in one error."""
    found, faults = dict[str, Any](), list[Fault]()
    for name, read in readers.items():
        try:
            found[name] = read()
        except SpecError as error:
            faults += error.faults
    if faults:
        raise SpecError(faults)
    return found


def _unknown(data: Mapping[str, Any], known: tuple[str, ...], where: str, file: str) -> list[Fault]:
    """Return a fault for every key that means nothing."""
    remedy = f"choose from {', '.join(known)}"
    return [Fault(f"{where}.{key}", None, "no such field", remedy, file) for key in data if key not in known]


def _record(kind: type[T], data: Mapping[str, Any], where: str, file: str) -> T:
    """Make a frozen record from its fields; lists stand for tuples."""
    if faults := _unknown(data, tuple(each.name for each in fields(kind)), where, file):  # type: ignore[arg-type]
        raise SpecError(faults)
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})
    except SpecError as error:
        raise SpecError([replace(found, field=f"{where}.{found.field}", file=file) for found in error.faults]) from None
    except TypeError as error:
        raise SpecError([Fault(where, None, f"cannot be read: {error}", "mend its fields", file)]) from None


def _train(data: Mapping[str, Any], file: str) -> TrainWorkload:
    software = _record(Software, data.get("software") or {}, "point.train.software", file)
    return _record(TrainWorkload, {**data, "software": software}, "point.train", file)


def _serve(data: Mapping[str, Any], file: str) -> ServeWorkload:
    held = {name: math.inf if value is None and name in LIMITS else value for name, value in data.items()}
    return _record(ServeWorkload, held, "point.serve", file)


def _model(data: Any, file: str) -> Model:
    """Return a shipped model by its name, or one that the document holds field by field."""
    if not isinstance(data, Mapping):
        return read_model(str(data))
    layers = tuple(_layer(kind, file) for kind in data.get("layers", ()))
    return _record(Model, {**data, "layers": layers}, "point.model", file)


def _layer(data: Mapping[str, Any], file: str) -> LayerKind:
    where, mlp = "point.model.layers", data.get("mlp") or {}
    kind: type[Mlp] | type[Moe] = Moe if "experts" in mlp else Mlp
    feed = _record(kind, mlp, f"{where}.mlp", file)
    held = data.get("attention") or {}
    parts = {
        name: _record(part, held[name], f"{where}.attention.{name}", file)
        for name, part in (("indexer", Indexer), ("compression", Compression))
        if held.get(name)
    }
    attention = _record(Attention, {**held, **parts}, f"{where}.attention", file)
    return _record(LayerKind, {**data, "attention": attention, "mlp": feed}, where, file)


def _numbers(data: Any, file: str) -> dict[str, float]:
    """Return the columns of a strategy; each is one finite number."""
    given = data if isinstance(data, Mapping) else {}
    faults = [
        Fault(f"point.strategy.{name}", value, "is no number", "write the raw number of the column", file)
        for name, value in given.items()
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
    ]
    if not given:
        faults.append(Fault("point.strategy", None, "holds no columns", "write the strategy's numbers", file))
    if faults:
        raise SpecError(faults)
    return {name: float(value) for name, value in given.items()}
