"""A search within a budget: seeded, never better than the whole, the whole where it can afford it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.sweeps.evaluate import evaluate, prepare
from parallel.sweeps.found import Found
from parallel.sweeps.objectives import OBJECTIVES
from parallel.sweeps.sampling import ISLANDS, regret, sampled
from parallel.sweeps.task import Ask, Bound, Task
from parallel.sweeps.units import Tasks, Unit, work

Same = Callable[[Found, Found], None]
SmallOf = Callable[[str], Bound]
Whole = Callable[[Task], Found]


def left(task: Task) -> int:
    rest = prepare(task)[1]
    return len(rest.heads) * rest.tail


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_answer(small: Bound, same: Same, seed: int) -> None:
    bound, rest = prepare(small.task)
    same(sampled(bound, rest, 200, seed), sampled(bound, rest, 200, seed))


def test_a_budget_of_the_whole_space_gives_the_exhaustive_answer(small: Bound, same: Same) -> None:
    bound, rest = prepare(small.task)
    found = sampled(bound, rest, left(small.task))
    same(found, evaluate(bound, rest, 0, len(rest.heads)))
    assert regret(found.islands) == 0.0


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(["moe", "dense", "decode", "prefill"]),
    budget=st.integers(1, 400),
    seed=st.integers(0, 1000),
    rank=st.sampled_from(["tokens_per_s_per_gpu", "step_time_s", "memory_bytes"]),
)
def test_a_sampled_search_keeps_its_budget_and_is_never_better_than_the_whole(
    small_of: SmallOf, whole: Whole, kind: str, budget: int, seed: int, rank: str
) -> None:
    task = replace(small_of(kind).task, ask=Ask(rank=rank, most=4))
    bound, rest = prepare(task)
    found, best = sampled(bound, rest, budget, seed), whole(task)
    assert found.points <= max(budget, 1)
    assert found.best_value <= best.best_value
    assert 0.0 <= regret(found.islands) <= 1.0
    assert len(found.islands) in (0, min(ISLANDS, budget))
    assert len(set(found.top.tolist())) == len(found.top)
    if found.best >= 0:
        assert found.best_value == max(found.islands, default=found.best_value)
        values = bound.price(bound.at(np.sort(found.top)))
        assert sorted(found.top_values) == sorted(OBJECTIVES[rank].sense * OBJECTIVES[rank].value(bound, values))


@given(st.lists(st.floats(-1e9, 1e9) | st.just(-np.inf), max_size=8))
def test_the_estimate_of_the_regret_is_a_share(islands: list[float]) -> None:
    assert 0.0 <= regret(tuple(islands)) <= 1.0


def test_climbs_that_agree_promise_nothing_more_and_those_that_found_nothing_promise_nothing() -> None:
    assert regret((7.0,) * 8) == 0.0
    assert regret((-np.inf,) * 8) == 1.0
    assert regret((-2.0, -4.0, -4.0)) == 1.0  # step times of 2 s and 4 s


def test_a_larger_budget_is_spent(small: Bound) -> None:
    bound, rest = prepare(small.task)
    few, many = (sampled(bound, rest, budget) for budget in (16, left(small.task) // 2))
    assert 0 < few.points < many.points


def test_a_sampled_cell_is_one_unit_and_counts_what_pruning_refused(small: Bound) -> None:
    plan = Tasks((small.task,), budget=100)
    done = work(plan, Unit(0))
    refused = small.task.space.size - left(small.task)
    assert refused < done.found.points <= refused + 100
    assert done.found.feasible + sum(done.found.rejected.values()) == done.found.points
    assert (done.size, done.tail) == (1, 100)


def test_cells_of_a_plan_have_seeds_of_their_own(small_of: SmallOf) -> None:
    task = small_of("moe").task
    first, second = (work(Tasks((task, task), budget=100), Unit(cell)).found for cell in (0, 1))
    assert first.islands != second.islands
