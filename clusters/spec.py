"""A cluster file: read from YAML, defaulted from the catalogue, varied; what comes of it is a frozen `ClusterSpec`.

A file needs two fields, `accelerator` and `accelerators`; everything else comes from the accelerator's entry in the
catalogue. The same silicon wired otherwise is one field: ``with_(spec, domain=576)``. A cluster of unlike parts has
`pools` instead, each with the fields of a cluster; a fabric that another tool wrote down is a `graph`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from clusters import catalogue, clashes, defaults, owntunings
from clusters.own import follows, own_part
from clusters.sections import ChangeSpec, ClusterSpec, GraphSpec
from topo.errors import Fault, SpecError

__all__ = ["SYSTEMS", "ClusterSpec", "content", "fingerprint", "focus", "load", "parse", "part_of", "systems", "with_"]

SILICON: Final = "override.accelerator."
NIC: Final = "scale_out.nic"
UNUSED: Final = "connectx-7"
"""NIC of a cluster of one domain whose part has none that is public: nothing is joined by it."""
SYSTEMS: Final = catalogue.DATA / "systems"
BLANK: Final = ("", "~", "null", "Null", "NULL")
"""What YAML calls nothing: the default applies."""

Path_ = tuple[str, ...]
"""Names of a field and the sections around it."""


def part_of(spec: ClusterSpec) -> catalogue.Accelerator:
    """Return the accelerator of a cluster, with the user's own figures.

    >>> part_of(parse({"accelerator": "h200", "accelerators": 8})).hbm_Bps
    4800000000000.0
    """
    base = own_part(dict(spec.own)) if spec.own else catalogue.accelerator(spec.accelerator)
    return catalogue.overridden(base, dict(spec.override))


def parse(data: Mapping[str, Any], file: str = "", *, wiring: bool = False) -> ClusterSpec:
    """Check the content of a cluster file and fill in the defaults.

    Parameters
    ----------
    data : mapping
        The file's fields; quantities as text with units or as SI numbers, None for the default.
    file : str
        The name that faults carry, and the place beside which a `graph` lies.
    wiring : bool
        Whether the wiring is all that is asked for: then no figure of the silicon need be known, nor the NIC of a
        cluster of one domain.

    Raises
    ------
    SpecError
        With every fault: field path, value, remedy.

    Examples
    --------
    >>> spec = parse({"accelerator": "gb200", "accelerators": 1200})
    >>> spec.domain, spec.domains, spec.usable, spec.scale_out.link
    (72, 16, 1152, 'ib-ndr')
    """
    given = _without_blanks(data)
    pools = given.get("pools")
    if isinstance(pools, (list, tuple)) and all(isinstance(pool, Mapping) for pool in pools):
        return _joined(given, [_without_blanks(pool) for pool in pools], file, wiring=wiring)
    return _single(given, file, wiring=wiring)


def _single(given: dict[str, Any], file: str, *, pool: bool = False, wiring: bool = False) -> ClusterSpec:
    """Spec of a cluster of one kind of accelerator, or of a pool."""
    from clusters.specfile import check

    values, faults, paths = check(given, file, pool=pool)
    if faults:
        sound = _without(given, paths)
        values, *_ = check({"name": "pool", **sound} if pool else sound, file, pool=pool)
    faulty = {path[: i + 1] for path in paths for i in range(len(path))}
    faults += _lacking(values, faulty, file)
    constants, values = owntunings.named(values, file, faults)
    part = _part(values)
    graph = None
    if "graph" in values:
        faults += clashes.graph_faults(values, file)
        try:
            graph, values = _graph(values, file)
        except SpecError as error:
            faults, part = [*faults, *error.faults], None
    unmet = list(_unmet(part, values, file)) if part else []
    if wiring and part:
        alone = not pool and values.get("accelerators", 0) <= values.get("domain", part.domain)
        unmet = [fault for fault in unmet if not fault.field.startswith(SILICON) and not (alone and fault.field == NIC)]
    faults += [fault for fault in unmet if not _excused(fault, paths)]
    spec = _filled(values, part, file, graph) if part and "accelerators" in values and not unmet else None
    if spec is not None:
        spec = replace(spec, tunings=constants)
        faults += clashes.clashes(spec, values, faulty, file)
    if faults or spec is None:
        raise SpecError(faults)
    return spec


def _joined(given: dict[str, Any], pools: list[dict[str, Any]], file: str, *, wiring: bool) -> ClusterSpec:
    """Spec of a cluster of pools: each by itself, then what lies between them."""
    from clusters.specfile import check

    head, faults, _ = check({key: value for key, value in given.items() if key != "pools"}, file)
    constants, head = owntunings.named(head, file, faults)
    found = []
    for i, fields in enumerate(pools):
        try:
            found.append(_single(fields, file, pool=True, wiring=wiring))
        except SpecError as error:
            faults += [replace(fault, field=f"pools.{i}.{fault.field}") for fault in error.faults]
    names = [str(pool.get("name", "")) for pool in pools]
    faults += clashes.pool_faults(head, names, file)
    if faults:
        raise SpecError(faults)
    written = {**head, "pools": [json.loads(pool.written) for pool in found]}
    return replace(
        found[0],
        name=head.get("name", "+".join(names)),
        accelerators=sum(pool.accelerators for pool in found),
        pools=tuple(replace(pool, written="", file="") for pool in found),
        join=defaults.join(head.get("join", {}), found[0].scale_out, names),
        changes=tuple(map(_change, head.get("changes", ()))),
        tunings=constants,
        file=file,
        written=json.dumps(written, sort_keys=True),
    )


def focus(spec: ClusterSpec, pool: str) -> ClusterSpec:
    """Return the spec that stands for one pool of a cluster, wired together with the others ("": for all of it).

    Raises
    ------
    SpecError
        When the cluster has no such pool.

    Examples
    --------
    >>> both = parse({"pools": [{"name": "old", "accelerator": "h100", "accelerators": 64},
    ...     {"name": "new", "accelerator": "gb200", "accelerators": 72}]})
    >>> both.accelerators, focus(both, "new").accelerators, focus(both, "new").accelerator
    (136, 72, 'gb200')
    """
    names = [held.name for held in spec.pools]
    if pool and pool not in names:
        remedy = catalogue.nearest(pool, names) if names else "the cluster has none: leave it out"
        raise SpecError([Fault("pool", pool, "is no pool of the cluster", remedy, spec.file)])
    if not spec.pools:
        return spec
    one = spec.pools[names.index(pool) if pool else 0]
    own = ("accelerator", "domain", "scale_up", "scale_out", "override", "own", "sites")
    many = one.accelerators if pool else sum(held.accelerators for held in spec.pools)
    return replace(spec, focus=pool, accelerators=many, **{key: getattr(one, key) for key in own})


def with_(spec: ClusterSpec, **changes: Any) -> ClusterSpec:
    """Return the spec with some fields changed; the defaults that depend on them follow.

    Sections merge (``scale_out={"nic": "800Gb/s"}``), ``**{"scale_out.nic": "800Gb/s"}`` says the same, and None puts
    a field back to its default. A domain of another size keeps the number of axes of its torus, and the inner levels of
    a nested one as far as they divide it. What pools have of their own is changed by a new list of them.

    >>> spec = parse({"accelerator": "gb200", "accelerators": 1152})
    >>> wide = with_(spec, domain=576)
    >>> wide.domains, wide.layers, wide.scale_up.inner
    (2, 2, 72)
    """
    fields = json.loads(spec.written)
    for path, value in changes.items():
        first, *rest = path.split(".")
        for section in reversed(rest):
            value = {section: value}  # noqa: PLW2901  (nested from the inside out)
        _merge(fields, {first: value})
    _reshape(spec, fields)
    return focus(replace(parse(fields), file=spec.file), spec.focus)


def _reshape(spec: ClusterSpec, fields: dict[str, Any]) -> None:
    """Give shapes that the file states the new number of accelerators or domains, where only that has changed."""
    old, domain = json.loads(spec.written), fields.get("domain")
    up, out = fields.get("scale_up") or {}, fields.get("scale_out") or {}
    if isinstance(domain, int) and domain >= 1 and domain != old.get("domain") and domain != spec.domain:
        before = old.get("scale_up") or {}
        if up.get("shape") and up["shape"] == before.get("shape"):
            up["shape"] = list(defaults.near_cube(domain, len(up["shape"])))
            if any(size % up.get("cube", 1) for size in up["shape"]):
                up.pop("cube")
                up.pop("optical_link", None)
        if up.get("levels") and up["levels"] == before.get("levels"):
            up["levels"] = defaults.refit(up["levels"], domain)
    if out.get("shape") and out["shape"] == (old.get("scale_out") or {}).get("shape"):
        sizes = (fields.get("domain", spec.domain), fields.get("accelerators", spec.accelerators))
        if sizes != (spec.domain, spec.accelerators) and all(isinstance(size, int) and size >= 1 for size in sizes):
            many = sizes[1] // sizes[0] // (spec.sites.count if spec.sites else 1)
            out["shape"] = list(defaults.near_cube(max(1, many), len(out["shape"])))


def load(path_or_name: str | Path, *, wiring: bool = False) -> ClusterSpec:
    """Read a cluster file, or one of the systems of the catalogue by name; `wiring` as for `parse`.

    Raises
    ------
    SpecError
        The file cannot be read, is no YAML, or holds faults; or there is no such system.

    Examples
    --------
    >>> load("gb200-nvl72").accelerators
    72
    """
    name = catalogue.key_of(str(path_or_name))
    if isinstance(path_or_name, str) and name in systems():
        return _system(name, wiring)
    path = Path(path_or_name)
    if path.suffix not in (".yaml", ".yml") and not path.exists():
        remedy = catalogue.nearest(name, systems()) + "; or write the path of a cluster file"
        raise SpecError([Fault("cluster", str(path_or_name), "is neither a known system nor a file", remedy)])
    return parse(_read(path), str(path), wiring=wiring)


def systems() -> tuple[str, ...]:
    """Names of the systems that ship with the catalogue.

    >>> [name for name in systems() if name.startswith("hgx")]
    ['hgx-a100', 'hgx-b200', 'hgx-b300', 'hgx-h100', 'hgx-h200']
    """
    return tuple(sorted(path.stem for path in SYSTEMS.glob("*.yaml")))


def content(spec: ClusterSpec) -> dict[str, Any]:
    """All that tells a cluster from another: its fields and its accelerators' figures, as plain values."""
    fields = {key: value for key, value in asdict(spec).items() if key not in ("file", "written")}
    if spec.graph:
        fields["graph"].pop("file")
    if (constants := fields.pop("tunings")) is not None:
        fields["tunings"] = constants["sha256"]
    fields["pools"] = [content(pool) for pool in spec.pools]
    return {**fields, "figures": {key: figure.si for key, figure in part_of(spec).figures.items()}}


def fingerprint(spec: ClusterSpec) -> str:
    """SHA-256 of the canonical JSON of `content`: equal clusters share it, and any change changes it."""
    text = json.dumps(content(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _system(name: str, wiring: bool) -> ClusterSpec:
    return _system_with(name, wiring, catalogue.overlay())


@lru_cache
def _system_with(name: str, wiring: bool, _over: catalogue.Overlay) -> ClusterSpec:
    # The user's catalogue is in the key, for the defaults come from it.
    path = SYSTEMS / f"{name}.yaml"
    return parse(_read(path), path.name, wiring=wiring)


def _read(path: Path) -> Mapping[str, Any]:
    """Parse a cluster file; every scalar stays text, so that YAML makes no number of ``2:1`` and no False of ``no``."""
    import yaml

    file = str(path)
    repeated: list[Fault] = []

    class Loader(getattr(yaml, "CBaseLoader", yaml.BaseLoader)):  # type: ignore[misc]
        """Keeps text as text, and notices fields written twice."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = {key for key in keys if keys.count(key) > 1}
            repeated.extend(Fault(key, None, "is written twice", "keep one of them", file) for key in sorted(twice))
            return dict(super().construct_mapping(node, deep))

    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506  (the base loader makes only text)
    except OSError as error:
        raise SpecError([Fault("cluster file", file, f"cannot be read ({error.strerror})", "check the path")]) from None
    except UnicodeDecodeError:
        remedy = "write a cluster file in YAML; examples/clusters has some"
        raise SpecError([Fault("cluster file", file, "is not text", remedy)]) from None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "cluster file"
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise SpecError([Fault(where, None, f"is not YAML: {problem}", "mend that line", file)]) from None
    if repeated:
        raise SpecError(repeated)
    if not isinstance(data, Mapping):
        remedy = "write fields, such as accelerator: gb200"
        raise SpecError([Fault("cluster file", None, "holds no fields", remedy, file)])
    return data


def _without_blanks(data: Mapping[str, Any]) -> dict[str, Any]:
    """Copy of nested fields without those that hold nothing."""
    kept = {str(key): _without_blanks(value) if isinstance(value, Mapping) else value for key, value in data.items()}
    return {k: v for k, v in kept.items() if v is not None and not (isinstance(v, str) and v.strip() in BLANK)}


def _without(data: Mapping[str, Any], paths: list[Path_]) -> dict[str, Any]:
    """Copy of nested fields without those at the paths, or below them, and without sections that lack one."""
    heads = {path[0] for path in paths if len(path) == 1}
    below = {key: [path[1:] for path in paths if path[0] == key and len(path) > 1] for key in data}
    heads |= {key for key, rest in below.items() if any(len(path) == 1 and path[0] not in data[key] for path in rest)}
    return {
        key: _without(value, below[key]) if isinstance(value, Mapping) else value
        for key, value in data.items()
        if key not in heads and (isinstance(value, Mapping) or not below[key])
    }


def _merge(target: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put changes over nested fields, in place."""
    for key, value in changes.items():
        if isinstance(value, Mapping):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            _merge(target[key], value)
        else:
            target[key] = value


# --- from checked fields to a spec -----------------------------------------------------------------------------------


def _lacking(values: Mapping[str, Any], faulty: set[Path_], file: str) -> Iterator[Fault]:
    """Yield a fault for what no cluster can do without."""
    needed = {"accelerator": "accelerator: gb200", "accelerators": "accelerators: 72"}
    for field, example in needed.items():
        if field not in values and (field,) not in faulty and not (field == "accelerators" and "graph" in values):
            yield Fault(field, None, "is missing", f"write for instance {example}", file)
    if "join" in values:
        yield Fault("join", None, "joins nothing", "write pools, or leave it out", file)


def _part(values: Mapping[str, Any]) -> catalogue.Accelerator | None:
    """Accelerator that checked fields name or describe, with the figures of `override`; None where there is none."""
    if "accelerator" not in values or not {"accelerators", "graph"} & {*values}:
        return None
    given = values["accelerator"]
    base = own_part(given) if isinstance(given, Mapping) else catalogue.accelerator(given)
    return catalogue.overridden(base, values.get("override", {}).get("accelerator", {}))


def _unmet(part: catalogue.Accelerator, values: Mapping[str, Any], file: str) -> Iterator[Fault]:
    """Yield a fault for each field that the file has to fill in, for the catalogue has no figure."""
    said = ("domain", "scale_up.bandwidth", "accelerator.domain", "accelerator.scale_up_bandwidth")
    for fault in catalogue.unmet(part, values, file):
        if "graph" not in values or fault.field not in said:
            yield fault
    if "graph" not in values:
        yield from defaults.open_kind(part, values, file)


def _excused(fault: Fault, paths: list[Path_]) -> bool:
    """Whether a missing field follows from a faulty one."""
    field = tuple(fault.field.split("."))
    return follows(field, paths) or (field == ("scale_up", "kind") and any(path[0] == "scale_up" for path in paths))


def _graph(values: Mapping[str, Any], file: str) -> tuple[GraphSpec, dict[str, Any]]:
    """Read the graph that a file names; return it with the fields that follow from it."""
    from clusters.imported import homes, read_graph

    given = values["graph"]
    path = str((Path(file).parent / given["file"]).resolve()) if file else given["file"]
    try:
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise SpecError([Fault("graph", given["file"], problem, "write its path from this file", file)]) from None
    rates, latencies = (tuple(sorted(given.get(key, {}).items())) for key in ("rates", "latencies"))
    found = GraphSpec(digest, given.get("format", ""), rates, latencies, path)
    sizes = homes(read_graph(found).graph)
    kept = ("name", "accelerator", "override", "scale_up", "scale_out", "tunings")
    held = {key: values[key] for key in kept if key in values}
    return found, {**held, "graph": {**given, "file": path}, "accelerators": sum(sizes), "domain": max(sizes)}


def _change(given: Mapping[str, Any]) -> ChangeSpec:
    """Change of checked fields."""
    from clusters.fieldvalues import spans

    drawn = given.get("random", {})
    return ChangeSpec(
        remove=spans(given.get("remove", {})),
        node=given.get("node", ""),
        at=spans(given.get("at", {})),
        to=given.get("to", ""),
        to_at=spans(given.get("to_at", {})),
        factor=given.get("factor", 0.0),
        count=drawn.get("count", 0),
        share=drawn.get("share", 0.0),
        seed=drawn.get("seed", 0),
    )


def _filled(
    values: Mapping[str, Any], part: catalogue.Accelerator, file: str, graph: GraphSpec | None = None
) -> ClusterSpec:
    """Spec of checked fields, with every default from the catalogue."""
    domain, many = values.get("domain", part.domain), values["accelerators"]
    figures = values.get("override", {}).get("accelerator", {})
    own = values["accelerator"] if isinstance(values["accelerator"], Mapping) else {}
    sites = values.get("sites")
    up = values.get("scale_up", {})
    out = defaults.scale_out(
        values.get("scale_out", {}),
        part,
        own.get("nic", part.nic) or UNUSED,
        many // (sites["count"] if sites else 1) // domain,
    )
    return ClusterSpec(
        name=values.get("name", f"{part.name}-x{many}"),
        accelerator=part.name,
        accelerators=many,
        domain=domain,
        scale_up=defaults.scale_up({**up, "kind": "switch"} if graph else up, part, domain),
        scale_out=out,
        override=tuple(sorted(figures.items())),
        own=tuple(sorted(own.items())),
        sites=defaults.sites(sites, out) if sites else None,
        changes=tuple(map(_change, values.get("changes", ()))),
        graph=graph,
        file=file,
        written=json.dumps(_stated(values) if graph else values, sort_keys=True),
    )


def _stated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a file with a graph, without those that follow from it."""
    return {key: value for key, value in values.items() if key not in ("accelerators", "domain")}
