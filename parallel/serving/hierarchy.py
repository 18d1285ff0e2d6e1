"""Caches of prompts that come back, held in HBM, host memory, pooled memory, flash and disk: who finds what where.

A request leaves the cache of its prompt and answer behind. The next visit of the same session finds it where the caches
of others have pushed it by then. Tiers that take what the one before them drops act as one list ordered by the last use
(Mattson et al. 1970), of which tier k holds the caches that were last used between t(k−1) and t(k) ago, with

    rate · stored bytes · E[min(T, t(k))] = capacity of the tiers 1 … k

by Little's law, T the time between two visits. A visit after T finds its cache in the tier whose span T falls into:

    hits of tier k = P(t(k−1) < T ≤ t(k))

That t is one number and no distribution is the approximation of Che, Tung and Wang (IEEE JSAC 20(7), 2002), exact for
many small caches (Martina, Garetto and Leonardi 1307.6702).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from clusters.memories import break_even_s, holding_usd_per_byte_s
from parallel.models import Model, kv_bytes_per_sequence
from parallel.spread import Spread

ROUNDS: Final = 200
"""Bisections of a characteristic time: more than a double has bits."""
LONGEST_S: Final = 1e12
"""Beyond it a cache is held for good."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """What prompts have in common.

    Attributes
    ----------
    shared : tokens at the head of every prompt, such as a system prompt; always in HBM
    history : tokens after those that the last visit of the session left behind
    returns : share of the requests that follow an earlier one of their session: ``1 − 1/turns``
    revisit : seconds between the end of a visit and the next one
    layerwise : whether a layer is computed while the cache of the next one comes in (CachedAttention 2403.19708 §3.2)
    """

    shared: int
    history: int
    returns: float
    revisit: Spread
    layerwise: bool = False


@dataclass(frozen=True, slots=True)
class Visit:
    """What one request moves: bytes it leaves behind, those that its next visit reads back, and the tokens of both."""

    stored_bytes: float
    read_bytes: float
    stored_tokens: float

    @classmethod
    def of(cls, model: Model, reuse: Reuse, isl: int, osl: int, kv_bytes: float) -> "Visit":
        """Read it off a request; the shared head is held once, and left out."""
        head, history, whole = (
            float(kv_bytes_per_sequence(model, tokens, kv_bytes))
            for tokens in (reuse.shared, reuse.shared + reuse.history, isl + osl)
        )
        return cls(whole - head, history - head, isl + osl - reuse.shared)


@dataclass(frozen=True, slots=True)
class Tier:
    """One memory as a whole deployment has it.

    Attributes
    ----------
    capacity_bytes, read_Bps : of all of it
    own_Bps : what one request reads at
    latency_s, usd_per_byte : None where nothing is public
    """

    name: str
    kind: str
    capacity_bytes: float
    read_Bps: float
    own_Bps: float
    latency_s: float | None
    usd_per_byte: float | None


@dataclass(frozen=True, slots=True)
class Found:
    """What one tier does.

    Attributes
    ----------
    from_s, until_s : it holds caches that were last used between so long ago
    meets : share of the requests whose history lies there
    hits : share of the requests that it serves: `meets`, or what its bandwidth carries
    held_bytes : what it holds
    read_load, write_load : bytes asked of it and pushed into it, over its bandwidth
    reload_s : until the history of one request is back
    """

    tier: Tier
    from_s: float
    until_s: float
    meets: float
    hits: float
    held_bytes: float
    read_load: float
    write_load: float
    reload_s: float


def held_s(reuse: Reuse, limit_s: float) -> float:
    """Mean time that a cache is held where it is dropped after `limit_s`: ``r·E[min(T, t)] + (1 − r)·t``.

    >>> held_s(Reuse(0, 1000, 0.5, Spread(60.0, 60.0)), 100.0)  # half come back after a minute, half never
    80.0
    """
    never = (1.0 - reuse.returns) * limit_s if reuse.returns < 1.0 else 0.0
    return reuse.returns * reuse.revisit.mean_up_to(limit_s) + never


def characteristic_s(capacity_bytes: float, requests_per_s: float, stored_bytes: float, reuse: Reuse) -> float:
    """Time after which an unused cache falls out: ``rate·stored·held_s(t) = capacity``; infinite where all of them fit.

    >>> always = Reuse(0, 1000, 1.0, Spread(60.0, 60.0))  # ten a second, a gigabyte each, all back after a minute
    >>> round(characteristic_s(300e9, 10.0, 1e9, always), 6), characteristic_s(600e9, 10.0, 1e9, always)
    (30.0, inf)
    """
    room_s = capacity_bytes / (requests_per_s * stored_bytes)
    if held_s(reuse, LONGEST_S) <= room_s:
        return math.inf
    low, high = 0.0, LONGEST_S
    for _ in range(ROUNDS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if held_s(reuse, middle) > room_s else (middle, high)
        if high - low <= 1e-12 * high:
            break
    return high


def found(reuse: Reuse, visit: Visit, tiers: Sequence[Tier], requests_per_s: float) -> list[Found]:
    """Return what every tier does at a rate of requests, the fastest first.

    A tier that is asked for more than it can read serves what its bandwidth carries, and the rest is computed again.
    """
    out, capacity, before = [], 0.0, 0.0
    for tier in tiers:
        capacity += tier.capacity_bytes
        until = characteristic_s(capacity, requests_per_s, visit.stored_bytes, reuse)
        meets = reuse.returns * (reuse.revisit.below(until) - reuse.revisit.below(before))
        pushed = 1.0 - reuse.returns * reuse.revisit.below(before) if before else 1.0
        load = requests_per_s * meets * visit.read_bytes / tier.read_Bps
        kept_s = held_s(reuse, min(until, LONGEST_S)) - held_s(reuse, min(before, LONGEST_S))
        out.append(
            Found(
                tier, before, until, meets, meets / max(load, 1.0),
                min(requests_per_s * visit.stored_bytes * kept_s, tier.capacity_bytes), load,
                requests_per_s * pushed * visit.stored_bytes / tier.read_Bps, reload_s(tier, visit.read_bytes),
            )
        )  # fmt: skip
        before = until
    return out


def reload_s(tier: Tier, size_bytes: float) -> float:
    """Seconds until the cache of one request is back: latency + bytes / rate; nothing where it lies in HBM already."""
    return 0.0 if tier.kind == "hbm" else (tier.latency_s or 0.0) + size_bytes / tier.own_Bps


def money(
    row: Found, visit: Visit, requests_per_s: float, recompute_usd: float, lifetime_s: float
) -> dict[str, object]:
    """Return what a tier costs and saves: holding bytes for years, against accelerators that compute them again.

    Returns
    -------
    dict
        `usd_per_token_hour` of a cached token; `break_even_s`, how long a cache may wait for its next visit before holding it
        has cost as much as computing it; `costs_usd_per_hour` of the whole tier, `saves_usd_per_hour`, and whether it is
        `worth` it. None where the memory has no public price.
    """
    price = row.tier.usd_per_byte
    saves = requests_per_s * row.hits * recompute_usd * 3600.0
    if price is None:
        unknown: dict[str, object] = dict.fromkeys(
            ("usd_per_token_hour", "break_even_s", "costs_usd_per_hour", "worth")
        )
        return {**unknown, "saves_usd_per_hour": saves}
    second = holding_usd_per_byte_s(price, lifetime_s)
    costs = row.tier.capacity_bytes * second * 3600.0
    return {
        "usd_per_token_hour": visit.stored_bytes / visit.stored_tokens * second * 3600.0,
        "break_even_s": break_even_s(recompute_usd, visit.stored_bytes, price, lifetime_s),
        "costs_usd_per_hour": costs,
        "saves_usd_per_hour": saves,
        "worth": saves > costs,
    }
