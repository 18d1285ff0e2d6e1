"""Training software: engines and constants as tables, intervals of regimes, clocks under a power limit."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters import software
from clusters.catalogue import accelerator
from clusters.software import capped_rate, interval, regime, training_constants, varied

watts = st.floats(100.0, 2000.0)


def test_every_engine_names_an_attention_kernel_that_has_constants() -> None:
    known = training_constants()
    for engine in known.engines.values():
        assert engine.attention == "unfused" or engine.attention in known.attention
        assert engine.kernel_host_s > 0
        assert engine.note


def test_a_part_without_its_own_rate_takes_its_generations_then_the_default() -> None:
    known = training_constants()
    assert known.rate(accelerator("h200-sxm"), "bf16") == known.sustained["hopper"]
    assert known.rate(accelerator("gb300"), "bf16") == known.sustained["gb300"]
    assert known.rate(accelerator("tpu-v5p"), "bf16") == known.sustained["default"]


def test_a_format_scales_the_rate_of_its_generation_alone() -> None:
    known, part = training_constants(), accelerator("h100-sxm")
    assert known.rate(part, "fp8") == known.sustained["hopper"] * known.formats["hopper"]["fp8"]
    assert known.rate(part, "unheard-of") == known.sustained["hopper"]


def test_a_parts_own_share_of_a_format_goes_before_its_generations() -> None:
    known = varied(
        {
            **software.document()["constants"],
            "formats": {"blackwell": {"fp8": 1.0, "narrow": 1.5}, "gb200": {"fp8": 2.0}},
        },
        {"sustained/gb200": 0.5, "sustained/b200-sxm": 0.5},
    )
    shares = {
        name: [known.rate(accelerator(name), fmt) for fmt in ("fp8", "nvfp4", "bf16")] for name in ("gb200", "b200-sxm")
    }
    assert shares == {"gb200": [1.0, 0.75, 0.5], "b200-sxm": [0.5, 0.75, 0.5]}


def test_varied_constants_leave_the_shipped_ones_alone() -> None:
    before = training_constants().shared["grouped"]
    changed = varied(software.document()["constants"], {"shared/grouped": 0.1, "engines/fsdp/vector": 9.0})
    assert (changed.shared["grouped"], changed.engines["fsdp"].vector) == (0.1, 9.0)
    assert training_constants().shared["grouped"] == before


@pytest.mark.parametrize(
    "name", ["megatron-core, dense", "megatron-core, experts", "early-megatron, dense", "fsdp, dense"]
)
def test_every_measured_regime_has_an_interval_around_the_prediction(name: str) -> None:
    found = interval(10.0, name)
    assert found is not None
    assert found[0] <= 10.0 <= found[1]


def test_a_regime_that_was_never_measured_has_no_interval() -> None:
    assert interval(10.0, regime("fsdp", routed=True)) is None


@settings(max_examples=50, deadline=None)
@given(watts, watts)
def test_a_power_limit_never_quickens_and_a_lower_one_never_helps(usual: float, limit: float) -> None:
    share = capped_rate(usual, limit)
    assert 0.0 < share <= 1.0
    assert capped_rate(usual, 0.9 * limit) <= share
    if limit >= usual:
        assert share == 1.0


def test_engines_refuse_nothing_silently() -> None:
    with pytest.raises(TypeError):
        software.Engine(name="x")  # type: ignore[call-arg]
    assert replace(training_constants().engines["fsdp"], vector=2.0).vector == 2.0
