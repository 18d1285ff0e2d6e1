"""Number formats, and which tensor of a model uses which: rules as tables.

Attention's core and the language-model head stay in BF16 in every recipe here, as in Transformer Engine's recipes and in
DeepSeek-V3 (arXiv 2412.19437, §3.3); checkpoints in NVFP4 keep their attention weights in BF16 (NVIDIA ModelOpt).
"""

from dataclasses import dataclass

from topo.errors import Fault, SpecError


@dataclass(frozen=True, slots=True)
class Format:
    """One number format: bytes per value with its block scales, and the kernels that multiply in it."""

    name: str
    bytes_per_value: float
    kernel: str
    peak: str

    @property
    def title(self) -> str:
        """Name with its width, for tables."""
        return f"{self.name} ({self.bytes_per_value:g} B)"


FORMATS: dict[str, Format] = {
    "bf16": Format("bf16", 2.0, kernel="bf16", peak="bf16"),
    "fp8": Format("fp8", 1.0, kernel="fp8", peak="fp8"),
    # one power-of-two scale per 32 values (OCP microscaling)
    "mxfp8": Format("mxfp8", 1.03125, kernel="mxfp8", peak="fp8"),
    "fp8-row": Format("fp8-row", 1.0, kernel="fp8", peak="fp8"),
    # 1×128 and 128×128 blocks with an FP32 scale each (DeepSeek-V3 §3.3.2): 4/128² per weight is below 0.03 %
    "fp8-block": Format("fp8-block", 1.0, kernel="fp8-block", peak="fp8"),
    # 4 bits and one FP8 scale per 16 values (NVFP4)
    "nvfp4": Format("nvfp4", 0.5625, kernel="nvfp4", peak="fp4"),
    # 4 bits and one 8-bit scale per 32 values (OCP MX v1.0), multiplied with FP8 activations
    "mxfp4": Format("mxfp4", 0.53125, kernel="nvfp4", peak="fp8"),
    # 4 bits and one BF16 scale per 32 values, widened to BF16 before the product (compressed-tensors, Marlin)
    "int4": Format("int4", 0.5625, kernel="int4-wo", peak="bf16"),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which format each role uses. `dispatch` and `combine` are what the expert exchange sends."""

    name: str
    attention: str
    mlp: str
    experts: str
    head: str
    dispatch: str
    combine: str


RECIPES: dict[str, Recipe] = {
    "bf16": Recipe("bf16", "bf16", "bf16", "bf16", "bf16", dispatch="bf16", combine="bf16"),
    "fp8": Recipe("fp8", "fp8", "fp8", "fp8", "bf16", dispatch="fp8-block", combine="bf16"),
    "mxfp8": Recipe("mxfp8", "mxfp8", "mxfp8", "mxfp8", "bf16", dispatch="bf16", combine="bf16"),
    "fp8-row": Recipe("fp8-row", "fp8-row", "fp8-row", "fp8-row", "bf16", dispatch="bf16", combine="bf16"),
    "nvfp4": Recipe("nvfp4", "bf16", "nvfp4", "nvfp4", "bf16", dispatch="fp8-block", combine="bf16"),
}

#: Where training differs: NVFP4 pre-training runs the attention projections in FP4 too (NVIDIA 2509.25149, section 3).
TRAINING: dict[str, Recipe] = {
    "fp8": Recipe("fp8", "fp8", "fp8", "fp8", "bf16", dispatch="bf16", combine="bf16"),
    "nvfp4": Recipe("nvfp4", "nvfp4", "nvfp4", "nvfp4", "bf16", dispatch="bf16", combine="bf16"),
}


def recipe(name: str, *, training: bool = False) -> Recipe:
    """Return the recipe of that name.

    >>> recipe("fp8").combine
    'bf16'
    >>> recipe("nvfp4").attention, recipe("nvfp4", training=True).attention
    ('bf16', 'nvfp4')
    """
    if name not in RECIPES:
        raise SpecError([Fault("precision", name, "no such recipe", f"choose one of {', '.join(RECIPES)}")])
    return TRAINING.get(name, RECIPES[name]) if training else RECIPES[name]


def row_bytes(hidden: float, name: str) -> float:
    """Bytes of one token's activation row in a format, scales included: one FP32 scale per 128 FP8 values.

    Source: deepseek-ai/DeepEP, low-latency dispatch (7,168 FP8 values and 56 scales = 7,392 bytes).

    >>> row_bytes(7168, "fp8-block"), row_bytes(7168, "bf16")
    (7392.0, 14336.0)
    """
    scales = 4.0 * hidden / 128 if name == "fp8-block" else 0.0
    return hidden * FORMATS[name].bytes_per_value + scales
