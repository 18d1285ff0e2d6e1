"""The slowest stage of the best contiguous split, on columns; `parallel.training.layouts` says which layer sits where."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from parallel.priced import total
from topo.columns import Column, ColumnLike, column

_BISECTIONS = 22  # halves the bracket [mean, total] to 2.4e-7 of the total, well below any model error
_SLACK = 1.0 + 1e-12  # sums of equal costs must not miss their own capacity by rounding

Counts = npt.NDArray[np.int64]
Need = tuple[Sequence[Column], Column, Column]
"""What one layer of each kind, the first stage and the last stage take of something that a stage has so much of."""


def _fits(needs: Sequence[Need], capacities: Sequence[Column], counts: Sequence[int], stages: Column) -> np.ndarray:
    """Whether a greedy contiguous fill with those capacities per stage needs at most `stages` stages."""
    rooms = [capacity - first for (_, first, _), capacity in zip(needs, capacities, strict=True)]
    used = np.ones_like(capacities[0])
    for kind, count in enumerate(counts):
        each = [layers[kind] for layers, _, _ in needs]
        here = np.minimum(_most(rooms, each), count)
        rest = count - here
        per_stage = np.maximum(_most(capacities, each), 1.0)
        more = np.ceil(rest / per_stage)
        left = rest - (more - 1.0) * per_stage
        rooms = [
            np.where(rest > 0, capacity - left * cost, room - here * cost)
            for capacity, room, cost in zip(capacities, rooms, each, strict=True)
        ]
        used = used + more
    full = [room < last for (_, _, last), room in zip(needs, rooms, strict=True)]
    return np.asarray(used + np.logical_or.reduce(full) <= stages)


def _most(rooms: Sequence[Column], each: Sequence[Column]) -> Column:
    """Return how many layers fit in what is left of everything."""
    most = np.floor(rooms[0] / each[0])
    for room, size in zip(rooms[1:], each[1:], strict=True):
        most = np.minimum(most, np.floor(room / size))
    return np.asarray(most)


def slowest_stage(
    costs: Sequence[ColumnLike],
    counts: Sequence[int],
    stages: ColumnLike,
    *,
    first: ColumnLike = 0.0,
    last: ColumnLike = 0.0,
    chunks: ColumnLike = 1,
    order: Sequence[int] = (),
    sizes: Sequence[ColumnLike] = (),
    limit: ColumnLike = np.inf,
) -> Column:
    """Return the time of the slowest stage when layers are placed as evenly as whole layers allow.

    Minimises ``max over stages of Σ layer times`` over all contiguous splits of the layer list (`counts[i]` layers of
    `costs[i]` seconds, in order), with `first` seconds (embedding) on the first stage and `last` (head, loss, modules
    for multi-token prediction) on the last. The optimum of a contiguous min-max split is the least capacity for which a
    greedy fill succeeds, found by bisection.

    With several chunks per stage, chunk j of the model sits on stage j mod `stages`. Layers that divide over all chunks
    are split evenly, as Megatron-Core does unless told otherwise; all others are balanced by cost, as recipe authors do
    by hand. As each stage draws its layers from the whole depth of the model, every load of a contiguous split into
    `stages` parts can be had, and that split's optimum is what is returned.

    Parameters
    ----------
    costs : seconds per layer of each kind, each a scalar or column
    counts : layers of each kind
    stages : pipeline stages, at most one per layer
    chunks : virtual stages per stage (vpp)
    order : the kind of each layer from first to last, for even splits; kind after kind where left out
    sizes, limit : bytes of one layer of each kind, and the most that a stage may hold; infinite seconds where none fits

    Examples
    --------
    Five layers of one second on two stages: three beside two.

    >>> round(float(slowest_stage([1.0], [5], 2)), 4)
    3.0

    A head worth two layers evens it out: three beside two and the head … or four layers beside one.

    >>> round(float(slowest_stage([1.0], [5], 2, last=2.0)), 4)
    4.0

    Eight layers in two chunks for each of two stages: four layers each, and the head on top.

    >>> float(slowest_stage([1.0], [8], 2, last=2.0, chunks=2))
    6.0
    """
    layers, first, last, stages = [column(c) for c in costs], column(first), column(last), column(stages)
    whole = first + last + total(c * n for c, n in zip(layers, counts, strict=True))
    heaviest = np.maximum.reduce(np.broadcast_arrays(*layers, first, last))
    whole, low, limit = np.broadcast_arrays(whole, np.maximum(whole / stages, heaviest), column(limit))
    needs: list[Need] = [(layers, first, last)]
    limits = [limit] if len(sizes) else []
    if limits:
        needs.append(([column(s) for s in sizes], column(0.0), column(0.0)))

    def fits(capacity: Column) -> np.ndarray:
        return _fits(needs, [capacity * _SLACK, *limits], counts, stages)

    slow = _least(fits, low, whole)
    if limits:
        held = np.maximum.reduce([column(s) for s in sizes])
        slow = np.where((held <= limit) & fits(whole), slow, np.inf)
    chunks = column(chunks)
    even = (chunks > 1) & (sum(counts) % (stages * chunks) == 0)
    if not np.any(even):
        return slow
    order = tuple(order) or tuple(kind for kind, count in enumerate(counts) for _ in range(count))
    amounts = [[first, last, *layers], *([column(0.0), column(0.0), *needs[1][0]] for _ in limits)]
    return _evenly(slow, even, order, stages, chunks, amounts, limit)


def _least(fits: Callable[[Column], np.ndarray], low: Column, high: Column) -> Column:
    """Return the least capacity that fits, between two."""
    least, low_fits = low, fits(low)
    low, high = low.copy(), high.copy()
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        ok = fits(middle)
        high = np.where(ok, middle, high)
        low = np.where(ok, low, middle)
    return np.where(low_fits, least, high)


@lru_cache(maxsize=1024)
def _even_stages(order: tuple[int, ...], stages: int, chunks: int) -> Counts:
    """Return the different stages of an even split: whether it is the first, the last, and its layers of each kind."""
    kinds = np.array(order).reshape(chunks, stages, -1)
    held = np.zeros((stages, 3 + kinds.max()), dtype=np.int64)
    held[0, 0] = held[-1, 1] = 1
    for kind in range(kinds.max() + 1):
        held[:, 2 + kind] = (kinds == kind).sum(axis=(0, 2))
    return np.asarray(np.unique(held, axis=0))


def _evenly(
    slow: Column,
    even: np.ndarray,
    order: tuple[int, ...],
    stages: Column,
    chunks: Column,
    amounts: Sequence[Sequence[Column]],
    limit: Column,
) -> Column:
    """Put the slowest stage of an even split where the layers divide; `amounts` are seconds, and bytes where limited."""
    shape = np.broadcast_shapes(slow.shape, even.shape)
    out = np.broadcast_to(slow, shape).copy()
    even, stages, chunks, limit = (np.broadcast_to(a, shape) for a in (even, stages, chunks, limit))
    for p, v in set(zip(stages[even].tolist(), chunks[even].tolist(), strict=True)):
        rows = even & (stages == p) & (chunks == v)
        held = _even_stages(order, int(p), int(v))
        loads = [(held @ np.stack([np.broadcast_to(a, shape)[rows] for a in each])).max(axis=0) for each in amounts]
        fits = loads[1] <= limit[rows] if len(loads) > 1 else True
        out[rows] = np.where(fits, loads[0], out[rows])
    return out
