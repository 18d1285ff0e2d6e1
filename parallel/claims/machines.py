"""What the claims ask of the whole model: a cluster of some inputs, its best split, its frontier, one split priced."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from math import log2
from typing import Any, Final

import numpy as np

from clusters.build import Cluster, build
from clusters.catalogue import Accelerator, accelerator
from clusters.memories import YEAR_S
from clusters.spec import ClusterSpec, load, parse, with_
from parallel.claims.claim import Values
from parallel.executors import run
from parallel.io import read_model
from parallel.models import Model, Moe, active_parameters, kv_bytes_per_token, parameters
from parallel.precision import FORMATS, recipe
from parallel.priced import Priced
from parallel.rules import TRAIN_RULES, check
from parallel.strategy import Columns, Space
from parallel.sweeps.found import Found
from parallel.sweeps.spaces import space_of
from parallel.sweeps.task import Bound, Task
from parallel.workload import ServeWorkload, TrainWorkload
from topo.columns import Column
from topo.errors import Fault, InfeasibleError, SpecError

ANY_S: Final = 1e3
"""A limit on the time per token that leaves a whole frontier."""
ONE: Final = Space((("one", (1.0,)),))
"""No search: the splits are given."""
LEAN: Final = {"micro_batch": (1.0, 2.0), "vpp": (1.0, 4.0), "zero": (1.0, 3.0)}
"""Axes of a training search that the claims thin out."""
LIFETIME_S: Final = 5.0 * YEAR_S
Fixed = tuple[tuple[str, float], ...]
"""Columns of a split that a search has to keep."""


@dataclass(frozen=True)
class Best:
    """The best split of a search: its rate, its seconds, its columns and its full price."""

    rate: float
    seconds: float
    split: dict[str, float]
    priced: Priced

    def term(self, name: str) -> float:
        """Exposed seconds of one term."""
        return float(self.priced.terms[name][0])

    def memory(self, name: str) -> float:
        """Bytes per accelerator of one holder."""
        return float(self.priced.memory[name][0])


# --- parts ----------------------------------------------------------------------------------------------------------


def part_of(v: Values) -> Accelerator:
    """Return the accelerator that is named."""
    return accelerator(str(v["accelerator"]))


def peak_of(part: Accelerator, precision: str) -> float:
    """Dense peak of a recipe's experts on a part, or of the next wider format that it has."""
    wanted = FORMATS[recipe(precision).experts].peak
    order = ("fp4", "fp8", "bf16")
    found = [part.peak_flops[name] for name in order[order.index(wanted) :] if part.peak_flops.get(name)]
    return float(found[0]) if found else float("nan")


def width_of(precision: str) -> float:
    """Bytes per parameter of a recipe's experts."""
    return FORMATS[recipe(precision).experts].bytes_per_value


# --- clusters, models, workloads -----------------------------------------------------------------------------------


def model_of(v: Values) -> Model:
    """Return the model that is named."""
    return _model(str(v["model"]))


_model = lru_cache(32)(read_model)


def active(v: Values) -> float:
    """Parameters that one token uses."""
    return float(active_parameters(model_of(v)))


def weights_bytes(v: Values) -> float:
    """Bytes of all parameters in the recipe's format."""
    return float(parameters(model_of(v))) * width_of(str(v["precision"]))


def kv_per_token(v: Values) -> float:
    """Cache bytes per token over all layers."""
    return float(kv_bytes_per_token(model_of(v), float(v.get("kv_bytes", 1.0))))


def spec_of(v: Values, **changes: Any) -> ClusterSpec:
    """Return the cluster of some inputs: whole domains of the accelerator, with the figures that differ."""
    part = part_of(v)
    domain = int(v.get("domain") or part.domain)
    many = int(v.get("accelerators") or domain)
    domain = min(domain, many)
    if many % domain:
        remedy = f"write a multiple of {domain}, or set domain"
        raise SpecError([Fault("accelerators", many, f"are not whole domains of {domain}", remedy)])
    own = {}
    for name, catalogued in (("hbm_bandwidth", part.hbm_Bps), ("hbm_capacity", part.hbm_bytes)):
        if name in v and v[name] != catalogued:
            own[name] = float(v[name])
    if "peak_flops" in v and v["peak_flops"] != peak_of(part, str(v["precision"])):
        factor = float(v["peak_flops"]) / peak_of(part, str(v["precision"]))
        own |= {
            f"peak_{name}": factor * flops for name, flops in part.peak_flops.items() if name in ("bf16", "fp8", "fp4")
        }
    fields: dict[str, Any] = {
        "name": f"{part.name}-x{many}",
        "accelerator": part.name,
        "accelerators": many,
        "domain": domain,
    }
    if own:
        fields["override"] = {"accelerator": own}
    spec = _parsed(repr(fields))
    return with_(spec, **changes) if changes else spec


@lru_cache(256)
def _parsed(fields: str) -> ClusterSpec:
    import ast

    return parse(ast.literal_eval(fields))


def system(name: str, **changes: Any) -> ClusterSpec:
    """Return a system of the catalogue, with fields changed."""
    return with_(load(name), **changes) if changes else load(name)


def serve_work(v: Values, **changes: Any) -> ServeWorkload:
    """Return the workload of some inputs."""
    work = ServeWorkload(
        isl=int(v.get("isl", 4096)),
        osl=int(v.get("osl", 1024)),
        tpot_s=float(v.get("tpot", 0.05)),
        ttft_s=float(v.get("ttft", 2.0)),
        precision=str(v.get("precision", "fp8")),
        kv_bytes=float(v.get("kv_bytes", 1.0)),
    )
    return replace(work, **changes)


# --- searches -------------------------------------------------------------------------------------------------------


@lru_cache(512)
def _search(
    phase: str, model: Model, spec: ClusterSpec, train: TrainWorkload, serve: ServeWorkload, fixed: Fixed = ()
) -> tuple[Task, Found]:
    """Return a search and what it found."""
    task = Task(phase, model, spec, train, serve, _space(phase, build(spec), model, fixed))
    return task, run(task, "serial")


def _space(phase: str, cluster: Cluster, model: Model, fixed: Fixed) -> Space:
    """Return the strategies of a phase, some axes fixed; of training's, those that differ most (see `LEAN`)."""
    axes = dict(space_of(phase, cluster, model).axes)
    lean = {name: values for name, values in LEAN.items() if phase == "train" and name in axes}
    return Space(tuple({**axes, **lean, **{name: (value,) for name, value in fixed}}.items()))


@lru_cache(512)
def best(phase: str, model: Model, spec: ClusterSpec, work: ServeWorkload | TrainWorkload, fixed: Fixed = ()) -> Best:
    """Return the best split of a phase within its limits, with some of its columns fixed.

    Raises
    ------
    InfeasibleError
        None fits in memory and in time.
    """
    train = work if isinstance(work, TrainWorkload) else TrainWorkload()
    serve = work if isinstance(work, ServeWorkload) else ServeWorkload()
    task, found = _search(phase, model, spec, train, serve, fixed)
    if found.best < 0:
        raise _misfit(phase, model, spec, found)
    bound = Bound.of(task)
    cols = bound.at(np.array([found.best], dtype=np.int64))
    price = bound.price(cols)
    return Best(float(found.best_value), float(price.seconds[0]), cols.row(0), price)


def even(wanted: float) -> int:
    """Return the number nearest by ratio that only twos and threes divide: many splits divide it.

    >>> even(100_000), even(576)
    (98304, 576)
    """
    threes = (1, 3, 9, 27, 81)
    tried = [three << max(0, round(log2(wanted / three))) for three in threes if three <= wanted] or [1]
    return min(tried, key=lambda many: abs(log2(many / wanted)))


def trained_best(v: Values, spec: ClusterSpec, sequences: float) -> tuple[int, Best]:
    """Return the batch and the split that train fastest: so many sequences for each accelerator, or the even number near.

    A batch that few splits divide trains many times as slowly, and no one would take it.
    """
    found = []
    for batch in (round(sequences * spec.accelerators), even(sequences * spec.accelerators)):
        work = TrainWorkload(global_batch=batch, precision=str(v["precision"]))
        with suppress(InfeasibleError):
            found.append((batch, best("train", model_of(v), spec, work)))
    if not found:
        raise InfeasibleError(
            f"training of {v['model']} on {spec.name}", "memory", "no split fits", "take more accelerators"
        )
    return max(found, key=lambda pair: pair[1].rate)


def _misfit(phase: str, model: Model, spec: ClusterSpec, found: Found) -> InfeasibleError:
    """Say what most splits break."""
    why = max(found.rejected, key=lambda name: found.rejected[name]) if found.rejected else "an empty space"
    return InfeasibleError(f"{phase} of {model.name} on {spec.name}", why, "no split does", "take more accelerators")


@lru_cache(512)
def frontier(model: Model, spec: ClusterSpec, work: ServeWorkload) -> tuple[Column, Column]:
    """Return seconds per output token and tokens per second and accelerator of the undominated decode splits, fastest last."""
    _, found = _search("decode", model, spec, TrainWorkload(), replace(work, tpot_s=ANY_S))
    if len(found.front) == 0:
        raise _misfit("decode", model, spec, found)
    speed, rate = found.front_values.T
    order = np.argsort(speed)
    return 1.0 / speed[order], rate[order]


def rate_at(model: Model, spec: ClusterSpec, work: ServeWorkload, tpot_s: float) -> float:
    """Most tokens per second and accelerator at a time per output token; 0 where none is as fast."""
    seconds, rates = frontier(model, spec, work)
    within = seconds <= tpot_s
    return float(np.max(rates[within])) if within.any() else 0.0


def fastest_s(model: Model, spec: ClusterSpec, work: ServeWorkload) -> float:
    """Least seconds per output token of any split that fits."""
    return float(np.min(frontier(model, spec, work)[0]))


def priced_at(phase: str, model: Model, spec: ClusterSpec, work: ServeWorkload, **split: Any) -> tuple[Cluster, Priced]:
    """Price given splits, whether or not they fit in memory."""
    bound = Bound.of(Task(phase, model, spec, TrainWorkload(), work, ONE))
    return bound.cluster, bound.price(Columns.of(**{"tp": 1, "pp": 1, "microbatches": 1, **split}))


def step_at(model: Model, spec: ClusterSpec, work: TrainWorkload, **split: Any) -> Priced:
    """Price one training split, after the rules.

    Raises
    ------
    SpecError
        With every rule that it breaks.
    """
    bound = Bound.of(Task("train", model, spec, work, ServeWorkload(), ONE))
    cols = Columns.of(**split)
    check(TRAIN_RULES, cols, bound.setting)
    return bound.price(cols)


def decode_on(v: Values, batch: float | Sequence[float] | Column, work: ServeWorkload | None = None) -> Priced:
    """Price decode of one domain as one replica, `batch` sequences over all of it; caches may overflow its memory."""
    spec = spec_of(v)
    each = np.asarray(batch, dtype=np.float64) / spec.accelerators
    used = spec.domain
    return priced_at("decode", model_of(v), spec, work or serve_work(v), used=used, ep=spec.accelerators, batch=each)[1]


def with_experts(model: Model, change: Callable[[Moe], Moe]) -> Model:
    """Return a model with its expert layers changed."""
    layers = tuple(replace(kind, mlp=change(kind.mlp)) if isinstance(kind.mlp, Moe) else kind for kind in model.layers)
    return replace(model, layers=layers)


def moe_of(model: Model) -> Moe:
    """Return the expert layer of a model."""
    return next(kind.mlp for kind in model.layers if isinstance(kind.mlp, Moe))


def rate_of(phase: str, v: Values, spec: ClusterSpec | None = None) -> float:
    """Tokens per second and accelerator of the best split of a phase."""
    return best(phase, model_of(v), spec or spec_of(v), serve_work(v)).rate
