"""What clusters cost to rent, buy, house and feed: published figures with their ranges, and nothing computed."""

from functools import lru_cache
from typing import Any

from clusters.figures import DATA, KEPT, Figure, Overlay, Table, figures_of, files_of, overlay, read_yaml, sources_with


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
