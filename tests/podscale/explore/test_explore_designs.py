import json
import shlex

import pytest

from clusters.spec import fingerprint, load, systems
from podscale.cli import main
from podscale.explore.answer import answer
from podscale.explore.designs import built, cluster_text, command, files, read_fields, texts
from podscale.explore.state import OWN, PHASES, Design, State
from topo.errors import SpecError

OWN_CLUSTER = """
name: mine
accelerator: h100
accelerators: 64
scale_out: {nic: 400Gb/s, oversubscription: [1, 2]}
override: {accelerator: {hbm_bandwidth: 3.2TB/s}}
"""
TWO_POOLS = """
pools:
- {name: old, accelerator: h100, accelerators: 32}
- {name: new, accelerator: gb200, accelerators: 72}
"""
DESIGNS = {
    "catalogue": Design("gb200", gpus=144, domain=8, nic=333.3, scale_up=123.4, oversubscription=2.5, global_batch=576),
    "system": Design("hgx-h100", gpus=64, model="mixtral-8x7b", precision="bf16", isl=1000, global_batch=256),
    "own": Design(OWN, OWN_CLUSTER, domain=16, model=OWN, model_file=texts(Design(model="qwen3-30b-a3b"))["model"]),
    "pool": Design(OWN, TWO_POOLS, "new", model="llama-3.1-70b", global_batch=288),
    "torus": Design("tpu-v5e-pod", model="llama-3.1-8b", precision="bf16", global_batch=256),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_downloaded_files_and_command_give_the_numbers_on_the_page(name, tmp_path, monkeypatch, capsys):
    design = DESIGNS[name]
    for file, text in files(design, "-b").items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(command(design, "-b"))[1:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    fronts = {row["phase"]: row["points"] for row in found["frontiers"]}
    rows = {row["phase"]: row for row in found["rows"]}
    assert len(found["rows"]) == 3
    for phase in PHASES:
        shown = answer(State(design), phase)["designs"]["a"]
        assert figures(shown["row"]) == figures(rows[phase])
        assert shown["front"] == fronts[phase]


def figures(row):
    """A row without the words in which its cluster was written down, which differ from file to file."""
    return {name: value for name, value in row.items() if name != "point"}


def test_the_default_is_the_default_of_compare():
    from parallel.compare import CompareRequest, compare

    found = compare(CompareRequest(domains=(72,), phases=("decode",)))
    shown = answer(State())["designs"]["a"]
    assert figures(shown["row"]) == figures(json.loads(json.dumps(found["rows"][0])))
    assert shown["settled"] == {
        "gpus": "4608",
        "domain": "72",
        "scale_up": "900",
        "nic": "400",
        "oversubscription": "1",
    }


@pytest.mark.parametrize("name", systems())
def test_every_system_that_can_be_priced_is_written_down_exactly(name, tmp_path):
    try:
        spec = built(Design(name)).spec
    except SpecError:
        return  # a part without public figures, or unlike pools: the page says so
    (tmp_path / "cluster.yaml").write_text(cluster_text(Design(name)))
    assert fingerprint(load(tmp_path / "cluster.yaml")) == fingerprint(spec)


HOSTILE = {
    "aliases": ("a: &x [1]\nb: [*x, *x]", "alias"),
    "depth": ("a: " + "[" * 200, "nested"),
    "depth of json": ("{" + '"a": {' * 200, "nested"),
    "another file": ("graph: {file: /etc/passwd}", "names another file"),
    "another file in a pool": ("pools: [{name: a, graph: {file: /etc/passwd}}]", "names another file"),
    "a field twice": ("accelerators: 8\naccelerators: 16", "written twice"),
    "two documents": ("a: 1\n---\nb: 2", "not YAML"),
    "no fields": ("- 1\n- 2", "no fields"),
    "nothing": ("  ", "is empty"),
    "syntax": ("a: [", "is not YAML"),
    "control characters": ("a: \x00", "is not YAML"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_cluster_files_are_faults_of_their_control(name):
    text, said = HOSTILE[name]
    with pytest.raises(SpecError, match=said) as caught:
        built(Design(OWN, text))
    assert {fault.field for fault in caught.value.faults} == {"cluster_file"}


def test_pasted_text_is_never_run(tmp_path):
    target = tmp_path / "ran"
    text = f"a: !!python/object/apply:os.mkdir ['{target}']"
    assert read_fields(text, "cluster file", numbers=False) == {"a": [str(target)]}
    with pytest.raises(SpecError, match="YAML"):
        read_fields(text, "model file")
    assert not target.exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../models/deepseek-v3.json", "config.json", "."])
def test_names_are_never_paths(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(texts(Design())["model"])
    for design in (Design(model=name), Design(cluster=name)):
        with pytest.raises(SpecError, match="catalogue"):
            built(design)


def test_faults_of_cluster_and_model_come_together_at_their_controls():
    with pytest.raises(SpecError) as caught:
        built(Design("gb200", domain=5000, model="gpt-9", precision="fp1"))
    assert {fault.field for fault in caught.value.faults} >= {"gpus", "model", "precision"}


def test_an_unlike_pool_has_to_be_chosen():
    with pytest.raises(SpecError, match="old, new"):
        built(Design(OWN, TWO_POOLS))
    assert built(Design(OWN, TWO_POOLS, "old")).spec.accelerators == 32
