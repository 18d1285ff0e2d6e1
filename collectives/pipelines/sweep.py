"""Bubbles of a schedule by execution, for whole columns: each distinct order is made and levelled once."""

import numpy as np

from collectives.pipelines.execute import step_s
from collectives.pipelines.nouns import Costs
from collectives.pipelines.record import Schedule
from topo.columns import Column, ColumnLike, column


def executed_bubble_s(
    schedule: Schedule,
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
    kept: ColumnLike = 1.0,
) -> Column:
    """Return the bubble by execution: once per distinct order, on columns of costs. For `kept` see `Schedule.fit`.

    >>> from collectives.pipelines import SCHEDULES
    >>> print(executed_bubble_s(SCHEDULES["1f1b"], 4, 8, 1, 1.0, 2.0, [0.0, 0.5]))
    [ 9. 17.]
    """
    given = (stages, microbatches, chunks, forward_s, backward_s, hop_s, weight_s, kept)
    rows = np.broadcast_arrays(*map(column, given))
    p, m, v, f, b, c, w, k = (row.reshape(-1) for row in rows)
    v = np.full_like(v, schedule.chunks) if schedule.chunks else v
    out = np.empty(p.size)
    fitted = schedule.fit(p, m, f, b - w, w, c, k) if schedule.fit else ()
    orders, which = np.unique(np.stack([p, m, v, *fitted]).astype(np.int64), axis=1, return_inverse=True)
    for n, numbers in enumerate(orders.T.tolist()):
        mine, order = which == n, schedule.order(*numbers)
        forward, inputs, weight = (x[mine][None] / order.chunks for x in (f, b - w, w))
        costs = Costs(forward, inputs, weight, hop_s=c[mine][None], synchronised=schedule.synchronised)
        out[mine] = step_s(order, costs) - numbers[1] * (f[mine] + b[mine])
    return column(out.reshape(rows[0].shape))
