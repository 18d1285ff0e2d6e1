"""A search for the best way to serve, and how engines are launched, on the terminal."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from podscale import words
from podscale.render import print_warnings
from podscale.tables import table

if TYPE_CHECKING:
    from rich.console import Console

_FRONT = 12
"""Points of the front that are printed, spread over all of it; ``--json`` has the others."""


def split_words(split: Mapping[str, int]) -> str:
    """Write a split and how many of it there are.

    >>> split_words({"tp": 1, "attention_dp": 8, "ep": 8, "etp": 1, "replicas": 9})
    '9 × DP8 EP8'
    >>> split_words({"tp": 4, "attention_dp": 1, "ep": 1, "etp": 1, "workers": 2})
    '2 × TP4'
    >>> split_words({"tp": 8, "attention_dp": 1, "ep": 1, "etp": 1, "pp": 2, "dcp": 4, "replicas": 1})
    '1 × TP8 PP2 DCP4'
    >>> split_words({"tp": 2, "attention_dp": 1, "ep": 8, "etp": 1, "cp": 4, "workers": 1})
    '1 × TP2 CP4 EP8'
    """
    count = split.get("replicas", split.get("workers", 1))
    sizes = (
        ("TP", "tp"),
        ("CP", "cp"),
        ("DP", "attention_dp"),
        ("EP", "ep"),
        ("ETP", "etp"),
        ("PP", "pp"),
        ("DCP", "dcp"),
    )
    routed = split["ep"] > 1
    named = [f"{word}{split[key]}" for word, key in sizes if split.get(key, 1) > 1 and (routed or key != "etp")]
    return f"{count} × {' '.join(named) or 'one GPU'}"


def mapping_words(row: Mapping[str, Any]) -> str:
    """Write what serves: replicas, or workers that prefill and workers that decode."""
    if "prefill" not in row:
        return split_words(row["strategy"])
    return f"{split_words(row['prefill'])} → {split_words(row['strategy'])}"


def draw_search(console: "Console", document: Mapping[str, Any]) -> None:
    """Print the document of ``serve --search --json``."""
    work = document["workload"]
    what = f"{document['model']} · {document['accelerators']} × {document['cluster']} · {work['isl']:,} + {work['osl']:,} tokens"
    limits = ", ".join(
        f"{name} ≤ {words.seconds(work[key])}"
        for name, key in (("TTFT", "ttft_s"), ("TPOT", "tpot_s"))
        if work.get(key)
    )
    console.print(Text.assemble((document["name"], "bold"), "  ", (f"{what}{' · ' + limits if limits else ''}", "dim")))
    console.print(
        f"{document['points']:,} mappings of {', '.join(document['engines'])} in {words.seconds(document['seconds'])}, "
        f"{document['mappings_per_s']:,.0f}/s; {document['feasible']:,} keep the limits",
        style="dim",
    )
    shown = table("Best, simulated step by step", "", "engine", "mapping", *_MEASURES, left=("engine", "mapping"))
    rows = {**document["best"], "fewest GPUs": document["fewest"]}
    for name, row in rows.items():
        if row:
            cells = [row["engine"], mapping_words(row), *_measures({**row, **row["simulated"]})]
            missed = "" if row["simulated"]["keeps_limits"] else " (misses a limit)"
            shown.add_row(Text(f"{name}{missed}", style="yellow" if missed else ""), *cells)
    console.print(shown)
    shown = table("Front, closed form", "kind", "engine", "mapping", *_MEASURES, "user/s", left=("engine", "mapping"))
    front = document["front"]
    for at in sorted({round(i * (len(front) - 1) / (_FRONT - 1)) for i in range(_FRONT)} if front else ()):
        row = front[at]
        user = words.figures(row["tokens_per_s_per_user"])
        shown.add_row(row["kind"], row["engine"], mapping_words(row), *_measures(row), user)
    console.print(shown)
    ruled = ", ".join(f"{words.plural(count, 'mapping')}: {why}" for why, count in document["rejected"].items())
    if ruled:
        console.print(Text(f"Ruled out: {ruled}", style="dim"))
    behind: dict[str, list[str]] = {}
    for name, trust in document["trust"].items():
        behind.setdefault(trust_words(trust), []).append(name)
    for said, names in behind.items():
        console.print(Text(f"Trust, {', '.join(names)}: {said}", style="dim"))
    print_warnings(console, document["warnings"])


_MEASURES = ("GPUs", "clients", "TTFT", "TPOT", "tokens/s/GPU")


def _measures(row: Mapping[str, Any]) -> Iterator[str]:
    yield f"{row['gpus_used']:,}"
    yield f"{row['clients']:,.0f}"
    yield words.seconds(row["ttft_s"])
    yield words.seconds(row["tpot_s"])
    yield words.figures(row["tokens_per_s_per_gpu"])


def trust_words(trust: Mapping[str, Any]) -> str:
    """Say what stands behind an answer.

    >>> trust_words({"level": "zero-shot", "said": "no run was seen", "runs": 0, "zero_shot": None})
    'zero-shot (no run was seen)'
    """
    runs = f", {words.plural(trust['runs'], 'run')}" if trust["runs"] else ""
    bare = trust.get("zero_shot")
    without = f"; zero-shot: TTFT {words.seconds(bare['ttft_s'])}, TPOT {words.seconds(bare['tpot_s'])}" if bare else ""
    return f"{trust['level']} ({trust['said']}{runs}){without}"


def departure_words(departures: Mapping[str, Any]) -> str:
    """Say how often a step departs, how full, and the worst wait for a token.

    >>> departure_words({"cadence_s": 0.02, "longest_s": 0.25, "seats": 512, "taken": 60.2, "worst_wait_s": 0.5})
    'A step departs every 20 ms with 512 seats, 60 taken; at worst two of 250 ms pass until a token, 500 ms'
    """
    cadence, longest, wait = (words.seconds(departures[key]) for key in ("cadence_s", "longest_s", "worst_wait_s"))
    seats = f"{departures['seats']:,} seats, {departures['taken']:,.0f} taken"
    return f"A step departs every {cadence} with {seats}; at worst two of {longest} pass until a token, {wait}"


def further_words(document: Mapping[str, Any]) -> str:
    """Say what an answer holds of stages, drafts and hot experts, and the longest context.

    >>> further_words({"longest_context": 65536, "drafts": {"tokens": 3, "method": "mtp", "tokens_per_step": 2.952}})
    'The cache holds a context of 65,536 tokens; 3 drafts by MTP yield 2.95 tokens a step'
    """
    said = [f"The cache holds a context of {document['longest_context']:,} tokens"]
    if held := document.get("pipeline"):
        layers, slowest = sorted(set(held["layers"])), words.seconds(held["slowest_s"])
        sizes = " or ".join(str(count) for count in layers)
        said.append(f"{held['stages']} stages of {sizes} layers, the slowest takes {slowest} of a micro-batch")
        weights = (words.scaled(held["weight_bytes"][name], "B") for name in ("these", "one_stage"))
        said[-1] += ", weights {} a GPU instead of {}".format(*weights)
    if held := document.get("drafts"):
        method = held["model"] if held.get("model") else held["method"].upper()
        said.append(f"{held['tokens']} drafts by {method} yield {held['tokens_per_step']:.3g} tokens a step")
    if (held := document.get("experts")) and "even" not in held["rows"]:
        copies = f", {held['copies']} copies" if held.get("copies") else ""
        said.append(f"rows of experts: {held['rows']}{copies}")
    return "; ".join(said)


def draw_launches(console: "Console", launches: Mapping[str, Mapping[str, Any]]) -> None:
    """Print how each engine, or each pool, is launched; or why an engine cannot be told."""
    for name, told in launches.items():
        title = told["engine"] if told["engine"] == name else f"{name}, {told['engine']}"
        if told.get("faults"):
            why = "; ".join(f"{fault['field']}: {fault['problem']}, {fault['remedy']}" for fault in told["faults"])
            console.print(Text(f"\n{title} cannot be told: {why}", style="yellow"))
            continue
        console.print(Text(f"\n{title}", style="bold cyan"))
        console.print(told["text"], markup=False, soft_wrap=True)
        if told["options"]:
            console.print("options.yaml:", style="dim")
            console.print("\n".join(_yaml(told["options"])), markup=False, soft_wrap=True)
        for note in told["notes"]:
            console.print(Text(f"# {note}", style="dim"), soft_wrap=True)


def _yaml(options: Mapping[str, Any], indent: str = "  ") -> Iterator[str]:
    """Yield the lines of a small YAML document."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _yaml(value, indent + "  ")
        else:
            yield f"{indent}{key}: {str(value).lower() if isinstance(value, bool) else value}"
