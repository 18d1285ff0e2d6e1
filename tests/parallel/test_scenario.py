"""Scenario files: the shipped ones run, published limits come out, and every fault is told at once with its remedy."""

import json
import math
from pathlib import Path

import pytest
import yaml

from parallel.io import read_model
from parallel.models import flops_per_token_forward
from parallel.scenario import serve, train
from topo.errors import InfeasibleError, SpecError

SCENARIOS = Path(__file__).parents[2] / "examples" / "scenarios"
SERVED = ["isca25-infiniband", "isca25-gb200", "deepseek-v3-decode-h800", "llama-70b-serve"]

TRAIN = """
name: small
model: llama-3.1-8b
cluster: hgx-h100
accelerators: 64
workload: {global_batch: 256, precision: bf16}
strategy: {tp: 2, pp: 4, zero: 1}
"""
SERVE = """
name: small
model: mixtral-8x7b
cluster: {accelerator: h100, accelerators: 16}
strategy: {ep: 8, batch: 16}
"""


@pytest.fixture
def written(tmp_path):
    """Write a scenario with changes (dotted paths; None deletes) and return its path."""

    def write(text: str, **changes):
        data = yaml.safe_load(text)
        for path, value in changes.items():
            *sections, last = path.split("__")
            place = data
            for section in sections:
                place = place.setdefault(section, {})
            if value is None:
                place.pop(last, None)
            else:
                place[last] = value
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(data), encoding="utf-8")
        return file

    return write


def faults_of(run, path, **options) -> dict[str, str]:
    """Every fault of a file: field -> the line a reader sees."""
    with pytest.raises(SpecError) as error:
        run(path, **options)
    assert all(fault.remedy for fault in error.value.faults)
    return {fault.field: str(fault) for fault in error.value.faults}


def sound(document) -> None:
    assert json.loads(json.dumps(document, allow_nan=False))
    assert math.fsum(document["terms"].values()) == pytest.approx(document["step_time_s"], rel=1e-12)
    assert all(document["busy"][name] >= value * (1 - 1e-12) for name, value in document["terms"].items())
    assert math.fsum(document["memory_bytes"].values()) > 0


# --- shipped scenarios ---------------------------------------------------------------------------------------------


def test_days_of_a_run_hold_its_evaluations_and_follow_the_release(written):
    """512 sequences every 10 steps of 256 are two forward passes: a fifteenth of the work at a third of a step."""
    plain = train(written(TRAIN, run__tokens="1T"))
    evaluating = train(
        written(TRAIN, run__tokens="1T", workload__evaluation_sequences=512, workload__evaluation_steps=10)
    )
    sound(evaluating)
    added = evaluating["terms"]["evaluation"] / plain["step_time_s"]
    assert added == pytest.approx(0.2 / 3, rel=0.2)
    assert evaluating["run"]["days"] == pytest.approx((1 + added) * plain["run"]["days"], rel=1e-2)
    earlier = train(written(TRAIN, software__release="25.06"))
    assert earlier["step_time_s"] > plain["step_time_s"]


@pytest.mark.parametrize("name", SERVED)
def test_a_shipped_deployment_runs(name):
    document = serve(SCENARIOS / f"{name}.yaml")
    sound(document)
    assert document["tpot_s"] == document["step_time_s"]
    assert document["memory_share"] < 1
    assert document["limit_broken"] is None
    assert 0 < document["mfu"] < 1


def test_every_shipped_scenario_is_tested():
    assert {path.stem for path in SCENARIOS.glob("*.yaml")} == {
        *SERVED,
        "llama-405b-h100",
        "old-with-new",
        "llama-70b-vllm",
        "llama-70b-sessions",
        "deepseek-v3-rack",
        "rl-7b-h800",
    }


@pytest.mark.parametrize(("name", "published_s"), [("isca25-infiniband", 14.76e-3), ("isca25-gb200", 0.82e-3)])
def test_the_published_communication_limits_come_out(name, published_s):
    """Zhao et al. 2505.09343, section 2.3.2."""
    document = serve(SCENARIOS / f"{name}.yaml", limit="communication")
    sound(document)
    assert document["tpot_s"] == pytest.approx(published_s, rel=0.005)
    assert document["terms"] == {"ep": document["step_time_s"]}
    assert document["limit"] == "communication"
    assert document["mfu"] is None


@pytest.mark.parametrize(
    ("name", "ratios"),
    [
        # 58 of 61 layers, 7,168 of 7,000 values; 8 of 9 copies; 248 of 256 ranks, or 255; 4 domains of 8 copies; scales on
        # one of three bytes: (1 + 4/128 + 2) / 3
        ("isca25-infiniband", [1, 58 / 61 * 7168 / 7000, 8 / 9, 248 / 256, 1 / 2, (3 + 4 / 128) / 3]),
        ("isca25-gb200", [1, 58 / 61 * 7168 / 7000, 8 / 9, 255 / 256, 1, (3 + 4 / 128) / 3]),
    ],
)
def test_the_rungs_of_a_ladder_multiply_as_counted_by_hand(name, ratios):
    document = serve(SCENARIOS / f"{name}.yaml", limit="communication")
    ladder = document["ladder"]
    assert [rung["ratio_to_previous"] for rung in ladder[:6]] == pytest.approx(ratios, rel=1e-12)
    assert ladder[0]["seconds"] == pytest.approx(document["tpot_s"], rel=1e-12)
    assert ladder[5]["seconds"] == pytest.approx(document["tpot_s"] * math.prod(ratios), rel=1e-12)
    assert ladder[6]["seconds"] > ladder[5]["seconds"]  # measured latency and efficiency


def test_the_measured_exchange_takes_longer_than_its_limit():
    full = serve(SCENARIOS / "isca25-infiniband.yaml")
    limit = serve(SCENARIOS / "isca25-infiniband.yaml", limit="communication")
    assert full["ladder"][-1]["exchange_s"] == pytest.approx(limit["ladder"][-1]["seconds"])
    assert full["tpot_s"] > limit["tpot_s"]


def test_the_decode_of_deepseek_comes_near_what_its_authors_report():
    """1,850 tokens/s per H800 over a day of uneven load: steady and balanced load gives more, but not twice as much."""
    document = serve(SCENARIOS / "deepseek-v3-decode-h800.yaml")
    assert 1850 < document["tokens_per_s_per_gpu"] < 2 * 1850
    assert document["busy"]["ep"] > 10 * document["terms"].get("ep", 0.0)  # two micro-batches hide the exchange


def test_the_step_of_llama_405b_comes_near_what_its_authors_report():
    """400 model TFLOP/s per GPU (2407.21783, Table 4)."""
    document = train(SCENARIOS / "llama-405b-h100.yaml")
    sound(document)
    model = read_model("llama-3.1-405b")
    flops = 3 * sum(flops_per_token_forward(model, 8192, causal=True).values()) * 2048 * 8192
    assert document["gpus_used"] == 16384
    assert document["step_time_s"] == pytest.approx(flops / (16384 * 400e12), rel=0.25)
    assert document["memory_share"] < 1


# --- own scenarios -------------------------------------------------------------------------------------------------


def test_a_training_scenario_takes_as_many_replicas_as_fit(written):
    document = train(written(TRAIN))
    sound(document)
    assert document["strategy"]["dp"] == 64 // 8
    assert document["gpus_used"] == 64
    assert (document["phase"], document["model"], document["name"]) == ("train", "llama-3.1-8b", "small")
    assert document["tokens_per_s_per_gpu"] == pytest.approx(256 * 4096 / document["step_time_s"] / 64)


def test_stated_replicas_are_taken_and_the_rest_is_idle(written):
    document = train(written(TRAIN, strategy__dp=4))
    assert (document["gpus_used"], document["gpus_idle"]) == (32, 32)


def test_a_prefill_scenario_tells_its_first_token(written):
    document = serve(written(SERVE, phase="prefill", strategy__batch=1))
    sound(document)
    assert document["ttft_s"] > document["step_time_s"]
    assert document["tpot_s"] is None


def test_a_broken_limit_is_named_and_not_an_error(written):
    document = serve(written(SERVE, workload__tpot_s=0.001))
    assert document["limit_broken"].startswith("TPOT limit of 1 ms, missed at")


def test_files_named_in_a_scenario_are_found_beside_it(written, tmp_path):
    (tmp_path / "cluster.yaml").write_text("accelerator: h100\naccelerators: 16\n")
    document = serve(written(SERVE, cluster="cluster.yaml"))
    assert document["step_time_s"] == serve(written(SERVE))["step_time_s"]


def test_a_changed_cluster_changes_the_time(written):
    usual = serve(written(SERVE, strategy__ep=16, strategy__batch=64))
    cluster = {"accelerator": "h100", "accelerators": 16, "scale_out": {"nic": "100Gb/s"}}
    assert (
        serve(written(SERVE, strategy__ep=16, strategy__batch=64, cluster=cluster))["step_time_s"]
        > usual["step_time_s"]
    )


# --- faults --------------------------------------------------------------------------------------------------------


def test_every_fault_of_a_file_comes_at_once_with_field_value_and_remedy(written):
    path = written(
        SERVE, model=None, phase="both", accelerators=-4, workload__precision="fp9", workload__isl="long",
        strategy__btach=16, strategy__ep=64.5, strategy__microbatches=3,
    )  # fmt: skip
    faults = faults_of(serve, path)
    assert set(faults) == {
        "model", "phase", "accelerators", "workload.precision", "workload.isl", "strategy.btach", "strategy.ep",
        "strategy.microbatches",
    }  # fmt: skip
    assert all(line.startswith(f"{path}: ") for line in faults.values())
    assert "did you mean batch" in faults["strategy.btach"]
    assert "'bf16', 'fp8', 'mxfp8', 'fp8-row' or 'nvfp4'" in faults["workload.precision"]
    assert "'long'" in faults["workload.isl"]
    assert "is missing" in faults["model"]


def test_an_unknown_field_far_from_any_gets_the_list(written):
    line = faults_of(train, written(TRAIN, strategy__colour="red"))["strategy.colour"]
    assert "choose from tp, " in line


def test_every_rule_that_a_training_split_breaks_is_told(written):
    path = written(TRAIN, strategy={"tp": 3, "pp": 99, "dp": 7, "ep": 2, "micro_batch": 5, "cp": 3})
    lines = "\n".join(faults_of(train, path).values())
    with pytest.raises(SpecError) as error:
        train(path)
    told = {fault.problem.removeprefix("breaks the rule: ") for fault in error.value.faults}
    assert told >= {
        "tp divides the attention heads", "ep needs experts", "cp divides the sequence", "the ranks suffice",
        "stages hold at least one layer", "the batch divides",
    }  # fmt: skip
    assert "'tp': 3" in lines


def test_every_rule_that_a_serving_split_breaks_is_told(written):
    with pytest.raises(SpecError) as error:
        serve(written(SERVE, strategy={"tp": 3, "ep": 256, "pp": 99, "batch": 0.5}))
    assert len(error.value.faults) >= 5


@pytest.mark.parametrize("run", [train, serve])
def test_more_ranks_than_a_domain_has_are_refused(run, written):
    path = written(TRAIN if run is train else SERVE, strategy__ranks_per_domain=100)
    assert "lower ranks_per_domain" in faults_of(run, path)["strategy.ranks_per_domain"]


def test_more_replicas_than_the_cluster_holds_are_refused(written):
    with pytest.raises(SpecError, match="the ranks suffice"):
        train(written(TRAIN, strategy__dp=16))


def test_a_split_too_large_for_one_replica_is_refused_without_a_warning(written):
    with pytest.raises(SpecError, match="the ranks suffice"):
        train(written(TRAIN, strategy__pp=32, strategy__tp=8, strategy__vpp=1))


def test_kernels_that_cannot_leave_a_domain_are_refused_across_domains(written):
    inside = serve(written(SERVE, exchange__kernels="one-sided"))
    assert inside["busy"]["ep"] > 0
    path = written(SERVE, exchange__kernels="one-sided", strategy__ep=16)
    assert "the exchange kernels reach" in "".join(faults_of(serve, path).values())


def test_a_rung_that_cannot_run_is_refused_too(written):
    ladder = [{"name": "other kernels", "exchange": {"kernels": "one-sided"}}]
    with pytest.raises(SpecError, match="the exchange kernels reach"):
        serve(written(SERVE, strategy__ep=16, ladder=ladder))


@pytest.mark.parametrize("change", [{"model": "llama-3.1-8b", "strategy__ep": 1}, {"strategy__ep": 1}], ids=str)
def test_a_split_without_an_exchange_has_no_communication_limit(change, written):
    path = written(SERVE, **change)
    assert "exchanges no expert rows" in faults_of(serve, path, limit="communication")["limit"]


def test_an_unknown_limit_is_refused(written):
    assert "write communication" in faults_of(serve, written(SERVE), limit="compute")["limit"]


def test_faults_of_the_cluster_carry_the_file(written):
    cluster = {"accelerator": "h100", "accelerators": 16, "domian": 8, "scale_out": {"nic": "-4Gb/s"}}
    faults = faults_of(serve, written(SERVE, cluster=cluster))
    assert set(faults) == {"domian", "scale_out.nic"}
    assert "did you mean domain" in faults["domian"]


@pytest.mark.parametrize(
    ("change", "remedy"), [({"model": "mixtral-8x7"}, "mixtral-8x7b"), ({"cluster": "hgx-h10"}, "hgx-h100")], ids=str
)
def test_a_misspelt_name_gets_the_nearest(change, remedy, written):
    with pytest.raises(SpecError, match=remedy):
        serve(written(SERVE, **change))


@pytest.mark.parametrize("run", [train, serve])
def test_a_file_that_is_no_yaml_is_told_with_line_and_column(run, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("model: [unclosed\nstrategy: {tp: 2}\n")
    with pytest.raises(SpecError, match=r"broken\.yaml.*is not YAML.*line \d+, column \d+"):
        run(path)


@pytest.mark.parametrize(("content", "said"), [("", "not named fields"), ("- a\n- b\n", "not named fields")])
def test_a_file_without_fields_is_refused(content, said, tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text(content)
    with pytest.raises(SpecError, match=said):
        serve(path)


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path):
    with pytest.raises(SpecError, match="No such file"):
        serve(tmp_path / "nowhere.yaml")
    with pytest.raises(SpecError, match="Is a directory"):
        train(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(SpecError, match="not UTF-8"):
        serve(binary)


def test_a_split_that_overflows_memory_names_limit_excess_and_remedy(written):
    with pytest.raises(InfeasibleError) as error:
        serve(written(SERVE, strategy__batch=4096))
    told = str(error.value)
    assert told.startswith("small: 80 GiB of memory per accelerator cannot be met: the split needs ")
    assert "of it kv cache" in told
    assert "lower the batch" in told
    with pytest.raises(InfeasibleError) as error:
        train(written(TRAIN, model="llama-3.1-405b", strategy={"tp": 8, "pp": 1}))
    told = str(error.value)
    assert "the last stage needs" in told
    assert "of them gradients" in told
    assert "take more accelerators" in told  # no three changes shard 405 B parameters over 64
    with pytest.raises(InfeasibleError, match="nearest that fits: "):
        train(written(TRAIN, model="llama-3.1-70b", strategy={"tp": 2, "pp": 4, "zero": 1}))


def test_a_training_split_tells_its_placement_and_the_memory_of_every_stage(written):
    document = train(written(TRAIN))
    assert document["placement"].startswith("4 stages: embedding + ")
    assert document["placement"].endswith(" + head")
    stages = document["memory_by_stage"]
    assert list(stages) == ["first", "inner", "last"]
    fullest = max(sum(held.values()) for held in stages.values())
    assert fullest == pytest.approx(sum(document["memory_bytes"].values()))


def test_the_communication_limit_does_not_ask_for_memory(written):
    assert serve(written(SERVE, strategy__batch=4096), limit="communication")["step_time_s"] > 0


# --- what a training split may add ---------------------------------------------------------------------------------


def test_a_split_may_copy_shards_recompute_some_layers_and_place_all(written):
    plain = train(written(TRAIN))
    copied = train(written(TRAIN, strategy__replicate=2))
    assert copied["strategy"]["replicate"] == 2
    assert copied["memory_bytes"]["optimizer"] == pytest.approx(2.0 * plain["memory_bytes"]["optimizer"])
    some, full = (
        train(written(TRAIN, strategy__recompute="full", strategy__recompute_layers=n))["terms"]["recompute"]
        for n in (2, None)
    )
    assert some == pytest.approx(full / 4.0)
    laid = train(written(TRAIN, strategy__layout="Et*9|t*9|t*9|t*5L"))
    assert laid["placement"] == "4 stages: embedding + 9, 2 × 9, 5 + head"
    for document in (copied, laid):
        sound(document)


def test_what_a_split_adds_wrongly_is_told(written):
    found = faults_of(train, written(TRAIN, strategy__replicate=3, strategy__recompute_layers=2))
    assert "strategy.replicate, zero, tp, cp, dp, ep, etp" in found
    assert "strategy.recompute_layers, recompute" in found
    assert (
        "has 33 layers, not 32"
        in faults_of(train, written(TRAIN, strategy__layout="Et*9|t*9|t*9|t*6L"))["strategy.layout"]
    )
