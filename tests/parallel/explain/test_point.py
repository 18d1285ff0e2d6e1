"""Points survive a JSON document: the same fields, the same price; faults come with their place."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clusters.spec import focus, load, parse, with_
from parallel.exchange import ExchangeRules
from parallel.explain.point import Point
from parallel.io import read_model
from parallel.workload import ServeWorkload, Software, TrainWorkload
from topo.errors import SpecError

DECODE = Point(
    "decode", read_model("deepseek-v3"), with_(load("gb200-nvl72"), accelerators=144, name="two racks"),
    serve=ServeWorkload(isl=1000, exchange="one-sided"),
    strategy={"used": 72, "tp": 1, "ep": 72, "pp": 1, "microbatches": 2, "batch": 64.5},
)  # fmt: skip
TRAIN = Point(
    "train", read_model("mixtral-8x7b"), with_(load("hgx-h100"), accelerators=64),
    TrainWorkload(global_batch=128, software=Software(engine="fsdp"), recompute_modules=("mlp", "moe")),
    strategy={"used": 8, "tp": 1, "ep": 8, "pp": 1, "micro_batch": 1, "dp": 64},
)  # fmt: skip
POOLED = replace(
    DECODE,
    cluster=focus(
        parse({"pools": [{"name": "old", "accelerator": "h100", "accelerators": 64},
                         {"name": "new", "accelerator": "gb200", "accelerators": 144}]}),
        "new",
    ),
)  # fmt: skip
OWN = replace(DECODE, model=replace(DECODE.model, name="my own", vocab=5000))
SPARSE, ENTRIES = (
    replace(DECODE, model=replace(read_model(name), name="my own", vocab=5000))
    for name in ("deepseek-v3.2", "deepseek-v4-pro")
)
ASSUMED = replace(DECODE, exchange=ExchangeRules(extra_copies=1, copies="rank"))
ENDLESS = replace(DECODE, serve=replace(DECODE.serve, tpot_s=float("inf")))


def through_json(point: Point) -> Point:
    return Point.from_dict(json.loads(json.dumps(point.to_dict(), allow_nan=False)))


@pytest.mark.parametrize("point", [DECODE, TRAIN, POOLED, OWN, SPARSE, ENTRIES, ASSUMED, ENDLESS])
def test_a_point_that_was_written_is_the_point_that_is_read(point: Point) -> None:
    again = through_json(point)
    assert again == point
    assert again.price().seconds.tolist() == point.price().seconds.tolist()


def test_a_shipped_model_is_written_by_name_and_another_in_full() -> None:
    assert DECODE.to_dict()["model"] == "deepseek-v3"
    assert OWN.to_dict()["model"]["vocab"] == 5000


def test_what_is_left_out_of_a_training_split_has_its_default() -> None:
    assert TRAIN.cols["vpp"].tolist() == [1.0]
    assert TRAIN.split(vpp=2).cols["vpp"].tolist() == [2.0]


def test_assumptions_of_the_exchange_change_the_price() -> None:
    assert ASSUMED.price().busy["ep"][0] != DECODE.price().busy["ep"][0]


def test_every_fault_of_a_document_comes_at_once() -> None:
    held = json.loads(json.dumps(DECODE.to_dict()))
    held["model"], held["serve"]["osll"], held["strategy"]["tp"] = "deepsek-v3", 4, "eight"
    with pytest.raises(SpecError) as caught:
        Point.from_dict(held, "row.json")
    said = str(caught.value)
    assert "did you mean deepseek-v3" in said
    assert "point.serve.osll: no such field" in said
    assert "point.strategy.tp = 'eight': is no number" in said


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("phase", "dekode", "no such phase"),
        ("strategy", {}, "holds no columns"),
        ("strategy", {"tp": float("nan")}, "is no number"),
        ("train", {"sequence": -1}, "must be positive"),
        ("train", {"software": {"engine": "megatron"}}, "is not known"),
        ("pool", "red", "is no pool"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, problem: str) -> None:
    base = (POOLED if field == "pool" else DECODE).to_dict()
    with pytest.raises(SpecError, match=problem):
        Point.from_dict({**base, field: value})


def test_a_split_that_breaks_a_rule_is_refused_with_its_file() -> None:
    with pytest.raises(SpecError, match=r"row.yaml: strategy\.ep"):
        TRAIN.split(ep=3).check("row.yaml")


def test_scenarios_and_points_price_alike() -> None:
    from parallel.scenario import serve, serve_points

    path = Path(__file__).parents[3] / "examples" / "scenarios" / "deepseek-v3-decode-h800.yaml"
    document, point = serve(path), serve_points(path)["decode"]
    assert Point.from_dict(document["point"]) == point
    assert float(point.price().seconds[0]) == document["tpot_s"]
