"""Constants from a log: those that a log was made of come back, what it cannot tell is held, and a file of them rules."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clusters.build import Cluster, build, path
from clusters.calibration.link_fits import nvlink_hop
from clusters.calibration.nccl_log import Log, Point, bus_factor, parse
from clusters.calibration.own_links import (
    Rows,
    calibrate,
    calibrate_file,
    cluster_of,
    members_of,
    outermost,
)
from clusters.measurements import read_csv
from clusters.spec import load
from clusters.spec import parse as parse_spec
from clusters.tunings import CONSTANTS, collective_s, lookup, table, tuning
from collectives.path import LinkModel
from topo.errors import SpecError

FILES = Path(__file__).parent / "nccl"
SIZES = [2**k for k in range(10, 34)]
MINE = {"base_s": 9e-6, "step_s": 8e-7, "efficiency": 0.62, "ramp_s": 3e-5}
TESTS = {"all_reduce": "all_reduce_perf", "all_gather": "all_gather_perf", "all_to_all": "alltoall_perf"}


def point(
    op: str = "all_reduce",
    system: str = "h100-sxm",
    ranks: int = 8,
    nodes: int = 1,
    size: float = 2.0**20,
    seconds: float = 1e-3,
) -> Point:
    return Point(1, op, "nccl", system, ranks, nodes, size, seconds)


def printed(value: float, width: int) -> str:
    """Six or seven places, as nccl-tests prints its figures."""
    digits = len(str(int(value)))
    return f"{value:{width}.{2 if digits < width - 3 else 1 if digits < width - 2 else 0}f}"


def text_of(
    op: str,
    ranks: int,
    nodes: int,
    sizes: Sequence[int],
    models: Mapping[tuple[str, str, str], LinkModel],
    gpu: str = "NVIDIA H100 80GB HBM3",
    given: Cluster | None = None,
) -> str:
    """What nccl-tests would print if every collective took what the model says."""
    points = tuple(point(op, "h100-sxm", ranks, nodes, float(size)) for size in sizes)
    clusters = tuple(cluster_of(each, given) for each in points)
    seconds = Rows(("", op, "nccl"), points, clusters).price(models)
    lines = [f"# Collective test starting: {TESTS[op]}", "# nThread 1 nGpus 1 minBytes 8 maxBytes 8 step: 2(factor)"]
    lines += [
        f"#  Rank {i:2d} Group  0 Pid   2200 on     node-{i * nodes // ranks} device {i:2d} [0000:1b:00] {gpu}"
        for i in range(ranks)
    ]
    lines.append("#       size         count      type   redop    root     time   algbw   busbw  #wrong")
    for size, time in zip(sizes, seconds * 1e6, strict=True):
        algbw = size / time / 1e3
        figures = f"{printed(time, 7)}  {printed(algbw, 6)}  {printed(algbw * bus_factor(op, ranks), 6)}"
        lines.append(f"{size:12d}  {size // 4:12d}     float    none      -1  {figures}       0")
    return "\n".join(lines) + "\n"


def shaped(where: tuple[str, str, str], values: Mapping[str, float]) -> LinkModel:
    """A model with the weight of a copied piece that the shipped constants have there."""
    return LinkModel(**values, own_piece=tuning(*where).model.own_piece)


def own(more: Mapping[str, Any]) -> str:
    """A tunings file with one entry."""
    return yaml.safe_dump({"constants": {"nvlink4": {"all_to_all": {"nccl": {**MINE, **more}}}}})


def near(entry: Mapping[str, Any], wanted: Mapping[str, float], tolerance: float = 0.05) -> bool:
    return all(entry[key] == pytest.approx(wanted[key], rel=tolerance) for key in CONSTANTS)


# --- the fit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", TESTS)
def test_the_constants_that_a_log_was_made_of_come_back(op: str) -> None:
    where = ("nvlink4", op, "nccl")
    log = parse("".join(text_of(op, ranks, 1, SIZES, {where: shaped(where, MINE)}) for ranks in (2, 4, 8)))
    constants, rows, warnings = calibrate(log)
    entry = constants["nvlink4"][op]["nccl"]
    assert near(entry, MINE)
    assert entry["ranks"] == [2, 8]
    assert entry["residuals"]["n"] == len(rows) == 72
    assert entry["residuals"]["median"] < 0.01
    assert warnings == []


def test_a_log_across_nodes_gives_the_network_and_one_inside_gives_the_domain() -> None:
    inner, outer = ("nvlink4", "all_gather", "nccl"), ("ib-ndr", "all_gather", "nccl")
    faster = {"base_s": 4e-6, "step_s": 2e-7, "efficiency": 0.8, "ramp_s": 1e-5}
    models = {inner: shaped(inner, faster), outer: shaped(outer, MINE)}
    texts = [text_of("all_gather", nodes * 8, nodes, SIZES, models) for nodes in (4, 2)]
    texts += [text_of("all_gather", ranks, 1, SIZES, models) for ranks in (8, 2)]
    constants, _, warnings = calibrate(parse("".join(texts)))
    assert near(constants["nvlink4"]["all_gather"]["nccl"], faster)
    assert near(constants["ib-ndr"]["all_gather"]["nccl"], MINE)
    assert len(warnings) == 1
    assert "connectx-7 on ib-ndr is taken" in warnings[0]


def test_a_cluster_that_is_named_lends_its_wiring() -> None:
    fields = {"accelerator": "h100", "accelerators": 32, "scale_out": {"nic": "200 Gb/s", "link": "roce-400"}}
    given = build(parse_spec(fields, wiring=True))
    where = ("roce-400", "all_gather", "nccl")
    texts = [text_of("all_gather", 8 * n, n, SIZES, {where: shaped(where, MINE)}, given=given) for n in (2, 4)]
    constants, _, warnings = calibrate(parse("".join(texts)), given)
    assert near(constants["roce-400"]["all_gather"]["nccl"], MINE)
    assert warnings == []


def test_what_the_rows_cannot_tell_is_held_and_said() -> None:
    where = ("nvlink4", "all_gather", "nccl")
    known = tuning(*where).model
    models = {where: shaped(where, MINE)}
    few, _, warnings = calibrate(parse(text_of("all_gather", 8, 1, [2**28, 2**30, 2**32], models)))
    entry = few["nvlink4"]["all_gather"]["nccl"]
    assert [entry[key] for key in ("base_s", "step_s", "ramp_s")] == [known.base_s, known.step_s, known.ramp_s]
    assert entry["efficiency"] == pytest.approx(0.62, rel=0.1)
    assert "fewer than 6 sizes" in warnings[0]
    assert "no size up to 64 KiB" in warnings[0]
    one, _, warnings = calibrate(parse(text_of("all_gather", 8, 1, SIZES, models)))
    assert one["nvlink4"]["all_gather"]["nccl"]["step_s"] == known.step_s
    assert warnings == [f"nvlink4 all_gather nccl: {one['nvlink4']['all_gather']['nccl']['note']}"]
    assert "two tell launch and steps apart" in warnings[0]


def test_rows_that_leave_every_constant_open_are_not_fitted() -> None:
    text = text_of("all_gather", 8, 1, [2**20, 2**22], {})
    with pytest.raises(SpecError, match="too little to fit"):
        calibrate(parse(text))
    whole, _, warnings = calibrate(parse(text + text_of("all_reduce", 8, 1, SIZES, {})))
    assert list(whole["nvlink4"]) == ["all_reduce"]
    assert any("all_gather nccl: not fitted" in warning for warning in warnings)


def test_rows_that_the_wires_cannot_explain_are_warned_of() -> None:
    where = ("nvlink4", "all_gather", "nccl")
    text = text_of("all_gather", 8, 1, SIZES, {where: LinkModel(1e-6, 0.0, 1.0)}, given=None)
    slow = Log(tuple(point("all_gather", "h800-sxm", 8, 1, p.size_bytes, p.seconds) for p in parse(text).points), ())
    _, _, warnings = calibrate(slow)
    assert any("efficiency at its bound" in warning for warning in warnings)


def test_an_accelerator_that_nobody_knows_needs_a_cluster() -> None:
    text = text_of("all_reduce", 8, 1, SIZES, {}, gpu="NVIDIA Graphics Device")
    with pytest.raises(SpecError, match="--cluster") as error:
        calibrate(parse(text), source="my.log")
    assert len(error.value.faults) == 1
    assert "nvlink4" in calibrate(parse(text), build(load("hgx-h100")))[0]


def test_a_cluster_that_is_too_small_is_told() -> None:
    small = build(parse_spec({"accelerator": "h100", "accelerators": 8}, wiring=True))
    with pytest.raises(SpecError, match="has 16 ranks, and the cluster 8 accelerators"):
        calibrate(Log((point(ranks=16, nodes=2),), ()), small)


def test_hosts_that_are_taken_to_share_a_rack_are_told() -> None:
    points = tuple(point("all_gather", "gb200", 16, 4, float(size), 1e-5 + size / 5e11) for size in SIZES)
    constants, _, warnings = calibrate(Log(points, ()))
    assert list(constants) == ["nvlink5"]
    assert "share domains of 72" in warnings[0]


# --- where a group lies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "ranks", "nodes", "inside", "link"),
    [
        ("h100-sxm", 8, 1, 8, "nvlink4"),
        ("h100-sxm", 2, 1, 2, "nvlink4"),
        ("h100-sxm", 16, 2, 8, "ib-ndr"),
        ("h100-sxm", 2, 2, 1, "ib-ndr"),
        ("h100-sxm", 8, 2, 4, "ib-ndr"),
        ("gb200", 64, 16, 64, "nvlink5"),  # hosts of four share the domain of a rack
        ("gb200", 128, 32, 64, "ib-ndr"),
    ],
)
def test_members_by_tier_follow_hosts_or_racks(system: str, ranks: int, nodes: int, inside: int, link: str) -> None:
    each = point(system=system, ranks=ranks, nodes=nodes)
    cluster = cluster_of(each, None)
    members = members_of(cluster, each)
    assert (members[0], members[-1]) == (inside, ranks)
    assert (np.diff(members) >= 0).all()
    assert outermost(cluster, each) == link


# --- the file --------------------------------------------------------------------------------------------------------


def test_a_file_of_constants_changes_what_a_collective_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, out = tmp_path / "mine.log", tmp_path / "mine.yaml"
    where = ("nvlink4", "all_gather", "nccl")
    log.write_text("".join(text_of("all_gather", n, 1, SIZES, {where: shaped(where, MINE)}) for n in (2, 8)))
    document = calibrate_file(log, out)
    shipped, other = lookup(*where)[0], lookup("nvlink4", "all_reduce")[0]

    def seconds() -> float:
        return float(collective_s("all_gather", 2**30, [8], (nvlink_hop("nvlink4", lookup(*where)[0]),)))

    before = seconds()
    monkeypatch.setenv("PODSCALE_TUNINGS", str(out))
    mine = tuning(*where)
    assert {key: getattr(mine.model, key) for key in CONSTANTS} == document["constants"]["nvlink4"]["all_gather nccl"]
    assert dict(mine.residuals) == document["residuals"]["nvlink4"]["all_gather nccl"]
    assert (mine.ranks, mine.source) == ((2, 8), str(log))
    assert seconds() == pytest.approx(before * shipped.efficiency / 0.62, rel=0.1)
    assert lookup("nvlink4", "all_reduce")[0] == other
    monkeypatch.delenv("PODSCALE_TUNINGS")
    assert seconds() == before


def test_the_file_reaches_the_tiers_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "mine.yaml"
    out.write_text(own({}))
    monkeypatch.setenv("PODSCALE_TUNINGS", str(out))
    monkeypatch.setattr("clusters.build._PATHS", {})
    fresh = build(parse_spec({"accelerator": "h100", "accelerators": 24}, wiring=True))
    assert path(fresh, "all_to_all")[0].model == LinkModel(**MINE)


def test_a_link_that_was_never_measured_becomes_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no measurement of efa" in lookup("efa", "all_gather")[1]
    (tmp_path / "tunings.yaml").write_text(yaml.safe_dump({"constants": {"EFA": {"all-gather": {"nccl": MINE}}}}))
    monkeypatch.setenv("PODSCALE_CATALOGUE", str(tmp_path))
    assert lookup("efa", "all_gather") == (LinkModel(**MINE), "")
    assert "constants of efa all_gather nccl" in lookup("efa", "reduce_scatter")[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "constants: is missing"),
        ("constants: {nvlink4: 3}", "constants.nvlink4 = 3: holds no constants"),
        ("constants: {nvlink4: {all_reduce: {nccl: {base_s: fast}}}}", "holds what is no number"),
        ("constants: {nvlink4: {all_reduce: {nccl: {base_s: 1}}}}", "LinkModel.efficiency = nan"),
        ("constants: {pigeon: {all_reduce: {udp: {}}}}", "is of no known family"),
        (own({"ranks": 8}), "holds what is no number"),
        (own({"residuals": {"n": 1}}), "holds what is no number"),
    ],
)
def test_a_wrong_file_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    monkeypatch.setenv("PODSCALE_TUNINGS", str(file))
    with pytest.raises(SpecError) as error:
        lookup("nvlink4", "all_reduce")
    assert words in str(error.value)
    assert str(file) in str(error.value)


def test_every_fault_of_a_file_comes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "constants: {nvlink4: {all_reduce: {nccl: 1}, broadcast: {nccl: {base_s: 1}}}, pigeon: {a: {b: {}}}}"
    )
    monkeypatch.setenv("PODSCALE_TUNINGS", str(file))
    with pytest.raises(SpecError) as error:
        table()
    assert len(error.value.faults) == 5


def test_few_rows_make_no_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, out = tmp_path / "mine.log", tmp_path / "mine.yaml"
    log.write_text(text_of("all_gather", 8, 1, [2**28, 2**30], {}))
    document = calibrate_file(log, out)
    assert document["residuals"]["nvlink4"]["all_gather nccl"]["n"] == 2
    assert any("2 rows are too few for an interval" in warning for warning in document["warnings"])
    monkeypatch.setenv("PODSCALE_TUNINGS", str(out))
    assert tuning("nvlink4", "all_gather").residuals == {}


def test_the_real_forms_are_fitted_closely(tmp_path: Path) -> None:
    for file in sorted(FILES.glob("*.log")):
        document = calibrate_file(file, tmp_path / "mine.yaml")
        assert all(r["median"] < 0.03 for kinds in document["residuals"].values() for r in kinds.values())
        assert len(document["rows"]) == sum(r["n"] for kinds in document["residuals"].values() for r in kinds.values())


def test_the_shipped_rows_give_the_shipped_constants() -> None:
    rows = read_csv("collectives_nccl.csv")
    chosen = (rows["system"] == "a100_sxm") & (rows["op"] == "all_gather") & (rows["impl"] == "NCCL")
    columns = (rows[key][chosen].tolist() for key in ("num_gpus", "message_bytes", "latency_us"))
    points = [
        point("all_gather", "a100-sxm-80", int(ranks), 1, size, us * 1e-6)
        for ranks, size, us in zip(*columns, strict=True)
    ]
    entry = calibrate(Log(tuple(points), ()))[0]["nvlink3"]["all_gather"]["nccl"]
    shipped = tuning("nvlink3", "all_gather")
    assert {key: entry[key] for key in CONSTANTS} == {key: getattr(shipped.model, key) for key in CONSTANTS}
    assert entry["residuals"] == dict(shipped.residuals)
