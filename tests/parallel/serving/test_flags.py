"""Launch flags: what each engine is told, and what it cannot be told."""

import shlex
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.io import model_names, read_model
from parallel.serving.engines import Settings, engine_names
from parallel.serving.flags import NAME, Deployment, deploy, faults, launch, repository, rules, values
from parallel.serving.passes import Split
from topo.errors import SpecError

SETTINGS = Settings(tokens=8192, sequences=256, memory=0.85)
WIDE = Split(1, 8, 1, 8)


def server(split: Split = WIDE, **changes: Any) -> Deployment:
    return replace(Deployment("m", split, SETTINGS, 1.0, 9216), **changes)


def told(engine: str, one: Deployment) -> dict[str, str]:
    """Flags and their values, options among them."""
    words = list(launch(one, engine).command)
    return {word: "".join(words[i + 1 : i + 2]) for i, word in enumerate(words) if word.startswith("--")}


def test_every_rule_names_values_that_there_are() -> None:
    for row in rules()["settings"]:
        for engine in engine_names():
            held = row.get(engine) or []
            for rule in held if isinstance(held, list) else [held]:
                for template in rule.values() if isinstance(rule, dict) else (rule,):
                    assert set(NAME.findall(str(template))) <= set(values(server(), engine)), row["setting"]


@pytest.mark.parametrize(
    ("engine", "want"),
    [
        ("vllm", {"--tensor-parallel-size": "1", "--data-parallel-size": "8", "--max-num-seqs": "256"}),
        ("sglang", {"--tp-size": "8", "--dp-size": "8", "--ep-size": "8", "--max-running-requests": "2048"}),
        ("trtllm", {"--tp_size": "8", "--ep_size": "8", "--max_batch_size": "256", "--max_num_tokens": "8192"}),
    ],
)
def test_attention_groups_are_told_in_each_engines_own_way(engine: str, want: dict[str, str]) -> None:
    found = told(engine, server())
    assert {key: found[key] for key in want} == want


def test_what_tensorrt_llm_has_no_flag_for_goes_into_its_options() -> None:
    options = launch(server(), "trtllm").options
    assert options["enable_attention_dp"] is True
    assert options["kv_cache_config"] == {"dtype": "fp8"}
    assert "--extra_llm_api_options" in told("trtllm", server())
    assert not launch(server(), "vllm").options


def test_a_pool_has_a_role_and_a_transfer() -> None:
    one = server(role="decode")
    assert '"kv_role":"kv_consumer"' in told("vllm", one)["--kv-transfer-config"]
    assert told("vllm", one)["--all2all-backend"] == "deepep_low_latency"
    assert told("sglang", one)["--disaggregation-mode"] == "decode"
    assert launch(one, "trtllm").options["cache_transceiver_config"] == {"backend": "DEFAULT"}
    assert "disaggregation-mode" not in launch(server(), "sglang").text


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_drafts_are_told_only_where_asked_for(engine: str) -> None:
    with_them, without = (f"{launch(one, engine)}" for one in (server(drafts=2), server()))
    assert "speculative" in with_them
    assert "speculative" not in without


def test_stages_and_ranks_that_deal_the_cache_are_told() -> None:
    one = server(Split(8, 1, 8, 1, pp=2, dcp=2))
    assert told("vllm", one)["--pipeline-parallel-size"] == told("vllm", one)["--decode-context-parallel-size"] == "2"
    staged = server(Split(8, 1, 8, 1, pp=2))
    assert told("sglang", staged)["--pp-size"] == told("trtllm", staged)["--pp_size"] == "2"
    assert staged.ranks == 16
    assert not {"--pp-size", "--pp_size"} & set(told("sglang", server())) | set(told("trtllm", server())) & {
        "--pp_size"
    }
    for engine in ("sglang", "trtllm"):
        assert [fault.field for fault in faults(one, engine)] == ["strategy.dcp"]


def test_what_drafts_is_told_with_a_place_for_its_repository() -> None:
    one = server(drafts=3, drafter="eagle")
    assert '"method":"eagle","model":"$DRAFT","num_speculative_tokens":3' in launch(one, "vllm").text
    assert told("sglang", one)["--speculative-draft-model-path"] == "$DRAFT"
    assert launch(one, "trtllm").options["speculative_config"] == {
        "decoding_type": "Eagle",
        "max_draft_len": 3,
        "speculative_model_dir": "$DRAFT",
    }
    assert '"method":"mtp","num_speculative_tokens":3' in launch(server(drafts=3), "vllm").text
    assert "DRAFT" not in launch(server(drafts=3), "sglang").text
    assert [fault.field for fault in faults(server(drafts=3, drafter="model"), "vllm")] == ["drafts.method"]


def test_a_replica_of_several_hosts_says_which_host_it_is() -> None:
    one = server(Split(1, 32, 1, 32), per_host=8)
    assert told("sglang", one)["--nnodes"] == "4"
    assert told("vllm", one)["--data-parallel-size-local"] == "8"
    assert launch(one, "trtllm").command[0] == "srun"
    tall = server(Split(16, 1, 16, 1), per_host=8)
    assert told("vllm", tall)["--distributed-executor-backend"] == "ray"


@pytest.mark.parametrize(
    ("engine", "one", "field"),
    [
        ("vllm", server(Split(8, 1, 2, 4)), "strategy.ep"),
        ("trtllm", server(Split(2, 4, 1, 8)), "strategy.tp"),
        ("vllm", server(kv_bytes=0.5), "workload.kv_bytes"),
        ("llama.cpp", server(), "engine"),
    ],
)
def test_what_an_engine_has_no_words_for_is_a_fault(engine: str, one: Deployment, field: str) -> None:
    with pytest.raises(SpecError) as error:
        launch(one, engine)
    assert [fault.field for fault in error.value.faults] == [field]


def test_several_faults_come_at_once_and_a_document_holds_them() -> None:
    one = server(Split(8, 1, 2, 4), kv_bytes=0.5)
    assert {fault["field"] for fault in deploy(one, "vllm")["faults"]} == {"strategy.ep", "workload.kv_bytes"}


sizes = st.sampled_from([1, 2, 4, 8])


@settings(max_examples=50, deadline=None)
@given(tp=sizes, dp=sizes, ep=sizes, role=st.sampled_from(["", "prefill", "decode"]), drafts=st.integers(0, 3))
def test_a_shell_reads_every_command_and_no_placeholder_is_left(
    tp: int, dp: int, ep: int, role: str, drafts: int
) -> None:
    if tp * dp % ep:
        return
    one = server(Split(tp, dp, tp * dp / ep, ep), role=role, drafts=drafts)
    for engine in engine_names():
        if not faults(one, engine):
            made = launch(one, engine)
            words = shlex.split(made.text.replace("\\\n", " "))
            assert words == shlex.split(" ".join(made.command))
            assert not any("None" in word for word in words)
            assert all(word.count("$") == 0 or word.startswith(("$HOST", "$HEAD", "$((")) for word in words)
            assert len(made.rules) >= 6


def test_shipped_models_name_their_repository() -> None:
    assert repository(read_model("llama-3.1-70b")) == "meta-llama/Llama-3.1-70B"
    assert all(repository(read_model(name)) for name in model_names())
