"""The expert exchange of a layer: which kernels carry it, and what they cost on this wiring."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clusters.build import Cluster, path
from clusters.exchanges import KERNELS, multiprocessors, workers
from collectives.moe import moe_exchange
from collectives.moe_kernel import Copies
from collectives.path import IDEAL, Hop
from parallel.models import Moe
from parallel.precision import Recipe, row_bytes
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError


@dataclass(frozen=True, slots=True)
class Exchange:
    """A family of dispatch and combine kernels.

    Attributes
    ----------
    regime : key of the link constants and of `clusters.exchanges.KERNELS`
    planes : the networks that it uses; one that uses scale-up alone works only inside a domain
    sms : multiprocessors that it takes from a micro-batch computing meanwhile; None where no other micro-batch can
        compute meanwhile
    """

    regime: str
    planes: tuple[str, ...]
    sms: int | None
    note: str

    @property
    def copies(self) -> Copies:
        """A row per `expert`, per `rank` or per `node` (scale-up domain) that a token goes to."""
        return KERNELS[self.regime].copies

    @property
    def sm_share(self) -> float | None:
        """Share of an H100's multiprocessors that it takes; `sm_share` tells that of any part."""
        return sm_share(self, "h100-sxm")


BOTH = ("scale-up", "scale-out")
SOME = KERNELS["normal"].lent
"""Multiprocessors that DeepSeek-V3 gives to its exchange kernels (2412.19437 §3.2.2)."""

EXCHANGES: dict[str, Exchange] = {
    "low-latency": Exchange(
        "low-latency",
        BOTH,
        None,
        "NVLink stores and RDMA, no deduplication; NVLink rules out overlap by receive hooks (deepseek-ai/DeepEP)",
    ),
    "low-latency-rdma": Exchange(
        "low-latency",
        ("scale-out",),
        0,
        "every row over the NIC, received behind another micro-batch without multiprocessors (deepseek-ai/DeepEP)",
    ),
    "normal": Exchange("normal", BOTH, SOME, "one copy per domain over the NIC, then NVLink (deepseek-ai/DeepEP)"),
    "one-sided": Exchange(
        "one-sided",
        ("scale-up",),
        SOME,
        "NVLink stores within one domain, one copy per rank (NVIDIA/TensorRT-LLM, blog 18 and moeAlltoAllKernels.cu)",
    ),
}


def sm_share(kernels: Exchange, part: str, like: str = "") -> float | None:
    """Return the share of a part's multiprocessors that kernels take from what computes meanwhile; None where nothing can.

    >>> f"{sm_share(EXCHANGES['normal'], 'h100-sxm'):.3f} {sm_share(EXCHANGES['normal'], 'b200-sxm'):.3f}"
    '0.152 0.135'
    """
    return None if kernels.sms is None else kernels.sms / multiprocessors(part, like)


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
    (('low-latency', 'low-latency-rdma', 'one-sided'), ('normal',))
    """
    if name == "auto":
        return ("low-latency", "low-latency-rdma", "one-sided") if phase == "decode" else ("normal", "one-sided")
    if name not in EXCHANGES:
        raise SpecError([Fault("exchange", name, "no such kernels", f"choose auto, {', '.join(EXCHANGES)}")])
    return (name,)


def reach(cluster: Cluster, members: Column) -> Column:
    """Members of the group in the domain of its worst placed rank."""
    inside = [m for tier, m in zip(cluster.tiers, members, strict=True) if tier.plane == "scale-up"]
    return np.asarray(inside[-1] if inside else np.ones_like(members[-1]))


def works_for(cluster: Cluster, members: Column, name: str) -> npt.NDArray[np.bool_]:
    """Whether the kernels reach every member of the group: inside one domain, or through NICs where there are any."""
    planes = EXCHANGES[name].planes
    if "scale-out" not in planes:
        return np.asarray(reach(cluster, members) >= members[-1])
    wired = "scale-up" in planes or any(tier.plane == "scale-out" for tier in cluster.tiers)
    return np.asarray(np.full(members[-1].shape, wired) | (members[-1] == 1))


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
        works = np.where(works_for(cluster, members, key), 0.0, np.inf)
        found.append({step: seconds + works for step, seconds in price.items()})
    choice = np.argmin(np.stack([f["dispatch"] + f["combine"] for f in found]), axis=0)
    pick = {
        step: np.take_along_axis(np.stack([f[step] for f in found]), choice[None], axis=0)[0]
        for step in ("dispatch", "combine")
    }
    return {**pick, "kernels": column(choice)}


def _road(road: tuple[Hop, ...], kernels: Exchange) -> tuple[Hop, ...]:
    """Return the hops that the kernels take: those that leave NVLink alone go out and back in through the NIC."""
    out = next((hop for hop in road if hop.plane == "scale-out"), None)
    if "scale-up" in kernels.planes or out is None:
        return road
    return tuple(hop if hop.plane == "scale-out" else out for hop in road)


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
    road = _road(path(cluster, op, kernels.regime), kernels)
    kernel, chip = KERNELS[kernels.regime], cluster.accelerator
    copies = rules.copies or kernel.copies
    experts = np.ceil(moe.experts / members[-1]) * members[-1]
    if rules.ideal:
        road = tuple(replace(hop, latency_s=0.0, model=IDEAL) for hop in road)
    prices: Mapping[str, Column] = moe_exchange(
        tokens,
        row,
        moe.topk + rules.extra_copies,
        experts,
        members,
        road,
        copies=copies,
        node_limit=float(moe.topk_groups) if moe.groups > 1 and copies == "node" else None,
        local_share="members" if rules.locality else 0.0,
        workers=workers(kernels.regime, chip.name, experts, chip.like),
        in_turn=kernel.in_turn,
    )
    return np.broadcast_to(prices["total_s"], members[-1].shape)
