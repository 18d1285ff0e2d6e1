"""Pipelines without backwards: a stream of prefills, a loop of decodes."""

from collectives.pipelines.actions import FORWARD, Action
from collectives.pipelines.nouns import Order

ROUNDS = 4
"""Tokens per sequence in a decode loop's order: enough for the loop to settle."""


def prefill(stages: int, microbatches: int, chunks: int = 1) -> Order:
    """Return micro-batches streaming through the stages.

    >>> from collectives.pipelines.orders.plain import text
    >>> text(prefill(2, 3))
    ['F0 F1 F2', 'F0 F1 F2']
    """
    del chunks
    return _stream(stages, microbatches, 0)


def decode(stages: int, microbatches: int, chunks: int = 1, rounds: int = ROUNDS) -> Order:
    """Return a decode loop: each of the micro-batches comes back to the first stage with its next token.

    Micro-batch k of the order is token k // m of micro-batch k mod m.

    >>> decode(2, 3, rounds=2).loop
    3
    """
    del chunks
    return _stream(stages, microbatches * rounds, microbatches)


def _stream(stages: int, count: int, loop: int) -> Order:
    """Return the micro-batches in turn at every stage."""
    actions = tuple(tuple(Action(FORWARD, stage, k) for k in range(count)) for stage in range(stages))
    return Order(actions, (tuple(range(stages)),), loop)
