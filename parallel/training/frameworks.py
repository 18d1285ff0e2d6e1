"""What training software keeps in memory beside the model's own tensors: one row per kind of software.

A row is read off the software's source; none is fitted. `FRAMEWORKS` is a table of inputs like any other: a workload names
its row, a case file's source maps to one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVar

from topo.errors import Fault, SpecError

T = TypeVar("T")
EAGER_CONTEXT_BYTES: Final = (
    1573 * 2.0**20
)  # torch.ones(1).cuda() on an A100 (BigScience tr11 chronicles-prequel, 2022)
CONTEXT_BYTES: Final = 0.6e9  # the same since kernels load when first used (CUDA 11.7: CUDA_MODULE_LOADING=LAZY)
FUSED_UPDATE: Final = 30.0
"""Bytes per parameter of a fused optimizer: Adam's state read and written (24), gradients read (4), weights written (2)."""
SEPARATE_UPDATE: Final = 62.0
"""The same kernel by kernel: FP16 gradients copied to FP32 (6), unscaled (8), their norm (4), clipped (8), Adam with its gradient
(28), weights copied to FP16 (6), gradients zeroed (2). Megatron-LM 2.5 megatron/optimizer/optimizer.py,
Float16OptimizerWithFloat16Params.step; DeepSpeed runtime/fp16/fused_optimizer.py has as much, flat copies in place of zeroes."""


@dataclass(frozen=True, slots=True)
class Framework:
    """How one kind of software holds a training step.

    Attributes
    ----------
    logit_bytes : bytes per logit at the worst moment of the loss
    split_logit_bytes : the same where the loss runs on a split vocabulary
    placeholders : whether a BF16 tensor per distinct weight shape stands for gradients that were accumulated elsewhere
    dropout : whether a mask (1 byte) follows attention and MLP
    fp8_inputs : whether FP8 recipes keep the inputs of matrix products in FP8 (else in BF16)
    saves_products : selective recomputation keeps every second matrix product and attention's output, nothing else
    fused : whether element-wise chains are compiled: neither a gate's activation nor an unread product is kept
    adds : whether a kernel of its own adds a micro-batch's weight gradients to those before (else the product does)
    outputs_kept : whether a pipeline stage keeps its output until that micro-batch's backward
    gathers : weights exist whole for the layers at work only (FSDP): the FP32 shards are the master copy
    layerwise : whether ZeRO 3 gathers whole layers (else single matrices)
    gradient_copy : bytes per BF16 gradient kept beside an FP32 accumulator
    step_copy : bytes per 16-bit gradient of the copies that an optimizer step over whole gradients makes
    update_bytes : bytes that an optimizer step moves per parameter
    communicators : NCCL communicators beside one per kind of group
    context_bytes : CUDA context with the kernels loaded
    note, source : what it is, and where the above is read
    """

    logit_bytes: float
    split_logit_bytes: float
    placeholders: bool = False
    dropout: bool = False
    fp8_inputs: bool = False
    saves_products: bool = False
    fused: bool = True
    adds: bool = False
    outputs_kept: bool = False
    gathers: bool = False
    layerwise: bool = True
    gradient_copy: float = 0.0
    step_copy: float = 4.0
    update_bytes: float = FUSED_UPDATE
    communicators: int = 0
    context_bytes: float = CONTEXT_BYTES
    note: str = ""
    source: str = ""


FRAMEWORKS: Final[Mapping[str, Framework]] = MappingProxyType(
    {
        # logits and their gradient, both BF16, from the fused vocabulary-parallel loss
        "megatron-core": Framework(
            logit_bytes=4.0,
            split_logit_bytes=4.0,
            placeholders=True,
            fp8_inputs=True,
            note="Megatron-Core with Transformer Engine: fused loss and gradient accumulation",
            source="Transformer Engine module/base.py get_dummy_wgrad; Megatron-Core tensor_parallel/layers.py",
        ),
        # FP16 logits, their FP32 copy and the FP32 softmax that backward turns into the gradient
        "megatron-lm": Framework(
            logit_bytes=10.0,
            split_logit_bytes=10.0,
            dropout=True,
            layerwise=False,
            update_bytes=SEPARATE_UPDATE,
            note="Megatron-LM up to 2023: unfused FP32 loss, dropout",
            source="Korthikanti 2205.05198 §4.1; Megatron-LM core/tensor_parallel/cross_entropy.py",
        ),
        "megatron-deepspeed": Framework(
            logit_bytes=10.0,
            split_logit_bytes=10.0,
            dropout=True,
            layerwise=False,
            update_bytes=SEPARATE_UPDATE,
            adds=True,
            outputs_kept=True,
            gradient_copy=2.0,
            step_copy=8.0,  # FP32 copies of all gradients, and the flat tensor that they are put in
            communicators=3,  # the engine's own groups beside Megatron's: data, model and slice parallel
            context_bytes=EAGER_CONTEXT_BYTES,
            note="Megatron-DeepSpeed: the pipeline engine keeps outputs, ZeRO 1 flattens gradients at the step",
            source="DeepSpeed runtime/pipe/engine.py, runtime/zero/stage_1_and_2.py, runtime/fp16/fused_optimizer.py",
        ),
        # BF16 logits, FP32 log-softmax, its FP32 gradient and the gradient of the FP32 copy
        "torch-fsdp": Framework(
            logit_bytes=14.0,
            split_logit_bytes=18.0,  # loss_parallel: log-softmax, zeros, exponential and their sum, all FP32
            saves_products=True,
            fused=False,
            gathers=True,
            note="PyTorch FSDP, eager",
            source="PyTorch distributed/tensor/parallel/loss.py; torchtitan parallelize_llama.py (_save_list)",
        ),
        # BF16 logits and their gradient: the loss is flash-attention's fused kernel
        "llm-foundry": Framework(
            logit_bytes=4.0,
            split_logit_bytes=4.0,
            gathers=True,
            note="PyTorch FSDP of llm-foundry: fused loss, fused activation",
            source="llm-foundry models/mpt/modeling_mpt.py (fused_crossentropy); flash-attention losses/cross_entropy.py",
        ),
        "torch-fsdp-blocks": Framework(
            logit_bytes=14.0,
            split_logit_bytes=18.0,
            saves_products=True,
            gathers=True,
            note="PyTorch FSDP with compiled blocks and an eager loss (torchtitan of 2024)",
            source="torchtitan parallelize_llama.py apply_compile",
        ),
        # BF16 logits, a BF16 copy that backward reads, and the BF16 gradient
        "torch-fsdp-compiled": Framework(
            logit_bytes=6.0,
            split_logit_bytes=6.0,
            saves_products=True,
            gathers=True,
            note="PyTorch FSDP with compiled blocks and loss (torchtitan of 2025)",
            source="torchtitan components/loss.py build_cross_entropy_loss",
        ),
    }
)
"""Name -> what it keeps."""

OPTIMIZERS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "adam": 12.0,
        "adam-remainders": 10.0,
        "adam-bf16-moments": 8.0,
        "adam-8bit": 6.0,
        "muon": 8.0,
        "sgd": 4.0,
    }
)
"""Optimizer -> bytes per parameter of the FP32 master copy and the state. Adam: two FP32 moments (ZeRO 1910.02054 §3.1);
remainders: of the master copy only what the BF16 weight lacks (NeMo's distributed Adam, store_param_remainders); BF16
moments (DeepSeek-V3 2412.19437 §3.3.2); 8-bit moments (Dettmers 2110.02861); Muon: one FP32 momentum, for matrices."""


def framework(name: str) -> Framework:
    """Return the row of that name.

    >>> framework("megatron-core").logit_bytes
    4.0
    """
    return _named(name, FRAMEWORKS, "framework")


def optimizer_bytes(name: str) -> float:
    """Bytes per parameter of an optimizer's master copy and state.

    >>> optimizer_bytes("adam")
    12.0
    """
    return _named(name, OPTIMIZERS, "optimizer")


def _named(name: str, table: Mapping[str, T], field: str) -> T:
    if name not in table:
        raise SpecError([Fault(field, name, f"no such {field}", f"choose one of {', '.join(table)}")])
    return table[name]
