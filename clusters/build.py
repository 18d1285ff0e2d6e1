"""From a spec to a cluster: the wiring as a `topo` blueprint, its tiers, and the road that a collective takes."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from clusters import catalogue, owntunings
from clusters.economics import economics_rows
from clusters.memories import memory_rows
from clusters.spec import SYSTEMS, ClusterSpec, fingerprint, focus, load, part_of, systems
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

    import networkx as nx

    from collectives.path import Hop
    from topo.blueprint import Blueprint
    from topo.tiers import Tier

ACCELERATOR: Final = "accelerator"
"""Class of the accelerators in a blueprint; those of a pool have its name in front."""
KEPT: Final = 256
"""Clusters kept; the oldest goes first."""
_BUILT: dict[str, "Cluster"] = {}
_KEPT_PATHS: Final = 4096
_PATHS: "dict[tuple[str, str, str, str], tuple[Hop, ...]]" = {}


@dataclass(frozen=True)
class Cluster:
    """A cluster as built. `accelerators` are bought; `tiers` run innermost first.

    `usable` lie in the fullest domains, of which there are `domains` of `domain` each: whole ones, or, where `changes`
    have taken something from every domain, the largest that are left. Of a cluster of pools, `accelerators`, `usable`
    and `domains` are of all, `tiers` of one pool after the other, and the rest is the first one's; `pool` gives each by
    itself. `wiring` is a blueprint or an imported graph, and `unused` the lines of its file that it does not hold.
    """

    name: str
    spec: ClusterSpec
    accelerator: catalogue.Accelerator
    accelerators: int
    usable: int
    domain: int
    domains: int
    wiring: "Blueprint | nx.Graph[Any]"
    tiers: "tuple[Tier, ...]"
    fingerprint: str
    unused: tuple[str, ...] = ()

    @property
    def blueprint(self) -> "Blueprint":
        """The wiring as symmetries.

        Raises
        ------
        SpecError
            When it is an imported graph, which has none.
        """
        from topo.blueprint import Blueprint

        if isinstance(self.wiring, Blueprint):
            return self.wiring
        problem = "is a graph that another tool wrote down, and this needs the symmetries of a described cluster"
        raise SpecError([Fault("graph", None, problem, "describe it by its networks", self.spec.file)])


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
        made = _imported(spec, key) if spec.graph else _wired(spec, key)
        if len(_BUILT) >= KEPT:
            _BUILT.pop(next(iter(_BUILT)))
        _BUILT[key] = made
    return _BUILT[key]


def pool(cluster: Cluster, name: str) -> Cluster:
    """Return one pool of a cluster, as wired together with the others: its own parts, counts and tiers.

    Raises
    ------
    SpecError
        When the cluster has no such pool.

    Examples
    --------
    >>> from clusters.spec import parse
    >>> both = build(parse({"pools": [{"name": "old", "accelerator": "h100", "accelerators": 64},
    ...     {"name": "new", "accelerator": "gb200", "accelerators": 72}]}))
    >>> old, new = pool(both, "old"), pool(both, "new")
    >>> old.domain, new.domain, new.accelerator.name, between(both, "old", "new")["bandwidth_Bps"] / 1e9
    (8, 72, 'gb200', 3200.0)
    """
    return build(focus(cluster.spec, name))


def between(cluster: Cluster, one: str, other: str) -> dict[str, Any]:
    """Return what joins two pools: `bandwidth_Bps`, their maximum flow, and `latency_s` and `hops` of the lightest path.

    Raises
    ------
    SpecError
        When the cluster has no such pool.
    """
    from topo.survey import between as joint
    from topo.tiers import pools

    known = {held.name: held for held in pools(cluster.blueprint)}
    ends = [known[f"{focus(cluster.spec, name).focus}.{ACCELERATOR}"] for name in (one, other)]
    return {**joint(cluster.blueprint, *ends), "pools": [one, other]}


def facts(cluster: Cluster) -> dict[str, Any]:
    """Return the figures of a cluster that people compare, whatever it was built from: see `topo.survey.summary`."""
    from topo.blueprint import Blueprint
    from topo.survey import summary

    if isinstance(cluster.wiring, Blueprint):
        return summary(cluster.wiring)
    from topo.imported import graph_summary

    told = graph_summary(cluster.wiring)
    rows = [{**row, "link": tier.link} for row, tier in zip(told["tiers"], cluster.tiers, strict=True)]
    return {**told, "tiers": rows}


def _wired(spec: ClusterSpec, key: str) -> Cluster:
    """Blueprint and tiers of a spec; of a pool in focus, those of the whole that are its own."""
    from clusters.wiring import blueprint_of
    from topo.tiers import tiers

    blueprint = build(focus(spec, "")).blueprint if spec.focus else blueprint_of(spec)
    named = [spec.focus] if spec.focus else [held.name for held in spec.pools] or [""]
    sizes = [_whole(spec, blueprint, name) for name in named]
    return Cluster(
        name=f"{spec.name}/{spec.focus}" if spec.focus else spec.name,
        spec=spec,
        accelerator=part_of(spec),
        accelerators=spec.accelerators,
        usable=sum(size * many for size, many in sizes),
        domain=sizes[0][0],
        domains=sum(many for _, many in sizes),
        wiring=blueprint,
        tiers=tiers(blueprint, f"{spec.focus}.{ACCELERATOR}" if spec.focus else None) or (_alone(spec),),
        fingerprint=key,
    )


def _alone(spec: ClusterSpec) -> "Tier":
    """Tier of a single accelerator: a domain of one, with the links that its part has and nobody at their ends."""
    from topo.tiers import Tier

    up = spec.scale_up
    return Tier("alone", up.kind, "scale-up", 1, 1, up.bandwidth_Bps, up.latency_s, 0, False, up.link)


def _whole(spec: ClusterSpec, blueprint: "Blueprint", name: str) -> tuple[int, int]:
    """Size and number of the whole domains of a cluster, or of one of its pools."""
    from clusters.wiring import fullest
    from topo.tiers import pools

    if not blueprint.changes:
        one = focus(spec, name)
        return one.domain, one.domains
    node = f"{name}.{ACCELERATOR}" if name else ACCELERATOR
    held = next(held for held in pools(blueprint) if node in [found.name for found in held.classes])
    return fullest(blueprint, held)


def _imported(spec: ClusterSpec, key: str) -> Cluster:
    """Graph and tiers of a spec that names a file of another tool."""
    from clusters.imported import homes, imported_tiers, read_graph, unused

    found = spec.graph
    if found is None:
        raise SpecError([Fault("graph", None, "is missing", "name a file", spec.file)])
    graph = read_graph(found).graph
    sizes = homes(graph)
    return Cluster(
        name=spec.name,
        spec=spec,
        accelerator=part_of(spec),
        accelerators=spec.accelerators,
        usable=sizes[-1] * sizes.count(sizes[-1]),
        domain=sizes[-1],
        domains=sizes.count(sizes[-1]),
        wiring=graph,
        tiers=imported_tiers(spec, graph),
        fingerprint=key,
        unused=unused(found),
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
    if cluster.spec.pools and not cluster.spec.focus:
        names = ", ".join(held.name for held in cluster.spec.pools)
        problem = "holds unlike accelerators, and a collective runs on one kind"
        raise SpecError([Fault("pools", None, problem, f"take one pool: {names}", cluster.spec.file)])
    from clusters.tunings import tunings_path

    key = (cluster.fingerprint, op, regime, tunings_path())
    if key not in _PATHS:
        if len(_PATHS) >= _KEPT_PATHS:
            _PATHS.pop(next(iter(_PATHS)))
        _PATHS[key] = _road(cluster, op, regime)
    return _PATHS[key]


def _road(cluster: Cluster, op: str, regime: str) -> "tuple[Hop, ...]":
    """Hops of the tiers, with the constants of the operation on their links."""
    from clusters.dispatch import ruled
    from clusters.tunings import lookup, reduction_efficiency
    from collectives.path import Hop

    generation = cluster.accelerator.generation
    return tuple(
        Hop(
            bandwidth_Bps=tier.bandwidth_Bps,
            latency_s=tier.latency_s,
            model=ruled(lookup(tier.link, op, regime, cluster.spec.tunings)[0], regime, tier.link, generation),
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
    """Return what the constants behind `path` have to say, for instance that a link borrows its neighbour's.

    Lines of an imported graph that are not used come last.
    """
    from clusters.tunings import lookup

    found = (lookup(tier.link, op, regime, cluster.spec.tunings)[1] for tier in cluster.tiers)
    return tuple(dict.fromkeys(note for note in (*found, *cluster.unused) if note))


def own_notes(cluster: Cluster) -> tuple[str, ...]:
    """Return a note on the constants that the cluster's own file names for its links, empty where it names no file."""
    return owntunings.said(cluster.spec.tunings, (tier.link for tier in cluster.tiers))


def bill(cluster: Cluster) -> dict[str, Any]:
    """Bill of parts with the watts and dollars that the catalogue knows; hosts, storage and cooling are not in it.

    Accelerators are those bought. A sum leaves out the parts of unknown figure, which `unknown` names, and is None
    where nothing is known.

    Returns
    -------
    dict
        `parts` (rows of part, count, power_W, price_usd), `power_W`, `price_usd`, `unknown`.
    """
    bought = _accelerators(cluster.spec)
    rows: list[dict[str, Any]] = []
    for part, count in {**_counts(cluster), **{part: count for part, (count, *_) in bought.items()}}.items():
        if part in bought:
            _, power_W, price_usd = bought[part]
        else:
            power_W, price_usd = (_times(each, count) for each in catalogue.cost(part))
        rows.append({"part": part, "count": count, "power_W": power_W, "price_usd": price_usd})
    sums = {key: _known_sum([row[key] for row in rows]) for key in ("power_W", "price_usd")}
    unknown = {key: [row["part"] for row in rows if row[key] is None] for key in ("power_W", "price_usd")}
    return {"parts": rows, **sums, "unknown": unknown}


def _counts(cluster: Cluster) -> dict[str, int]:
    """Parts of the wiring by key, accelerators of an imported graph left out."""
    from clusters.imported import parts as parts_of_graph
    from topo.blueprint import Blueprint
    from topo.survey import parts

    return parts(cluster.wiring) if isinstance(cluster.wiring, Blueprint) else parts_of_graph(cluster.wiring)


def _accelerators(spec: ClusterSpec) -> dict[str, tuple[int, float | None, float | None]]:
    """Accelerators bought, of all pools: by key how many, and the watts and dollars of all of them."""
    found: dict[str, tuple[int, float | None, float | None]] = {}
    for held in spec.pools or (spec,):
        part, many = part_of(held), held.accelerators
        count, *sums = found.get(held.accelerator, (0, 0.0, 0.0))
        more = (_times(part.power_W, many), _times(part.price_usd, many))
        power_W, price_usd = (None if a is None or b is None else a + b for a, b in zip(sums, more, strict=True))
        found[held.accelerator] = (count + many, power_W, price_usd)
    return found


def _times(each: float | None, count: float) -> float | None:
    """Figure of all parts of one kind."""
    return None if each is None else each * count


def _known_sum(values: list[float | None]) -> float | None:
    """Sum of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def system_rows() -> list[dict[str, Any]]:
    """One row per system with its key figures in SI units; `missing` names the figures that a file has to fill in.

    >>> next(row["missing"] for row in system_rows() if row["name"] == "kyber-nvl144")
    'peak_bf16'
    """
    return [_system_row(name) for name in systems()]


def _system_row(name: str) -> dict[str, Any]:
    """Row of one system; of one that lacks figures, what the file and the accelerator's entry say."""
    try:
        spec = load(name)
    except SpecError as error:
        told = catalogue.read_yaml((SYSTEMS / f"{name}.yaml").read_text(encoding="utf-8"))
        first = told.get("pools", [told])[0]
        part = catalogue.accelerator(first["accelerator"])
        many = sum(held["accelerators"] for held in told.get("pools", [told]))
        known = {"accelerator": part.name, "accelerators": many, "domain": part.domain or None}
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
