"""The document of a sweep: counts that add up, rows that price again to what they say, files that hold the same."""

import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusters.spec import load, with_
from parallel.executors import drive
from parallel.explain.point import Point
from parallel.io import read_model
from parallel.sweeps.answer import document, estimate, priced, sweep
from parallel.sweeps.evaluate import prepare
from parallel.sweeps.found import merged
from parallel.sweeps.objectives import OBJECTIVES, better, shown
from parallel.sweeps.plan import Sweep, works
from parallel.sweeps.tables import FORMATS, lines, write
from parallel.sweeps.task import PHASES, Ask, Bound
from topo.errors import SpecError

Document = dict[str, Any]
FEW = (
    ("train", (("tp", (1.0, 2.0, 8.0)), ("pp", (1.0, 2.0)), ("vpp", (1.0, 2.0)))),
    ("serve", (("tp", (1.0, 2.0)), ("batch", (0.5, 1.0, 8.0, 64.0)))),
)


def asked_of(**changes: Any) -> Sweep:
    given = {
        "name": "test",
        "models": (read_model("mixtral-8x7b"), read_model("llama-3.1-8b")),
        "clusters": (with_(load("hgx-h100"), accelerators=32),),
        "vary": (("domain", (4, 8)), ("scale_out.oversubscription", (1, 4))),
        "works": works(
            ("train", "prefill", "decode"), {"global_batch": 128}, {"isl": 2048, "precision": ("bf16", "fp8")}
        ),
        "strategies": FEW,
        "space": "usual",
    }
    return Sweep(**(given | changes))


@pytest.fixture(scope="module")
def asked() -> Sweep:
    return asked_of(ask=Ask(limited=True, most=2, histogram=True))


@pytest.fixture(scope="module")
def told(asked: Sweep) -> Document:
    return sweep(asked, "serial")


def test_the_document_is_json_and_says_what_was_asked(told: Document, asked: Sweep) -> None:
    from podscale.door import plain

    assert json.loads(json.dumps(plain(told), allow_nan=False))["points"] == told["points"]
    assert told["fingerprint"] == asked.fingerprint
    assert told["executor"] == "serial"
    assert told["seconds"] > 0
    assert list(told["objectives"])[-1] == asked.ask.rank


def test_counts_add_up_over_cells_and_reasons(told: Document, asked: Sweep) -> None:
    assert told["points"] == sum(line["points"] for line in told["cells"])
    assert told["points"] == sum(asked.task(cell).space.size for cell in range(asked.cells))
    assert told["feasible"] == sum(line["feasible"] for line in told["cells"])
    assert told["feasible"] + sum(told["rejected"].values()) == told["points"]
    assert told["feasible"] <= told["priced"] <= told["points"]


def test_priced_counts_what_was_priced_in_full(asked: Sweep) -> None:
    """As many rows as were handed to the price function."""
    counted = [0]
    plain = PHASES["decode"]

    def price(bound: Bound, cols: Any) -> Any:
        counted[0] += cols.rows
        return plain.price(bound, cols)

    only = replace(asked, works=works(("decode",), {}, {"tpot_s": 0.02}), ask=Ask(limits=(("memory_bytes", 60e9),)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PHASES, "decode", replace(plain, price=price))
        cells = drive(only)
    assert priced(merged([cell.found for cell in cells.values()])) == counted[0] > 0


def test_every_row_prices_again_to_what_it_says(told: Document) -> None:
    assert told["best"]
    assert told["front"]
    for row in [*told["best"], *told["front"]]:
        point = Point.from_dict(json.loads(json.dumps(row["point"])))
        point.check()
        again = point.price()
        rate = float(again.extra["tokens_per_s_per_gpu"][0])
        assert rate == pytest.approx(row["tokens_per_s_per_gpu"], rel=1e-12)
        if "step_time_s" in row:
            assert float(again.seconds[0]) == pytest.approx(row["step_time_s"], rel=1e-12)
            assert sum(row["terms"].values()) == pytest.approx(row["step_time_s"], rel=1e-9)
        for name, value in row["settings"].items():
            held = {"model": row["point"]["model"], "phase": row["point"]["phase"]}
            assert held.get(name, value) == value


def test_the_best_of_a_group_are_the_best_of_its_cells_in_order(told: Document, asked: Sweep) -> None:
    for model in asked.models:
        for phase in ("train", "prefill", "decode"):
            key = {"model": model.name, "phase": phase}
            best = [row for row in told["best"] if row["group"] == key]
            rates = [line["tokens_per_s_per_gpu"] for line in told["cells"] if line.items() >= key.items()]
            assert [row["place"] for row in best] == [1, 2]
            assert best[0]["rank"] == max(rate for rate in rates if rate is not None)
            assert best[0]["rank"] >= best[1]["rank"]


def test_the_front_of_a_group_is_that_of_all_its_cells(told: Document, asked: Sweep) -> None:
    for row in told["front"]:
        others = [other for other in told["front"] if other["group"] == row["group"] and other is not row]
        for other in others:
            assert any(row[name] > other[name] for name in asked.ask.front)
    for row in told["best"]:
        if row["place"] == 1:
            rates = [one["tokens_per_s_per_gpu"] for one in told["front"] if one["group"] == row["group"]]
            assert max(rates) == pytest.approx(row["rank"], rel=1e-12)


def test_histograms_count_the_feasible_of_every_group(told: Document) -> None:
    for held in told["histograms"]:
        feasible = sum(line["feasible"] for line in told["cells"] if line.items() >= held["group"].items())
        assert sum(held["counts"]) == feasible
        assert len(held["edges"]) == len(held["counts"])
        assert held["edges"] == sorted(held["edges"])


def test_the_answer_in_words_names_every_group(told: Document) -> None:
    for word in ("mixtral-8x7b, train", "llama-3.1-8b, decode", "tokens/s", "domain 8", "scale_out.oversubscription"):
        assert word in told["answer"]


def test_a_group_by_what_only_some_cells_vary_keeps_the_others_together() -> None:
    asked = asked_of(
        models=(read_model("llama-3.1-8b"),), vary=(), group=("phase", "isl"),
        works=works(("train", "decode"), {"global_batch": 128}, {"isl": (1024, 2048)}),
    )  # fmt: skip
    told = document(asked, drive(asked))
    assert [row["group"] for row in told["best"]] == [
        {"phase": "train", "isl": None}, {"phase": "decode", "isl": 1024}, {"phase": "decode", "isl": 2048}]  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_any_objective_may_rank_and_stand_in_the_front(name: str) -> None:
    phase = "prefill" if name == "ttft_s" else "train"
    asked = asked_of(
        models=(read_model("llama-3.1-8b"),), vary=(), works=works((phase,), {"global_batch": 128}, {"isl": 2048}),
        ask=Ask(front=(name, "memory_bytes"), rank=name, limited=True),
    )  # fmt: skip
    told = sweep(asked, "serial")
    (best,) = told["best"]
    assert list(told["objectives"])[-1] == name
    point = Point.from_dict(best["point"])
    assert best["rank"] == pytest.approx(shown(name, float(better(point.bound, point.price(), name)[0])), rel=1e-12)
    values = [row[name] for row in told["front"]]
    assert (max if OBJECTIVES[name].sense > 0 else min)(values) == pytest.approx(best["rank"], rel=1e-12)


def test_why_a_cell_has_no_best_is_told() -> None:
    model, cluster = read_model("llama-3.1-405b"), with_(load("hgx-h100"), accelerators=8)
    slow = works(("decode",), {}, {"tpot_s": 1e-4})
    asked = asked_of(models=(read_model("llama-3.1-8b"),), vary=(), works=slow)
    (line,) = document(asked, drive(asked))["cells"]
    assert line["infeasible"].startswith("TPOT limit of 0.1 ms: the fastest that fits takes")
    asked = asked_of(models=(model,), clusters=(cluster,), vary=(), works=works(("train",), {}, {}))
    told = document(asked, drive(asked))
    assert "most often" in told["cells"][0]["infeasible"]
    assert told["best"] == told["front"] == []
    assert "No strategy of this sweep is feasible" in told["answer"]


def test_a_sampled_sweep_tells_its_regret_and_the_same_twice() -> None:
    asked = asked_of(works=works(("decode",), {}, {}), models=(read_model("llama-3.1-8b"),))
    sampled = replace(asked, budget=16)
    one, two = sweep(sampled, "serial"), sweep(sampled, "serial")
    assert {**one, "seconds": 0} == {**two, "seconds": 0}
    regrets = [line["regret"] for line in one["cells"] if "regret" in line]
    assert regrets
    assert all(0.0 <= value <= 1.0 for value in regrets)
    whole = {line["cell"]: line["tokens_per_s_per_gpu"] for line in sweep(asked, "serial")["cells"]}
    for line in one["cells"]:
        assert (line["tokens_per_s_per_gpu"] or 0.0) <= (whole[line["cell"]] or 0.0)


def test_a_poisoned_strategy_is_a_row_with_its_split(asked: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PHASES["decode"]

    def price(bound: Bound, cols: Any) -> Any:
        if np.any((cols["tp"] == 2) & (cols["batch"] == 8) & (cols["ep"] == 1) & (cols["pp"] == 1)):
            raise FloatingPointError("no number")
        return plain.price(bound, cols)

    monkeypatch.setitem(PHASES, "decode", replace(plain, price=price))
    only = replace(asked, works=works(("decode",), {}, {}), vary=(), models=asked.models[1:])
    told = document(only, drive(only))
    (row,) = told["poisoned"]
    assert row["error"] == "FloatingPointError: no number"
    assert (row["strategy"]["tp"], row["strategy"]["batch"]) == (2, 8)
    assert told["rejected"]["its price failed"] == 1
    assert told["best"]


def test_the_estimate_of_the_work_counts_what_pruning_leaves(asked: Sweep) -> None:
    exact = sum(len(rest.heads) * rest.tail for rest in (prepare(asked.task(cell))[1] for cell in range(asked.cells)))
    assert 0.5 * exact < estimate(asked) < 2 * exact
    assert estimate(replace(asked, budget=3)) == 3 * asked.cells
    assert estimate(replace(asked, limits=(("power_W", 1.0),))) == 0


# --- files


def test_csv_holds_one_line_for_each_cell(told: Document, tmp_path: Path) -> None:
    path = write(told, tmp_path / "made" / "answer.csv")
    with path.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(told["cells"])
    for line, cell in zip(read, told["cells"], strict=True):
        assert int(line["points"]) == cell["points"]
        assert line["model"] == cell["model"]
        assert float(line["tokens_per_s_per_gpu"] or "nan") == pytest.approx(
            math.nan if cell["tokens_per_s_per_gpu"] is None else cell["tokens_per_s_per_gpu"], nan_ok=True
        )
        if cell["strategy"]:
            assert float(line["strategy.tp"]) == cell["strategy"]["tp"]


def test_json_holds_everything(told: Document, tmp_path: Path) -> None:
    from podscale.door import plain

    path = write(plain(told), tmp_path / "answer.json")
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(plain(told)))


def test_parquet_holds_what_csv_holds(told: Document, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    path = write(told, tmp_path / "answer.parquet")
    read = polars.read_parquet(path).to_dicts()
    assert [row["points"] for row in read] == [cell["points"] for cell in told["cells"]]
    assert list(read[0]) == list(lines(told)[0])


def test_parquet_without_polars_is_refused_with_a_remedy(
    told: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(SpecError, match=r"podscale\[tables\], or write \.csv"):
        write(told, tmp_path / "answer.parquet")
    assert set(FORMATS) == {".json", ".csv", ".parquet"}


# --- size

BIG = """
from pathlib import Path
from clusters.build import build
from clusters.spec import load, with_
from parallel.io import read_model
from parallel.sweeps.evaluate import evaluate, prepare, step
from parallel.sweeps.spaces import all_train
from parallel.sweeps.task import Task
from parallel.workload import ServeWorkload, TrainWorkload
spec, model = with_(load("hgx-h100"), accelerators=4096), read_model("gpt3-175b")
task = Task("train", model, spec, TrainWorkload(global_batch=4096), ServeWorkload(), all_train(build(spec), model))
bound, rest = prepare(task)
many = step(rest.tail)
found = [evaluate(bound, rest, lo, lo + many // 8) for lo in (0, len(rest.heads) // 2)]
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(task.space.size, sum(part.points for part in found), peak.split()[1])
"""
# VmHWM is this program's own; ru_maxrss starts from what the process held that started it.


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_driver_of_a_thousand_million_strategies_needs_less_than_half_a_gibibyte() -> None:
    done = subprocess.run([sys.executable, "-c", BIG], capture_output=True, text=True, check=True)  # noqa: S603
    size, looked, peak = map(int, done.stdout.split())
    assert size > 9e8
    assert looked > 1e5
    assert peak * 1024 < 500 * 2**20
