"""Peak bytes of a training step: hand values, ZeRO, stages and schedules, and readings of real runs."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.pipelines import SCHEDULES
from parallel.io import model_names, read_model
from parallel.memory import PLACES
from parallel.models import Attention, LayerKind, Mlp, Model, compressed, parameters
from parallel.strategy import Columns
from parallel.training.footprint import (
    by_stage,
    communicators,
    flights,
    fullest,
    library_bytes,
    place_parameters,
    placeholder_bytes,
    rates,
    stage_loads,
    step_memory,
)
from parallel.training.frameworks import FRAMEWORKS, OPTIMIZERS, framework, optimizer_bytes
from parallel.workload import Software, TrainWorkload
from topo.errors import SpecError

# Training refuses the others.
TRAINED = [name for name in model_names() if not compressed(read_model(name))]
quick = settings(max_examples=50, deadline=None)
DEFAULT = {
    "tp": 1, "sp": 1, "cp": 1, "ep": 1, "etp": 1, "pp": 1, "vpp": 1, "dp": 1, "zero": 1, "recompute": 0, "ep_overlap": 0,
    "micro_batch": 1,
}  # fmt: skip


def columns(**changes: Any) -> Columns:
    return Columns.of(**DEFAULT | changes)


def work_of(*, framework: str = "engine", fused_attention: bool = True, **changes: Any) -> TrainWorkload:
    software = Software(framework=framework, attention="engine" if fused_attention else "unfused")
    return dataclasses.replace(
        TrainWorkload(sequence=4096, global_batch=64, precision="bf16"), software=software, **changes
    )


def step(model: Model, work: TrainWorkload | None = None, **changes: Any) -> dict[str, float]:
    work = work or work_of()
    cols = columns(**changes)
    found = step_memory(stage_loads(model, work, cols), cols, work)
    return {name: float(value[0]) for name, value in found.items()}


def allocated(model: Model, work: TrainWorkload, **changes: Any) -> float:
    found = step(model, work, **changes)
    return sum(value for name, value in found.items() if name != "reserve")


def llama(layers: int, hidden: int = 8192, ffn: int = 28672, heads: int = 64) -> Model:
    kind = LayerKind("dense", Attention("gqa", heads, 8, 128), Mlp(ffn), layers)
    return Model(f"llama-{hidden}-{layers}", hidden, 128256, (kind,))


def gpt(layers: int, hidden: int, heads: int) -> Model:
    kind = LayerKind("dense", Attention("gqa", heads, heads, hidden // heads), Mlp(4 * hidden, gated=False), layers)
    return Model(f"gpt-{hidden}-{layers}", hidden, 50304, (kind,), tied_embeddings=True)


# --- readings of real runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "gib"),
    [
        ({"pp": 2, "dp": 4, "sp": 0}, 66.55),
        ({"tp": 2, "dp": 4}, 60.68),
        ({"tp": 4, "dp": 2}, 39.07),
        ({"tp": 8}, 28.29),
    ],
)
def test_twelve_layers_of_llama_70b_on_eight_b200(strategy: dict[str, int], gib: float) -> None:
    # SimuMax, B200 release v1.2: peak of PyTorch's allocator, Megatron-LM with Transformer Engine.
    assert allocated(llama(12), work_of(), **strategy) / 2**30 == pytest.approx(gib, rel=0.01)


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "stages", "micro", "gb"),
    [(22, 2304, 24, 8, 6, 30), (30, 4096, 32, 8, 3, 39), (46, 5120, 40, 16, 1, 32), (62, 6144, 48, 32, 1, 43)],
)
def test_peak_of_1f1b_in_the_zero_bubble_paper(
    layers: int, hidden: int, heads: int, stages: int, micro: int, gb: float
) -> None:
    work = work_of(
        sequence=1024,
        global_batch=micro * 4 * stages,
        framework="megatron-lm",
        fused_attention=False,
        gradient_bytes=2.0,
    )
    found = allocated(gpt(layers, hidden, heads), work, pp=stages, micro_batch=micro, zero=0, sp=0)
    assert found / 1e9 == pytest.approx(gb, rel=0.025)


@pytest.mark.parametrize(("schedule", "gb"), [("interleaved", 32), ("zb-h1", 33), ("zb-h2", 51)])
def test_peak_of_zero_bubble_schedules(schedule: str, gb: float) -> None:
    # Zero Bubble (2401.10241) Table 4, 14.6B on 16 stages.
    work = work_of(sequence=1024, global_batch=64, framework="megatron-lm", fused_attention=False, gradient_bytes=2.0)
    cols = columns(pp=16, zero=0, sp=0)
    found = step_memory(stage_loads(gpt(46, 5120, 40), work, cols, (schedule,)), cols, work)
    together = sum(float(value[0]) for name, value in found.items() if name != "reserve")
    assert together / 1e9 == pytest.approx(gb, rel=0.03)


# --- stages -------------------------------------------------------------------------------------------------------


@quick
@given(st.sampled_from(TRAINED), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]))
def test_the_places_hold_the_whole_model(name: str, pp: int, ep: int) -> None:
    model = dataclasses.replace(read_model(name), mtp_layers=0)
    found = place_parameters(model, columns(pp=pp, ep=ep), TrainWorkload())
    each = {place: float(found[f"dense {place}"][0] + ep * found[f"experts {place}"][0]) for place in PLACES}
    inner = max(pp - 2, 0) * each["inner"]
    together = each["last"] if pp == 1 else each["first"] + inner + each["last"]
    assert together >= parameters(model) * (1 - 1e-9)


def test_the_head_weighs_on_the_last_stage_and_the_embedding_on_the_first() -> None:
    found = place_parameters(llama(12), columns(pp=4), TrainWorkload())
    table = 128256 * 8192
    assert found["dense first"][0] - found["dense inner"][0] == table
    assert found["dense last"][0] - found["dense inner"][0] == table + 8192


def test_a_tied_table_is_held_at_both_ends() -> None:
    found = place_parameters(gpt(12, 1024, 8), columns(pp=4), TrainWorkload())
    assert found["dense first"][0] - found["dense inner"][0] >= 50304 * 1024
    assert found["dense last"][0] - found["dense inner"][0] >= 50304 * 1024


def test_micro_batches_in_flight() -> None:
    eight = np.array([8.0])
    found = {place: float(n[0]) for place, n in flights(columns(pp=4), eight).items()}
    assert found == {"first": 4, "inner": 3, "last": 1}
    assert float(flights(columns(pp=4, vpp=2), eight)["first"][0]) == 5.5  # p·(1 + (p - 1)/(p·v))
    assert float(flights(columns(pp=4, vpp=2, ep_overlap=1), eight)["first"][0]) == 6.0  # one chunk more
    assert float(flights(columns(pp=1, ep_overlap=1), eight)["last"][0]) == 1.0


def test_a_column_of_schedules_is_each_of_them() -> None:
    names = ("interleaved", "zb-h1", "zb-h2")
    found = flights(columns(pp=8, schedule=[0, 1, 2]), np.full(3, 32.0), names)
    for place, stage in (("first", 0), ("last", 7)):
        assert found[place].tolist() == [float(SCHEDULES[name].in_flight(8, 32, 1, stage)) for name in names]


def test_two_way_schedules_hold_parameters_twice() -> None:
    work = work_of()
    one, two = (stage_loads(llama(16), work, columns(pp=4), (name,))["whole first"][0] for name in ("1f1b", "dualpipe"))
    assert two == 2 * one


def test_the_verdict_adds_up_per_stage() -> None:
    work, cols = work_of(), columns(pp=4, tp=8, dp=2, micro_batch=2)
    stages = by_stage(llama(80), work, cols)
    found = step_memory(stage_loads(llama(80), work, cols), cols, work)
    sums = {place: sum(float(v[0]) for v in names.values()) for place, names in stages.items()}
    assert max(sums.values()) == pytest.approx(sum(float(v[0]) for v in found.values()))
    place = PLACES[int(fullest(stage_loads(llama(80), work, cols), cols, work)[0])]
    assert sums[place] == max(sums.values())


# --- states -------------------------------------------------------------------------------------------------------


def test_zero_divides_optimizer_then_gradients_then_weights() -> None:
    model, n = llama(4), parameters(llama(4))
    found = [step(model, dp=8, zero=zero) for zero in range(4)]
    assert [f["optimizer"] for f in found] == pytest.approx([12 * n] + 3 * [12 * n / 8])
    assert [f["gradients"] for f in found] == pytest.approx(2 * [4 * n] + 2 * [4 * n / 8])
    assert [f["weights"] for f in found[:3]] == pytest.approx(3 * [2 * n])
    assert 2 * n / 8 < found[3]["weights"] < 2 * n


def test_fsdp_keeps_fp32_shards_and_gathers_two_layers() -> None:
    model, n = llama(8), parameters(llama(8))
    found = step(model, work_of(framework="torch-fsdp", gradient_bytes=2.0), dp=8, zero=3)
    tables, layer = 2 * 128256 * 8192 + 8192, (n - 2 * 128256 * 8192 - 8192) / 8
    assert found["weights"] == pytest.approx(2 * (tables + 2 * layer))
    assert found["gradients"] == pytest.approx(4 * n / 8)
    assert found["optimizer"] == pytest.approx(12 * n / 8)


def test_context_parallel_ranks_share_the_optimizer() -> None:
    assert step(llama(4), cp=4, dp=2)["optimizer"] == pytest.approx(step(llama(4), dp=8)["optimizer"])


def test_experts_are_divided_over_their_own_replicas() -> None:
    model = read_model("deepseek-v3")
    cols, work = columns(ep=8, dp=64, pp=1), work_of()
    found, place = stage_loads(model, work, cols), place_parameters(model, cols, work)
    assert float(found["divided last"][0]) == pytest.approx(
        float(place["dense last"][0]) / 64 + float(place["experts last"][0]) / 8
    )


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_optimizer_takes_its_bytes_and_the_host_its_share(name: str) -> None:
    n = parameters(llama(4))
    assert step(llama(4), work_of(optimizer=name), zero=0)["optimizer"] == pytest.approx(OPTIMIZERS[name] * n)
    assert step(llama(4), work_of(optimizer=name, offload=1.0), zero=0)["optimizer"] == 0


@pytest.mark.parametrize("name", sorted(FRAMEWORKS))
def test_no_zero_stage_takes_more_per_parameter(name: str) -> None:
    for each in rates(work_of(framework=name)).values():
        assert list(each[0]) == sorted(each[0], reverse=True)


def test_sixteen_bit_gradients_are_copied_by_the_step_when_activations_are_gone() -> None:
    n = parameters(llama(4))
    work = work_of(sequence=128, gradient_bytes=2.0)
    assert step(llama(4), work, zero=0)["activations"] == pytest.approx(4 * n)
    assert step(llama(4), work_of(sequence=128), zero=0)["activations"] < 4 * n


# --- beside the model ---------------------------------------------------------------------------------------------


def test_placeholders_are_one_tensor_per_shape() -> None:
    h, f = 8192, 28672
    by_hand = 2 * (h * (h + 2048) + h * h + 2 * h * f + f * h)
    assert float(placeholder_bytes(llama(12), columns(), work_of())[0]) == by_hand
    assert float(placeholder_bytes(llama(80), columns(tp=8), work_of())[0]) == by_hand / 8
    assert float(placeholder_bytes(llama(12), columns(), work_of(framework="megatron-lm"))[0]) == 0


def test_recomputing_some_layers_lies_between_none_and_all() -> None:
    none, all_of_them = (step(llama(8), recompute=mode)["activations"] for mode in (0, 2))
    some = [step(llama(8), recompute=2, recompute_layers=n)["activations"] for n in (0, 4, 8)]
    assert some[2] == all_of_them
    assert all_of_them < some[1] < none * 1.2
    assert some == sorted(some, reverse=True)


def test_offloaded_layers_leave_the_device() -> None:
    whole, half = (step(llama(8), work_of(offload_layers=n))["activations"] for n in (0, 4))
    assert half < 0.75 * whole


def test_libraries_take_their_buffers_per_communicator() -> None:
    row = framework("megatron-core")
    each = float(library_bytes(2, row)) - float(library_bytes(1, row))
    assert each == pytest.approx(24 * 4 * (524288 + 4915200 + 4194304))
    counts = [
        float(communicators(columns(**groups), row)[0])
        for groups in ({}, {"tp": 8}, {"pp": 4}, {"tp": 8, "pp": 4, "ep": 8})
    ]
    assert counts == [1, 2, 3, 5]
    assert step(llama(4))["reserve"] == library_bytes(1, row)
    assert step(llama(4), work_of(reserve_bytes=1e9))["reserve"] == 1e9


def test_unknown_names_are_refused_with_what_to_write() -> None:
    with pytest.raises(SpecError, match="megatron-core"):
        framework("megatron")
    with pytest.raises(SpecError, match="adam-8bit"):
        optimizer_bytes("adam8")


@quick
@given(
    st.sampled_from(TRAINED),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(0, 3),
    st.integers(0, 2),
)
def test_columns_equal_scalars(name: str, tp: int, pp: int, zero: int, recompute: int) -> None:
    model, work = read_model(name), work_of()
    block = columns(tp=[1, tp], pp=[1, pp], zero=[0, zero], recompute=[0, recompute], dp=[1, 4])
    together = step_memory(stage_loads(model, work, block), block, work)
    for row in range(2):
        alone = step(model, work, **block.row(row))
        assert {key: float(value[row]) for key, value in together.items()} == pytest.approx(alone, rel=1e-12)
