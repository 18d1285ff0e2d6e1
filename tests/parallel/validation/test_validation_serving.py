"""The set `serving`: rows to runs, skips from inputs, figures, anyone's own file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.measurements import read_csv
from parallel.serving.passes import Split
from parallel.serving.runs import answer, rounds
from parallel.validation.cases import Skip
from parallel.validation.levels import factors, levels
from parallel.validation.published import completed
from parallel.validation.published import rows_of as published
from parallel.validation.serving_rows import ASIDE, SKIPS, cells, run_of
from parallel.validation.sets import validate
from parallel.validation.throughput import peak_rate, tokens_per_s
from topo.errors import SpecError

ROW = {
    "id": "a", "mode": "agg", "model": "meta-llama/Llama-3.1-70B", "system": "h200_sxm", "engine": "vllm", "precision": "fp8",
    "isl": "1024", "osl": "1024", "concurrency": "16", "tp": "4", "attention_dp": "1", "moe_tp": "", "moe_ep": "",
    "listed_batch_size": "16", "ttft_ms": "150", "tpot_ms": "9", "note": "",
}  # fmt: skip
HEADER = ",".join(ROW)


def test_a_row_becomes_a_run() -> None:
    run = run_of(ROW)
    assert (run.model.name, run.part.name, run.split, run.clients) == ("llama-3.1-70b", "h200-sxm", Split(4), 16.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"engine": "abacus"}, "engine not modelled"),
        ({"model": "nobody/nothing"}, "model not known"),
        ({"system": "tpu_v1"}, "accelerator not in the catalogue"),
        ({"concurrency": ""}, "clients not stated"),
        ({"note": "tp may be a total"}, "split not of one replica"),
        ({"tp": "72"}, "split not of one replica"),
        ({"mode": "disagg"}, "worker counts not stated"),
        ({"model": "deepseek-ai/DeepSeek-R1", "moe_tp": "2", "moe_ep": "4"}, "split not of one replica"),
    ],
)
def test_rows_are_skipped_for_a_listed_reason(change: dict[str, str], reason: str) -> None:
    with pytest.raises(Skip) as why:
        run_of({**ROW, **change})
    assert why.value.reason.split(":")[0] == reason
    assert reason in SKIPS


def test_a_batch_listed_below_the_clients_is_of_one_of_several_replicas() -> None:
    assert run_of({**ROW, "listed_batch_size": "4"}).clients == 4.0


def test_attention_groups_share_the_clients() -> None:
    row = {**ROW, "model": "deepseek-ai/DeepSeek-R1", "tp": "1", "attention_dp": "8", "moe_tp": "1", "moe_ep": "8"}
    run = run_of({**row, "listed_batch_size": "2"})
    assert (run.split, run.clients) == (Split(1, 8, 1, 8), 16.0)


def test_of_the_shipped_rows_few_are_skipped() -> None:
    rows = [row for row in cells(read_csv("serving_silicon.csv")) if row["mode"] == "agg"]
    skipped = 0
    for row in rows:
        try:
            run_of(row)
        except Skip:
            skipped += 1
    assert skipped <= 0.05 * len(rows)


def test_more_clients_wait_longer_and_decode_slower() -> None:
    few, many = (answer(run_of({**ROW, "concurrency": c, "listed_batch_size": c})) for c in ("4", "64"))
    assert many.tpot_s > few.tpot_s
    assert many.ttft_s > few.ttft_s


def test_disaggregated_decode_is_not_held_up_by_prompts() -> None:
    row = {**ROW, "isl": "8192", "concurrency": "64", "listed_batch_size": "64"}
    apart = {
        **row, "mode": "disagg", "prefill_num_workers": "4", "decode_num_workers": "1",
        "prefill_tp": "4", "decode_tp": "4", "prefill_attention_dp": "1", "decode_attention_dp": "1",
    }  # fmt: skip
    assert answer(run_of(apart)).tpot_s < answer(run_of(row)).tpot_s


def test_littles_law_fills_fewer_seats_when_prefill_is_short() -> None:
    row = {**ROW, "isl": "8192", "mode": "disagg", "concurrency": "512", "prefill_tp": "4", "decode_tp": "4"}
    row |= {"prefill_attention_dp": "1", "decode_attention_dp": "1", "decode_num_workers": "1"}
    one, many = (answer(run_of({**row, "prefill_num_workers": n})) for n in ("1", "16"))
    assert one.tpot_s < many.tpot_s
    assert one.saturated


def test_a_file_of_ones_own_is_scored(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    lines = [ROW, {**ROW, "id": "b", "concurrency": "4", "tpot_ms": "7"}, {**ROW, "id": "c", "engine": "abacus"}]
    file.write_text("\n".join([HEADER, *(",".join(line[key] for key in HEADER.split(",")) for line in lines)]))
    document = validate("serving", file)
    assert document["summary"]["n"] == 6
    assert document["summary"]["predicted"] == 4
    assert {row["metric"] for row in document["rows"]} == {"tpot", "ttft"}
    assert document["rows"][-1]["skipped_because"] == "engine not modelled: abacus"
    assert document["constants"] == {
        "fitted": 23,
        "engines": 18,
        "grouped products": 4,
        "popularity of experts": 1,
    }
    tpot = document["rows"][0]
    assert tpot["interval"][0] < tpot["predicted"] < tpot["interval"][1]


def test_a_file_without_the_columns_names_them(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("id,model\na,b\n")
    with pytest.raises(SpecError, match="tpot_ms"):
        validate("serving", file)


def test_one_point_of_a_deployment_corrects_its_others() -> None:
    row = {"measured": 2.0, "predicted": 1.0, "engine": "vllm", "split": "8", "interval": None}
    told = levels([row, {**row, "measured": 4.0, "predicted": 2.0}])
    assert told["zero_shot"]["median_ape"] == 0.5
    assert told["one_point"] == {"n": 1, "median_ape": 0.0, "p90_ape": 0.0}


def test_a_version_that_starts_kernels_slower_is_told_by_its_other_rows() -> None:
    parts = (
        np.array(
            [
                [1.0, 9.0, 0.0, 0.0],
                [4.0, 5.0, 1.0, 1.0],
                [8.0, 1.0, 2.0, 0.0],
                [2.0, 2.0, 9.0, 0.0],
                [1.0, 1.0, 1.0, 9.0],
            ]
            * 20
        )
        * 1e-3
    )
    measured = parts @ (1.5, 1.0, 1.0, 1.0)
    assert factors(parts, measured) == pytest.approx([1.5, 1.0, 1.0, 1.0], rel=0.05)
    common = {"engine": "vllm", "engine_version": "1", "generation": "hopper", "interval": None}
    rows = [
        {**common, "measured": float(m), "predicted": float(np.sum(p)), "parts": p.tolist()}
        for m, p in zip(measured, parts, strict=True)
    ]
    told = levels(rows)
    assert told["zero_shot"]["median_ape"] > 0.05
    assert told["version"]["n"] == len(rows)
    assert told["version"]["median_ape"] < 0.01


def test_a_published_decode_rate_is_batch_over_step() -> None:
    case = {
        "id": "x", "kind": "measured", "source": "SGLang", "model": "DeepSeek-V3", "hardware": {"gpu": "H100 SXM 80GB"},
        "parallel": {"ep": 72, "microbatches": 1}, "batch": "256 req/GPU", "context": {"kv": 2000},
        "precision": {"moe": "fp8", "attention": "bf16"}, "metric": "decode_throughput_per_gpu", "value": 2500,
    }  # fmt: skip
    alone, node = published([case, {**case, "metric": "decode_throughput_per_node"}])
    assert node["predicted"] == pytest.approx(8 * alone["predicted"])
    limit = published([{**case, "kind": "analytic_limit"}])[0]
    assert limit["skipped_because"] == "formula"


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 64), st.integers(1, 8), st.integers(0, 63))
def test_requests_beyond_the_room_run_in_waves(room: int, waves: int, more: int) -> None:
    def step_s(b: float, *_: float) -> float:
        return 0.01 + 1e-4 * b

    steady = peak_rate(step_s, 0.001, room, 100, 100)
    assert peak_rate(step_s, 0.001, room, 100, 100, waves * room) == pytest.approx(steady)
    assert peak_rate(step_s, 0.001, room, 100, 100, waves * room + more % room) <= steady * (1 + 1e-9)


def test_stages_overlap_on_the_prompts_of_a_peak() -> None:
    line = {"model": "Llama-3.3-70B", "gpu": "H200", "precision": "fp8", "isl": "2048", "osl": "128", "units": "total"}
    one, two = (tokens_per_s({**line, "parallel": f"TP1PP{pp}"}) for pp in (1, 2))
    assert 1.6 < two / one < 2.5  # twice the accelerators, and room for more sequences


def test_drafting_is_read_off_the_sheet_that_a_row_comes_from() -> None:
    row = {**ROW, "model": "deepseek-ai/DeepSeek-R1", "moe_tp": "4", "moe_ep": "1"}
    ids = ("dsr1_h200_trtllm_fp8_agg", "2026_03_25_deepseek_r1_h200_sxm_trtllm", "2026_04_06_llama_3_1_70b")
    assert [run_of({**row, "id": name}).drafted for name in ids] == [False, True, False]


def test_a_row_that_measures_something_else_is_set_aside() -> None:
    with pytest.raises(Skip, match="row set aside"):
        run_of({**ROW, "id": ASIDE[0]})
    assert len(set(ASIDE)) == len(ASIDE) == 7


def test_later_benchmarks_send_more_prompts() -> None:
    earlier, later = (run_of({**ROW, "isl": isl, "osl": "100"}) for isl in ("2048", "2000"))
    assert (rounds(earlier), rounds(later), rounds(replace(later, sized=False))) == (10, 50, 10)
    # one of fifty rounds is the burst in which all clients wait for each other, not one of ten
    assert answer(later).ttft_s < answer(earlier).ttft_s


def test_a_case_takes_what_its_source_says_elsewhere() -> None:
    stated = {"source": "blog", "model": "m", "precision": {"moe": "fp8"}, "parallel": {"ep": 8}}
    open_ = {**stated, "source": "blog (ablation)", "precision": None}
    other = {**open_, "source": "paper"}
    assert completed(open_, [stated, open_])["precision"] == {"moe": "fp8"}
    assert completed(other, [stated, other])["precision"] is None
    assert completed({**stated, "source": "deepseek-ai/open-infra-index, day 6"}, [])["parallel"] == {
        "ep": 8,
        "microbatches": 2,
    }


def test_ranking_counts_the_pairs_that_differ_in_their_split() -> None:
    shipped = validate("serving")["ranking"]
    assert shipped["tpot"]["pairs"] > 1500
    assert shipped["tpot"]["right"] > 0.94
    assert shipped["throughput per accelerator"]["right"] > 0.96
    assert shipped["tpot"]["right_of_one_release"] > shipped["tpot"]["right"]


def test_nodes_that_were_kept_full_hold_what_their_cache_does() -> None:
    case = {
        "id": "sglang-x", "kind": "measured", "source": "LMSYS blog 2025-09-25 GB200 part 2", "model": "DeepSeek-V3/R1",
        "hardware": {"gpu": "GB200 NVL72"}, "parallel": {"ep": 48}, "batch": None, "context": {"prompt": 2000},
        "precision": {"moe": "fp8", "attention": "bf16"}, "metric": "decode_throughput_per_gpu", "value": 9087,
    }  # fmt: skip
    full, elsewhere = published([case, {**case, "source": "LMSYS blog"}])
    assert "what the cache holds" in full["notes"][0]
    assert full["predicted"] == pytest.approx(9087, rel=0.2)
    assert elsewhere["skipped_because"] == "batch not stated"


def test_drafts_of_several_tokens_are_priced_where_their_acceptance_is_told() -> None:
    case = {
        "id": "x", "kind": "measured", "source": "TensorRT-LLM", "model": "DeepSeek-R1", "hardware": {"gpu": "B200"},
        "parallel": {"tp": 8, "mtp": 3, "acceptance_length": 2.82}, "batch": 1, "context": {"isl": 1024, "osl": 2048},
        "precision": {"moe": "nvfp4"}, "metric": "output_speed_per_user", "value": 253,
    }  # fmt: skip
    drafted, plain, open_ = published(
        [case, {**case, "parallel": {"tp": 8}}, {**case, "parallel": {"tp": 8, "mtp": 3}}]
    )
    assert 1.8 < drafted["predicted"] / plain["predicted"] < 2.82
    assert open_["skipped_because"] == "drafts not stated"
