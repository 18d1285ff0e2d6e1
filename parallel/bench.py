"""How fast podscale is on this machine: strategies priced per second and core, clusters built, collectives priced."""

import os
import platform
from typing import Any

import numpy as np

from clusters.build import Cluster, build, path
from clusters.spec import load, with_
from clusters.tunings import collective_s
from collectives.bench import bench as collectives_bench
from collectives.pipelines import bench as pipelines_bench
from parallel import rules
from parallel.io import read_model
from parallel.placement import members_of
from parallel.sweep import BLOCK, PHASES, Bound, Task, serve_space, train_space
from parallel.workload import ServeWorkload, TrainWorkload
from topo.bench import REPEATS, best_of
from topo.bench import bench as topo_bench
from topo.orbits import quotient
from topo.tiers import tiers


def bench() -> dict[str, Any]:
    """Price DeepSeek-V3 on 4,608 GB200 in domains of 72 and return the rates.

    Returns
    -------
    dict
        `train_points_per_s_per_core` counts valid strategies priced in full, memory verdict included;
        `rejected_per_s` counts strategies that the rules refuse; `terms_per_point` the named times and bytes of each. Those of
        `topo.bench`, `collectives.bench` and `collectives.pipelines.bench` stand beside them.
    """
    model = read_model("deepseek-v3")
    spec = with_(load("gb200-nvl72"), accelerators=4608)
    task = Task("train", model, spec, TrainWorkload(), ServeWorkload(), train_space(build(spec), model))
    bound = Bound.of(task)
    train, terms = _rate(bound)
    decode = Task("decode", model, spec, TrainWorkload(), ServeWorkload(), serve_space(bound.cluster, model, "decode"))
    serve, _ = _rate(Bound.of(decode))
    return {
        "train_points_per_s_per_core": train,
        "serve_points_per_s_per_core": serve,
        "rejected_per_s": _rejection_rate(bound),
        "terms_per_point": terms,
        **_graph_times(bound.cluster),
        **topo_bench(),
        **collectives_bench(),
        **pipelines_bench(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}, {os.cpu_count()} cores",
        "repeats": REPEATS,
    }


def _valid(bound: Bound, limit: int) -> np.ndarray:
    """Return the indices of the first valid strategies, at most `limit`."""
    found: list[np.ndarray] = []
    for lo in range(0, bound.task.space.size, BLOCK):
        index = np.arange(lo, min(lo + BLOCK, bound.task.space.size), dtype=np.int64)
        broken = rules.first_broken(PHASES[bound.task.phase].rules, bound.at(index), bound.setting)
        found.append(index[broken < 0])
        if sum(map(len, found)) >= limit:
            break
    return np.concatenate(found)[:limit]


def _rate(bound: Bound) -> tuple[float, int]:
    """Return valid strategies per CPU second, decoded, priced and judged, and the terms of each."""
    index = _valid(bound, BLOCK)
    capacity = bound.cluster.accelerator.usable_bytes

    def work() -> None:
        priced = bound.price(bound.at(index))
        np.count_nonzero(priced.memory_bytes <= capacity)

    seconds = best_of(work)
    priced = bound.price(bound.at(index[:1]))
    return len(index) / seconds, len(priced.terms) + len(priced.busy) + len(priced.memory)


def _rejection_rate(bound: Bound) -> float:
    """Return strategies refused by the rules per CPU second."""
    index = np.arange(min(BLOCK, bound.task.space.size), dtype=np.int64)
    table = PHASES[bound.task.phase].rules
    refused = int(np.count_nonzero(rules.first_broken(table, bound.at(index), bound.setting) >= 0))
    return refused / best_of(lambda: rules.first_broken(table, bound.at(index), bound.setting))


def _graph_times(cluster: Cluster) -> dict[str, float]:
    group = members_of(cluster, np.array([float(cluster.tiers[0].size)]), 64.0, 1.0)
    road = path(cluster, "all_reduce")
    return {
        "quotient_s": best_of(lambda: quotient(cluster.blueprint)),
        "tiers_s": best_of(lambda: tiers(cluster.blueprint)),
        "collective_s": best_of(lambda: collective_s("all_reduce", 2.0**28, group, road)),
    }
