"""The sweep file: one value or several, SI or text; every fault at once, each with its remedy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from parallel.sweeps.plan import Sweep
from parallel.sweeps.specfile import json_schema, read_sweep
from podscale.commands import new
from topo.errors import SpecError

BASE = "model: llama-3.1-8b\ncluster: hgx-h100\n"
Read = Callable[[str], Sweep]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def made(text: str) -> Sweep:
        path = tmp_path / "sweep.yaml"
        path.write_text(text, encoding="utf-8")
        return read_sweep(path)

    return made


def test_the_shortest_file_sweeps_all_phases_of_a_model_on_a_cluster(read: Read) -> None:
    asked = read(BASE)
    assert asked.cells == 3
    assert [asked.task(cell).phase for cell in range(3)] == ["train", "prefill", "decode"]
    assert asked.ask.limited
    assert (asked.space, asked.group, asked.budget) == ("all", ("model", "phase"), 0)


def test_one_value_stands_for_a_list_of_one(read: Read) -> None:
    short = read(BASE + "phases: train\nvary: {domain: 8}\ntrain: {sequence: 2048}\nfront: mfu\ngroup: phase\n")
    long = read(
        "model: [llama-3.1-8b]\ncluster: [hgx-h100]\nphases: [train]\nvary: {domain: [8]}\n"
        "train: {sequence: [2048]}\nfront: [mfu]\ngroup: [phase]\n"
    )
    assert short.fingerprint == long.fingerprint
    assert read(BASE.replace("model", "models") + "phases: train\n").cells == 1


def test_the_order_of_keys_changes_nothing_and_a_value_does(read: Read) -> None:
    text = BASE + "train: {sequence: 2048, global_batch: 64}\nlimits: {power_W: 1000000}\nphases: [train]\n"
    fields = yaml.safe_load(text)
    turned = yaml.safe_dump({key: fields[key] for key in reversed(fields)}, sort_keys=False)
    other = text.replace("2048", "4096")
    assert read(turned.replace("global_batch: 64\n  sequence: 2048", "sequence: 2048\n  global_batch: 64"))
    assert read(turned).fingerprint == read(text).fingerprint != read(other).fingerprint


def test_quantities_are_text_or_si(read: Read) -> None:
    text = read(
        BASE + "serve: {tpot_s: 50ms, ttft_s: [1s, 500ms]}\n"
        "limits: {power_W: 5MW, memory_bytes: 70GB, step_time_s: 20ms, price_usd: 3000kUSD}\n"
    )
    plain = read(
        BASE + "serve: {tpot_s: 0.05, ttft_s: [1.0, 0.5]}\n"
        "limits: {power_W: 5.0e+6, memory_bytes: 70.0e+9, step_time_s: 0.02, price_usd: 3.0e+6}\n"
    )
    assert text.fingerprint == plain.fingerprint
    assert dict(text.limits) == {"power_W": 5e6, "price_usd": 3e6}
    assert dict(text.ask.limits) == {"memory_bytes": 70e9, "step_time_s": 0.02}
    assert {work.serve.ttft_s for work in text.works if work.phase == "decode"} == {1.0, 0.5}


def test_a_cluster_may_be_a_base_with_changes_under_a_name(read: Read) -> None:
    asked = read(
        "model: llama-3.1-8b\nphases: train\ncluster: [hgx-h100, {base: hgx-h100, domain: 4, accelerators: 32, name: quarter}]\n"
    )
    plain, changed = asked.clusters
    assert (plain.name, changed.name) == ("hgx-h100", "quarter")
    assert (plain.domain, changed.domain, changed.accelerators) == (8, 4, 32)
    assert changed.scale_out.nic_Bps == plain.scale_out.nic_Bps


def test_files_are_named_as_seen_from_the_sweep(read: Read, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("accelerator: h100-sxm\naccelerators: 16\n", encoding="utf-8")
    asked = read("model: llama-3.1-8b\nphases: train\ncluster: [mine.yaml, {base: mine.yaml, accelerators: 32}]\n")
    assert [spec.accelerators for spec in asked.clusters] == [16, 32]


def test_lists_of_workloads_vary_and_single_values_stay(read: Read) -> None:
    asked = read(
        BASE + "phases: [train, decode]\ntrain: {sequence: [2048, 4096], precision: [bf16, fp8], global_batch: 64}\n"
    )
    assert [dict(work.said) for work in asked.works] == [
        {"sequence": 2048, "precision": "bf16"}, {"sequence": 2048, "precision": "fp8"},
        {"sequence": 4096, "precision": "bf16"}, {"sequence": 4096, "precision": "fp8"}, {}]  # fmt: skip
    assert {work.train.global_batch for work in asked.works[:4]} == {64}


def test_a_base_that_cannot_be_wired_is_no_fault_where_another_can(read: Read) -> None:
    text = (
        "model: llama-3.1-8b\nphases: train\ncluster: [{base: hgx-h100, domain: 8, accelerators: 80000000}, hgx-h100]\n"
    )
    assert read(text + "strategy: {train: {tp: [1]}}\n").cells == 2
    with pytest.raises(SpecError, match="did you mean tp"):
        read(text + "strategy: {train: {tpp: [1]}}\n")


FAULTS = [
    ("model: llama-3.1-8\n", "model", "did you mean llama-3.1-8b"),
    ("rank: tokens_per_second\n", "rank", "tokens_per_s_per_gpu"),
    ("front: [mfuu]\n", "front.0", "mfu"),
    ("vary: {acelerators: [8]}\n", "vary.acelerators", "did you mean accelerators"),
    ("strategy: {train: {tpp: [1]}}\n", "strategy.train.tpp", "did you mean tp"),
    ("strategy: {train: {recompute: [nonne]}}\n", "strategy.train.recompute", "choose from none, selective, full"),
    ("strategy: {serve: {batchs: [1]}}\n", "strategy.serve.batchs", "did you mean batch"),
    ("strategy: {space: everything}\n", "strategy.space", "'all' or 'usual'"),
    ("group: [modle]\n", "group", "choose from cluster, model, phase"),
    ("limits: {power: 3}\n", "limits.power", "power_W"),
    ("limits: {power_W: 5 apples}\n", "limits.power_W", "unit of power"),
    ("limits: {tokens_per_s: 5k}\n", "limits.tokens_per_s", "write a number in SI"),
    ("phases: [trian]\n", "phases.0", "'train'"),
    ("train: {sequnce: 3}\n", "train.sequnce", "did you mean sequence"),
    ("train: {sequence: 0}\n", "train.sequence.0", "greater than 0"),
    ("serve: {tpot_s: 5 apples}\n", "serve.tpot_s.0", "apples"),
    ("bugdet: 3\n", "bugdet", "did you mean budget"),
    ("cluster: hgx-h1000\n", "cluster", "did you mean hgx-h100"),
    ("cluster: {base: hgx-h100, dommain: 4}\n", "cluster.dommain", "did you mean domain"),
]


@pytest.mark.parametrize(("line", "field", "said"), FAULTS, ids=[field for _, field, _ in FAULTS])
def test_a_fault_names_file_field_and_remedy(read: Read, line: str, field: str, said: str) -> None:
    given = yaml.safe_load(BASE) | yaml.safe_load(line)
    with pytest.raises(SpecError) as caught:
        read(yaml.safe_dump(given))
    (fault,) = caught.value.faults
    assert fault.field == field
    assert fault.file.endswith("sweep.yaml")
    assert said in str(fault)


def test_all_faults_of_a_file_come_in_one_error(read: Read) -> None:
    with pytest.raises(SpecError) as caught:
        read(
            "model: [llama-3.1-8, llama-3.1-8b]\ncluster: [hgx-h100, hgx-h1000]\nrank: speed\nbugdet: 3\n"
            "vary: {acelerators: [8]}\nstrategy: {train: {tpp: [1]}}\nlimits: {power_W: 5 apples}\n"
        )
    fields = {fault.field for fault in caught.value.faults}
    assert fields == {"model", "cluster", "rank", "bugdet", "vary.acelerators", "strategy.train.tpp", "limits.power_W"}


def test_faults_that_only_the_parts_together_show_come_in_one_error(read: Read) -> None:
    with pytest.raises(SpecError) as caught:
        read(BASE + "vary: {acelerators: [8]}\ngroup: [modle]\nstrategy: {serve: {batchs: 1}}\n")
    assert {fault.field for fault in caught.value.faults} == {"vary.acelerators", "group", "strategy.serve.batchs"}


def test_the_file_that_new_sweep_writes_is_a_sweep(read: Read) -> None:
    starter = Path(new.__file__).parents[1] / "starters" / "sweep.yaml"
    asked = read(starter.read_text(encoding="utf-8"))
    assert asked.cells == 9
    everything = read("\n".join(uncommented(starter.read_text(encoding="utf-8"))))
    assert everything.cells == 9 * 2 * 4 * 2
    assert everything.ask.most == 3
    assert everything.ask.histogram
    assert everything.budget == 100_000
    assert dict(everything.limits) == {"power_W": 5e6, "price_usd": 1e8, "ports": 1e5}


def uncommented(text: str) -> list[str]:
    """Return the lines of a starter with its options written out."""
    lines = text[text.index("\nname:") :].splitlines()
    return [line[2:] if line.startswith("# ") else line for line in lines]


def test_the_schema_knows_every_field_and_value(read: Read) -> None:
    schema = json_schema()
    text = json.dumps(schema)
    for name in (
        "model",
        "cluster",
        "vary",
        "limits",
        "tokens_per_s_per_gpu",
        "power_W",
        "usual",
    ):
        assert f'"{name}"' in text
    assert schema["additionalProperties"] is False
