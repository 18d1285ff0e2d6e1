"""One training step: layer prices, then stages, then the step. Each floor is priced on the columns that it depends on.

    layer      used tp sp cp ep etp micro_batch     operators, tensor, context and expert communication
    stack      + recompute ep_overlap               all layers, one micro-batch (+ pp where some layers recompute)
    hop        used order tp cp dp pp micro_batch   one message between stages
    reduction  used order tp cp ep etp dp pp        gradients of the fullest stage (+ replicate where given)
    stage      stack, hop and reduction             mean stage, all micro-batches
    placed     + vpp                                placement of layers, slowest stage
    pipe       + schedule                           bubble, memory
    step       + zero                               exposed reduction, optimizer

`terms` are exposed seconds that add up to the step exactly; `busy` is the same work before overlap. What depends on the
ZeRO stage is priced for all of them at once, in arrays of shape (ZeRO stages, rows), and each row takes its own.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from clusters.build import path
from collectives.pipelines import SCHEDULES as PIPELINES
from collectives.pipelines import bubble_s
from collectives.point_to_point import farthest
from parallel import memory
from parallel.models import flops_per_token_forward, layer_count, layer_order
from parallel.operators import ACTIVATION_BYTES
from parallel.placement import GROUPS, group_members, members_of
from parallel.priced import Priced, total
from parallel.strategy import Columns, Floor, Index
from parallel.training import footprint
from parallel.training.frameworks import framework
from parallel.training.layer import COMPUTE, TrainJob, collective, exposed, layer_prices, tokens
from parallel.training.layouts import Layout
from parallel.training.splits import place
from parallel.training.stages import balanced_stage, even_stage
from parallel.training.uneven import eighths, layout, stretched, uneven
from parallel.training.written import placed_layers, slowest_s, stretched_s, written
from parallel.workload import AMAX
from topo.columns import Column, ColumnLike, column

SCHEDULES: tuple[str, ...] = (
    "interleaved",
    *(name for name in PIPELINES if name not in ("interleaved", "1f1b", "prefill", "decode")),
)
"""Codes of the column `schedule`; interleaved is 1F1B where vpp is 1."""
DEFAULTS = {
    "order": 0,
    "sp": 1,
    "cp": 1,
    "etp": 1,
    "recompute": 0,
    "ep_overlap": 0,
    "vpp": 1,
    "schedule": 0,
    "zero": 1,
}
LAYER_AXES = ("used", "tp", "sp", "cp", "ep", "etp", "micro_batch")
STACK_AXES = (*LAYER_AXES, "recompute", "ep_overlap")
BLOCK_AXES = ("recompute_layers", "pp")
"""What a layer's mean also depends on where full recomputation covers some layers of each stage only."""
AMAX_AXES = ("used", "order", "tp", "cp", "dp", "pp")
HOP_AXES = ("used", "order", "tp", "cp", "dp", "pp", "micro_batch")
REDUCTION_AXES = ("used", "order", "tp", "cp", "ep", "etp", "dp", "pp", "replicate")
STAGE_AXES = (*STACK_AXES, "order", "dp", "pp", "replicate", "recompute_layers")
PLACED_AXES = (*STAGE_AXES, "vpp")
PIPELINE_AXES = (*PLACED_AXES, "schedule")
ZERO = np.arange(4)[:, None]
"""Every ZeRO stage, before the rows."""
TALK = ("tp", "cp", "ep")
NAMED = (*COMPUTE, "recompute", *TALK, "contention", "host")
TERMS = (*NAMED, "amax", "imbalance", "bubble", "pp", "dp", "optimizer", "step", "evaluation")
SHARDED = ("contention", "dp", "optimizer")
"""Terms that depend on the ZeRO stage."""


AMAX_BYTES = 4.0 * 3.0 * 4.0
"""FP32 values that one layer puts into an agreement on scales: of input, weight and result of four products (forward)."""


def amax_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Price one agreement on the largest values of FP8 tensors: an all-reduce of a stage's values that nothing hides.

    Under delayed scaling, Transformer Engine reduces the values of all modules of a rank when a pass leaves `fp8_autocast`, which
    Megatron-Core opens around each chunk's layers: once forward and once backward for every chunk and micro-batch, on the stream
    that computes. Source: NVIDIA/TransformerEngine transformer_engine/pytorch/fp8.py, reduce_and_update_fp8_tensors (since 1.5);
    Megatron-LM core/transformer/transformer_block.py, core/parallel_state.py get_amax_reduction_group.
    """
    group = AMAX[job.work.software.amax]
    if group is None or job.chip.format("mlp").name == "bf16":
        return {"amax": np.zeros(cols.rows)}
    size_bytes = AMAX_BYTES * np.ceil(layer_count(job.model) / cols["pp"])
    return {"amax": collective(job, "all_reduce", size_bytes, group_members(job.cluster, cols, group))}


def hop_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Price one message between two pipeline stages."""
    spans = group_members(job.cluster, cols, "pp")
    hop_bytes = ACTIVATION_BYTES * tokens(job, cols) * job.model.hidden / cols["tp"]
    hop = farthest(hop_bytes, spans, path(job.cluster, "send_recv", "nccl"))
    return {"hop": np.where(cols["pp"] > 1, hop, 0.0)}


def reduction_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Price the reduction of the fullest stage's gradients, and the gathering of its weights.

    Both go layer by layer. Hybrid sharding scatters sums among neighbours and then adds each shard up over its copies.
    """
    layers = placed_layers(job.model, job.work, cols["pp"], "inner")
    out, groups = memory.stage_parameters(job.model, cols, layers), ("dp", "edp")
    members = np.stack([group_members(job.cluster, cols, group) for group in groups], axis=1)
    held = np.stack([out["dense parameters"], out["expert parameters"]])
    layers_held = np.maximum(out["stage layers"], 1.0)
    times, bucket = layers_held * (held > 0), held / layers_held  # a dense model has no experts to reduce
    reduce = times * collective(job, "reduce_scatter", job.work.gradient_bytes * bucket, members)
    if "replicate" in cols:
        shards = np.stack([GROUPS[group](cols)[0] for group in groups])
        alike = group_members(job.cluster, cols, "copies")[:, None]
        again = collective(job, "all_reduce", job.work.gradient_bytes * bucket / np.maximum(shards, 1.0), alike)
        reduce = reduce + times * again
    gather = times * collective(job, "all_gather", job.gathered_bytes * bucket, members)
    for index, group in enumerate(groups):
        out |= {f"reduce {group}": reduce[index], f"gather {group}": gather[index]}
    return out | {"reduce tied": tied_s(job, cols)}


def tied_s(job: TrainJob, cols: Columns) -> Column:
    """Seconds in which first and last stage add up the gradients of a table that is embedding and head at once.

    An all-reduce of ``gradient bytes · V·h/tp`` between two ranks, after the reduction among replicas and behind nothing; 0 on
    one stage. Source: Megatron-LM, megatron/training.py (2021) and core/distributed/finalize_model_grads.py,
    _allreduce_word_embedding_grads; DeepSpeed runtime/pipe/engine.py, _exec_reduce_tied_grads.
    """
    size, stride = GROUPS["pp"](cols)
    ends = members_of(job.cluster, cols["used"], np.minimum(size, 2.0), stride * np.maximum(size - 1.0, 1.0))
    table_bytes = job.work.gradient_bytes * job.model.vocab * job.model.hidden / cols["tp"]
    shared = job.model.tied_embeddings and job.work.software.trains == "all"
    return np.where(cols["pp"] > 1, collective(job, "all_reduce", table_bytes, ends), 0.0) * float(shared)


def _timed(
    job: TrainJob, prices: Mapping[str, Column], cols: Mapping[str, Column]
) -> tuple[list[dict[str, Column]], list[Column], tuple[Column, Column]]:
    """Return the terms of one layer of each kind, its seconds, and the seconds of the last stage's end by direction."""
    per_layer = [exposed(job, prices, index, cols) for index in range(len(job.model.layers))]
    times = [total(layer[name] for name in layer if _shown(name)) for layer in per_layer]
    modules = modules_trained(job)
    ahead, back = (
        (1.0 + modules) * prices[f"{way} head"] + modules * prices[f"{way} mtp"] for way in ("forward", "backward")
    )
    return per_layer, times, (ahead, back)


def _shown(name: str) -> bool:
    """Whether a price of a layer is a term of the step."""
    return not name.startswith("busy") and not name.endswith("share")


def modules_trained(job: TrainJob) -> float:
    """Multi-token-prediction modules that are trained."""
    return float(job.model.mtp_layers if job.work.software.mtp else 0)


def stack_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Add the layers up for one micro-batch.

    A multi-token-prediction module is one more layer of the last kind with a projection and a head of its own; all of
    it sits on the last stage (DeepSeek-V3, 2412.19437 §2.2).
    """
    prices = cols.on_distinct(LAYER_AXES, partial(layer_prices, job))
    kinds, modules = job.model.layers, modules_trained(job)
    per_layer, times, (ahead, back) = _timed(job, prices, cols)
    counts = [kind.count + modules * (kind is kinds[-1]) for kind in kinds]
    out = {
        name: total(count * layer[name] for count, layer in zip(counts, per_layer, strict=True))
        for name in per_layer[0]
    }
    out["head"] = out["head"] + ahead + back
    out["forward share"] = out["forward share"] + ahead
    out["total"] = total(value for name, value in out.items() if _shown(name))
    out |= {f"layer {index}": seconds for index, seconds in enumerate(times)}
    out["end"] = ahead + back + modules * times[-1]
    out["deferrable"] = prices["weights head"]
    out["module"] = prices["forward mtp"] + prices["backward mtp"] + times[-1]
    return out


def stack_axes(cols: Columns) -> tuple[str, ...]:
    """Return the columns that the mean layer depends on."""
    return STACK_AXES + (BLOCK_AXES if "recompute_layers" in cols else ())


def stage_prices(job: TrainJob, cols: Columns) -> Floor:
    """Return all of one micro-batch, and of what a stage holds, that placement of layers, schedule and ZeRO leave alone."""
    return (
        cols.on_distinct(stack_axes(cols), partial(stack_prices, job))
        | cols.on_distinct(HOP_AXES, partial(hop_prices, job))
        | cols.on_distinct(AMAX_AXES, partial(amax_prices, job))
        | cols.on_distinct(REDUCTION_AXES, partial(reduction_prices, job))
        | footprint.stage_floor(job.model, job.work, cols)
    )


def put_off_s(job: TrainJob, s: Mapping[str, Column], m: Column, pp: Column) -> Column:
    """Seconds per micro-batch by which putting the gradient of the head's weight off relieves the last stage.

    ``w·min(d, m)/m`` where there are stages: w its product, d the micro-batches that may wait. Source: Megatron-LM
    core/tensor_parallel/layers.py (`wgrad_deferral_limit`), core/pipeline_parallel/schedules.py, finish_embedding_wgrad_compute.
    """
    return column(s["deferrable"] * np.minimum(job.work.software.deferred / m, 1.0) * (pp > 1))


def left_over_s(put_off: Column, m: Column, drain: Column) -> Column:
    """Seconds of products put off that outlast the drain, in which the last stage has nothing else to do.

    >>> left_over_s(column(0.002), column(64.0), column(0.1)).round(3).tolist()  # 128 ms of products, 100 of drain
    0.028
    """
    return np.maximum(put_off * m - drain, 0.0)


def drain_s(s: Mapping[str, Column], pp: Column, vpp: Column) -> Column:
    """Seconds between the last backward of the last stage and that of the first: ``(p − 1)·(b/v + c)``."""
    return column(np.maximum(pp - 1.0, 0.0) * (s["backward"] / vpp + s["hop"]))


def mean_stage(job: TrainJob, cols: Columns) -> Floor:
    """Run all micro-batches through the mean stage: its terms, ``m/pp`` times those of all layers."""
    s = stage_prices(job, cols)
    m, pp = job.work.global_batch / (cols["dp"] * cols["micro_batch"]), cols["pp"]
    share, put_off = job.scale * m / pp, put_off_s(job, s, m, pp)
    s = s | {"put off": put_off, "end": s["end"] - put_off}
    out = {f"term {name}": s[name] * share for name in NAMED}
    out |= {f"busy {name}": np.maximum(s[f"busy {name}"] * share, out[f"term {name}"]) for name in TALK}
    out["work"] = total(out[f"term {name}"] for name in NAMED if name not in SHARDED)
    kinds = range(len(job.model.layers))
    times, counts = [s[f"layer {index}"] for index in kinds], [kind.count for kind in job.model.layers]
    out["used"] = cols["tp"] * cols["cp"] * pp * cols["dp"]
    return s | out | {"microbatches": m, "balanced": balanced_stage(times, counts, pp, last=s["end"])}


def placement(job: TrainJob, cols: Columns) -> Layout:
    """Return which layers of one strategy sit on which virtual stage, as the step places them."""
    cols = cols.filled(DEFAULTS)
    _, times, (ahead, back) = _timed(job, layer_prices(job, cols), cols)
    modules = job.model.mtp_layers if job.work.software.mtp else 0
    end, order = ahead + back + modules * times[-1], layer_order(job.model)
    stages, chunks = int(cols["pp"][0]), int(cols["vpp"][0])
    if job.work.layout is not None:
        return written(job.work.layout, job.model, stages, chunks, job.work.software.mtp)
    if uneven(len(order), cols["pp"], cols["vpp"])[0]:
        return layout(order, eighths(times, end)[:, 0].tolist(), stages, chunks, modules)
    per_kind = [float(seconds[0]) for seconds in times]
    return place(order, per_kind, stages, chunks, last=float(end[0]), mtp=modules)


def placed_prices(job: TrainJob, cols: Columns) -> Floor:
    """Place the layers: the slowest stage, what it takes beyond the mean, the mean of the others, and the reduction.

    The closed form of a schedule takes equal stages; it gets the mean of the others, which fills and drains the pipe.
    """
    s, pp = cols.on_distinct(STAGE_AXES, partial(mean_stage, job)), cols["pp"]
    slow = slowest(job, s, cols)
    ahead, weights = s["forward share"] / s["total"], s["weights share"] / s["total"]
    rest = (s["total"] - s["put off"] - slow) / np.maximum(pp - 1.0, 1.0)
    installed = job.scale
    beyond = np.where(pp > 1, installed * s["microbatches"] * np.maximum(slow - s["total"] / pp, 0.0), 0.0)
    times = {"slow": slow, "forward": rest * ahead, "backward": rest * (1.0 - ahead), "weight gradient": rest * weights}
    s = s | times | {"term imbalance": beyond}
    reduced, shown = (installed * (each + s["reduce tied"]) for each in _reduction(job, s, cols | {"zero": ZERO}))
    contended = s["term contention"] + job.fitted.shared["contention"] * (reduced - shown)
    return s | {"busy dp": reduced, "term dp": shown, "term contention": contended}


def slowest(job: TrainJob, s: Mapping[str, Column], cols: Mapping[str, Column]) -> Column:
    """Seconds of the slowest stage for one micro-batch, layers placed by rule or as the workload writes; `s` of `mean_stage`."""
    model, kinds = job.model, job.model.layers
    layers = [s[f"layer {index}"] for index in range(len(kinds))]
    if job.work.layout is not None:
        return slowest_s(job.work.layout, model, cols["pp"], layers, *_end(job, s))
    return even_stage(
        s["balanced"],
        layers,
        [kind.count for kind in kinds],
        cols["pp"],
        last=s["end"],
        chunks=cols["vpp"],
        order=layer_order(model) if model.pattern else (),
    )


def _end(job: TrainJob, s: Mapping[str, Column]) -> tuple[Column, Column]:
    """Return the seconds of head and loss, and those of one module for multi-token prediction, nought if it is not trained."""
    modules = modules_trained(job)
    return s["end"] - modules * s["module"], s["module"] * float(modules > 0)


def beyond_s(job: TrainJob, s: Mapping[str, Column], cols: Mapping[str, Column], rows: Index) -> Column:
    """Seconds that interleaving takes on some rows beyond its closed form, as its chunks hold unequal layers."""
    layers = [s[f"layer {index}"].take(rows) for index in range(len(job.model.layers))]
    pp, vpp, m = (each.take(rows) for each in (cols["pp"], cols["vpp"], s["microbatches"]))
    if job.work.layout is not None:
        last, module = (seconds.take(rows) for seconds in _end(job, s))
        return stretched_s(job.work.layout, job.model, pp, layers, last, module, m)
    return stretched(layer_order(job.model), layers, s["end"].take(rows), pp, vpp, m) * s["total"].take(rows)


def _reduction(job: TrainJob, s: Mapping[str, Column], cols: Mapping[str, Column]) -> tuple[Column, Column]:
    """Gradient reduction and parameter gathering: (busy, exposed) seconds.

    The reduce-scatter hides behind the backward of the last micro-batch, the gather behind the forward of the first, all
    but the last (first) layer's bucket. Interleaving widens the window to ``min(m, pp)·(1 − 1/vpp)`` stage times. ZeRO 2
    keeps no whole gradient, so it reduces after every backward; ZeRO 3 also gathers before every forward and backward.
    Interleaving runs a chunk on pp micro-batches in a row, which share one reduction and one gathering (2211.05953 §3).
    Frozen weights have no gradient.
    """
    m = s["microbatches"]
    reduce, gather = s["reduce dp"] + s["reduce edp"], s["gather dp"] + s["gather edp"]
    often, whole = cols["zero"] >= 2, cols["zero"] >= 3
    runs = np.where(cols["vpp"] > 1, np.ceil(m / cols["pp"]), m)
    reduce, gather = reduce * np.where(often, runs, 1.0), gather * np.where(whole, 2.0 * runs, 1.0)
    if job.work.software.trains != "all":
        reduce, gather = 0.0 * reduce, gather * whole
    if not job.does("dp_overlap"):
        return reduce + gather, reduce + gather
    forward = s["slow"] * s["forward share"] / s["total"]
    backward = s["slow"] - forward
    layers = np.maximum(s["stage layers"], 1.0)
    widen = np.where(cols["vpp"] > 1, np.minimum(m, cols["pp"]) * (1.0 - 1.0 / cols["vpp"]), 1.0)
    inner = 1.0 - 1.0 / layers
    shown = np.maximum(reduce - backward * inner * np.where(often, m, widen), reduce / layers)
    shown = shown + np.maximum(gather - forward * inner * np.where(whole, m, widen), gather / layers)
    return reduce + gather, shown


def _bubbles(job: TrainJob, s: Mapping[str, Column], cols: Columns) -> tuple[Column, Column]:
    """Bubble of each row by its schedule, without hops and with.

    Interleaving with hops that outlast a chunk is priced by its closed form, which is then a lower bound. Chunks of unequal
    layers add what `parallel.training.uneven` says.
    """
    m, hop, times = s["microbatches"], s["hop"], (s["forward"], s["backward"], s["weight gradient"])
    schedules, code = cols.distinct(("schedule",))
    still, moving = np.zeros(cols.rows), np.zeros(cols.rows)
    for index, schedule in enumerate(schedules["schedule"].astype(int).tolist()):
        mine = np.flatnonzero((code == index) & (cols["pp"] > 1))
        pp, vpp, some, c, f, b, w = (row.take(mine) for row in (cols["pp"], cols["vpp"], m, hop, *times))
        for out, hops in ((still, 0.0), (moving, c)):
            out[mine] = _bubble(SCHEDULES[schedule], pp, some, vpp, f, b, hops, w)
        if schedule == 0:
            added = np.maximum(beyond_s(job, s, cols, mine), -still[mine])
            still[mine], moving[mine] = still[mine] + added, moving[mine] + added
    return still, moving


def _bubble(schedule: str, *given: ColumnLike) -> Column:
    """Bubble of a schedule: its own closed form for interleaving, else exact."""
    return PIPELINES[schedule].bubble_s(*given) if schedule == SCHEDULES[0] else bubble_s(schedule, *given)[0]


def pipeline_prices(job: TrainJob, cols: Columns) -> Floor:
    """Run the micro-batches through the stages: the bubble with and without hops, and what each stage holds.

    ``m·slowest stage + bubble``, told as mean stage (by operator kind), `imbalance` of the slowest over it, and `bubble`.
    """
    s = cols.on_distinct(PLACED_AXES, partial(placed_prices, job))
    pp, m, installed = cols["pp"], s["microbatches"], job.scale
    bubble, moving = _bubbles(job, s, cols)
    waits = np.where(pp > 1, 2.0 * m * cols["vpp"] * job.engine.boundary_s, 0.0)
    left_over = left_over_s(s["put off"], m, drain_s(s, pp, cols["vpp"]))
    out = {"term bubble": installed * (bubble + left_over), "term pp": installed * (moving - bubble + waits)}
    out["term amax"] = installed * 2.0 * m * cols["vpp"] * s["amax"]
    out["piped"] = s["work"] + s["term imbalance"] + out["term bubble"] + out["term pp"] + out["term amax"]
    out["term evaluation"] = installed * job.work.evaluated * forward_only_s(job, s, cols)
    loads, every = footprint.active_bytes(s, job.work, cols, SCHEDULES), cols | {"zero": ZERO}
    out["term optimizer"] = installed * optimizer_s(job, footprint.updated_parameters(loads, every))
    return s | out | footprint.step_memory(loads, every, job.work)


def forward_only_s(job: TrainJob, s: Mapping[str, Column], cols: Mapping[str, Column]) -> Column:
    """Seconds in which a global batch passes the pipeline forward: ``m·f + (p − 1)·(f'/v + c) + m·v·w``.

    f is the slowest stage's forward of one micro-batch, f' the mean of the others, c a hop, w what a boundary holds up the host;
    without stages m·f is left. An evaluation takes as long, and reduces and updates nothing.
    """
    pp, m = cols["pp"], s["microbatches"]
    ahead = s["slow"] * s["forward share"] / s["total"]
    fill = (pp - 1.0) * (s["forward"] / cols["vpp"] + s["hop"]) + m * cols["vpp"] * job.engine.boundary_s
    return column(m * ahead + np.where(pp > 1, fill, 0.0))


def optimizer_s(job: TrainJob, updated: Column) -> Column:
    """Seconds in which the optimizer streams its state: ``updated parameters · bytes per parameter / streamed rate``."""
    streamed_Bps = job.chip.accelerator.hbm_Bps * job.chip.kernels["bf16"].hbm_efficiency
    return framework(job.work.framework).update_bytes * updated / streamed_Bps * (job.work.software.trains == "all")


def price(job: TrainJob, cols: Columns) -> Priced:
    """Price a block of training strategies.

    Parameters
    ----------
    cols : columns used, tp, ep, micro_batch, dp, pp, and those of `DEFAULTS` that differ from their default

    Returns
    -------
    Priced
        `seconds` per step; terms by operator kind, communication, `host`, `contention` (what hidden communication takes
        from the work that hides it), `imbalance` of the stages, `bubble`, `dp`, `optimizer`, `step`.
    """
    cols = cols.filled(DEFAULTS)
    s = cols.on_distinct(PIPELINE_AXES, partial(pipeline_prices, job))
    zero = cols["zero"].astype(np.int64)
    s = s | {"term step": np.full(cols.rows, job.scale * job.fitted.shared["step_s"])}
    terms = {name: s.chosen(f"term {name}", zero) if name in SHARDED else s[f"term {name}"] for name in TERMS}
    busy = terms | {name: s[f"busy {name}"] for name in TALK} | {"dp": s.chosen("busy dp", zero)}
    seconds = s["piped"] + total(terms[name] for name in (*SHARDED, "step", "evaluation"))
    used, flops = s["used"], 3.0 * model_flops(job) * job.work.tokens / (seconds * s["used"])
    extra = {
        "gpus_used": used,
        "microbatches": s["microbatches"],
        "tokens_per_s_per_gpu": job.work.tokens / job.cluster.accelerators / seconds,
        "mfu": flops / job.chip.peak(job.chip.format("mlp")),
        "mfu_bf16": flops / job.chip.accelerator.peak_flops["bf16"],
    }
    held = {name: s.chosen(name, zero) for name in footprint.HOLDERS}
    return Priced(seconds, terms, busy, held, extra)


def model_flops(job: TrainJob) -> float:
    """Forward FLOPs per token, causal half counted: the model's own work, no recomputation."""
    return float(sum(flops_per_token_forward(job.model, job.work.sequence, causal=True).values()))
