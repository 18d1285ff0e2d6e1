"""Reinforcement learning, drawn: a step and where its time goes, and every ratio of writing to training accelerators."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from podscale import words
from podscale.render import print_warnings
from podscale.tables import table

_STAGES = ("rollout", "reward and forwards", "train", "weight update")
_WAITS = "wait for answers"


def draw_rl(console: Console, document: Mapping[str, Any]) -> None:
    """Print the document of ``rl --json``."""
    console.print(
        Text.assemble((document["name"], "bold"), "  ", (f"{document['model']} · {document['cluster']}", "dim"))
    )
    if document["note"]:
        console.print(Text(document["note"], style="dim"))
    console.print(Text(headline(document)))
    _print_terms(console, document)
    _print_ratios(console, document)
    if document["run"]:
        console.print(Text(f"The whole run: {whole(document['run'])}"))
    print_warnings(console, document["warnings"])


def headline(document: Mapping[str, Any]) -> str:
    """Say what a step takes, and how much faster that is than in turns.

    >>> headline({"arrangement": "side by side", "writing_accelerators": 96, "training_accelerators": 32, "staleness": 4,
    ...     "step_time_s": 50.0, "tokens_per_s_per_gpu": 900.0, "speedup": 2.5, "lag": 3.0})
    'A step takes 50 s, 900 tokens/s/GPU: 96 accelerators write, 32 train, answers lag 3 versions; 2.5 times as fast as in turns'
    """
    said = f"A step takes {words.seconds(document['step_time_s'])}, "
    said += f"{words.figures(document['tokens_per_s_per_gpu'])} tokens/s/GPU: "
    if document["arrangement"] == "in turns":
        return f"{said}all accelerators write, and then train"
    said += f"{document['writing_accelerators']:,} accelerators write, {document['training_accelerators']:,} train, "
    said += f"answers lag {words.figures(document['lag'], 2)} versions"
    faster = document["speedup"]
    return f"{said}; {words.figures(faster)} times as fast as in turns" if faster else said


def whole(run: Mapping[str, float]) -> str:
    """Say what the whole run takes.

    >>> whole({"steps": 1000.0, "hours": 25.4, "accelerator_hours": 4876.8})
    '1,000 steps in 25.4 hours: 4.88 k accelerator-hours'
    """
    hours = words.scaled(run["accelerator_hours"], "").rstrip()
    return f"{run['steps']:,.0f} steps in {words.figures(run['hours'])} hours: {hours} accelerator-hours"


def _print_terms(console: Console, document: Mapping[str, Any]) -> None:
    """Print the trainer's time, in its order, beside the loop in turns."""
    turns = document["in_turns"]
    shown = table("Where the time goes: the trainer's", "", "this", "share", "in turns", "share")
    for name in _STAGES:
        cells = []
        for held in (document, turns):
            if held["step_time_s"] is None:
                cells += ["–", ""]
                continue
            seconds = held["terms"][name]
            cells += [words.seconds(seconds), words.percent(seconds / held["step_time_s"])]
        shown.add_row(_WAITS if name == "rollout" else name, *cells)
    steps = (words.seconds(held["step_time_s"]) for held in (document, turns))
    first, second = steps
    shown.add_row("step", Text(first, style="bold"), "", Text(second, style="bold"), "")
    console.print(shown)


def _print_ratios(console: Console, document: Mapping[str, Any]) -> None:
    """Print every arrangement: how long a step takes, and how long either pool stands idle."""
    rows = [document["in_turns"], *document["ratios"]]
    shown = table(
        "Who writes and who trains", "write", "train", "step", "tokens/s/GPU", "writers idle", "trainer idle",
        "answers at once", "lag",
    )  # fmt: skip
    for row in rows:
        pools = [f"{row['writing_accelerators']:,}", f"{row['training_accelerators']:,}"]
        if row["arrangement"] == "in turns":
            pools = ["all", "then all"]
        if row["step_time_s"] is None:
            shown.add_row(*pools, "does not fit", *[""] * 5)
            continue
        style = "bold" if row == document["best"] else ""
        shown.add_row(
            *pools, words.seconds(row["step_time_s"]), words.figures(row["tokens_per_s_per_gpu"]),
            words.percent(max(row["idle"]["writing"], 0.0)),
            words.percent(row["idle"]["training"]) if row["arrangement"] != "in turns" else "",
            words.figures(row["running"]), words.figures(row["lag"], 2), style=style,
        )  # fmt: skip
    console.print(shown)
    told = next((row["infeasible"] for row in rows if row["infeasible"]), None)
    if told:
        console.print(Text(f"Does not fit: {told}", style="dim"))
