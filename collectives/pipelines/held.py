"""Closed forms of the most activations a stage holds, in micro-batches of a whole stage (all of its chunks).

Every form shares one signature, and equals the count of the schedule's order where `Schedule.objection` has nothing to say;
for an order fitted to its costs (`Schedule.fit`) it is the limit.
"""

import numpy as np

from topo.columns import Column, ColumnLike, column


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


def eager_in_flight(stages: ColumnLike, microbatches: ColumnLike, chunks: ColumnLike, stage: ColumnLike) -> Column:
    """Return min(m, 2(p - i) - 1) at stage i.

    >>> print(eager_in_flight(4, 8, 1, [0, 3]))
    [7. 1.]
    """
    del chunks
    return column(np.minimum(column(microbatches), 2 * (column(stages) - column(stage)) - 1))


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


def zb_h1_in_flight(stages: ColumnLike, microbatches: ColumnLike, chunks: ColumnLike, stage: ColumnLike) -> Column:
    """Return min(m, p) at every stage, counting what waits for its weight gradient. Source: arXiv 2401.10241.

    >>> print(zb_h1_in_flight(4, 8, 1, 3))
    4.0
    """
    del chunks
    return column(np.minimum(column(microbatches), column(stages)) + 0.0 * column(stage))


def zb_h2_in_flight(stages: ColumnLike, microbatches: ColumnLike, chunks: ColumnLike, stage: ColumnLike) -> Column:
    """Return min(m, 2p - 1) at every stage. Source: arXiv 2401.10241.

    >>> print(zb_h2_in_flight(4, 8, 1, 3))
    7.0
    """
    del chunks
    return column(np.minimum(column(microbatches), 2 * column(stages) - 1) + 0.0 * column(stage))


def zb_2p_in_flight(stages: ColumnLike, microbatches: ColumnLike, chunks: ColumnLike, stage: ColumnLike) -> Column:
    """Return min(m, 2p) at every stage: the limit the order is fitted to. Source: arXiv 2401.10241.

    >>> print(zb_2p_in_flight(4, 12, 1, 3))
    8.0
    """
    del chunks
    return column(np.minimum(column(microbatches), 2 * column(stages)) + 0.0 * column(stage))


def dualpipe_in_flight(stages: ColumnLike, microbatches: ColumnLike, chunks: ColumnLike, stage: ColumnLike) -> Column:
    """Return p + 1 at every stage, of both directions together. Source: deepseek-ai/DualPipe README.

    >>> print(dualpipe_in_flight(8, 20, 1, 0))
    9.0
    """
    del chunks
    return column(column(stages) + 1 + 0.0 * (column(stage) + column(microbatches)))


def dualpipe_v_in_flight(stages: ColumnLike, microbatches: ColumnLike, chunks: ColumnLike, stage: ColumnLike) -> Column:
    """Return p + 1/2 at every stage: DualPipe's 2p + 1 chunks, two to a stage. Source: deepseek-ai/DualPipe README.

    >>> print(dualpipe_v_in_flight(4, 10, 2, 0))
    4.5
    """
    del chunks
    return column(column(stages) + 0.5 + 0.0 * (column(stage) + column(microbatches)))


def chimera_in_flight(stages: ColumnLike, microbatches: ColumnLike, chunks: ColumnLike, stage: ColumnLike) -> Column:
    """Return p/2 + 1 + min(i, p - 1 - i): p/2 + 1 at the ends, p in the middle. Source: arXiv 2107.06925.

    >>> print(chimera_in_flight(4, 8, 1, [0, 1, 2, 3]))
    [3. 4. 4. 3.]
    """
    del chunks
    p, i = column(stages), column(stage)
    return column(p / 2 + 1 + np.minimum(i, p - 1 - i) + 0.0 * column(microbatches))


def nothing_held(stages: ColumnLike, microbatches: ColumnLike, chunks: ColumnLike, stage: ColumnLike) -> Column:
    """Return 1: without a backward a micro-batch's activations are free after its forward.

    >>> print(nothing_held(4, 8, 1, 0))
    1.0
    """
    del chunks
    return column(1.0 + 0.0 * (column(stages) + column(microbatches) + column(stage)))
