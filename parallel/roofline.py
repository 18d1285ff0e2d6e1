"""The price of one operator on one chip, forward and backward: a table from the operator's kind to its formula."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from clusters.attention import AttentionModel, attention_model, attention_s
from clusters.catalogue import Accelerator
from clusters.catalogue import accelerator as accelerator_of
from clusters.catalogue import names as catalogue_names
from clusters.kernels import KernelModel, grouped_gemm_s, kernel, memory_s, under_load
from clusters.software import TrainingConstants, capped_rate
from parallel.operators import ACTIVATION_BYTES, Operator
from parallel.precision import FORMATS, Format, Recipe
from parallel.training.frameworks import framework
from parallel.workload import Software
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError

FLASH_BACKWARD_FLOPS = 2.5  # five products where forward has two (FlashAttention-2, 2307.08691 §4.1)
TWO_PASSES = ("fp8", "fp8-row", "nvfp4")
"""Formats with a scale for a whole tensor or row: its largest value is looked for before it is cast (current scaling)."""
TENSOR_CORE_SIDE = 8  # values of 16 bits in the 16 bytes that a tensor core's operand is read by
UNALIGNED = 1.0 / 16.0
"""Rate without tensor cores over that with them: FP32's 19.5 of 312 TFLOP/s on A100 (NVIDIA A100 data sheet)."""
WIDER = ("fp4", "fp8", "bf16")  # what a part without one precision computes in: the next


@dataclass(frozen=True, slots=True)
class Chip:
    """An accelerator with the kernels of one recipe: what prices operators.

    Attributes
    ----------
    kernels : kernel constants per format name
    attention : constants of the fused attention kernel
    vector : bytes of memory-bound operations over those of fused kernels
    separate : whether experts are products of their own, one after the other, that share no wave of tiles
    grouped : rate of separate experts' products over that of the same product alone
    attention_ramp : tokens at which fused attention runs at half of its rate
    gradient_bytes : bytes that a product moves for each value of a weight's gradient
    """

    accelerator: Accelerator
    recipe: Recipe
    kernels: dict[str, KernelModel]
    attention: AttentionModel
    vector: float = 1.0
    separate: bool = False
    grouped: float = 1.0
    attention_ramp: float = 0.0
    gradient_bytes: float = 2.0 * ACTIVATION_BYTES

    def format(self, role: str) -> Format:
        """Return the number format of a role (attention, mlp, experts, head)."""
        return FORMATS[str(getattr(self.recipe, role))]

    def peak(self, fmt: Format) -> float:
        """Return the dense peak of a format; a part without it computes in the next wider one."""
        peaks = self.accelerator.peak_flops
        known = [peaks[name] for name in WIDER[WIDER.index(fmt.peak) :] if peaks.get(name)]
        if not known:
            field, problem = f"{self.accelerator.name}.peak_{fmt.peak}", "is not public"
            raise SpecError([Fault(field, None, problem, "fill it in under override.accelerator of the cluster file")])
        return float(known[0])

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what stands in for a missing measurement."""
        notes = [model.note for model in self.kernels.values()] + [self.attention.note]
        return tuple(dict.fromkeys(note for note in notes if note))


@lru_cache(maxsize=64)
def _kernels(name: str, like: str, formats: tuple[str, ...]) -> dict[str, KernelModel]:
    return {fmt: kernel(name, FORMATS[fmt].kernel, like) for fmt in formats}


def chip(accelerator: Accelerator, recipe: Recipe) -> Chip:
    """Return the chip for a recipe at the clocks of a short benchmark."""
    formats = tuple(sorted({"bf16", recipe.attention, recipe.mlp, recipe.experts, recipe.head}))
    return Chip(
        accelerator,
        recipe,
        _kernels(accelerator.name, accelerator.like, formats),
        attention_model(accelerator.generation),
    )


def cast_bytes(fmt: Format) -> float:
    """Bytes moved for each value of an operand that a training step casts, once for all its products.

    BF16 is read, twice where a scale needs the largest value first, and two copies are written: one along each side of the
    matrix, for the product that follows and for the weight's gradient (Transformer Engine, rowwise and columnwise data).

    >>> [cast_bytes(FORMATS[name]) for name in ("bf16", "fp8", "mxfp8")]
    [0.0, 6.0, 4.0625]
    """
    if fmt.peak == "bf16":
        return 0.0
    return ACTIVATION_BYTES * (2.0 if fmt.name in TWO_PASSES else 1.0) + 2.0 * fmt.bytes_per_value


def trained(machine: Chip, fitted: TrainingConstants, software: Software, gradient_bytes: float = 4.0) -> Chip:
    """Return the chip as a training step of seconds finds it; `gradient_bytes` are those of a value in the sum of gradients.

    Its products keep up `fitted.rate` of their microbenchmark, less where the cluster caps the part's power, and cast each
    operand once (`cast_bytes`), where the microbenchmark casts the activations of every product; the core of
    attention runs at its kernel's share of the peak; memory-bound operations move what the engine's kernels move. A product
    that adds a weight's gradient to the sum reads and writes the sum (Megatron-LM, `gradient_accumulation_fusion`); one whose
    result another kernel adds, or a reduction, writes it in BF16. The
    products of experts are launched one by one (Transformer Engine's GroupedLinear, cuBLAS on several streams).
    """
    part, engine = machine.accelerator, fitted.engines[software.engine]
    capped, frame = power_share(part), framework(software.settled("framework"))
    kernel_name = software.settled("attention")
    fused = kernel_name if kernel_name in fitted.attention else next(iter(fitted.attention))
    forward = capped * fitted.attention_forward(fused, part.generation)
    return replace(
        machine,
        kernels={
            fmt: under_load(
                replace(model, sustained=capped * fitted.rate(part, fmt), quantise_bytes=cast_bytes(FORMATS[fmt]))
            )
            for fmt, model in machine.kernels.items()
        },
        attention=replace(machine.attention, forward=forward, backward=forward * fitted.shared["attention_backward"]),
        attention_ramp=fitted.shared["attention_ramp"],
        vector=1.0 if software.compiled or (frame.gathers and frame.fused) else engine.vector,
        gradient_bytes=ACTIVATION_BYTES if frame.adds or frame.gathers else 2.0 * gradient_bytes,
        separate=True,
        grouped=fitted.shared["grouped"],
    )


def power_share(part: Accelerator) -> float:
    """Return the clock of a part over that of the catalogue's, whose power limit may be higher; 1 for unknown parts.

    >>> from dataclasses import replace
    >>> from clusters.catalogue import accelerator
    >>> round(power_share(replace(accelerator("h100-sxm"), power_W=500.0)), 3)
    0.863
    """
    usual = accelerator_of(part.name).power_W if part.name in catalogue_names() else None
    return capped_rate(usual, part.power_W) if usual and part.power_W else 1.0


def _gemm(
    op: Operator, machine: Chip, m: ColumnLike, n: ColumnLike, k: ColumnLike, *, weight_out: bool = False
) -> Column:
    # A kernel's launch does not depend on its format: the measured FP8 floor holds the cast kernels that engines fuse.
    fmt = FORMATS["bf16"] if op.role == "core" else machine.format(op.role)
    model, groups, times = machine.kernels[fmt.name], column(op.groups), column(1.0)
    if op.role == "experts" and machine.separate:
        groups, times = times, groups
        slowed = np.where(times > 1.0, machine.grouped, 1.0)  # one alone is a product like any other
    else:
        slowed = times
    if weight_out:
        model = replace(model, quantise_bytes=0.0)
    side = min(fmt.bytes_per_value, ACTIVATION_BYTES)
    if op.role == "core":
        slowed = slowed * aligned(m, n, k)
    return machine.kernels["bf16"].launch_s + times * grouped_gemm_s(
        column(m),
        groups,
        column(n),
        column(k),
        model,
        machine.peak(fmt) * slowed,
        machine.accelerator.hbm_Bps,
        bytes_a=side,
        bytes_b=side,
        bytes_out=machine.gradient_bytes if weight_out else ACTIVATION_BYTES,
        launches=0.0,
    )


def aligned(*sides: ColumnLike) -> Column:
    """Share of the tensor cores' rate that products of such sides reach: all, or `UNALIGNED` where one is no multiple of 8.

    Tensor cores take 16-bit operands in rows of 16 bytes. Heads of 108 (BigScience's prequel, 13,824 over 128 heads) lose 30 to
    45 of 150 s by it. Source: NVIDIA, Matrix Multiplication Background User's Guide, "Requirements to use tensor cores".

    >>> aligned(2048.0, [112.0, 108.0], 2048.0).tolist()
    [1.0, 0.0625]
    """
    whole = np.logical_and.reduce(np.broadcast_arrays(*(column(side) % TENSOR_CORE_SIDE == 0 for side in sides)))
    return np.where(whole, 1.0, UNALIGNED)


def _gemm_forward(op: Operator, machine: Chip) -> Column:
    return _gemm(op, machine, op.m, op.n, op.k)


def _gemm_backward(op: Operator, machine: Chip) -> tuple[Column, Column]:
    """Price the gradient of the input, ``[m, n]·[n, k]``, and that of the weight, ``[k, m]·[m, n]``.

    The operands of the latter have been cast for the other two products.
    """
    data = _gemm(op, machine, op.m, op.k, op.n)
    other = _gemm(op, machine, op.k, op.n, op.m, weight_out=op.weights)
    return (data, other) if op.weights else (data + other, column(0.0))


def _attention(op: Operator, machine: Chip, flops: float, efficiency: float) -> Column:
    bf16 = machine.kernels["bf16"]
    peak = machine.peak(FORMATS["fp8"]) if op.role == "indexer" else machine.accelerator.peak_flops["bf16"]
    ramped = flops * column(op.flops) * (1.0 + machine.attention_ramp / column(op.k))
    return attention_s(ramped, flops * column(op.bytes), efficiency, bf16, peak, machine.accelerator.hbm_Bps)


def _attention_backward(op: Operator, machine: Chip) -> tuple[Column, Column]:
    return _attention(op, machine, FLASH_BACKWARD_FLOPS, machine.attention.backward), column(0.0)


def _vector(op: Operator, machine: Chip, passes: ColumnLike) -> Column:
    size_bytes = column(passes) * machine.vector * column(op.bytes)
    return memory_s(size_bytes, machine.kernels["bf16"], machine.accelerator.hbm_Bps, op.launches)


FORWARD: dict[str, Callable[[Operator, Chip], Column]] = {
    "gemm": _gemm_forward,
    "grouped_gemm": _gemm_forward,
    "attention": lambda op, machine: _attention(op, machine, 1.0, machine.attention.forward),
    "latent attention": lambda op, machine: _attention(op, machine, 1.0, machine.attention.latent),
    "vector": lambda op, machine: _vector(op, machine, 1.0),
}

BACKWARD: dict[str, Callable[[Operator, Chip], tuple[Column, Column]]] = {
    "gemm": _gemm_backward,
    "grouped_gemm": _gemm_backward,
    "attention": _attention_backward,
    "vector": lambda op, machine: (_vector(op, machine, op.backward_passes), column(0.0)),
}

BACKWARD_KERNELS: dict[str, float] = {"gemm": 2.0, "grouped_gemm": 2.0, "attention": 2.0, "vector": 1.0}
"""Kernels of backward for each kernel of forward."""


def forward_s(op: Operator, machine: Chip) -> Column:
    """Seconds of one operator, forward."""
    return FORWARD[op.kind](op, machine)


def gradients_s(op: Operator, machine: Chip) -> tuple[Column, Column]:
    """Seconds of the gradients of one operator's inputs, and of that of its weights (0 where it has none)."""
    return BACKWARD[op.kind](op, machine)


def backward_s(op: Operator, machine: Chip) -> Column:
    """Seconds of one operator, backward: gradients of its inputs and of its weights."""
    inputs, weights = gradients_s(op, machine)
    return inputs + weights
