"""Early refusals are safe: whatever they drop breaks a rule, does not fit in memory, or stays under another name."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.build import build
from clusters.spec import load, with_
from parallel import rules
from parallel.io import read_model
from parallel.strategy import Columns
from parallel.sweeps.cut import cut, living
from parallel.sweeps.implied import IMPLIED, MEMORY, SAME, side, state_bytes, weight_bytes
from parallel.sweeps.implied import same as again
from parallel.sweeps.spaces import narrowed, space_of
from parallel.sweeps.task import PHASES, Bound, Task
from parallel.training.frameworks import OPTIMIZERS
from parallel.training.step import SCHEDULES
from parallel.workload import ServeWorkload, Software, TrainWorkload

CASES = [
    ("train", "deepseek-v3", "hgx-h100", 64),
    ("train", "llama-3.1-405b", "hgx-h100", 64),
    ("train", "mixtral-8x7b", "gb200-nvl72", 72),
    ("prefill", "deepseek-v3", "hgx-h100", 32),
    ("decode", "deepseek-v3", "gb200-nvl72", 72),
    ("decode", "llama-3.1-405b", "hgx-h100", 16),
]
TRAIN = {"tp": (1, 2, 4, 8), "cp": (1, 2), "ep": (1, 4, 8), "etp": (1, 2), "pp": (1, 2, 3, 8), "micro_batch": (1, 2),
         "vpp": (1, 2), "schedule": ("interleaved",), "order": (0,), "sp": (1,)}  # fmt: skip
FEW = {"pp": (1, 2, 3, 8), "batch": (0.25, 1, 4, 16)}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))


@cache
def bound_of(case: tuple[str, str, str, int]) -> Bound:
    phase, model, system, accelerators = case
    spec, shape = with_(load(system), accelerators=accelerators), read_model(model)
    space = space_of(phase, build(spec), shape, ("bf16", "fp8"), "all")
    dense = "ep" if phase == "train" else ""
    axes = {k: v for k, v in (TRAIN if phase == "train" else FEW).items() if k != dense or model != "llama-3.1-405b"}
    return Bound.of(Task(phase, shape, spec, TrainWorkload(global_batch=64), ServeWorkload(), narrowed(space, axes)))


@cache
def sample(bound: Bound, seed: int, rows: int = 6000) -> Columns:
    size = bound.task.space.size
    return bound.at(np.sort(np.random.default_rng(seed).choice(size, min(rows, size), replace=False)))


def valid(bound: Bound, cols: Columns) -> npt.NDArray[np.bool_]:
    return rules.first_broken(PHASES[bound.task.phase].rules, cols, bound.setting) < 0


@every_case
def test_every_row_that_is_refused_early_breaks_a_rule_or_does_not_fit(case: tuple[str, str, str, int]) -> None:
    bound = bound_of(case)
    cols = sample(bound, 0)
    refused = rules.first_broken(IMPLIED[side(bound.task.phase)], cols, bound.setting) >= 0
    could_run = cols.take(np.flatnonzero(refused & valid(bound, cols)))
    assert refused.any()
    if could_run.rows:
        needed = bound.price(could_run).memory_bytes
        assert np.all(needed > bound.cluster.accelerator.usable_bytes)


def test_the_weights_alone_refuse_some_rows_in_training_and_in_serving() -> None:
    """The property above is not empty."""
    for case in (CASES[0], CASES[1], CASES[3], CASES[5]):
        bound = bound_of(case)
        cols = sample(bound, 0)
        memory = tuple(rule for rule in IMPLIED[side(case[0])] if rule.name == MEMORY)
        assert np.any((rules.first_broken(memory, cols, bound.setting) >= 0) & valid(bound, cols)), case


@settings(max_examples=25, deadline=None)
@given(
    case=st.sampled_from([case for case in CASES if case[0] == "train"]),
    optimizer=st.sampled_from(list(OPTIMIZERS)),
    framework=st.sampled_from(["megatron-core", "megatron-lm", "torch-fsdp", "torch-fsdp-compiled"]),
    offload=st.sampled_from([0.0, 0.5, 1.0]),
    gradient_bytes=st.sampled_from([2.0, 4.0]),
    reserve_bytes=st.sampled_from([None, 0.0]),
    seed=st.integers(0, 3),
)
def test_no_step_holds_less_than_its_state(
    case: tuple[str, str, str, int], framework: str, seed: int, **work: Any
) -> None:
    bound = bound_of(case)
    train = TrainWorkload(global_batch=64, software=Software(framework=framework), **work)
    bound = replace(bound, task=replace(bound.task, train=train))
    cols = sample(bound, seed, 2000)
    cols = cols.take(np.flatnonzero(valid(bound, cols)))
    if cols.rows:
        assert np.all(state_bytes(cols, bound.setting) <= bound.price(cols).memory_bytes * (1 + 1e-12))


@settings(max_examples=15, deadline=None)
@given(
    case=st.sampled_from([case for case in CASES if case[0] != "train"]),
    kv_bytes=st.sampled_from([0.5, 2.0]),
    isl=st.sampled_from([1, 4096]),
    seed=st.integers(0, 3),
)
def test_no_pass_holds_less_than_its_weights(case: tuple[str, str, str, int], seed: int, **work: Any) -> None:
    bound = bound_of(case)
    bound = replace(bound, task=replace(bound.task, serve=ServeWorkload(reserve_bytes=0.0, **work)))
    cols = sample(bound, seed, 2000)
    cols = cols.take(np.flatnonzero(valid(bound, cols)))
    if cols.rows:
        assert np.all(weight_bytes(cols, bound.setting) <= bound.price(cols).memory_bytes * (1 + 1e-12))


def again_of(bound: Bound, changed: Callable[..., Columns]) -> tuple[Columns, Columns]:
    """Return valid rows of the whole space that are dropped as another one, and these others."""
    cols = bound.at(np.arange(bound.task.space.size))
    fine = valid(bound, cols) & (rules.first_broken(IMPLIED["train"], cols, bound.setting) < 0)
    drops = {rule.axes[0]: (kept, ~rule.valid(cols, bound.setting)) for kept, rule in SAME["train"]}
    dropped = np.flatnonzero(fine & np.any([bad for _, bad in drops.values()], axis=0))
    values = {axis: np.where(bad[dropped], kept, cols[axis][dropped]) for axis, (kept, bad) in drops.items()}
    return cols.take(dropped), changed(cols.take(dropped), **values)


def places(bound: Bound, cols: Columns) -> list[int]:
    """Return the linear indices of strategies."""
    codes = [np.argmax(np.equal.outer(cols[name], values), axis=1) for name, values in bound.task.space.axes]
    return [int(place) for place in np.ravel_multi_index(tuple(codes), bound.task.space.shape)]


@pytest.mark.parametrize("kind", ["moe", "dense"])
def test_each_row_that_is_another_one_has_an_equal_that_stays(
    kind: str, small_of: Callable[[str], Bound], changed: Callable[..., Columns]
) -> None:
    bound = small_of(kind)
    dropped, others = again_of(bound, changed)
    rest = cut(bound)
    stays = np.concatenate(list(living(bound, rest.levels, rest.heads, {}))).tolist()
    assert dropped.rows
    assert set(places(bound, others)) <= set(stays)
    first, second = bound.price(dropped), bound.price(others)
    assert np.array_equal(first.seconds, second.seconds)
    for name, value in first.extra.items():
        assert np.array_equal(value, second.extra[name]), name
    same_schedule = dropped["schedule"] == others["schedule"]
    assert same_schedule.any()
    assert np.array_equal(first.memory_bytes[same_schedule], second.memory_bytes[same_schedule])


def test_without_stages_no_schedule_is_faster_or_smaller_than_the_one_that_stays(
    small_of: Callable[[str], Bound], changed: Callable[..., Columns]
) -> None:
    task = small_of("dense").task
    bound = Bound.of(replace(task, space=narrowed(task.space, {"pp": (1,), "vpp": (1,), "schedule": SCHEDULES})))
    dropped, others = again_of(bound, changed)
    assert set(range(1, len(SCHEDULES))) <= set(dropped["schedule"])
    first, second = bound.price(dropped), bound.price(others)
    assert np.all(first.seconds >= second.seconds)
    assert np.all(first.memory_bytes >= second.memory_bytes)


@pytest.mark.parametrize(("axis", "only"), [("sp", 0.0), ("schedule", 2.0), ("etp", 2.0)])
def test_no_row_is_dropped_for_one_that_the_space_does_not_hold(axis: str, only: float) -> None:
    task = bound_of(CASES[1]).task
    space = narrowed(task.space, {axis: (only,)})
    assert axis not in {rule.axes[0] for rule in again("train", space)}
    assert axis in {rule.axes[0] for rule in again("train", task.space)}
