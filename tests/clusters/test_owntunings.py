"""A cluster file that names constants of its own links: where they lie, what they change, what is wrong with them."""

from pathlib import Path

import pytest
import yaml

from clusters.build import build, notes, own_notes, path
from clusters.calibration.own_links import calibrate_file
from clusters.collective import collective
from clusters.spec import fingerprint, load, parse, with_
from clusters.tunings import lookup
from collectives.path import LinkModel
from topo.errors import SpecError

MINE = {"base_s": 1e-4, "step_s": 2e-6, "efficiency": 0.4, "ramp_s": 0.0}
LOG = Path("examples/logs/all_reduce_perf-p5.log")


def written(folder: Path, constants: object, **fields: object) -> Path:
    """A cluster file in a folder, and the tunings file that it names in another."""
    (folder / "constants").mkdir(exist_ok=True)
    (folder / "constants" / "mine.yaml").write_text(yaml.safe_dump(constants), encoding="utf-8")
    held = {"accelerator": "h100", "accelerators": 16, "tunings": "constants/mine.yaml", **fields}
    (folder / "cluster.yaml").write_text(yaml.safe_dump(held), encoding="utf-8")
    return folder / "cluster.yaml"


def of_network(model: dict[str, float] = MINE) -> dict[str, object]:
    return {"constants": {"ib-ndr": {"all_reduce": {"nccl": model}}}}


def test_a_cluster_is_priced_with_the_constants_that_its_file_names(tmp_path: Path) -> None:
    mine, plain = (
        build(load(written(tmp_path, of_network()))),
        build(parse({"accelerator": "h100", "accelerators": 16})),
    )
    assert path(mine, "all_reduce")[-1].model == LinkModel(**MINE)
    assert path(mine, "all_reduce")[0] == path(plain, "all_reduce")[0]
    assert path(mine, "all_gather")[0] == path(plain, "all_gather")[0]
    slow, usual = (collective(cluster, "all_reduce", 16, 2.0**30) for cluster in (mine, plain))
    assert slow["time_s"] > 1.5 * usual["time_s"]
    said = "ib-ndr all_reduce nccl: constants of mine.yaml, as the cluster says"
    assert said in slow["warnings"]
    assert said in notes(mine, "all_reduce")
    assert own_notes(mine) == ("mine.yaml, as the cluster says: constants of ib-ndr all_reduce nccl",)
    assert own_notes(plain) == ()
    assert not any("as the cluster says" in note for note in usual["warnings"])


def test_the_rungs_on_the_graph_take_them_too(tmp_path: Path) -> None:
    mine = build(load(written(tmp_path, of_network({**MINE, "efficiency": 0.01}))))
    told = collective(mine, "all_reduce", 16, 2.0**30, algorithm="ring")
    assert told["fidelity"] == "stepwise"
    assert told["time_s"] == pytest.approx(told["closed_s"], rel=0.05)


def test_what_tells_clusters_apart_is_the_content_of_the_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    prints = [fingerprint(load(written(folder, of_network()))) for folder in (one, other)]
    assert prints[0] == prints[1]
    assert fingerprint(load(written(other, of_network({**MINE, "base_s": 0.0})))) != prints[0]
    assert fingerprint(load(written(other, of_network(), tunings=""))) not in prints


def test_a_file_changed_meanwhile_is_read_again(tmp_path: Path) -> None:
    found = [
        path(build(load(written(tmp_path, of_network({**MINE, "base_s": base})))), "all_reduce") for base in (0, 1e-5)
    ]
    assert [road[-1].model.base_s for road in found] == [0, 1e-5]


def test_a_cluster_varied_keeps_them_and_pools_share_them(tmp_path: Path) -> None:
    mine = load(written(tmp_path, of_network()))
    assert with_(mine, accelerators=64).tunings == mine.tunings
    pools = [{"name": name, "accelerator": "h100", "accelerators": 16} for name in ("a", "b")]
    file = written(tmp_path, of_network())
    file.write_text(yaml.safe_dump({"pools": pools, "tunings": "constants/mine.yaml"}), encoding="utf-8")
    assert load(file).tunings == mine.tunings


def test_faults_say_which_file_and_where_in_it(tmp_path: Path) -> None:
    file = written(tmp_path, of_network(), tunings="nowhere.yaml", accelerators="many")
    with pytest.raises(SpecError) as caught:
        load(file)
    told = {fault.field: fault for fault in caught.value.faults}
    assert {"accelerators", "tunings"} <= set(told)
    assert (told["tunings"].file, told["tunings"].value) == (str(file), "nowhere.yaml")
    with pytest.raises(SpecError) as caught:
        load(written(tmp_path, of_network({**MINE, "efficiency": 2.0, "base_s": -1.0})))
    assert all(fault.field.startswith("tunings: constants.ib-ndr.all_reduce.nccl") for fault in caught.value.faults)
    assert all(fault.file == str(tmp_path / "constants" / "mine.yaml") for fault in caught.value.faults)
    assert len(caught.value.faults) == 2
    with pytest.raises(SpecError, match="is missing or empty"):
        load(written(tmp_path, {"numbers": {}}))


def test_they_lie_over_what_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = build(load(written(tmp_path, of_network())))
    below = {"ib-ndr": {"all_reduce": {"nccl": {**MINE, "base_s": 0.0}}, "all_gather": {"nccl": MINE}}}
    (tmp_path / "below.yaml").write_text(yaml.safe_dump({"constants": below}), encoding="utf-8")
    monkeypatch.setenv("PODSCALE_TUNINGS", str(tmp_path / "below.yaml"))
    assert path(mine, "all_reduce")[-1].model == LinkModel(**MINE)
    assert path(mine, "all_gather")[-1].model == LinkModel(**MINE)
    assert lookup("ib-ndr", "all_reduce")[0].base_s == 0.0


def test_what_calibrate_writes_can_be_named(tmp_path: Path) -> None:
    told = calibrate_file(LOG, tmp_path / "fit.yaml", ranks=16, cluster="examples/clusters/two-p5.yaml")
    fields = yaml.safe_load(Path("examples/clusters/two-p5.yaml").read_text(encoding="utf-8"))
    (tmp_path / "two.yaml").write_text(yaml.safe_dump({**fields, "tunings": "fit.yaml"}), encoding="utf-8")
    cluster = build(load(tmp_path / "two.yaml"))
    row = max(told["rows"], key=lambda row: row["bytes"])
    priced = collective(cluster, "all_reduce", 16, row["bytes"], fidelity="closed")
    assert priced["time_s"] == pytest.approx(row["predicted"], rel=1e-3)
    assert any("fit.yaml, as the cluster says" in note for note in priced["warnings"])
    assert f"tunings: {tmp_path / 'fit.yaml'}" in told["notes"][0]
