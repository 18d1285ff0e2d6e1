"""What exists: accelerators, NICs, switches and links, each figure with its unit, source, tier and date.

The data lie in ``clusters/data``: `accelerators/*.yaml` (one document per part), `fabrics.yaml`, and `sources.yaml`,
the table of sources; a folder of the same layout, named by the environment variable PODSCALE_CATALOGUE, adds to them or
overrides them figure by figure (`clusters.entries`). Peaks are dense FLOP/s, bandwidths one way, and one package is one
accelerator. Names are kebab-case; case, ``_`` and aliases ("h100") do not matter on input, and a misspelt name gets the
nearest. A part without public figures is a template: it is listed, and `unmet` says what to fill in.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from clusters.fabrics import (
    Link,
    Nic,
    Switch,
    fabric_rows,
    find,
    link,
    links,
    nic,
    nic_for,
    nics,
    switch,
    switches,
)
from clusters.figures import (
    DATA,
    KEPT,
    Figure,
    Overlay,
    Source,
    Table,
    figures_of,
    files_of,
    key_of,
    nearest,
    overlay,
    read_yaml,
    si_of,
    sources,
    sources_with,
    stated,
)
from clusters.units import EXAMPLES
from topo.errors import Fault

__all__ = [
    "DATA",
    "OVERRIDES",
    "Accelerator",
    "Figure",
    "Link",
    "Nic",
    "Overlay",
    "Source",
    "Switch",
    "Table",
    "accelerator",
    "accelerator_rows",
    "assemble",
    "cost",
    "fabric_rows",
    "key_of",
    "link",
    "links",
    "names",
    "nearest",
    "nic",
    "nic_for",
    "nics",
    "overlay",
    "overridden",
    "read_yaml",
    "sources",
    "stated",
    "switch",
    "switches",
    "unmet",
]

OVERRIDES: Final = MappingProxyType(
    {
        "hbm_bandwidth": "bandwidth",
        "hbm_capacity": "bytes",
        "sram": "bytes",
        "host_bandwidth": "bandwidth",
        "power": "power",
        "price": "price",
        **{f"peak_{precision}": "flops" for precision in ("fp32", "tf32", "bf16", "int8", "fp8", "fp4")},
    }
)
"""Accelerator figures that a cluster file may override -> their dimension."""

REQUIRED: Final = MappingProxyType(
    {
        "peak_bf16": ("override.accelerator.peak_bf16", EXAMPLES["flops"]),
        "hbm_capacity": ("override.accelerator.hbm_capacity", EXAMPLES["bytes"]),
        "hbm_bandwidth": ("override.accelerator.hbm_bandwidth", EXAMPLES["bandwidth"]),
        "scale_up_bandwidth": ("scale_up.bandwidth", EXAMPLES["bandwidth"]),
        "domain": ("domain", EXAMPLES["count"]),
        "link": ("scale_up.link", "nvlink5"),
        "nic": ("scale_out.nic", "400Gb/s, or the name of a NIC"),
    }
)
"""What a cluster cannot be priced without -> the field of a cluster file that supplies it, and an example."""
BINARY_GB: Final = 0.995 * 2**30 / 1e9
"""What the driver shows of a GB of memory as it is sold: 2^30 bytes less what firmware and error correction keep. nvidia-smi
lists 81,559 MiB for an H100 of 80 GB, 143,771 for 141, 183,359 for 180, 189,471 for 186: 0.994 to 0.996 of 2^30."""
TEMPLATE: Final = ("peak_bf16", "hbm_capacity", "hbm_bandwidth")
"""A part without these is a template."""
_WORDS: Final = dict(zip(REQUIRED, ("BF16", "HBM", "HBM rate", "scale-up", "domain", "link", "NIC"), strict=True))
RAILS: Final = 8
"""Rails of a part whose entry names none, as in the boxes of eight that most are sold in."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One package: what it computes, holds and talks, and how its maker usually wires it (`link` and below).

    `peak_flops` maps a precision ("bf16", "fp8" ...) to dense FLOP/s and lacks the precisions the part has not. `hbm_*`
    is the memory that holds the weights, on the chip where there is no other. `topology` is how the maker wires a
    domain: switched, mesh, torus, dragonfly or direct. `missing` names the keys of `REQUIRED` that are not public: a
    quantity among them is NaN, `domain` 0 and a name empty. `like` is the part whose constants a user's own borrows.
    """

    name: str
    title: str
    vendor: str
    generation: str
    year: int
    peak_flops: Table[float]
    hbm_bytes: float
    hbm_Bps: float
    sram_bytes: float | None
    scale_up_Bps: float
    scale_up_links: int | None
    host_Bps: float | None
    power_W: float | None
    price_usd: float | None
    link: str
    topology: str
    domain: int
    switches: int | None
    rails: int
    nic: str
    nics: float
    missing: tuple[str, ...]
    figures: Table[Figure]
    like: str = ""

    @property
    def usable_bytes(self) -> float:
        """Memory that programs can have: `BINARY_GB` for each GB that the data sheet sells, else the bytes that are stated.

        >>> round(accelerator("h100-sxm").usable_bytes / 2**20)
        81510
        """
        sold = self.figures.get("hbm_capacity")
        return self.hbm_bytes * (BINARY_GB if sold is not None and sold.unit == "GB" else 1.0)

    @property
    def drain_s(self) -> float:
        """Time to read the whole memory once: capacity / bandwidth, the least interval between tokens of a full part."""
        return self.hbm_bytes / self.hbm_Bps

    @property
    def flop_per_byte(self) -> float:
        """Dense BF16 FLOP for each byte of memory bandwidth: the intensity above which arithmetic is the limit."""
        return self.peak_flops.get("bf16", math.nan) / self.hbm_Bps


@lru_cache(KEPT)
def _documents(over: Overlay) -> dict[str, tuple[str, ...]]:
    """Accelerator name -> its YAML documents, the user's last. They are parsed when asked for, which keeps it quick."""
    found: dict[str, tuple[str, ...]] = {}
    for path in (*sorted((DATA / "accelerators").glob("*.yaml")), *files_of(over, "accelerators")):
        for text in documents(path.read_text(encoding="utf-8")):
            name = re.search(r"^name:[ \t]*(\S+)", text, re.MULTILINE)
            if name:
                found[name[1]] = (*found.get(name[1], ()), text)
    return found


def documents(text: str) -> list[str]:
    """Cut a file into its YAML documents."""
    return re.split(r"^---[ \t]*$", text, flags=re.MULTILINE)


@lru_cache(KEPT)
def _accelerator_names(over: Overlay) -> dict[str, str]:
    """Name or alias -> name."""
    names: dict[str, str] = {}
    for name, texts in _documents(over).items():
        found = [re.search(r"^aliases:[ \t]*\[(.*)\]", text, re.MULTILINE) for text in texts]
        aliases = [key.strip() for match in found if match for key in match[1].split(",")]
        names |= dict.fromkeys((name, *aliases), name)
    return names


def names() -> tuple[str, ...]:
    """Names of the accelerators in the catalogue: by maker, the oldest first."""
    return names_with(overlay())


def names_with(over: Overlay) -> tuple[str, ...]:
    """Names of the accelerators in the catalogue with a user's files on top."""
    return tuple(_documents(over))


def accelerator(name: str) -> Accelerator:
    """Return the accelerator of that name or alias.

    Raises
    ------
    SpecError
        No such part; the remedy names the nearest.

    Examples
    --------
    >>> accelerator("H100").name, accelerator("gb200").hbm_Bps
    ('h100-sxm', 8000000000000.0)
    """
    over = overlay()
    return _accelerator(find("accelerator", name, _accelerator_names(over)), over)


@lru_cache
def _accelerator(name: str, over: Overlay) -> Accelerator:
    """Parse the documents of one part."""
    head: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    for text in _documents(over)[name]:
        document = read_yaml(text)
        rows |= document.pop("figures", None) or {}
        head |= document
    return assemble(head, figures_of(rows, sources_with(over)))


def assemble(head: Mapping[str, Any], figures: Table[Figure]) -> Accelerator:
    """Return the accelerator of an entry's words and figures."""

    def count(key: str) -> int | None:
        return int(figures[key].si) if key in figures else None

    def known(key: str) -> float:
        return figures[key].si if key in figures else math.nan

    domain, link, nic = count("domain") or 0, head.get("link", ""), head.get("nic", "")
    given = {*figures, *(("link",) if link or domain == 1 else ()), *(("nic",) if nic else ())}
    return Accelerator(
        name=head["name"],
        title=head["title"],
        vendor=head["vendor"],
        generation=head["generation"],
        link=link,
        nic=nic,
        year=count("year") or 0,
        peak_flops=Table((k.removeprefix("peak_"), f.si) for k, f in figures.items() if k.startswith("peak_")),
        hbm_bytes=known("hbm_capacity"),
        hbm_Bps=known("hbm_bandwidth"),
        sram_bytes=si_of(figures, "sram"),
        scale_up_Bps=known("scale_up_bandwidth"),
        scale_up_links=count("scale_up_links"),
        host_Bps=si_of(figures, "host_bandwidth"),
        power_W=si_of(figures, "power"),
        price_usd=si_of(figures, "price"),
        topology=figures["scale_up_topology"].unit.split()[0] if "scale_up_topology" in figures else "switched",
        domain=domain,
        switches=count("switches"),
        rails=count("rails") or RAILS,
        nics=si_of(figures, "nics") or 1.0,
        missing=tuple(key for key in REQUIRED if key not in given),
        figures=figures,
        like=head.get("like", ""),
    )


def unmet(part: Accelerator, values: Mapping[str, Any], file: str = "") -> Iterator[Fault]:
    """Yield a fault for each field that a cluster file has to fill in, for the catalogue has no public figure.

    Parameters
    ----------
    part : Accelerator
        With the overrides of the file.
    values : mapping
        The file's checked fields.

    Examples
    --------
    >>> [fault.field for fault in unmet(accelerator("rubin-ultra"), {})]
    ['override.accelerator.peak_bf16']
    >>> list(unmet(accelerator("mi300x"), {"domain": 8}))
    []
    """
    up, alone = values.get("scale_up", {}), values.get("domain", part.domain) == 1
    given = {*values, *(f"scale_up.{key}" for key in up), *(f"scale_out.{key}" for key in values.get("scale_out", {}))}
    given |= {"scale_up.bandwidth"} if {"link_bandwidth", "levels"} & {*up} else set()
    own = isinstance(values.get("accelerator"), Mapping)
    for key in part.missing:
        field, example = REQUIRED[key]
        if field in given or (alone and field.startswith("scale_up.")):
            continue
        if own:
            problem = "is needed: silicon is not lent" if key in TEMPLATE else "is needed"
            yield Fault(
                f"accelerator.{key}", None, problem, f"write for instance {key}: {example}{_lender(key, part)}", file
            )
        else:
            problem = f"is needed: it is not public for the {part.title}"
            yield Fault(field, None, problem, f"fill in your own, for instance {example}", file)


def _lender(key: str, part: Accelerator) -> str:
    """Other way to a figure of one's own part: silicon is stated, wiring may be lent."""
    return "" if key in TEMPLATE or part.like else ", or name a part that yours is wired like: like: h100-sxm"


def overridden(part: Accelerator, values: Mapping[str, float]) -> Accelerator:
    """Return the accelerator with the user's figures (SI values by the keys of `OVERRIDES`) in place of its own.

    >>> overridden(accelerator("h100"), {"hbm_bandwidth": 8e12}).hbm_Bps
    8000000000000.0
    """
    mine = {key: stated(value, OVERRIDES[key]) for key, value in values.items()}
    if not mine:
        return part
    head = {key: getattr(part, key) for key in ("name", "title", "vendor", "generation", "link", "nic", "like")}
    return assemble(head, Table({**part.figures, **mine}.items()))


def cost(part: str) -> tuple[float | None, float | None]:
    """Watts and dollars of one part (accelerator, NIC, switch or link), None where the catalogue does not know.

    >>> cost("gb200"), cost("no such part")
    ((1200.0, 35000.0), (None, None))
    """
    makers = ((accelerator, names), (nic, nics), (switch, switches), (link, links))
    for make, known in makers:
        if part in known():
            found: Any = make(part)
            return found.power_W, found.price_usd
    return None, None


def accelerator_rows() -> list[dict[str, Any]]:
    """One row per accelerator with its key figures in SI units; `missing` is what a cluster file has to fill in."""
    keys = ("title", "vendor", "generation", "year", "hbm_bytes", "hbm_Bps", "drain_s", "flop_per_byte")
    rows = []
    for part in map(accelerator, names()):
        peaks = {f"{precision}_flops": part.peak_flops.get(precision) for precision in ("bf16", "fp8", "fp4")}
        row = {
            "name": part.name,
            **{key: getattr(part, key) for key in keys},
            "scale_up_Bps": part.scale_up_Bps,
            "link": part.link,
            "topology": part.topology if part.link else "",
            "domain": part.domain or None,
            **peaks,
            "power_W": part.power_W,
            "price_usd": part.price_usd,
            "missing": "template" if {*TEMPLATE} <= {*part.missing} else ", ".join(_WORDS[key] for key in part.missing),
        }
        rows.append({key: None if value != value else value for key, value in row.items()})  # noqa: PLR0124  (NaN)
    return rows
