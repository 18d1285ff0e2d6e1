"""Accounts of points: every equation gives its term, every sum adds up, the wire is the right one, advice is real."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.spec import load, parse, with_
from parallel.explain.account import explain
from parallel.explain.advice import outcomes
from parallel.explain.equation import Equation, computed
from parallel.explain.links import wires
from parallel.explain.memory import memory_rows
from parallel.explain.operators import operator_rows
from parallel.explain.point import Point
from parallel.explain.scene import ServeScene, TrainScene, scene_of
from parallel.explain.serving import serve_equations
from parallel.explain.training import train_equations
from parallel.io import read_model
from parallel.sweeps.spaces import NAMES
from parallel.training.step import SCHEDULES
from parallel.workload import ServeWorkload, Software, TrainWorkload
from topo.errors import SpecError

Laid = TrainScene | ServeScene
Told = dict[str, dict[str, Any]]
RACKS = with_(load("gb200-nvl72"), accelerators=1152)
BOXES = with_(load("hgx-h100"), accelerators=1024)
H800 = parse({"accelerator": "h800-sxm", "accelerators": 288, "domain": 8})
MOE = Point(
    "train", read_model("deepseek-v3"), RACKS,
    strategy={"used": 64, "tp": 2, "ep": 32, "pp": 4, "micro_batch": 1, "dp": 128, "vpp": 2},
)  # fmt: skip
DENSE = Point(
    "train", read_model("llama-3.1-405b"), BOXES, TrainWorkload(8192, 1024, "bf16"),
    strategy={"used": 8, "tp": 8, "ep": 1, "pp": 8, "micro_batch": 1, "dp": 16, "vpp": 2},
)  # fmt: skip
EVALUATING = replace(DENSE, train=replace(DENSE.train, precision="fp8", evaluation_sequences=3000, evaluation_steps=8))
DECODE = Point(
    "decode", read_model("deepseek-v3"), RACKS,
    strategy={"used": 72, "tp": 1, "ep": 72, "pp": 1, "microbatches": 2, "batch": 128},
)  # fmt: skip
CROSSING = Point(
    "decode", read_model("deepseek-v3"), H800,
    strategy={"used": 8, "tp": 2, "ep": 144, "pp": 2, "microbatches": 1, "batch": 44},
)  # fmt: skip
WINDOWED = Point(
    "decode", read_model("gpt-oss-120b"), BOXES,
    strategy={"used": 8, "tp": 2, "ep": 8, "pp": 1, "microbatches": 1, "batch": 16},
)  # fmt: skip


def software(point: Point, **fields: Any) -> Point:
    return replace(point, train=replace(point.train, software=Software(**fields)))


def prefill(point: Point) -> Point:
    return replace(point, phase="prefill", strategy={**point.strategy, "batch": 1})


POINTS = {
    "experts in racks": MOE,
    "overlapped exchange": MOE.split(ep_overlap=1, recompute=1),
    "all recomputed, ZeRO 3, no sequence parallelism": MOE.split(recompute=2, zero=3, sp=0),
    "split experts and sequences": MOE.split(etp=2, cp=2, dp=64),
    "dense in boxes": DENSE,
    "ZeRO 2": DENSE.split(recompute=1, zero=2),
    "context parallel": DENSE.split(cp=2, dp=8),
    "no interleaving": DENSE.split(vpp=1, zero=3),
    "weight gradients in the bubble": DENSE.split(vpp=1, schedule=SCHEDULES.index("zb-h1")),
    "one stage": DENSE.split(pp=1, vpp=1, dp=128),
    "nothing overlapped": software(MOE, tp_overlap="none", dp_overlap=False),
    "FP8 scales agreed on, evaluations": software(EVALUATING, amax="all"),
    "evaluations on one stage": EVALUATING.split(pp=1, vpp=1, dp=128),
    "FSDP": software(DENSE, engine="fsdp"),
    "early Megatron in graphs": software(DENSE, engine="early-megatron", graphs="full"),
    "NCCL's all-to-all, an installation": software(MOE, dispatcher="alltoall", installation=1.1),
    "frozen weights": software(DENSE, trains="lora"),
    "gradients of the head put off": software(DENSE, deferred=6),
    "all of them, out of the drain": software(DENSE.split(recompute=0), deferred=1000),
    "put off on one stage": software(DENSE.split(pp=1, vpp=1, dp=128), deferred=1000),
    "BF16 gradients": replace(DENSE, train=replace(DENSE.train, gradient_bytes=2.0)),
    "decode in racks": DECODE,
    "decode, nothing overlapped": DECODE.split(microbatches=1),
    "decode over NICs": CROSSING,
    "named kernels, uneven experts": replace(
        CROSSING.split(microbatches=2), serve=ServeWorkload(exchange="normal", imbalance=1.3)
    ),
    "sliding windows": WINDOWED,
    "prefill in racks": prefill(DECODE),
    "prefill over NICs": prefill(CROSSING),
    "prefill, sliding windows": prefill(WINDOWED),
}  # fmt: skip


@pytest.fixture(params=POINTS, ids=str)
def scene(request: pytest.FixtureRequest) -> Laid:
    return scene_of(POINTS[request.param])


def equations(scene: Laid) -> dict[str, Equation[Any]]:
    return dict(train_equations(scene)) if isinstance(scene, TrainScene) else dict(serve_equations(scene))


def test_every_equation_on_its_stated_inputs_gives_the_priced_term(scene: Laid) -> None:
    laws = equations(scene)
    scale = scene.job.scale if isinstance(scene, TrainScene) else 1.0
    for name, law in laws.items():
        if name not in scene.priced.terms or (scene.point.phase == "prefill" and name == "kv read"):
            continue
        exposed, busy = computed(law, law.inputs(scene))
        near = 1e-12 * scene.seconds
        assert scale * exposed == pytest.approx(float(scene.priced.terms[name][0]), rel=1e-9, abs=near), name
        assert scale * busy == pytest.approx(float(scene.priced.busy[name][0]), rel=1e-9, abs=near), name


def test_the_operators_of_a_term_add_up_to_it(scene: Laid) -> None:
    scale = scene.job.scale if isinstance(scene, TrainScene) else 1.0
    for term, rows in operator_rows(scene).items():
        assert scale * sum(row["seconds"] for row in rows) == pytest.approx(scene.terms[term], rel=1e-9), term
        assert {row["bound"] for row in rows} <= {"compute", "memory", "launch"}


def test_every_holder_of_memory_is_its_equation(scene: Laid) -> None:
    rows = memory_rows(scene)
    assert sum(row["bytes"] for row in rows) == pytest.approx(float(scene.priced.memory_bytes[0]), rel=1e-12)
    for row in rows:
        assert row["computed_bytes"] == pytest.approx(row["bytes"], rel=1e-9), row["name"]


def test_the_collectives_of_a_term_take_its_busy_time(scene: Laid) -> None:
    scale = scene.job.scale if isinstance(scene, TrainScene) else 1.0
    for term, sent in scene.messages.items():
        if term in ("pp", "dp"):  # hops overlap with one another; a dense model reduces no experts
            continue
        seconds = sum(message.times * message.seconds(scene.road(message.op, message.regime)) for message in sent)
        assert scale * seconds == pytest.approx(scene.busy[term], rel=1e-9), term


@pytest.fixture(scope="module")
def told() -> Told:
    return {name: explain(POINTS[name]) for name in ("experts in racks", "dense in boxes", "decode over NICs")}


def test_an_account_is_plain_json(told: Told) -> None:
    for document in told.values():
        assert json.loads(json.dumps(document))["said"]


def test_terms_add_up_to_the_whole_and_have_an_equation_inputs_and_a_source(told: Told) -> None:
    for document in told.values():
        assert sum(term["seconds"] for term in document["terms"]) == pytest.approx(document["seconds"], rel=1e-12)
        assert sum(term["share"] for term in document["terms"]) == pytest.approx(1.0)
        for term in document["terms"]:
            assert term["equation"]
            assert term["inputs"]
            assert term["source"]
            assert term["interval"] or term["interval_note"]
            assert term["computed_s"] == pytest.approx(term["seconds"], rel=1e-9, abs=1e-12)


def test_the_answer_comes_first_in_plain_words(told: Told) -> None:
    said = told["decode over NICs"]["said"]
    assert said[0].startswith("Every output token of deepseek-v3 takes ")
    assert "tokens/s per GPU" in said[0]
    assert any(sentence.startswith("Cheapest first") for sentence in said)


def test_what_does_not_fit_is_said_before_where_the_time_goes(told: Told) -> None:
    assert "does not fit" in told["dense in boxes"]["said"][1]
    assert told["dense in boxes"]["row"]["memory_share"] > 1.0


def test_an_exchange_that_leaves_its_boxes_stops_at_the_nics(told: Told) -> None:
    neck = told["decode over NICs"]["bottleneck"]
    assert (neck["term"], neck["on_the_wire"]) == ("ep", True)
    assert (neck["link"], neck["nodes"]) == ("ib-ndr", [["nic", "leaf"]])
    assert neck["bandwidth_Bps"] == 50e9
    assert 0.1 < neck["load"] < 1.0


def test_inside_a_rack_the_exchange_loads_the_scale_up_switches() -> None:
    busiest = max(wires(scene_of(DECODE)), key=lambda wire: wire.load)
    assert (busiest.tier.plane, busiest.tier.link) == ("scale-up", "nvlink5")


def test_accelerators_that_serve_alone_use_no_wire() -> None:
    alone = Point(
        "decode", read_model("llama-3.1-8b"), load("hgx-h100"),
        strategy={"used": 8, "tp": 1, "ep": 1, "pp": 1, "microbatches": 1, "batch": 8},
    )  # fmt: skip
    document = explain(alone)
    assert document["bottleneck"]["link"] is None
    assert "Nothing travels between accelerators." in document["said"]


def test_a_wire_of_a_linear_price_is_as_loaded_as_its_bytes_say() -> None:
    """Gradients of one stage over NICs: bytes that leave a box over the NIC's rate, per step, whatever is hidden."""
    point = replace(DENSE, strategy={"used": 8, "tp": 8, "ep": 1, "pp": 8, "micro_batch": 1, "dp": 16})
    scene = scene_of(point)
    out = [wire for wire in wires(scene) if wire.tier.plane == "scale-out"]
    held = next(message for message in scene.messages["dp"] if message.op == "reduce_scatter")
    wire_s = held.size_bytes * 15 / 16 / 50e9
    loaded = sum(2.0 * wire.saved_s["dp"] for wire in out)
    assert loaded == pytest.approx(1.5 * wire_s, rel=0.35)  # FP32 gradients out, BF16 weights back; efficiency, ramp


def test_advice_is_what_pricing_the_changed_split_gives(told: Told) -> None:
    for document in told.values():
        point = Point.from_dict(document["point"])
        for row in document["advice"]:
            assert row["feasible"]
            assert row["helps"]
            if row["kind"] == "strategy" and "," not in row["change"]:
                [again] = outcomes(point, [{k: v for k, v in raw(row["strategy"]).items() if k != "dp"}])
                assert again.rate == pytest.approx(row["tokens_per_s_per_gpu"], rel=1e-12)


def raw(strategy: dict[str, Any]) -> dict[str, float]:
    """Columns of a strategy from its names: the inverse of `parallel.results.strategy_of`."""
    codes = {"schedule": {"1f1b": 0.0}}
    held = {name: value for name, value in strategy.items() if name not in ("attention_dp", "ranks_per_domain")}
    return {
        name: codes.get(name, {}).get(value, float(NAMES[name].index(value)) if value in NAMES.get(name, ()) else 0.0)
        if isinstance(value, str)
        else float(value)
        for name, value in held.items()
    }


def test_the_cheapest_kind_of_change_comes_first(told: Told) -> None:
    order = ["strategy", "software", "hardware"]
    for document in told.values():
        kinds = [order.index(row["kind"]) for row in document["tried"]]
        assert kinds == sorted(kinds)
        assert len(document["advice"]) <= 3
        assert len({row["change"] for row in document["advice"]}) == len(document["advice"])


def test_what_was_refused_says_why(told: Told) -> None:
    refused = [row for document in told.values() for row in document["tried"] if not row["feasible"]]
    assert refused
    assert all(row["reason"] and not row["helps"] for row in refused)
    assert any("breaks the rule" in row["reason"] for row in refused)
    assert any("GiB" in row["reason"] for row in refused)


def test_hardware_without_a_price_says_so_instead_of_nothing(told: Told) -> None:
    dear = [row for document in told.values() for row in document["tried"] if row["kind"] == "hardware"]
    assert dear
    assert all(row["price_usd"] is not None or row["price_note"] for row in dear)


def test_more_memory_makes_possible_what_did_not_fit(told: Told) -> None:
    rows = {row["change"]: row for row in told["dense in boxes"]["tried"] if row["kind"] == "hardware"}
    assert rows["hbm_capacity"]["makes_it_run"]
    assert ", and then " in rows["hbm_capacity"]["said"]


def test_faster_nics_help_where_the_exchange_crosses(told: Told) -> None:
    rows = {row["change"]: row for row in told["decode over NICs"]["tried"] if row["kind"] == "hardware"}
    assert rows["nics"]["gain"] > 0.2 > rows["scale_up"]["gain"]


def test_a_split_that_breaks_rules_is_refused_with_all_of_them() -> None:
    with pytest.raises(SpecError) as caught:
        explain(DECODE.split(tp=3, microbatches=2, ep=1))
    assert len(caught.value.faults) >= 2


def test_a_step_has_the_interval_of_whole_steps_and_its_terms_those_of_their_wires(told: Told) -> None:
    document = told["experts in racks"]
    low, high = document["interval"]
    assert low < document["seconds"] < high
    terms = {term["name"]: term for term in document["terms"]}
    assert terms["experts"]["interval"] is None
    low, high = terms["tp"]["interval"]
    assert low < terms["tp"]["busy_s"] < high


@settings(max_examples=15, deadline=None)
@given(st.sampled_from((1, 2, 4, 8)), st.sampled_from((8, 36, 72, 144)), st.sampled_from((1, 2)), st.integers(1, 64))
def test_any_decoding_split_is_accounted_for(tp: int, ep: int, microbatches: int, batch: int) -> None:
    point = DECODE.split(tp=tp, ep=ep, microbatches=microbatches, batch=2 * batch)
    try:
        point.check()
    except SpecError:
        return
    scene = scene_of(point)
    for name, law in equations(scene).items():
        exposed, _ = computed(law, law.inputs(scene))
        assert exposed == pytest.approx(float(scene.priced.terms[name][0]), rel=1e-9, abs=1e-12 * scene.seconds)


def test_precision_of_a_strategy_moves_into_the_workload() -> None:
    named = replace(DECODE, strategy={**DECODE.strategy, "precision": 0.0})
    plain = replace(DECODE, serve=replace(DECODE.serve, precision="bf16"))
    assert np.isclose(explain(named)["seconds"], scene_of(plain).seconds, rtol=1e-12)
