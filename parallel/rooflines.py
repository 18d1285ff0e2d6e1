"""The blackboard's own arithmetic: two budgets, compute time and memory time, and what follows from them.

One equation per function, on plain numbers. No kernel, wire or schedule is in here: `parallel.serving.phases` and
`parallel.training.step` hold those, and `parallel.claims` sets the two side by side.

Source: "How GPT-5, Claude, and Gemini Are Actually Trained and Served" (a blackboard lecture by Reiner Pope with Dwarkesh
Patel, in its published summary); the sections are named below.
"""

from math import sqrt


def compute_s(tokens: float, active_parameters: float, peak_flops: float) -> float:
    """Seconds that arithmetic takes: ``2·N·b / F``, a multiplication and an addition per weight and token (The Roofline).

    >>> compute_s(1000, 50e9, 1e15)
    0.1
    """
    return 2.0 * active_parameters * tokens / peak_flops


def weights_s(parameters: float, bytes_per_parameter: float, bandwidth_Bps: float) -> float:
    """Seconds that reading the weights once takes, however many sequences share it (The Roofline).

    >>> weights_s(1e12, 1.0, 5e14)
    0.002
    """
    return parameters * bytes_per_parameter / bandwidth_Bps


def cache_s(sequences: float, context: float, kv_bytes_per_token: float, bandwidth_Bps: float) -> float:
    """Seconds that reading the key-value caches takes; no two sequences share theirs (The Roofline).

    >>> cache_s(100, 200e3, 2e3, 1e13)
    0.004
    """
    return sequences * context * kv_bytes_per_token / bandwidth_Bps


def pass_s(compute: float, memory: float) -> float:
    """Seconds of one pass: ``max(compute, memory)``, for one hides behind the other (The Roofline).

    >>> pass_s(0.01, 0.02)
    0.02
    """
    return max(compute, memory)


def batch_at(seconds: float, weights: float, cache_each: float, compute_each: float) -> float:
    """Sequences of the largest pass that ends in time: ``min((t − W)/kv, t/c)``; none where the weights alone take longer.

    >>> batch_at(3.0, 1.0, 0.25, 0.125)
    8.0
    """
    cached = (seconds - weights) / cache_each if cache_each else float("inf")
    return max(0.0, min(cached, seconds / compute_each if compute_each else float("inf")))


def optimal_batch(flop_per_byte: float, experts: float, active_experts: float) -> float:
    """Sequences at which compute time has caught up with weight time: ``(FLOP/byte) · total/active``.

    Why Optimal Batch Size …; at one byte per weight and a multiply-add counted as one. Caches are left out.

    >>> optimal_batch(300, 256, 32)
    2400.0
    """
    return flop_per_byte * experts / active_experts


def drain_s(capacity_bytes: float, bandwidth_Bps: float) -> float:
    """Seconds in which a memory is read once, the interval of the trains (The 20 Millisecond Train).

    >>> drain_s(80e9, 4e12)
    0.02
    """
    return capacity_bytes / bandwidth_Bps


def worst_wait_s(interval_s: float) -> float:
    """Wait of whoever just misses a train: one interval until the next leaves, one ride (The 20 Millisecond Train).

    >>> worst_wait_s(0.02)
    0.04
    """
    return 2.0 * interval_s


def departures_per_s(interval_s: float) -> float:
    """Trains per second.

    >>> departures_per_s(0.02), departures_per_s(0.015625)
    (50.0, 64.0)
    """
    return 1.0 / interval_s


def balanced_context(
    active_parameters: float, kv_bytes_per_token: float, flop_per_byte: float, flops: float = 2.0
) -> float:
    """Context, in tokens, at which reading the cache takes as long as computing: ``f·N / (kv·FLOP/byte)``.

    `flops` per weight and token: 2, or the lecture's 1. Why Context Length Has Plateaued.

    >>> balanced_context(100e9, 2e3, 300, flops=1.0) > 150e3
    True
    """
    return flops * active_parameters / (kv_bytes_per_token * flop_per_byte)


def leaked_kv_bytes(active_parameters: float, context: float, flop_per_byte: float, flops: float = 1.0) -> float:
    """Cache bytes per token that balance at a context: the inverse of `balanced_context` (API Prices Leak Architecture).

    >>> round(leaked_kv_bytes(100e9, 200e3, 300))
    1667
    """
    return flops * active_parameters / (context * flop_per_byte)


def sparse_context(context: float, dense_below: float) -> float:
    """Positions that square-root attention reads: all up to `dense_below`, then as the root of the context.

    >>> sparse_context(200e3, 200e3), sparse_context(20e6, 200e3)
    (200000.0, 2000000.0)
    """
    return min(float(context), sqrt(context * dense_below))


def rack_condition(active_experts: float, layers_per_stage: float, bandwidth_ratio: float) -> float:
    """Scale-up time over scale-out time of one stage: ``experts·2·layers / ratio``; 1 and more keeps scale-up the slower.

    Dispatch and combine send `active_experts` rows per token and layer inside the rack; one row leaves it per stage.
    (Background to Mixture of Experts Wants to Live Inside a Rack.)

    >>> rack_condition(8, 1, 8)
    2.0
    """
    return active_experts * 2.0 * layers_per_stage / bandwidth_ratio


def crossing_slowdown(ranks: float, domain: float, bandwidth_ratio: float) -> float:
    """Time of an all-to-all over `ranks` cut into domains, over that in one: the share that crosses, times the ratio.

    >>> crossing_slowdown(64, 64, 8), crossing_slowdown(64, 8, 9)
    (1.0, 8.0)
    """
    if domain >= ranks:
        return 1.0
    return max(1.0, bandwidth_ratio * (ranks - domain) / (ranks - 1.0))


def bubble_share(stages: float, microbatches: float) -> float:
    """Share of a step in which a stage waits for the pipe to fill and drain: ``(p − 1)/(m + p − 1)`` (Pipeline Parallelism).

    >>> bubble_share(5, 16)
    0.2
    """
    return (stages - 1.0) / (microbatches + stages - 1.0)


def equal_cost_tokens(inference_tokens: float, inference_efficiency: float = 1.0) -> float:
    """Pre-training tokens that cost what inference does: ``2·N·D_inf/e = 6·N·D``, so ``D = D_inf/(3e)``.

    `inference_efficiency` is the rate of decoding FLOPs over that of training FLOPs, the lecture's 30 %.

    >>> round(equal_cost_tokens(150e12, 1/3) / 1e12)
    150
    """
    return inference_tokens / (3.0 * inference_efficiency)


def past_chinchilla(tokens: float, active_parameters: float, per_parameter: float = 20.0) -> float:
    """Training tokens over Chinchilla's twenty per parameter (Reinforcement Learning and the 100× …).

    >>> past_chinchilla(150e12, 100e9)
    75.0
    """
    return tokens / (per_parameter * active_parameters)


def amdahl(share: float, speedup: float) -> float:
    """Speed-up of the whole when a share of it gets faster: ``1/((1 − s) + s/k)``.

    >>> round(amdahl(0.5, 1e9), 6)
    2.0
    """
    return 1.0 / ((1.0 - share) + share / speedup)


def recompute_time(passes: float = 3.0) -> float:
    """Step time with the forward pass run twice, over that without: ``(3 + 1)/3`` (Cryptography Meets Neural Nets).

    >>> round(recompute_time(), 3)
    1.333
    """
    return (passes + 1.0) / passes


def growth_per(factor: float, months: float, over_months: float) -> float:
    """Growth over another span at the same pace: ``f^(over/months)``.

    >>> growth_per(100, 48, 24)
    10.0
    """
    return float(factor ** (over_months / months))
