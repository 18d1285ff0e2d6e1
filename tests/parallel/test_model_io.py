"""Reading models: shipped names, config files of every family, and every way that a file can be wrong."""

import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel import io
from parallel.configs import FAMILIES
from parallel.layerkinds import Row, layer_kinds
from parallel.models import Attention, Indexer, Mlp, Model, Moe, active_parameters, layer_order, parameters
from topo.errors import SpecError

TINY = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1000,
}
MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MLA = {"kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
COMPRESSED = {
    "model_type": "deepseek_v4",
    "num_key_value_heads": 1,
    "head_dim": 16,
    "qk_rope_head_dim": 4,
    "q_lora_rank": 8,
    "o_groups": 2,
    "o_lora_rank": 8,
    "sliding_window": 8,
    "index_topk": 32,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "compress_ratios": [4, 128, 0],
    "hc_mult": 4,
    "num_hash_layers": 1,
}
SPARSE = {**MLA, "q_lora_rank": 16, "index_topk": 32, "index_n_heads": 2, "index_head_dim": 8}

# As the training cases write it: DeepSeek-V3 and gpt-oss-20b (arXiv 2412.19437; arXiv 2508.10925).
DEEPSEEK_CASE = {
    "arch": "moe",
    "layers": 61,
    "hidden": 7168,
    "heads": 128,
    "kv_heads": 128,
    "head_dim": 128,
    "ffn": 18432,
    "gated_mlp": True,
    "vocab": 129280,
    "tied_embeddings": False,
    "moe": {
        "experts": 256,
        "topk": 8,
        "expert_ffn": 2048,
        "shared_experts": 1,
        "shared_expert_ffn": 2048,
        "dense_layers": 3,
        "moe_layer_every": 1,
    },
    "mla": {"q_lora": 1536, "kv_lora": 512, "qk_nope": 128, "qk_rope": 64, "v_head": 128},
    "mtp_layers": 1,
}
GPT_CASE = {
    "arch": "dense",
    "layers": 24,
    "hidden": 2304,
    "heads": 24,
    "kv_heads": 24,
    "head_dim": 96,
    "ffn": 9216,
    "gated_mlp": False,
    "vocab": 51200,
    "tied_embeddings": True,
    "pos": "learned",
}


def written(tmp_path, fields, name="config.json"):
    path = tmp_path / name
    path.write_text(json.dumps(fields))
    return path


def faults_of(make):
    with pytest.raises(SpecError) as caught:
        make()
    return caught.value.faults


@pytest.mark.parametrize("name", io.model_names())
def test_every_shipped_model_reads_has_a_source_and_needs_no_warning(name):
    model = io.read_model(name)
    assert model.name == name
    assert model.note == ""
    assert io.read_yaml(io.MODELS / "sources.yaml")[name]["published"]


def test_every_source_belongs_to_a_shipped_model():
    assert set(io.read_yaml(io.MODELS / "sources.yaml")) == set(io.model_names())


@pytest.mark.parametrize("name", ["DeepSeek_V3", " deepseek-v3 ", "DEEPSEEK-V3", "deepseek-ai/DeepSeek-R1"])
def test_case_underscores_and_repository_names_do_not_matter(name):
    assert io.read_model(name) == io.read_model("deepseek-v3")


@pytest.mark.parametrize(
    ("name", "nearest"), [("lama-3.1-8b", "llama-3.1-8b"), ("mixtral8x7b", "mixtral-8x7b"), ("gpt-oss120b", "gpt-oss")]
)
def test_a_misspelt_name_gets_the_nearest(name, nearest):
    (fault,) = faults_of(lambda: io.read_model(name))
    assert nearest in fault.remedy


@pytest.mark.parametrize("name", ["", "zzzz", "x" * 5000])
def test_a_hopeless_name_gets_the_list(name):
    (fault,) = faults_of(lambda: io.read_model(name))
    assert "deepseek-v3" in fault.remedy


def test_rows_list_every_model_with_its_counts():
    rows = {row["name"]: row for row in io.model_rows()}
    assert tuple(rows) == io.model_names()
    assert rows["deepseek-v3"]["kv_bytes_per_token"] == 70_272
    assert (rows["gpt-oss-120b"]["experts"], rows["gpt-oss-120b"]["expert_precision"]) == (128, "mxfp4")


def test_a_file_a_folder_and_yaml_give_the_same_shape(tmp_path):
    path = written(tmp_path, TINY)
    other = tmp_path / "tiny.yaml"
    other.write_text(yaml.safe_dump(TINY))
    models = [io.read_model(path), io.read_model(tmp_path), io.read_model(str(other))]
    assert len({parameters(model) for model in models}) == 1
    assert [model.name for model in models] == [tmp_path.name, tmp_path.name, "tiny"]


def test_head_size_falls_back_to_hidden_over_heads(tmp_path):
    assert io.read_model(written(tmp_path, TINY)).layers[0].attention.head_dim == 16
    assert io.read_model(written(tmp_path, {**TINY, "head_dim": 32})).layers[0].attention.head_dim == 32


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_reads_dense_and_routed_files(kind):
    fields = {**TINY, "model_type": kind, "n_positions": 32, "sliding_window": 8, "intermediate_size_mlp": 128}
    fields |= MLA if FAMILIES[kind].mla else COMPRESSED if FAMILIES[kind].compressed else {}
    dense = io.model_from_config(fields, "tiny")
    routed = io.model_from_config({**fields, **MOE}, "tiny")
    assert {type(layer.mlp) for layer in dense.layers} == {Mlp}
    assert {type(layer.mlp) for layer in routed.layers} == {Moe}
    assert active_parameters(routed) < parameters(routed)
    assert dense.note == routed.note == ""


def test_an_unknown_type_is_read_like_llama_and_says_so():
    model = io.model_from_config({**TINY, "model_type": "novel"}, "novel")
    assert "novel" in model.note
    assert parameters(model) == parameters(io.model_from_config(TINY, "tiny"))


def test_a_type_implies_what_its_file_does_not_say():
    def attention(kind):
        return io.model_from_config({**TINY, "model_type": kind, "n_positions": 8}, kind).layers[0].attention

    assert attention("qwen3").qk_norm == "head"
    assert (attention("qwen2").bias, attention("qwen2").output_bias) == (True, False)
    assert (attention("gpt2").bias, attention("gpt2").output_bias) == (True, True)


@pytest.mark.parametrize(
    ("fields", "windows"),
    [
        ({"model_type": "mistral", "sliding_window": 16}, (16, 16)),
        ({"model_type": "mistral", "sliding_window": None}, (0, 0)),
        ({"model_type": "qwen3", "sliding_window": 16, "use_sliding_window": False}, (0, 0)),
        ({"model_type": "qwen3", "sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}, (0, 16)),
        ({"model_type": "gpt_oss", "sliding_window": 16}, (16, 0)),
        ({"sliding_window": 16, "layer_types": ["full_attention", "sliding_attention"]}, (0, 16)),
    ],
)
def test_windows_follow_the_rules_of_the_type(fields, windows):
    model = io.model_from_config({**TINY, **fields}, "tiny")
    assert tuple(model.layers[index].attention.sliding_window for index in layer_order(model)) == windows


def test_layers_that_skip_their_experts_are_dense():
    fields = {**TINY, **MOE, "num_hidden_layers": 4, "model_type": "qwen3_moe"}
    alternating = io.model_from_config({**fields, "decoder_sparse_step": 2}, "tiny")
    assert [alternating.layers[index].name for index in layer_order(alternating)] == ["dense", "moe"] * 2
    listed = io.model_from_config({**fields, "mlp_only_layers": [1]}, "tiny")
    assert [listed.layers[index].name for index in layer_order(listed)] == ["moe", "dense", "moe", "moe"]


def test_the_text_part_of_a_multimodal_config_is_read():
    model = io.model_from_config({"model_type": "some_vl", "text_config": TINY}, "tiny")
    assert model == io.model_from_config(TINY, "tiny")


@pytest.mark.parametrize(
    ("fields", "formats"),
    [
        ({}, ("bf16", "")),
        ({"torch_dtype": "float16"}, ("fp16", "")),
        ({"quantization_config": {"quant_method": "fp8"}}, ("fp8", "")),
        ({"quantization_config": {"quant_method": "mxfp4"}}, ("bf16", "mxfp4")),
        ({"native_precision": "int4 experts"}, ("bf16", "int4")),
        ({"native_precision": "fp8"}, ("fp8", "")),
    ],
)
def test_published_precision_is_read_where_the_file_states_it(fields, formats):
    model = io.model_from_config({**TINY, **fields}, "tiny")
    assert (model.native_precision, model.expert_precision) == formats


def test_all_faults_of_a_file_come_at_once_with_file_field_value_and_remedy(tmp_path):
    fields = {**TINY, **MOE, "hidden_size": "64", "num_attention_heads": -4, "num_experts_per_tok": 9, "mlp_bias": 1}
    fields.pop("vocab_size")
    fields["first_k_dense_replace"] = 1
    path = written(tmp_path, fields)
    faults = faults_of(lambda: io.read_model(path))
    assert {fault.field for fault in faults} == {
        "hidden_size",
        "num_attention_heads",
        "num_experts_per_tok",
        "mlp_bias",
        "vocab_size",
    }
    assert all(fault.file == str(path) and fault.remedy for fault in faults)
    assert {fault.field: fault.value for fault in faults}["num_attention_heads"] == -4


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_attention_heads": 3, "num_key_value_heads": 1}, "num_attention_heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
        ({"vocab_size": True}, "vocab_size"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ({"published_parameters": -1}, "published_parameters"),
        ({**MOE, "n_group": 3}, "n_group"),
        ({**MOE, "n_group": 2, "topk_group": 4}, "topk_group"),
        ({**MOE, "mlp_only_layers": 3}, "mlp_only_layers"),
        ({"kv_lora_rank": 16}, "qk_rope_head_dim"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "layer_types"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "sliding_window"),
        ({"full_attention_interval": 4}, "full_attention_interval"),
        ({"index_topk": 2048}, "index_topk"),
        ({"index_topk": 2048, "index_n_heads": 4, "index_head_dim": 8}, "index_topk"),
        ({**SPARSE, "index_n_heads": None}, "index_n_heads"),
        ({**SPARSE, "index_topk": -1}, "index_topk"),
        ({**SPARSE, "q_lora_rank": None}, "index_topk"),
        ({**SPARSE, "index_topk_freq": -4}, "index_topk_freq"),
        ({**SPARSE, "indexer_types": ["full"]}, "indexer_types"),
        ({**SPARSE, "indexer_types": ["full", "half"]}, "indexer_types"),
        ({**SPARSE, "indexer_types": ["shared", "full"]}, "indexer_types"),
        ({**SPARSE, "index_topk_pattern": "SF"}, "index_topk_pattern"),
        ({**SPARSE, "index_topk_pattern": 2}, "index_topk_pattern"),
        ({**SPARSE, "compress_ratios": [4, 128]}, "compress_ratios"),
        ({"hc_mult": 4}, "hc_mult"),
        ({**COMPRESSED, "compress_ratios": [4]}, "compress_ratios"),
        ({**COMPRESSED, "compress_ratios": [4, 64]}, "compress_ratios"),
        ({**COMPRESSED, "compress_ratios": [4, "128"]}, "compress_ratios"),
        ({**COMPRESSED, "compress_ratios": None}, "compress_ratios"),
        ({**COMPRESSED, "num_key_value_heads": 2}, "num_key_value_heads"),
        ({**COMPRESSED, "qk_rope_head_dim": 16}, "num_key_value_heads"),
        ({**COMPRESSED, "o_groups": 3}, "o_groups"),
        ({**COMPRESSED, "sliding_window": None}, "sliding_window"),
        ({**COMPRESSED, "index_topk": None}, "index_topk"),
    ],
)
def test_a_wrong_field_is_named_as_the_file_names_it(change, field):
    faults = faults_of(lambda: io.model_from_config({**TINY, **change}, "tiny", "tiny.json"))
    assert field in [fault.field for fault in faults]


@given(
    st.dictionaries(
        st.sampled_from(
            [*TINY, *MOE, *SPARSE, *COMPRESSED, "layer_types", "sliding_window", "n_group", "use_sliding_window"]
        ),
        st.one_of(st.none(), st.booleans(), st.integers(-3, 99), st.text(max_size=3), st.lists(st.text(max_size=3))),
    )
)
@settings(max_examples=100, deadline=None)
def test_any_file_gives_a_model_or_a_spec_error(change):
    try:
        model = io.model_from_config({**TINY, **change}, "tiny", "tiny.json")
    except SpecError as error:
        files = {fault.file for fault in error.faults}
    else:
        files = {"tiny.json"} if 0 < active_parameters(model) <= parameters(model) else set()
    assert files == {"tiny.json"}


def test_an_indexer_is_read_with_its_latents():
    fields = {**TINY, **SPARSE, "model_type": "glm_moe_dsa", "layer_types": ["deepseek_sparse_attention"] * 2}
    (kind,) = io.model_from_config(fields, "tiny", "tiny.json").layers
    assert kind.attention.indexer == Indexer(heads=2, head_dim=8, topk=32)
    assert io.model_from_config({**fields, "index_topk": None}, "tiny", "").layers[0].attention.indexer is None


def test_a_missing_file_gives_the_systems_reason(tmp_path):
    (fault,) = faults_of(lambda: io.read_model(tmp_path / "none.json"))
    assert "No such file" in fault.problem
    (fault,) = faults_of(lambda: io.read_model(tmp_path))
    assert fault.file == str(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("broken.json", b"{ 'a': 1 }", "line 1, column 3"),
        ("list.json", b"[1, 2]", "holds list"),
        ("binary.json", b"\xff\xfe{}", "not UTF-8"),
        ("broken.yaml", b"a: [1, 2", "line 1"),
        ("control.yaml", b"a: \x07", "not YAML"),
        ("empty.yaml", b"", "holds NoneType"),
    ],
)
def test_a_file_that_is_not_what_it_says_gives_the_place(tmp_path, name, content, problem):
    path = tmp_path / name
    path.write_bytes(content)
    (fault,) = faults_of(lambda: io.read_model(path))
    assert problem in fault.problem
    assert fault.file == str(path)


def test_a_case_gives_the_shape_of_the_published_model():
    case, shipped = io.model_from_case(DEEPSEEK_CASE, "deepseek"), io.read_model("deepseek-v3")
    assert parameters(case) / 1e9 == pytest.approx(671.025, abs=2e-3)
    assert active_parameters(case) / 1e9 == pytest.approx(37.551, abs=2e-3)
    assert [(kind.name, kind.count) for kind in case.layers] == [(kind.name, kind.count) for kind in shipped.layers]
    assert case.mtp_layers == 1


def test_a_gpt_case_has_biases_and_layernorm():
    model = io.model_from_case(GPT_CASE, "gpt")
    assert parameters(model) / 1e9 == pytest.approx(1.647, abs=1e-3)
    assert (model.norm, model.layers[0].attention.bias, model.layers[0].mlp.bias) == ("layernorm", True, True)


def test_a_case_with_alternating_layers_keeps_their_order():
    note = {"note": "alternating sliding-window(128)/full attention"}
    model = io.model_from_case({**DEEPSEEK_CASE, "layers": 4, "mla": None, **note}, "windowed")
    windows = [model.layers[index].attention.sliding_window for index in layer_order(model)]
    assert windows == [128, 0, 128, 0]
    every = {**DEEPSEEK_CASE["moe"], "dense_layers": 0, "moe_layer_every": 2}
    model = io.model_from_case({**DEEPSEEK_CASE, "layers": 4, "moe": every}, "every second")
    assert [model.layers[index].name for index in layer_order(model)] == ["dense", "moe", "dense", "moe"]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"arch": "hybrid-mamba"}, "hybrid-mamba"),
        ({**GPT_CASE, "hidden": None}, "hidden"),
        ({**GPT_CASE, "ffn": None}, "ffn"),
        ({**GPT_CASE, "kv_heads": 7}, "kv_heads"),
        ({**DEEPSEEK_CASE, "moe": {"experts": 8}}, "topk, expert_ffn"),
        ({**DEEPSEEK_CASE, "mla": {"q_lora": 8}}, "kv_lora"),
    ],
)
def test_a_case_that_cannot_be_expressed_says_why(case, reason):
    with pytest.raises(io.Inexpressible) as caught:
        io.model_from_case(case, "case")
    assert reason in caught.value.reason


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0, 128])).map(lambda told: Row(*told)), min_size=1, max_size=12)
)
@settings(max_examples=50, deadline=None)
def test_any_order_of_layers_is_kept(rows):
    kinds, pattern = layer_kinds(rows, Attention("gqa", 2, 2, 4), Mlp(8), Moe(4, 2, 8))
    model = Model("stack", 8, 16, kinds, pattern=pattern)
    kept = [Row(isinstance(kinds[i].mlp, Moe), kinds[i].attention.sliding_window) for i in layer_order(model)]
    assert kept == rows


@given(st.lists(st.sampled_from([0, 4, 128]), min_size=1, max_size=12), st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_any_order_of_ratios_is_kept_by_numbers_and_by_names(ratios, modules):
    names = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
    fields = {**TINY, **COMPRESSED, **MOE, "num_hidden_layers": len(ratios)}
    listed = io.model_from_config({**fields, "compress_ratios": [*ratios, *[0] * modules]}, "listed")
    named = {"compress_ratios": None, "layer_types": [names[ratio] for ratio in ratios]}
    named |= {"num_hash_layers": None, "mlp_layer_types": ["hash_moe", *["moe"] * (len(ratios) - 1)]}
    assert replace(io.model_from_config({**fields, **named}, "named"), name="listed") == listed
    attentions = [listed.layers[index].attention for index in layer_order(listed)]
    assert [att.compression.ratio for att in attentions] == ratios
    assert [att.indexer is not None for att in attentions] == [ratio == 4 for ratio in ratios]
    assert [att.sliding_window for att in attentions] == [0 if ratio else 8 for ratio in ratios]
    assert (listed.streams, listed.hash_layers) == (4, 1)


@given(st.lists(st.booleans(), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_layers_share_an_index_as_they_are_listed_or_spelled(later):
    shared = [False, *later]
    listed = {"indexer_types": ["shared" if each else "full" for each in shared]}
    spelled = {"index_topk_pattern": "".join("FS"[each] for each in shared)}
    made = [
        io.model_from_config({**TINY, **SPARSE, "num_hidden_layers": len(shared), **each}, "tiny")
        for each in (listed, spelled)
    ]
    assert made[0] == made[1]
    kinds = [made[0].layers[index] for index in layer_order(made[0])]
    assert [not kind.attention.indexer.scores for kind in kinds] == shared
    assert all(kind.attention.indexer.topk == 32 for kind in kinds)


def test_every_fourth_layer_of_glm_5_2_has_an_index_of_its_own():
    model, published = (
        io.read_model("glm-5.2"),
        ["full"] * 3 + ["shared", "shared", "shared", "full"] * 18 + ["shared"] * 3,
    )
    raw = json.loads((io.MODELS / "glm-5.2.json").read_text())
    raw.pop("index_topk_freq")
    assert io.model_from_config({**raw, "indexer_types": published}, "glm-5.2") == model
    assert [(kind.name, kind.count) for kind in model.layers] == [("dense", 3), ("moe-shared-index", 57), ("moe", 18)]
