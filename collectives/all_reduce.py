"""All-reduce: every rank holds S bytes and ends with their sum. S is the buffer per rank.

Sources: Patarasuk and Yuan 2009 (ring), Sanders, Speck and Träff 2009 (double binary tree), NCCL `src/graph/tuning.cc`
(which tiers pay which latency), NCCL issues 1455 and 1506 (NVLS volume).
"""

import numpy as np

from collectives.path import Path
from collectives.span import (
    Mask,
    Span,
    added,
    base_s,
    crossing,
    latency_s,
    ratio,
    ring_steps,
    slowest,
    span,
    transfer_s,
    with_own_piece,
)
from topo.columns import Column, ColumnLike, column

TREE_STEPS = 6.0
"""Steps per doubling of the ranks in a tree, up and down together: three ring steps per level and direction.

A level receives from two children, adds and forwards.
"""

NVLS_STEPS = 6.0
"""Steps of a sum in the switches per doubling of the ranks, as many as a tree's.

NCCL all-reduce of small bf16 messages on 16, 48 and 64 GB200 takes 46, 51 and 51 us, where int8, which the switches
cannot add, takes the ring's 46, 125 and 161. With 4 steps per further rank the curves fit to 12 %, with these to 5 %.
"""


MULTIMEM_WAITS = 3.0
"""Waits of a kernel that adds in the switches, in steps of a two-shot's: vLLM's take as long on 4 GPUs as on 8."""


def ring(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of a flat ring: reduce-scatter once round, all-gather once round.

    t = base + Σ_l 2·steps_l·(step_l + latency_l) + max_l of the transfer of V_l,
    V_l = 2(n-1)/n · S/inner_l (and S/n at the weight of a rank's own piece): each member of a child block drives its own
    port, so the ring that leaves a block of `inner` members runs at inner · B_l, capped by the inner tiers.

    Examples
    --------
    Eight ranks, 800 MB, 100 GB/s: 2 · 7/8 · 800 MB / 100 GB/s.

    >>> from collectives.path import IDEAL, Hop
    >>> print(f"{ring(800e6, [8], (Hop(100e9, 0, IDEAL),)):.3f} s")
    0.014 s
    """
    size, group = span(size_bytes, members, path)
    volume = with_own_piece(group, 2 * (1 - 1 / group.size) * size / group.inner * group.spanned, size)
    return column(latency_s(group, 2 * ring_steps(group)) + slowest(transfer_s(group, volume)))


def tree(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of a pipelined double binary tree between blocks: 2S per rank, logarithmic latency.

    t = base + Σ_l steps_l·(step_l + latency_l) + max_l of the transfer of 2S/inner_l. In the innermost tier NCCL's trees
    are chains through the ranks, up and down: 2(r - 1) steps for r ranks. Each tier outside it takes 6·log2 r
    (`TREE_STEPS`) for r child blocks.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> print(f"{tree(800e6, [8], (Hop(100e9, 0, IDEAL),)):.3f} s")
    0.016 s
    """
    size, group = span(size_bytes, members, path)
    volume = 2 * size / group.inner * group.spanned
    blocks = ratio(group)
    steps = np.where(group.inner == 1, 2 * (blocks - 1), TREE_STEPS * np.log2(blocks))
    return column(latency_s(group, steps) + slowest(transfer_s(group, volume)))


def hierarchical(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of reduce-scatter tier by tier outward, then all-gather back, one tier after the other.

    t = base + Σ_l [ 2(r_l - 1)·(step_l + latency_l) + transfer of 2(r_l - 1)/r_l · S/inner_l ],
    r_l = members_l/inner_l child blocks.

    Examples
    --------
    Two nodes of 8, 800 MB, 100 GB/s inside and 10 GB/s per rank outside: 14 ms inside, then S/8 at 10 GB/s.

    >>> from collectives.path import IDEAL, Hop
    >>> path = (Hop(100e9, 0, IDEAL), Hop(10e9, 0, IDEAL, plane="scale-out"))
    >>> print(f"{hierarchical(800e6, [8, 16], path):.3f} s")
    0.024 s
    """
    size, group = span(size_bytes, members, path)
    blocks = ratio(group)
    volume = 2 * (1 - 1 / blocks) / group.inner * size
    return column(latency_s(group, 2 * (blocks - 1)) + added(transfer_s(group, volume)))


def nvls(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds with the sum taken in the switches where they can add, and a tree over the tiers where not.

    A tier that adds carries (1 + 1/r)·S/inner per rank and direction in 6·log2 r steps (`NVLS_STEPS`, from NCCL
    measurements on NVLink); any other spanned tier carries 2(r - 1)/r · S/inner in
    6·log2 r steps, through the ports of the tiers of its plane inside it. Chunks are pipelined, so the slowest tier
    counts. Where a switch adds, the efficiency is multiplied by `Hop.reduction_efficiency`. A rank's own piece counts as
    in a ring.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> path = (Hop(100e9, 0, IDEAL, in_network_reduction=True),)
    >>> print(f"{nvls(800e6, [8], path):.3f} s")
    0.009 s
    """
    size, group = span(size_bytes, members, path)
    constants, blocks = group.rates, ratio(group)
    adds = group.spanned & constants.reduces
    share = np.where(adds, 1 + 1 / blocks, 2 * (1 - 1 / blocks))
    efficiency = constants.efficiency * np.where(constants.reduces, constants.reduction_efficiency, 1.0)
    steps = np.where(adds, NVLS_STEPS, TREE_STEPS) * np.log2(blocks)
    volume = with_own_piece(group, through_ports(group, share / group.inner, adds) * size, size)
    return column(latency_s(group, steps) + slowest(transfer_s(group, volume, efficiency)))


def through_ports(group: Span, volume: Column, adds: Mask) -> Column:
    """Return what the ports of each tier carry: its own traffic and that of the tiers of its plane outside it.

    Where both a tier and the next one add, the inner switches hand on their sum, and the ports carry their own alone.

    Examples
    --------
    Two tiers of one plane, 1 and 0.5 bytes per rank:

    >>> from collectives.path import IDEAL, Hop
    >>> _, group = span(0.0, [4, 16], (Hop(1e9, 0, IDEAL), Hop(1e9, 0, IDEAL)))
    >>> through_ports(group, np.array([1.0, 0.5]), np.array([False, False]))
    array([1.5, 0.5])
    """
    carried, beyond, beyond_adds = volume.copy(), np.zeros_like(volume[0]), np.zeros_like(adds[0])
    for tier in reversed(range(len(carried))):
        if tier + 1 == group.rates.scale_up_tiers:
            beyond = np.zeros_like(beyond)
        carried[tier] += np.where(adds[tier] & beyond_adds, 0.0, beyond)
        beyond = np.where(group.spanned[tier], carried[tier], beyond)
        beyond_adds = np.where(group.spanned[tier], adds[tier], beyond_adds)
    return column(carried * group.spanned)


def sharp(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of a reduce-scatter tier by tier outward, a sum in the network, and an all-gather back.

    From the first tier on beyond which every spanned tier adds, a rank sends its S/inner up and gets the sum, two steps
    per tier; the tiers inside are those of `hierarchical`. Efficiency as in `nvls`.

    Examples
    --------
    Two nodes of 8, 800 MB: 14 ms inside, then 100 MB at 10 GB/s.

    >>> from collectives.path import IDEAL, Hop
    >>> path = (Hop(100e9, 0, IDEAL), Hop(10e9, 0, IDEAL, "scale-out", in_network_reduction=True))
    >>> print(f"{sharp(800e6, [8, 16], path):.3f} s")
    0.024 s
    """
    size, group = span(size_bytes, members, path)
    constants, blocks = group.rates, ratio(group)
    adds = np.logical_and.accumulate((constants.reduces | ~group.spanned)[::-1], axis=0)[::-1] & group.spanned
    efficiency = constants.efficiency * np.where(adds, constants.reduction_efficiency, 1.0)
    share = np.where(adds, 1.0, 2 * (1 - 1 / blocks))
    seconds = transfer_s(group, share / group.inner * size, efficiency)
    steps = np.where(adds, 2.0, 2 * (blocks - 1))
    return column(latency_s(group, steps) + added(seconds * ~adds) + slowest(seconds * adds))


def outer_tier_adds(members: ColumnLike, path: Path) -> Mask:
    """Return whether the switches of the outermost spanned tier add.

    >>> from collectives.path import IDEAL, Hop
    >>> path = (Hop(100e9, 0, IDEAL, in_network_reduction=True), Hop(10e9, 0, IDEAL, plane="scale-out"))
    >>> outer_tier_adds([[8, 8], [8, 16]], path)
    array([ True, False])
    """
    _, group = span(0.0, members, path)
    last = group.spanned & (group.members == group.size)
    return np.asarray((last & group.rates.reduces).any(axis=0))


def linear(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds when all send their buffer to one rank, which adds, and sends the sum to all: 2(n - 1)·S.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> print(f"{linear(1e6, [8], (Hop(100e9, 0, IDEAL),)) * 1e6:.0f} us")
    140 us
    """
    size, group = span(size_bytes, members, path)
    volume = 2 * crossing(group) * group.size * size * group.spanned
    seconds = transfer_s(group, volume, traffic="exchange")
    return column(latency_s(group, column(2.0 * group.spanned)) + slowest(seconds))


def one_shot(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds when every rank reads every other buffer and adds: one step, (n - 1)·S per rank.

    t = base + Σ over spanned tiers of the latency + max_l of the transfer of (n - inner_l)·S. The flags that say that
    the buffers are ready go with the launch, in the base.
    Source: the custom all-reduce kernels of vLLM and NVIDIA/TensorRT-LLM, made for small messages.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> print(f"{one_shot(1e6, [8], (Hop(100e9, 0, IDEAL),)) * 1e6:.0f} us")
    70 us
    """
    size, group = span(size_bytes, members, path)
    volume = crossing(group) * group.size * size * group.spanned
    seconds = transfer_s(group, volume, traffic="exchange")
    return column(base_s(group) + added(group.spanned * group.rates.latency_s) + slowest(seconds))


def two_shot(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of a direct reduce-scatter, then a direct all-gather: 2(n - 1)/n·S per rank.

    t = base + Σ over spanned tiers of (2·latency + r·step) + max_l of the transfer: between the two, each rank sets a
    flag at every other of the r child blocks and waits for theirs.
    Source: as `one_shot`, made for middle sizes.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> print(f"{two_shot(1e6, [8], (Hop(100e9, 0, IDEAL),)) * 1e6:.1f} us")
    17.5 us
    """
    size, group = span(size_bytes, members, path)
    volume = 2 * crossing(group) * size * group.spanned
    seconds = transfer_s(group, volume, traffic="exchange")
    constants = group.rates
    waits = group.spanned * (2.0 * constants.latency_s + ratio(group) * constants.step_s)
    return column(base_s(group) + added(waits) + slowest(seconds))


def multimem(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of one kernel that has the switches add and multicast: (1 + 1/r)·S per rank, three waits.

    t = base + Σ over spanned tiers of (2·latency + `MULTIMEM_WAITS`·step) + max_l of the transfer at the efficiency times
    `Hop.reduction_efficiency`. A tier that cannot add makes it impossible. Source: torch.ops.symm_mem of PyTorch, as vLLM
    calls it.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> print(f"{multimem(1e6, [8], (Hop(100e9, 0, IDEAL, in_network_reduction=True),)) * 1e6:.2f} us")
    11.25 us
    """
    size, group = span(size_bytes, members, path)
    constants, blocks = group.rates, ratio(group)
    volume = (1 + 1 / blocks) / group.inner * size * group.spanned
    seconds = transfer_s(group, volume, constants.efficiency * constants.reduction_efficiency)
    waits = group.spanned * (2.0 * constants.latency_s + MULTIMEM_WAITS * constants.step_s)
    return column(base_s(group) + added(waits) + slowest(seconds))


def every_tier_adds(members: ColumnLike, path: Path) -> Mask:
    """Return whether all spanned tiers have switches that add.

    >>> from collectives.path import IDEAL, Hop
    >>> bool(every_tier_adds([8], (Hop(100e9, 0, IDEAL),)))
    False
    """
    _, group = span(0.0, members, path)
    return np.asarray((group.rates.reduces | ~group.spanned).all(axis=0))


def some_tier_adds(members: ColumnLike, path: Path) -> Mask:
    """Return whether a spanned tier has switches that add, without which `nvls` is no algorithm of its own.

    >>> from collectives.path import IDEAL, Hop
    >>> bool(some_tier_adds([8], (Hop(100e9, 0, IDEAL),)))
    False
    """
    _, group = span(0.0, members, path)
    return np.asarray((group.spanned & group.rates.reduces).any(axis=0))
