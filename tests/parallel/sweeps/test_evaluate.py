"""A block of strategies against brute force: the same winner, front, counts; a poisoned row alone is lost."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from parallel.priced import Priced
from parallel.strategy import Columns, Space
from parallel.sweeps import evaluate as evaluating
from parallel.sweeps.evaluate import FAILED, POISONED, evaluate, head, judged, prepare
from parallel.sweeps.found import BINS_PER_DECADE, Found, binned, merge
from parallel.sweeps.objectives import OBJECTIVES, better, objective, shown
from parallel.sweeps.task import PHASES, Ask, Bound, Task
from topo.errors import InfeasibleError, SpecError

Array = npt.NDArray[Any]
Brute = Callable[[Bound], dict[str, Array]]
Whole = Callable[[Task], Found]
Same = Callable[[Found, Found], None]
SmallOf = Callable[[str], Bound]


def beaten(values: Array) -> npt.NDArray[np.bool_]:
    """Whether another row is as good in every column and better in one."""
    no_less = np.all(values[None] >= values[:, None], axis=2)
    return np.asarray(np.any(no_less & np.any(values[None] > values[:, None], axis=2), axis=1))


def everything(bound: Bound, brute: Brute, names: tuple[str, ...]) -> Array:
    """Objectives of every valid row, larger is better, in the order of `brute`."""
    priced = bound.price(bound.at(brute(bound)["index"]))
    return np.stack([better(bound, priced, name) for name in names], axis=1)


def test_the_best_is_the_true_maximum(small: Bound, brute: Brute, whole: Whole) -> None:
    rows, found = brute(small), whole(small.task)
    feasible = rows["fits"] & (rows["latency"] <= PHASES[small.task.phase].limit_s(small.task))
    top = rows["rate"][feasible].max()
    assert found.best_value == top
    assert found.best in rows["index"][feasible & (rows["rate"] == top)]
    assert found.nearest_value == rows["latency"][rows["fits"]].min()


def test_each_point_is_feasible_or_rejected_for_one_reason(small: Bound, brute: Brute, whole: Whole) -> None:
    rows, found, size = brute(small), whole(small.task), small.task.space.size
    assert found.points == size
    assert found.feasible + sum(found.rejected.values()) == size
    again = found.rejected.get("is another strategy under another name", 0)
    feasible = rows["fits"] & (rows["latency"] <= PHASES[small.task.phase].limit_s(small.task))
    assert feasible.sum() - again <= found.feasible <= feasible.sum()


@pytest.mark.parametrize(
    "names",
    [
        ("tokens_per_s_per_gpu",),
        ("interactivity", "tokens_per_s_per_gpu"),
        ("memory_bytes", "tokens_per_s_per_gpu"),
        ("memory_bytes", "interactivity", "tokens_per_s_per_gpu"),
    ],
    ids=len,
)
@pytest.mark.parametrize("limited", [True, False])
def test_the_front_is_what_brute_force_leaves(
    small: Bound, brute: Brute, whole: Whole, names: tuple[str, ...], limited: bool
) -> None:
    rows, values = brute(small), everything(small, brute, names)
    kept = rows["fits"] & ((rows["latency"] <= PHASES[small.task.phase].limit_s(small.task)) | (not limited))
    expected = {tuple(row) for row in values[kept][~beaten(values[kept])].tolist()}
    found = whole(replace(small.task, ask=Ask(front=names, limited=limited)))
    assert {tuple(row) for row in found.front_values.tolist()} == expected
    assert len(found.front) == len(expected)
    assert set(found.front.tolist()) <= set(rows["index"][kept].tolist())


def test_a_limit_on_an_objective_refuses_what_is_beyond_it(small: Bound, brute: Brute, whole: Whole) -> None:
    values = everything(small, brute, ("memory_bytes", "tokens_per_s_per_gpu"))
    rows = brute(small)
    most, least = -np.median(values[rows["fits"], 0]), np.median(values[:, 1])
    limits = (("memory_bytes", most), ("tokens_per_s_per_gpu", least))
    found = whole(replace(small.task, ask=Ask(limits=limits)))
    inside = rows["fits"] & (rows["latency"] <= PHASES[small.task.phase].limit_s(small.task))
    inside &= (-values[:, 0] <= most) & (values[:, 1] >= least)
    assert found.best_value == (rows["rate"][inside].max() if inside.any() else -np.inf)
    assert found.feasible + sum(found.rejected.values()) == small.task.space.size
    loose = whole(small.task)
    assert found.feasible < loose.feasible
    assert found.rejected["limit of memory_bytes"] > 0


def test_the_limits_of_a_workload_bound_the_latency(small_of: SmallOf, whole: Whole) -> None:
    task = small_of("decode").task
    tight = replace(task, serve=replace(task.serve, tpot_s=0.01))
    loose, strict = whole(task), whole(tight)
    assert strict.best_value < loose.best_value
    bound = Bound.of(tight)
    assert bound.price(bound.at(np.array([strict.best]))).seconds[0] <= 0.01
    assert strict.rejected["TPOT limit"] > loose.rejected.get("TPOT limit", 0)
    assert strict.nearest == loose.nearest


def test_histograms_count_what_is_feasible(small: Bound, whole: Whole) -> None:
    found = whole(replace(small.task, ask=Ask(histogram=True)))
    assert found.counts.sum() == found.feasible > 0
    assert found.counts[int(np.flatnonzero(binned(np.array([found.best_value])))[0])] > 0
    assert len(whole(small.task).counts) == 0
    assert BINS_PER_DECADE == 20


def test_the_best_of_several_are_the_largest_of_all(small: Bound, brute: Brute, whole: Whole) -> None:
    found = whole(replace(small.task, ask=Ask(most=5)))
    rows = brute(small)
    feasible = rows["fits"] & (rows["latency"] <= PHASES[small.task.phase].limit_s(small.task))
    value = dict(zip(rows["index"].tolist(), rows["rate"].tolist(), strict=True))
    assert [value[index] for index in found.top.tolist()] == found.top_values.tolist()
    assert np.all(np.diff(found.top_values) <= 0)
    if "is another strategy under another name" not in found.rejected:
        assert found.top_values.tolist() == np.sort(rows["rate"][feasible])[::-1][:5].tolist()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_ranks_by_itself(name: str, small_of: SmallOf, brute: Brute, whole: Whole) -> None:
    bound = small_of("prefill" if name == "ttft_s" else "dense")
    values, rows = everything(bound, brute, (name,))[:, 0], brute(bound)
    inside = rows["fits"] & (rows["latency"] <= PHASES[bound.task.phase].limit_s(bound.task))
    found = whole(replace(bound.task, ask=Ask(rank=name)))
    if np.isfinite(values).all():
        assert found.best_value == values[inside].max()
        assert shown(name, found.best_value) == OBJECTIVES[name].sense * found.best_value
    else:  # a figure that is not public, or not of this phase: nothing is ranked by it
        assert found.rejected["no finite price"] > 0


def test_an_objective_that_is_not_known_is_answered_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean tokens_per_s_per_gpu"):
        objective("token_per_s_per_gpu")


def test_the_lower_index_wins_a_tie(small_of: SmallOf, whole: Whole) -> None:
    """An axis that no price reads makes every strategy appear three times."""
    task = small_of("decode").task
    thrice = Space((("unused", (1, 2, 3)), *task.space.axes))
    once, tied = whole(task), whole(replace(task, space=thrice))
    assert (tied.best, tied.best_value) == (once.best, once.best_value)
    assert tied.feasible == 3 * once.feasible
    assert np.array_equal(tied.front, once.front)


def test_an_empty_range_finds_nothing(small: Bound, same: Same) -> None:
    bound, rest = prepare(small.task)
    same(evaluate(bound, rest, 1, 1), Found())
    same(evaluate(bound, rest, len(rest.heads), len(rest.heads) + 5), Found())


def test_a_block_in_which_nothing_fits_has_no_nearest(small_of: SmallOf, whole: Whole) -> None:
    """One replica of one accelerator: the weights fit, a long cache does not."""
    task = small_of("decode").task
    huge = Space((("used", (8,)), ("tp", (1,)), ("ep", (1,)), ("pp", (1,)), ("microbatches", (1,)), ("batch", (1, 2))))
    found = whole(replace(task, space=huge, serve=replace(task.serve, isl=10**7)))
    assert (found.feasible, found.best, found.nearest) == (0, -1, -1)
    assert sum(found.rejected.values()) == 2


Price = Callable[[Bound, Columns], Priced]


def failing(price: Price, bad: Callable[[Columns], Array]) -> Price:
    """A price that raises where a block holds a bad row."""

    def made(bound: Bound, cols: Columns) -> Priced:
        if np.any(bad(cols)):
            raise ZeroDivisionError("boom")
        return price(bound, cols)

    return made


@pytest.mark.parametrize("count", [1, 3])
def test_a_strategy_whose_price_fails_is_found_and_takes_nothing_else_with_it(
    small_of: SmallOf, brute: Brute, whole: Whole, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    bound = small_of("decode")
    clean = whole(replace(bound.task, ask=Ask(most=1000)))
    bad = clean.top[[0, len(clean.top) // 2, -1][:count]]
    marked = bound.at(np.sort(bad))
    names = list(dict(bound.task.space.axes))

    def is_bad(cols: Columns) -> Array:
        hits = [np.all([cols[n] == marked[n][k] for n in names], axis=0) for k in range(marked.rows)]
        return np.asarray(np.any(hits, axis=0))

    monkeypatch.setitem(PHASES, "decode", replace(PHASES["decode"], price=failing(PHASES["decode"].price, is_bad)))
    found = whole(replace(bound.task, ask=Ask(most=1000)))
    assert found.poisoned == tuple((int(index), "ZeroDivisionError: boom") for index in np.sort(bad))
    assert found.rejected[FAILED] == count
    assert (found.points, found.feasible) == (clean.points, clean.feasible - count)
    assert found.top.tolist() == [index for index in clean.top.tolist() if index not in bad]


def test_a_price_that_always_fails_stops_with_a_clear_error(
    small_of: SmallOf, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bound: Bound, cols: Columns) -> Priced:
        raise ZeroDivisionError("boom")

    monkeypatch.setitem(PHASES, "decode", replace(PHASES["decode"], price=broken))
    with pytest.raises(SpecError, match=rf"fails for more than {POISONED} strategies: ZeroDivisionError: boom"):
        whole(small_of("decode").task)


def test_an_error_of_the_user_is_not_taken_for_a_poisoned_row(
    small_of: SmallOf, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(bound: Bound, cols: Columns) -> Priced:
        raise InfeasibleError("decode", "a limit", "too much")

    monkeypatch.setitem(PHASES, "decode", replace(PHASES["decode"], price=refused))
    with pytest.raises(InfeasibleError):
        whole(small_of("decode").task)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["rate", "latency", "memory"])
def test_a_row_without_a_finite_price_never_wins(
    poison: float, where: str, small_of: SmallOf, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best strategies and those of the front lose their price: the rest is found as if they were not there."""
    bound, phase = small_of("decode"), PHASES["decode"]
    clean = whole(bound.task)
    bad = np.unique([*clean.front, *clean.top, clean.nearest])
    marked, names = bound.at(bad), list(dict(bound.task.space.axes))

    def poisoned(bound: Bound, cols: Columns) -> Priced:
        priced = phase.price(bound, cols)
        hits = np.any([np.all([cols[n] == marked[n][k] for n in names], axis=0) for k in range(marked.rows)], axis=0)
        spoilt = {"latency": priced.seconds, "rate": priced.extra["tokens_per_s_per_gpu"],
                  "memory": np.broadcast_to(priced.memory["weights"], hits.shape)}[where]  # fmt: skip
        spoilt = np.where(hits, poison, spoilt)
        if where == "latency":
            return replace(priced, seconds=spoilt)
        if where == "rate":
            return replace(priced, extra={**priced.extra, "tokens_per_s_per_gpu": spoilt})
        return replace(priced, memory={**priced.memory, "weights": spoilt})

    monkeypatch.setitem(PHASES, "decode", replace(phase, price=poisoned))
    found = whole(bound.task)
    assert found.rejected["no finite price"] == len(bad)
    assert np.isfinite([found.best_value, found.nearest_value]).all()
    assert 0 <= found.best != clean.best
    assert found.best_value <= clean.best_value
    assert np.isfinite(found.front_values).all()
    assert not set(bad.tolist()) & {*found.front.tolist(), found.best, found.nearest}


def test_single_strategies_come_to_what_the_whole_comes_to(small: Bound, same: Same, whole: Whole) -> None:
    bound, rest = prepare(small.task)
    index = rest.of(np.arange(len(rest.heads) * rest.tail))
    alone = merge(head(small.task.space.size, rest), judged(bound, rest, index, Found()))
    expected = whole(small.task)
    same(replace(alone, rejected={}), replace(expected, rejected={}))
    assert sum(alone.rejected.values()) == sum(expected.rejected.values())


def test_a_unit_is_about_as_long_as_it_should_be() -> None:
    assert evaluating.step(1) == evaluating.PART
    assert evaluating.step(evaluating.PART) == evaluating.step(10 * evaluating.PART) == 1


def test_an_unknown_phase_is_refused_with_the_known_ones(small_of: SmallOf) -> None:
    with pytest.raises(SpecError, match="choose one of train, prefill, decode"):
        Bound.of(replace(small_of("decode").task, phase="fine-tune"))
