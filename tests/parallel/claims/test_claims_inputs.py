"""Every number among a claim's inputs changes its answer, or its table: there is no assumption without effect."""

from typing import Any

import pytest

from parallel.claims import CLAIMS, DETAILS, find
from parallel.claims.claim import Claim, Input, priced
from parallel.claims.inputs import PART, RACK, SHARED, named, without

FACTORS = (2.0, 0.5, 4.0, 0.25, 10.0, 0.1)
NUMBERS = [
    (one, held) for one in CLAIMS.values() for held in one.inputs if not isinstance(one.values()[held.name], str)
]
TABLES = "of the price sheet in the table"
"""How an input says that the table beside the claim is all it changes."""


def answers(one: Claim, given: dict[str, Any]) -> tuple[float | None, float | None]:
    """Both answers, those that there are."""
    values = one.values(given)
    return priced(one.simple, values)[0], priced(one.full, values)[0]


def differ(some: tuple[float | None, ...], others: tuple[float | None, ...]) -> bool:
    """Whether an answer moved, appeared or vanished."""
    return any(
        a != b and (a is None or b is None or a != pytest.approx(b, rel=1e-9))
        for a, b in zip(some, others, strict=True)
    )


def moves(one: Claim, held: Input) -> bool:
    """Whether some change of an input changes an answer: by its own case first, then by the others."""
    name, choices = one.over
    cases: list[dict[str, Any]] = [{}, *({name: choice} for choice in choices if name not in ("", held.name))]
    for given in cases:
        value = one.values(given)[held.name]
        base = answers(one, given)
        for factor in FACTORS:
            other = value * factor if value else 1.0
            step = max(1, round(other)) if held.dimension == "count" else other
            if step != value and differ(answers(one, {**given, held.name: step}), base):
                return True
    return False


@pytest.mark.parametrize(("one", "held"), NUMBERS, ids=[f"{one.id}-{held.name}" for one, held in NUMBERS])
def test_an_input_changes_the_answer(one: Claim, held: Input) -> None:
    if held.says.startswith(TABLES):
        tables = list(DETAILS[one.id].values())
        doubled = {held.name: 2.0 * one.values()[held.name]}
        assert any(table(one.values(doubled)) != table(one.values()) for table in tables)
    else:
        assert moves(one, held)


def test_shared_inputs_are_picked_by_name() -> None:
    assert set(RACK.split()) <= set(SHARED)
    assert set(PART.split()) < set(RACK.split())
    assert [one.name for one in named(without(RACK, "isl", "osl"))][-1] == "accelerators"
    assert named("tpot", tpot=0.02)[0].default == 0.02


def test_an_input_that_divides_others_is_doubled_and_halved() -> None:
    one = find("overtraining")
    assert {held.name for held in one.inputs if held.doubled} == {"accelerators", "training", "global_batch"}
