"""The report of a sweep: what it says, against cells made up by hand; and the page of a real one, that loads nothing."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.sweeps.answer import sweep
from parallel.sweeps.specfile import read_sweep
from podscale import frontplot, sweepreport
from podscale.door import plain
from podscale.sweepgrid import Grid, bends, flips, grids, summary, verdict
from topo.errors import SpecError

SWEEPS = Path(__file__).parents[2] / "examples" / "sweeps"
Rates = dict[tuple[int, str, int], float | None]


def document(rates: Rates, rank: str = "tokens_per_s_per_gpu", *, more: bool = True) -> dict[str, Any]:
    """Cells of one model and phase with the given figures, by domain, rate of the NIC and oversubscription."""
    cells = [
        {"cell": number, "model": "m", "phase": "decode", "domain": domain, "scale_out.nic": nic}
        | {"scale_out.oversubscription": thin, rank: rate, "points": 1, "feasible": int(rate is not None)}
        | {
            "strategy": {"tp": 1, "ranks_per_domain": domain} if rate else None,
            "infeasible": None if rate else "memory",
        }
        for number, ((domain, nic, thin), rate) in enumerate(rates.items())
    ]
    return {"cells": cells, "objectives": {rank: {"unit": "", "more": more}}}


def grid(rates: Rates, **more: Any) -> Grid:
    """The grid of such a document."""
    (found,) = grids(document(rates, **more))
    return found


THIN = (1, 2, 4, 8)


def two(eight: tuple[float, ...], many: tuple[float, ...]) -> Rates:
    """Domains of 8 and 72 under one NIC over four oversubscriptions."""
    return {
        (domain, nic, thin): rate
        for domain, rates in ((8, eight), (72, many))
        for nic in ("400Gb/s",)
        for thin, rate in zip(THIN, rates, strict=True)
    }


def test_rows_are_wirings_columns_the_last_setting_and_panels_the_rest() -> None:
    found = grid({(domain, nic, thin): 1.0 for domain in (8, 72) for nic in ("400Gb/s", "800Gb/s") for thin in THIN})
    assert found.axes == ("domain", "scale_out.oversubscription", ("scale_out.nic",))
    assert (found.rows, found.columns, found.panels) == ((8, 72), THIN, (("400Gb/s",), ("800Gb/s",)))
    assert found.flat


@pytest.mark.parametrize(
    ("many", "said"),
    [
        ((1.0, 1.0, 1.0, 1.0), "no difference"),
        ((2.0, 2.0, 2.0, 2.0), "faster at every oversubscription"),
        ((1.0, 1.04, 1.06, 2.0), "faster from 4:1 on"),
        ((1.2, 1.1, 1.0, 1.0), "faster up to 2:1"),
        ((1.0, 1.2, 1.0, 1.0), "faster at 2:1"),
        ((1.2, 1.0, 0.9, 0.5), "faster at 1:1, slower from 4:1 on"),
    ],
)
def test_where_a_wiring_starts_and_stops_to_matter_is_said(many: tuple[float, ...], said: str) -> None:
    (row,) = flips(grid(two((1.0, 1.0, 1.0, 1.0), many)))
    assert row["wiring"] == "domain 72"
    assert [panel["said"] for panel in row["panels"]] == [said]


def test_what_is_less_is_better_where_the_objective_says_so() -> None:
    found = grid(two((2.0, 2.0, 2.0, 2.0), (1.0, 1.0, 1.0, 1.0)), rank="step_time_s", more=False)
    assert found.ratio(72, 1, ()) == 2.0
    assert verdict(found).startswith("Domain 72 is 2.00× domain 8.")


def test_the_verdict_names_the_best_its_range_and_the_smallest_that_is_enough() -> None:
    found = grid(two((1.0, 1.0, 0.8, 0.5), (1.0, 1.01, 1.0, 1.0)))
    assert verdict(found) == (
        "Domain 72 is 1.00× to 2.00× domain 8. "
        "The smallest within 2% of the best, of 4 settings: domain 8 in 2, domain 72 in 2."
    )
    assert (
        verdict(grid(two((1.0,) * 4, (1.0,) * 4)))
        == "The domain makes no difference: the best split is the same on all."
    )
    assert verdict(grid(two((1.0,) * 4, (0.5,) * 4))) == "Domain 8 is best: the others reach 0.50× of it."


def test_cells_that_cannot_run_are_left_out_of_the_ratios() -> None:
    rates: Rates = {(8, "400Gb/s", 1): None, (72, "400Gb/s", 1): 3.0}
    assert verdict(grid(rates)) == "Only domain 72 can run: 3 tokens/s/GPU at best."
    nothing: Rates = {(8, "400Gb/s", 1): None, (72, "400Gb/s", 1): None}
    assert verdict(grid(nothing)) == "Nothing is feasible in any setting."
    (row,) = flips(grid(rates))
    assert row["panels"][0]["said"] == "cannot be compared"


def test_the_summary_begins_with_where_it_matters_most() -> None:
    made = [grid(two((1.0,) * 4, (1.0, 1.0, 1.0, 3.0))), grid(two((1.0,) * 4, (1.0,) * 4))]
    assert summary(made) == (
        "The domain matters most for m decode: domain 72 is 1.00× to 3.00× domain 8. It changes less than 5% for m decode."
    )


def test_a_thinner_fabric_that_is_faster_is_counted() -> None:
    assert bends(grid(two((4.0, 3.0, 3.5, 3.0), (4.0, 4.0, 4.0, 4.0)))) == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=20))
def test_every_point_of_a_front_lies_inside_the_picture(values: list[float]) -> None:
    made = frontplot.axis(values, 0.0, 100.0)
    assert all(-1e-6 <= made.at(value) <= 100 + 1e-6 for value in values)
    assert all(made.low <= tick <= made.high for tick in made.ticks())


class Page(HTMLParser):
    """Collects the attributes of a page, and tags that are left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "br", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "path" and self.open.pop() != tag:
            raise ValueError(f"</{tag}> closes another")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]


@pytest.fixture(scope="module")
def answered() -> dict[str, Any]:
    return dict(plain(sweep(read_sweep(SWEEPS / "domains.yaml"), "serial")))


@pytest.fixture(scope="module")
def text(answered: dict[str, Any]) -> str:
    return sweepreport.html(answered)


def test_the_page_is_whole_and_loads_nothing(text: str) -> None:
    page = Page(text)
    assert not page.open
    assert not [row for row in page.attributes if row[1] in ("src", "href", "srcset", "data", "action", "poster")]
    policy = next(value for _, _, value in page.attributes if value and "default-src" in value)
    assert policy.startswith("default-src 'none'")
    assert "url(" not in text
    assert len(text.encode()) < 200_000


def test_the_page_holds_every_cell_its_split_and_its_ratio(text: str, answered: dict[str, Any]) -> None:
    (body,) = re.findall(r'id="cells".*?<tbody>(.*?)</tbody>', text, flags=re.DOTALL)
    assert body.count("<tr>") == len(answered["cells"])
    values = {
        (c["phase"], c["domain"], c["scale_out.oversubscription"]): c["tokens_per_s_per_gpu"] for c in answered["cells"]
    }
    assert f"{values['train', 72, 4] / values['train', 8, 4]:.2f}×" in text
    assert "EP72 TP1 PP1 DP72" in body
    assert f"{answered['points']:,} strategies" in text
    for reason in answered["rejected"]:
        assert reason in text


def test_what_refused_a_whole_cell_is_told(answered: dict[str, Any]) -> None:
    broken = {**answered["cells"][0], "tokens_per_s_per_gpu": None, "strategy": None, "infeasible": "<memory>"}
    page = sweepreport.html({**answered, "cells": [broken, *answered["cells"][1:]]})
    assert "<li>1: &lt;memory&gt;</li>" in page
    assert 'class="no" title="&lt;memory&gt;"' in page


def test_a_sweep_of_one_cell_has_no_maps(answered: dict[str, Any]) -> None:
    page = sweepreport.html({**answered, "cells": answered["cells"][:1], "best": answered["best"][:1], "front": []})
    assert "Every setting" not in page
    assert "Where it flips" not in page


def test_a_sweep_in_which_nothing_runs_still_has_a_page(answered: dict[str, Any]) -> None:
    nothing = {"tokens_per_s_per_gpu": None, "strategy": None, "feasible": 0, "infeasible": "memory"}
    cells = [{**cell, **nothing} for cell in answered["cells"]]
    page = sweepreport.html({**answered, "cells": cells, "best": [], "front": [], "feasible": 0})
    assert "Nothing is feasible in any setting." in page


def test_the_report_is_written_where_asked(answered: dict[str, Any], tmp_path: Path) -> None:
    place = sweepreport.write(answered, tmp_path / "new" / "report.html")
    assert place.read_text(encoding="utf-8").startswith("<!doctype html>")
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="--report"):
        sweepreport.write(answered, tmp_path / "file" / "report.html")


def test_the_large_example_asks_what_it_says() -> None:
    asked = read_sweep(SWEEPS / "which_wiring.yaml")
    assert [model.name for model in asked.models] == ["llama-3.1-405b", "deepseek-v3", "ten-trillion"]
    assert asked.shape == (1, 1, 4, 3, 4, 3, 3)


def test_the_model_of_ten_trillion_has_as_many() -> None:
    from parallel.models import active_parameters, parameters

    model = read_sweep(SWEEPS / "which_wiring.yaml").models[2]
    assert parameters(model) == pytest.approx(10e12, rel=0.01)
    assert active_parameters(model) == pytest.approx(256e9, rel=0.01)
