"""What a group has of a direct network: tables for `Hop.shares` and `Hop.exchange_shares` of meshes and tori.

Accelerators of a direct network are joined to each other without switches, so a group can only use the links between
its own members. A group holds consecutive ranks: in a torus they fill the first axis, then lines of the second.

Sources: Dally and Towles, Principles and Practices of Interconnection Networks, §3.3.1 (channel load) and §5.2.1 (tori
and meshes); Jain and Sabharwal 2010 (rings along every axis at once).
"""

from collections.abc import Iterator, Sequence
from math import isfinite, prod

from collectives.path import Shares
from topo.errors import Fault, SpecError


def mesh_shares(size: int) -> tuple[Shares, Shares]:
    """Return the shares of a full mesh, for rings and for exchanges: a group of m of n uses m - 1 of n - 1 links.

    Rings over all orders of the members use every link between them evenly, and so does an exchange.

    Raises
    ------
    SpecError
        If the mesh has fewer than two accelerators.

    Examples
    --------
    >>> shares, exchange_shares = mesh_shares(5)
    >>> shares
    ((2, 0.25), (3, 0.5), (4, 0.75), (5, 1.0))
    >>> shares == exchange_shares
    True
    """
    if size < 2:
        raise SpecError([Fault("size", size, "is no mesh", "write 2 or more accelerators")])
    shares = tuple((members, (members - 1) / (size - 1)) for members in range(2, size + 1))
    return shares, shares


def torus_shares(
    shape: Sequence[int], axis_Bps: Sequence[float], wrap: Sequence[bool], bandwidth_Bps: float | None = None
) -> tuple[Shares, Shares]:
    """Return the shares of a torus or mesh of several axes, for rings and for exchanges.

    A group of consecutive ranks spans whole axes and, of the next one, a line of neighbours. There is a row for every
    whole axis and for every power of two inside one; a group between two rows takes the larger one's.

    Parameters
    ----------
    shape
        Accelerators along each axis, in placement order: consecutive ranks fill the first axis first.
    axis_Bps
        Bytes/s per accelerator and direction of each axis, its two links together.
    wrap
        Whether each axis closes to a ring (with both links also where it has two accelerators).
    bandwidth_Bps
        What the shares are shares of: `Hop.bandwidth_Bps`. If not given, all links of an accelerator that has
        neighbours on both sides. No share is above 1.

    Raises
    ------
    SpecError
        If the three differ in length, no axis is longer than 1, or a size or bandwidth is not positive.

    Examples
    --------
    A line of 4 in a torus of 4 x 4 closes to a ring (half of the links of two axes); an exchange has three quarters of
    it, as a ring of 4 carries (k - 1)/k · k/⌊k²/4⌋ = 3/4 of its bandwidth.

    >>> rings, exchanges = torus_shares((4, 4), (100e9, 100e9), (True, True))
    >>> rings
    ((2, 0.25), (4, 0.5), (8, 0.75), (16, 1.0))
    >>> [(members, round(share, 4)) for members, share in exchanges]
    [(2, 0.25), (4, 0.375), (8, 0.4375), (16, 0.4688)]
    """
    _check(shape, axis_Bps, wrap, bandwidth_Bps)
    lines = list(zip(shape, axis_Bps, wrap, strict=True))
    whole = sum(axis / 2 * min(2, k if closed else k - 1) * (k > 1) for k, axis, closed in lines)
    base = whole if bandwidth_Bps is None else bandwidth_Bps
    rings: list[tuple[float, float]] = []
    exchanges: list[tuple[float, float]] = []
    for extents in _fillings(shape):
        members = prod(extents)
        speeds = [_line_speed(k, full, axis, closed) for k, (full, axis, closed) in zip(extents, lines, strict=True)]
        rings.append((members, min(1.0, sum(speeds) / base)))
        exchanges.append((members, min(rings[-1][1], _exchange_speed(extents, speeds) / base)))
    return tuple(rings), tuple(exchanges)


def _fillings(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Return the sub-tori that have a row: whole axes first, then 2, 4, 8 … or all of the next, then single ones.

    >>> list(_fillings((3, 2)))
    [(2, 1), (3, 1), (3, 2)]
    """
    for axis, size in enumerate(shape):
        powers = [1 << bit for bit in range(1, size.bit_length()) if 1 << bit < size]
        for extent in (*powers, size) if size > 1 else ():
            yield (*shape[:axis], extent, *(1 for _ in shape[axis + 1 :]))


def _line_speed(extent: int, size: int, axis_Bps: float, closed: bool) -> float:
    """Return what rings along one axis carry: both links on a closed whole axis; on a line, the one link of its ends.

    >>> _line_speed(4, 4, 100.0, True), _line_speed(2, 4, 100.0, True), _line_speed(4, 4, 100.0, False)
    (100.0, 50.0, 50.0)
    """
    if extent == 1:
        return 0.0
    return axis_Bps if closed and extent == size else axis_Bps / 2


def _exchange_speed(extents: Sequence[int], line_Bps: Sequence[float]) -> float:
    """Return the rate R at which every member can send to all others alike, on minimal routes axis by axis.

    R = min over axes of (m - 1)/m · k·c/⌊k²/4⌋, m members, k along the axis, c from `_line_speed`. With R/(m - 1) for
    each pair, m/k pairs use a given line of the axis from a given place on it to another. The middle link of a line
    lies between ⌊k/2⌋·⌈k/2⌉ = ⌊k²/4⌋ such places; on a ring the distances from one place add up to ⌊k²/4⌋ too, over
    two links, if those at distance k/2 go half each way. Either way the load is ⌊k²/4⌋ · m/k · R/(m - 1) ≤ c. For large
    even k a ring of two links b carries 8b/k, a line 4b/k: Dally and Towles §5.2.1.

    >>> _exchange_speed((4,), (100.0,)), _exchange_speed((4, 4), (100.0, 100.0))
    (75.0, 93.75)
    """
    members = prod(extents)
    per_axis = (k * line / (k * k // 4) for k, line in zip(extents, line_Bps, strict=True) if k > 1)
    return (members - 1) / members * min(per_axis)


def _check(shape: Sequence[int], axis_Bps: Sequence[float], wrap: Sequence[bool], bandwidth_Bps: float | None) -> None:
    """Raise one error that names every wrong argument."""
    faults = [
        Fault(f"shape[{axis}]", size, "must be at least 1", "write the accelerators along the axis")
        for axis, size in enumerate(shape)
        if size < 1
    ]
    speeds = {f"axis_Bps[{axis}]": speed for axis, speed in enumerate(axis_Bps)}
    if bandwidth_Bps is not None:
        speeds["bandwidth_Bps"] = bandwidth_Bps
    faults += [
        Fault(name, speed, "must be positive", "write bytes per second")
        for name, speed in speeds.items()
        if not (isfinite(speed) and speed > 0)
    ]
    if not len(shape) == len(axis_Bps) == len(wrap):
        lengths = (len(shape), len(axis_Bps), len(wrap))
        faults.append(Fault("shape, axis_Bps, wrap", lengths, "differ in length", "write one of each per axis"))
    if all(size == 1 for size in shape):
        faults.append(Fault("shape", tuple(shape), "is one accelerator", "write an axis of 2 or more"))
    if faults:
        raise SpecError(faults)
