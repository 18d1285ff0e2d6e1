"""Every claim is complete, runs, and has the verdict that its numbers give; the source's slips are shown."""

from typing import Any

import pytest

from parallel.claims import CHARTS, CLAIMS, DETAILS, ITEMS, claim, claims, find, most, prices, row_of, verdict
from parallel.claims.claim import RELATIONS, Claim, Input, curve, sensitivity
from topo.errors import SpecError

VERDICTS = ("holds", "holds on these parts only", "does not hold")


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """All rows, run once."""
    return {row["id"]: row for row in claims()["rows"]}


def within(row: dict[str, Any], value: float | None) -> bool:
    """Say again, by the printed numbers alone, whether a value is what the source says."""
    if value is None:
        return False
    low, high = row["expected"] / row["tolerance"], row["expected"] * row["tolerance"]
    return bool({"about": low <= value <= high, "at least": value >= low, "at most": value <= high}[row["relation"]])


def test_every_part_of_the_blackboard_has_a_claim() -> None:
    assert {one.item for one in CLAIMS.values()} == set(ITEMS) == set(range(1, 21))
    assert len(CLAIMS) >= 20


@pytest.mark.parametrize("one", CLAIMS.values(), ids=list(CLAIMS))
def test_a_claim_says_where_it_stands_and_what_it_assumes(one: Claim) -> None:
    assert ", " in one.source
    assert one.text.endswith(".")
    assert all((one.quantity, one.unit, one.inputs))
    assert one.relation in RELATIONS
    assert one.tolerance >= 1.0
    assert len({held.name for held in one.inputs}) == len(one.inputs)
    assert not one.over[0] or one.over[0] in {held.name for held in one.inputs}
    assert all(held.says for held in one.inputs if held.dimension in ("", "seconds"))


def test_every_verdict_follows_from_the_numbers(rows: dict[str, dict[str, Any]]) -> None:
    for row in rows.values():
        agreed = [within(row, case["full"]) for case in row["cases"]] or [within(row, row["full"])]
        expected = VERDICTS[0] if all(agreed) else VERDICTS[1] if any(agreed) else VERDICTS[2]
        assert row["verdict"] == expected, row["id"]
        assert row["computed"] == row["full"]


def test_every_row_has_a_simple_answer_and_nearly_every_one_a_full_one(rows: dict[str, dict[str, Any]]) -> None:
    assert not [row["id"] for row in rows.values() if row["simple"] is None]
    assert not [row["id"] for row in rows.values() if row["full"] is None]


def test_some_claims_hold_some_in_part_and_some_do_not(rows: dict[str, dict[str, Any]]) -> None:
    assert {row["verdict"] for row in rows.values()} == set(VERDICTS)


def test_a_row_shows_the_case_of_its_own_inputs(rows: dict[str, dict[str, Any]]) -> None:
    for row in rows.values():
        own = [case for case in row["cases"] if case["value"] == row["inputs"][row["over"]]]
        assert not row["cases"] or (own[0]["simple"], own[0]["full"]) == (row["simple"], row["full"]), row["id"]


def test_a_claim_that_holds_in_part_names_where(rows: dict[str, dict[str, Any]]) -> None:
    for row in rows.values():
        if row["verdict"] == VERDICTS[1]:
            held = [case["case"] for case in row["cases"] if case["holds"]]
            assert all(name in row["note"] for name in held), row["id"]


@pytest.mark.parametrize(
    ("name", "expected", "simple"),
    [
        ("active-experts", 8.0, 32.0),  # 8 of 256, not 32 of 256
        ("trains-per-second", 64.0, 50.0),  # 64 a second is one per 15.6 ms, not 20
        ("cache-per-token", 1800.0, 2048.0),  # 2 kB is one layer's
    ],
)
def test_the_slips_of_the_source_are_shown(
    rows: dict[str, dict[str, Any]], name: str, expected: float, simple: float
) -> None:
    row = rows[name]
    assert (row["expected"], row["simple"], row["verdict"]) == (expected, simple, "does not hold")
    assert "slip of the source" in row["note"]


def test_the_lectures_rule_with_deepseeks_own_experts() -> None:
    assert row_of(find("optimal-batch"), {"active_experts": "8"})["simple"] == 9600.0


def test_an_input_is_read_with_its_unit() -> None:
    row = row_of(find("train-interval"), {"accelerator": "gb200", "hbm_bandwidth": "16TB/s"})
    assert row["inputs"]["hbm_bandwidth"] == 1.6e13
    assert row["simple"] == pytest.approx(186e9 / 1.6e13)


def test_a_chosen_case_is_the_only_one() -> None:
    row = row_of(find("train-interval"), {"accelerator": "mi325x"})
    assert [case["case"] for case in row["cases"]] == ["mi325x"]
    assert row["simple"] == pytest.approx(0.0427, rel=1e-2)


def test_defaults_follow_from_the_inputs_before_them() -> None:
    old, new = (find("train-interval").values({"accelerator": part}) for part in ("a100", "rubin"))
    assert old["hbm_bandwidth"] < new["hbm_bandwidth"]


@pytest.mark.parametrize(
    "given",
    [{"hbm_bandwith": 1e12}, {"hbm_bandwidth": "8 TB"}, {"hbm_bandwidth": "fast"}],
    ids=["misspelt", "bytes", "word"],
)
def test_a_wrong_input_says_which(given: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="hbm_bandwi"):
        claim("train-interval", given)


def test_a_fleet_is_whole_domains() -> None:
    with pytest.raises(SpecError, match="multiple of 8"):
        claim("pass-time", {"accelerator": "h100", "accelerators": 71, "batch": 2400})


def test_a_name_that_nothing_has_is_refused() -> None:
    with pytest.raises(SpecError, match="fast-mode"):
        find("fastmode")
    with pytest.raises(SpecError, match="deepseek-v3"):
        claim("active-experts", {"model": "deepseek-v33"})
    with pytest.raises(SpecError, match="is an input of no claim"):
        claims({"colour": "red"})


def test_every_claim_moves_with_an_input(rows: dict[str, dict[str, Any]]) -> None:
    """By its cases, which differ in one input; where they do not, by one of its numbers."""
    for name, row in rows.items():
        answers = {(case["simple"], case["full"]) for case in row["cases"]}
        if len(answers) < 2:
            moved = sensitivity(CLAIMS[name])
            assert any(one["simple"] or one["full"] for one in moved) or len(CLAIMS[name].inputs) == 1, name


def test_elasticities_are_those_of_the_formula() -> None:
    toy = Claim(
        "toy", 1, "A toy.", "Nowhere, at all", "y", "times", 1.0, "about", 1.1,
        (Input("a", 2.0), Input("b", 3.0)), lambda v: v["a"] ** 2 / v["b"], lambda v: v["a"],
    )  # fmt: skip
    moved = {row["input"]: row for row in sensitivity(toy)}
    assert moved["a"]["simple"] == pytest.approx(2.0, rel=1e-6)
    assert moved["b"]["simple"] == pytest.approx(-1.0, rel=1e-6)
    assert (moved["a"]["full"], moved["b"]["full"]) == (pytest.approx(1.0), 0.0)
    drawn = curve(toy)
    assert drawn is not None
    assert (drawn["input"], drawn["points"][0]["x"], drawn["points"][-1]["x"]) == ("a", 0.5, 8.0)


def test_a_verdict_over_cases() -> None:
    assert [verdict([True]), verdict([True, False]), verdict([False, False])] == list(VERDICTS)


@pytest.mark.parametrize("name", DETAILS)
def test_a_claim_with_tables_has_their_rows(name: str) -> None:
    values = find(name).values()
    for title, table in DETAILS[name].items():
        rows = table(values)
        assert rows, title
        assert all(row.keys() == rows[0].keys() for row in rows)


@pytest.mark.parametrize("name", CHARTS)
def test_a_claim_with_a_chart_has_its_lines(name: str) -> None:
    chart = CHARTS[name](find(name).values()).document()
    assert len(chart["lines"]) >= 2
    for line in chart["lines"]:
        xs, ys = zip(*line["points"], strict=True)
        assert list(xs) == sorted(xs)
        assert min(ys) > 0


def test_costs_fall_from_one_generation_to_the_next_and_rise_with_speed() -> None:
    rows = DETAILS["api-price"]["cost of a million tokens at three interactivities"](find("api-price").values())
    assert {row["speed"] for row in rows} == {20.0, 50.0, 100.0}
    by_part = {part: [row for row in rows if row["part"] == part] for part in ("h100-sxm", "gb200", "rubin-vr200")}
    for held in by_part.values():
        known = [row["output_usd"] for row in held if row["output_usd"] is not None]
        assert known == sorted(known)
    assert [held[0]["input_usd"] for held in by_part.values()] == sorted(
        (held[0]["input_usd"] for held in by_part.values()), reverse=True
    )


def test_a_listed_price_is_named() -> None:
    cheap, dear = (row_of(find("api-price"), {"listing": name}) for name in ("deepseek-night", "deepseek-2025-09"))
    assert cheap["inputs"]["output_price"] == 0.55
    assert cheap["full"] < dear["full"]
    with pytest.raises(SpecError, match="deepseek-night"):
        row_of(find("api-price"), {"listing": "deepseek-nigt"})


def test_the_priced_rates_are_near_what_others_measured() -> None:
    """H100 decode and GB200 prefill within a factor of two of published runs of the same model, at similar speeds."""
    v = find("api-price").values()
    measured = {row["measurement"]: row["rate"] for row in prices.measured(v)}
    priced = {(row["part"], row["speed"]): row for row in prices.costs(v)}
    assert 0.5 < priced["h100-sxm", 20.0]["output_rate"] / measured["sglang-h100-decode-2k"] < 2.0
    assert 0.5 < priced["gb200", 20.0]["input_rate"] / measured["sglang-gb200-prefill-fp8"] < 2.0


def test_a_document_has_all_tables_of_its_claim() -> None:
    assert [one["title"] for one in claim("leaked-cache")["details"]] == list(DETAILS["leaked-cache"])


def test_the_input_that_matters_most_is_named() -> None:
    document = claim("cheap-money")
    moved = {row["input"]: abs(row["full"]) for row in document["sensitivity"]}
    assert document["moves_most"]["input"] == max(moved, key=lambda name: moved[name])
    assert most([{"input": "a", "full": 0.0}, {"input": "b", "full": None}]) is None


def test_small_steps_without_a_price_become_doubles() -> None:
    moved = {row["input"]: row for row in sensitivity(find("api-price"))}
    assert moved["accelerators"]["full"] is not None  # 72 are one domain: 65 and 79 are none
