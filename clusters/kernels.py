"""Kernels: the time of one operator on one accelerator, from at most eight fitted constants.

A matrix product is a grid of output tiles on a number of multiprocessors, fed from memory. Five facts price it:

1. a launch floor (with the cast of the activations where the precision needs one),
2. a peak efficiency, reached by large shapes, with a fixed prologue per tile (`k_ramp`),
3. waves: the last, partly filled wave costs between nothing and a whole one (`wave`),
4. a memory efficiency, reached by large sizes through a square-root ramp (`hbm_ramp_s`),
5. compute and memory overlap imperfectly: a p-norm joins them (`norm`; infinity would be the roofline).

The constants are fitted by `clusters.calibration.gemm` and stored, with their residuals, in `data/kernels.yaml`.
The data sheet peaks are arguments, so that a changed part (another clock, another memory) moves the price.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from clusters.catalogue import key_of, read_yaml
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError

DATA = Path(__file__).parent / "data" / "kernels.yaml"

#: The fitted constants, in file order: eight at most for each accelerator and precision.
CONSTANTS = (
    "launch_s",
    "efficiency",
    "wave",
    "k_ramp",
    "hbm_efficiency",
    "hbm_ramp_s",
    "norm",
    "quantise_bytes",
)

#: Other spellings of a precision, as recipes and checkpoints write them.
PRECISIONS: Mapping[str, str] = {
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "bf16",
    "float16": "bf16",
    "half": "bf16",
    "fp8": "fp8",
    "fp8-tensor": "fp8",
    "int8": "fp8",
    "fp8-block": "fp8-block",
    "mxfp8": "fp8-block",
    "nvfp4": "nvfp4",
    "fp4": "nvfp4",
    "mxfp4": "nvfp4",
}

#: What stands in where an accelerator has no constants of a precision: the first of these that it has.
NEAREST_PRECISION: Mapping[str, tuple[str, ...]] = {
    "bf16": (),
    "fp8": ("fp8-block", "bf16"),
    "fp8-block": ("fp8", "bf16"),
    "nvfp4": ("fp8-block", "fp8", "bf16"),
}

#: Output tile (rows, columns) that the vendor libraries use at each precision. A convention, not a fit.
TILES: Mapping[str, tuple[int, int]] = {
    "bf16": (128, 128),
    "fp8": (128, 128),
    "fp8-block": (128, 128),
    "nvfp4": (128, 256),
}


@dataclass(frozen=True, slots=True)
class KernelModel:
    """What one accelerator makes of operators at one precision.

    Parameters
    ----------
    accelerator, precision
        What was asked for; `note` says so where the constants come from elsewhere.
    launch_s
        Time of an empty kernel [s].
    efficiency
        Share of the data sheet FLOP/s that large shapes reach.
    wave
        Sharpness of wave quantisation: 0 ignores it, 1 rounds the waves up.
    k_ramp
        Prologue and epilogue of a tile, in units of k.
    hbm_efficiency
        Share of the data sheet memory bandwidth that large sizes reach.
    hbm_ramp_s
        Memory ramp: V bytes take a further sqrt(hbm_ramp_s · V / B) [s].
    norm
        Exponent of the norm that joins compute and memory time, at least 1.
    quantise_bytes
        Bytes moved for each activation element to cast it to the low precision, before the product; 0 for BF16.
    multiprocessors
        Streaming multiprocessors of the part [count], from its data sheet.
    tile
        Output tile (rows, columns) of one multiprocessor.
    sustained
        Clock under a training load relative to the short benchmark; see `under_load`.
    note
        Empty where the constants were fitted for this part and precision, else whose they are and why.
    """

    accelerator: str
    precision: str
    launch_s: float
    efficiency: float
    wave: float
    k_ramp: float
    hbm_efficiency: float
    hbm_ramp_s: float
    norm: float
    quantise_bytes: float
    multiprocessors: int
    tile: tuple[int, int]
    sustained: float = 1.0
    note: str = ""


def under_load(model: KernelModel) -> KernelModel:
    """Return the model at sustained clocks: the efficiency times `sustained`.

    A short benchmark runs at boost clock; a training step of seconds runs where the power limit leaves it.

    >>> from dataclasses import replace
    >>> under_load(replace(kernel("h100-sxm", "bf16"), efficiency=0.8, sustained=0.5)).efficiency
    0.4
    """
    return replace(model, efficiency=model.efficiency * model.sustained, sustained=1.0)


def waves(m: ColumnLike, n: ColumnLike, model: KernelModel, groups: ColumnLike = 1.0) -> Column:
    """Waves of output tiles, with the rounding softened.

    waves = x^(1−wave) · q^wave, x = groups·m·n / (tile·multiprocessors), q = ⌈groups·⌈m/tile_m⌉·⌈n/tile_n⌉ /
    multiprocessors⌉. Libraries pick smaller tiles or split k when the last wave is poorly filled, so the truth lies
    between the exact x and the rounded q.

    Examples
    --------
    300 tiles on 100 multiprocessors are 3 waves, 301 are 4 when rounding is sharp:

    >>> from dataclasses import replace
    >>> sharp = replace(kernel("h100-sxm", "bf16"), wave=1.0, multiprocessors=100, tile=(128, 128))
    >>> waves([300 * 128, 301 * 128], 128, sharp)
    array([3., 4.])
    """
    rows, cols = model.tile
    m, n, groups = column(m), column(n), column(groups)
    exact = groups * m * n / (rows * cols * model.multiprocessors)
    whole = np.ceil(groups * np.ceil(m / rows) * np.ceil(n / cols) / model.multiprocessors)
    return column(exact ** (1 - model.wave) * whole**model.wave)


def compute_s(
    m: ColumnLike, n: ColumnLike, k: ColumnLike, model: KernelModel, peak_flops: ColumnLike, groups: ColumnLike = 1.0
) -> Column:
    """Time of the arithmetic alone: waves · 2·tile·multiprocessors·(k + k_ramp) / (efficiency · peak) [s].

    >>> from dataclasses import replace
    >>> ideal = replace(kernel("h100-sxm", "bf16"), wave=0.0, efficiency=1.0, k_ramp=0.0)
    >>> float(round(compute_s(1000, 1000, 1000, ideal, 1e12), 12))  # 2 GFLOP at 1 TFLOP/s
    0.002
    """
    wave_flops = 2.0 * model.tile[0] * model.tile[1] * model.multiprocessors * (column(k) + model.k_ramp)
    return waves(m, n, model, groups) * wave_flops / (model.efficiency * column(peak_flops))


def streaming_s(size_bytes: ColumnLike, model: KernelModel, hbm_Bps: ColumnLike) -> Column:
    """Time to stream bytes through memory, without a launch: V/(η·B) + sqrt(ramp·V/B) [s].

    >>> from dataclasses import replace
    >>> half = replace(kernel("h100-sxm", "bf16"), hbm_efficiency=0.5, hbm_ramp_s=0.0)
    >>> float(streaming_s(1e9, half, 1e12))
    0.002
    """
    wire_s = column(size_bytes) / column(hbm_Bps)
    return wire_s / model.hbm_efficiency + np.sqrt(model.hbm_ramp_s * wire_s)


def memory_s(size_bytes: ColumnLike, model: KernelModel, hbm_Bps: ColumnLike, launches: ColumnLike = 1.0) -> Column:
    """Time of a kernel that only moves bytes: launches·launch_s + streaming [s].

    `launches` is 0 inside a fused kernel or where launches are priced elsewhere.

    >>> from dataclasses import replace
    >>> plain = replace(kernel("h100-sxm", "bf16"), launch_s=1e-6, hbm_efficiency=0.5, hbm_ramp_s=0.0)
    >>> float(round(memory_s(1e6, plain, 1e12), 12))  # 1 us + 2 us
    3e-06
    """
    return column(launches) * model.launch_s + streaming_s(size_bytes, model, hbm_Bps)


def gemm_bytes(
    m: ColumnLike, n: ColumnLike, k: ColumnLike, bytes_a: ColumnLike, bytes_b: ColumnLike, bytes_out: ColumnLike
) -> Column:
    """Bytes a product reads and writes once: bytes_a·m·k + bytes_b·k·n + bytes_out·m·n.

    >>> float(gemm_bytes(2, 3, 5, 1, 2, 4))  # 10 + 30 + 24
    64.0
    """
    m, n, k = column(m), column(n), column(k)
    return column(bytes_a) * m * k + column(bytes_b) * k * n + column(bytes_out) * m * n


def gemm_s(
    m: ColumnLike,
    n: ColumnLike,
    k: ColumnLike,
    model: KernelModel,
    peak_flops: ColumnLike,
    hbm_Bps: ColumnLike,
    bytes_a: ColumnLike = 2.0,
    bytes_b: ColumnLike = 2.0,
    bytes_out: ColumnLike = 2.0,
    launches: ColumnLike = 1.0,
) -> Column:
    """Time of one m×k by k×n product [s]: launch + ‖compute, memory‖_norm + cast of the activations.

    Parameters
    ----------
    m, n, k
        Shape; m counts tokens, n·k is the weight. Columns that broadcast; fractions are allowed.
    model
        Constants, from `kernel`.
    peak_flops, hbm_Bps
        Data sheet figures of the part at this precision: dense FLOP/s, and memory bytes/s.
    bytes_a, bytes_b, bytes_out
        Bytes per element of activation, weight and result (FP4 with scales: 0.5625).
    launches
        Kernel launches charged; 0 where launches are priced elsewhere.

    Examples
    --------
    With a norm near infinity the slower side rules; 2 GFLOP at 1 TFLOP/s take 2 ms, 6 MB at 1 TB/s are hidden:

    >>> from dataclasses import replace
    >>> ideal = replace(kernel("h100-sxm", "bf16"), launch_s=1e-3, efficiency=1.0, wave=0.0, k_ramp=0.0, norm=40.0)
    >>> float(round(gemm_s(1000, 1000, 1000, ideal, 1e12, 1e12), 9))
    0.003
    """
    return grouped_gemm_s(m, 1.0, n, k, model, peak_flops, hbm_Bps, bytes_a, bytes_b, bytes_out, launches)


def grouped_gemm_s(
    tokens_per_expert: ColumnLike,
    experts: ColumnLike,
    n: ColumnLike,
    k: ColumnLike,
    model: KernelModel,
    peak_flops: ColumnLike,
    hbm_Bps: ColumnLike,
    bytes_a: ColumnLike = 2.0,
    bytes_b: ColumnLike = 2.0,
    bytes_out: ColumnLike = 2.0,
    launches: ColumnLike = 1.0,
) -> Column:
    """Time of `experts` products of the same n, k in one kernel [s].

    The tiles of all experts share the waves, every expert's weight is read, and there is one launch. With one expert
    it is `gemm_s`. Pass the experts that are hit, with their mean tokens.

    Examples
    --------
    Eight experts of one token stream eight weights of 2 MB each, 16 us at 1 TB/s:

    >>> from dataclasses import replace
    >>> ideal = replace(kernel("h100-sxm", "bf16"), launch_s=0.0, hbm_efficiency=1.0, hbm_ramp_s=0.0, norm=40.0)
    >>> float(round(grouped_gemm_s(1, 8, 1000, 1000, ideal, 1e15, 1e12, bytes_a=0, bytes_out=0), 9))
    1.6e-05
    """
    m, groups = column(tokens_per_expert), column(experts)
    busy_s = compute_s(m, n, k, model, peak_flops, groups)
    moved_s = streaming_s(groups * gemm_bytes(m, n, k, bytes_a, bytes_b, bytes_out), model, hbm_Bps)
    cast_s = model.quantise_bytes * groups * m * column(k) / column(hbm_Bps)
    joined_s = (busy_s**model.norm + moved_s**model.norm) ** (1 / model.norm)
    return column(launches) * model.launch_s + joined_s + cast_s


@lru_cache
def table() -> Mapping[str, Any]:
    """Return `data/kernels.yaml` as it stands: constants, residuals, fallbacks and sources."""
    loaded: Mapping[str, Any] = read_yaml(DATA.read_text("utf-8"))
    return loaded


@lru_cache
def kernel(accelerator: str, precision: str = "bf16") -> KernelModel:
    """Return the constants of an accelerator at a precision, or the nearest that were measured, with a `note`.

    The order of fallback: the accelerator's own rows; the part that `fallback` in the data file names for it (its
    own die, else its generation); the nearest precision of that part; the default part.

    Raises
    ------
    SpecError
        The precision is not one of `PRECISIONS`.

    Examples
    --------
    >>> kernel("h100-sxm", "bf16").note
    ''
    >>> kernel("gb300", "nvfp4").note.split(":")[0]
    'no measurement of gb300'
    """
    name, wanted = key_of(accelerator), PRECISIONS.get(key_of(precision))
    if wanted is None:
        choices = ", ".join(PRECISIONS)
        raise SpecError([Fault("precision", precision, "no kernel constants for this precision", f"use {choices}")])
    measured, notes = table()["measured"], []
    source, borrowed = name, {}
    if name not in measured:
        borrowed = table()["fallback"].get(name, table()["fallback"]["default"])
        source = borrowed["like"]
        notes.append(f"no measurement of {name}: constants of {source} ({borrowed['why']})")
    found = next(p for p in (wanted, *NEAREST_PRECISION[wanted]) if p in measured[source])
    if found != wanted:
        notes.append(f"no {wanted} rows of {source}: constants of {found}")
    published = borrowed.get("efficiency", {})
    if wanted in published:
        notes.append(f"efficiency {published[wanted]} from its best published matrix product")
    entry = measured[source][found]
    constants = {key: float(entry[key]) for key in CONSTANTS}
    constants["efficiency"] = float(published.get(wanted, constants["efficiency"]))
    return KernelModel(
        accelerator=name,
        precision=wanted,
        multiprocessors=int(borrowed.get("multiprocessors", measured[source]["multiprocessors"])),
        tile=TILES[found],
        sustained=float(measured[source].get("sustained", 1.0)),
        note="; ".join(notes),
        **constants,
    )
