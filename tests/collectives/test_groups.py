"""Members per tier: hand values, limits, and an oracle that enumerates every rank."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.groups import members
from topo.errors import SpecError


def block_of(rank: int, blocks: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Name the rank's block on each tier, innermost first: the outermost holds all, the others restart inside it."""
    names: list[tuple[int, ...]] = [()]
    offset = rank
    for block in reversed(blocks[:-1]):
        names.append((*names[-1], offset // block))
        offset %= block
    return tuple(reversed(names))


def enumerated(size: int, stride: int, world: int, blocks: tuple[int, ...]) -> list[int]:
    """Count, for every rank of every group, the members in its own block; return the fewest per tier."""
    tile = size * stride
    worst = [size] * len(blocks)
    for base in range(0, max(1, world // tile) * tile, tile):
        for lane in range(stride):
            names = [block_of(base + lane + i * stride, blocks) for i in range(size)]
            for tier in range(len(blocks)):
                mine = [name[tier] for name in names]
                worst[tier] = min(worst[tier], *(mine.count(name) for name in mine))
    return worst


@pytest.mark.parametrize(
    ("size", "stride", "blocks", "expected"),
    [
        (8, 1, (8, 64), [8, 8]),
        (16, 1, (8, 64), [8, 16]),
        (4, 8, (8, 64), [1, 4]),
        (4, 2, (8, 64), [4, 4]),
        (8, 2, (8, 64), [4, 8]),
        (64, 1, (72, 720), [8, 64]),
        (64, 1, (64, 720), [64, 64]),
        (576, 1, (72, 1152), [72, 576]),
        (72, 4, (72, 576), [18, 72]),
        (1, 1, (8, 64), [1, 1]),
        (5, 1, (1, 25), [1, 5]),
    ],
)
def test_hand_values(size: int, stride: int, blocks: tuple[int, ...], expected: list[int]) -> None:
    assert members(size, stride, blocks).tolist() == expected


def test_only_ranks_in_use_count() -> None:
    assert members(64, 1, (72, 720), world=64).tolist() == [64, 64]
    assert members(64, 1, (72, 720), world=128).tolist() == [8, 64]


def test_a_group_larger_than_the_world_is_still_one_group() -> None:
    assert members(16, 1, (8, 8)).tolist() == [8, 16]


nests = st.lists(st.integers(1, 6), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), nests, st.integers(0, 5), st.integers(1, 150))
def test_members_equal_enumerated_ranks(size: int, stride: int, steps: list[int], odd: int, world: int) -> None:
    blocks = [1]
    for step in steps:
        blocks.append(blocks[-1] * step + odd)  # odd > 0: blocks that do not divide
    tiers = (*blocks[1:], max(blocks[-1], world))
    assert members(size, stride, tiers, world).tolist() == enumerated(size, stride, world, tiers)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 10), st.integers(1, 12), st.integers(1, 8), st.integers(2, 5))
def test_scaling_stride_and_blocks_changes_nothing(size: int, stride: int, inner: int, ratio: int, scale: int) -> None:
    blocks = (inner, inner * ratio, inner * ratio * 40)
    scaled = tuple(scale * block for block in blocks)
    assert members(size, stride, blocks).tolist() == members(size, stride * scale, scaled).tolist()


def test_columns_equal_scalars_and_never_decrease_outward() -> None:
    generator = np.random.default_rng(1)
    size, stride = generator.integers(1, 100, 300), generator.integers(1, 20, 300)
    blocks = (9, 72, 216, 4000)
    table = members(size, stride, blocks)
    assert table.shape == (4, 300)
    assert table.dtype == np.float64
    assert (np.diff(table, axis=0) >= 0).all()
    assert (table[-1] == size).all()
    for row in range(0, 300, 17):
        assert members(size[row], stride[row], blocks).tolist() == table[:, row].tolist()


def test_shapes_broadcast() -> None:
    assert members([[1], [2]], [1, 2, 4], (8, 64)).shape == (2, 2, 3)
    assert members([], 1, (8, 64)).shape == (2, 0)


def test_huge_columns_do_not_overflow_the_key() -> None:
    big = 2**22
    assert members([2, big], [big, 1], (8, 2**44), world=[2**44, 2**44]).tolist() == [[1, 8], [2, big]]


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        members([0, 2], -1, (8, 64))
    assert [fault.field for fault in caught.value.faults] == ["size", "stride"]
    with pytest.raises(SpecError) as caught:
        members(2, 1, (0, 8, 4))
    assert [fault.field for fault in caught.value.faults] == ["blocks[0]", "blocks[2]"]
    with pytest.raises(SpecError, match="empty"):
        members(2, 1, ())
