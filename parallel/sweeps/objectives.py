"""What strategies can be judged by: one table of objectives, each with its unit, its sense and where it comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

import numpy as np

from clusters.build import Cluster, bill
from parallel.economics import hour_usd, usd_per_million
from parallel.priced import Priced
from parallel.sweeps.task import PHASES, Bound
from topo.columns import Column
from topo.errors import Fault, SpecError


@dataclass(frozen=True)
class Objective:
    """One objective: `sense` is 1 where more is better, -1 where less is."""

    unit: str
    sense: int
    value: Callable[[Bound, Priced], Column]
    said: str


@lru_cache(maxsize=256)
def _cost(cluster: Cluster) -> tuple[float, float]:
    """Dollars per hour and watts of one accelerator, with its share of the network; NaN where no figure is public."""
    watts = bill(cluster)["power_W"]
    return hour_usd(cluster.accelerator.name), float(watts or "nan") / cluster.accelerators


def _usd_per_million(bound: Bound, priced: Priced) -> Column:
    rate = priced.extra["tokens_per_s_per_gpu"]
    return np.asarray(usd_per_million(_cost(bound.cluster)[0], 1.0) / rate)


def _per_joule(bound: Bound, priced: Priced) -> Column:
    return priced.extra["tokens_per_s_per_gpu"] / _cost(bound.cluster)[1]


OBJECTIVES: Final[Mapping[str, Objective]] = {
    "tokens_per_s_per_gpu": Objective(
        "tokens/s per GPU", 1, lambda b, p: p.extra["tokens_per_s_per_gpu"], "accelerators bought, idle ones too"
    ),
    "interactivity": Objective(
        "1/s", 1, lambda b, p: 1.0 / PHASES[b.task.phase].latency(p), "tokens per second and user; steps per second"
    ),
    "step_time_s": Objective("s", -1, lambda b, p: p.seconds, "a step, a prefill pass or a decode iteration"),
    "ttft_s": Objective("s", -1, lambda b, p: p.extra.get("ttft_s", p.seconds * np.nan), "time to first token"),
    "tokens_per_s": Objective(
        "tokens/s", 1, lambda b, p: p.extra["tokens_per_s_per_gpu"] * b.cluster.accelerators, "of the whole cluster"
    ),
    "memory_bytes": Objective("B", -1, lambda b, p: p.memory_bytes, "of the fullest accelerator"),
    "gpus_used": Objective("", -1, lambda b, p: p.extra["gpus_used"], "accelerators at work"),
    "mfu": Objective(
        "", 1, lambda b, p: p.extra.get("mfu", p.seconds * np.nan), "model FLOPs over the peak (training)"
    ),
    "usd_per_million_tokens": Objective(
        "USD", -1, _usd_per_million, "owned accelerators with their share of host, network and building"
    ),
    "tokens_per_joule": Objective(
        "1/J", 1, _per_joule, "accelerators and network at their rated power, as far as it is public"
    ),
}


def objective(name: str) -> Objective:
    """Return the objective of that name, or raise a `SpecError` with the nearest.

    >>> objective("step_time_s").sense
    -1
    """
    if name not in OBJECTIVES:
        near = get_close_matches(name, OBJECTIVES, 1)
        remedy = f"did you mean {near[0]}" if near else f"choose from {', '.join(OBJECTIVES)}"
        raise SpecError([Fault("objective", name, "is not known", remedy)])
    return OBJECTIVES[name]


def better(bound: Bound, priced: Priced, name: str) -> Column:
    """Return an objective's values with their sign such that larger is better."""
    found = OBJECTIVES[name]
    return found.sense * found.value(bound, priced)


def shown(name: str, value: float) -> float:
    """Return a value of `better` as it is read: in the objective's own sense.

    >>> shown("step_time_s", -2.0)
    2.0
    """
    return OBJECTIVES[name].sense * value
