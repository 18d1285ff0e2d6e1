"""Curves of measured collectives: time against size of one system, operation, group size, kernel, data type and version.

Rows of the tables of kernels become curves here, for the fits and for the scores: which link a system is wired with,
which regime a kernel is of, which rows are set aside and why, duplicates by their median.
"""

import re
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from clusters.measurements import Table

#: Link -> the systems of the tables that are wired with it, and one accelerator that has its bandwidth.
DOMAINS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "nvlink3": ("a100-sxm-80", ("a100_sxm",)),
    "nvlink4": ("h100-sxm", ("h100_sxm", "h200_sxm")),
    "nvlink5": ("gb200", ("b200_sxm", "b300_sxm", "gb200")),
}

#: Operation -> its name in the tables.
NCCL_OPS = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "all_to_all": "alltoall",
}

#: Implementation -> (from version, regime), the newest last.
IMPLEMENTATIONS: Final[Mapping[str, tuple[tuple[tuple[int, ...], str], ...]]] = {
    "NCCL": (((0,), "nccl-2.28"), ((2, 29), "nccl-2.29")),
    "vllm_graph": (((0,), "vllm-0.14"), ((0, 18), "vllm")),
    "sglang_graph": (((0,), "graph"), ((0, 5, 14), "sglang")),
    "trtllm": (((0,), "trtllm-1.2"), ((1, 3), "trtllm")),
}

#: Families of kernels that share their constants, with the regimes that are theirs.
FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "graph": ("graph", "vllm-0.14"),
    "vllm": ("vllm",),
    "trtllm": ("trtllm", "trtllm-1.2"),
    "sglang": ("sglang",),
}

#: Data types that the switches do not add (NCCL, `ncclNvlsSupported`).
NOT_ADDED: Final = ("int8",)

#: Why rows are set aside, and which: (system, operation, version, recorded version), bytes below, ranks (0 for all).
ASIDE: Final[Mapping[str, tuple[tuple[str, str, str, str], float, int]]] = {
    "launch floor of 66 to 640 us whatever the size, of GB200 all-to-all in the table of 2 to 64 ranks": (
        ("gb200", "alltoall", "2.23", ""),
        2.0**29,
        0,
    ),
    **{
        f"launch floor of 21 to 25 us in its {op}s of 4 GB200, whose 8 take 18 us in the same table": (
            ("gb200", op, "2.23", ""),
            2.0**22,
            4,
        )
        for op in ("all_gather", "reduce_scatter")
    },
}


def where(rows: Table, mask: npt.NDArray[np.bool_]) -> Table:
    """Rows of a table."""
    return {key: values[mask] for key, values in rows.items()}


def regime_of(impl: str, version: str = "", recorded: str = "") -> str:
    """Return the regime of an implementation in the tables, empty where it has none; `recorded` is what a run itself said.

    NCCL of no known version is ``nccl``, whose constants all versions share.

    >>> regime_of("NCCL", "2.27.3", "2.29.2"), regime_of("NCCL"), regime_of("sglang_graph", "0.5.10")
    ('nccl-2.29', 'nccl', 'graph')
    """
    name = "NCCL" if impl == "NCCL" else impl.lower()
    numbers = tuple(int(part) for part in re.findall(r"\d+", recorded or version)[:3])
    if name == "NCCL" and not numbers:
        return "nccl"
    held = [regime for least, regime in IMPLEMENTATIONS.get(name, ()) if numbers >= least or least == (0,)]
    return held[-1] if held else ""


def set_aside(rows: Table) -> list[str]:
    """Return why each row of a table of kernels is set aside, empty where it is not.

    >>> def row(recorded):
    ...     texts = {"system": "gb200", "op": "alltoall", "software_version": "2.23", "recorded_version": recorded}
    ...     cells = {**texts, "message_bytes": 1024.0, "num_gpus": 8.0}
    ...     return {key: np.array([cell]) for key, cell in cells.items()}
    >>> set_aside(row(""))[0].split(" of ")[0], set_aside(row("2.29.2"))
    ('launch floor', [''])
    """
    reasons = [""] * len(rows["system"])
    keys = ("system", "op", "software_version", "recorded_version")
    for why, (texts, below, ranks) in ASIDE.items():
        held = (rows["message_bytes"] < below) & ((rows["num_gpus"] == ranks) | (ranks == 0))
        for key, text in zip(keys, texts, strict=True):
            held = held & (rows[key] == text) if key in rows else np.zeros_like(held)
        for at in np.flatnonzero(held):
            reasons[at] = why
    return reasons


CURVE: Final = ("system", "op", "num_gpus", "impl", "dtype", "software_version")
"""What names a curve of time against size."""


def curves(rows: Table) -> Table:
    """Return a row for each point of each curve, duplicates by their median; `curve` numbers them."""
    names = list(zip(*(rows[key].tolist() for key in CURVE), strict=True))
    number = {name: at for at, name in enumerate(dict.fromkeys(names))}
    held: dict[tuple[int, float], list[int]] = {}
    for at, (name, size) in enumerate(zip(names, rows["message_bytes"].tolist(), strict=True)):
        held.setdefault((number[name], size), []).append(at)
    first = np.array([places[0] for places in held.values()])
    found = {key: values[first] for key, values in rows.items()}
    found["latency_us"] = np.array([np.median(rows["latency_us"][places]) for places in held.values()])
    return {**found, "curve": np.array([curve for curve, _ in held])}


def usable(rows: Table) -> Table:
    """Return the curves of a table of kernels that a fit takes."""
    held = np.array([not why for why in set_aside(rows)]) & (rows["latency_us"] > 0) & (rows["num_gpus"] > 1)
    return curves(where(rows, held))
