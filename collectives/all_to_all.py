"""All-to-all: every rank sends S/n bytes to each rank of its group, itself included. S is the send buffer per rank.

Sources: Thakur, Rabenseifner and Gropp 2005 (pairwise); nccl-tests (sizes); NCCL 2.12's PXN note (hierarchical).
"""

import numpy as np

from collectives.all_reduce import through_ports
from collectives.path import Path
from collectives.span import (
    added,
    base_s,
    by_plane,
    crossing,
    latency_s,
    ratio,
    slowest,
    span,
    transfer_s,
    with_own_piece,
)
from topo.columns import Column, ColumnLike, column


def pairwise(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of n-1 rounds with one partner each: every round pays its wire, the tiers add up.

    t = base + Σ_l [ (members_l - inner_l)·(step_l + latency_l) + transfer of (members_l - inner_l)/n · S ].
    On a direct network a round uses no more than the links of one pair.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> path = (Hop(100e9, 0, IDEAL), Hop(10e9, 0, IDEAL, plane="scale-out"))
    >>> print(f"{pairwise(800e6, [8, 16], path):.4f} s")
    0.0435 s
    """
    size, group = span(size_bytes, members, path)
    partners = group.members - group.inner
    seconds = transfer_s(group, partners / group.size * size, traffic="pairs")
    return column(latency_s(group, partners) + added(seconds))


def direct(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds when all n-1 messages are posted at once: one wire latency, planes and tiers overlap.

    t = base + (slowest wire latency) + Σ_l (members_l - inner_l)·step_l + max_l of the transfer of what tier l carries:
    (n - inner_l)/n · S on scale-out, and on scale-up only what stays in the domain, with S/n at the weight of a rank's
    own piece.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> path = (Hop(100e9, 0, IDEAL), Hop(10e9, 0, IDEAL, plane="scale-out"))
    >>> print(f"{direct(800e6, [8, 16], path):.4f} s")
    0.0400 s
    """
    size, group = span(size_bytes, members, path)
    constants = group.rates
    posting_s = added((group.members - group.inner) * constants.step_s)
    wire_s = slowest(group.spanned * constants.latency_s)
    volume = with_own_piece(group, by_plane(group, crossing(group) * size), size)
    return column(base_s(group) + posting_s + wire_s + slowest(transfer_s(group, volume, traffic="exchange")))


def hierarchical(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of one exchange per tier, few large messages: inside the block first, then between blocks.

    t = base + Σ_l [ (r_l - 1)·(step_l + latency_l) + transfer of (r_l - 1)/r_l · S ], r_l = members_l/inner_l.

    Examples
    --------
    Inside: 7/8 of 800 MB at 100 GB/s. Between two nodes: half of 800 MB at 10 GB/s.

    >>> from collectives.path import IDEAL, Hop
    >>> path = (Hop(100e9, 0, IDEAL), Hop(10e9, 0, IDEAL, plane="scale-out"))
    >>> print(f"{hierarchical(800e6, [8, 16], path):.3f} s")
    0.047 s
    """
    size, group = span(size_bytes, members, path)
    blocks = ratio(group)
    seconds = transfer_s(group, (1 - 1 / blocks) * size, traffic="exchange")
    return column(latency_s(group, blocks - 1) + added(seconds))


def pxn(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of a rail-aligned exchange: over the block to the rail of the receiver, then along that rail.

    t = base + Σ_l [ (r_l - 1)·step_l + latency_l ] + max_l of the transfer of what the ports of tier l carry:
    (r_l - 1)/r_l · S, and as much again as the tiers of its plane outside it. Chunks pass through both stages at once.

    Examples
    --------
    Inside: 7/8 of 800 MB at 100 GB/s, hidden behind half of 800 MB at 10 GB/s.

    >>> from collectives.path import IDEAL, Hop
    >>> path = (Hop(100e9, 0, IDEAL), Hop(10e9, 0, IDEAL, plane="scale-out"))
    >>> print(f"{pxn(800e6, [8, 16], path):.3f} s")
    0.040 s
    """
    size, group = span(size_bytes, members, path)
    constants, blocks = group.rates, ratio(group)
    fixed = base_s(group) + added((blocks - 1) * constants.step_s + group.spanned * constants.latency_s)
    volume = through_ports(group, 1 - 1 / blocks, np.zeros(blocks.shape, dtype=np.bool_)) * size
    return column(fixed + slowest(transfer_s(group, volume, traffic="exchange")))
