"""The expert exchange of a layer: which kernels carry it, and what they cost on this wiring."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from clusters.build import Cluster, path
from collectives.moe import Copies, moe_exchange
from collectives.path import IDEAL
from parallel.models import Moe
from parallel.precision import Recipe, row_bytes
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError


@dataclass(frozen=True, slots=True)
class Exchange:
    """A family of dispatch and combine kernels.

    Attributes
    ----------
    regime : key of the link constants
    copies : a row per `expert`, per `rank` or per `node` (scale-up domain) that a token goes to
    scale_up_only : whether it works only inside one scale-up domain
    sm_share : share of the multiprocessors that it takes from a micro-batch computing meanwhile
    """

    regime: str
    copies: Copies
    scale_up_only: bool
    sm_share: float
    note: str


EXCHANGES: dict[str, Exchange] = {
    "low-latency": Exchange(
        "low-latency", "expert", False, 0.0, "RDMA and NVLink stores, no deduplication (deepseek-ai/DeepEP)"
    ),
    "normal": Exchange(
        "normal",
        "node",
        False,
        20 / 132,
        "one copy per domain over the NIC, then NVLink; 20 of 132 SMs (2412.19437 §3.2.2)",
    ),
    "one-sided": Exchange(
        "one-sided",
        "expert",
        True,
        20 / 132,
        "NVLink stores within one domain (NVIDIA/TensorRT-LLM, blog 18); SMs as above",
    ),
}


@dataclass(frozen=True, slots=True)
class ExchangeRules:
    """Assumptions about an exchange, so that a limit on paper and the full model are one computation.

    Attributes
    ----------
    extra_copies : rows per token beside the routed ones (a shared expert that is sent like the others: 1)
    locality : whether rows for the own rank or domain stay there
    ideal : links without latency, at their full rate
    copies : a row per `expert`, `rank` or `node`; None for what the kernels do
    dispatch, combine : formats of the rows; empty for the recipe's
    """

    extra_copies: int = 0
    locality: bool = True
    ideal: bool = False
    copies: Copies | None = None
    dispatch: str = ""
    combine: str = ""


REAL = ExchangeRules()


def candidates(name: str, phase: str) -> tuple[str, ...]:
    """Return the kernels to try: the named one, or under `auto` those made for the phase.

    >>> candidates("auto", "decode"), candidates("normal", "decode")
    (('low-latency', 'one-sided'), ('normal',))
    """
    if name == "auto":
        return ("low-latency", "one-sided") if phase == "decode" else ("normal", "one-sided")
    if name not in EXCHANGES:
        raise SpecError([Fault("exchange", name, "no such kernels", f"choose auto, {', '.join(EXCHANGES)}")])
    return (name,)


def exchange_s(
    cluster: Cluster,
    moe: Moe,
    hidden: int,
    tokens: ColumnLike,
    members: Column,
    recipe: Recipe,
    *,
    name: str = "auto",
    phase: str = "decode",
    rules: ExchangeRules = REAL,
) -> dict[str, Column]:
    """Dispatch and combine of one layer, in seconds, by the cheapest kernels that work for the group.

    Parameters
    ----------
    tokens : tokens that each rank brings
    members : members per tier of the expert group, shape (tiers, rows)

    Returns
    -------
    dict
        `dispatch`, `combine`: seconds; `kernels`: index into `candidates(name, phase)`.
    """
    size = members[-1]
    domain = np.zeros_like(size)
    for tier, inside in zip(cluster.tiers, members, strict=True):
        if tier.plane == "scale-up":
            domain = np.maximum(domain, inside)
    found: list[dict[str, Column]] = []
    for key in candidates(name, phase):
        kernels = EXCHANGES[key]
        price = {
            step: _one_way(cluster, moe, tokens, row_bytes(hidden, fmt), members, kernels, f"moe_{step}", rules)
            for step, fmt in (
                ("dispatch", rules.dispatch or recipe.dispatch),
                ("combine", rules.combine or recipe.combine),
            )
        }
        reach = np.where((domain >= size) | (not kernels.scale_up_only), 0.0, np.inf)
        found.append({step: seconds + reach for step, seconds in price.items()})
    choice = np.argmin(np.stack([f["dispatch"] + f["combine"] for f in found]), axis=0)
    pick = {
        step: np.take_along_axis(np.stack([f[step] for f in found]), choice[None], axis=0)[0]
        for step in ("dispatch", "combine")
    }
    return {**pick, "kernels": column(choice)}


def _one_way(
    cluster: Cluster,
    moe: Moe,
    tokens: ColumnLike,
    row: float,
    members: Column,
    kernels: Exchange,
    op: str,
    rules: ExchangeRules,
) -> Column:
    road = path(cluster, op, kernels.regime)
    copies = rules.copies or kernels.copies
    if rules.ideal:
        road = tuple(replace(hop, latency_s=0.0, model=IDEAL) for hop in road)
    prices: Mapping[str, Column] = moe_exchange(
        tokens,
        row,
        moe.topk + rules.extra_copies,
        np.ceil(moe.experts / members[-1]) * members[-1],
        members,
        road,
        copies=copies,
        node_limit=float(moe.topk_groups) if moe.groups > 1 and copies == "node" else None,
        local_share="members" if rules.locality else 0.0,
    )
    return np.broadcast_to(prices["total_s"], members[-1].shape)
