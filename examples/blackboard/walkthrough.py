"""The blackboard, worked through: fills `story.md` with what the claims say today, and draws its figures.

Writes README.md and the figures beside itself, or into the folder that is named.
"""

import re
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from clusters.economics import economics, listings
from parallel.claims import claim, claims, find, most, row_of, sensitivity
from parallel.claims.machines import active, decode_on, model_of, moe_of
from parallel.claims.passes import fullest_s, knee, rack_compute_s, rack_memory_s, two_terms_s
from parallel.claims.prices import SPEEDS
from parallel.models import parameters
from podscale import claimplots, words
from podscale.claimwords import expected, input_name, of_input, times, value

HERE: Final = Path(__file__).parent
RACK: Final = find("pass-time").values()
Cells = list[str]


@cache
def rows() -> dict[str, Any]:
    """Every claim's row by its name, run once."""
    return {row["id"]: row for row in claims()["rows"]}


@cache
def told(name: str) -> dict[str, Any]:
    """One claim with its tables and what there is to draw."""
    return claim(name, drawn=True)


@cache
def changed(name: str, given: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """A claim's row, some of its inputs changed."""
    return row_of(find(name), dict(given)) if given else rows()[name]


# --- the words of the story -----------------------------------------------------------------------------------------

QUANTITIES: Final[Mapping[str, Callable[[], str]]] = {
    "active": lambda: f"{words.figures(active(RACK) / 1e9)} billion",
    "parameters": lambda: f"{words.figures(float(parameters(model_of(RACK))) / 1e9)} billion",
    "visited": lambda: str(moe_of(model_of(RACK)).topk),
    "routed": lambda: str(moe_of(model_of(RACK)).experts),
    "knee": lambda: f"{knee(RACK):,.0f}",
    "compute": lambda: times(rack_compute_s(RACK, RACK["batch"])),
    "memory": lambda: times(rack_memory_s(RACK, RACK["batch"])),
    "two terms": lambda: times(two_terms_s(RACK, RACK["batch"])),
    "pass": lambda: times(float(decode_on(RACK, RACK["batch"]).seconds[0])),
    "fullest": lambda: times(fullest_s(RACK)),
    "lifetime": lambda: words.figures(economics()["capital"]["lifetime"].value),
    "interest": lambda: words.percent(economics()["capital"]["financing-rate"].value),
    "slowest": lambda: words.figures(1.0 / find("api-price").values()["tpot"]),
    "faster": lambda: words.figures(rows()["mfu-misleads"]["inputs"]["tpot"] / rows()["mfu-misleads"]["inputs"]["new_tpot"]),
}  # fmt: skip
"""Numbers of the story that are no claim of their own."""


def field(row: Mapping[str, Any], name: str, case: str) -> str:
    """Write one field of a row: what the source says, an answer (of a case), an input; as per cent, or bare, where asked."""
    if name.startswith("in:"):
        dimension = next(one.dimension for one in find(row["id"]).inputs if one.name == name[3:])
        number = row["inputs"][name[3:]]
        return words.percent(number) if name[3:] in SHARES else large(number, dimension) or of_input(number, dimension)
    if name == "most":
        moved = most(sensitivity(find(row["id"])))
        return f"{input_name(moved['input'])} ({moved['full']:+.1f} % for one per cent)" if moved else "no number"
    held = next(one for one in row["cases"] if one["case"] == case) if case else row
    if name[-1] in "%#":
        return (words.percent if name[-1] == "%" else words.figures)(held[name[:-1]])
    return value(held[name], row["unit"])


def large(number: Any, dimension: str) -> str:
    """Write a large count in words; nothing where it is small."""
    named = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
    return next(
        (
            f"{words.figures(number / size)} {name}"
            for size, name in named
            if words.known(number) and dimension in ("", "count") and number >= size
        ),
        "",
    )


SHARES: Final = ("utilisation", "decode_efficiency", "share", "rate", "old_rate")
"""Inputs that read better as per cent."""


def filled(match: re.Match[str]) -> str:
    """Write what stands in for ``{…}``: a quantity, a count of verdicts, an extreme, a case, or a field of a claim."""
    head, *rest = match[1].split()
    if head == "=":
        return QUANTITIES[" ".join(rest)]()
    if head == "count":
        wanted = " ".join(rest)
        return str(sum(wanted in ("claims", row["verdict"]) for row in rows().values()))
    if head in ("least", "greatest"):
        row = rows()[rest[0]]
        found = [case[rest[1]] for case in row["cases"]]
        return value(min(found) if head == "least" else max(found), row["unit"])
    if head == "caseof":
        row = rows()[rest[0]]
        return of_input(row["cases"][int(rest[1])]["value"], row["over_dimension"])
    if head == "measured":
        return f"${words.figures(next(one['usd'] for one in table('api-price', 2) if one['measurement'] == rest[0]))}"
    given = tuple(tuple(word.split("=")) for word in rest[1:] if "=" in word)
    case = next((word[1:] for word in rest[1:] if word.startswith("@")), "")
    return field(changed(head, given), rest[0], case)


# --- tables and figures ---------------------------------------------------------------------------------------------


def table(name: str, place: int) -> list[dict[str, Any]]:
    """Return one of the tables beside a claim."""
    return list(told(name)["details"][place]["rows"])


def markdown(head: Cells, body: list[Cells], right: int = 1) -> str:
    """Write a table whose columns from `right` on are numbers."""
    rule = ["---" if place < right else "---:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *body))


def of_claims(*names: str) -> str:
    """Write claims in a table: the source, its arithmetic, the whole model, the verdict."""
    body = [
        [f"`{name}`", row["claim"], expected(row), value(row["simple"], row["unit"]), value(row["full"], row["unit"]),
         row["verdict"]] for name in names for row in (rows()[name],)
    ]  # fmt: skip
    return markdown(["`podscale claim`", "what is said", "the source", "two terms", "whole model", "verdict"], body, 9)


def of_costs() -> str:
    """Write the cost of input and output by part and interactivity, and of an hour."""
    held = table("api-price", 0)
    body = []
    for part in dict.fromkeys(row["part"] for row in held):
        mine = {row["speed"]: row for row in held if row["part"] == part}
        first = mine[SPEEDS[0]]
        hour = [words.figures(first[f"{name}_usd"]) for name in ("capital", "electricity", "housing")]
        outputs = [words.figures(mine[speed]["output_usd"]) for speed in SPEEDS]
        body.append([part, *hour, words.figures(first["input_usd"]), *outputs])
    speeds = [f"output at {speed:g} tokens/s" for speed in SPEEDS]
    return markdown(["part", "hour: capital", "electricity", "housing", "input", *speeds], body)


def of_prices() -> str:
    """Write the public prices with host, day and source."""
    over = {row["listing"]: row["over_cost"] for row in table("api-price", 1)}
    body = [
        [one.since, one.host, one.model, words.figures(one.input_usd), words.figures(one.hit_usd or float("nan")),
         words.figures(one.output_usd), f"{words.figures(over[one.name])}×", f"[source]({one.source.url})"]
        for one in listings().values()
    ]  # fmt: skip
    return markdown(["since", "host", "model", "input", "cached input", "output", "over cost", ""], body, 3)


def of_measured() -> str:
    """Write the published measurements at the hours of the costs."""
    body = [
        [row["measurement"], row["phase"], row["at_hour_of"], words.figures(row["rate"], 4), words.figures(row["usd"])]
        for row in table("api-price", 2)
    ]
    return markdown(
        ["measurement", "phase", "at the hour of", "tokens/s, one accelerator", "dollars per million"], body, 3
    )


def of_tiers() -> str:
    """Write the cost on racks and on on-chip memory by interactivity."""
    held = table("sram-tier", 0)
    parts = [name for name in held[0] if name not in ("tpot_s", "speed")]
    body = [
        [words.figures(row["speed"]), *(words.figures(row[part] or float("nan")) for part in parts)] for row in held
    ]
    return markdown(["tokens/s and user", *(f"{part}, dollars per million" for part in parts)], body, 0)


BLOCKS: Final[Mapping[str, Callable[..., str]]] = {
    "claims": of_claims,
    "costs": of_costs,
    "prices": of_prices,
    "measured": of_measured,
    "tiers": of_tiers,
    "figure": lambda name: f"![{rows()[name]['claim']}]({name}.svg)",
}
"""What a line ``::NAME …`` of the story stands for."""


def page(story: str) -> str:
    """Fill the story."""
    blocks = re.sub(r"^::(\w+)(.*)$", lambda match: BLOCKS[match[1]](*match[2].split()), story, flags=re.M)
    return re.sub(r"\{([^{}]+)\}", filled, blocks)


def main(folder: Path = HERE) -> None:
    """Write the page and its figures."""
    story = (HERE / "story.md").read_text(encoding="utf-8")
    for name in re.findall(r"^::figure (\S+)$", story, flags=re.M):
        claimplots.write(told(name), folder / f"{name}.svg")
    (folder / "README.md").write_text(page(story), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
