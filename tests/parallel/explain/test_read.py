"""From scenario files and documents to points: which row is meant, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from parallel.compare import CompareRequest, compare
from parallel.explain.point import Point
from parallel.explain.read import read_point
from parallel.scenario import serve, train
from topo.errors import InfeasibleError, SpecError

Compared = tuple[Path, dict[str, Any]]
SCENARIOS = Path(__file__).parents[3] / "examples" / "scenarios"
LLAMA = SCENARIOS / "llama-405b-h100.yaml"
H800 = SCENARIOS / "deepseek-v3-decode-h800.yaml"
POOLS = SCENARIOS / "old-with-new.yaml"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    request = CompareRequest(model="mixtral-8x7b", accelerator="h100", gpus=64, domains=(8, 16), global_batch=512)
    document = compare(request)
    path = tmp_path_factory.mktemp("compared") / "cmp.json"
    path.write_text(json.dumps(document, default=str), encoding="utf-8")
    return path, document


def written(tmp_path: Path, document: object) -> Path:
    path = tmp_path / "document.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_a_training_scenario_is_one_point() -> None:
    point, rows = read_point(LLAMA)
    assert (point.phase, rows) == ("train", [])
    assert float(point.price().seconds[0]) == train(LLAMA)["step_time_s"]


def test_a_serving_scenario_is_told_from_a_training_one() -> None:
    point, _ = read_point(H800)
    assert point.phase == "decode"


@pytest.mark.parametrize(("row", "phase"), [(None, "decode"), ("prefill", "prefill"), ("0", "prefill")])
def test_two_pools_are_two_rows(row: str | None, phase: str) -> None:
    point, rows = read_point(POOLS, row)
    assert point.phase == phase
    assert rows == ["0 (prefill)", "1 (decode)"]


def test_documents_of_train_and_serve_hold_what_prices_them_again(tmp_path: Path) -> None:
    document = serve(H800)
    point, _ = read_point(written(tmp_path, {"point": document["point"], "phase": "decode"}))
    assert float(point.price().seconds[0]) == document["tpot_s"]


def test_a_document_of_two_pools_holds_two(tmp_path: Path) -> None:
    document = serve(POOLS)
    path = written(tmp_path, {"pools": {key: {"point": held["point"]} for key, held in document["pools"].items()}})
    assert read_point(path, "prefill")[0].phase == "prefill"


def test_every_row_of_a_comparison_is_priced_again_as_it_was(compared: Compared) -> None:
    path, document = compared
    for number, row in enumerate(document["rows"]):
        point, rows = read_point(path, str(number))
        assert len(rows) == len(document["rows"])
        assert point.built.domain == row["domain"]
        priced = point.settled.price()
        assert float(priced.seconds[0]) == pytest.approx(row["step_time_s"], rel=1e-12)
        assert float(priced.extra["tokens_per_s_per_gpu"][0]) == pytest.approx(row["tokens_per_s_per_gpu"], rel=1e-12)


def test_words_name_a_row_and_the_best_is_the_default(compared: Compared) -> None:
    path, document = compared
    assert read_point(path, "decode 16")[0].built.domain == 16
    best = max((row for row in document["rows"] if row["phase"] == "train"), key=lambda r: r["tokens_per_s_per_gpu"])
    point, _ = read_point(path)
    assert (point.phase, point.built.domain) == ("train", best["domain"])
    best = max((row for row in document["rows"] if row["phase"] == "decode"), key=lambda r: r["tokens_per_s_per_gpu"])
    assert read_point(path, "decode")[0].built.domain == best["domain"]


def test_a_row_that_is_not_there_is_refused_with_the_nearest(compared: Compared) -> None:
    with pytest.raises(SpecError, match=r"did you mean decode\? choose one of 0 \(train 8\)"):
        read_point(compared[0], "decod")
    with pytest.raises(SpecError, match="names no row"):
        read_point(compared[0], "99")


def test_best_rows_come_before_the_front(tmp_path: Path) -> None:
    point = read_point(H800)[0].to_dict()
    other = {**point, "strategy": {**point["strategy"], "batch": 44.0}}
    path = written(tmp_path, {
        "best": [{"phase": "decode", "tokens_per_s_per_gpu": 2.0, "point": point}],
        "front": [{"tokens_per_s_per_gpu": 1.0, "point": other}],
    })  # fmt: skip
    assert read_point(path)[0] == Point.from_dict(point)
    assert read_point(path, "1")[0] == Point.from_dict(other)
    assert read_point(path, "front:0")[0] == Point.from_dict(other)


def test_a_row_of_a_sweep_is_told_by_its_settings(tmp_path: Path) -> None:
    point = read_point(H800)[0].to_dict()
    rows = [
        {"settings": {"model": "deepseek-v3", "phase": "decode", "scale_out.nic": nic}, "tokens_per_s_per_gpu": rate,
         "point": {**point, "strategy": {**point["strategy"], "batch": rate}}}
        for nic, rate in (("400Gb/s", 40.0), ("800Gb/s", 80.0))
    ]  # fmt: skip
    path = written(tmp_path, {"best": rows, "front": []})
    assert read_point(path)[0].strategy["batch"] == 80.0
    assert read_point(path, "decode 400Gb/s")[0].strategy["batch"] == 40.0
    assert read_point(path)[1][0] == "0 (best:0 deepseek-v3 decode)"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({}, "holds nothing that can be priced again"),
        ({"error": {"message": "no such model"}}, "holds an error: no such model"),
        ({"rows": [{"phase": "decode", "strategy": {"tp": 1}}]}, "does not say what it was priced for"),
    ],
)
def test_a_document_without_points_is_refused(tmp_path: Path, document: object, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        read_point(written(tmp_path, document))


def test_a_row_that_says_nothing_fits_is_infeasible(tmp_path: Path) -> None:
    row = {"domain": 8, "phase": "train", "strategy": {}, "infeasible": "no strategy of 100 fits"}
    with pytest.raises(InfeasibleError, match="no strategy of 100 fits"):
        read_point(written(tmp_path, {"rows": [row], "workload": {}}))


def test_an_engine_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        SpecError, match="podscale explain tells its terms and simulates changes; or leave out engine and load"
    ):
        read_point(SCENARIOS / "llama-70b-vllm.yaml")


@pytest.mark.parametrize("name", ["sweep.csv", "sweep.parquet"])
def test_a_table_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("tp\n8\n", encoding="utf-8")
    with pytest.raises(SpecError, match="is a table"):
        read_point(path)


def test_a_sweep_is_to_be_run_first(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("model: deepseek-v3\nvary: {domain: [8, 72]}\n", encoding="utf-8")
    with pytest.raises(SpecError, match="describes a sweep"):
        read_point(path)
