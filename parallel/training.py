"""One training step: layer prices, then stages, then the step. Each floor is priced on the columns that it depends on.

    layer   tp sp cp ep etp micro_batch used        operators, tensor, context and expert communication
    link    + order pp dp                           hops between stages, gradient reduction
    stage   + recompute ep_overlap                  placement of layers
    pipe    + vpp                                   micro-batches, bubble
    step    + zero                                  exposed reduction, memory

`terms` are exposed seconds that add up to the step exactly; `busy` is the same work before overlap.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clusters.build import Cluster, path
from clusters.tunings import collective_s
from collectives.pipelines import SCHEDULES
from collectives.point_to_point import farthest
from parallel import memory
from parallel.exchange import EXCHANGES, candidates, exchange_s
from parallel.models import LayerKind, Model, Moe, flops_per_token_forward
from parallel.operators import ACTIVATION_BYTES, feed_forward, head, kv_width, norm, sequence_attention
from parallel.placement import group_members
from parallel.precision import recipe
from parallel.priced import Priced, total
from parallel.roofline import Chip, backward_s, chip, forward_s
from parallel.stages import slowest_stage
from parallel.strategy import Columns
from parallel.workload import TrainWorkload
from topo.columns import Column, column

RECOMPUTE: tuple[str, ...] = ("none", "selective", "full")
DEFAULTS = {"order": 0, "sp": 1, "cp": 1, "etp": 1, "recompute": 0, "ep_overlap": 0, "vpp": 1, "zero": 1}
LAYER_AXES = ("used", "tp", "sp", "cp", "ep", "etp", "micro_batch")
LINK_AXES = (*LAYER_AXES, "order", "dp", "pp")
STAGE_AXES = (*LINK_AXES, "recompute", "ep_overlap")
PIPELINE_AXES = (*STAGE_AXES, "vpp")
COMPUTE = ("attention", "attention core", "mlp", "shared expert", "experts", "vector", "head")
NAMED = (*COMPUTE, "recompute", "tp", "cp", "ep", "contention")
#: what the step still needs of its stages
KEPT = (
    *("slow", "total", "forward share", "working", "stage layers", "dp", "edp"),
    *("dense parameters", "expert parameters", "reduce dp", "reduce edp", "gather dp", "gather edp"),
)


@dataclass(frozen=True)
class TrainJob:
    """What stays fixed while strategies vary: model, cluster, workload and the chip with its kernels."""

    model: Model
    cluster: Cluster
    work: TrainWorkload
    chip: Chip

    @classmethod
    def of(cls, model: Model, cluster: Cluster, work: TrainWorkload) -> "TrainJob":
        """Bind the four together."""
        return cls(
            model, cluster, work, chip(cluster.accelerator, recipe(work.precision, training=True), sustained=True)
        )


def _collective(job: TrainJob, op: str, size_bytes: Column, members: Column) -> Column:
    return collective_s(op, size_bytes, members, path(job.cluster, op, "nccl"), "nccl")


def _layer(
    job: TrainJob, kind: LayerKind, cols: Mapping[str, Column], members: Mapping[str, Column]
) -> dict[str, Column]:
    """Seconds and bytes of one layer of a kind, per micro-batch: forward, backward, what recomputing adds."""
    work, h = job.work, job.model.hidden
    tp, ep, etp = cols["tp"], cols["ep"], cols["etp"]
    split = np.where(cols["sp"] > 0, tp, 1.0)  # norms and residuals are sharded under sequence parallelism only
    t = cols["micro_batch"] * work.sequence / cols["cp"]
    operators = [
        norm("attention norm", t, h, split),
        *sequence_attention(kind.attention, h, t, work.sequence, tp, causal=work.causal, fused=work.fused_attention),
        norm("mlp norm", t, h, split),
        *feed_forward(kind.mlp, h, t, tp, ep, etp, tokens_in_group=t / tp * ep),
    ]
    out: dict[str, Column] = {}
    zero = np.zeros_like(tp)
    for name in COMPUTE:
        out[f"forward {name}"] = out[f"backward {name}"] = zero
    out["redo selective"] = out["column backward"] = zero
    out["saved none"] = out["saved selective"] = zero
    for op in operators:
        ahead = forward_s(op, job.chip)
        if op.role == "experts":
            ahead = ahead * work.imbalance
        out[f"forward {op.term}"] = out[f"forward {op.term}"] + ahead
        back = backward_s(op, job.chip) * (work.imbalance if op.role == "experts" else 1.0)
        out[f"backward {op.term}"] = out[f"backward {op.term}"] + back
        out["redo selective"] = out["redo selective"] + (ahead if op.selective else 0.0)
        hides = work.tp_overlap and op.column_parallel
        out["column backward"] = out["column backward"] + (back if hides else 0.0)
        out["saved none"] = out["saved none"] + column(op.saved_bytes)
        out["saved selective"] = out["saved selective"] + (0.0 if op.selective else column(op.saved_bytes))
    out["saved full"] = ACTIVATION_BYTES * t * h / split
    out |= _layer_communication(job, kind, cols, members, t)
    return {name: np.broadcast_to(value, tp.shape) for name, value in out.items()}


def _layer_communication(
    job: TrainJob, kind: LayerKind, cols: Mapping[str, Column], members: Mapping[str, Column], t: Column
) -> dict[str, Column]:
    """Tensor, context and expert communication of one layer and micro-batch, before overlap.

    Sequence parallelism gathers before and reduce-scatters after each of attention and MLP (Korthikanti 2205.05198 §4.2.2);
    backward gathers the inputs once more for the weight gradient. Without it, each direction all-reduces. Megatron-Core
    hides the second gather behind the input's gradient and the reduction behind the weight's
    (`LinearWithGradAccumulationAndAsyncCommunication`): these are `hideable tp`. Context parallelism gathers keys and
    values. Experts dispatch and combine in each direction; gradients travel in the combine's format.
    """
    h = job.model.hidden
    moe = kind.mlp if isinstance(kind.mlp, Moe) else None
    sharded = 1.0 + (1.0 if moe is None or moe.shared_intermediate else 0.0)
    boundary = ACTIVATION_BYTES * t * h
    gather = _collective(job, "all_gather", boundary, members["tp"])
    scatter = _collective(job, "reduce_scatter", boundary, members["tp"])
    reduce = _collective(job, "all_reduce", boundary, members["tp"])
    sharp = cols["sp"] > 0
    keys = ACTIVATION_BYTES * t * cols["cp"] * kv_width(kind.attention, cols["tp"])
    kv_gather = _collective(job, "all_gather", keys, members["cp"])
    kv_scatter = _collective(job, "reduce_scatter", keys, members["cp"])
    out = {
        "forward tp": sharded * np.where(sharp, gather + scatter, reduce),
        "backward tp": sharded * np.where(sharp, gather, 0.0),
        "hideable tp": sharded * np.where(sharp, gather + scatter, reduce),
        "forward cp": kv_gather,
        "backward cp": kv_gather + kv_scatter,
        "forward ep": np.zeros_like(t),
        "backward ep": np.zeros_like(t),
        "lent": np.zeros_like(t),
    }
    if moe is not None:
        swap = exchange_s(
            job.cluster, moe, h, t / cols["tp"], members["ep"], job.chip.recipe, name="auto", phase="train"
        )
        rows = ACTIVATION_BYTES * t / cols["tp"] * moe.topk * h * cols["etp"]
        shared = _collective(job, "all_gather", rows, members["etp"])
        shared = shared + _collective(job, "reduce_scatter", rows, members["etp"])
        out["forward ep"] = (swap["dispatch"] + swap["combine"]) * job.work.imbalance
        out["backward ep"] = 2.0 * swap["combine"] * job.work.imbalance
        lent = [EXCHANGES[name].sm_share or 0.0 for name in candidates("auto", "train")]
        out["lent"] = np.array(lent)[swap["kernels"].astype(np.int64)]
        out["forward tp"] = out["forward tp"] + shared
        out["backward tp"] = out["backward tp"] + shared
    return out


def layer_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Price every layer kind and the head on the columns that these depend on."""
    members = {name: group_members(job.cluster, cols, name) for name in ("tp", "cp", "ep", "etp")}
    out: dict[str, Column] = {}
    for index, kind in enumerate(job.model.layers):
        out |= {f"{index} {name}": value for name, value in _layer(job, kind, cols, members).items()}
    t = cols["micro_batch"] * job.work.sequence / cols["cp"]
    last = head(job.model.hidden, job.model.vocab, t, cols["tp"])
    out["forward head"] = total(forward_s(op, job.chip) for op in last)
    out["backward head"] = total(backward_s(op, job.chip) for op in last)
    out["saved head"] = total(column(op.saved_bytes) for op in last)
    return out


def link_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Price the hop between stages and the reduction of the fullest stage's gradients."""
    t = cols["micro_batch"] * job.work.sequence / cols["cp"]
    spans = group_members(job.cluster, cols, "pp")
    hop_bytes = ACTIVATION_BYTES * t * job.model.hidden / cols["tp"]
    hop = farthest(hop_bytes, spans, path(job.cluster, "send_recv", "nccl"))
    out = {"hop": np.where(cols["pp"] > 1, hop, 0.0), **memory.stage_parameters(job.model, cols)}
    for group, held in (("dp", out["dense parameters"]), ("edp", out["expert parameters"])):
        members = group_members(job.cluster, cols, group)
        out[f"reduce {group}"] = _collective(job, "reduce_scatter", job.work.gradient_bytes * held, members)
        out[f"gather {group}"] = _collective(job, "all_gather", ACTIVATION_BYTES * held, members)
        out[group] = members[-1]
    return out


def _exposed(prices: Mapping[str, Column], index: int, cols: Mapping[str, Column]) -> dict[str, Column]:
    """One layer's seconds by term, forward and backward together, with recomputation and overlap applied."""

    def get(name: str) -> Column:
        return prices[f"{index} {name}"]

    ahead = total(get(f"forward {name}") for name in COMPUTE)
    back = total(get(f"backward {name}") for name in COMPUTE)
    full, selective = cols["recompute"] == RECOMPUTE.index("full"), cols["recompute"] == RECOMPUTE.index("selective")
    redo_comm = get("forward tp") + get("forward cp") + get("forward ep")
    redo = np.where(full, ahead + redo_comm, np.where(selective, get("redo selective"), 0.0))
    core = get("forward attention core") + get("backward attention core")
    cp = get("forward cp") + get("backward cp")
    ep = get("forward ep") + get("backward ep")
    slowed = (ahead + back) / (1.0 - get("lent"))  # multiprocessors of the exchange, while another micro-batch computes
    out = {name: get(f"forward {name}") + get(f"backward {name}") for name in COMPUTE}
    out |= {
        "recompute": redo,
        "tp": get("forward tp") + get("backward tp") + np.maximum(get("hideable tp") - get("column backward"), 0.0),
        "busy tp": get("forward tp") + get("backward tp") + get("hideable tp"),
        "cp": np.maximum(cp - core, 0.0),
        "ep": np.where(cols["ep_overlap"] > 0, np.maximum(ep - slowed, 0.0), ep),
        "contention": np.where(cols["ep_overlap"] > 0, slowed - (ahead + back), 0.0),
        "busy cp": cp,
        "busy ep": ep,
    }
    out["forward share"] = ahead + get("forward tp") + np.where(cols["ep_overlap"] > 0, 0.0, get("forward ep"))
    return out


def stage_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Place the layers on the stages: everything that does not depend on the schedule and ZeRO stage."""
    prices = cols.on_distinct(LAYER_AXES, lambda sub: layer_prices(job, sub))
    links = cols.on_distinct(LINK_AXES, lambda sub: link_prices(job, sub))
    kinds = job.model.layers
    per_layer = [_exposed(prices, index, cols) for index in range(len(kinds))]
    names = [name for name in per_layer[0] if not name.startswith(("busy", "forward"))]
    out = {
        name: total(kind.count * layer[name] for kind, layer in zip(kinds, per_layer, strict=True))
        for name in per_layer[0]
    }
    times = [total(layer[name] for name in names) for layer in per_layer]
    head_s = prices["forward head"] + prices["backward head"]
    out["head"] = out["head"] + head_s
    out["forward share"] = out["forward share"] + prices["forward head"]
    out["total"] = total(out[name] for name in names)
    out["slow"] = slowest_stage(times, [kind.count for kind in kinds], cols["pp"], last=head_s)
    return out | links | memory.stage_activations(job.model, cols, prices, RECOMPUTE)


def _reduction(s: Mapping[str, Column], cols: Mapping[str, Column]) -> tuple[Column, Column]:
    """Gradient reduction and parameter gathering: (busy, exposed) seconds.

    The reduce-scatter hides behind the backward of the last micro-batch, the gather behind the forward of the first, all
    but the last (first) layer's bucket. Interleaving widens the window to ``min(m, pp)·(1 − 1/vpp)`` stage times. ZeRO 2
    keeps no whole gradient, so it reduces after every backward; ZeRO 3 also gathers before every forward and backward.
    """
    m = s["microbatches"]
    reduce, gather = s["reduce dp"] + s["reduce edp"], s["gather dp"] + s["gather edp"]
    often, whole = cols["zero"] >= 2, cols["zero"] >= 3
    reduce, gather = reduce * np.where(often, m, 1.0), gather * np.where(whole, 2.0 * m, 1.0)
    forward = s["slow"] * s["forward share"] / s["total"]
    backward = s["slow"] - forward
    layers = np.maximum(s["stage layers"], 1.0)
    widen = np.where(cols["vpp"] > 1, np.minimum(m, cols["pp"]) * (1.0 - 1.0 / cols["vpp"]), 1.0)
    inner = 1.0 - 1.0 / layers
    exposed = np.maximum(reduce - backward * inner * np.where(often, m, widen), reduce / layers)
    exposed = exposed + np.maximum(gather - forward * inner * np.where(whole, m, widen), gather / layers)
    return reduce + gather, exposed


def pipeline_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Run the micro-batches through the stages: every term but the reduction and the update, which depend on ZeRO too.

    ``m·slowest stage + bubble``, told as mean stage (by operator kind), `imbalance` of the slowest over it, and `bubble`.
    The closed form of the schedule takes equal stages; it gets the mean of the others, which fills and drains the pipe.
    """
    s = cols.on_distinct(STAGE_AXES, lambda sub: stage_prices(job, sub))
    pp, vpp = cols["pp"], cols["vpp"]
    m = job.work.global_batch / (cols["dp"] * cols["micro_batch"])
    share = m / pp
    out = {f"term {name}": s[name] * share for name in NAMED}
    out["term imbalance"] = np.where(pp > 1, m * np.maximum(s["slow"] - s["total"] / pp, 0.0), 0.0)
    ahead = s["forward share"] / s["total"]
    rest = (s["total"] - s["slow"]) / np.maximum(pp - 1.0, 1.0)
    bubble_s = SCHEDULES["interleaved"].bubble_s  # is 1F1B where vpp is 1
    shape = (pp, m, vpp, rest * ahead, rest * (1.0 - ahead))
    out["term bubble"] = bubble_s(*shape, 0.0)
    out["term pp"] = bubble_s(*shape, s["hop"]) - out["term bubble"]
    out |= {f"busy {name}": s[f"busy {name}"] * share for name in ("tp", "cp", "ep")} | {"microbatches": m}
    out["peak activations"] = memory.peak_activations(s, cols, m)
    return out | {name: s[name] for name in KEPT}


def price(job: TrainJob, cols: Columns) -> Priced:
    """Price a block of training strategies.

    Parameters
    ----------
    cols : columns used, tp, ep, micro_batch, dp, pp, and those of `DEFAULTS` that differ from their default

    Returns
    -------
    Priced
        `seconds` per step; terms by operator kind, communication, `imbalance` of the stages, `bubble`, `dp`, `optimizer`.
    """
    cols = cols.filled(DEFAULTS)
    s = cols.on_distinct(PIPELINE_AXES, lambda sub: pipeline_prices(job, sub))
    terms = {name: s[f"term {name}"] for name in (*NAMED, "imbalance", "bubble", "pp")}
    busy = terms | {name: s[f"busy {name}"] for name in ("tp", "cp", "ep")}
    busy["dp"], terms["dp"] = _reduction(s, cols)
    terms["optimizer"] = busy["optimizer"] = memory.optimizer_traffic(s, cols) / (
        job.chip.accelerator.hbm_Bps * job.chip.kernels["bf16"].hbm_efficiency
    )
    seconds = total(terms.values())
    used = cols["tp"] * cols["cp"] * cols["pp"] * cols["dp"]
    flops = 3.0 * model_flops(job) * job.work.tokens / (seconds * used)
    extra = {
        "gpus_used": used,
        "microbatches": s["microbatches"],
        "tokens_per_s_per_gpu": job.work.tokens / job.cluster.accelerators / seconds,
        "mfu": flops / job.chip.peak(job.chip.format("mlp")),
        "mfu_bf16": flops / job.chip.accelerator.peak_flops["bf16"],
    }
    return Priced(seconds, terms, busy, memory.step_memory(s, cols, job.work), extra)


def model_flops(job: TrainJob) -> float:
    """Forward FLOPs per token, causal half counted: the model's own work, no recomputation."""
    return float(sum(flops_per_token_forward(job.model, job.work.sequence, causal=True).values()))
