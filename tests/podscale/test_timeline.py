"""Timelines of pipelines: nothing lost, nothing doubled, the trace by its format's rules, the drawing free of overlaps."""

import json
import re
import runpy
from collections import defaultdict
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.pipelines import SCHEDULES, causes, execute
from parallel.training.pipeline import Pipeline, play
from podscale.cli import main
from podscale.gantt import CAUSES, WORK, Panel, gantt_svg
from podscale.sheet import SIZES, width_of
from podscale.timeline import messages, trace, updates, waits, work

TRAINING = [name for name in SCHEDULES if SCHEDULES[name].training]
SVG = "{http://www.w3.org/2000/svg}"
METADATA = {"process_name": "name", "thread_name": "name", "process_sort_index": "sort_index"} | {
    "thread_sort_index": "sort_index"
}
WAN = Pipeline(8, 32, 0.01, 0.02, chunks=2, links_s=(1e-5,) * 3 + (0.01,) + (1e-5,) * 3, layers=61, head=1.5)

quick = settings(max_examples=50, deadline=None)


def panel(played, pipe=WAN):
    return Panel(played.schedule, played.run, played.costs, played.causes, pipe.links)


def broken_rules(made):
    """Return what in a trace breaks the Trace Event Format, or would not show in Perfetto."""
    broken = []
    if not isinstance(made.get("traceEvents"), list) or made.get("displayTimeUnit") not in ("ms", "ns"):
        return ["no list of events, or no unit"]
    tracks, named = defaultdict(list), set()
    for event in made["traceEvents"]:
        if not (isinstance(event.get("pid"), int) and isinstance(event.get("tid"), int) and event.get("name")):
            broken.append(f"no name, process or thread: {event}")
        if event["ph"] == "M":
            named.add((event["name"], event["pid"], event["tid"]))
            if set(event["args"]) != {METADATA.get(event["name"])}:
                broken.append(f"metadata: {event}")
        elif event["ph"] != "X" or not event["dur"] >= 0 or not event["ts"] >= 0:
            broken.append(f"no complete event: {event}")
        else:
            tracks[event["pid"], event["tid"]].append((event["ts"], -event["dur"]))
    for (pid, tid), spans in tracks.items():
        if ("process_name", pid, 0) not in named or ("thread_name", pid, tid) not in named:
            broken.append(f"track {pid}/{tid} has no name")
        open_until = []
        for start, minus in sorted(spans):  # the longer first, as Perfetto nests them
            while open_until and open_until[-1] <= start + 1e-4:
                open_until.pop()
            if open_until and start - minus > open_until[-1] + 1e-4:
                broken.append(f"track {pid}/{tid}: events overlap without nesting at {start}")
            open_until.append(start - minus)
    return broken


@pytest.mark.parametrize("schedule", TRAINING)
def test_a_trace_keeps_the_rules_of_its_format(schedule):
    played = play(WAN, schedule)
    made = json.loads(json.dumps(trace(played.run, played.costs, played.causes), allow_nan=False))
    assert broken_rules(made) == []
    shown = [event for event in made["traceEvents"] if event["ph"] == "X"]
    actions = sum(map(len, played.run.order.actions))
    assert sum(event["cat"] not in ("bubble", "send") for event in shown) == actions
    assert {event["pid"] for event in shown} == set(range(WAN.stages))


def test_the_checker_of_traces_sees_what_is_wrong():
    name = [{"name": n, "ph": "M", "pid": 0, "tid": 0, "args": {"name": "x"}} for n in ("process_name", "thread_name")]

    def event(ts, dur, **other):
        return {"name": "F", "ph": "X", "ts": ts, "dur": dur, "pid": 0, "tid": 0} | other

    def broken(*events):
        return broken_rules({"traceEvents": [*name, *events], "displayTimeUnit": "ms"})

    assert broken(event(0, 5), event(5, 5), event(6, 2)) == []
    assert "overlap" in broken(event(0, 5), event(4, 5))[0]
    assert "no name" in broken(event(0, 5, tid=1))[0]
    assert all(map(broken, (event(0, -1), event(0, 1, name=""), event(0, 1, ph="Y"))))


@quick
@given(
    st.sampled_from(TRAINING),
    st.sampled_from([2, 4]),
    st.integers(2, 4),
    st.floats(0.5, 3.0),
    st.floats(0.0, 2.0),
    st.floats(0.0, 3.0),
    st.sampled_from([0.0, 2.0]),
    st.booleans(),
)
def test_work_and_waits_of_a_stage_fill_the_step_exactly(
    schedule, stages, rounds, backward, hop, head, optimizer, together
):
    links = (hop,) * (stages - 1)
    pipe = Pipeline(stages, rounds * stages, 1.0, backward, 2, links_s=links, layers=9, head=head)
    played = play(replace(pipe, optimizer_s=optimizer, synchronised=together), schedule)
    run, costs = played.run, played.costs
    step = float(run.step_s)
    drawn = (*work(run), *updates(run, costs), *waits(run, costs, played.causes))
    pieces = [(w.stage, w.start_s, w.end_s) for w in drawn]
    for stage in range(stages):
        spans = sorted({(start, end) for at, start, end in pieces if at == stage and end - start > 1e-6 * step})
        assert spans[-1][1] - spans[0][0] == pytest.approx(step)
        assert not together or spans[0][0] == pytest.approx(0.0, abs=1e-5 * step)
        assert all(a[1] == pytest.approx(b[0], abs=1e-5 * step) for a, b in pairwise(spans))


@pytest.mark.parametrize("schedule", TRAINING)
def test_waits_by_cause_add_up_to_the_causes_of_each_stage(schedule):
    played = play(WAN, schedule)
    told = defaultdict(float)
    for wait in waits(played.run, played.costs, played.causes):
        told[wait.stage, wait.cause] += wait.end_s - wait.start_s
    step = float(played.run.step_s)
    for stage in range(WAN.stages):
        due = {name: max(float(seconds[stage]), 0.0) for name, seconds in played.causes.items()}
        shrink = float(played.run.idle_s[stage]) / sum(due.values())
        for name, seconds in due.items():
            assert told[stage, name] == pytest.approx(shrink * seconds, abs=1e-4 * step)


def test_a_message_leaves_when_its_sender_is_done_and_takes_its_link():
    played = play(WAN, "1f1b")
    done = {(w.stage, w.kind, w.microbatch): w.end_s for w in work(played.run)}
    sent = messages(played.run, played.costs)
    assert len(sent) == 2 * 7 * WAN.microbatches
    for m in sent:
        assert m.start_s == done[m.sender, "B" if m.gradients else "F", m.microbatch]
        assert m.end_s - m.start_s == pytest.approx(WAN.links[min(m.sender, m.receiver)])
        assert m.receiver - m.sender == (-1 if m.gradients else 1)


def parsed(drawing):
    return ElementTree.fromstring(drawing)  # noqa: S314 (our own text)


def text_boxes(drawing):
    boxes = []
    for text in parsed(drawing).iter(f"{SVG}text"):
        kind = text.get("class").split()[0]
        if kind == "in":
            continue
        width = width_of(text.text or "", kind)
        left = float(text.get("x")) - {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor")] * width
        bottom = float(text.get("y"))
        boxes.append((left, bottom - SIZES[kind], left + width, bottom, text.text))
    return boxes


@pytest.mark.parametrize(
    "pipe",
    [
        Pipeline(4, 8, 0.01, 0.02, 2, links_s=(1e-3,) * 3),
        Pipeline(16, 64, 0.01, 0.02, 2, links_s=(1e-5,) * 7 + (1e-2,) + (1e-5,) * 7),
        Pipeline(64, 64, 0.01, 0.02, 2),
        Pipeline(1, 3, 0.01, 0.02, 2),
    ],
    ids=["small", "wan", "many stages", "one stage"],
)
def test_no_text_of_a_drawing_lies_over_another(pipe):
    played = [play(pipe, name) for name in ("1f1b", "interleaved") if pipe.stages > 1] or [play(pipe, "1f1b")]
    drawing = gantt_svg([panel(each, pipe) for each in played], "title", "note")
    root = parsed(drawing)
    width, height = float(root.get("width")), float(root.get("height"))
    boxes = text_boxes(drawing)
    assert boxes
    assert [b for b in boxes if b[0] < 0 or b[2] > width or b[3] > height] == []
    over = [
        (a[4], b[4])
        for a, b in combinations(boxes, 2)
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] - 1.5 and b[1] < a[3] - 1.5
    ]
    assert over == []


def test_a_drawing_shows_every_kind_of_work_and_cause_and_the_slow_link():
    played = play(WAN, "zb-h1")
    drawing = gantt_svg([panel(played)], "title")
    texts = [box[4] for box in text_boxes(drawing)]
    assert {"waits: fill", "waits: hop latency", "waits: imbalance", "gradient of weights (W)", "10 ms"} <= set(texts)
    fills = re.findall(r"stroke:(#[0-9a-f]{6})", drawing)
    assert {CAUSES["hop latency"], WORK["F"], WORK["W"]} <= set(fills)


def test_an_overlapped_pair_takes_half_a_row_each():
    played = play(Pipeline(4, 8, 0.01, 0.02), "dualpipe")
    paired = [w for w in work(played.run) if w.paired]
    assert {w.kind for w in paired} == {"F", "B"}
    starts = defaultdict(list)
    for w in paired:
        starts[w.stage, w.start_s].append(w.kind)
    assert all(sorted(kinds) == ["B", "F"] for kinds in starts.values())


def test_the_committed_drawing_is_what_the_example_draws():
    examples = Path(__file__).parents[2] / "examples"
    drawn = runpy.run_path(str(examples / "pipeline_wan.py"))["drawing"]()
    remedy = "if the change is meant: python examples/pipeline_wan.py examples/pipeline_wan.svg"
    assert drawn == (examples / "pipeline_wan.svg").read_text(encoding="utf-8"), remedy


def test_a_stage_that_waits_for_no_optimizer_waits_between_its_own_first_and_last_action():
    pipe = Pipeline(4, 8, 1.0, 2.0, synchronised=False)
    played = play(pipe, "zb-h2")
    assert waits(played.run, played.costs, played.causes) == []
    played = play(pipe, "1f1b")
    found = waits(played.run, played.costs, played.causes)
    for stage in range(4):
        mine = sum(wait.end_s - wait.start_s for wait in found if wait.stage == stage)
        assert mine == pytest.approx(float(played.run.idle_s[stage]))


# --- the command --------------------------------------------------------------------------------------------------

STAGES = [
    "pipeline",
    "--stages",
    "16",
    "--microbatches",
    "64",
    "--forward",
    "10ms",
    "--backward",
    "20ms",
    "--hop",
    "10us",
]


def test_the_command_tells_the_bubble_by_cause(capsys):
    assert main([*STAGES, "--slow-hop", "8:10ms", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (row,) = document["rows"]
    assert row["step_time_s"] == pytest.approx(sum(row["terms"].values()))
    assert row["terms"]["work"] == pytest.approx(64 * 0.03)
    assert row["peak_in_flight"] == 16
    assert [stage["in_flight"] for stage in row["stages"]] == list(range(16, 0, -1))
    hops = SCHEDULES["1f1b"].bubble_s(16, 64, 1, 0.01, 0.02, 0.01) - SCHEDULES["1f1b"].bubble_s(
        16, 64, 1, 0.01, 0.02, 0
    )
    assert 0.25 < row["terms"]["hop latency"] < float(hops)
    assert any("round trip" in line for line in document["advice"])


def test_the_command_compares_all_schedules_and_places_61_layers(capsys):
    assert main([*STAGES, "--schedule", "all", "--layers", "61", "--head", "1.5", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["schedule"] for row in document["rows"]} | {row["schedule"] for row in document["skipped"]} == set(
        TRAINING
    )
    assert document["rows"][0]["placement"].startswith("16 stages: embedding + ")
    assert main([*STAGES, "--schedule", "all", "--layers", "61"]) == 0
    assert "Layers: 16 stages" in capsys.readouterr().out


def test_the_command_writes_a_trace_and_a_drawing(tmp_path, capsys):
    target, drawing = tmp_path / "t.json", tmp_path / "d.html"
    assert main([*STAGES, "--trace", str(target), "--draw", str(drawing)]) == 0
    assert broken_rules(json.loads(target.read_text(encoding="utf-8"))) == []
    assert "<svg" in drawing.read_text(encoding="utf-8")
    assert str(target) in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--slow-hop", "16:1ms"], "names no stage from 1 to 15"),
        (["--slow-hop", "8:fast"], "is not a quantity"),
        (["--schedule", "1f2b"], "choose one of"),
        (["--weight", "21ms"], "is part of the backward"),
        (["--hop", "10 parsecs"], "not a unit of seconds"),
        (["--trace", "x.json", "--schedule", "all"], "holds one schedule"),
        (["--draw", "x.png"], "end it in .svg or .html"),
        (["--layout", "Ett|ttL"], "virtual stages"),
        (["--draw", "/nowhere/x.svg"], "cannot be written"),
    ],
)
def test_a_wrong_flag_of_the_pipeline_is_said(flags, told, capsys):
    assert main([*STAGES, *flags]) == 2
    assert told in capsys.readouterr().err.replace("\n", " ")


def test_causes_of_a_played_schedule_are_those_of_the_executor():
    played = play(WAN, "1f1b")
    again = causes(played.run.order, played.costs)
    np.testing.assert_array_equal(again["hop latency"], played.causes["hop latency"])
    np.testing.assert_array_equal(execute(played.run.order, played.costs).idle_s, played.run.idle_s)
