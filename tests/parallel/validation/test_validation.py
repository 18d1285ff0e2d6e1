"""The validation doors: the shipped file, anyone's own file, and figures that follow from the rows."""

import copy
import gzip
import json

import numpy as np
import pytest

from clusters import software
from clusters.build import build
from clusters.measurements import read_json
from clusters.software import training_constants, varied
from parallel.strategy import Columns
from parallel.training import footprint
from parallel.training.layer import TrainJob
from parallel.training.step import price
from parallel.validation import cases, scoring
from parallel.validation.sets import TARGETS, validate
from parallel.validation.training import carried, one_run, variances
from parallel.validation.training_rows import FOLDS, folds, rows_of
from topo.errors import SpecError

STEP_MEDIANS = {
    "BigScience": 3.9,
    "Korthikanti": 1.5,
    "MLPerf": 1.6,
    "Megatron-Bridge MoE": 7.3,
    "Megatron-Bridge dense": 4.0,
    "Mosaic": 3.1,
    "NeMo docs": 6.6,
    "SC21": 46.3,
    "SimuMax": 2.5,
    "Zero Bubble": 1.4,
    "dgxc": 2.2,
    "torchtitan": 4.5,
    "vTrain multi": 4.7,
    "vTrain single": 9.1,  # its simulator's output: `case_software.ASIDE`
}
MEMORY_MEDIANS = {"BigScience": 3.0, "SimuMax": 0.3, "Zero Bubble": 1.8, "torchtitan": 1.4}
"""Median errors as they stand, per cent: a change may not worsen one by more than a point unseen."""

FIGURES = ("n", "predicted", "skipped", "median_ape", "mean_ape", "p90_ape", "bias", "coverage", "width")


@pytest.fixture(scope="module")
def shipped():
    return read_json("training_cases.json")


@pytest.fixture(scope="module")
def training():
    return validate("training")


@pytest.fixture(scope="module")
def memory():
    return validate("memory")


@pytest.fixture
def own(shipped, tmp_path):
    """Write a file of a few cases and return its path; the name decides whether it is compressed."""

    def write(name, ids, change=None):
        chosen = [copy.deepcopy(case) for case in shipped["cases"] if case["id"] in ids]
        for case in chosen if change else ():
            change(case)
        text = json.dumps({**shipped, "cases": chosen}).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        return path

    return write


def test_every_shipped_case_is_a_row(training, shipped):
    assert [row["id"] for row in training["rows"]] == [case["id"] for case in shipped["cases"]]
    assert training["summary"]["n"] == len(shipped["cases"])


def test_every_row_is_predicted_or_skipped_for_a_reason_of_the_table(training, memory):
    for scored in (training, memory):
        for row in scored["rows"]:
            assert (row["predicted"] is None) == (row["skipped_because"] is not None)
            if row["skipped_because"]:
                assert row["skipped_because"].split(":")[0] in cases.SKIPS
            else:
                assert np.isfinite(row["predicted"])
                assert row["predicted"] > 0
                assert row["ape"] == pytest.approx(abs(row["predicted"] / row["measured"] - 1))


@pytest.mark.parametrize("set_name", TARGETS)
def test_document_holds_what_the_door_promises(set_name, training, memory):
    document = {"training": training, "memory": memory}[set_name]
    assert set(FIGURES) | {"macro_median_ape", "macro_p90_ape"} == set(document["summary"])
    assert all(set(figures) == set(FIGURES) for figures in document["groups"].values())
    assert {row["metric"] for row in document["rows"]} == {TARGETS[set_name].metric}
    named = {"id", "group", "model", "accelerator", "gpus", "precision", "interval", "interval_note"}
    assert all(named <= set(row) for row in document["rows"])
    json.dumps(document, allow_nan=False)


def test_figures_follow_from_the_rows(training):
    errors = [row["ape"] for row in training["rows"] if row["ape"] is not None]
    summary = training["summary"]
    assert summary["median_ape"] == pytest.approx(np.median(errors))
    assert summary["p90_ape"] == pytest.approx(np.quantile(errors, 0.9))
    medians = [g["median_ape"] for g in training["groups"].values() if g["predicted"]]
    assert summary["macro_median_ape"] == pytest.approx(np.mean(medians))
    assert sum(g["n"] for g in training["groups"].values()) == summary["n"]


def test_a_shipped_run_is_priced_with_constants_that_have_not_seen_it(training, shipped):
    rows = {row["id"]: row for row in training["rows"]}
    found = rows_of(shipped)
    parts = folds(found.cases)
    for part in range(FOLDS):
        fitted = varied(software.document()["constants"], software.document()["parts"][part])
        predicted = found.predicted_s(fitted)
        for at in np.flatnonzero(parts == part)[:5]:
            assert rows[found.cases[at]["id"]]["predicted"] == pytest.approx(predicted[at], rel=1e-12)


def test_releases_of_one_configuration_lie_in_one_part(shipped):
    found = rows_of(shipped).cases
    parts = dict(zip((case["id"] for case in found), folds(found).tolist(), strict=True))
    releases = [part for name, part in parts.items() if name.endswith("LLAMA3_70B_GB200_MXFP8_64")]
    assert len(releases) >= 3
    assert len(set(releases)) == 1


def test_all_constants_are_counted_fitted_and_frozen(training):
    constants = training["constants"]
    assert constants["fitted_to_these_rows"] == constants["training"] == len(software.document()["spread"])
    assert constants["training_frozen"] == len(software.document()["frozen"])
    assert constants["fitted"] == constants["kernels"] + constants["links"] + constants["training"]


def test_intervals_hold_most_measurements_and_come_from_other_sources(training):
    predicted = scoring.predicted_rows(training["rows"])
    assert all(row["interval"][0] <= row["predicted"] <= row["interval"][1] for row in predicted)
    assert 0.7 <= training["summary"]["coverage"] <= 1.0


def test_memory_readings_have_no_interval_and_say_why(memory):
    assert all(row["interval"] is None and row["interval_note"] for row in scoring.predicted_rows(memory["rows"]))


def test_leaving_a_source_out_and_giving_one_run_of_it_are_both_scored(training):
    left_out, given = training["leave_one_source_out"], training["one_run_given"]
    assert left_out["predicted"] == training["summary"]["predicted"]
    assert set(given["sources"]) <= {"Megatron-Bridge", *training["groups"]}
    assert 0.0 < given["median"] < 0.2
    assert all(0.0 <= share <= 1.0 for share in given["shares"].values())
    measured = [value for name, value in given["sources"].items() if name != "vTrain single"]  # its simulator's output
    assert given["median"] == pytest.approx(np.median(measured))


@pytest.mark.parametrize(("between", "within"), [(0.3, 0.05), (0.05, 0.1)])
def test_variances_between_and_within_sources_are_those_that_made_the_rows(between, within):
    draw = np.random.default_rng(7)
    sizes = draw.integers(2, 12, size=4000)
    ratios = [np.exp(draw.normal(0.0, between) + draw.normal(0.0, within, size)) for size in sizes]
    assert [each**0.5 for each in variances(ratios)] == pytest.approx([between, within], rel=0.05)


def test_carrying_the_learnt_share_beats_carrying_all_and_nothing():
    draw = np.random.default_rng(7)
    ratios = [np.exp(draw.normal(0.0, 0.05) + draw.normal(0.0, 0.05, 8)) for _ in range(400)]
    share = carried(*variances(ratios))
    assert share == pytest.approx(0.5, abs=0.1)
    whole, some, none = (np.mean([one_run(np.ones(8), held, part) for held in ratios]) for part in (1.0, share, 0.0))
    assert some < min(whole, none)


def test_the_choice_of_a_mapping_is_scored_by_rank_and_regret(training):
    sweeps = training["sweeps"]
    assert all(sweep["regret"] >= 0.0 and -1.0 <= sweep["rank_correlation"] <= 1.0 for sweep in sweeps["rows"])
    assert sweeps["mean_regret"] == pytest.approx(np.mean([sweep["regret"] for sweep in sweeps["rows"]]))


def test_no_committed_median_worsens_by_more_than_a_point(training, memory):
    for document, held in ((training, STEP_MEDIANS), (memory, MEMORY_MEDIANS)):
        found = {name: 100 * document["groups"][name]["median_ape"] for name in held}
        assert {name: value for name, value in found.items() if value > held[name] + 1.0} == {}


def test_a_block_of_cases_is_priced_like_each_case_alone(shipped):
    ids = ["vtrain_multi_020", "vtrain_multi_021", "dgxc_v25.02_grok1_L8_fp8_64", "zb_1.5b_m24_1F1B"]
    found = rows_of(shipped)
    together = found.predicted_s(training_constants())
    for at, case in enumerate(found.cases):
        if case["id"] in ids:
            inputs = cases.training_case(case, shipped["models"], shipped["clusters"])
            job = TrainJob.of(inputs.model, build(inputs.cluster), inputs.work)
            alone = price(job, Columns.of(**dict(inputs.strategy)))
            assert together[at] == pytest.approx(float(alone.seconds[0]), rel=1e-12)


def test_memory_counts_the_reserve_only_on_the_device_meter(memory, shipped):
    rows = {row["id"]: row for row in memory["rows"]}
    for name, whole in (("bigscience_l607", True), ("simumax_b200_llama3_70b_l12_tp8_pp1_dp1_mbc4_cef", False)):
        case = next(c for c in shipped["cases"] if c["id"] == name)
        inputs = cases.training_case(case, shipped["models"], shipped["clusters"])
        priced = price(
            TrainJob.of(inputs.model, build(inputs.cluster), inputs.work), Columns.of(**dict(inputs.strategy))
        )
        reserve = priced.memory["reserve"][0]
        held = priced.memory_bytes[0] - reserve
        held = held * (1 + footprint.SLACK) + reserve if whole else held
        assert rows[name]["predicted"] == pytest.approx(held)


@pytest.mark.parametrize("name", ["mine.json", "mine.json.gz"])
def test_anyones_file_is_scored_without_a_code_change(own, name):
    def rename(case):
        case.update(id="mine", source=None, measured={"iter_time_s": 2.0})

    document = validate("training", own(name, ["zb_1.5b_m24_1F1B"], rename))
    (row,) = document["rows"]
    assert (row["id"], row["group"], row["measured"]) == ("mine", "other", 2.0)
    assert row["predicted"] > 0


def test_a_file_of_skips_has_figures_of_none(own):
    document = validate(
        "training", own("mine.json", ["zb_1.5b_m24_1F1B"], lambda c: c["parallel"].update(schedule="PipeDream"))
    )
    assert document["summary"]["skipped"] == 1
    assert document["summary"]["median_ape"] is None
    assert document["constants"]["fitted"] == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"{", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[]", "no JSON object"),
        (b'{"cases": []}', "models"),
        (b'{"cases": [{}], "models": {}, "clusters": {}}', "cases[0].id"),
    ],
)
def test_a_bad_file_is_named_with_its_reason(tmp_path, content, words):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=r"bad\.json") as error:
        validate("training", path)
    assert words in str(error.value)


def test_wrong_arguments_come_back_all_at_once():
    with pytest.raises(SpecError) as error:
        validate("training", fidelity="flow", topologies="x.json")
    assert {fault.field for fault in error.value.faults} == {"fidelity", "topologies"}
    with pytest.raises(SpecError, match="training, memory"):
        validate("trainings")


def test_progress_reaches_its_end(own):
    seen = []
    validate(
        "training", own("mine.json", ["zb_1.5b_m24_1F1B"]), progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (1, 1)
