"""The price of one operator on one chip, forward and backward: a table from the operator's kind to its formula."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from clusters.attention import AttentionModel, attention_model, attention_s
from clusters.catalogue import Accelerator
from clusters.kernels import KernelModel, grouped_gemm_s, kernel, memory_s, under_load
from parallel.operators import ACTIVATION_BYTES, Operator
from parallel.precision import FORMATS, Format, Recipe
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError

FLASH_BACKWARD_FLOPS = 2.5  # five products where forward has two (FlashAttention-2, 2307.08691 §4.1)
WIDER = ("fp4", "fp8", "bf16")  # what a part without one precision computes in: the next
VECTOR_BACKWARD_BYTES = 2.0  # reads the saved input and the gradient, writes a gradient


@dataclass(frozen=True, slots=True)
class Chip:
    """An accelerator with the kernels of one recipe: what prices operators.

    Attributes
    ----------
    kernels : kernel constants per format name
    attention : constants of the fused attention kernel
    """

    accelerator: Accelerator
    recipe: Recipe
    kernels: dict[str, KernelModel]
    attention: AttentionModel

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
def _kernels(name: str, like: str, formats: tuple[str, ...], *, sustained: bool) -> dict[str, KernelModel]:
    found = {fmt: kernel(name, FORMATS[fmt].kernel, like) for fmt in formats}
    return {fmt: under_load(model) for fmt, model in found.items()} if sustained else found


def chip(accelerator: Accelerator, recipe: Recipe, *, sustained: bool = False) -> Chip:
    """Return the chip for a recipe; `sustained` takes the clocks of hours of training, not of a benchmark."""
    formats = tuple(sorted({"bf16", recipe.attention, recipe.mlp, recipe.experts, recipe.head}))
    return Chip(
        accelerator,
        recipe,
        _kernels(accelerator.name, accelerator.like, formats, sustained=sustained),
        attention_model(accelerator.generation),
    )


def _gemm(
    op: Operator, machine: Chip, m: ColumnLike, n: ColumnLike, k: ColumnLike, *, weight_out: bool = False
) -> Column:
    # A kernel's launch does not depend on its format: the measured FP8 floor holds the cast kernels that engines fuse.
    fmt = machine.format(op.role)
    side = min(fmt.bytes_per_value, ACTIVATION_BYTES)
    return machine.kernels["bf16"].launch_s + grouped_gemm_s(
        column(m),
        op.groups,
        column(n),
        column(k),
        machine.kernels[fmt.name],
        machine.peak(fmt),
        machine.accelerator.hbm_Bps,
        bytes_a=side,
        bytes_b=side,
        bytes_out=4.0 if weight_out else ACTIVATION_BYTES,
        launches=0.0,
    )


def _gemm_forward(op: Operator, machine: Chip) -> Column:
    return _gemm(op, machine, op.m, op.n, op.k)


def _gemm_backward(op: Operator, machine: Chip) -> Column:
    """Price the gradient of the input, ``[m, n]·[n, k]``, and that of the weight, ``[k, m]·[m, n]``, added in FP32."""
    data = _gemm(op, machine, op.m, op.k, op.n)
    return data + _gemm(op, machine, op.k, op.n, op.m, weight_out=True) if op.weights else data


def _attention(op: Operator, machine: Chip, flops: float, efficiency: float) -> Column:
    bf16 = machine.kernels["bf16"]
    peak = machine.accelerator.peak_flops["bf16"]
    return attention_s(
        flops * column(op.flops), flops * column(op.bytes), efficiency, bf16, peak, machine.accelerator.hbm_Bps
    )


def _vector(op: Operator, machine: Chip, passes: float) -> Column:
    return memory_s(passes * column(op.bytes), machine.kernels["bf16"], machine.accelerator.hbm_Bps)


FORWARD: dict[str, Callable[[Operator, Chip], Column]] = {
    "gemm": _gemm_forward,
    "grouped_gemm": _gemm_forward,
    "attention": lambda op, machine: _attention(op, machine, 1.0, machine.attention.forward),
    "vector": lambda op, machine: _vector(op, machine, 1.0),
}

BACKWARD: dict[str, Callable[[Operator, Chip], Column]] = {
    "gemm": _gemm_backward,
    "grouped_gemm": _gemm_backward,
    "attention": lambda op, machine: _attention(op, machine, FLASH_BACKWARD_FLOPS, machine.attention.backward),
    "vector": lambda op, machine: _vector(op, machine, VECTOR_BACKWARD_BYTES),
}


def forward_s(op: Operator, machine: Chip) -> Column:
    """Seconds of one operator, forward."""
    return FORWARD[op.kind](op, machine)


def backward_s(op: Operator, machine: Chip) -> Column:
    """Seconds of one operator, backward: gradients of its input and, where it has weights, of these."""
    return BACKWARD[op.kind](op, machine)
