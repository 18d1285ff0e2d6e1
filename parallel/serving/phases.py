"""Prefill and decode: the layers of one pass on their sharded shapes, stages, waits, memory.

A replica holds the model once: `pp` stages of ``G = max(ep, tp·cp)`` ranks, attention data-parallel over ``G/(tp·cp)``
groups, routed experts over all G ("wide EP"). The cp ranks of a prefill group, `tp` apart, share its prompts
(`parallel.serving.contexts`). With two micro-batches the exchange of one half travels while the other half computes
(DeepSeek-V3 2412.19437 §3.4): a layer takes ``2·max(C, M)`` instead of ``C + M`` for the whole.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from clusters.build import Cluster, path
from clusters.tunings import collective_s
from collectives.point_to_point import send_recv
from parallel import memory
from parallel.alike import together
from parallel.compressed import around, compressed_decode, compressed_prompt
from parallel.exchange import EXCHANGES, REAL, ExchangeRules, candidates, exchange_s
from parallel.models import Attention, LayerKind, Mlp, Model, Moe
from parallel.operators import (
    ACTIVATION_BYTES,
    Operator,
    decode_attention,
    dense_mlp,
    head,
    sequence_attention,
)
from parallel.placement import members_of, outermost, world
from parallel.precision import FORMATS, recipe
from parallel.priced import Priced, total
from parallel.roofline import Chip, chip
from parallel.serving.contexts import WAYS, block_bytes, context_ranks, expanded, held_blocks, way_of
from parallel.serving.engines import mean_prefill, serving_recipe
from parallel.serving.indexed import chosen_prompt
from parallel.serving.kernels import started_s
from parallel.serving.operators import grouped_experts
from parallel.speculation import Drafts, draft_model
from parallel.strategy import Columns, Floor
from parallel.training.stages import slowest_stage
from parallel.workload import ServeWorkload
from topo.columns import Column, column

COMPUTE = ("attention", "attention core", "kv read", "mlp", "shared expert", "experts", "vector", "head")
ROUNDING = 1e-12  # of the same sum in two orders
LAYER_AXES = ("used", "tp", "cp", "ep", "microbatches", "batch")


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
        """Bind them together; a checkpoint in FP8 whose experts are in FP4 (DeepSeek-V4) is priced as engines hold it."""
        part, mixed = cluster.accelerator, model.native_precision == "fp8" and bool(model.expert_precision)
        held = serving_recipe(model, work.precision, part) if mixed else recipe(work.precision)
        return cls(model, cluster, work, chip(part, held), rules)


@dataclass(frozen=True)
class Phase:
    """What differs between prefill and decode.

    Attributes
    ----------
    attention : operators of one layer's attention for `tokens` of one attention group
    tokens_per_batch : tokens that one unit of the `batch` column stands for
    regime : software regime of the tensor-parallel all-reduce
    over : what its kernels take over their price alone: of a prompt, the mean of the engines
    """

    name: str
    attention: Callable[[ServeJob, LayerKind, Column, Column], list[Operator]]
    tokens_per_batch: Callable[[ServeWorkload], float]
    regime: str
    over: Callable[[], float] = lambda: 1.0


def _decode_attention(job: ServeJob, kind: LayerKind, tokens: Column, tp: Column) -> list[Operator]:
    work = job.work  # the drafts of a sequence and its last token share the reads of its cache
    if kind.attention.compression:
        sizes = (job.model.hidden, tokens, work.mean_context, tp)
        return compressed_decode(kind.attention, *sizes, sharing=work.drafts + 1.0)
    return decode_attention(
        kind.attention, job.model.hidden, tokens, work.mean_context, tp, work.kv_bytes,
        sharing=work.drafts + 1.0, generation=job.chip.accelerator.generation,
    )  # fmt: skip


def _prefill_attention(job: ServeJob, kind: LayerKind, tokens: Column, tp: Column) -> list[Operator]:
    ends, part = (float(job.work.cached), float(job.work.isl)), job.chip.accelerator
    if kind.attention.compression:
        return compressed_prompt(kind.attention, job.model.hidden, tokens, *ends, tp)
    if kind.attention.indexer:
        return chosen_prompt(kind.attention, job.model.hidden, tokens, *ends, tp, part.generation)
    seen = (
        job.work.isl + job.work.cached
    )  # a fresh token sees all that are cached and half of the fresh ones: half of this
    return sequence_attention(kind.attention, job.model.hidden, tokens, seen, tp)


PHASES: dict[str, Phase] = {
    "decode": Phase("decode", _decode_attention, lambda work: work.drafts + 1.0, regime="graph"),
    "prefill": Phase("prefill", _prefill_attention, lambda work: work.fresh, regime="nccl", over=mean_prefill),
}


def stage_ranks(cols: Mapping[str, Column]) -> Column:
    """Ranks of one pipeline stage: the expert group, or the attention group of a dense model."""
    return np.maximum(cols["ep"], cols["tp"] * context_ranks(cols))


def replicas(cluster: Cluster, cols: Mapping[str, Column]) -> Column:
    """Whole copies of the model that the cluster holds."""
    return np.floor(world(cluster, cols["used"]) / (stage_ranks(cols) * cols["pp"]))


def feed_forward(
    mlp: Mlp | Moe, work: ServeWorkload, h: int, tokens: Column, tp: Column, ranks: Column
) -> list[Operator]:
    """Return the feed-forward half of a layer: one dense MLP, or routed experts over all ranks beside the shared ones."""
    if isinstance(mlp, Mlp):
        return dense_mlp(mlp, h, tokens, tp)
    routed = grouped_experts(mlp, h, tokens / tp, ranks, work.hot)
    if not mlp.shared_intermediate:
        return routed
    return [*routed, *dense_mlp(Mlp(mlp.shared_intermediate, mlp.gated), h, tokens, tp, term="shared expert")]


def attention_half(job: ServeJob, phase: Phase, kind: LayerKind, tokens: Column, tp: Column) -> list[Operator]:
    """Return attention and both norms, or hyper-connections, for `tokens` of one attention group."""
    h, streams = job.model.hidden, job.model.streams
    return [
        *around("attention norm", h, tokens, tp, streams),
        *phase.attention(job, kind, tokens, tp),
        *around("mlp norm", h, tokens, tp, streams),
    ]


def _reduce(job: ServeJob, phase: Phase, cols: Columns, tokens: Column) -> Column:
    """Seconds of one all-reduce of an attention group."""
    road = path(job.cluster, "all_reduce", phase.regime)
    members = group_of(job, cols, ("tp",), lambda sub: sub["tp"])
    return collective_s("all_reduce", ACTIVATION_BYTES * tokens * job.model.hidden, members, road, phase.regime)


def group_of(job: ServeJob, cols: Columns, axes: tuple[str, ...], ranks: Callable[[Columns], Column]) -> Column:
    """Members per tier of groups of so many neighbouring ranks, found on the columns that the ranks depend on."""

    def members(sub: Columns) -> dict[str, Column]:
        size = ranks(sub)
        return {"members": members_of(job.cluster, sub["used"], size, np.ones_like(size))}

    return cols.on_distinct(("used", *axes), members)["members"]


def _exchange(
    job: ServeJob, phase: Phase, moe: Moe, cols: Columns, tokens: Column, compute: Column
) -> dict[str, Column]:
    """Exchange of one layer, all micro-batches, by the kernels that lengthen it least: fast, or hidden at no one's cost."""
    group = group_of(job, cols, ("tp", "cp", "ep"), stage_ranks)
    ways, busiest = [], job.work.hot.busiest_of(moe.experts, stage_ranks(cols))
    for name in candidates(job.work.exchange, phase.name):
        swap = exchange_s(
            job.cluster, moe, job.model.hidden, tokens, group, job.chip.recipe,
            name=name, phase=phase.name, rules=job.rules,
        )  # fmt: skip
        once = (swap["dispatch"] + swap["combine"]) * busiest
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


def context_blocks(job: ServeJob, att: Attention, cols: Mapping[str, Column]) -> Column:
    """Bytes of a layer's keys and values that one rank has of the prompts of a micro-batch, cached positions too."""
    prompts = cols["batch"] * cols["tp"] * cols["cp"] / cols["microbatches"]
    return block_bytes(att, prompts * job.work.isl, cols["tp"], cols["cp"], job.work.kv_bytes)


def received_bytes(job: ServeJob, cols: Mapping[str, Column]) -> Column:
    """Bytes of others' keys and values that a rank holds while a layer attends to them, of the layer with most."""
    kinds = {kind.attention for kind in job.model.layers}
    return column(np.max([held_blocks(att, cols["cp"]) * context_blocks(job, att, cols) for att in kinds], axis=0))


def _context(job: ServeJob, att: Attention, cols: Columns, attention_s: Column) -> dict[str, Column]:
    """Seconds of one layer in which the ranks of a prompt pass keys and values on, all micro-batches: busy, and exposed."""

    def members(sub: Columns) -> dict[str, Column]:
        return {"members": members_of(job.cluster, sub["used"], sub["cp"], sub["tp"])}

    group, parts = cols.on_distinct(("used", "tp", "cp"), members)["members"], cols["microbatches"]
    busy, exposed = WAYS[way_of(att)](
        job.cluster, context_blocks(job, att, cols), cols["cp"], group, attention_s / parts
    )
    return {"cp": parts * exposed, "busy cp": parts * busy}


def layer_operators(job: ServeJob, phase: Phase, kind: LayerKind, cols: Mapping[str, Column]) -> list[Operator]:
    """Return the operators of one layer's attention half for one micro-batch of a rank."""
    tp, tokens = cols["tp"], group_tokens(job, phase, cols)
    others = expanded(kind.attention, (cols["cp"] - 1.0) * tokens, tp) if "cp" in cols else []
    return [*attention_half(job, phase, kind, tokens, tp), *others]


def group_tokens(job: ServeJob, phase: Phase, cols: Mapping[str, Column]) -> Column:
    """Tokens that the tensor ranks of an attention group, or one context rank's of it, have in a micro-batch."""
    return cols["batch"] * cols["tp"] * phase.tokens_per_batch(job.work) / cols["microbatches"]


def head_tokens(job: ServeJob, phase: Phase, cols: Mapping[str, Column]) -> Column:
    """Tokens of which the head is computed: all that decode; of prompts the last ones, which lie on one context rank."""
    each = phase.tokens_per_batch(job.work) if phase.name == "decode" else 1.0
    return cols["batch"] * cols["tp"] * context_ranks(cols) * each


def layer_prices(job: ServeJob, phase: Phase, cols: Columns) -> dict[str, Column]:
    """Seconds of one layer of every kind for one pass, all its micro-batches, by term; and of the head."""
    kinds, h, tp, parts = job.model.layers, job.model.hidden, cols["tp"], cols["microbatches"]
    tokens = group_tokens(job, phase, cols)
    halves: dict[Any, list[Operator]] = {}
    for kind in kinds:
        halves.setdefault(kind.attention, layer_operators(job, phase, kind, cols))
        halves.setdefault(kind.mlp, feed_forward(kind.mlp, job.work, h, tokens, tp, stage_ranks(cols)))
    halves["head"] = head(h, job.model.vocab, head_tokens(job, phase, cols), tp)
    flat = [op for half in halves.values() for op in half]
    over = phase.over()
    seconds = iter(together(flat, cols.rows, lambda op: (over * started_s(op, job.chip),)))
    priced = {key: [(op, next(seconds)[0]) for op in half] for key, half in halves.items()}
    reduced = 2.0 * parts * _reduce(job, phase, cols, tokens)
    out: dict[str, Column] = {}
    for index, kind in enumerate(kinds):
        layer = dict.fromkeys(COMPUTE, np.zeros(cols.rows))
        for op, once in (*priced[kind.attention], *priced[kind.mlp]):
            layer[op.term] = layer[op.term] + parts * once
        layer["tp"] = reduced
        compute = total(layer.values()) / parts
        layer |= dict.fromkeys(("ep", "busy ep", "fastest ep", "contention"), np.zeros(cols.rows))
        if isinstance(kind.mlp, Moe):
            layer |= _exchange(job, phase, kind.mlp, cols, tokens / tp, compute)
        if "cp" in cols:
            layer |= _context(job, kind.attention, cols, layer["attention core"])
        out |= {f"{index} {name}": value for name, value in layer.items()}
    return out | {"head": total(once for _, once in priced["head"])}


def term_names(cols: Mapping[str, Column]) -> tuple[str, ...]:
    """Return the terms of a layer; that of context parallelism where a strategy has it.

    >>> term_names({})[-1], term_names({"cp": np.ones(1)})[-1]
    ('contention', 'cp')
    """
    return (*COMPUTE, "tp", "ep", "contention", *("cp",) * ("cp" in cols))


def stack_prices(job: ServeJob, phase: Phase, cols: Columns) -> dict[str, Column]:
    """Add the layers and the head up for one pass."""
    prices, kinds = layer_prices(job, phase, cols), job.model.layers
    names = term_names(cols)
    out = {
        name: total(kind.count * prices[f"{i} {name}"] for i, kind in enumerate(kinds))
        for name in (*names, "busy ep", "fastest ep", *("busy cp",) * ("cp" in cols))
    }
    out |= {f"layer {i}": total(prices[f"{i} {name}"] for name in names) for i in range(len(kinds))}
    out["head"] = out["head"] + prices["head"]
    return out | {"end": prices["head"], "total": total(out[name] for name in names)}


def pass_prices(job: ServeJob, phase: Phase, cols: Columns) -> Floor:
    """Price one pass of a replica: totals by term, the slowest stage, one hop between stages."""
    s, kinds = cols.on_distinct(LAYER_AXES, partial(stack_prices, job, phase)), job.model.layers
    times = [s[f"layer {i}"] for i in range(len(kinds))]
    slow = slowest_stage(times, [kind.count for kind in kinds], cols["pp"], last=s["end"])
    return s | {"slow": slow, "hop": _hop(job, phase, cols), "drafts": _drafts(job, phase, cols)}


def _asked(work: ServeWorkload) -> Drafts:
    return Drafts(work.drafts, work.holds, work.drafter)


def _drafts(job: ServeJob, phase: Phase, cols: Columns) -> Column:
    """Seconds of a step's drafts: a pass over all that was checked, and one for each further draft."""
    work = job.work
    if phase.name != "decode" or not work.drafts:
        return np.zeros(cols.rows)
    small = draft_model(job.model, _asked(work))
    first, later = (
        cols.on_distinct(LAYER_AXES, partial(stack_prices, replace(job, model=small, work=made), phase))["total"]
        for made in (work, replace(work, drafts=0, holds=()))
    )
    return first + (work.drafts - 1.0) * later


def _hop(job: ServeJob, phase: Phase, cols: Columns) -> Column:
    """Seconds of one message between pipeline stages."""

    def tier(sub: Columns) -> dict[str, npt.NDArray[np.int64]]:
        return {"tier": outermost(members_of(job.cluster, sub["used"], sub["pp"], stage_ranks(sub)))}

    width = job.model.hidden * job.model.streams
    rows = ACTIVATION_BYTES * cols["batch"] * phase.tokens_per_batch(job.work) * width
    crossed = cols.on_distinct(("used", "tp", "cp", "ep", "pp"), tier)["tier"]
    return send_recv(rows, crossed, path(job.cluster, "send_recv", "nccl"))


def _memory(job: ServeJob, phase: Phase, cols: Columns) -> dict[str, Column]:
    """Bytes per accelerator: weights, cache of all sequences in flight, activations of one pass, reserve."""
    context = job.work.mean_context if phase.name == "decode" else float(job.work.isl)
    recipe, copies = job.chip.recipe, job.work.expert_copies or 0
    small = draft_model(job.model, _asked(job.work)) if job.work.drafts else None

    def held(sub: Columns) -> dict[str, Column]:
        own = sub["tp"] * sub["pp"]  # sequences in flight, for each of the batch; cp ranks share cp times as many
        weights = memory.serving_weights(job.model, sub, recipe, copies)
        cache = memory.cache_bytes(job.model, sub, own, context, job.work)
        if small is not None:
            ends = memory.end_parameters(small, sub["tp"], sub["pp"]) * FORMATS[recipe.head].bytes_per_value
            weights = weights + memory.serving_weights(small, sub, recipe, copies) - ends
            cache = cache + memory.cache_bytes(small, sub, own, context, job.work)
        return {"weights": weights, "cache": cache}

    s = cols.on_distinct(("tp", "cp", "ep", "pp"), held)
    widest = max(
        (kind.mlp.topk * kind.mlp.intermediate * 3 if isinstance(kind.mlp, Moe) else 3 * kind.mlp.intermediate)
        for kind in job.model.layers
    )
    width = ACTIVATION_BYTES * phase.tokens_per_batch(job.work) * (6.0 * job.model.hidden + widest)
    return {
        "weights": s["weights"],
        "kv cache": cols["batch"] * s["cache"],
        "activations": cols["batch"] * (width + 4.0 * job.model.vocab),  # and logits in FP32
        **({"kv blocks": received_bytes(job, cols)} if "cp" in cols else {}),
        "reserve": np.full(cols.rows, job.work.reserve_bytes),
    }


def price(job: ServeJob, phase_name: str, cols: Columns) -> Priced:
    """Price a block of serving strategies.

    Parameters
    ----------
    phase_name : `decode` or `prefill`
    cols : columns used, tp, ep, pp, microbatches, batch (decode: sequences per accelerator; prefill: prompts per
        accelerator and pass, fractions allowed under tp and cp), and of prefill cp where prompts are dealt over ranks

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
    terms = {name: s[name] for name in term_names(cols)}
    busy = {**terms, "ep": s["busy ep"], **({"cp": s["busy cp"]} if "cp" in cols else {})}
    loop = s["total"] + pp * s["hop"] if phase_name == "decode" else s["total"] + (pp - 1.0) * s["hop"]
    slowest = pp * s["slow"] if phase_name == "decode" else np.zeros_like(loop)
    held_up = slowest > loop * (1.0 + ROUNDING)
    seconds = np.where(held_up, slowest, loop)
    terms["imbalance"] = np.where(held_up, seconds - s["total"], 0.0)
    terms["pp"] = np.where(held_up, 0.0, loop - s["total"])
    busy["imbalance"], busy["pp"] = terms["imbalance"], np.maximum(terms["pp"], pp * s["hop"])
    seconds, (terms, busy) = _in_tokens(job, phase_name, seconds, (terms, busy), s["drafts"])
    count = replicas(job.cluster, cols)
    ranks = stage_ranks(cols)
    in_pass = cols["batch"] * ranks * (1.0 if phase_name == "decode" else job.work.fresh)
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


def _in_tokens(
    job: ServeJob, phase_name: str, seconds: Column, parts: Sequence[dict[str, Column]], drafts: Column
) -> tuple[Column, list[dict[str, Column]]]:
    """Return the seconds of a token where a step yields several: the step's and its drafts', over the tokens."""
    if phase_name != "decode" or not job.work.drafts:
        return seconds, list(parts)
    yielded = job.work.yielded
    told = [{name: value / yielded for name, value in (*part.items(), ("drafts", drafts))} for part in parts]
    return (seconds + drafts) / yielded, told


def communication_limit(job: ServeJob, phase_name: str, cols: Columns) -> Priced:
    """Price a pass whose computation is free or wholly hidden: the expert exchange alone.

    ``seconds = Σ layers · micro-batches · (dispatch + combine)``. Source of the idea: Zhao et al. 2505.09343 §2.3.2.
    """
    s = pass_prices(job, PHASES[phase_name], cols)
    full = price(job, phase_name, cols)
    seconds = s["fastest ep"]
    ranks, each = stage_ranks(cols), job.work.yielded if phase_name == "decode" else job.work.fresh
    rate = replicas(job.cluster, cols) * cols["batch"] * ranks * each * cols["pp"]
    extra = full.extra | {
        "tokens_per_s_per_gpu": rate / seconds / job.cluster.accelerators,
        "tokens_per_s_per_user": (job.work.yielded if phase_name == "decode" else 1.0) / seconds,
        "ttft_s": seconds,
    }
    return Priced(seconds, {"ep": seconds}, {"ep": seconds}, full.memory, extra)
