"""The account of a deployment under an engine: its terms on their inputs, and changes that are simulated again."""

import json
from pathlib import Path
from typing import Any

import pytest

from parallel.explain.answered import explain_answer, read_answer
from parallel.explain.served import EQUATIONS, Asked, explain_served, read_served
from parallel.scenario import serve
from topo.errors import SpecError

SCENARIOS = Path(__file__).parents[3] / "examples" / "scenarios"
Told = tuple[Path, Asked, dict[str, Any]]
DENSE = """
model: llama-3.1-8b
cluster: hgx-h100
engine: vllm
load: {clients: 8, requests: 32}
workload: {isl: 512, osl: 128, precision: fp8}
strategy: {tp: 2}
"""
ROUTED = """
model: deepseek-v3
cluster: hgx-b200
engine: sglang
load: {requests_per_s: 3, requests: 30}
workload: {isl: 512, osl: 64, precision: fp8, ttft_s: 2.0, tpot_s: 0.1}
strategy: {tp: 1, ep: 8}
"""


STAGED = """
model: deepseek-v3
cluster: hgx-h200
accelerators: 16
engine: vllm
load: {clients: 24, requests: 48}
workload: {isl: 512, osl: 64, precision: fp8, zipf: 0.5}
strategy: {tp: 8, ep: 8, pp: 2, dcp: 4}
"""
DRAFTED = """
model: deepseek-v3
cluster: hgx-h200
engine: sglang
load: {clients: 8, requests: 32}
workload: {isl: 512, osl: 64, precision: fp8}
drafts: {tokens: 2, acceptance: 0.8}
strategy: {tp: 8, ep: 8}
"""
NAMED = {"clients": DENSE, "requests at a rate": ROUTED, "stages": STAGED, "drafts": DRAFTED}


@pytest.fixture(scope="module", params=[*NAMED.values()], ids=[*NAMED])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    path = tmp_path_factory.mktemp("served") / "scenario.yaml"
    path.write_text(request.param, encoding="utf-8")
    asked = read_served(path)
    assert asked is not None
    return path, asked, explain_served(asked)


def test_the_account_is_of_what_serve_answers(told: Told) -> None:
    path, _, document = told
    answer = serve(path)
    assert document["seconds"] == answer["tpot_s"]
    assert document["row"]["terms"] == answer["terms"]
    assert document["interval"] == answer["interval"]
    assert json.loads(json.dumps(document, allow_nan=False))["engine"] == answer["engine"]


def test_terms_add_up_and_every_equation_gives_its_term_on_its_stated_inputs(told: Told) -> None:
    terms = told[2]["terms"]
    assert sum(term["seconds"] for term in terms) == pytest.approx(told[2]["seconds"], rel=1e-9)
    for term in terms:
        assert term["computed_s"] == pytest.approx(term["seconds"], rel=1e-9), term["name"]
        assert term["equation"]
        assert term["source"]
        assert all(symbol["meaning"] for symbol in term["inputs"].values())


def test_linear_layers_are_listed_operator_by_operator(told: Told) -> None:
    linear = next(term for term in told[2]["terms"] if term["name"] == "linear")
    listed = sum(row["seconds"] for row in linear["operators"])
    listed += sum(row["times"] * row["seconds"] for row in linear["collectives"])
    factor = linear["inputs"]["f"]["value"]
    assert factor * listed == pytest.approx(linear["seconds"], rel=0.02)  # between two priced token counts


def test_every_term_of_an_engine_has_an_equation() -> None:
    asked = read_served(SCENARIOS / "llama-70b-vllm.yaml")
    assert asked is not None
    assert set(asked.answer["terms"]) == set(EQUATIONS) - {"dcp", "hops", "uneven stages", "drafts"}


def test_a_document_is_explained_by_its_own_terms(told: Told, tmp_path: Path) -> None:
    path, _, whole = told
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(serve(path)), encoding="utf-8")
    answer = read_answer(file)
    assert answer is not None
    document = explain_answer(answer)
    assert set(document) >= set(whole) - {"gain_of"}
    for name in ("name", "seconds", "share", "equation", "source"):
        assert [term[name] for term in document["terms"]] == [term[name] for term in whole["terms"]]
    assert document["memory"] == whole["memory"]
    assert document["said"][0] == whole["said"][0]
    assert "give the scenario" in document["said"][-1]
    older = {key: value for key, value in answer.items() if key not in ("accelerator", "memory_capacity_bytes")}
    assert explain_answer(older)["terms"] == document["terms"]


def test_other_files_are_no_answer_of_an_engine(tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    file.write_text(json.dumps({"engine": "none", "terms": {}}), encoding="utf-8")
    assert read_answer(file) is None
    assert read_answer(SCENARIOS / "llama-70b-vllm.yaml") is None


def test_the_largest_term_is_the_bottleneck_and_is_said_in_words(told: Told) -> None:
    document = told[2]
    assert document["bottleneck"]["term"] == document["terms"][0]["name"]
    assert "Most of a token's time" in document["said"][1]
    assert document["bottleneck"]["link"] in {"nvlink4", "nvlink5"}


def test_advice_is_what_the_changed_scenario_answers_cheapest_kind_first(told: Told) -> None:
    path, _, document = told
    kinds = [row["kind"] for row in document["tried"]]
    assert kinds == sorted(kinds, key=["strategy", "software", "hardware"].index)
    assert 1 <= len(document["advice"]) <= 3
    split = next(
        row for row in document["tried"] if row["kind"] == "strategy" and row["change"] == "tp" and row["gain"]
    )
    text = path.read_text(encoding="utf-8")
    old, new = (f"tp: {word}" for word in (split["said"].split()[4], split["said"].split()[1]))
    changed = path.with_name("changed.yaml")
    changed.write_text(text.replace(old, new), encoding="utf-8")
    assert serve(changed)["tokens_per_s_per_gpu"] == pytest.approx(split["tokens_per_s_per_gpu"])


def test_gains_are_of_tokens_under_clients_and_of_speed_at_a_rate(told: Told) -> None:
    _, asked, document = told
    closed = asked.file.load.clients is not None
    assert document["gain_of"] == ("tokens/s" if closed else "speed of whole answers")
    row = next(row for row in document["tried"] if row["gain"])
    if closed:
        assert row["gain"] == pytest.approx(row["tokens_per_s_per_gpu"] / document["tokens_per_s_per_gpu"] - 1.0)


def test_what_cannot_be_says_why(told: Told) -> None:
    for row in told[2]["tried"]:
        assert row["feasible"] == (row["reason"] is None)
        assert not row["helps"] or row["feasible"]


@pytest.mark.parametrize("name", ["llama-70b-serve.yaml", "llama-405b-h100.yaml"])
def test_other_scenarios_are_none_of_these(name: str) -> None:
    assert read_served(SCENARIOS / name) is None


def test_a_wrong_scenario_is_refused_with_every_fault(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("engine: vllm\nmodel: llama-3.1-8b\ncluster: hgx-h100\nload: {clients: 0}\nworkload: {isl: -1}\n")
    with pytest.raises(SpecError) as caught:
        read_served(path)
    assert len(caught.value.faults) >= 2
