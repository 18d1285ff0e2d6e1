"""Several chunks per device, dealt round: interleaved 1F1B (depth first) and breadth-first."""

from collections.abc import Sequence

from collectives.pipelines.actions import BACKWARD, FORWARD, Action
from collectives.pipelines.nouns import Order

Step = tuple[int, int]


def interleaved(stages: int, microbatches: int, chunks: int, group: int = 0) -> Order:
    """Return interleaved 1F1B: groups of micro-batches go through a device's chunks in turn.

    Stage i runs (v - 1)·group + 2(p - 1 - i) chunk forwards ahead, then a forward and a backward in turn. One chunk is
    1F1B. `group` (0: the number of stages) is Megatron-Core's `microbatch_group_size_per_vp_stage`: from p to m, and
    the last group (m mod group) is whole or at least p.

    Source: Narayanan et al. 2021 (arXiv 2104.04473) §2.2; Megatron-Core `get_schedule_table`,
    `get_pp_rank_microbatches`, `forward_backward_pipelining_with_interleaving`.

    >>> from collectives.pipelines.orders.plain import text
    >>> text(interleaved(2, 2, 2))[1]
    'F0.0 F1.0 F0.1 B0.1 F1.1 B1.1 B0.0 B1.0'
    """
    size, last = group or stages, chunks - 1
    table = _grouped(microbatches, chunks, size)
    back = [(k, last - chunk) for k, chunk in table]
    ahead = [(last * size if last else 0) + (2 if last else 1) * (stages - 1 - i) for i in range(stages)]
    return _dealt(stages, chunks, table, back, ahead)


def breadth_first(stages: int, microbatches: int, chunks: int) -> Order:
    """Return all micro-batches through a device's first chunk, then the next; backwards the same way round.

    Source: Lamy-Poirier 2023 (arXiv 2211.05953).

    >>> from collectives.pipelines.orders.plain import text
    >>> text(breadth_first(2, 2, 2))[0]
    'F0.0 F1.0 F0.1 F1.1 B0.1 B1.1 B0.0 B1.0'
    """
    table = _grouped(microbatches, chunks, microbatches)
    back = [(k, chunks - 1 - chunk) for k, chunk in table]
    return _dealt(stages, chunks, table, back, [len(table)] * stages)


def group_objection(stages: int, microbatches: int, chunks: int, group: int = 0) -> str:
    """Return what is wrong with an interleaved schedule's numbers, or nothing.

    >>> group_objection(4, 6, 2), group_objection(4, 9, 2, 5)
    ('the last group of 2 micro-batches must be 0 or at least the 4 stages', '')
    """
    size = group or stages
    if chunks == 1 or stages == 1:
        return ""
    if not stages <= size <= microbatches:
        return f"needs a group size between the {stages} stages and the {microbatches} micro-batches, got {size}"
    rest = microbatches % size
    return (
        f"the last group of {rest} micro-batches must be 0 or at least the {stages} stages" if 0 < rest < stages else ""
    )


def _grouped(microbatches: int, chunks: int, size: int) -> list[Step]:
    """Return (micro-batch, chunk) in the order of forwards: group by group, chunk by chunk."""
    return [
        (k, chunk)
        for low in range(0, microbatches, size)
        for chunk in range(chunks)
        for k in range(low, min(low + size, microbatches))
    ]


def _dealt(stages: int, chunks: int, table: Sequence[Step], back: Sequence[Step], ahead: Sequence[int]) -> Order:
    """Return forwards by `table` and backwards by `back`, stage i `ahead[i]` forwards ahead."""
    actions = []
    for stage in range(stages):
        warm = min(len(table), ahead[stage])
        listed = [Action(FORWARD, chunk * stages + stage, k) for k, chunk in table[:warm]]
        for n, (k, chunk) in enumerate(back):
            if warm + n < len(table):
                ahead_k, ahead_chunk = table[warm + n]
                listed.append(Action(FORWARD, ahead_chunk * stages + stage, ahead_k))
            listed.append(Action(BACKWARD, chunk * stages + stage, k))
        actions.append(tuple(listed))
    return Order(tuple(actions), (tuple(range(stages)) * chunks,))
