"""The cells of a sweep as grids: a row per wiring, a column per setting, and in words where a wiring starts to matter."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import geometric_mean
from typing import Any

from podscale import words

Cell = Mapping[str, Any]
Place = tuple[Any, Any, tuple[Any, ...]]
MATTERS = 1.05
"""A wiring matters where it is faster, or slower, by this factor."""
ENOUGH = 1.02
"""A wiring is enough where no other is faster by this factor."""
_NO_WIRING = frozenset({"cell", "points", "feasible", "strategy", "infeasible", "regret", "model", "phase"})


@dataclass(frozen=True)
class Grid:
    """The cells of one model and phase.

    Attributes
    ----------
    axes : names of what the rows, the columns and the panels stand for; rows are the wirings
    rows, columns, panels : their values; a panel has a value of each of its axes
    cells : by row, column and panel
    rank : what cells are judged by; `more` says whether more of it is better
    """

    model: str
    phase: str
    axes: tuple[str, str, tuple[str, ...]]
    rows: tuple[Any, ...]
    columns: tuple[Any, ...]
    panels: tuple[tuple[Any, ...], ...]
    cells: Mapping[Place, Cell]
    rank: str
    more: bool

    def value(self, row: Any, column: Any, panel: tuple[Any, ...]) -> float | None:
        """Return what a cell came to, None where nothing is feasible."""
        cell = self.cells.get((row, column, panel))
        return cell[self.rank] if cell else None

    def ratio(self, row: Any, column: Any, panel: tuple[Any, ...], base: Any = None) -> float | None:
        """Return how many times better a wiring is than another, in the same setting; at first than the first."""
        mine = self.value(row, column, panel)
        other = self.value(self.rows[0] if base is None else base, column, panel)
        if not mine or not other:
            return None
        return mine / other if self.more else other / mine

    @property
    def places(self) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        """Settings beside the wiring."""
        return product(self.columns, self.panels)

    def ratios(self, row: Any) -> list[float]:
        """Return how many times better than the first a wiring is, in every setting where both run."""
        return [found for place in self.places if (found := self.ratio(row, *place)) is not None]

    @property
    def flat(self) -> bool:
        """Whether all wirings come to the same in all settings."""
        every = [ratio for row in self.rows for ratio in self.ratios(row)]
        values = {self.value(self.rows[0], *place) for place in self.places}
        return bool(every) and max(every) - min(every) < 1e-3 and len(values) == 1

    def winners(self) -> Counter[Any]:
        """Count the settings in which a wiring is the first, in the order of rows, that is as good as any."""
        found = Counter[Any]()
        for place in self.places:
            known = {row: value for row in self.rows if (value := self.value(row, *place))}
            for row in known:
                others = [self.ratio(other, *place, base=row) or 0.0 for other in known]
                if max(others) <= ENOUGH:
                    found[row] += 1
                    break
        return found


def grids(document: Mapping[str, Any]) -> list[Grid]:
    """Return the grids of a sweep's document, one per model and phase."""
    rank = list(document["objectives"])[-1]
    more = bool(document["objectives"][rank]["more"])
    kinds: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in document["cells"]:
        kinds[cell["model"], cell["phase"]].append(cell)
    return [_grid(model, phase, cells, rank, more=more) for (model, phase), cells in kinds.items()]


def _grid(model: str, phase: str, cells: Sequence[Cell], rank: str, *, more: bool) -> Grid:
    values = {
        name: tuple(dict.fromkeys(cell.get(name) for cell in cells)) for name in cells[0] if name not in _NO_WIRING
    }
    varied = [name for name in values if len(values[name]) > 1 and name != rank]
    row = next((name for name in ("domain", "cluster") if name in varied), varied[0] if varied else "cluster")
    rest = [name for name in varied if name != row]
    column, deep = (rest[-1], tuple(rest[:-1])) if rest else ("", ())
    placed = {
        (cell.get(row), cell.get(column), tuple(cell.get(name) for name in deep)): cell for cell in cells
    }  # an axis of no name has the one value None
    return Grid(
        model,
        phase,
        (row, column, deep),
        values.get(row, (None,)),
        values.get(column, (None,)),
        tuple(product(*(values[name] for name in deep))),
        placed,
        rank,
        more,
    )


def axis(name: str) -> str:
    """Write the name of a setting.

    >>> axis("scale_out.oversubscription"), axis("scale_out.nic"), axis("tpot_s")
    ('oversubscription', 'NIC', 'TPOT')
    """
    return words.phrase(name.rpartition(".")[2])


def setting(name: str, value: Any) -> str:
    """Write the value of a setting.

    >>> setting("scale_out.oversubscription", 4), setting("scale_out.nic", "400Gb/s"), setting("tpot_s", 0.05)
    ('4:1', '400 Gb/s', '50 ms')
    """
    if name.endswith("oversubscription") and isinstance(value, int | float):
        return f"{value:g}:1"
    if isinstance(value, str):
        return re.sub(r"^([\d.]+)([A-Za-z])", r"\1 \2", value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return words.seconds(value) if name.endswith("_s") else f"{value:,}"
    return str(value)


def panel_title(grid: Grid, panel: tuple[Any, ...]) -> str:
    """Write the settings that a panel stands for."""
    return ", ".join(f"{axis(name)} {setting(name, value)}" for name, value in zip(grid.axes[2], panel, strict=True))


def wiring(grid: Grid, row: Any) -> str:
    """Name a wiring."""
    return f"{axis(grid.axes[0])} {setting(grid.axes[0], row)}" if row is not None else "this cluster"


def spread(ratios: Sequence[float]) -> str:
    """Write how far ratios reach.

    >>> spread([1.0, 1.376]), spread([1.031, 1.03])
    ('1.00× to 1.38×', '1.03×')
    """
    low, high = (words.times(value) for value in (min(ratios), max(ratios)))
    return low if low == high else f"{low} to {high}"


def verdict(grid: Grid) -> str:
    """Say in a sentence or two which wiring is best, by how much, and which is enough."""
    first, means = grid.rows[0], _means(grid)
    if not any(grid.value(row, *place) for row in grid.rows for place in grid.places):
        return "Nothing is feasible in any setting."
    if not means:
        return _alone(grid)
    every = [ratio for row in means for ratio in grid.ratios(row)]
    if max(every) <= ENOUGH and min(every) >= 1 / ENOUGH:
        most = max(*every, 1 / min(every)) - 1
        said = f"at most {words.percent(most)} between any two" if most >= 1e-3 else "the best split is the same on all"
        return f"The {axis(grid.axes[0])} makes no difference: {said}."
    best = max(means, key=lambda row: means[row])
    if means[best] <= 1:
        return f"{words.sentence(wiring(grid, first))} is best: the others reach {spread(every)} of it."
    said = f"{words.sentence(wiring(grid, best))} is {spread(grid.ratios(best))} {wiring(grid, first)}."
    return f"{said} {_enough(grid, best)}".strip()


def _alone(grid: Grid) -> str:
    """Say what there is where wirings cannot be compared."""
    known = {row: [value for place in grid.places if (value := grid.value(row, *place))] for row in grid.rows}
    best = max((max(values), row) for row, values in known.items() if values) if grid.more else None
    best = best or min((min(values), row) for row, values in known.items() if values)
    running = [wiring(grid, row) for row, values in known.items() if values]
    said = f"{words.figures(best[0], 4)} {words.phrase(grid.rank)} at best"
    return f"{words.sentence(said)}." if len(grid.rows) == 1 else f"Only {', '.join(running)} can run: {said}."


def _enough(grid: Grid, best: Any) -> str:
    """Say which is the smallest wiring that is as good as any, and in how many settings."""
    winners, total = grid.winners(), sum(1 for _ in grid.places)
    within, settings = f"within {words.percent(ENOUGH - 1)} of the best", words.plural(total, "setting")
    if len(winners) == 1:
        only = next(iter(winners))
        if only == best:
            return f"No smaller one comes {within} in any of {settings}." if total > 1 else ""
        return f"{words.sentence(wiring(grid, only))} is enough: {within} in all of {settings}."
    counts = ", ".join(f"{wiring(grid, row)} in {winners[row]}" for row in grid.rows if row in winners)
    return f"The smallest {within}, of {settings}: {counts}."


def slower_for(grid: Grid) -> tuple[int, int]:
    """Count the cells in which a larger domain is slower than the first, and those of them whose best split idles a part."""
    if grid.axes[0] != "domain":
        return 0, 0
    cells = [
        (row, grid.cells[row, *place])
        for row in grid.rows[1:]
        for place in grid.places
        if (grid.ratio(row, *place) or 1.0) <= 1 / MATTERS
    ]
    idle = [cell for row, cell in cells if ((cell["strategy"] or {}).get("ranks_per_domain") or row) != row]
    return len(cells), len(idle)


def summary(made: Sequence[Grid]) -> str:
    """Say over all models and phases where the wiring matters, most first, and where it does not."""
    told = sorted((_reach(grid) for grid in made if _means(grid)), key=lambda reach: -reach[0])
    matters = [(name, said, span) for most, name, said, span in told if most >= MATTERS]
    rest = [name for most, name, *_ in told if most < MATTERS]
    said = []
    if matters:
        said.append(f"The {axis(made[0].axes[0])} matters most for {matters[0][0]}: {matters[0][1]}.")
    if matters[1:]:
        said.append(f"Then for {', '.join(f'{name} ({span})' for name, _, span in matters[1:])}.")
    if rest:
        said.append(f"It changes less than {words.percent(MATTERS - 1)} for {', '.join(rest)}.")
    return " ".join(said)


def _means(grid: Grid) -> dict[Any, float]:
    """Return how many times better than the first every other wiring is, in the mean over the settings."""
    return {row: geometric_mean(ratios) for row in grid.rows[1:] if (ratios := grid.ratios(row))}


def _reach(grid: Grid) -> tuple[float, str, str, str]:
    """Return how far the best of the wirings gets, and how to say so."""
    means = _means(grid)
    best = max(means, key=lambda row: means[row])
    span = spread(grid.ratios(best))
    name = f"{grid.model} {words.PHASES[grid.phase]}"
    return max(grid.ratios(best)), name, f"{wiring(grid, best)} is {span} {wiring(grid, grid.rows[0])}", span


def flips(grid: Grid) -> list[dict[str, Any]]:
    """Return, for every wiring but the first, where it is faster and where slower than the first, a cell per panel."""
    found = []
    for row in grid.rows[1:]:
        told = [_flip(grid, row, panel) for panel in grid.panels]
        found.append({"wiring": wiring(grid, row), "panels": told})
    return found


def _flip(grid: Grid, row: Any, panel: tuple[Any, ...]) -> dict[str, str]:
    known = [(column, ratio) for column in grid.columns if (ratio := grid.ratio(row, column, panel)) is not None]
    if not known:
        return {"said": "cannot be compared", "span": "", "kind": "none"}
    faster = [column for column, ratio in known if ratio >= MATTERS]
    slower = [column for column, ratio in known if ratio <= 1 / MATTERS]
    columns = [column for column, _ in known]
    said = [f"faster {where}" for where in (_where(grid, faster, columns),) if where]
    said += [f"slower {where}" for where in (_where(grid, slower, columns),) if where]
    kind = "both" if faster and slower else "more" if faster else "less" if slower else "none"
    return {"said": ", ".join(said) or "no difference", "span": spread([ratio for _, ratio in known]), "kind": kind}


def _where(grid: Grid, chosen: Sequence[Any], columns: Sequence[Any]) -> str:
    """Say which of the columns are chosen: all, from one on, up to one, or each."""
    if not chosen:
        return ""
    name = grid.axes[1]
    told, many = [setting(name, column) for column in chosen], len(chosen)
    if many == len(columns):
        return f"at every {axis(name)}" if many > 1 else "here"
    if many > 1 and list(chosen) == list(columns[-many:]):
        return f"from {told[0]} on"
    if many > 1 and list(chosen) == list(columns[:many]):
        return f"up to {told[-1]}"
    return f"at {', '.join(told)}"


def bends(grid: Grid) -> int:
    """Count the steps along the columns, from a fabric to a thinner one, at which a wiring gets faster by more than a hair."""
    if not grid.axes[1].endswith("oversubscription"):
        return 0
    steps = (
        (grid.value(row, before, panel), grid.value(row, after, panel))
        for row in grid.rows
        for panel in grid.panels
        for before, after in zip(grid.columns, grid.columns[1:], strict=False)
    )
    return sum(1 for a, b in steps if a and b and (b / a if grid.more else a / b) > 1.005)
