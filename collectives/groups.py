"""Groups of ranks: from (size, stride) under the placement order to members per tier.

A group of `size` ranks with `stride` holds the ranks base + j + i · stride, i = 0 … size-1. Groups tile the world: base
runs over the multiples of size · stride, and j over 0 … stride-1. Every closed form takes only the result of `members`.
"""

from collections.abc import Iterable
from functools import lru_cache
from math import gcd

import numpy as np
import numpy.typing as npt

from topo.columns import Column, ColumnLike
from topo.errors import Fault, SpecError

_Integers = npt.NDArray[np.int64]
_FEW = 256  # groups that are looked up one by one faster than sorted


def members(size: ColumnLike, stride: ColumnLike, blocks: tuple[int, ...], world: ColumnLike | None = None) -> Column:
    """Return how many of a group's members share each tier's block with its worst placed rank (itself included).

    A tile of T = size · stride ranks holds `stride` interleaved groups. Cut the line of ranks at every multiple of T
    and at every block border: a piece of L ranks holds ⌊L/stride⌋ members of some group (1 where L < stride), and no
    group that it touches has fewer. The worst rank over all groups therefore sees max(1, ⌊L_min/stride⌋) members,
    exactly, also where nothing divides.

    Parameters
    ----------
    size, stride
        Columns of whole numbers ≥ 1.
    blocks
        Ranks per block of each tier, innermost first, not decreasing; the outermost block holds every rank. A block
        that does not divide the next leaves a short one at its end. A partly used domain has fewer ranks than
        accelerators.
    world
        Ranks in use (column); the outermost block if not given. Only whole tiles count, at least one.

    Returns
    -------
    Column
        float64 whole numbers of shape (tiers, *broadcast), not decreasing outward; the last row is `size`.

    Raises
    ------
    SpecError
        If a size, stride, world or block is below 1, or the blocks decrease.

    Examples
    --------
    Expert groups of 64 laid end to end on domains of 72: the second has 8 members in the first domain.

    >>> members(64, 1, (72, 720))
    array([ 8., 64.])

    Data-parallel groups of 4 with stride 8 on nodes of 8 have one member per node.

    >>> members(4, 8, (8, 32))
    array([1., 4.])
    """
    tiers = _checked_blocks(tuple(blocks))
    sizes, strides, worlds = np.broadcast_arrays(
        np.asarray(size, dtype=np.int64),
        np.asarray(stride, dtype=np.int64),
        np.asarray(tiers[-1] if world is None else world, dtype=np.int64),
    )
    _check_positive(size=sizes, stride=strides, world=worlds)
    if sizes.size <= _FEW:
        table = _table((sizes.ravel(), strides.ravel(), worlds.ravel()), tiers)
        return table.T.reshape(len(tiers), *sizes.shape)
    distinct, places = _distinct(sizes.ravel(), strides.ravel(), worlds.ravel())
    return np.take(_table(distinct, tiers).T, places, axis=1).reshape(len(tiers), *sizes.shape)


def _table(triples: Iterable[_Integers], tiers: tuple[int, ...]) -> Column:
    """Return the members of each (size, stride, world), one row per group."""
    found = [_members_of(*triple, tiers) for triple in zip(*(each.tolist() for each in triples), strict=True)]
    return np.array(found, dtype=np.float64).reshape(-1, len(tiers))


def _distinct(sizes: _Integers, strides: _Integers, worlds: _Integers) -> tuple[_Integers, _Integers]:
    """Return the distinct (size, stride, world) as rows of three, and the place of each input among them."""
    if sizes.size == 0:
        return np.empty((3, 0), dtype=np.int64), np.empty(0, dtype=np.int64)
    triples = np.stack([sizes, strides, worlds])
    spans = triples.max(axis=1) + 1
    if float(spans[0]) * float(spans[1]) * float(spans[2]) < 2.0**62:
        keys = (triples[0] * spans[1] + triples[1]) * spans[2] + triples[2]
        _, first, places = np.unique(keys, return_index=True, return_inverse=True)
        return triples[:, first], places
    distinct, places = np.unique(triples, axis=1, return_inverse=True)
    return distinct, places


def _check_positive(**columns: _Integers) -> None:
    """Raise one error that names every column with a value below 1."""
    faults = [
        Fault(name, int(values.min()), "must be at least 1", "a group has one rank or more")
        for name, values in columns.items()
        if values.size and values.min() < 1
    ]
    if faults:
        raise SpecError(faults)


@lru_cache(maxsize=256)
def _checked_blocks(blocks: tuple[int, ...]) -> tuple[int, ...]:
    """Return the blocks as plain integers, or raise for those that cannot be nested."""
    tiers = tuple(int(block) for block in blocks)
    faults = []
    if not tiers:
        faults.append(Fault("blocks", blocks, "is empty", "give the ranks per block of at least one tier"))
    for tier, block in enumerate(tiers):
        if block < 1:
            faults.append(Fault(f"blocks[{tier}]", block, "must be at least 1", "a block holds one rank or more"))
        if tier and block < tiers[tier - 1]:
            remedy = f"write at least {tiers[tier - 1]}"
            faults.append(Fault(f"blocks[{tier}]", block, "is smaller than the tier inside it", remedy))
    if faults:
        raise SpecError(faults)
    return tiers


@lru_cache(maxsize=65536)
def _members_of(size: int, stride: int, world: int, blocks: tuple[int, ...]) -> tuple[int, ...]:
    """Return the members per tier of one (size, stride, world)."""
    tile = size * stride
    end = tile * max(1, world // tile)
    inner = [max(1, _shortest_piece(tile, end, blocks, tier) // stride) for tier in range(len(blocks) - 1)]
    return (*inner, size)


def _shortest_piece(tile: int, end: int, blocks: tuple[int, ...], tier: int) -> int:
    """Return the shortest gap between the tile and block borders in [0, end], end a multiple of the tile."""
    block = blocks[tier]
    if block >= end:
        return tile
    if block == 1:
        return 1
    regular = all(outer % block == 0 for outer in blocks[tier + 1 : -1])
    common = gcd(tile, block)
    if regular and (end // tile) * common >= block:  # a whole period: some border pair lies gcd apart
        return common
    borders = _borders(blocks[tier:-1], end)
    rest = borders % tile
    rest = rest[rest > 0]
    gaps = [tile, int(np.diff(borders).min(initial=tile))]
    if rest.size:
        gaps += [int(rest.min()), tile - int(rest.max())]
    return min(gaps)


@lru_cache(maxsize=256)
def _borders(blocks: tuple[int, ...], end: int) -> _Integers:
    """Return where the innermost of `blocks` begins, from 0 up to (not including) end; each outer block restarts it."""
    starts, stops = np.zeros(1, dtype=np.int64), np.full(1, end, dtype=np.int64)
    for block in reversed(blocks):
        longest = int((stops - starts).max())
        inside = starts[:, None] + np.arange(0, longest, block, dtype=np.int64)
        kept = inside < stops[:, None]
        stops = np.minimum(inside + block, stops[:, None])[kept]
        starts = inside[kept]
    return starts
