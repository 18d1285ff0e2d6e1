"""Ray: the serial result bit for bit, whoever dies on the way: a worker, a node, the driver."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parallel.executors import DEADLY, Cell, drive
from parallel.strategy import Space
from parallel.sweeps.answer import sweep
from parallel.sweeps.evaluate import FAILED
from parallel.sweeps.found import Found
from parallel.sweeps.plan import Sweep
from parallel.sweeps.task import Bound, Task
from parallel.sweeps.units import Tasks, Unit, work

Same = Callable[[Found, Found], None]
SameCells = Callable[[dict[int, Cell], dict[int, Cell]], None]
CellsOf = Callable[[int], Sweep]
IN_PROC = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes in /proc")


def running() -> dict[int, int]:
    """Return the parent of every process that runs."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended meanwhile
            continue
        if state != "Z":
            parents[int(entry.parent.name)] = int(parent)
    return parents


def descendants() -> set[int]:
    """Processes started from this one, through any number of others, that still run."""
    parents, found = running(), {os.getpid()}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {os.getpid()}


def gone(processes: Callable[[], set[int]], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not processes()


@pytest.mark.ray
@IN_PROC
def test_ray_gives_the_serial_result_bit_for_bit_and_leaves_nothing_behind(
    same: Same, same_cells: SameCells, cells_of: CellsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells of all kinds in one start: whole ones, one that cannot be priced, one that no worker survives."""
    import ray

    monkeypatch.setattr("parallel.executors.ray.RETRIES", 1)  # every death is a worker to start again

    class Deadly(Tasks):
        """In a worker, one batch size ends the process: nothing can catch that."""

        def task(self, cell: int) -> Task:
            if os.getpid() != driver and cell == 3:
                from parallel.sweeps.task import PHASES  # the worker's own, not a copy that travels with this class

                phase = PHASES["decode"]

                def price(bound: Bound, cols: Any) -> Any:
                    if 32.0 in cols["batch"] and bound.task.serve.isl >= 3500:
                        os._exit(1)
                    return phase.price(bound, cols)

                PHASES["decode"] = replace(phase, price=price)
            return super().task(cell)

    before, driver = descendants(), os.getpid()
    asked = cells_of(4)
    listed = [asked.task(cell) for cell in range(3)]
    listed += [replace(listed[0], serve=replace(listed[0].serve, isl=3500)), replace(listed[0], phase="fine-tune")]
    powers, pp = (1, 2, 4, 8, 16, 32), tuple(range(1, 33))
    axes = {"batch": (8, 32), "used": (4, 8), "tp": powers, "ep": powers[:5], "pp": pp, "microbatches": (1, 2)}
    listed[3] = replace(listed[3], space=Space(tuple(axes.items())))  # two prefixes, of which one kills
    seen: list[int] = []
    found = drive(Deadly(tuple(listed)), "ray", lambda done, total: seen.append(done))
    alone = drive(Tasks(tuple(listed)))
    for cell in (0, 1, 2, 4):
        same_cells({0: found[cell]}, {0: alone[cell]})
    assert "no such phase" in str(found[4].error)
    assert seen == sorted(seen)
    hurt = found[3].found
    assert hurt.points == listed[3].space.size
    assert hurt.poisoned == ((hurt.points // 2, DEADLY),)
    assert hurt.rejected[FAILED] == hurt.points // 2
    living = work(Tasks((listed[3],)), Unit(0, 0, 1)).found
    same(replace(living, points=0, rejected={}), replace(hurt, points=0, rejected={}, poisoned=()))
    assert not ray.is_initialized()
    assert gone(lambda: descendants() - before)


def cores() -> int:
    import ray

    return int(ray.cluster_resources()["CPU"])  # type: ignore[no-untyped-call]


@pytest.mark.ray
def test_a_node_that_dies_in_the_middle_of_a_sweep_does_not_show(cells_of: CellsOf) -> None:
    import ray
    from ray.cluster_utils import Cluster

    asked = cells_of(120)
    expected = sweep(asked, "serial")
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 2}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": quick}
    )
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        cluster.wait_for_nodes()
        assert cores() == 3
        seen: list[int] = []

        def progress(done: int, total: int) -> None:
            seen.append(done)
            if len(seen) == 20:
                cluster.remove_node(nodes[0], allow_graceful=False)

        told = sweep(asked, "ray", progress)
        assert len(seen) == asked.cells
        assert cores() == 2
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
    assert {**told, "seconds": 0, "executor": ""} == {**expected, "seconds": 0, "executor": ""}


SWEEP = """
name: to be killed
model: mixtral-8x7b
phases: decode
cluster: {base: hgx-h100, accelerators: 16}
serve: {isl: [%s]}
strategy: {space: usual}
"""


CELLS = 160


def command(*args: str) -> list[str]:
    return [sys.executable, "-c", "from podscale.cli import main; raise SystemExit(main())", "sweep", *args]


@pytest.mark.ray
@IN_PROC
def test_a_driver_that_is_killed_is_resumed_to_the_serial_answer(tmp_path: Path) -> None:
    path, state = tmp_path / "sweep.yaml", tmp_path / "state"
    path.write_text(SWEEP % ", ".join(str(1024 + 8 * cell) for cell in range(CELLS)), encoding="utf-8")
    before = descendants()
    first = subprocess.Popen(  # noqa: S603  (our own program)
        command(str(path), "--executor", "ray", "--state", str(state), "--quiet"), cwd=Path.cwd(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline, lines = time.monotonic() + 60, 0
    while lines < 10 and time.monotonic() < deadline and first.poll() is None:
        lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in state.glob("*.jsonl"))
        time.sleep(0.005)
    started = descendants() - before
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait(10) == -signal.SIGKILL
    kept = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in state.glob("*.jsonl"))
    assert 10 <= kept < CELLS
    os.killpg(first.pid, signal.SIGKILL)  # Ray's agents outlive their driver by a minute
    assert gone(lambda: started & running().keys())
    answers = []
    for args in (("--resume", "--executor", "ray"), ("--executor", "serial")):
        done = subprocess.run(  # noqa: S603
            command(str(path), "--state", str(state), "--json", *args),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        answers.append({**json.loads(done.stdout), "seconds": 0, "executor": ""})
    assert answers[0] == answers[1]
    assert not list(state.glob("*.jsonl"))
