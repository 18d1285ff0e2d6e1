"""A claim as something to run: its inputs, two answers, and a verdict that follows from the numbers."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from clusters.catalogue import nearest
from clusters.units import EXAMPLES, parse_quantity
from topo.columns import Column
from topo.errors import Fault, PodscaleError, SpecError

Values = Mapping[str, Any]
"""The inputs of a claim, SI."""
Formula = Callable[[Values], float]

HOLDS, PARTLY, FAILS = "holds", "holds on these parts only", "does not hold"
RELATIONS: Final[Mapping[str, Callable[[float, float, float], bool]]] = {
    "about": lambda value, expected, factor: expected / factor <= value <= expected * factor,
    "at least": lambda value, expected, factor: value >= expected / factor,
    "at most": lambda value, expected, factor: value <= expected * factor,
}
"""What a claim says of a number -> whether a value, the expected one and the tolerance (a factor of 1 or more) agree."""
SPAN: Final = tuple(4.0 ** (step / 6.0) for step in range(-6, 7))
"""Factors of an input that a curve is drawn over."""
DOUBLES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
"""The same for an input that has to divide others."""
STEP: Final = 0.1
"""Relative change of an input, up and down, that the sensitivity is read from."""


@dataclass(frozen=True, slots=True)
class Input:
    """One assumption: a number with its dimension (a key of `clusters.units.UNITS`, or "" for a plain one), or a name.

    `default` is the value, or how it follows from the inputs before it: the bandwidth of the accelerator that is named.
    One that is `doubled` has to divide others or be divided by them: it is moved by halves and doubles alone.
    """

    name: str
    default: float | str | Callable[[Values], Any]
    dimension: str = ""
    says: str = ""
    doubled: bool = False

    def read(self, given: object, claim: str) -> Any:
        """Return a value as the user writes it in SI; text where the default is a name."""
        if isinstance(self.default, str):
            return str(given)
        try:
            return parse_quantity(given, self.dimension) if self.dimension else float(str(given).replace("_", ""))
        except ValueError as error:
            example = EXAMPLES.get(self.dimension, "a number, such as 0.5 or 1e12")
            problem = str(error) if self.dimension else "is not a number"
            raise SpecError([Fault(f"{claim}.{self.name}", given, problem, f"write for instance {example}")]) from None


@dataclass(frozen=True)
class Line:
    """One line of a chart; `kind` says how it is drawn: simple, full or soft, or a, b, c where lines are equals."""

    name: str
    x: Column
    y: Column
    kind: str


@dataclass(frozen=True)
class Chart:
    """What a claim has to draw beside its cases: lines, marked values of x, and levels of y; both axes by powers of ten.

    `longest` ends the axis where lines go on.
    """

    title: str
    x_unit: str
    y_unit: str
    lines: tuple[Line, ...]
    marks: Mapping[str, float] = field(default_factory=dict)
    levels: Mapping[str, float] = field(default_factory=dict)
    longest: float = math.inf

    def document(self) -> dict[str, Any]:
        """Return it as JSON would have it."""
        lines = [{"name": one.name, "kind": one.kind, "points": _points(one, self.longest)} for one in self.lines]
        told = {"title": self.title, "x_unit": self.x_unit, "y_unit": self.y_unit, "lines": lines}
        return {**told, "marks": dict(self.marks), "levels": dict(self.levels)}


def _points(line: Line, longest: float) -> list[tuple[float, float]]:
    """Return the points of a line, from left to right."""
    pairs = zip(line.x.tolist(), line.y.tolist(), strict=True)
    return sorted((x, y) for x, y in pairs if x <= longest and math.isfinite(y))


@dataclass(frozen=True)
class Claim:
    """One sentence of the sources as a computation.

    Attributes
    ----------
    id, item : its name, and the part of the blackboard that it belongs to (a key of `parallel.claims.ITEMS`)
    text, source : what is claimed, and where: the document and its section
    quantity, unit : the number that the claim is about
    expected, relation, tolerance : what the source says of it; one of `RELATIONS`, and a factor
    inputs : assumptions, each with its default
    simple : the number by the lecture's own arithmetic (`parallel.rooflines`)
    full : the number by podscale's whole model
    over : an input and the values that the verdict is over: the parts of the catalogue that it should hold on
    note : what the source leaves out or slips on
    """

    id: str
    item: int
    text: str
    source: str
    quantity: str
    unit: str
    expected: float
    relation: str
    tolerance: float
    inputs: tuple[Input, ...]
    simple: Formula
    full: Formula
    over: tuple[str, tuple[Any, ...]] = ("", ())
    note: str = ""

    def values(self, given: Values | None = None) -> dict[str, Any]:
        """Return all inputs in SI: the user's, and the defaults that follow from them."""
        given = dict(given or {})
        known = [one.name for one in self.inputs]
        unknown = [name for name in given if name not in known]
        if unknown:
            faults = [
                Fault(f"{self.id}.{name}", given[name], "is no input of the claim", nearest(name, known))
                for name in unknown
            ]
            raise SpecError(faults)
        found: dict[str, Any] = {}
        for one in self.inputs:
            if one.name in given:
                found[one.name] = one.read(given[one.name], self.id)
            else:
                found[one.name] = one.default(found) if callable(one.default) else one.default
        return found

    def agrees(self, value: float | None) -> bool:
        """Whether a value is what the source says, within the tolerance."""
        known = value is not None and math.isfinite(value)
        return known and RELATIONS[self.relation](float(value or 0.0), self.expected, self.tolerance)


def priced(formula: Formula, values: Values, chosen: bool = False) -> tuple[float | None, str]:
    """Return a formula's number, or None and why there is none: a part without a figure, a split that does not fit.

    Raises
    ------
    SpecError
        Of inputs that the user has `chosen`.
    """
    try:
        found = float(formula(values))
    except PodscaleError as error:
        if chosen and isinstance(error, SpecError):
            raise
        return None, str(error).splitlines()[0]
    return (found, "") if math.isfinite(found) else (None, "no split that fits")


def verdict(agreed: list[bool]) -> str:
    """Say what a list of cases amounts to.

    >>> verdict([True, True]), verdict([True, False]), verdict([False])
    ('holds', 'holds on these parts only', 'does not hold')
    """
    if all(agreed):
        return HOLDS
    return PARTLY if any(agreed) else FAILS


def cases(claim: Claim, given: Values) -> list[dict[str, Any]]:
    """Run a claim on every value of its `over`, or on the one that the user chose: one row each."""
    name, choices = claim.over
    runs = [{**given}] if not name or name in given else [{**given, name: choice} for choice in choices]
    chosen = bool(given) and len(runs) == 1
    rows = []
    for changed in runs:
        values = claim.values(changed)
        value = values.get(name, "")
        title = f"{value:g}".replace("e+", "e") if isinstance(value, float) else str(value)
        (simple, _), (full, why) = priced(claim.simple, values, chosen), priced(claim.full, values, chosen)
        rows.append(
            {"case": title, "value": value, "simple": simple, "full": full, "holds": claim.agrees(full), "why": why}
        )
    return rows


def row_of(claim: Claim, given: Values | None = None) -> dict[str, Any]:
    """Run a claim and return its row: inputs, expected, simple, full, the verdict over its cases, and the note."""
    given = dict(given or {})
    values = claim.values(given)
    ran = cases(claim, given)
    own = next((case for case in ran if case["value"] == values.get(claim.over[0], "")), ran[0])
    return {
        "id": claim.id,
        "item": claim.item,
        "claim": claim.text,
        "source": claim.source,
        "quantity": claim.quantity,
        "unit": claim.unit,
        "inputs": values,
        "expected": claim.expected,
        "relation": claim.relation,
        "tolerance": claim.tolerance,
        "simple": own["simple"],
        "full": own["full"],
        "computed": own["full"],
        "simple_holds": claim.agrees(own["simple"]),
        "full_holds": own["holds"],
        "verdict": verdict([case["holds"] for case in ran]),
        "over": claim.over[0] or None,
        "over_dimension": next((one.dimension for one in claim.inputs if one.name == claim.over[0]), ""),
        "cases": ran if claim.over[0] else [],
        "note": _note(claim, ran, own),
    }


def _note(claim: Claim, ran: list[dict[str, Any]], own: Mapping[str, Any]) -> str:
    """Say on which cases it holds, where the simple answer breaks, and what the source leaves out."""
    said = []
    if claim.over[0] and 0 < sum(case["holds"] for case in ran) < len(ran):
        held = ", ".join(case["case"] for case in ran if case["holds"])
        said.append(f"Holds for {claim.over[0]} = {held}.")
    elif claim.agrees(own["simple"]) and not own["holds"] and own["full"] is not None:
        said.append("The simple arithmetic agrees with the source; the full model does not.")
    elif own["holds"] and not claim.agrees(own["simple"]):
        said.append("The full model agrees with the source; the simple arithmetic does not.")
    if own["full"] is None:
        said.append(f"Not priced: {own['why']}.")
    return " ".join((*said, claim.note)).strip()


def sensitivity(claim: Claim, given: Values | None = None) -> list[dict[str, Any]]:
    """Return the elasticity of both answers to every number among the inputs: d ln(answer) / d ln(input).

    From a tenth down to a tenth up; an input that is doubled, and one whose small steps have no price, from half to twice.
    An input that the answer does not see has 0; an answer that appears, vanishes or changes its sign has None.
    """
    base = claim.values(given)
    rows = []
    for one in claim.inputs:
        if not isinstance(base[one.name], str) and base[one.name]:
            low, high = (_near(claim, given or {}, one, base, up) for up in (False, True))
            rows.append(
                {"input": one.name, "value": base[one.name]}
                | {name: _elasticity(low, high, name) for name in ("simple", "full")}
            )
    return rows


def most(moved: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the input that moves the full answer most, and None where none does."""
    return max((row for row in moved if row["full"]), key=lambda row: round(abs(row["full"]), 6), default=None)


def _near(claim: Claim, given: Values, one: Input, base: Values, up: bool) -> dict[str, Any]:
    """Return an input a step away, or as it is, and both answers there."""
    steps = (1.0 + STEP, 2.0) if up else (1.0 - STEP, 0.5)
    for factor in steps[one.doubled :]:
        values = _changed(claim, given, one, _stepped(one, base[one.name], factor))
        if priced(claim.full, values)[0] is not None:
            return _answers(claim, one, values)
    return _answers(claim, one, base)


def _answers(claim: Claim, one: Input, values: Values) -> dict[str, Any]:
    """Return an input and both answers."""
    return {"at": values[one.name], "simple": priced(claim.simple, values)[0], "full": priced(claim.full, values)[0]}


def _elasticity(low: Values, high: Values, name: str) -> float | None:
    """Return the slope of an answer between two points, in logarithms."""
    below, above = low[name], high[name]
    if below == above and below is not None:
        return 0.0
    known = below and above and above / below > 0 and high["at"] != low["at"]
    return math.log(above / below) / math.log(high["at"] / low["at"]) if known else None


def _stepped(one: Input, value: float, factor: float) -> float:
    """Return an input a step away: a count by one at least, and never below one."""
    if one.dimension != "count":
        return value * factor
    by = round(value * (factor - 1.0))
    return max(1.0, value + (by or math.copysign(1.0, factor - 1.0)))


def _changed(claim: Claim, given: Values, one: Input, value: float) -> dict[str, Any]:
    """Return all inputs with one changed, and what follows from it, as `--set` would."""
    return claim.values({**given, one.name: max(1, round(value)) if one.dimension == "count" else value})


def curve(claim: Claim, given: Values | None = None) -> dict[str, Any] | None:
    """Return both answers against the input that moves the full one most, from a quarter of its value to four times it.

    None where no number moves it.
    """
    moved = most(sensitivity(claim, given))
    if moved is None:
        return None
    one = next(held for held in claim.inputs if held.name == moved["input"])
    points = []
    for factor in DOUBLES if one.doubled else SPAN:
        values = _changed(claim, given or {}, one, moved["value"] * factor)
        points.append(
            {"x": values[one.name], "simple": priced(claim.simple, values)[0], "full": priced(claim.full, values)[0]}
        )
    return {"input": one.name, "says": one.says, "dimension": one.dimension, "value": moved["value"], "points": points}
