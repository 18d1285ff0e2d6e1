"""Groups under both orders against an explicit enumeration of rank numbers."""

from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clusters.build import Cluster, build
from clusters.spec import load, with_
from collectives.groups import members
from parallel.placement import (
    GROUPS,
    ORDERS,
    blocks,
    domain_size,
    fillings,
    group_members,
    members_of,
    world,
)
from parallel.strategy import Columns

FAR, NEAR = (ORDERS.index(order) for order in ("tp-cp-ep-dp-pp", "tp-cp-ep-pp-dp"))
Split = dict[str, int]


@lru_cache
def cluster(system: str = "hgx-h100", accelerators: int = 64, domain: int = 8) -> Cluster:
    return build(with_(load(system), accelerators=accelerators, domain=domain))


# --- enumeration --------------------------------------------------------------------------------------------------

#: What the members of a group share: dense coordinates (tp, cp, dp, pp), or the place `i` within the stage for experts.
SHARED: dict[str, Callable[[Split, Split], tuple[int, ...]]] = {
    "tp": lambda c, s: (c["cp"], c["dp"], c["pp"]),
    "cp": lambda c, s: (c["tp"], c["dp"], c["pp"]),
    "tp-cp": lambda c, s: (c["dp"], c["pp"]),
    "stage": lambda c, s: (c["pp"],),
    "pp": lambda c, s: (c["tp"], c["cp"], c["dp"]),
    "dp": lambda c, s: (c["tp"], c["pp"], c["i"] // shards(s)),
    "etp": lambda c, s: (c["i"] // s["etp"], c["pp"]),
    "ep": lambda c, s: (c["i"] % s["etp"], c["i"] // (s["etp"] * s["ep"]), c["pp"]),
    "edp": lambda c, s: (c["i"] % (s["etp"] * s["ep"]), c["pp"], c["i"] // shards(s)),
    "copies": lambda c, s: (c["i"] % shards(s), c["pp"]),
}


def shards(split: Split) -> int:
    """Ranks of a stage that hold one copy of what ZeRO shards."""
    return split["tp"] * split["cp"] * split["dp"] // split.get("replicate", 1)


def enumerate_groups(split: Split, name: str) -> list[list[int]]:
    """Number every rank along the order, fastest axis first, and collect those that share a group."""
    order = [axis for axis in ORDERS[split["order"]].split("-") if axis != "ep"]
    groups = defaultdict(list)
    slowest_first = [range(split[axis]) for axis in reversed(order)]
    for rank, place in enumerate(product(*slowest_first)):
        c = dict(zip(reversed(order), place, strict=True))
        c["i"] = c["tp"] + split["tp"] * (c["cp"] + split["cp"] * c["dp"])
        groups[SHARED[name](c, split)].append(rank)
    return list(groups.values())


def worst_members(groups: list[list[int]], block: int) -> int:
    """Members in the own block, for the worst placed rank of all groups."""
    return min(sum(other // block == rank // block for other in group) for group in groups for rank in group)


@st.composite
def splits(draw: st.DrawFn) -> Split:
    sizes = st.sampled_from([1, 2, 3, 4])
    split = {axis: draw(sizes) for axis in ("tp", "cp", "dp", "pp")}
    split["order"] = draw(st.sampled_from([FAR, NEAR]))
    stage = split["tp"] * split["cp"] * split["dp"]
    split["etp"] = draw(st.sampled_from([1, 2]))
    split["ep"] = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    experts = split["ep"] * split["etp"]
    assume(stage % experts == 0)
    shared = [n for n in (1, 2) if split["dp"] % n == 0 and stage // experts % n == 0]
    split["replicate"] = draw(st.sampled_from(shared))
    if split["order"] == NEAR:  # the rule "near pipelines fold onto the expert grid"
        assume(split["pp"] > 1)
        assume(experts in (1, split["tp"] * split["cp"]))
    return split


def size_and_stride(split: Split, name: str) -> tuple[int, int]:
    size, stride = GROUPS[name](Columns.of(**split))
    return int(size[0]), int(stride[0])


def has_one_stride(split: Split, name: str) -> bool:
    """Not where stages lie between the ranks of one pipeline's cp (or undivided experts) and the next replica's."""
    if split["order"] == FAR or split["dp"] == 1:
        return True
    between = {
        "dp": split["cp"],
        "stage": split["tp"] * split["cp"],
        "edp": split["tp"] * split["cp"] // (split["ep"] * split["etp"]),
    }
    return between.get(name, 1) == 1


@pytest.mark.parametrize("name", GROUPS)
@settings(max_examples=50, deadline=None)
@given(splits())
def test_groups_are_those_of_the_enumeration(name: str, split: Split) -> None:
    groups = enumerate_groups(split, name)
    size, stride = size_and_stride(split, name)
    assert {len(group) for group in groups} == {size}
    assert sorted(rank for group in groups for rank in group) == list(range(sum(map(len, groups))))
    if size > 1 and has_one_stride(split, name):
        assert {step for group in groups for step in np.diff(group)} == {stride}


@pytest.mark.parametrize("name", GROUPS)
@settings(max_examples=50, deadline=None)
@given(splits(), st.integers(1, 100))
def test_members_per_block_are_those_of_the_worst_placed_rank(name: str, split: Split, block: int) -> None:
    groups = enumerate_groups(split, name)
    ranks = sum(map(len, groups))
    block = min(block, ranks)
    found = members(*size_and_stride(split, name), (block, ranks))
    worst = worst_members(groups, block)
    assert found[1] == len(groups[0])
    pipeline = split["tp"] * split["cp"] * split["pp"]
    if has_one_stride(split, name) or block % pipeline == 0:
        assert found[0] == worst
    elif pipeline % block == 0:
        assert found[0] <= worst


def test_megatron_orders_by_hand() -> None:
    # tp 2, dp 2, pp 2 on 8 ranks. Far: stages {0 1 2 3} {4 5 6 7}. Near: pipelines {0 1 2 3} {4 5 6 7}.
    split = {"tp": 2, "cp": 1, "dp": 2, "pp": 2, "ep": 1, "etp": 1}
    assert enumerate_groups({**split, "order": FAR}, "pp") == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert enumerate_groups({**split, "order": NEAR}, "pp") == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert size_and_stride({**split, "order": FAR}, "pp") == (2, 4)
    assert size_and_stride({**split, "order": NEAR}, "pp") == (2, 2)
    assert size_and_stride({**split, "order": FAR}, "dp") == (2, 2)
    assert size_and_stride({**split, "order": NEAR}, "dp") == (2, 4)


def test_replicas_of_a_near_pipeline_with_context_parallelism_are_not_neighbours() -> None:
    # cp 2, pp 4, dp 4: ranks 0 1 | 8 9 | 16 17 | 24 25 of stage 0. A node of 8 holds two of the eight, not all.
    split = {"order": NEAR, "tp": 1, "cp": 2, "dp": 4, "pp": 4, "ep": 2, "etp": 1}
    assert enumerate_groups(split, "dp")[0] == [0, 1, 8, 9, 16, 17, 24, 25]
    assert members(*size_and_stride(split, "dp"), (8, 32)).tolist() == [2, 8]


# --- filling of domains -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "expected"),
    [(8, (8,)), (64, (64,)), (72, (64, 72)), (500, (384, 448, 480, 496, 500)), (576, (512, 576)), (1, (1,))],
)
def test_a_domain_runs_whole_or_as_round_numbers_that_keep_three_quarters(
    domain: int, expected: tuple[int, ...]
) -> None:
    built = cluster("gb200-nvl72", 2 * domain if domain > 1 else 16, domain)
    assert domain_size(built) == domain
    assert fillings(built) == expected


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 130))
def test_fillings_fit_keep_three_quarters_and_hold_the_whole(domain: int) -> None:
    found = fillings(build(with_(load("gb200-nvl72"), accelerators=2 * domain, domain=domain, scale_up={"layers": 1})))
    assert found[-1] == domain
    assert all(0.75 * domain <= way <= domain for way in found)
    largest = max(1 << bit for bit in range(8) if 1 << bit <= domain)
    assert largest in found or 4 * largest < 3 * domain


@pytest.mark.parametrize(
    ("domain", "used", "expected"),
    [
        (72, 72, (72, 576)),
        (72, 64, (64, 512)),
        (8, 8, (8, 96, 576)),  # twelve boxes to a unit of leaf switches
        (576, 576, (72, 576)),
        (576, 512, (64, 512)),  # 64 of each of the eight first-layer blocks
        (576, 500, (72, 500)),  # 500 does not divide over eight: one block after another
    ],
)
def test_blocks_hold_the_ranks_at_work(domain: int, used: int, expected: tuple[int, ...]) -> None:
    assert blocks(cluster("gb200-nvl72", 576, domain), used) == expected


def test_the_world_counts_ranks_at_work_in_whole_domains() -> None:
    built = cluster("gb200-nvl72", 600, 72)  # 8 racks, 24 accelerators left over
    assert world(built, [72.0, 64.0]).tolist() == [576, 512]
    assert world(cluster("gb200-nvl72", 16, 1), 1).tolist() == 16


def test_members_of_a_column_of_fillings_equal_those_one_by_one() -> None:
    built = cluster("gb200-nvl72", 576, 72)
    used, size = np.array([72.0, 64.0, 72.0, 64.0]), np.array([64.0, 64.0, 72.0, 512.0])
    together = members_of(built, used, size, 1.0)
    assert together.tolist() == [[8, 64, 72, 64], [64, 64, 72, 512]]
    for row in range(4):
        assert members_of(built, used[row : row + 1], size[row], 1.0)[:, 0].tolist() == together[:, row].tolist()


@pytest.mark.parametrize("name", GROUPS)
def test_group_members_are_the_members_of_size_and_stride(name: str) -> None:
    built = cluster()
    split = {"order": FAR, "tp": 2, "cp": 2, "dp": 4, "pp": 4, "ep": 4, "etp": 2}
    found = group_members(built, Columns.of(used=8, **split), name)
    size, stride = size_and_stride(split, name)
    assert found[:, 0].tolist() == members(size, stride, (8, 64)).tolist()
    assert found[0, 0] == worst_members(enumerate_groups(split, name), 8)
