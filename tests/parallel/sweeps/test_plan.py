"""A sweep's cells: what the file says, one after another; a cell that cannot be is told so and stops nothing."""

import itertools
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from clusters.build import build
from clusters.spec import load, with_
from parallel.executors import drive
from parallel.io import read_model
from parallel.sweeps.answer import document
from parallel.sweeps.plan import FIGURES, Sweep, vary_faults, works
from parallel.sweeps.spaces import SPACES, all_serve, all_train, divisors, narrowed, space_of
from parallel.sweeps.task import Ask, Bound, Task
from parallel.sweeps.units import Done, Unit, work
from parallel.workload import ServeWorkload, TrainWorkload
from topo.errors import Fault, InfeasibleError, SpecError

FEW = (("serve", (("tp", (1.0, 2.0)), ("pp", (1.0,)), ("batch", (1.0, 8.0)))),
       ("train", (("tp", (1.0, 2.0)), ("pp", (1.0,)), ("vpp", (1.0,)), ("micro_batch", (1.0,)), ("cp", (1.0,)))))  # fmt: skip


def sweep_of(**changes: Any) -> Sweep:
    given = {
        "name": "test",
        "models": (read_model("llama-3.1-8b"), read_model("qwen3-32b")),
        "clusters": (with_(load("hgx-h100"), accelerators=16), with_(load("gb200-nvl72"), domain=8)),
        "vary": (("accelerators", (16, 144)), ("scale_out.oversubscription", (1, 2, 4))),
        "works": works(("train", "decode"), {"sequence": (2048, 4096), "global_batch": 64}, {"isl": (1024, 2048)}),
        "strategies": FEW,
        "space": "usual",
        "group": ("model", "phase"),
    }
    return Sweep(**(given | changes))


def test_cells_are_every_combination_clusters_slowest_workloads_fastest() -> None:
    asked = sweep_of()
    assert asked.shape == (2, 2, 3, 2, 4)
    assert asked.cells == 96
    said = [asked.settings(cell) for cell in range(asked.cells)]
    names = ("cluster", "accelerators", "scale_out.oversubscription", "model")
    first = ("hgx-h100", "gb200-nvl72"), (16, 144), (1, 2, 4), ("llama-3.1-8b", "qwen3-32b"), range(4)
    assert [tuple(row[name] for name in names) for row in said] == [row[:4] for row in itertools.product(*first)]
    assert [(row["phase"], row.get("sequence"), row.get("isl")) for row in said[:4]] == [
        ("train", 2048, None), ("train", 4096, None), ("decode", None, 1024), ("decode", None, 2048)]  # fmt: skip


@pytest.mark.parametrize("cell", [0, 5, 17, 50, 95])
def test_a_cell_decodes_to_the_task_that_its_settings_say(cell: int) -> None:
    asked = sweep_of()
    task, said = asked.task(cell), asked.settings(cell)
    assert task.phase == said["phase"]
    assert task.model.name == said["model"]
    assert task.cluster.name == said["cluster"]
    assert task.cluster.accelerators == said["accelerators"]
    assert build(task.cluster).spec == with_(
        next(spec for spec in asked.clusters if spec.name == said["cluster"]),
        accelerators=said["accelerators"], **{"scale_out.oversubscription": said["scale_out.oversubscription"]},
    )  # fmt: skip
    if task.phase == "train":
        assert (task.train.sequence, task.train.global_batch) == (said["sequence"], 64)
    else:
        assert task.serve.isl == said["isl"]
    assert dict(task.space.axes)["tp"] == (1.0, 2.0)
    assert task.ask == asked.ask


def test_a_value_may_be_a_whole_section_of_the_cluster() -> None:
    sections = ({"nic": "400Gb/s"}, {"nic": "800Gb/s", "oversubscription": 2})
    asked = sweep_of(clusters=(load("hgx-h100"),), vary=(("scale_out", sections),))
    specs = [asked.cluster(cell) for cell in range(0, asked.cells, 8)]
    assert [spec.scale_out.oversubscription for spec in specs] == [1.0, 2.0]
    assert [spec.scale_out.nic_Bps for spec in specs] == [50e9, 100e9]


def test_a_plan_is_as_small_as_its_file_and_travels() -> None:
    asked = sweep_of(vary=(("accelerators", tuple(range(8, 80008, 8))), ("scale_out.oversubscription", (1, 2, 4))))
    assert asked.cells == 2 * 10_000 * 3 * 2 * 4
    assert len(pickle.dumps(asked)) < 150_000
    assert pickle.loads(pickle.dumps(asked)) == asked  # noqa: S301  (our own bytes)
    assert pickle.loads(pickle.dumps(asked)).fingerprint == asked.fingerprint  # noqa: S301


CHANGES: list[tuple[str, Any]] = [
    ("models", (read_model("llama-3.1-8b"),)),
    ("clusters", (with_(load("hgx-h100"), accelerators=24), load("gb200-nvl72"))),
    ("vary", (("accelerators", (16, 144)), ("scale_out.oversubscription", (1, 2, 8)))),
    ("works", works(("train", "decode"), {"sequence": (2048, 4096)}, {"isl": (1024, 2048)})),
    ("strategies", FEW[:1]),
    ("space", "all"),
    ("ask", Ask(front=("memory_bytes",))),
    ("ask", Ask(most=2)),
    ("ask", Ask(rank="step_time_s")),
    ("ask", Ask(histogram=True)),
    ("ask", Ask(limited=False, limits=(("memory_bytes", 1e9),))),
    ("limits", (("power_W", 1e6),)),
    ("budget", 7),
]


def test_everything_that_changes_the_answer_changes_the_fingerprint() -> None:
    plain = sweep_of()
    prints = [plain.fingerprint, *(replace(plain, **{name: value}).fingerprint for name, value in CHANGES)]
    assert len(set(prints)) == len(prints)


def test_what_only_names_a_sweep_does_not_change_its_fingerprint() -> None:
    asked = sweep_of()
    for change in ({"name": "other"}, {"file": "elsewhere.yaml"}, {"group": ("model",)}):
        assert replace(asked, **change).fingerprint == asked.fingerprint


def test_a_cluster_that_cannot_be_wired_is_a_cell_with_its_reason() -> None:
    levels = ("scale_out.levels", (1, 2))
    asked = sweep_of(
        clusters=(with_(load("hgx-h100"), accelerators=4096),), vary=(levels,), models=sweep_of().models[:1]
    )
    told = document(asked, drive(asked))
    bad, good = told["cells"][:4], told["cells"][4:]
    assert all("ports" in line["infeasible"] and line["points"] == 0 for line in bad)
    assert all(line["feasible"] > 0 for line in good)
    assert {row["settings"]["scale_out.levels"] for row in told["best"]} == {2}


@pytest.mark.parametrize("name", FIGURES)
def test_a_cluster_beyond_a_limit_of_its_own_is_a_cell_with_its_reason(name: str) -> None:
    small, large = (build(with_(load("hgx-h100"), accelerators=many)) for many in (16, 144))
    figure = FIGURES[name]
    assert figure.value(small) < figure.value(large)
    asked = sweep_of(clusters=(load("hgx-h100"),), models=sweep_of().models[:1], limits=((name, figure.value(small)),))
    told = document(asked, drive(asked))
    for line in told["cells"]:
        if line["accelerators"] == 144:
            assert f"a limit of {figure.value(small):,.6g}" in line["infeasible"]
        elif line["scale_out.oversubscription"] == 1:
            assert line["feasible"] > 0
    with pytest.raises(InfeasibleError, match="cannot be met"):
        figure.check(large, figure.value(small))


def test_a_figure_that_is_not_public_breaks_its_limit() -> None:
    unknown = replace(FIGURES["price_usd"], value=lambda cluster: float("nan"))
    with pytest.raises(InfeasibleError, match="public for none of its parts"):
        unknown.check(build(load("hgx-h100")), 1e12)


@pytest.mark.parametrize(
    "error", [SpecError([Fault("a", 1, "is wrong", "mend it")]), InfeasibleError("it", "a limit", "too much", "less")]
)
def test_why_a_cell_cannot_be_priced_travels_between_processes(error: SpecError | InfeasibleError) -> None:
    back = pickle.loads(pickle.dumps(Done(error=error))).error  # noqa: S301  (our own bytes)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_a_unit_of_a_cell_that_cannot_be_tells_why() -> None:
    asked = sweep_of(limits=(("power_W", 1.0),))
    done = work(asked, Unit(0))
    assert isinstance(done.error, InfeasibleError)
    assert (done.found.points, done.size) == (0, 0)


def test_only_a_field_that_no_value_makes_a_cluster_of_is_a_fault() -> None:
    assert vary_faults(sweep_of(vary=(("accelerators", (-1, 16)),))) == []
    found = vary_faults(sweep_of(vary=(("acelerators", (16,)), ("domain", ("wide",))), file="x.yaml"))
    assert {fault.field for fault in found} == {"vary.acelerators", "vary.domain"}
    assert {fault.file for fault in found} == {"x.yaml"}
    assert "did you mean accelerators" in found[0].remedy


# --- spaces


def test_axes_are_narrowed_by_numbers_and_by_names() -> None:
    space = all_train(build(load("hgx-h100")), read_model("mixtral-8x7b"))
    few = narrowed(space, {"tp": (1, 2), "recompute": ("full",), "ranks_per_domain": (8,), "dp": (4,)})
    axes = dict(few.axes)
    assert axes["tp"] == (1.0, 2.0)
    assert axes["recompute"] == (2.0,)
    assert axes["used"] == (8.0,)
    assert few.axes[0] == ("dp", (4.0,))
    assert [name for name, _ in few.axes[1:]] == [name for name, _ in space.axes]


def test_an_axis_that_is_misspelt_and_a_name_that_is_not_known_come_in_one_error() -> None:
    space = all_serve(build(load("hgx-h100")), read_model("mixtral-8x7b"), "decode")
    with pytest.raises(SpecError) as caught:
        narrowed(space, {"batchs": (1,), "tp": ("two",), "colour": (1,)}, "strategy.serve", "f.yaml")
    said = str(caught.value)
    assert len(caught.value.faults) == 3
    for words in ("did you mean batch", "write a number", "choose from", "f.yaml: strategy.serve.colour"):
        assert words in said


def test_a_narrowed_replica_count_is_kept(whole: Callable[[Task], Any]) -> None:
    spec, model = with_(load("hgx-h100"), accelerators=16), read_model("llama-3.1-8b")
    space = narrowed(space_of("train", build(spec), model), {"dp": (2, 4)})
    found = whole(Task("train", model, spec, TrainWorkload(global_batch=64), ServeWorkload(), space))
    bound = Bound.of(Task("train", model, spec, TrainWorkload(global_batch=64), ServeWorkload(), space))
    assert found.feasible > 0
    assert set(bound.at(found.front)["dp"]) <= {2.0, 4.0}


@pytest.mark.parametrize("phase", ["train", "prefill", "decode"])
@pytest.mark.parametrize("name", SPACES)
def test_spaces_hold_a_column_for_all_that_a_phase_reads(phase: str, name: str) -> None:
    spec, model = load("hgx-h100"), read_model("mixtral-8x7b")
    space = space_of(phase, build(spec), model, ("bf16", "fp8"), name)
    bound = Bound.of(Task(phase, model, spec, TrainWorkload(), ServeWorkload(), space))
    assert {"precision", "used", "tp", "ep", "pp"} <= set(bound.at(bound.task.space.decode(0, 1)["tp"].astype(int)))
    with pytest.raises(SpecError, match="choose from all, usual"):
        space_of(phase, build(spec), model, (), "everything")


def test_the_whole_space_holds_the_usual_one() -> None:
    cluster, model = build(with_(load("hgx-h100"), accelerators=64)), read_model("mixtral-8x7b")
    for phase in ("train", "decode", "prefill"):
        every, usual = (dict(space_of(phase, cluster, model, (), name).axes) for name in ("all", "usual"))
        for axis, values in usual.items():
            beyond = set(values) - set(every[axis])
            assert all(model.layers[0].attention.heads % value or value > 8 for value in beyond), axis
    assert divisors(12) == (1, 2, 3, 4, 6, 12)


def test_json_of_the_settings_is_plain() -> None:
    asked = sweep_of()
    assert json.loads(json.dumps(asked.settings(7))) == asked.settings(7)


def test_a_limit_on_switch_ports_counts_those_in_use() -> None:
    """One NVL72 rack: 18 NVLink switches of 72 ports."""
    cluster = build(load("gb200-nvl72"))
    FIGURES["ports"].check(cluster, 18 * 72)
    with pytest.raises(InfeasibleError, match="1,296 switch ports"):
        FIGURES["ports"].check(cluster, 18 * 72 - 1)
