"""What is wrong between the fields of a cluster file, each of which may be right by itself."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from clusters import catalogue
from clusters.defaults import DIRECT, UP_FIELDS, Values, largest_divisor, near_cube
from clusters.sections import ClusterSpec, ports_each
from topo.errors import Fault

Paths = set[tuple[str, ...]]
"""Fields that are faulty by themselves, and the sections that hold them."""

POOLED: Final = ("accelerator", "accelerators", "domain", "scale_up", "scale_out", "override", "sites", "graph")
"""Fields that a cluster of pools has in each of them, or not at all."""

GRAPHED: Final = ("accelerators", "domain", "sites", "changes")
"""Fields that a graph replaces."""

KEPT_BY_GRAPH: Final[Mapping[str, tuple[str, ...]]] = {"scale_up": ("link",), "scale_out": ("nic", "link")}
"""What the sections of a file with a graph may say: whose constants its links have."""

_TREE: Final = ("rails", "radix", "levels", "oversubscription", "in_network_reduction", "down", "planes", "trunk", "spines",
                "top", "global_links", "ocs_radix", "leaf_link")  # fmt: skip
_LINES: Final = ("link_bandwidth", "links_per_neighbour", "km", "medium")
OUT_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "fat-tree": _TREE,
    "ring": _LINES,
    "line": _LINES,
    "torus": (*_LINES, "shape"),
}
"""Kind of scale-out network -> the fields that act on it and not on every kind."""


def clashes(spec: ClusterSpec, values: Values, faulty: Paths, file: str) -> Iterator[Fault]:
    """Yield the faults between fields; none is reported about a field that is faulty by itself."""
    yield from _size_faults(spec, faulty, file)
    yield from _alone_faults(spec, faulty, file)
    for section, kind, table in (
        ("scale_up", spec.scale_up.kind, UP_FIELDS),
        ("scale_out", spec.scale_out.kind, OUT_FIELDS),
    ):
        yield from _strays(section, kind, table, values.get(section, {}), faulty, file)
    if not faulty & {("domain",), ("accelerator",), ("scale_up",)}:
        yield from _KINDS[spec.scale_up.kind](spec, values.get("scale_up", {}), file)
    yield from _out_faults(spec, values.get("scale_out", {}), faulty, file)
    yield from _change_faults(values.get("changes", ()), faulty, file)


def _size_faults(spec: ClusterSpec, faulty: Paths, file: str) -> Iterator[Fault]:
    """Yield a fault where the accelerators do not fill a domain at every site."""
    if spec.graph or faulty & {("domain",), ("accelerators",), ("accelerator",), ("sites",)}:
        return
    count = spec.sites.count if spec.sites else 1
    if spec.domain * count > spec.accelerators:
        remedy = f"buy at least {spec.domain * count}, or write domain: {max(1, spec.accelerators // count)}"
        at = f" at each of {count} sites" if count > 1 else ""
        yield Fault("accelerators", spec.accelerators, f"is fewer than one domain of {spec.domain}{at}", remedy, file)


def _alone_faults(spec: ClusterSpec, faulty: Paths, file: str) -> Iterator[Fault]:
    """Yield a fault where several accelerators share a domain, and nothing is known that joins them: a wafer is its own."""
    if spec.graph or spec.domain == 1 or faulty & {("domain",), ("accelerator",), ("scale_up",)}:
        return
    links = [level.link for level in spec.scale_up.levels] or [spec.scale_up.link]
    if not all(links):
        problem = f"holds several, and {spec.accelerator} is a domain of its own: no link is known that joins two"
        yield Fault("domain", spec.domain, problem, "write domain: 1, or name the link in scale_up.link", file)


def _strays(
    section: str, kind: str, table: Mapping[str, tuple[str, ...]], given: Values, faulty: Paths, file: str
) -> Iterator[Fault]:
    """Yield a fault for every field that acts on another kind of network only."""
    if (section, "kind") in faulty:
        return
    for field in given:
        kinds = [name for name, fields in table.items() if field in fields]
        if kinds and kind not in kinds:
            yield Fault(f"{section}.{field}", _shown(given[field]), f"acts on no {kind}", _or_kind(kinds), file)


def _or_kind(kinds: list[str]) -> str:
    """Remedy for a field of other kinds of network."""
    return f"leave it out, or write kind: {' or '.join(kinds)}"


def _shown(value: Any) -> Any:
    """Return a value as a fault shows it."""
    return None if isinstance(value, Mapping) or (isinstance(value, (list, tuple)) and len(value) > 6) else value


# --- inside a domain -------------------------------------------------------------------------------------------------


def _switch_faults(spec: ClusterSpec, given: Values, file: str) -> Iterator[Fault]:
    """Yield what is wrong with the layers."""
    up, domain = spec.scale_up, spec.domain
    if up.layers == 1:
        for field in ("outer_switches", "sub_planes", "outer_latency"):
            if field in given:
                yield Fault(f"scale_up.{field}", given[field], "needs two layers", "write layers: 2, and inner", file)
        return
    ports = catalogue.switch(up.switch).ports if up.switch else domain
    divisor = largest_divisor(domain, ports)
    if divisor == 1:
        problem = "cannot be cut into equal first-layer blocks for two switch layers"
        yield Fault("domain", domain, problem, _cuttable(domain, ports), file)
    elif "inner" in given and (domain % up.inner or up.inner >= domain):
        problem = f"does not cut the domain of {domain} into equal blocks"
        yield Fault("scale_up.inner", up.inner, problem, f"write {divisor}", file)


def _cuttable(domain: int, ports: int) -> str:
    """Remedy for a domain that two switch layers cannot hold."""
    whole = max(2, round(domain / ports)) * ports
    return f"write {whole} ({whole // ports} blocks of {ports}), or scale_up: {{layers: 1}}"


def _mesh_faults(_spec: ClusterSpec, given: Values, file: str) -> Iterator[Fault]:
    """Yield a fault where a mesh has several bandwidths, or both that of a link and of all."""
    if isinstance(given.get("link_bandwidth"), (list, tuple)):
        problem, remedy = "is several, and all links of a mesh are alike", "write one"
        yield Fault("scale_up.link_bandwidth", _shown(given["link_bandwidth"]), problem, remedy, file)
    yield from _both(given, file)


def _both(given: Values, file: str) -> Iterator[Fault]:
    """Yield a fault where the bandwidth is given twice."""
    if {"bandwidth", "link_bandwidth"} <= {*given}:
        problem = "is given as well as link_bandwidth, from which it follows"
        yield Fault("scale_up.bandwidth", given["bandwidth"], problem, "leave one of them out", file)


def _torus_faults(spec: ClusterSpec, given: Values, file: str) -> Iterator[Fault]:
    """Yield what is wrong with the shape, and with what there is for each axis."""
    up, domain = spec.scale_up, spec.domain
    axes = len(up.shape)
    yield from _both(given, file)
    if axes > AXES_MOST:
        yield Fault("scale_up.shape", list(up.shape), f"has {axes} axes", f"write at most {AXES_MOST}", file)
        return
    if "shape" in given and math.prod(up.shape) != domain:
        near = list(near_cube(domain, axes))
        problem = f"holds {math.prod(up.shape)} accelerators, and the domain {domain}"
        yield Fault("scale_up.shape", list(up.shape), problem, f"write for instance {near}, or another domain", file)
    elif "shape" not in given and 1 in up.shape and domain >= 2**axes:
        problem = f"has no {axes} factors to make a torus of {axes} axes"
        remedy = f"write {_shapely(domain, axes)}, or a shape with an edge of 1, such as {list(up.shape)}"
        yield Fault("domain", domain, problem, remedy, file)
    for field in ("wrap", "link_bandwidth"):
        value = given.get(field)
        if isinstance(value, (list, tuple)) and len(value) != axes:
            problem = f"has {len(value)} values for {axes} axes"
            yield Fault(f"scale_up.{field}", list(value), problem, "write one, or one for each axis", file)
    if up.cube and any(size % up.cube for size in up.shape):
        problem = f"does not cut {' x '.join(map(str, up.shape))} into whole cubes"
        yield Fault("scale_up.cube", up.cube, problem, "leave it out, or write another shape", file)


AXES_MOST: Final = 6
"""Axes of a torus, at most."""


def _shapely(domain: int, axes: int) -> int:
    """Return the nearest smaller size that fills the axes."""
    return next(size for size in range(domain, 2**axes - 1, -1) if 1 not in near_cube(size, axes))


def _nested_faults(spec: ClusterSpec, given: Values, file: str) -> Iterator[Fault]:
    """Yield a fault where there are no levels, or they do not hold the domain."""
    levels = spec.scale_up.levels
    if not levels:
        example = "levels: [{name: board, size: 4, bandwidth: 400GB/s}, {name: rack, size: 18, bandwidth: 200GB/s}]"
        yield Fault("scale_up.levels", None, "is needed: what is joined how", f"write for instance {example}", file)
        return
    if "bandwidth" in given:
        problem, remedy = "acts on no nested domain", "write it in each level"
        yield Fault("scale_up.bandwidth", given["bandwidth"], problem, remedy, file)
    held = math.prod(level.size for level in levels)
    if held != spec.domain:
        sizes = " x ".join(str(level.size) for level in levels)
        problem = f"holds {held} accelerators ({sizes}), and the domain {spec.domain}"
        yield Fault("scale_up.levels", None, problem, f"write other sizes, or domain: {held}", file)
    names = [level.name for level in levels]
    for name in sorted({name for name in names if names.count(name) > 1 or name in ("domain", "rail")}):
        yield Fault("scale_up.levels", name, "is there twice, or taken", "give each level its own name", file)


_KINDS: Final = {"switch": _switch_faults, "mesh": _mesh_faults, "torus": _torus_faults, "nested": _nested_faults}


# --- between domains -------------------------------------------------------------------------------------------------


def _out_faults(spec: ClusterSpec, given: Values, faulty: Paths, file: str) -> Iterator[Fault]:
    """Yield what is wrong with the scale-out network."""
    out = spec.scale_out
    most = out.levels or 3
    for field, what in (
        ("oversubscription", "ratios"),
        ("radix", "radixes"),
        ("switch", "switches"),
        ("down", "numbers"),
    ):
        value = getattr(out, field)
        if (
            isinstance(value, tuple)
            and len(value) > most
            and not faulty & {("scale_out", "levels"), ("scale_out", field)}
        ):
            problem = f"has more {what} than the {most} switching levels"
            yield Fault(f"scale_out.{field}", list(value), problem, "write one for each level", file)
    ports = ports_each(out)
    if not faulty & {("scale_out", "radix"), ("scale_out", "nics_per_accelerator")} and (
        min(ports) if isinstance(ports, tuple) else ports
    ) < 2:  # fmt: skip
        problem = f"leaves no two ports per accelerator's {out.nics_per_accelerator:g} NICs"
        yield Fault("scale_out.radix", _shown(out.radix), problem, "take a switch with more ports", file)
    if out.kind in DIRECT:
        yield from _direct_faults(spec, given, faulty, file)


def _direct_faults(spec: ClusterSpec, given: Values, faulty: Paths, file: str) -> Iterator[Fault]:
    """Yield what is wrong with domains that are joined to their neighbours."""
    out, each = spec.scale_out, spec.domains // (spec.sites.count if spec.sites else 1)
    if out.link_Bps is None and ("scale_out", "link_bandwidth") not in faulty and each > 1:
        problem = "is needed: what one link between neighbours carries, one way"
        yield Fault("scale_out.link_bandwidth", None, problem, "write for instance 100Gb/s", file)
    sized = faulty & {("domain",), ("accelerators",), ("accelerator",), ("sites",), ("scale_out", "shape")}
    if "shape" in given and not sized and math.prod(out.shape) != each:
        problem = f"holds {math.prod(out.shape)} domains, and there are {each}"
        near = list(near_cube(max(1, each), len(out.shape)))
        yield Fault("scale_out.shape", list(out.shape), problem, f"write for instance {near}", file)
    if len(out.shape) > AXES_MOST:
        yield Fault("scale_out.shape", None, f"has {len(out.shape)} axes", f"write at most {AXES_MOST}", file)
    if isinstance(out.switch, tuple):
        problem, remedy = "is several, and a domain has one terminal", "write one"
        yield Fault("scale_out.switch", list(out.switch), problem, remedy, file)


# --- pools, graphs and changes ---------------------------------------------------------------------------------------


def _change_faults(changes: Any, faulty: Paths, file: str) -> Iterator[Fault]:
    """Yield what is wrong with the form of changes; their names are known only once the cluster is wired."""
    if ("changes",) in faulty:
        return
    for i, change in enumerate(changes):
        where = f"changes.{i}"
        if ("remove" in change) == ("node" in change):
            problem = "says both remove and node" if "node" in change else "says neither remove nor node"
            yield Fault(
                where, None, problem, "write {remove: {domain: 3}} or {node: nic, at: {rail: 3}, factor: 0.5}", file
            )
        elif "remove" in change:
            for field in change.keys() - {"remove", "node"}:
                yield Fault(f"{where}.{field}", _shown(change[field]), "acts on no remove", "write node and at", file)
        elif not {"at", "random"} & {*change}:
            yield Fault(f"{where}.at", None, "is missing", "write where: {rail: 3}, or random: {count: 1}", file)
        if "to_at" in change and "to" not in change:
            yield Fault(f"{where}.to_at", None, "needs to", "name the class of nodes at the other end", file)
        if "random" in change and ("count" in change["random"]) == ("share" in change["random"]):
            yield Fault(f"{where}.random", None, "needs either count or share", "write count: 1, or share: 0.01", file)


def pool_faults(values: Values, names: list[str], file: str) -> Iterator[Fault]:
    """Yield what is wrong with a cluster of pools beside the pools themselves."""
    for field in POOLED:
        if field in values:
            remedy = "leave one of them out" if field in ("sites", "graph") else "write it in each pool"
            yield Fault(field, _shown(values[field]), "stands beside pools", remedy, file)
    if len(names) < 2:
        remedy = "write its fields at the top of the file, or add another pool"
        yield Fault("pools", None, f"hold {len(names)} alone", remedy, file)
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        yield Fault("pools", name, "is there twice", "give each pool its own name", file)
    yield from _change_faults(values.get("changes", ()), set(), file)
    joint = values.get("join", {})
    for i, line in enumerate(joint.get("spans", ())):
        where, ends = f"join.spans.{i}", line["between"]
        if len(ends) != 2 or ends[0] == ends[-1] or not {*ends} <= {*names}:
            remedy = f"name two of {', '.join(names)}"
            yield Fault(f"{where}.between", list(ends), "does not name two pools", remedy, file)
        for field, example in (("bandwidth", "1TB/s"), ("km", "40")):
            if field not in line and field not in joint:
                yield Fault(f"{where}.{field}", None, "is missing", f"write for instance {field}: {example}", file)
    if "km" in joint and "spans" not in joint and "bandwidth" not in joint:
        problem = "is needed: what a line between two pools carries, one way"
        yield Fault("join.bandwidth", None, problem, "write for instance 1TB/s", file)
    for field in ("radix", "oversubscription"):
        if field in joint and {"km", "spans"} & {*joint}:
            yield Fault(f"join.{field}", joint[field], "acts on no fibre", "leave it out, or km and spans", file)


def graph_faults(values: Values, file: str) -> Iterator[Fault]:
    """Yield a fault for every field that a graph replaces."""
    fields = [(field, values[field]) for field in GRAPHED if field in values]
    for section, kept in KEPT_BY_GRAPH.items():
        fields += [(f"{section}.{key}", value) for key, value in values.get(section, {}).items() if key not in kept]
    for field, value in fields:
        yield Fault(field, _shown(value), "stands beside a graph, which says it", "leave one of them out", file)
