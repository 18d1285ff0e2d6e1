"""The figures of a cluster that can be moved one at a time: rates, times, amounts, ratios and counts.

A step takes sums and maxima of ``work / rate`` and of fixed times. Doubling every rate and halving every time halves it:
figures of these two kinds, with the times that no cluster file names, account for all of it
(`parallel.questions.sensitivity`). The other kinds stand outside that account.

A figure is moved alone. Where a rate, a time or an amount changes, parts, switches and their number stay what they are;
where a ratio or a count changes, the wiring follows as it does for a file that says so.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

from clusters.sections import ScaleOutSpec, ScaleUpSpec, SitesSpec
from clusters.spec import ClusterSpec, part_of, with_
from topo.errors import Fault, SpecError

Read = Callable[[ClusterSpec], float | None]
Change = Callable[[ClusterSpec, float], ClusterSpec]
Steps = tuple[float | None, float | None]

KINDS: Final = {
    "rate": "more is faster",
    "time": "less is faster",
    "amount": "more allows more",
    "ratio": "down over up: less is faster",
    "count": "the wiring follows",
}
"""Kinds of figures, and what more or less of them does."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a cluster.

    Attributes
    ----------
    name, title : its key, and what to call it
    field : where a cluster file states it
    kind : a key of `KINDS`
    dimension : a dimension of `clusters.units`, or empty for a plain number
    value : reads it in SI; None where the cluster has none
    changed : the cluster with another value
    """

    name: str
    title: str
    field: str
    kind: str
    dimension: str
    value: Read
    changed: Change

    def steps(self, spec: ClusterSpec, factor: float) -> Steps:
        """Return the values that are worse and better by a factor, or by the nearest step; None where there is none.

        >>> from clusters.spec import load
        >>> FIGURES["domain"].steps(load("hgx-h100"), 1.25), FIGURES["oversubscription"].steps(load("hgx-h100"), 1.25)
        ((4, None), (None, None))
        """
        now = self.value(spec)
        return (None, None) if now is None else (_STEPS.get(self.name) or _STEPS[self.kind])(spec, now, factor)


def figures_of(spec: ClusterSpec) -> dict[str, Figure]:
    """Return the figures that a cluster has.

    >>> from clusters.spec import load
    >>> [name for name in figures_of(load("hgx-h100")) if name.startswith("peak")]
    ['peak_bf16', 'peak_fp8']
    """
    return {name: figure for name, figure in FIGURES.items() if (figure.value(spec) or 0.0) > 0.0}


def figure(name: str) -> Figure:
    """Return the figure of that name or field, or raise a `SpecError` with the nearest.

    >>> figure("hbm-bandwidth").field, figure("scale_out.oversubscription").name
    ('override.accelerator.hbm_bandwidth', 'oversubscription')
    """
    wanted = name.strip().lower().replace("-", "_")
    found = FIGURES.get(wanted) or next((each for each in FIGURES.values() if each.field == wanted), None)
    if found is None:
        near = get_close_matches(wanted, FIGURES, 1)
        remedy = f"did you mean {near[0]}" if near else f"choose from {', '.join(FIGURES)}"
        raise SpecError([Fault("figure", name, "is no figure of a cluster", remedy)])
    return found


def set_field(spec: ClusterSpec, path: str, value: Any) -> ClusterSpec:
    """Return the cluster, or its pool in focus, with one field of the file written anew; defaults follow.

    >>> from clusters.spec import load
    >>> set_field(load("gb200-nvl72"), "scale_out.oversubscription", 4.0).scale_out.oversubscription
    4.0
    """
    if not spec.focus:
        return with_(spec, **{path: value})
    pools = json.loads(spec.written)["pools"]
    section = next(pool for pool in pools if pool["name"] == spec.focus)
    *way, last = path.split(".")
    for key in way:
        if not isinstance(section.get(key), dict):
            section[key] = {}
        section = section[key]
    section[last] = value
    return with_(spec, pools=pools)


def moved(spec: ClusterSpec, to: Mapping[Figure, float]) -> ClusterSpec:
    """Return the cluster with several figures at other values: first those from which defaults follow.

    >>> from clusters.spec import load
    >>> both = moved(load("gb200-nvl72"), {FIGURES["nic_bandwidth"]: 1e11, FIGURES["oversubscription"]: 2.0})
    >>> both.scale_out.nic_Bps, both.scale_out.oversubscription
    (100000000000.0, 2.0)
    """
    for figure in sorted(to, key=lambda each: each.kind not in ("ratio", "count")):
        spec = figure.changed(spec, to[figure])
    return spec


# --- how far a figure is moved ---------------------------------------------------------------------------------------


def _whole_domains(spec: ClusterSpec, now: float, factor: float) -> Steps:
    """Fewer and more accelerators by whole domains, one at least."""
    step = spec.domain * (spec.sites.count if spec.sites else 1)
    moved = max(1, round((factor - 1.0) * now / step)) * step
    return (now - moved if now > moved else None), now + moved


def _next_domain(spec: ClusterSpec, now: float, _: float) -> Steps:
    """Half and twice the domain, whatever the factor."""
    size = int(now)
    return (size // 2 if size % 2 == 0 else None), (2 * size if 2 * size <= spec.accelerators else None)


_STEPS: Final[dict[str, Callable[[ClusterSpec, float, float], Steps]]] = {
    "rate": lambda _, now, factor: (now / factor, now * factor),
    "amount": lambda _, now, factor: (now / factor, now * factor),
    "time": lambda _, now, factor: (now * factor, now / factor),
    "ratio": lambda _, now, factor: (now * factor, max(1.0, now / factor) if now > 1.0 else None),
    "accelerators": _whole_domains,
    "nics_per_accelerator": lambda _, now, __: (now / 2, now * 2),
    "domain": _next_domain,
}
"""Kind or name of a figure -> its values one step worse and better."""


# --- one figure alone ------------------------------------------------------------------------------------------------


def _moved(spec: ClusterSpec, **sections: Any) -> ClusterSpec:
    """Return the spec with whole sections replaced, in the pool in focus too."""
    pools = tuple(replace(pool, **sections) if pool.name == spec.focus else pool for pool in spec.pools)
    return replace(spec, pools=pools, **sections)


def _silicon(key: str, title: str, kind: str, dimension: str) -> Figure:
    """Figure of the accelerator."""

    def value(spec: ClusterSpec) -> float | None:
        part = part_of(spec)
        if key == "hbm_capacity":  # as programs see it: a capacity that a file states in bytes is what they have
            return part.usable_bytes
        return part.figures[key].si if key in part.figures else None

    def changed(spec: ClusterSpec, to: float) -> ClusterSpec:
        return _moved(spec, override=tuple(sorted({**dict(spec.override), key: to}.items())))

    return Figure(key, title, f"override.accelerator.{key}", kind, dimension, value, changed)


def _up_rate(spec: ClusterSpec, to: float) -> ClusterSpec:
    up, by = spec.scale_up, to / spec.scale_up.bandwidth_Bps
    levels = tuple(replace(level, bandwidth_Bps=by * level.bandwidth_Bps) for level in up.levels)
    links = tuple(by * each for each in up.link_Bps)
    return _moved(spec, scale_up=replace(up, bandwidth_Bps=to, link_Bps=links, levels=levels))


def _up_latency(spec: ClusterSpec, to: float) -> ClusterSpec:
    up, by = spec.scale_up, to / spec.scale_up.latency_s
    levels = tuple(replace(level, latency_s=by * level.latency_s) for level in up.levels)
    outer_s = None if up.outer_latency_s is None else by * up.outer_latency_s
    return _moved(spec, scale_up=replace(up, latency_s=to, outer_latency_s=outer_s, levels=levels))


def _in_up(read: Callable[[ScaleUpSpec], float]) -> Read:
    return lambda spec: read(spec.scale_up) if not spec.graph and spec.domain > 1 else None


def _in_out(read: Callable[[ScaleOutSpec], float | None]) -> Read:
    return lambda spec: read(spec.scale_out) if not spec.graph and (spec.domains > 1 or spec.pools) else None


def _out(field: str) -> Change:
    def changed(spec: ClusterSpec, to: float) -> ClusterSpec:
        fields: dict[str, Any] = {field: to}
        return _moved(spec, scale_out=replace(spec.scale_out, **fields))

    return changed


def _in_sites(read: Callable[[SitesSpec], float]) -> Read:
    return lambda spec: read(spec.sites) if spec.sites else None


def _lines(spec: ClusterSpec, to: float) -> ClusterSpec:
    """Faster or slower lines between sites, of as many fibres."""
    lines = spec.sites
    if lines is None:
        return spec
    fibre_Bps = None if lines.link_Bps is None else lines.link_Bps * to / lines.bandwidth_Bps
    return _moved(spec, sites=replace(lines, bandwidth_Bps=to, link_Bps=fibre_Bps))


def _distance(spec: ClusterSpec, to: float) -> ClusterSpec:
    return _moved(spec, sites=replace(spec.sites, km=to)) if spec.sites else spec


def _tapered(out: ScaleOutSpec) -> float | None:
    """Return one ratio for the whole tree; a network without switches has none, and several are not one figure."""
    held = out.oversubscription
    return None if out.kind != "fat-tree" or isinstance(held, tuple) else held


def _written(path: str, *, whole: bool = False) -> Change:
    """Change what a file says."""
    return lambda spec, to: set_field(spec, path, round(to) if whole else to)


_PEAKS: Final = ("bf16", "fp8", "fp4")
"""Formats that kernels are priced in."""
_ALL: Final = (
    *(_silicon(f"peak_{name}", f"{name.upper()} FLOP/s", "rate", "flops") for name in _PEAKS),
    _silicon("hbm_bandwidth", "HBM bandwidth", "rate", "bandwidth"),
    _silicon("hbm_capacity", "HBM capacity", "amount", "bytes"),
    _silicon("power", "accelerator power", "amount", "power"),
    Figure(
        *("scale_up_bandwidth", "scale-up bandwidth", "scale_up.bandwidth", "rate", "bandwidth"),
        _in_up(lambda up: up.bandwidth_Bps),
        _up_rate,
    ),
    Figure(
        *("scale_up_latency", "scale-up latency", "scale_up.latency", "time", "seconds"),
        _in_up(lambda up: up.latency_s),
        _up_latency,
    ),
    Figure(
        *("nic_bandwidth", "NIC bandwidth", "scale_out.nic", "rate", "bandwidth"),
        _in_out(lambda out: out.nic_Bps),
        _out("nic_Bps"),
    ),
    Figure(
        *("network_latency", "network cable latency", "scale_out.latency", "time", "seconds"),
        _in_out(lambda out: out.latency_s),
        _out("latency_s"),
    ),
    Figure(
        *("switch_latency", "network switch latency", "scale_out.switch", "time", "seconds"),
        _in_out(lambda out: out.switch_latency_s if out.kind == "fat-tree" else None),
        _out("switch_latency_s"),
    ),
    Figure(
        *("neighbour_bandwidth", "bandwidth to a neighbour domain", "scale_out.link_bandwidth", "rate", "bandwidth"),
        _in_out(lambda out: out.link_Bps),
        _out("link_Bps"),
    ),
    Figure(
        *("neighbour_km", "way to a neighbour domain", "scale_out.km", "time", ""),
        _in_out(lambda out: out.km),
        _out("km"),
    ),
    Figure(
        *("site_bandwidth", "bandwidth between sites", "sites.bandwidth", "rate", "bandwidth"),
        _in_sites(lambda lines: lines.bandwidth_Bps),
        _lines,
    ),
    Figure(*("site_km", "way between sites", "sites.km", "time", ""), _in_sites(lambda lines: lines.km), _distance),
    Figure(
        *("oversubscription", "oversubscription", "scale_out.oversubscription", "ratio", ""),
        _in_out(_tapered),
        _written("scale_out.oversubscription"),
    ),
    Figure(
        *("nics_per_accelerator", "NICs per accelerator", "scale_out.nics_per_accelerator", "count", ""),
        _in_out(lambda out: out.nics_per_accelerator),
        _written("scale_out.nics_per_accelerator"),
    ),
    Figure(
        *("domain", "scale-up domain", "domain", "count", ""),
        lambda spec: None if spec.graph else spec.domain,
        _written("domain", whole=True),
    ),
    Figure(
        *("accelerators", "accelerators", "accelerators", "count", ""),
        lambda spec: None if spec.graph else spec.accelerators,
        _written("accelerators", whole=True),
    ),
)
FIGURES: Final[dict[str, Figure]] = {each.name: each for each in _ALL}
"""Every figure by name: silicon, the network inside a domain, between domains, between sites, how many."""
