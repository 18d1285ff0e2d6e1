"""Memory beyond the accelerator's own (hosts, pools, flash, disk) and what it costs to hold a byte there.

The figures lie in ``clusters/data/memories.yaml``, the user's own on top, each with source, tier, date, and range or note.
A row that names an `accelerator` takes capacity and bandwidth from that part, so that HBM can be compared with the rest.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from clusters.catalogue import accelerator
from clusters.fabrics import find
from clusters.figures import KEPT, Figure, Overlay, Table, entries_of, figures_of, overlay, sources_with
from topo.errors import Fault, SpecError

GB: Final = 1e9
"""Bytes in the GB of a price."""
DAY_S: Final = 86_400.0
YEAR_S: Final = 365.25 * DAY_S
_OF_PART: Final = {"capacity": "hbm_capacity", "bandwidth": "hbm_bandwidth"}


@dataclass(frozen=True, slots=True)
class Memory:
    """A kind of memory: `kind` is hbm, host, pool, flash or disk.

    `per` says whose `capacity_bytes` and `bandwidth_Bps` (one way, reading) they are: of one accelerator's share, or of
    one device. A price is None where none is public; `latency_s` likewise.
    """

    name: str
    title: str
    kind: str
    per: str
    capacity_bytes: float
    bandwidth_Bps: float
    latency_s: float | None
    usd_per_byte: float | None
    figures: Table[Figure]

    @property
    def drain_s(self) -> float:
        """Time to read all of it once."""
        return drain_s(self.capacity_bytes, self.bandwidth_Bps)

    @property
    def price_usd(self) -> float | None:
        """What the whole capacity costs."""
        return None if self.usd_per_byte is None else self.usd_per_byte * self.capacity_bytes


def drain_s(capacity_bytes: float, bandwidth_Bps: float) -> float:
    """Time to read a memory once: capacity / bandwidth.

    A byte that is read less often than that belongs one memory further out.

    >>> drain_s(80e9, 4e12)  # 80 GB at 4 TB/s
    0.02
    """
    return capacity_bytes / bandwidth_Bps


def holding_usd_per_byte_s(usd_per_byte: float, lifetime_s: float) -> float:
    """Price of holding a byte for a second: price of the byte / lifetime of the memory, without interest or energy.

    >>> round(holding_usd_per_byte_s(10e-9, 5 * YEAR_S) * GB * DAY_S, 4)  # 10 USD/GB over five years: USD per GB and day
    0.0055
    """
    return usd_per_byte / lifetime_s


def holding_usd(size_bytes: float, seconds: float, usd_per_byte: float, lifetime_s: float) -> float:
    """Price of holding some bytes for some time: size x time x price of a byte-second.

    >>> round(holding_usd(40e9, 3600, 10e-9, 5 * YEAR_S), 4)  # 40 GB of cache for an hour, at 10 USD/GB over five years
    0.0091
    """
    return size_bytes * seconds * holding_usd_per_byte_s(usd_per_byte, lifetime_s)


def break_even_s(usd: float, size_bytes: float, usd_per_byte: float, lifetime_s: float) -> float:
    """Time after which holding bytes has cost as much as making them again: usd / (size x price of a byte-second).

    >>> round(break_even_s(0.0091, 40e9, 10e-9, 5 * YEAR_S))  # a cache that costs 0.91 cents to compute again
    3590
    """
    return usd / (size_bytes * holding_usd_per_byte_s(usd_per_byte, lifetime_s))


def memories() -> tuple[str, ...]:
    """Names of the memories, fast ones first within a kind.

    >>> [name for name in memories() if name.startswith("hbm")]
    ['hbm-h100', 'hbm-gb200', 'hbm-rubin']
    """
    return tuple(_rows(overlay()))


def memory(name: str) -> Memory:
    """Return the memory of that name.

    Raises
    ------
    SpecError
        There is none; the remedy names the nearest.

    Examples
    --------
    >>> disk = memory("disk")
    >>> round(disk.drain_s / 3600), memory("HBM_H100").capacity_bytes
    (22, 80000000000.0)
    """
    over = overlay()
    return _memory(find("memory", name, {key: key for key in _rows(over)}), over)


def memory_rows() -> list[dict[str, Any]]:
    """One row per memory with its key figures in SI units, the drain time, and the price per GB with its range."""
    return [_row(memory(name)) for name in memories()]


def _row(held: Memory) -> dict[str, Any]:
    price = held.figures.get("price")
    return {
        "name": held.name,
        "title": held.title,
        "kind": held.kind,
        "per": held.per,
        "capacity_bytes": held.capacity_bytes,
        "bandwidth_Bps": held.bandwidth_Bps,
        "drain_s": held.drain_s,
        "latency_s": held.latency_s,
        "usd_per_GB": price.value if price else None,
        "usd_per_GB_range": list(price.range) if price and price.range else None,
        "price_usd": held.price_usd,
    }


@lru_cache(KEPT)
def _rows(over: Overlay) -> dict[str, dict[str, Any]]:
    """Entries of memories.yaml, the user's on top."""
    return entries_of(over, "memories.yaml")


@lru_cache(32 * KEPT)
def _memory(name: str, over: Overlay) -> Memory:
    row = _rows(over)[name]
    own = figures_of(row["figures"], sources_with(over))
    if "accelerator" in row:
        part = accelerator(row["accelerator"]).figures
        own = Table({**{key: part[figure] for key, figure in _OF_PART.items() if figure in part}, **own}.items())
    if missing := [key for key in _OF_PART if key not in own]:
        remedy = "write it among the figures: the accelerator has none that is public"
        raise SpecError([Fault(f"{name}.figures.{key}", None, "is missing", remedy) for key in missing])
    price = own.get("price")
    return Memory(
        name=name,
        title=row["title"],
        kind=row["kind"],
        per=row["per"],
        capacity_bytes=own["capacity"].si,
        bandwidth_Bps=own["bandwidth"].si,
        latency_s=own["latency"].si if "latency" in own else None,
        usd_per_byte=price.value / GB if price else None,
        figures=own,
    )
