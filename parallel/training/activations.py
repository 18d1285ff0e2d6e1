"""Activations of a training step, tensor by tensor: what one layer leaves for backward, and what backward and loss add.

Symbols as in `parallel.operators`: ``t`` tokens of one rank and micro-batch, ``h`` hidden size, ``tp`` splits matrices,
``split`` is tp under sequence parallelism and 1 without. Bytes per rank, layer and micro-batch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from parallel.models import Attention, LayerKind, Mlp, Model, Moe
from parallel.operators import ACTIVATION_BYTES, UNFUSED_SAVED_BYTES, qk_width, v_width
from parallel.precision import FORMATS, recipe
from parallel.priced import total
from parallel.training.frameworks import framework
from parallel.workload import TrainWorkload
from topo.columns import Column, column

MODES: Final = ("none", "selective", "full")
MODULES: Final = ("core_attn", "layernorm", "mlp", "moe", "moe_act", "mla_up_proj", "shared_experts")
"""What Megatron-Core can recompute of a layer (`recompute_modules`); its default is the attention core."""
SCORE_GRADIENT_BYTES: Final = 4.0  # unfused backward: gradients of the dropped-out and of the plain softmax


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor that backward needs.

    Attributes
    ----------
    size_bytes : per rank, layer and micro-batch
    modules : the parts of `MODULES` whose recomputation drops it
    product : whether per-operation recomputation keeps it (every second matrix product, attention's output)
    unread : a product that no backward reads: compiled code drops it, eager per-operation recomputation keeps it
    """

    name: str
    size_bytes: Column
    modules: tuple[str, ...] = ()
    product: bool = False
    unread: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes that the tensors of a layer are made of: see the symbols above; `cell` is bytes of a stored GEMM input."""

    t: Column
    h: float
    split: Column
    tp: Column
    etp: Column
    sequence: float
    cell: Mapping[str, float]


def shape_of(model: Model, work: TrainWorkload, cols: Mapping[str, Column]) -> Shape:
    """Sizes on one rank: sequence parallelism splits norms and residuals, context parallelism the tokens."""
    chosen = recipe(work.precision, training=True)
    stored = framework(work.framework).fp8_inputs
    cell = {
        role: min(FORMATS[getattr(chosen, role)].bytes_per_value, ACTIVATION_BYTES) if stored else ACTIVATION_BYTES
        for role in ("attention", "mlp", "experts")
    }
    split = np.where(cols["sp"] > 0, cols["tp"], 1.0)
    t = cols["micro_batch"] * work.sequence / cols["cp"]
    return Shape(t, float(model.hidden), split, cols["tp"], cols["etp"], float(work.sequence), cell)


def layer_tensors(kind: LayerKind, shape: Shape, work: TrainWorkload) -> list[Tensor]:
    """Return everything that one layer keeps for backward when nothing is recomputed.

    >>> from parallel.models import LayerKind, Mlp, Attention  # Korthikanti 2205.05198 §4.1: 34 bytes per token and
    >>> one = np.ones(1)                                       # hidden value, of which these are all but two masks
    >>> llama = LayerKind("dense", Attention("gqa", 32, 32, 128), Mlp(4 * 4096, gated=False), 1)
    >>> sizes = Shape(one, 4096.0, one, one, one, 1.0, {"attention": 2.0, "mlp": 2.0, "experts": 2.0})
    >>> round(float(total(x.size_bytes for x in layer_tensors(llama, sizes, TrainWorkload()))[0]) / 4096)
    32
    """
    routed = isinstance(kind.mlp, Moe)
    tensors = [*_attention(kind.attention, shape, work, own_norm=kind.attention.kind == "mla")]
    tensors += _norm("mlp norm", shape, shape.cell["mlp"], modules=("layernorm",) if routed else ("mlp",))
    if isinstance(kind.mlp, Moe):
        tensors += _experts(kind.mlp, shape, work)
    else:
        tensors += _mlp("mlp", kind.mlp, shape, work, ("mlp",))
    if framework(work.framework).dropout:
        masks = 2.0 * shape.t * shape.h / shape.split
        tensors.append(Tensor("dropout masks", masks))
    return tensors


def _norm(name: str, shape: Shape, cell: float, modules: tuple[str, ...]) -> Iterator[Tensor]:
    """Yield the residual stream that enters a norm, and what leaves it: the input of the next matrix product."""
    yield Tensor(f"{name} in", ACTIVATION_BYTES * shape.t * shape.h / shape.split)
    yield Tensor(f"{name} out", cell * shape.t * shape.h / shape.split, modules)


def _attention(att: Attention, shape: Shape, work: TrainWorkload, *, own_norm: bool) -> Iterator[Tensor]:
    """Norm, queries, keys and values, the scores where nothing fuses them, and the output that the projection reads.

    Transformer Engine fuses a dense layer's norm into the product, so `layernorm` recomputation drops MLA's only.
    """
    t, wide, cell = shape.t, ACTIVATION_BYTES * shape.t, shape.cell["attention"]
    heads = att.heads / shape.tp
    groups = np.maximum((att.heads if att.kind == "mla" else att.kv_heads) / shape.tp, 1.0)
    yield from _norm("attention norm", shape, cell, ("layernorm",) if own_norm else ())
    lifted: tuple[str, ...] = ()
    if att.kind == "mla":
        lifted = ("mla_up_proj",)
        yield Tensor("latents", wide * (att.q_lora_rank + att.kv_lora_rank + att.qk_rope_head_dim))
        yield Tensor("latent norms", cell * t * (att.q_lora_rank + att.kv_lora_rank), lifted)
    yield Tensor("query", wide * heads * qk_width(att), lifted, product=True)
    yield Tensor("key", wide * groups * qk_width(att), lifted)
    yield Tensor("value", wide * groups * v_width(att), lifted, product=True)
    if work.fused_attention:
        yield Tensor("softmax sums", 4.0 * t * heads, ("core_attn",), product=True)
    else:
        yield Tensor("scores", UNFUSED_SAVED_BYTES * t * shape.sequence * heads, ("core_attn",))
    yield Tensor("attention output", wide * heads * v_width(att), product=True)
    if cell < ACTIVATION_BYTES:
        yield Tensor("projection input", cell * t * heads * v_width(att))


def _mlp(name: str, mlp: Mlp, shape: Shape, work: TrainWorkload, modules: tuple[str, ...]) -> Iterator[Tensor]:
    """Up (and gate), and the activated product that the down projection reads; an eager gate keeps one more."""
    fw, f = framework(work.framework), mlp.intermediate / shape.tp
    wide = ACTIVATION_BYTES * shape.t * f
    yield Tensor(f"{name} up", wide, modules, product=True)
    if mlp.gated:
        yield Tensor(f"{name} gate", wide, modules)
        if not fw.fused:
            yield Tensor(f"{name} activated gate", wide, modules)
    yield Tensor(f"{name} activated", shape.cell["mlp"] * shape.t * f, modules)
    if fw.saves_products:
        down = ACTIVATION_BYTES * shape.t * shape.h / shape.split
        yield Tensor(f"{name} down", down, product=True, unread=True)


def _experts(moe: Moe, shape: Shape, work: TrainWorkload) -> Iterator[Tensor]:
    """Router, dispatched rows of the busiest rank, and the experts' own MLP; shared experts beside them."""
    t = shape.t / shape.tp
    rows = t * moe.topk * shape.etp * work.imbalance
    f = moe.intermediate / shape.etp
    cell, up = shape.cell["experts"], (2.0 if moe.gated else 1.0) * f
    yield Tensor("router", 2.0 * 4.0 * t * moe.experts, ("moe",))  # FP32 logits and probabilities
    yield Tensor("expert input", cell * rows * shape.h, ("moe",))
    yield Tensor("expert up", ACTIVATION_BYTES * rows * up, ("moe",), product=True)
    yield Tensor("expert activated", cell * rows * f, ("moe", "moe_act"))
    if moe.shared_intermediate:
        shared = Mlp(moe.shared_intermediate, moe.gated)
        yield from _mlp("shared expert", shared, shape, work, ("moe", "shared_experts"))


def kept(tensors: list[Tensor], mode: str, work: TrainWorkload) -> Column:
    """Bytes that a layer keeps under a mode of recomputation: `none`, `selective` or `full` (its input alone)."""
    fw = framework(work.framework)
    read = [x for x in tensors if not x.unread]
    if mode == "full":
        return column(tensors[0].size_bytes)
    if mode == "none":
        return total(x.size_bytes for x in read)
    if fw.saves_products:
        return tensors[0].size_bytes + total(x.size_bytes for x in (read if fw.fused else tensors) if x.product)
    return total(x.size_bytes for x in read if not set(x.modules) & set(work.recompute_modules))


def backward_bytes(kind: LayerKind, shape: Shape, work: TrainWorkload, ep: Column) -> Column:
    """Gradients that backward holds at once inside one layer, less the saved tensors that it has freed by then.

    The widest moment is the activation's: its input's gradient stands beside its input, and the gradient of the residual
    stream waits. Experts also return rows: the gathered gradient and its permuted copy. Unfused attention holds two
    gradients per score once the MLP's tensors are gone.
    """
    t = shape.t
    residual = 2.0 * ACTIVATION_BYTES * t * shape.h / shape.split
    if isinstance(kind.mlp, Moe):
        rows = t / shape.tp * kind.mlp.topk * shape.etp * work.imbalance
        up = (2.0 if kind.mlp.gated else 1.0) * kind.mlp.intermediate / shape.etp
        exchanged = np.where(ep > 1, 2.0, 1.0) * ACTIVATION_BYTES * rows * shape.h
        return column(residual + np.maximum(exchanged, ACTIVATION_BYTES * rows * up))
    wide = ACTIVATION_BYTES * t * kind.mlp.intermediate / shape.tp
    feed = wide * (2.0 if kind.mlp.gated else 1.0)
    if work.fused_attention:
        return column(residual + feed)
    scores = SCORE_GRADIENT_BYTES * t * shape.sequence * kind.attention.heads / shape.tp
    return column(residual + np.maximum(feed, scores - feed - wide))


def layer_bytes(model: Model, kind: LayerKind, cols: Mapping[str, Column], work: TrainWorkload) -> dict[str, Column]:
    """Bytes per layer and micro-batch: ``kept`` under each mode, and ``held`` in all while its backward runs."""
    shape = shape_of(model, work, cols)
    tensors = layer_tensors(kind, shape, work)
    return {f"kept {mode}": kept(tensors, mode, work) for mode in MODES} | {
        "held": kept(tensors, "none", work) + backward_bytes(kind, shape, work, cols["ep"])
    }


def loss_bytes(model: Model, cols: Mapping[str, Column], work: TrainWorkload) -> Column:
    """Return what the last stage holds at the loss: last norm, its gathered output, logits (of MTP modules too)."""
    fw, shape = framework(work.framework), shape_of(model, work, cols)
    per_logit = np.where(shape.tp > 1, fw.split_logit_bytes, fw.logit_bytes)
    logits = (1.0 + model.mtp_layers) * per_logit * shape.t * model.vocab / shape.tp
    normed = 2.0 * ACTIVATION_BYTES * shape.t * shape.h / shape.split
    gathered = np.where(shape.split > 1, ACTIVATION_BYTES * shape.t * shape.h, 0.0)
    return column(logits + normed + gathered)


def put_off_bytes(model: Model, cols: Mapping[str, Column], work: TrainWorkload) -> Column:
    """Return what a micro-batch leaves whose gradient of the head's weight waits: the head's input and the logits' gradient.

    Both BF16. Source: Megatron-LM core/models/gpt/gpt_model.py, `embedding_activation_buffer` and `grad_output_buffer`.
    """
    shape = shape_of(model, work, cols)
    return column(ACTIVATION_BYTES * shape.t * (shape.h / shape.split + model.vocab / shape.tp))


def end_bytes(model: Model, cols: Mapping[str, Column], work: TrainWorkload) -> tuple[Column, Column]:
    """Bytes per micro-batch in flight beside the layers: (on the first stage, on every stage).

    The embedding keeps its dropout mask and, where a norm follows it, that norm's input; an engine that keeps outputs
    keeps its rank's part of one per stage.
    """
    fw, shape = framework(work.framework), shape_of(model, work, cols)
    stream = ACTIVATION_BYTES * shape.t * shape.h / shape.split
    mask = 0.5 * stream * fw.dropout
    return column(mask + stream * model.embedding_norm), column(stream * fw.outputs_kept / shape.tp)
