"""How far a priced phase may be off: 90 % bands of measured/predicted, from runs of a stated batch.

`parallel.serving.phases` has no fitted constant, so every published run is out of sample; `data/phases.yaml` holds what was
measured over what is predicted, as `parallel.calibration.phases` writes it: for each phase, and for each width of the numbers
that enough runs were made in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Final

from parallel.io import read_yaml
from parallel.models import Model, Moe
from parallel.precision import FORMATS, Recipe

FILE: Final = Path(__file__).parents[1] / "data" / "phases.yaml"
ALL: Final = "all"
"""The band over every number format, for one that too few runs were made in."""


@dataclass(frozen=True, slots=True)
class Band:
    """Measured over predicted seconds of a pass: nine in ten runs lie between `low` and `high`.

    Attributes
    ----------
    middle : the same of the median run
    n : runs behind it
    parts : accelerators that they ran on
    ranks : least and most ranks of an expert or tensor group
    shortest_s : shortest pass among them, as predicted [s]
    """

    low: float
    middle: float
    high: float
    n: int
    parts: tuple[str, ...]
    ranks: tuple[int, int]
    shortest_s: float


@cache
def document() -> Mapping[str, Any]:
    """Return `data/phases.yaml`."""
    held: Mapping[str, Any] = read_yaml(FILE)
    return held


def width_of(formats: Recipe, *, routed: bool) -> str:
    """Return the peak that a recipe's experts, or its dense MLPs, run at: what tells the bands of a phase apart.

    >>> from parallel.precision import recipe
    >>> width_of(recipe("nvfp4"), routed=True), width_of(recipe("fp8"), routed=False)
    ('fp4', 'fp8')
    """
    return FORMATS[formats.experts if routed else formats.mlp].peak


def has_experts(model: Model) -> bool:
    """Whether any layer of a model routes its tokens."""
    return any(isinstance(kind.mlp, Moe) for kind in model.layers)


@cache
def band(phase: str, width: str) -> tuple[Band, bool]:
    """Return the band of a phase at a width of numbers, and whether it is that width's own.

    >>> found, own = band("decode", "fp8")
    >>> own and 0.5 < found.low < found.middle < found.high < 2.0
    True
    """
    held = document()["bands"][phase]
    entry = held.get(width, held[ALL])
    chosen = {field.name: entry[field.name] for field in fields(Band)}
    return Band(**{**chosen, "parts": tuple(entry["parts"]), "ranks": tuple(entry["ranks"])}), width in held


def around(phase: str, width: str, part: str, ranks: int, seconds: float) -> tuple[tuple[float, float], str]:
    """Return the 90 % band about a priced pass, as factors, and what stands behind it: runs, and whatever lies beyond them.

    Parameters
    ----------
    ranks : ranks of the expert or tensor group
    seconds : the pass as priced

    >>> (low, high), note = around("decode", "fp8", "h100-sxm", 576, 0.02)
    >>> low < high, "beyond" in note
    (True, True)
    """
    held, own = band(phase, width)
    least, most = held.ranks
    span = f"{least} to {most} ranks on {', '.join(held.parts)}"
    said = f"{held.n} passes of a stated batch, {span}, took {held.low:.2f} to {held.high:.2f} times their price"
    beyond = "".join(f"; {words}" for words in _beyond(held, own, width, part, ranks, seconds))
    return (held.low, held.high), f"{said}, the median {held.middle:.2f}{beyond}"


def _beyond(held: Band, own: bool, width: str, part: str, ranks: int, seconds: float) -> list[str]:
    """Say where an answer lies outside the runs."""
    low, high = held.ranks
    checks = {
        f"too few in {width}: the band is of all formats": not own,
        f"beyond them: none ran on {part}": part not in held.parts,
        f"beyond them: groups of {ranks} ranks": not low <= ranks <= high,
        f"beyond them: a pass under {held.shortest_s * 1e3:.3g} ms": seconds < held.shortest_s,
    }
    return [words for words, holds in checks.items() if holds]
