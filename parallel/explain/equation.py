"""An equation as data: its text, its inputs with units, and the same formula as code, so that the two can be compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from topo.columns import Column, ColumnLike, column

S = TypeVar("S")
Values = Mapping[str, Column]
"""Inputs by symbol, as the formula takes them."""


@dataclass(frozen=True, slots=True)
class Input:
    """One quantity of an equation: a number, or one for each kind of layer (in the model's order).

    Attributes
    ----------
    value : in SI units
    unit : of the value; empty for counts and shares
    meaning : what it is
    of : what it is computed from, where that says more than its meaning: shapes, sizes, members per tier
    """

    value: ColumnLike
    unit: str = ""
    meaning: str = ""
    of: Mapping[str, Any] = field(default_factory=dict)

    def written(self) -> dict[str, Any]:
        """Return it as plain values.

        >>> Input(np.array([3.0]), "s", "one hop").written()
        {'value': 3.0, 'unit': 's', 'meaning': 'one hop'}
        """
        numbers = np.ravel(column(self.value)).tolist()
        plain = {"value": numbers[0] if len(numbers) == 1 else numbers, "unit": self.unit, "meaning": self.meaning}
        return {**plain, "of": dict(self.of)} if self.of else plain


Inputs = dict[str, Input]


@dataclass(frozen=True, slots=True)
class Equation(Generic[S]):
    """How one term is priced. `inputs` reads the values off a priced scene, `exposed` and `busy` compute with them.

    Attributes
    ----------
    text : the equation, in the symbols of its inputs
    source : where it comes from: module, paper and section
    busy : seconds before overlap; the same as `exposed` where nothing hides
    note : what the equation leaves out, or how it is to be read
    """

    text: str
    inputs: Callable[[S], Inputs]
    exposed: Callable[[Values], Column]
    source: str
    busy: Callable[[Values], Column] | None = None
    note: str = ""


def values(inputs: Mapping[str, Input]) -> dict[str, Column]:
    """Return the numbers of inputs, by symbol."""
    return {symbol: column(given.value) for symbol, given in inputs.items()}


def computed(equation: Equation[Any], inputs: Mapping[str, Input]) -> tuple[float, float]:
    """Return the exposed and the busy amount that an equation gives for its inputs.

    >>> law = Equation("a·b", lambda scene: {}, lambda v: v["a"] * v["b"], "arithmetic")
    >>> computed(law, {"a": Input(2.0), "b": Input(3.0)})
    (6.0, 6.0)
    """
    given = values(inputs)
    exposed = float(np.sum(column(equation.exposed(given))))
    return exposed, exposed if equation.busy is None else float(np.sum(column(equation.busy(given))))


def per_kind(numbers: Sequence[ColumnLike]) -> Column:
    """Return one number for each kind of layer as an array."""
    return np.array([float(np.ravel(column(number))[0]) for number in numbers])
