"""Executors: who is chosen, how work is cut, and that Ray gives the serial result bit for bit."""

import itertools
import os
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from parallel import executors
from parallel.executors import EXECUTORS, RATE_PER_S, RAY_ABOVE_S, choose, run, serial
from parallel.executors import ranges as cut
from parallel.search import Found
from parallel.sweep import BLOCK, evaluate_range
from topo.errors import SpecError


def same(a: Found, b: Found) -> None:
    for item in fields(Found):
        left, right = getattr(a, item.name), getattr(b, item.name)
        assert np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right, item.name


@pytest.fixture
def task(bind):
    return bind("decode", "mixtral-8x7b", "hgx-h100", 16).task


def test_auto_takes_ray_only_where_it_pays():
    edge = int(RATE_PER_S * RAY_ABOVE_S)
    assert choose("auto", 1) == choose("auto", edge) == "serial"
    assert choose("auto", edge + 1) == "ray"


@pytest.mark.parametrize("name", EXECUTORS)
def test_a_named_executor_is_taken_whatever_the_size(name):
    assert choose(name, 1) == choose(name, 10**12) == name


def test_an_unknown_executor_is_refused_with_the_known_ones():
    with pytest.raises(SpecError, match="choose auto, serial, ray"):
        choose("dask", 1)


@pytest.mark.parametrize("total", [0, 1, cut.RANGE - 1, cut.RANGE, cut.RANGE + 1, 5 * cut.RANGE + 7])
def test_ranges_are_whole_blocks_that_cover_every_row_once(total):
    pieces = cut.ranges(total)
    assert [row for lo, hi in pieces for row in (lo, hi)] == sorted(row for piece in pieces for row in piece)
    assert sum(hi - lo for lo, hi in pieces) == total
    assert all(lo % BLOCK == 0 for lo, _ in pieces)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces))


def test_the_serial_executor_finds_what_one_range_finds(task, monkeypatch):
    whole = evaluate_range(task, 0, task.space.size)
    same(serial.run(task), whole)
    monkeypatch.setattr(cut, "RANGE", 500)
    same(serial.run(task), whole)


def test_progress_runs_to_the_end(task, monkeypatch):
    monkeypatch.setattr(cut, "RANGE", 500)
    seen: list[tuple[int, int]] = []
    run(task, "serial", lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (task.space.size, task.space.size)
    assert len(seen) > 3


def test_run_hands_the_task_to_the_chosen_executor(task, monkeypatch):
    asked = []
    monkeypatch.setitem(executors.EXECUTORS, "ray", lambda task, progress=None: asked.append(task) or Found(points=-1))
    assert run(task, "auto").points == task.space.size
    assert run(task, "ray").points == -1
    assert asked == [task]


def descendants() -> set[int]:
    """Processes started from this one, through any number of others, that still run."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended meanwhile
            continue
        if state != "Z":
            parents[int(entry.parent.name)] = int(parent)
    found = {os.getpid()}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {os.getpid()}


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes in /proc")
def test_ray_gives_the_serial_result_bit_for_bit_and_leaves_nothing_behind(task, monkeypatch):
    import ray

    monkeypatch.setattr(cut, "RANGE", 500)  # several pieces, more than the window holds
    before = descendants()
    seen: list[int] = []
    found = run(task, "ray", lambda done, total: seen.append(done))
    same(found, serial.run(task))
    assert sorted(seen) == seen
    assert seen[-1] == task.space.size
    assert len(seen) == len(cut.ranges(task.space.size)) > 4
    assert not ray.is_initialized()
    deadline = time.monotonic() + 10
    while descendants() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not descendants() - before
