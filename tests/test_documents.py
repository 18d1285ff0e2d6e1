"""The tables of README and ACCURACY are what the program says today. To renew them: python tests/test_documents.py"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallel.compare import CompareRequest, compare
from parallel.validation.scoring import by_group
from parallel.validation.sets import validate

ROOT = Path(__file__).parents[1]
LATENCY = {"train": ("step", 1.0, "s"), "prefill": ("TTFT", 1.0, "s"), "decode": ("TPOT", 1e3, "ms")}
NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*")


def split(row: dict[str, Any]) -> str:
    strategy = row["strategy"]
    parts = [
        f"{name.upper()}{strategy[name]}" for name in ("ep", "tp", "pp", "vpp", "dp") if strategy.get(name, 1) != 1
    ]
    return " ".join(parts) or "one rank each"


def answer_table() -> str:
    lines = ["| phase | domain | best split | tokens/s per GPU | | largest terms |", "|---|---:|---|---:|---:|---|"]
    for row in compare(CompareRequest())["rows"]:
        name, scale, unit = LATENCY[row["phase"]]
        seconds = row["ttft_s"] if row["phase"] == "prefill" else row["step_time_s"]
        top = sorted(row["terms"], key=lambda term: -row["terms"][term])[:3]
        shares = ", ".join(f"{term} {row['terms'][term] / row['step_time_s']:.0%}" for term in top)
        lines.append(
            f"| {row['phase']} | {row['domain']} | {split(row)} | {row['tokens_per_s_per_gpu']:,.0f} "
            f"| {name} {seconds * scale:.3g} {unit} | {shares} |"
        )
    return "\n".join(lines) + "\n"


def percent(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{100 * value:{sign}.1f}"


def error_table(name: str) -> str:
    document = validate(name)
    whole = document["summary"]
    lines = ["| group | rows | predicted | median % | p90 % | mean % | bias % |", "|---|---:|---:|---:|---:|---:|---:|"]
    for label, s in [*document["groups"].items(), ("**all rows**", whole)]:
        figures = [percent(s[key]) for key in ("median_ape", "p90_ape", "mean_ape")]
        lines.append(f"| {label} | {s['n']:,} | {s['predicted']} | {' | '.join(figures)} | {percent(s['bias'], '+')} |")
    macro = [percent(whole[key]) for key in ("macro_median_ape", "macro_p90_ape")]
    lines.append(f"| **mean over groups** | | | {' | '.join(macro)} | | |")
    return "\n".join(lines) + "\n"


def training_table() -> str:
    document = validate("training")
    heads = (
        "group",
        "rows",
        "predicted",
        "median %",
        "p90 %",
        "bias %",
        "coverage %",
        "source unseen: median %",
        "p90 %",
    )
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    left_out = document["leave_one_source_out"]
    rows = [(name, s, left_out["groups"][name]) for name, s in document["groups"].items() if s["predicted"]]
    rows += [
        ("**all rows**", document["summary"], left_out["summary"]),
        ("**complete rows**", document["complete"], {}),
    ]
    for label, s, unseen in rows:
        figures = [percent(s["median_ape"]), percent(s["p90_ape"]), percent(s["bias"], "+"), percent(s["coverage"])]
        figures += [percent(unseen.get(key)) for key in ("median_ape", "p90_ape")]
        lines.append(f"| {label} | {s['n']:,} | {s['predicted']} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def serving_table() -> str:
    document = validate("serving")
    heads = ("what", "rows", "predicted", "median %", "p90 %", "bias %", "coverage %", "width %")
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for label, s in document["metrics"].items():
        keys = ("median_ape", "p90_ape", "bias", "coverage", "width")
        figures = [percent(s[key], "+" if key == "bias" else "") for key in keys]
        lines.append(f"| {label} | {s['n']:,} | {s['predicted']:,} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def products_table() -> str:
    document = validate("gemm")
    heads = ("group", "rows", "median %", "p90 %", "bias %", "unseen median %", "unseen p90 %", "coverage %", "width %")
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for label, s in [*document["groups"].items(), ("**all rows**", document["summary"])]:
        unseen = document["held_out"].get(label, {})
        figures = [percent(s["median_ape"]), percent(s["p90_ape"]), percent(s["bias"], "+")]
        figures += [percent(value) for value in (unseen.get("median"), unseen.get("p90"), s["coverage"], s["width"])]
        lines.append(f"| {label} | {s['n']:,} | {' | '.join(figures)} |")
    macro = [percent(document["summary"][key]) for key in ("macro_median_ape", "macro_p90_ape")]
    lines.append(f"| **mean over groups** | | {' | '.join(macro)} | | | | | |")
    return "\n".join(lines) + "\n"


def links_table(name: str) -> str:
    document = validate(name)
    heads = ("link, operation, regime", "rows", "predicted", "median %", "p90 %", "bias %", "coverage %", "width %")
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    families = by_group(document["rows"], "family")
    shown = {label: s for label, s in families.items() if s["predicted"]}
    blocks = document.get("blocks", {})
    for label, s in [*shown.items(), *blocks.items(), ("**all rows**", document["summary"])]:
        figures = [percent(s["median_ape"]), percent(s["p90_ape"]), percent(s["bias"], "+")]
        figures += [percent(s["coverage"]), percent(s["width"])]
        lines.append(f"| {label} | {s['n']:,} | {s['predicted']:,} | {' | '.join(figures)} |")
    macro = [percent(document["summary"][key]) for key in ("macro_median_ape", "macro_p90_ape")]
    lines.append(f"| **mean over groups** | | | {' | '.join(macro)} | | | |")
    return "\n".join(lines) + "\n"


def rungs_table() -> str:
    heads = ("rung", "1 MiB and more: rows", "median %", "p90 %", "worst %", "64 KiB: rows", "median %", "p90 %")
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for rung in ("stepwise", "dependency", "fifo"):
        document = validate("testbed", fidelity=rung)
        large, small = document["bands"]["1 MiB and more"], document["bands"]["64 KiB"]
        worst = max(row["ape"] for row in document["rows"] if row["ape"] is not None and row["bytes"] >= 2**20)
        figures = [
            str(large["predicted"]),
            *(percent(value) for value in (large["median_ape"], large["p90_ape"], worst)),
        ]
        figures += [str(small["predicted"]), percent(small["median_ape"]), percent(small["p90_ape"])]
        lines.append(f"| {rung} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("README.md", "answer"): answer_table,
    ("ACCURACY.md", "training"): training_table,
    ("ACCURACY.md", "memory"): lambda: error_table("memory"),
    ("ACCURACY.md", "gemm"): products_table,
    ("ACCURACY.md", "moe"): lambda: links_table("moe"),
    ("ACCURACY.md", "collectives"): lambda: links_table("collectives"),
    ("ACCURACY.md", "serving"): serving_table,
    ("ACCURACY.md", "testbed"): lambda: error_table("testbed"),
    ("ACCURACY.md", "rungs"): rungs_table,
}


def cut(text: str, name: str) -> tuple[str, str, str]:
    head, rest = text.split(f"<!-- {name} -->\n")
    table, tail = rest.split(f"<!-- /{name} -->")
    return head, table, tail


@pytest.mark.parametrize(("file", "name"), TABLES)
def test_the_table_is_what_the_program_says(file: str, name: str) -> None:
    _, printed, _ = cut((ROOT / file).read_text(encoding="utf-8"), name)
    today = TABLES[file, name]()
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", today)
    for old, new in zip(NUMBER.findall(printed), NUMBER.findall(today), strict=True):
        assert float(new.replace(",", "")) == pytest.approx(float(old.replace(",", "")), rel=2e-3, abs=0.15)


if __name__ == "__main__":
    for (file, name), table in TABLES.items():
        head, _, tail = cut((ROOT / file).read_text(encoding="utf-8"), name)
        renewed = f"{head}<!-- {name} -->\n{table()}<!-- /{name} -->{tail}"
        (ROOT / file).write_text(renewed, encoding="utf-8")
