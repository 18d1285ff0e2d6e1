"""Interleaved chunks of unequal layers: how they are dealt, and what the executed schedule takes beyond its closed form.

The closed form takes all chunks of a stage to be alike. Where the layers do not divide over the chunks, some chunks hold a
layer more than others. Forwards and backwards wrap round the stages with less than two micro-batches to spare, so the stages
run nearly in step, and a long chunk on one of them holds up the others at once, even where every stage as a whole has
the same work. What that costs depends on the whole layers of each chunk, hardly on their seconds: a placement is executed once,
in eighths of a layer and with backwards twice as long as forwards, and remembered.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import Final

import numpy as np
import numpy.typing as npt

from collectives.pipelines import interleaved_step_s
from parallel.training.layouts import Counts, Layout, chunk_times, of_sizes
from parallel.training.stages import slowest_stage
from topo.columns import Column

GRID: Final = 8
"""Parts of the heaviest layer in which the times of other layers and of the last stage's end are told apart."""
FORWARD: Final = 1.0 / 3.0
"""Share of forward in a layer's time. Between 1/4 (full recomputation) and 2/5 the step changes by less than 1 %."""
ROUNDS: Final = (1, 2, 3)
"""Rounds of p micro-batches that are executed; each further round takes as long as the third."""
_PAGE = 32  # ends that are executed together

Bools = npt.NDArray[np.bool_]


def uneven(layers: int, stages: Column, chunks: Column) -> Bools:
    """Whether several chunks on several stages cannot all hold the same number of layers.

    >>> uneven(126, np.array([16, 9, 8]), np.array([7, 7, 1])).tolist()
    [True, False, False]
    """
    return np.asarray((chunks > 1) & (stages > 1) & (layers % (stages * chunks) != 0))


def dealt(layers: int, stages: int, chunks: int, end: float = 0.0) -> Counts:
    """Return the layers of each virtual stage, (chunks, stages), the last stage's end weighing as much as `end` layers.

    The last stage takes fewer layers for its end, the others share the rest; early stages, which hold the most
    activations, have one less where it does not divide. A stage's odd layers lie in its last chunks, on all stages in the
    same ones, so that long chunks meet; what the last stage lacks is missing before the end.

    Examples
    --------
    >>> dealt(14, 4, 3).tolist()
    [[1, 1, 1, 1], [1, 1, 1, 1], [1, 2, 2, 1]]
    >>> dealt(61, 4, 2, end=2.5).tolist()
    [[8, 8, 8, 8], [8, 8, 8, 5]]
    """
    last = np.arange(layers // stages + 1)
    slowest = np.maximum(np.ceil((layers - last) / (stages - 1)), last + end)
    return _dealt(layers, stages, chunks, int(last[slowest == slowest.min()][-1]))


@lru_cache(maxsize=4096)
def _dealt(layers: int, stages: int, chunks: int, last_stage: int) -> Counts:
    """Deal the layers, so many of them to the last stage."""
    share, odd = divmod(layers - last_stage, stages - 1)
    others = share + (np.arange(stages - 1) >= stages - 1 - odd)
    counts = others // chunks + (np.arange(chunks)[:, None] >= chunks - others % chunks)
    widest = counts.max(axis=1)[::-1]
    before = np.concatenate([[0], np.cumsum(widest)[:-1]])
    lacking = np.clip(widest.sum() - last_stage - before, 0, widest)
    return np.asarray(np.column_stack([counts, (widest - lacking)[::-1]]))


def eighths(layers: Sequence[Column], end: Column) -> Counts:
    """Return the times of each kind of layer, 1 or more, and of the last stage's end in `GRID` parts of the heaviest layer.

    >>> eighths([np.array([1.0, 4.0]), np.array([2.0, 4.0])], np.array([3.0, 2.4])).tolist()
    [[4, 8], [8, 8], [12, 5]]
    """
    heaviest = np.maximum.reduce(list(layers))
    parts = np.rint(GRID * np.stack([*layers, end]) / heaviest).astype(np.int64)
    return np.concatenate([np.maximum(parts[:-1], 1), parts[-1:]])


def layout(order: Sequence[int], parts: Sequence[int], stages: int, chunks: int, mtp: int = 0) -> Layout:
    """Return where layers sit whose times, and that of the end, are `parts` of `eighths`.

    >>> print(layout((0,) * 14, (8, 4), 4, 3))
    Et|(t|)*8tt|tt|tL
    """
    return of_sizes(dealt(len(order), stages, chunks, parts[-1] / GRID).ravel().tolist(), stages, mtp)


@lru_cache(maxsize=4096)
def stretch(order: tuple[int, ...], layers: tuple[int, ...], page: int, stages: int, chunks: int) -> Column:
    """Return what one, two and three rounds take beyond the closed form, in work of a micro-batch, for 32 ends at once.

    The closed form is ``m·slowest stage + (p − 1)·mean of the other stages/v``; a round is p micro-batches.

    Parameters
    ----------
    order : the kind of each layer (`parallel.shapes.layer_order`)
    layers : time of each kind in eighths of the heaviest
    page : ends of ``32·page`` eighths and more
    stages, chunks : p and v

    Returns
    -------
    shares, (rounds, ends)

    Examples
    --------
    Sixteen layers fit evenly on four chunks of four stages. With three chunks, one of each stage's holds two layers; every
    further round takes 4/3 of a layer's time beyond the sixteen layers of a stage:

    >>> bool(stretch((0,) * 16, (8,), 0, 4, 4)[:, 0].round(9).any())
    False
    >>> one, two, three = stretch((0,) * 16, (8,), 0, 4, 3)[:, 0]
    >>> float(round(16 * (three - two), 9))
    1.333333333
    """
    ends = range(_PAGE * page, _PAGE * (page + 1))
    each = [float(part) for part in layers]
    alike = groupby(ends, key=lambda end: layout(order, (*layers, end), stages, chunks))
    times = np.hstack([chunk_times(held, order, each, last=list(some)) for held, some in alike])
    ahead, back = times * FORWARD, times * (1.0 - FORWARD)
    counts, last = [order.count(kind) for kind in range(len(layers))], np.array(ends, dtype=np.float64)
    slow = slowest_stage(each, counts, stages, last=last, chunks=chunks, order=order)
    work = times.sum(axis=0)
    steps = np.stack([interleaved_step_s(stages, n * stages, chunks, ahead, back) for n in ROUNDS])
    closed = stages * np.outer(ROUNDS, slow) + (work - slow) / chunks
    return np.asarray((steps - closed) / work)


def stretched(
    order: tuple[int, ...], layers: Sequence[Column], end: Column, stages: Column, chunks: Column, microbatches: Column
) -> Column:
    """Return what each row takes beyond the closed form, in work of a micro-batch; each distinct placement is executed once.

    Nought where the layers divide over the chunks. Micro-batches between whole rounds are interpolated.

    Parameters
    ----------
    layers, end : seconds of one layer of each kind, and of the last stage's end
    """
    out = np.zeros(stages.shape)
    rows = np.flatnonzero(uneven(len(order), stages, chunks))
    if not rows.size:
        return out
    *parts, ends = eighths([seconds[rows] for seconds in layers], end[rows])
    page, line = np.divmod(ends, _PAGE)
    keys = (stages[rows].astype(np.int64), chunks[rows].astype(np.int64), page, *parts)
    shape = tuple(int(key.max()) + 1 for key in keys)
    found, which = np.unique(np.ravel_multi_index(keys, shape), return_inverse=True)
    places = zip(*(key.tolist() for key in np.unravel_index(found, shape)), strict=True)
    told = np.stack([stretch(order, tuple(each), sheet, p, v) for p, v, sheet, *each in places])
    out[rows] = between_rounds(microbatches[rows] / stages[rows], told[which, :, line].T)
    return out


def between_rounds(rounds: Column, beyond: Column) -> Column:
    """Return what any number of rounds takes from what `ROUNDS` take, (rounds, rows): linear between and after them.

    >>> between_rounds(np.array([1.5, 5.0]), np.array([[1.0, 1.0], [3.0, 3.0], [4.0, 4.0]])).tolist()
    [2.0, 6.0]
    """
    one, two, three = beyond
    return np.asarray(np.where(rounds < 2.0, two - (2.0 - rounds) * (two - one), two + (rounds - 2.0) * (three - two)))
