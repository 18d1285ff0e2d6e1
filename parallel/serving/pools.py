"""Prefill and decode on workers of their own: how many of each, for one batch of the decoding ones.

The rule is that of `parallel.serving.runs.disaggregated`, read from the other end: there the clients are given and the batch
follows, here a batch of decoding sequences is given and workers and clients follow,

    rate = groups·batch / (osl·TPOT),    prefill groups ≥ rate·prompt / `LOAD`,    clients = rate·(TTFT' + osl·TPOT)
"""

import math
from dataclasses import dataclass

import numpy as np

from parallel.serving.engines import Engine
from parallel.serving.mappings import Worker
from parallel.serving.pipelines import Pipeline
from parallel.serving.queueing import SATURATED, Limits, OpenLoop, Served, StepCost, simulate
from parallel.serving.runs import SEED
from parallel.serving.steady import ROUNDS

ROUNDING = 1e-9
LOAD = SATURATED
"""Share of the time that prefill workers may be busy: more would let prompts pile up."""


@dataclass(frozen=True, slots=True)
class Matched:
    """Both pools in balance: how many workers of each, and what clients see."""

    workers: tuple[int, int]
    clients: float
    requests_per_s: float
    ttft_s: float
    tpot_s: float
    gpus: int


def prompt_s(first: Worker, isl: float) -> float:
    """Seconds of a prefill worker's pass over one prompt."""
    return (
        first.cost.prompt_s(isl)[0] if isinstance(first.cost, Pipeline) else first.cost(0.0, 0.0, isl, isl * isl / 2.0)
    )


def token_s(second: Worker, batch: float, isl: float, osl: float) -> float:
    """Seconds of a token on a decoding worker with so many sequences in each group."""
    context = isl + osl / second.yielded / 2.0
    return second.cost(batch, batch * context, 0.0, 0.0) / second.yielded


def burst_s(clients: float, groups: float, prompt: float) -> float:
    """Seconds that a mean first token waits because all clients begin at once, as benchmarks do: one round of `ROUNDS`.

    >>> burst_s(21.0, 1.0, 2.0)
    2.0
    """
    return max(clients / groups - 1.0, 0.0) / 2.0 * prompt / ROUNDS


def workers(rate_per_decoding: float, rate_per_prefilling: float, ranks: tuple[int, int], gpus: int) -> tuple[int, int]:
    """Return how many workers of each pool serve the most on so many accelerators, prefill at `LOAD` at most.

    >>> workers(1.0, 2.0, (8, 8), 64)  # five decode what two and a half prefill, at 9/10 of their time
    (3, 5)
    """
    each = rate_per_decoding / (LOAD * rate_per_prefilling)
    decoding = int(gpus / (ranks[1] + each * ranks[0]))
    while decoding and math.ceil(decoding * each) * ranks[0] + decoding * ranks[1] > gpus:
        decoding -= 1
    return math.ceil(decoding * each), decoding


def matched(
    first: Worker,
    second: Worker,
    batch: float,
    lengths: tuple[float, float],
    seconds: tuple[float, float, float],
    base: Engine,
    *,
    gpus: int = 0,
    requests_per_s: float = 0.0,
    slot: float = 0.0,
) -> Matched | None:
    """Balance both pools at a batch of every decoding group: on at most `gpus`, or for a rate of requests.

    `seconds` are of a prompt's pass, of its cache's move, and of a decoding step; `slot` those between two prompts, where
    stages work on several. None where no worker fits.
    """
    prompt, moved, token = seconds
    _, osl = lengths
    slot = slot or prompt
    one = second.split.dp * batch / (osl * token)
    other = first.split.dp / slot
    ranks = int(first.split.ranks), int(second.split.ranks)
    if requests_per_s:
        decoding = math.ceil(requests_per_s / one - ROUNDING)
        counts = math.ceil(requests_per_s / (LOAD * other) - ROUNDING), decoding
    else:
        counts = workers(one, other, ranks, gpus)
    if not counts[1]:
        return None
    rate = counts[1] * one
    groups = counts[0] * first.split.dp
    clients = rate * (prompt + moved + osl * token)
    wait = rate / (groups / slot) / 2.0 * slot * max(1.0 - groups / clients, 0.0)
    ttft = prompt + moved + burst_s(clients, groups, slot) + wait + token + base.offset_s
    return Matched(counts, clients, rate, ttft, token, counts[0] * ranks[0] + counts[1] * ranks[1])


@dataclass(frozen=True, slots=True)
class Arrived:
    """Steps of a decoding worker: a prompt comes with its cache, so that feeding it takes no arithmetic."""

    cost: StepCost

    def __call__(self, decoding: float, positions: float, _prompt: float, _pairs: float, /) -> float:
        """Return the seconds of the step; the first token of what has arrived is one of its sequences."""
        return self.cost(max(decoding, 1.0), positions, 0.0, 0.0)


def simulated(
    first: Worker, second: Worker, found: Matched, lengths: tuple[int, int], count: int
) -> tuple[Served, Served]:
    """Simulate one group of each pool step by step under random arrivals at its share of the rate; prefill first."""
    isl, osl = lengths
    draw = np.random.default_rng(SEED)

    def group(cost: StepCost, limits: Limits, groups: float, outputs: int) -> Served:
        times = np.cumsum(draw.exponential(groups / found.requests_per_s, count))
        return simulate(cost, limits, OpenLoop(tuple(times.tolist())), [isl] * count, [outputs] * count)

    alone = Limits(
        first.limits.sequences, max(first.limits.tokens, float(isl)), first.limits.positions, kept=first.limits.kept
    )
    whole = Limits(second.limits.sequences, math.inf, second.limits.positions, kept=second.limits.kept)
    prefill = group(first.cost, alone, found.workers[0] * first.split.dp, 1)
    steps = max(round(osl / second.yielded), 1)
    decode = group(Arrived(second.cost), whole, found.workers[1] * second.split.dp, steps)
    return prefill, second.as_tokens(decode)
