"""The README's table is the program's answer. To renew it: python tests/test_readme.py"""

from pathlib import Path
from typing import Any

from parallel.compare import CompareRequest, compare

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- answer -->\n", "<!-- /answer -->"
LATENCY = {"train": ("step", 1.0, "s"), "prefill": ("TTFT", 1.0, "s"), "decode": ("TPOT", 1e3, "ms")}


def split(row: dict[str, Any]) -> str:
    strategy = row["strategy"]
    parts = [f"{name.upper()}{strategy[name]}" for name in ("ep", "tp", "pp", "vpp", "dp") if strategy.get(name, 1) != 1]
    return " ".join(parts) or "one rank each"


def table(document: dict[str, Any]) -> str:
    lines = ["| phase | domain | best split | tokens/s per GPU | | largest terms |", "|---|---:|---|---:|---:|---|"]
    for row in document["rows"]:
        name, scale, unit = LATENCY[row["phase"]]
        seconds = row["ttft_s"] if row["phase"] == "prefill" else row["step_time_s"]
        top = sorted(row["terms"], key=lambda term: -row["terms"][term])[:3]
        shares = ", ".join(f"{term} {row['terms'][term] / row['step_time_s']:.0%}" for term in top)
        lines.append(
            f"| {row['phase']} | {row['domain']} | {split(row)} | {row['tokens_per_s_per_gpu']:,.0f} "
            f"| {name} {seconds * scale:.3g} {unit} | {shares} |"
        )
    return "\n".join(lines) + "\n"


def test_the_readme_shows_the_answer_that_the_program_gives() -> None:
    text = README.read_text(encoding="utf-8")
    assert text[text.index(START) + len(START) : text.index(END)] == table(compare(CompareRequest()))


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    head, tail = text[: text.index(START) + len(START)], text[text.index(END) :]
    README.write_text(head + table(compare(CompareRequest())) + tail, encoding="utf-8")
