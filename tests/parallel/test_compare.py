"""The main job: three wirings, three phases, and what changes the answer."""

import itertools
import json
import math
from dataclasses import replace

import pytest

from clusters.build import build
from parallel.compare import CHECKS, CompareRequest, compare, exchange_checks, specs
from parallel.io import read_yaml
from topo.errors import SpecError

SMALL = CompareRequest(gpus=144, domains=(8, 72, 144), global_batch=512, executor="serial")
DENSE = CompareRequest(
    model="llama-3.1-70b", accelerator="h100", gpus=64, domains=(8,), global_batch=256, executor="serial"
)
DECODE = replace(SMALL, phases=("decode",))


@pytest.fixture(scope="module")
def document():
    return compare(SMALL)


def rate(document, phase, domain):
    return next(
        row["tokens_per_s_per_gpu"] for row in document["rows"] if (row["phase"], row["domain"]) == (phase, domain)
    )


def finite(value):
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, str | int | None)


def test_every_wiring_gets_a_row_for_every_phase(document):
    assert [(row["phase"], row["domain"]) for row in document["rows"]] == [
        (phase, domain) for phase in ("train", "prefill", "decode") for domain in (8, 72, 144)
    ]


def test_the_document_is_json_without_a_figure_that_is_none(document):
    assert finite(document)
    assert json.loads(json.dumps(document, allow_nan=False))["rows"]


def test_terms_add_up_to_the_step(document):
    for row in document["rows"]:
        assert math.fsum(row["terms"].values()) == pytest.approx(row["step_time_s"], rel=1e-12)
        assert all(row["busy"][name] >= value * (1 - 1e-12) for name, value in row["terms"].items())


def test_best_rows_keep_the_limits_and_the_memory(document):
    for row in document["rows"]:
        assert row["infeasible"] is None
        assert row["memory_share"] <= 1
        assert row["tpot_s"] is None or row["tpot_s"] <= 0.05
        assert row["ttft_s"] is None or row["ttft_s"] <= 2
        assert row["gpus_used"] + row["gpus_idle"] == 144


def test_wider_domains_never_lose_in_training_and_decode(document):
    """Where every group of the narrow winner stays inside a block of the wider domain it can only gain."""
    for phase in ("train", "decode"):
        assert rate(document, phase, 8) < rate(document, phase, 72) <= rate(document, phase, 144) * (1 + 1e-9)


def test_searches_are_counted(document):
    search = document["search"]
    assert search["points"] == sum(row["searched"] for row in document["rows"])
    assert 0 < search["feasible"] < search["points"]
    assert search["executor"] == "serial"
    for row in document["rows"]:
        assert sum(row["rejected"].values()) < row["searched"]


def test_frontiers_fall_from_interactive_to_cheap(document):
    curves = {(c["phase"], c["domain"]): c["points"] for c in document["frontiers"]}
    assert curves["train", 8] == []
    for domain in (8, 72, 144):
        points = curves["decode", domain]
        assert 2 <= len(points) <= 60
        assert all(
            a["tokens_per_s_per_user"] > b["tokens_per_s_per_user"]
            and a["tokens_per_s_per_gpu"] < b["tokens_per_s_per_gpu"]
            for a, b in itertools.pairwise(points)
        )
        assert all(p["tpot_s"] == pytest.approx(1 / p["tokens_per_s_per_user"]) for p in points)


def test_the_answer_names_every_phase_and_its_winner(document):
    for phase in ("Train", "Prefill", "Decode"):
        assert f"{phase}: " in document["answer"]
    best = max(rate(document, "decode", domain) for domain in (8, 72, 144))
    gain = best / rate(document, "decode", 8)
    assert gain > 1.1
    assert f"Decode: {best:,.0f} tokens/s per GPU" in document["answer"]
    assert f"{gain:.2f} times the 8-GPU domain" in document["answer"]


def test_assumptions_have_sources(document):
    assert len(document["assumptions"]) > 10
    assert all(row["source"] and row["name"] for row in document["assumptions"])


def test_an_exchange_that_leaves_the_domain_costs_several_times_more(document):
    ratio = {row["domain"]: row["ratio"] for row in document["exchange"]}
    assert ratio[8] > 3
    assert min(ratio.values()) == 1
    assert ratio[72] == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("check", exchange_checks(), ids=lambda check: check["what"])
def test_measured_exchanges_are_met_within_a_quarter(check):
    assert check["ape"] == pytest.approx(abs(check["predicted_s"] / check["measured_s"] - 1))
    assert check["ape"] < 0.25


def test_every_measured_exchange_is_checked():
    assert len(exchange_checks()) == len(read_yaml(CHECKS)["checks"]) >= 2


def test_domains_that_do_not_divide_leave_named_accelerators_idle():
    """4,608 = 9 domains of 500 and 108 over."""
    document = compare(CompareRequest(domains=(8, 72, 500), executor="serial", phases=("decode", "prefill")))
    for row in document["rows"]:
        idle = [text for text in row["warnings"] if "idle" in text]
        assert idle == (["108 accelerators do not fill a domain and stay idle"] if row["domain"] == 500 else [])
        assert row["gpus_idle"] >= (108 if row["domain"] == 500 else 0)
        assert row["gpus_used"] <= (4500 if row["domain"] == 500 else 4608)


@pytest.mark.parametrize(
    ("change", "phase", "direction"),
    [
        ({"nic": 100e9}, "train", 1),
        ({"nic": 12.5e9}, "train", -1),
        ({"oversubscription": 4.0}, "train", -1),
        ({"precision": "bf16"}, "train", -1),
        ({"precision": "bf16"}, "decode", -1),
        ({"tpot_ms": 100.0}, "decode", 1),
        ({"tpot_ms": 25.0}, "decode", -1),
        ({"isl": 16384}, "decode", -1),
        ({"isl": 16384}, "prefill", -1),
        ({"sequence": 16384, "global_batch": 512}, "train", -1),
    ],
    ids=str,
)
def test_what_is_asked_changes_the_answer(change, phase, direction):
    usual = replace(SMALL, domains=(8,), gpus=1152, global_batch=2048, phases=(phase,))
    moved = rate(compare(replace(usual, **change)), phase, 8) - rate(compare(usual), phase, 8)
    assert moved * direction > 0


@pytest.mark.parametrize(("nic", "times"), [(100e9, 0.5), (25e9, 2.0), (12.5e9, 4.0)])
def test_the_exchange_between_boxes_takes_as_long_as_the_nic_lets_it(nic, times):
    asked, usual = (compare(replace(DECODE, domains=(8,), nic=rate))["exchange"][0]["seconds"] for rate in (nic, 50e9))
    assert asked / usual == pytest.approx(times, rel=0.25)


def test_a_figure_in_a_cluster_file_changes_the_answer(tmp_path):
    file = tmp_path / "mine.yaml"
    text = "accelerator: h100-sxm\naccelerators: 256\nscale_up: {bandwidth: BANDWIDTH}\nscale_out: {nic: NIC}\n"
    rates = {}
    for nic, bandwidth in (("400Gb/s", "450GB/s"), ("100Gb/s", "450GB/s"), ("400Gb/s", "100GB/s")):
        file.write_text(text.replace("NIC", nic).replace("BANDWIDTH", bandwidth))
        asked = replace(SMALL, model="mixtral-8x22b", domains=(8,), cluster=str(file), phases=("train",))
        rates[nic, bandwidth] = rate(compare(asked), "train", 8)
    usual, slow_nic, slow_link = rates.values()
    assert slow_nic < 0.99 * usual
    assert slow_link < usual


def test_a_cluster_file_brings_all_of_the_hardware(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\naccelerator: h200\naccelerators: 128\n")
    document = compare(replace(DECODE, cluster=str(file), domains=(8, 16)))
    assert (document["workload"]["accelerator"], document["workload"]["gpus"]) == ("h200-sxm", 128)
    assert [build(spec).domain for spec in specs(replace(DECODE, cluster=str(file), domains=(8, 16))).values()] == [
        8,
        16,
    ]


@pytest.mark.parametrize(("limit", "phase", "name"), [("tpot_ms", "decode", "TPOT"), ("ttft_ms", "prefill", "TTFT")])
def test_a_limit_that_nothing_meets_is_said_in_a_sentence(limit, phase, name):
    document = compare(replace(SMALL, domains=(8,), phases=(phase,), **{limit: 1.0}))
    (row,) = document["rows"]
    assert f"{name} limit of 1 ms cannot be met: the fastest split that fits in memory takes" in row["infeasible"]
    assert row["step_time_s"] > 1e-3
    assert row["strategy"]
    assert f"{phase.capitalize()}: no wiring meets the limits." in document["answer"]


def test_a_model_that_fits_nowhere_is_said_with_the_most_frequent_reason():
    document = compare(replace(SMALL, gpus=16, domains=(8,)))
    row = next(row for row in document["rows"] if row["phase"] == "train")
    assert "no strategy of" in row["infeasible"]
    assert row["step_time_s"] is None
    assert row["terms"] == {}
    assert finite(document)


def test_a_dense_model_needs_no_exchange():
    document = compare(DENSE)
    assert [row["infeasible"] for row in document["rows"]] == [None] * 3
    assert document["exchange"] == []
    assert all(row["strategy"]["ep"] == 1 for row in document["rows"])
    assert all("ep" not in row["terms"] for row in document["rows"])


def test_a_cluster_of_sixteen_works():
    document = compare(replace(DENSE, gpus=16, domains=(8, 16)))
    assert len(document["rows"]) == 6
    assert all(row["gpus_used"] <= 16 for row in document["rows"])


def test_domains_of_one_are_accelerators_on_nics_alone():
    document = compare(replace(DECODE, gpus=64, domains=(1, 8)))
    assert rate(document, "decode", 1) < rate(document, "decode", 8)


def test_names_take_any_case_and_underscores():
    loose = compare(replace(DECODE, model="DeepSeek_V3", accelerator="GB200", domains=(8,)))
    assert loose["rows"][0]["strategy"] == compare(replace(DECODE, domains=(8,)))["rows"][0]["strategy"]


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"model": "deepsek-v3"}, "did you mean deepseek-v3"),
        ({"accelerator": "gb2000"}, "did you mean gb200"),
        ({"precision": "fp9"}, "bf16, fp8, mxfp8, fp8-row, nvfp4"),
        ({"executor": "dask"}, "auto, serial, ray"),
        ({"cluster": "hgx-h10"}, "hgx-h100"),
        ({"domains": (145,)}, "buy at least 145"),
        ({"oversubscription": 0.0}, "above zero"),
        ({"nic": -1.0}, "must be positive"),
    ],
    ids=str,
)
def test_a_wrong_name_or_figure_is_answered_with_the_remedy(change, remedy):
    with pytest.raises(SpecError, match=remedy):
        compare(replace(SMALL, **change))


def test_every_wrong_name_comes_in_one_error():
    with pytest.raises(SpecError) as error:
        compare(replace(SMALL, model="deepsek-v3", accelerator="gb2000", precision="fp9", executor="dask"))
    assert {fault.field for fault in error.value.faults} == {"model", "accelerator", "precision", "executor"}


def test_every_wrong_figure_comes_in_one_error():
    with pytest.raises(SpecError) as error:
        CompareRequest(
            gpus=0, isl=-1, osl=0, tpot_ms=float("nan"), ttft_ms=-2, sequence=0, global_batch=0, oversubscription=0,
            domains=(), phases=("decode", "trian"),
        )  # fmt: skip
    assert [fault.field for fault in error.value.faults] == [
        "gpus", "oversubscription", "isl", "osl", "tpot_ms", "ttft_ms", "sequence", "global_batch", "domains", "phases",
    ]  # fmt: skip
    assert all(fault.remedy for fault in error.value.faults)


def test_progress_counts_to_the_end():
    seen = []
    compare(replace(SMALL, gpus=64, domains=(8, 16)), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] > 0


def test_one_accelerator_alone_is_a_domain_of_one():
    document = compare(replace(SMALL, model="llama-3.1-8b", gpus=1, domains=(1,), phases=("prefill", "decode")))
    for row in document["rows"]:
        assert row["gpus_used"] == 1
        assert not row["infeasible"]
        assert not {"tp", "ep", "pp"} & {*row["terms"]}


def test_every_answer_has_an_interval_and_says_what_it_rests_on(document):
    for row in document["rows"]:
        judged = {"train": "step_time_s", "prefill": "ttft_s", "decode": "tpot_s"}[row["phase"]]
        low, high = row["interval"]
        assert 0.4 * row[judged] < low < high < 2.5 * row[judged]
        if row["phase"] != "train":
            assert "passes of a stated batch" in row["interval_note"]
    points = [point for front in document["frontiers"] for point in front["points"]]
    assert all(low < high for low, high in (point["band"] for point in points))


def test_a_nic_of_the_catalogue_is_its_rate_and_its_part():
    by_name, by_rate = (compare(replace(DENSE, nic=nic, phases=("decode",))) for nic in ("connectx-8", 100e9))
    assert by_name["workload"]["nic_Bps"] == by_rate["workload"]["nic_Bps"]
    assert by_name["rows"][0]["tokens_per_s_per_gpu"] == by_rate["rows"][0]["tokens_per_s_per_gpu"]
    assert "connectx-8" in by_name["wirings"][0]["parts"]
