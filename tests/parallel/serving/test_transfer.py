"""Caches between pools: hand values, shares of the wire in their limits, and a scenario on two pools from end to end."""

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.build import between, build
from clusters.spec import focus, load
from parallel.io import read_model
from parallel.scenario import serve, train
from parallel.serving.transfer import BOUNDS, Side, request_bytes, transfer, wire_share
from parallel.workload import ServeWorkload
from topo.errors import InfeasibleError, SpecError

EXAMPLES = Path(__file__).parents[3] / "examples"
OLD_WITH_NEW = EXAMPLES / "scenarios" / "old-with-new.yaml"
CACHE = 61 * 576 * 2 * 4096  # DeepSeek-V3: layers x (latent + rotary) x BF16 x prompt
WIDE = {"bandwidth_Bps": 1e15, "latency_s": 0.0}
SMALL = """
name: small
model: llama-3.1-8b
cluster:
  pools:
    - {name: old, accelerator: h100-sxm, accelerators: 64}
    - {name: new, accelerator: gb200, accelerators: 72}
  join: {bandwidth: 400GB/s}
pools: {prefill: old, decode: new}
workload: {isl: 2048, osl: 256, precision: fp8}
strategies:
  prefill: {tp: 2, batch: 0.5}
  decode: {batch: 16}
"""


def side(**changes):
    """Four replicas of eight accelerators, each with a card of 50 GB/s and a cache of its own, ten requests per second."""
    return Side(**{"requests_per_s": 10.0, "replicas": 4.0, "groups": 32.0, "group_Bps": 50e9, "batch": 8.0} | changes)


@pytest.fixture
def written(tmp_path):
    def write(**changes):
        data = yaml.safe_load(SMALL) | changes
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}), encoding="utf-8")
        return file

    return write


def faults_of(run, path, **options):
    with pytest.raises(SpecError) as error:
        run(path, **options)
    assert all(fault.remedy and (fault.file or fault.field == "limit") for fault in error.value.faults)
    return {fault.field: str(fault) for fault in error.value.faults}


# --- the transfer alone ------------------------------------------------------------------------------------------------


def test_a_cache_of_deepseek_is_as_large_as_counted_by_hand():
    assert request_bytes(read_model("deepseek-v3"), ServeWorkload(isl=4096)) == CACHE == 287_834_112
    assert request_bytes(read_model("deepseek-v3"), ServeWorkload(isl=4096, kv_bytes=1.0)) == CACHE / 2


@pytest.mark.parametrize(
    ("prefill", "decode", "wire_Bps", "bound_by", "seconds"),
    [
        ({}, {}, 1e15, "senders", 8e9 / (8 * 50e9)),  # eight caches of 1 GB over eight cards
        ({"batch": 1.0}, {}, 1e15, "receivers", 1e9 / 50e9),  # one cache into one card
        ({"batch": 64.0}, {"groups": 2.0}, 1e15, "receivers", 64e9 / (2 * 50e9)),  # many caches into two cards
        ({}, {"requests_per_s": 0.0}, 100e9, "wire", 8e9 / 100e9),  # an idle wire is all for one
        ({}, {}, 20e9, "wire", 8e9 / (20e9 - 10e9 * 3 / 4)),  # the others take three quarters of 10 GB/s
        ({}, {}, 1e9, "wire", 8e9 / (1e9 / 4)),  # a wire that is too thin is shared equally
    ],
)
def test_the_slowest_of_senders_receivers_and_wire_sets_the_time(prefill, decode, wire_Bps, bound_by, seconds):
    moved = transfer(1e9, side(**prefill), side(**decode), {"bandwidth_Bps": wire_Bps, "latency_s": 3e-6})
    assert moved.bound_by == bound_by
    assert moved.seconds == pytest.approx(3e-6 + seconds)


def test_the_load_is_the_traffic_of_the_slower_pool_over_the_wire():
    wire = {"bandwidth_Bps": 40e9, "latency_s": 0.0}
    moved = transfer(1e9, side(requests_per_s=10.0), side(requests_per_s=60.0), wire)
    assert (moved.load, moved.requests_per_s) == (0.25, 40.0)


def test_a_full_wire_lets_every_replica_finish_just_before_its_next_pass():
    period = 4 * 8 / 10.0  # replicas x requests of a pass / requests per second
    moved = transfer(1e9, side(), side(), {"bandwidth_Bps": 10e9, "latency_s": 0.0})
    assert moved.load == 1.0
    assert moved.seconds == pytest.approx(period)


@given(st.floats(1.0, 1e15), st.floats(0.0, 1e16), st.integers(1, 512))
@settings(max_examples=50, deadline=None)
def test_a_share_is_at_least_equal_and_at_most_all(wire_Bps, steady_Bps, senders):
    share = wire_share(wire_Bps, steady_Bps, senders)
    assert wire_Bps / senders <= share <= wire_Bps
    assert wire_share(wire_Bps, steady_Bps, 1) == wire_Bps
    assert wire_share(wire_Bps, 2 * steady_Bps, senders) <= share


# --- a scenario on two pools -------------------------------------------------------------------------------------------


def test_the_transfer_of_old_with_new_is_as_counted_by_hand():
    document = serve(OLD_WITH_NEW)
    moved, rates = document["transfer"], document["rates"]
    wire = between(build(load(EXAMPLES / "clusters" / "old-with-new.yaml")), "old", "new")
    assert (moved["bytes_per_request"], moved["wire_Bps"]) == (CACHE, 1.6e12)
    assert rates["kv_transfer"] == pytest.approx(1.6e12 / CACHE)
    others = min(rates["prefill"], rates["decode"]) * CACHE * 7 / 8  # seven of eight replicas of EP32
    prompts = 32 * document["pools"]["prefill"]["strategy"]["batch"]
    assert moved["seconds"] == pytest.approx(wire["latency_s"] + prompts * CACHE / (1.6e12 - others))
    assert document["requests_per_s"] == min(rates.values())
    assert document["warnings"] == [note for note in document["warnings"] if "wire" not in note]
    assert document["limit_broken"] is None


def test_the_transfer_is_a_term_of_prefill_and_the_terms_add_up(written):
    document = serve(written())
    first, second = document["pools"]["prefill"], document["pools"]["decode"]
    seconds = document["transfer"]["seconds"]
    for row in (first, second):
        assert math.fsum(row["terms"].values()) == pytest.approx(row["step_time_s"], rel=1e-12)
    assert first["terms"]["kv_transfer"] == first["busy"]["kv_transfer"] == seconds
    assert "kv_transfer" not in second["terms"]
    alone = serve(written(pools=None, strategies=None, pool="old", phase="prefill", strategy={"tp": 2, "batch": 0.5}))
    assert first["ttft_s"] == document["ttft_s"] == pytest.approx(alone["ttft_s"] + seconds)
    assert first["step_time_s"] == pytest.approx(alone["step_time_s"] + seconds)


def test_each_side_is_priced_on_its_own_pool(written):
    document = serve(written())
    alone = serve(written(pools=None, strategies=None, pool="new", phase="decode", strategy={"batch": 16}))
    assert document["pools"]["decode"]["terms"] == alone["terms"]
    assert document["tpot_s"] == alone["tpot_s"]
    assert (document["pools"]["prefill"]["gpus_used"], alone["gpus_used"]) == (64, 72)
    served = document["requests_per_s"] * 256
    assert document["tokens_per_s_per_gpu"] == pytest.approx(served / (64 + 72))


def test_a_thin_wire_sets_the_rate_and_says_so(written):
    cluster = yaml.safe_load(SMALL)["cluster"]
    thin = serve(written(cluster=cluster | {"join": {"bandwidth": "1GB/s"}}))
    wide = serve(written())
    assert thin["transfer"]["load"] > 1
    assert thin["bottleneck"] == "kv_transfer"
    assert thin["requests_per_s"] == pytest.approx(1e9 / thin["transfer"]["bytes_per_request"])
    assert [note for note in thin["warnings"] if "the wire between the pools" in note]
    assert not [note for note in wide["warnings"] if "the wire between the pools" in note]
    assert thin["ttft_s"] > wide["ttft_s"]


@pytest.mark.parametrize("bandwidth", ["10GB/s", "100GB/s", "1TB/s"])
def test_more_wire_never_takes_longer(written, bandwidth):
    cluster = yaml.safe_load(SMALL)["cluster"]
    here = serve(written(cluster=cluster | {"join": {"bandwidth": bandwidth}}))["transfer"]
    twice = f"{2 * int(bandwidth[:-4])}{bandwidth[-4:]}"
    more = serve(written(cluster=cluster | {"join": {"bandwidth": twice}}))["transfer"]
    assert more["seconds"] <= here["seconds"]
    assert {here["bound_by"], more["bound_by"]} <= {*BOUNDS}


def test_training_takes_one_pool(written):
    split = {"tp": 2}
    work = {"global_batch": 64, "precision": "bf16"}
    document = train(written(pools=None, strategies=None, pool="new", workload=work, strategy=split))
    assert document["cluster"].endswith("/new")
    assert document["gpus_used"] + document["gpus_idle"] == 72
    alone = focus(load(EXAMPLES / "clusters" / "old-with-new.yaml"), "new")
    assert build(alone).accelerator.name == "gb200"


# --- faults ------------------------------------------------------------------------------------------------------------


def test_an_unknown_pool_gets_the_nearest_with_every_other_fault(written):
    faults = faults_of(serve, written(pools={"prefill": "odl", "decode": "mew"}))
    assert {*faults} == {"pools.prefill", "pools.decode"}
    assert "did you mean old" in faults["pools.prefill"]
    assert "did you mean new" in faults["pools.decode"]


@pytest.mark.parametrize("run", [serve, train])
def test_a_cluster_of_pools_wants_one_named(run, written):
    given_ = {"pools": None, "strategies": None} | ({"workload": None} if run is train else {})
    assert "name one of old, new" in faults_of(run, written(**given_))["pool"]
    assert "did you mean new" in faults_of(run, written(**given_, pool="nev"))["pool"]


def test_a_pool_of_a_cluster_without_any_is_refused(written):
    path = written(pools=None, strategies=None, cluster="hgx-h100", pool="old")
    assert "the cluster has none" in faults_of(serve, path)["pool"]


def test_fields_of_one_deployment_are_refused_beside_pools(written):
    path = written(pool="old", phase="decode", strategy={"tp": 2}, ladder=[{"name": "same"}])
    faults = faults_of(serve, path)
    assert {*faults} == {"pool", "phase", "strategy", "ladder"}
    assert "write strategies" in faults["strategy"]


def test_splits_of_two_pools_need_pools(written):
    assert "write pools" in faults_of(serve, written(pools=None))["strategies"]


def test_one_pool_cannot_do_both(written):
    path = written(pools={"prefill": "old", "decode": "old"})
    assert "prefills already" in faults_of(serve, path)["pools.decode"]


def test_the_limit_of_communication_is_of_one_phase(written):
    assert "write pool and phase" in faults_of(serve, written(), limit="communication")["limit"]


def test_rules_broken_on_either_pool_are_told_with_its_name(written):
    path = written(strategies={"prefill": {"tp": 3}, "decode": {"pp": 99}})
    faults = faults_of(serve, path)
    assert any(field.startswith("strategies.prefill.") for field in faults)
    assert any(field.startswith("strategies.decode.") for field in faults)


def test_a_misspelt_side_is_told_where_it_stands(written):
    faults = faults_of(serve, written(pools={"prefil": "old", "decode": "new"}))
    assert "did you mean prefill" in faults["pools.prefil"]
    assert "is missing" in faults["pools.prefill"]


def test_a_side_that_overflows_its_memory_is_named(written):
    with pytest.raises(InfeasibleError, match="small, decode on pool new"):
        serve(written(strategies={"prefill": {"tp": 2, "batch": 0.5}, "decode": {"batch": 4096}}))
