"""Executors: who is chosen, how work is cut, stopped and taken up again, always to the same bits."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel import executors
from parallel.executors import DEADLY, EXECUTORS, RATE_PER_S, RAY_ABOVE_S, Cell, choose, drive, run, run_all
from parallel.executors.store import Store
from parallel.sweeps import evaluate as evaluating
from parallel.sweeps.answer import sweep
from parallel.sweeps.evaluate import FAILED
from parallel.sweeps.found import Found
from parallel.sweeps.plan import Sweep
from parallel.sweeps.task import Bound, Task
from parallel.sweeps.units import Done, Plan, Tasks, Unit, work
from topo.errors import InfeasibleError, SpecError

Same = Callable[[Found, Found], None]
SameCells = Callable[[dict[int, Cell], dict[int, Cell]], None]
CellsOf = Callable[[int], Sweep]


@pytest.fixture
def task(bind: Callable[..., Bound]) -> Task:
    return bind("decode", "mixtral-8x7b", "hgx-h100", 16).task


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Units of a few prefixes, so that a small space makes many."""
    from parallel.sweeps import cut

    monkeypatch.setattr(evaluating, "PART", 300)
    monkeypatch.setattr(cut, "TAIL", 50)
    evaluating._prepared.cache_clear()
    yield
    evaluating._prepared.cache_clear()


# --- who


def test_auto_takes_ray_only_where_it_pays() -> None:
    edge = int(RATE_PER_S * RAY_ABOVE_S)
    assert choose("auto", 1) == choose("auto", edge) == "serial"
    assert choose("auto", edge + 1) == "ray"


@pytest.mark.parametrize("name", EXECUTORS)
def test_a_named_executor_is_taken_whatever_the_size(name: str) -> None:
    assert choose(name, 1) == choose(name, 10**12) == name


def test_an_unknown_executor_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match="choose auto, serial, ray"):
        choose("dask", 1)


def test_run_hands_the_task_to_the_chosen_executor(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def other(plan: Plan, pending: deque[Unit], address: str | None = None) -> Iterator[tuple[Unit, Done | None]]:
        asked.append((plan, list(pending)))
        yield pending.popleft(), Done(Found(points=-1), 1)

    monkeypatch.setitem(executors.EXECUTORS, "ray", other)
    assert run(task, "auto").points == task.space.size
    assert run(task, "ray").points == -1
    assert asked == [(Tasks((task,)), [Unit(0)])]


# --- the same bits


def test_the_serial_executor_finds_what_one_unit_finds(same: Same, task: Task, small_units: None) -> None:
    plan, few = Tasks((task,)), work(Tasks((task,)), Unit(0))
    assert few.size * few.tail > evaluating.step(few.tail) * few.tail  # several units
    same(run(task, "serial"), work(plan, Unit(0, 0, few.size)).found)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_order_of_units_gives_the_serial_bits(
    same_cells: SameCells, cells_of: CellsOf, data: st.DataObject
) -> None:
    plan = cells_of(6)
    expected = drive(plan)

    def shuffled(plan: Plan, pending: deque[Unit], address: str | None = None) -> Iterator[tuple[Unit, Done | None]]:
        while pending:
            pending.rotate(data.draw(st.integers(0, 5)))
            unit = pending.popleft()
            yield unit, work(plan, unit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(executors.EXECUTORS, "ray", shuffled)
        same_cells(drive(plan, "ray"), expected)


def test_progress_runs_to_the_end_and_never_back(task: Task, small_units: None) -> None:
    seen: list[tuple[int, int]] = []
    run(task, "serial", lambda done, total: seen.append((done, total)))
    first = work(Tasks((task,)), Unit(0))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (first.size * first.tail, first.size * first.tail)
    assert len(seen) > 3


def test_progress_guesses_cells_that_nobody_has_looked_at(cells_of: CellsOf) -> None:
    seen: list[tuple[int, int]] = []
    drive(cells_of(5), "serial", lambda done, total: seen.append((done, total)))
    assert seen[0][1] == pytest.approx(5 * seen[0][0], rel=0.01)
    assert seen[-1][0] == seen[-1][1]


def test_a_sampled_plan_makes_progress_too(cells_of: CellsOf) -> None:
    seen: list[tuple[int, int]] = []
    drive(replace(cells_of(4), budget=16), "serial", lambda done, total: seen.append((done, total)))
    assert seen == [(16, 64), (32, 64), (48, 64), (64, 64)]


def test_several_tasks_come_back_in_their_order(same: Same, task: Task) -> None:
    other = replace(task, serve=replace(task.serve, tpot_s=0.01))
    found = run_all([task, other, task], "serial")
    same(found[0], found[2])
    assert found[1].best_value < found[0].best_value


def test_a_task_that_cannot_be_priced_stops_run_all(task: Task) -> None:
    with pytest.raises(SpecError, match="no such phase"):
        run_all([task, replace(task, phase="fine-tune")], "serial")


# --- stopped and taken up again


class Stopped(Exception):  # noqa: N818
    """Raised in place of a finger on Ctrl-C, and KeyboardInterrupt itself below."""


def stop_after(many: int, error: type[BaseException]) -> Callable[[int, int], None]:
    left = [many]

    def progress(done: int, total: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise error

    return progress


@pytest.mark.parametrize("stop", [1, 2, 7, 19])
def test_a_driver_that_is_stopped_goes_on_where_it_was(
    same_cells: SameCells, stop: int, task: Task, small_units: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Tasks((task, replace(task, serve=replace(task.serve, tpot_s=0.01))))
    expected = drive(plan)
    store = Store("f" * 64, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        drive(plan, "serial", stop_after(stop, KeyboardInterrupt), store)
    before = list(store.read())
    assert len(before) == stop
    done: list[Unit] = []

    def counted(plan: Plan, unit: Unit) -> Done:
        done.append(unit)
        return work(plan, unit)

    monkeypatch.setattr("parallel.executors.serial.work", counted)
    same_cells(drive(plan, "serial", None, Store("f" * 64, tmp_path)), expected)
    assert not {unit for unit, _ in before} & set(done)
    assert len(done) + len(before) == len({*done, *(unit for unit, _ in before)})


def test_any_units_may_be_finished_already(
    same_cells: SameCells, task: Task, small_units: None, tmp_path: Path
) -> None:
    """As many drivers leave it, out of order, some units merged or halved: only the gaps are done."""
    plan = Tasks((task,))
    expected = drive(plan)
    size = expected[0].size
    store = Store("a" * 64, tmp_path)
    for unit in (Unit(0), Unit(0, size // 2, size // 2 + 1), Unit(0, size - 3, size - 1)):
        store.add(unit, work(plan, unit))
    same_cells(drive(plan, "serial", None, store), expected)


def test_a_stopped_sweep_that_is_resumed_gives_the_same_document(cells_of: CellsOf, tmp_path: Path) -> None:
    asked = cells_of(9)
    whole = sweep(asked, "serial")
    store = Store(asked.fingerprint, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sweep(asked, "serial", stop_after(4, KeyboardInterrupt), store)
    assert store.path.exists()
    seen: list[int] = []
    again = sweep(asked, "serial", lambda done, total: seen.append(done), store)
    assert len(seen) == 5
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}
    assert not store.path.exists()  # finished: nothing to go on from


def test_a_line_that_was_cut_short_is_done_again(same_cells: SameCells, cells_of: CellsOf, tmp_path: Path) -> None:
    asked = cells_of(5)
    expected, store = drive(asked), Store(asked.fingerprint, tmp_path)
    with pytest.raises(Stopped):
        drive(asked, "serial", stop_after(3, Stopped), store)
    text = store.path.read_text(encoding="utf-8")
    for cut in (1, 30, len(text.splitlines()[-1])):
        store.path.write_text(text[:-cut], encoding="utf-8")
        assert len(list(store.read())) in (2, 3)
        seen: list[int] = []
        same_cells(drive(asked, "serial", lambda done, total, seen=seen: seen.append(done), store), expected)  # type: ignore[misc]
        assert len(seen) in (2, 3)
        assert len(list(store.read())) == 5


def test_a_state_that_was_stopped_before_its_first_line_is_fresh(tmp_path: Path) -> None:
    store = Store("b" * 64, tmp_path)
    store.path.touch()
    assert list(store.read()) == []
    store.add(Unit(0), Done(Found(points=3), 1))
    assert [unit for unit, _ in store.read()] == [Unit(0)]


def test_the_state_of_another_plan_is_refused(tmp_path: Path) -> None:
    mine, other = Store("c" * 16 + "1", tmp_path), Store("c" * 16 + "2", tmp_path)
    assert mine.path == other.path
    mine.add(Unit(0), Done(Found(points=3), 1))
    with pytest.raises(SpecError, match="another sweep"):
        list(other.read())
    other.path.write_text("no json at all\n", encoding="utf-8")
    with pytest.raises(SpecError, match="leave out --resume"):
        list(other.read())


def test_what_is_kept_of_a_unit_comes_back_bit_for_bit(same: Same, task: Task, tmp_path: Path) -> None:
    store, done = Store("d" * 64, tmp_path), work(Tasks((task,)), Unit(0))
    store.add(Unit(0), done)
    ((unit, kept),) = store.read()
    assert (unit, kept.size, kept.tail) == (Unit(0), done.size, done.tail)
    same(kept.found, done.found)


def test_a_cell_that_cannot_be_priced_is_tried_again(tmp_path: Path) -> None:
    store = Store("e" * 64, tmp_path)
    store.add(Unit(0), Done(error=InfeasibleError("it", "a limit", "too much")))
    assert list(store.read()) == []


# --- units that kill their worker, without a worker


def killing(bad: Callable[[Unit], bool]) -> Callable[..., Iterator[tuple[Unit, Done | None]]]:
    """An executor some of whose units come back as dead."""

    def made(plan: Plan, pending: deque[Unit], address: str | None = None) -> Iterator[tuple[Unit, Done | None]]:
        while pending:
            unit = pending.popleft()
            yield unit, None if bad(unit) else work(plan, unit)

    return made


def first_of(unit: Unit, size: int, many: int) -> range:
    return range(unit.lo, min(unit.hi or many, size))


@pytest.mark.parametrize("place", [0, 5, -1])
def test_a_prefix_that_kills_every_worker_is_found_by_halving(
    place: int, task: Task, small_units: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Tasks((task,))
    whole = drive(plan)[0]
    deadly, many = place % whole.size, evaluating.step(whole.tail)
    assert many > 1
    monkeypatch.setitem(executors.EXECUTORS, "ray", killing(lambda unit: deadly in first_of(unit, whole.size, many)))
    found = drive(plan, "ray")[0]
    assert found.error is None
    assert found.found.points == whole.found.points == task.space.size
    rest = evaluating.prepare(task)[1]
    assert found.found.poisoned == ((int(rest.heads[deadly]) * rest.tail, DEADLY),)
    assert found.found.rejected[FAILED] == rest.tail
    assert (found.done, found.size) == (whole.done, whole.size)
    lost = work(plan, Unit(0, deadly, deadly + 1)).found
    assert found.found.feasible == whole.found.feasible - (lost.feasible)


def test_a_cell_that_kills_whatever_prices_it_is_given_up_and_the_others_are_not(
    same: Same, task: Task, small_units: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Tasks((task, task, task))
    monkeypatch.setitem(executors.EXECUTORS, "ray", killing(lambda unit: unit.cell == 1))
    cells = drive(plan, "ray")
    same(cells[0].found, cells[2].found)
    assert "killed every worker" in str(cells[1].error)
    assert cells[0].error is None


def test_a_sampled_cell_that_kills_its_worker_is_given_up_at_once(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Tasks((task, task), budget=50)
    monkeypatch.setitem(executors.EXECUTORS, "ray", killing(lambda unit: unit.cell == 1))
    cells = drive(plan, "ray")
    assert "killed every worker" in str(cells[1].error)
    assert cells[1].found.points == 0
    assert cells[0].found.feasible > 0
