"""A point of a search: a way to serve, what it comes to, how few accelerators do for a demand, how it is told."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parallel.serving.deployed import sizes
from parallel.serving.mappings import Ask
from parallel.serving.passes import Split


@dataclass(frozen=True, slots=True)
class Point:
    """A way to serve. `split` and `replicas` are of the decoding workers where `prefill` is a split too.

    `per_group` clients, or sequences that decode at once, are on each attention group; `clients` are all of them.
    """

    engine: str
    split: Split
    replicas: int
    per_group: float
    clients: float
    ttft_s: float
    tpot_s: float
    requests_per_s: float
    gpus: int
    prefill: Split | None = None
    prefills: int = 0

    @property
    def kind(self) -> str:
        """How the phases share the accelerators."""
        return "aggregated" if self.prefill is None else "disaggregated"


def fewest(ask: Ask, point: Point) -> Point:
    """Return a point with as few replicas as the demand needs; pools keep their balance.

    Each attention group has at most the clients that it was priced with, so that its times are upper bounds.
    """
    share = ask.clients / point.clients if ask.clients else (ask.requests_per_s or 0.0) / point.requests_per_s
    replicas, prefills = (int(np.ceil(share * count - 1e-9)) for count in (point.replicas, point.prefills))
    ranks = replicas * point.split.ranks + (prefills * point.prefill.ranks if point.prefill else 0.0)
    held = (
        replicas / point.replicas
        if point.prefill is None
        else min(replicas / point.replicas, prefills / point.prefills)
    )
    return replace(
        point,
        replicas=replicas,
        prefills=prefills,
        gpus=int(ranks),
        clients=held * point.clients,
        requests_per_s=held * point.requests_per_s,
    )


def row(ask: Ask, point: Point, accelerators: int) -> dict[str, Any]:
    """Return a point as the answer tells it; its rate per GPU is over so many, idle ones among them."""
    told = {
        "kind": point.kind,
        "engine": point.engine,
        "strategy": {**sizes(point.split), "replicas": point.replicas},
        "clients": point.clients,
        "per_group": point.per_group,
        "gpus_used": point.gpus,
        "ttft_s": point.ttft_s,
        "tpot_s": point.tpot_s,
        "requests_per_s": point.requests_per_s,
        "tokens_per_s_per_gpu": point.requests_per_s * ask.osl / accelerators,
        "tokens_per_s_per_user": 1.0 / point.tpot_s,
    }
    if point.prefill is not None:
        told["prefill"] = {**sizes(point.prefill), "workers": point.prefills}
    return told
