"""From a spec to a cluster: the wiring as a `topo` blueprint, its tiers, and the road that a collective takes."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from clusters import catalogue
from clusters.economics import economics_rows
from clusters.memories import memory_rows
from clusters.spec import SYSTEMS, ClusterSpec, fingerprint, load, part_of, ports_each, systems
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from collectives.path import Hop
    from topo.blueprint import Blueprint
    from topo.builders import ScaleOut
    from topo.tiers import Tier

KEPT: Final = 256
"""Clusters kept; the oldest goes first."""
_BUILT: dict[str, "Cluster"] = {}
_KEPT_PATHS: Final = 4096
_PATHS: "dict[tuple[str, str, str], tuple[Hop, ...]]" = {}


@dataclass(frozen=True)
class Cluster:
    """A cluster as built. `accelerators` are bought, `usable` lie in whole domains; `tiers` run innermost first."""

    name: str
    spec: ClusterSpec
    accelerator: catalogue.Accelerator
    accelerators: int
    usable: int
    domain: int
    domains: int
    blueprint: "Blueprint"
    tiers: "tuple[Tier, ...]"
    fingerprint: str


def build(spec: ClusterSpec) -> Cluster:
    """Wire a cluster, once for each fingerprint.

    Raises
    ------
    SpecError
        The wiring is impossible, for instance too few switch ports for the levels asked for.

    Examples
    --------
    >>> from clusters.spec import load, with_
    >>> cluster = build(with_(load("hgx-h100"), accelerators=1030))
    >>> cluster.usable, [tier.size for tier in cluster.tiers][0], cluster.tiers[0].bandwidth_Bps
    (1024, 8, 450000000000.0)
    """
    key = fingerprint(spec)
    if key not in _BUILT:
        if len(_BUILT) >= KEPT:
            _BUILT.pop(next(iter(_BUILT)))
        _BUILT[key] = _wired(spec, key)
    return _BUILT[key]


def _wired(spec: ClusterSpec, key: str) -> Cluster:
    """Blueprint and tiers of a spec."""
    from topo.tiers import tiers

    blueprint = _blueprint(spec)
    return Cluster(
        name=spec.name,
        spec=spec,
        accelerator=part_of(spec),
        accelerators=spec.accelerators,
        usable=spec.usable,
        domain=spec.domain,
        domains=spec.domains,
        blueprint=blueprint,
        tiers=tiers(blueprint),
        fingerprint=key,
    )


def _blueprint(spec: ClusterSpec) -> "Blueprint":
    """Wiring of a spec in the words of `topo`, whose faults get the file's name."""
    from topo.builders import cluster_blueprint
    from topo.domains import ScaleUp

    up = spec.scale_up
    try:
        return cluster_blueprint(
            spec.name,
            spec.domains,
            ScaleUp(
                size=spec.domain,
                bandwidth_Bps=up.bandwidth_Bps,
                latency_s=up.latency_s,
                link=up.link,
                switches=up.switches,
                layers=up.layers,
                inner=up.inner,
                oversubscription=up.oversubscription,
                in_network_reduction=up.in_network_reduction,
                switch_part=up.switch,
            ),
            _scale_out(spec) if spec.domains > 1 else None,
            spec.accelerator,
        )
    except SpecError as error:
        raise SpecError(
            [Fault(f.field, f.value, f.problem, f.remedy, f.file or spec.file) for f in error.faults]
        ) from None


def _scale_out(spec: ClusterSpec) -> "ScaleOut":
    """Network between the domains, in the words of `topo`."""
    from topo.builders import ScaleOut

    out = spec.scale_out
    return ScaleOut(
        bandwidth_Bps=out.bandwidth_Bps,
        link=out.link,
        rails=out.rails,
        radix=ports_each(out),
        levels=out.levels,
        oversubscription=out.oversubscription,
        latency_s=out.latency_s,
        switch_latency_s=out.switch_latency_s,
        nic_part=out.nic,
        switch_part=out.switch,
        in_network_reduction=out.in_network_reduction,
    )


def path(cluster: Cluster, op: str, regime: str = "nccl") -> "tuple[Hop, ...]":
    """Return the tiers of a cluster as one collective sees them: wire figures of the tier, constants of its link.

    Parameters
    ----------
    op : str
        A collective, such as "all_reduce".
    regime : str
        The software that runs it.

    Examples
    --------
    >>> from clusters.spec import load, with_
    >>> road = path(build(with_(load("hgx-h100"), accelerators=1024)), "all_reduce")
    >>> [hop.plane for hop in road], road[0].bandwidth_Bps
    (['scale-up', 'scale-out', 'scale-out'], 450000000000.0)
    """
    key = (cluster.fingerprint, op, regime)
    if key not in _PATHS:
        if len(_PATHS) >= _KEPT_PATHS:
            _PATHS.pop(next(iter(_PATHS)))
        _PATHS[key] = _road(cluster, op, regime)
    return _PATHS[key]


def _road(cluster: Cluster, op: str, regime: str) -> "tuple[Hop, ...]":
    """Hops of the tiers, with the constants of the operation on their links."""
    from clusters.tunings import lookup, reduction_efficiency
    from collectives.path import Hop

    return tuple(
        Hop(
            bandwidth_Bps=tier.bandwidth_Bps,
            latency_s=tier.latency_s,
            model=lookup(tier.link, op, regime)[0],
            plane=tier.plane,
            in_network_reduction=tier.in_network_reduction,
            reduction_efficiency=reduction_efficiency(tier.link),
            **_shares(tier),
        )
        for tier in cluster.tiers
    )


def _shares(tier: "Tier") -> dict[str, Any]:
    """Return what a small group has of a tier's bandwidth, where accelerators are joined without switches."""
    from collectives.direct import mesh_shares, torus_shares

    if not tier.direct:
        return {}
    if all(axis.order == "set" for axis in tier.direct):
        shares, exchange_shares = mesh_shares(math.prod(axis.size for axis in tier.direct))
    else:
        shares, exchange_shares = torus_shares(
            [axis.size for axis in tier.direct],
            [axis.bandwidth_Bps for axis in tier.direct],
            [axis.order == "ring" for axis in tier.direct],
            tier.bandwidth_Bps,
        )
    return {"shares": shares, "exchange_shares": exchange_shares}


def notes(cluster: Cluster, op: str, regime: str = "nccl") -> tuple[str, ...]:
    """Return what the constants behind `path` have to say, for instance that a link borrows its neighbour's."""
    from clusters.tunings import lookup

    found = (lookup(tier.link, op, regime)[1] for tier in cluster.tiers)
    return tuple(dict.fromkeys(note for note in found if note))


def bill(cluster: Cluster) -> dict[str, Any]:
    """Bill of parts with the watts and dollars that the catalogue knows; hosts, storage and cooling are not in it.

    Accelerators are those bought. A sum leaves out the parts of unknown figure, which `unknown` names, and is None
    where nothing is known.

    Returns
    -------
    dict
        `parts` (rows of part, count, power_W, price_usd), `power_W`, `price_usd`, `unknown`.
    """
    from topo.survey import parts

    counts = {**parts(cluster.blueprint), cluster.spec.accelerator: cluster.accelerators}
    rows: list[dict[str, Any]] = []
    for part, count in counts.items():
        power_W, price_usd = catalogue.cost(part)
        if part == cluster.spec.accelerator:
            power_W, price_usd = cluster.accelerator.power_W, cluster.accelerator.price_usd
        rows.append(
            {"part": part, "count": count, "power_W": _times(power_W, count), "price_usd": _times(price_usd, count)}
        )
    sums = {key: _known_sum([row[key] for row in rows]) for key in ("power_W", "price_usd")}
    unknown = {key: [row["part"] for row in rows if row[key] is None] for key in ("power_W", "price_usd")}
    return {"parts": rows, **sums, "unknown": unknown}


def _times(each: float | None, count: float) -> float | None:
    """Figure of all parts of one kind."""
    return None if each is None else each * count


def _known_sum(values: list[float | None]) -> float | None:
    """Sum of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def system_rows() -> list[dict[str, Any]]:
    """One row per system with its key figures in SI units; `missing` names the figures that a file has to fill in.

    >>> [(row["name"], row["missing"]) for row in system_rows() if row["missing"]]
    [('kyber-nvl144', 'peak_bf16')]
    """
    return [_system_row(name) for name in systems()]


def _system_row(name: str) -> dict[str, Any]:
    """Row of one system; of one that lacks figures, what the file and the accelerator's entry say."""
    try:
        spec = load(name)
    except SpecError as error:
        told = catalogue.read_yaml((SYSTEMS / f"{name}.yaml").read_text(encoding="utf-8"))
        part = catalogue.accelerator(told["accelerator"])
        known = {"accelerator": part.name, "accelerators": told["accelerators"], "domain": part.domain or None}
        unknown = dict.fromkeys(("scale_up_Bps", "link", "nic", "scale_out_Bps"))
        missing = ", ".join(fault.field.rpartition(".")[-1] for fault in error.faults)
        return {"name": name, **known, **unknown, "missing": missing}
    return {
        "name": spec.name,
        "accelerator": spec.accelerator,
        "accelerators": spec.accelerators,
        "domain": spec.domain,
        "scale_up_Bps": spec.scale_up.bandwidth_Bps,
        "link": spec.scale_up.link,
        "nic": spec.scale_out.nic,
        "scale_out_Bps": spec.scale_out.bandwidth_Bps,
        "missing": "",
    }


_ROWS: Final["dict[str, Callable[[], list[dict[str, Any]]]]"] = {
    "accelerators": catalogue.accelerator_rows,
    "systems": system_rows,
    "fabrics": catalogue.fabric_rows,
    "economics": economics_rows,
    "memories": memory_rows,
}


def list_rows(kind: str) -> list[dict[str, Any]]:
    """Return one row per entry of the catalogue, each with `name` and key figures in SI units.

    >>> [row["name"] for row in list_rows("accelerators") if row["vendor"] == "nvidia"][:2]
    ['a100-sxm-40', 'a100-sxm-80']
    """
    if kind not in _ROWS:
        raise SpecError([Fault("kind", kind, "is not listed here", catalogue.nearest(kind, _ROWS))])
    return _ROWS[kind]()
