"""Rings along the axes of a grid of ranks: flat ring, hierarchical, and the buckets of a torus.

A grid of shape (n₀, n₁, …) numbers its ranks with axis 0 fastest. A bucket is a share of the buffer with an order of
axes and a direction: it is gathered round the rings of one axis after the other. A flat ring is one bucket on one axis;
a hierarchical algorithm is one bucket whose axes are the tiers; a torus of d axes keeps all its 2d links busy with 2d
buckets, each starting on another axis or going the other way.

Sources: Patarasuk and Yuan 2009 (ring); Thakur, Rabenseifner and Gropp 2005 (hierarchical); Jain and Sabharwal 2010
(rotated buckets).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np

from collectives.schedules.rounds import IntArray, Plan, Round, backwards, messages


@dataclass(frozen=True, slots=True)
class Bucket:
    """A share of the buffer: the axes in the order in which it is gathered, and +1 or -1 round their rings."""

    axes: tuple[int, ...]
    way: int = 1


def forward(shape: Sequence[int]) -> tuple[Bucket, ...]:
    """Return one bucket, gathered on the last axis first: the pieces are smallest where the ranks lie farthest apart."""
    return (Bucket(tuple(reversed(range(len(shape))))),)


def both_ways(shape: Sequence[int]) -> tuple[Bucket, ...]:
    """Return two buckets that go round the same rings in opposite directions."""
    axes = tuple(reversed(range(len(shape))))
    return (Bucket(axes), Bucket(axes, -1))


def rotated(shape: Sequence[int]) -> tuple[Bucket, ...]:
    """Return 2d buckets: each axis comes first for two of them, in opposite directions."""
    axes = tuple(reversed(range(len(shape))))
    turns = [axes[first:] + axes[:first] for first in range(len(axes))]
    return tuple(Bucket(turn, way) for way in (1, -1) for turn in turns)


@dataclass(frozen=True, slots=True)
class _Leg:
    """Steps of one bucket on one axis: from round `first`, `steps` of them, `held` pieces in each message."""

    number: int
    axis: int
    way: int
    first: int
    steps: int
    gathered: tuple[int, ...]
    held: int


def _legs(shape: Sequence[int], number: int, bucket: Bucket) -> list[_Leg]:
    """Return the legs of a bucket's all-gather, one for each axis longer than 1."""
    legs, first, gathered = [], 0, ()  # type: tuple[list[_Leg], int, tuple[int, ...]]
    for axis in bucket.axes:
        steps = shape[axis] - 1
        if steps:
            legs.append(_Leg(number, axis, bucket.way, first, steps, gathered, prod(shape[done] for done in gathered)))
        first, gathered = first + steps, (*gathered, axis)
    return legs


class _Grid:
    """Ranks on a grid: their coordinates, and the strides of its axes."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.strides = [prod(self.shape[:axis]) for axis in range(len(self.shape))]
        self.rank = np.arange(prod(self.shape))

    def digit(self, axis: int) -> IntArray:
        """Return every rank's coordinate on an axis."""
        digits: IntArray = self.rank // self.strides[axis] % self.shape[axis]
        return digits

    def shifted(self, axis: int, by: int) -> IntArray:
        """Return every rank's neighbour so many places along an axis, which closes to a ring."""
        digit = self.digit(axis)
        moved: IntArray = self.rank + ((digit + by) % self.shape[axis] - digit) * self.strides[axis]
        return moved

    def carried(self, leg: _Leg, step: int) -> IntArray:
        """Return the pieces (ranks by held) that each rank passes on in a step of a leg: what it got the step before."""
        origin = self.shifted(leg.axis, -leg.way * step)
        spread = np.zeros(1, dtype=np.int64)
        for axis in leg.gathered:
            origin = origin - self.digit(axis) * self.strides[axis]
            spread = (spread[:, None] + np.arange(self.shape[axis]) * self.strides[axis]).ravel()
        pieces: IntArray = leg.number * self.rank.size + origin[:, None] + spread
        return pieces


def gathered(shape: Sequence[int], size_bytes: float, buckets: Sequence[Bucket]) -> tuple[Round, ...]:
    """Return the rounds of an all-gather of the buckets: Σ(n - 1) over the axes.

    Piece b · ranks + r is rank r's share of bucket b.

    >>> [(each.repeat, float(each.size_bytes[0])) for each in gathered((4, 2), 80.0, forward((4, 2)))]
    [(1, 10.0), (3, 20.0)]
    """
    grid = _Grid(shape)
    piece_bytes = size_bytes / (grid.rank.size * len(buckets))
    legs = [leg for number, bucket in enumerate(buckets) for leg in _legs(grid.shape, number, bucket)]
    edges = sorted({edge for leg in legs for edge in (leg.first, leg.first + leg.steps)})

    def between(first: int, last: int) -> Round:
        on = [leg for leg in legs if leg.first <= first < leg.first + leg.steps]
        return messages(
            np.tile(grid.rank, len(on)),
            np.concatenate([grid.shifted(leg.axis, leg.way) for leg in on]),
            np.repeat([leg.held * piece_bytes for leg in on], grid.rank.size),
            last - first,
            pieces=lambda turn: [row for leg in on for row in grid.carried(leg, first - leg.first + turn)],
        )

    return tuple(between(first, last) for first, last in pairwise(edges))


def all_gather(shape: Sequence[int], size_bytes: float, buckets: Sequence[Bucket]) -> Plan:
    """Return the plan of an all-gather of buckets."""
    return Plan(gathered(shape, size_bytes, buckets), prod(shape) * len(buckets))


def reduce_scatter(shape: Sequence[int], size_bytes: float, buckets: Sequence[Bucket]) -> Plan:
    """Return the plan of a reduce-scatter: the all-gather of the opposite direction, backwards."""
    turned = [Bucket(bucket.axes, -bucket.way) for bucket in buckets]
    return Plan(backwards(gathered(shape, size_bytes, turned)), prod(shape) * len(buckets))


def all_reduce(shape: Sequence[int], size_bytes: float, buckets: Sequence[Bucket]) -> Plan:
    """Return the plan of a reduce-scatter followed by an all-gather.

    >>> plan = all_reduce((4,), 80.0, forward((4,)))
    >>> [(each.repeat, float(each.size_bytes[0])) for each in plan.rounds]
    [(3, 20.0), (3, 20.0)]
    """
    scatter = reduce_scatter(shape, size_bytes, buckets)
    return Plan((*scatter.rounds, *gathered(shape, size_bytes, buckets)), scatter.pieces)


def broken(ranks: int, inner: int | Sequence[int]) -> tuple[int, ...]:
    """Return the grid of blocks within blocks, from the ranks per block of each tier, innermost first.

    >>> broken(64, (4, 16))
    (4, 4, 4)
    """
    blocks = (inner,) if isinstance(inner, int) else tuple(inner)
    sizes = [1, *blocks, ranks]
    return tuple(outer // within for within, outer in pairwise(sizes))
