"""All-gather and reduce-scatter, which mirror each other. S is the output (gather) or input (scatter) per rank.

Reduction inside the switches does not speed up either: it moves S one way and S/n the other where a ring moves
(n-1)/n · S both ways (NCCL issue 1506), so there is no NVLS variant. The arithmetic of the reduction is not priced.
Sources: Thakur, Rabenseifner and Gropp 2005; NCCL `src/graph/tuning.cc`.
"""

import numpy as np

from collectives.path import Path
from collectives.span import (
    added,
    by_plane,
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


def ring(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of a flat ring, each member of a block driving its own port.

    t = base + Σ_l steps_l·(step_l + latency_l) + max_l of the transfer of (n-1)/n · S/inner_l, and of S/n at the weight
    of a rank's own piece.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> print(f"{ring(800e6, [8], (Hop(100e9, 0, IDEAL),)):.3f} s")
    0.007 s
    """
    size, group = span(size_bytes, members, path)
    volume = with_own_piece(group, (1 - 1 / group.size) * size / group.inner * group.spanned, size)
    return column(latency_s(group, ring_steps(group)) + slowest(transfer_s(group, volume)))


def direct(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds when every rank exchanges its piece with every other: Bruck's latency, no relaying.

    t = base + Σ_l log2(r_l)·(step_l + latency_l) + max_l of the transfer of (n - inner_l)/n · S.
    Each piece crosses an outer tier once per receiver, so the volume there is `inner` times that of a ring.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> print(f"{direct(800e6, [8], (Hop(100e9, 1e-3, IDEAL),)):.3f} s")
    0.010 s
    """
    size, group = span(size_bytes, members, path)
    volume = by_plane(group, crossing(group) * size)
    seconds = transfer_s(group, volume, traffic="exchange")
    return column(latency_s(group, np.log2(ratio(group))) + slowest(seconds))


def hierarchical(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of one ring per tier, one after the other.

    t = base + Σ_l [ (r_l - 1)·(step_l + latency_l) + transfer of (r_l - 1)/r_l · S/inner_l ], r_l = members_l/inner_l.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> path = (Hop(100e9, 0, IDEAL), Hop(10e9, 0, IDEAL, plane="scale-out"))
    >>> print(f"{hierarchical(800e6, [8, 16], path):.3f} s")
    0.012 s
    """
    size, group = span(size_bytes, members, path)
    blocks = ratio(group)
    volume = (1 - 1 / blocks) / group.inner * size
    return column(latency_s(group, blocks - 1) + added(transfer_s(group, volume)))
