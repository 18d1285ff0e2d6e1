"""What clusters cost to rent, buy, house and feed, and what hosts charge for tokens: published, and nothing computed."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clusters.catalogue import key_of, nearest
from clusters.figures import (
    DATA,
    KEPT,
    Figure,
    Overlay,
    Source,
    Table,
    figures_of,
    files_of,
    overlay,
    read_yaml,
    sources_with,
)
from topo.errors import Fault, SpecError


@dataclass(frozen=True, slots=True)
class Listing:
    """What a host charges in dollars for a million tokens, from a day on; `hit_usd` where it sells cached ones cheaper."""

    name: str
    host: str
    model: str
    since: str
    until: str
    input_usd: float
    output_usd: float
    hit_usd: float | None
    source: Source
    figures: Table[Figure]


def economics() -> Table[Table[Figure]]:
    """Return the figures of `data/economics.yaml` by section, the user's own on top: gpu_hour, capital, hosts and so on.

    >>> economics()["facility"]["pue"].range
    (1.1, 1.58)
    """
    return _economics(overlay())


@lru_cache(KEPT)
def _economics(over: Overlay) -> Table[Table[Figure]]:
    sections: dict[str, dict[str, Any]] = {}
    for path in (DATA / "economics.yaml", *files_of(over, "", "economics.yaml")):
        for name, rows in (read_yaml(path.read_text(encoding="utf-8")) or {}).items():
            sections[name] = {**sections.get(name, {}), **rows}
    known = sources_with(over)
    return Table((name, figures_of(rows, known)) for name, rows in sections.items())


def economics_rows() -> list[dict[str, Any]]:
    """One row per figure, as its source writes it."""
    return [
        {
            "name": f"{section}/{key}",
            "value": figure.value,
            "low": figure.range[0] if figure.range else None,
            "high": figure.range[1] if figure.range else None,
            "unit": figure.unit,
            "tier": figure.tier,
            "date": figure.date,
            "source": figure.source,
            "note": figure.note,
        }
        for section, figures in economics().items()
        for key, figure in figures.items()
    ]


@lru_cache(1)
def listings() -> Table[Listing]:
    """Return the prices of `data/prices.yaml` by name, oldest first.

    >>> listings()["deepseek-2025-09"].output_usd
    1.68
    """
    document = read_yaml((DATA / "prices.yaml").read_text(encoding="utf-8"))
    known = {
        key: Source(key, row["title"], row["url"], row["tier"], str(row["date"]))
        for key, row in document["sources"].items()
    }
    read = [_listing(name, row, known) for name, row in document["listings"].items()]
    return Table((one.name, one) for one in sorted(read, key=lambda one: one.since))


def _listing(name: str, row: dict[str, Any], known: dict[str, Source]) -> Listing:
    """Read one listing."""
    figures = figures_of(row["figures"], known)
    asked = {f"{key}_usd": figures[key].value for key in ("input", "output")}
    return Listing(
        name,
        row["host"],
        row["model"],
        row["since"],
        row.get("until", ""),
        **asked,
        hit_usd=figures["hit"].value if "hit" in figures else None,
        source=known[figures["input"].source],
        figures=figures,
    )


def listing(name: str) -> Listing:
    """Return the listing of that name.

    Raises
    ------
    SpecError
        There is none; the remedy names the nearest.
    """
    key = key_of(name)
    if key not in listings():
        raise SpecError([Fault("listing", name, "is no listed price", nearest(key, tuple(listings())))])
    return listings()[key]
