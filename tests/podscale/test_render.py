import io
from pathlib import Path

import pytest
from rich.console import Console

from podscale import render, tables, words

EXAMPLES = Path(__file__).parents[2] / "examples"


def drawn(draw, document, width=100, **options):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    draw(console, document, **options)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_comparison_fits_the_width_and_holds_every_row(document, width):
    text = drawn(render.draw_compare, document, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.splitlines()[2].startswith("Going from 8 to 72")
    words_only = " ".join(text.split())
    for split in ("EP64 TP1 PP16 DP288", "EP72 TP1 PP1 DP64", "EP288 TP1 PP1 DP16"):
        assert split in text
    for said in (
        "2.26×",
        "KV cache 31%",
        "184,320 strategies",
        "No 90 % interval",
        "22–34.4 ms",
        "(6.63× the fastest)",
    ):
        assert said in words_only


def test_quiet_leaves_out_the_notes(document):
    text = drawn(render.draw_compare, document, quiet=True)
    assert "EP72" in text
    assert "Searched" not in text
    assert "beyond the 72" not in text


def test_infeasible_rows_say_why_and_have_no_figures(document):
    document["rows"][-1] = {
        "domain": 576, "phase": "decode", "strategy": {}, "tokens_per_s_per_gpu": None, "terms": {}, "busy": {},
        "step_time_s": None, "infeasible": "HBM: 12 GB short", "warnings": [],
    }  # fmt: skip
    text = drawn(render.draw_compare, document)
    assert "HBM: 12 GB short" in text


def test_idle_gpus_are_named(document):
    document["rows"][0]["gpus_idle"] = 108
    assert "108 GPUs idle" in drawn(render.draw_compare, document)


def test_text_in_brackets_is_printed_as_it_is(document):
    document["answer"] = "[red]not markup[/red]"
    assert "[red]not markup[/red]" in drawn(render.draw_compare, document)


def test_scenario_tables_show_terms_and_memory(document):
    row = document["rows"][1] | {"mfu": 0.41, "interval": None, "interval_note": "no residuals"}
    text = drawn(tables.draw_train, row)
    assert "5.15 s" in text
    assert "pipeline bubble" in text
    assert "122 GB" in text
    assert "no residuals" in text
    assert "395 ms" in drawn(tables.draw_serve, document["rows"][5] | {"ttft_s": 0.395})


def test_two_pools_are_drawn_with_what_moves_between_them():
    from parallel.scenario import serve

    document = serve(EXAMPLES / "scenarios" / "old-with-new.yaml")
    text = drawn(tables.draw_serve, document)
    assert max(map(len, text.splitlines())) <= 120
    for said in ("Requests per second", "288 MB", "1.6 TB/s", "KV transfer", "prefill on pool old", "TPOT"):
        assert said in text
    assert text.count("note: prefill: EP32") == 1


def test_validation_shows_summary_groups_and_skips():
    score = {"n": 12, "predicted": 10, "skipped": 2, "median_ape": 0.041, "mean_ape": 0.06, "p90_ape": 0.12}
    score |= {"bias": -0.01, "macro_median_ape": 0.05, "macro_p90_ape": 0.15, "coverage": 0.9, "width": None}
    document = {
        "summary": score, "groups": {"h100 ring": score}, "constants": {"links": 4},
        "leave_one_source_out": {"summary": score | {"median_ape": 0.073}},
        "rows": [{"skipped_because": "no bytes"}, {"skipped_because": None}],
    }  # fmt: skip
    text = drawn(tables.draw_validation, document, 120)
    for said in ("4.1%", "h100 ring", "7.3%", "skipped 1 row: no bytes", "links 4", "-1%"):
        assert said in text


def test_bench_and_lists_draw_whatever_they_are_given():
    assert "1,234,567" in drawn(
        tables.draw_bench, {"train_points_per_s_per_core": 1234567.0, "graph": {"build_s": 0.1}}
    )
    rows = {"kind": "systems", "rows": [{"name": "a", "power_W": 1000.0, "note": None}, {"name": "b", "power_W": None}]}
    assert "1 kW" in drawn(tables.draw_rows, rows)


def test_figures_never_use_powers_of_ten():
    assert [words.figures(10.0**power) for power in (-4, 7)] == ["0.0001", "10,000,000"]
