"""Operators priced together: those that one formula prices become one operator of shape (operators, rows).

A layer has dozens of operators on blocks of a few rows, where a formula costs what its calls cost, whatever the size.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from parallel.operators import Operator
from topo.columns import Column

SHAPE: Final[dict[str, tuple[str, ...]]] = {
    "gemm": ("m", "n", "k", "groups"),
    "grouped_gemm": ("m", "n", "k", "groups"),
    "attention": ("k", "flops", "bytes"),
    "latent attention": ("k", "flops", "bytes"),
    "vector": ("bytes", "launches", "backward_passes"),
}
"""Kind of an operator -> its fields that may be columns."""


def together(
    listed: Sequence[Operator], rows: int, price: Callable[[Operator], tuple[Column, ...]]
) -> list[tuple[Column, ...]]:
    """Return what `price` says of each operator, on columns of so many rows; it is asked once for all that are alike.

    >>> ops = [Operator("a", "vector", "vector", bytes=1.0), Operator("b", "vector", "vector", bytes=np.array([2.0, 3.0]))]
    >>> [found.tolist() for found, in together(ops, 2, lambda op: (2.0 * op.bytes,))]
    [[2.0, 2.0], [4.0, 6.0]]
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, op in enumerate(listed):
        groups.setdefault((SHAPE[op.kind], op.role, op.weights), []).append(place)
    found: list[tuple[Column, ...]] = [()] * len(listed)
    for places in groups.values():
        ops = [listed[place] for place in places]
        priced = [np.broadcast_to(each, (len(ops), rows)) for each in price(stacked(ops, rows))]
        for place, *each in zip(places, *priced, strict=True):
            found[place] = tuple(each)
    return found


def stacked(ops: Sequence[Operator], rows: int) -> Operator:
    """Return one operator with the columns of several, which are alike in all else."""
    fields: dict[str, Any] = {name: np.empty((len(ops), rows)) for name in SHAPE[ops[0].kind]}
    for name, values in fields.items():
        for place, op in enumerate(ops):
            values[place] = getattr(op, name)
    return replace(ops[0], **fields)
