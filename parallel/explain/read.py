"""From what a user holds to a point: a scenario file, or a row of a document that a command wrote.

Documents of ``train --json``, ``serve --json``, ``sweep --out`` and ``compare --json`` are recognised by their fields. A row is
named by its number, or by words that tell it: its phase, its domain, its place.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from parallel.explain.point import Point
from parallel.io import read_json, read_yaml
from topo.errors import Fault, InfeasibleError, SpecError

SERVING: Final = ("phase", "engine", "load", "pools", "strategies", "exchange", "ladder")
"""Fields of a scenario that only serving has."""
SWEEPING: Final = ("vary", "phases")
"""Fields that only a sweep has."""
TELLING: Final = ("model", "phase", "domain", "pool", "name")
"""Fields that tell a row in a list, in the order of reading."""
TABLES: Final = (".csv", ".parquet")
LISTS: Final = ("rows", "best", "front", "top")
"""Where documents keep their rows, in the order of numbering."""
_REMEDY: Final = "give a scenario file (.yaml), or what train, serve, compare or sweep wrote with --json or --out"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a document: where it stands, the words that tell it, its point."""

    number: int
    words: tuple[str, ...]
    held: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """What tells the row from others: its own fields, and the settings of its cell of a sweep."""
        return {**(self.held.get("settings") or {}), **self.held}

    @property
    def kind(self) -> tuple[Any, ...]:
        """What has to be the same for rows to be compared: the phase, and the model."""
        return tuple(self.settings.get(key) for key in ("phase", "model"))

    def matches(self, words: Sequence[str]) -> bool:
        """Whether the row has all of some words: those that tell it, or the values of its settings."""
        known = {*self.words, *map(str, (self.held.get("settings") or {}).values())}
        return all(word in known for word in words)

    @property
    def said(self) -> str:
        """In words: its number, and what tells it.

        >>> Row(3, ("decode", "72"), {}).said
        '3 (decode 72)'
        """
        return f"{self.number} ({' '.join(self.words)})" if self.words else str(self.number)


def read_point(result: str | Path, row: str | None = None) -> tuple[Point, list[str]]:
    """Return the point of a result, and the rows that could be asked for.

    Parameters
    ----------
    result : path of a scenario (.yaml) or of a document (.json)
    row : number or words of a row; by default the best one

    Raises
    ------
    SpecError
        The file cannot be read, holds no such row, or a row from which nothing can be priced.
    InfeasibleError
        The row says that nothing fits.
    """
    path = Path(result)
    if path.suffix.lower() in (".yaml", ".yml"):
        return _scenario(path, row)
    if path.suffix.lower() in TABLES:
        raise SpecError([Fault("(file)", None, "is a table, without what prices a row again", _REMEDY, str(path))])
    document = read_json(path)
    if "point" in document:
        return Point.from_dict(document["point"], str(path)), []
    if isinstance(document.get("error"), Mapping):
        problem = f"holds an error: {document['error'].get('message', '')}".rstrip(".")
        raise SpecError([Fault("error", None, problem, "mend that first", str(path))])
    rows = list(_rows(document))
    if not rows:
        raise SpecError([Fault("(file)", None, "holds nothing that can be priced again", _REMEDY, str(path))])
    picked = _picked(rows, row, str(path))
    return _point(picked, str(path)), [each.said for each in rows]


def _scenario(path: Path, row: str | None) -> tuple[Point, list[str]]:
    """Return the point of a scenario file; of one with two pools, `row` names the phase."""
    from parallel.scenario import serve_points, train_point

    raw = read_yaml(path)
    if any(key in raw for key in SWEEPING):
        raise SpecError([Fault("(file)", None, "describes a sweep", "run it, and give what it wrote", str(path))])
    work = raw.get("workload") or {}
    split = raw.get("strategy") or {}
    serving = any(key in raw for key in SERVING) or any(
        key in held for held in (work, split) if isinstance(held, Mapping) for key in ("isl", "osl", "batch")
    )
    if not serving:
        return train_point(path), []
    points = serve_points(path)
    rows = [Row(number, (phase,), {}) for number, phase in enumerate(points)]
    picked = _picked(rows, row, str(path)) if row else rows[-1]
    return points[picked.words[0]], [each.said for each in rows] if len(rows) > 1 else []


def _rows(document: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of a document, with the words that tell them."""
    number = 0
    for name in LISTS:
        for place, held in enumerate(document.get(name) or ()):
            if isinstance(held, Mapping) and ("point" in held or ("strategy" in held and "phase" in held)):
                row = Row(number, () if name == "rows" else (f"{name}:{place}",), held)
                told = (row.settings.get(key) for key in TELLING)
                yield replace(row, words=(*row.words, *(str(value) for value in told if value not in (None, ""))))
                number += 1
    for phase, held in (document.get("pools") or {}).items():
        yield Row(number, (phase,), held)
        number += 1


def _picked(rows: Sequence[Row], wanted: str | None, file: str) -> Row:
    """Return the row that is asked for, or the best: the fastest of those of the first one's phase and model."""
    if wanted is None:
        runs = [row for row in rows if not row.held.get("infeasible")] or list(rows)
        first = [row for row in runs if row.kind == runs[0].kind]
        return max(first, key=lambda row: (row.held.get("tokens_per_s_per_gpu") or 0.0, -row.number))
    if wanted.lstrip("-").isdecimal() and 0 <= int(wanted) < len(rows):
        return rows[int(wanted)]
    words = wanted.replace(",", " ").split()
    found = [row for row in rows if row.matches(words)]
    if len(found) == 1:
        return found[0]
    if found and not all(word.isdecimal() for word in words):
        return max(found, key=lambda row: (row.held.get("tokens_per_s_per_gpu") or 0.0, -row.number))
    known = [row.said for row in rows]
    near = get_close_matches(wanted, [word for row in rows for word in row.words], 1)
    hint = f"did you mean {near[0]}? " if near else ""
    listed = ", ".join(known[:12]) + (f", … {len(known) - 12} more" if len(known) > 12 else "")
    raise SpecError([Fault("ROW", wanted, "names no row", f"{hint}choose one of {listed}", file)])


def _point(row: Row, file: str) -> Point:
    if row.held.get("point"):
        return Point.from_dict(row.held["point"], file)
    if not row.held.get("strategy"):
        why = str(row.held.get("infeasible") or "the row holds no strategy")
        raise InfeasibleError(f"row {row.said}", "what was asked for", why, "explain another row, or ease the limits")
    raise SpecError([Fault(f"row {row.said}", None, "does not say what it was priced for", _REMEDY, file)])
