"""Which layer sits on which pipeline stage: the smallest possible slowest stage of a contiguous split."""

from collections.abc import Sequence

import numpy as np

from parallel.priced import total
from topo.columns import Column, ColumnLike, column

_BISECTIONS = 22  # halves the bracket [mean, total] to 2.4e-7 of the total, well below any model error


def _fits(
    costs: Sequence[Column], counts: Sequence[int], first: Column, last: Column, stages: Column, capacity: Column
) -> np.ndarray:
    """Whether a greedy contiguous fill with that capacity per stage needs at most `stages` stages."""
    room = capacity - first
    used = np.ones_like(capacity)
    for cost, count in zip(costs, counts, strict=True):
        here = np.minimum(np.floor(room / cost), count)
        rest = count - here
        per_stage = np.maximum(np.floor(capacity / cost), 1.0)
        more = np.ceil(rest / per_stage)
        room = np.where(rest > 0, capacity - (rest - (more - 1.0) * per_stage) * cost, room - here * cost)
        used = used + more
    used = used + (room < last)
    return np.asarray(used <= stages)


def slowest_stage(
    costs: Sequence[ColumnLike],
    counts: Sequence[int],
    stages: ColumnLike,
    *,
    first: ColumnLike = 0.0,
    last: ColumnLike = 0.0,
) -> Column:
    """Return the time of the slowest stage when layers are placed as evenly as whole layers allow.

    Minimises ``max over stages of Σ layer times`` over all contiguous splits of the layer list (`counts[i]` layers of
    `costs[i]` seconds, in order), with `first` seconds (embedding) on the first stage and `last` (head, loss) on the last.
    The optimum of a contiguous min-max split is the least capacity for which a greedy fill succeeds, found by bisection.

    Parameters
    ----------
    costs : seconds per layer of each kind, each a scalar or column
    counts : layers of each kind
    stages : pipeline stages, at most one per layer

    Examples
    --------
    Five layers of one second on two stages: three beside two.

    >>> round(float(slowest_stage([1.0], [5], 2)), 4)
    3.0

    A head worth two layers evens it out: three beside two and the head … or four layers beside one.

    >>> round(float(slowest_stage([1.0], [5], 2, last=2.0)), 4)
    4.0
    """
    layers, first, last, stages = [column(c) for c in costs], column(first), column(last), column(stages)
    whole = first + last + total(c * n for c, n in zip(layers, counts, strict=True))
    heaviest = np.maximum.reduce(np.broadcast_arrays(*layers, first, last))
    whole, low = np.broadcast_arrays(whole, np.maximum(whole / stages, heaviest))
    high, low = whole.copy(), low.copy()
    slack = 1.0 + 1e-12  # sums of equal costs must not miss their own capacity by rounding
    low_fits = _fits(layers, counts, first, last, stages, low * slack)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        ok = _fits(layers, counts, first, last, stages, middle * slack)
        high = np.where(ok, middle, high)
        low = np.where(ok, low, middle)
    return np.where(low_fits, np.maximum(whole / stages, heaviest), high)
