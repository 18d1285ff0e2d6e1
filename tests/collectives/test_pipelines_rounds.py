"""Interleaved 1F1B in slots, against the graph."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.pipelines import SCHEDULES, Costs, interleaved_step_s, step_s
from topo.errors import SpecError


@given(stages=st.integers(1, 8), chunks=st.integers(2, 5), rounds=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_slots_give_the_executed_step(stages: int, chunks: int, rounds: int, seed: int) -> None:
    forward, backward = np.random.default_rng(seed).uniform(0.1, 3.0, (2, stages * chunks, 2))
    order = SCHEDULES["interleaved"].order(stages, rounds * stages, chunks)
    executed = step_s(order, Costs(forward, backward / 2, backward / 2))
    found = interleaved_step_s(stages, rounds * stages, chunks, forward, backward)
    assert found == pytest.approx(executed, rel=1e-12)


@pytest.mark.parametrize(("microbatches", "chunks"), [(6, 2), (8, 1)])
def test_what_is_no_interleaved_round_is_refused(microbatches: int, chunks: int) -> None:
    with pytest.raises(SpecError, match="whole rounds"):
        interleaved_step_s(4, microbatches, chunks, np.ones(4 * chunks), np.ones(4 * chunks))
