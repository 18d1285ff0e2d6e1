"""A closed form is its schedule on a switch: every rank with one port, every round a latency and its fullest port."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.algorithms import ALGORITHMS
from collectives.path import IDEAL, Hop
from collectives.schedule import SCHEDULES, Schedule, schedule

PORT_BPS = 1e9
TIERED = ("hierarchical", "pxn", "nvls", "sharp")
PIPELINED = {"tree", "chain", "nvls", "multimem", "sharp", "pxn"}
EXACT = [
    (op, name)
    for op, table in ALGORITHMS.items()
    for name in table
    if name not in PIPELINED and not (name == "direct" and op in ("all_gather", "reduce_scatter"))
]  # fmt: skip


def on_a_switch(plan: Schedule, latency_s: float) -> float:
    """Seconds of a schedule whose ranks have one port each, into one switch."""

    def fullest(ranks: Any, sizes: Any) -> float:
        held = ranks >= 0
        return float(np.bincount(ranks[held], sizes[held], minlength=1).max()) if held.any() else 0.0

    if plan.posted:
        total = np.zeros((2, plan.ranks))
        for each in plan.rounds:
            np.add.at(total[0], each.sender, each.size_bytes)
            np.add.at(total[1], each.receiver, each.size_bytes)
        return latency_s * (plan.ranks > 1) + float(total.max(initial=0.0)) / PORT_BPS
    return sum(
        each.repeat
        * (latency_s + max(fullest(each.sender, each.size_bytes), fullest(each.receiver, each.size_bytes)) / PORT_BPS)
        for each in plan.rounds
    )


def closed(op: str, name: str, size_bytes: float, blocks: list[int], latency_s: float) -> float:
    """Seconds of the closed form on as many tiers as there are blocks, all of the same speed."""
    path = tuple(
        Hop(PORT_BPS, latency_s, IDEAL, in_network_reduction=name in ("nvls", "multimem", "sharp")) for _ in blocks
    )
    return float(ALGORITHMS[op][name].fn(size_bytes, blocks, path))


def test_every_closed_form_has_a_schedule() -> None:
    for op, table in ALGORITHMS.items():
        assert not set(table) - set(SCHEDULES[op]), op
    schedules_only = {(op, name) for op, table in SCHEDULES.items() for name in table if name not in ALGORITHMS[op]}
    assert {name for _, name in schedules_only} == {
        "bucket",
        "multi_bucket",
        "shift",
        "ping_pong",
    }  # need more than tiers


@pytest.mark.parametrize(("op", "name"), EXACT, ids=[f"{op}-{name}" for op, name in EXACT])
def test_a_closed_form_is_its_schedule_on_a_switch(op: str, name: str) -> None:
    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 40), st.floats(0, 1e9), st.floats(0, 1e-3), st.integers(1, 5))
    def holds(ranks: int, size_bytes: float, latency_s: float, inner: int) -> None:
        shape: dict[str, Any] = {}
        blocks = [ranks]
        if name in TIERED:
            shape, blocks = {"inner": inner}, [inner, inner * ranks]
        if SCHEDULES[op][name].valid(blocks[-1], **shape):
            assert not ALGORITHMS[op][name].valid(blocks, (Hop(1.0, 0.0, IDEAL),))
            return
        plan = schedule(op, name, blocks[-1], size_bytes, **shape)
        expected = closed(op, name, size_bytes, blocks, latency_s)
        assert on_a_switch(plan, latency_s) == pytest.approx(expected, rel=1e-9, abs=1e-15)

    holds()


@pytest.mark.parametrize("ranks", [2, 3, 8, 13, 32])
@pytest.mark.parametrize(
    ("op", "name"), [(op, name) for op, table in ALGORITHMS.items() for name in table if name in PIPELINED]
)
def test_a_pipeline_reaches_its_closed_form_with_small_chunks(op: str, name: str, ranks: int) -> None:
    """With k chunks a pipeline takes its filling longer than the closed form, which leaves the filling out."""
    chunks = 2000
    shape: dict[str, Any] = {"inner": ranks, "chunk_bytes": 1e9 / chunks} if name in TIERED else {}
    shape["chunk_bytes"] = 1e9 / chunks / (2 if name == "tree" else ranks if name in ("nvls", "multimem") else 1)
    blocks = [ranks, ranks]
    if name in ("pxn", "sharp"):
        shape["inner"], blocks = 2, [2, 2 * ranks]
    plan = schedule(op, name, blocks[-1], 1e9, **shape)
    expected = closed(op, name, 1e9, blocks, 0.0)
    if name == "sharp":
        path = (Hop(PORT_BPS, 0.0, IDEAL), Hop(PORT_BPS, 0.0, IDEAL, "scale-out", in_network_reduction=True))
        expected = float(ALGORITHMS[op][name].fn(1e9, blocks, path))
    seconds = on_a_switch(plan, 0.0)
    if name == "tree":  # the closed form counts 2 S through every port; a leaf of both trees or a root has less
        assert (1.0 - 1.0 / ranks) * expected * (1 - 1e-9) <= seconds <= expected * 1.02
    else:
        assert expected * (1 - 1e-9) <= seconds <= expected * (1 + 2 * ranks / chunks + 0.01)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 5), min_size=1, max_size=3).map(tuple), st.sampled_from(["bucket", "multi_bucket"]))
def test_buckets_keep_the_links_of_a_torus_as_busy_as_they_can(shape: tuple[int, ...], name: str) -> None:
    """Single bucket: Σ(n-1) rounds, both links of one axis; all 2d at once on equal sides (Jain, Sabharwal 2010)."""
    ranks = int(np.prod(shape))
    plan = schedule("all_gather", name, ranks, 1.0, shape=shape)
    assert plan.steps == sum(side - 1 for side in shape)
    seconds = 0.0
    for each in plan.rounds:
        way = each.sender * ranks + each.receiver
        if min(shape) > 2:  # of two, both ways share a pair of ranks
            seconds += each.repeat * float(np.bincount(way, each.size_bytes).max())
    if min(shape) > 2 and (name == "bucket" or len(set(shape)) == 1):
        links = 2 if name == "bucket" else 2 * len(shape)
        assert seconds == pytest.approx((ranks - 1) / ranks / links)


def test_direct_gathers_move_the_bytes_of_their_closed_form() -> None:
    """Their closed form charges Bruck's latency; the schedule is one round."""
    for op in ("all_gather", "reduce_scatter"):
        for ranks in (2, 7, 16):
            plan = schedule(op, "direct", ranks, 1e9)
            assert on_a_switch(plan, 0.0) == pytest.approx(closed(op, "direct", 1e9, [ranks], 0.0))
