"""Closed forms of the logarithmic algorithms: rounds whose partners lie 1, 2, 4 … apart.

A round waits for the slowest tier that any of its messages crosses; the rounds add up:

    t = base + Σ_d [ max_l (step_l + latency_l) + max_l transfer of V(d) ],  l over the tiers crossed at distance d.

Partners r and r xor d of a power of two cross a tier when a child block is no multiple of 2d and the block holds both;
partners r and r + d round all ranks, or after a fold, may cross any tier that holds two of them. Sources: those of
`collectives.schedules.doubling`, whose rounds these are.
"""

from collections.abc import Callable, Iterator

import numpy as np

from collectives.path import Path
from collectives.span import Mask, Span, base_s, latency_s, ring_steps, slowest, span, transfer_s
from topo.columns import Column, ColumnLike, column

Crossed = Callable[[Span, int], Mask]


def distances(group: Span) -> Iterator[int]:
    """Return 1, 2, 4 … below the ranks of the largest group."""
    most = float(group.size.max(initial=1.0))
    distance = 1
    while distance < most:
        yield distance
        distance *= 2


def half(group: Span) -> Column:
    """Return the largest power of two within the ranks.

    >>> from collectives.path import IDEAL, Hop
    >>> half(span(0.0, [[1, 6, 8]], (Hop(1e9, 0, IDEAL),))[1])
    array([1., 4., 8.])
    """
    return column(2.0 ** (np.frexp(group.size)[1] - 1))


def cube(group: Span, distance: int) -> Mask:
    """Return the tiers that a message between r and r xor d may cross; any, where the ranks are no power of two."""
    within = (np.mod(group.inner, 2 * distance) != 0) & (distance < group.members)
    crossed: Mask = group.spanned & (within | (half(group) != group.size)) & (distance < half(group))
    return crossed


def around(group: Span, distance: int) -> Mask:
    """Return the tiers that a message from r to r + d may cross, counted round all ranks."""
    near = np.minimum(distance, group.size - distance)
    crossed: Mask = group.spanned & ((group.members > near) | (group.members == group.size)) & (distance < group.size)
    return crossed


def round_s(group: Span, volume: Column, crossed: Mask) -> Column:
    """Return the seconds of one round: step, latency and transfer of the slowest tier that it crosses."""
    constants = group.rates
    fixed = (crossed * (constants.step_s + constants.latency_s)).max(axis=0)
    return column(fixed + slowest(transfer_s(group, volume * crossed, traffic="pairs")))


def added_rounds(group: Span, volume: Callable[[int], Column], crossed: Crossed = cube) -> Column:
    """Return the seconds of the rounds at distance 1, 2, 4 …, with V(d) bytes per rank each."""
    seconds = np.zeros(np.broadcast_shapes(group.size.shape, np.shape(volume(1))))
    for distance in distances(group):
        seconds = seconds + round_s(group, volume(distance), crossed(group, distance))
    return column(seconds)


def _folded(group: Span, *volumes: Column) -> Column:
    """Return the seconds of rounds between the first neighbours, where the ranks are no power of two."""
    crossed: Mask = group.spanned & (half(group) != group.size)
    return column(sum((round_s(group, volume, crossed) for volume in volumes), start=np.zeros(())))


def recursive_doubling_sum(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of an all-reduce in which partners swap whole buffers: log2 n rounds of S, two more to fold.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> recursive_doubling_sum(1e9, [[8, 6]], (Hop(1e9, 0, IDEAL),))
    array([3., 4.])
    """
    size, group = span(size_bytes, members, path)
    return column(base_s(group) + added_rounds(group, lambda _: size) + _folded(group, size, size))


def rabenseifner(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of recursive halving, then doubling: S/2d twice at each distance d.

    Ranks that are no power of two fold before it (S/2 twice) and after it (S).

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> rabenseifner(1e9, [[8, 6]], (Hop(1e9, 0, IDEAL),))
    array([1.75, 3.5 ])
    """
    size, group = span(size_bytes, members, path)
    folds = _folded(group, size / 2, size / 2, size)
    return column(base_s(group) + 2 * added_rounds(group, lambda distance: size / (2 * distance)) + folds)


def recursive_doubling(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of an all-gather in which partners at distance d swap d pieces of S/n."""
    size, group = span(size_bytes, members, path)
    return column(base_s(group) + added_rounds(group, lambda distance: distance * size / group.size))


def recursive_halving(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of a reduce-scatter by halving; of ranks that are no power of two some carry two pieces.

    V(d) = (d + min(d, n - 2^⌊log2 n⌋)) · S/n, and to fold S before and S/n after.
    """
    size, group = span(size_bytes, members, path)
    piece, extra = size / group.size, group.size - half(group)
    halving = added_rounds(group, lambda distance: (distance + np.minimum(distance, extra)) * piece)
    return column(base_s(group) + halving + _folded(group, size * np.ones_like(piece), piece))


def bruck(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of Bruck's all-gather: min(d, n - d) pieces of S/n at distance d, round all ranks."""
    size, group = span(size_bytes, members, path)
    pieces = added_rounds(group, lambda d: np.clip(np.minimum(d, group.size - d), 0, None) * size / group.size, around)
    return column(base_s(group) + pieces)


def pat(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of PAT with all pieces aggregated: ⌈⌊(n - 1)/d⌋/2⌉ of S/n at distance d, round all ranks."""
    size, group = span(size_bytes, members, path)
    pieces = added_rounds(group, lambda d: np.ceil((group.size - 1) // d / 2) * size / group.size, around)
    return column(base_s(group) + pieces)


def neighbor(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of the neighbour exchange: n/2 rounds, (n - 1)/n · S in all, over the slowest tier."""
    size, group = span(size_bytes, members, path)
    volume = (1 - 1 / group.size) * size * group.spanned
    step = (group.spanned * (group.rates.step_s + group.rates.latency_s)).max(axis=0)
    seconds = slowest(transfer_s(group, volume, traffic="pairs"))
    return column(base_s(group) + group.size / 2 * step + seconds)


def _swing(group: Span, distance: int) -> Mask:
    """Return the tiers that a step of Swing may cross: neighbours in the first, any later."""
    return cube(group, 1) if distance == 1 else np.asarray(group.spanned & (distance < group.size))


def swing(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of Swing's reduce-scatter or all-gather: S/2d in step log2 d, wherever the partner is."""
    size, group = span(size_bytes, members, path)
    return column(base_s(group) + added_rounds(group, lambda distance: size / (2 * distance), _swing))


def swing_sum(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of Swing's all-reduce: a reduce-scatter and an all-gather."""
    size, group = span(size_bytes, members, path)
    return column(base_s(group) + 2 * added_rounds(group, lambda distance: size / (2 * distance), _swing))


def bruck_exchange(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of Bruck's all-to-all: at distance d what has that bit in its way to go, about S/2.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> bruck_exchange(6e9, [6], (Hop(1e9, 0, IDEAL),))
    array(7.)
    """
    size, group = span(size_bytes, members, path)

    def volume(distance: int) -> Column:
        rest = np.clip(np.mod(group.size, 2 * distance) - distance, 0, None)
        return column((group.size // (2 * distance) * distance + rest) * size / group.size)

    return column(base_s(group) + added_rounds(group, volume, around))


def binomial(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of a binomial broadcast or reduce: ⌈log2 n⌉ rounds of S."""
    size, group = span(size_bytes, members, path)
    return column(base_s(group) + added_rounds(group, lambda _: size, around))


def scatter_all_gather(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of a binomial scatter and a ring all-gather (or a ring reduce-scatter and a gather)."""
    size, group = span(size_bytes, members, path)
    scatter = added_rounds(group, lambda d: np.clip(np.minimum(d, group.size - d), 0, None) * size / group.size, around)
    volume = (1 - 1 / group.size) * size / group.inner * group.spanned
    return column(scatter + latency_s(group, ring_steps(group)) + slowest(transfer_s(group, volume)))


def chain(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of a pipelined broadcast or reduce along all ranks, each member of a block using its own port.

    t = base + Σ_l steps_l·(step_l + latency_l) + max_l of the transfer of S/inner_l. The filling of the pipe is left
    out: chunks are as small as it takes.

    Examples
    --------
    >>> from collectives.path import IDEAL, Hop
    >>> print(chain(1e9, [8], (Hop(1e9, 0, IDEAL),)))
    1.0
    """
    size, group = span(size_bytes, members, path)
    volume = size / group.inner * group.spanned
    return column(latency_s(group, ring_steps(group)) + slowest(transfer_s(group, volume)))


def dissemination(size_bytes: ColumnLike, members: ColumnLike, path: Path) -> Column:
    """Return the seconds of a barrier: ⌈log2 n⌉ rounds without bytes."""
    size, group = span(size_bytes, members, path)
    return column(base_s(group) + added_rounds(group, lambda _: 0.0 * size, around))


def power_of_two(members: ColumnLike, path: Path) -> Mask:
    """Return whether the ranks are a power of two.

    >>> power_of_two([[6, 8]], ())
    array([False,  True])
    """
    del path
    size = np.asarray(members, dtype=np.float64)[-1]
    return np.asarray(np.frexp(size)[0] == 0.5)


def even(members: ColumnLike, path: Path) -> Mask:
    """Return whether the ranks are even, or one."""
    del path
    size = np.asarray(members, dtype=np.float64)[-1]
    return np.asarray((np.mod(size, 2) == 0) | (size == 1))
