"""What clusters cost to rent, buy, house and feed: published figures with their ranges, and nothing computed."""

from functools import lru_cache
from typing import Any

from clusters.figures import DATA, KEPT, Figure, Overlay, Table, figures_of, overlay, read_yaml, sources_with


def economics() -> Table[Table[Figure]]:
    """Return the figures of `data/economics.yaml` by section: gpu_hour, capital, hosts, facility, optics.

    >>> economics()["facility"]["pue"].range
    (1.1, 1.58)
    """
    return _economics(overlay())


@lru_cache(KEPT)
def _economics(over: Overlay) -> Table[Table[Figure]]:
    sections = read_yaml((DATA / "economics.yaml").read_text(encoding="utf-8"))
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
        }
        for section, figures in economics().items()
        for key, figure in figures.items()
    ]
