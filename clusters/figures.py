"""Figures with their provenance: value, unit, source, tier, date, and the range where sources disagree."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from clusters.units import to_si

DATA: Final = Path(__file__).parent / "data"
V = TypeVar("V")


class Table(Mapping[str, V]):
    """A mapping that cannot change: hashable and picklable, unlike a dict or its proxy."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[str, V]] = ()) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> V:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


@dataclass(frozen=True, slots=True)
class Source:
    """Where figures come from. `tier`: vendor, code, paper, curated, measured, press, estimate, recalled or user."""

    key: str
    title: str
    url: str | None
    tier: str
    date: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One published number: value and unit as the source writes them, and the range where sources disagree."""

    value: float
    unit: str
    source: str
    tier: str
    date: str
    note: str = ""
    range: tuple[float, float] | None = None

    @property
    def si(self) -> float:
        """The value in SI units."""
        return to_si(self.value, self.unit)

    @property
    def verified(self) -> bool:
        """Whether the figure was read in its source; recalled ones want confirming before they are cited."""
        return self.tier != "recalled"


def read_yaml(text: str) -> Any:
    """Parse YAML with the C parser where it is there (it is several times faster)."""
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  (both are safe)


def key_of(name: str) -> str:
    """Kebab-case form of a name.

    >>> key_of(" H100_SXM ")
    'h100-sxm'
    """
    return re.sub(r"[\s_]+", "-", name.strip().lower())


def nearest(name: str, known: Iterable[str], aliases: Iterable[str] = ()) -> str:
    """Remedy for a misspelt name: the nearest of the known ones and of their aliases, and the list.

    >>> nearest("gb20", ["gb200", "h20"])
    'did you mean gb200? Known: gb200, h20'
    """
    from difflib import get_close_matches

    choices = list(known)
    guess = get_close_matches(name, [*choices, *aliases], n=1, cutoff=0.5)
    return (f"did you mean {guess[0]}? " if guess else "") + f"Known: {', '.join(choices)}"


@cache
def sources() -> Table[Source]:
    """Every source by key."""
    rows = read_yaml((DATA / "sources.yaml").read_text(encoding="utf-8"))
    return Table((key, Source(key, row["title"], row["url"], row["tier"], row["date"])) for key, row in rows.items())


def figures_of(rows: Mapping[str, Mapping[str, Any]]) -> Table[Figure]:
    """Figures of one part; tier and date are their source's."""
    known = sources()
    return Table(
        (
            key,
            Figure(
                value=row["value"],
                unit=row["unit"],
                source=row["source"],
                tier=known[row["source"]].tier,
                date=known[row["source"]].date,
                note=row.get("note", ""),
                range=tuple(row["range"]) if "range" in row else None,
            ),
        )
        for key, row in rows.items()
    )


def si_of(figures: Mapping[str, Figure], key: str) -> float | None:
    """SI value of a figure, None where there is none."""
    return figures[key].si if key in figures else None
