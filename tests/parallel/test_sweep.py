"""A sweep against brute force: the same winner, the same front, the same counts, whatever the partition."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel import rules, sweep
from parallel.search import Found, merge
from parallel.strategy import Space
from parallel.sweep import PHASES, Bound, evaluate, evaluate_range
from topo.errors import SpecError

CASES = [
    ("decode", "mixtral-8x7b", "hgx-h100", 16),
    ("prefill", "mixtral-8x7b", "hgx-h100", 16),
    ("train", "llama-3.1-8b", "hgx-h100", 16),
]
every_phase = pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])


def same(a: Found, b: Found) -> None:
    for item in fields(Found):
        left, right = getattr(a, item.name), getattr(b, item.name)
        assert np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right, item.name


@pytest.fixture
def bound(case, bind):
    return bind(*case)


def brute(bound: Bound) -> dict[str, np.ndarray]:
    """Price every valid row of the whole space at once, without blocks, fronts or limits."""
    phase = PHASES[bound.task.phase]
    cols = bound.at(np.arange(bound.task.space.size))
    index = np.flatnonzero(rules.first_broken(phase.rules, cols, bound.setting) < 0)
    priced = bound.price(cols.take(index))
    return {
        "index": index,
        "latency": phase.latency(priced),
        "rate": priced.extra["tokens_per_s_per_gpu"],
        "fits": priced.memory_bytes <= bound.cluster.accelerator.usable_bytes,
    }


@every_phase
def test_the_best_is_the_true_maximum(bound, case):
    rows = brute(bound)
    found = evaluate_range(bound.task, 0, bound.task.space.size)
    limit = PHASES[case[0]].limit_s(bound.task)
    feasible = rows["fits"] & (rows["latency"] <= limit)
    assert found.feasible == feasible.sum() > 0
    top = rows["rate"][feasible].max()
    assert found.best_value == top
    assert found.best == rows["index"][feasible & (rows["rate"] == top)].min()
    fastest = rows["latency"][rows["fits"]].min()
    assert found.nearest_value == fastest
    assert found.nearest == rows["index"][rows["fits"] & (rows["latency"] == fastest)].min()


@every_phase
def test_the_front_is_what_brute_force_leaves(bound, case):
    rows = brute(bound)
    found = evaluate_range(bound.task, 0, bound.task.space.size)
    x, y = 1.0 / rows["latency"][rows["fits"]], rows["rate"][rows["fits"]]
    points = list(zip(found.front_x.tolist(), found.front_y.tolist(), strict=True))
    assert points
    for speed, rate in points:
        assert not np.any((x >= speed) & (y >= rate) & ((x > speed) | (y > rate)))
    beaten = np.zeros(len(x), dtype=bool)
    for speed, rate in points:
        beaten |= (x <= speed) & (y <= rate)
    assert beaten.all()


@every_phase
def test_every_point_is_feasible_or_rejected_for_one_reason(bound, case):
    size = bound.task.space.size
    found = evaluate_range(bound.task, 0, size)
    assert found.points == size
    assert found.feasible + sum(found.rejected.values()) == size
    assert all(count > 0 for count in found.rejected.values())


@settings(max_examples=15, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_any_partition_merged_in_order_finds_the_same(case, bind, data):
    bound = bind(*case)
    lo = data.draw(st.integers(0, bound.task.space.size))
    hi = min(bound.task.space.size, lo + 3000)
    cuts = sorted(data.draw(st.lists(st.integers(lo, hi), max_size=4)))
    found = Found()
    for start, stop in zip([lo, *cuts], [*cuts, hi], strict=True):
        found = merge(found, evaluate_range(bound.task, start, stop))
    same(found, evaluate_range(bound.task, lo, hi))


@every_phase
@pytest.mark.parametrize("block", [97, 1000])
def test_the_length_of_blocks_does_not_show(bound, case, block, monkeypatch):
    size = min(bound.task.space.size, 6000)
    whole = evaluate_range(bound.task, 0, size)
    monkeypatch.setattr(sweep, "BLOCK", block)
    same(evaluate_range(bound.task, 0, size), whole)


def test_the_lower_index_wins_a_tie(bind):
    """An axis that no price reads makes every strategy appear three times."""
    task = bind("decode", "mixtral-8x7b", "hgx-h100", 16).task
    twice = Space((("unused", (1, 2, 3)), *task.space.axes))
    once, tied = evaluate_range(task, 0, task.space.size), evaluate_range(replace(task, space=twice), 0, twice.size)
    assert tied.best == once.best
    assert tied.best_value == once.best_value
    assert tied.feasible == 3 * once.feasible
    assert np.array_equal(tied.front, once.front)


def test_an_empty_range_finds_nothing(bind):
    task = bind("decode", "mixtral-8x7b", "hgx-h100", 16).task
    same(evaluate_range(task, 5, 5), Found())


def test_a_block_without_a_valid_row_is_counted_and_leaves_no_trace(bind):
    bound = bind("decode", "mixtral-8x7b", "hgx-h100", 16)
    nothing = Space(
        (("used", (8,)), ("tp", (3, 5)), ("ep", (1,)), ("pp", (1,)), ("microbatches", (1,)), ("batch", (1,)))
    )
    found = evaluate_range(replace(bound.task, space=nothing), 0, 2)
    assert (found.points, found.feasible, found.best, found.nearest) == (2, 0, -1, -1)
    assert found.rejected == {"tp divides the attention heads": 2}
    assert len(found.front) == 0


def test_a_block_in_which_nothing_fits_has_no_nearest(bind):
    bound = bind("decode", "deepseek-v3", "hgx-h100", 16)
    huge = Space((("used", (8,)), ("tp", (1,)), ("ep", (1,)), ("pp", (1,)), ("microbatches", (1,)), ("batch", (1, 2))))
    found = evaluate_range(replace(bound.task, space=huge), 0, 2)
    assert (found.feasible, found.best, found.nearest) == (0, -1, -1)
    assert found.rejected == {"memory": 2}


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["rate", "latency", "memory"])
def test_a_row_without_a_finite_price_never_wins(poison, where, bind, monkeypatch):
    """The first, best and last rows of a block lose their price: the rest is found as if they were not there."""
    bound = bind("decode", "mixtral-8x7b", "hgx-h100", 16)
    phase, size = PHASES["decode"], 2000
    clean = evaluate(bound, 0, size)
    cols = bound.at(np.arange(size))
    order = np.flatnonzero(rules.first_broken(phase.rules, cols, bound.setting) < 0)
    bad = [0, int(np.flatnonzero(order == clean.best)[0]), len(order) - 1]

    def poisoned(bound, cols):
        priced = phase.price(bound, cols)
        if where == "latency":
            priced.seconds[bad] = poison
        elif where == "rate":
            priced.extra["tokens_per_s_per_gpu"][bad] = poison
        else:
            priced.memory["weights"] = np.array(priced.memory["weights"])
            priced.memory["weights"][bad] = poison
        return priced

    monkeypatch.setitem(PHASES, "decode", replace(phase, price=poisoned))
    found = evaluate(bound, 0, size)
    assert found.rejected["no finite price"] == 3
    assert np.isfinite([found.best_value, found.nearest_value]).all()
    assert 0 <= found.best != clean.best
    assert found.best_value <= clean.best_value
    assert np.isfinite(found.front_x).all()
    assert np.isfinite(found.front_y).all()
    assert not set(order[bad]) & {*found.front.tolist(), found.best, found.nearest}


def test_an_unknown_phase_is_refused_with_the_known_ones(bind):
    task = bind("decode", "mixtral-8x7b", "hgx-h100", 16).task
    with pytest.raises(SpecError, match="choose one of train, prefill, decode"):
        Bound.of(replace(task, phase="fine-tune"))


def test_the_limits_of_a_workload_bound_the_latency(bind):
    task = bind("decode", "mixtral-8x7b", "hgx-h100", 16).task
    tight = replace(task, serve=replace(task.serve, tpot_s=0.01))
    loose, strict = (evaluate_range(t, 0, t.space.size) for t in (task, tight))
    assert strict.best_value < loose.best_value
    bound = Bound.of(tight)
    assert bound.price(bound.at(np.array([strict.best]))).seconds[0] <= 0.01
    assert strict.rejected["TPOT limit"] > loose.rejected.get("TPOT limit", 0)


def test_training_spaces_complete_strategies_with_the_replicas_that_fit(bind):
    bound = bind("train", "llama-3.1-8b", "hgx-h100", 16)
    cols = bound.at(np.arange(0, bound.task.space.size, 101))
    room = 16 // (cols["tp"] * cols["pp"])
    assert np.all(cols["dp"] <= room)
    assert np.all(bound.task.train.global_batch % np.maximum(cols["dp"] * cols["micro_batch"], 1) == 0)
