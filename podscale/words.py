"""Numbers as a reader wants them: three figures, a unit, and the short names of splits.

Everything inside is SI; this is the edge where seconds become milliseconds and bytes per second become GB/s.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

PHASES = {"train": "training", "prefill": "prefill", "decode": "decode"}
"""The phases in the order of reading, and what to call them."""

_TIMES = ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (1e-6, 1e6, "µs"), (0.0, 1e9, "ns"))
_SCALES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
TERMS = {
    "ep": "EP exchange",
    "dp": "DP sync",
    "tp": "TP collectives",
    "pp": "PP send",
    "cp": "CP exchange",
    "dcp": "DCP exchange",
    "bubble": "pipeline bubble",
    "head": "LM head",
    "mlp": "dense MLP",
    "vector": "vector operators",
    "amax": "FP8 scales",
}
"""Terms whose short names need a word more."""

_ALWAYS = ("ep", "tp", "pp", "dp")
_WHEN_SPLIT = ("cp", "dcp", "etp", "vpp")
_DEGREES = (*_ALWAYS, *_WHEN_SPLIT, "attention_dp")
_USUAL: dict[str, tuple[Any, ...]] = {
    "micro_batch": (1,),
    "microbatches": (1,),
    "schedule": ("1f1b", "interleaved"),
}
_DETAILS = ("order", "ranks_per_domain", "ep_overlap", "sp", "precision")
_ACRONYMS = {
    name: name.upper()
    for name in (
        "hbm",
        "kv",
        "mla",
        "mlp",
        "nic",
        "tp",
        "pp",
        "ep",
        "dp",
        "cp",
        "etp",
        "lm",
        "gpu",
        "mfu",
        "tpot",
        "ttft",
    )
} | {"moe": "MoE", "gpus": "GPUs"}


def known(value: Any) -> bool:
    """Tell whether a value is a finite number.

    >>> known(1.5), known(None), known(float("nan"))
    (True, False, False)
    """
    return isinstance(value, int | float) and math.isfinite(value)


def figures(value: float, digits: int = 3) -> str:
    """Write a number with that many significant figures, never in powers of ten, thousands apart.

    >>> figures(1234.5), figures(12.34), figures(0.01234), figures(0)
    ('1,234', '12.3', '0.0123', '0')
    """
    if not known(value):
        return "–"
    if value == 0:
        return "0"
    places = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if places and "." in text else text


def seconds(value: float | None) -> str:
    """Write a time.

    >>> seconds(0.0123), seconds(4.5e-6), seconds(75), seconds(None)
    ('12.3 ms', '4.5 µs', '75 s', '–')
    """
    if value is None or not known(value):
        return "–"
    _, factor, unit = next(row for row in _TIMES if abs(value) >= row[0])
    return f"{figures(value * factor)} {unit}" if value else "0 s"


def span(low: float, high: float) -> str:
    """Write an interval of times in the unit of its upper end.

    >>> span(0.033, 0.0421), span(0.9, 1.4)
    ('33–42.1 ms', '0.9–1.4 s')
    """
    _, factor, unit = next(row for row in _TIMES if abs(high) >= row[0])
    return f"{figures(low * factor)}–{figures(high * factor)} {unit}"


def scaled(value: float | None, unit: str) -> str:
    """Write a quantity with its decimal prefix.

    >>> scaled(9e11, "B/s"), scaled(1.92e11, "B"), scaled(12, "W"), scaled(None, "W")
    ('900 GB/s', '192 GB', '12 W', '–')
    """
    if value is None or not known(value):
        return "–"
    scale, prefix = next(((s, p) for s, p in _SCALES if abs(value) >= s), (1.0, ""))
    return f"{figures(value / scale)} {prefix}{unit}"


def dollars(value: float | None) -> str:
    """Write a price.

    >>> dollars(35000), dollars(2.52e6), dollars(None)
    ('$35k', '$2.52M', '–')
    """
    text = scaled(value, "")
    return text if text == "–" else f"${text.replace(' ', '').replace('G', 'bn')}"


def percent(share: float | None) -> str:
    """Write a share.

    >>> percent(0.4567), percent(0.004), percent(None)
    ('46%', '0.4%', '–')
    """
    if share is None or not known(share):
        return "–"
    return f"{share * 100:.0f}%" if abs(share) >= 0.1 or share == 0 else f"{figures(share * 100, 2)}%"


def phrase(name: str) -> str:
    """Write an identifier as words.

    >>> phrase("kv_cache"), phrase("expert_exchange_s"), phrase("tokens_per_s_per_gpu"), phrase("rejected_per_s")
    ('KV cache', 'expert exchange', 'tokens/s/GPU', 'rejected/s')
    """
    for rate in ("gpu", "user", "core"):
        if name.endswith(f"_per_s_per_{rate}"):
            return f"{phrase(name.removesuffix(f'_per_s_per_{rate}'))}/s/{_ACRONYMS.get(rate, rate)}"
    if name.endswith("_per_s"):
        return f"{phrase(name.removesuffix('_per_s'))}/s"
    words = name.removesuffix("_s").removesuffix("_bytes").replace("-", " ").replace("_", " ").split()
    return " ".join(_ACRONYMS.get(word, word) for word in words)


def term(name: str) -> str:
    """Write the name of a term.

    >>> term("ep"), term("kv read"), term("shared expert")
    ('EP exchange', 'KV read', 'shared expert')
    """
    return TERMS.get(name) or phrase(name)


def sentence(text: str) -> str:
    """Start a sentence with a capital.

    >>> sentence("reading the cache")
    'Reading the cache'
    """
    return text[:1].upper() + text[1:]


def plural(count: int, noun: str) -> str:
    """Write a count with its noun.

    >>> plural(1, "warning"), plural(1234, "strategy")
    ('1 warning', '1,234 strategies')
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"


def split(strategy: Mapping[str, Any]) -> str:
    """Write a split in its short form: the degrees that matter, in the order in which they are usually said.

    Serving splits have no `dp`; there it stands for the attention's replicas, `attention_dp`.

    >>> split({"tp": 1, "pp": 1, "ep": 64, "dp": 72, "cp": 1, "vpp": 2, "micro_batch": 1})
    'EP64 TP1 PP1 DP72 VPP2'
    """
    degrees = {"dp": strategy.get("attention_dp"), **strategy}
    said = [f"{name.upper()}{degrees[name]:g}" for name in _ALWAYS if known(degrees.get(name))]
    said += [f"{name.upper()}{strategy[name]:g}" for name in _WHEN_SPLIT if (strategy.get(name) or 1) > 1]
    return " ".join(said)


def rest_of(strategy: Mapping[str, Any], *, brief: bool = False) -> str:
    """Write what a strategy holds beside its degrees; `brief` leaves out details and the usual.

    >>> rest_of({"ep": 64, "micro_batch": 1, "recompute": "none", "schedule": "1f1b", "zero": 0})
    'micro batch 1 · schedule 1f1b'
    >>> rest_of({"ep": 64, "micro_batch": 1, "batch": 192, "ranks_per_domain": 8}, brief=True)
    'batch 192'
    """
    parts = []
    for name, value in strategy.items():
        if name in _DEGREES or value in (None, "", "none", 0, False) or isinstance(value, Mapping | list | tuple):
            continue
        if brief and (name in _DETAILS or value in _USUAL.get(name, ())):
            continue
        said = f"{value:,}" if isinstance(value, int) else figures(value) if isinstance(value, float) else str(value)
        parts.append(phrase(name) if value is True else f"{phrase(name)} {said}")
    return " · ".join(parts)


def shares(terms: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the terms with their share of the sum, largest first.

    >>> shares({"a": 1.0, "b": 3.0})
    [('b', 0.75), ('a', 0.25)]
    """
    total = sum(terms.values())
    if not total:
        return []
    return sorted(((name, value / total) for name, value in terms.items()), key=lambda pair: -pair[1])


def ratios(rates: Sequence[float | None]) -> list[float | None]:
    """Return every rate over the first known one.

    >>> ratios([2.0, None, 3.0])
    [1.0, None, 1.5]
    """
    first = next((rate for rate in rates if rate), None)
    return [rate / first if rate and first else None for rate in rates]


def times(ratio: float | None) -> str:
    """Write a ratio.

    >>> times(1.428), times(None)
    ('1.43×', '–')
    """
    return f"{ratio:,.2f}×" if ratio is not None and known(ratio) else "–"


def latency(row: Mapping[str, Any]) -> tuple[str, float | None]:
    """Return the time that a row of a comparison is judged by, and its name.

    >>> latency({"phase": "decode", "tpot_s": 0.02, "step_time_s": 0.03})
    ('TPOT', 0.02)
    """
    name, key = {"decode": ("TPOT", "tpot_s"), "prefill": ("TTFT", "ttft_s")}.get(row["phase"], ("step", "step_time_s"))
    value = row.get(key)
    return name, row.get("step_time_s") if value is None else value
