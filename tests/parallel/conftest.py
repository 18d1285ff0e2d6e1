"""Searches bound to small clusters, and random samples of their valid strategies."""

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import pytest

from clusters.build import build
from clusters.spec import load, with_
from parallel import rules
from parallel.executors import Cell
from parallel.io import read_model
from parallel.strategy import Columns
from parallel.sweeps.found import Found
from parallel.sweeps.plan import Sweep, works
from parallel.sweeps.spaces import space_of
from parallel.sweeps.task import PHASES, Bound, Task
from parallel.workload import ServeWorkload, TrainWorkload

TRAIN = TrainWorkload(global_batch=512)
SPACE: dict[str, tuple[float, ...]] = {
    "used": (8,), "tp": (1, 2, 3, 4), "ep": (1, 8), "pp": (1, 2), "microbatches": (1, 2), "batch": (1, 2, 8, 32, 64)
}  # fmt: skip


@cache
def _bind(phase: str, model: str, system: str, accelerators: int, domain: int | None = None) -> Bound:
    spec = with_(load(system), accelerators=accelerators, domain=domain)
    shape, cluster = read_model(model), build(spec)
    return Bound.of(Task(phase, shape, spec, TRAIN, ServeWorkload(), space_of(phase, cluster, shape)))


@cache
def _valid(bound: Bound, rows: int, seed: int = 0) -> Columns:
    random = np.random.default_rng(seed)
    size = bound.task.space.size
    index = np.sort(random.choice(size, min(40 * rows, size), replace=False))
    cols = bound.at(index)
    kept = np.flatnonzero(rules.first_broken(PHASES[bound.task.phase].rules, cols, bound.setting) < 0)
    return cols.take(np.sort(random.permutation(kept)[:rows]))


def _changed(cols: Columns, **values: Any) -> Columns:
    return Columns.of(**{**{name: cols[name] for name in cols}, **values})


@pytest.fixture(scope="session")
def bind() -> Callable[..., Bound]:
    """``bind(phase, model, system, accelerators, domain)``: the whole space of a phase, 512 sequences per step."""
    return _bind


@pytest.fixture(scope="session")
def valid() -> Callable[..., Columns]:
    """``valid(bound, rows)``: a random sample of the valid strategies."""
    return _valid


@pytest.fixture(scope="session")
def changed() -> Callable[..., Columns]:
    """``changed(cols, name=values)``: the same strategies with some columns replaced."""
    return _changed


def _same(a: Found, b: Found) -> None:
    for item in fields(Found):
        left, right = getattr(a, item.name), getattr(b, item.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype, item.name
            assert len(left) == len(right), item.name
            assert not len(left) or np.array_equal(left, right), item.name  # empty fronts have no width
        else:
            assert left == right, item.name


def _same_cells(a: dict[int, Cell], b: dict[int, Cell]) -> None:
    assert a.keys() == b.keys()
    for number, cell in a.items():
        _same(cell.found, b[number].found)
        assert (cell.size, cell.tail, cell.done) == (b[number].size, b[number].tail, b[number].done)
        assert str(cell.error) == str(b[number].error)


def _cells_of(many: int) -> Sweep:
    """Many small cells of four units' worth of nothing: a plan that needs no patches in workers."""
    return Sweep(
        name="many cells",
        models=(read_model("mixtral-8x7b"),),
        clusters=(with_(load("hgx-h100"), accelerators=16),),
        works=works(("decode",), {}, {"isl": tuple(range(1024, 1024 + many)), "precision": "bf16"}),
        strategies=(("serve", tuple((axis, values) for axis, values in SPACE.items() if axis != "used")),),
        space="usual",
        group=("isl",),
    )


@pytest.fixture(scope="session")
def same() -> Callable[[Found, Found], None]:
    """``same(a, b)``: two results agree bit for bit."""
    return _same


@pytest.fixture(scope="session")
def same_cells() -> Callable[[dict[int, Cell], dict[int, Cell]], None]:
    """``same_cells(a, b)``: two runs of a plan agree bit for bit."""
    return _same_cells


@pytest.fixture(scope="session")
def cells_of() -> Callable[[int], Sweep]:
    """``cells_of(many)``: a plan of many small cells, which are many units of work without a patch in the workers."""
    return _cells_of
