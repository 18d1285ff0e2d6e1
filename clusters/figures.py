"""Figures with their provenance: value, unit, source, tier, date, and the range where sources disagree."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

from clusters.units import to_si
from topo.errors import Fault, SpecError

DATA: Final = Path(__file__).parent / "data"
VARIABLE: Final = "PODSCALE_CATALOGUE"
"""Environment variable that names the folder of the user's own catalogue."""
SI: Final = {"bandwidth": "B/s", "bytes": "B", "flops": "FLOP/s", "power": "W", "price": "USD", "count": ""}
"""Dimension -> its SI unit, as figures write it."""
KEPT: Final = 8
"""Catalogues kept: the shipped one, and the last of the user's."""
Overlay = tuple[tuple[str, int], ...]
"""Files of the user's catalogue, each with its time of change; empty where there is none."""
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


STATED: Final = Source("override", "set in the cluster file", None, "user", "")
"""Where figures come from that a cluster file gives itself."""


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


def own_file(variable: str, name: str) -> str:
    """Path of a file of the reader's own: as an environment variable says, or by its name in their catalogue's folder."""
    if own := os.environ.get(variable, ""):
        return own
    folder = os.environ.get("PODSCALE_CATALOGUE", "")
    beside = Path(folder) / name
    return str(beside) if folder and beside.is_file() else ""


def own_part(file: str, variable: str, part: str, remedy: str) -> dict[str, Any]:
    """One section of a file of the reader's own.

    Raises
    ------
    SpecError
        When the file cannot be read, or the section is missing or empty.
    """
    import yaml

    try:
        document = read_yaml(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as why:
        problem = f"cannot be read: {getattr(why, 'strerror', None) or str(why).splitlines()[0]}"
        raise SpecError([Fault(variable, None, problem, remedy, file)]) from None
    found = document.get(part) if isinstance(document, dict) else None
    if not isinstance(found, dict) or not found:
        raise SpecError([Fault(part, None, "is missing or empty", remedy, file)])
    return found


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


def overlay() -> Overlay:
    """Return the files of the user's catalogue, in the folder that `VARIABLE` names, checked once for each change.

    Raises
    ------
    SpecError
        With every fault of every file.
    """
    folder = os.environ.get(VARIABLE, "").strip()
    if not folder:
        return ()
    from clusters.entries import check

    files = sorted(path for path in Path(folder).rglob("*") if path.suffix in (".yaml", ".yml") and path.is_file())
    found = tuple((str(path), path.stat().st_mtime_ns) for path in files)
    check(folder, found)
    return found


def files_of(over: Overlay, folder: str, name: str = "") -> list[Path]:
    """Return the user's files of one folder, or of one name in the top folder."""
    paths = [Path(path) for path, _ in over]
    return [p for p in paths if (p.name == name if name else p.parent.name == folder)]


def entries_of(over: Overlay, name: str) -> dict[str, dict[str, Any]]:
    """Return the entries of one file of the catalogue by name, the user's words and figures on top."""
    found: dict[str, dict[str, Any]] = {}
    for path in (DATA / name, *files_of(over, "", name)):
        for key, row in (read_yaml(path.read_text(encoding="utf-8")) or {}).items():
            old = found.get(key, {})
            found[key] = {**old, **row, "figures": {**old.get("figures", {}), **row.get("figures", {})}}
    return found


def sources() -> Table[Source]:
    """Every source by key, the user's own included."""
    return sources_with(overlay())


@lru_cache(KEPT)
def sources_with(over: Overlay) -> Table[Source]:
    """Every source by key, those of the user's files on top."""
    rows = {}
    for path in (DATA / "sources.yaml", *files_of(over, "", "sources.yaml")):
        rows.update(read_yaml(path.read_text(encoding="utf-8")))
    read = {key: Source(key, row["title"], row.get("url"), row["tier"], str(row["date"])) for key, row in rows.items()}
    return Table({STATED.key: STATED, **read}.items())


def figures_of(rows: Mapping[str, Mapping[str, Any]], known: Mapping[str, Source] | None = None) -> Table[Figure]:
    """Figures of one part; tier and date are their source's."""
    known = sources() if known is None else known
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


def stated(value: float, dimension: str) -> Figure:
    """Return an SI value of a cluster file as a figure.

    >>> stated(8e12, "bandwidth").unit
    'B/s'
    """
    return Figure(value, SI[dimension], STATED.key, STATED.tier, STATED.date, STATED.title)


def si_of(figures: Mapping[str, Figure], key: str) -> float | None:
    """SI value of a figure, None where there is none."""
    return figures[key].si if key in figures else None
