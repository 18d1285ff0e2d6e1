"""Prices of a block of strategies: seconds by named term, bytes by named holder, both adding up exactly."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np

from topo.columns import Column, ColumnLike, column


def total(columns: Iterable[ColumnLike]) -> Column:
    """Add columns up, in their order.

    >>> float(total([1.0, 2.0]))
    3.0
    """
    return reduce(np.add, columns, column(0.0))


@dataclass(frozen=True)
class Priced:
    """Prices of a block of strategies, as columns.

    Attributes
    ----------
    seconds : the step (training), the pass (prefill) or the time per output token (decode)
    terms, busy : exposed seconds by name (they add up to `seconds`), and the same work before overlap
    memory : bytes per accelerator by name
    extra : further columns (throughput, waits, choices)
    """

    seconds: Column
    terms: dict[str, Column]
    busy: dict[str, Column]
    memory: dict[str, Column]
    extra: dict[str, Column]

    @property
    def memory_bytes(self) -> Column:
        """Bytes per accelerator, all together."""
        return total(self.memory.values())
