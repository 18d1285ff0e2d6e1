"""What every algorithm's price is made of: which tiers a group spans, and seconds for steps and for bytes on them.

The first axis of an array counts the tiers, innermost first; the other axes are columns. Row l of `inner` is the number
of members inside the child block of tier l, which is row l-1 of `members` (1 below the innermost tier). A group spans
tier l where members[l] > inner[l].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from collectives.path import QUICK, Hop, LANE_Bps, Path, share_at
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError

Mask = npt.NDArray[np.bool_]

Traffic = Literal["ring", "exchange", "pairs"]
"""What the bytes do on a tier: go to neighbours, to every other member at once, or to one other member at a time."""


@dataclass(frozen=True, slots=True)
class Rates:
    """The constants of a path as arrays with one row per tier.

    `bandwidth_Bps` is capped by the inner hops of the same plane, whose ports the traffic leaves through; `pair_Bps` is
    what two members have of it; `direct` holds, for each kind of traffic, the tiers whose bandwidth depends on the
    group; `has_ramp` says whether any hop has a mid-size penalty, `has_bulk` whether any has two protocols, and
    `quick_over_wire` holds 1/QUICK for those and more than any transfer for the others; `scale_up_tiers` counts the hops
    of the scale-up plane.
    """

    bandwidth_Bps: Column
    pair_Bps: Column
    direct: "Mapping[Traffic, tuple[DirectTier, ...]]"
    efficiency: Column
    ramp_s: Column
    bulk_s: Column
    quick_over_wire: Column
    own_piece: Column
    step_s: Column
    latency_s: Column
    base_s: Column
    reduces: Mask
    reduction_efficiency: Column
    has_ramp: bool
    has_bulk: bool
    copies: bool
    scale_up_tiers: int


@dataclass(frozen=True, slots=True)
class DirectTier:
    """A tier of links between its members: `rates_Bps[i]` for groups of more than i of the member counts in `above`."""

    tier: int
    above: Column
    rates_Bps: Column


def _direct(path: Path, ports_Bps: list[float]) -> Mapping[Traffic, tuple[DirectTier, ...]]:
    """Return the tiers with shares, for each kind of traffic; the ports cap them."""

    def of(hop: Hop, traffic: Traffic, members: float) -> float:
        if traffic == "ring":
            return share_at(hop.shares, members)
        exchanged = share_at(hop.exchange_shares or hop.shares, members)
        return exchanged if traffic == "exchange" else min(exchanged, share_at(hop.shares, 2))

    def tables(traffic: Traffic) -> tuple[DirectTier, ...]:
        found = []
        for tier, hop in enumerate(path):
            if counts := sorted({members for members, _ in (*hop.shares, *hop.exchange_shares)}):
                speeds = [min(hop.bandwidth_Bps * of(hop, traffic, members), ports_Bps[tier]) for members in counts]
                found.append(DirectTier(tier, np.array(counts[:-1], dtype=np.float64), np.array(speeds)))
        return tuple(found)

    return MappingProxyType({"ring": tables("ring"), "exchange": tables("exchange"), "pairs": tables("pairs")})


@lru_cache(maxsize=1024)
def rates(path: Path, axes: int) -> Rates:
    """Return the constants of `path`, shaped to broadcast against columns of `axes` axes.

    Raises
    ------
    SpecError
        If the path is empty, or a scale-up hop lies outside a scale-out hop.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> rates((Hop(450e9, 1e-6, IDEAL), Hop(50e9, 5e-6, IDEAL, plane="scale-out")), 1).bandwidth_Bps
    array([[4.5e+11], [5.0e+10]])
    """
    planes = [hop.plane for hop in path]
    if not path:
        raise SpecError([Fault("path", None, "is empty", "give one hop per tier, innermost first")])
    if planes != sorted(planes, reverse=True):
        remedy = "order the hops from the accelerator outwards"
        raise SpecError([Fault("path", planes, "has a scale-up hop outside a scale-out hop", remedy)])
    ports_Bps = [
        min(inner.bandwidth_Bps for inner in path[: tier + 1] if inner.plane == hop.plane)
        for tier, hop in enumerate(path)
    ]
    pairs = [min(hop.bandwidth_Bps * share_at(hop.shares, 2), ports_Bps[tier]) for tier, hop in enumerate(path)]
    models = [hop.model for hop in path]

    def rows(values: list[float]) -> Column:
        return np.array(values, dtype=np.float64).reshape(-1, *(1,) * axes)

    return Rates(
        bandwidth_Bps=rows(ports_Bps),
        pair_Bps=rows(pairs),
        direct=_direct(path, ports_Bps),
        efficiency=rows([model.efficiency for model in models]),
        ramp_s=rows([model.ramp_s for model in models]),
        bulk_s=rows([model.bulk_s for model in models]),
        quick_over_wire=rows([1 / QUICK if model.bulk_s > 0 else 1e30 for model in models]),
        own_piece=rows([model.own_piece for model in models]),
        step_s=rows([model.step_s for model in models]),
        latency_s=rows([hop.latency_s for hop in path]),
        base_s=rows([model.base_s for model in models]),
        reduces=np.array([hop.in_network_reduction for hop in path]).reshape(-1, *(1,) * axes),
        reduction_efficiency=rows([hop.reduction_efficiency for hop in path]),
        has_ramp=any(model.ramp_s > 0 for model in models),
        has_bulk=any(model.bulk_s > 0 for model in models),
        copies=any(model.own_piece > 0 for model in models),
        scale_up_tiers=planes.count("scale-up"),
    )


@dataclass(frozen=True, slots=True)
class Span:
    """A group on a path: members, members of the child block, which tiers are spanned, and the path's constants.

    `size` (n, the last row of `members`) and the columns have as many axes as bytes and members broadcast to.
    """

    members: Column
    inner: Column
    spanned: Mask
    size: Column
    rates: Rates


def span(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> tuple[Column, Span]:
    """Return the bytes and the group, aligned so that arrays of shape (tiers, ...) broadcast against the bytes.

    Raises
    ------
    SpecError
        If `members` does not have one row per hop.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> _, group = span([1e6, 2e6], [8, 16], (Hop(450e9, 0, IDEAL), Hop(50e9, 0, IDEAL, plane="scale-out")))
    >>> group.spanned.T
    array([[ True,  True]])
    """
    size_bytes, members = column(size_bytes), np.ascontiguousarray(members, dtype=np.float64)
    if members.ndim == 0 or members.shape[0] != len(path):
        problem = f"must have one row for each of the {len(path)} hops"
        raise SpecError([Fault("members.shape", members.shape, problem, "use groups.members with the path's blocks")])
    axes = max(size_bytes.ndim, members.ndim - 1)
    members = members.reshape(members.shape[0], *(1,) * (axes - members.ndim + 1), *members.shape[1:])
    inner = np.concatenate([np.ones_like(members[:1]), members[:-1]])
    return size_bytes, Span(members, inner, members > inner, members[-1], rates(path, axes))


def latency_s(group: Span, steps: Column) -> Column:
    """Return base (once, the largest of the spanned tiers') + Σ over tiers of steps · (step + wire latency)."""
    constants = group.rates
    return column(base_s(group) + (steps * (constants.step_s + constants.latency_s)).sum(axis=0))


def base_s(group: Span) -> Column:
    """Return the largest base of the tiers that the group spans, paid once per collective."""
    return column((group.spanned * group.rates.base_s).max(axis=0))


def bandwidths(group: Span, traffic: Traffic = "ring") -> Column:
    """Return B of each tier for a kind of traffic: that of the hop, times the share of the group on a direct network.

    The share is that of the child blocks which the group occupies, members/inner.

    Examples
    --------
    A pair and four of eight on a full mesh of 7 links of 10 GB/s:

    >>> from collectives.direct import mesh_shares
    >>> from collectives.path import IDEAL, Hop
    >>> _, group = span(0.0, [[2, 4]], (Hop(70e9, 0, IDEAL, shares=mesh_shares(8)[0]),))
    >>> np.round(bandwidths(group) / 1e9)
    array([[10., 30.]])
    """
    constants = group.rates
    if not constants.direct[traffic]:
        return constants.bandwidth_Bps
    blocks = ratio(group)
    speeds = np.broadcast_to(constants.bandwidth_Bps, blocks.shape).copy()
    for direct in constants.direct[traffic]:
        speeds[direct.tier] = direct.rates_Bps[np.searchsorted(direct.above, blocks[direct.tier])]
    return speeds


def transfer_s(
    group: Span, volume_bytes: Column, efficiency: Column | None = None, traffic: Traffic = "ring"
) -> Column:
    """Return V / (efficiency · B) + √(ramp · V / B) for each tier, V in bytes per rank, B of `bandwidths`.

    Where a tier has two protocols, the bulk one first fills its pipeline, bulk · √(r - 1) for r child blocks, and the
    quick one takes V / (QUICK · B): the faster counts. In an exchange the bulk one fills once, and the quick one has no
    more than a lane of LANE_Bps for each peer.

    Examples
    --------
    Five ranks, 10 GB/s, 2 us: 6 kB by the quick protocol at 3 GB/s, 600 kB in bulk after 4 us.

    >>> from collectives.path import Hop, LinkModel
    >>> _, group = span(0.0, [5], (Hop(10e9, 0, LinkModel(0, 0, 1.0, bulk_s=2e-6)),))
    >>> [f"{1e6 * transfer_s(group, np.array([size])).item():.0f} us" for size in (6e3, 6e5)]
    ['2 us', '64 us']
    """
    constants = group.rates
    wire_s = volume_bytes / bandwidths(group, traffic)
    seconds: Column = wire_s / (constants.efficiency if efficiency is None else efficiency)
    if constants.has_ramp:
        seconds += np.sqrt(constants.ramp_s * wire_s)
    if constants.has_bulk and traffic == "exchange":
        lanes = np.maximum(group.members - group.inner, 1.0) * LANE_Bps
        quick_s = np.maximum(volume_bytes / lanes, constants.quick_over_wire * wire_s)
        seconds = np.minimum(seconds + constants.bulk_s, quick_s)
    elif constants.has_bulk:
        seconds += constants.bulk_s * np.sqrt(ratio(group) - 1)
        seconds = np.minimum(seconds, constants.quick_over_wire * wire_s)
    return seconds


def with_own_piece(group: Span, volume_bytes: Column, size_bytes: Column) -> Column:
    """Return the bytes per rank with those of its own piece, S/n, at the weight that each tier gives them.

    >>> from collectives.path import Hop, LinkModel
    >>> _, group = span(0.0, [4], (Hop(1e9, 0, LinkModel(0, 0, 1.0, own_piece=0.5)),))
    >>> with_own_piece(group, np.array([6.0]), np.array(8.0))
    array([7.])
    """
    if not group.rates.copies:
        return volume_bytes
    return column(volume_bytes + group.rates.own_piece * group.spanned * (size_bytes / group.size))


def slowest(seconds: Column) -> Column:
    """Return the slowest tier's seconds, for tiers that work at the same time."""
    return column(seconds.max(axis=0))


def added(seconds: Column) -> Column:
    """Return the sum of the tiers' seconds, for tiers that wait for each other."""
    return column(seconds.sum(axis=0))


def ratio(group: Span) -> Column:
    """Return the child blocks of each tier that the group occupies, members / inner (1 where it is not spanned)."""
    result: Column = group.members / group.inner
    return result


def ring_steps(group: Span) -> Column:
    """Return the hops of each tier on the longest path of a chunk once around a ring, n - 1 in all.

    A ring that visits block after block has n/inner edges that leave the child blocks of a tier (none leave the block
    that holds the whole group). A chunk that visits every rank leaves one edge out, and the slowest chunk leaves out a
    cheap one, of the innermost spanned tier. On two sites of 4 ranks the ring has 2 long edges, and the slowest chunk
    takes both.
    """
    leaving = group.size / group.inner * (group.inner < group.size)
    beyond = group.size / group.members * (group.members < group.size)
    innermost = (group.inner == 1) & group.spanned
    return column(leaving - beyond - innermost)


def crossing(group: Span) -> Column:
    """Return the share of n equal destinations that lie outside the child block of each tier, (n - inner)/n."""
    share: Column = 1 - group.inner / group.size
    return share


def by_plane(group: Span, crossed_bytes: Column) -> Column:
    """Return bytes per rank on each spanned tier, where scale-up hops carry only what stays in the scale-up domain.

    `crossed_bytes` leave the child block of each tier, for any destination.
    """
    tiers = group.rates.scale_up_tiers
    if tiers < group.members.shape[0]:
        crossed_bytes = np.concatenate([crossed_bytes[:tiers] - crossed_bytes[tiers], crossed_bytes[tiers:]])
    return column(crossed_bytes * group.spanned)
