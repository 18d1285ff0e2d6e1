"""Pipeline schedules against an exact simulation of their order of work."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.pipelines import SCHEDULES

Work = tuple[str, int, int]  # "F" or "B", micro-batch, chunk


def gpipe_order(p: int, m: int, v: int, stage: int) -> list[Work]:
    return [("F", k, 0) for k in range(m)] + [("B", k, 0) for k in range(m)]


def one_f_one_b_order(p: int, m: int, v: int, stage: int) -> list[Work]:
    warm = min(m, p - stage - 1)
    steady = [work for k in range(m - warm) for work in (("F", warm + k, 0), ("B", k, 0))]
    return [("F", k, 0) for k in range(warm)] + steady + [("B", k, 0) for k in range(m - warm, m)]


def interleaved_order(p: int, m: int, v: int, stage: int) -> list[Work]:
    """Megatron-LM's order: p micro-batches through a chunk, then the next chunk; 2(p - i - 1) + (v - 1)p warm up."""

    def nth(kind: str, n: int) -> Work:
        chunk = n % (p * v) // p
        return kind, n // (p * v) * p + n % p, chunk if kind == "F" else v - 1 - chunk

    total = m * v
    warm = min(total, 2 * (p - stage - 1) + (v - 1) * p)
    steady = [work for n in range(total - warm) for work in (nth("F", warm + n), nth("B", n))]
    return [nth("F", n) for n in range(warm)] + steady + [nth("B", n) for n in range(total - warm, total)]


ORDERS = {"gpipe": gpipe_order, "1f1b": one_f_one_b_order, "interleaved": interleaved_order}


def simulated(name: str, p: int, m: int, v: int, forward_s: float, backward_s: float, hop_s: float) -> float:
    """Run every stage's list in order, each piece when its input has arrived; return the bubble."""
    lists = [ORDERS[name](p, m, v, stage) for stage in range(p)]
    place, clock, done = [0] * p, [0.0] * p, dict[tuple[str, int, int], float]()
    last, left = p * v - 1, sum(map(len, lists))
    while left:
        before = left
        for stage in range(p):
            while place[stage] < len(lists[stage]):
                kind, k, chunk = lists[stage][place[stage]]
                at = chunk * p + stage
                turn = kind == "B" and at == last
                source = ("F", k, at) if turn else (kind, k, at - 1 if kind == "F" else at + 1)
                if at == 0 and kind == "F":
                    ready = 0.0
                elif source in done:
                    ready = done[source] + (0.0 if turn else hop_s)
                else:
                    break
                clock[stage] = max(clock[stage], ready) + (forward_s if kind == "F" else backward_s) / v
                done[kind, k, at] = clock[stage]
                place[stage] += 1
                left -= 1
        assert left < before, "the order waits for itself"
    return max(clock) - m * (forward_s + backward_s)


def held(name: str, p: int, m: int, v: int, stage: int) -> float:
    """Most forwards without their backward at one time, in whole stages."""
    now = most = 0
    for kind, _, _ in ORDERS[name](p, m, v, stage):
        now += 1 if kind == "F" else -1
        most = max(most, now)
    return most / v


seconds = st.floats(0.1, 4.0)


@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 20), seconds, seconds, st.floats(0, 30))
def test_bubble_equals_simulation_for_any_counts(
    name: str, p: int, m: int, forward_s: float, backward_s: float, hop_s: float
) -> None:
    closed = SCHEDULES[name].bubble_s(p, m, 1, forward_s, backward_s, hop_s)
    assert closed == pytest.approx(simulated(name, p, m, 1, forward_s, backward_s, hop_s), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(2, 4), seconds, seconds, st.floats(0, 1))
def test_interleaved_bubble_equals_simulation_while_chunks_outlast_hops(
    p: int, groups: int, v: int, forward_s: float, backward_s: float, share: float
) -> None:
    hop_s, m = share * min(forward_s, backward_s) / v, p * groups
    closed = SCHEDULES["interleaved"].bubble_s(p, m, v, forward_s, backward_s, hop_s)
    assert closed == pytest.approx(simulated("interleaved", p, m, v, forward_s, backward_s, hop_s), abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(2, 4), seconds, seconds, st.floats(0.01, 30))
def test_interleaved_bubble_is_a_close_floor_beyond(
    p: int, groups: int, v: int, forward_s: float, backward_s: float, hop_s: float
) -> None:
    m = p * groups
    work_s = m * (forward_s + backward_s)
    closed = work_s + SCHEDULES["interleaved"].bubble_s(p, m, v, forward_s, backward_s, hop_s)
    exact = work_s + simulated("interleaved", p, m, v, forward_s, backward_s, hop_s)
    assert 0.8 * exact <= closed <= exact * (1 + 1e-12)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(SCHEDULES)), st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.data())
def test_activations_equal_the_most_that_are_held(name: str, p: int, groups: int, v: int, data: st.DataObject) -> None:
    stage, chunks, m = data.draw(st.integers(0, p - 1)), v if name == "interleaved" else 1, p * groups
    order = "1f1b" if name == "interleaved" and (v == 1 or p == 1) else name
    expected = held(order, p, m, 1 if order != name else chunks, stage)
    assert SCHEDULES[name].in_flight(p, m, chunks, stage) == pytest.approx(expected)


def test_interleaved_with_one_chunk_is_1f1b() -> None:
    assert SCHEDULES["interleaved"].bubble_s(4, 8, 1, 1, 2, 0.5) == SCHEDULES["1f1b"].bubble_s(4, 8, 1, 1, 2, 0.5)
    assert SCHEDULES["interleaved"].in_flight(4, 8, 1, 1) == SCHEDULES["1f1b"].in_flight(4, 8, 1, 1)


def test_hand_values() -> None:
    assert SCHEDULES["gpipe"].bubble_s(4, 8, 1, 1, 2, 0) == 9
    assert SCHEDULES["1f1b"].bubble_s(4, 8, 1, 1, 2, 0) == 9
    assert SCHEDULES["interleaved"].bubble_s(4, 8, 3, 1, 2, 0) == 3
    steady = 2 * 0.1 * (8 * 3 / 4 - 1)  # what 1F1B pays per micro-batch, m a multiple of p
    assert SCHEDULES["1f1b"].bubble_s(4, 8, 1, 1, 2, 0.1) == pytest.approx(9 + 2 * 3 * 0.1 + steady)


@pytest.mark.parametrize("name", SCHEDULES)
def test_one_stage_has_no_bubble(name: str) -> None:
    assert SCHEDULES[name].bubble_s(1, [1, 7], 2, 1.0, 2.0, 0.5).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", SCHEDULES)
def test_columns_equal_scalars(name: str) -> None:
    generator = np.random.default_rng(2)
    p, v, groups = generator.integers(1, 9, 50), generator.integers(1, 5, 50), generator.integers(1, 6, 50)
    hop_s = generator.uniform(0, 2, 50)
    bubbles = SCHEDULES[name].bubble_s(p, p * groups, v, 1.0, 2.0, hop_s)
    kept = SCHEDULES[name].in_flight(p, p * groups, v, 0)
    assert bubbles.shape == kept.shape == (50,)
    for row in range(50):
        one = SCHEDULES[name].bubble_s(p[row], p[row] * groups[row], v[row], 1.0, 2.0, hop_s[row])
        assert math.isclose(one, bubbles[row], rel_tol=1e-12, abs_tol=1e-15)
        assert SCHEDULES[name].in_flight(p[row], p[row] * groups[row], v[row], 0) == kept[row]
