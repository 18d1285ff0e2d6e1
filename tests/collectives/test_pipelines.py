"""Closed forms against the executed orders, orders against what every schedule must do, both against published figures."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from collectives.pipelines import SCHEDULES, Costs, Schedule, bubble_s, execute, executed_bubble_s, in_flight, step_s
from collectives.pipelines.orders.looped import group_objection, interleaved
from topo.errors import SpecError

TRAINING = [name for name, schedule in SCHEDULES.items() if schedule.training]
ALWAYS = ("gpipe", "1f1b", "eager-1f1b", "breadth-first", "chimera", "prefill", "decode")
Numbers = tuple[int, int, int]


@st.composite
def numbers(draw: st.DrawFn, schedule: Schedule) -> Numbers:
    """Draw stages, micro-batches and chunks that a schedule can run."""
    p = draw(st.integers(1, 6))
    if schedule.objection(p, 2 * p, 2):
        p += 1
    m = draw(st.integers(1, 20))
    if schedule.objection(p, m, 2):
        m = 2 * p * draw(st.integers(1, 3))
    return p, m, schedule.chunks or draw(st.integers(1, 4))


@st.composite
def times(draw: st.DrawFn) -> tuple[float, float, float, float]:
    """Draw F, I, W and a hop: from none over a share of a chunk to several stages."""
    f, i, w = (draw(st.floats(0.3, 2.0)) for _ in range(3))
    return f, i, w, draw(st.sampled_from([0.0, 0.02, 0.3, 1.0, 4.0])) * draw(st.floats(0.1, 1.0))


def executed(schedule: Schedule, shape: Numbers, f: float, i: float, w: float, c: float, kept: float = 1.0) -> float:
    numbers = schedule.fit(*shape[:2], f, i, w, c, kept) if schedule.fit else ()
    order = schedule.order(*shape, *map(int, numbers))
    costs = Costs(f / order.chunks, i / order.chunks, w / order.chunks, c, synchronised=schedule.synchronised)
    return float(step_s(order, costs)) - shape[1] * (f + i + w)


# --- the bubble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINING)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_closed_form_equals_the_executed_schedule_where_it_says_so(name: str, data: st.DataObject) -> None:
    schedule = SCHEDULES[name]
    shape, (f, i, w, c) = data.draw(numbers(schedule)), data.draw(times())
    truth = executed(schedule, shape, f, i, w, c)
    arguments = (*shape, f, i + w, c, w)
    if schedule.exact(*map(np.asarray, arguments)):
        assert float(schedule.bubble_s(*arguments)) == pytest.approx(truth, rel=1e-9, abs=1e-9)
    priced, simulated = bubble_s(name, *arguments)
    assert float(priced) == pytest.approx(truth, rel=1e-9, abs=1e-9)
    assert bool(simulated) is not bool(schedule.exact(*map(np.asarray, arguments)))


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_forms_that_are_exact_everywhere(name: str, data: st.DataObject) -> None:
    schedule = SCHEDULES[name]
    p, m, v = data.draw(numbers(schedule))
    f, i, w, c = data.draw(times())
    exact = bool(schedule.exact(*map(np.asarray, (p, m, v, f, i + w, c, w))))
    assert exact or name not in ALWAYS
    if name == "interleaved":
        assert exact or (v > 1 and c * v > min(f, i + w))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(1, 12), st.floats(0.3, 2.0), st.floats(0.0, 3.0))
def test_a_decode_loop_settles_at_the_longer_of_work_and_way_round(p: int, m: int, f: float, c: float) -> None:
    run = execute(SCHEDULES["decode"].order(p, m), Costs(f, hop_s=c))
    own = run.start_s[: 4 * m]  # first stage, four tokens of every micro-batch
    token = float(own[3 * m] - own[2 * m])
    assert token == pytest.approx(max(m * f, p * (f + c)))
    assert float(SCHEDULES["decode"].bubble_s(p, m, 1, f, 0.0, c)) == pytest.approx(token - m * f, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 20), st.floats(0.3, 2.0), st.floats(0.0, 3.0))
def test_a_prefill_stream_fills_once(p: int, m: int, f: float, c: float) -> None:
    step = float(step_s(SCHEDULES["prefill"].order(p, m), Costs(f, hop_s=c)))
    assert float(SCHEDULES["prefill"].bubble_s(p, m, 1, f, 0.0, c)) == pytest.approx(step - m * f, abs=1e-9)


#: Name, (p, m, v), (F, I, W) → bubble as published: collectives.md §3 and the sources of the table.
PUBLISHED = [
    ("gpipe", (4, 8, 1), (1.0, 1.5, 0.7), lambda p, f, i, w: (p - 1) * (f + i + w)),
    ("1f1b", (4, 8, 1), (1.0, 1.5, 0.7), lambda p, f, i, w: (p - 1) * (f + i + w)),
    ("eager-1f1b", (4, 8, 1), (1.0, 1.5, 0.7), lambda p, f, i, w: (p - 1) * (f + i + w)),
    ("interleaved", (4, 8, 3), (1.0, 1.5, 0.7), lambda p, f, i, w: (p - 1) * (f + i + w) / 3),
    ("breadth-first", (4, 8, 3), (1.0, 1.5, 0.7), lambda p, f, i, w: (p - 1) * (f + i + w) / 3),
    ("zb-h1", (4, 12, 1), (1.0, 1.1, 0.9), lambda p, f, i, w: (p - 1) * (f + i - w)),
    ("zb-h1", (8, 24, 1), (1.0, 1.0, 1.0), lambda p, f, i, w: (p - 1) * (f + i - w)),
    ("zb-h2", (4, 12, 1), (1.0, 1.1, 0.9), lambda p, f, i, w: (p - 1) * (f + i - 2 * w)),
    ("zb-h2", (8, 24, 1), (1.0, 1.0, 1.0), lambda p, f, i, w: 0.0),
    ("zb-v", (8, 24, 2), (1.0, 1.0, 1.0), lambda p, f, i, w: 0.0),
    ("dualpipe", (8, 20, 1), (1.0, 1.0, 1.0), lambda p, f, i, w: (p / 2 - 1) * (f + i + w + i + w - 3 * w)),
    ("dualpipe", (8, 20, 1), (1.0, 1.0, 0.6), lambda p, f, i, w: (p / 2 - 1) * (f + i + w + i + w - 3 * w)),
    ("dualpipe-v", (4, 10, 2), (1.0, 1.0, 0.6), lambda p, f, i, w: (p - 1) * (f + i + w + i + w - 3 * w) / 2),
    ("chimera", (8, 16, 1), (1.0, 0.6, 0.4), lambda p, f, i, w: (p / 2 - 1) * (f + i + w)),
]


@pytest.mark.parametrize(("name", "shape", "work", "published"), PUBLISHED)
def test_the_bubble_is_the_published_one(
    name: str, shape: Numbers, work: tuple[float, float, float], published: Callable[..., float]
) -> None:
    f, i, w = work
    expected = published(shape[0], f, i, w)
    assert executed(SCHEDULES[name], shape, f, i, w, 0.0) == pytest.approx(expected, abs=1e-9)
    assert float(SCHEDULES[name].bubble_s(*shape, f, i + w, 0.0, w)) == pytest.approx(expected, abs=1e-9)


#: Settings of arXiv 2401.10241: stages, micro-batches, F, I, W, hop in ms, share kept for W: 32h/(34h + 5as) with unfused
#: attention, → the paper's bubble rates of 1F1B, ZB-1p (ZB-H1) and ZB-2p, computed by its authors from these times.
PROFILED = [
    (8, 24, 18.522, 18.086, 9.337, 0.601, 0.37, 0.2431, 0.1585, 0.0433),
    (8, 32, 18.513, 18.086, 9.331, 0.626, 0.37, 0.1985, 0.1242, 0.0039),
    (8, 24, 29.718, 29.444, 19.927, 0.527, 0.43, 0.2347, 0.1323, 0.0029),
    (16, 48, 11.347, 11.248, 8.132, 0.377, 0.43, 0.2552, 0.1397, 0.0066),
]


@pytest.mark.parametrize(("p", "m", "f", "i", "w", "c", "kept", "plain", "once", "twice"), PROFILED)
def test_the_bubbles_of_the_zero_bubble_paper(
    p: int, m: int, f: float, i: float, w: float, c: float, kept: float, plain: float, once: float, twice: float
) -> None:
    for name, rate, within in (
        ("1f1b", plain, 6e-5),
        ("zb-h1", once, 6e-5),
        ("zb-1p", once, 1e-3),
        ("zb-2p", twice, 1e-3),
    ):
        bubble, _ = bubble_s(name, p, m, 1, f, i + w, c, w, kept)
        assert float(bubble / (bubble + m * (f + i + w))) == pytest.approx(rate, abs=within)


def test_fitted_orders_stay_within_their_activations() -> None:
    for name, copies in (("zb-1p", 1), ("zb-2p", 2)):
        fit = SCHEDULES[name].fit
        assert fit is not None
        for kept in (0.37, 1.0):
            order = SCHEDULES[name].order(8, 64, 1, *map(int, fit(8, 64, 1.0, 1.0, 0.5, 0.1, kept)))
            assert in_flight(order, kept).max() <= 8 * copies
    assert SCHEDULES["zb-1p"].order(4, 8).actions == SCHEDULES["zb-h1"].order(4, 8).actions


@pytest.mark.parametrize(("p", "share", "w"), [(8, 0.8, 1.0), (8, 0.9, 0.8), (4, 0.75, 1.0)])
def test_dualpipe_idles_as_published_when_forward_and_backward_overlap(p: int, share: float, w: float) -> None:
    run = execute(SCHEDULES["dualpipe"].order(p, 4 * p), Costs(1.0, 1.0, w, overlapped=share))
    backward, both = 1 + w, share * (2 + w)
    assert run.idle_s.max() == pytest.approx((p / 2 - 1) * (both + backward - 3 * w))


def test_a_synchronised_optimizer_shows_the_stagger_of_zero_bubble() -> None:
    for p in (4, 8):
        order = SCHEDULES["zb-h2"].order(p, 3 * p)
        assert float(step_s(order, Costs(1.0, 1.0, 1.0))) - 9 * p == p - 1


def test_hops_cost_1f1b_a_round_trip_per_micro_batch_and_the_others_one() -> None:
    steady = 2 * 0.1 * (8 * 3 / 4 - 1)  # what 1F1B pays per micro-batch, m a multiple of p
    assert float(SCHEDULES["1f1b"].bubble_s(4, 8, 1, 1, 2, 0.1)) == pytest.approx(9 + 2 * 3 * 0.1 + steady)
    assert float(SCHEDULES["eager-1f1b"].bubble_s(4, 8, 1, 1, 2, 0.1)) == pytest.approx(9 + 2 * 3 * 0.1)
    assert float(SCHEDULES["gpipe"].bubble_s(4, 8, 1, 1, 2, 0.1)) == pytest.approx(9 + 2 * 3 * 0.1)
    assert float(SCHEDULES["interleaved"].bubble_s(4, 8, 2, 1, 2, 0.1)) == pytest.approx(4.5 + 2 * 7 * 0.1)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(2, 4), times())
def test_the_interleaved_bound_stays_below_the_schedule(
    p: int, groups: int, v: int, work: tuple[float, float, float, float]
) -> None:
    f, i, w, c = work
    m = groups * p
    truth = executed(SCHEDULES["interleaved"], (p, m, v), f, i, w, c) + m * (f + i + w)
    bound = float(SCHEDULES["interleaved"].bubble_s(p, m, v, f, i + w, c)) + m * (f + i + w)
    assert 0.8 * truth <= bound <= truth * (1 + 1e-12)


def test_interleaved_with_one_chunk_is_1f1b() -> None:
    one, plain = SCHEDULES["interleaved"], SCHEDULES["1f1b"]
    assert one.bubble_s(4, 8, 1, 1, 2, 0.5) == plain.bubble_s(4, 8, 1, 1, 2, 0.5)
    assert one.in_flight(4, 8, 1, 1) == plain.in_flight(4, 8, 1, 1)
    assert one.order(4, 8, 1).actions == plain.order(4, 8).actions


@pytest.mark.parametrize("name", SCHEDULES)
def test_one_stage_has_no_bubble(name: str) -> None:
    bubbles = SCHEDULES[name].bubble_s(1, [1, 7], 2, 1.0, 2.0, 0.5, 1.0)
    assert bubbles.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", SCHEDULES)
def test_columns_equal_scalars(name: str) -> None:
    random, schedule = np.random.default_rng(2), SCHEDULES[name]
    p, v, groups = 2 * random.integers(1, 4, 20), random.integers(1, 5, 20), random.integers(2, 5, 20)
    hop_s, m = random.uniform(0, 2, 20), p * groups
    bubbles = schedule.bubble_s(p, m, v, 1.0, 2.0, hop_s, 0.9)
    kept = schedule.in_flight(p, m, v, 0)
    assert bubbles.shape == kept.shape == (20,)
    for row in range(20):
        one = schedule.bubble_s(p[row], m[row], v[row], 1.0, 2.0, hop_s[row], 0.9)
        assert float(one) == pytest.approx(bubbles[row], rel=1e-12, abs=1e-12)
        assert float(schedule.in_flight(p[row], m[row], v[row], 0)) == kept[row]


def test_execution_groups_rows_by_their_numbers() -> None:
    p, m, c = np.array([4, 2, 4, 2]), np.array([8, 6, 8, 4]), np.array([0.0, 0.1, 2.0, 0.3])
    together = executed_bubble_s(SCHEDULES["zb-h1"], p, m, 1, 1.0, 2.0, c, 1.0)
    alone = [
        executed(SCHEDULES["zb-h1"], (int(a), int(b), 1), 1.0, 1.0, 1.0, float(d))
        for a, b, d in zip(p, m, c, strict=True)
    ]
    assert together == pytest.approx(alone)


# --- the orders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_order_does_everything_once_and_never_waits_for_itself(name: str, data: st.DataObject) -> None:
    schedule = SCHEDULES[name]
    p, m, v = data.draw(numbers(schedule))
    order = schedule.order(p, m, v)
    assert order is schedule.order(p, m, v)
    assert (order.stages, order.virtuals) == (p, p * v)
    seen = Counter((a.kind, a.pipe, a.virtual, a.microbatch) for listed in order.actions for a in listed)
    assert set(seen.values()) == {1}
    batches = {a.microbatch for listed in order.actions for a in listed}
    assert batches == set(range(m * (4 if name == "decode" else 1)))
    pipe = {a.microbatch: a.pipe for listed in order.actions for a in listed}
    for k in batches:
        for virtual in range(order.virtuals):
            kinds = "".join(kind for kind in "FBIW" if (kind, pipe[k], virtual, k) in seen)
            assert kinds in (("FB", "FIW") if schedule.training else ("F",))
    assert len(seen) == sum(len(listed) for listed in order.actions)
    assert order.plan.levels[-1][1] == len(order.plan.before)  # raises on a deadlock


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_activations_equal_the_most_that_are_held(name: str, data: st.DataObject) -> None:
    schedule = SCHEDULES[name]
    p, m, v = data.draw(numbers(schedule))
    assume(name != "zb-v" or m >= 2 * p - 1)
    counted = in_flight(schedule.order(p, m, v))
    limit = schedule.in_flight(p, m, v, np.arange(p))
    assert limit == pytest.approx(counted) or (schedule.fit and (counted <= limit).all())


@pytest.mark.parametrize(
    ("name", "shape", "held"),
    [
        ("gpipe", (4, 8, 1), [8, 8, 8, 8]),
        ("1f1b", (4, 8, 1), [4, 3, 2, 1]),
        ("eager-1f1b", (4, 8, 1), [7, 5, 3, 1]),
        ("interleaved", (4, 8, 2), [4 * (1 + 3 / 8), 4.5, 3.5, 2.5]),
        ("breadth-first", (4, 8, 2), [8, 8, 8, 8]),
        ("zb-h1", (4, 8, 1), [4, 4, 4, 4]),
        ("zb-h2", (4, 8, 1), [7, 7, 7, 7]),
        ("zb-v", (4, 8, 2), [4, 4, 4, 4]),
        ("dualpipe", (4, 8, 1), [5, 5, 5, 5]),
        ("dualpipe-v", (2, 4, 2), [2.5, 2.5]),
        ("chimera", (4, 8, 1), [3, 4, 4, 3]),
    ],
)
def test_the_published_activations(name: str, shape: Numbers, held: list[float]) -> None:
    assert in_flight(SCHEDULES[name].order(*shape)).tolist() == held


@pytest.mark.parametrize(("name", "share"), [("v-half", 1 / 2), ("v-min", 1 / 3)])
def test_v_schedules_hold_a_share_of_1f1b(name: str, share: float) -> None:
    for p in (6, 8, 16):
        held = in_flight(SCHEDULES[name].order(p, 4 * p)).max()
        assert share * p <= held <= share * p + 1.5


def test_what_the_input_gradient_frees_is_not_held_for_the_weights() -> None:
    order = SCHEDULES["zb-h2"].order(4, 8)
    assert in_flight(order, kept=0.5).tolist() == [7.0, 6.0, 5.0, 4.0]


def test_megatrons_schedule_table() -> None:
    # Megatron-Core's own example: PP2, groups of 3, 5 micro-batches, 2 chunks.
    forwards = [(a.microbatch, a.virtual // 2) for a in interleaved(2, 5, 2, 3).actions[0] if a.kind == "F"]
    assert [k for k, _ in forwards] == [0, 1, 2, 0, 1, 2, 3, 4, 3, 4]
    assert [chunk for _, chunk in forwards] == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    kinds = "".join(a.kind for a in interleaved(4, 8, 2).actions[1])
    assert kinds.index("B") == 2 * (4 - 1 - 1) + (2 - 1) * 4 + 1  # the warm-up and the first steady forward


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(1, 20), st.integers(2, 3), st.integers(0, 12))
def test_allowed_groups_run(p: int, m: int, v: int, group: int) -> None:
    assume(not group_objection(p, m, v, group))
    run = execute(interleaved(p, m, v, group), Costs(1.0, 1.0, 1.0))
    assert (run.idle_s >= 0).all()


def test_numbers_a_schedule_cannot_run_are_refused() -> None:
    for name, shape, words in [
        ("interleaved", (4, 6, 2), "last group of 2 micro-batches"),
        ("dualpipe", (4, 6, 1), "at least two per stage"),
        ("dualpipe-v", (4, 7, 2), "two micro-batches per stage"),
        ("chimera", (3, 6, 1), "even number of stages"),
        ("1f1b", (0, -1, 1), "must be 1 or more"),
    ]:
        with pytest.raises(SpecError, match=words):
            SCHEDULES[name].order(*shape)
