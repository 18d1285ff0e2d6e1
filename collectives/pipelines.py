"""Pipeline schedules: what the bubble and the hops between stages add, and how many activations are held.

`forward_s` and `backward_s` are one micro-batch through one whole stage (all of its chunks), the same on every stage. A
stage works microbatches · (forward_s + backward_s) in any schedule; the bubble is what the step takes beyond that.
A hop moves a micro-batch's activations (or gradients) to the next (chunk of a) stage in `hop_s`, and both stages go on
working meanwhile.

The closed forms equal the longest path through the schedule's order of work, hops included.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from topo.columns import Column, ColumnLike, column


def gpipe_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
) -> Column:
    """Return (p - 1)(F + B) + 2(p - 1)c: all forwards, then all backwards; each way is filled and crossed once.

    Source: Huang et al. 2019 (GPipe) §2.3; hops by longest path.

    Examples
    --------
    >>> print(gpipe_bubble_s(4, 8, 1, 1.0, 2.0, 0.5))
    12.0
    """
    del chunks
    p, m, work, c = _columns(stages, microbatches, forward_s, backward_s, hop_s)
    return column(np.broadcast_to((p - 1) * (work + 2 * c), np.broadcast_shapes(p.shape, m.shape, work.shape, c.shape)))


def one_f_one_b_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
) -> Column:
    """Return (p - 1)(F + B) + 2c·[(p - 1) + (m - 1) - ⌈(m - 1)/p⌉]: nearly every micro-batch pays a round trip.

    Stage i holds at most p - i micro-batches, so a stage cannot run ahead to hide a hop. For m a multiple of p the
    second part is the 2c·(m(p - 1)/p - 1) of the steady state. Exact for every m, p and c.
    Source: Narayanan et al. 2021 (arXiv 2104.04473) §2.2; hops by longest path.

    Examples
    --------
    Four stages, 8 micro-batches: 3·3 + 2·0.5·(3 + 7 - 2).

    >>> print(one_f_one_b_bubble_s(4, 8, 1, 1.0, 2.0, 0.5))
    17.0
    """
    del chunks
    p, m, work, c = _columns(stages, microbatches, forward_s, backward_s, hop_s)
    trips = (p - 1) + (m - 1) - np.ceil((m - 1) / p)
    return column((p - 1) * work + 2 * c * trips)


def interleaved_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
) -> Column:
    """Return (p - 1)(F + B)/v + 2(pv - 1)c for short hops, more once a hop outlasts a chunk; 1F1B where v = 1.

    The deeper warm-up hides all but one round trip through the pv chunks while c ≤ min(F, B)/v: exact there for m a
    multiple of p (which the schedule needs). Beyond, the larger of two lower bounds of the longest path:
    (m - p)(v - 1)(c - min(F, B)/v) more, or one round trip per 2p micro-batches, ½(m/p + 1)·[p(F + B) + 2(pv - 1)c].
    Random cases put them at most 16 % of the step below the exact schedule.
    Source: Narayanan et al. 2021 (arXiv 2104.04473) §2.2; hops by longest path.

    Examples
    --------
    >>> print(interleaved_bubble_s(4, 8, 2, 1.0, 2.0, 0.5))
    11.5
    """
    p, m, work, c = _columns(stages, microbatches, forward_s, backward_s, hop_s)
    v = column(chunks)
    shorter = np.minimum(column(forward_s), column(backward_s))
    once = (p - 1) * work / v + 2 * (p * v - 1) * c
    late = once + np.maximum(m - p, 0) * (v - 1) * np.maximum(c - shorter / v, 0.0)
    trips = 0.5 * (m / p + 1) * (p * work + 2 * (p * v - 1) * c) - m * work
    plain = one_f_one_b_bubble_s(stages, microbatches, chunks, forward_s, backward_s, hop_s)
    piped = np.where(m >= p, np.maximum(late, trips), once)
    return column(np.where(p > 1, np.where(v > 1, piped, plain), 0.0))


def _columns(
    stages: ColumnLike, microbatches: ColumnLike, forward_s: ColumnLike, backward_s: ColumnLike, hop_s: ColumnLike
) -> tuple[Column, Column, Column, Column]:
    """Return p, m, F + B and c as columns."""
    return column(stages), column(microbatches), column(forward_s) + column(backward_s), column(hop_s)


def gpipe_in_flight(stages: ColumnLike, microbatches: ColumnLike, chunks: ColumnLike, stage: ColumnLike) -> Column:
    """Return m: every micro-batch's activations wait for the first backward.

    >>> print(gpipe_in_flight(4, 8, 1, 0))
    8.0
    """
    del chunks
    return np.broadcast_arrays(column(microbatches), column(stages), column(stage))[0]


def one_f_one_b_in_flight(
    stages: ColumnLike, microbatches: ColumnLike, chunks: ColumnLike, stage: ColumnLike
) -> Column:
    """Return min(m, p - i) at stage i.

    >>> print(one_f_one_b_in_flight(4, 8, 1, 1))
    3.0
    """
    del chunks
    return column(np.minimum(column(microbatches), column(stages) - column(stage)))


def interleaved_in_flight(
    stages: ColumnLike, microbatches: ColumnLike, chunks: ColumnLike, stage: ColumnLike
) -> Column:
    """Return min(m, [(v - 1)p + 2(p - i - 1) + 1]/v) at stage i, in micro-batches of a whole stage; 1F1B where v = 1.

    At stage 0 this is p·(1 + (p - 1)/(pv)). Source: Korthikanti et al. 2022 (arXiv 2205.05198) §4.2.3.

    >>> print(interleaved_in_flight(4, 8, 2, 0))
    5.5
    """
    p, v, i = column(stages), column(chunks), column(stage)
    warm = np.minimum(column(microbatches), ((v - 1) * p + 2 * (p - i - 1) + 1) / v)
    return column(np.where((v > 1) & (p > 1), warm, one_f_one_b_in_flight(stages, microbatches, chunks, stage)))


@dataclass(frozen=True, slots=True)
class Schedule:
    """One order of forwards and backwards: its bubble, the activations it holds, and its point-to-point messages.

    `bubble_s(stages, microbatches, chunks, forward_s, backward_s, hop_s)` in seconds;
    `in_flight(stages, microbatches, chunks, stage)` in micro-batches of a whole stage.

    Examples
    --------
    >>> SCHEDULES["1f1b"].note
    'one forward, one backward; fewest activations'
    """

    bubble_s: Callable[[ColumnLike, ColumnLike, ColumnLike, ColumnLike, ColumnLike, ColumnLike], Column]
    in_flight: Callable[[ColumnLike, ColumnLike, ColumnLike, ColumnLike], Column]
    note: str
    source: str


SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        "gpipe": Schedule(gpipe_bubble_s, gpipe_in_flight, "all forwards, then all backwards", "arXiv 1811.06965"),
        "1f1b": Schedule(
            one_f_one_b_bubble_s,
            one_f_one_b_in_flight,
            "one forward, one backward; fewest activations",
            "arXiv 2104.04473",
        ),
        "interleaved": Schedule(
            interleaved_bubble_s,
            interleaved_in_flight,
            "1F1B over several chunks per stage; a smaller bubble, more messages",
            "arXiv 2104.04473",
        ),
    }
)
"""Schedule → bubble and activations. Tests, documents and `podscale list schedules` iterate over it."""
