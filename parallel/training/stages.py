"""The slowest stage of the best contiguous split, on columns; `parallel.training.layouts` says which layer sits where."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from parallel.priced import total
from topo.columns import Column, ColumnLike, column

_SLACK = 1.0 + 1e-12  # sums of equal costs must not miss their own capacity by rounding

Counts = npt.NDArray[np.int64]
Need = tuple[Sequence[Column], Column, Column, Column]
"""What one layer of each kind, the first and the last stage take of something, and how much of it a stage has."""


def _filled(needs: Sequence[Need], counts: Sequence[int]) -> tuple[Column, Column]:
    """Fill stages greedily with layers in order; return the stages taken, and the least capacity that fills them otherwise.

    The capacity is that of the first need. Stages are filled otherwise as soon as one of them takes a layer more: the one
    that two kinds share, one full of a single kind, or the last one its end.
    """
    costs, _, end, capacity = needs[0]
    wholes, rooms = [whole for *_, whole in needs], [whole - first for _, first, _, whole in needs]
    used, beyond = np.ones_like(capacity), np.full_like(capacity, np.inf)
    for kind, count in enumerate(counts):
        each, cost = [layers[kind] for layers, *_ in needs], costs[kind]
        (here, next_here), (alone, next_alone) = _most(rooms, each), _most(wholes, each)
        here, alone = np.minimum(here, count), np.maximum(alone, 1.0)
        rest = count - here
        more = np.ceil(rest / alone)
        left = rest - (more - 1.0) * alone
        shared = np.where(rest > 0, capacity - rooms[0] + next_here * cost, np.inf)
        beyond = np.minimum(beyond, np.where(more > 1, np.minimum(shared, next_alone * cost), shared))
        rooms = [
            np.where(rest > 0, whole - left * size, room - here * size)
            for whole, room, size in zip(wholes, rooms, each, strict=True)
        ]
        used = used + more
    full = np.logical_or.reduce([room < last for (_, _, last, _), room in zip(needs, rooms, strict=True)])
    return used + full, np.where(full, np.minimum(beyond, capacity - rooms[0] + end), beyond)


def _most(rooms: Sequence[Column], each: Sequence[Column]) -> tuple[Column, Column]:
    """Return how many layers fit in what is left of everything, and how many would in more of the first; none: infinite."""
    most = np.floor(rooms[0] / each[0])
    following = most + 1.0
    for room, size in zip(rooms[1:], each[1:], strict=True):
        others = np.floor(room / size)
        following = np.where(others > most, following, np.inf)
        most = np.minimum(most, others)
    return most, following


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
    greedy fill succeeds: from a lower bound upwards, the capacity grows to the next that fills the stages otherwise.

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

    >>> float(slowest_stage([1.0], [5], 2))
    3.0

    A head worth two layers evens it out: three beside two and the head … or four layers beside one.

    >>> float(slowest_stage([1.0], [5], 2, last=2.0))
    4.0

    Eight layers in two chunks for each of two stages: four layers each, and the head on top.

    >>> float(slowest_stage([1.0], [8], 2, last=2.0, chunks=2))
    6.0
    """
    slow = balanced_stage(costs, counts, stages, first=first, last=last, sizes=sizes, limit=limit)
    return even_stage(
        slow, costs, counts, stages, first=first, last=last, chunks=chunks, order=order, sizes=sizes, limit=limit
    )


def balanced_stage(
    costs: Sequence[ColumnLike],
    counts: Sequence[int],
    stages: ColumnLike,
    *,
    first: ColumnLike = 0.0,
    last: ColumnLike = 0.0,
    sizes: Sequence[ColumnLike] = (),
    limit: ColumnLike = np.inf,
) -> Column:
    """Return the slowest stage of the best contiguous split; arguments as of `slowest_stage`."""
    kinds = len(costs)
    given = np.broadcast_arrays(*map(column, (stages, first, last, limit, *costs, *sizes)))
    slow = np.full(given[0].size, np.inf)
    held = np.maximum.reduce([np.zeros(given[0].shape), *given[4 + kinds :]]).reshape(-1)
    left = np.flatnonzero(held <= given[3].reshape(-1))  # a stage takes one layer at least
    rows = [each.reshape(-1).take(left) for each in given]
    whole, capacity = _bounds(rows[0], rows[4 : 4 + kinds], counts, rows[1], rows[2])
    while len(left):
        most, start, end, room, *each = rows
        needs: list[Need] = [(each[:kinds], start, end, capacity * _SLACK)]
        if len(sizes):
            needs.append((each[kinds:], np.zeros_like(room), np.zeros_like(room), room))
        used, beyond = _filled(needs, counts)
        fits = used <= most
        slow[left[fits]] = capacity[fits]
        on = np.flatnonzero(~fits & (capacity < whole))
        left, rows = left[on], [row.take(on) for row in rows]
        whole, capacity = whole.take(on), np.minimum(beyond, whole).take(on)
    return column(slow.reshape(given[0].shape))


def _bounds(
    stages: Column, layers: Sequence[Column], counts: Sequence[int], first: Column, last: Column
) -> tuple[Column, Column]:
    """Return the seconds of everything, and a bound from below: the mean, the largest piece, a kind spread evenly."""
    whole = first + last + total(cost * count for cost, count in zip(layers, counts, strict=True))
    spread = (np.ceil(count / stages) * cost for cost, count in zip(layers, counts, strict=True))
    return whole, np.maximum.reduce([whole / stages, *layers, first, last, *spread])


def even_stage(
    slow: Column,
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
    """Return the slowest stage of an even split where the layers divide over several chunks, else `slow`."""
    stages, chunks = column(stages), column(chunks)
    even = (chunks > 1) & (sum(counts) % (stages * chunks) == 0)
    if not np.any(even):
        return slow
    order = tuple(order) or tuple(kind for kind, count in enumerate(counts) for _ in range(count))
    amounts = [[column(first), column(last), *map(column, costs)]]
    if len(sizes):
        amounts.append([column(0.0), column(0.0), *map(column, sizes)])
    return _evenly(slow, even, order, stages, chunks, amounts, column(limit))


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
    out = np.array(np.broadcast_to(slow, shape)).reshape(-1)
    rows = np.flatnonzero(np.broadcast_to(even, shape))

    def mine(values: Column) -> Column:
        return np.broadcast_to(values, shape).reshape(-1).take(rows)

    split, which = np.unique(np.stack([mine(stages), mine(chunks)]), axis=1, return_inverse=True)
    limit, given = mine(limit), [np.stack([mine(values) for values in each]) for each in amounts]
    for group, (p, v) in enumerate(split.T.tolist()):
        here = np.flatnonzero(which == group)
        held = _even_stages(order, int(p), int(v))
        loads = [(held @ each[:, here]).max(axis=0) for each in given]
        fits = loads[1] <= limit[here] if len(loads) > 1 else True
        out[rows[here]] = np.where(fits, loads[0], out[rows[here]])
    return out.reshape(shape)
