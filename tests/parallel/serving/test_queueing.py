"""Continuous batching: hand values, limits, and the jump against a step-by-step oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.serving.queueing import ClosedLoop, Limits, OpenLoop, StepCost, Times, simulate

ROOMY = Limits(sequences=1000, tokens=10_000, positions=1e12)
SECOND = 1.0


def one_second(*_: float) -> float:
    return SECOND


def by_tokens(decoding: float, positions: float, prompt: float, pairs: float) -> float:
    return 1e-3 + 1e-5 * decoding + 1e-9 * positions + 1e-6 * prompt + 1e-10 * pairs


def test_a_single_request_takes_its_prompt_and_a_step_for_each_further_token() -> None:
    served = simulate(one_second, ROOMY, ClosedLoop(1), [7], [5])
    assert served.ttft_s.tolist() == [1.0]
    assert served.e2e_s.tolist() == [5.0]
    assert served.tpot_s.tolist() == [1.0]


def test_a_prompt_over_the_budget_is_fed_in_chunks() -> None:
    served = simulate(one_second, Limits(8, 10, 1e9), ClosedLoop(1), [25], [2])
    assert served.ttft_s.tolist() == [3.0]


def test_prompts_that_share_a_budget_come_in_the_order_of_arrival() -> None:
    served = simulate(one_second, Limits(8, 10, 1e9), ClosedLoop(3), [10] * 3, [1] * 3)
    assert served.ttft_s.tolist() == [1.0, 2.0, 3.0]


def test_unmixed_prompts_stop_decoding() -> None:
    times_s = (0.0, 1.5)
    mixed = simulate(one_second, Limits(8, 10, 1e9), OpenLoop(times_s), [10, 10], [5, 2])
    apart = simulate(one_second, Limits(8, 10, 1e9, mixed=False), OpenLoop(times_s), [10, 10], [5, 2])
    assert apart.e2e_s[0] == mixed.e2e_s[0] + SECOND


def test_a_full_cache_holds_requests_back_and_says_so() -> None:
    served = simulate(one_second, Limits(8, 100, positions=20), ClosedLoop(2), [10, 10], [5, 5])
    assert served.saturated
    assert served.most_running == 1
    assert served.ttft_s.tolist() == [1.0, 6.0]


def test_room_for_all_is_not_saturated() -> None:
    assert not simulate(by_tokens, ROOMY, ClosedLoop(2), [10] * 8, [50] * 8).saturated


def test_a_request_larger_than_the_cache_runs_alone() -> None:
    assert simulate(one_second, Limits(8, 100, positions=1), ClosedLoop(1), [10], [3]).e2e_s.tolist() == [3.0]


def test_a_queue_looked_at_seldom_makes_new_requests_wait() -> None:
    often = simulate(by_tokens, Limits(8, 100, 1e9), ClosedLoop(4), [10] * 40, [20, 31, 43, 50] * 10)
    seldom = simulate(by_tokens, Limits(8, 100, 1e9, poll_steps=16), ClosedLoop(4), [10] * 40, [20, 31, 43, 50] * 10)
    assert np.mean(seldom.ttft_s) > 2.0 * np.mean(often.ttft_s)


def test_gathering_prompts_waits_for_its_steps_unless_enough_tokens_wait() -> None:
    arrive = OpenLoop((0.0, 2.5, 2.6))
    lengths = [10, 10, 10], [40, 5, 5]
    held = simulate(one_second, Limits(8, 100, 1e9, wait_steps=10, wait_tokens=1e9), arrive, *lengths)
    enough = simulate(one_second, Limits(8, 100, 1e9, wait_steps=10, wait_tokens=20), arrive, *lengths)
    assert held.ttft_s[1] == pytest.approx(enough.ttft_s[1] + 10.0)


def test_an_idle_engine_waits_for_the_next_arrival() -> None:
    served = simulate(one_second, ROOMY, OpenLoop((0.0, 100.0)), [10, 10], [2, 2])
    assert served.ttft_s.tolist() == [1.0, 1.0]
    assert served.seconds == 102.0


def stepwise(
    step_s: StepCost, limits: Limits, clients: int, inputs: list[int], outputs: list[int]
) -> tuple[Times, Times]:
    """Serve a closed loop one step at a time, without jumps: an oracle for mixed batches that always find room."""
    now, sent, first, last = 0.0, [0.0] * len(inputs), [0.0] * len(inputs), [0.0] * len(inputs)
    waiting, following = list(range(min(clients, len(inputs)))), min(clients, len(inputs))
    fed: dict[int, int] = {}
    left: dict[int, int] = {}
    done = 0
    while done < len(inputs):
        decoding = list(left)
        budget, prompt, pairs, whole = int(limits.tokens) - len(decoding), 0, 0.0, list[int]()
        for request in waiting:
            take = min(inputs[request] - fed.get(request, 0), budget - prompt)
            if take <= 0:
                break
            pairs += take * (fed.get(request, 0) + take / 2.0)
            fed[request] = fed.get(request, 0) + take
            prompt += take
            if fed[request] == inputs[request]:
                whole.append(request)
        seen = sum(inputs[r] + outputs[r] - 1 - left[r] for r in decoding)
        now += step_s(len(decoding), seen, prompt, pairs)
        for request in whole:
            waiting.remove(request)
            first[request] = now
            left[request] = outputs[request] - 1
        for request in decoding:
            left[request] -= 1
        for request in [r for r, more in left.items() if more <= 0]:
            del left[request]
            last[request] = now
            done += 1
            if following < len(inputs):
                sent[following] = now
                waiting.append(following)
                following += 1
    return np.array(first) - np.array(sent), np.array(last) - np.array(sent)


@settings(max_examples=50, deadline=None)
@given(
    clients=st.integers(1, 6),
    lengths=st.lists(st.tuples(st.integers(1, 60), st.integers(2, 30)), min_size=1, max_size=18),
    tokens=st.integers(10, 80),
)
def test_jumping_is_stepping(clients: int, lengths: list[tuple[int, int]], tokens: int) -> None:
    inputs, outputs = [pair[0] for pair in lengths], [pair[1] for pair in lengths]
    limits = Limits(sequences=100, tokens=float(tokens), positions=1e12)
    served = simulate(by_tokens, limits, ClosedLoop(clients), inputs, outputs)
    ttft_s, e2e_s = stepwise(by_tokens, limits, clients, inputs, outputs)
    np.testing.assert_allclose(served.ttft_s, ttft_s, rtol=1e-9)
    np.testing.assert_allclose(served.e2e_s, e2e_s, rtol=1e-9)


@settings(max_examples=50, deadline=None)
@given(clients=st.integers(1, 20), count=st.integers(1, 60), mixed=st.booleans(), room=st.integers(60, 2000))
def test_time_in_the_system_is_littles_law(clients: int, count: int, mixed: bool, room: int) -> None:
    limits = Limits(16, 50, room, mixed)
    served = simulate(by_tokens, limits, ClosedLoop(clients), [30] * count, [10] * count)
    in_system = np.sum(served.e2e_s) / served.seconds
    assert in_system <= clients * (1 + 1e-9)
    assert np.all(served.e2e_s >= served.ttft_s)
    assert served.most_running <= 16
