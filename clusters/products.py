"""Matrix products as they were measured: the schema of a table of them, and what the model says of its rows.

A row is an accelerator, a data type, a shape and a time. A benchmark runs one product over and over, so part of the
weight may still lie in the cache when it is asked for again: that is a property of the benchmark, not of the part, and
`resident` prices it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from clusters.catalogue import Accelerator, accelerator, key_of
from clusters.kernels import PRECISIONS, KernelModel, gemm_s
from clusters.measurements import Table, read_csv
from clusters.tablefile import Check, read_table
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError

TEXTS: Final = ("system", "dtype")
NUMBERS: Final = ("m", "n", "k", "latency_us")
OPTIONAL: Final = ("software", "software_version")

SHIPPED: Final = ("gemm.csv", "gemm_aiter.csv")
OUTPUT_BYTES: Final = 2.0
"""Bytes per element of a result: BF16 at every precision of the tables."""

SPILL: Final = 0.1
"""By which share a walk in circles may outgrow the cache until nothing of it is found there: a cache that gives up the
oldest line first keeps nothing of such a walk."""


@dataclass(frozen=True, slots=True)
class Format:
    """A precision of matrix products.

    Attributes
    ----------
    peaks : data sheet peaks, the first of these that a part has; one without FP8 units multiplies in BF16
    bytes_a, bytes_b : bytes per element of activation and weight, scales included
    """

    peaks: tuple[str, ...]
    bytes_a: float
    bytes_b: float


FORMATS: Final[Mapping[str, Format]] = {
    "bf16": Format(("bf16",), 2.0, 2.0),
    "fp8": Format(("fp8", "bf16"), 1.0, 1.0),
    "fp8-block": Format(("fp8", "bf16"), 1.0, 1.0),
    "nvfp4": Format(("fp4", "fp8", "bf16"), 0.5625, 0.5625),  # 4 bits and an FP8 scale per 16 elements
    "int8-wo": Format(("bf16",), 2.0, 1.0),  # weights only: the product itself runs in BF16
    "int4-wo": Format(("bf16",), 2.0, 0.5),
    "int8-sq": Format(("int8", "fp8", "bf16"), 1.0, 1.0),  # SmoothQuant: both operands in INT8
}

UNCAST: Final = ("bf16", "int8-wo", "int4-wo")
"""Precisions whose activations stay as they are: no cast to pay for, so seven constants instead of eight."""

#: Software whose benchmark cycles through copies of the weight until they outgrow the cache, five at most
#: (collector/trtllm/collect_gemm.py of ai-dynamo/aiconfigurator). Any other is taken to find its weights cold.
CYCLES: Final = ("trtllm",)
MOST_COPIES: Final = 5

CAST_APART: Final = ("aiter",)
"""Software whose benchmark hands the kernel activations that are cast already (ROCm/aiter, csrc/*/gemm_*_tune.py)."""


def read_products(file: str | Path | None = None, check: Check | None = None) -> Table:
    """Return the shipped table of matrix products, or anyone's own in its schema, with the `line` of every row.

    The columns are `system`, `dtype`, `m`, `n`, `k` and `latency_us`, and where known `software` and
    `software_version`; any others are left out. `check` looks at the words of the first two.

    Raises
    ------
    SpecError
        The file cannot be read or is not such a table; every fault at once, with its line.
    """
    if file is not None:
        return read_table(file, NUMBERS, TEXTS, OPTIONAL, check)
    tables = [read_csv(name) for name in SHIPPED]
    table = {key: np.concatenate([shipped[key] for shipped in tables]) for key in (*TEXTS, *OPTIONAL, *NUMBERS)}
    table["line"] = np.concatenate([np.arange(2, len(shipped["m"]) + 2) for shipped in tables])
    return table


def part_of(system: str) -> Accelerator | None:
    """Return the accelerator that a table means, by its name or alias in the catalogue; None where there is none.

    >>> part_of("h100_sxm").name, part_of("abacus")
    ('h100-sxm', None)
    """
    try:
        return accelerator(system)
    except SpecError:
        return None


def precision_of(dtype: str) -> str | None:
    """Return our name of a data type, None where there is none.

    >>> precision_of("bfloat16"), precision_of("fp8_block"), precision_of("sq"), precision_of("posit8")
    ('bf16', 'fp8-block', 'int8-sq', None)
    """
    return PRECISIONS.get(key_of(dtype))


def classify(table: Table) -> Table:
    """Return the columns `accelerator` and `precision` of a table: our names, blank where we have none.

    >>> rows = {"system": np.array(["h100_sxm", "abacus"]), "dtype": np.array(["bfloat16", "fp8"])}
    >>> {key: values.tolist() for key, values in classify(rows).items()}
    {'accelerator': ['h100-sxm', ''], 'precision': ['bf16', 'fp8']}
    """
    parts = {word: part.name if (part := part_of(word)) else "" for word in set(table["system"].tolist())}
    precisions = {word: precision_of(word) or "" for word in set(table["dtype"].tolist())}
    return {
        "accelerator": np.array([parts[word] for word in table["system"].tolist()]),
        "precision": np.array([precisions[word] for word in table["dtype"].tolist()]),
    }


def groups(table: Table) -> dict[tuple[str, str], npt.NDArray[np.bool_]]:
    """Return the rows of every (accelerator, precision) that has a price, as masks over the table."""
    named = classify(table)
    pairs = zip(named["accelerator"].tolist(), named["precision"].tolist(), strict=True)
    return {
        (part, precision): (named["accelerator"] == part) & (named["precision"] == precision)
        for part, precision in sorted(set(pairs))
        if part and precision
    }


def select(table: Table, mask: npt.NDArray[np.bool_]) -> Table:
    """Return the rows of a table that a mask marks."""
    return {key: values[mask] for key, values in table.items()}


def resident(m: ColumnLike, n: ColumnLike, k: ColumnLike, model: KernelModel, fmt: Format) -> Column:
    """Share of the weight that a benchmark finds in the cache: 1 while all that it walks through fits, else soon 0.

    share = 1 − (walk/cache − 1)⁺ / SPILL, at least 0, with walk = copies·weight + activations + result. The benchmark
    takes copies = ⌈cache/weight⌉, at most five, so as to outgrow the cache; where the weight divides it, it just fits.

    Examples
    --------
    Three copies of 32 MiB fill a cache of 96 MiB, and a token adds next to nothing; three of 40 MiB do not fit:

    >>> from dataclasses import replace
    >>> from clusters.kernels import kernel
    >>> cached = replace(kernel("h100-sxm"), cache_bytes=96 * 2**20)
    >>> resident(1, [4096, 5120], 4096, cached, FORMATS["bf16"]).round(3)
    array([0.998, 0.   ])
    """
    if not model.cache_bytes:
        return column(0.0)
    m, n, k = column(m), column(n), column(k)
    weight = fmt.bytes_b * n * k
    copies = np.clip(np.ceil(model.cache_bytes / weight), 1, MOST_COPIES)
    walk = copies * weight + fmt.bytes_a * m * k + OUTPUT_BYTES * m * n
    return column(np.clip(1.0 - np.maximum(walk / model.cache_bytes - 1.0, 0.0) / SPILL, 0.0, 1.0))


def peak_flops(part: Accelerator, precision: str) -> float | None:
    """Return the data sheet peak that products of a precision run against, None where the part has none published.

    >>> peak_flops(accelerator("a100"), "int8-sq"), peak_flops(accelerator("a100"), "fp8")
    (624000000000000.0, 312000000000000.0)
    """
    return next((part.peak_flops[name] for name in FORMATS[precision].peaks if part.peak_flops.get(name)), None)


def price(rows: Table, model: KernelModel, part: Accelerator, precision: str) -> Column:
    """Seconds of the rows' products on a part, data sheet figures from the catalogue, caches as the benchmark left them.

    A byte that lies in the cache costs 1/`cache_rate` of one in memory; activations that came cast cost no cast.

    Raises
    ------
    SpecError
        The part has no published peak at this precision, or no memory bandwidth.
    """
    fmt, peak = FORMATS[precision], peak_flops(part, precision)
    m, n, k = rows["m"], rows["n"], rows["k"]
    if peak is None or not part.hbm_Bps > 0:
        remedy = "give its figures in a folder that PODSCALE_CATALOGUE names"
        raise SpecError([Fault("accelerator", part.name, f"no figures for products at {precision}", remedy)])
    software = rows.get("software", np.full(len(m), ""))
    warm, ready = np.isin(software, CYCLES), np.isin(software, CAST_APART)
    held = np.where(warm, resident(m, n, k, model, fmt), 0.0)
    bytes_b = fmt.bytes_b * (1.0 - held * (1.0 - 1.0 / model.cache_rate))
    whole, bare = (
        gemm_s(m, n, k, held_by, peak, part.hbm_Bps, fmt.bytes_a, bytes_b, OUTPUT_BYTES)
        for held_by in (model, replace(model, quantise_bytes=0.0, cast_starts=0.0))
    )
    return column(np.where(ready, bare, whole))


def row_ids(table: Table) -> list[str]:
    """Return what names each row: system, data type, shape, software.

    >>> rows = {key: np.array([value]) for key, value in dict(system="x", dtype="fp8", m=1.0, n=2.0, k=3.0).items()}
    >>> row_ids(rows | {"software": np.array(["y"])})
    ['x fp8 1x2x3 y']
    """
    shapes = [f"{m:.0f}x{n:.0f}x{k:.0f}" for m, n, k in zip(table["m"], table["n"], table["k"], strict=True)]
    words = [table["system"].tolist(), table["dtype"].tolist(), shapes]
    words += [table[key].tolist() for key in OPTIONAL if key in table]
    return [" ".join(cells) for cells in zip(*words, strict=True)]
