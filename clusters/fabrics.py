"""The networks' parts: links, NICs and switches of `fabrics.yaml`, the user's own on top."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clusters.figures import (
    DATA,
    KEPT,
    Figure,
    Overlay,
    Table,
    figures_of,
    files_of,
    key_of,
    nearest,
    overlay,
    read_yaml,
    si_of,
    sources_with,
)
from topo.errors import Fault, SpecError


@dataclass(frozen=True, slots=True)
class Nic:
    """A network adapter; `rate_Bps` is one way. One that is `built_in` comes with its system and is not sold alone."""

    name: str
    title: str
    link: str
    built_in: bool
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
    """A kind of link: the key that tunings know it by, its usual switch (empty: none is published), the wire latency.

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


def find(kind: str, name: str, names: Mapping[str, str]) -> str:
    """Canonical name behind a name or alias; SpecError with the nearest where there is none."""
    key = key_of(name)
    if key in names:
        return names[key]
    remedy = nearest(key, dict.fromkeys(names.values()), names)
    raise SpecError([Fault(kind, name, f"no such {kind} in the catalogue", remedy)])


@lru_cache(KEPT)
def _fabrics(over: Overlay) -> dict[str, dict[str, dict[str, Any]]]:
    """Read the three sections of fabrics.yaml, the user's rows and figures on top."""
    tables: dict[str, dict[str, dict[str, Any]]] = {"links": {}, "nics": {}, "switches": {}}
    for path in (DATA / "fabrics.yaml", *files_of(over, "", "fabrics.yaml")):
        for section, rows in (read_yaml(path.read_text(encoding="utf-8")) or {}).items():
            for name, row in (rows or {}).items():
                old = tables[section].get(name, {})
                figures = {**old.get("figures", {}), **row.get("figures", {})}
                tables[section][name] = {**old, **row, "figures": figures}
    return tables


@lru_cache(3 * KEPT)
def _fabric_names(section: str, over: Overlay) -> dict[str, str]:
    """Name or alias -> name, of one section."""
    return {key: name for name, row in _fabrics(over)[section].items() for key in (name, *row.get("aliases", ()))}


def links() -> tuple[str, ...]:
    """Keys of the links."""
    return tuple(_fabrics(overlay())["links"])


def nics() -> tuple[str, ...]:
    """Names of the NICs."""
    return tuple(_fabrics(overlay())["nics"])


def switches() -> tuple[str, ...]:
    """Names of the switches."""
    return tuple(_fabrics(overlay())["switches"])


def link(name: str) -> Link:
    """Return the link of that key ("nvlink5", "ib-ndr" ...).

    >>> link("NVLink5").plane
    'scale-up'
    """
    over = overlay()
    return _link(find("link", name, _fabric_names("links", over)), over)


@lru_cache
def _link(name: str, over: Overlay) -> Link:
    row = _fabrics(over)["links"][name]
    figures = figures_of(row["figures"], sources_with(over))
    return Link(
        name=name,
        title=row["title"],
        plane=row["plane"],
        switch=row.get("switch", ""),
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
    over = overlay()
    return _nic(find("NIC", name, _fabric_names("nics", over)), over)


@lru_cache
def _nic(name: str, over: Overlay) -> Nic:
    row = _fabrics(over)["nics"][name]
    figures = figures_of(row["figures"], sources_with(over))
    return Nic(
        name=name,
        title=row["title"],
        link=row["link"],
        built_in=row.get("built_in", False),
        rate_Bps=figures["rate"].si,
        power_W=si_of(figures, "power"),
        price_usd=si_of(figures, "price"),
        figures=figures,
    )


def nic_for(rate_Bps: float) -> Nic:
    """Return the slowest NIC on sale that reaches a rate (one way), or else the fastest.

    >>> nic_for(50e9).name, nic_for(60e9).name
    ('connectx-7', 'connectx-8')
    """
    sold = (part for part in map(nic, nics()) if not part.built_in)
    by_rate = sorted(sold, key=lambda part: part.rate_Bps)
    return next((part for part in by_rate if part.rate_Bps >= rate_Bps), by_rate[-1])


def switch(name: str) -> Switch:
    """Return the switch of that name or alias.

    >>> switch("qm9700").ports
    64
    """
    over = overlay()
    return _switch(find("switch", name, _fabric_names("switches", over)), over)


@lru_cache
def _switch(name: str, over: Overlay) -> Switch:
    row = _fabrics(over)["switches"][name]
    figures = figures_of(row["figures"], sources_with(over))
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
