"""Every schedule is run on symbolic data: each rank ends with what the operation promises, for the bytes that it says."""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.schedule import SCHEDULES, Schedule, schedule
from topo.errors import SpecError

State = npt.NDArray[np.int64]
EACH = [(op, name) for op, table in SCHEDULES.items() for name in table]
each_rule = pytest.mark.parametrize(("op", "name"), EACH, ids=[f"{op}-{name}" for op, name in EACH])
TIERED = ("hierarchical", "pxn", "nvls", "sharp")
ON_TORI = ("bucket", "multi_bucket", "swing")
CHUNKED = ("tree", "chain", "pxn", "nvls", "sharp")


def steps(plan: Schedule) -> Iterator[tuple[Any, int, list[Any]]]:
    """Every repetition of every round, with what its messages carry."""
    for each in plan.rounds:
        for turn in range(each.repeat):
            assert each.pieces is not None
            rows = list(each.pieces(turn))
            assert len(rows) == each.sender.size == each.receiver.size == each.size_bytes.size
            yield each, turn, rows


def run(plan: Schedule, state: State) -> State:
    """Follow a schedule: state[rank, piece, contributor] counts how often a contribution is in a rank's piece.

    The rows of reducing switches lie behind the ranks': -1 is the last. All messages of a round leave before any lands.
    """
    state = np.concatenate([state, np.zeros_like(state)])
    for each, _, rows in steps(plan):
        moving = [state[sender, row].copy() for sender, row in zip(each.sender, rows, strict=True)]
        adds = np.broadcast_to(each.adds, each.sender.shape)
        for value, receiver, row, add in zip(moving, each.receiver, rows, adds, strict=True):
            assert (value.sum(axis=-1) > 0).all(), "sends what it doesn't have"
            assert np.unique(row).size == row.size
            state[receiver, row] = value + (state[receiver, row] if add else 0)
    return state[: plan.ranks]


def start(plan: Schedule, root: int) -> State:
    """What each rank has before: its own numbers everywhere, its own pieces, or at the root."""
    n = plan.ranks
    if plan.op == "all_to_all":
        pieces = np.arange(n * plan.pieces)
        return np.asarray(pieces // plan.pieces == np.arange(n)[:, None], dtype=np.int64)[:, :, None]
    mine: State = np.broadcast_to(np.eye(n, dtype=int)[:, None, :], (n, plan.pieces, n))
    if plan.op in ("all_gather", "barrier"):
        return np.asarray(mine * (np.arange(plan.pieces) % n == np.arange(n)[:, None])[:, :, None])
    if plan.op == "broadcast":
        return np.asarray(mine * (np.arange(n) == root)[:, None, None])
    return mine


def promised(plan: Schedule, state: State, root: int) -> bool:
    """Whether every rank ends with what the operation promises."""
    n, pieces = plan.ranks, plan.pieces
    if plan.op == "all_reduce":
        return bool((state == 1).all())
    if plan.op in ("all_gather", "barrier"):
        return bool((state == np.eye(n, dtype=int)[np.arange(pieces) % n]).all())
    if plan.op == "reduce_scatter":
        return all(bool((state[rank, np.arange(pieces) % n == rank] == 1).all()) for rank in range(n))
    if plan.op == "broadcast":
        return bool((state == np.eye(n, dtype=int)[root]).all())
    if plan.op == "reduce":
        return bool((state[root] == 1).all())
    target = np.arange(n * pieces) // (pieces // n) % n
    return all(bool((state[rank, target == rank] == 1).all()) for rank in range(n))


@st.composite
def groups(draw: st.DrawFn, op: str, name: str) -> tuple[int, dict[str, Any]]:
    """Ranks from 1 to 20 that an algorithm serves, and the shape that it asks for."""
    ranks = draw(st.integers(1, 20))
    shape: dict[str, Any] = {}
    if name in ON_TORI:
        sides = st.sampled_from([1, 2, 4, 8]) if name == "swing" else st.integers(1, 6)
        shape["shape"] = draw(
            st.lists(sides, min_size=1, max_size=3).map(tuple).filter(lambda sides: 1 <= prod(sides) <= 32)
        )
        ranks = prod(shape["shape"])
    elif name in TIERED:
        inner = draw(st.integers(1, 5))
        ranks = inner * draw(st.integers(1, 4))
        shape["inner"] = inner
        if name == "hierarchical" and draw(st.booleans()):
            shape["inner"], ranks = (inner, ranks), ranks * draw(st.integers(1, 3 if ranks < 10 else 1))
    if name in CHUNKED:
        shape["chunk_bytes"] = 960.0 / draw(st.integers(1, 7))
    if name == "pat":
        shape["aggregate"] = draw(st.sampled_from([0, 1, 2, 4, 8]))
    if op in ("broadcast", "reduce"):
        shape["root"] = draw(st.integers(0, ranks - 1))
    if not SCHEDULES[op][name].valid(ranks, **shape):
        return ranks, shape
    return (1 << (ranks.bit_length() - 1)) if name == "recursive_doubling" else ranks * 2, shape


@each_rule
def test_every_rank_ends_with_what_the_operation_promises(op: str, name: str) -> None:
    if op == "send_recv":
        pytest.skip("no collective")

    @settings(max_examples=40, deadline=None)
    @given(groups(op, name))
    def holds(group: tuple[int, dict[str, Any]]) -> None:
        ranks, shape = group
        plan = schedule(op, name, ranks, 960.0, **shape)
        root = shape.get("root", 0)
        if ranks > 1:
            assert promised(plan, run(plan, start(plan, root)), root)
        else:
            assert len(plan.rounds) == 0

    holds()


@each_rule
def test_messages_are_as_large_as_their_pieces(op: str, name: str) -> None:
    @settings(max_examples=25, deadline=None)
    @given(groups(op, name))
    def holds(group: tuple[int, dict[str, Any]]) -> None:
        plan = schedule(op, name, group[0], 960.0, **group[1])
        piece_bytes = 0.0 if op == "barrier" else 960.0 / plan.pieces
        for each, _, rows in steps(plan):
            assert each.size_bytes == pytest.approx(np.array([row.size for row in rows]) * piece_bytes)
            assert (each.sender != each.receiver).all()
            assert max(each.sender.max(), each.receiver.max()) < plan.ranks
            assert min(each.sender.min(), each.receiver.min()) >= (-plan.ranks if plan.network else 0)

    holds()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([*SCHEDULES["all_to_all"]]), st.integers(1, 4), st.integers(1, 5), st.integers(0, 9))
def test_an_all_to_all_follows_its_traffic_matrix(name: str, inner: int, blocks: int, seed: int) -> None:
    ranks = inner * blocks
    matrix = np.random.default_rng(seed).uniform(0, 100, (ranks, ranks))
    shape: dict[str, Any] = {"inner": inner} if name in TIERED else {}
    plan = schedule("all_to_all", name, ranks, float(matrix.sum(axis=1).max()), matrix=matrix, **shape)
    chunks = plan.pieces // ranks
    sent = np.zeros((ranks, ranks))
    for each, _, rows in steps(plan):
        parts = np.array([matrix.ravel()[row // chunks].sum() / chunks for row in rows])
        assert each.size_bytes == pytest.approx(parts)
        np.add.at(sent, (each.sender, each.receiver), each.size_bytes)
    if name in ("pairwise", "linear", "direct"):
        assert sent == pytest.approx(matrix * (1 - np.eye(ranks)))
    if name == "pxn" and ranks > 1:
        same = np.arange(ranks)
        off_rail = (same[:, None] % inner != same % inner) & (same[:, None] // inner != same // inner)
        assert not sent[off_rail].any()


def test_a_uniform_matrix_changes_nothing() -> None:
    for name in SCHEDULES["all_to_all"]:
        shape: dict[str, Any] = {"inner": 4} if name in TIERED else {}
        plain = schedule("all_to_all", name, 12, 960.0, **shape)
        same = schedule("all_to_all", name, 12, 960.0, matrix=np.full((12, 12), 80.0), **shape)
        for one, other in zip(plain.rounds, same.rounds, strict=True):
            assert one.size_bytes == pytest.approx(other.size_bytes)
            assert (one.sender == other.sender).all()
            assert (one.receiver == other.receiver).all()


# Known orders -------------------------------------------------------------------------------------------------------


def partners(plan: Schedule, rank: int) -> list[int]:
    """Whom a rank sends to, round after round."""
    return [int(each.receiver[each.sender == rank][0]) for each in plan.rounds for _ in range(each.repeat)]


def test_open_mpi_partners() -> None:
    # coll_base_alltoall.c, coll_base_allgather.c, coll_base_allreduce.c, coll_base_reduce_scatter.c; rank 3 of 8
    assert partners(schedule("all_to_all", "pairwise", 8, 8.0), 3) == [4, 5, 6, 7, 0, 1, 2]
    assert partners(schedule("all_to_all", "linear", 8, 8.0), 3) == [2, 1, 0, 7, 6, 5, 4]
    assert partners(schedule("all_to_all", "bruck", 8, 8.0), 3) == [4, 5, 7]
    assert partners(schedule("all_gather", "bruck", 8, 8.0), 3) == [2, 1, 7]
    assert partners(schedule("all_gather", "recursive_doubling", 8, 8.0), 3) == [2, 1, 7]
    assert partners(schedule("all_gather", "neighbor", 8, 8.0), 3) == [2, 4, 2, 4]
    assert partners(schedule("all_reduce", "ring", 8, 8.0), 3) == [4] * 14
    assert partners(schedule("all_reduce", "rabenseifner", 8, 8.0), 3) == [2, 1, 7, 7, 1, 2]
    assert partners(schedule("reduce_scatter", "recursive_halving", 8, 8.0), 3) == [7, 1, 2]
    halves = [float(each.size_bytes[0]) for each in schedule("reduce_scatter", "recursive_halving", 8, 8.0).rounds]
    assert halves == [4.0, 2.0, 1.0]


def test_nccl_trees_use_every_rank_once_as_an_inner_node() -> None:
    from collectives.schedules.trees import double_tree, heights

    for ranks in range(2, 65):
        trees = double_tree(ranks)
        inner = sum((np.bincount(tree[tree >= 0], minlength=ranks) > 0).astype(int) for tree in trees)
        assert (np.asarray(inner) <= 1).sum() >= ranks - 2
        assert all(np.bincount(tree[tree >= 0], minlength=ranks).max() <= 2 for tree in trees)
        assert all(heights(tree).max() <= (ranks - 1).bit_length() for tree in trees)


def test_pat_takes_the_far_steps_with_few_pieces() -> None:
    plan = schedule("all_gather", "pat", 16, 16.0)
    far = [(int(each.sender[0] - each.receiver[0]) % 16, float(each.size_bytes[0])) for each in plan.rounds]
    assert far == [(8, 1.0), (4, 2.0), (2, 4.0), (1, 8.0)]
    buffered = schedule("all_gather", "pat", 16, 16.0, aggregate=4)
    assert buffered.steps == 2 + 3
    assert max(each.size_bytes.max() for each in buffered.rounds) == 4.0


def test_swing_partners_lie_nearer_than_a_hypercubes() -> None:
    plan = schedule("reduce_scatter", "swing", 64, 64.0, shape=(64,))
    gaps = [int(min((each.sender - each.receiver) % 64, default=0)) for each in plan.rounds]
    distance = [int(np.minimum((r.sender - r.receiver) % 64, (r.receiver - r.sender) % 64).max()) for r in plan.rounds]
    assert len(gaps) == 6
    assert distance == [1, 1, 3, 5, 11, 21]


def test_a_single_ring_of_a_torus_uses_both_links_of_an_axis() -> None:
    plan = schedule("all_gather", "multi_bucket", 16, 16.0, shape=(4, 4))
    for each in plan.rounds:
        links = set(zip(each.sender.tolist(), each.receiver.tolist(), strict=True))
        assert len(links) == each.sender.size == 64  # all four links of all ranks, once each


# Size ---------------------------------------------------------------------------------------------------------------


def test_long_schedules_stay_small() -> None:
    ring = schedule("all_reduce", "ring", 4096, 4096.0)
    assert [(each.sender.size, each.repeat) for each in ring.rounds] == [(4096, 4095), (4096, 4095)]
    pairwise = schedule("all_to_all", "pairwise", 4096, 4096.0)
    assert len(pairwise.rounds) == pairwise.steps == 4095
    assert pairwise.rounds[-1].receiver[0] == 4095
    assert len(schedule("all_reduce", "recursive_doubling", 4096, 1.0).rounds) == 12
    assert len(schedule("all_reduce", "tree", 4096, 1e9).rounds) < 60
    assert len(schedule("all_reduce", "nvls", 512, 1e9, inner=8).rounds) < 60


# Errors -------------------------------------------------------------------------------------------------------------


def test_wrong_groups_and_names_say_what_to_do() -> None:
    with pytest.raises(SpecError, match="write one of all_reduce"):
        schedule("all_shuffle", "ring", 8, 1.0)
    with pytest.raises(SpecError, match="write one of ring"):
        schedule("all_reduce", "rings", 8, 1.0)
    with pytest.raises(SpecError, match="needs a power of two"):
        schedule("all_gather", "recursive_doubling", 6, 1.0)
    with pytest.raises(SpecError, match="whole blocks"):
        schedule("all_reduce", "hierarchical", 12, 1.0, inner=8)
    with pytest.raises(SpecError, match="product of `shape`"):
        schedule("all_reduce", "bucket", 12, 1.0, shape=(4, 4))
    with pytest.raises(SpecError, match="at least 1"):
        schedule("all_reduce", "ring", 0, 1.0)
    with pytest.raises(SpecError, match="give 8 by 8 bytes"):
        schedule("all_to_all", "pairwise", 8, 1.0, matrix=np.ones((4, 4)))
