"""Why a stage waits: its idle time told by cause, by running the order again with the causes taken away one by one."""

from dataclasses import replace

import numpy as np

from collectives.pipelines.actions import FORWARD
from collectives.pipelines.execute import execute
from collectives.pipelines.nouns import Costs, Order, Run
from topo.columns import Column, ColumnLike, column

CAUSES = ("fill", "drain", "stall", "imbalance", "hop latency", "exposed communication")


def causes(order: Order, costs: Costs) -> dict[str, Column]:
    """Return each stage's idle time by cause; the causes add up to `Run.idle_s` exactly.

    With equal virtual stages and free transfers a stage idles before its first backward starts (*fill*), after its last
    forward (*drain*), and in between where the order itself makes it wait (*stall*). *Imbalance* is what unequal virtual
    stages add to that (less than nothing on a stage with more work than the mean), *hop latency* what transfers beside the
    work add, *exposed communication* what ZeRO and transfers that are waited for add.

    Returns
    -------
    dict
        Cause → (stages, *columns) in seconds.

    Examples
    --------
    Stages of 2 s and 4 s: the first waits 2 s per micro-batch.

    >>> from collectives.pipelines import SCHEDULES
    >>> told = causes(SCHEDULES["1f1b"].order(2, 4, 1), Costs([1.0, 2.0], [1.0, 2.0]))
    >>> {cause: seconds.tolist() for cause, seconds in told.items() if seconds.any()}
    {'fill': [1.5, 1.5], 'drain': [1.5, 1.5], 'imbalance': [7.0, -1.0]}
    """
    still = replace(
        costs, gather_s=0.0 * column(costs.gather_s), scatter_s=0.0 * column(costs.scatter_s), asynchronous=True
    )
    quiet = replace(still, hop_s=0.0 * column(costs.hop_s), hop_back_s=0.0)
    even = replace(
        quiet,
        forward_s=_mean(costs.forward_s),
        input_s=_mean(costs.input_s),
        weight_s=_mean(costs.weight_s),
        optimizer_s=_mean(costs.optimizer_s),
    )
    level, uneven, hops, whole = (execute(order, c) for c in (even, quiet, still, costs))
    fill, drain, stall = _phases(level, costs.synchronised)
    return {
        "fill": fill,
        "drain": drain,
        "stall": stall,
        "imbalance": uneven.idle_s - level.idle_s,
        "hop latency": hops.idle_s - uneven.idle_s,
        "exposed communication": whole.idle_s - hops.idle_s,
    }


def _mean(cost: ColumnLike) -> Column:
    """Return a cost with its leading axis averaged away to length 1."""
    array = column(cost)
    return array.mean(axis=0, keepdims=True) if array.ndim else array


def _phases(run: Run, synchronised: bool) -> tuple[Column, Column, Column]:
    """Return a run's idle time before the first backward, after the last forward, and in between, per stage."""
    fill, stall = np.zeros_like(run.idle_s), np.zeros_like(run.idle_s)
    low = 0
    for stage, listed in enumerate(run.order.actions):
        rows = slice(low, low + len(listed))
        low += len(listed)
        start, end = run.start_s[rows], run.end_s[rows]
        ready = np.concatenate([np.zeros_like(end[:1]), end[:-1]])
        waits = np.where(np.array([a.paired for a in listed]).reshape(-1, *[1] * (start.ndim - 1)), 0.0, start - ready)
        if not synchronised:
            waits[0] = 0.0
        forwards = [i for i, a in enumerate(listed) if a.kind == FORWARD]
        backward = next((i for i, a in enumerate(listed) if a.kind != FORWARD), 0)
        fill[stage] = waits[: backward + 1].sum(axis=0)
        stall[stage] = waits[backward + 1 : forwards[-1] + 1].sum(axis=0)
    return fill, run.idle_s - fill - stall, stall
