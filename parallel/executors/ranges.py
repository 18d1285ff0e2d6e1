"""How a task is cut: by the task alone, never by who works on it."""

from parallel.sweep import BLOCK

RANGE = 4 * BLOCK  # about 100 ms of work: large enough for Ray to pay, small enough for a smooth progress bar


def ranges(total: int) -> list[tuple[int, int]]:
    """Return the ranges of a task of `total` rows, in order.

    >>> ranges(200_000)
    [(0, 131072), (131072, 200000)]
    """
    return [(lo, min(lo + RANGE, total)) for lo in range(0, total, RANGE)]
