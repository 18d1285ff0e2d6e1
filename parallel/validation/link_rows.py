"""What the sets `moe` and `collectives` share: tables known by their columns, hops of a measured system, error documents.

Rows are priced in blocks that share a path of hops; the interval of a price is the band of measured/predicted that is
stored beside the constants of the outermost link it spans.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clusters.calibration.link_fits import WIRES
from clusters.catalogue import Accelerator, key_of, link, switch
from clusters.dispatch import ruled
from clusters.measurements import Table
from clusters.measurements import path as shipped_file
from clusters.products import part_of
from clusters.tablefile import column_names, read_table
from clusters.tunings import Tuning, reduction_efficiency, tuning
from collectives.direct import mesh_shares
from collectives.path import Hop
from parallel.validation import scoring
from topo.columns import Column
from topo.errors import Fault, SpecError

METRIC: Final = "seconds"
NODE: Final = 8
"""Accelerators of a node, where a table counts nodes of parts that it does not name otherwise."""

NO_PART: Final = "accelerator not in the catalogue"
NO_LINK: Final = "link without constants"
ALONE: Final = "group of one rank"

FITTED: Final = (
    "the constants were fitted to these very rows, and each to rows of one source, so none can be left out; residuals "
    "are those of the fit, and the figures beside them are of the rows that the fit left aside"
)
UNSEEN: Final = "the constants were fitted to the shipped tables, not to these rows"

Progress = Callable[..., None]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Schema:
    """A kind of table, known by its columns; `shipped` is the file of that kind that ships."""

    shipped: str
    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    optional: tuple[str, ...] = ()


def read(file: str | Path | None, schemas: Sequence[Schema]) -> list[tuple[str, Schema, Table]]:
    """Return the shipped tables, or anyone's own in the schema that its columns fit; each with a name and its schema.

    Raises
    ------
    SpecError
        The file cannot be read or fits none of the schemas: told are the columns that the nearest misses.
    """
    if file is None:
        files = [(schema.shipped, schema, shipped_file(schema.shipped)) for schema in schemas]
    else:
        columns = set(column_names(file))
        nearest = min(schemas, key=lambda schema: len({*schema.texts, *schema.numbers} - columns))
        files = [(str(file), nearest, Path(file))]
    return [(name, kind, read_table(at, kind.numbers, kind.texts, kind.optional)) for name, kind, at in files]


def score(
    set_name: str,
    schemas: Sequence[Schema],
    scored: Callable[[str, Schema, Table, bool], tuple[list[dict[str, Any]], list[Tuning]]],
    file: str | Path | None,
    progress: Progress | None,
    *,
    each: int,
    skips: Mapping[str, str],
) -> dict[str, Any]:
    """Price every row of the shipped tables of a set, or of anyone's own, and return the error document.

    `scored(name, schema, table, shipped)` gives the rows of a table and the constants behind them.
    """
    tables = read(file, schemas)
    rows: list[dict[str, Any]] = []
    used: list[Tuning] = []
    for done, (name, schema, table) in enumerate(tables, start=1):
        found, tuned = scored(name, schema, table, file is None)
        rows += found
        used += tuned
        if progress is not None:
            progress(done, len(tables), name)
    names = ", ".join(name for name, _, _ in tables)
    return {**document(set_name, file, names, rows, used, each), "skips": dict(skips)}


def numbers(table: Table, key: str, name: str) -> Column:
    """Return an optional column as numbers, nan where blank or absent; SpecError for cells that are no numbers."""
    cells = table.get(key, np.full(len(table["line"]), "")).tolist()
    found, faults = [], []
    for cell, line in zip(cells, table["line"].tolist(), strict=True):
        try:
            value = float(cell) if cell else float("nan")
        except ValueError:
            value = -1.0
        if value < 0 or value == float("inf"):
            faults.append(
                Fault(f"{key} (line {line})", cell, "is not a number from 0", "write one or leave it blank", name)
            )
        found.append(value)
    if faults:
        raise SpecError(faults[:20])
    return np.array(found, dtype=np.float64)


def part(system: str) -> Accelerator | None:
    """Return the accelerator of a system by its name, with or without the size of its NVLink domain.

    >>> part("gb200_nvl72").name, part("h100_sxm").name, part("abacus")
    ('gb200', 'h100-sxm', None)
    """
    return part_of(re.sub(r"-nvl\d+$", "", key_of(system)))


def parts(table: Table) -> dict[str, Accelerator | None]:
    """Return the accelerator of every system that a table names."""
    return {system: part(system) for system in sorted(set(table["system"].tolist()))}


def missing(system: str, chip: Accelerator | None) -> str | None:
    """Return why a system's scale-up link cannot be priced, None where it can."""
    if chip is None:
        return f"{NO_PART}: {system}"
    return None if chip.link.startswith(("nvlink", "xgmi")) else f"{NO_LINK}: {chip.link}"


def inner_hop(chip: Accelerator, tuned: Tuning, adds: bool | None = None) -> Hop:
    """One scale-up tier of an accelerator; `adds` says whether its switches added, if they did not do as they can."""
    wires = link(chip.link)
    able = bool(wires.switch) and switch(wires.switch).in_network_reduction
    shares, exchange_shares = mesh_shares(chip.domain) if chip.topology == "mesh" else ((), ())
    return Hop(
        chip.scale_up_Bps,
        wires.latency_s,
        ruled(tuned.model, tuned.regime, chip.link, chip.generation),
        in_network_reduction=able if adds is None else adds,
        reduction_efficiency=reduction_efficiency(chip.link),
        shares=shares,
        exchange_shares=exchange_shares,
    )


def outer_hop(name: str, tuned: Tuning, bandwidth_Bps: float, adds: bool = False) -> Hop:
    """One scale-out tier: two cables with their adapters and one switch."""
    wires = link(WIRES.get(name, name))
    latency_s = 2 * wires.latency_s + (switch(wires.switch).latency_s or 0.0)
    return Hop(
        bandwidth_Bps,
        latency_s,
        tuned.model,
        plane="scale-out",
        in_network_reduction=adds,
        reduction_efficiency=reduction_efficiency(name),
    )


def blank_rows(name: str, table: Table, measured: Column, columns: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Return a row per line of a table, as yet without a prediction."""
    keys, stem = list(columns), Path(name).name.split(".")[0]
    rows = []
    for line, seconds, *cells in zip(table["line"].tolist(), measured.tolist(), *columns.values(), strict=True):
        row: dict[str, Any] = {
            "id": f"{stem}:{line}",
            "metric": METRIC,
            "measured": seconds if seconds > 0 else None,
            "predicted": None,
            "ape": None,
            "interval": None,
            "interval_note": None,
        }
        row.update(zip(keys, cells, strict=True))
        rows.append(row)
    return rows


def blocks(keys: Sequence[Any]) -> dict[Any, Indices]:
    """Return the places of every key, None left out."""
    found: dict[Any, list[int]] = {}
    for at, key in enumerate(keys):
        if key is not None:
            found.setdefault(key, []).append(at)
    return {key: np.array(places, dtype=np.intp) for key, places in found.items()}


def fill(rows: Sequence[dict[str, Any]], at: Indices, predicted: Column, tuned: Tuning) -> None:
    """Fill in prediction, error and interval of the rows at some places; rows beyond the groups measured say so."""
    borrowed = tuned.note.startswith("no measurement of")
    stated = {} if borrowed else tuned.residuals
    why = tuned.note if borrowed else None if stated else "no residuals are stored"
    least, most = tuned.ranks or (0, np.inf)
    for place, seconds in zip(at.tolist(), predicted.tolist(), strict=True):
        row = rows[place]
        row["predicted"], row["ape"], row["interval_note"] = seconds, scoring.ape(seconds, row["measured"]), why
        row["interval"] = (seconds * stated["low"], seconds * stated["high"]) if stated else None
        if not least <= row["ranks"] <= most:
            row["notes"] = [*row["notes"], f"{row['ranks']:.0f} ranks: {least} to {most} were measured"]


def document(
    set_name: str, file: str | Path | None, names: str, rows: list[dict[str, Any]], used: Iterable[Tuning], each: int
) -> dict[str, Any]:
    """Return the error document of a set; `each` is how many constants a link, operation and regime have."""
    figures, by_group = scoring.summary(rows)
    tunings = {tuned.entry: tuned for tuned in used}
    count = each * len(tunings)
    own = [tuned for tuned in tunings.values() if not tuned.note.startswith("no measurement of")]
    residuals = {tuned.entry: dict(tuned.residuals) for tuned in own}
    aside = scoring.score([row for row in scoring.predicted_rows(rows) if not row["in_fit"]])
    held = {"note": FITTED, "residuals": residuals, "aside": aside} if file is None else {"note": UNSEEN, **figures}
    return {
        "set": set_name,
        "file": str(file) if file is not None else names,
        "summary": figures,
        "groups": by_group,
        "constants": {"fitted": count, "links": count, "fitted_to_these_rows": count if file is None else 0},
        "leave_one_source_out": held,
        "rows": rows,
    }


def tuned_path(names: Sequence[str], op: str, regime: str) -> list[Tuning]:
    """Return the constants of an operation on some links, innermost first."""
    return [tuning(name, op, regime) for name in names]
