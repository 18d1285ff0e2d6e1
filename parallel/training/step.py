"""One training step: layer prices, then stages, then the step. Each floor is priced on the columns that it depends on.

    layer   tp sp cp ep etp micro_batch used        operators, tensor, context and expert communication
    link    + order pp dp                           hops between stages, gradient reduction
    stage   + recompute ep_overlap                  a layer of each kind, and all of them
    pipe    + vpp schedule                          placement of layers, micro-batches, bubble
    step    + zero                                  exposed reduction, memory

`terms` are exposed seconds that add up to the step exactly; `busy` is the same work before overlap.
"""

from collections.abc import Mapping

import numpy as np

from clusters.build import path
from collectives.pipelines import SCHEDULES as PIPELINES
from collectives.pipelines import bubble_s
from collectives.point_to_point import farthest
from parallel import memory
from parallel.models import flops_per_token_forward, layer_order
from parallel.operators import ACTIVATION_BYTES
from parallel.placement import group_members
from parallel.priced import Priced, total
from parallel.strategy import Columns
from parallel.training import footprint
from parallel.training.layer import COMPUTE, TrainJob, collective, exposed, layer_prices, tokens
from parallel.training.layouts import Layout
from parallel.training.splits import place
from parallel.training.stages import slowest_stage
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
LINK_AXES = (*LAYER_AXES, "order", "dp", "pp")
STAGE_AXES = (*LINK_AXES, "recompute", "ep_overlap")
PIPELINE_AXES = (*STAGE_AXES, "vpp", "schedule")
NAMED = (*COMPUTE, "recompute", "tp", "cp", "ep", "contention", "host")
#: what the step still needs of its stages
KEPT = (
    *("slow", "total", "forward share", "stage layers", *footprint.LOADS),
    *("reduce dp", "reduce edp", "gather dp", "gather edp"),
)


def link_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Price the hop between stages and the reduction of the fullest stage's gradients."""
    t = tokens(job, cols)
    spans = group_members(job.cluster, cols, "pp")
    hop_bytes = ACTIVATION_BYTES * t * job.model.hidden / cols["tp"]
    hop = farthest(hop_bytes, spans, path(job.cluster, "send_recv", "nccl"))
    out = {"hop": np.where(cols["pp"] > 1, hop, 0.0), **memory.stage_parameters(job.model, cols)}
    for group, held in (("dp", out["dense parameters"]), ("edp", out["expert parameters"])):
        members = group_members(job.cluster, cols, group)
        out[f"reduce {group}"] = collective(job, "reduce_scatter", job.work.gradient_bytes * held, members)
        out[f"gather {group}"] = collective(job, "all_gather", ACTIVATION_BYTES * held, members)
        out[group] = members[-1]
    return out


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


def stage_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Add the layers up: everything that does not depend on their placement, the schedule and ZeRO stage.

    A multi-token-prediction module is one more layer of the last kind with a projection and a head of its own; all of
    it sits on the last stage (DeepSeek-V3, 2412.19437 §2.2).
    """
    prices = cols.on_distinct(LAYER_AXES, lambda sub: layer_prices(job, sub))
    links = cols.on_distinct(LINK_AXES, lambda sub: link_prices(job, sub))
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
    return out | links


def _slowest(job: TrainJob, s: Mapping[str, Column], cols: Mapping[str, Column]) -> Column:
    """Seconds of the slowest stage when the layers are placed on pp stages of vpp chunks."""
    kinds = job.model.layers
    return slowest_stage(
        [s[f"layer {index}"] for index in range(len(kinds))],
        [kind.count for kind in kinds],
        cols["pp"],
        last=s["end"],
        chunks=cols["vpp"],
        order=layer_order(job.model) if job.model.pattern else (),
    )


def placement(job: TrainJob, cols: Columns) -> Layout:
    """Return which layers of one strategy sit on which virtual stage, as the step places them."""
    cols = cols.filled(DEFAULTS)
    _, times, (ahead, back) = _timed(job, layer_prices(job, cols), cols)
    modules = job.model.mtp_layers if job.work.software.mtp else 0
    last_s = float(ahead[0] + back[0] + modules * times[-1][0])
    per_kind = [float(seconds[0]) for seconds in times]
    stages, chunks = int(cols["pp"][0]), int(cols["vpp"][0])
    return place(layer_order(job.model), per_kind, stages, chunks, last=last_s, mtp=modules)


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


def _bubbles(cols: Mapping[str, Column], microbatches: Column, *times: ColumnLike) -> Column:
    """Bubble of each row by its schedule; `times`: forward, backward, hop and weight gradient of a stage.

    Interleaving with hops that outlast a chunk is priced by its closed form, which is then a lower bound.
    """
    rows = np.broadcast_arrays(cols["pp"], microbatches, cols["vpp"], *(column(time) for time in times))
    out = np.array(PIPELINES["interleaved"].bubble_s(*rows))
    codes = cols["schedule"]
    for code in np.unique(codes[codes > 0]).astype(int).tolist():
        mine = codes == code
        out[mine] = bubble_s(SCHEDULES[code], *(row[mine] for row in rows))[0]
    return column(np.where(cols["pp"] > 1, out, 0.0))


def pipeline_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Run the micro-batches through the stages: every term but the reduction and the update, which depend on ZeRO too.

    ``m·slowest stage + bubble``, told as mean stage (by operator kind), `imbalance` of the slowest over it, and `bubble`.
    The closed form of the schedule takes equal stages; it gets the mean of the others, which fills and drains the pipe.
    """
    s = cols.on_distinct(STAGE_AXES, lambda sub: stage_prices(job, sub))
    s["slow"] = _slowest(job, s, cols)
    pp, vpp = cols["pp"], cols["vpp"]
    m = job.work.global_batch / (cols["dp"] * cols["micro_batch"])
    share = m / pp
    out = {f"term {name}": s[name] * share for name in NAMED}
    out["term imbalance"] = np.where(pp > 1, m * np.maximum(s["slow"] - s["total"] / pp, 0.0), 0.0)
    ahead, weights = s["forward share"] / s["total"], s["weights share"] / s["total"]
    rest = (s["total"] - s["slow"]) / np.maximum(pp - 1.0, 1.0)
    given = (rest * ahead, rest * (1.0 - ahead))
    out["term bubble"] = _bubbles(cols, m, *given, 0.0, rest * weights)
    waits = np.where(pp > 1, 2.0 * m * vpp * job.engine.boundary_s, 0.0)
    out["term pp"] = _bubbles(cols, m, *given, s["hop"], rest * weights) - out["term bubble"] + waits
    out |= {f"busy {name}": s[f"busy {name}"] * share for name in ("tp", "cp", "ep")} | {"microbatches": m}
    s |= footprint.stage_loads(job.model, job.work, cols, SCHEDULES)
    return out | {name: s[name] for name in KEPT}


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
    s = cols.on_distinct(PIPELINE_AXES, lambda sub: pipeline_prices(job, sub))
    terms = {name: s[f"term {name}"] for name in (*NAMED, "imbalance", "bubble", "pp")}
    busy = terms | {name: s[f"busy {name}"] for name in ("tp", "cp", "ep")}
    busy["dp"], terms["dp"] = _reduction(job, s, cols)
    terms["contention"] = terms["contention"] + job.fitted.shared["contention"] * (busy["dp"] - terms["dp"])
    updated_bytes = memory.UPDATE_TRAFFIC * footprint.updated_parameters(s, cols)
    streamed_Bps = job.chip.accelerator.hbm_Bps * job.chip.kernels["bf16"].hbm_efficiency
    terms["optimizer"] = updated_bytes / streamed_Bps * (job.work.software.trains == "all")
    terms["step"] = np.full_like(terms["dp"], job.fitted.shared["step_s"])
    installed = job.work.software.installation
    terms = {name: installed * value for name, value in terms.items()}
    busy |= {name: terms[name] for name in ("contention", "optimizer", "step")}
    busy = {name: np.maximum(value, terms[name]) for name, value in busy.items()}
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
    return Priced(seconds, terms, busy, footprint.step_memory(s, cols, job.work), extra)


def model_flops(job: TrainJob) -> float:
    """Forward FLOPs per token, causal half counted: the model's own work, no recomputation."""
    return float(sum(flops_per_token_forward(job.model, job.work.sequence, causal=True).values()))
