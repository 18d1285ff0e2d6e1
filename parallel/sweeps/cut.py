"""Early exact pruning: rules that read slow axes alone refuse whole runs of strategies before any is decoded.

Axes are taken in their order, slowest first. As soon as all that a rule reads is known it judges the prefixes that are
left; one that breaks it goes with all its strategies, counted under the rule's name. `cut` does so for the first axes,
`living` for the others, a few prefixes at a time, and ends with the strategies that are valid. The reason that is counted
is that of the first rule broken in this order (by the slowest axes that decide, then as in the table).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from parallel import rules
from parallel.strategy import Index, Space
from parallel.sweeps.implied import IMPLIED, same, side
from parallel.sweeps.task import PHASES, Bound

TAIL: Final = 1 << 12
"""Prefixes grow until their tail is this short: short enough to prune well, long enough to cost nothing."""
PREFIXES: Final = 1 << 22
"""Or until there are so many of them that another axis could not be held in memory."""
AT_ONCE: Final = 1 << 17
"""Prefixes that are judged together: their columns fit the cache."""


@dataclass(frozen=True)
class Level:
    """One axis: the space up to it, the strategies beyond each of its prefixes, and the rules that it completes."""

    space: Space
    size: int
    tail: int
    rules: tuple[rules.Rule, ...]


@dataclass(frozen=True)
class Cut:
    """What is left of a space.

    Attributes
    ----------
    heads : prefixes that live, in their order, as linear indices of the first axes
    tail : strategies of each
    rejected : strategies refused so far, by the name of the rule
    levels : the axes that are left, slowest first
    """

    heads: Index
    tail: int
    rejected: dict[str, int]
    levels: tuple[Level, ...]

    @property
    def rules(self) -> tuple[rules.Rule, ...]:
        """Rules that are still to be asked."""
        return tuple(rule for level in self.levels for rule in level.rules)

    def of(self, places: Index) -> Index:
        """Return the linear indices, in the whole space, of the strategies at some places of what is left.

        >>> Cut(np.array([0, 3]), 2, {}, ()).of(np.arange(1, 4)).tolist()
        [1, 6, 7]
        """
        return self.heads[places // self.tail] * self.tail + places % self.tail


def levels(bound: Bound) -> tuple[Level, ...]:
    """Return the axes of a task's space, each with the rules that can be asked once it is known and not before."""
    phase, axes = bound.task.phase, bound.task.space.axes
    waiting = [*PHASES[phase].rules, *same(phase, bound.task.space), *IMPLIED[side(phase)]]
    later = {name for name, _ in axes} | {name for name, *_ in PHASES[phase].follows}
    found, tail = [], bound.task.space.size
    for depth in range(1, len(axes) + 1):
        space = Space(axes[:depth])
        known = {*bound.completed(space.at(np.zeros(1, dtype=np.int64)))}
        ready = tuple(rule for rule in waiting if not later.intersection(rule.axes) - known)
        waiting = [rule for rule in waiting if rule not in ready]
        tail //= space.shape[-1]
        found.append(Level(space, space.shape[-1], tail, ready))
    return tuple(found)


def cut(bound: Bound) -> Cut:
    """Judge the prefixes of a task's space."""
    left = list(levels(bound))
    heads, tail, rejected = np.zeros(1, dtype=np.int64), bound.task.space.size, dict[str, int]()
    while left and tail > TAIL and len(heads) * left[0].size <= PREFIXES:
        level = left.pop(0)
        living = [_grown(bound, level, some, rejected) for some in _slices(heads, level)]
        heads, tail = np.concatenate([heads[:0], *living]), level.tail
    return Cut(heads, tail, rejected, tuple(left))


def living(bound: Bound, axes: tuple[Level, ...], heads: Index, rejected: dict[str, int]) -> Iterator[Index]:
    """Yield the valid strategies under some prefixes, in their order, a slice at a time; count the others.

    Parameters
    ----------
    axes : the levels below the prefixes
    rejected : takes the counts, by the name of the rule
    """
    if not axes:
        yield heads
        return
    for some in _slices(heads, axes[0]):
        grown = _grown(bound, axes[0], some, rejected)
        if len(grown):
            yield from living(bound, axes[1:], grown, rejected)


def _slices(heads: Index, level: Level) -> Iterator[Index]:
    many = max(1, AT_ONCE // level.size)
    for lo in range(0, len(heads), many):
        yield heads[lo : lo + many]


def _grown(bound: Bound, level: Level, heads: Index, rejected: dict[str, int]) -> Index:
    """Return the prefixes one axis longer that break no rule; count the others, with all beyond them."""
    grown = (heads[:, None] * level.size + np.arange(level.size)).ravel()
    if not level.rules:
        return grown
    broken = rules.first_broken(level.rules, bound.completed(level.space.at(grown)), bound.setting)
    for rule, count in zip(level.rules, np.bincount(broken + 1, minlength=len(level.rules) + 1)[1:], strict=True):
        if count:
            rejected[rule.name] = rejected.get(rule.name, 0) + int(count) * level.tail
    return grown[broken < 0]
