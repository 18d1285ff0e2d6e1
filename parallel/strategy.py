"""Strategies as columns: equal-length arrays of tp, cp, ep, pp …, decoded from a linear index, never materialised whole.

A `Space` names its axes, slowest first; row ``i`` of the space is ``np.unravel_index(i, shape)``. A sweep is therefore
``(space, lo, hi)``. A `Columns` block can price a term on the *distinct* values of the columns that the term depends on
and gather the result, so that sixty GEMMs cost sixty small arrays, whatever the length of the block.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from topo.columns import Column
from topo.errors import Fault, SpecError

Index = npt.NDArray[np.int64]
_DENSE_TABLE = 1 << 22  # above this many combinations a sort is cheaper than a table of presence


class Columns(Mapping[str, Column]):
    """A block of strategies: named columns of one length, each with the code of its value among its axis's levels."""

    def __init__(self, codes: Mapping[str, Index], levels: Mapping[str, Column]) -> None:
        self._codes, self._levels = dict(codes), dict(levels)
        self._values: dict[str, Column] = {}
        self.rows = len(next(iter(self._codes.values()))) if self._codes else 0

    @classmethod
    def of(cls, **values: Any) -> "Columns":
        """Make columns from scalars or arrays of one length.

        >>> block = Columns.of(tp=8, pp=[1, 2, 4])
        >>> block.rows, block["tp"].tolist()
        (3, [8.0, 8.0, 8.0])
        """
        arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in values.values()))
        codes, levels = {}, {}
        for name, array in zip(values, arrays, strict=True):
            levels[name], inverse = np.unique(array, return_inverse=True)
            codes[name] = inverse.astype(np.int64)
        return cls(codes, levels)

    def __getitem__(self, name: str) -> Column:
        """Return the values of one column."""
        if name not in self._values:
            self._values[name] = self._levels[name][self._codes[name]]
        return self._values[name]

    def __iter__(self) -> Any:
        """Iterate over the column names."""
        return iter(self._codes)

    def __len__(self) -> int:
        """Return the number of columns (`rows` is their length)."""
        return len(self._codes)

    def take(self, rows: npt.NDArray[Any]) -> "Columns":
        """Return the block of the given rows (indices or a mask)."""
        return Columns({name: codes[rows] for name, codes in self._codes.items()}, self._levels)

    def row(self, index: int) -> dict[str, float]:
        """Return one strategy as plain numbers, integers where they are whole.

        >>> Columns.of(tp=[1, 8], pp=2).row(1)
        {'tp': 8, 'pp': 2}
        """
        values = {name: float(self._levels[name][codes[index]]) for name, codes in self._codes.items()}
        return {name: int(v) if v.is_integer() else v for name, v in values.items()}

    def distinct(self, names: Sequence[str]) -> tuple["Columns", Index]:
        """Return the distinct combinations of the named columns, and for each row the combination it holds.

        >>> sub, where = Columns.of(tp=[1, 8, 1], pp=[1, 1, 1], dp=[7, 8, 9]).distinct(["tp", "pp"])
        >>> sub["tp"].tolist(), where.tolist()
        ([1.0, 8.0], [0, 1, 0])
        """
        names = [name for name in names if name in self._codes]
        shape = [len(self._levels[name]) for name in names]
        key = np.zeros(self.rows, dtype=np.int64)
        for name, size in zip(names, shape, strict=True):
            key *= size
            key += self._codes[name]
        combinations = int(np.prod(shape, dtype=np.float64))
        if combinations <= _DENSE_TABLE:
            seen = np.zeros(combinations, dtype=bool)
            seen[key] = True
            present = np.flatnonzero(seen)
            lookup = np.empty(combinations, dtype=np.int64)
            lookup[present] = np.arange(len(present))
            inverse = lookup[key]
        else:
            present, inverse = np.unique(key, return_inverse=True)
        parts = np.unravel_index(present, shape) if names else ()
        codes = {name: np.asarray(part, dtype=np.int64) for name, part in zip(names, parts, strict=True)}
        return Columns(codes, {name: self._levels[name] for name in names}), inverse

    def derive(self, name: str, names: Sequence[str], formula: Callable[["Columns"], Column]) -> "Columns":
        """Return these columns and one more, computed from the named ones.

        >>> Columns.of(tp=[1, 2], pp=[4, 4]).derive("dp", ["tp", "pp"], lambda c: 8 / (c["tp"] * c["pp"]))["dp"].tolist()
        [2.0, 1.0]
        """
        sub, inverse = self.distinct(names)
        levels, codes = np.unique(np.broadcast_to(formula(sub), (sub.rows,)), return_inverse=True)
        return Columns(
            {**self._codes, name: codes.astype(np.int64)[inverse]}, {**self._levels, name: levels.astype(np.float64)}
        )

    def filled(self, defaults: Mapping[str, float]) -> "Columns":
        """Return these columns and a constant one for every default that has none.

        >>> Columns.of(tp=[1, 2]).filled({"tp": 8, "sp": 1})["sp"].tolist()
        [1.0, 1.0]
        """
        missing = {name: value for name, value in defaults.items() if name not in self._codes}
        if not missing:
            return self
        zero = np.zeros(self.rows, dtype=np.int64)
        levels = {name: np.array([value], dtype=np.float64) for name, value in missing.items()}
        return Columns({**self._codes, **dict.fromkeys(missing, zero)}, {**self._levels, **levels})

    def on_distinct(
        self, names: Sequence[str], price: Callable[["Columns"], Mapping[str, npt.NDArray[Any]]]
    ) -> dict[str, npt.NDArray[Any]]:
        """Call `price` on the distinct combinations of the named columns and gather each result to every row."""
        sub, inverse = self.distinct(names)
        return {
            key: np.take(np.broadcast_to(value, (*np.shape(value)[:-1], sub.rows)), inverse, axis=-1)
            for key, value in price(sub).items()
        }


@dataclass(frozen=True)
class Space:
    """A grid of strategies: axes slowest first. Put the axes that few terms depend on last."""

    axes: tuple[tuple[str, tuple[float, ...]], ...]

    def __post_init__(self) -> None:
        """Refuse empty axes: they would make the whole space vanish without a word."""
        faults = [
            Fault(name, list(values), "an axis needs at least one value", "give one, or leave the axis out")
            for name, values in self.axes
            if len(values) == 0
        ]
        if faults:
            raise SpecError(faults)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each axis."""
        return tuple(len(values) for _, values in self.axes)

    @property
    def size(self) -> int:
        """Number of strategies.

        >>> Space((("tp", (1, 2, 4, 8)), ("pp", (1, 2)))).size
        8
        """
        return int(np.prod(self.shape, dtype=np.int64))

    def decode(self, lo: int, hi: int) -> Columns:
        """Return the strategies ``lo … hi-1`` as columns.

        >>> Space((("tp", (1, 2)), ("pp", (1, 2, 4)))).decode(2, 5)["pp"].tolist()
        [4.0, 1.0, 2.0]
        """
        return self.at(np.arange(lo, min(hi, self.size), dtype=np.int64))

    def at(self, index: Index) -> Columns:
        """Return the strategies of the given linear indices."""
        codes = np.unravel_index(index, self.shape)
        return Columns(
            {name: np.asarray(code, dtype=np.int64) for (name, _), code in zip(self.axes, codes, strict=True)},
            {name: np.asarray(values, dtype=np.float64) for name, values in self.axes},
        )


def powers_of_two(limit: int) -> tuple[int, ...]:
    """Return 1, 2, 4 … up to `limit`.

    >>> powers_of_two(20)
    (1, 2, 4, 8, 16)
    """
    return tuple(1 << bit for bit in range(max(limit, 1).bit_length()))
