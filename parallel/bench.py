"""How fast podscale is on this machine: strategies priced per second and core, clusters built, collectives priced."""

import os
import platform
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from clusters.build import Cluster, build, path
from clusters.spec import load, with_
from clusters.tunings import collective_s
from collectives.bench import bench as collectives_bench
from collectives.pipelines import bench as pipelines_bench
from parallel.io import read_model
from parallel.placement import members_of
from parallel.strategy import Index, keep_temporaries
from parallel.sweeps.cut import Cut, cut, living
from parallel.sweeps.evaluate import BLOCK
from parallel.sweeps.spaces import space_of
from parallel.sweeps.task import Bound, Task
from parallel.workload import ServeWorkload, TrainWorkload
from topo.bench import REPEATS, best_of
from topo.bench import bench as topo_bench
from topo.orbits import quotient
from topo.tiers import tiers

PLACES: Final = 4
"""Places of a space, evenly apart, from which blocks are priced."""
RUN: Final = 4
"""Blocks in a row at each place."""
GPT_3: Final = TrainWorkload(sequence=2048, global_batch=1536, precision="bf16")


def bench() -> dict[str, Any]:
    """Price the whole spaces of GPT-3 on 4,096 H100, and of DeepSeek-V3 on 4,608 GB200 in domains of 72; return the rates.

    Returns
    -------
    dict
        `train_points_per_s_per_core` (GPT-3), `train_moe_points_per_s_per_core` and `serve_points_per_s_per_core` (DeepSeek-V3,
        decoding) count valid strategies alone, decoded from their index, every term read and the memory verdict included;
        `rejected_per_s` counts strategies that the rules refuse; `terms_per_point` the named times and bytes of each. Those
        of `topo.bench`, `collectives.bench` and `collectives.pipelines.bench` stand beside them.
    """
    keep_temporaries()
    gpt = _bound("train", "gpt3-175b", "hgx-h100", 4096, GPT_3)
    moe = _bound("train", "deepseek-v3", "gb200-nvl72", 4608)
    decode = _bound("decode", "deepseek-v3", "gb200-nvl72", 4608)
    train, terms = _rate(gpt)
    return {
        "train_points_per_s_per_core": train,
        "train_moe_points_per_s_per_core": _rate(moe)[0],
        "serve_points_per_s_per_core": _rate(decode)[0],
        "rejected_per_s": _rejection_rate(gpt),
        "terms_per_point": terms,
        **_graph_times(moe.cluster),
        **topo_bench(),
        **collectives_bench(),
        **pipelines_bench(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}, {os.cpu_count()} cores",
        "repeats": REPEATS,
    }


def _bound(phase: str, model: str, system: str, accelerators: int, train: TrainWorkload | None = None) -> Bound:
    """Bind the whole space of a phase."""
    spec, shapes = with_(load(system), accelerators=accelerators), read_model(model)
    space = space_of(phase, build(spec), shapes, name="all")
    return Bound.of(Task(phase, shapes, spec, train or TrainWorkload(), ServeWorkload(), space))


def _blocks(bound: Bound, rest: Cut, place: int) -> Iterator[Index]:
    """Yield a run of blocks of valid strategies, as a sweep meets them from some prefix on."""
    held = np.empty(0, dtype=np.int64)
    for some in living(bound, rest.levels, rest.heads[place:], {}):
        held = np.concatenate((held, some))
        if len(held) >= RUN * BLOCK:
            break
    yield from (held[lo : lo + BLOCK] for lo in range(0, min(len(held), RUN * BLOCK), BLOCK))


def _rate(bound: Bound) -> tuple[float, int]:
    """Return valid strategies per CPU second, decoded, priced and judged, and the terms of each."""
    rest, capacity = cut(bound), bound.cluster.accelerator.usable_bytes
    places = [len(rest.heads) * place // PLACES for place in range(PLACES)]
    blocks = [block for place in places for block in _blocks(bound, rest, place)]

    def work() -> None:
        for block in blocks:
            priced = bound.price(bound.at(block))
            for columns in (priced.terms, priced.busy, priced.memory):
                tuple(columns.values())
            np.count_nonzero(priced.memory_bytes <= capacity)

    priced = bound.price(bound.at(blocks[0][:1]))
    terms = len(priced.terms) + len(priced.busy) + len(priced.memory)
    return sum(map(len, blocks)) / best_of(work), terms


def _rejection_rate(bound: Bound) -> float:
    """Return strategies refused by the rules per CPU second, those that fall with their prefix included."""
    return sum(cut(bound).rejected.values()) / best_of(lambda: cut(bound))


def _graph_times(cluster: Cluster) -> dict[str, float]:
    group = members_of(cluster, np.array([float(cluster.tiers[0].size)]), 64.0, 1.0)
    road = path(cluster, "all_reduce")
    return {
        "quotient_s": best_of(lambda: quotient(cluster.blueprint)),
        "tiers_s": best_of(lambda: tiers(cluster.blueprint)),
        "collective_s": best_of(lambda: collective_s("all_reduce", 2.0**28, group, road)),
    }
