"""Exact execution: the longest path through an order's dependency graph, level by level, for all columns at once."""

from dataclasses import dataclass, fields

import numpy as np

from collectives.pipelines.actions import BACKWARD, FORWARD, WEIGHT
from collectives.pipelines.nouns import Costs, Order, Run
from collectives.pipelines.plan import Plan, arrivals
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError

BLOCK = 512
"""Columns swept at once: a block's tables of a few thousand nodes stay near the core."""


@dataclass(frozen=True)
class _Tables:
    """Costs spread to their full leading axis, one zero row behind (what nothing costs), columns flattened."""

    work: Column
    hops: Column
    gather: Column
    scatter: Column
    optimizer: Column
    overlapped: Column
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Swept:
    """Per node (and a row of zeros): when it starts, ends, and leaves its device free; its gather before the start."""

    start: Column
    done: Column
    free: Column
    lead: Column


def execute(order: Order, costs: Costs) -> Run:
    """Run an order exactly.

    Parameters
    ----------
    order
        The schedule.
    costs
        Its times; any columns behind the leading axis.

    Raises
    ------
    SpecError
        The order is no schedule, or the costs do not fit it.

    Examples
    --------
    Two stages, one micro-batch: F F B B one after the other, with a hop each way.

    >>> from collectives.pipelines import SCHEDULES
    >>> run = execute(SCHEDULES["1f1b"].order(2, 1, 1), Costs(1.0, 1.0, 1.0, hop_s=0.5))
    >>> print(run.makespan_s, run.idle_s)
    7.0 [4. 4.]
    """
    tables, plan = _tables(order, costs), order.plan
    swept = _sweep(plan, tables, costs)
    step = _step(plan, swept, tables, costs.synchronised)
    busy = _busy(order, tables)

    def shaped(table: Column) -> Column:
        return table.reshape(table.shape[:-1] + tables.shape)

    return Run(
        order=order,
        start_s=shaped(swept.start[plan.node]),
        end_s=shaped(swept.done[plan.node]),
        makespan_s=shaped(swept.free[plan.last].max(axis=0)),
        step_s=shaped(step),
        busy_s=shaped(busy),
        idle_s=shaped(step - busy),
        in_flight=in_flight(order),
    )


def step_s(order: Order, costs: Costs) -> Column:
    """Return only the step's time, for any number of columns: swept in blocks, nothing else kept.

    Examples
    --------
    >>> from collectives.pipelines import SCHEDULES
    >>> print(step_s(SCHEDULES["1f1b"].order(2, 1, 1), Costs([[1.0, 2.0]], 1.0, 1.0)))
    [6. 8.]
    """
    tables, plan = _tables(order, costs), order.plan
    count = tables.work.shape[-1]
    out = np.empty(count)
    for low in range(0, count, BLOCK):
        part = slice(low, low + BLOCK)
        cut = _Tables(
            **{f.name: _cut(getattr(tables, f.name), part) for f in fields(tables) if f.name != "shape"}, shape=()
        )
        out[part] = _step(plan, _sweep(plan, cut, costs), cut, costs.synchronised)
    return column(out.reshape(tables.shape))


def in_flight(order: Order, kept: float = 1.0) -> Column:
    """Return the most activations held at once per stage, in micro-batches of a whole stage.

    A forward holds its activations until its backward ends; between the gradient of the input and that of the weights
    the share `kept` of them stays (attention needs little for its weights, linear layers nearly all). Without backwards it
    holds its own until it ends.

    Examples
    --------
    >>> from collectives.pipelines import SCHEDULES
    >>> print(in_flight(SCHEDULES["1f1b"].order(4, 8, 1)))
    [4. 3. 2. 1.]
    """
    if all(a.kind == FORWARD for listed in order.actions for a in listed):
        return np.full(order.stages, 1.0 / order.chunks)
    change = {FORWARD: 1.0, BACKWARD: -1.0, WEIGHT: -kept}
    peaks = [np.cumsum([change.get(a.kind, kept - 1.0) for a in listed]).max() for listed in order.actions]
    return column(peaks) / order.chunks


def transfers(order: Order) -> list[tuple[int, int, int, bool]]:
    """Return the messages: (action that sends, action that needs it, boundary, gradient?), as rows of a run's tables.

    >>> from collectives.pipelines import SCHEDULES
    >>> transfers(SCHEDULES["1f1b"].order(2, 1, 1))
    [(3, 1, 0, True), (0, 2, 0, False)]
    """
    return arrivals([a for own in order.actions for a in own], order.device, order.loop)


def _tables(order: Order, costs: Costs) -> _Tables:
    """Return the costs of an order as tables; raise `SpecError` with every array that does not fit."""
    v, p, b = order.virtuals, order.stages, order.boundaries
    back = costs.hop_s if costs.hop_back_s is None else costs.hop_back_s
    given: dict[str, tuple[ColumnLike, int]] = {
        "forward_s": (costs.forward_s, v),
        "input_s": (costs.input_s, v),
        "weight_s": (costs.weight_s, v),
        "hop_s": (costs.hop_s, b),
        "hop_back_s": (back, b),
        "gather_s": (costs.gather_s, v),
        "scatter_s": (costs.scatter_s, v),
        "optimizer_s": (costs.optimizer_s, p),
        "overlapped": (costs.overlapped, 1),
    }
    arrays = {name: column(value) for name, (value, _) in given.items()}
    faults = [
        Fault(name, f"shape {array.shape}", f"the leading axis must be {given[name][1]} or 1", "columns come behind it")
        for name, array in arrays.items()
        if array.ndim and array.shape[0] not in (1, given[name][1])
    ]
    faults += [
        Fault(name, float(array.min()), "must be a finite time of 0 or more", "give seconds")
        for name, array in arrays.items()
        if not (np.isfinite(array).all() and (array >= 0).all())
    ]
    if faults:
        raise SpecError(faults)
    try:
        shape = np.broadcast_shapes(*(array.shape[1:] for array in arrays.values()))
    except ValueError:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise SpecError([Fault("costs", shapes, "the columns do not fit each other", "give equal columns")]) from None

    def spread(name: str) -> Column:
        """Return (rows, columns) of one cost."""
        array, rows = arrays[name], max(given[name][1], 1)
        whole = array if array.ndim else array.reshape(1)
        return np.broadcast_to(
            whole.reshape(whole.shape + (1,) * (len(shape) + 1 - whole.ndim)), (rows, *shape)
        ).reshape(rows, -1)

    forward, inputs, weight = spread("forward_s"), spread("input_s"), spread("weight_s")
    nothing = np.zeros((1, forward.shape[1]))
    return _Tables(
        work=np.concatenate([forward, inputs + weight, inputs, weight, nothing]),
        hops=np.concatenate([spread("hop_s")[:b], nothing, spread("hop_back_s")[:b], nothing]),
        gather=np.concatenate([spread("gather_s"), nothing]),
        scatter=np.concatenate([spread("scatter_s"), nothing]),
        optimizer=spread("optimizer_s"),
        overlapped=spread("overlapped"),
        shape=shape,
    )


def _cut(table: Column, part: slice) -> Column:
    """Return some columns of a table."""
    return table[:, part]


def _sweep(plan: Plan, tables: _Tables, costs: Costs) -> _Swept:
    """Return when every node starts, ends and leaves its device free.

    start = max(device free + gather, what it waits for + hop); end = start + work; free = end + scatter (+ its own hops
    where transfers are not asynchronous).
    """
    count, columns = len(plan.before), tables.work.shape[1]
    start, done = np.empty((count + 1, columns)), np.empty((count + 1, columns))
    start[count] = done[count] = 0.0
    lead, tail = _lead_and_tail(plan, tables, costs)
    free = done if tail is None else np.zeros((count + 1, columns))
    hop = plan.hop + np.where(plan.back, len(tables.hops) // 2, 0)
    spent = _spent(plan, tables)
    for low, high in plan.levels:
        begin = free[plan.before[low:high]]
        if lead is not None:
            begin += lead[low:high]
        for k in range(hop.shape[1]):
            arrives = done[plan.after[low:high, k]]
            arrives += tables.hops[hop[low:high, k]]
            np.maximum(begin, arrives, out=begin)
        start[low:high] = begin
        begin += spent[low:high] if spent is not None else tables.work[plan.work[low:high, 0]]
        done[low:high] = begin
        if tail is not None:
            free[low:high] = begin + tail[low:high]
    return _Swept(start, done, free, np.zeros((1, 1)) if lead is None else lead)


def _spent(plan: Plan, tables: _Tables) -> Column | None:
    """Return each node's time where any node is two overlapped actions, else None: one action's is a row of the table."""
    nothing = len(tables.work) - 1
    if (plan.work[:, 1] == nothing).all():
        return None
    one, other = tables.work[plan.work[:, 0]], tables.work[plan.work[:, 1]]
    together = np.maximum(tables.overlapped * (one + other), np.maximum(one, other))
    return column(np.where((plan.work[:, 1] == nothing)[:, None], one, together))


def _lead_and_tail(plan: Plan, tables: _Tables, costs: Costs) -> tuple[Column | None, Column | None]:
    """Return what keeps the device busy before and behind each node: ZeRO, and transfers that are waited for."""
    opens, closes = (plan.opens, plan.closes) if costs.each_run else (plan.first_use, plan.last_use)
    lead = tables.gather[opens].sum(axis=1) if tables.gather.any() else None
    tail = tables.scatter[closes].sum(axis=1) if tables.scatter.any() else None
    if not costs.asynchronous:
        sends = tables.hops[plan.sent + np.where(plan.sent_back, len(tables.hops) // 2, 0)].sum(axis=1)
        tail = sends if tail is None else tail + sends
    return lead, tail


def _step(plan: Plan, swept: _Swept, tables: _Tables, synchronised: bool) -> Column:
    """Return the step's time: to the last device's optimizer, or the longest device's own window."""
    ends = swept.free[plan.last]
    if synchronised:
        return column(ends.max(axis=0) + tables.optimizer.max(axis=0))
    lead = swept.lead[plan.first] if len(swept.lead) > 1 else 0.0
    return column((ends - (swept.start[plan.first] - lead) + tables.optimizer).max(axis=0))


def _busy(order: Order, tables: _Tables) -> Column:
    """Return each device's work, optimizer included."""
    plan = order.plan
    spent = _spent(plan, tables)
    if spent is None:
        counts = np.zeros((order.stages, len(tables.work)))
        np.add.at(counts, (plan.device, plan.work[:, 0]), 1.0)
        return column(counts @ tables.work + tables.optimizer)
    busy = tables.optimizer.copy()
    np.add.at(busy, plan.device, spent)
    return busy
