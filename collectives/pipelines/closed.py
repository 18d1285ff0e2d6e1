"""Closed forms of the bubble for schedules with whole backwards: what a step takes beyond the work of one stage.

Every form shares one signature. `forward_s` and `backward_s` are one micro-batch through one whole stage (all of its
chunks), equal on every stage; `weight_s` is the part of the backward that the weights' gradients take; `hop_s` moves a
micro-batch's activations or gradients to the next virtual stage while both sides go on working. Arguments are scalars or
columns.

The forms were found as the longest path's gradient in (F, B_input, W, c) and are proven against the executed schedule over
random p, m, v and costs. `Schedule.exact` says where each holds; elsewhere `bubble_s` executes.
"""

import numpy as np

from topo.columns import Column, ColumnLike, column


def gpipe_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
) -> Column:
    """Return (p - 1)(F + B) + 2(p - 1)c: all forwards, then all backwards; each way is filled and crossed once.

    Source: Huang et al. 2019 (GPipe) §2.3; hops by longest path.

    Examples
    --------
    >>> print(gpipe_bubble_s(4, 8, 1, 1.0, 2.0, 0.5))
    12.0
    """
    del chunks, weight_s
    p, m, work, c = _columns(stages, microbatches, forward_s, backward_s, hop_s)
    return column(np.broadcast_to((p - 1) * (work + 2 * c), np.broadcast_shapes(p.shape, m.shape, work.shape, c.shape)))


def one_f_one_b_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
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
    del chunks, weight_s
    p, m, work, c = _columns(stages, microbatches, forward_s, backward_s, hop_s)
    trips = (p - 1) + (m - 1) - np.ceil((m - 1) / p)
    return column((p - 1) * work + 2 * c * trips)


def eager_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
) -> Column:
    """Return (p - 1)(F + B + 2c) + n·max(0, 2c - F - B): a hop is free until a round trip outlasts a period.

    A round trip over j boundaries brings stage i on by 2j + 1 micro-batches, in j(2c - F - B) more than their work;
    m - 1 micro-batches have room for n = (p - 1)·q + max(0, ⌊(r - 1)/2⌋) boundaries, q and r being quotient and rest of
    (m - 1)/(2p - 1). Exact for every m, p and c.
    Source: Zhuang et al. 2023 (arXiv 2211.05322) for the order; form by longest path.

    Examples
    --------
    Four stages, 8 micro-batches, short and long hops: 3·4, and 3·11 + 3·(8 - 3).

    >>> print(eager_bubble_s(4, 8, 1, 1.0, 2.0, [0.5, 4.0]))
    [12. 48.]
    """
    del chunks, weight_s
    p, m, work, c = _columns(stages, microbatches, forward_s, backward_s, hop_s)
    return column((p - 1) * (work + 2 * c) + wide_trips(p, m) * np.maximum(0.0, 2 * c - work))


def wide_trips(stages: Column, microbatches: Column) -> Column:
    """Return the boundaries that round trips cross while m - 1 micro-batches pass, two and one more per boundary.

    >>> print(wide_trips(column(4), column([8, 12])))
    [3. 4.]
    """
    whole, rest = np.divmod(microbatches - 1, 2 * stages - 1)
    return column(whole * (stages - 1) + np.maximum(0, (rest - 1) // 2))


def interleaved_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
) -> Column:
    """Return (p - 1)(F + B)/v + 2(pv - 1)c for short hops, more once a hop outlasts a chunk; 1F1B where v = 1.

    The deeper warm-up hides all but one round trip through the pv chunks while c ≤ min(F, B)/v: exact there for m a
    multiple of p (which the schedule needs). Beyond, the larger of two lower bounds of the longest path:
    (m - p)(v - 1)(c - min(F, B)/v) more, or one round trip per 2p micro-batches, ½(m/p + 1)·[p(F + B) + 2(pv - 1)c].
    Random cases put them at most 16 % of the step below the exact schedule; `bubble_s` executes those.
    Source: Narayanan et al. 2021 (arXiv 2104.04473) §2.2; hops by longest path.

    Examples
    --------
    >>> print(interleaved_bubble_s(4, 8, 2, 1.0, 2.0, 0.5))
    11.5
    """
    del weight_s
    p, m, work, c = _columns(stages, microbatches, forward_s, backward_s, hop_s)
    v = column(chunks)
    shorter = np.minimum(column(forward_s), column(backward_s))
    once = (p - 1) * work / v + 2 * (p * v - 1) * c
    late = once + np.maximum(m - p, 0) * (v - 1) * np.maximum(c - shorter / v, 0.0)
    trips = 0.5 * (m / p + 1) * (p * work + 2 * (p * v - 1) * c) - m * work
    plain = one_f_one_b_bubble_s(stages, microbatches, chunks, forward_s, backward_s, hop_s)
    piped = np.where(m >= p, np.maximum(late, trips), once)
    return column(np.where(p > 1, np.where(v > 1, piped, plain), 0.0))


def breadth_first_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
) -> Column:
    """Return (p - 1)(F + B + 2cv)/v, and what each loop lacks where m micro-batches do not cover the way round.

    Each way takes, per chunk time x = F/v or B/v, (p - 1)(x + c) + mx + (v - 1)·max(mx, p(x + c)): a loop ends when the
    first micro-batch has been round. Exact for every m, p, v and c.
    Source: Lamy-Poirier 2023 (arXiv 2211.05953); hops by longest path.

    Examples
    --------
    >>> print(breadth_first_bubble_s(4, 8, 2, 1.0, 2.0, 0.5))
    7.5
    """
    del weight_s
    p, m, v, c = column(stages), column(microbatches), column(chunks), column(hop_s)
    bubble: Column = column(0.0)
    for whole in (column(forward_s), column(backward_s)):
        x = whole / v
        round_s = np.where(p > 1, np.maximum(p * (x + c) - m * x, 0.0), 0.0)
        bubble = bubble + (p - 1) * (x + c) + (v - 1) * round_s
    return column(bubble)


def prefill_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
) -> Column:
    """Return (p - 1)(F + c): the stream of prefills fills the pipeline once. A single one takes pF + (p - 1)c.

    >>> print(prefill_bubble_s(4, 8, 1, 1.0, 0.0, 0.5))
    4.5
    """
    del chunks, backward_s, weight_s
    p, m, forward, c = _columns(stages, microbatches, forward_s, 0.0, hop_s)
    return column((p - 1) * (forward + c) + 0.0 * m)


def decode_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
) -> Column:
    """Return max(0, p(F + c) - mF), per token: a micro-batch's next token waits until it has been round.

    No bubble from m = p(1 + c/F) micro-batches; the token's own latency is max(mF, p(F + c)).

    >>> print(decode_bubble_s(4, [4, 8], 1, 1.0, 0.0, 0.5))
    [2. 0.]
    """
    del chunks, backward_s, weight_s
    p, m, forward, c = _columns(stages, microbatches, forward_s, 0.0, hop_s)
    return column(np.where(p > 1, np.maximum(0.0, p * (forward + c) - m * forward), 0.0))


def _columns(
    stages: ColumnLike, microbatches: ColumnLike, forward_s: ColumnLike, backward_s: ColumnLike, hop_s: ColumnLike
) -> tuple[Column, Column, Column, Column]:
    """Return p, m, F + B and c as columns."""
    return column(stages), column(microbatches), column(forward_s) + column(backward_s), column(hop_s)
