"""Kernels: the time of one operator on one accelerator, from at most eight fitted constants.

A matrix product is a grid of output tiles on a number of multiprocessors, fed from memory. Five facts price it:

1. a launch floor (with the cast of the activations where the precision needs one),
2. a peak efficiency, reached by large shapes, with a fixed prologue per tile (`k_ramp`),
3. waves: the last, partly filled wave costs between nothing and a whole one (`wave`),
4. a memory efficiency, reached by large sizes through a square-root ramp (`hbm_ramp_s`),
5. compute and memory overlap imperfectly: a p-norm joins them (`norm`; infinity would be the roofline).

A sixth holds where a kernel walks its tiles down the rows and nothing reorders them (`rereads`): activations that
outgrow the cache are read again for every column of tiles.

The constants are fitted by `clusters.calibration.gemm` and stored, with their residuals, in `data/kernels.yaml`; a
file of one's own may lie over it (`clusters.overlay`). The data sheet peaks are arguments, so that a changed part
(another clock, another memory) moves the price.
"""

import numpy as np

from clusters.kernel_models import (
    CONSTANTS,
    PRECISIONS,
    TILES,
    KernelModel,
    interval,
    kernel,
    table,
    under_load,
)
from topo.columns import Column, ColumnLike, column

_TINY = np.finfo(np.float64).tiny

__all__ = [
    "CONSTANTS",
    "PRECISIONS",
    "TILES",
    "KernelModel",
    "compute_s",
    "exact_waves",
    "gemm_bytes",
    "gemm_s",
    "grouped_gemm_s",
    "interval",
    "kernel",
    "memory_s",
    "p_norm",
    "reread_bytes",
    "streaming_s",
    "table",
    "under_load",
    "waves",
]


def exact_waves(m: ColumnLike, n: ColumnLike, model: KernelModel, groups: ColumnLike = 1.0) -> Column:
    """Waves of output tiles if tiles could be cut at will: groups·m·n / (tile·multiprocessors).

    >>> from dataclasses import replace
    >>> float(exact_waves(256, 128, replace(kernel("h100-sxm"), multiprocessors=100, tile=(128, 128))))
    0.02
    """
    rows, cols = model.tile
    return column(column(groups) * column(m) * column(n) / (rows * cols * model.multiprocessors))


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
    exact = exact_waves(m, n, model, groups)
    whole = np.ceil(groups * np.ceil(m / rows) * np.ceil(n / cols) / model.multiprocessors)
    return column(exact * (whole / np.maximum(exact, _TINY)) ** model.wave)  # x·(q/x)^wave: one power, not two


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


def reread_bytes(m: ColumnLike, n: ColumnLike, k: ColumnLike, bytes_a: ColumnLike, model: KernelModel) -> Column:
    """Bytes of activations read again from memory: (bytes_a·m·k − cache)⁺ · (n/tile_n − 1)⁺, or 0 without `rereads`.

    Tiles that are walked down the rows pass the activations once for every column of tiles. The cache keeps what it
    holds from pass to pass; the rest comes from memory each time.

    Examples
    --------
    Activations of 20 MB, a cache of 15 MB and four columns of tiles: 5 MB more on each of three passes.

    >>> from dataclasses import replace
    >>> down = replace(kernel("h100-sxm"), rereads=True, cache_bytes=15e6, tile=(128, 128))
    >>> float(reread_bytes(1000, 512, 10000, 2, down))
    15000000.0
    """
    if not model.rereads:
        return column(0.0)
    spilled = np.maximum(column(bytes_a) * column(m) * column(k) - model.cache_bytes, 0.0)
    return column(spilled * np.maximum(column(n) / model.tile[1] - 1.0, 0.0))


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
    size_bytes = gemm_bytes(m, n, k, bytes_a, bytes_b, bytes_out) + reread_bytes(m, n, k, bytes_a, model)
    moved_s = streaming_s(groups * size_bytes, model, hbm_Bps)
    cast_s = model.quantise_bytes * groups * m * column(k) / column(hbm_Bps)
    starts = column(launches) * (1.0 + model.cast_starts)
    return starts * model.launch_s + p_norm(busy_s, moved_s, model.norm) + cast_s


def p_norm(one: Column, other: Column, norm: float) -> Column:
    """Join two times that overlap imperfectly: ``(a^p + b^p)^(1/p)``, as ``max·(1 + (min/max)^p)^(1/p)``.

    >>> float(p_norm(np.array(3.0), np.array(4.0), 2.0))
    5.0
    """
    longer, shorter = np.maximum(one, other), np.minimum(one, other)
    return column(longer * (1.0 + (shorter / np.maximum(longer, _TINY)) ** norm) ** (1.0 / norm))
