"""Score collectives against measured ones, row by row: the set `collectives` of `parallel.validation.sets`.

Rows of NCCL are priced in the regime ``nccl``, rows of a serving framework's kernels inside a CUDA graph in that of the
framework. Sizes are those of nccl-tests. A domain of NVLink holds eight accelerators, or a rack of 72 of GB200 and
GB300. A group is a curve: one system, operation, number of ranks, kernel, data type and software version, over its
sizes; where a table holds a point twice, the median counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from clusters import tunings
from clusters.calibration.curves import NOT_ADDED, regime_of, set_aside
from clusters.calibration.links import FABRICS, PEAK_BYTES, warm
from clusters.catalogue import Accelerator, accelerator, key_of
from clusters.measurements import Table
from clusters.tunings import Tuning, collective_s
from parallel.validation import link_rows, scoring
from parallel.validation.link_rows import ALONE, NO_LINK, NO_PART, Progress, Schema
from parallel.validation.published_systems import FORCED, SITES, Site
from topo.columns import Column

SCHEMAS: Final = (
    Schema(
        "collectives_nccl.csv",
        ("system", "op", "impl"),
        ("num_gpus", "message_bytes", "latency_us"),
        ("library", "software_version", "recorded_version", "dtype"),
    ),
    Schema(
        "collectives_published.csv",
        ("system", "op"),
        ("ranks", "nodes"),
        ("message_bytes", "busbw_GBps", "latency_us", "source"),
    ),
)

OPS: Final[Mapping[str, str]] = {
    "all-reduce": "all_reduce",
    "all-gather": "all_gather",
    "reduce-scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "all-to-all": "all_to_all",
}

NETWORK: Final = ("ib-ndr", 50e9)
"""Link between nodes and its bytes/s for each accelerator where a table of kernels goes beyond a domain."""

SKIPS: Final = {
    "operation not modelled": "no closed form stands for it here; expert exchanges are the set moe",
    "eager framework kernel": "its time is the host's, between launches",
    "library not modelled": "no constants stand for this library",
    "system not described": "its wiring is not in parallel.validation.published_systems",
    "algorithm forced": "the model prices what NCCL would choose",
    "row set aside": "it measures something else; clusters.calibration.curves and .links (COLD) list which and why",
    "time not stated": "neither a time nor a bus bandwidth to derive it from",
    ALONE: "it has nobody to talk to",
    NO_PART: "no data sheet figures, so no price",
    NO_LINK: "no constants stand for such a scale-up link: PCIe, Gaudi",
}
"""Reason -> what it means. A row's `skipped_because` is one of these, with the particulars after a colon."""

NEAR: Final = 0.3
"""Error of a curve's worst point that still counts as near."""

PEAK_NOTE: Final = "size not stated: a peak, taken at 8 GiB"


@dataclass(frozen=True, slots=True)
class Work:
    """The rows of a table in one shape: what was asked, measured and left out.

    `sites` and `regimes` hold a row's wiring and software, or None and an empty word where `reasons` says why not.
    `adds` says whether the switches of the domain can add the row's data type.
    """

    ops: list[str]
    ranks: Column
    sizes: Column
    measured_s: Column
    sites: list[Site | None]
    regimes: list[str]
    reasons: list[str | None]
    notes: list[list[str]]
    in_fit: list[bool]
    adds: list[bool]
    versions: list[str]


def score(file: str | Path | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Price every collective of a table and return the error document.

    Beside what every set has, `curves` holds the share of curves whose worst point is within `NEAR`, and the others;
    `held_out` how fits without larger groups, one group size or one version predict those.

    Parameters
    ----------
    file
        Anyone's own table with the columns of one of `SCHEMAS`; the shipped ones if None.
    progress
        Called as ``progress(done, total, note)``.

    Raises
    ------
    SpecError
        The file cannot be read or is no such table; every fault at once, with its line.
    """
    document = link_rows.score("collectives", SCHEMAS, _scored, file, progress, each=4, skips=SKIPS)
    points = merged(document["rows"])
    groups = scoring.by_group(points)
    macro = {f"macro_{figure}": scoring.macro(groups, figure) for figure in ("median_ape", "p90_ape")}
    return {
        **document,
        "summary": {**document["summary"], **macro},
        "groups": groups,
        "curves": curve_figures(points),
        "held_out": _held_out(),
    }


def merged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each point of each curve: the first, with the median of what was measured.

    >>> row = {"group": "a", "bytes": 8.0, "predicted": 3.0, "interval": None}
    >>> found = merged([{**row, "measured": seconds} for seconds in (1.0, 2.0, 6.0)])
    >>> found[0]["measured"], found[0]["ape"]
    (2.0, 0.5)
    """
    held: dict[tuple[str, float, bool], list[Mapping[str, Any]]] = {}
    for row in rows:
        held.setdefault((row["group"], row["bytes"], row["predicted"] is None), []).append(row)
    return [_median(same) for same in held.values()]


def _median(same: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the first of some rows of one point, with the median of what was measured."""
    if same[0]["predicted"] is None:
        return dict(same[0])
    measured, predicted = (float(np.median([row[key] for row in same])) for key in ("measured", "predicted"))
    return {**same[0], "measured": measured, "predicted": predicted, "ape": scoring.ape(predicted, measured)}


def curve_figures(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many curves there are, the share whose worst point is within `NEAR`, and the others with that point.

    `scattered` says of those whether their times fall with the size so far that no price could: one that does not fall
    is off by more than `NEAR` somewhere.

    >>> times = ((1, 3.0), (2, 1.0), (4, 1.0))
    >>> told = curve_figures(
    ...     [{"group": "a", "bytes": b, "predicted": 1.0, "measured": m, "ape": abs(1 / m - 1)} for b, m in times]
    ... )
    >>> told["count"], told["near"], told["exceptions"]
    (1, 0.0, [{'group': 'a', 'worst': 0.6666666666666667, 'bytes': 1, 'scattered': True}])
    """
    held: dict[str, list[Mapping[str, Any]]] = {}
    for row in scoring.predicted_rows(points):
        held.setdefault(row["group"], []).append(row)
    worst = {name: max(rows, key=lambda row: row["ape"]) for name, rows in held.items()}
    far = [
        {"group": name, "worst": row["ape"], "bytes": row["bytes"], "scattered": scattered(held[name])}
        for name, row in worst.items()
        if row["ape"] > NEAR
    ]
    return {
        "count": len(worst),
        "near": 1 - len(far) / len(worst) if worst else None,
        "exceptions": sorted(far, key=lambda row: -row["worst"]),
    }


def scattered(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether no time that does not fall with the size is within `NEAR` of all that was measured."""
    took = np.array([row["measured"] for row in sorted(rows, key=lambda row: row["bytes"])])
    return bool((np.maximum.accumulate(took * (1 - NEAR)) > took * (1 + NEAR)).any())


def _held_out() -> dict[str, Any]:
    """Return how fits predict what they did not see, by link and operation, as stored beside the constants."""
    return {
        f"{link} {op} {regime}": entry["held_out"]
        for link, ops in tunings.table()["constants"].items()
        for op, regimes in ops.items()
        for regime, entry in regimes.items()
        if op in OPS.values() and "held_out" in entry
    }


def _kernels(rows: Table) -> Work:
    """Read a table of kernels by implementation; all that it lacks is the wiring, known by the accelerator."""
    chips = link_rows.parts(rows)
    sites = {system: _site(chip) for system, chip in chips.items()}
    count = len(rows["system"])
    systems, ops, impls = (rows[key].tolist() for key in ("system", "op", "impl"))
    versions, recorded, dtypes = (
        rows.get(key, np.full(count, "")).tolist() for key in ("software_version", "recorded_version", "dtype")
    )
    reasons = [
        _operation(op) or _library(impl) or _alone(ranks) or link_rows.missing(system, chips[system]) or _aside(why)
        for system, op, impl, ranks, why in zip(
            systems, ops, impls, rows["num_gpus"].tolist(), set_aside(rows), strict=True
        )
    ]
    return Work(
        ops,
        rows["num_gpus"],
        rows["message_bytes"],
        rows["latency_us"] * 1e-6,
        [sites[system] for system in systems],
        [regime_of(*row) or "nccl" for row in zip(impls, versions, recorded, strict=True)],
        reasons,
        [[] for _ in range(count)],
        [True] * count,
        [dtype not in NOT_ADDED for dtype in dtypes],
        [" ".join(filter(None, names)) for names in zip(impls, dtypes, versions, strict=True)],
    )


def _published(table: Table, name: str) -> Work:
    """Read a table of published benchmarks, whose systems `SITES` describes; a peak without a size is one of 8 GiB."""
    systems, ops = table["system"].tolist(), table["op"].tolist()
    stated = {key: link_rows.numbers(table, key, name) for key in ("message_bytes", "busbw_GBps", "latency_us")}
    peaks = np.isnan(stated["message_bytes"])
    sizes, ranks = np.where(peaks, PEAK_BYTES, stated["message_bytes"]), table["ranks"]
    with np.errstate(divide="ignore"):
        by_busbw = _busbw_factor(ops, ranks) * sizes / (stated["busbw_GBps"] * 1e9)
    measured = np.where(stated["latency_us"] > 0, stated["latency_us"] * 1e-6, by_busbw)
    measured = np.where(np.isfinite(measured), measured, 0.0)
    reasons = [
        _operation(op)
        or _alone(size)
        or _system(system)
        or (None if seconds > 0 else "time not stated")
        or _cold(warmed)
        for system, op, size, seconds, warmed in zip(
            systems,
            ops,
            ranks.tolist(),
            measured.tolist(),
            warm({**table, "message_bytes": sizes}).tolist(),
            strict=True,
        )
    ]
    return Work(
        ops,
        ranks,
        sizes,
        measured,
        [SITES.get(system) for system in systems],
        ["nccl"] * len(systems),
        reasons,
        [[PEAK_NOTE] if peak else [] for peak in peaks.tolist()],
        [system in FABRICS for system in systems],
        [True] * len(systems),
        [""] * len(systems),
    )


def _aside(why: str) -> str | None:
    return f"row set aside: {why}" if why else None


def _cold(warmed: bool) -> str | None:
    return None if warmed else "row set aside: the first of a run that was not warm"


def _site(chip: Accelerator | None) -> Site | None:
    """Return the wiring that a table of kernels takes for granted."""
    return Site(chip.name, chip.domain, *NETWORK) if chip else None


def _operation(op: str) -> str | None:
    return None if key_of(op) in OPS else f"operation not modelled: {op}"


def _alone(ranks: float) -> str | None:
    return ALONE if ranks <= 1 else None


def _library(impl: str) -> str | None:
    """Return why an implementation has no regime, None where it has."""
    if regime_of(impl):
        return None
    return f"{'eager framework kernel' if impl.endswith('_eager') else 'library not modelled'}: {impl}"


def _system(system: str) -> str | None:
    """Return why a published system cannot be priced, None where it can."""
    if system in SITES:
        return link_rows.missing(SITES[system].accelerator, link_rows.part(SITES[system].accelerator))
    return f"{'algorithm forced' if system in FORCED else 'system not described'}: {system}"


def _busbw_factor(ops: Sequence[str], ranks: Column) -> Column:
    """Bytes that count in nccl-tests' bus bandwidth, over the size: 2(n-1)/n of an all-reduce, (n-1)/n of the others."""
    twice = np.array([2.0 if key_of(op) == "all-reduce" else 1.0 for op in ops])
    return twice * (ranks - 1) / ranks


def _scored(name: str, schema: Schema, table: Table, shipped: bool) -> tuple[list[dict[str, Any]], list[Tuning]]:
    """Return the rows of one table, and the constants behind them."""
    work = _kernels(table) if schema is SCHEMAS[0] else _published(table, name)
    given: dict[str, list[Any]] = {key: [] for key in ("skipped_because", "link", "family", "group", "in_fit")}
    keys = []
    for system, op, ranks, site, regime, why, fit, adds, version in zip(
        table["system"].tolist(), work.ops, work.ranks.tolist(), work.sites, work.regimes, work.reasons, work.in_fit,
        work.adds, work.versions, strict=True,
    ):  # fmt: skip
        chip = accelerator(site.accelerator) if site else None
        crossing = site is not None and bool(site.network) and ranks > site.domain
        wire = site.network if site and crossing else chip.link if chip else system
        family = f"{wire} {OPS.get(key_of(op), op)} {tunings.SAME.get(regime, regime)}"
        curve = " ".join(filter(None, (system, op, f"x{ranks:.0f}", version)))
        for key, cell in zip(given, (why, wire, family, curve, shipped and fit), strict=True):
            given[key].append(cell)
        keys.append(None if why else (site, OPS[key_of(op)], regime, crossing, adds))
    named = ("system", "library", "software_version", "impl", "dtype", "nodes", "source")
    columns = {key: table[key].tolist() for key in named if key in table}
    columns |= {"op": work.ops, "regime": work.regimes, "ranks": work.ranks.tolist(), "bytes": work.sizes.tolist()}
    rows = link_rows.blank_rows(name, table, work.measured_s, columns | {"notes": work.notes} | given)
    used = []
    for (site, op, regime, crossing, adds), at in link_rows.blocks(keys).items():
        wired = site if adds else replace(site, adds=False)
        seconds, tuned = _price(wired, op, regime, crossing, work.ranks[at], work.sizes[at])
        link_rows.fill(rows, at, seconds, tuned[-1])
        used += tuned
    return rows, used


def _price(
    site: Site, op: str, regime: str, crossing: bool, ranks: Column, sizes: Column
) -> tuple[Column, list[Tuning]]:
    """Return the seconds of rows on one system, and the constants they took, innermost first."""
    chip = accelerator(site.accelerator)
    links = [chip.link, site.network] if crossing else [chip.link]
    tuned = link_rows.tuned_path(links, op, regime)
    inside = link_rows.inner_hop(chip, tuned[0], site.adds)
    if not crossing:
        return collective_s(op, sizes, ranks[np.newaxis], (inside,), regime), tuned
    members = np.stack([np.minimum(ranks, float(site.domain)), ranks])
    outside = link_rows.outer_hop(site.network, tuned[1], site.network_Bps, site.network_adds)
    return collective_s(op, sizes, members, (inside, outside), regime), tuned
