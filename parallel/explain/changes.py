"""What could be changed, cheapest first: the split costs nothing, software a switch, hardware money. All of it as tables.

A change of the split is one column one step up or down; all of them are priced as one block. A change of software or hardware
is another point.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from clusters.build import Cluster, bill
from clusters.catalogue import cost
from clusters.spec import part_of, with_
from parallel.explain.point import Point
from parallel.placement import ORDERS, domain_size, fillings
from parallel.precision import FORMATS, RECIPES
from parallel.training.layer import RECOMPUTE
from parallel.training.step import DEFAULTS, SCHEDULES

CLASSES: Final = ("strategy", "software", "hardware")
"""Kinds of change, cheapest first."""
DOMAINS: Final = (8, 16, 32, 64, 72, 144, 288, 576, 1152)
"""Scale-up domains that are tried."""
MORE: Final = 1.5
"""How much more silicon is tried: memory, its bandwidth, arithmetic."""
NUMERICS: Final = "changes the numerics"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that could be otherwise.

    Attributes
    ----------
    axis : what is changed; of several changes of an axis, the best is advised
    kind : of `CLASSES`
    said : in words
    point : the point as it would be
    note : what else it means
    """

    axis: str
    kind: str
    said: str
    point: Point
    note: str = ""


# --- the split ----------------------------------------------------------------------------------------------------


def _by_two(value: float) -> tuple[float, ...]:
    return (2.0 * value, value / 2.0) if value > 1 and value % 2 == 0 else (2.0 * value,)


def _batches(value: float) -> tuple[float, ...]:
    """Return a quarter more or less, twice or half; whole where the batch is.

    >>> _batches(88.0), _batches(2.0), _batches(0.5)
    ((110.0, 176.0, 66.0, 44.0), (4.0, 1.0), (0.625, 1.0, 0.375, 0.25))
    """
    found = [value * factor for factor in (1.25, 2.0, 0.75, 0.5)]
    if value >= 1:
        found = [float(round(batch)) for batch in found]
    return tuple(dict.fromkeys(batch for batch in found if batch not in (0.0, value)))


def _others(count: int) -> Callable[[float], tuple[float, ...]]:
    return lambda value: tuple(float(code) for code in range(count) if code != value)


def _toggle(value: float) -> tuple[float, ...]:
    return (0.0 if value else 1.0,)


def _next(value: float) -> tuple[float, ...]:
    return tuple(stage for stage in (value - 1.0, value + 1.0) if 0 <= stage <= 3)


_DEGREES: Final = dict.fromkeys(("tp", "ep", "pp", "cp"), _by_two)
STEPS: Final[Mapping[str, Mapping[str, Callable[[float], tuple[float, ...]]]]] = {
    "train": {
        **_DEGREES,
        "etp": _by_two,
        "vpp": _by_two,
        "micro_batch": _by_two,
        "recompute": _others(len(RECOMPUTE)),
        "zero": _next,
        "order": _others(len(ORDERS)),
        "ep_overlap": _toggle,
    },
    **{phase: {**_DEGREES, "microbatches": lambda v: (3.0 - v,), "batch": _batches} for phase in ("prefill", "decode")},
}  # fmt: skip
"""Phase -> column -> its neighbours."""
_SAID: Final[Mapping[str, Callable[[float], str]]] = {
    "recompute": lambda v: f"recompute {RECOMPUTE[int(v)]}",
    "zero": lambda v: f"ZeRO {v:g}",
    "order": lambda v: f"placement order {ORDERS[int(v)]}",
    "ep_overlap": lambda v: "overlapped expert exchange" if v else "no overlapped expert exchange",
    "microbatches": lambda v: "two micro-batches" if v > 1 else "one micro-batch",
    "micro_batch": lambda v: f"micro-batch {v:g}",
    "used": lambda v: f"{v:g} ranks in each domain",
    "schedule": lambda v: f"schedule {SCHEDULES[int(v)]}",
}


def said_of(axis: str, new: float, old: float) -> str:
    """Tell a change of one column.

    >>> said_of("tp", 4.0, 8.0), said_of("recompute", 0.0, 2.0)
    ('tp 4 instead of 8', 'recompute none instead of full')
    """

    def tell(value: float) -> str:
        return _SAID[axis](value) if axis in _SAID else f"{axis} {value:g}"

    if axis in ("ep_overlap", "microbatches"):
        return tell(new)
    before = tell(old).removesuffix(" ranks in each domain")
    for name in ("micro-batch ", "ZeRO ", "placement order ", "recompute ", f"{axis} ", "schedule "):
        before = before.removeprefix(name)
    return f"{tell(new)} instead of {before}"


def splits(point: Point, cluster: Cluster) -> Iterator[Change]:
    """Yield the neighbours of a split: each column one step away, and the domain filled otherwise."""
    strategy = {**DEFAULTS, **point.strategy} if point.phase == "train" else dict(point.strategy)
    steps = dict(STEPS[point.phase])
    steps["used"] = lambda v: tuple(float(way) for way in fillings(cluster) if way != v)
    for axis, step in steps.items():
        for value in step(strategy[axis]) if axis in strategy else ():
            yield Change(axis, "strategy", said_of(axis, value, strategy[axis]), point.split(**{axis: value}))


def paired(first: Change, second: Change) -> Change:
    """Return two changes of a split made at once."""
    strategy = {**second.point.strategy, first.axis: first.point.strategy[first.axis]}
    said = f"{first.said} and {second.said}"
    return Change(f"{first.axis}, {second.axis}", "strategy", said, replace(first.point, strategy=strategy))


# --- software -----------------------------------------------------------------------------------------------------


def _switches(**fields: Any) -> Callable[[Point], Point]:
    return lambda point: replace(point, train=replace(point.train, software=replace(point.train.software, **fields)))


#: axis, field of `Software`, what it is set to, in words
SWITCHES: Final = (
    ("graphs", "graphs", "full", "CUDA graphs over the whole layer"),
    ("tp_overlap", "tp_overlap", "chunked", "tensor-parallel communication overlapped piece by piece"),
    ("dp_overlap", "dp_overlap", True, "gradients reduced behind the backward pass"),
    ("attention", "attention", "fused", "the newest fused attention kernel"),
    ("compiled", "compiled", True, "memory-bound operations fused by a compiler"),
    ("dispatcher", "dispatcher", "auto", "the fastest exchange kernels in place of NCCL's all-to-all"),
)


def software(point: Point, cluster: Cluster) -> Iterator[Change]:
    """Yield what a switch would change: overlap, graphs, kernels, number formats that the part has."""
    if point.phase == "train":
        for axis, name, value, said in SWITCHES:
            if point.train.software.settled(name) != value:
                yield Change(axis, "software", said, _switches(**{name: value})(point))
    else:
        if point.serve.exchange != "auto":
            yield Change("exchange", "software", "the fastest exchange kernels", _served(point, exchange="auto"))
        if point.serve.kv_bytes > 1.0:
            yield Change("kv_bytes", "software", "an FP8 cache", _served(point, kv_bytes=1.0), NUMERICS)
    for name in RECIPES:
        if narrower(name, point.work.precision) and runs_on(name, cluster):
            made = replace(
                point, train=replace(point.train, precision=name), serve=replace(point.serve, precision=name)
            )
            yield Change("precision", "software", f"precision {name} instead of {point.work.precision}", made, NUMERICS)


def _served(point: Point, **fields: Any) -> Point:
    return replace(point, serve=replace(point.serve, **fields))


def narrower(name: str, than: str) -> bool:
    """Whether a recipe's products are of fewer bytes than another's.

    >>> narrower("nvfp4", "fp8"), narrower("fp8", "fp8")
    (True, False)
    """
    width = [FORMATS[RECIPES[each].mlp].bytes_per_value for each in (name, than)]
    return width[0] < width[1]


def runs_on(name: str, cluster: Cluster) -> bool:
    """Whether the part has the arithmetic of a recipe."""
    return bool(cluster.accelerator.peak_flops.get(FORMATS[RECIPES[name].mlp].peak))


# --- hardware -----------------------------------------------------------------------------------------------------


def _faster_nics(point: Point, cluster: Cluster) -> Iterator[tuple[str, dict[str, Any]]]:
    if any(tier.plane == "scale-out" for tier in cluster.tiers):
        yield "NICs of twice the rate", {"scale_out.nic": 2.0 * point.cluster.scale_out.nic_Bps}


def _full_bisection(point: Point, cluster: Cluster) -> Iterator[tuple[str, dict[str, Any]]]:
    ratio = point.cluster.scale_out.oversubscription
    if float(np.max(ratio)) > 1.0 and any(tier.plane == "scale-out" for tier in cluster.tiers):
        yield "no oversubscription", {"scale_out.oversubscription": 1.0}


def _faster_domain(point: Point, cluster: Cluster) -> Iterator[tuple[str, dict[str, Any]]]:
    if domain_size(cluster) > 1:
        yield "twice the scale-up bandwidth", {"scale_up.bandwidth": 2.0 * point.cluster.scale_up.bandwidth_Bps}


def _larger_domain(point: Point, cluster: Cluster) -> Iterator[tuple[str, dict[str, Any]]]:
    spec = point.cluster
    sizes = [size for size in DOMAINS if size > domain_size(cluster) and spec.accelerators % size == 0]
    if spec.scale_up.kind == "switch" and sizes:
        yield f"domains of {sizes[0]} instead of {spec.domain}", {"domain": sizes[0]}


def _silicon(said: str, *keys: str) -> Callable[[Point, Cluster], Iterator[tuple[str, dict[str, Any]]]]:
    def make(point: Point, _: Cluster) -> Iterator[tuple[str, dict[str, Any]]]:
        figures = part_of(point.cluster).figures
        known = {key: MORE * figures[key].si for key in keys if key in figures}
        if known:
            yield said, {f"override.accelerator.{key}": value for key, value in known.items()}

    return make


#: axis, how the cluster file changes, whether parts of the catalogue make the change
HARDWARE: Final[tuple[tuple[str, Callable[[Point, Cluster], Iterator[tuple[str, dict[str, Any]]]], bool], ...]] = (
    ("nics", _faster_nics, True),
    ("oversubscription", _full_bisection, True),
    ("domain", _larger_domain, True),
    ("scale_up", _faster_domain, False),
    ("hbm_bandwidth", _silicon("1.5 times the memory bandwidth", "hbm_bandwidth"), False),
    ("hbm_capacity", _silicon("1.5 times the memory", "hbm_capacity"), False),
    ("flops", _silicon("1.5 times the arithmetic", "peak_bf16", "peak_fp8", "peak_fp4"), False),
)


@dataclass(frozen=True, slots=True)
class Hardware:
    """A change of the cluster file, before it is built: fields by path, and whether the catalogue has its parts."""

    axis: str
    said: str
    fields: Mapping[str, Any]
    buyable: bool

    def point(self, point: Point) -> Point:
        """Return the point on the changed cluster; raises `SpecError` where it cannot be."""
        return replace(point, cluster=with_(point.cluster, **self.fields))


def hardware(point: Point, cluster: Cluster) -> Iterator[Hardware]:
    """Yield what money would change."""
    for axis, make, buyable in HARDWARE:
        for said, fields in make(point, cluster):
            yield Hardware(axis, said, fields, buyable)


def extra_usd(before: Cluster, after: Cluster) -> tuple[float | None, str]:
    """Return what the parts cost that the second cluster has beyond the first, None (and why) where a price is unknown."""
    rows = [{row["part"]: row for row in bill(cluster)["parts"]} for cluster in (before, after)]
    counted = {part: [held.get(part, {}).get("count", 0) for held in rows] for part in sorted({*rows[0], *rows[1]})}
    changed = {part: counts for part, counts in counted.items() if counts[0] != counts[1]}
    if not changed:
        return None, "the bill of parts does not tell the two apart"
    total, unknown = 0.0, []
    for part, counts in changed.items():
        each = cost(part)[1]
        if each is None:
            unknown.append(part)
        else:
            total += (counts[1] - counts[0]) * each
    if unknown:
        return None, f"no price known of {', '.join(unknown)}"
    return total, "parts of the catalogue alone: no hosts, no labour, no power"
