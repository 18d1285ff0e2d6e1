"""The sets `moe` and `collectives`: shipped rows by hand, closed skips, intervals, anyone's own file."""

import gzip
import json
from collections import Counter

import numpy as np
import pytest

from clusters.measurements import read_csv
from clusters.tunings import tuning
from parallel.validation import collectives as validation_collectives
from parallel.validation import moe as validation_moe
from parallel.validation.published_systems import FORCED, SITES
from parallel.validation.sets import validate
from topo.errors import SpecError

MOE = "system,backend,phase,comm_dtype,nodes,ep_size,hidden,topk,experts,tokens_per_rank,latency_us,sms"
NCCL = "system,op,impl,num_gpus,message_bytes,latency_us"
PUBLISHED = "system,op,ranks,nodes,message_bytes,busbw_GBps,latency_us"
SETS = {"moe": validation_moe.SKIPS, "collectives": validation_collectives.SKIPS}


@pytest.fixture(scope="module")
def documents():
    return {name: validate(name) for name in SETS}


@pytest.fixture
def own(tmp_path):
    def write(header, *lines, name="own.csv"):
        file = tmp_path / name
        text = "\n".join([header, *lines]).encode()
        file.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        return file

    return write


@pytest.mark.parametrize(("name", "files"), [("moe", 2), ("collectives", 2)])
def test_every_shipped_row_is_listed_once(documents, name, files):
    document = documents[name]
    names = document["file"].split(", ")
    assert len(names) == files
    assert len(document["rows"]) == sum(len(read_csv(file)["system"]) for file in names)
    assert len({row["id"] for row in document["rows"]}) == len(document["rows"])
    json.dumps(document, allow_nan=False)


@pytest.mark.parametrize("name", SETS)
def test_skips_come_from_a_closed_table_and_the_rest_is_predicted(documents, name):
    document = documents[name]
    for row in document["rows"]:
        assert (row["predicted"] is None) == (row["skipped_because"] is not None)
        if row["skipped_because"]:
            assert row["skipped_because"].split(":")[0] in document["skips"] == SETS[name]


@pytest.mark.parametrize("name", SETS)
def test_rows_in_the_fit_have_the_stored_residuals_and_intervals_that_hold(documents, name):
    fitted = [row for row in documents[name]["rows"] if row["in_fit"] and row["interval"]]
    families = Counter(row["family"] for row in fitted)
    stored = {f"{key}" for key in documents[name]["leave_one_source_out"]["residuals"]}
    for family in [name for name, count in families.items() if count > 30]:
        rows = [row for row in fitted if row["family"] == family]
        first = rows[0]
        op = f"moe_{first['op']}" if name == "moe" else family.split()[1]
        entry = tuning(first["link"], op, first["regime"])
        rows = [row for row in rows if tuning(first["link"], op, row["regime"]).entry == entry.entry]
        residuals = entry.residuals
        assert entry.entry in stored
        assert np.median([row["ape"] for row in rows]) == pytest.approx(residuals["median"], rel=0.35)
        held = [row["interval"][0] <= row["measured"] <= row["interval"][1] for row in rows]
        assert 0.8 <= np.mean(held) <= 0.95
        assert first["interval"][0] / first["predicted"] == pytest.approx(residuals["low"])


def test_the_residuals_of_a_fit_are_met_exactly_where_the_rows_are_the_same(documents):
    rows = [row for row in documents["moe"]["rows"] if row["family"] == "ib-ndr dispatch low-latency"]
    stored = tuning("ib-ndr", "moe_dispatch", "low-latency").residuals
    assert len(rows) == stored["n"]
    assert np.median([row["ape"] for row in rows]) == pytest.approx(stored["median"], rel=1e-3)
    rows = [row for row in documents["collectives"]["rows"] if row["family"] == "nvlink3 all_gather nccl"]
    rows = validation_collectives.merged([row for row in rows if row["in_fit"]])
    stored = tuning("nvlink3", "all_gather").residuals
    assert np.median([row["ape"] for row in rows]) == pytest.approx(stored["median"], rel=1e-3)


def test_a_low_latency_dispatch_by_hand(own):
    model = tuning("nvlink4", "moe_dispatch", "low-latency").model
    document = validate("moe", own(MOE, "h100_sxm,deepep_low_latency,dispatch,fp8,1,8,7168,8,256,128,50,0"))
    (row,) = document["rows"]
    seconds = 128 * 8 * 7392 * 7 / 8 / 450e9  # eight copies of 7,168 bytes and 56 scales, seven in eight leave the rank
    by_hand = model.base_s + 256 * 7 / 8 * model.expert_s + seconds / model.efficiency
    assert row["predicted"] == pytest.approx(by_hand, rel=0.03)  # the wire's latency is the catalogue's
    assert row["ape"] == pytest.approx(abs(row["predicted"] / 50e-6 - 1))
    assert document["constants"] == {"fitted": 4, "links": 4, "fitted_to_these_rows": 0}


def test_a_normal_dispatch_by_hand(own):
    """Four multiprocessors: 4,096 tokens go to 5.295 of 8 ranks each; the wire is not full."""
    model = tuning("nvlink4", "moe_dispatch", "normal").model
    rows = validate(
        "moe",
        own(MOE, *(f"h100_sxm,deepep_normal,dispatch,fp8,1,8,7168,8,256,4096,2068,{sms}" for sms in (4, 8, 24))),
    )["rows"]
    assert rows[0]["predicted"] == pytest.approx(
        model.base_s + 4096 / 4 * (model.token_s + 5.295 * 7392 * model.byte_s), rel=0.01
    )
    four, eight, many = (row["predicted"] - model.base_s for row in rows)
    assert four / eight == pytest.approx(2, rel=0.01)
    assert 3 < four / many < 6  # the wire is nearly full


def test_normal_kernels_between_nodes_are_priced_beyond_the_fit(documents):
    rows = [row for row in documents["moe"]["rows"] if row["group"] == "h100_sxm deepep_normal EP64 dispatch"]
    assert len(rows) == 138
    assert all(row["predicted"] and not row["in_fit"] for row in rows)
    assert all("64 ranks: 16 to 16 were measured" in row["notes"] for row in rows)


def test_blocks_meet_their_targets_apart(documents):
    blocks = documents["moe"]["blocks"]
    assert sum(block["n"] for block in blocks.values()) == len(documents["moe"]["rows"])
    for name in ("single-node", "multi-node"):
        assert blocks[name]["macro_median_ape"] <= 0.12
        assert blocks[name]["macro_p90_ape"] <= 0.35
    assert blocks["multi-node"]["groups"] == 8
    assert blocks["mnnvl"]["groups"] == 28
    assert documents["moe"]["summary"]["groups"] == blocks["single-node"]["groups"] + 8


def test_sixty_four_ranks_are_predicted_from_fewer(documents):
    held = documents["moe"]["held_out"]["64 ranks"]
    assert held["macro_median_ape"] <= 0.15
    entries = {name: figures["median"] for name, figures in held.items() if " " in name and not name.endswith("mnnvl")}
    assert {name for name, median in entries.items() if median > 0.15} == {"ib-ndr moe_dispatch normal"}
    assert held["ib-ndr moe_dispatch low-latency"]["median"] <= 0.05


def test_a_node_of_a_rack_is_no_node_of_eight(own):
    line = "gb200,{},dispatch,fp8,{},{},7168,8,256,128,50,0"
    rows = validate(
        "moe", own(MOE, *(line.format("deepep_normal", *at) for at in [(1, 4), (18, 72)]), name="own.csv.gz")
    )["rows"]
    assert [row["link"] for row in rows] == ["nvlink5", "nvlink5"]
    assert [row["ranks"] for row in rows] == [4, 72]
    assert "72 ranks: 4 to 8 were measured" in rows[1]["notes"]


def test_exchanges_that_cannot_be_priced_say_why(own):
    tail = "1,8,7168,8,256,128,50,0"
    file = own(
        MOE,
        f"h100_sxm,deepep_normal,prepare,fp8,{tail}",
        f"h100_sxm,NcclEp,dispatch,fp8,{tail}",
        f"gb200,NVLinkOneSided,combine_low_precision,fp8,{tail}",
        f"h100_sxm,deepep_ll,dispatch,int3,{tail}",
        f"tpu-v9,deepep_ll,dispatch,fp8,{tail}",
        f"l40s,deepep_ll,dispatch,fp8,{tail}",
        f"h100_sxm,deepep_ll,gather,fp8,{tail}",
        "h100_sxm,deepep_ll,dispatch,fp8,1,1,7168,8,256,128,50,0",
    )
    reasons = [row["skipped_because"] for row in validate("moe", file)["rows"]]
    assert reasons == [
        "phase moves no rows: prepare",
        "backend not modelled: NcclEp",
        "low-precision combine: combine_low_precision",
        "data type not known: int3",
        "accelerator not in the catalogue: tpu-v9",
        "link without constants: pcie4",
        "phase not modelled: gather",
        "group of one rank",
    ]


def test_phases_of_their_own_and_unstated_data_types_are_priced(own):
    tail = "2,8,7168,8,256,128,50,0"
    rows = validate(
        "moe",
        own(
            MOE,
            f"gb200,NVLinkTwoSided,prepare,fp8,{tail}",
            f"gb200,NVLinkTwoSided,combine_low_precision,nvfp4,{tail}",
            f"gb200,deepep_ht,dispatch,default,{tail}",
            f"gb200,deepep_ht,dispatch,bfloat16,{tail}",
        ),
    )["rows"]
    assert all(row["predicted"] for row in rows)
    assert rows[2]["notes"][0] == validation_moe.DEFAULT
    assert rows[2]["predicted"] == rows[3]["predicted"]


def test_kernels_by_implementation(own):
    file = own(
        NCCL,
        "h100_sxm,all_gather,NCCL,8,1073741824,3000",
        "h100_sxm,all_reduce,vllm_graph,8,65536,9",
        "h100_sxm,all_reduce,vllm_eager,8,65536,30",
        "b60,all_reduce,oneCCL,8,65536,30",
        "l40s,all_reduce,NCCL,8,65536,30",
        "h100_sxm,broadcast,NCCL,8,65536,30",
        "h100_sxm,all_reduce,NCCL,1,65536,30",
        "h100_sxm,alltoall,NCCL,16,1073741824,30000",
    )
    rows = validate("collectives", file)["rows"]
    model = tuning("nvlink4", "all_gather").model
    seconds = (7 / 8 + model.own_piece / 8) * 2**30 / 450e9
    wire = seconds / model.efficiency + np.sqrt(model.ramp_s * seconds)
    assert rows[0]["predicted"] == pytest.approx(wire + model.base_s + 7 * model.step_s, rel=0.01)
    assert [row["regime"] for row in rows[:2]] == ["nccl", "vllm-0.14"]
    assert [row["skipped_because"] for row in rows[2:7]] == [
        "eager framework kernel: vllm_eager",
        "library not modelled: oneCCL",
        "link without constants: pcie4",
        "operation not modelled: broadcast",
        "group of one rank",
    ]
    assert rows[7]["link"] == "ib-ndr"
    assert rows[7]["interval"] is None
    assert "constants of ib-ndr all_reduce" in rows[7]["interval_note"]


def test_published_rows_take_time_or_bus_bandwidth(own):
    file = own(
        PUBLISHED,
        "DGX A100 8xHDR,all_reduce,16,2,,180,",
        "AWS p5 8xH100 EFAv2 32x100G,all_reduce,16,2,1073741824,,5000",
        "8xH100 NVLS,all_reduce,8,1,1024,,",
        "my box,all_reduce,8,1,1024,,9",
        f"{FORCED[0]},all_reduce,12,3,1024,,9",
    )
    rows = validate("collectives", file)["rows"]
    assert rows[0]["measured"] == pytest.approx(2 * 15 / 16 * 2**33 / 180e9)
    assert rows[0]["notes"] == [validation_collectives.PEAK_NOTE]
    assert rows[1]["measured"] == pytest.approx(5e-3)
    assert rows[1]["predicted"] > 0
    assert rows[1]["interval"][0] < rows[1]["predicted"] < rows[1]["interval"][1]
    assert [row["skipped_because"].split(":")[0] for row in rows[2:]] == [
        "time not stated",
        "system not described",
        "algorithm forced",
    ]


def test_groups_are_curves_with_what_they_were_measured_on(documents):
    document = documents["collectives"]
    assert "gb200 all_gather x64 NCCL half 2.23" in document["groups"]
    assert document["curves"]["count"] == sum(1 for figures in document["groups"].values() if figures["predicted"])
    assert document["summary"]["macro_median_ape"] <= 0.06
    assert document["summary"]["macro_p90_ape"] <= 0.20
    far = document["curves"]["exceptions"]
    assert all(row["worst"] > validation_collectives.NEAR for row in far)
    assert document["curves"]["near"] == pytest.approx(1 - len(far) / document["curves"]["count"])
    assert document["curves"]["near"] >= 0.9


def test_what_fits_did_not_see_is_told(documents):
    held = documents["collectives"]["held_out"]
    assert {"larger", "ranks", "versions"} == set(held["nvlink5 all_gather nccl-2.28"])
    assert "moe" not in "".join(held)


def test_rows_that_measure_something_else_are_set_aside_with_the_reason(documents):
    rows = [row for row in documents["collectives"]["rows"] if (row["skipped_because"] or "").startswith("row set")]
    floors = [row for row in rows if "launch floor" in row["skipped_because"]]
    assert {(row["system"], row["op"]) for row in floors} == {
        ("gb200", op) for op in ("alltoall", "all_gather", "reduce_scatter")
    }
    cold = [row for row in rows if "not warm" in row["skipped_because"]]
    assert {row["system"][:11].strip() for row in cold} == {"AWS p5en 8x", "AWS p6-b200"}
    assert len(rows) == len(floors) + len(cold)


def test_switches_do_not_add_int8(own):
    header = NCCL + ",dtype"
    lines = [f"gb200,all_reduce,NCCL,64,65536,100,{dtype}" for dtype in ("half", "int8")]
    half, int8 = validate("collectives", own(header, *lines))["rows"]
    assert int8["predicted"] > 2 * half["predicted"]  # the ring's 126 steps


def test_every_system_described_is_in_the_shipped_table():
    assert set(SITES) | set(FORCED) <= set(read_csv("collectives_published.csv")["system"].tolist())


@pytest.mark.parametrize("name", SETS)
def test_only_the_closed_rung_exists(name, own):
    file = own(MOE, "h100_sxm,deepep_normal,dispatch,fp8,1,8,7168,8,256,128,50,20") if name == "moe" else None
    if file:
        assert validate(name, file, fidelity="closed")["summary"]["predicted"] == 1
    with pytest.raises(SpecError, match="closed"):
        validate(name, fidelity="stepwise")


@pytest.mark.parametrize("name", SETS)
def test_a_bad_table_is_told_with_every_fault(name, own):
    with pytest.raises(SpecError) as error:
        validate(name, own("system,op", "h100,x"))
    assert len(error.value.faults) >= 2
    with pytest.raises(SpecError, match="line 2"):
        validate("collectives", own(PUBLISHED, "8xH100 NVLS,all_reduce,8,1,many,,9"))
