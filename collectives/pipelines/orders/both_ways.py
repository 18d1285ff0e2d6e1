"""Bidirectional schedules: micro-batches enter at both ends, or down and up a V, and overlap forward with backward.

DualPipe and Chimera hold the model twice, once per direction; DualPipeV cuts DualPipe in half, so that the second
direction becomes the way back of the same model.
"""

from collectives.pipelines.actions import BACKWARD, FORWARD, Action
from collectives.pipelines.nouns import Order
from collectives.pipelines.orders.folded import folded
from collectives.pipelines.orders.hand import Hand, Side


def dualpipe(stages: int, microbatches: int, chunks: int = 1) -> Order:
    """Return DualPipe's eight steps; micro-batches 0 … m/2 - 1 go down, the others up.

    Source: DeepSeek-V3 (arXiv 2412.19437) §3.2.1; deepseek-ai/DualPipe `dualpipe.py`. Needs an even number of stages, and an
    even number of micro-batches, at least two per stage.

    >>> from collectives.pipelines.orders.plain import text
    >>> text(dualpipe(2, 4))[0]
    "F0 F2' F1 B2' F3'&B0 B3' I1 W1"
    """
    del chunks
    half = stages // 2
    actions = []
    for rank in range(stages):
        sides = [(0, rank), (1, stages - 1 - rank)]
        near, far = sides if rank < half else sides[::-1]
        count = microbatches // 2
        first = (near[0] * count, far[0] * count)
        actions.append(_eight_steps(half, min(rank, stages - 1 - rank), count, (near, far), first))
    return Order(tuple(actions), (tuple(range(stages)), tuple(range(stages))[::-1]))


def dualpipe_v(stages: int, microbatches: int, chunks: int = 2) -> Order:
    """Return DualPipeV: DualPipe's eight steps on a V of as many devices as DualPipe has in one half.

    Source: deepseek-ai/DualPipe `dualpipev.py` (after Sea AI Lab's "cut in half"); torch `ScheduleDualPipeV`. Needs at least
    two micro-batches per stage.

    >>> from collectives.pipelines.orders.plain import text
    >>> text(dualpipe_v(1, 2))
    ['F0.0 F0.1 F1.0 B0.1 F1.1&B0.0 B1.1 I1.0 W1.0']
    """
    del chunks
    actions = [
        _eight_steps(stages, rank, microbatches, ((0, rank), (0, 2 * stages - 1 - rank))) for rank in range(stages)
    ]
    return Order(tuple(actions), folded(stages))


def chimera(stages: int, microbatches: int, chunks: int = 1) -> Order:
    """Return Chimera: two 1F1B pipelines, one each way, merged slot by slot; units of p micro-batches follow each other.

    Source: Li and Hoefler 2021 (arXiv 2107.06925), direct concatenation. Needs an even number of stages, and
    as many micro-batches as stages or a multiple.

    >>> from collectives.pipelines.orders.plain import text
    >>> text(chimera(4, 4))[0]
    "F0 F1 F2' B2' F3' B3' B0 B1"
    """
    del chunks
    half, units = stages // 2, microbatches // stages
    actions = []
    for rank in range(stages):
        slots = []
        for pipe, stage in enumerate((rank, stages - 1 - rank)):
            for unit in range(units):
                for k in range(half):
                    name = pipe * (microbatches // 2) + unit * half + k
                    start = 2 * stages * unit + 2 * k
                    slots.append((start + stage, Action(FORWARD, stage, name, pipe)))
                    slots.append((start + 2 * stages - 1 - stage, Action(BACKWARD, stage, name, pipe)))
        actions.append(tuple(action for _, action in sorted(slots)))
    return Order(tuple(actions), (tuple(range(stages)), tuple(range(stages))[::-1]))


def _eight_steps(
    half: int, rank: int, count: int, sides: tuple[Side, Side], first: tuple[int, int] = (0, 0)
) -> tuple[Action, ...]:
    """Return the actions of one device: `count` micro-batches per side, `rank` devices from the entrance of side 0.

    Side 1 enters from the other half of the devices; `first` names each side's first micro-batch.
    """
    hand, steady = Hand(sides, count, first), count - 2 * half + rank + 1
    middle = 1 if rank == half - 1 and steady else 0
    hand.play("F0", 2 * (half - rank - 1))  # 1: fill
    hand.play("F0 F1", rank + 1)  # 2: fill both ways
    hand.play("I1 W F1", half - rank - 1)  # 3: first backwards, weights at once
    hand.play("F0 B1 F1&B0", middle)  # 4: the steady state; its start apart on the middle devices, for a smaller bubble
    hand.play("F0&B1 F1&B0", steady - middle)
    hand.play("B1 F1&B0", half - rank - 1)  # 5: the last forwards of side 1
    hand.play("B1 B0", (rank + 1) // 2)  # 6: drain both ways, weights owed in the second half
    hand.play("I1 I0" if rank % 2 else "B1 I0", 1)
    hand.play("I1 I0", rank - (rank + 1) // 2)
    hand.play("W I0", half - rank - 1)  # 7: drain, weights in the gaps
    hand.play("W", rank + 1)  # 8: the weights left
    return tuple(hand.listed)
