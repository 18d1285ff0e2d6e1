"""The rung `stepwise` on the quotient: rounds in which every rank sends so far ahead, priced by classes of links.

Under placement order all blocks of a level are alike, and a round that shifts by k loads the links of each alike. Of a block
of c ranks (of P, in order) this many messages leave:

    c - max(0, c - k) - max(0, c - (P - k))

They share the block's way out, and each has its own cable. So a hundred thousand rounds of a hundred thousand messages are
one array for each level. Exact for switched levels that spread evenly, whose blocks all reach each other (no rails) and
where no inner level is slower than an outer one; it is not offered for direct networks.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from topo.blueprint import Blueprint
from topo.errors import Fault, SpecError
from topo.relays import Floats, Ints
from topo.tiers import Tier, tiers

Shifts = tuple[Ints, float, int]
"""Distances, bytes of each message, and how often each distance comes."""


def _ring(passes: int) -> Callable[[int, float], Shifts]:
    """Return the rounds of a ring that goes round so many times."""
    return lambda ranks, size_bytes: (np.ones(1, np.int64), size_bytes / ranks, passes * (ranks - 1))


SHIFTS: Final[Mapping[tuple[str, str], Callable[[int, float], Shifts]]] = MappingProxyType(
    {
        ("all_reduce", "ring"): _ring(2),
        ("all_gather", "ring"): _ring(1),
        ("reduce_scatter", "ring"): _ring(1),
        ("all_to_all", "pairwise"): lambda ranks, size_bytes: (np.arange(1, ranks), size_bytes / ranks, 1),
    }
)
"""(operation, algorithm) → (ranks, bytes) → its rounds, for algorithms whose every round is a shift of all ranks."""


def leaving(block: int, ranks: int, shift: Ints) -> Ints:
    """Return how many messages leave a block of neighbours when every rank sends `shift` ahead.

    >>> leaving(4, 16, np.array([1, 4, 8, 15])).tolist()
    [1, 4, 4, 1]
    """
    return np.asarray(block - np.maximum(0, block - shift) - np.maximum(0, block - (ranks - shift)))


def cables(blueprint: Blueprint, levels: tuple[Tier, ...]) -> dict[str, float]:
    """Return the bytes/s of an accelerator's own way into each plane: the ports of its NIC, where it has one."""
    kinds = {node.name: node.kind for node in blueprint.nodes}
    found: dict[str, float] = {}
    for level in levels:
        found[level.plane] = max(found.get(level.plane, 0.0), level.bandwidth_Bps)
    for link in blueprint.links:
        if "nic" in (kinds[link.a], kinds[link.b]) and link.plane in found:
            found[link.plane] = max(found[link.plane], link.bandwidth_Bps * link.count)
    return found


def round_s(
    levels: tuple[Tier, ...], ranks: int, shift: Ints, message_bytes: float, cables_Bps: Mapping[str, float]
) -> tuple[Floats, Floats]:
    """Return latency and busiest link of rounds that shift all ranks, shape of `shift`.

    Of every level: the messages that leave a block of the level below, over that block's share; and one message over one
    accelerator's own cable of that plane.
    """
    latency_s, link_s = np.zeros(len(shift)), np.zeros(len(shift))
    block = 1
    for level in levels:
        number = leaving(block, ranks, shift)
        crossed = number > 0
        slowest_s = np.maximum(number / (block * level.bandwidth_Bps), crossed / cables_Bps[level.plane])
        link_s = np.maximum(link_s, slowest_s * message_bytes)
        turning = number * (level.size // block) > leaving(level.size, ranks, shift)
        latency_s = np.maximum(latency_s, turning * level.latency_s)
        block = level.size
    return latency_s, link_s


def quotient_s(op: str, algorithm: str, size_bytes: float, blueprint: Blueprint) -> float:
    """Return the price of a collective of all accelerators of a blueprint, stepwise, without making its graph.

    Raises
    ------
    SpecError
        The algorithm's rounds are no shifts, or the fabric has a level without switches.

    Examples
    --------
    A ring over two boxes of eight: 30 rounds of 1/16 of the buffer over a NIC.

    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> two = cluster_blueprint("two", 2, ScaleUp(8, 450e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib", rails=1))
    >>> round(quotient_s("all_reduce", "ring", 16e9, two) / (30 * (1e9 / 50e9 + 1e-6)), 3)
    1.0
    """
    faults = []
    levels = tiers(blueprint)
    if (op, algorithm) not in SHIFTS:
        known = ", ".join(" ".join(key) for key in SHIFTS)
        faults.append(Fault("algorithm", f"{op} {algorithm}", "has rounds that are no shifts", f"use one of {known}"))
    if any(level.direct or level.pool for level in levels):
        faults.append(
            Fault("blueprint", blueprint.name, "has levels without switches, or unlike pools", "price it on its graph")
        )
    if faults:
        raise SpecError(faults)
    ranks = levels[-1].size * levels[-1].blocks
    shift, message_bytes, repeat = SHIFTS[op, algorithm](ranks, size_bytes)
    latency_s, link_s = round_s(levels, ranks, shift, message_bytes, cables(blueprint, levels))
    return float(repeat * (latency_s + link_s).sum())
