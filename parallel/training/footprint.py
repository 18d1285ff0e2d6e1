"""Peak bytes of a training step per accelerator: what each pipeline stage holds, and the fullest one of them.

    stage = weights + gradients + optimizer    bytes per parameter times the stage's own parameters
          + activations                        micro-batches in flight times what one leaves, and the workspace:
                                               the larger of a layer's backward and the loss; placeholders
    reserve                                    driver and communication library

Three moments compete: the first backward after the warm-up (every stage), the loss (last stage), the optimizer's step
(no activations, FP32 copies of the gradients). Sources: `parallel.training.frameworks`.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from collectives.pipelines import SCHEDULES
from parallel.memory import PLACES, WEIGHT_BYTES, dense_shard, end_parameters, expert_shard
from parallel.models import (
    REPLICATED,
    LayerKind,
    Model,
    Moe,
    attention_matrices,
    embedding_parameters,
    final_norm_parameters,
    head_parameters,
    module_kind,
)
from parallel.placement import copies
from parallel.priced import total
from parallel.strategy import Columns, Floor, Memo
from parallel.training import activations
from parallel.training.frameworks import Framework, framework, optimizer_bytes
from parallel.training.written import placed_layers
from parallel.workload import TrainWorkload
from topo.columns import Column, ColumnLike, column

CHANNEL_BYTES: Final = 4.0 * (8 * 512 * 8 * 16 + 120 * 640 * 8 * 8 + (4 << 20))
"""NCCL's buffers per channel (src/init.cc, device.h): LL, LL128 and Simple, for a ring's and a tree's four peers."""
CHANNELS: Final = 24  # of one communicator on an NVSwitch box of eight (NCCL 2.10 and later, src/graph/search.cc)
SLACK: Final = 0.052
"""What PyTorch's allocator reserves beyond what it hands out, as a share: the median over the 16 distinct runs for which
SimuMax prints both (0.028 to 0.093). It bounds nothing: under pressure the allocator gives it back."""
GATHERED_LAYERS: Final = 2.0  # the layer at work and the one prefetched (FSDP's default)
STEP_COPY_BYTES: Final = 4.0  # FP32 copy of 16-bit gradients that the optimizer's step makes
SCHEDULE: Final = ("interleaved",)  # is 1F1B where vpp is 1
LAYER_AXES: Final = ("tp", "sp", "cp", "ep", "etp", "micro_batch")
STAGE_AXES: Final = (*LAYER_AXES, "pp", "recompute", "recompute_layers")
FLIGHT_AXES: Final = ("dp", "micro_batch", "pp", "vpp", "schedule", "ep_overlap")
PARAMETER_AXES: Final = ("tp", "cp", "ep", "etp", "dp", "pp", "replicate")
HELD: Final = tuple(f"{name} {place}" for name in ("whole", "divided") for place in PLACES)
HOLDERS: Final = ("weights", "gradients", "optimizer", "activations", "reserve")


def communicators(cols: Mapping[str, Column], fw: Framework) -> Column:
    """Count the NCCL communicators of a rank: all ranks, and one per kind of group wider than one; stages have two.

    Beside their own, pipeline stages share one for tied tables and the norm of the gradients; copies of shards have one.
    """
    tp, cp, ep, pp = (cols[name] > 1 for name in ("tp", "cp", "ep", "pp"))
    return column(1.0 + fw.communicators + tp + cp + ep + 2.0 * pp + (copies(cols) > 1))


def library_bytes(count: ColumnLike, fw: Framework) -> Column:
    """Bytes outside the allocator: the CUDA context and NCCL's buffers, ``communicators·channels·buffers``.

    >>> round(float(library_bytes(4, framework("megatron-core"))) / 2**30, 1)
    4.0
    """
    return column(fw.context_bytes + column(count) * CHANNELS * CHANNEL_BYTES)


def reserve_said(work: TrainWorkload) -> str:
    """Tell what is set aside outside the allocator.

    >>> reserve_said(TrainWorkload())
    '0.6 GiB and 0.9 per communicator'
    """
    if work.reserve_bytes is not None:
        return f"{work.reserve_bytes / 2**30:g} GiB"
    context = framework(work.framework).context_bytes
    return f"{context / 2**30:.1f} GiB and {CHANNELS * CHANNEL_BYTES / 2**30:.1f} per communicator"


def place_parameters(model: Model, cols: Mapping[str, Column], work: TrainWorkload) -> dict[str, Column]:
    """Dense and expert parameters per rank on the first, an inner and the last stage.

    The first holds the embedding; the last the head (a copy of a tied table), the final norm and MTP modules (a layer
    and a projection of 2h to h each). A single stage holds everything.
    """
    tp, pp = cols["tp"], cols["pp"]
    table, out = float(embedding_parameters(model)), float(head_parameters(model))
    whole = (table + out) / tp + final_norm_parameters(model) + _mtp_dense(model, tp)
    ends = {
        "first": np.where(pp > 1, table / tp, whole),
        "inner": np.where(pp > 1, 0.0, whole),
        "last": np.where(pp > 1, whole - (table if out else 0.0) / tp, whole),
    }
    result: dict[str, Column] = {}
    for place in PLACES:
        placed = list(zip(placed_layers(model, work, pp, place), model.layers, strict=True))
        result[f"dense {place}"] = ends[place] + total(n * dense_shard(model, kind, tp) for n, kind in placed)
        experts = total(n * expert_shard(model, kind, cols["ep"], cols["etp"]) for n, kind in placed)
        result[f"experts {place}"] = np.broadcast_to(experts, tp.shape)
    return result


def _mtp_dense(model: Model, tp: Column) -> Column:
    kind = module_kind(model)
    each = dense_shard(model, kind, tp) + 2.0 * model.hidden**2 / tp
    return model.mtp_layers * each


def matrix_shards(model: Model, kind: LayerKind, cols: Mapping[str, Column]) -> dict[tuple[int, int], Column]:
    """Return the weights of a layer as one rank holds them, by shape: queries, keys and values are one product, gates too."""
    h, tp, mlp = model.hidden, cols["tp"], kind.mlp
    sizes = {name: r * c for name, (r, c) in attention_matrices(kind.attention, h).items()}
    joined = [name for name in ("query", "key", "value") if name in sizes and kind.attention.kind == "gqa"]
    found: dict[tuple[int, int], Column] = {(h, -1): total(sizes.pop(name) for name in joined) / tp} if joined else {}
    for index, (name, size) in enumerate(sizes.items()):
        found[(h, -2 - index)] = size / (np.ones_like(tp) if name in REPLICATED else tp)
    routed = isinstance(mlp, Moe)
    ways = cols["etp"] if routed else tp
    widths = [(mlp.intermediate, ways)]
    if isinstance(mlp, Moe) and mlp.shared_intermediate:
        widths.append((mlp.shared_intermediate, tp))
    for width, over in widths:
        found[(h, width)] = (2.0 if mlp.gated else 1.0) * h * width / over
        found[(width, h)] = h * width / over
    return found


def placeholder_bytes(model: Model, cols: Mapping[str, Column], work: TrainWorkload) -> Column:
    """BF16 stand-ins for weight gradients, one per distinct shape of the model, the head's included.

    Fused accumulation adds each weight's gradient to the FP32 buffer and hands autograd an empty tensor instead, which
    Transformer Engine caches by shape for the whole run.
    """
    if not framework(work.framework).placeholders:
        return np.zeros_like(cols["tp"])
    shapes: dict[tuple[int, int], Column] = {}
    for kind in model.layers:
        shapes |= matrix_shards(model, kind, cols)
    return column(WEIGHT_BYTES * total(shapes.values()))


def head_shard(model: Model, tp: Column) -> Column:
    """Values of the vocabulary table on one rank."""
    return column(model.vocab * float(model.hidden)) / tp


def stage_bytes(model: Model, cols: Columns, work: TrainWorkload) -> dict[str, Column]:
    """Return what the places hold whatever the schedule: bytes kept per micro-batch, workspace, and parameters."""
    prices = cols.on_distinct(LAYER_AXES, lambda sub: _layers(model, sub, work), _known(model, work))
    modes = [cols["recompute"] == code for code in range(len(activations.MODES))]
    kinds = range(len(model.layers))
    saved = [np.select(modes, [prices[f"{i} kept {mode}"] for mode in activations.MODES]) for i in kinds]
    bare = [prices[f"{i} kept none"] for i in kinds]
    head = prices["stand-ins"] + WEIGHT_BYTES * head_shard(model, cols["tp"]) * framework(work.framework).placeholders
    out = {"gathered": gathered_parameters(model, cols, work)}
    for place in PLACES:
        counts = placed_layers(model, work, cols["pp"], place)
        here = np.maximum(total(counts), 1.0)
        held = total(n * kept for n, kept in zip(counts, saved, strict=True))
        if "recompute_layers" in cols:  # in full, of each stage (`block`); the others not at all
            redone = np.clip(cols["recompute_layers"] / here, 0.0, 1.0)
            held = redone * held + (1.0 - redone) * total(n * kept for n, kept in zip(counts, bare, strict=True))
        if work.offload_layers:
            held = held * np.clip(1.0 - work.offload_layers / here, 0.0, 1.0)
        ends = {"first": prices["stream"], "last": model.mtp_layers * saved[-1]}.get(place, np.zeros_like(held))
        out[f"kept {place}"] = held + prices["outputs"] + ends
        at_work = [np.where(n > 0, prices[f"{i} held"] - saved[i], 0.0) for n, i in zip(counts, kinds, strict=True)]
        backward = np.maximum.reduce(at_work) + prices["gathered gradients"]
        alone = np.where(cols["pp"] > 1, prices["stand-ins"], head) + backward
        out[f"work {place}"] = head + np.maximum(backward, prices["loss"]) if place == "last" else alone
    return out | {"put off": prices["put off"]}


@lru_cache(maxsize=8)
def _known(model: Model, work: TrainWorkload) -> Memo:
    """Return what `_layers` found for the last few blocks."""
    del model, work
    return Memo()


def _layers(model: Model, cols: Mapping[str, Column], work: TrainWorkload) -> dict[str, Column]:
    """Bytes of each layer kind, of the loss and of what is held beside the layers."""
    stream, outputs = activations.end_bytes(model, cols, work)
    out = {
        "stream": stream,
        "outputs": outputs,
        "loss": activations.loss_bytes(model, cols, work),
        "put off": activations.put_off_bytes(model, cols, work),
        "stand-ins": placeholder_bytes(model, cols, work),
        "gathered gradients": _gathered_gradients(model, cols, work),
    }
    for index, kind in enumerate(model.layers):
        out |= {f"{index} {name}": size for name, size in activations.layer_bytes(model, kind, cols, work).items()}
    return out


def _gathered_gradients(model: Model, cols: Mapping[str, Column], work: TrainWorkload) -> Column:
    """BF16 gradients that FSDP holds whole while a layer runs backward: two layers', and the head's until the end."""
    if not framework(work.framework).gathers:
        return np.zeros_like(cols["tp"])
    return column(WEIGHT_BYTES * (GATHERED_LAYERS * widest_layer(model, cols) + head_shard(model, cols["tp"])))


def widest_layer(model: Model, cols: Mapping[str, Column]) -> Column:
    """Parameters of the largest layer on one rank."""
    sizes = [
        dense_shard(model, kind, cols["tp"]) + expert_shard(model, kind, cols["ep"], cols["etp"])
        for kind in model.layers
    ]
    return column(np.maximum.reduce(np.broadcast_arrays(*sizes)))


def gathered_parameters(model: Model, cols: Mapping[str, Column], work: TrainWorkload) -> Column:
    """Return the parameters held whole under ZeRO 3.

    FSDP gathers two layers, and what a stage has of embedding, head and last norm for the whole step; DeepSpeed gathers
    matrix by matrix, the one at work and the next.
    """
    if not framework(work.framework).layerwise:
        shards = [size for kind in model.layers for size in matrix_shards(model, kind, cols).values()]
        return column(GATHERED_LAYERS * np.maximum.reduce(np.broadcast_arrays(*shards)))
    return end_parameters(model, cols["tp"], cols["pp"]) + GATHERED_LAYERS * widest_layer(model, cols)


def flights(cols: Mapping[str, Column], microbatches: Column, schedules: Sequence[str] = SCHEDULE) -> dict[str, Column]:
    """Micro-batches in flight on the first, the fullest inner and the last stage.

    `schedules` are what the codes of the column `schedule` stand for; without that column, the first (`interleaved` is
    1F1B where vpp is 1). An overlapped exchange runs one chunk's forward beside another's backward, so the warm-up is a
    chunk longer; without stages the one grows as the other shrinks and nothing is added.
    """
    pp, m, vpp = np.broadcast_arrays(cols["pp"], microbatches, cols["vpp"])
    codes = np.broadcast_to(cols.get("schedule", column(0.0)), pp.shape)
    # 1F1B holds most early on, Chimera in the middle
    stages = np.minimum(np.stack([0.0 * pp, 0.0 * pp + 1.0, np.floor(pp / 2), pp - 1.0]), pp - 1.0)
    held = np.empty_like(stages)
    for code in set(codes.tolist()):
        mine = np.flatnonzero(codes == code)
        counted = SCHEDULES[schedules[int(code)]].in_flight
        held[:, mine] = counted(pp[mine], m[mine], vpp[mine], stages[:, mine])
    first, second, middle, last = held + np.where(pp > 1, cols["ep_overlap"] / vpp, 0.0)
    return {"first": first, "inner": np.maximum(second, middle), "last": last}


def parameter_copies(cols: Mapping[str, Column], schedules: Sequence[str] = SCHEDULE) -> Column:
    """Return how often a stage holds its parameters: twice under schedules that run both ways."""
    copies = np.array([SCHEDULES[name].parameter_copies for name in schedules], dtype=np.float64)
    return column(copies[cols["schedule"].astype(np.int64)] if "schedule" in cols else copies[0])


def stage_loads(model: Model, work: TrainWorkload, cols: Columns, schedules: Sequence[str] = SCHEDULE) -> Floor:
    """Return what the places hold before ZeRO divides it: everything of a stage that the column `zero` leaves alone.

    Parameters
    ----------
    cols : tp, sp, cp, ep, etp, micro_batch, pp, vpp, dp, recompute, ep_overlap; and, where they vary, schedule and
        recompute_layers
    schedules : what the codes of the column `schedule` stand for

    Returns
    -------
    dict
        Per place ``active`` (activation bytes, workspace included), ``whole`` parameters, and ``divided`` ones: what is
        left of them when replicas share; beside them ``gathered``, the parameters held whole under ZeRO 3.
    """
    return active_bytes(stage_floor(model, work, cols), work, cols, schedules)


def stage_floor(model: Model, work: TrainWorkload, cols: Columns) -> Floor:
    """Return what the places hold whatever the schedule: bytes of activations, parameters whole and divided."""
    return cols.on_distinct(STAGE_AXES, lambda sub: stage_bytes(model, sub, work)) | cols.on_distinct(
        PARAMETER_AXES, lambda sub: shared_parameters(model, sub, work)
    )


def active_bytes(s: Floor, work: TrainWorkload, cols: Columns, schedules: Sequence[str] = SCHEDULE) -> Floor:
    """Return `s` of `stage_floor` with what a schedule adds: micro-batches in flight, and copies of the parameters."""
    held = cols.on_distinct(FLIGHT_AXES, lambda sub: flights(sub, microbatches(work, sub), schedules))
    out = {f"active {place}": held[place] * s[f"kept {place}"] + s[f"work {place}"] for place in PLACES}
    out["active last"] = out["active last"] + waiting(work, cols) * s["put off"]
    out["active inner"] = np.where(cols["pp"] > 2, out["active inner"], 0.0)  # two stages have no inner one
    copies = parameter_copies(cols, schedules)
    return s | out | {name: copies * s[name] for name in HELD}


def waiting(work: TrainWorkload, cols: Mapping[str, Column]) -> Column:
    """Micro-batches whose gradient of the head's weight waits for the drain, on the last of several stages."""
    return np.minimum(work.software.deferred, microbatches(work, cols)) * (cols["pp"] > 1)


def microbatches(work: TrainWorkload, cols: Mapping[str, Column]) -> Column:
    """Micro-batches per step and replica."""
    return work.global_batch / (cols["dp"] * cols["micro_batch"])


def shared_parameters(model: Model, cols: Mapping[str, Column], work: TrainWorkload) -> dict[str, Column]:
    """Parameters of the places: whole, and what replicas leave when they share."""
    s, replicas = place_parameters(model, cols, work), cols["dp"] * cols["cp"] / copies(cols)
    expert_replicas = np.maximum(cols["tp"] * replicas / (cols["ep"] * cols["etp"]), 1.0)
    out: dict[str, Column] = {}
    for place in PLACES:
        dense, experts = s[f"dense {place}"], s[f"experts {place}"]
        out[f"whole {place}"] = dense + experts
        out[f"divided {place}"] = dense / replicas + experts / expert_replicas
    return out | {f"{name} inner": np.where(cols["pp"] > 2, out[f"{name} inner"], 0.0) for name in ("whole", "divided")}


def rates(work: TrainWorkload) -> dict[str, tuple[Column, Column]]:
    """Bytes per parameter by ZeRO stage, of weights, gradients and optimizer: (of whole ones, of divided ones).

    ZeRO 1 divides the optimizer, 2 the gradients, 3 the weights (Rajbhandari 1910.02054 §5). FSDP's FP32 shards are the
    master copy, so its divided weights take nothing of their own, and it accumulates gradients in FP32.

    >>> rates(TrainWorkload())["optimizer"][0].tolist()
    [12.0, 0.0, 0.0, 0.0]
    """
    fw, stages = framework(work.framework), np.arange(4)
    state = optimizer_bytes(work.optimizer) * (1.0 - work.offload)
    kept = work.gradient_bytes + fw.gradient_copy * (work.gradient_bytes >= STEP_COPY_BYTES)
    shard = max(work.gradient_bytes, STEP_COPY_BYTES) if fw.gathers else kept

    def split(level: int, whole: float, divided: float) -> tuple[Column, Column]:
        return np.where(stages < level, whole, 0.0), np.where(stages < level, 0.0, divided)

    return {
        "weights": split(3, WEIGHT_BYTES, 0.0 if fw.gathers else WEIGHT_BYTES),
        "gradients": split(2, kept, shard),
        "optimizer": split(1, state, state),
    }


def fullest(s: Mapping[str, Column], cols: Mapping[str, Column], work: TrainWorkload) -> npt.NDArray[np.int64]:
    """Index into `PLACES` of the stage that holds most; `s` of `stage_loads`."""
    each, zero = rates(work).values(), cols["zero"].astype(np.int64)
    a, b = (total(pair[side] for pair in each)[zero] for side in (0, 1))
    first, inner, last = (s[f"active {p}"] + a * s[f"whole {p}"] + b * s[f"divided {p}"] for p in PLACES)
    return np.where(inner > np.maximum(first, last), 1, np.where(last > first, 2, 0)).astype(np.int64)


def place_memory(
    s: Mapping[str, Column], cols: Mapping[str, Column], work: TrainWorkload, place: npt.NDArray[np.int64]
) -> dict[str, Column]:
    """Peak bytes by name on a place, given by its index into `PLACES`."""
    fw, zero = framework(work.framework), cols["zero"].astype(np.int64)
    rows = place * place.shape[-1] + np.arange(place.shape[-1])
    whole, divided, active = (
        np.stack([s[f"{name} {each}"] for each in PLACES]).reshape(-1).take(rows)
        for name in ("whole", "divided", "active")
    )
    out = {name: a[zero] * whole + b[zero] * divided for name, (a, b) in rates(work).items()}
    out["weights"] = out["weights"] + WEIGHT_BYTES * (zero >= 3) * s["gathered"]
    if work.gradient_bytes < STEP_COPY_BYTES and not fw.gathers:  # the step's copies come when activations are gone
        active = np.maximum(active, np.where(zero >= 1, STEP_COPY_BYTES * divided, fw.step_copy * whole))
    reserve = library_bytes(communicators(cols, fw), fw) if work.reserve_bytes is None else work.reserve_bytes
    return out | {"activations": active, "reserve": np.broadcast_to(reserve, active.shape)}


def step_memory(s: Mapping[str, Column], cols: Mapping[str, Column], work: TrainWorkload) -> dict[str, Column]:
    """Peak bytes of a training step per accelerator, by name, on the stage that holds most; `s` of `stage_loads`."""
    return place_memory(s, cols, work, fullest(s, cols, work))


def updated_parameters(s: Mapping[str, Column], cols: Mapping[str, Column]) -> Column:
    """Parameters that one rank's optimizer updates, on the larger end of the pipeline."""
    whole, divided = (np.maximum(s[f"{name} first"], s[f"{name} last"]) for name in ("whole", "divided"))
    return np.where(cols["zero"] >= 1, divided, whole)


def by_stage(
    model: Model, work: TrainWorkload, cols: Columns, schedules: Sequence[str] = SCHEDULE
) -> dict[str, dict[str, Column]]:
    """Peak bytes by name on the first, the fullest inner and the last stage, the workspace apart from the activations."""
    s, loads = stage_bytes(model, cols, work), stage_loads(model, work, cols, schedules)
    out: dict[str, dict[str, Column]] = {}
    for index, place in enumerate(PLACES):
        names = place_memory(loads, cols, work, np.full_like(cols["pp"], index, dtype=np.int64))
        workspace = np.minimum(s[f"work {place}"], names["activations"])
        out[place] = names | {"activations": names["activations"] - workspace, "workspace": workspace}
    return out
