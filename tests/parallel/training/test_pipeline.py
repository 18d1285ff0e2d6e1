"""One pipeline under every schedule: terms that add up, placements that fit, advice that follows from the terms."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.pipelines import SCHEDULES
from parallel.training.layouts import parse_layout
from parallel.training.pipeline import HINTS, Pipeline, advice, compare, document, play, row
from topo.errors import SpecError

quick = settings(max_examples=50, deadline=None)
TRAINING = [name for name in SCHEDULES if SCHEDULES[name].training]
HALVES = (1e-5,) * 7 + (10e-3,) + (1e-5,) * 7
WAN = Pipeline(16, 64, 10e-3, 20e-3, links_s=HALVES)


@quick
@given(
    st.sampled_from(TRAINING),
    st.sampled_from([2, 4]),
    st.integers(2, 3),
    st.floats(0.1, 5.0),
    st.floats(0.0, 3.0),
    st.integers(0, 20),
)
def test_terms_add_up_to_the_step_and_work_to_the_work(schedule, stages, rounds, backward, hop, layers):
    pipe = Pipeline(stages, rounds * stages, 1.0, backward, 2, links_s=(hop,) * (stages - 1), layers=layers, head=1.0)
    told = row(play(pipe, schedule))
    assert sum(told["terms"].values()) == pytest.approx(told["step_time_s"])
    assert told["terms"]["work"] == pytest.approx(rounds * stages * (1.0 + backward))
    for stage in told["stages"]:
        assert sum(stage["causes"].values()) == pytest.approx(stage["idle_s"], abs=1e-9)


def test_equal_stages_without_hops_take_the_textbook_step():
    step = {row.schedule: float(row.run.step_s) for row in compare(Pipeline(4, 8, 1.0, 2.0))[0]}
    assert step["gpipe"] == step["1f1b"] == step["eager-1f1b"] == 8 * 3 + 3 * 3
    assert step["interleaved"] == 8 * 3 + 3 * 3 / 2  # two chunks
    assert step["zb-h1"] == 8 * 3 + 3 * (1 + 1 - 1)


def test_eager_warm_up_takes_the_wide_area_hop_out_of_the_steady_state():
    plain, eager = (row(play(WAN, name)) for name in ("1f1b", "eager-1f1b"))
    once = 2 * sum(HALVES)
    assert eager["terms"]["hop latency"] == pytest.approx(once)
    assert plain["terms"]["hop latency"] > 20 * once
    assert (plain["peak_in_flight"], eager["peak_in_flight"]) == (16, 31)


def test_the_advice_follows_from_the_terms():
    rows = [row(play(WAN, name)) for name in ("1f1b", "eager-1f1b")]
    said = advice(rows)
    assert said[0].startswith("eager-1f1b is the fastest: 2.39 s, 19.0% less than 1f1b, mostly for less hop latency")
    assert said[1] == "eager-1f1b asks for activations of 31 micro-batches instead of 16"
    assert any(line.startswith("round trips") and "eager" not in line for line in said)
    near = advice([row(play(Pipeline(16, 64, 10e-3, 20e-3), name)) for name in ("gpipe", "1f1b")])
    assert near[0] == "1f1b is the fastest, 2.37 s"  # as fast as GPipe and holds a quarter
    uneven = advice([row(play(Pipeline(4, 64, 1.0, 2.0, layers=9), "1f1b"))])
    assert "imbalance" in uneven[-1]
    assert uneven[-1].endswith(HINTS["imbalance"])


def test_a_layout_makes_the_stages_as_unequal_as_it_is():
    layout = parse_layout("Ettt|ttt|tL", 3)
    told = row(play(Pipeline(3, 6, 1.0, 2.0, head=1.0, layout=layout), "1f1b"))
    assert (told["layout"], told["placement"]) == ("Et*3|t*3|tL", "3 stages: embedding + 3, 3, 1 + head")
    busy = np.array([stage["busy_s"] for stage in told["stages"]])
    np.testing.assert_allclose(busy / busy.sum(), [3 / 8, 3 / 8, 2 / 8])


@pytest.mark.parametrize("stages", [8, 16])
def test_61_layers_run_on_8_and_16_stages_under_every_schedule(stages):
    told, _ = document(Pipeline(stages, 4 * stages, 10e-3, 20e-3, layers=61, head=1.5))
    assert told["skipped"] == []
    assert all(r["placement"].startswith(f"{stages} stages") for r in told["rows"])
    assert all(r["terms"]["imbalance"] >= 0 for r in told["rows"])


def test_a_schedule_that_cannot_run_is_listed_with_its_reason():
    played, skipped = compare(Pipeline(3, 7, 1.0, 2.0))
    assert {each.schedule for each in played} | {each["schedule"] for each in skipped} == set(TRAINING)
    assert all(each["skipped_because"] for each in skipped)
    assert "dualpipe" in {each["schedule"] for each in skipped}


def test_inference_pipelines_have_no_backward():
    told = row(play(Pipeline(4, 8, 1.0, 2.0, links_s=(0.1,) * 3), "prefill"))
    assert told["step_time_s"] == pytest.approx(8 + 3 + 0.3)
    assert "prefill" not in {each.schedule for each in compare(Pipeline(4, 8, 1.0, 2.0))[0]}


def test_zero_bubble_has_none_where_no_stage_waits_for_anothers_optimizer():
    pipe = Pipeline(4, 8, 1.0, 2.0, synchronised=False)
    assert row(play(pipe, "zb-h2"))["bubble_s"] == pytest.approx(0.0, abs=1e-9)
    assert row(play(replace(pipe, synchronised=True), "zb-h2"))["bubble_s"] == pytest.approx(3.0)


def test_everything_wrong_with_a_pipeline_is_said_at_once():
    with pytest.raises(SpecError) as caught:
        Pipeline(0, 0, -1.0, float("inf"), weight_s=-1.0, links_s=(1.0,))
    assert {fault.field for fault in caught.value.faults} == {
        *("stages", "microbatches", "forward_s", "backward_s", "weight_s", "links_s")
    }
    with pytest.raises(SpecError, match="is for 2 stages"):
        Pipeline(3, 4, 1.0, 1.0, layout=parse_layout("Et|tL", 2))
    with pytest.raises(SpecError, match=r"has 1 chunk.s. per stage, the schedule 2"):
        play(Pipeline(2, 4, 1.0, 1.0, layout=parse_layout("Et|tL", 2)), "zb-v")
    with pytest.raises(SpecError, match="choose one of"):
        play(Pipeline(2, 4, 1.0, 1.0), "2f2b")
