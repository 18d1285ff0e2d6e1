"""The road a collective takes: one `Hop` per tier, innermost first, each with the constants of its `LinkModel`.

The price of an operation that takes `steps` steps and puts V bytes per rank on a tier of bandwidth B is

    t = base_s + steps · (step_s + latency_s) + min[ V / (QUICK · B), V / (efficiency · B) + √(ramp_s · V / B) + F ]

where F = bulk_s · √(r - 1) fills the pipeline of the r child blocks on a tier. A library has a protocol for small
messages, whose flags take most of the wire (LL, the first argument of the min), and one for bulk, whose chunks fill a
pipeline before they fill the wire. A model with no `bulk_s` has one protocol: the min is its second argument. In an
exchange no message is passed on, so F = bulk_s, and each peer's message has a lane of the small protocol to itself: the
first argument is at least V over `LANE_Bps` for every peer.

`base_s` (launch, rendezvous) is paid once per collective: the largest base of the tiers that the group spans, which is
the outermost one's in practice. Steps and bytes are counted tier by tier by each algorithm.

On a switch a group of any size has all of an accelerator's bandwidth. On a direct network (a link for every pair of a
full mesh, or for neighbours in a torus) it has only the links that lead to its own members: B is then the share of
`bandwidth_Bps` that `Hop.shares` gives for the group. `collectives.direct` has these tables for meshes and tori.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

from topo.errors import Fault, SpecError

Shares: TypeAlias = tuple[tuple[float, float], ...]
"""Rows (members, share): a group of at most so many members has this share of a bandwidth. () stands for all of it."""

PLANES = ("scale-up", "scale-out")


def _non_negative(owner: str, **values: float) -> list[Fault]:
    """Return a fault for each value that is negative, infinite or not a number."""
    return [
        Fault(f"{owner}.{name}", value, "must be a finite number that is not negative", "write 0 for no cost")
        for name, value in values.items()
        if not (math.isfinite(value) and value >= 0)
    ]


def _share(owner: str, **values: float) -> list[Fault]:
    """Return a fault for each value outside (0, 1]."""
    return [
        Fault(f"{owner}.{name}", value, "must lie in (0, 1]", "write 1 for no loss")
        for name, value in values.items()
        if not 0 < value <= 1
    ]


def share_at(rows: Shares, members: float) -> float:
    """Return the share of a group: that of the first row with as many members, of the last row beyond it, 1 of no rows.

    >>> share_at(((2, 0.25), (4, 1.0)), 3), share_at((), 3)
    (1.0, 1.0)
    """
    return next((share for most, share in rows if members <= most), rows[-1][1] if rows else 1.0)


def _table(name: str, rows: Shares, rising: bool) -> list[Fault]:
    """Return a fault for each wrong entry of a table of shares; `rising`: more members have no smaller share."""
    faults: list[Fault] = []
    before, least = 0.0, 0.0
    for row, (members, share) in enumerate(rows):
        where = f"Hop.{name}[{row}]"
        if not (math.isfinite(members) and members >= 1):
            faults.append(Fault(f"{where}.members", members, "must be a number from 1 up", "write a count of members"))
        elif members <= before:
            faults.append(Fault(f"{where}.members", members, "does not ascend", f"write more than {before:g}"))
        if not 0 < share <= 1:
            faults.append(Fault(f"{where}.share", share, "must lie in (0, 1]", "write 1 for all of the bandwidth"))
        elif rising and share < least:
            faults.append(Fault(f"{where}.share", share, "falls with more members", f"write at least {least:g}"))
        before, least = members, share
    return faults


def _exchange(shares: Shares, exchange: Shares) -> list[Fault]:
    """Return a fault where an exchange has more bandwidth than a ring: sending all to all is one way to gather."""
    faults: list[Fault] = []
    for members in sorted({members for members, _ in (*shares, *exchange)} if exchange else ()):
        most, share = share_at(shares, members), share_at(exchange, members)
        if share > most * (1 + 1e-12):
            problem = f"is more than `shares` gives {members:g} members"
            faults.append(Fault("Hop.exchange_shares", share, problem, f"write at most {most:g}"))
    return faults


QUICK = 0.3
"""Share of a link that NCCL's LL protocol reaches: llMaxBws of `src/graph/tuning.cc`, 87.7, 141 and 282 GB/s of the 300,
450 and 900 of NVLink 3, 4 and 5."""


LANE_Bps = 6e9
"""Bytes/s of LL in the one channel that NCCL gives a small message to one peer, on NVLink 3, 4 and 5 alike.

All-to-all of 2, 4 and 8 ranks takes as long for the same message: 5.2 to 5.5 us for 32 KiB, half of that for 16 KiB.
"""

Dispatch: TypeAlias = tuple[tuple[float, tuple[tuple[float, tuple[str, ...]], ...]], ...]
"""Rows (ranks up to, ((bytes below, algorithms), …)), ascending: which of its own kernels a library runs for a size, the
fastest of several. Larger groups, sizes beyond and () are for the library behind it."""


@dataclass(frozen=True, slots=True)
class LinkModel:
    """Constants that turn steps and bytes into seconds on one kind of link, for one operation and software regime.

    Parameters
    ----------
    base_s
        Seconds before the first byte moves, once per collective (kernel launch, rendezvous).
    step_s
        Seconds of software per step, on top of the wire latency.
    efficiency
        Share of the link bandwidth that large messages reach, in (0, 1].
    ramp_s
        Mid-size penalty: √(ramp_s · V / B) is added to the transfer of V bytes at B bytes/s.
    bulk_s
        Seconds that fill the pipeline of the bulk protocol, for each root of r - 1 (once in an exchange); below, `QUICK`
        rules (`LANE_Bps` in an exchange). 0 for none.
    own_piece
        Weight of the piece that a rank only copies (its own, or the last it receives) against one that it sends: the
        same threads move both, so that two ranks reach less of the wire than eight.
    beyond
        The constants of the library that takes over where the kernels of this model end, None if they do not.
    dispatch
        Which of its kernels a library runs by its own rules; () if it has one way.

    Raises
    ------
    SpecError
        If a constant is negative or not finite, or the efficiency lies outside (0, 1].

    Examples
    --------
    >>> LinkModel(base_s=5e-6, step_s=1e-6, efficiency=0.8)
    LinkModel(base_s=5e-06, step_s=1e-06, efficiency=0.8, ramp_s=0.0, bulk_s=0.0, own_piece=0.0, beyond=None, dispatch=())
    """

    base_s: float
    step_s: float
    efficiency: float
    ramp_s: float = 0.0
    bulk_s: float = 0.0
    own_piece: float = 0.0
    beyond: "LinkModel | None" = None
    dispatch: Dispatch = ()

    def __post_init__(self) -> None:
        faults = _non_negative("LinkModel", base_s=self.base_s, step_s=self.step_s, ramp_s=self.ramp_s)
        faults += _non_negative("LinkModel", bulk_s=self.bulk_s, own_piece=self.own_piece)
        faults += _share("LinkModel", efficiency=self.efficiency)
        if faults:
            raise SpecError(faults)


IDEAL = LinkModel(base_s=0.0, step_s=0.0, efficiency=1.0)
"""A link that costs nothing but its wire: no overhead, all of the bandwidth."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One tier as an operation sees it.

    Parameters
    ----------
    bandwidth_Bps
        Bytes/s per accelerator and direction between the child blocks of the tier.
    latency_s
        Wire latency between two accelerators whose lightest path turns round at this tier.
    model
        The constants of the operation on the tier's links.
    plane
        `"scale-up"` or `"scale-out"`: hops of one plane share an accelerator's ports, the two planes have their own.
    in_network_reduction
        Whether the switches of the tier can add (NVLS, SHARP).
    reduction_efficiency
        Share of `model.efficiency` that a reduction inside the switches reaches, in (0, 1].
    shares
        Rows (members, share), ascending: a group of at most `members` members in the tier's block has `share` of
        `bandwidth_Bps`, the links that lead to its own members; one beyond the last row has the last share. A member is
        a child block that the group occupies: one accelerator on the innermost tier. () for a switch: always 1. A tier
        outside has links of its own, which these rows do not narrow.
    exchange_shares
        The same for traffic from every member to every other (all-to-all, expert exchange, direct gathers), which in a
        torus crosses the middle: shares may fall with more members, and are never above `shares`. () for the same.

    Raises
    ------
    SpecError
        If the bandwidth is not positive, the latency negative, the plane unknown, or a share outside (0, 1], out of
        order, or of switches that add.

    Examples
    --------
    >>> Hop(450e9, 1e-6, IDEAL).plane
    'scale-up'

    Eight MI300X have one link of 64 GB/s for each pair, 448 GB/s in all. A pair of them has one link of seven:

    >>> from collectives.all_reduce import ring
    >>> from collectives.direct import mesh_shares
    >>> shares, exchange_shares = mesh_shares(8)
    >>> mesh = Hop(448e9, 0, IDEAL, shares=shares, exchange_shares=exchange_shares)
    >>> print(f"{share_at(mesh.shares, 2) * 7:.0f} of 7")
    1 of 7
    >>> for ranks in (2, 8):
    ...     print(f"busbw {2 * (1 - 1 / ranks) * 1e9 / ring(1e9, [ranks], (mesh,)) / 1e9:.0f} GB/s")
    busbw 64 GB/s
    busbw 448 GB/s
    """

    bandwidth_Bps: float
    latency_s: float
    model: LinkModel
    plane: str = "scale-up"
    in_network_reduction: bool = False
    reduction_efficiency: float = 1.0
    shares: Shares = ()
    exchange_shares: Shares = ()

    def __post_init__(self) -> None:
        faults = _non_negative("Hop", latency_s=self.latency_s)
        faults += _share("Hop", reduction_efficiency=self.reduction_efficiency)
        if not (math.isfinite(self.bandwidth_Bps) and self.bandwidth_Bps > 0):
            faults.append(Fault("Hop.bandwidth_Bps", self.bandwidth_Bps, "must be positive", "write bytes per second"))
        if self.plane not in PLANES:
            faults.append(Fault("Hop.plane", self.plane, "is no plane", f"write one of {', '.join(PLANES)}"))
        if self.shares or self.exchange_shares:
            tables = _table("shares", self.shares, rising=True)
            tables += _table("exchange_shares", self.exchange_shares, rising=False)
            faults += tables or _exchange(self.shares, self.exchange_shares)
            if self.in_network_reduction:
                remedy = "leave out the shares, or set it to false"
                faults.append(Fault("Hop.in_network_reduction", True, "needs a switch; shares are of links", remedy))
        if faults:
            raise SpecError(faults)


Path: TypeAlias = tuple[Hop, ...]
"""The tiers of a cluster as one operation sees them, innermost first."""
