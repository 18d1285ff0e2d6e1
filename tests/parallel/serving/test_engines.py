"""Engines as inputs: few constants, settings from launch scripts, formats by checkpoint."""

from dataclasses import fields

import pytest

from clusters.catalogue import accelerator
from parallel.hybrids import served_model
from parallel.io import read_yaml
from parallel.serving.engines import (
    CONSTANTS,
    DATA,
    Settings,
    bare,
    benchmarked,
    engine,
    engine_names,
    held_out,
    kv_bytes,
    launched,
    serving_recipe,
)
from topo.errors import SpecError

B200, H200 = accelerator("b200-sxm"), accelerator("h200-sxm")


def test_an_engine_has_at_most_six_constants() -> None:
    assert len(CONSTANTS) <= 6


@pytest.mark.parametrize("name", engine_names())
def test_constants_are_of_an_engine_that_runs(name: str) -> None:
    base = engine(name)
    assert 1.0 <= base.launch <= 4.0
    assert 0.0 <= base.request_s < 1e-4
    assert 0.7 <= base.prefill <= 1.6
    assert 0.0 < base.offset_s < 0.5


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match="vllm, sglang, trtllm"):
        engine("abacus")


def test_launches_set_what_settings_have() -> None:
    keys = {"engine", "model", "generation", "precision", "tp", "attention_dp", "lengths", "clients"}
    names = {field.name for field in fields(Settings)}
    for entry in read_yaml(DATA / "launches.yaml")["launches"]:
        assert set(entry) <= keys | names
        assert entry["engine"] in engine_names()
        assert served_model(entry["model"]).name == entry["model"]


def test_lengths_that_no_script_has_take_the_defaults() -> None:
    base = engine("sglang")
    assert launched(base, served_model("deepseek-r1"), B200, "fp8", 8, 64, 4000, 1000) == base.defaults


def test_a_gathering_wait_is_of_the_lengths_and_sizes_that_the_script_names() -> None:
    base, llama = engine("trtllm"), served_model("llama-3.1-70b")
    waits = [
        launched(base, llama, B200, "fp8", tp, 8, 1024, osl).wait_steps for tp, osl in ((4, 1024), (8, 1024), (4, 8192))
    ]
    assert waits == [20, 0, 0]


@pytest.mark.parametrize(
    ("model", "precision", "part", "attention", "experts"),
    [
        ("deepseek-r1", "fp8", H200, "fp8-block", "fp8-block"),
        ("deepseek-r1", "fp4", B200, "bf16", "nvfp4"),
        ("llama-3.1-70b", "fp4", B200, "nvfp4", "nvfp4"),
        ("llama-3.1-70b", "fp8", B200, "fp8", "fp8"),
        ("kimi-k2.5", "int4", B200, "bf16", "int4"),
        ("kimi-k2.5", "fp4", H200, "bf16", "int4"),
        ("gpt-oss-120b", "fp4", B200, "bf16", "mxfp4"),
        ("qwen3.5-397b-a17b", "bf16", B200, "bf16", "bf16"),
    ],
)
def test_formats_follow_the_checkpoint(model: str, precision: str, part: object, attention: str, experts: str) -> None:
    assert isinstance(part, type(B200))
    found = serving_recipe(served_model(model), precision, part)
    assert (found.attention, found.experts, found.head) == (attention, experts, "bf16")


def test_a_set_cache_width_wins_over_the_checkpoints() -> None:
    assert kv_bytes(Settings(kv_bytes=2), "fp8") == 2.0
    assert kv_bytes(Settings(kv_bytes=0), "fp8") == 1.0


def test_held_out_figures_say_what_they_are() -> None:
    assert "refitted without" in held_out()["note"]


def test_a_benchmark_says_whether_its_release_ran_on_graphs() -> None:
    trt = engine("trtllm")
    told = [
        benchmarked(trt, trt.defaults, version, 8, 4000, 1000).graphs for version in ("1.3.0rc1", "1.3.0rc5", "1.0.0")
    ]
    assert told == [1, trt.defaults.graphs, trt.defaults.graphs]
    assert benchmarked(trt, trt.defaults, "1.3.0rc1", 8, 1024, 1024) == trt.defaults  # of another benchmark


def test_nothing_is_added_to_the_kernels_of_an_unknown_engine() -> None:
    alone = bare(engine("sglang"))
    assert (alone.launch, alone.prefill) == (1.0, 1.0)
    assert alone.request_s == alone.offset_s == alone.stream_s == alone.eager_s == 0.0
    assert alone.grouped == engine("sglang").grouped
