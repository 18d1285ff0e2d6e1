"""Small points whose searches take milliseconds."""

from collections.abc import Callable
from functools import cache

import pytest

from clusters.spec import load, with_
from parallel.explain.point import Point
from parallel.io import read_model
from parallel.workload import ServeWorkload, TrainWorkload

SPLITS = {
    "decode": {"used": 8.0, "tp": 2.0, "ep": 8.0, "pp": 1.0, "microbatches": 2.0, "batch": 64.0},
    "prefill": {"used": 8.0, "tp": 2.0, "ep": 8.0, "pp": 2.0, "microbatches": 1.0, "batch": 1.0},
    "train": {"used": 8.0, "tp": 2.0, "ep": 8.0, "pp": 2.0, "dp": 8.0, "micro_batch": 1.0, "vpp": 2.0, "zero": 1.0},
}


@cache
def _point(phase: str, model: str = "mixtral-8x7b", system: str = "hgx-h100", accelerators: int = 32) -> Point:
    train, serve = TrainWorkload(global_batch=256, precision="bf16"), ServeWorkload(isl=1024, osl=256, precision="bf16")
    split = SPLITS[phase] | {"order": 0.0, "sp": 1.0, "cp": 1.0, "etp": 1.0, "recompute": 0.0, "ep_overlap": 0.0}
    split = split | {"schedule": 0.0} if phase == "train" else SPLITS[phase]
    if model.startswith("llama"):
        split = split | {"ep": 1.0, "microbatches": 1.0} if phase != "train" else split | {"ep": 1.0}
    return Point(phase, read_model(model), with_(load(system), accelerators=accelerators), train, serve, split)


@pytest.fixture(scope="session")
def point() -> Callable[..., Point]:
    """``point(phase, model, system, accelerators)``: Mixtral on four boxes of eight by default."""
    return _point
