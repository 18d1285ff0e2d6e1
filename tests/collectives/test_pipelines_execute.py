"""The executor against an event simulation that knows nothing of its tables."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.pipelines import CAUSES, SCHEDULES, Action, Costs, Order, causes, execute, hops_s, step_s, transfers
from topo.errors import SpecError

Table = npt.NDArray[np.float64]
Work = dict[str, Table]

NUMBERS = {
    "interleaved": (4, 8, 2),
    "breadth-first": (3, 5, 2),
    "dualpipe": (4, 10, 1),
    "dualpipe-v": (3, 7, 2),
    "chimera": (4, 8, 1),
}


def order_of(name: str) -> Order:
    return SCHEDULES[name].order(*NUMBERS.get(name, (4, 9, 1)))


class Simulation:
    """One event at a time: a device takes its next action once all it needs has arrived."""

    def __init__(self, order: Order, work: Work, hop: Table, back: Table, waits: bool, share: float) -> None:
        self.order, self.work, self.waits, self.share = order, work, waits, share
        self.over = {False: hop, True: back}
        self.last = order.virtuals - 1
        self.count = max(a.microbatch for listed in order.actions for a in listed) + 1
        self.free = [0.0] * order.stages
        self.times: dict[tuple[str, int, int, int], tuple[float, float]] = {}
        left = [list(listed) for listed in order.actions]
        while any(left):
            assert any(self.advance(d, mine) for d, mine in enumerate(left)), "deadlock"

    def advance(self, d: int, mine: list[Action]) -> bool:
        """Run what a device can run now; say whether it could run anything."""
        moved = False
        while mine:
            now = mine[:2] if len(mine) > 1 and mine[1].paired else mine[:1]
            ready = [self.arrival(a) for a in now]
            if None in ready:
                break
            spent = [self.spent(a) for a in now]
            start = max([self.free[d], *(r for r in ready if r is not None)])
            end = start + (max(self.share * sum(spent), *spent) if len(now) > 1 else spent[0])
            for a in now:
                self.times[a.kind, a.virtual, a.microbatch, a.pipe] = start, end
            self.free[d] = end + (sum(map(self.sending, now)) if self.waits else 0.0)
            del mine[: len(now)]
            moved = True
        return moved

    def crossing(self, pipe: int, low: int, back: bool) -> float:
        held = self.order.device[pipe]
        return float(self.over[back][pipe * self.last + low]) if held[low] != held[low + 1] else 0.0

    def ended(self, kinds: str, virtual: int, microbatch: int, pipe: int, hop: float = 0.0) -> float | None:
        """Return when the first of some kinds ended, plus a hop; nothing where it has not run."""
        done = [self.times[key] for kind in kinds if (key := (kind, virtual, microbatch, pipe)) in self.times]
        return done[0][1] + hop if done else None

    def arrival(self, a: Action) -> float | None:
        v, k, pipe, loop = a.virtual, a.microbatch, a.pipe, self.order.loop
        if a.kind == "W":
            return self.ended("I", v, k, pipe)
        if a.kind == "F" and v:
            return self.ended("F", v - 1, k, pipe, self.crossing(pipe, v - 1, False))
        if a.kind == "F":
            return self.ended("F", self.last, k - loop, pipe, self.over[False][-1]) if loop and k >= loop else 0.0
        if v == self.last:
            return self.ended("F", v, k, pipe)
        return self.ended("BI", v + 1, k, pipe, self.crossing(pipe, v, True))

    def spent(self, a: Action) -> float:
        return sum(float(self.work[kind][a.virtual]) for kind in (a.kind if a.kind != "B" else "IW"))

    def sending(self, a: Action) -> float:
        if a.kind == "F" and a.virtual < self.last:
            return self.crossing(a.pipe, a.virtual, False)
        if a.kind == "F" and self.order.loop:
            return float(self.over[False][-1]) if a.microbatch + self.order.loop < self.count else 0.0
        return self.crossing(a.pipe, a.virtual - 1, True) if a.kind in "BI" and a.virtual else 0.0


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(SCHEDULES)), st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([0.7, 1.0]))
def test_execution_equals_an_event_simulation(name: str, seed: int, waits: bool, share: float) -> None:
    order, random = order_of(name), np.random.default_rng(seed)
    work = {kind: random.uniform(0.2, 2.0, order.virtuals) for kind in "FIW"}
    hop, back = random.uniform(0.0, 1.0, (2, order.boundaries))
    told = Simulation(order, work, hop, back, waits, share)
    costs = Costs(work["F"], work["I"], work["W"], hop, back, asynchronous=not waits, overlapped=share)
    run = execute(order, costs)
    listed = [a for own in order.actions for a in own]
    assert run.start_s == pytest.approx([told.times[a[:4]][0] for a in listed])
    assert run.end_s == pytest.approx([told.times[a[:4]][1] for a in listed])
    assert float(run.makespan_s) == pytest.approx(max(told.free))
    assert step_s(order, costs) == pytest.approx(float(run.step_s))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(SCHEDULES)), st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_the_causes_add_up_to_the_idle_time(name: str, seed: int, waits: bool, synchronised: bool) -> None:
    order, random = order_of(name), np.random.default_rng(seed)
    forward, inputs, weight = random.uniform(0.2, 2.0, (3, order.virtuals, 1))
    costs = Costs(
        forward,
        inputs,
        weight,
        hop_s=random.uniform(0.0, 1.0, (order.boundaries, 4)),
        asynchronous=not waits,
        gather_s=random.uniform(0.0, 0.5),
        scatter_s=random.uniform(0.0, 0.5),
        each_run=bool(seed % 2),
        optimizer_s=random.uniform(0.0, 1.0, (order.stages, 1)),
        synchronised=synchronised,
    )
    run, told = execute(order, costs), causes(order, costs)
    assert tuple(told) == CAUSES
    assert sum(told.values()) == pytest.approx(run.idle_s, abs=1e-9)
    assert run.idle_s + run.busy_s == pytest.approx(np.broadcast_to(run.step_s, run.idle_s.shape))
    assert (run.idle_s >= -1e-9).all()
    for phase in ("fill", "drain", "stall"):
        assert (told[phase] >= -1e-9).all()


def test_equal_stages_fill_and_drain_and_nothing_else() -> None:
    told = causes(SCHEDULES["1f1b"].order(4, 8), Costs(1.0, 1.0, 1.0))
    assert told["fill"].tolist() == [6.0, 5.0, 4.0, 3.0]
    assert told["drain"].tolist() == [3.0, 4.0, 5.0, 6.0]
    assert not any(told[cause].any() for cause in CAUSES[2:])


def test_columns_equal_one_at_a_time() -> None:
    order, random = order_of("zb-h1"), np.random.default_rng(1)
    f, i, w = random.uniform(0.2, 2.0, (3, 4, 700))
    hop = random.uniform(0.0, 1.0, (3, 700))
    together = step_s(order, Costs(f, i, w, hop))
    assert together.shape == (700,)
    for k in (0, 511, 512, 699):
        alone = execute(order, Costs(f[:, k], i[:, k], w[:, k], hop[:, k]))
        assert together[k] == float(alone.step_s)


def test_zero_gathers_once_or_before_every_run() -> None:
    breadth, depth = SCHEDULES["breadth-first"].order(2, 4, 2), SCHEDULES["interleaved"].order(2, 4, 2)
    for order, runs in ((breadth, 3), (depth, 11)):
        once = execute(order, Costs(1.0, 1.0, 1.0, gather_s=0.1))
        each = execute(order, Costs(1.0, 1.0, 1.0, gather_s=0.1, each_run=True))
        free = execute(order, Costs(1.0, 1.0, 1.0))
        assert float(once.step_s - free.step_s) <= float(each.step_s - free.step_s)
        opened = (order.plan.opens[order.plan.device == 0] < order.virtuals).sum()
        assert opened == runs
    assert float(execute(breadth, Costs(1.0, gather_s=0.25)).start_s[0]) == 0.25


def test_gradients_are_scattered_after_the_last_backward() -> None:
    order = SCHEDULES["1f1b"].order(2, 3)
    free, late = (execute(order, Costs(1.0, 1.0, 1.0, scatter_s=s)) for s in (0.0, 0.5))
    assert float(late.makespan_s) == float(free.makespan_s) + 0.5
    assert (late.end_s == free.end_s).all()


def test_an_unsynchronised_optimizer_hides_the_stagger() -> None:
    order = SCHEDULES["zb-h2"].order(4, 12)
    assert float(execute(order, Costs(1.0, 1.0, 1.0)).step_s) == 36 + 3
    assert float(execute(order, Costs(1.0, 1.0, 1.0, synchronised=False)).step_s) == 36
    step = execute(order, Costs(1.0, 1.0, 1.0, optimizer_s=2.0, synchronised=False))
    assert float(step.step_s) == 38
    assert step.idle_s.tolist() == [0.0] * 4


def test_transfers_name_the_actions_they_join() -> None:
    order = SCHEDULES["zb-v"].order(3, 4)
    listed = [a for own in order.actions for a in own]
    messages = transfers(order)
    assert len(messages) == 2 * 4 * (order.virtuals - 1)
    for sender, taker, boundary, back in messages:
        step = -1 if back else 1
        assert listed[taker].virtual == listed[sender].virtual + step
        assert listed[taker].microbatch == listed[sender].microbatch
        same = order.device[0][listed[taker].virtual] == order.device[0][listed[sender].virtual]
        assert boundary == (order.boundaries if same else min(listed[taker].virtual, listed[sender].virtual))


# --- a WAN between the halves of sixteen stages ------------------------------------------------------------------------


def test_a_slow_boundary_is_paid_per_micro_batch_by_1f1b_once_by_eager_1f1b_and_per_chunk_by_interleaved() -> None:
    stages, microbatches, forward_s, backward_s, near_s, wan_s = 16, 64, 8e-3, 16e-3, 1e-4, 1e-2
    link = np.full(stages - 1, near_s)
    link[stages // 2 - 1] = wan_s
    step, added = {}, {}
    for name, chunks in (("1f1b", 1), ("eager-1f1b", 1), ("interleaved", 4)):
        order = SCHEDULES[name].order(stages, microbatches, chunks)
        far, near = (
            float(step_s(order, Costs(forward_s / chunks, backward_s / chunks, hop_s=hop)))
            for hop in (hops_s(order, link), near_s)
        )
        step[name], added[name] = far, (far - near) / (wan_s - near_s)
    assert added["eager-1f1b"] == pytest.approx(2)
    assert 0.8 * microbatches < added["1f1b"] < microbatches
    assert added["interleaved"] > microbatches
    assert step["eager-1f1b"] < step["1f1b"] < step["interleaved"]


# --- what is refused -----------------------------------------------------------------------------------------------------


def refused(order: Order, costs: Costs | None = None) -> str:
    with pytest.raises(SpecError) as caught:
        execute(order, costs or Costs(1.0, 1.0))
    return str(caught.value)


def test_a_deadlock_is_refused() -> None:
    first = (Action("F", 0, 0), Action("B", 0, 0), Action("F", 0, 1), Action("B", 0, 1))
    last = (Action("F", 1, 1), Action("B", 1, 1), Action("F", 1, 0), Action("B", 1, 0))
    assert "waits for itself" in refused(Order((first, last), ((0, 1),)))


def test_every_fault_of_an_order_is_told() -> None:
    first = (Action("B", 0, 0), Action("F", 0, 0), Action("F", 0, 0), Action("W", 1, 0))
    last = (Action("F", 1, 0), Action("I", 1, 0), Action("Q", 1, 0))
    message = refused(Order((first, last, ()), ((0, 1),)))
    for words in ("comes before its F", "not done exactly once", "sits on another device", "no kind", "nothing to do"):
        assert words in message


def test_costs_that_do_not_fit_are_refused() -> None:
    order = SCHEDULES["1f1b"].order(4, 8)
    assert "leading axis must be 4 or 1" in refused(order, Costs([1.0, 1.0, 1.0], hop_s=[1.0, 2.0]))
    assert "leading axis must be 3 or 1" in refused(order, Costs([1.0, 1.0, 1.0], hop_s=[1.0, 2.0]))
    assert "0 or more" in refused(order, Costs(-1.0, float("nan")))
    assert "do not fit each other" in refused(order, Costs(np.ones((4, 2)), np.ones((4, 3))))
