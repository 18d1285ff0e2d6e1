"""The command `explain`: plain words first, then tables; JSON in full; errors with the way out."""

import json
from pathlib import Path
from typing import Any

import pytest

from podscale.commands.explain import explain
from podscale.commands.scenario import serve, train
from podscale.explainwords import of_lines, value_said
from topo.errors import SpecError

Capture = pytest.CaptureFixture[str]
SCENARIOS = Path(__file__).parents[2] / "examples" / "scenarios"
H800 = str(SCENARIOS / "deepseek-v3-decode-h800.yaml")
LLAMA = str(SCENARIOS / "llama-405b-h100.yaml")
POOLS = str(SCENARIOS / "old-with-new.yaml")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def shown(capsys: Capture, result: str, row: str | None = None, **flags: Any) -> str:
    explain(result, row, **flags)
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_json_holds_terms_with_equation_inputs_source_interval_and_advice(capsys: Capture) -> None:
    document = json.loads(shown(capsys, H800, as_json=True))
    assert {"said", "terms", "memory", "bottleneck", "advice", "tried", "interval", "warnings", "point"} <= set(
        document
    )
    for term in document["terms"]:
        assert {"name", "seconds", "share", "busy_s", "equation", "inputs", "source", "note", "interval"} <= set(term)
    assert {"term", "link", "nodes", "bandwidth_Bps", "load"} <= set(document["bottleneck"])
    assert document["result"] == H800


def test_plain_words_come_before_numbers(capsys: Capture) -> None:
    out = shown(capsys, H800)
    assert out.index("Every output token of deepseek-v3 takes") < out.index("Where the time goes")
    places = [out.index(title) for title in ("Where the time goes", "Wires under", "Memory of one", "What would help")]
    assert places == sorted(places)
    assert "nic – leaf" in out


def test_a_training_step_is_explained_too(capsys: Capture) -> None:
    out = shown(capsys, LLAMA)
    assert "One training step of llama-3.1-405b takes" in out
    assert "(p − 1)·(F + B)/v" in out
    assert "90 % interval of the step" in out


def test_all_shows_every_change_and_why_not(capsys: Capture) -> None:
    out = shown(capsys, H800, everything=True)
    assert "All that was tried" in out
    assert "breaks the rule" in out


def test_one_term_alone_shows_every_input_and_operator(capsys: Capture) -> None:
    out = shown(capsys, H800, term="attention")
    assert "absorb k" in out
    assert "Where the time goes" not in out
    assert "Source: " in out


def test_a_misspelt_term_gets_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean attention"):
        explain(H800, term="atention")


def test_rows_of_a_result_are_listed_unless_quiet(capsys: Capture) -> None:
    assert "Rows of this result: 0 (prefill), 1 (decode)" in shown(capsys, POOLS)
    assert "Rows of this result" not in shown(capsys, POOLS, "prefill", quiet=True)


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(SpecError, match="No such file"):
        explain("nothing.json")


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [(None, "s", "∞"), ([1.0, 2.0], "", "1, 2"), (250e6, "B", "250 MB"), (2.0, "B", "2 B"), (0.5, "", "0.5")],
)
def test_inputs_are_written_with_their_units(value: object, unit: str, said: str) -> None:
    assert value_said(value, unit) == said


def test_what_an_input_is_made_of_is_told_in_words() -> None:
    told = {"expert rows": {"size_bytes": 1e6, "members": [2.0]}, "modules": ["core_attn"], "per half": "2 all-reduces"}
    assert list(of_lines(told)) == [
        "expert rows: 1 MB, 2 members by tier",
        "modules core_attn",
        "per half 2 all-reduces",
    ]


# --- traces -------------------------------------------------------------------------------------------------------


def traced(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    made = json.loads(path.read_text(encoding="utf-8"))
    return made["otherData"], [event for event in made["traceEvents"] if event["ph"] == "X"]


def test_a_decode_iteration_is_traced_to_its_last_microsecond(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "made" / "decode.json"
    serve(H800, trace=path, as_json=True)
    document = json.loads(capsys.readouterr().out)
    about, events = traced(path)
    assert document["trace"] == str(path)
    assert max(event["ts"] + event["dur"] for event in events) / 1e6 == pytest.approx(document["tpot_s"], rel=1e-6)
    assert {event["cat"] for event in events} == {"compute", "communication"}
    assert "decode on 144 H800" in about["title"]


def test_a_training_step_is_traced_stage_by_stage_and_says_how_far_it_is_from_its_price(
    tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "step.json"
    train(LLAMA, trace=path, as_json=True)
    document = json.loads(capsys.readouterr().out)
    about, events = traced(path)
    assert len({event["pid"] for event in events}) == 16
    assert about["priced_s"] == document["step_time_s"]
    assert about["step_s"] == pytest.approx(about["priced_s"], rel=0.02)


@pytest.mark.parametrize(
    ("scenario", "flags", "problem"),
    [
        (H800, {"trace": Path("step.svg")}, "end it in .json"),
        (H800, {"trace": Path("step.json"), "limit": "communication"}, "leave out one"),
        (POOLS, {"trace": Path("step.json")}, "write pool and phase"),
        (H800, {"trace": Path("/proc/no/step.json")}, "cannot be written"),
    ],
)
def test_a_trace_that_cannot_be_is_refused(scenario: str, flags: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        serve(scenario, **flags)


def test_a_deployment_under_an_engine_is_explained_by_its_terms_and_by_changes_simulated_again(
    tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "engine.yaml"
    path.write_text(
        "model: llama-3.1-8b\ncluster: hgx-h100\nengine: vllm\nload: {clients: 4, requests: 16}\n"
        "workload: {isl: 512, osl: 64, precision: fp8}\nstrategy: {tp: 2}\n",
        encoding="utf-8",
    )
    out = shown(capsys, str(path))
    assert "Every output token of llama-3.1-8b under vllm takes" in out
    for title in ("Where the time goes", "Memory of one accelerator", "What would help, cheapest first"):
        assert title in out
    assert "90 % interval of the time per token" in out
    assert "starts" in shown(capsys, str(path), term="starts")
    document = json.loads(shown(capsys, str(path), as_json=True))
    assert {"terms", "advice", "tried", "bottleneck", "interval", "memory", "row"} <= set(document)


def test_a_figure_of_a_deployment_under_an_engine_has_no_elasticity_and_says_what_to_ask() -> None:
    from podscale.commands.sensitivity import sensitivity

    with pytest.raises(SpecError, match="podscale explain tells its terms and simulates changes"):
        sensitivity(str(SCENARIOS / "llama-70b-vllm.yaml"))
