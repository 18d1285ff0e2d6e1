"""Loads of a strategy's own traffic: on every link of its routes, equal to its tiers' on their narrowest cuts."""

import pytest

from clusters.spec import load, parse, with_
from parallel.explain.links import wires
from parallel.explain.loads import class_loads, tier_loads
from parallel.explain.point import Point
from parallel.explain.scene import ServeScene, TrainScene, scene_of
from parallel.io import read_model

WIDE = {"used": 8.0, "tp": 1.0, "ep": 64.0, "pp": 1.0, "microbatches": 1.0, "batch": 64.0}
BOX = {**WIDE, "tp": 8.0, "ep": 8.0}


def scene(strategy: dict[str, float], **changes: object) -> TrainScene | ServeScene:
    spec = with_(load("hgx-h100"), **{"accelerators": 256, **changes})
    return scene_of(Point("decode", read_model("deepseek-v3"), spec, strategy=strategy))


def test_traffic_of_one_box_stays_on_its_scale_up_links() -> None:
    held = scene(BOX)
    loads = class_loads(held)
    assert set(loads) == {("accelerator", "scale-up-switch"), ("scale-up-switch", "accelerator")}
    assert loads["accelerator", "scale-up-switch"] == pytest.approx(tier_loads(held)["domain"])


def test_an_exchange_that_leaves_the_box_loads_nics_and_leaves_by_its_tier() -> None:
    held = scene(WIDE)
    out = [wire for wire in wires(held) if wire.tier.plane == "scale-out"]
    loads = class_loads(held)
    assert out
    assert loads["accelerator", "nic"] == pytest.approx(sum(wire.load for wire in out), rel=1e-6)
    assert loads["nic", "leaf"] == pytest.approx(loads["accelerator", "nic"])


def test_above_a_taper_links_are_as_much_busier_as_there_are_fewer() -> None:
    held = scene({**WIDE, "ep": 1024.0}, **{"scale_out.oversubscription": 4, "accelerators": 1024})
    loads = class_loads(held)
    assert loads["leaf", "spine"] == pytest.approx(tier_loads(held)["spine"])
    assert loads["leaf", "spine"] == pytest.approx(4.0 * loads["nic", "leaf"])


def test_links_of_a_torus_have_the_load_of_their_tier() -> None:
    spec = parse({"accelerator": "tpu-v5p", "accelerators": 64, "domain": 64})
    split = {"used": 64.0, "tp": 1.0, "ep": 64.0, "pp": 1.0, "microbatches": 1.0, "batch": 64.0}
    held = scene_of(Point("decode", read_model("deepseek-v3"), spec, strategy=split))
    (wire,) = wires(held)
    assert wire.tier.direct
    assert set(class_loads(held).values()) == {wire.load}


def test_a_strategy_without_messages_loads_nothing() -> None:
    spec = with_(load("hgx-h100"), accelerators=16)
    split = {"used": 8.0, "tp": 1.0, "ep": 1.0, "pp": 1.0, "microbatches": 1.0, "batch": 8.0}
    held = scene_of(Point("decode", read_model("llama-3.1-8b"), spec, strategy=split))
    assert tier_loads(held) == {}
    assert class_loads(held) == {}


def test_larger_clusters_are_told_by_their_narrowest_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel.explain.loads.MOST_LOADED", 64)
    held = scene(WIDE)
    assert max(class_loads(held).values()) == pytest.approx(max(tier_loads(held).values()))
