"""The closed form of `parallel.serving.queueing`: a steady closed loop of equal requests, for searches.

In a cycle every client waits for its first token once and decodes ``osl − 1`` tokens. Of B clients, the other B − 1 have
their prompts fed in the same time, so of the time of a token

    TPOT = step(b) + (B − 1)·prompt·TPOT / cycle,    cycle = TTFT + (osl − 1)·TPOT,    b = B·(osl − 1)·TPOT / cycle

Prompts that arrive while the queue is not looked at, or others are fed, share the next pass as far as they fit it. Clients
that started together drift apart by their answers' lengths alone: half way through the rounds they come within
4σ·√(rounds/2) of a cycle. Where the memory admits fewer than B, the others queue for a whole cycle. Where prompts alone need
more than a cycle, they set the rate: Little's law gives the sequences that decode, ``b = rate·(osl − 1)·TPOT``.
"""

import math
from dataclasses import dataclass

from parallel.serving.queueing import SATURATED, Limits, StepCost

ROUNDS = 10
"""Prompts for each client, as the benchmarks send them: one round of these is the opening burst."""
DRAWN = 0.2 / math.sqrt(12.0)
"""Standard deviation of an answer's length over its mean, drawn from a fifth of the nominal as the benchmarks do."""
ITERATIONS = 40


@dataclass(frozen=True, slots=True)
class Steady:
    """Mean times, sequences that decode at once, and whether a limit holds requests back."""

    ttft_s: float
    tpot_s: float
    decoding: float
    saturated: bool


def steady(step_s: StepCost, limits: Limits, clients: float, isl: float, osl: float, rounds: float = ROUNDS) -> Steady:
    """Return the mean TTFT and TPOT of a closed loop of `clients`, each sending `rounds` times.

    >>> limits = Limits(sequences=8, tokens=100, positions=1e9)
    >>> one = steady(lambda b, n, p, q: 1.0, limits, 1, 10, 3)
    >>> one.ttft_s, one.tpot_s, one.saturated
    (1.0, 1.0, False)
    """
    admitted = max(min(clients, limits.sequences, limits.positions / (isl + osl + limits.kept)), 1.0)
    spans = max(osl - 1.0, 1.0)
    context = isl + osl / 2.0
    alone = _passes_s(step_s, limits, 0.0, 0.0, isl)[0]
    tpot, decoding, wait = step_s(admitted, admitted * context, 0.0, 0.0), admitted, 0.0
    own, load, step, together = alone, 0.0, tpot, 1.0
    fits = max(min((limits.tokens - admitted) / isl, admitted), 1.0)
    spread = min(4.0 * DRAWN * math.sqrt(rounds / 2.0), 1.0)
    for _ in range(ITERATIONS):
        others = max(decoding - decoding / admitted, 0.0) if limits.mixed else 0.0
        step = step_s(decoding, decoding * context, 0.0, 0.0)
        own, added = _passes_s(step_s, limits, others, others * context, isl, together)
        added /= together
        cycle = own + wait + spans * tpot
        met = (admitted - 1.0) / (spread * cycle) * (own + (limits.poll_steps - 1.0 + limits.wait_steps) * step)
        together = 0.5 * together + 0.5 * min(max(met, 1.0), fits)
        load = admitted * added / cycle
        tpot = 0.5 * tpot + 0.5 * (step + (admitted - 1.0) * added * tpot / cycle)
        wait = (admitted - 1.0) / admitted * (step + min(load, 1.0) ** 2 * added) / 2.0
        decoding = 0.5 * decoding + 0.5 * min(admitted * spans * tpot / cycle, admitted)
    looks = limits.poll_steps - 1.0 + 2.0 * limits.wait_steps
    held = looks / 2.0 * step if admitted > 1 else 0.0
    queued = (clients / admitted - 1.0) * (alone + spans * tpot)
    burst = _passes_s(step_s, limits, 0.0, 0.0, isl, clients - 1.0)[0] / 2.0 / rounds if clients > 1 else 0.0
    return Steady(
        own + wait + held + burst + queued + limits.delay_s, tpot, decoding, bool(queued > 0.0 or load > SATURATED)
    )


def _passes_s(
    step_s: StepCost, limits: Limits, decoding: float, positions: float, isl: float, together: float = 1.0
) -> tuple[float, float]:
    """Seconds of the passes that feed prompts in chunks of the token budget, and what of it the prompts add."""
    budget = max(limits.tokens - decoding, 1.0)
    bare = step_s(decoding, positions, 0.0, 0.0) if decoding else 0.0
    whole, added, fed, tokens = 0.0, 0.0, 0.0, isl * together
    while fed < tokens:
        take = min(tokens - fed, budget)
        earlier = (fed + take / 2.0) if together <= 1.0 else isl / 2.0
        seconds = step_s(decoding, positions, take, take * earlier)
        whole, added, fed = whole + seconds, added + seconds - bare, fed + take
    return whole, added
