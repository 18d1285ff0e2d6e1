"""A reader's own table of measurements: CSV, compressed or not, checked cell by cell before anything is priced.

Every fault comes back at once with its line. `clusters.measurements.read_csv` reads the tables that ship, whose cells
need no checking.
"""

import csv
import gzip
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from clusters.measurements import Table
from topo.errors import Fault, SpecError

MOST_FAULTS = 20
"""Faults that are told one by one; the rest are counted."""

Check = Callable[[str, str], tuple[str, str] | None]
"""Takes a column and a word in it; returns problem and remedy, or None where the word is fine."""


def read_table(
    file: str | Path,
    numbers: Sequence[str],
    texts: Sequence[str] = (),
    optional: Sequence[str] = (),
    check: Check | None = None,
) -> Table:
    """Read a CSV file (``.csv`` or ``.csv.gz``) as columns, with `line`, the line that each row stands on.

    Parameters
    ----------
    file
        Path; the first line names the columns, in any order. Columns that nobody asked for are left out.
    numbers
        Columns that must be there and hold a positive number in every row.
    texts
        Columns that must be there and hold a word in every row.
    optional
        Columns that are read as text where they are there, and left out where not.
    check
        Called once for every word of the columns `texts`.

    Raises
    ------
    SpecError
        The file cannot be read, has no rows, lacks columns, or holds cells that are no positive numbers.
    """
    name = str(file)
    header, rows = _rows(Path(file))
    missing = [key for key in (*texts, *numbers) if key not in header]
    if missing:
        remedy = f"name the columns in the first line: {', '.join((*texts, *numbers))}"
        raise SpecError([Fault(key, None, "is missing: no such column", remedy, name) for key in missing])
    if not rows:
        raise SpecError([Fault("rows", None, "has a header and nothing below it", "add a row per measurement", name)])
    found = list(_faults(header, rows, numbers, texts, name))
    found += _unknown(header, rows, texts, check, name) if check else []
    if found:
        more = len(found) - MOST_FAULTS
        tail = [Fault("rows", None, f"and {more} more faults of the same kinds", "mend those above first", name)]
        raise SpecError([*found[:MOST_FAULTS], *(tail if more > 0 else [])])
    cells = {key: [row[header.index(key)].strip() for _, row in rows] for key in header}
    table: Table = {key: np.array(cells[key]) for key in (*texts, *(key for key in optional if key in header))}
    table |= {key: np.array(cells[key], dtype=np.float64) for key in numbers}
    table["line"] = np.array([line for line, _ in rows])
    return table


def column_names(file: str | Path) -> list[str]:
    """Return the column names of a CSV file (``.csv`` or ``.csv.gz``); SpecError if it cannot be read."""
    return _rows(Path(file))[0]


def _rows(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and the rows that are not blank, each with its line."""
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = [key.strip() for key in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as why:
        problem = f"cannot be read: {getattr(why, 'strerror', None) or why}"
        raise SpecError([Fault("FILE", None, problem, "give a .csv or .csv.gz file", str(file))]) from None
    return header, rows


def _faults(
    header: list[str], rows: list[tuple[int, list[str]]], numbers: Sequence[str], texts: Sequence[str], name: str
) -> Iterator[Fault]:
    """Yield what is wrong with the rows, in their order."""
    for line, row in rows:
        if len(row) != len(header):
            problem = f"has {len(row)} cells where the header names {len(header)} columns"
            yield Fault(f"line {line}", None, problem, "give every column its cell", name)
            continue
        for key in texts:
            if not row[header.index(key)].strip():
                yield Fault(f"{key} (line {line})", None, "is blank", "name it", name)
        for key in numbers:
            cell = row[header.index(key)].strip()
            if not _positive(cell):
                yield Fault(f"{key} (line {line})", cell, "is not a positive number", "write one", name)


def _unknown(
    header: list[str], rows: list[tuple[int, list[str]]], texts: Sequence[str], check: Check, name: str
) -> list[Fault]:
    """Return a fault for every word that does not pass the check, at the first line that it stands on."""
    first: dict[tuple[str, str], int] = {}
    for line, row in rows:
        for key, cell in zip(header, row, strict=False):
            if key in texts and cell.strip():
                first.setdefault((key, cell.strip()), line)
    answers = {(key, word): check(key, word) for key, word in first}
    return [
        Fault(f"{key} (line {first[key, word]})", word, *answer, name)
        for (key, word), answer in answers.items()
        if answer
    ]


def _positive(cell: str) -> bool:
    try:
        value = float(cell)
    except ValueError:
        return False
    return 0 < value < float("inf")
