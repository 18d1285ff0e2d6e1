"""Placements written by hand: what stages hold, their slowest, and interleaving executed; even strings change nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.pipelines import SCHEDULES as PIPELINES
from collectives.pipelines import Costs, execute
from parallel.io import read_model
from parallel.memory import PLACES, fullest_stage
from parallel.strategy import Columns
from parallel.sweeps.task import Bound
from parallel.training.layouts import chunk_times, stage_times
from parallel.training.splits import even_layout
from parallel.training.uneven import FORWARD
from parallel.training.written import fits, placed_layers, slowest_s, stretched_s, written
from parallel.workload import TrainWorkload
from topo.errors import SpecError

LLAMA, DEEPSEEK = read_model("llama-3.1-8b"), read_model("deepseek-v3")
STRING = "Et*4|(t*4|)*14tmL"


def laid(bound: Bound, text: str | None) -> Bound:
    """The same search with its layers placed by hand."""
    return Bound.of(replace(bound.task, train=replace(bound.task.train, layout=text)))


def test_a_string_stands_for_every_number_of_stages_that_divides_it():
    stages, chunks = np.array([2.0, 4.0, 16.0, 8.0, 5.0]), np.array([8.0, 4.0, 1.0, 4.0, 3.0])
    assert fits(STRING, DEEPSEEK, stages, chunks).tolist() == [True, True, True, False, False]
    assert not fits("Et*16|t*16L", LLAMA, np.array([2.0]), np.array([2.0]))[0]
    with pytest.raises(SpecError, match="31 layers, not 32"):
        written("Et*16|t*15L", LLAMA, 2)


def test_places_hold_what_is_written():
    work = TrainWorkload(layout=STRING)
    held = {place: [float(n[0]) for n in placed_layers(DEEPSEEK, work, np.array([4.0]), place)] for place in PLACES}
    assert held == {"first": [3.0, 13.0], "inner": [0.0, 16.0], "last": [0.0, 13.0]}
    bare = [placed_layers(DEEPSEEK, TrainWorkload(), np.array([4.0]), place) for place in PLACES]
    assert np.array_equal(bare, [fullest_stage(DEEPSEEK, np.array([4.0]), place) for place in PLACES])


def test_the_slowest_stage_by_hand():
    # Two dense layers of 1 s beside 6 with experts of 2 s; head 1.5 s, module 2.5 s: stages 1+1+2·2 | 2·2 | 2+1.5+2.5.
    small = replace(DEEPSEEK, layers=(replace(DEEPSEEK.layers[0], count=2), replace(DEEPSEEK.layers[1], count=5)))
    layers = [np.array([1.0, 2.0]), np.array([2.0, 4.0])]
    found = slowest_s("Et*4|tt|tmL", small, np.array([3.0, 3.0]), layers, np.array([1.5, 9.0]), np.array([2.5, 2.5]))
    assert found.tolist() == [6.0, 15.5]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 4), st.integers(2, 3), st.integers(1, 3), st.data())
def test_interleaving_is_that_of_the_executed_schedule(stages, chunks, rounds, data):
    virtual = stages * chunks
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=virtual, max_size=virtual))
    model = replace(LLAMA, layers=(replace(LLAMA.layers[0], count=sum(sizes)),))
    text = "E" + "|".join("t" * n for n in sizes) + "L"
    end, m = data.draw(st.floats(0.0, 3.0)), rounds * stages
    one = np.array([1.0])
    layout = written(text, model, stages)
    times = chunk_times(layout, (0,) * sum(sizes), [1.0], last=end)
    slow = stage_times(layout, (0,) * sum(sizes), [1.0], last=end).max()
    closed = m * slow + (times.sum() - slow) / chunks
    order = PIPELINES["interleaved"].order(stages, m, chunks)
    costs = Costs(times * FORWARD, times * (1.0 - FORWARD), 0.0 * times)
    beyond = stretched_s(text, model, stages * one, [one], end * one, 0.0 * one, m * one)
    assert closed + beyond[0] == pytest.approx(execute(order, costs).step_s, rel=1e-9)


def test_an_even_string_prices_as_the_even_split_does(bind):
    bound = bind("train", "llama-3.1-8b", "hgx-h100", 32)
    cols = Columns.of(used=8, tp=1, ep=1, micro_batch=1, dp=8, pp=4, vpp=2)
    free, said = (laid(bound, text).price(cols) for text in (None, str(even_layout(32, 4, 2))))
    assert said.seconds[0] == pytest.approx(free.seconds[0], rel=1e-9)
    assert said.memory == free.memory


def test_layers_piled_on_one_stage_take_longer_and_more_memory(bind):
    bound = bind("train", "llama-3.1-8b", "hgx-h100", 32)
    cols = Columns.of(used=8, tp=1, ep=1, micro_batch=1, dp=8, pp=4)
    free, piled = (laid(bound, text).price(cols) for text in (None, "Et*6|t*14|t*6|t*6L"))
    assert piled.seconds[0] > 1.3 * free.seconds[0]
    assert piled.terms["imbalance"][0] > free.terms["imbalance"][0]
    assert piled.memory["weights"][0] > free.memory["weights"][0]
