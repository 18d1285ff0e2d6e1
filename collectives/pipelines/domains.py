"""Where a closed form equals the executed schedule, and which numbers a schedule can run at all.

`Exact` takes the arguments of `bubble_s` and returns true or false per row; `Objection` takes stages, micro-batches and
chunks and returns what is wrong, or nothing.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from collectives.pipelines.orders.looped import group_objection
from topo.columns import Column

Bools = npt.NDArray[np.bool_]
Exact = Callable[[Column, Column, Column, Column, Column, Column, Column], Bools]
Objection = Callable[[int, int, int], str]


def everywhere(p: Column, m: Column, v: Column, f: Column, b: Column, c: Column, w: Column) -> Bools:
    """Any numbers."""
    return np.ones(np.broadcast_shapes(*(x.shape for x in (p, m, v, f, b, c, w))), dtype=bool)


def nowhere(p: Column, m: Column, v: Column, f: Column, b: Column, c: Column, w: Column) -> Bools:
    """There is no closed form; the bubble is executed."""
    return np.asarray(~everywhere(p, m, v, f, b, c, w))


def short_hops(p: Column, m: Column, v: Column, f: Column, b: Column, c: Column, w: Column) -> Bools:
    """Interleaved: no hop outlasts a chunk, m a multiple of p; or one chunk."""
    return np.asarray(
        everywhere(p, m, v, f, b, c, w) & ((v == 1) | (p == 1) | ((c * v <= np.minimum(f, b)) & (m % p == 0)))
    )


def past_stages(p: Column, m: Column, v: Column, f: Column, b: Column, c: Column, w: Column) -> Bools:
    """ZB-H1: more micro-batches than stages."""
    return np.asarray(everywhere(p, m, v, f, b, c, w) & ((m > p) | (p == 1)))


def past_double(p: Column, m: Column, v: Column, f: Column, b: Column, c: Column, w: Column) -> Bools:
    """ZB-H2: at least two micro-batches per stage."""
    return np.asarray(everywhere(p, m, v, f, b, c, w) & ((m >= 2 * p) | (p == 1)))


def level_work(p: Column, m: Column, v: Column, f: Column, b: Column, c: Column, w: Column) -> Bools:
    """ZB-V: W ≤ F ≤ I, hops within (F + W)/2, at least 2p - 1 micro-batches."""
    near = (w <= f) & (f <= b - w) & (2 * c <= f + w) & (m >= 2 * p - 1)
    return np.asarray(everywhere(p, m, v, f, b, c, w) & (near | (p == 1)))


def dualpipe_hops(p: Column, m: Column, v: Column, f: Column, b: Column, c: Column, w: Column) -> Bools:
    """DualPipe: hops within I/2, or I ≥ F."""
    return np.asarray(everywhere(p, m, v, f, b, c, w) & ((2 * c <= b - w) | (f <= b - w)))


def dualpipe_v_hops(p: Column, m: Column, v: Column, f: Column, b: Column, c: Column, w: Column) -> Bools:
    """DualPipeV: I ≥ F, and I ≥ W or hops within I/4; else hops within a quarter of I, W and F - I."""
    i = b - w
    behind = (f <= i) & ((w <= i) | (4 * c <= i))
    ahead = 4 * c <= np.minimum(np.minimum(i, w), f - i)
    return np.asarray(everywhere(p, m, v, f, b, c, w) & (behind | ahead | (c == 0) | (p == 1)))


def any_numbers(stages: int, microbatches: int, chunks: int) -> str:
    """Return no objection."""
    del stages, microbatches, chunks
    return ""


def whole_groups(stages: int, microbatches: int, chunks: int) -> str:
    """Return what is wrong unless m is a multiple of p.

    >>> whole_groups(4, 6, 2), whole_groups(4, 8, 2)
    ('the last group of 2 micro-batches must be 0 or at least the 4 stages', '')
    """
    return group_objection(stages, microbatches, chunks)


def paired_ranks(stages: int, microbatches: int, chunks: int) -> str:
    """Return what is wrong unless p is even, and m even and at least 2p.

    >>> paired_ranks(3, 5, 1), paired_ranks(4, 8, 1)
    ('needs an even number of stages, and an even number of micro-batches, at least two per stage', '')
    """
    del chunks
    fits = stages % 2 == 0 and microbatches % 2 == 0 and microbatches >= 2 * stages
    return "" if fits else "needs an even number of stages, and an even number of micro-batches, at least two per stage"


def two_per_stage(stages: int, microbatches: int, chunks: int) -> str:
    """Return what is wrong unless m is at least 2p.

    >>> two_per_stage(4, 7, 2), two_per_stage(4, 8, 2)
    ('needs at least two micro-batches per stage', '')
    """
    del chunks
    return "" if microbatches >= 2 * stages else "needs at least two micro-batches per stage"


def whole_units(stages: int, microbatches: int, chunks: int) -> str:
    """Return what is wrong unless p is even and m a multiple of p.

    >>> whole_units(3, 6, 1), whole_units(4, 8, 1)
    ('needs an even number of stages, and micro-batches in multiples of it', '')
    """
    del chunks
    fits = stages % 2 == 0 and microbatches % stages == 0
    return "" if fits else "needs an even number of stages, and micro-batches in multiples of it"
