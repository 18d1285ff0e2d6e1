"""`podscale new`: starters that are valid as they stand and with every line in use, and schemas that are current."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from clusters.build import build
from clusters.spec import load, parse, part_of
from parallel.io import MODELS, read_model
from parallel.models import active_parameters, parameters
from parallel.modelschema import FROM_ZERO, NEEDED, WHAT
from parallel.modelschema import model_schema as schema_of_models
from parallel.sweeps.specfile import read_sweep
from podscale.cli import main
from podscale.commands.new import KINDS, STARTERS, schema_text
from topo.errors import SpecError

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "examples" / "schemas"
OPTIONAL = re.compile(r"^# ( *[\w.]+:(?: .*)?)$", re.MULTILINE)


def in_use(kind, without=""):
    """The starter with every optional line in use, but for those that another one replaces."""
    text = OPTIONAL.sub(r"\1", KINDS[kind].text)
    return re.sub(without, "", text, count=1, flags=re.MULTILINE) if without else text


@pytest.mark.parametrize("kind", KINDS)
def test_a_starter_names_its_schema_and_says_how_to_get_it(kind):
    first, text = KINDS[kind].text.splitlines()[0], " ".join(KINDS[kind].text.split())
    assert first == f"# yaml-language-server: $schema={kind}.schema.json"
    assert f"podscale new {kind} --schema --out {kind}.schema.json" in text
    assert {path.stem for path in STARTERS.iterdir()} == {*KINDS}


def test_the_cluster_starter_builds_as_it_stands():
    cluster = build(load(STARTERS / "cluster.yaml"))
    assert (cluster.name, cluster.accelerator.name, cluster.domains) == ("my-cluster", "gb200", 16)


def test_the_cluster_starter_is_valid_with_every_line_in_use(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(in_use("cluster", "^accelerator: gb200.*$"), encoding="utf-8")
    spec = load(file)
    assert (spec.accelerator, part_of(spec).like, spec.domain) == ("my-chip", "gb200", 72)
    assert (spec.scale_out.oversubscription, part_of(spec).power_W) == (2.0, 1200.0)


def test_the_model_starter_is_llama_of_eight_billion():
    model = read_model(STARTERS / "model.yaml")
    assert parameters(model) == pytest.approx(8.03e9, rel=1e-3)
    assert model.note == ""


def test_the_model_starter_is_valid_with_every_line_in_use(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(in_use("model"), encoding="utf-8")
    model = read_model(file)
    assert [layer.name for layer in model.layers] == ["dense", "moe"]
    assert active_parameters(model) < parameters(model)


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_schema_is_current(kind):
    path = SCHEMAS / f"{kind}.schema.json"
    remedy = f"podscale new {kind} --schema --force --out {path.relative_to(ROOT)}"
    assert path.read_text(encoding="utf-8") == schema_text(kind), remedy


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_a_schema_and_accepts_its_starter(kind):
    schema = KINDS[kind].schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for text in (KINDS[kind].text, in_use(kind, "^accelerator: gb200.*$")):
        jsonschema.validate(yaml.safe_load(text), schema)


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "clusters").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_cluster_schema_accepts_every_example(path):
    jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), KINDS["cluster"].schema())


@pytest.mark.parametrize(
    "wrong",
    [
        {"domian": 8},
        {"accelerators": [8]},
        {"accelerator": {"peak": 1}},
        {"scale_out": {"nics": 2}},
        {"accelerator": 8},
    ],
)
def test_the_cluster_schema_refuses_what_the_reader_refuses(wrong):
    data = {"accelerator": "gb200", "accelerators": 72, **wrong}
    with pytest.raises(SpecError):
        parse(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, KINDS["cluster"].schema())


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.json")), ids=lambda path: path.stem)
def test_the_model_schema_accepts_every_model_that_ships(path):
    jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), schema_of_models())


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_hidden_layers": "32"},
        {"hidden_size": 0},
        {"tie_word_embeddings": 1},
        {"ssm_cfg": {"d": 1}},
        {"vocab_size": 1.5},
    ],
)
def test_the_model_schema_refuses_what_the_reader_refuses(wrong, tmp_path):
    data = {**yaml.safe_load(KINDS["model"].text), **wrong}
    (tmp_path / "mine.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(SpecError):
        read_model(tmp_path / "mine.json")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema_of_models())


@pytest.mark.parametrize("name", NEEDED)
def test_the_model_schema_needs_what_the_reader_needs(name):
    from parallel.configreader import KEYS

    data = {key: value for key, value in yaml.safe_load(KINDS["model"].text).items() if key not in KEYS[name]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema_of_models())


def test_the_model_schema_covers_every_key_that_is_read():
    from parallel.configreader import KEYS
    from parallel.configs import REFUSED

    keys = {key for options in KEYS.values() for key in options}
    assert {*keys, *REFUSED} <= {*schema_of_models()["properties"]}
    assert {*KEYS, *FROM_ZERO} <= {*WHAT}


@pytest.mark.parametrize("kind", KINDS)
def test_a_starter_goes_to_stdout_to_a_file_and_into_json(kind, tmp_path, capsys):
    assert main(["new", kind]) == 0
    assert capsys.readouterr().out == KINDS[kind].text
    file = tmp_path / "deep" / "mine.yaml"
    assert main(["new", kind, "--out", str(file)]) == 0
    assert f"wrote {file}" in capsys.readouterr().out
    assert file.read_text(encoding="utf-8") == KINDS[kind].text
    assert main(["new", kind, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"kind": kind, "file": None, "text": KINDS[kind].text}


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_goes_to_stdout_to_a_file_and_into_json(kind, tmp_path, capsys):
    assert main(["new", kind, "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == KINDS[kind].schema()
    file = tmp_path / "mine.schema.json"
    assert main(["new", kind, "--schema", "--json", "--out", str(file)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["file"], document["schema"]) == (str(file), KINDS[kind].schema())
    assert file.read_text(encoding="utf-8") == schema_text(kind)


def test_a_file_that_is_there_stays_without_force(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("mine", encoding="utf-8")
    assert main(["new", "cluster", "--out", str(file)]) == 2
    assert "--force" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == "mine"
    assert main(["new", "cluster", "--out", str(file), "--force"]) == 0
    assert load(file).name == "my-cluster"


def test_a_folder_a_blocked_place_and_an_unknown_kind_are_told(tmp_path, capsys):
    assert main(["new", "cluster", "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["new", "cluster", "--out", str(tmp_path / "file" / "mine.yaml")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["new", "clutser", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["faults"][0]["remedy"] == "write cluster"


def test_the_sweep_starter_is_a_sweep_as_it_stands_and_with_every_line_in_use(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(in_use("sweep"), encoding="utf-8")
    asked, full = (read_sweep(path) for path in (STARTERS / "sweep.yaml", file))
    assert (asked.cells, asked.space, asked.budget) == (9, "usual", 0)
    assert full.cells == asked.cells * 2 * 4 * 2
    assert (full.budget, full.ask.most, full.ask.histogram) == (100_000, 3, True)
    assert dict(full.limits) == {"power_W": 5e6, "price_usd": 1e8, "ports": 1e5}
    assert full.ask.limits == (("memory_bytes", 150e9),)
