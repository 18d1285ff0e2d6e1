"""Score MoE dispatch and combine against measured ones, row by row: the set `moe` of `parallel.validation`.

A dispatch sends rows in the data type that the table states; a combine sends them back in 16 bits, whatever the dispatch
used, unless its phase says low precision. The constants hold no multiprocessors: kernels given fewer than 20 are priced
all the same, and stand in groups of their own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from clusters.calibration.links import exchange_s, row_bytes
from clusters.catalogue import Accelerator, accelerator, key_of
from clusters.measurements import Table
from clusters.tunings import Tuning
from parallel import link_rows
from parallel.link_rows import ALONE, NO_LINK, NO_PART, Progress, Schema
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

BACKENDS: Final[Mapping[str, tuple[str, str]]] = {
    "deepep-low-latency": ("low-latency", ""),
    "deepep-normal": ("normal", ""),
    "deepep-ll": ("low-latency", "vLLM"),
    "deepep-ht": ("normal", "vLLM"),
    "trtllm-deepep-ll": ("low-latency", "TensorRT-LLM"),
    "trtllm-deepep-ht": ("normal", "TensorRT-LLM"),
    "nvlinkonesided": ("one-sided", "aiconfigurator"),
    "tensorrt-llm-nvlinkonesided": ("one-sided", ""),
}
"""Backend -> its regime, and who called it where that is not who the constants were fitted to."""

DTYPES: Final = ("fp8", "fp4", "nvfp4", "bfloat16", "bf16", "float16", "half")
FULL_SMS: Final = 20
NETWORK: Final = ("ib-ndr", 50e9)
"""Link between nodes and its bytes/s for each accelerator: the tables do not state it, and those that ship had it."""

SKIPS: Final = {
    "phase moves no rows": "preparing an exchange is no exchange",
    "low-precision combine": "no constants stand for a combine that casts on the way",
    "phase not modelled": "neither a dispatch nor a combine",
    "backend not modelled": "other kernels than DeepEP's of version 1 and TensorRT-LLM's one-sided ones",
    ALONE: "it has nobody to talk to",
    NO_PART: "no data sheet figures, so no price",
    NO_LINK: "no constants stand for such a scale-up link",
    "data type not stated": "the bytes of a dispatched row are unknown",
}
"""Reason -> what it means. A row's `skipped_because` is one of these, with the particulars after a colon."""

PHASES: Final[Mapping[str, str]] = {
    "prepare": "phase moves no rows",
    "combine_low_precision": "low-precision combine",
}


def score(file: str | Path | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Price every exchange of a table and return the error document.

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
    return link_rows.score("moe", SCHEMAS, _scored, file, progress, each=3, skips=SKIPS)


def _scored(name: str, _: Schema, table: Table, shipped: bool) -> tuple[list[dict[str, Any]], list[Tuning]]:
    """Return the rows of one table, and the constants behind them."""
    chips = link_rows.parts(table)
    backends = table["backend" if "backend" in table else "software"].tolist()
    systems, phases, dtypes = (table[key].tolist() for key in ("system", "phase", "comm_dtype"))
    sms = np.nan_to_num(link_rows.numbers(table, "sms", name)).tolist()
    members = _members(table, chips)
    ranks = table["ep_size"].tolist()
    given: dict[str, list[Any]] = {
        key: [] for key in ("skipped_because", "link", "regime", "family", "group", "in_fit")
    }
    notes, keys = [], []
    for system, backend, phase, dtype, count, inside, size in zip(
        systems, backends, phases, dtypes, sms, members[0].tolist(), ranks, strict=True
    ):
        chip = chips[system]
        why = ALONE if size <= 1 else _reason(system, chip, backend, phase, "" if "bytes_per_token" in table else dtype)
        regime, caller = BACKENDS.get(key_of(backend), (backend, ""))
        wire = NETWORK[0] if inside < size else chip.link if chip else system
        few = regime == "normal" and 0 < count < FULL_SMS
        family = f"{wire} {phase} {regime}" + (f" ({caller})" if caller else "") + (", few SMs" if few else "")
        left_aside = bool(caller) or few or (regime == "normal" and size > 16)
        cells = (why, wire, regime, family, f"{family} EP{size:.0f}", shipped and not why and not left_aside)
        for key, cell in zip(given, cells, strict=True):
            given[key].append(cell)
        notes.append([f"{count:.0f} multiprocessors: constants are of {FULL_SMS} and 24"] if few else [])
        keys.append(None if why or chip is None else (chip.name, wire, phase, regime))
    named = ("system", "backend", "software", "software_version", "phase", "comm_dtype", "nodes", *EXCHANGE[:-1])
    columns = {key: table[key].tolist() for key in named if key in table}
    columns |= {"op": phases, "ranks": ranks, "sms": sms, "tokens": table["tokens_per_rank"].tolist(), "notes": notes}
    rows = link_rows.blank_rows(name, table, table["latency_us"] * 1e-6, columns | given)
    row = _row_bytes(table)
    used = []
    for (part_name, wire, phase, regime), at in link_rows.blocks(keys).items():
        chip = accelerator(part_name)
        crossing = wire == NETWORK[0]
        tuned = link_rows.tuned_path([chip.link, NETWORK[0]] if crossing else [chip.link], f"moe_{phase}", regime)
        path = (link_rows.inner_hop(chip, tuned[0]),)
        road = (*path, link_rows.outer_hop(NETWORK[0], tuned[1], NETWORK[1])) if crossing else path
        seconds = exchange_s(
            {key: values[at] for key, values in table.items()}, members[2 - len(road) :, at], road, regime, row[at]
        )
        link_rows.fill(rows, at, seconds, tuned[-1])
        used += tuned
    return rows, used


def _reason(system: str, chip: Accelerator | None, backend: str, phase: str, dtype: str) -> str | None:
    """Return why a row cannot be priced, None where it can; from its inputs alone. A blank data type is not needed."""
    if phase in PHASES:
        return f"{PHASES[phase]}: {phase}"
    if phase not in ("dispatch", "combine"):
        return f"phase not modelled: {phase}"
    if key_of(backend) not in BACKENDS:
        return f"backend not modelled: {backend}"
    if phase == "dispatch" and dtype and dtype not in DTYPES:
        return f"data type not stated: {dtype}"
    return link_rows.missing(system, chip)


def _members(table: Table, chips: Mapping[str, Accelerator | None]) -> Column:
    """Return ranks in a rank's own domain and in the group; a node of GB200 is part of a rack, whatever `nodes` says."""
    ranks = table["ep_size"]
    sizes = {system: chip.domain if chip else link_rows.NODE for system, chip in chips.items()}
    size = np.array([float(sizes[system]) for system in table["system"].tolist()])
    nodes = table.get("nodes", np.ones_like(ranks))
    spread = np.where((size == link_rows.NODE) & (nodes > 1), np.maximum(ranks / nodes, 1.0), size)
    return np.stack([np.minimum(ranks, spread), ranks])


def _row_bytes(table: Table) -> Column:
    """Return the bytes of a row on the wire: as stated, else from the data type, 16 bits on the way back."""
    if "bytes_per_token" in table:
        return table["bytes_per_token"]
    dtype = np.where(table["phase"] == "dispatch", table["comm_dtype"], "bfloat16")
    return row_bytes(table["hidden"], dtype)
