"""Sums taken in the switches: NVLS inside a block, SHARP (CollNet) between blocks.

A negative rank -1-o stands for the adding switch that works for rank o (`Round`). Sources: NVIDIA, NVLink SHARP and
NCCL 2.17's notes; NCCL `src/device/all_reduce.h` (NVLS and NVLSTree; CollNet) and issues 1455 and 1506.
"""

from dataclasses import replace

import numpy as np

from collectives.schedules.rings import Bucket, gathered
from collectives.schedules.rounds import (
    CHUNK_BYTES,
    IntArray,
    Plan,
    Round,
    Stages,
    backwards,
    chunks_of,
    pipelined,
    stage,
)
from collectives.schedules.trees import depths, double_tree, down, heights, up


def nvls(ranks: int, size_bytes: float, inner: int = 0, chunk_bytes: float = CHUNK_BYTES) -> Plan:
    """Return the all-reduce whose blocks of `inner` ranks (all, if not given) add in their switches.

    Each rank of a block owns a share. All send it to the switch, which adds and gives the sum to the owner; the owner
    sends the sum back, and the switch copies it to all: S + S/inner per rank and direction, in chunks. Between blocks
    the owners of a share add it over two trees (NVLSTree).

    >>> plan = nvls(4, 8.0)
    >>> [float(each.size_bytes[each.sender == 1].sum()) for each in plan.rounds]  # rank 1 sends all, then its share
    [8.0, 0.0, 2.0, 0.0]
    """
    inner = inner or ranks
    blocks = ranks // inner
    trees = double_tree(blocks) if blocks > 1 else (np.array([-1]),)
    chunks = chunks_of(size_bytes / (inner * len(trees)), chunk_bytes)
    piece_bytes = size_bytes / (inner * len(trees) * chunks)
    stages: list[Stages] = []
    for number, parent in enumerate(trees):
        top, depth = int(heights(parent).max()), depths(parent)
        for place in range(inner):
            owners = np.arange(place, ranks, inner)
            part = place * len(trees) + number
            stages += [
                *_through_switch(owners, inner, piece_bytes, part, depth + top + 2),
                up(parent, owners, piece_bytes, part, 2),
                down(parent, owners, piece_bytes, part, 2 + top),
            ]
    return Plan(pipelined(stages, chunks), inner * len(trees) * chunks, network="reduction")


def _through_switch(owners: IntArray, inner: int, piece_bytes: float, part: int, back: IntArray) -> list[Stages]:
    """Return the four messages by which the blocks of some owners add a part, and by which they get the sum back."""
    block = (owners[:, None] // inner * inner + np.arange(inner)).ravel()
    switch = np.repeat(-1 - owners, inner)
    whole = [np.array([part])]
    return [
        stage(block, switch, piece_bytes, 0, lambda: whole * block.size, adds=True),
        stage(-1 - owners, owners, piece_bytes, 1, lambda: whole * owners.size),
        stage(owners, -1 - owners, piece_bytes, back, lambda: whole * owners.size),
        stage(switch, block, piece_bytes, np.repeat(back, inner) + 1, lambda: whole * block.size),
    ]


def sharp(ranks: int, size_bytes: float, inner: int = 1, chunk_bytes: float = CHUNK_BYTES) -> Plan:
    """Return the all-reduce with a reduce-scatter inside blocks of `inner`, a sum in the network, and an all-gather.

    The ranks at one place of their blocks share a tree of switches (a rail): each sends its share up and gets the sum.

    >>> [float(each.size_bytes[0]) for each in sharp(4, 8.0, 2).rounds]
    [4.0, 4.0, 4.0, 4.0]
    """
    chunks = chunks_of(size_bytes / inner, chunk_bytes)
    rank = np.arange(ranks)
    place = rank % inner
    parts = [np.array([each]) for each in place]
    share_bytes = size_bytes / (inner * chunks)
    network = pipelined(
        [
            stage(rank, -1 - place, share_bytes, 0, lambda: parts, adds=True),
            stage(-1 - place, rank, share_bytes, 1, lambda: parts),
        ],
        chunks,
    )
    scatter = backwards(_inside(ranks, inner, size_bytes, chunks, -1))
    gather = _inside(ranks, inner, size_bytes, chunks, 1)
    return Plan((*scatter, *network, *gather), inner * chunks, network="reduction")


def _inside(ranks: int, inner: int, size_bytes: float, chunks: int, way: int) -> tuple[Round, ...]:
    """Return the all-gather of S round a ring inside each block, its shares numbered by place and cut into chunks."""
    blocks = ranks // inner
    rounds = gathered((inner, blocks), size_bytes * blocks, [Bucket((0,), way)])

    def cut(each: Round) -> Round:
        chunk = np.arange(chunks)
        rows = each.pieces
        return replace(each, pieces=rows and (lambda turn: [row % inner * chunks + chunk for row in rows(turn)]))

    return tuple(cut(each) for each in rounds)
