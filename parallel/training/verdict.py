"""Does a training strategy fit, stage by stage: what is largest where it does not, and the nearest change that fits.

The nearest change is the one that alters fewest things and, of those, runs fastest: every candidate is priced by the
function that the caller passes, in one block.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from parallel.memory import PLACES
from parallel.models import Model, layer_count
from parallel.priced import Priced
from parallel.strategy import Columns
from parallel.training import footprint
from parallel.training.activations import MODES
from parallel.training.step import SCHEDULES
from parallel.workload import TrainWorkload

Row = Mapping[str, float]
Reprice = Callable[[Columns], Priced]

STEPS: Final = 3  # changes at once, at most


@dataclass(frozen=True, slots=True)
class Change:
    """A strategy that fits: what it alters (column -> new value), its bytes and its seconds per step."""

    altered: dict[str, float]
    memory_bytes: float
    seconds: float

    @property
    def said(self) -> str:
        """In words.

        >>> Change({"recompute": 2, "zero": 1}, 1.0, 1.0).said
        'recompute full, ZeRO 1'
        """
        return ", ".join(SAID[name](value) for name, value in self.altered.items())


SAID: Final[Mapping[str, Callable[[float], str]]] = {
    "recompute": lambda value: f"recompute {MODES[int(value)]}",
    "zero": lambda value: f"ZeRO {value:g}",
    "micro_batch": lambda value: f"micro-batch {value:g}",
    "tp": lambda value: f"tp {value:g}",
    "pp": lambda value: f"pp {value:g}",
}
"""Column -> how a value of it is told."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a strategy fits an accelerator.

    Attributes
    ----------
    capacity_bytes : what the accelerator holds
    stages : place of the pipeline (`first`, `inner`, `last`, those that exist) -> bytes by name
    change : the nearest change that fits; None where it fits as it is, or nothing does
    """

    capacity_bytes: float
    stages: dict[str, dict[str, float]]
    change: Change | None = None

    @property
    def fullest(self) -> str:
        """The place that holds most."""
        return max(self.stages, key=lambda place: sum(self.stages[place].values()))

    @property
    def needed_bytes(self) -> float:
        """Bytes on the fullest stage."""
        return sum(self.stages[self.fullest].values())

    @property
    def fits(self) -> bool:
        """Whether the fullest stage fits."""
        return self.needed_bytes <= self.capacity_bytes

    @property
    def largest(self) -> str:
        """What takes most on the fullest stage."""
        held = self.stages[self.fullest]
        return max(held, key=lambda name: held[name])

    @property
    def said(self) -> str:
        """In one sentence.

        >>> Verdict(80 * 2.0**30, {"first": {"weights": 60 * 2.0**30, "activations": 50 * 2.0**30}}).said
        'the first stage needs 110 GiB of 80, 60 of them weights; no change of up to 3 settings fits'
        """
        held = self.stages[self.fullest]
        share = f"{held[self.largest] / 2**30:.0f} of them {self.largest}"
        needed, capacity = self.needed_bytes / 2**30, self.capacity_bytes / 2**30
        needs = f"the {self.fullest} stage needs {needed:.0f} GiB of {capacity:.0f}, {share}"
        if self.fits:
            return needs
        if self.change is None:
            return f"{needs}; no change of up to {STEPS} settings fits"
        return f"{needs}; {self.change.said} needs {self.change.memory_bytes / 2**30:.0f} GiB"


def verdict(
    model: Model, work: TrainWorkload, row: Row, capacity_bytes: float, reprice: Reprice | None = None
) -> Verdict:
    """Judge one strategy.

    Parameters
    ----------
    row : the strategy's columns, as `Columns.row` gives them; those that `parallel.training.step.price` takes
    capacity_bytes : memory of an accelerator
    reprice : prices a block of strategies (`partial(price, job)`); without it no change is looked for
    """
    cols = Columns.of(**row)
    places = [place for place in PLACES if place == "last" or row["pp"] > {"first": 1, "inner": 2}[place]]
    held = footprint.by_stage(model, work, cols, SCHEDULES)
    stages = {place: {name: float(value[0]) for name, value in held[place].items()} for place in places}
    found = Verdict(capacity_bytes, stages)
    if found.fits or reprice is None:
        return found
    return Verdict(capacity_bytes, stages, nearest(model, row, capacity_bytes, reprice))


def nearest(model: Model, row: Row, capacity_bytes: float, reprice: Reprice) -> Change | None:
    """Return the change that fits with fewest settings altered, the fastest of those; None where none does."""
    options = {name: list(values) for name, values in _options(model, row).items() if values}
    for size in range(1, min(STEPS, len(options)) + 1):
        rows = [change for names in combinations(options, size) for change in _combined(options, names)]
        rows = [change for change in rows if _replicas(row, change) is not None]
        if not rows:
            continue
        together = [{**row, **change, "dp": _replicas(row, change)} for change in rows]
        priced = reprice(Columns.of(**{name: [one[name] for one in together] for name in row}))
        needs = np.broadcast_to(priced.memory_bytes, (len(rows),))
        seconds = np.where(needs <= capacity_bytes, priced.seconds, np.inf)
        best = int(np.argmin(seconds))
        if np.isfinite(seconds[best]):
            return Change(rows[best], float(needs[best]), float(seconds[best]))
    return None


def _options(model: Model, row: Row) -> dict[str, Iterator[float]]:
    """Values of each setting that take less memory, within what the model and the scale-up domain allow."""
    heads = min(kind.attention.heads for kind in model.layers)
    doubled = [row["tp"] * 2**n for n in range(1, 5)]
    deeper = [row["pp"] * 2**n for n in range(1, 5)]
    return {
        "recompute": iter(range(int(row["recompute"]) + 1, len(MODES))),
        "zero": iter(range(int(row["zero"]) + 1, 4)),
        "micro_batch": iter(row["micro_batch"] // 2**n for n in range(1, 9) if row["micro_batch"] % 2**n == 0),
        "tp": iter(tp for tp in doubled if tp <= row["used"] and heads % tp == 0),
        "pp": iter(pp for pp in deeper if pp * row["vpp"] <= layer_count(model)),
    }


def _combined(options: Mapping[str, list[float]], names: tuple[str, ...]) -> Iterator[dict[str, float]]:
    """Every choice of one value per name."""
    if not names:
        yield {}
        return
    for rest in _combined(options, names[1:]):
        yield from ({names[0]: value, **rest} for value in options[names[0]])


def _replicas(row: Row, change: Row) -> float | None:
    """Replicas left when tp or pp grow on the same accelerators; None where they do not divide, or experts do not tile."""
    ways = change.get("tp", row["tp"]) / row["tp"] * change.get("pp", row["pp"]) / row["pp"]
    dp = row["dp"] / ways
    if dp < 1 or dp % 1:
        return None
    stage = change.get("tp", row["tp"]) * row["cp"] * dp
    return None if stage % (row["ep"] * row["etp"]) else dp
