"""The answer of a sweep as a file: everything as JSON, or one line per cell as CSV or Parquet."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from topo.errors import Fault, SpecError


def lines(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one flat row per cell: its settings, what it came to, and its best split's columns.

    >>> lines({"cells": [{"cell": 0, "domain": 8, "strategy": {"tp": 4}}]})
    [{'cell': 0, 'domain': 8, 'strategy.tp': 4}]
    """
    found = []
    for cell in document["cells"]:
        row = {name: value for name, value in cell.items() if name != "strategy"}
        found.append(row | {f"strategy.{axis}": value for axis, value in (cell["strategy"] or {}).items()})
    names = dict.fromkeys(name for row in found for name in row)
    return [{name: row.get(name) for name in names} for row in found]


def _as_json(document: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _as_csv(document: Mapping[str, Any], path: Path) -> None:
    rows, text = lines(document), io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")


def _as_parquet(document: Mapping[str, Any], path: Path) -> None:
    try:
        import polars
    except ImportError:
        remedy = "install podscale[tables], or write .csv"
        raise SpecError([Fault("--out", str(path), "needs polars, which is not installed", remedy)]) from None
    polars.DataFrame(lines(document), infer_schema_length=None, strict=False).write_parquet(path)


FORMATS: Final[Mapping[str, Callable[[Mapping[str, Any], Path], None]]] = {
    ".json": _as_json,
    ".csv": _as_csv,
    ".parquet": _as_parquet,
}
"""End of a file's name -> who writes it."""


def write(document: Mapping[str, Any], path: Path | str) -> Path:
    """Write the answer of a sweep and return where; folders are made."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[place.suffix](document, place)
    return place
