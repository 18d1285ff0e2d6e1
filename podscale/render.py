"""The comparison in a terminal: the answer in words, a table per phase, and what a reader should know about both.

Every column has a fixed share of the width, so that the phases stand under one another; 100 to 120 columns read well.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from podscale import words

_TOP_TERMS = 3
_NOTES = 6
_SPLIT_WIDTH, _RATE_WIDTH = 22, 14


def draw_compare(console: Console, document: Mapping[str, Any], *, quiet: bool = False) -> None:
    """Print the document of ``compare --json``; `quiet` leaves out everything but the answer and the tables."""
    console.print(Text(setting(document), style="dim"))
    console.print(Padding(Text(document.get("answer", ""), style="bold"), (1, 0, 0, 0)))
    rows = document["rows"]
    for phase in words.PHASES:
        chosen = [row for row in rows if row["phase"] == phase]
        if chosen:
            console.print()
            console.print(_phase_table(phase, chosen, document.get("workload", {}), console.width))
    if quiet:
        return
    for line in exchange_lines(document.get("exchange", [])):
        console.print(Text(line))
    for line in check_lines(document.get("exchange_checks") or []):
        console.print(Text(line, style="dim"))
    for line in interval_lines(rows):
        console.print(Text(line, style="dim"))
    print_warnings(console, (warning for row in rows for warning in row.get("warnings") or ()))
    searched = search_line(document.get("search") or {})
    if searched:
        console.print(Text(searched, style="dim"))
    if document.get("report"):
        console.print(Text.assemble("Report: ", (str(document["report"]), "bold")), soft_wrap=True)


def setting(document: Mapping[str, Any]) -> str:
    """Write on one line what was asked of which silicon.

    >>> setting({"workload": {"model": "deepseek-v3", "gpus": 4608, "accelerator": "gb200", "nic_Bps": 5e10,
    ...                       "isl": 4096, "osl": 1024, "precision": "fp8"}})
    'deepseek-v3 on 4,608 × gb200 · 50 GB/s NIC per GPU · 4,096 in, 1,024 out · fp8'
    """
    work = document.get("workload", {})
    parts = [f"{work.get('model', '?')} on {work.get('gpus', 0):,} × {work.get('accelerator', '?')}"]
    if words.known(work.get("nic_Bps")):
        taper = work.get("oversubscription") or 1
        parts.append(
            f"{words.scaled(work['nic_Bps'], 'B/s')} NIC per GPU"
            + (f", {words.figures(taper)}:1 oversubscribed" if taper != 1 else "")
        )
    if work.get("isl"):
        parts.append(f"{work['isl']:,} in, {work.get('osl', 0):,} out")
    if work.get("precision"):
        parts.append(str(work["precision"]))
    return " · ".join(parts)


def phase_title(phase: str, workload: Mapping[str, Any]) -> str:
    """Write what a phase was searched for.

    >>> phase_title("decode", {"tpot_ms": 50})
    'Decode: most tokens per second with TPOT ≤ 50 ms'
    """
    limits = {
        "train": (
            f"shortest step, {workload['global_batch']:,} sequences of {workload['sequence']:,} tokens"
            if workload.get("global_batch") and workload.get("sequence")
            else "shortest step"
        ),
        "prefill": f"most tokens per second with TTFT ≤ {words.figures(workload.get('ttft_ms') or 0)} ms",
        "decode": f"most tokens per second with TPOT ≤ {words.figures(workload.get('tpot_ms') or 0)} ms",
    }
    return f"{words.PHASES[phase].capitalize()}: {limits[phase]}"


def _phase_table(phase: str, rows: Sequence[Mapping[str, Any]], workload: Mapping[str, Any], width: int) -> Table:
    """Draw one phase: a row per wiring."""
    table = Table(
        box=SIMPLE_HEAD,
        title=phase_title(phase, workload),
        title_justify="left",
        title_style="bold cyan",
        pad_edge=False,
        show_edge=False,
        width=width,
    )
    table.add_column("domain", justify="right", width=6)
    table.add_column("best split", width=_SPLIT_WIDTH)
    table.add_column("tokens/s/GPU", justify="right", width=_RATE_WIDTH)
    table.add_column(words.latency(rows[0])[0], justify="right", width=12)
    table.add_column("where the time goes, and what stops it", ratio=1)
    ratios = words.ratios([None if row.get("infeasible") else row.get("tokens_per_s_per_gpu") for row in rows])
    best = max((ratio for ratio in ratios if ratio), default=None)
    for row, ratio in zip(rows, ratios, strict=True):
        table.add_row(*_cells(row, ratio, best=ratio is not None and ratio == best))
    return table


def _cells(row: Mapping[str, Any], ratio: float | None, *, best: bool) -> list[Text]:
    """Write the cells of one row."""
    domain = Text(f"{row['domain']:,}", style="bold")
    if row.get("infeasible"):
        gap = Text("–", style="dim")
        return [domain, gap, gap, gap, Text(str(row["infeasible"]), style="yellow")]
    rate = Text(words.figures(row["tokens_per_s_per_gpu"]), style="bold green" if best else "bold")
    if ratio is not None:
        rate.append(f"\n{words.times(ratio)}", style="not bold dim")
    chosen = Text(words.split(row["strategy"]))
    rest = words.rest_of(row["strategy"], brief=True)
    if rest:
        chosen.append(f"\n{rest}", style="dim")
    if row.get("gpus_idle"):
        chosen.append(f"\n{row['gpus_idle']:,} GPUs idle", style="yellow")
    time = Text(words.seconds(words.latency(row)[1]))
    if row.get("interval"):
        time.append(f"\n{words.span(*row['interval'])}", style="dim")
    return [domain, chosen, rate, time, _where(row)]


def _where(row: Mapping[str, Any]) -> Text:
    """Write the largest terms with their share of the time, and under them what stops the row."""
    largest = words.shares(row["terms"])[:_TOP_TERMS]
    where = Text(", ".join(f"{words.term(name)} {words.percent(share)}" for name, share in largest))
    return where.append(f"\n{words.sentence(row['stops'])}", style="dim") if row.get("stops") else where


def exchange_lines(exchange: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write what the same exchange costs on every wiring: one line per exchange.

    >>> exchange_lines([{"domain": 8, "what": "EP64", "seconds": 8e-4}, {"domain": 72, "what": "EP64", "seconds": 2e-4}])
    ['EP64: domain 8: 800 µs (4× the fastest), domain 72: 200 µs']
    """
    return [
        f"{group['what']}: "
        + ", ".join(
            f"domain {bar['domain']:,}: {words.seconds(bar['seconds'])}"
            + (f" ({words.figures(bar['times'])}× the fastest)" if bar["times"] > 1.005 else "")
            for bar in group["bars"]
        )
        for group in exchange_groups(exchange)
    ]


def exchange_groups(exchange: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Gather exchanges by what is exchanged; every wiring's time stands over the fastest and over the slowest.

    >>> exchange_groups([{"domain": 8, "what": "EP64", "seconds": 8e-4}])[0]["bars"]
    [{'domain': 8, 'seconds': 0.0008, 'times': 1.0, 'share': 1.0}]
    """
    groups = []
    for what, found in groupby(sorted(exchange, key=_what), key=_what):
        entries = sorted(found, key=lambda entry: int(entry["domain"]))
        times = [float(entry["seconds"]) for entry in entries]
        bars = [
            {"domain": entry["domain"], "seconds": time, "times": time / min(times), "share": time / max(times)}
            for entry, time in zip(entries, times, strict=True)
        ]
        groups.append({"what": what, "bars": bars})
    return groups


def _what(entry: Mapping[str, Any]) -> str:
    """Return what an exchange is an exchange of."""
    return str(entry["what"])


def check_lines(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write how the exchange's price stands against measurements.

    >>> check_lines([{"what": "EP64 on H100", "predicted_s": 4.65e-4, "measured_s": 4.72e-4, "ape": 0.0148}])
    ['Check, EP64 on H100: 465 µs predicted, 472 µs measured (1.5% off)']
    """
    return [
        f"Check, {check['what']}: {words.seconds(check['predicted_s'])} predicted, "
        f"{words.seconds(check['measured_s'])} measured ({words.percent(check['ape'])} off)"
        for check in checks
    ]


def interval_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Write why there is no interval, and what the intervals rest on, each reason once.

    >>> interval_lines([{"phase": "train", "interval": None, "interval_note": "no residuals"}])
    ['No 90 % interval (training): no residuals']
    """
    reasons: dict[tuple[bool, str], list[str]] = {}
    for row in rows:
        if row.get("interval_note") and not row.get("infeasible"):
            phases = reasons.setdefault((bool(row.get("interval")), row["interval_note"]), [])
            name = words.PHASES[row["phase"]]
            if name not in phases:
                phases.append(name)
    return [
        f"{'90 % interval' if held else 'No 90 % interval'} ({', '.join(phases)}): {reason(note)}"
        for (held, note), phases in reasons.items()
    ]


def reason(note: str) -> str:
    """Return why there is no interval, without saying again that there is none.

    >>> reason("no interval: nothing was measured here")
    'nothing was measured here'
    """
    return note.removeprefix("no interval: ")


def search_line(search: Mapping[str, Any]) -> str:
    """Write how much was searched.

    >>> search_line({"points": 120000, "feasible": 5000, "seconds": 2.5, "executor": "serial"})
    'Searched 120,000 strategies, 5,000 of them feasible, in 2.5 s (serial).'
    """
    if not search.get("points"):
        return ""
    feasible = f", {search['feasible']:,} of them feasible," if words.known(search.get("feasible")) else ""
    where = f" ({search['executor']})" if search.get("executor") else ""
    took = words.seconds(search.get("seconds"))
    return f"Searched {words.plural(search['points'], 'strategy')}{feasible} in {took}{where}."


def print_warnings(console: Console, warnings: Iterable[str]) -> None:
    """Print every warning once, the first few in full."""
    distinct = list(dict.fromkeys(warnings))
    for warning in distinct[:_NOTES]:
        console.print(Text.assemble(("note: ", "yellow"), warning))
    if len(distinct) > _NOTES:
        console.print(Text(f"and {words.plural(len(distinct) - _NOTES, 'more note')}: see --json", style="yellow"))
