"""One message from one rank to another, as between pipeline stages."""

import numpy as np

from collectives.path import Path
from collectives.span import rates, span
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError


def send_recv(size_bytes: ColumnLike, tier: ColumnLike, path: Path) -> Column:
    """Return the seconds of one message of S bytes whose lightest route turns round at a tier.

    t = base + step + latency + S/(eff·B) + √(ramp·S/B), all of that tier; 0 where the tier is -1 (the same rank).
    On a direct network B is what two members have (`Hop.shares`): one link.

    Parameters
    ----------
    size_bytes
        Bytes of the message (column).
    tier
        Index into `path` (column), or -1 for a rank that sends to itself.
    path
        One hop per tier, innermost first.

    Raises
    ------
    SpecError
        If a tier is below -1 or beyond the path.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> path = (Hop(100e9, 1e-6, IDEAL), Hop(10e9, 9e-6, IDEAL, plane="scale-out"))
    >>> send_recv(1e6, [-1, 0, 1], path)
    array([0.00e+00, 1.10e-05, 1.09e-04])

    Two of eight on a full mesh of 7 links of 10 GB/s have one of them, for 1 MB: 100 us.

    >>> from collectives.direct import mesh_shares
    >>> print(f"{send_recv(1e6, 0, (Hop(70e9, 0, IDEAL, shares=mesh_shares(8)[0]),)) * 1e6:.0f} us")
    100 us
    """
    tiers = np.asarray(tier, dtype=np.int64)
    if tiers.size and (tiers.min() < -1 or tiers.max() >= len(path)):
        wrong = int(tiers.max() if tiers.max() >= len(path) else tiers.min())
        raise SpecError([Fault("tier", wrong, "is not a tier of the path", f"write -1 to {len(path) - 1}")])
    constants = rates(path, 0)
    fixed = (constants.base_s + constants.step_s + constants.latency_s)[tiers]
    wire_s = column(size_bytes) / constants.pair_Bps[tiers]
    seconds = fixed + wire_s / constants.efficiency[tiers]
    if constants.has_ramp:
        seconds = seconds + np.sqrt(constants.ramp_s[tiers] * wire_s)
    result: Column = np.where(tiers < 0, 0.0, seconds)
    return result


def farthest(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of one message between the two members of a group that lie farthest apart.

    `send_recv` at the outermost tier that the group spans.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> path = (Hop(100e9, 1e-6, IDEAL), Hop(10e9, 9e-6, IDEAL, plane="scale-out"))
    >>> farthest(1e6, [[8, 8], [8, 16]], path)
    array([1.10e-05, 1.09e-04])
    """
    size, group = span(size_bytes, members, path)
    index = np.arange(len(path)).reshape(-1, *(1,) * (group.members.ndim - 1))
    return send_recv(size, np.where(group.spanned, index, -1).max(axis=0), path)
