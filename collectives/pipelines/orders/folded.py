"""V-shaped schedules: two chunks per device, the model goes down the devices and back up.

The first and the last virtual stage share device 0, so a micro-batch's first backward follows its last forward at once, and
every device holds the same activations.
"""

from collections import deque

from collectives.pipelines.actions import FORWARD, INPUT, WEIGHT, Action
from collectives.pipelines.nouns import Order
from collectives.pipelines.orders.hand import Hand


def zb_v(stages: int, microbatches: int, chunks: int = 2) -> Order:
    """Return ZB-V: as little memory as 1F1B, no bubble where F = B_input = W.

    Source: Qi et al. 2023 (arXiv 2401.10241) §6; torch `ScheduleZBVZeroBubble`. Fewer than 2p - 1 micro-batches run the
    order of 2p - 1, the rest left out.

    >>> from collectives.pipelines.orders.plain import text
    >>> text(zb_v(1, 2))
    ['F0.0 F0.1 I0.1 W0.1 F1.0 I0.0 W0.0 F1.1 I1.1 W1.1 I1.0 W1.0']
    """
    del chunks
    count = max(2 * stages - 1, microbatches)
    actions = []
    for i in range(stages):
        hand = Hand(((0, i), (0, 2 * stages - 1 - i)), microbatches)
        hand.play("F0", 2 * (stages - i) - 1)
        hand.play("F1 F0", i)
        hand.play("F1 I1 W1", stages - i)
        hand.play("F0 I0 W0 F1 I1 W1", count - hand.forwards(0))
        hand.play("I0 W0 F1 I1 W1", hand.forwards(0) - hand.forwards(1))
        hand.play("I0 I1", i)
        hand.play("I0 W0", stages - i)
        hand.play("W1", i)
        hand.play("W0", i)
        actions.append(tuple(hand.listed))
    return Order(tuple(actions), folded(stages))


def v_half(stages: int, microbatches: int, chunks: int = 2) -> Order:
    """Return V-Half: about half the activations of 1F1B. Source: Qi et al. 2024 (arXiv 2405.15362).

    >>> from collectives.pipelines.execute import in_flight
    >>> print(in_flight(v_half(8, 32)).max())
    5.0
    """
    del chunks
    p, even = stages, 3 if stages % 2 == 0 else 0
    return _patterned(
        p, microbatches, [(2 * i, 3 * p - i - 2, 3 * p + even + 2 * i - 1, 6 * p + even - i - 2) for i in range(p)]
    )


def v_min(stages: int, microbatches: int, chunks: int = 2) -> Order:
    """Return V-Min: about a third of the activations of 1F1B. Source: Qi et al. 2024 (arXiv 2405.15362).

    >>> from collectives.pipelines.execute import in_flight
    >>> print(in_flight(v_min(8, 32)).max())
    4.0
    """
    del chunks
    p, third = stages, 2 if stages % 3 == 0 else 0
    return _patterned(p, microbatches, [(i, 2 * p - i - 1, 2 * p + third + i, 4 * p + third - i - 1) for i in range(p)])


def folded(stages: int) -> tuple[tuple[int, ...]]:
    """Return the devices of a V: down and back up.

    >>> folded(3)
    ((0, 1, 2, 2, 1, 0),)
    """
    down = tuple(range(stages))
    return (down + down[::-1],)


def _patterned(stages: int, microbatches: int, offsets: list[tuple[int, int, int, int]]) -> Order:
    """Return a repeated building block: F0, F1, I1, I0 of micro-batch k at `offsets` + 6k, weights in the free slots.

    Offsets come from the published code (`stable_pattern_v_half`, `stable_pattern_v_min`); its greedy reordering of the
    first and last blocks is left out.
    """
    actions = []
    for i, block in enumerate(offsets):
        low, high = i, 2 * stages - 1 - i
        words = ((FORWARD, low), (FORWARD, high), (INPUT, high), (INPUT, low))
        slots = {
            at + 6 * k: (kind, v, k) for k in range(microbatches) for (kind, v), at in zip(words, block, strict=True)
        }
        owed: deque[tuple[int, int]] = deque()
        listed = []
        for slot in range(max(slots) + 1):
            if slot in slots:
                kind, v, k = slots[slot]
                listed.append(Action(kind, v, k))
                if kind == INPUT:
                    owed.append((v, k))
            elif owed:
                listed.append(Action(WEIGHT, *owed.popleft()))
        actions.append(tuple(listed + [Action(WEIGHT, v, k) for v, k in owed]))
    return Order(tuple(actions), folded(stages))
