"""From a spec to a blueprint: a cluster in the words of `topo`, whose faults get the file's name and fields."""

import math
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from clusters.defaults import DIRECT
from clusters.sections import ChangeSpec, ClusterSpec, JoinSpec, ScaleUpSpec, SitesSpec, ports_each
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from topo.blueprint import Blueprint
    from topo.builders import ScaleOut
    from topo.changes import Change
    from topo.compose import Top
    from topo.domains import Domain
    from topo.tiers import Pool

DRAWN: Final = 64
"""Nodes that random changes may draw: every one splits the symmetries that make large clusters quick."""


@contextmanager
def _in_file(file: str, prefix: str = "") -> "Iterator[None]":
    """Give faults of `topo` the name of the file, and a section around their fields."""
    try:
        yield
    except SpecError as error:
        raise SpecError(
            replace(fault, field=prefix + fault.field, file=fault.file or file) for fault in error.faults
        ) from None


def blueprint_of(spec: ClusterSpec) -> "Blueprint":
    """Wire a cluster: its pools, sites and changes with it.

    Raises
    ------
    SpecError
        The wiring is impossible, for instance too few switch ports for the levels asked for, or a change names a class
        or an axis that the cluster has not.
    """
    if not spec.pools:
        return _one(spec, alone=True)
    from topo.compose import joined

    pools = {}
    for i, pool in enumerate(spec.pools):
        with _in_file(spec.file, f"pools.{i}."):
            pools[pool.name] = _one(pool, alone=False)
    with _in_file(spec.file):
        whole = joined(spec.name, pools, _top(spec))
    return changed(whole, spec.changes, spec.file)


def _one(spec: ClusterSpec, *, alone: bool) -> "Blueprint":
    """Wire a cluster of one kind; one domain has NICs only where something else lies beyond it."""
    each = spec.domains // (spec.sites.count if spec.sites else 1)
    beyond = not alone or (spec.sites is not None and spec.sites.count > 1)
    with _in_file(spec.file):
        hall = (_direct if spec.scale_out.kind in DIRECT else _tree)(spec, each, beyond=beyond)
        if spec.sites:
            from topo.wide import sites

            hall = sites(hall, *_lines(spec.sites, spec))
    return changed(hall, spec.changes, spec.file)


def _tree(spec: ClusterSpec, domains: int, *, beyond: bool) -> "Blueprint":
    """Join the domains by a fat tree."""
    from topo.builders import cluster_blueprint

    out = _scale_out(spec) if domains > 1 or beyond else None
    made = cluster_blueprint(spec.name, domains, inside(spec), out, spec.accelerator)
    return made if out is None else replace(made, extra_parts=(*made.extra_parts, *_other_nics(spec, domains)))


def _other_nics(spec: ClusterSpec, domains: int) -> tuple[tuple[str, int], ...]:
    """NICs and their cables beyond the one for each accelerator that is drawn; below zero where several share one."""
    drawn = domains * spec.domain
    more = math.ceil(drawn * spec.scale_out.nics_per_accelerator) - drawn
    return ((spec.scale_out.nic, more), (spec.scale_out.link, more)) if more else ()


def _direct(spec: ClusterSpec, domains: int, *, beyond: bool) -> "Blueprint":
    """Join the domains to their neighbours; a single one has none."""
    from topo.wide import S_PER_KM_VACUUM, Row, direct_blueprint

    out = spec.scale_out
    if domains == 1:
        return _tree(spec, 1, beyond=beyond)
    vacuum = out.medium == "vacuum"
    hop_s = out.latency_s + out.km * (S_PER_KM_VACUUM if vacuum else _fibre_s_per_km())
    names = ("domain",) if len(out.shape) == 1 else tuple(f"domain-{axis}" for axis in "xyzwvu")
    order: Any = "line" if out.kind == "line" else "ring"
    rows = tuple(
        Row(name, size, out.link_Bps or math.nan, hop_s, out.link, order, out.links_per_neighbour)
        for name, size in zip(names, out.shape, strict=False)
    )
    return direct_blueprint(
        spec.name,
        rows,
        inside(spec),
        out.bandwidth_Bps,
        kind="laser" if vacuum else "mesh" if order == "line" else "torus",
        accelerator_part=spec.accelerator,
        nic_part=out.nic,
        terminal_part=out.switch if isinstance(out.switch, str) else "",
    )


def _fibre_s_per_km() -> float:
    from topo.compose import S_PER_KM_FIBRE

    return S_PER_KM_FIBRE


# --- inside a domain -------------------------------------------------------------------------------------------------


def inside(spec: ClusterSpec) -> "Domain":
    """Return the scale-up domain of a cluster."""
    return _DOMAINS[spec.scale_up.kind](spec.scale_up, spec.domain)


def _switched(up: ScaleUpSpec, size: int) -> "Domain":
    from topo.domains import ScaleUp

    return ScaleUp(
        size=size,
        bandwidth_Bps=up.bandwidth_Bps,
        latency_s=up.latency_s,
        link=up.link,
        switches=up.switches,
        layers=up.layers,
        inner=up.inner,
        oversubscription=up.oversubscription,
        in_network_reduction=up.in_network_reduction,
        switch_part=up.switch,
        outer_latency_s=up.outer_latency_s,
        outer_switches=up.outer_switches,
        sub_planes=up.sub_planes,
    )


def _mesh(up: ScaleUpSpec, size: int) -> "Domain":
    from topo.direct import FullMesh

    return FullMesh(size, up.bandwidth_Bps, up.latency_s, up.link, up.links_per_pair)


def _torus(up: ScaleUpSpec, size: int) -> "Domain":  # noqa: ARG001  (the shape says it)
    from topo.direct import Torus

    return Torus(up.shape, up.link_Bps, up.latency_s, up.link, up.wrap, cube=up.cube, optical_link=up.optical_link)


def _nested(up: ScaleUpSpec, size: int) -> "Domain":  # noqa: ARG001  (the levels say it)
    from topo.nested import Nested, Tie

    return Nested(
        tuple(
            Tie(
                name=level.name,
                size=level.size,
                bandwidth_Bps=level.bandwidth_Bps,
                latency_s=level.latency_s,
                link=level.link,
                switches=level.switches,
                ports=level.ports,
                switch_part=level.switch,
                in_network_reduction=level.in_network_reduction,
            )
            for level in up.levels
        )
    )


_DOMAINS: Final["dict[str, Callable[[ScaleUpSpec, int], Domain]]"] = {
    "switch": _switched,
    "mesh": _mesh,
    "torus": _torus,
    "nested": _nested,
}


# --- between domains -------------------------------------------------------------------------------------------------


def _scale_out(spec: ClusterSpec) -> "ScaleOut":
    """Fat tree between the domains."""
    from topo.builders import ScaleOut

    out = spec.scale_out
    kinds: dict[str, Any] = {"spines": out.spines, "top": out.top}
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
        down=None if out.down is None else ports_each(out, out.down),
        planes=out.planes,
        trunk=out.trunk,
        global_links=out.global_links,
        ocs_radix=out.ocs_radix,
        leaf_link=out.leaf_link,
        **kinds,
    )


def _lines(lines: SitesSpec, spec: ClusterSpec) -> tuple[Any, ...]:
    """Arguments of `topo.wide.sites` that follow the hall."""
    from topo.compose import Border

    out = spec.scale_out
    border = Border(
        switches=lines.switches,
        part=out.switch[-1] if isinstance(out.switch, tuple) else out.switch,
        nic_part=out.nic,
        link=lines.link,
        link_Bps=lines.link_Bps or math.inf,
        cable=out.link,
        cable_Bps=out.nic_Bps / out.planes * out.trunk,
        latency_s=out.latency_s,
        switch_latency_s=out.switch_latency_s,
    )
    return lines.count, lines.bandwidth_Bps, lines.km, lines.order, border


def _top(spec: ClusterSpec) -> "Top":
    """Return what lies between pools: shared switches, or fibre."""
    from topo.compose import Core, Fibre, Span

    top, nic = spec.join, spec.pools[0].scale_out.nic
    if top is None:
        raise SpecError([Fault("join", None, "is missing", "write pools in a file", spec.file)])
    if top.spans:
        spans = tuple(Span(span.a, span.b, span.bandwidth_Bps, span.km) for span in top.spans)
        return Fibre(spans, _border(top, nic))
    rates_Bps = {pool.name: top.bandwidth_Bps for pool in spec.pools if top.bandwidth_Bps}
    return Core(
        link=top.link,
        bandwidth_Bps=rates_Bps,
        oversubscription=top.oversubscription,
        switches=top.switches,
        radix=top.radix,
        cable_Bps=top.cable_Bps,
        latency_s=top.latency_s,
        switch_latency_s=top.switch_latency_s,
        switch_part=top.switch,
        nic_part=nic,
    )


def _border(top: JoinSpec, nic: str) -> Any:
    """Switches that end the fibre of a pool."""
    from topo.compose import Border

    return Border(
        switches=top.switches or 1,
        part=top.switch,
        nic_part=nic,
        link=top.link,
        cable=top.link,
        cable_Bps=top.cable_Bps,
        latency_s=top.latency_s,
        switch_latency_s=top.switch_latency_s,
    )


# --- changes ---------------------------------------------------------------------------------------------------------


def changed(bp: "Blueprint", changes: tuple[ChangeSpec, ...], file: str = "") -> "Blueprint":
    """Return the cluster with its changes; every draw is among the nodes that the classes say.

    Raises
    ------
    SpecError
        With every class or axis that the cluster has not, by the change that names it.
    """
    faults: list[Fault] = []
    found: list[Change] = []
    for i, change in enumerate(changes):
        try:
            found += _made(bp, change)
        except SpecError as error:
            faults += [_of_change(fault, i, file) for fault in error.faults]
    if faults:
        raise SpecError(faults)
    with _in_file(file):
        return replace(bp, changes=(*bp.changes, *found)) if found else bp


def _of_change(fault: Fault, place: int, file: str) -> Fault:
    """Fault with the change that the file writes in that place."""
    field = fault.field.partition("]")[2].lstrip(".") if fault.field.startswith("changes[") else fault.field
    if field == "without":  # as topo calls it
        fault, field = replace(fault, value=None), "remove"
    name = ".".join(part for part in ("changes", str(place), field) if part)
    return replace(fault, field=name, file=fault.file or file)


def _made(bp: "Blueprint", change: ChangeSpec) -> "Iterable[Change]":
    """Return what a change of the file is to `topo`, checked on the cluster."""
    from topo.changes import Change, drawn, without

    if change.remove:
        known = [axis.name for axis in bp.axes]
        strange = [axis for axis, _ in change.remove if axis not in known]
        if strange:
            remedy = f"known: {', '.join(known)}"
            raise SpecError(Fault("remove", axis, "is no axis of the cluster", remedy) for axis in strange)
        at = {axis: range(low, high) for axis, (low, high) in change.remove}
        return without(replace(bp, changes=()), at).changes
    made = [Change(change.node, change.at, change.to, change.to_at, change.factor)]
    replace(bp, changes=tuple(made))  # raises what is wrong with it
    if not (change.count or change.share):
        return made
    places = drawn(bp, change.node, change.count, change.share, change.seed, change.at)
    if len(places) > DRAWN:
        problem = f"is too many of {change.node}: at most {DRAWN} are drawn"
        raise SpecError([Fault("random", len(places), problem, "draw fewer")])
    return [replace(made[0], at=at) for at in places]


# --- what is left ----------------------------------------------------------------------------------------------------


def fullest(bp: "Blueprint", pool: "Pool") -> tuple[int, int]:
    """Return the accelerators of the fullest scale-up domains that changes have left, and how many are as full.

    Examples
    --------
    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.changes import without
    >>> from topo.domains import ScaleUp
    >>> from topo.tiers import pools
    >>> four = cluster_blueprint("four", 4, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib"))
    >>> hurt = without(four, {"domain": 3, "slot": 0, "rail": 2})
    >>> fullest(hurt, pools(hurt)[0])
    (8, 3)
    """
    from topo.orbits import orbit_graph

    inner = [level for level in bp.levels if level.plane == "scale-up"]
    held: dict[Any, tuple[int, int]] = {}
    for member in orbit_graph(bp).members.values():
        if member.node.name not in {node.name for node in pool.classes}:
            continue
        axes = bp.own(inner[-1], member.node) if inner else bp.closure(member.node.axes)
        home = tuple(member.orbit.cells[axis] for axis in axes)
        many, _ = held.get(home, (0, 0))
        held[home] = many + member.multiplicity, math.prod(member.orbit.counts[axis] for axis in axes)
    sizes = [(many // domains, domains) for many, domains in held.values()]
    most = max(size for size, _ in sizes)
    return most, sum(domains for size, domains in sizes if size == most)
