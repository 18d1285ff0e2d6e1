"""What exists: accelerators, NICs, switches and links, each figure with its unit, source, tier and date.

The data lie in ``clusters/data``: `accelerators/*.yaml` (one document per part), `fabrics.yaml`, and `sources.yaml`,
the table of sources. Peaks are dense FLOP/s, bandwidths one way, and one package is one accelerator. Names are
kebab-case; case, ``_`` and aliases ("h100") do not matter on input, and a misspelt name gets the nearest.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from clusters.figures import DATA, Figure, Source, Table, figures_of, key_of, nearest, read_yaml, si_of, sources
from topo.errors import Fault, SpecError

__all__ = [
    "DATA",
    "OVERRIDES",
    "Accelerator",
    "Figure",
    "Link",
    "Nic",
    "Source",
    "Switch",
    "Table",
    "accelerator",
    "accelerator_rows",
    "cost",
    "fabric_rows",
    "key_of",
    "link",
    "links",
    "names",
    "nearest",
    "nic",
    "nic_for",
    "nics",
    "overridden",
    "read_yaml",
    "sources",
    "switch",
    "switches",
]

OVERRIDES: Final = MappingProxyType(
    {
        "hbm_bandwidth": "bandwidth",
        "hbm_capacity": "bytes",
        "sram": "bytes",
        "host_bandwidth": "bandwidth",
        "power": "power",
        "price": "price",
        **{f"peak_{precision}": "flops" for precision in ("fp32", "tf32", "bf16", "int8", "fp8", "fp4")},
    }
)
"""Accelerator figures that a cluster file may override -> their dimension."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One package: what it computes, holds and talks, and how its maker usually wires it (`domain` and below).

    `peak_flops` maps a precision ("bf16", "fp8" ...) to dense FLOP/s and lacks the precisions the part has not.
    """

    name: str
    title: str
    vendor: str
    generation: str
    year: int
    peak_flops: Table[float]
    hbm_bytes: float
    hbm_Bps: float
    sram_bytes: float
    scale_up_Bps: float
    scale_up_links: int
    host_Bps: float
    power_W: float | None
    price_usd: float | None
    link: str
    domain: int
    switches: int
    rails: int
    nic: str
    figures: Table[Figure]


@dataclass(frozen=True, slots=True)
class Nic:
    """A network adapter; `rate_Bps` is one way."""

    name: str
    title: str
    link: str
    rate_Bps: float
    power_W: float | None
    price_usd: float | None
    figures: Table[Figure]


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch: a chip on the scale-up plane, a box on the scale-out plane."""

    name: str
    title: str
    ports: int
    rate_Bps: float
    latency_s: float | None
    in_network_reduction: bool
    power_W: float | None
    price_usd: float | None
    figures: Table[Figure]


@dataclass(frozen=True, slots=True)
class Link:
    """A kind of link: the key that tunings know it by, its usual switch, and the wire latency.

    `latency_s` is accelerator to accelerator through one switch on the scale-up plane, and one cable with its
    NIC or transceivers on the scale-out plane. Watts and dollars are those of one cable's two ends.
    """

    name: str
    title: str
    plane: str
    switch: str
    latency_s: float
    rate_Bps: float | None
    power_W: float | None
    price_usd: float | None
    figures: Table[Figure]


def _find(kind: str, name: str, names: Mapping[str, str]) -> str:
    """Canonical name behind a name or alias; SpecError with the nearest where there is none."""
    key = key_of(name)
    if key in names:
        return names[key]
    remedy = nearest(key, dict.fromkeys(names.values()), names)
    raise SpecError([Fault(kind, name, f"no such {kind} in the catalogue", remedy)])


@cache
def _documents() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Accelerator name -> (its YAML document, aliases). Only the document asked for is parsed, which keeps it quick."""
    found = {}
    for path in sorted((DATA / "accelerators").glob("*.yaml")):
        for text in path.read_text(encoding="utf-8").split("\n---\n"):
            name = re.search(r"^name: (\S+)$", text, re.MULTILINE)
            aliases = re.search(r"^aliases: \[(.*)\]$", text, re.MULTILINE)
            if name:
                found[name[1]] = (text, tuple(re.split(r",\s*", aliases[1])) if aliases else ())
    return found


@cache
def _accelerator_names() -> dict[str, str]:
    """Name or alias -> name."""
    return {key: name for name, (_, aliases) in _documents().items() for key in (name, *aliases)}


def names() -> tuple[str, ...]:
    """Names of the accelerators in the catalogue, oldest first."""
    return tuple(_documents())


def accelerator(name: str) -> Accelerator:
    """Return the accelerator of that name or alias.

    Raises
    ------
    SpecError
        No such part; the remedy names the nearest.

    Examples
    --------
    >>> accelerator("H100").name, accelerator("gb200").hbm_Bps
    ('h100-sxm', 8000000000000.0)
    """
    return _accelerator(_find("accelerator", name, _accelerator_names()))


@cache
def _accelerator(name: str) -> Accelerator:
    """Parse one document."""
    head = read_yaml(_documents()[name][0])
    return _assemble(head, figures_of(head["figures"]))


def _assemble(head: Mapping[str, Any], figures: Table[Figure]) -> Accelerator:
    """Accelerator of a catalogue entry's words and figures."""
    return Accelerator(
        name=head["name"],
        title=head["title"],
        vendor=head["vendor"],
        generation=head["generation"],
        link=head["link"],
        nic=head["nic"],
        year=int(figures["year"].si),
        peak_flops=Table((k.removeprefix("peak_"), f.si) for k, f in figures.items() if k.startswith("peak_")),
        hbm_bytes=figures["hbm_capacity"].si,
        hbm_Bps=figures["hbm_bandwidth"].si,
        sram_bytes=figures["sram"].si,
        scale_up_Bps=figures["scale_up_bandwidth"].si,
        scale_up_links=int(figures["scale_up_links"].si),
        host_Bps=figures["host_bandwidth"].si,
        power_W=si_of(figures, "power"),
        price_usd=si_of(figures, "price"),
        domain=int(figures["domain"].si),
        switches=int(figures["switches"].si),
        rails=int(figures["rails"].si),
        figures=figures,
    )


def overridden(part: Accelerator, values: Mapping[str, float]) -> Accelerator:
    """Return the accelerator with the user's figures (SI values by the keys of `OVERRIDES`) in place of its own.

    >>> overridden(accelerator("h100"), {"hbm_bandwidth": 8e12}).hbm_Bps
    8000000000000.0
    """
    units = {"bandwidth": "B/s", "bytes": "B", "flops": "FLOP/s", "power": "W", "price": "USD"}
    mine = {
        key: Figure(value, units[OVERRIDES[key]], "override", "user", "", "set in the cluster file")
        for key, value in values.items()
    }
    head = {key: getattr(part, key) for key in ("name", "title", "vendor", "generation", "link", "nic")}
    return _assemble(head, Table({**part.figures, **mine}.items()))


@cache
def _fabrics() -> dict[str, dict[str, dict[str, Any]]]:
    """Read the three sections of fabrics.yaml."""
    return dict(read_yaml((DATA / "fabrics.yaml").read_text(encoding="utf-8")))


@cache
def _fabric_names(section: str) -> dict[str, str]:
    """Name or alias -> name, of one section."""
    return {key: name for name, row in _fabrics()[section].items() for key in (name, *row.get("aliases", ()))}


def links() -> tuple[str, ...]:
    """Keys of the links."""
    return tuple(_fabrics()["links"])


def nics() -> tuple[str, ...]:
    """Names of the NICs, slowest first."""
    return tuple(_fabrics()["nics"])


def switches() -> tuple[str, ...]:
    """Names of the switches."""
    return tuple(_fabrics()["switches"])


def link(name: str) -> Link:
    """Return the link of that key ("nvlink5", "ib-ndr" ...).

    >>> link("NVLink5").plane
    'scale-up'
    """
    return _link(_find("link", name, _fabric_names("links")))


@cache
def _link(name: str) -> Link:
    row = _fabrics()["links"][name]
    figures = figures_of(row["figures"])
    return Link(
        name=name,
        title=row["title"],
        plane=row["plane"],
        switch=row["switch"],
        latency_s=figures["latency"].si,
        rate_Bps=si_of(figures, "rate"),
        power_W=si_of(figures, "power"),
        price_usd=si_of(figures, "price"),
        figures=figures,
    )


def nic(name: str) -> Nic:
    """Return the NIC of that name or alias.

    >>> nic("cx7").rate_Bps
    50000000000.0
    """
    return _nic(_find("NIC", name, _fabric_names("nics")))


@cache
def _nic(name: str) -> Nic:
    row = _fabrics()["nics"][name]
    figures = figures_of(row["figures"])
    power_W, price_usd = si_of(figures, "power"), si_of(figures, "price")
    return Nic(name, row["title"], row["link"], figures["rate"].si, power_W, price_usd, figures)


def nic_for(rate_Bps: float) -> Nic:
    """Return the slowest NIC of the catalogue that reaches a rate (one way), or else the fastest.

    >>> nic_for(50e9).name, nic_for(60e9).name
    ('connectx-7', 'connectx-8')
    """
    by_rate = sorted((nic(name) for name in nics()), key=lambda part: part.rate_Bps)
    return next((part for part in by_rate if part.rate_Bps >= rate_Bps), by_rate[-1])


def switch(name: str) -> Switch:
    """Return the switch of that name or alias.

    >>> switch("qm9700").ports
    64
    """
    return _switch(_find("switch", name, _fabric_names("switches")))


@cache
def _switch(name: str) -> Switch:
    row = _fabrics()["switches"][name]
    figures = figures_of(row["figures"])
    return Switch(
        name=name,
        title=row["title"],
        ports=int(figures["ports"].si),
        rate_Bps=figures["rate"].si,
        latency_s=si_of(figures, "latency"),
        in_network_reduction=row["in_network_reduction"],
        power_W=si_of(figures, "power"),
        price_usd=si_of(figures, "price"),
        figures=figures,
    )


def cost(part: str) -> tuple[float | None, float | None]:
    """Watts and dollars of one part (accelerator, NIC, switch or link), None where the catalogue does not know.

    >>> cost("gb200"), cost("no such part")
    ((1200.0, 35000.0), (None, None))
    """
    makers = {_accelerator: names, _nic: nics, _switch: switches, _link: links}
    for make, known in makers.items():
        if part in known():
            found: Any = make(part)
            return found.power_W, found.price_usd
    return None, None


def accelerator_rows() -> list[dict[str, Any]]:
    """One row per accelerator with its key figures in SI units."""
    keys = ("title", "vendor", "generation", "year", "hbm_bytes", "hbm_Bps", "scale_up_Bps", "link", "domain")
    rows = []
    for part in map(accelerator, names()):
        peaks = {f"{precision}_flops": part.peak_flops.get(precision) for precision in ("bf16", "fp8", "fp4")}
        row = {key: getattr(part, key) for key in keys}
        rows.append({"name": part.name, **row, **peaks, "power_W": part.power_W, "price_usd": part.price_usd})
    return rows


def fabric_rows() -> list[dict[str, Any]]:
    """One row per link, NIC and switch with its key figures in SI units."""
    keys = ("title", "rate_Bps", "latency_s", "ports", "power_W", "price_usd")
    parts: list[tuple[str, Link | Nic | Switch]] = [
        *(("link", link(name)) for name in links()),
        *(("nic", nic(name)) for name in nics()),
        *(("switch", switch(name)) for name in switches()),
    ]
    return [
        {"name": part.name, "kind": kind, **{key: getattr(part, key, None) for key in keys}} for kind, part in parts
    ]
