"""One pass of an engine over one replica: a curve over tokens, and a read of the cache.

A pass of ``b`` decoding sequences that see ``n`` cached positions together, and of ``p`` prompt tokens with ``q`` (token,
earlier position) pairs, takes, for one attention group,

    linear(b + p) + cache(b, n) + scores(q) + kernels·start + host(b)

Linear layers, all-reduces and expert exchanges depend on the tokens alone: they are priced once on a grid of token counts
and looked up between, so that a step of `parallel.serving.queueing` costs microseconds.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from clusters.build import Cluster, path
from clusters.tunings import collective_s
from parallel import memory
from parallel.exchange import exchange_s
from parallel.models import LayerKind, Model, Moe
from parallel.operators import ACTIVATION_BYTES, head
from parallel.placement import domain_size, members_of
from parallel.roofline import Chip, forward_s
from parallel.serving.engines import Engine
from parallel.serving.kernels import work_s
from parallel.serving.operators import cache_read, layer_linear, prompt_flops
from topo.columns import Column, column

GRID: tuple[float, ...] = (*map(float, range(1, 9)), *(float(round(2.0**e)) for e in np.arange(3.5, 15.1, 0.5)))
"""Token counts at which the linear layers are priced: every one up to 8, then two for each doubling."""
RESERVE_BYTES = 2e9
"""What an engine keeps beside weights and cache: graphs, workspaces, the communication library."""


@dataclass(frozen=True, slots=True)
class Split:
    """How one replica is split: ``tp·dp = etp·ep`` ranks."""

    tp: float = 1.0
    dp: float = 1.0
    etp: float = 1.0
    ep: float = 1.0

    @property
    def ranks(self) -> float:
        """Accelerators of the replica."""
        return self.tp * self.dp


@dataclass(frozen=True, slots=True)
class Replica:
    """A model on the accelerators that hold it once. `kv_bytes` is the width of a cached value."""

    model: Model
    cluster: Cluster
    chip: Chip
    split: Split
    kv_bytes: float


def reduce_s(cluster: Cluster, size_bytes: Column, ranks: float) -> Column:
    """Seconds of an all-reduce: the engine's own kernels while they are faster, NCCL's beyond."""
    if ranks <= 1:
        return np.zeros_like(size_bytes)
    group = _group(cluster, size_bytes, ranks)
    ways = [
        collective_s("all_reduce", size_bytes, group, path(cluster, "all_reduce", regime), regime)
        for regime in ("graph", "nccl")
    ]
    return np.minimum(*ways)


def _group(cluster: Cluster, like: Column, ranks: float) -> Column:
    one = np.ones_like(like)
    return members_of(cluster, one * domain_size(cluster), one * ranks, one)


def swap_s(replica: Replica, moe: Moe, tokens: Column) -> Column:
    """Seconds between attention groups and experts: gather and scatter, or dispatch and combine, whichever is shorter."""
    cluster, h, ranks = replica.cluster, replica.model.hidden, replica.split.ranks
    group = _group(cluster, tokens, ranks)
    size = ACTIVATION_BYTES * tokens * replica.split.dp * h
    plain = sum(
        (collective_s(op, size, group, path(cluster, op, "nccl"), "nccl") for op in ("all_gather", "reduce_scatter")),
        start=np.zeros_like(size),
    )
    own = tokens / replica.split.tp
    recipe = replica.chip.recipe
    sent = [
        exchange_s(cluster, moe, h, own, group, recipe, name="auto", phase=phase) for phase in ("decode", "prefill")
    ]
    return column(np.minimum.reduce([plain, *(way["dispatch"] + way["combine"] for way in sent)]))


def _layer_s(replica: Replica, kind: LayerKind, t: Column) -> tuple[Column, Column, int]:
    """Return the seconds of one layer's linear part and reductions, of its expert exchange, and the kernels it starts."""
    split, machine = replica.split, replica.chip
    ops, beside = layer_linear(kind, replica.model.hidden, t, split.tp, split.dp, split.etp, split.ep)
    seconds = np.sum([np.broadcast_to(work_s(op, machine), t.shape) for op in [*ops, *beside]], axis=0)
    size = ACTIVATION_BYTES * t * replica.model.hidden
    reduce = reduce_s(replica.cluster, size, split.tp)
    if isinstance(kind.mlp, Moe) and split.dp > 1:
        return seconds + reduce, swap_s(replica, kind.mlp, t), len(ops)
    return seconds + 2.0 * reduce, np.zeros_like(t), len(ops)


@dataclass(frozen=True, slots=True)
class PassCost:
    """Seconds of a pass; what `parallel.serving.queueing` calls a `StepCost`.

    Attributes
    ----------
    linear_s : seconds of the linear layers and all communication at each token count of `GRID`
    swap_s : seconds of the expert exchange among them
    kernels : kernels of a pass, and how long an empty one takes in a captured graph
    head_s : seconds of the language-model head for one sequence, and for each further one
    reads : (layers, cache read) of every kind
    pair_s : seconds per (token, earlier position) pair of a prompt
    """

    linear_s: tuple[float, ...]
    swap_s: tuple[float, ...]
    kernels: int
    kernel_s: float
    head_s: tuple[float, float]
    reads: tuple[tuple[int, float, float, float, int], ...]
    pair_s: float
    hbm_Bps: float
    hbm_efficiency: float
    hbm_ramp_s: float
    engine: Engine

    def linear(self, tokens: float) -> float:
        """Seconds of the linear layers for some tokens: between the points of the grid on a line, beyond in proportion."""
        return _between(self.linear_s, tokens)

    def cache(self, decoding: float, positions: float) -> float:
        """Seconds of attention over the cache: reading it, or the arithmetic where that is longer."""
        seconds = 0.0
        for count, values_bytes, flops_s, state_bytes, window in self.reads:
            seen = min(positions, decoding * window) if window else positions
            wire_s = (seen * values_bytes + decoding * state_bytes) / self.hbm_Bps
            streamed = wire_s / self.hbm_efficiency + math.sqrt(self.hbm_ramp_s * wire_s)
            seconds += count * max(streamed, seen * flops_s)
        return seconds

    def parts(self, decoding: float, positions: float) -> dict[str, float]:
        """Return the seconds of a decoding pass by name; they add up to the pass."""
        moved = _between(self.swap_s, decoding)
        return {
            "linear": self.linear(decoding) - moved,
            "ep": moved,
            "kv read": self.cache(decoding, positions),
            "head": self.head_s[0] + self.head_s[1] * decoding,
            "starts": self.engine.launch * self.kernels * self.kernel_s,
            "host": self.engine.request_s * decoding,
        }

    def overlapped(self, decoding: float, positions: float, prompt: float, pairs: float) -> float:
        """Return the seconds of a pass in two halves, the exchange of one behind the computation of the other.

        ``2·max(C, M)`` of the halves' computation, starts included, and exchange (DeepSeek-V3 2412.19437 §3.4).
        """
        half = self(decoding / 2.0, positions / 2.0, prompt / 2.0, pairs / 2.0)
        moved = _between(self.swap_s, (decoding + prompt) / 2.0) * (self.engine.prefill if prompt else 1.0)
        return 2.0 * max(half - moved, moved)

    def __call__(self, decoding: float, positions: float, prompt: float, pairs: float, /) -> float:
        """Return the seconds of a pass; a prompt pays the engine's prefill factor on what it adds."""
        engine = self.engine
        base = self.linear(decoding) if decoding else 0.0
        seconds = engine.launch * self.kernels * self.kernel_s + engine.request_s * decoding + base
        seconds += self.head_s[0] + self.head_s[1] * decoding
        if decoding:
            seconds += self.cache(decoding, positions)
        if prompt:
            seconds += engine.prefill * (self.linear(decoding + prompt) - base + pairs * self.pair_s)
            return max(seconds, engine.eager_s * self.kernels)
        return seconds


def _between(curve: tuple[float, ...], tokens: float) -> float:
    at = max(bisect_right(GRID, tokens), 1) - 1
    if at >= len(GRID) - 1:
        return curve[-1] * tokens / GRID[-1]
    low, high = GRID[at], GRID[at + 1]
    return curve[at] + (curve[at + 1] - curve[at]) * (tokens - low) / (high - low)


def pass_cost(replica: Replica, engine: Engine) -> PassCost:
    """Price a replica's passes under an engine."""
    model, machine, tp = replica.model, replica.chip, replica.split.tp
    t = np.array(GRID)
    linear, swap, kernels = np.zeros_like(t), np.zeros_like(t), 3  # embedding, last norm, sampling
    for kind in model.layers:
        seconds, moved, started = _layer_s(replica, kind, t)
        linear, swap = linear + kind.count * (seconds + moved), swap + kind.count * moved
        kernels += kind.count * started
    bf16, hbm = machine.kernels["bf16"], machine.accelerator.hbm_Bps
    peak = machine.attention.forward * machine.accelerator.peak_flops["bf16"]
    one, many = (float(sum(forward_s(op, machine) for op in head(model.hidden, model.vocab, b, tp))) for b in (1, 257))
    reads = []
    for kind in model.layers:
        read = cache_read(kind.attention, tp)
        reads.append((kind.count, read.values * replica.kv_bytes, read.flops / peak, read.state_bytes, read.window))
    wide = [kind for kind in model.layers if not kind.attention.sliding_window]
    return PassCost(
        tuple(linear.tolist()),
        tuple(swap.tolist()),
        kernels,
        bf16.launch_s,
        (one, (many - one) / 256),
        tuple(reads),
        sum(kind.count * prompt_flops(kind.attention, tp) for kind in wide) / peak,
        hbm,
        bf16.hbm_efficiency,
        bf16.hbm_ramp_s,
        engine,
    )


def weight_bytes(replica: Replica) -> float:
    """Weight bytes of one rank."""
    split = replica.split
    cols = {"tp": np.array([split.tp]), "ep": np.array([split.ranks]), "pp": np.array([1.0])}
    return float(memory.serving_weights(replica.model, cols, replica.chip.recipe)[0])


def position_bytes(replica: Replica) -> float:
    """Cache bytes of one position on one rank; layers that see a window, or keep a state, hold no more as it grows."""
    reads = [(kind.count, cache_read(kind.attention, replica.split.tp)) for kind in replica.model.layers]
    return replica.kv_bytes * sum(count * read.values for count, read in reads if not read.window)


def cache_positions(replica: Replica, share: float, *, of_rest: bool) -> float:
    """Positions that the cache of one attention group holds.

    vLLM and SGLang give `share` of the device to weights and cache; TensorRT-LLM gives `share` of what the weights leave
    (`of_rest`) to the cache.
    """
    device = replica.chip.accelerator.usable_bytes
    rest = device - weight_bytes(replica) - RESERVE_BYTES
    free = share * rest if of_rest else rest - (1.0 - share) * device
    return max(free, 0.0) / max(position_bytes(replica), 1.0)
