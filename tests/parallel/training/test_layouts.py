"""Layouts: Megatron-Core's strings, what is wrong with one, and the times of its stages."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.measurements import read_json
from parallel.training.layouts import (
    Layout,
    chunk_times,
    describe,
    kind_counts,
    of_sizes,
    parse_layout,
    stage_rows,
    stage_times,
)
from topo.errors import SpecError

quick = settings(max_examples=50, deadline=None)


def sizes_of(layout: Layout) -> list[int]:
    return [chunk.layers for chunk in layout.virtual]


@pytest.mark.parametrize(
    ("text", "stages", "sizes", "chunks"),
    [
        ("Ettt|(tt|)*29,m|L", 16, [3, *[2] * 29, 0, 0], 2),  # the example of Megatron-Core's own docstring
        ("Et*4|(t*4|)*14tmL", 4, [4] * 15 + [1], 4),  # DeepSeek-V3 on GB300, Megatron-Bridge
        ("Et*3|(tt|)*28mL", 1, [3, *[2] * 28, 0], 30),
        ("E(t|t)*3,L", 4, [1, 2, 2, 1], 1),  # a group may hold a bar
        ("Et*12|t*12L", 2, [12, 12], 1),
        ("EtL", 1, [1], 1),
    ],
)
def test_a_layout_string_reads_as_megatron_core_reads_it(text: str, stages: int, sizes: list[int], chunks: int) -> None:
    layout = parse_layout(text, stages)
    assert (sizes_of(layout), layout.chunks) == (sizes, chunks)


def test_lists_of_names_read_like_the_string() -> None:
    lists = [["embedding", "decoder"], ["Decoder"] * 2, [], ["mtp", "loss"]]
    assert parse_layout(lists, 4) == parse_layout("Et|tt||mL", 4)


def test_every_published_layout_reads_and_fits_its_model() -> None:
    table = read_json("training_cases.json")
    seen = 0
    for case in table["cases"]:
        text = (case.get("recipe") or {}).get("pp_layout")
        if text:
            model = table["models"][case["model"]["ref"]]
            layout = parse_layout(text, case["parallel"]["pp"], layers=model["layers"], chunks=case["parallel"]["vpp"])
            assert parse_layout(str(layout), layout.stages) == layout
            seen += 1
    assert seen >= 7


@quick
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2), st.data())
def test_a_printed_layout_reads_back(stages: int, chunks: int, mtp: int, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 5), min_size=stages * chunks, max_size=stages * chunks))
    mtp = mtp if stages > 1 else 0
    layout = of_sizes(sizes, stages, mtp)
    assert parse_layout(str(layout), stages, layers=sum(sizes), mtp=mtp, chunks=chunks) == layout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tt|ttL", ["begin with the one embedding"]),
        ("Ett|tt", ["end with the one loss"]),
        ("tE|tttL", ["begin with the one embedding"]),
        ("Ett|ttLL", ["end with the one loss"]),
        ("Ett|ttt|L", ["3 virtual stages, not a multiple of 2"]),
        ("Etx|t?L", ["'?' 'x', which stands for nothing"]),
        ("E(t(t|)*2)*2L", ["which stands for nothing"]),
        ("Et*99999999|L", ["unrolls to more than"]),
        ("Ett|t", ["end with the one loss", "has 3 layers, not 4"]),
        ("Etm|t|t|tL", ["layers after an MTP", "MTP modules on the first stage", "before a stage's last chunk"]),
        ("Et|tm|t|tmL", ["layers after an MTP", "parts the MTP", "before a stage's last chunk"]),
    ],
)
def test_everything_wrong_with_a_layout_is_said_at_once(text: str, told: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        parse_layout(text, 2, layers=4, field="recipe.pp_layout")
    assert all(fault.field == "recipe.pp_layout" and fault.remedy for fault in caught.value.faults)
    assert [said for said in told if said not in str(caught.value)] == []
    assert len(caught.value.faults) == len(told)


def test_counts_that_are_not_the_models_are_said() -> None:
    with pytest.raises(SpecError, match=r"has 5 layers, not 4(.|\n)*has 0 MTP modules, not 1(.|\n)*chunks per stage"):
        parse_layout("Ettt|ttL", 2, layers=4, mtp=1, chunks=2)
    with pytest.raises(SpecError, match="has 5 layers, the model 4"):
        kind_counts(parse_layout("Ettt|ttL", 2), (0,) * 4)


def test_times_of_stages_are_their_layers_and_ends() -> None:
    # DeepSeek-V3's layout: 3 dense layers at 1 s, 58 with experts at 2 s; chunk j on stage j mod 4.
    layout, order = parse_layout("Et*4|(t*4|)*14tmL", 4), (0,) * 3 + (1,) * 58
    times = chunk_times(layout, order, [1.0, 2.0], first=0.25, last=0.5, mtp=3.0)
    assert times.tolist() == [5.25, *[8.0] * 14, 5.5]
    assert stage_times(layout, order, [1.0, 2.0], first=0.25, last=0.5, mtp=3.0).tolist() == [29.25, 32.0, 32.0, 29.5]


@quick
@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9), st.floats(0, 9)), min_size=1, max_size=5))
def test_times_are_columns_and_leave_nothing_out(rows: list[tuple[float, float, float]]) -> None:
    a, b, last = (np.array(values) for values in zip(*rows, strict=True))
    layout, order = of_sizes([3, 1, 2, 2], 2), (0, 1) * 4
    times = stage_times(layout, order, [a, b], first=1.0, last=last)
    assert times.shape == (2, len(rows))
    np.testing.assert_allclose(times.sum(axis=0), 4 * a + 4 * b + 1.0 + last)
    for i, (x, y, z) in enumerate(rows):
        np.testing.assert_allclose(times[:, i], stage_times(layout, order, [x, y], first=1.0, last=z))


def test_a_layout_is_told_in_words_and_rows() -> None:
    layout = of_sizes([4, 4, 4, 0], 4, mtp=1)
    assert describe(layout) == "4 stages: embedding + 4, 2 × 4, MTP + head"
    rows = stage_rows(layout, (0,) * 3 + (1,) * 9, ("dense", "moe"), [1.0, 2.0, 3.0, 4.0])
    assert rows[0]["layers"] == {"dense": 3, "moe": 1}
    assert (rows[3]["layers"], rows[3]["mtp"], rows[3]["head"], rows[3]["seconds"]) == ({}, 1, True, 4.0)
