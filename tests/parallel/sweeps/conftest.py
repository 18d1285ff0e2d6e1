"""Small searches whose whole space can be asked at once, and what asking all of it at once gives."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from clusters.build import build
from clusters.spec import load, with_
from parallel import rules
from parallel.io import read_model
from parallel.sweeps.evaluate import evaluate, head, prepare
from parallel.sweeps.found import Found, merge
from parallel.sweeps.spaces import narrowed, space_of
from parallel.sweeps.task import PHASES, Bound, Task
from parallel.workload import ServeWorkload, TrainWorkload

Array = npt.NDArray[Any]
Values = tuple[Any, ...]
TRAIN = {
    "tp": (1, 2, 3, 8), "cp": (1, 2), "pp": (1, 2, 4), "micro_batch": (1, 2), "vpp": (1, 2), "order": (0, 1),
    "schedule": ("interleaved", "gpipe"), "sp": (0, 1), "recompute": ("none", "full"), "zero": (0, 3),
}  # fmt: skip
NARROW: Mapping[str, Mapping[str, Values]] = {
    "moe": {**TRAIN, "ep": (1, 4, 8), "etp": (1, 2), "micro_batch": (1,), "cp": (1,), "ep_overlap": (0, 1)},
    "dense": {**TRAIN, "etp": (1, 2)},
    "decode": {"tp": (1, 2, 3, 8), "batch": (1, 3, 16, 64, 128), "pp": (1, 2, 4, 33)},
    "prefill": {"pp": (1, 2, 3)},
}
MODELS = {"moe": "mixtral-8x7b", "dense": "llama-3.1-8b", "decode": "mixtral-8x7b", "prefill": "mixtral-8x7b"}


@cache
def _small(kind: str) -> Bound:
    phase = "train" if kind in ("moe", "dense") else kind
    spec, model = with_(load("hgx-h100"), accelerators=16), read_model(MODELS[kind])
    space = narrowed(space_of(phase, build(spec), model, (), "all"), NARROW[kind])
    return Bound.of(Task(phase, model, spec, TrainWorkload(global_batch=64), ServeWorkload(), space))


@cache
def _brute(bound: Bound) -> dict[str, Array]:
    phase = PHASES[bound.task.phase]
    cols = bound.at(np.arange(bound.task.space.size))
    index = np.flatnonzero(rules.first_broken(phase.rules, cols, bound.setting) < 0)
    priced = bound.price(cols.take(index))
    return {
        "index": index,
        "latency": phase.latency(priced),
        "rate": priced.extra["tokens_per_s_per_gpu"],
        "memory": priced.memory_bytes,
        "fits": priced.memory_bytes <= bound.cluster.accelerator.usable_bytes,
    }


def _whole(task: Task) -> Found:
    bound, rest = prepare(task)
    return merge(head(task.space.size, rest), evaluate(bound, rest, 0, len(rest.heads)))


@pytest.fixture(params=list(NARROW))
def small(request: pytest.FixtureRequest) -> Bound:
    """Training of experts and of a dense model, decode and prefill, over spaces of some thousand points."""
    return _small(request.param)


@pytest.fixture(scope="session")
def small_of() -> Callable[[str], Bound]:
    """``small_of("decode")``: one of these searches by its name."""
    return _small


@pytest.fixture(scope="session")
def brute() -> Callable[[Bound], dict[str, Array]]:
    """``brute(bound)``: every valid row of the whole space, judged by all rules at once and priced in one block."""
    return _brute


@pytest.fixture(scope="session")
def whole() -> Callable[[Task], Found]:
    """``whole(task)``: what the whole space comes to."""
    return _whole
