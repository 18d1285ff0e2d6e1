"""Quantities as people write them ("900 GB/s", "400Gb/s", "80 GiB"), turned into SI floats at the edge.

Inside podscale every number is SI and every name carries its unit (`bandwidth_Bps`, `latency_s`); text with units is
parsed here and nowhere else. Units are case-sensitive, because ``b`` is a bit and ``B`` is a byte.
"""

import math
import re
from numbers import Real
from types import MappingProxyType
from typing import Final, SupportsFloat

DECIMAL: Final = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
BINARY: Final = {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", start=1)}


def _with_prefixes(bases: dict[str, float], prefixes: dict[str, float]) -> dict[str, float]:
    """Every prefix before every base unit, with the product of their scales."""
    return {f"{p}{base}": p_scale * scale for base, scale in bases.items() for p, p_scale in prefixes.items()}


def _rates() -> dict[str, float]:
    """Bytes per second: bits and bytes, "/s" and "ps"."""
    amounts = _with_prefixes({"B": 1.0, "b": 0.125, "bit": 0.125, "Byte": 1.0}, DECIMAL | BINARY)
    return {f"{unit}{tail}": scale for unit, scale in amounts.items() for tail in ("/s", "ps")}


UNITS: Final = MappingProxyType(
    {
        "bandwidth": _rates(),
        "bytes": _with_prefixes({"B": 1.0}, DECIMAL | BINARY) | {"bytes": 1.0},
        "seconds": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0},
        "count": {p: scale for p, scale in DECIMAL.items() if p in ("", "k", "K", "M", "G", "T")},
        "flops": _with_prefixes({"FLOP/s": 1.0, "FLOPS": 1.0, "FLOPs": 1.0, "OP/s": 1.0}, DECIMAL),
        "power": _with_prefixes({"W": 1.0}, {p: DECIMAL[p] for p in ("", "k", "M", "G")}),
        "price": {"": 1.0, "USD": 1.0, "k": 1e3, "kUSD": 1e3, "M": 1e6, "MUSD": 1e6},
    }
)
"""Dimension -> unit -> how many SI units it holds."""

EXAMPLES: Final = MappingProxyType(
    {
        "bandwidth": "900GB/s, 400Gb/s, 1.8TB/s (b = bit, B = byte, per direction)",
        "bytes": "80GB, 80GiB, 512MB",
        "seconds": "2us, 700ns, 1.5ms, 3s",
        "count": "8, 1024, 100k (a whole number)",
        "flops": "989TFLOP/s, 2.5PFLOP/s (dense)",
        "power": "700W, 1.2kW",
        "price": "35000, 35kUSD",
    }
)
"""Dimension -> what to write, as error messages say it."""

_QUANTITY: Final = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*")
_SCALES: Final = MappingProxyType(
    {
        "bandwidth": ("B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s", "EB/s"),
        "bytes": ("B", "kB", "MB", "GB", "TB", "PB", "EB"),
        "seconds": ("ns", "us", "ms", "s"),
        "count": ("",),
        "flops": ("FLOP/s", "kFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s", "EFLOP/s"),
        "power": ("W", "kW", "MW", "GW"),
        "price": ("USD", "kUSD", "MUSD"),
    }
)


def parse_quantity(text: object, dimension: str) -> float:
    """SI value of a quantity: bytes per second, bytes, seconds, count, FLOP/s, watts or dollars.

    A bare number is SI already.

    Parameters
    ----------
    text : str or number
        For instance "400Gb/s"; see `EXAMPLES`.
    dimension : str
        A key of `UNITS`.

    Raises
    ------
    ValueError
        Not a finite number with a unit of that dimension; the message lists what is accepted.

    Examples
    --------
    >>> parse_quantity("400Gb/s", "bandwidth")
    50000000000.0
    >>> parse_quantity("80 GiB", "bytes") == 80 * 2**30
    True
    """
    accepted = f"write for instance {EXAMPLES[dimension]}"
    if isinstance(text, bool) or not isinstance(text, (str, Real)):
        raise ValueError(f"is not a quantity; {accepted}")
    number, unit = _split(text, accepted) if isinstance(text, str) else (_float(text), None)
    scale = 1.0 if unit is None else UNITS[dimension].get(unit)
    if scale is None:
        raise ValueError(f"{unit!r} is not a unit of {dimension}; {accepted}")
    value = number * scale
    if not math.isfinite(value):
        raise ValueError(f"must be finite; {accepted}")
    if dimension == "count" and value != math.floor(value):
        raise ValueError(f"must be a whole number; {accepted}")
    return value


def _float(number: SupportsFloat) -> float:
    """Return the number as a float, infinite where it is too large for one."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _split(text: str, accepted: str) -> tuple[float, str | None]:
    """Split "400Gb/s" into number and unit; the unit is None where the text is a bare number."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"is not a quantity; {accepted}")
    return float(match[1]), match[2] or None


def format_quantity(value: float, dimension: str, digits: int = 15) -> str:
    """Text of an SI value with the largest unit that leaves at least 1 before the point; `parse_quantity` inverts it.

    >>> format_quantity(9e11, "bandwidth"), format_quantity(1.5e-6, "seconds"), format_quantity(1024, "count")
    ('900 GB/s', '1.5 us', '1024')
    """
    scales = [(UNITS[dimension][unit], unit) for unit in _SCALES[dimension]]
    scale, unit = max((s for s in scales if abs(value) >= s[0]), default=min(scales))
    return f"{value / scale:.{digits}g} {unit}".strip()


def to_si(value: float, unit: str) -> float:
    """SI value of a catalogue figure; a unit of no dimension (links, ports, year, ratio) counts as it stands.

    >>> to_si(989, "TFLOP/s"), to_si(8, "accelerators")
    (989000000000000.0, 8.0)
    """
    dimension = next((d for d, units in UNITS.items() if unit in units), "")
    return float(value) * UNITS[dimension][unit] if dimension else float(value)
