"""Prices of a block of strategies: seconds by named term, bytes by named holder, both adding up exactly."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import attrgetter

import numpy as np
import numpy.typing as npt

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


def joined(parts: Sequence[tuple[npt.NDArray[np.intp], Priced]], rows: int) -> Priced:
    """Put the prices of parts of a block back in the block's order: `parts` are (rows of the block, their prices)."""
    if len(parts) == 1:
        return parts[0][1]

    def gather(pick: Callable[[Priced], Mapping[str, Column]]) -> dict[str, Column]:
        names = dict.fromkeys(name for _, part in parts for name in pick(part))
        out = {name: np.zeros(rows) for name in names}
        for where, part in parts:
            for name, value in pick(part).items():
                out[name][where] = value
        return out

    seconds = gather(lambda part: {"seconds": part.seconds})["seconds"]
    return Priced(seconds, *(gather(attrgetter(name)) for name in ("terms", "busy", "memory", "extra")))
