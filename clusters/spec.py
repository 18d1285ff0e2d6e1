"""How a cluster is wired, as a frozen `ClusterSpec`: read from a YAML file, defaulted from the catalogue, varied.

A file needs two fields, `accelerator` and `accelerators`; everything else comes from the accelerator's entry in the
catalogue. The same silicon wired otherwise is one field: ``with_(spec, domain=576)``.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from clusters import catalogue
from clusters.own import follows, own_part
from topo.errors import Fault, SpecError

SYSTEMS: Final = catalogue.DATA / "systems"
BLANK: Final = ("", "~", "null", "Null", "NULL")
"""What YAML calls nothing: the default applies."""


@dataclass(frozen=True, slots=True)
class ScaleUpSpec:
    """The network inside a domain; `switches` are the first-layer switches of one block of `inner` accelerators."""

    bandwidth_Bps: float
    latency_s: float
    layers: int
    inner: int
    oversubscription: float
    in_network_reduction: bool
    link: str
    switch: str
    switches: int


@dataclass(frozen=True, slots=True)
class ScaleOutSpec:
    """The network between domains; `radix` counts switch ports of one NIC's rate, `latency_s` is of one cable."""

    nic: str
    nic_Bps: float
    nics_per_accelerator: float
    rails: int
    radix: int
    levels: int | None
    oversubscription: float | tuple[float, ...]
    link: str
    latency_s: float
    switch: str
    switch_latency_s: float
    in_network_reduction: bool

    @property
    def bandwidth_Bps(self) -> float:  # noqa: N802  (the unit is part of the name)
        """Per accelerator and direction: all its NICs together."""
        return self.nic_Bps * self.nics_per_accelerator


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """A cluster with every default filled in. `accelerators` are bought; whole domains of `domain` are used.

    `override` holds figures in SI that replace those of the accelerator, `own` the fields of an accelerator that the
    file itself describes, `written` the fields that were given (canonical JSON), from which `with_` starts again;
    neither `written` nor `file` tells two specs apart.
    """

    name: str
    accelerator: str
    accelerators: int
    domain: int
    scale_up: ScaleUpSpec
    scale_out: ScaleOutSpec
    override: tuple[tuple[str, float], ...] = ()
    own: tuple[tuple[str, Any], ...] = ()
    file: str = field(default="", compare=False)
    written: str = field(default="", compare=False, repr=False)

    @property
    def layers(self) -> int:
        """Switch layers inside a domain."""
        return self.scale_up.layers

    @property
    def domains(self) -> int:
        """Whole domains that the accelerators fill."""
        return self.accelerators // self.domain

    @property
    def usable(self) -> int:
        """Accelerators in whole domains; the rest are idle."""
        return self.domains * self.domain


def part_of(spec: ClusterSpec) -> catalogue.Accelerator:
    """Return the accelerator of a cluster, with the user's own figures.

    >>> part_of(parse({"accelerator": "h200", "accelerators": 8})).hbm_Bps
    4800000000000.0
    """
    base = own_part(dict(spec.own)) if spec.own else catalogue.accelerator(spec.accelerator)
    return catalogue.overridden(base, dict(spec.override))


def parse(data: Mapping[str, Any], file: str = "") -> ClusterSpec:
    """Check the content of a cluster file and fill in the defaults.

    Parameters
    ----------
    data : mapping
        The file's fields; quantities as text with units or as SI numbers, None for the default.
    file : str
        The name that faults carry.

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
    from clusters.specfile import check

    given = _without_blanks(data)
    values, faults, paths = check(given, file)
    if faults:
        values, *_ = check(_without(given, paths), file)
    part = _part(values)
    unmet = list(catalogue.unmet(part, values, file)) if part else []
    faults += [fault for fault in unmet if not follows(tuple(fault.field.split(".")), paths)]
    spec = _filled(values, part, file) if part and not unmet else None
    if spec is not None:
        faults = [*faults, *_clashes(spec, values, {path[: i + 1] for path in paths for i in range(len(path))}, file)]
    if faults or spec is None:
        raise SpecError(faults)
    return spec


def with_(spec: ClusterSpec, **changes: Any) -> ClusterSpec:
    """Return the spec with some fields changed; the defaults that depend on them follow.

    Sections merge (``scale_out={"nic": "800Gb/s"}``), ``**{"scale_out.nic": "800Gb/s"}`` says the same, and None puts
    a field back to its default.

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
    return replace(parse(fields), file=spec.file)


def load(path_or_name: str | Path) -> ClusterSpec:
    """Read a cluster file, or one of the systems of the catalogue by name.

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
        return _system(name)
    path = Path(path_or_name)
    if path.suffix not in (".yaml", ".yml") and not path.exists():
        remedy = catalogue.nearest(name, systems()) + "; or write the path of a cluster file"
        raise SpecError([Fault("cluster", str(path_or_name), "is neither a known system nor a file", remedy)])
    return parse(_read(path), str(path))


def systems() -> tuple[str, ...]:
    """Names of the systems that ship with the catalogue.

    >>> [name for name in systems() if name.startswith("hgx")]
    ['hgx-a100', 'hgx-b200', 'hgx-b300', 'hgx-h100', 'hgx-h200']
    """
    return tuple(sorted(path.stem for path in SYSTEMS.glob("*.yaml")))


def content(spec: ClusterSpec) -> dict[str, Any]:
    """All that tells a cluster from another: its fields and its accelerator's figures, as plain values."""
    fields = {key: value for key, value in asdict(spec).items() if key not in ("file", "written")}
    return {**fields, "figures": {key: figure.si for key, figure in part_of(spec).figures.items()}}


def fingerprint(spec: ClusterSpec) -> str:
    """SHA-256 of the canonical JSON of `content`: equal clusters share it, and any change changes it."""
    text = json.dumps(content(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _system(name: str) -> ClusterSpec:
    return _system_with(name, catalogue.overlay())


@lru_cache
def _system_with(name: str, _over: catalogue.Overlay) -> ClusterSpec:
    # The user's catalogue is in the key, for the defaults come from it.
    path = SYSTEMS / f"{name}.yaml"
    return parse(_read(path), path.name)


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


def _without(data: Mapping[str, Any], paths: list[tuple[str, ...]]) -> dict[str, Any]:
    """Copy of nested fields without those at the paths, or below them."""
    heads = {path[0] for path in paths if len(path) == 1}
    below = {key: [path[1:] for path in paths if path[0] == key and len(path) > 1] for key in data}
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


def _part(values: Mapping[str, Any]) -> catalogue.Accelerator | None:
    """Accelerator that checked fields name or describe, with the figures of `override`; None where there is none."""
    if "accelerator" not in values or "accelerators" not in values:
        return None
    given = values["accelerator"]
    base = own_part(given) if isinstance(given, Mapping) else catalogue.accelerator(given)
    return catalogue.overridden(base, values.get("override", {}).get("accelerator", {}))


def _filled(values: Mapping[str, Any], part: catalogue.Accelerator, file: str) -> ClusterSpec:
    """Spec of checked fields, with every default from the catalogue."""
    domain = values.get("domain", part.domain)
    figures = values.get("override", {}).get("accelerator", {})
    own = values["accelerator"] if isinstance(values["accelerator"], Mapping) else {}
    return ClusterSpec(
        name=values.get("name", f"{part.name}-x{values['accelerators']}"),
        accelerator=part.name,
        accelerators=values["accelerators"],
        domain=domain,
        scale_up=_scale_up(values.get("scale_up", {}), part, domain),
        scale_out=_scale_out(values.get("scale_out", {}), part, own.get("nic", part.nic)),
        override=tuple(sorted(figures.items())),
        own=tuple(sorted(own.items())),
        file=file,
        written=json.dumps(values, sort_keys=True),
    )


def _scale_up(up: Mapping[str, Any], part: catalogue.Accelerator, domain: int) -> ScaleUpSpec:
    """Defaults of the scale-up network: two layers where one layer of the part's switches does not reach.

    Where no switch of the link is public, one ideal switch takes any number of accelerators.
    """
    key = up.get("link", part.link)
    link = catalogue.link(key) if key else None
    chip = catalogue.switch(link.switch) if link and link.switch else None
    ports = chip.ports if chip else domain
    bandwidth_Bps = up.get("bandwidth", part.scale_up_Bps)
    one_layer = domain <= min(ports, up.get("inner", ports))
    layers = up.get("layers", 1 if one_layer else 2)
    inner = domain if layers == 1 else up.get("inner", largest_divisor(domain, ports))
    usual = part.switches if layers == 1 and domain == part.domain else None
    return ScaleUpSpec(
        bandwidth_Bps=bandwidth_Bps,
        latency_s=up.get("latency", link.latency_s if link else 0.0),
        layers=layers,
        inner=inner,
        oversubscription=up.get("oversubscription", 1.0),
        in_network_reduction=up.get("in_network_reduction", chip is not None and chip.in_network_reduction),
        link=link.name if link else "",
        switch=chip.name if chip else "",
        switches=usual or (chips(inner, _links(part, bandwidth_Bps, chip), chip.ports) if chip else 1),
    )


def _links(part: catalogue.Accelerator, bandwidth_Bps: float, chip: catalogue.Switch) -> int:
    """Scale-up links of an accelerator; where they are not public, as many of the switch's as carry the bandwidth."""
    return part.scale_up_links or max(1, math.ceil(bandwidth_Bps / chip.rate_Bps))


def _scale_out(out: Mapping[str, Any], part: catalogue.Accelerator, usual: str | float) -> ScaleOutSpec:
    """Defaults of the scale-out network: link and switch follow from the NIC, the radix from the switch.

    `usual` is the part's NIC, by its name or its rate.
    """
    given = out.get("nic", usual)
    nic = catalogue.nic(given) if isinstance(given, str) else catalogue.nic_for(given)
    rate_Bps = nic.rate_Bps if isinstance(given, str) else float(given)
    link = catalogue.link(out.get("link", nic.link))
    box = catalogue.switch(out.get("switch", link.switch))
    return ScaleOutSpec(
        nic=nic.name,
        nic_Bps=rate_Bps,
        nics_per_accelerator=out.get("nics_per_accelerator", 1.0 if "nic" in out else part.nics),
        rails=out.get("rails", part.rails),
        radix=out.get("radix", ports_at(box, rate_Bps)),
        levels=out.get("levels"),
        oversubscription=out.get("oversubscription", 1.0),
        link=link.name,
        latency_s=out.get("latency", link.latency_s),
        switch=box.name,
        switch_latency_s=box.latency_s or 0.0,
        in_network_reduction=out.get("in_network_reduction", False),
    )


def largest_divisor(size: int, most: int) -> int:
    """Return the largest proper divisor of `size` that is at most `most`.

    >>> largest_divisor(576, 72), largest_divisor(500, 72), largest_divisor(577, 72)
    (72, 50, 1)
    """
    return next((d for d in range(min(most, size - 1), 0, -1) if size % d == 0), 1)


def chips(block: int, links: int, ports: int) -> int:
    """Return the fewest switch chips that share each accelerator's links evenly and have ports for the whole block.

    A block too large for its links' chips gets one chip for each link.

    >>> chips(72, 18, 72), chips(8, 18, 72)
    (18, 2)
    """
    return next((n for n in range(1, links + 1) if links % n == 0 and block * (links // n) <= ports), links)


def ports_at(box: catalogue.Switch, rate_Bps: float) -> int:
    """Return the ports that a switch offers at a NIC's rate: split where the port is faster, ganged where slower.

    >>> ports_at(catalogue.switch("sn5600"), 50e9), ports_at(catalogue.switch("quantum-2"), 100e9)
    (128, 32)
    """
    if rate_Bps <= box.rate_Bps:
        return box.ports * int(box.rate_Bps // rate_Bps)
    return int(box.ports // (rate_Bps / box.rate_Bps))


def _clashes(spec: ClusterSpec, values: Mapping[str, Any], faulty: set[tuple[str, ...]], file: str) -> Iterator[Fault]:
    """Faults between fields; none is reported about a field that is faulty by itself."""
    up, out, domain = spec.scale_up, spec.scale_out, spec.domain
    given = values.get("scale_up", {})
    if not faulty & {("domain",), ("accelerators",), ("accelerator",)} and domain > spec.accelerators:
        remedy = f"buy at least {domain}, or write domain: {spec.accelerators}"
        problem = f"is fewer than one domain of {domain}"
        yield Fault("accelerators", spec.accelerators, problem, remedy, file)
    if not faulty & {("domain",), ("scale_up", "layers"), ("scale_up", "inner"), ("accelerator",)} and up.layers == 2:
        ports = catalogue.switch(up.switch).ports if up.switch else domain
        divisor = largest_divisor(domain, ports)
        if divisor == 1:
            problem = "cannot be cut into equal first-layer blocks for two switch layers"
            yield Fault("domain", domain, problem, _cuttable(domain, ports), file)
        elif "inner" in given and (domain % up.inner or up.inner >= domain):
            problem = f"does not cut the domain of {domain} into equal blocks"
            yield Fault("scale_up.inner", up.inner, problem, f"write {divisor}", file)
    ratios = out.oversubscription if isinstance(out.oversubscription, tuple) else ()
    if not faulty & {("scale_out", "levels"), ("scale_out", "oversubscription")} and len(ratios) > (out.levels or 3):
        problem = f"has more ratios than the {out.levels or 3} switching levels"
        yield Fault("scale_out.oversubscription", list(ratios), problem, "write one for each level", file)
    if not faulty & {("scale_out", "radix"), ("scale_out", "nics_per_accelerator")} and ports_each(out) < 2:
        problem = f"leaves no two ports per accelerator's {out.nics_per_accelerator:g} NICs"
        yield Fault("scale_out.radix", out.radix, problem, "take a switch with more ports", file)


def _cuttable(domain: int, ports: int) -> str:
    """Remedy for a domain that two switch layers cannot hold."""
    whole = max(2, round(domain / ports)) * ports
    return f"write {whole} ({whole // ports} blocks of {ports}), or scale_up: {{layers: 1}}"


def ports_each(out: ScaleOutSpec) -> int:
    """Return the ports of a switch, counted in accelerators: each takes as many as it has NICs."""
    return int(out.radix / out.nics_per_accelerator)
