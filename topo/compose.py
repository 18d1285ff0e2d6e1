"""Unlike blocks in one cluster: pools of their own names, joined by shared switches or by fibre.

A pool is a blueprint. `prefixed` gives its axes and classes the pool's name, ``old.accelerator[old=0,old.domain=3]``,
and hangs all of it below one axis of size 1, so that a level can name the whole pool. `joined` puts pools side by side
and adds what lies between their outermost switches: see `TOPS`.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import NamedTuple

from topo.blocks import (
    Cable,
    above_zero,
    at_least,
    cables,
    free_name,
    injection,
    outermost,
    prefixed,
    raise_faults,
    rounded_up,
    uplinks,
    with_nics,
)
from topo.blueprint import Axis, Blueprint, Level, LinkClass, NodeClass
from topo.errors import Fault, SpecError

S_PER_KM_FIBRE = 5e-6
"""Seconds per km of glass, one way: its refractive index is about 1.5."""


# --- what lies between pools -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Core:
    """One layer of shared switches, each joined to every outermost switch of every pool.

    Parameters
    ----------
    link
        Key of the cable.
    bandwidth_Bps
        What a pool puts into the layer, per direction, by pool. Of a pool that is not named: `oversubscription`.
    oversubscription
        All NIC bandwidth of a pool over what it puts into the layer.
    switches
        How many; by default the fewest whose `radix` suffices, or one.
    radix
        Ports per switch; without it ports are not counted.
    cable_Bps
        The most that one cable carries: cables per pair of switches are rounded up. By default one cable carries all.
    latency_s, switch_latency_s
        Per cable and per switch, as in `topo.builders.ScaleOut`.
    switch_part, nic_part
        Keys; NICs are added to a pool that has no scale-out network.
    in_network_reduction
        Whether the switches can sum.
    """

    link: str
    bandwidth_Bps: Mapping[str, float] = field(default_factory=dict)
    oversubscription: float = 1.0
    switches: int | None = None
    radix: int | None = None
    cable_Bps: float = math.inf
    latency_s: float = 300e-9
    switch_latency_s: float = 200e-9
    switch_part: str = "switch"
    nic_part: str = "nic"
    in_network_reduction: bool = False

    def __post_init__(self) -> None:
        rates = {f"bandwidth_Bps[{pool}]": rate_Bps for pool, rate_Bps in self.bandwidth_Bps.items()}
        raise_faults(
            *above_zero("core", {**rates, "oversubscription": self.oversubscription}),
            *above_zero("core", {"cable_Bps": self.cable_Bps}, finite=False),
            *at_least("core", 1, {"switches": self.switches, "radix": self.radix}),
            *at_least("core", 0, {"latency_s": self.latency_s, "switch_latency_s": self.switch_latency_s}),
        )

    @property
    def cable(self) -> Cable:
        """The cable between a pool and the layer."""
        return Cable(self.link, self.cable_Bps, self.latency_s, self.switch_latency_s)


@dataclass(frozen=True)
class Border:
    """The switches of a site that end its long lines, joined to each of its outermost switches.

    Inside the site they carry as much as all lines of the site together.

    Parameters
    ----------
    switches
        Per site. A line between two sites is dealt over them evenly.
    part, nic_part
        Keys of switch and NIC; NICs are added to a site that has no scale-out network.
    link, link_Bps
        Key of the long line, and the most that one carries: lines are rounded up.
    cable, cable_Bps
        The same for the cables inside the site.
    s_per_km
        Of the line, one way.
    latency_s, switch_latency_s
        Per cable inside the site, and per switch.
    """

    switches: int = 1
    part: str = "border"
    nic_part: str = "nic"
    link: str = "fibre"
    link_Bps: float = math.inf
    cable: str = "cable"
    cable_Bps: float = math.inf
    s_per_km: float = S_PER_KM_FIBRE
    latency_s: float = 300e-9
    switch_latency_s: float = 200e-9

    def __post_init__(self) -> None:
        times = {"latency_s": self.latency_s, "switch_latency_s": self.switch_latency_s, "s_per_km": self.s_per_km}
        raise_faults(
            *above_zero("border", {"link_Bps": self.link_Bps, "cable_Bps": self.cable_Bps}, finite=False),
            *at_least("border", 1, {"switches": self.switches}),
            *at_least("border", 0, times),
        )

    @property
    def inside(self) -> Cable:
        """The cable inside the site."""
        return Cable(self.cable, self.cable_Bps, self.latency_s, self.switch_latency_s)

    def line_s(self, km: float) -> float:
        """Return the latency between the border switches of two sites: the way, and half of each switch.

        >>> round(Border().line_s(1100.0) * 1e3, 4)
        5.5002
        """
        return km * self.s_per_km + self.switch_latency_s


class Span(NamedTuple):
    """A line between two pools: bytes/s per direction, and its length."""

    a: str
    b: str
    bandwidth_Bps: float
    km: float


@dataclass(frozen=True)
class Fibre:
    """Pools at sites of their own, joined pairwise by long lines; a site without a line to another goes through."""

    spans: tuple[Span, ...]
    border: Border = field(default_factory=Border)

    def __post_init__(self) -> None:
        faults = list[Fault]()
        for i, span in enumerate(self.spans):
            faults += above_zero(f"spans[{i}]", {"bandwidth_Bps": span.bandwidth_Bps})
            faults += at_least(f"spans[{i}]", 0, {"km": span.km})
            faults += [Fault(f"spans[{i}]", span.a, "joins a pool to itself")] if span.a == span.b else []
        raise_faults(*faults)

    def carried(self, pool: str) -> float:
        """Return what all lines of a pool carry together.

        >>> Fibre((Span("a", "b", 3e9, 10), Span("c", "b", 4e9, 10))).carried("b") / 1e9
        7.0
        """
        return sum(span.bandwidth_Bps for span in self.spans if pool in (span.a, span.b))


# --- levels of unlike pools ------------------------------------------------------------------------------------------


def _levels(pools: Mapping[str, Blueprint]) -> list[Level]:
    """Align the levels of pools: innermost first, each with those of its plane, place and kind.

    A pool that has no level there repeats the block it had (at first, one accelerator).
    """
    block: dict[str, tuple[str, ...]] = {
        pool: tuple(
            f"{pool}.{axis}" for node in bp.nodes if node.kind == "accelerator" for axis in bp.closure(node.axes)
        )
        for pool, bp in pools.items()
    }
    found: list[tuple[tuple[str, ...], Level]] = []
    for plane in ("scale-up", "scale-out"):
        rows = [[(pool, level) for level in bp.levels if level.plane == plane] for pool, bp in pools.items()]
        for place in zip_longest(*rows):
            here = [held for held in place if held]
            for kind in dict.fromkeys(level.kind for _, level in here):
                alike = {pool: level for pool, level in here if level.kind == kind}
                block |= {pool: tuple(f"{pool}.{axis}" for axis in level.axes) for pool, level in alike.items()}
                axes = tuple(axis for pool in pools for axis in dict.fromkeys((pool, *block[pool])))
                name = "/".join(dict.fromkeys(level.name for level in alike.values()))
                found.append((tuple(alike), Level(name, kind, here[0][1].plane, axes)))
    names = [level.name for _, level in found]
    return [
        replace(level, name=f"{'+'.join(of)}.{level.name}") if names.count(level.name) > 1 else level
        for of, level in found
    ]


# --- pools together --------------------------------------------------------------------------------------------------

Top = Core | Fibre
_Layer = tuple[tuple[Axis, ...], tuple[NodeClass, ...], tuple[LinkClass, ...]]


def _core_rates(pools: Mapping[str, Blueprint], top: Core) -> dict[str, float]:
    """Return what each pool puts into shared switches."""
    given = [Fault("core.bandwidth_Bps", pool, "is no pool") for pool in top.bandwidth_Bps if pool not in pools]
    rates_Bps = {pool: top.bandwidth_Bps.get(pool, injection(bp) / top.oversubscription) for pool, bp in pools.items()}
    bare = [
        Fault(f"core.bandwidth_Bps[{pool}]", None, "is missing", "the pool has no NICs: say what it puts in")
        for pool, rate_Bps in rates_Bps.items()
        if not rate_Bps
    ]
    raise_faults(*given, *bare)
    return rates_Bps


def _core_switches(pools: Mapping[str, Blueprint], rates_Bps: Mapping[str, float], top: Core) -> int:
    """Return how many shared switches there are: as given, or the fewest that have the ports.

    More switches need fewer parallel cables each, down to one to every outermost switch.
    """
    many = {pool: sum(bp.population(node.axes) for node in outermost(bp)) for pool, bp in pools.items()}

    def ports(switches: int) -> int:
        return sum(n * rounded_up(rates_Bps[p] / (n * switches), top.cable_Bps) for p, n in many.items())

    radix = top.radix
    if radix is None:
        return top.switches or 1
    parallel = max(rounded_up(rates_Bps[pool] / n, top.cable_Bps) for pool, n in many.items())
    most = top.switches or parallel
    if ports(most) > radix:
        problem = f"is less than the {ports(most)} ports of {most} shared switches"
        raise SpecError([Fault("core.radix", radix, problem, "take switches with more ports, or fewer ends")])
    return top.switches or 1 + bisect_left(range(1, most + 1), True, key=lambda s: ports(s) <= radix)


def _core(pools: Mapping[str, Blueprint], rates_Bps: Mapping[str, float], top: Core) -> _Layer:
    """Return the shared switches and their links to every pool."""
    many = _core_switches(pools, rates_Bps, top)
    node = NodeClass("core", "switch", ("core",), top.switch_part, top.in_network_reduction)
    links = (link for pool, bp in pools.items() for link in uplinks(bp, "core", many, rates_Bps[pool], top.cable))
    return (Axis("core", many),), (node,), tuple(links)


def _fibre_rates(pools: Mapping[str, Blueprint], top: Fibre) -> dict[str, float]:
    """Return what each pool puts into its lines."""
    faults = [
        Fault(f"spans[{i}]", end, "is no pool", f"known: {', '.join(pools)}")
        for i, span in enumerate(top.spans)
        for end in (span.a, span.b)
        if end not in pools
    ]
    reached = {next(iter(pools))}
    for _ in pools:
        reached |= {end for s in top.spans if reached & {s.a, s.b} for end in (s.a, s.b)}
    faults += [Fault("spans", pool, "is reached by no line", "add a span") for pool in pools if pool not in reached]
    raise_faults(*faults)
    return {pool: top.carried(pool) for pool in pools}


def _fibre(pools: Mapping[str, Blueprint], rates_Bps: Mapping[str, float], top: Fibre) -> _Layer:
    """Return border switches, their links into each pool, and the lines between them."""
    edge = top.border
    several = ("border",) if edge.switches > 1 else ()
    nodes = tuple(NodeClass(f"{pool}.border", "switch", (pool, *several), edge.part) for pool in pools)
    into = (
        link
        for pool, bp in pools.items()
        for link in uplinks(bp, f"{pool}.border", edge.switches, rates_Bps[pool], edge.inside)
    )
    lines = (
        cables(
            f"{span.a}.border",
            f"{span.b}.border",
            span.bandwidth_Bps / edge.switches,
            edge.link_Bps,
            edge.line_s(span.km),
            edge.link,
        )
        for span in top.spans
    )
    return tuple(Axis(name, edge.switches) for name in several), nodes, (*into, *lines)


class _Kind(NamedTuple):
    """How pools are joined: the outermost level, what each pool puts in, and the layer between them."""

    level: Level
    rates_Bps: Callable[..., dict[str, float]]
    layer: Callable[..., _Layer]
    nic_part: Callable[..., str]


TOPS: dict[type, _Kind] = {
    Core: _Kind(Level("joint", "switch", "scale-out"), _core_rates, _core, lambda top: top.nic_part),
    Fibre: _Kind(Level("wan", "wan", "scale-out"), _fibre_rates, _fibre, lambda top: top.border.nic_part),
}
"""What can lie between pools."""


def joined(name: str, pools: Mapping[str, Blueprint], top: Top) -> Blueprint:
    """Put unlike clusters side by side, their outermost switches joined by shared switches or by fibre.

    The axes, classes and changes of a pool carry its name (see `prefixed`); its levels are aligned with those of the
    others, innermost first, as far as plane and kind agree; the new outermost level is called joint or wan. A pool
    without a scale-out network gets a NIC per accelerator. One pool alone gets no layer above it. The outermost
    switches of a pool are taken to have ports left for the layer.

    Raises
    ------
    SpecError
        When there are no pools, a name is unknown or no name, a pool is not reached, or ports do not suffice.

    Examples
    --------
    Eight old boxes for prefill and a new rack for decode, with 800 GB/s between them.

    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> old = cluster_blueprint("boxes", 8, ScaleUp(8, 450e9, 1e-6, "nvlink4"), ScaleOut(50e9, "ndr"), "h100")
    >>> new = cluster_blueprint("rack", 1, ScaleUp(72, 900e9, 1e-6, "nvlink5"), None, "b200")
    >>> both = joined("both", {"old": old, "new": new}, Core("xdr", {"old": 800e9, "new": 800e9}))
    >>> [node.name for node in both.nodes if node.kind != "accelerator"]
    ['old.scale-up-switch', 'old.nic', 'old.leaf', 'new.scale-up-switch', 'new.nic', 'core']
    >>> [(level.name, level.axes) for level in both.levels]
    [('domain', ('old', 'old.domain', 'new')), ('leaf', ('old', 'new')), ('joint', ())]
    """
    if not pools:
        raise SpecError([Fault("pools", None, "are missing", "name at least one")])
    levels = _levels(pools)
    axes, nodes, links = tuple[Axis, ...](), tuple[NodeClass, ...](), tuple[LinkClass, ...]()
    if len(pools) == 1:
        levels[-1] = replace(levels[-1], axes=())
        parts = [prefixed(bp, pool) for pool, bp in pools.items()]
    else:
        kind = TOPS[type(top)]
        rates_Bps = kind.rates_Bps(pools, top)
        own = {pool: prefixed(with_nics(bp, rates_Bps[pool], kind.nic_part(top)), pool) for pool, bp in pools.items()}
        axes, nodes, links = kind.layer(own, rates_Bps, top)
        levels.append(replace(kind.level, name=free_name(kind.level.name, [level.name for level in levels], name)))
        parts = list(own.values())
    return Blueprint(
        name,
        (*(axis for bp in parts for axis in bp.axes), *axes),
        (*(node for bp in parts for node in bp.nodes), *nodes),
        (*(link for bp in parts for link in bp.links), *links),
        tuple(levels),
        tuple(change for bp in parts for change in bp.changes),
        tuple(extra for bp in parts for extra in bp.extra_parts),
    )
