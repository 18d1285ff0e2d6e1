"""Prompts that come back and cold starts, drawn: what each memory finds, takes and is worth; where a start's time goes."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from podscale import words

_SIMPLE = ("name", "hits", "until", "first token", "reload", "reads", "costs", "saves", "pays up to")


def draw_reuse(console: Console, reuse: Mapping[str, Any]) -> None:
    """Print the section `reuse` of ``serve --json``."""
    from podscale.tables import table

    console.print(Text(said(reuse)))
    shown = table("Caches that wait", *_SIMPLE)
    for tier in reuse["tiers"]:
        until = tier["until_s"]
        shown.add_row(
            tier["name"], words.percent(tier["hits"]), "for good" if until is None else span(until),
            words.seconds(tier["ttft_s"]), words.seconds(tier["reload_s"]), words.percent(tier["read_load"]),
            _an_hour(tier["costs_usd_per_hour"]), _an_hour(tier["saves_usd_per_hour"]),
            span(tier["break_even_s"]) if tier["break_even_s"] else "–",
        )  # fmt: skip
    missed = f"{words.seconds(reuse['ttft_missed_s'])}"
    shown.add_row("computed again", words.percent(1.0 - reuse["hit_rate"]), "", missed, "", "", "", "", "")
    console.print(shown)


def said(reuse: Mapping[str, Any]) -> str:
    """Say what comes back, and what it changes.

    >>> said({"hit_rate": 0.9, "cached_tokens": 11800.0, "requests_per_s": 3.06, "sessions": 2540.0, "ttft_missed_s": 1.1,
    ...     "without": {"requests_per_s": 1.37, "ttft_s": 3.0}})
    '90% of the requests find their history, 11,800 tokens of a prompt: 3.06 requests/s instead of 1.37, 2,540 sessions alive'
    """
    return (
        f"{words.percent(reuse['hit_rate'])} of the requests find their history, {words.figures(reuse['cached_tokens'])} tokens "
        f"of a prompt: {words.figures(reuse['requests_per_s'])} requests/s instead of "
        f"{words.figures(reuse['without']['requests_per_s'])}, {words.figures(reuse['sessions'])} sessions alive"
    )


def span(seconds: float) -> str:
    """Write a long time.

    >>> span(90), span(5400), span(200000), span(0.5)
    ('1.5 min', '1.5 h', '2.31 d', '0.5 s')
    """
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{words.figures(seconds / size)} {unit}"
    return f"{words.figures(seconds)} s"


def _an_hour(usd: float | None) -> str:
    return "–" if usd is None else f"${usd:,.2f}/h"


def draw_start(console: Console, start: Mapping[str, Any]) -> None:
    """Print the section `cold_start` of ``serve --json``."""
    console.print(Text(f"Cold start: {started(start)}"))


def started(start: Mapping[str, Any]) -> str:
    """Say how long a start takes, and what sets it.

    >>> started({"source": "network-flash", "seconds": 15.1, "weight_bytes": 7e10, "load_Bps": 5e9, "bottleneck": "source",
    ...     "terms": {"before": 0.0, "weights": 14.0, "first token": 1.1}})
    '15.1 s to the first token: weights 14 s, first token 1.1 s; 70 GB a GPU from network-flash at 5 GB/s, set by the source'
    """
    parts = ", ".join(f"{name} {words.seconds(value)}" for name, value in start["terms"].items() if value)
    held, rate = words.scaled(start["weight_bytes"], "B"), words.scaled(start["load_Bps"], "B/s")
    return (
        f"{words.seconds(start['seconds'])} to the first token: {parts}; {held} a GPU from {start['source']} at {rate}, "
        f"set by the {start['bottleneck']}"
    )
