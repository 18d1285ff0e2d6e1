"""The loop: hand values, the simulation of serving as the oracle of the synchronous one, and rules that every run obeys."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.rl.loop import Answers, Trainer, loop
from parallel.serving.queueing import ClosedLoop, Limits, simulate
from parallel.spread import Spread

WIDE = Limits(sequences=1e9, tokens=1e9, positions=1e18)


def step_s(decoding: float, positions: float, prompt: float, pairs: float, /) -> float:
    """A step that reads weights, and then caches."""
    return 0.01 + 1e-4 * decoding + 1e-8 * positions + 1e-6 * prompt


def test_the_synchronous_loop_waits_as_long_as_serving_a_batch_takes() -> None:
    """`parallel.serving.queueing` serves the same lengths, all sent at once; its first token comes with the prompt."""
    answers = Answers(64, 100.0, 100.0, Spread(200.0, 800.0, 4000.0))
    told = loop(step_s, WIDE, 1, answers, Trainer(1.0, 7.0, 2.0), 0)
    lengths = [round(length) + 1 for length in answers.lengths.draw(64, longest_of=64).tolist()]
    served = simulate(step_s, WIDE, ClosedLoop(64), [100] * 64, lengths)
    assert told.waited_s == pytest.approx(served.seconds, rel=0.01)
    assert told.step_s == pytest.approx(told.waited_s + 10.0)
    assert told.lag == 0.0


def test_the_longest_answer_sets_the_synchronous_step() -> None:
    short, long = (Answers(32, 1.0, 0.0, Spread(values=values)) for values in ((100.0,), (100.0,) * 31 + (1000.0,)))
    one, other = (loop(lambda *_: 1.0, WIDE, 1, each, Trainer(0.0, 0.0, 0.0), 0).step_s for each in (short, long))
    assert (one, other) == (100.0, 1000.0)


def test_side_by_side_the_slower_pool_sets_the_step() -> None:
    """Room for as many as a step trains on, all of 100 tokens: 100 s of writing beside 30 or 300 s of training."""
    limits = Limits(sequences=512, tokens=1e9, positions=1e18)
    answers = Answers(512, 1.0, 0.0, Spread(values=(100.0,)))

    def run(train_s: float) -> float:
        return loop(lambda *_: 1.0, limits, 1, answers, Trainer(0.0, train_s, 0.0, refill=False), 2).step_s

    assert run(30.0) == pytest.approx(100.0)
    assert run(300.0) == pytest.approx(300.0)


def test_staleness_bounds_the_lag() -> None:
    answers = Answers(600, 10.0, 10.0, Spread(50.0, 300.0, 2000.0))
    for staleness in (0, 1, 3):
        told = loop(step_s, WIDE, 1, answers, Trainer(0.0, 200.0, 0.0), staleness)
        assert 0.0 <= told.lag <= staleness + 1e-9


def test_new_weights_cost_the_caches_of_what_is_being_written() -> None:
    answers = Answers(600, 100.0, 100.0, Spread(500.0, 3000.0, 20_000.0))
    limits = Limits(sequences=100, tokens=1e9, positions=1e18)
    kept, again = (loop(step_s, limits, 1, answers, Trainer(0.0, 1.0, 0.5, refill=r), 4) for r in (False, True))
    assert again.paused > kept.paused
    assert again.step_s > kept.step_s


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 80), st.integers(1, 6), st.floats(0.0, 100.0), st.floats(0.0, 5.0), st.integers(0, 3),
    st.floats(1.0, 6.0),
)  # fmt: skip
def test_times_and_shares_are_whole(
    count: int, groups: int, train_s: float, update_s: float, staleness: int, ratio: float
) -> None:
    answers = Answers(count * groups, 20.0, 5.0, Spread(60.0, 60.0 * ratio, 1000.0))
    limits = Limits(sequences=24, tokens=512, positions=1e5)
    told = loop(step_s, limits, groups, answers, Trainer(0.5, train_s, update_s), staleness, steps=4)
    assert told.step_s == pytest.approx(told.waited_s + 0.5 + train_s + update_s)
    assert told.waited_s >= 0.0
    assert 0.0 <= told.writing + told.paused <= 1.5  # a group's own clock may run past the last step
    assert told.lag <= staleness + 0.5  # in the long run at most the staleness; these are four steps


@pytest.mark.parametrize("train_s", [0.0, 3.0, 50.0])
@pytest.mark.parametrize("ratio", [1.0, 3.0, 10.0])
def test_staleness_never_slows_the_loop_where_caches_stay(train_s: float, ratio: float) -> None:
    answers = Answers(512, 20.0, 5.0, Spread(60.0, 60.0 * ratio, 1000.0))
    limits = Limits(sequences=256, tokens=1e9, positions=1e9)
    times = [loop(step_s, limits, 1, answers, Trainer(0.0, train_s, 0.0, refill=False), k).step_s for k in (0, 1, 4)]
    assert times[1] <= times[0] * 1.02
    assert times[2] <= times[1] * 1.05
