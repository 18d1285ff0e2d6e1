"""Rows of a sweep over everything that can be valid: the same price alone, in any company, and from a scenario file."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from clusters.build import build
from clusters.spec import load, with_
from parallel import scenario
from parallel.explain.point import Point
from parallel.io import read_model
from parallel.placement import ORDERS
from parallel.priced import Priced
from parallel.sweeps.cut import living
from parallel.sweeps.evaluate import evaluate, head, prepare, step
from parallel.sweeps.found import Found, merge
from parallel.sweeps.spaces import space_of
from parallel.sweeps.task import Bound, Task
from parallel.training.layer import RECOMPUTE
from parallel.training.step import SCHEDULES
from parallel.workload import ServeWorkload, TrainWorkload

CASES = {
    "gpt-3": ("train", "gpt3-175b", "hgx-h100", 4096, ()),
    "train": ("train", "deepseek-v3", "gb200-nvl72", 1152, ("bf16", "fp8")),
    "prefill": ("prefill", "deepseek-v3", "gb200-nvl72", 576, ("bf16", "fp8")),
    "decode": ("decode", "deepseek-v3", "gb200-nvl72", 576, ()),
}
every = pytest.mark.parametrize("name", CASES)
ROWS = 1000


@cache
def bound_of(name: str) -> Bound:
    phase, model, system, accelerators, precisions = CASES[name]
    spec, shape = with_(load(system), accelerators=accelerators), read_model(model)
    space = space_of(phase, build(spec), shape, precisions, "all")
    return Bound.of(Task(phase, shape, spec, TrainWorkload(global_batch=4096), ServeWorkload(), space))


@cache
def rows(name: str) -> npt.NDArray[np.int64]:
    """Return a thousand random valid strategies of the whole space, in order."""
    bound, rest = prepare(bound_of(name).task)
    random = np.random.default_rng(7)
    heads = np.sort(random.choice(rest.heads, min(400, len(rest.heads)), replace=False))
    index = np.concatenate(list(living(bound, rest.levels, heads, {})))
    return np.sort(random.choice(index, ROWS, replace=False))


def everything(priced: Priced) -> dict[str, npt.NDArray[Any]]:
    """Return every column of a price by name, the whole of it."""
    held = {"seconds": priced.seconds, "memory": priced.memory_bytes}
    for kind in ("terms", "busy", "memory", "extra"):
        held |= {f"{kind} {name}": value for name, value in getattr(priced, kind).items()}
    return {name: np.broadcast_to(value, priced.seconds.shape) for name, value in held.items()}


def agree(one: Priced, other: Priced, of: npt.NDArray[np.int64]) -> None:
    """Assert that rows `of` a price are another price, whatever that block leaves out as nought."""
    whole, part = everything(one), everything(other)
    for name in whole.keys() | part.keys():
        left = whole[name][of] if name in whole else np.zeros(len(of))
        np.testing.assert_allclose(part.get(name, np.zeros(len(of))), left, rtol=1e-12, atol=1e-18, err_msg=name)


@every
def test_a_thousand_rows_cost_the_same_in_any_company(name: str) -> None:
    bound, index = bound_of(name), rows(name)
    whole = bound.price(bound.at(index))
    random = np.random.default_rng(3).permutation(ROWS)
    for some in np.array_split(random, 12):
        ordered = np.sort(some)
        agree(whole, bound.price(bound.at(index[ordered])), ordered)


@every
def test_rows_cost_the_same_alone(name: str) -> None:
    bound, index = bound_of(name), rows(name)
    whole = bound.price(bound.at(index))
    for row in np.random.default_rng(5).choice(ROWS, 12, replace=False):
        agree(whole, bound.price(bound.at(index[row : row + 1])), np.array([row]))


@every
def test_a_row_is_priced_again_from_the_point_that_is_written_of_it(name: str) -> None:
    bound, index = bound_of(name), rows(name)
    whole = bound.price(bound.at(index))
    for row in np.random.default_rng(5).choice(ROWS, 3, replace=False):
        task, split = bound.task, bound.at(index[row : row + 1]).row(0)
        held = Point(task.phase, task.model, task.cluster, task.train, task.serve, split).to_dict()
        agree(whole, Point.from_dict(held).price(), np.array([row]))


def training(task: Task, split: dict[str, float]) -> dict[str, Any]:
    named = {"order": ORDERS, "recompute": RECOMPUTE, "schedule": SCHEDULES}
    strategy = {axis: named[axis][int(value)] if axis in named else value for axis, value in split.items()}
    strategy |= {
        "ranks_per_domain": strategy.pop("used"),
        "sp": bool(split["sp"]),
        "ep_overlap": bool(split["ep_overlap"]),
    }
    work = {"sequence": task.train.sequence, "global_batch": task.train.global_batch}
    return {"workload": work | precision(task.train.precision, strategy), "strategy": strategy}


def serving(task: Task, split: dict[str, float]) -> dict[str, Any]:
    strategy = {**split, "ranks_per_domain": split["used"]}
    del strategy["used"]
    work = precision(task.serve.precision, strategy)
    return {"phase": task.phase, "workload": work, "strategy": strategy}


def precision(default: str, strategy: dict[str, Any]) -> dict[str, str]:
    from parallel.precision import RECIPES

    code = strategy.pop("precision", None)
    return {"precision": default if code is None else tuple(RECIPES)[int(code)]}


@every
def test_a_scenario_file_of_a_row_gives_its_step_time(name: str, tmp_path: Path) -> None:
    bound, index = bound_of(name), rows(name)
    whole = bound.price(bound.at(index))
    fits = np.flatnonzero(whole.memory_bytes <= bound.cluster.accelerator.usable_bytes)
    _, model, system, accelerators, _ = CASES[name]
    write: Callable[..., dict[str, Any]]
    write, run = (training, scenario.train) if bound.task.phase == "train" else (serving, scenario.serve)
    for row in np.random.default_rng(5).choice(fits, 3, replace=False):
        split = bound.at(index[row : row + 1]).row(0)
        file = {"model": model, "cluster": system, "accelerators": accelerators, **write(bound.task, split)}
        path = tmp_path / f"{row}.yaml"
        path.write_text(yaml.safe_dump(file), encoding="utf-8")
        told = run(path)
        assert told["step_time_s"] == pytest.approx(whole.seconds[row], rel=1e-12)
        assert told["tokens_per_s_per_gpu"] == pytest.approx(whole.extra["tokens_per_s_per_gpu"][row], rel=1e-12)


@every
def test_a_unit_of_the_whole_space_keeps_the_best_of_its_rows(name: str) -> None:
    bound, rest = prepare(bound_of(name).task)
    many = max(1, min(step(rest.tail), len(rest.heads)) // 60)
    found = evaluate(bound, rest, 0, many)
    index = np.concatenate(list(living(bound, rest.levels, rest.heads[:many], {})))
    assert found.points == many * rest.tail
    assert found.feasible <= len(index)
    assert head(bound.task.space.size, rest).points + len(rest.heads) * rest.tail == bound.task.space.size
    again = merge(Found(), evaluate(bound, rest, 0, many))
    assert again.best == found.best
