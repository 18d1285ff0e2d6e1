"""Curves of measured collectives: time against size of one system, operation, group size, kernel, data type and version.

Rows of the tables of kernels become curves here, for the fits and for the scores: which link a system is wired with,
which regime a kernel is of, which rows are set aside and why, duplicates by their median.
"""

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

#: Kernels of serving frameworks that CUDA graphs replay -> their regime. SGLang has its own from 0.5.14.
GRAPH_KERNELS: Final[Mapping[str, str]] = {
    "vllm_graph": "graph",
    "sglang_graph": "graph",
    "trtllm": "trtllm",
    "TRTLLM": "trtllm",
}
SGLANG_OWN: Final = (0, 5, 14)

#: Data types that the switches do not add (NCCL, `ncclNvlsSupported`).
NOT_ADDED: Final = ("int8",)

#: Why rows are set aside, and which: (system, operation, version, recorded version, bytes below).
ASIDE: Final[Mapping[str, tuple[str, str, str, str, float]]] = {
    "launch floor of 66 to 640 us whatever the size, of GB200 all-to-all in the table of 2 to 64 ranks": (
        "gb200",
        "alltoall",
        "2.23",
        "",
        2.0**29,
    ),
}


def where(rows: Table, mask: npt.NDArray[np.bool_]) -> Table:
    """Rows of a table."""
    return {key: values[mask] for key, values in rows.items()}


def regime_of(impl: str, version: str) -> str:
    """Return the regime of an implementation in the tables, empty where it has none.

    >>> regime_of("NCCL", "2.29.2"), regime_of("sglang_graph", "0.5.10"), regime_of("sglang_graph", "0.5.14")
    ('nccl', 'graph', 'sglang')
    """
    if impl == "sglang_graph" and tuple(int(part) for part in version.split(".") if part.isdecimal()) >= SGLANG_OWN:
        return "sglang"
    return "nccl" if impl == "NCCL" else GRAPH_KERNELS.get(impl, "")


def set_aside(rows: Table) -> list[str]:
    """Return why each row of a table of kernels is set aside, empty where it is not.

    >>> def row(recorded):
    ...     texts = {"system": "gb200", "op": "alltoall", "software_version": "2.23", "recorded_version": recorded}
    ...     return {**{key: np.array([text]) for key, text in texts.items()}, "message_bytes": np.array([1024.0])}
    >>> set_aside(row(""))[0].split(" of ")[0], set_aside(row("2.29.2"))
    ('launch floor', [''])
    """
    reasons = [""] * len(rows["system"])
    keys = ("system", "op", "software_version", "recorded_version")
    for why, (*texts, below) in ASIDE.items():
        held = rows["message_bytes"] < below
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
