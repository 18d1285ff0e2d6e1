"""The parts of the pages that are lists: the catalogue, rules, objectives, the headline rows of ACCURACY.md."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pages import ROOT


def table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table of Markdown; figures stand to the right."""
    heads, cells = list(heads), [[str(cell) for cell in row] for row in rows]
    figures = [all(FIGURE.match(row[n]) for row in cells) for n in range(len(heads))]
    rule = "|".join("---:" if figure else "---" for figure in figures)
    lines = [f"| {' | '.join(heads)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in cells)]
    return "\n".join(lines) + "\n"


FIGURE: Final = re.compile(r"^(–|\$?[\d,.]+( ?[\w/%·]{1,6})?)$")


def cell(field: str, value: Any) -> str:
    """Return a cell as the command line writes it; a dash for what is not public."""
    from podscale.tables import quantity

    return "–" if value is None or value == "" else quantity(field, value).replace("|", "/")


def listed(kind: str, heads: Mapping[str, str], more: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Return what `podscale list` lists of a kind: these fields under these heads, and what else is said of each name."""
    from podscale.commands.listing import KINDS

    rows = KINDS[kind]()
    said = more or {}
    cells = [
        [
            f"`{row['name']}`",
            *(cell(name, row[name]) for name in heads),
            *(held.get(row["name"], "–") for held in said.values()),
        ]
        for row in rows
    ]
    return f"{len(rows)} in all.\n\n{table(['name', *heads.values(), *said], cells)}"


def tiers() -> dict[str, str]:
    """Return, for every accelerator, how many of its figures come from which tier of source."""
    from clusters.catalogue import accelerator, names

    out = {}
    for name in names():
        held = [figure.tier for figure in accelerator(name).figures.values()]
        counted = sorted({tier: held.count(tier) for tier in held}.items(), key=lambda pair: (-pair[1], pair[0]))
        out[name] = ", ".join(f"{count} {tier}" for tier, count in counted)
    return out


def accelerators() -> str:
    """Return the accelerators, each with the tiers of its sources."""
    heads = {"year": "year", "bf16_flops": "BF16", "fp8_flops": "FP8", "fp4_flops": "FP4", "hbm_bytes": "memory"}
    heads |= {"hbm_Bps": "its rate", "flop_per_byte": "FLOP per byte", "scale_up_Bps": "scale-up", "domain": "domain"}
    heads |= {"power_W": "power", "price_usd": "price", "missing": "not public"}
    return listed("accelerators", heads, {"figures by tier of source": tiers()})


def systems() -> str:
    """Return the systems."""
    heads = {"accelerator": "accelerator", "accelerators": "of them", "domain": "domain", "scale_up_Bps": "scale-up"}
    return listed(
        "systems", heads | {"link": "link", "nic": "NIC", "scale_out_Bps": "scale-out", "missing": "not public"}
    )


def fabrics() -> str:
    """Return links, NICs and switches."""
    heads = {"kind": "kind", "title": "what", "rate_Bps": "rate", "latency_s": "latency", "ports": "ports"}
    return listed("fabrics", heads | {"power_W": "power", "price_usd": "price"})


def memories() -> str:
    """Return the memories below an accelerator's own."""
    heads = {"title": "what", "kind": "kind", "per": "for each", "capacity_bytes": "holds", "bandwidth_Bps": "rate"}
    return listed("memories", heads | {"drain_s": "read once", "usd_per_GB": "USD/GB"})


def prices() -> str:
    """Return the figures of economics."""
    return listed("economics", {"value": "value", "unit": "unit", "tier": "tier", "date": "read", "source": "source"})


def models() -> str:
    """Return the models."""
    heads = {"parameters": "parameters", "active_parameters": "of them active", "layers": "layers", "hidden": "hidden"}
    heads |= {"experts": "experts", "topk": "of them chosen", "kv_bytes_per_token": "cache per token"}
    return listed("models", heads | {"native_precision": "released in"})


def objectives() -> str:
    """Return what strategies can be judged by."""
    from parallel.sweeps.objectives import OBJECTIVES

    better = {-1: "less", 1: "more"}
    rows = [(f"`{name}`", held.unit or "–", better[held.sense], held.said) for name, held in OBJECTIVES.items()]
    return table(("objective", "unit", "better", "what"), rows)


def rules() -> str:
    """Return the rules of valid strategies."""
    from parallel.rules import DECODE_RULES, SERVE_RULES, TRAIN_RULES

    held = [("training", rule) for rule in TRAIN_RULES] + [("serving", rule) for rule in SERVE_RULES]
    held += [("decoding", rule) for rule in DECODE_RULES if rule not in SERVE_RULES]
    return table(
        ("of", "rule", "reads", "remedy"), [(of, r.name, ", ".join(r.axes) or "the model", r.remedy) for of, r in held]
    )


SCORED: Final = (
    ("seconds of a training step, by constants that have not seen the run's configuration", "training", "**all rows**"),
    ("peak memory of a training run", "memory", "**all rows**"),
    ("time per output token, three engines under load", "serving", "tpot aggregated"),
    ("time to the first token, likewise", "serving", "ttft aggregated"),
    ("a dispatch or combine of experts", "moe", "**all rows**"),
    ("a collective of NCCL", "collectives", "**all rows**"),
    ("a matrix product", "gemm", "**all rows**"),
    ("a collective on wirings known link by link", "testbed", "**all rows**"),
)
"""What the summary of ACCURACY.md tells, the marker of its table there, and the row."""


def accuracy() -> str:
    """Return the headline rows of ACCURACY.md, which holds what `podscale validate` prints."""
    text = (ROOT / "ACCURACY.md").read_text(encoding="utf-8")
    rows = []
    for what, marker, row in SCORED:
        block = text.split(f"<!-- {marker} -->\n")[1].split(f"<!-- /{marker} -->")[0].splitlines()
        heads, *held = [[cell.strip() for cell in line.strip("|").split("|")] for line in block]
        cells = next(cells for cells in held if cells[0] == row)
        found = dict(zip(reversed(heads), reversed(cells), strict=True))  # where a head comes twice, the first counts
        rows.append([what, found["rows"], found.get("predicted", found["rows"]), found["median %"], found["p90 %"]])
    return table(("what", "measured", "predicted", "median error %", "90th percentile %"), rows)
