"""Slices of time: they end when the price says, do not overlap in their lane, and add up to what is busy."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from clusters.spec import load, parse, with_
from parallel.explain.lanes import Slice, pass_slices, play
from parallel.explain.point import Point
from parallel.explain.scene import ServeScene, TrainScene
from parallel.io import read_model
from parallel.scenario import train_point
from parallel.training.step import SCHEDULES
from parallel.workload import TrainWorkload
from topo.errors import InfeasibleError

DECODE = Point(
    "decode", read_model("deepseek-v3"), parse({"accelerator": "h800-sxm", "accelerators": 288, "domain": 8}),
    strategy={"used": 8, "tp": 2, "ep": 144, "pp": 2, "microbatches": 2, "batch": 44},
)  # fmt: skip
TRAIN = Point(
    "train", read_model("llama-3.1-70b"), with_(load("hgx-h100"), accelerators=256),
    TrainWorkload(4096, 128, "bf16"),
    strategy={"used": 8, "tp": 8, "ep": 1, "pp": 4, "micro_batch": 1, "dp": 8, "vpp": 5},
)  # fmt: skip
PASSES = {
    "overlapped over NICs": DECODE,
    "in turn": DECODE.split(microbatches=1),
    "one stage": DECODE.split(pp=1),
    "prefill": replace(DECODE, phase="prefill", strategy={**DECODE.strategy, "batch": 1}),
    "dense": replace(
        DECODE, model=read_model("llama-3.1-70b"), strategy={**DECODE.strategy, "ep": 1, "microbatches": 1}
    ),
}
STEPS = {
    "interleaved": TRAIN,
    "1f1b": TRAIN.split(vpp=1),
    "one stage": TRAIN.split(pp=1, vpp=1, dp=32),
    "weight gradients in the bubble": TRAIN.split(vpp=1, schedule=SCHEDULES.index("zb-h1")),
    "recomputed": TRAIN.split(recompute=2),
}


def apart(slices: Sequence[Slice]) -> bool:
    lanes = defaultdict(list)
    for each in slices:
        lanes[each.stage, each.lane].append((each.start_s, each.end_s))
    return all(before[1] <= after[0] + 1e-9 for held in lanes.values() for before, after in pairwise(sorted(held)))


@pytest.fixture(params=PASSES, ids=str)
def scene(request: pytest.FixtureRequest) -> ServeScene:
    return ServeScene(PASSES[request.param])


def test_a_pass_ends_when_its_price_says(scene: ServeScene) -> None:
    assert max(each.end_s for each in pass_slices(scene)) == pytest.approx(scene.seconds, rel=1e-9)


def test_no_two_slices_of_a_lane_overlap(scene: ServeScene) -> None:
    assert apart(pass_slices(scene))


def test_slices_of_a_pass_add_up_to_what_is_busy(scene: ServeScene) -> None:
    spent: dict[str, float] = defaultdict(float)
    for each in pass_slices(scene):
        spent[each.name] += each.end_s - each.start_s
    exchange = spent["dispatch"] + spent["combine"] + spent["dispatch and combine"]
    assert exchange == pytest.approx(scene.busy.get("ep", 0.0), rel=1e-9)
    if "contention" not in scene.terms:
        for name in ("attention", "experts", "head", "vector"):
            assert spent[name] == pytest.approx(scene.terms.get(name, 0.0), rel=1e-9), name
        assert spent["all-reduce"] == pytest.approx(scene.terms.get("tp", 0.0), rel=1e-9)


def test_every_layer_is_there_once_for_each_micro_batch() -> None:
    seen = [each.about["layer"] for each in pass_slices(ServeScene(DECODE)) if each.name == "attention"]
    assert sorted(seen) == sorted([*range(61), *range(61)])


@pytest.mark.parametrize("name", STEPS)
def test_an_executed_step_takes_what_the_closed_form_says(name: str) -> None:
    scene = TrainScene(STEPS[name])
    played = play(scene)
    assert played.seconds == pytest.approx(scene.seconds, rel=0.02)
    assert apart(played.slices)


def test_chunks_of_unequal_layers_take_what_they_are_priced_at() -> None:
    """126 layers on 16 × 7 chunks are one or two each, and sixteen micro-batches have no slack to hide that."""
    path = Path(__file__).parents[3] / "examples" / "scenarios" / "llama-405b-h100.yaml"
    scene = TrainScene(train_point(path))
    assert play(scene).seconds == pytest.approx(scene.seconds, rel=0.02)


def test_a_step_that_is_too_long_to_be_read_is_refused() -> None:
    huge = replace(TRAIN, train=TrainWorkload(4096, 128 * 4096, "bf16"))
    with pytest.raises(InfeasibleError, match="actions"):
        play(TrainScene(huge))
