"""What no algorithm can beat on a path: every tier's bandwidth, no latency, no loss.

Each tier gives a cut: the `inner` members of one of its child blocks against the rest of the group. What has to cross
it, divided by what the block's ports carry, is a floor; the highest floor is the bound. Where the group spans scale-out
tiers, a block inside the scale-up domain can use both planes at once, so its ports add up. On a direct network only the
links between members count: nobody else relays.
"""

from collections.abc import Callable
from types import MappingProxyType

import numpy as np

from collectives.path import Path
from collectives.span import Span, Traffic, bandwidths, span
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError


def _gathered(group: Span) -> Column:
    """Return the share of S per port that must enter a block: 1/inner - 1/n (all but what it holds)."""
    share: Column = 1 / group.inner - 1 / group.size
    return share


def _reduced(group: Span) -> Column:
    """Return the share of S per port that a sum must move: 2(1/inner - 1/n), or 1/inner where a switch beyond adds.

    Without switches that add, the blocks of a tier send 2(N-1) · S between them (Patarasuk and Yuan 2009). With them, a
    block still has to send S and receive S.
    """
    adds = group.spanned & group.rates.reduces
    adds_beyond = np.logical_or.accumulate(adds[::-1], axis=0)[::-1]
    alone = 2 * _gathered(group)
    share: Column = np.where(adds_beyond, np.minimum(alone, 1 / group.inner), alone)
    return share


def _exchanged(group: Span) -> Column:
    """Return the share of S per port of an all-to-all: all that is meant for ranks outside the block."""
    share: Column = 1 - group.inner / group.size
    return share


def _copied(group: Span) -> Column:
    """Return the share of S per port that a block must get from a root outside it, or give to it: 1/inner."""
    share: Column = 1 / group.inner
    return share


def _nothing(group: Span) -> Column:
    """Return 0: a barrier moves no bytes."""
    return np.zeros_like(group.members)


def _sent(group: Span) -> Column:
    """Return the share of S of one message: all of it, on the outermost spanned tier."""
    share: Column = np.where(group.members == group.size, 1.0, 0.0)
    return share


_CUT: MappingProxyType[str, Callable[[Span], Column]] = MappingProxyType(
    {
        "all_reduce": _reduced,
        "all_gather": _gathered,
        "reduce_scatter": _gathered,
        "all_to_all": _exchanged,
        "send_recv": _sent,
        "broadcast": _copied,
        "reduce": _copied,
        "barrier": _nothing,
    }
)


_TRAFFIC: MappingProxyType[str, Traffic] = MappingProxyType({"all_to_all": "exchange"})
"""Operation → what its bytes do where that is not "ring"."""


def _capacity(group: Span, traffic: Traffic) -> Column:
    """Return the bytes/s per member that leave a child block of each tier.

    Its ports on the tier's plane, or the links to members on this tier and on those outside it if that is less; inside
    the scale-up domain, plus the ports of the innermost scale-out tier where the group spans such tiers.
    """
    ports, inside = group.rates.bandwidth_Bps, group.rates.scale_up_tiers
    links = group.spanned * bandwidths(group, traffic)
    outward = [np.cumsum(plane[::-1], axis=0)[::-1] for plane in (links[:inside], links[inside:])]
    capacity = np.minimum(np.concatenate(outward), ports)
    if 0 < inside < links.shape[0]:
        capacity[:inside] += group.spanned[inside:].any(axis=0) * ports[inside]
    return column(capacity)


def lower_bound(op: str, size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the fewest seconds in which the tiers' bandwidths allow an operation.

    t ≥ max over spanned tiers l of S · share_l / C_l, with S · share_l the bytes per member of a child block that must
    cross its border, and C_l the bandwidth of the tier (plus that of the innermost scale-out tier where the group uses
    both planes; on a direct network, of the links that lead to other members).

    Parameters
    ----------
    op
        Name of the operation: a key of `algorithms.ALGORITHMS`.
    size_bytes, members, path
        As for the algorithms.

    Raises
    ------
    SpecError
        If the operation is unknown.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> path = (Hop(100e9, 1e-6, IDEAL),)
    >>> print(f"{lower_bound('all_gather', 800e6, [8], path):.3f} s")
    0.007 s
    """
    if op not in _CUT:
        raise SpecError([Fault("op", op, "is no known operation", f"write one of {', '.join(_CUT)}")])
    size, group = span(size_bytes, members, path)
    capacity = group.rates.pair_Bps if op == "send_recv" else _capacity(group, _TRAFFIC.get(op, "ring"))
    seconds = _CUT[op](group) * size / np.where(group.spanned, capacity, np.inf)
    return column(seconds.max(axis=0))
