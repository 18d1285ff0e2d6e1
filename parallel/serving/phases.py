"""Prefill and decode: the layers of one pass on their sharded shapes, stages, waits, memory.

A replica holds the model once: `pp` stages of ``G = max(ep, tp)`` ranks, attention data-parallel over ``G/tp`` groups, routed
experts over all G ("wide EP"). With two micro-batches the exchange of one half travels while the other half computes
(DeepSeek-V3 2412.19437 §3.4): a layer takes ``2·max(C, M)`` instead of ``C + M`` for the whole.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from clusters.build import Cluster, path
from clusters.tunings import collective_s
from collectives.point_to_point import farthest
from parallel import memory
from parallel.exchange import EXCHANGES, REAL, ExchangeRules, candidates, exchange_s
from parallel.models import LayerKind, Mlp, Model, Moe
from parallel.operators import (
    ACTIVATION_BYTES,
    Operator,
    decode_attention,
    dense_mlp,
    head,
    norm,
    sequence_attention,
)
from parallel.placement import members_of, world
from parallel.precision import recipe
from parallel.priced import Priced, total
from parallel.roofline import Chip, chip, forward_s
from parallel.serving.operators import grouped_experts
from parallel.strategy import Columns
from parallel.training.stages import slowest_stage
from parallel.workload import ServeWorkload
from topo.columns import Column

COMPUTE = ("attention", "attention core", "kv read", "mlp", "shared expert", "experts", "vector", "head")
LAYER_AXES = ("used", "tp", "ep", "microbatches", "batch")


@dataclass(frozen=True)
class ServeJob:
    """What stays fixed while strategies vary. `rules` are the assumptions of the expert exchange."""

    model: Model
    cluster: Cluster
    work: ServeWorkload
    chip: Chip
    rules: ExchangeRules = REAL

    @classmethod
    def of(cls, model: Model, cluster: Cluster, work: ServeWorkload, rules: ExchangeRules = REAL) -> "ServeJob":
        """Bind them together."""
        return cls(model, cluster, work, chip(cluster.accelerator, recipe(work.precision)), rules)


@dataclass(frozen=True)
class Phase:
    """What differs between prefill and decode.

    Attributes
    ----------
    attention : operators of one layer's attention for `tokens` of one attention group
    tokens_per_batch : tokens that one unit of the `batch` column stands for
    regime : software regime of the tensor-parallel all-reduce
    """

    name: str
    attention: Callable[[ServeJob, LayerKind, Column, Column], list[Operator]]
    tokens_per_batch: Callable[[ServeWorkload], float]
    regime: str


def _decode_attention(job: ServeJob, kind: LayerKind, tokens: Column, tp: Column) -> list[Operator]:
    context = job.work.mean_context
    return decode_attention(kind.attention, job.model.hidden, tokens, context, tp, job.work.kv_bytes)


def _prefill_attention(job: ServeJob, kind: LayerKind, tokens: Column, tp: Column) -> list[Operator]:
    return sequence_attention(kind.attention, job.model.hidden, tokens, job.work.isl, tp)


PHASES: dict[str, Phase] = {
    "decode": Phase("decode", _decode_attention, lambda work: 1.0, regime="graph"),
    "prefill": Phase("prefill", _prefill_attention, lambda work: float(work.isl), regime="nccl"),
}


def stage_ranks(cols: Mapping[str, Column]) -> Column:
    """Ranks of one pipeline stage: the expert group, or the tensor group of a dense model."""
    return np.maximum(cols["ep"], cols["tp"])


def replicas(cluster: Cluster, cols: Mapping[str, Column]) -> Column:
    """Whole copies of the model that the cluster holds."""
    return np.floor(world(cluster, cols["used"]) / (stage_ranks(cols) * cols["pp"]))


def feed_forward(mlp: Mlp | Moe, h: int, tokens: Column, tp: Column, ranks: Column) -> list[Operator]:
    """Return the feed-forward half of a layer: one dense MLP, or routed experts over all ranks beside the shared ones."""
    if isinstance(mlp, Mlp):
        return dense_mlp(mlp, h, tokens, tp)
    routed = grouped_experts(mlp, h, tokens / tp, ranks)
    if not mlp.shared_intermediate:
        return routed
    return [*routed, *dense_mlp(Mlp(mlp.shared_intermediate, mlp.gated), h, tokens, tp, term="shared expert")]


def _layer(job: ServeJob, phase: Phase, kind: LayerKind, cols: Mapping[str, Column]) -> dict[str, Column]:
    """Seconds of one layer for one pass: all its micro-batches, by term, exposed and busy."""
    tp, parts = cols["tp"], cols["microbatches"]
    ranks = stage_ranks(cols)
    tokens = cols["batch"] * tp * phase.tokens_per_batch(job.work) / parts
    h = job.model.hidden
    operators = [
        norm("attention norm", tokens, h, tp),
        *phase.attention(job, kind, tokens, tp),
        norm("mlp norm", tokens, h, tp),
        *feed_forward(kind.mlp, h, tokens, tp, ranks),
    ]
    out = {name: np.zeros_like(tp) for name in COMPUTE}
    for op in operators:
        busiest = job.work.imbalance if op.role == "experts" else 1.0
        out[op.term] = out[op.term] + parts * busiest * forward_s(op, job.chip)
    reach = members_of(job.cluster, cols["used"], tp, np.ones_like(tp))
    road = path(job.cluster, "all_reduce", phase.regime)
    reduce = collective_s("all_reduce", ACTIVATION_BYTES * tokens * h, reach, road, phase.regime)
    out["tp"] = 2.0 * parts * reduce
    compute = total(out.values()) / parts
    out |= dict.fromkeys(("ep", "busy ep", "fastest ep", "contention"), np.zeros_like(tp))
    if isinstance(kind.mlp, Moe):
        out |= _exchange(job, phase, kind.mlp, cols, tokens / tp, compute)
    return {name: np.broadcast_to(value, tp.shape) for name, value in out.items()}


def _exchange(
    job: ServeJob, phase: Phase, moe: Moe, cols: Mapping[str, Column], tokens: Column, compute: Column
) -> dict[str, Column]:
    """Exchange of one layer, all micro-batches, by the kernels that lengthen it least: fast, or hidden at no one's cost."""
    ranks = stage_ranks(cols)
    group = members_of(job.cluster, cols["used"], ranks, np.ones_like(ranks))
    ways = []
    for name in candidates(job.work.exchange, phase.name):
        swap = exchange_s(
            job.cluster, moe, job.model.hidden, tokens, group, job.chip.recipe,
            name=name, phase=phase.name, rules=job.rules,
        )  # fmt: skip
        once = (swap["dispatch"] + swap["combine"]) * job.work.imbalance
        ways.append(_beside(once, compute, EXCHANGES[name].sm_share, cols))
    added = np.stack([way["ep"] + way["contention"] for way in ways])
    best = np.argmin(added, axis=0)[None]
    out = {name: np.take_along_axis(np.stack([way[name] for way in ways]), best, axis=0)[0] for name in ways[0]}
    return out | {"fastest ep": np.min(np.stack([way["busy ep"] for way in ways]), axis=0)}


def _beside(once: Column, compute: Column, taken: float | None, cols: Mapping[str, Column]) -> dict[str, Column]:
    """Exchange of one layer, all micro-batches: busy, what two micro-batches cannot hide, and what its kernels slow down.

    `taken` is the share of multiprocessors that they take, None where nothing can compute beside them. Two micro-batches:
    a layer takes ``2·max(C/(1 − taken), M)``, of which `contention` is ``2·(C/(1 − taken) − C)``.
    """
    parts = cols["microbatches"]
    split = (parts > 1) & (stage_ranks(cols) > 1) & (taken is not None)
    slowed = np.where(split, compute / (1.0 - (taken or 0.0)), compute)
    return {
        "busy ep": parts * once,
        "ep": np.where(split, parts * np.maximum(once - slowed, 0.0), parts * once),
        "contention": parts * (slowed - compute),
    }


def layer_prices(job: ServeJob, phase: Phase, cols: Columns) -> dict[str, Column]:
    """Price every layer kind and the head on the columns that they depend on."""
    out: dict[str, Column] = {}
    for index, kind in enumerate(job.model.layers):
        out |= {f"{index} {name}": value for name, value in _layer(job, phase, kind, cols).items()}
    tokens = cols["batch"] * cols["tp"]  # one token of each sequence reaches the head, in prefill too
    out["head"] = total(forward_s(op, job.chip) for op in head(job.model.hidden, job.model.vocab, tokens, cols["tp"]))
    return out


def pass_prices(job: ServeJob, phase: Phase, cols: Columns) -> dict[str, Column]:
    """Price one pass of a replica: totals by term, the slowest stage, one hop between stages."""
    prices = cols.on_distinct(LAYER_AXES, lambda sub: layer_prices(job, phase, sub))
    kinds = job.model.layers
    names = (*COMPUTE, "tp", "ep", "contention")
    out = {
        name: total(kind.count * prices[f"{i} {name}"] for i, kind in enumerate(kinds))
        for name in (*names, "busy ep", "fastest ep")
    }
    times = [total(prices[f"{i} {name}"] for name in names) for i in range(len(kinds))]
    out["head"] = out["head"] + prices["head"]
    out["total"] = total(out[name] for name in names)
    out["slow"] = slowest_stage(times, [kind.count for kind in kinds], cols["pp"], last=prices["head"])
    ranks = stage_ranks(cols)
    spans = members_of(job.cluster, cols["used"], cols["pp"], ranks)
    rows = ACTIVATION_BYTES * cols["batch"] * phase.tokens_per_batch(job.work) * job.model.hidden
    hop = farthest(rows, spans, path(job.cluster, "send_recv", "nccl"))
    out["hop"] = np.where(cols["pp"] > 1, hop, 0.0)
    return out


def _memory(job: ServeJob, phase: Phase, cols: Columns) -> dict[str, Column]:
    """Bytes per accelerator: weights, cache of all sequences in flight, activations of one pass, reserve."""
    tokens = cols["batch"] * cols["tp"] * phase.tokens_per_batch(job.work)
    context = job.work.mean_context if phase.name == "decode" else float(job.work.isl)
    sequences = cols["batch"] * cols["tp"] * cols["pp"]
    widest = max(
        (kind.mlp.topk * kind.mlp.intermediate * 3 if isinstance(kind.mlp, Moe) else 3 * kind.mlp.intermediate)
        for kind in job.model.layers
    )
    logits = 4.0 * cols["batch"] * job.model.vocab
    activations = ACTIVATION_BYTES * tokens / cols["tp"] * (6.0 * job.model.hidden + widest) + logits
    return {
        "weights": memory.serving_weights(job.model, cols, job.chip.recipe),
        "kv cache": memory.cache_bytes(job.model, cols, sequences, context, job.work),
        "activations": activations,
        "reserve": np.full_like(tokens, job.work.reserve_bytes),
    }


def price(job: ServeJob, phase_name: str, cols: Columns) -> Priced:
    """Price a block of serving strategies.

    Parameters
    ----------
    phase_name : `decode` or `prefill`
    cols : columns used, tp, ep, pp, microbatches, batch (decode: sequences per accelerator; prefill: prompts per
        accelerator and pass, fractions allowed under tp)

    Returns
    -------
    Priced
        decode: `seconds` is the time per output token, ``max(pp·slowest, Σ stages + pp·hop)``: pp micro-batches go round.
        prefill: `seconds` is the pass, ``Σ stages + (pp−1)·hop``; a new one starts every slowest-stage time, and a prompt
        waits half of that on average.
    """
    phase = PHASES[phase_name]
    s = pass_prices(job, phase, cols)
    pp = cols["pp"]
    named = (*COMPUTE, "tp", "ep", "contention")
    terms = {name: s[name] for name in named}
    busy = {**terms, "ep": s["busy ep"]}
    loop = s["total"] + pp * s["hop"] if phase_name == "decode" else s["total"] + (pp - 1.0) * s["hop"]
    seconds = np.maximum(pp * s["slow"], loop) if phase_name == "decode" else loop
    held_up = seconds > loop
    terms["imbalance"] = np.where(held_up, seconds - s["total"], 0.0)
    terms["pp"] = np.where(held_up, 0.0, loop - s["total"])
    busy["imbalance"], busy["pp"] = terms["imbalance"], np.maximum(terms["pp"], pp * s["hop"])
    count = replicas(job.cluster, cols)
    ranks = stage_ranks(cols)
    in_pass = cols["batch"] * ranks * phase.tokens_per_batch(job.work)
    period = seconds / pp if phase_name == "decode" else s["slow"]
    rate = count * in_pass / period
    extra = {
        "gpus_used": count * ranks * pp,
        "replicas": count,
        "tokens_per_s_per_gpu": rate / job.cluster.accelerators,
        "tokens_per_s_per_user": 1.0 / seconds,
        "ttft_s": seconds + period / 2.0,
        "busy_exchange_s": s["busy ep"],
    }
    return Priced(seconds, terms, busy, _memory(job, phase, cols), extra)


def communication_limit(job: ServeJob, phase_name: str, cols: Columns) -> Priced:
    """Price a pass whose computation is free or wholly hidden: the expert exchange alone.

    ``seconds = Σ layers · micro-batches · (dispatch + combine)``. Source of the idea: Zhao et al. 2505.09343 §2.3.2.
    """
    s = pass_prices(job, PHASES[phase_name], cols)
    full = price(job, phase_name, cols)
    seconds = s["fastest ep"]
    ranks = stage_ranks(cols)
    rate = (
        replicas(job.cluster, cols) * cols["batch"] * ranks * PHASES[phase_name].tokens_per_batch(job.work) * cols["pp"]
    )
    extra = full.extra | {
        "tokens_per_s_per_gpu": rate / seconds / job.cluster.accelerators,
        "tokens_per_s_per_user": 1.0 / seconds,
        "ttft_s": seconds,
    }
    return Priced(seconds, {"ep": seconds}, {"ep": seconds}, full.memory, extra)
