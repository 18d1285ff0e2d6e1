"""Score MoE dispatch and combine against measured ones, row by row: the set `moe` of `parallel.validation.sets`.

A dispatch sends rows in the data type that the table states; a combine sends them back in 16 bits, whatever the dispatch
used, unless its phase says low precision. A group is a system, a kernel, a number of ranks and a phase. Groups inside one
scale-up domain, groups across a network and the kernels that change severalfold between versions stand in blocks of
their own, each with its macro averages.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from clusters.calibration.exchanges import BACKENDS, NETWORK, aside, exchange_s
from clusters.catalogue import Accelerator, accelerator, key_of
from clusters.measurements import Table
from clusters.tunings import Tuning, table, tuning
from collectives.moe_kernel import WORK
from collectives.path import LinkModel
from parallel.validation import link_rows, scoring
from parallel.validation.link_rows import ALONE, NO_LINK, NO_PART, Progress, Schema
from topo.columns import Column

EXCHANGE: Final = ("ep_size", "hidden", "topk", "experts", "tokens_per_rank", "latency_us")

SCHEMAS: Final = (
    Schema(
        "moe_all2all.csv",
        ("system", "backend", "phase", "comm_dtype"),
        ("nodes", *EXCHANGE),
        ("framework", "software_version", "sms"),
    ),
    Schema(
        "moe_all2all_gb200_onesided.csv",
        ("system", "software", "phase", "comm_dtype"),
        (*EXCHANGE, "bytes_per_token"),
    ),
)

DTYPES: Final = ("fp8", "mxfp8", "fp4", "nvfp4", "bfloat16", "bf16", "float16", "half", "default")
DEFAULT: Final = "data type not stated: the 16 bits of activations"
PHASES: Final = ("dispatch", "combine")
OWN_PHASES: Final = ("two-sided", "mnnvl")
"""Kernels that prepare an exchange in a launch of its own and that can cast on the way back."""

BLOCKS: Final = ("single-node", "multi-node", "mnnvl")
UNSTEADY: Final = "mnnvl"
"""The kernels that differ two- to sevenfold between their own versions: outside the macro averages of the set."""

SOURCES: Final = (
    "the one-sided kernels have two sources, and `held_out` says how each is predicted by a fit without it; the other "
    "constants were fitted to these very rows, each to rows of one source. The figures beside them are of the rows that "
    "the fit left aside"
)

SKIPS: Final = {
    "phase moves no rows": "these kernels prepare an exchange within it",
    "low-precision combine": "these kernels do not cast on the way back",
    "phase not modelled": "no phase of an exchange",
    "backend not modelled": "other kernels than DeepEP's and TensorRT-LLM's",
    ALONE: "it has nobody to talk to",
    NO_PART: "no data sheet figures, so no price",
    NO_LINK: "no constants stand for such a scale-up link",
    "data type not known": "the bytes of a dispatched row are unknown",
}
"""Reason -> what it means. A row's `skipped_because` is one of these, with the particulars after a colon."""

LATER_PHASES: Final[Mapping[str, str]] = {
    "prepare": "phase moves no rows",
    "combine_low_precision": "low-precision combine",
}


def score(file: str | Path | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Price every exchange of a table and return the error document.

    Beside what every set has, `blocks` holds the figures of the rows inside a domain, across a network and of the
    unsteady kernels; `held_out` how fits without 64 ranks, or without one of two sources, predict those.

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
    document = link_rows.score("moe", SCHEMAS, _scored, file, progress, each=0, skips=SKIPS)
    rows: list[dict[str, Any]] = document["rows"]
    used = {(row["link"], row["op"], row["regime"]) for row in rows if row["predicted"] is not None}
    count = sum(map(_constants, {tuning(link, f"moe_{phase}", regime).model for link, phase, regime in used}))
    groups, block_of = document["groups"], {row["group"]: row["block"] for row in rows}
    blocks = {name: {key: groups[key] for key, block in block_of.items() if block == name} for name in BLOCKS}
    steady = {key: figures for key, figures in groups.items() if block_of[key] != UNSTEADY}
    return {
        **document,
        "summary": {**document["summary"], **_macro(steady)},
        "blocks": {
            name: {**scoring.score([row for row in rows if row["block"] == name]), **_macro(members)}
            for name, members in blocks.items()
        },
        "constants": {"fitted": count, "links": count, "fitted_to_these_rows": count if file is None else 0},
        "leave_one_source_out": {**document["leave_one_source_out"], **({"note": SOURCES} if file is None else {})},
        "held_out": _held_out(),
    }


def _constants(model: LinkModel) -> int:
    """Return how many constants a model has that are not at rest."""
    return sum(float(getattr(model, name, 0.0)) > 0 for name in ("base_s", *WORK)) + int(model.efficiency < 1)


def _macro(groups: Mapping[str, scoring.Figures]) -> dict[str, Any]:
    """Return the macro averages of some groups, and how many of them are predicted."""
    averages = {f"macro_{figure}": scoring.macro(groups, figure) for figure in ("median_ape", "p90_ape")}
    return {**averages, "groups": sum(bool(figures["predicted"]) for figures in groups.values())}


def _held_out() -> dict[str, Any]:
    """Return, for each split, how the fits without it predict it: by entry, and the mean of their medians.

    The unsteady kernels stand beside the mean, not in it.
    """
    splits: dict[str, dict[str, Any]] = {}
    for link, ops in table()["constants"].items():
        for op, regimes in ops.items():
            for regime, entry in regimes.items() if op.startswith("moe_") else ():
                for split, figures in entry.get("held_out", {}).items():
                    splits.setdefault(split, {})[f"{link} {op} {regime}"] = figures
    return {split: {**_mean(found), **found} for split, found in splits.items()}


def _mean(entries: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over the steady entries of their medians and 90th percentiles."""
    steady = [figures for name, figures in entries.items() if not name.endswith(UNSTEADY)]
    return {f"macro_{figure}_ape": float(np.mean([held[figure] for held in steady])) for figure in ("median", "p90")}


def _scored(name: str, _: Schema, table: Table, shipped: bool) -> tuple[list[dict[str, Any]], list[Tuning]]:
    """Return the rows of one table, and the constants behind them."""
    chips = link_rows.parts(table)
    kernels = table["backend" if "backend" in table else "software"].tolist()
    columns = [table[key].tolist() for key in ("system", "phase", "comm_dtype", "ep_size", "tokens_per_rank")]
    sms = np.nan_to_num(link_rows.numbers(table, "sms", name))
    members = _members(table, chips)
    given: dict[str, list[Any]] = {
        key: [] for key in ("skipped_because", "link", "regime", "family", "group", "block", "in_fit", "notes")
    }
    keys = []
    for kernel, inside, system, phase, dtype, size, tokens in zip(kernels, members[0].tolist(), *columns, strict=True):
        chip, regime = chips[system], BACKENDS.get(key_of(kernel), kernel)
        why = ALONE if size <= 1 else _reason(system, chip, kernel, phase, "" if "bytes_per_token" in table else dtype)
        crossing = inside < size
        wire = NETWORK[0] if crossing else chip.link if chip else system
        left_aside = crossing and aside(regime, phase, size, tokens)
        cells = (
            why,
            wire,
            regime,
            f"{wire} {phase} {regime}",
            f"{system} {kernel} EP{size:.0f} {phase}",
            UNSTEADY if regime == UNSTEADY else BLOCKS[crossing],
            shipped and not why and not left_aside,
            [DEFAULT] if phase == "dispatch" and dtype == "default" else [],
        )
        for key, cell in zip(given, cells, strict=True):
            given[key].append(cell)
        keys.append(None if why or chip is None else (chip.name, wire, phase, regime))
    named = ("system", "backend", "software", "software_version", "phase", "comm_dtype", "nodes", *EXCHANGE[:-1])
    shown = {key: table[key].tolist() for key in named if key in table}
    shown |= {"op": shown["phase"], "ranks": shown["ep_size"], "sms": sms.tolist(), "tokens": shown["tokens_per_rank"]}
    rows = link_rows.blank_rows(name, table, table["latency_us"] * 1e-6, shown | given)
    return rows, _fill(rows, keys, {**table, "sms": sms}, members)


def _fill(rows: list[dict[str, Any]], keys: Sequence[Any], table: Table, members: Column) -> list[Tuning]:
    """Price the rows, block by block of a part, link, phase and regime; return the constants behind them."""
    used = []
    for (part, wire, phase, regime), at in link_rows.blocks(keys).items():
        chip = accelerator(part)
        crossing = wire == NETWORK[0]
        tuned = link_rows.tuned_path([chip.link, *([wire] if crossing else [])], f"moe_{phase}", regime)
        path = (link_rows.inner_hop(chip, tuned[0]),)
        road = (*path, link_rows.outer_hop(wire, tuned[1], NETWORK[1])) if crossing else path
        chosen = {key: values[at] for key, values in table.items()}
        seconds = exchange_s(chosen, members[2 - len(road) :, at], road, regime, part)
        link_rows.fill(rows, at, seconds, tuned[-1])
        used += tuned
    return used


def _reason(system: str, chip: Accelerator | None, kernel: str, phase: str, dtype: str) -> str | None:
    """Return why a row cannot be priced, None where it can; from its inputs alone. A blank data type is not needed."""
    regime = BACKENDS.get(key_of(kernel))
    if phase not in (*PHASES, *LATER_PHASES):
        return f"phase not modelled: {phase}"
    if regime is None:
        return f"backend not modelled: {kernel}"
    if phase in LATER_PHASES and regime not in OWN_PHASES:
        return f"{LATER_PHASES[phase]}: {phase}"
    if phase == "dispatch" and dtype and dtype not in DTYPES:
        return f"data type not known: {dtype}"
    return link_rows.missing(system, chip)


def _members(table: Table, chips: Mapping[str, Accelerator | None]) -> Column:
    """Return ranks in a rank's own domain and in the group; a node of GB200 is part of a rack, whatever `nodes` says."""
    ranks = table["ep_size"]
    sizes = {system: chip.domain if chip else link_rows.NODE for system, chip in chips.items()}
    size = np.array([float(sizes[system]) for system in table["system"].tolist()])
    nodes = table.get("nodes", np.ones_like(ranks))
    spread = np.where((size == link_rows.NODE) & (nodes > 1), np.maximum(ranks / nodes, 1.0), size)
    return np.stack([np.minimum(ranks, spread), ranks])
