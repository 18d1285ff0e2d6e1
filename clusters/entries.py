"""What a catalogue file may hold, and every fault of one: the shipped files and a user's own obey the same tables.

A user's catalogue is a folder of the layout of ``clusters/data``::

    accelerators/*.yaml   one document per part; a name that exists overrides that part figure by figure
    fabrics.yaml          links, NICs and switches, likewise
    memories.yaml         memory beyond the accelerator's own, likewise
    economics.yaml        rents, prices, watts and rates, figure by figure
    sources.yaml          where the user's figures come from
    kernels.yaml          fitted constants (`clusters.overlay`)
"""

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from clusters.figures import DATA, KEPT, Overlay, files_of, nearest, read_yaml
from clusters.units import EXAMPLES, UNITS
from topo.errors import Fault, SpecError

TIERS: Final = ("vendor", "code", "paper", "curated", "measured", "press", "estimate", "recalled", "user")
"""How far to trust a source, best first; `user` is for figures of one's own."""

TOPOLOGIES: Final = ("torus axes", "mesh peers", "dragonfly hops", "direct links")
"""Units of `scale_up_topology`: the first word is the kind of wiring, the value its size."""

WORDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "year": ("year",),
        "links": ("links",),
        "accelerators": ("accelerators",),
        "switches": ("switches",),
        "rails": ("rails",),
        "NICs": ("NICs",),
        "ports": ("ports",),
        "topology": TOPOLOGIES,
        "price of a byte": ("USD/GB",),
    }
)
"""Dimension -> its units, for those that `clusters.units` does not scale."""

ECONOMICS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "gpu_hour": ("USD/h",),
        "capital": ("USD", "of capital", "years", "per year"),
        "hosts": ("W",),
        "facility": ("ratio", "of IT power", "USD/kWh", "USD/kW-month"),
        "optics": ("USD", "W"),
        "operations": ("accelerator-hours", "B/s"),
    }
)
"""Section of economics.yaml -> units of its figures."""

_COST: Final = {"power": "power", "price": "price"}
FIGURES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "accelerators": {
            "year": "year",
            **{f"peak_{precision}": "flops" for precision in ("fp32", "tf32", "bf16", "int8", "fp8", "fp4")},
            "hbm_capacity": "bytes",
            "hbm_bandwidth": "bandwidth",
            "sram": "bytes",
            **_COST,
            "scale_up_bandwidth": "bandwidth",
            "scale_up_links": "links",
            "scale_up_topology": "topology",
            "domain": "accelerators",
            "switches": "switches",
            "rails": "rails",
            "nics": "NICs",
            "host_bandwidth": "bandwidth",
        },
        "links": {"rate": "bandwidth", "latency": "seconds", **_COST},
        "nics": {"rate": "bandwidth", **_COST},
        "switches": {"ports": "ports", "rate": "bandwidth", "latency": "seconds", **_COST},
        "memories": {
            "bandwidth": "bandwidth",
            "capacity": "bytes",
            "latency": "seconds",
            "price": "price of a byte",
        },
    }
)
"""Kind of part -> figure -> its dimension."""

HEADS: Final[Mapping[str, Mapping[str, type]]] = MappingProxyType(
    {
        "accelerators": dict.fromkeys(("name", "title", "vendor", "generation", "link", "nic"), str),
        "links": dict.fromkeys(("title", "plane", "switch"), str),
        "nics": {"title": str, "link": str, "built_in": bool},
        "switches": {"title": str, "in_network_reduction": bool},
        "memories": dict.fromkeys(("title", "kind", "per", "accelerator"), str),
    }
)
"""Kind of part -> its words and flags; all may have `figures` too, and `aliases` all but memories."""

CHOICES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "links": {"plane": ("scale-up", "scale-out")},
        "memories": {"kind": ("hbm", "host", "pool", "flash", "disk"), "per": ("accelerator", "device")},
    }
)
"""Kind of part -> word -> what it may be."""

NEEDED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "accelerators": ("name", "title", "vendor", "generation", "figures.year"),
        "links": ("title", "plane", "figures.latency"),
        "nics": ("title", "link", "figures.rate"),
        "switches": ("title", "in_network_reduction", "figures.ports", "figures.rate"),
        "memories": ("title", "kind", "per", "figures.bandwidth", "figures.capacity"),
    }
)
"""Kind of part -> what a new one cannot do without; one that overrides may leave out anything."""

REFERENCES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "accelerators": {"link": "links", "nic": "nics"},
        "links": {"switch": "switches"},
        "nics": {"link": "links"},
        "memories": {"accelerator": "accelerators"},
    }
)
"""Kind of part -> word -> the kind that it names a part of."""

FIGURE_KEYS: Final = ("value", "unit", "source", "range", "note")
SOURCE_KEYS: Final = ("title", "url", "tier", "date")
TOP_FILES: Final = ("fabrics.yaml", "memories.yaml", "economics.yaml", "sources.yaml", "kernels.yaml")


@lru_cache(KEPT)
def check(folder: str, over: Overlay) -> None:
    """Check every file of a user's catalogue.

    Raises
    ------
    SpecError
        With every fault of every file: field, value, remedy.
    """
    faults = list(_folder_faults(folder, over))
    own = files_of(over, "", "sources.yaml")
    known = {**_sections(DATA / "sources.yaml", []), **{k: v for p in own for k, v in _sections(p, faults).items()}}
    for path in own:
        faults += source_faults(_sections(path, []), str(path))
    parts = (files_of(over, "", "fabrics.yaml"), files_of(over, "accelerators"), files_of(over, "", "memories.yaml"))
    faults += part_faults(parts[0], parts[1], known, parts[2])
    accelerators = {
        str(held.get("name")) for path in parts[1] for held in _parts_in(path, [])
    } | _shipped_accelerators()
    for path in files_of(over, "", "economics.yaml"):
        faults += economics_faults(_sections(path, faults), known, str(path), accelerators)
    if faults:
        raise SpecError(faults)


def _folder_faults(folder: str, over: Overlay) -> Iterator[Fault]:
    """Yield what is wrong with the folder itself."""
    root = Path(folder)
    if not root.is_dir():
        remedy = "set PODSCALE_CATALOGUE to a folder such as examples/catalogue"
        yield Fault("PODSCALE_CATALOGUE", folder, "is no folder", remedy)
    for path in (Path(name) for name, _ in over):
        parts = path.relative_to(root).parts
        if len(parts) != 1 + (parts[0] == "accelerators") or (len(parts) == 1 and parts[0] not in TOP_FILES):
            remedy = f"put it into accelerators/, or name it one of {', '.join(TOP_FILES)}"
            yield Fault("file", None, "is not read", remedy, str(path))


def part_faults(
    fabrics: list[Path], accelerators: list[Path], known: Mapping[str, Any], memories: list[Path] | None = None
) -> list[Fault]:
    """Return the faults of files of parts, whose references may point to each other or into the shipped catalogue."""
    faults: list[Fault] = []
    shipped = _sections(DATA / "fabrics.yaml", [])
    names = {section: {*(shipped.get(section) or {})} for section in ("links", "nics", "switches")}
    names |= {"accelerators": _shipped_accelerators(), "memories": {*_sections(DATA / "memories.yaml", [])}}
    entries: list[tuple[str, str, Mapping[str, Any], str]] = []
    for path in fabrics:
        for section, rows in _sections(path, faults).items():
            if section not in shipped or not isinstance(rows, Mapping):
                remedy = "write sections links, nics and switches of named parts"
                faults.append(Fault(str(section), None, "is no section of fabrics.yaml", remedy, str(path)))
                continue
            entries += [(section, str(name), row, str(path)) for name, row in rows.items()]
    for path in memories or ():
        entries += [("memories", str(name), row, str(path)) for name, row in _sections(path, faults).items()]
    for path in accelerators:
        for document in _parts_in(path, faults):
            entries.append(("accelerators", str(document.get("name") or "accelerator"), document, str(path)))
    new = {section: {name for kind, name, *_ in entries if kind == section} - held for section, held in names.items()}
    everything = {section: held | new[section] for section, held in names.items()}
    for kind, name, entry, file in entries:
        faults += _entry_faults(kind, name, entry, file, everything, known, name in new[kind])
    return faults


def economics_faults(
    sections: Mapping[str, Any], known: Mapping[str, Any], file: str, accelerators: Collection[str]
) -> Iterator[Fault]:
    """Yield what is wrong with a file of prices and rates: a figure that ships keeps its unit, a rent is of a part."""
    shipped = _sections(DATA / "economics.yaml", [])
    for section, rows in sections.items():
        if section not in ECONOMICS:
            yield Fault(str(section), None, "is no section of economics.yaml", nearest(str(section), ECONOMICS), file)
            continue
        if not isinstance(rows, Mapping):
            yield Fault(section, None, "holds no figures", "write {name: {value: 1, unit: USD, source: mine}}", file)
            continue
        for key, row in rows.items():
            if section == "gpu_hour" and key not in accelerators:
                remedy = nearest(str(key), sorted(accelerators))
                yield Fault(f"{section}.{key}", None, "is none of the accelerators", remedy, file)
            held = shipped[section].get(key)
            units = (held["unit"],) if held else ECONOMICS[section]
            yield from _figure_faults(section, units, units[0], row, f"{section}.{key}", file, known)


def source_faults(rows: Mapping[str, Any], file: str) -> Iterator[Fault]:
    """Yield what is wrong with a table of sources."""
    for key, row in rows.items():
        if not isinstance(row, Mapping):
            yield Fault(str(key), None, "holds no fields", f"write {', '.join(SOURCE_KEYS)}", file)
            continue
        for stray in row.keys() - {*SOURCE_KEYS}:
            yield Fault(f"{key}.{stray}", row[stray], "is no field of a source", nearest(str(stray), SOURCE_KEYS), file)
        for field in ("title", "tier", "date"):
            if not row.get(field):
                yield Fault(f"{key}.{field}", None, "is missing", f"write the source's {field}", file)
        if row.get("tier") and row["tier"] not in TIERS:
            yield Fault(f"{key}.tier", row["tier"], "is no tier", nearest(str(row["tier"]), TIERS), file)


def _entry_faults(
    kind: str,
    name: str,
    entry: Any,
    file: str,
    everything: Mapping[str, set[str]],
    known: Mapping[str, Any],
    is_new: bool,
) -> Iterator[Fault]:
    """Yield what is wrong with one part."""
    if not isinstance(entry, Mapping):
        yield Fault(name, entry, "holds no fields", "write title, figures and so on under it", file)
        return
    yield from _head_faults(kind, name, entry, file)
    for field, section in REFERENCES.get(kind, {}).items():
        if isinstance(entry.get(field), str) and entry[field] not in everything[section]:
            remedy = nearest(entry[field], sorted(everything[section]))
            yield Fault(f"{name}.{field}", entry[field], f"is none of the {section}", remedy, file)
    figures = entry.get("figures") or {}
    if not isinstance(figures, Mapping):
        yield Fault(f"{name}.figures", None, "holds no figures", "write {value: 1, unit: GB/s, source: mine}", file)
        return
    if is_new:
        held = {*entry, *(f"figures.{key}" for key in figures)}
        held |= {"figures.bandwidth", "figures.capacity"} if "accelerator" in entry else set()  # those of its memory
        missing = [field for field in NEEDED[kind] if field not in held]
        yield from (Fault(f"{name}.{field}", None, "is missing", "a new part needs it", file) for field in missing)
        if kind == "links":
            yield from _family_faults(name, file)
    for key, row in figures.items():
        where, dimension = f"{name}.figures.{key}", FIGURES[kind].get(str(key))
        if dimension is None:
            yield Fault(where, None, f"is no figure of {kind}", nearest(str(key), FIGURES[kind]), file)
            continue
        units = WORDS.get(dimension) or tuple(unit for unit in UNITS[dimension] if unit)
        yield from _figure_faults(dimension, units, EXAMPLES.get(dimension, units[0]), row, where, file, known)


def _head_faults(kind: str, name: str, entry: Mapping[str, Any], file: str) -> Iterator[Fault]:
    """Yield what is wrong with the words and flags of a part."""
    heads = HEADS[kind]
    fields = (*heads, *(("aliases",) if kind != "memories" else ()), "figures")
    for field in entry.keys() - {*fields}:
        yield Fault(f"{name}.{field}", entry[field], "is no field here", nearest(str(field), fields), file)
    for field in heads.keys() & entry.keys():
        if not isinstance(entry[field], heads[field]) or entry[field] == "":
            wanted = "true or false" if heads[field] is bool else "text"
            yield Fault(f"{name}.{field}", entry[field], f"is not {wanted}", f"write {wanted}", file)
    if "aliases" in entry and not isinstance(entry["aliases"], list):
        yield Fault(f"{name}.aliases", entry["aliases"], "is no list", "write [one, two]", file)
    for field, choices in CHOICES.get(kind, {}).items():
        if entry.get(field, choices[0]) not in choices:
            yield Fault(f"{name}.{field}", entry[field], f"is no {field}", f"write {' or '.join(choices)}", file)


def _figure_faults(
    what: str, units: tuple[str, ...], example: str, row: Any, where: str, file: str, known: Mapping[str, Any]
) -> Iterator[Fault]:
    """Yield what is wrong with one figure of `what`, which is written in one of some units."""
    if not isinstance(row, Mapping):
        yield Fault(where, row, "is no figure", "write {value: 1, unit: " + units[0] + ", source: mine}", file)
        return
    for stray in row.keys() - {*FIGURE_KEYS}:
        yield Fault(f"{where}.{stray}", row[stray], "is no field of a figure", nearest(str(stray), FIGURE_KEYS), file)
    value = row.get("value")
    if not _positive(value):
        yield Fault(f"{where}.value", value, "is no positive number", "leave an unpublished figure out", file)
    if row.get("unit") not in units:
        problem = "is missing" if row.get("unit") is None else f"is no unit of {what}"
        yield Fault(f"{where}.unit", row.get("unit"), problem, f"write it as in {example}", file)
    if row.get("source") not in known:
        problem = "is missing" if row.get("source") is None else "is not in sources.yaml"
        remedy = "name a key of the catalogue's sources, or add one to sources.yaml beside"
        yield Fault(f"{where}.source", row.get("source"), problem, remedy, file)
    spread = row.get("range")
    if spread is not None and not (
        isinstance(spread, list)
        and len(spread) == 2
        and all(map(_positive, spread))
        and (not _positive(value) or spread[0] <= value <= spread[1])
    ):
        yield Fault(f"{where}.range", str(spread), "does not enclose the value", "write [low, high]", file)


def _family_faults(name: str, file: str) -> Iterator[Fault]:
    """Yield a fault if no measured link stands in for a new one."""
    from clusters.tunings import FAMILIES

    if not name.startswith(tuple(FAMILIES)):
        remedy = f"start its name with the family whose constants stand in: {', '.join(FAMILIES)}"
        yield Fault(name, None, "is of no known family of links", remedy, file)


def _positive(value: Any) -> bool:
    """Whether a value is a number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _text(path: Path, faults: list[Fault]) -> str:
    """Return a file's text, empty with a fault where it has none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        faults.append(Fault("file", None, "cannot be read as text", "write YAML", str(path)))
        return ""


def _parsed(text: str, path: Path, faults: list[Fault]) -> dict[str, Any]:
    """Return a document's fields, none with a fault where it is no YAML."""
    import yaml

    try:
        found = read_yaml(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "cannot be parsed"
        faults.append(Fault("file", None, f"is not YAML: {problem}", "mend it", str(path)))
        return {}
    if found is not None and not isinstance(found, dict):
        faults.append(Fault("file", None, "holds no fields", "write fields", str(path)))
    return found if isinstance(found, dict) else {}


def _parts_in(path: Path, faults: list[Fault]) -> list[dict[str, Any]]:
    """Return the documents of a file of accelerators."""
    from clusters.catalogue import documents

    return [held for text in documents(_text(path, faults)) if (held := _parsed(text, path, faults))]


def _sections(path: Path, faults: list[Fault]) -> dict[str, Any]:
    """Return the fields of a file of one document."""
    return _parsed(_text(path, faults), path, faults)


@lru_cache(1)
def _shipped_accelerators() -> set[str]:
    """Return the names of the accelerators that ship."""
    from clusters.catalogue import names_with

    return {*names_with(())}
