"""Two documents: the terms of a change add up to it, rows find each other, limits kept and broken are told."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.questions.difference import difference, rows_of, terms
from topo.errors import SpecError

names = st.sampled_from(["experts", "ep", "attention", "bubble", "dp"])
rows_with_terms = st.builds(
    lambda rate, held: {"tokens_per_s_per_gpu": rate, "terms": held},
    st.floats(0.1, 1e4),
    st.dictionaries(names, st.floats(1e-6, 10.0), min_size=1),
)


def row(phase: str, domain: int, rate: float, **more: Any) -> dict[str, Any]:
    made = {"phase": phase, "domain": domain, "tokens_per_s_per_gpu": rate, "terms": {"experts": 1.0, "ep": 1.0}}
    return {**made, "strategy": {"ep": 8}, **more}


@settings(max_examples=60, deadline=None)
@given(rows_with_terms, rows_with_terms)
def test_the_changes_of_the_terms_add_up_to_the_change_of_the_time(one: dict[str, Any], other: dict[str, Any]) -> None:
    found = terms(one, other)
    whole = 1.0 / other["tokens_per_s_per_gpu"] - 1.0 / one["tokens_per_s_per_gpu"]
    assert sum(each["change"] for each in found) == pytest.approx(whole, rel=1e-6, abs=1e-9)
    shares = [each["share"] for each in found]
    assert None in shares or sum(shares) == pytest.approx(1.0, abs=1e-4)
    assert {each["term"] for each in found} == {*one["terms"], *other["terms"]}


def test_a_document_against_itself_has_not_changed() -> None:
    document = {"workload": {"isl": 1}, "rows": [row("train", 8, 10.0), row("train", 72, 12.0)]}
    found = difference(document, document)
    assert found["inputs"] == []
    assert [each["ratio"] for each in found["rows"]] == [1.0, 1.0]
    assert found["answer"] == "The same was asked. No rate changed."


def test_rows_find_each_other_by_what_tells_them_apart() -> None:
    a = {"workload": {"nic": 1}, "rows": [row("train", 8, 10.0), row("decode", 8, 5.0), row("train", 72, 9.0)]}
    b = {"workload": {"nic": 2}, "rows": [row("decode", 8, 5.0), row("train", 8, 5.0), row("train", 576, 9.0)]}
    found = difference(a, b)
    assert {tuple(each["row"].values()): each["ratio"] for each in found["rows"]} == {
        ("train", 8): 0.5,
        ("decode", 8): 1.0,
    }
    assert found["only"] == {"a": [{"phase": "train", "domain": 72}], "b": [{"phase": "train", "domain": 576}]}
    assert found["inputs"] == [{"field": "workload.nic", "a": 1, "b": 2}]
    assert "1 rows are only in the first, 1 only in the second" in found["answer"]


def test_a_row_that_stops_to_run_says_why() -> None:
    a = {"rows": [row("decode", 8, 10.0)]}
    b = {"rows": [row("decode", 8, 0.0, infeasible="TPOT limit of 5 ms cannot be met")]}
    (found,) = difference(a, b)["rows"]
    assert found["feasibility"] == "runs no more: TPOT limit of 5 ms cannot be met"
    assert (found["ratio"], found["terms"]) == (None, [])
    (back,) = difference(b, a)["rows"]
    assert back["feasibility"].startswith("runs now; before: TPOT limit")


def test_two_single_answers_are_compared_whatever_they_are_called() -> None:
    one = {**row("decode", 8, 10.0), "name": "one", "model": "m", "workload": {"isl": 1}}
    two = {**row("decode", 8, 20.0), "name": "two", "model": "m", "workload": {"isl": 2}, "strategy": {"ep": 16}}
    found = difference(one, two)
    (only,) = found["rows"]
    assert only["ratio"] == 2.0
    assert only["strategy"] == {"ep": [8, 16]}
    assert {each["field"] for each in found["inputs"]} >= {"name", "workload.isl"}
    assert "2 times the rate" in found["answer"]


def test_pools_are_rows() -> None:
    assert len(rows_of({"pools": {"prefill": row("prefill", 8, 1.0), "decode": row("decode", 72, 1.0)}})) == 2


@pytest.mark.parametrize("document", [{"error": {"message": "broken"}}, {"accelerators": 8}])
def test_what_holds_no_rows_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        difference(document, document)


def test_winners_of_a_sweep_are_matched_by_group_and_place_and_say_what_they_won_on() -> None:
    def winner(place: int, nic: str, rate: float) -> dict[str, Any]:
        point = {"cluster": {"scale_out": {"nic": nic}}, "strategy": {"ep": 8.0}}
        return {**row("decode", 8, rate), "group": {"phase": "decode"}, "place": place, "point": point}

    a, b = ({"best": [winner(1, nic, rate), winner(2, nic, 1.0)]} for nic, rate in (("400Gb/s", 2.0), ("800Gb/s", 3.0)))
    found = difference(a, b)
    assert [each["row"] for each in found["rows"]] == [{"phase": "decode", "place": place} for place in (1, 2)]
    assert [each["ratio"] for each in found["rows"]] == [1.5, 1.0]
    assert found["inputs"] == [{"field": "cluster.scale_out.nic", "a": "400Gb/s", "b": "800Gb/s"}]
