"""What one operator takes under the kernels of inference: few tokens at a time, many experts at once."""

from dataclasses import replace

import numpy as np

from clusters.catalogue import Accelerator
from clusters.kernels import compute_s, gemm_bytes, streaming_s
from parallel.operators import ACTIVATION_BYTES, Operator
from parallel.precision import FORMATS, Recipe
from parallel.roofline import Chip, chip, forward_s
from parallel.routing import tiles
from parallel.serving.engines import Engine
from topo.columns import Column, column

SMALLEST_TILE = 16.0
"""Rows of the smallest output tile that kernels for few tokens use, where large ones use 128 (CUTLASS, swapped operands)."""


def engine_chip(part: Accelerator, recipe: Recipe, engine: Engine) -> Chip:
    """Return the chip as an engine's kernels find it: grouped products of experts at their rate."""
    return replace(chip(part, recipe), grouped=engine.grouped_rate(recipe.experts, part.generation))


def work_s(op: Operator, machine: Chip) -> Column:
    """Seconds of one operator without its start.

    A GEMM of few rows takes a tile of fewer: ``r = 2^⌈log2 m⌉`` rows, 16 at least, where large ones take 128, so its
    arithmetic shrinks by r/128. Block-scaled FP8 casts its activations in a kernel of its own (DeepSeek-V3 2412.19437
    §3.3.2); the casts of other formats ride on the kernel before. Kernels for many experts at once reach `Chip.grouped` of a
    single product's arithmetic: they gather rows, and widen what the part cannot multiply. Rows of an expert are a random
    number, whose last tile is half empty on average (`parallel.routing.tiles`).
    """
    bf16 = machine.kernels["bf16"]
    if op.kind not in ("gemm", "grouped_gemm"):
        return forward_s(op, machine) - bf16.launch_s
    fmt = FORMATS["bf16"] if op.role == "core" else machine.format(op.role)
    model, hbm = machine.kernels[fmt.name], machine.accelerator.hbm_Bps
    m, n, k, groups = (column(value) for value in (op.m, op.n, op.k, op.groups))
    routed = op.kind == "grouped_gemm" and op.role == "experts"
    least = float(model.tile[0]) if model.whole_tiles and not routed else SMALLEST_TILE
    rows = np.clip(2.0 ** np.ceil(np.log2(np.maximum(m, 1.0))), least, model.tile[0])
    rate, covered = (machine.grouped, rows * tiles(m, rows)) if routed else (1.0, m)
    busy = compute_s(covered, n, k, model, machine.peak(fmt), groups) * rows / model.tile[0] / rate
    side = min(fmt.bytes_per_value, ACTIVATION_BYTES)
    moved = streaming_s(groups * gemm_bytes(m, n, k, side, side, ACTIVATION_BYTES), model, hbm)
    cast = model.quantise_bytes * groups * m * k / hbm
    start = (1.0 + model.cast_starts) * model.launch_s - bf16.launch_s if fmt.name == "fp8-block" else 0.0
    return column((busy**model.norm + moved**model.norm) ** (1.0 / model.norm) + cast + start)


def started_s(op: Operator, machine: Chip) -> Column:
    """Seconds of one operator with the start of its kernel, as short benchmarks find it."""
    return work_s(op, machine) + machine.kernels["bf16"].launch_s
