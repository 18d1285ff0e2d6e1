"""Pruning by slow axes: every point valid or refused once, and what stays is what all rules asked at once leave."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from parallel import rules
from parallel.strategy import Space
from parallel.sweeps import cut as cutting
from parallel.sweeps import evaluate as evaluating
from parallel.sweeps.cut import cut, living
from parallel.sweeps.evaluate import evaluate, head
from parallel.sweeps.found import Found, merge
from parallel.sweeps.implied import IMPLIED, side
from parallel.sweeps.implied import same as again
from parallel.sweeps.task import PHASES, Bound

Same = Callable[[Found, Found], None]
SIZES = [(cutting, "TAIL", 1), (cutting, "TAIL", 40), (cutting, "TAIL", 1 << 40), (cutting, "PREFIXES", 1),
         (cutting, "PREFIXES", 100), (cutting, "AT_ONCE", 1), (cutting, "AT_ONCE", 37)]  # fmt: skip


def left_by_all_rules(bound: Bound) -> npt.NDArray[np.int64]:
    """Ask every rule of every row of the whole space, none of them early."""
    cols = bound.at(np.arange(bound.task.space.size))
    asked = (
        *PHASES[bound.task.phase].rules,
        *again(bound.task.phase, bound.task.space),
        *IMPLIED[side(bound.task.phase)],
    )
    return np.flatnonzero(rules.first_broken(asked, cols, bound.setting) < 0)


def pruned(bound: Bound) -> tuple[npt.NDArray[np.int64], dict[str, int]]:
    rest = cut(bound)
    rejected = dict(rest.rejected)
    parts = list(living(bound, rest.levels, rest.heads, rejected))
    return np.concatenate([np.empty(0, dtype=np.int64), *parts]), rejected


def test_what_stays_is_what_all_rules_asked_at_once_leave(small: Bound) -> None:
    kept, rejected = pruned(small)
    assert np.array_equal(kept, left_by_all_rules(small))
    assert len(kept) + sum(rejected.values()) == small.task.space.size
    assert all(count > 0 for count in rejected.values())


@pytest.mark.parametrize(("module", "name", "value"), SIZES)
def test_where_the_cut_is_made_changes_neither_what_stays_nor_the_reasons(
    small: Bound, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, value: int
) -> None:
    before = pruned(small)
    monkeypatch.setattr(module, name, value)
    kept, rejected = pruned(small)
    assert np.array_equal(kept, before[0])
    assert rejected == before[1]


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [*SIZES, (evaluating, "BLOCK", 61), (evaluating, "BLOCK", 500), (evaluating, "PART", 90)],
)
def test_no_length_of_blocks_or_units_shows_in_the_result(
    small: Bound, same: Same, whole: Callable[[Any], Found], monkeypatch: pytest.MonkeyPatch,
    module: ModuleType, name: str, value: int,
) -> None:  # fmt: skip
    expected = whole(small.task)
    monkeypatch.setattr(module, name, value)
    rest = cut(small)
    found, many = head(small.task.space.size, rest), evaluating.step(rest.tail)
    many = max(many, len(rest.heads) // 20)  # a few units, not thousands
    for lo in range(0, len(rest.heads), many):
        found = merge(evaluate(small, rest, lo, lo + many), found)
    same(found, expected)


def test_places_of_what_is_left_are_points_of_the_space(small: Bound) -> None:
    rest = cut(small)
    places = np.arange(len(rest.heads) * rest.tail)
    index = rest.of(places)
    assert np.all(np.diff(index) > 0)
    assert np.array_equal(index // rest.tail, np.repeat(rest.heads, rest.tail))
    assert set(left_by_all_rules(small).tolist()) <= set(index.tolist())


def test_rules_are_asked_once_each_as_soon_as_their_axes_are_known(small: Bound) -> None:
    found = cutting.levels(small)
    asked = [rule for level in found for rule in level.rules]
    phase = small.task.phase
    expected = (*PHASES[phase].rules, *again(phase, small.task.space), *IMPLIED[side(phase)])
    assert sorted(map(id, asked)) == sorted(map(id, expected))
    assert found[-1].space == small.task.space
    assert found[-1].tail == 1


def test_a_space_of_which_nothing_is_valid_is_counted_and_leaves_no_trace(
    small_of: Callable[[str], Bound], whole: Callable[[Any], Found]
) -> None:
    nothing = Space(
        (("used", (8,)), ("tp", (3, 5)), ("ep", (1,)), ("pp", (1,)), ("microbatches", (1,)), ("batch", (1,)))
    )
    found = whole(replace(small_of("decode").task, space=nothing))
    assert (found.points, found.feasible, found.best, found.nearest) == (2, 0, -1, -1)
    assert found.rejected == {"tp divides the attention heads": 2}
    assert len(found.front) == 0


def test_the_order_of_axes_does_not_change_what_is_valid(small: Bound) -> None:
    """The same grid with its axes reversed: as many valid strategies, whichever rule refused the others."""
    turned = Bound.of(replace(small.task, space=Space(small.task.space.axes[::-1])))
    assert len(pruned(turned)[0]) == len(pruned(small)[0])
