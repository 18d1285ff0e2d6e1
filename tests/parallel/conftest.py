"""Searches bound to small clusters, and random samples of their valid strategies."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from clusters.build import build
from clusters.spec import load, with_
from parallel import rules
from parallel.io import read_model
from parallel.strategy import Columns
from parallel.sweep import PHASES, Bound, Task, serve_space, train_space
from parallel.workload import ServeWorkload, TrainWorkload

TRAIN = TrainWorkload(global_batch=512)


@cache
def _bind(phase: str, model: str, system: str, accelerators: int, domain: int | None = None) -> Bound:
    spec = with_(load(system), accelerators=accelerators, domain=domain)
    shape, cluster = read_model(model), build(spec)
    space = train_space(cluster, shape) if phase == "train" else serve_space(cluster, shape, phase)
    return Bound.of(Task(phase, shape, spec, TRAIN, ServeWorkload(), space))


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
