"""Interleaved 1F1B on unequal virtual stages: exact like `execute`, for many sets of costs at once, without a graph."""

import numpy as np

from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError


def interleaved_step_s(
    stages: int, microbatches: int, chunks: int, forward_s: ColumnLike, backward_s: ColumnLike
) -> Column:
    """Return the step of interleaved 1F1B without hops.

    Stage i does its k-th forward in slot k + i and its k-th backward in slot k + (p - 1 - i) + (p - 1) + (v - 1)p, forwards
    first: that is its order, and everything that an action waits for lies in an earlier slot. It is always the neighbour's
    action of the slot before, forward of stage i - 1 or backward of stage i + 1, round the ends as well, where a
    micro-batch enters its next chunk. So one row of times each way suffices.

    Parameters
    ----------
    microbatches, chunks : a multiple of the stages; two or more
    forward_s, backward_s : seconds of one micro-batch on each virtual stage, (virtual stages, *columns)

    Raises
    ------
    SpecError
        The schedule does not run with these numbers.

    Examples
    --------
    Two stages, two micro-batches, two chunks, the last of which is twice as long:

    >>> print(interleaved_step_s(2, 2, 2, [1.0, 1.0, 1.0, 2.0], [2.0, 2.0, 2.0, 4.0]))
    21.0
    """
    if microbatches % stages or chunks < 2:
        problem = "are no whole rounds of two or more chunks"
        raise SpecError([Fault("microbatches, chunks", (microbatches, chunks), problem, "see `execute` for others")])
    p, v, jobs = stages, chunks, microbatches * chunks
    ahead, back = (np.asarray(times, dtype=np.float64) for times in (forward_s, backward_s))
    shape = ahead.shape[1:]
    ahead, back = ahead.reshape(v, p, -1), back.reshape(v, p, -1)
    stage, lag, free = np.arange(p), (p - 1) + (v - 1) * p, np.zeros((p, ahead.shape[-1]))
    turn = (np.arange(p * v)[:, None] - stage) // p % v  # which chunk a stage is at, by slot; then it starts over
    # backward is forward from the last stage to the first
    ways = [
        (work[turn, stage], idle, begin, np.zeros_like(free), np.zeros_like(free))
        for work, idle, begin in ((ahead, free, 0), (back[::-1, ::-1], free[::-1], lag))
    ]
    for slot in range(jobs + lag + p):
        for work, idle, begin, done, waits in ways:
            job = slot - begin  # of the first stage; each next one is a job behind
            on = slice(max(job - jobs + 1, 0), max(min(job + 1, p), 0))
            waits[1:] = done[:-1]
            waits[0] = 0.0 if job // p % v == 0 else done[-1]  # nought where a micro-batch enters
            done[on] = np.maximum(idle[on], waits[on]) + work[job % (p * v), on]
            idle[on] = done[on]
    return column(free.max(axis=0).reshape(shape))
