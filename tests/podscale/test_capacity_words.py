"""The capacity plan in a terminal."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from podscale.capacitywords import draw_capacity, duration

LINE = {"name": "driver's limit", "value": 1200.0, "unit": "units/s", "how": "computed", "rests_on": "one over the sum"}
KIND = {"name": "m, train", "cells": 4.0, "points": 6e10, "left": 2e10, "units": 9228, "prune_s": 0.2, "unit_s": 0.035}
KINDS = [{**KIND, "priced": 32243.5}, {**KIND, "name": "m, decode", "priced": 1.0}]


def drawn(document: dict[str, Any], *, quiet: bool = False) -> str:
    """What is printed."""
    console = Console(width=120, file=StringIO())
    draw_capacity(console, {"name": "mine", "lines": [LINE], "kinds": KINDS, **document}, quiet=quiet)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_every_line_stands_with_how_it_is_known() -> None:
    text = drawn({})
    assert "1,200 units/s" in text
    assert "computed" in text
    assert "m, train" in text
    assert "6 × 10¹⁰" in text


def test_quiet_leaves_the_kinds_out() -> None:
    assert "m, train" not in drawn({}, quiet=True)


def test_a_sweep_of_nothing_says_so() -> None:
    assert "No cell" in drawn({"lines": []})


@pytest.mark.parametrize(("value", "said"), [(0.5, "500 ms"), (119.0, "119 s"), (120.0, "2 min"), (7200.0, "2 h")])
def test_times_are_written_as_they_are_waited_for(value: float, said: str) -> None:
    assert duration(value) == said
