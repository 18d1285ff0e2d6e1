"""Pipelines drawn as Gantt charts: one row per stage, its work by kind, its waits by cause, one time scale for all.

Beside each row stands how long the stage waits, by cause: bars that can be compared where the gaps themselves are many.
Links much slower than the others part the rows, and their messages are drawn across. The drawing is one SVG that loads
nothing and follows light and dark.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from collectives.pipelines import Costs, Run
from podscale import palette, words
from podscale.sheet import Sheet, width_of
from podscale.timeline import KINDS, Message, Wait, Work, messages, updates, waits, work
from topo.columns import Column

_WAITING, _TALKING = palette.FAMILIES[1][2], palette.FAMILIES[0][2]
CAUSES = {
    "fill": _WAITING[1],
    "drain": _WAITING[0],
    "imbalance": _WAITING[2],
    "stall": palette.FAMILIES[3][2][0],
    "hop latency": _TALKING[0],
    "exposed communication": _TALKING[2],
}
"""Colour of each cause of a wait."""

WORK = {
    "F": palette.COMPUTING[0],
    "B": palette.COMPUTING[6],
    "I": palette.WIRINGS[1],
    "W": palette.COMPUTING[5],
    "O": palette.FAMILIES[2][2][0],
}
"""Colour of each kind of work, first chunk; later chunks and the other direction are lighter."""

MARGIN = 24.0
_PLOT = 1160.0
_LABEL = 62.0
_BAR = 150.0
_NUMBER = "10px"
_LEAST_BAR = 0.05  # of the step: what the longest bar of waits stands for at least
_SLOW = 3.0  # a link this many times slower than the middle one parts the rows


@dataclass(frozen=True)
class Panel:
    """One schedule to be drawn.

    Attributes
    ----------
    title : what stands above it
    run, costs, causes : of `collectives.pipelines`, for one strategy
    links_s : seconds of a hop over each link between neighbouring stages
    """

    title: str
    run: Run
    costs: Costs
    causes: Mapping[str, Column]
    links_s: Sequence[float] = ()

    @property
    def parted(self) -> set[int]:
        """Stages with a slow link after them."""
        if not self.links_s:
            return set()
        middle = sorted(self.links_s)[(len(self.links_s) - 1) // 2]
        return {i for i, hop in enumerate(self.links_s) if hop > _SLOW * middle}


class _Chart(Sheet):
    """A sheet with bars, and numbers inside them."""

    def bars(self, commands: str, hue: str, height: float, said: str) -> None:
        """Draw level strokes of one colour; what is `said` shows when a pointer rests on them."""
        self._elements.append(
            f'<path d="{commands}" style="fill:none;stroke:{hue};stroke-width:{height:.4g}px"><title>{said}</title></path>'
        )

    def number(self, x: float, y: float, said: str, ground: str) -> None:
        """Write a number that reads on its ground."""
        self._texts.append(
            f'<text class="in" x="{x:.1f}" y="{y:.1f}" font-size="{_NUMBER}" text-anchor="middle" '
            f'style="fill:{_ink(ground)}">{said}</text>'
        )


@dataclass(frozen=True)
class _Scale:
    """Pixels of a moment, of a wait beside the rows, and of a row."""

    seconds: float
    waits_s: float
    row: float

    def x(self, moment_s: float) -> float:
        return MARGIN + _LABEL + _PLOT * moment_s / self.seconds


def gantt_svg(panels: Sequence[Panel], title: str, note: str = "") -> str:
    """Draw executed schedules above one another, on one time scale.

    Examples
    --------
    >>> from collectives.pipelines import SCHEDULES, Costs, causes, execute
    >>> order, costs = SCHEDULES["1f1b"].order(4, 8, 1), Costs(1.0, 1.0, 1.0, hop_s=0.1)
    >>> drawn = gantt_svg([Panel("1F1B", execute(order, costs), costs, causes(order, costs))], "Four stages")
    >>> "hop latency" in drawn, "stage 3" in drawn
    (True, True)
    """
    chart = _Chart()
    rows = max(panel.run.order.stages for panel in panels)
    scale = _Scale(
        max(_ends(panel) for panel in panels),
        max(max(float(p.run.idle_s.max()), _LEAST_BAR * float(p.run.step_s)) for p in panels),
        max(6.0, min(26.0, (420.0 if len(panels) == 1 else 250.0) / rows)),
    )
    chart.text(MARGIN, MARGIN + 14, title, "title")
    chart.text(MARGIN, MARGIN + 36, note, "note")
    y = MARGIN + 58
    for panel in panels:
        y = _draw_panel(chart, panel, scale, y) + 30
    y = _draw_axis(chart, scale, y - 22)
    y = _draw_legend(chart, panels, scale, y + 30)
    width = max(2 * MARGIN + _LABEL + _PLOT + 20 + _BAR + 130, width_of(note, "note") + 2 * MARGIN)
    said = "; ".join(f"{panel.title}: {words.seconds(float(panel.run.step_s))}" for panel in panels)
    return chart.svg(width, y + MARGIN, title, said)


def _ends(panel: Panel) -> float:
    """Return the end of a schedule, the last optimizer step with it."""
    ends = [w.end_s for w in updates(panel.run, panel.costs)]
    return max(float(panel.run.makespan_s), float(panel.run.step_s), *ends)


def _draw_panel(chart: _Chart, panel: Panel, scale: _Scale, y: float) -> float:
    """Draw one schedule below `y` and return where it ends."""
    run = panel.run
    chart.text(MARGIN, y + 12, panel.title, "big")
    idle = float(run.idle_s.mean())
    share = f"step {words.seconds(float(run.step_s))}, of which a stage waits {words.seconds(idle)} on average"
    told = " · ".join([f"{share} ({words.percent(idle / float(run.step_s))})", *_by_cause(panel)])
    chart.text(MARGIN + width_of(panel.title, "big") + 14, y + 12, told, "fact")
    right = MARGIN + _LABEL + _PLOT + 20
    chart.text(right + _BAR + 10, y + 12, "waits · holds", "fact")
    tops = _tops(panel, scale, y + 24)
    bottom = tops[-1] + scale.row
    chart.rect(scale.x(0.0), tops[0] - 2, _PLOT, bottom - tops[0] + 4, "frame", radius=3)
    _draw_messages(chart, messages(run, panel.costs), panel.parted, tops, scale)
    _fill(
        chart,
        ((CAUSES[w.cause], w.cause, *_place(w, tops, scale)) for w in waits(run, panel.costs, panel.causes)),
        gap=0.0,
    )
    done = work(run)
    steps = updates(run, panel.costs)
    _fill(chart, ((_shade(w), KINDS[w.kind], *_place(w, tops, scale)) for w in (*done, *steps)), gap=0.7)
    if _numbered(panel, scale):
        _draw_numbers(chart, done, tops, scale)
    for stage, top in enumerate(tops):
        _draw_sides(chart, panel, stage, top, scale, right)
    return bottom


def _by_cause(panel: Panel) -> list[str]:
    """Say how long a stage waits on average for each cause that matters, the longest first."""
    means = {name: float(seconds.mean()) for name, seconds in panel.causes.items()}
    least = 0.002 * float(panel.run.step_s)
    shown = sorted(((name, s) for name, s in means.items() if abs(s) > least), key=lambda item: -item[1])
    return [f"{name} {words.seconds(seconds)}" for name, seconds in shown]


def _tops(panel: Panel, scale: _Scale, y: float) -> list[float]:
    """Return the upper edge of every row; behind a slow link there is room for its messages."""
    tops = []
    for stage in range(panel.run.order.stages):
        tops.append(y)
        y += scale.row + (2.0 if scale.row > 9 else 1.0) + (18.0 if stage in panel.parted else 0.0)
    return tops


def _place(piece: Work | Wait, tops: Sequence[float], scale: _Scale) -> tuple[float, float, float, float]:
    """Return x, y, width and height of a piece; of an overlapped pair the forward is the upper half."""
    x, y, height = scale.x(piece.start_s), tops[piece.stage], scale.row
    if isinstance(piece, Work) and piece.paired:
        height /= 2
        y += 0.0 if piece.kind == "F" else height
    return x, y, scale.x(piece.end_s) - x, height


def _fill(chart: _Chart, pieces: Iterable[tuple[str, str, float, float, float, float]], *, gap: float) -> None:
    """Draw boxes, all of one colour as one path: strokes as thick as a row."""
    paths: dict[tuple[str, str, float], list[str]] = defaultdict(list)
    for hue, said, x, y, width, height in pieces:
        wide = max(width - min(gap, 0.2 * width), 0.1)
        paths[hue, said, height].append(f"M{x:.1f} {y + height / 2:.1f}h{wide:.1f}")
    for (hue, said, height), commands in paths.items():
        chart.bars("".join(commands), hue, height, said)


def _draw_messages(
    chart: _Chart, sent: Sequence[Message], parted: set[int], tops: Sequence[float], scale: _Scale
) -> None:
    """Draw the messages over the slow links, across the room between the rows."""
    commands: dict[bool, list[str]] = defaultdict(list)
    for m in sent:
        upper = min(m.sender, m.receiver)
        if upper in parted and abs(m.sender - m.receiver) == 1:
            above, below = tops[upper] + scale.row, tops[upper + 1]
            y0, y1 = (above, below) if m.sender == upper else (below, above)
            commands[m.gradients].append(f"M{scale.x(m.start_s):.1f} {y0:.1f}L{scale.x(m.end_s):.1f} {y1:.1f}")
    for gradients, drawn in commands.items():
        hue = WORK["B" if gradients else "F"]
        chart.path("".join(drawn), "wire", hue, said="gradients" if gradients else "activations")


def _numbered(panel: Panel, scale: _Scale) -> bool:
    """Whether all boxes of a panel are wide and high enough for their micro-batches."""
    pixels = _PLOT / scale.seconds
    return scale.row >= 11 and all(
        (w.end_s - w.start_s) * pixels >= 4.5 + 6.2 * len(str(w.microbatch)) for w in work(panel.run)
    )


def _draw_numbers(chart: _Chart, done: Sequence[Work], tops: Sequence[float], scale: _Scale) -> None:
    """Write the micro-batches into the boxes."""
    for w in done:
        x, y, width, height = _place(w, tops, scale)
        if height >= 11:
            chart.number(x + width / 2, y + height / 2 + 3.6, str(w.microbatch), _shade(w))


def _draw_sides(chart: _Chart, panel: Panel, stage: int, top: float, scale: _Scale, right: float) -> None:
    """Write a row's stage, the bar of its waits, and how many micro-batches it holds at most."""
    run, middle = panel.run, top + scale.row / 2 + 3.8
    every = max(1, math.ceil(12.5 / scale.row))
    if stage % every == 0:
        chart.text(MARGIN + _LABEL - 8, middle, f"stage {stage}", "fact", "end")
        idle = words.seconds(float(run.idle_s[stage]))
        chart.text(right + _BAR + 10, middle, f"{idle} · {words.figures(float(run.in_flight[stage]))}", "fact")
    if stage in panel.parted:
        said = words.seconds(panel.links_s[stage])
        chart.text(MARGIN + _LABEL - 8, top + scale.row + 14, said, "fact", "end")
    due = {name: max(float(seconds[stage]), 0.0) for name, seconds in panel.causes.items()}
    shrink = float(run.idle_s[stage]) / sum(due.values()) if sum(due.values()) else 0.0
    x = right
    for name, seconds in due.items():
        width = _BAR * shrink * seconds / scale.waits_s
        if width > 0.3:
            chart.rect(x, top + 1, width, scale.row - 2, "square", radius=0, hue=CAUSES[name])
        x += width


def _draw_axis(chart: _Chart, scale: _Scale, y: float) -> float:
    """Draw the time axis and return where it ends."""
    step = _round_step(scale.seconds / 10)
    marks = [i * step for i in range(int(scale.seconds / step * (1 + 1e-9)) + 1)]
    ticks = "".join(f"M{scale.x(mark):.1f} {y:.1f}v5" for mark in marks)
    chart.path(f"M{scale.x(0.0):.1f} {y:.1f}h{_PLOT:g}{ticks}", "wire", "var(--ink)")
    for mark in marks:
        chart.text(scale.x(mark), y + 18, words.seconds(mark), "fact", "middle")
    return y + 20


def _round_step(least: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten.

    >>> _round_step(0.023), _round_step(7.0)
    (0.05, 10.0)
    """
    power = 10.0 ** math.floor(math.log10(least))
    return float(f"{next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9)):.1g}")


def _draw_legend(chart: _Chart, panels: Sequence[Panel], scale: _Scale, y: float) -> float:
    """Draw the keys of what occurs and return where they end."""
    kinds = {w.kind for panel in panels for w in (*work(panel.run), *updates(panel.run, panel.costs))}
    found = {w.cause for panel in panels for w in waits(panel.run, panel.costs, panel.causes)}
    keys = [(f"{KINDS[kind]} ({kind})", hue) for kind, hue in WORK.items() if kind in kinds]
    keys += [(f"waits: {name}", hue) for name, hue in CAUSES.items() if name in found]
    x = MARGIN
    for said, hue in keys:
        chart.rect(x, y - 10, 12, 12, "square", radius=2, hue=hue)
        chart.text(x + 18, y, said, "fact")
        x += 18 + width_of(said, "fact") + 16
    notes = ["Numbers are micro-batches."] if any(_numbered(panel, scale) for panel in panels) else []
    notes.append("Bars: how long each stage waits, by cause. Holds: most micro-batches' activations.")
    if any(panel.run.order.chunks > 1 or len(panel.run.order.device) > 1 for panel in panels):
        notes.append("Lighter: later chunks or the other direction.")
    chart.text(MARGIN, y + 20, " ".join(notes), "note")
    return y + 24


def _shade(w: Work) -> str:
    """Return the colour of a piece of work: lighter with the chunk and the direction."""
    return _mixed(WORK[w.kind], min(0.55, 0.22 * (w.chunk + w.pipe)))


def _mixed(hue: str, white: float) -> str:
    """Return a colour with some white in it.

    >>> _mixed("#2f6fde", 0.0), _mixed("#000000", 0.5)
    ('#2f6fde', '#808080')
    """
    parts = (int(hue[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * white):02x}" for part in parts)


def _ink(ground: str) -> str:
    """Return white or near black, whichever reads better on a colour.

    >>> _ink("#1d3f91"), _ink("#bfe6cd")
    ('#fff', '#10151c')
    """
    red, green, blue = (int(ground[i : i + 2], 16) for i in (1, 3, 5))
    return "#10151c" if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else "#fff"
