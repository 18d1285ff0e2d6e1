"""What a change of a cluster costs, as far as the catalogue knows, and what a gain is worth at most."""

import math
from dataclasses import dataclass
from functools import lru_cache

from clusters.build import bill, build
from clusters.memories import memories, memory
from clusters.spec import ClusterSpec, part_of
from parallel.economics import capital_usd
from topo.errors import SpecError


@dataclass(frozen=True)
class Price:
    """Price of a change of a whole cluster, in dollars; None where no part of it is known.

    `unknown` names parts that come or go and have no public price, `said` says where the price comes from.
    """

    usd: float | None
    unknown: tuple[str, ...] = ()
    said: str = ""


def of_parts(before: ClusterSpec, after: ClusterSpec) -> Price:
    """Price of the parts that one cluster has more than another.

    >>> from clusters.spec import load, with_
    >>> box = load("hgx-h100")
    >>> more = of_parts(box, with_(box, accelerators=16))
    >>> more.usd > 8 * 30000, "quantum-2" in more.unknown
    (True, True)
    """
    bills = [{row["part"]: row for row in bill(build(spec))["parts"]} for spec in (before, after)]
    known, unknown = [], []
    for part in {**bills[0], **bills[1]}:
        rows = [held.get(part, {"count": 0, "price_usd": 0.0}) for held in bills]
        if rows[0]["count"] == rows[1]["count"]:
            continue
        if None in (rows[0]["price_usd"], rows[1]["price_usd"]):
            unknown.append(part)
        else:
            known.append(rows[1]["price_usd"] - rows[0]["price_usd"])
    return Price(sum(known) if known else None, tuple(unknown), "parts of the bill" if known else "")


def of_memory(spec: ClusterSpec, size_bytes: float) -> Price:
    """Price of more memory on every accelerator, by the gigabyte, as memory of the nearest bandwidth costs.

    >>> from clusters.spec import load
    >>> of_memory(load("hgx-h100"), 20e9).usd  # 8 accelerators, 20 GB each, 10 USD per GB
    1600.0
    """
    known = [held for held in map(memory, memories()) if held.kind == "hbm" and held.usd_per_byte]
    if not known:
        return Price(None)
    part = part_of(spec)
    like = min(known, key=lambda held: abs(math.log(held.bandwidth_Bps / part.hbm_Bps)))
    usd = (like.usd_per_byte or math.nan) * size_bytes * spec.accelerators
    return Price(usd, (), f"by the gigabyte, as {like.name}")


@lru_cache
def of_accelerator(name: str) -> float | None:
    """Price of one accelerator with its share of host, network and rack; None where nothing is public.

    >>> of_accelerator("gb200"), of_accelerator("my-accelerator")
    (70000.0, None)
    """
    try:
        usd = capital_usd(name)
    except SpecError:
        return None
    return usd if math.isfinite(usd) else None
