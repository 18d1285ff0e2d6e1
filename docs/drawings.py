"""The drawings of the pages that no command makes: the house with the way of a request through it, and a frontier."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from podscale import palette
from podscale.sheet import Sheet, width_of

Rooms = Sequence[tuple[str, str, int]]

HOUSE: Final[Sequence[tuple[str, str, Rooms]]] = (
    (
        "podscale",
        "How do I ask?",
        (
            ("commands/", "one file per verb", 1),
            ("tables.py", "answers in text", 9),
            ("report.py", "one HTML file", 9),
            ("topology.py", "drawings", 0),
            ("explore/", "a page to drag", 0),
        ),
    ),
    (
        "parallel",
        "What does the model do?",
        (
            ("io.py", "files come in", 2),
            ("strategy.py", "splits as columns", 6),
            ("rules.py", "which are valid", 6),
            ("training/", "terms of a step", 8),
            ("serving/", "terms of a token", 8),
            ("sweeps/", "plan, cells, units", 0),
            ("explain/", "why, and what helps", 0),
        ),
    ),
    (
        "clusters",
        "What exists, what was measured?",
        (
            ("spec.py", "the cluster file", 3),
            ("catalogue.py", "parts and figures", 3),
            ("build.py", "a cluster, once", 4),
            ("kernels.py", "one operator", 7),
            ("tunings.py", "constants of links", 7),
            ("calibration/", "fits", 0),
        ),
    ),
    (
        "collectives",
        "What does it cost to talk?",
        (
            ("algorithms.py", "closed forms", 7),
            ("moe.py", "expert exchange", 7),
            ("pipelines/", "schedules, executed", 7),
            ("ladder/", "rounds on a graph", 0),
            ("bounds.py", "what none beats", 0),
        ),
    ),
    (
        "topo",
        "What is wired to what?",
        (
            ("blueprint.py", "axes, nodes, links", 4),
            ("orbits.py", "exact quotient", 5),
            ("tiers.py", "sizes and rates", 5),
            ("concurrent.py", "all-to-all", 0),
            ("changes.py", "faults", 0),
            ("formats/", "graphs of others", 0),
        ),
    ),
)
"""Floors from the top: folder, its question, its rooms with what they hold and the step of a request that passes there."""

WAY: Final = ("a command", "files", "specs", "graph", "tiers", "strategy columns", "prices", "terms", "the answer")
"""The steps of a request."""

FLOOR, ROOM, HEIGHT, GAP, LEFT, TOP = 104.0, 128.0, 46.0, 10.0, 24.0, 84.0


def house_svg() -> str:
    """Return the map of the house: floors, rooms, and the numbers of the steps that a request takes through them."""
    sheet = Sheet()
    width = 2 * LEFT + 2 * GAP + max(len(rooms) for _, _, rooms in HOUSE) * (ROOM + GAP)
    sheet.text(LEFT, 38, "The house", "title")
    sheet.text(LEFT, 60, "Each floor imports from those below it, and from none above.", "note")
    for number, (folder, question, rooms) in enumerate(HOUSE):
        y = TOP + number * (FLOOR + GAP)
        sheet.rect(LEFT, y, width - 2 * LEFT, FLOOR, "frame", radius=8)
        sheet.text(LEFT + 14, y + 24, f"{len(HOUSE) - number} · {folder}/", "big", inside=True)
        sheet.text(LEFT + 26 + width_of(f"5 · {folder}/", "big"), y + 24, question, "note", inside=True)
        for place, (name, what, step) in enumerate(rooms):
            _room(sheet, LEFT + 14 + place * (ROOM + GAP), y + 40, name, what, step)
    bottom = TOP + len(HOUSE) * (FLOOR + GAP) + 22
    sheet.text(LEFT, bottom, "The way of a request", "head")
    x = LEFT
    for number, said in enumerate(WAY, 1):
        _badge(sheet, x + 9, bottom + 24, number)
        sheet.text(x + 24, bottom + 28, said, "fact")
        x += 42 + width_of(said, "fact")
    described = "; ".join(f"{folder}: {', '.join(name for name, _, _ in rooms)}" for folder, _, rooms in HOUSE)
    return sheet.svg(max(width, x + LEFT), bottom + 56, "The house of podscale", described)


def _room(sheet: Sheet, x: float, y: float, name: str, what: str, step: int) -> None:
    """Draw a room, with the number of the step that passes through it."""
    sheet.rect(x, y, ROOM, HEIGHT, "box", radius=5)
    sheet.text(x + 10, y + 19, name, "plain", inside=True)
    sheet.text(x + 10, y + 36, what, "fact", inside=True)
    if step:
        _badge(sheet, x + ROOM - 4, y + 3, step)


def _badge(sheet: Sheet, x: float, y: float, number: int) -> None:
    """Draw a number in a disc."""
    sheet.rect(x - 9, y - 9, 18, 18, "dot", radius=9, hue="var(--deep)")
    sheet.path(_disc(x, y, 9), "bundle", "var(--up)", 1.6)
    sheet.text(x, y + 4, str(number), "fact", "middle", inside=True)


def _disc(x: float, y: float, r: float) -> str:
    return f"M{x - r:.1f} {y:.1f}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0"


# --- a frontier ------------------------------------------------------------------------------------------------------

PLOT: Final = (84.0, 96.0, 760.0, 330.0)
"""Left, top, width and height of the field."""


def frontier_svg(document: Mapping[str, Any]) -> str:
    """Return throughput against what a user feels in decode, a line per wiring, of a document of `compare`."""
    sheet = Sheet()
    fronts = sorted(
        (f for f in document["frontiers"] if f["phase"] == "decode"), key=lambda front: int(front["domain"])
    )
    lines = {f["domain"]: sorted((1 / p["tpot_s"], p["tokens_per_s_per_gpu"]) for p in f["points"]) for f in fronts}
    left, top, width, height = PLOT
    speeds = [speed for line in lines.values() for speed, _ in line if speed >= SLOWEST]
    low, high = math.log(SLOWEST), math.log(max(speeds))
    most = 1.05 * max(rate for line in lines.values() for _, rate in line)

    def at(speed: float, rate: float) -> tuple[float, float]:
        return left + width * (math.log(speed) - low) / (high - low), top + height * (1 - rate / most)

    for rate in range(0, int(most), 2000):
        y = at(SLOWEST, rate)[1]
        sheet.path(f"M{left:.0f} {y:.1f}h{width:.0f}", "wire", "var(--line)")
        sheet.text(left - 10, y + 4, f"{rate:,}", "fact", "end")
    for speed in (10, 20, 50, 100, 200, 500):
        if SLOWEST <= speed <= math.exp(high):
            x = at(speed, 0)[0]
            sheet.path(f"M{x:.1f} {top:.0f}v{height:.0f}", "wire", "var(--line)")
            sheet.text(x, top + height + 20, f"{speed}", "fact", "middle")
    hues = palette.of_wirings(lines)
    for place, (domain, line) in enumerate(reversed(lines.items())):
        points = [at(*point) for point in line if point[0] >= SLOWEST]
        steps = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        sheet.path(steps, "bundle loaded", hues[domain], 3.0 if place else 6.0, f"domain {domain}")
        sheet.text(left + width - 176, top + 24 + 20 * (len(lines) - 1 - place), f"domains of {domain}", "plain")
        y = top + 20 + 20 * (len(lines) - 1 - place)
        sheet.path(f"M{left + width - 206:.0f} {y:.0f}h22", "bundle loaded", hues[domain], 4.0)
    sheet.text(24, 38, "The same silicon, wired in domains of 8, 72 and 576", "title")
    sheet.text(24, 60, SAID, "note")
    sheet.text(24, top - 12, "tokens/s per GPU", "head")
    sheet.text(left + width, top + height + 42, "tokens/s that each user gets", "head", "end")
    return sheet.svg(left + width + 36, top + height + 64, "Throughput against speed for each user, by domain", SAID)


SLOWEST: Final = 10.0
"""Tokens per second below which nobody reads."""
SAID: Final = "DeepSeek-V3, FP8, decode after 4,096 tokens on 4,608 GB200: each point is the best split for that speed"
