"""Strategies as columns: equal-length arrays of tp, cp, ep, pp …, decoded from a linear index, never materialised whole.

A `Space` names its axes, slowest first; row ``i`` of the space is ``np.unravel_index(i, shape)``. A sweep is therefore
``(space, lo, hi)``. A block of rows is a tree: every axis is a level of its own, and a level has a row for each
combination of the axes down to it that occurs. A `Columns` block can price a term on the *distinct* values of the columns
that the term depends on, so that sixty GEMMs cost sixty small arrays, whatever the length of the block; the tree hands
these combinations over as they are, wherever the columns that a term does not depend on are the fast ones.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from topo.columns import Column
from topo.errors import Fault, SpecError

Index = npt.NDArray[np.int64]
Prices = Mapping[str, npt.NDArray[Any]]
_FEW = 64  # rows that need no further levels
_SPARSE = 64  # above this many combinations per row a sort is cheaper than a table of presence


class Columns(Mapping[str, Column]):
    """A block of strategies: named columns of one length, each with the code of its value among its axis's levels.

    `codes` are of the columns that vary on this level; the slower ones are those of the block `base`, of which each row
    here belongs to the row `where`.
    """

    def __init__(
        self,
        codes: Mapping[str, Index],
        levels: Mapping[str, Column],
        base: "Columns | None" = None,
        where: Index | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self._codes, self._levels = codes, levels
        self._base, self._where = base, where
        self._names = tuple(names) or (*(base or ()), *codes)
        self._values: dict[str, Column] = {}
        first = next(iter(codes.values()), where)
        self.rows = 0 if first is None else len(first)

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
            if name in self._codes:
                self._values[name] = self._levels[name].take(self._codes[name])
            elif self._base is None or self._where is None:
                raise KeyError(name)
            else:
                self._values[name] = self._base[name].take(self._where)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the column names."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return the number of columns (`rows` is their length)."""
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        """Return whether there is a column of that name."""
        return name in self._names

    def take(self, rows: npt.NDArray[Any]) -> "Columns":
        """Return the block of the given rows (indices or a mask)."""
        codes = {name: codes[rows] for name, codes in self._codes.items()}
        if self._base is None or self._where is None:
            return Columns(codes, self._levels, names=self._names)
        present, where = _compact(self._where[rows], self._base.rows)
        base = self._base if len(present) == self._base.rows else self._base.take(present)
        return Columns(codes, self._levels, base, where, self._names)

    def row(self, index: int) -> dict[str, float]:
        """Return one strategy as plain numbers, integers where they are whole.

        >>> Columns.of(tp=[1, 8], pp=2).row(1)
        {'tp': 8, 'pp': 2}
        """
        one = self.take(np.array([index]))
        values = {name: float(one[name][0]) for name in one}
        return {name: int(v) if v.is_integer() else v for name, v in values.items()}

    def distinct(self, names: Iterable[str]) -> tuple["Columns", Index]:
        """Return the distinct combinations of the named columns, and for each row the combination it holds.

        Those of the base come first; each is split by the named columns of this level.

        >>> sub, where = Columns.of(tp=[1, 8, 1], pp=[1, 1, 1], dp=[7, 8, 9]).distinct(["tp", "pp"])
        >>> sub["tp"].tolist(), where.tolist()
        ([1.0, 8.0], [0, 1, 0])
        """
        wanted = frozenset(names)
        base, key = self._slower(wanted)
        mine = [name for name in self._codes if name in wanted]
        if base is not None and all(len(self._levels[name]) == 1 for name in mine):
            return base.filled({name: float(self._levels[name][0]) for name in mine}), key
        shape = [1 if base is None else base.rows, *(len(self._levels[name]) for name in mine)]
        for name, size in zip(mine, shape[1:], strict=True):
            key = key * size + self._codes[name]
        present, inverse = _compact(key, math.prod(shape))
        where, *codes = np.unravel_index(present, shape)
        levels = {name: self._levels[name] for name in mine}
        return Columns(dict(zip(mine, codes, strict=True)), levels, base, where), inverse

    def _slower(self, wanted: frozenset[str]) -> tuple["Columns | None", Index]:
        """Return the distinct combinations of the wanted columns of the base, and for each row the one it holds."""
        if self._base is None or self._where is None:
            return None, np.zeros(self.rows, dtype=np.int64)
        if wanted.issuperset(self._base._names):
            return self._base, self._where
        base, inverse = self._base.distinct(wanted)
        return base, inverse.take(self._where)

    def derive(self, name: str, names: Sequence[str], formula: Callable[["Columns"], Column]) -> "Columns":
        """Return these columns and one more, computed from the named ones and as slow as the fastest of them.

        >>> Columns.of(tp=[1, 2], pp=[4, 4]).derive("dp", ["tp", "pp"], lambda c: 8 / (c["tp"] * c["pp"]))["dp"].tolist()
        [2.0, 1.0]
        """
        if self._base is not None and self._codes.keys().isdisjoint(names):
            base = self._base.derive(name, names, formula)
            return Columns(self._codes, self._levels, base, self._where, (*self._names, name))
        sub, inverse = self.distinct(names)
        levels, codes = np.unique(np.broadcast_to(formula(sub), (sub.rows,)), return_inverse=True)
        return self._with({name: codes.astype(np.int64)[inverse]}, {name: levels.astype(np.float64)})

    def filled(self, defaults: Mapping[str, float]) -> "Columns":
        """Return these columns and a constant one for every default that has none.

        >>> Columns.of(tp=[1, 2]).filled({"tp": 8, "sp": 1})["sp"].tolist()
        [1.0, 1.0]
        """
        missing = {name: value for name, value in defaults.items() if name not in self}
        if not missing:
            return self
        if self._base is not None:
            base = self._base.filled(missing)
            return Columns(self._codes, self._levels, base, self._where, (*self._names, *missing))
        levels = {name: np.array([value], dtype=np.float64) for name, value in missing.items()}
        return self._with(dict.fromkeys(missing, np.zeros(self.rows, dtype=np.int64)), levels)

    def _with(self, codes: Mapping[str, Index], levels: Mapping[str, Column]) -> "Columns":
        names = (*self._names, *codes)
        return Columns({**self._codes, **codes}, {**self._levels, **levels}, self._base, self._where, names)

    def __or__(self, more: Prices) -> "Floor":
        """Return these columns and others beside them."""
        return Floor(more, [(self, None)])

    def on_distinct(
        self, names: Iterable[str], price: Callable[["Columns"], Prices], known: "Memo | None" = None
    ) -> "Floor":
        """Call `price` on the distinct combinations of the named columns; each result is gathered to the rows that ask.

        Where these combinations were priced before, and `known` keeps them, they are not priced again.
        """
        sub, inverse = self.distinct(names)
        return Floor.of(price(sub) if known is None else known.of(sub, price), inverse)

    @property
    def content(self) -> tuple[tuple[str, bytes], ...]:
        """Names and values, to tell blocks apart."""
        return tuple((name, self[name].tobytes()) for name in self)


class Memo:
    """Prices of the last few blocks, by their content: neighbours in a sweep share what depends on slow axes alone.

    >>> memo, calls = Memo(), []
    >>> for _ in range(2):
    ...     prices = Columns.of(tp=[1, 8]).on_distinct(["tp"], lambda c: calls.append(c.rows) or {"x": c["tp"]}, memo)
    >>> calls, prices["x"].tolist()
    ([2], [1.0, 8.0])
    """

    def __init__(self, size: int = 4) -> None:
        self._size = size
        self._known: dict[tuple[tuple[str, bytes], ...], Prices] = {}

    def of(self, cols: Columns, price: Callable[[Columns], Prices]) -> Prices:
        """Return the prices of a block, priced now where they are not known."""
        key = cols.content
        if key not in self._known:
            if len(self._known) >= self._size:
                self._known.pop(next(iter(self._known)))
            self._known[key] = price(cols)
        return self._known[key]


def _compact(key: Index, combinations: int) -> tuple[Index, Index]:
    """Return the numbers below `combinations` that occur, in order, and for each the place that it has among them."""
    if combinations > _SPARSE * (len(key) + _SPARSE):
        return np.unique(key, return_inverse=True)
    seen = np.zeros(combinations, dtype=bool)
    seen[key] = True
    present = np.flatnonzero(seen)
    if len(present) == combinations:
        return present, key
    lookup = np.empty(combinations, dtype=np.int64)
    lookup[present] = np.arange(len(present))
    return present, lookup.take(key)


class Floor(Mapping[str, npt.NDArray[Any]]):
    """Prices of a block by name, most of them still where they were priced: on the distinct rows of some columns.

    A price is gathered to the rows of the block when it is asked for, once. A floor that is priced on another passes on
    what it does not touch: `floor | {"total": …}` has the new prices and all of the old.

    >>> block = Columns.of(tp=[1, 8, 8], pp=[1, 1, 2])
    >>> floor = block.on_distinct(["tp"], lambda c: {"double": 2 * c["tp"]})
    >>> floor["double"].tolist(), (floor | {"pp": block["pp"]})["pp"].tolist()
    ([2.0, 16.0, 16.0], [1.0, 1.0, 2.0])
    """

    def __init__(self, own: Prices, held: Sequence[tuple[Prices, "_Way | None"]] = ()) -> None:
        self._own, self._held = dict(own), tuple(held)

    @classmethod
    def of(cls, prices: Prices, where: Index) -> "Floor":
        """Put prices under the rows of a block, of which each belongs to the row `where` of theirs."""
        if not isinstance(prices, Floor):
            return cls({}, [(prices, _Way(where))])
        return cls({}, [(prices._own, _Way(where)), *((values, _Way(where, way)) for values, way in prices._held)])

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return a price for every row."""
        if name not in self._own:
            value, way = self._find(name)
            self._own[name] = value if way is None else _gathered(value, way.rows)
        return self._own[name]

    def chosen(self, name: str, which: Index) -> Column:
        """Return a price of shape (choices, rows) at the choice of each row, without gathering the others.

        >>> floor = Columns.of(tp=[1, 8, 8]).on_distinct(["tp"], lambda c: {"power": np.stack([c["tp"], c["tp"] ** 2])})
        >>> floor.chosen("power", np.array([0, 0, 1])).tolist()
        [1.0, 8.0, 64.0]
        """
        value, way = (self._own[name], None) if name in self._own else self._find(name)
        if way is None:
            return np.asarray(np.take_along_axis(value, which[None], axis=0)[0])
        return np.asarray(value.reshape(-1).take(way.chosen(which, value.shape[-1])))

    def _find(self, name: str) -> "tuple[npt.NDArray[Any], _Way | None]":
        for values, way in self._held:
            if name in values:
                return np.asarray(values[name]), way
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(dict.fromkeys((*self._own, *(name for values, _ in self._held for name in values))))

    def __len__(self) -> int:
        """Return the number of names."""
        return len(list(iter(self)))

    def __or__(self, more: Prices) -> "Floor":
        """Return these prices and further ones of the same block, which replace those of the same name."""
        own, held = (more._own, more._held) if isinstance(more, Floor) else (more, ())
        return Floor({**self._own, **own}, (*held, *self._held))


class _Way:
    """The row of a slower block that each row belongs to; through another block where there is one between."""

    def __init__(self, first: Index, then: "_Way | None" = None) -> None:
        self._first, self._then = first, then
        self._choice: tuple[Index, Index] | None = None

    @cached_property
    def rows(self) -> Index:
        return self._first if self._then is None else self._then.rows.take(self._first)

    def chosen(self, which: Index, size: int) -> Index:
        """Place of each row's choice in a flat array of (choices, `size`)."""
        if self._choice is None or self._choice[0] is not which:
            self._choice = which, which * size + self.rows
        return self._choice[1]


def _gathered(value: npt.NDArray[Any], rows: Index) -> npt.NDArray[Any]:
    if value.ndim == 0 or value.shape[-1] == 1:  # one for all
        return np.broadcast_to(value, (*value.shape[:-1], len(rows)))
    return value.take(rows, axis=-1)


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
        if np.any(index[1:] < index[:-1]):
            present, inverse = np.unique(index, return_inverse=True)
            return self.at(present).take(inverse)
        return _tree(self.axes, index)


def _tree(axes: Sequence[tuple[str, tuple[float, ...]]], index: Index) -> Columns:
    """Return rows in order as a tree: the last axis, over the rows of the others that occur; a few rows as they are."""
    *slower, (name, values) = axes
    if len(index) <= _FEW or not slower:
        few = np.unravel_index(index, [len(values) for _, values in axes])
        return Columns(
            {name: code for (name, _), code in zip(axes, few, strict=True)},
            {name: np.asarray(values, dtype=np.float64) for name, values in axes},
        )
    level = np.asarray(values, dtype=np.float64)
    if len(values) == 1:
        return _tree(slower, index)._with({name: np.zeros(len(index), dtype=np.int64)}, {name: level})
    heads = index // len(values)
    new = np.ones(len(heads), dtype=bool)
    np.not_equal(heads[1:], heads[:-1], out=new[1:])
    codes, base = index - heads * len(values), _tree(slower, heads.take(np.flatnonzero(new)))
    return Columns({name: codes}, {name: level}, base, np.cumsum(new) - 1)


def powers_of_two(limit: int) -> tuple[int, ...]:
    """Return 1, 2, 4 … up to `limit`.

    >>> powers_of_two(20)
    (1, 2, 4, 8, 16)
    """
    return tuple(1 << bit for bit in range(max(limit, 1).bit_length()))


@lru_cache(maxsize=1)
def keep_temporaries() -> None:
    """Have the C library keep the arrays of a block that are freed: pages that come back from the system cost the most.

    glibc maps arrays above 128 kB anew each time, and returns what is free beyond twice that; here the thresholds are 32 MB and
    256 MB (mallopt(3): M_MMAP_THRESHOLD, M_TRIM_THRESHOLD). Other C libraries go on as they are.
    """
    import ctypes

    with suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(-3, 32 << 20)
        allocator.mallopt(-1, 256 << 20)
