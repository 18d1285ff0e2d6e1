"""One pass of an engine over one replica: a curve over tokens, and a read of the cache.

A pass of ``b`` decoding sequences that see ``n`` cached positions together, and of ``p`` prompt tokens with ``q`` (token,
earlier position) pairs, takes, for one attention group,

    linear(b + p) + cache(b, n) + scores(q) + kernels·start + host(b)

Linear layers, all-reduces and expert exchanges depend on the tokens alone: they are priced once on a grid of token counts
and looked up between, so that a step of `parallel.serving.queueing` costs microseconds.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clusters.build import Cluster, path
from clusters.tunings import collective_s
from parallel import memory
from parallel.entries import pooled_bytes, waiting_bytes
from parallel.hotexperts import UNTOLD, HotExperts
from parallel.models import Attention, LayerKind, Model, Moe, layer_order
from parallel.operators import ACTIVATION_BYTES, Operator, head
from parallel.operators import position_bytes as held_bytes
from parallel.placement import neighbours
from parallel.precision import FORMATS
from parallel.roofline import Chip, forward_s
from parallel.serving.compressed import Compressed
from parallel.serving.contexts import restored_s, shared_s
from parallel.serving.dealt import dealt_s
from parallel.serving.engines import Engine
from parallel.serving.indexed import Indexed
from parallel.serving.kernels import work_s
from parallel.serving.operators import cache_read, layer_linear, prompt_flops
from parallel.serving.swaps import beside, swaps
from topo.columns import Column, ColumnLike

ENDS = 3
"""Kernels beside the layers: embedding, last norm, sampling."""
GRID: tuple[float, ...] = (*map(float, range(1, 9)), *(float(round(2.0**e)) for e in np.arange(3.5, 15.1, 0.5)))
"""Token counts at which the linear layers are priced: every one up to 8, then two for each doubling."""
RESERVE_BYTES = 2e9
"""What an engine keeps beside weights and cache: graphs, workspaces, the communication library."""


@dataclass(frozen=True, slots=True)
class Split:
    """How one replica is split: ``pp`` stages of ``tp·cp·dp = etp·ep`` ranks; the cache over ``dcp`` of the tensor ranks.

    The prompts of an attention group are shared by ``cp`` times its tensor ranks; what decodes each of these has whole.
    `dcp_comm` is a key of `parallel.serving.dealt.COMBINED`.
    """

    tp: float = 1.0
    dp: float = 1.0
    etp: float = 1.0
    ep: float = 1.0
    pp: float = 1.0
    dcp: float = 1.0
    cp: float = 1.0
    dcp_comm: str = "ag_rs"

    @property
    def groups(self) -> float:
        """Tensor groups that each bring tokens to the experts: of all attention groups, and of all ranks of a prompt.

        Decoding tokens are repeated by all cp ranks (vllm-project/vllm, pull request 46570), and bring their rows as often.
        """
        return self.dp * self.cp

    @property
    def stage(self) -> float:
        """Accelerators of one pipeline stage."""
        return self.tp * self.groups

    @property
    def ranks(self) -> float:
        """Accelerators of the replica."""
        return self.stage * self.pp


@dataclass(frozen=True, slots=True)
class Replica:
    """A model on the accelerators that hold it once.

    Attributes
    ----------
    kv_bytes : width of a cached value
    hot : which experts get how many of the rows
    regime : software of the all-reduce among tensor ranks, see `clusters.tunings`
    """

    model: Model
    cluster: Cluster
    chip: Chip
    split: Split
    kv_bytes: float
    hot: HotExperts = UNTOLD
    regime: str = "graph"


def reduce_s(cluster: Cluster, size_bytes: Column, ranks: float, own: str = "graph") -> Column:
    """Seconds of an all-reduce: the engine's own kernels while they are faster, NCCL's beyond."""
    if ranks <= 1:
        return np.zeros_like(size_bytes)
    group = neighbours(cluster, size_bytes, ranks)
    ways = [
        collective_s("all_reduce", size_bytes, group, path(cluster, "all_reduce", regime), regime)
        for regime in (own, "nccl")
    ]
    return np.minimum(*ways)


def linear_operators(replica: Replica, kind: LayerKind, t: ColumnLike) -> tuple[list[Operator], list[Operator]]:
    """Return the operators of one layer of a replica for some tokens of an attention group, and those beside them."""
    split = replica.split
    ranks, model = (split.tp, split.groups, split.etp, split.ep), replica.model
    return layer_linear(kind, model.hidden, t, *ranks, replica.hot, streams=model.streams)


def _layer_s(replica: Replica, kind: LayerKind, t: Column) -> tuple[Column, dict[str, Column], int]:
    """Return the seconds of one layer's linear part and reductions, of its expert exchange by each way, and its kernels."""
    split, machine = replica.split, replica.chip
    ops, beside = linear_operators(replica, kind, t)
    seconds = np.sum([np.broadcast_to(work_s(op, machine), t.shape) for op in [*ops, *beside]], axis=0)
    size = ACTIVATION_BYTES * t * replica.model.hidden
    reduce = reduce_s(replica.cluster, size, split.tp, replica.regime)
    if isinstance(kind.mlp, Moe) and split.groups > 1:
        return seconds + reduce, swaps(replica, kind.mlp, t), len(ops)
    return seconds + 2.0 * reduce, {}, len(ops)


@dataclass(frozen=True, slots=True)
class PassCost:
    """Seconds of a pass; what `parallel.serving.queueing` calls a `StepCost`.

    Attributes
    ----------
    linear_s : seconds of the linear layers and all communication at each token count of `GRID`
    swap_s : seconds of the expert exchange among them
    beside : ways of the exchange that another half can compute beside: the share of the multiprocessors that it takes, and its
        seconds at each token count of `GRID`
    kernels : kernels of a pass, and how long an empty one takes in a captured graph
    head_s : seconds of the language-model head for one sequence, and for each further one
    reads : (layers, cache read) of every kind
    pair_s : (seconds per (token, earlier position) pair of a prompt, window or 0) of every kind
    graphs : most sequences of a captured graph; a larger pass is started kernel by kernel, as one with a prompt is
    dealt_s : seconds in which ranks that deal the cache among them talk, at each token count of `GRID`; () where none do
    dealt_prompts : whether prompt tokens do so too, as under grouped queries
    indexed : layers whose tokens attend to positions that an indexer chooses, or to entries of several positions; they are in
        neither `reads` nor `pair_s`
    cp, shared_s : ranks that share a prompt, and seconds that it adds at each count of prompt tokens in `GRID`; () for one
    """

    linear_s: tuple[float, ...]
    swap_s: tuple[float, ...]
    kernels: int
    kernel_s: float
    head_s: tuple[float, float]
    reads: tuple[tuple[int, float, float, float, int], ...]
    pair_s: tuple[tuple[float, int], ...]
    hbm_Bps: float
    hbm_efficiency: float
    hbm_ramp_s: float
    engine: Engine
    graphs: float = math.inf
    beside: tuple[tuple[float, tuple[float, ...]], ...] = ()
    dealt_s: tuple[float, ...] = ()
    dealt_prompts: bool = False
    indexed: tuple[Indexed | Compressed, ...] = ()
    cp: float = 1.0
    shared_s: tuple[float, ...] = ()

    def linear(self, tokens: float) -> float:
        """Seconds of the linear layers for some tokens: between the points of the grid on a line, beyond in proportion."""
        return interpolated(self.linear_s, tokens)

    def cache(self, decoding: float, positions: float, each: float = 1.0) -> float:
        """Seconds of attention over the cache: reading it once, or the arithmetic of `each` tokens where that is longer."""
        seconds = 0.0
        for count, values_bytes, flops_s, state_bytes, window in self.reads:
            seen = min(positions, decoding * window) if window else positions
            wire_s = (seen * values_bytes + decoding * state_bytes) / self.hbm_Bps
            streamed = wire_s / self.hbm_efficiency + math.sqrt(self.hbm_ramp_s * wire_s)
            seconds += count * max(streamed, each * seen * flops_s)
        return seconds + sum(self.rows_s(held.reads(decoding, positions, each)) for held in self.indexed)

    def rows_s(self, rows: Sequence[tuple[float, float, float]]) -> float:
        """Seconds of kernels given as (layers, bytes, seconds of arithmetic)."""
        seconds = 0.0
        for count, size_bytes, busy_s in rows:
            wire_s = size_bytes / self.hbm_Bps
            seconds += count * max(wire_s / self.hbm_efficiency + math.sqrt(self.hbm_ramp_s * wire_s), busy_s)
        return seconds

    def parts(self, decoding: float, positions: float, each: float = 1.0) -> dict[str, float]:
        """Return the seconds of a decoding pass by name; they add up to the pass."""
        tokens = each * decoding
        moved = interpolated(self.swap_s, tokens)
        found = {
            "linear": self.linear(tokens) - moved,
            "ep": moved,
            "kv read": self.cache(decoding, positions, each),
            **({"dcp": interpolated(self.dealt_s, tokens)} if self.dealt_s else {}),
            "head": self.head_s[0] + self.head_s[1] * tokens,
            "starts": self.engine.launch * self.kernels * self.kernel_s,
            "host": self.engine.request_s * decoding,
        }
        if tokens > self.graphs:  # the chip waits for the host
            found["starts"] += max(self.engine.eager_s * self.kernels - sum(found.values()), 0.0)
        return found

    def overlapped(self, decoding: float, positions: float, prompt: float, pairs: float) -> float:
        """Return the seconds of a pass in two halves, the exchange of one behind the computation of the other.

        A half takes ``max(M, C + s·min(M, C/(1 − s)))``: computation C, starts included, goes on with ``1 − s`` of the
        multiprocessors while the exchange M is under way (DeepSeek-V3 2412.19437 §3.4). Of the ways, the one that takes least.
        """
        half = self(decoding / 2.0, positions / 2.0, prompt / 2.0, pairs / 2.0)
        tokens, over, found = (decoding + prompt / self.cp) / 2.0, self.engine.prefill if prompt else 1.0, [half]
        compute = half - over * interpolated(self.swap_s, tokens)
        for share, seconds in self.beside:
            moved = over * interpolated(seconds, tokens)
            found.append(max(moved, compute + share * min(moved, compute / (1.0 - share))))
        return 2.0 * min(found)

    def fed(self, tokens: float, prompt: float, pairs: float) -> dict[str, float]:
        """Return the seconds of kernels and wires over prompt tokens by name, the linear layers those of `tokens` beside."""
        scores = sum(pair_s * (min(pairs, prompt * window) if window else pairs) for pair_s, window in self.pair_s)
        scores = scores / self.cp + sum(self.rows_s(held.prompts(prompt, pairs, self.cp)) for held in self.indexed)
        shared = {"cp": interpolated(self.shared_s, prompt)} if self.shared_s else {}
        return {"linear": self.linear(tokens + prompt / self.cp), "scores": scores, **shared}

    def __call__(self, decoding: float, positions: float, prompt: float, pairs: float, /) -> float:
        """Return the seconds of a pass; a prompt pays the engine's prefill factor on what it adds."""
        return self.checking(1.0, decoding, positions, prompt, pairs)

    def checking(self, each: float, decoding: float, positions: float, prompt: float, pairs: float) -> float:
        """Return the seconds of a pass with `each` tokens of every decoding sequence, which share the reads of its cache."""
        engine, tokens = self.engine, each * decoding
        base = self.linear(tokens) if decoding else 0.0
        seconds = engine.launch * self.kernels * self.kernel_s + engine.request_s * decoding + base
        seconds += self.head_s[0] + self.head_s[1] * tokens
        if decoding:
            seconds += self.cache(decoding, positions, each)
        if self.dealt_s:
            seconds += interpolated(self.dealt_s, tokens + prompt * self.dealt_prompts)
        if prompt:
            fed = self.fed(tokens, prompt, pairs)
            seconds += engine.prefill * (fed["linear"] - base + fed["scores"] + fed.get("cp", 0.0))
        if prompt or tokens > self.graphs:
            return max(seconds, engine.eager_s * self.kernels)
        return seconds


def interpolated(curve: tuple[float, ...], tokens: float) -> float:
    """Seconds for some tokens from those at each point of `GRID`."""
    at = max(bisect_right(GRID, tokens), 1) - 1
    if at >= len(GRID) - 1:
        return curve[-1] * tokens / GRID[-1]
    low, high = GRID[at], GRID[at + 1]
    return curve[at] + (curve[at + 1] - curve[at]) * (tokens - low) / (high - low)


@dataclass(frozen=True, slots=True)
class Curve:
    """One layer of a kind, at each token count of `GRID`: linear part and reductions, expert exchange by each way, kernels."""

    seconds: Column
    swaps: Mapping[str, Column]
    kernels: int

    @property
    def swap(self) -> Column:
        """The expert exchange by the shortest way."""
        return np.minimum.reduce([*self.swaps.values()]) if self.swaps else np.zeros_like(self.seconds)


def curves(replica: Replica) -> tuple[Curve, ...]:
    """Price one layer of every kind."""
    t = np.array(GRID)
    return tuple(Curve(*_layer_s(replica, kind, t)) for kind in replica.model.layers)


def pass_cost(replica: Replica, engine: Engine) -> PassCost:
    """Price a replica's passes under an engine, through all its layers one after the other."""
    return layers_cost(replica, engine, curves(replica), [kind.count for kind in replica.model.layers])


def layers_cost(
    replica: Replica,
    engine: Engine,
    priced: Sequence[Curve],
    counts: Sequence[int],
    *,
    ends: bool = True,
) -> PassCost:
    """Price passes through so many layers of each kind; with `ends` head, sampling and the host's work on a step."""
    model, machine, tp = replica.model, replica.chip, replica.split.tp
    t = np.array(GRID)
    linear, swap = np.zeros_like(t), np.zeros_like(t)
    kernels = (ENDS + (model.streams > 1)) * ends  # several streams are joined after the last layer
    held = [(kind, count, curve) for kind, count, curve in zip(model.layers, counts, priced, strict=True) if count]
    for _, count, curve in held:
        linear, swap = linear + count * (curve.seconds + curve.swap), swap + count * curve.swap
        kernels += count * curve.kernels
    dealt = sum((count * dealt_s(replica, kind.attention, t) for kind, count, _ in held), start=np.zeros_like(t))
    bf16, part = machine.kernels["bf16"], machine.accelerator
    hbm = part.hbm_Bps
    peak = machine.attention.forward * machine.accelerator.peak_flops["bf16"]
    cache_peak = machine.accelerator.peak_flops[_cache_format(replica)]
    latent_peak = machine.attention.latent * cache_peak
    one, many = (float(sum(forward_s(op, machine) for op in head(model.hidden, model.vocab, b, tp))) for b in (1, 257))
    reads, chosen, plain = [], list[Indexed | Compressed](), []
    for kind, count, _ in held:
        att = kind.attention
        scored = machine.attention.forward * machine.peak(FORMATS["fp8"]) if att.indexer else peak
        if att.compression:  # entries are widened to BF16 everywhere (FlashMLA, README)
            chosen.append(Compressed.of(att, count, tp, scored, machine.attention.latent * part.peak_flops["bf16"]))
        elif att.indexer:
            rates = (scored, latent_peak, peak)
            chosen.append(Indexed.of(att, count, tp, replica.split.dcp, replica.kv_bytes, part.generation, rates))
        else:
            plain.append((kind, count))
    for kind, count in plain:
        read = cache_read(kind.attention, tp, replica.split.dcp)
        read_peak = cache_peak * (
            machine.attention.latent if kind.attention.kind == "mla" else machine.attention.forward
        )
        reads.append((count, read.values * replica.kv_bytes, read.flops / read_peak, read.state_bytes, read.window))
    cp, shared = replica.split.cp, np.zeros_like(t)
    if cp > 1:
        shared = sum(
            (n * shared_s(replica.cluster, machine, kind.attention, t, tp, cp) for kind, n, _ in held), start=shared
        ) + ends * restored_s(replica.cluster, t, model.hidden, tp, cp)
    return PassCost(
        tuple(linear.tolist()),
        tuple(swap.tolist()),
        kernels,
        bf16.launch_s,
        (one, (many - one) / 256) if ends else (0.0, 0.0),
        tuple(reads),
        tuple(
            (count * prompt_flops(kind.attention, tp) / peak, kind.attention.sliding_window) for kind, count in plain
        ),
        hbm,
        bf16.hbm_efficiency,
        bf16.hbm_ramp_s,
        engine if ends else replace(engine, request_s=0.0),
        beside=beside(replica, [(count, curve.swaps) for _, count, curve in held]),
        dealt_s=tuple(dealt.tolist()) if replica.split.dcp > 1 else (),
        dealt_prompts=any(kind.attention.kind == "gqa" or kind.attention.indexer for kind, _, _ in held),
        indexed=tuple(chosen),
        cp=cp,
        shared_s=tuple(shared.tolist()) if cp > 1 else (),
    )


def _cache_format(replica: Replica) -> str:
    """Return the format in which queries meet the cache: that of an FP8 cache on Blackwell, elsewhere it is widened.

    Source: NVIDIA/TensorRT-LLM, tensorrt_llm/_torch/models/modeling_deepseekv3.py (generation in FP8); deepseek-ai/FlashMLA
    (on Hopper BF16).
    """
    narrow = replica.kv_bytes == 1.0 and replica.chip.accelerator.generation == "blackwell"
    return "fp8" if narrow else "bf16"


def stage_counts(model: Model, pp: float) -> tuple[tuple[int, ...], ...]:
    """Return how many layers of each kind every pipeline stage holds, from the first to the last.

    What does not divide goes to the stages before the last one, which has the head (vllm-project/vllm,
    vllm/distributed/utils.py, get_pp_indices).

    >>> from parallel.io import read_model  # 3 dense layers and 58 with experts
    >>> stage_counts(read_model("deepseek-v3"), 4)
    ((3, 12), (0, 15), (0, 16), (0, 15))
    """
    order, depth = layer_order(model), int(pp)
    least, more = divmod(len(order), depth)
    sizes = [least + (1 < depth - stage <= more + 1) for stage in range(depth)]
    ends = np.cumsum(sizes)
    return tuple(
        tuple(order[end - size : end].count(kind) for kind in range(len(model.layers)))
        for end, size in zip(ends.tolist(), sizes, strict=True)
    )


def weight_bytes(replica: Replica) -> float:
    """Weight bytes of one rank, of the fullest pipeline stage, with copies of hot experts."""
    split, recipe = replica.split, replica.chip.recipe
    cols = {"tp": np.array([split.tp]), "ep": np.array([split.stage]), "pp": np.array([split.pp])}
    return float(memory.serving_weights(replica.model, cols, recipe, replica.hot.copies or 0)[0])


def _fullest(replica: Replica) -> list[float]:
    """Layers of each kind on the fullest stage."""
    return [float(count[0]) for count in memory.fullest_stage(replica.model, np.array([replica.split.pp]))]


def position_bytes(replica: Replica) -> float:
    """Cache bytes of one position on one rank; layers that see a window, or keep a state, hold no more as it grows.

    A pipeline stage holds only its own layers of a position, but of the positions of all sequences in the pipeline. Of
    compressed attention with what engines pool of windows for it (`parallel.entries.pooled_bytes`).
    """
    split, total = replica.split, 0.0
    for count, att in _held_layers(replica):
        if att.kind != "delta" and not att.sliding_window:
            total += count * float(held_bytes(att, split.tp, replica.kv_bytes)) / split.dcp
        total += count * pooled_bytes(att)
    return total


def kept_positions(replica: Replica) -> float:
    """Positions whose bytes a sequence takes beside those of its own, for what waits for an entry.

    ``Σ waiting / position``: of DeepSeek-V4-Flash 20·524,288 / 7,033 bytes, 1,491 positions.
    """
    return sum(count * waiting_bytes(att) for count, att in _held_layers(replica)) / max(position_bytes(replica), 1.0)


def _held_layers(replica: Replica) -> list[tuple[float, Attention]]:
    """Return how many layers of every attention a rank holds."""
    counts = [kind.count for kind in replica.model.layers] if replica.split.pp <= 1 else _fullest(replica)
    return [(count, kind.attention) for count, kind in zip(counts, replica.model.layers, strict=True)]


def cache_positions(
    replica: Replica, share: float, *, of_rest: bool, beside: tuple[float, float] = (0.0, 0.0)
) -> float:
    """Positions that the cache of one attention group holds, with weights and bytes a position of a draft `beside`.

    vLLM and SGLang give `share` of the device to weights and cache; TensorRT-LLM gives `share` of what the weights leave
    (`of_rest`) to the cache.
    """
    device = replica.chip.accelerator.usable_bytes
    rest = device - weight_bytes(replica) - beside[0] - RESERVE_BYTES
    free = share * rest if of_rest else rest - (1.0 - share) * device
    return max(free, 0.0) / max(position_bytes(replica) + beside[1], 1.0)
