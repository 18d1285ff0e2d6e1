"""Tables of the other commands: one deployment, a validation, a list, a topology, a benchmark."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from podscale import words
from podscale.render import print_warnings, reason

_MANY = 40
_FIRST_TO_GO = (
    *("operation", "algorithm", "vendor", "title", "generation", "link", "source", "note"),
    *("topology", "price_usd", "year", "power_W", "fp4_flops", "fp8_flops"),
)
"""Columns of a list that are left out, in this order, until the rest fits the terminal; ``--json`` has them all."""
_SERVED = ("ttft_s", "tpot_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "mfu", "gpus_used", "bottleneck")
"""Headline of a serving deployment."""
_UNITS = {"_Bps": "B/s", "_bytes": "B", "_flops": "", "_W": "W"}
"""Unit by the suffix of a name."""


def table(title: str, *columns: str, left: Sequence[str] = ()) -> Table:
    """Make an empty table in the house style: first column and those of `left` to the left, the others to the right."""
    made = Table(
        box=SIMPLE_HEAD,
        title=f"\n{title}" if title else None,
        title_justify="left",
        title_style="bold cyan",
        pad_edge=False,
        show_edge=False,
    )
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 or column in left else "right")
    return made


def quantity(name: str, value: Any) -> str:  # noqa: PLR0911 (one return per kind of unit)
    """Write a value by the unit suffix of its name.

    >>> quantity("nic_Bps", 5e10), quantity("step_time_s", 0.25), quantity("price_usd", 3e6), quantity("nodes", 12)
    ('50 GB/s', '250 ms', '$3M', '12')
    >>> quantity("fp8_flops", 5e15), quantity("active_parameters", 37_552_297_984), quantity("year", 2024)
    ('5 P', '37.6 bn', '2024')
    """
    if not words.known(value) or isinstance(value, bool):
        return "–" if value is None else str(value)
    if name == "mfu":
        return words.percent(value)
    if name.endswith("_s") and not name.endswith("_per_s"):
        return words.seconds(value)
    if name.endswith("_usd"):
        return words.dollars(value)
    if name.endswith("parameters"):
        return f"{words.figures(value / 1e9)} bn"
    for suffix, unit in _UNITS.items():
        if name.endswith(suffix):
            return words.scaled(value, unit).rstrip()
    if name == "year":
        return f"{value:.0f}"
    return f"{value:,}" if isinstance(value, int) else words.figures(value)


def _named(name: str) -> str:
    """Write a key without its unit suffix.

    >>> _named("price_usd"), _named("bisection_Bps")
    ('price', 'bisection')
    """
    for suffix in ("_Bps", "_bytes", "_W", "_usd"):
        name = name.removesuffix(suffix)
    return words.phrase(name)


def _print_pairs(console: Console, title: str, pairs: Mapping[str, Any]) -> None:
    """Print names and values in two columns."""
    shown = table(title, "", "")
    shown.show_header = False
    for name, value in pairs.items():
        shown.add_row(_named(name), Text(quantity(name, value), style="bold"))
    console.print(shown)


def _print_terms(console: Console, document: Mapping[str, Any]) -> None:
    """Print the exposed time of every term beside the time that it was busy."""
    terms, busy = document.get("terms") or {}, document.get("busy") or {}
    shown = table("Where the time goes", "term", "exposed", "share", "busy")
    hidden = sorted(busy.keys() - terms.keys(), key=lambda name: -busy[name])
    for name, share in [*words.shares(terms), *((name, 0.0) for name in hidden)]:
        cells = (words.seconds(terms.get(name, 0.0)), words.percent(share), words.seconds(busy.get(name)))
        shown.add_row(words.term(name), *cells)
    console.print(shown)


def _print_memory(console: Console, memory: Mapping[str, float]) -> None:
    """Print the bytes that each kind of tensor holds on one GPU."""
    if not memory:
        return
    shown = table("Memory per GPU", "", "bytes", "share")
    for name, share in words.shares(memory):
        shown.add_row(words.phrase(name), words.scaled(memory[name], "B"), words.percent(share))
    shown.add_row("together", Text(words.scaled(sum(memory.values()), "B"), style="bold"), "")
    console.print(shown)


def _draw_scenario(console: Console, document: Mapping[str, Any], headline: Sequence[str]) -> None:
    """Print one deployment: the headline figures, the terms, the memory, the rungs, the warnings."""
    what = " · ".join(str(document[key]) for key in ("model", "cluster", "phase", "limit") if document.get(key))
    console.print(Text.assemble((document.get("name", ""), "bold"), "  ", (what, "dim")))
    if document.get("note"):
        console.print(Text(document["note"], style="dim"))
    strategy = document.get("strategy") or {}
    console.print(Text.assemble((words.split(strategy), "bold"), "  ", words.rest_of(strategy)))
    figures = {name: document[name] for name in headline if document.get(name) is not None}
    if "bottleneck" in figures:
        figures["bottleneck"] = words.term(figures["bottleneck"])
    _print_pairs(console, "", figures)
    _print_terms(console, document)
    _print_memory(console, document.get("memory_bytes") or {})
    _print_stages(console, document)
    _print_ladder(console, document.get("ladder") or ())
    if document.get("reuse") or document.get("cold_start"):
        _print_memories(console, document)
    if document.get("stops"):
        console.print(Text(f"What stops it: {document['stops']}"))
    if document.get("limit_broken"):
        console.print(Text(f"Limit broken: {document['limit_broken']}", style="yellow"))
    if document.get("interval"):
        low, high = document["interval"]
        note = f" ({document['interval_note']})" if document.get("interval_note") else ""
        console.print(Text(f"90 % interval: {words.seconds(low)} – {words.seconds(high)}{note}", style="dim"))
    elif document.get("interval_note"):
        console.print(Text(f"No 90 % interval: {reason(document['interval_note'])}", style="dim"))
    if document.get("trust"):
        from podscale.servewords import departure_words, further_words, trust_words

        console.print(Text(departure_words(document["departures"])))
        console.print(Text(further_words(document)))
        console.print(Text(f"Trust: {trust_words(document['trust'])}", style="dim"))
    print_warnings(console, document.get("warnings") or ())


def _print_memories(console: Console, document: Mapping[str, Any]) -> None:
    """Print the caches that wait for their next visit, and where weights come from."""
    from podscale.reusewords import draw_reuse, draw_start

    if document.get("reuse"):
        draw_reuse(console, document["reuse"])
    if document.get("cold_start"):
        draw_start(console, document["cold_start"])


def _print_stages(console: Console, document: Mapping[str, Any]) -> None:
    """Print which layers sit where, and what the first, the fullest inner and the last stage hold."""
    if document.get("placement"):
        console.print(Text(f"Layers: {document['placement']}"))
    stages = document.get("memory_by_stage") or {}
    if len(stages) > 1:
        held = (f"{place} {words.scaled(sum(parts.values()), 'B')}" for place, parts in stages.items())
        console.print(Text(f"Memory by stage: {', '.join(held)}"))


def _print_ladder(console: Console, ladder: Sequence[Mapping[str, Any]]) -> None:
    """Print what every change of assumptions does, one after the other."""
    if not ladder:
        return
    shown = table("One assumption after the other", "rung", "time", "exchange", "against the rung above")
    for rung in ladder:
        ratio = words.times(rung["ratio_to_previous"])
        shown.add_row(rung["name"], words.seconds(rung["seconds"]), words.seconds(rung["exchange_s"]), ratio)
    console.print(shown)


def draw_train(console: Console, document: Mapping[str, Any]) -> None:
    """Print the document of ``train --json``."""
    _draw_scenario(console, document, ("step_time_s", "tokens_per_s_per_gpu", "mfu", "gpus_used", "bottleneck"))
    if document.get("run"):
        console.print(Text(f"The whole run: {whole_run(document['run'])}"))


def whole_run(run: Mapping[str, Any]) -> str:
    """Say what a whole run takes.

    >>> whole_run({"tokens": 15e12, "days": 67.84, "accelerator_hours": 26.67e6, "energy_J": 3.6e14, "cost_usd": 5.3e7,
    ...            "goodput": 0.928, "interruptions": 526.4})
    '15 T tokens in 67.8 days: 26.7 M accelerator-hours, 100 GWh, $53M; 93% of the time makes progress, 526 interruptions'
    """
    return (
        f"{words.scaled(run['tokens'], '')} tokens in {words.figures(run['days'])} days: "
        f"{words.scaled(run['accelerator_hours'], '')} accelerator-hours, "
        f"{words.scaled(run['energy_J'] / 3600.0, 'Wh')}, {words.dollars(run['cost_usd'])}; "
        f"{words.percent(run['goodput'])} of the time makes progress, {words.figures(run['interruptions'])} interruptions"
    )


def draw_serve(console: Console, document: Mapping[str, Any]) -> None:
    """Print the document of ``serve --json``: one deployment, or two pools and what moves between them."""
    if document.get("pools"):
        _draw_pools(console, document)
        return
    _draw_scenario(console, document, _SERVED)


def _draw_pools(console: Console, document: Mapping[str, Any]) -> None:
    """Print what both pools do together, the caches between them, and each by itself."""
    console.print(
        Text.assemble((document["name"], "bold"), "  ", (f"{document['model']} · {document['cluster']}", "dim"))
    )
    if document["note"]:
        console.print(Text(document["note"], style="dim"))
    headline = ("ttft_s", "tpot_s", "requests_per_s", "tokens_per_s_per_gpu", "gpus_used")
    figures = {name: document[name] for name in headline}
    _print_pairs(console, "", {**figures, "bottleneck": words.phrase(document["bottleneck"])})
    _print_pairs(console, "Requests per second", document["rates"])
    moved = document["transfer"]
    shown = {name: moved[name] for name in ("bytes_per_request", "wire_Bps", "share_Bps", "bound_by", "latency_s")}
    shown["bytes_per_request"] = words.scaled(moved["bytes_per_request"], "B")
    load = words.percent(moved["load"])
    _print_pairs(console, "Caches of one pass", {**shown, "transfer_s": moved["seconds"], "load of the wire": load})
    for held in document["pools"].values():
        console.rule(style="dim")
        _draw_scenario(console, {**held, "note": "", "warnings": ()}, _SERVED)
    print_warnings(console, document["warnings"])


def draw_validation(console: Console, document: Mapping[str, Any]) -> None:
    """Print the document of ``validate --json``: the summary, every group, and why rows were skipped."""
    summary = document["summary"]
    headline = table("Errors", "", "rows", "predicted", "median", "p90", "mean", "bias", "coverage", "width")
    headline.add_row("all rows", *_score(summary))
    if words.known(summary.get("macro_median_ape")):
        macro = {"median_ape": summary["macro_median_ape"], "p90_ape": summary.get("macro_p90_ape")}
        headline.add_row("mean over groups", *_score(macro))
    out = document.get("leave_one_source_out") or {}
    beside = {
        "complete rows": document.get("complete"),
        "constants of all rows": document.get("in_sample"),
        "leaving its source out": out.get("summary"),
        **(document.get("blocks") or {}),
        **(document.get("metrics") or {}),
    }
    for name, score in beside.items():
        if score:
            headline.add_row(name, *_score(score))
    console.print(headline)
    for line in _told(document):
        console.print(Text(line))
    if out.get("note"):
        console.print(Text(f"Leaving its source out: {out['note']}", style="dim"))
    groups = document.get("groups") or {}
    shown = table("By group", "group", "rows", "predicted", "median", "p90", "mean", "bias", "coverage", "width")
    for name, score in list(groups.items())[:_MANY]:
        shown.add_row(str(name), *_score(score))
    if groups:
        console.print(shown)
    if len(groups) > _MANY:
        console.print(f"and {words.plural(len(groups) - _MANY, 'more group')}: see --json", style="dim")
    skipped = Counter(row["skipped_because"] for row in document.get("rows", ()) if row.get("skipped_because"))
    for why, count in skipped.most_common():
        console.print(Text.assemble(("skipped ", "yellow"), f"{words.plural(count, 'row')}: {why}"))
    if document.get("constants") is not None:
        console.print(Text(f"Fitted constants: {_constants(document['constants'])}", style="dim"))


def _told(document: Mapping[str, Any]) -> Iterator[str]:
    """Write what a set says beside its errors: curves, rows of sizes not seen, one run given, the choice of mappings."""
    if curves := document.get("curves"):
        far = curves["count"] - round(curves["near"] * curves["count"])
        yield (
            f"{words.percent(curves['near'])} of {curves['count']} curves stay within 30 % at every point; "
            f"{far} do not: see --json"
        )
    if given := document.get("one_run_given"):
        yield f"One run of a source given, the others of it: median error {words.percent(given['median'])}"
    if sweeps := document.get("sweeps"):
        yield (
            f"{len(sweeps['rows'])} jobs measured in several mappings: the mapping predicted best loses "
            f"{words.percent(sweeps['mean_regret'])} on average, median rank correlation "
            f"{sweeps['median_rank_correlation']:.2f}"
        )
    if unseen := (document.get("held_out") or {}).get("64 ranks"):
        yield f"64 ranks, from constants fitted to smaller groups: median error {words.percent(unseen['macro_median_ape'])}"


def _constants(constants: Any) -> str:
    """Write how many constants were fitted, whether as one number or by kind.

    >>> _constants({"links": 12, "kernels": 8}), _constants(5)
    ('links 12, kernels 8', '5')
    """
    if isinstance(constants, Mapping):
        return ", ".join(f"{words.phrase(str(name))} {value}" for name, value in constants.items())
    return str(constants)


def _score(score: Mapping[str, Any]) -> list[str]:
    """Write one row of an error table."""
    counts = [f"{score[key]:,}" if words.known(score.get(key)) else "" for key in ("n", "predicted")]
    keys = ("median_ape", "p90_ape", "mean_ape", "bias", "coverage", "width")
    return [*counts, *(words.percent(score[key]) if words.known(score.get(key)) else "" for key in keys)]


def draw_calibration(console: Console, document: Mapping[str, Any]) -> None:
    """Print the document of ``calibrate --json``: how far every fit stays from its rows, and how to put it to use."""
    shown = table("Fitted", "", "rows", "median", "p90", "low", "high", "unseen median", "unseen p90", "unseen covered")
    for name, held in document["residuals"].items():
        for kind, stated in held.items():
            unseen = stated.get("held_out") or {}
            errors = (stated["median"], stated["p90"], stated["low"] - 1, stated["high"] - 1)
            rest = (unseen.get("median"), unseen.get("p90"), unseen.get("coverage"))
            cells = (words.percent(value) if words.known(value) else "" for value in (*errors, *rest))
            shown.add_row(f"{name} {kind}", f"{stated['n']:,}", *cells)
    console.print(shown)
    console.print(Text(f"Written to {document['out']}"))
    for hint in document.get("notes", ()):
        console.print(Text(hint, style="dim"))


def draw_rows(console: Console, document: Mapping[str, Any]) -> None:
    """Print the document of ``list --json``: a table of whatever columns the rows have."""
    rows = document["rows"]
    columns = [
        name
        for name in dict.fromkeys(key for row in rows for key in row)
        if any(row.get(name) not in (None, "") and not isinstance(row.get(name), Mapping | list) for row in rows)
    ]
    cells = {name: [quantity(name, row[name]) if row.get(name) is not None else "" for row in rows] for name in columns}
    for name in _FIRST_TO_GO:
        if sum(max(map(len, (_named(key), *held))) + 3 for key, held in cells.items()) > console.width:
            cells.pop(name, None)
    texts = [_named(name) for name in cells if any(isinstance(row.get(name), str) for row in rows)]
    shown = table("", *map(_named, cells), left=texts)
    for column in shown.columns:
        column.min_width = max(map(len, str(column.header).split()))
    shown.columns[0].no_wrap = True
    for line in zip(*cells.values(), strict=True):
        shown.add_row(*line)
    console.print(shown)
    console.print(words.plural(len(rows), document.get("kind", "rows").removesuffix("s")), style="dim")


def draw_topology(console: Console, document: Mapping[str, Any]) -> None:
    """Print the document of ``topo --json``: the tiers from the inside out, the whole, and what it is made of."""
    title = f"{document.get('name', '')}: {words.plural(document['accelerators'], 'accelerator')}"
    shown = table(
        title, "tier", "plane", "GPUs", "blocks", "per GPU", "latency", "hops", "link", left=("plane", "link")
    )
    for tier in document["tiers"]:
        pool = tier.get("pool", "").rpartition(".")[0]
        shown.add_row(
            (f"{pool}: " if pool else "") + tier["name"] + (" (reduces)" if tier.get("in_network_reduction") else ""),
            tier["plane"],
            f"{tier['size']:,}",
            f"{tier['blocks']:,}",
            words.scaled(tier["bandwidth_Bps"], "B/s"),
            words.seconds(tier["latency_s"]),
            str(tier["hops"]),
            tier.get("link", ""),
        )
    console.print(shown)
    whole = (
        "bisection_Bps",
        "all_gather_Bps",
        "all_to_all_Bps",
        "oversubscription",
        "diameter_hops",
        "power_W",
        "price_usd",
    )
    _print_pairs(console, "", {name: document.get(name) for name in whole if name in document})
    for pair in document.get("between_pools", ()):
        rate, latency = words.scaled(pair["bandwidth_Bps"], "B/s"), words.seconds(pair["latency_s"])
        names = " and ".join(name.rpartition(".")[0] or name for name in pair["pools"])
        console.print(f"between {names}: {rate}, {latency}", markup=False)
    _print_ports(console, document.get("ports", ()))
    parts = table("Parts", "part", "count", "watts", "price")
    for row in document["bill"]:
        cells = (quantity(key, row[key]) for key in ("power_W", "price_usd"))
        parts.add_row(row["part"], words.figures(row["count"], 6), *cells)
    if parts.row_count:
        console.print(parts)
    print_warnings(console, document.get("warnings") or ())


def _print_ports(console: Console, rows: Iterable[Mapping[str, Any]]) -> None:
    """Print how many ports the switches of each class use."""
    shown = table("Ports in use", "switch", "part", "count", "down", "up", "along", left=("part",))
    for row in rows:
        shown.add_row(row["node"], row["part"], *(f"{row[key]:,}" for key in ("switches", "down", "up", "along")))
    if shown.row_count:
        console.print(shown)


def draw_collective(console: Console, document: Mapping[str, Any]) -> None:
    """Print the document of ``collective --json``: the price, what it is made of, and the bound."""
    title = f"{document['op']} of {words.scaled(document['bytes'], 'B')} over {document['ranks']:,} ranks"
    whole = (
        "time_s",
        "lower_bound_s",
        "over_bound",
        "bound",
        "algbw_Bps",
        "busbw_Bps",
        "algorithm",
        "why",
        "fidelity",
        "closed_s",
    )
    console.print(f"\n[bold cyan]{title} of {document['cluster']}[/]", highlight=False)
    _print_pairs(console, "", {name: document[name] for name in whole})
    _print_pairs(console, "Terms", {f"{name}_s": seconds for name, seconds in document["terms"].items()})
    if document["busiest"]:
        console.print(f"busiest link: {' to '.join(document['busiest'])}", markup=False)
    print_warnings(console, document["warnings"])


def draw_bench(console: Console, document: Mapping[str, Any]) -> None:
    """Print the document of ``bench --json``."""
    _print_pairs(console, "Speed of podscale itself", {k: v for k, v in document.items() if not isinstance(v, Mapping)})
    for name, value in document.items():
        if isinstance(value, Mapping):
            _print_pairs(console, words.phrase(name), value)
