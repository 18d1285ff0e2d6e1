"""The fitting scripts: they find constants that are known, and the committed files are what they produce."""

import numpy as np
import pytest

from clusters import kernels, tunings
from clusters.calibration import gemm, links
from clusters.calibration.residuals import ape, residuals, significant, write_yaml
from clusters.measurements import read_csv
from collectives.path import LinkModel


@pytest.fixture(scope="module")
def products():
    return read_csv("gemm.csv")


@pytest.fixture(scope="module")
def jobs():
    moe = [*links.moe_jobs(read_csv("moe_all2all.csv"), "combine")]
    one_sided = links.one_sided_jobs(read_csv("moe_all2all_gb200_onesided.csv"), "dispatch")
    return {job.where: job for job in [*links.nccl_jobs(read_csv("collectives_nccl.csv")), *moe, *one_sided]}


def test_the_kernel_fit_recovers_constants_it_is_given(products) -> None:
    rows = gemm.groups(products)
    _, _, mask = next(key for key in rows if key[:2] == ("h100_sxm", "fp8"))
    part = {key: values[mask] for key, values in products.items()}
    truth = kernels.kernel("h100-sxm", "fp8")
    part["latency_us"] = gemm.price(part, truth, "h100-sxm", "fp8") * 1e6
    found = gemm.fit(part, "h100-sxm", "fp8")
    assert found.efficiency == pytest.approx(truth.efficiency, rel=0.01)
    assert found.launch_s == pytest.approx(truth.launch_s, rel=0.01)
    assert np.max(ape(gemm.price(part, found, "h100-sxm", "fp8"), part["latency_us"] * 1e-6)) < 0.01


@pytest.mark.parametrize(("system", "dtype"), [("h100_sxm", "bfloat16"), ("gb200", "nvfp4")])
def test_the_committed_kernel_constants_and_residuals_come_from_the_script(products, system, dtype) -> None:
    mask = (products["system"] == system) & (products["dtype"] == dtype)
    part = {key: values[mask] for key, values in products.items()}
    name, precision = gemm.SYSTEMS[system], gemm.DTYPES[dtype].name
    stated = kernels.table()["measured"][name][precision]
    again = gemm.fit(part, name, dtype)
    assert {key: getattr(again, key) for key in kernels.CONSTANTS} == pytest.approx(
        {key: stated[key] for key in kernels.CONSTANTS}, rel=0.02, abs=1e-8
    )
    priced = gemm.price(part, kernels.kernel(name, precision), name, dtype)
    assert residuals(priced, part["latency_us"] * 1e-6) == pytest.approx(stated["residuals"], rel=1e-3)


def test_kernel_residuals_are_what_was_asked_of_them() -> None:
    for entry in kernels.table()["measured"].values():
        for precision in (key for key in entry if key in kernels.TILES):
            limit = 0.08 if precision == "bf16" else 0.06
            assert entry[precision]["residuals"]["median"] < limit


@pytest.mark.parametrize(
    "where",
    [
        ("nvlink4", "all_gather", "nccl"),
        ("nvlink5", "all_to_all", "nccl"),
        ("nvlink5", "moe_dispatch", "one-sided"),
        ("nvlink4", "moe_combine", "low-latency"),
    ],
)
def test_the_committed_link_constants_and_residuals_come_from_the_script(jobs, where) -> None:
    job, stated = jobs[where], tunings.tuning(*where)
    assert residuals(job.price(stated.model), job.measured_s) == pytest.approx(dict(stated.residuals), rel=1e-3)
    again = links.fit(job)
    for key in tunings.CONSTANTS:
        assert getattr(again, key) == pytest.approx(getattr(stated.model, key), rel=0.02, abs=1e-8)


def test_the_link_fit_recovers_constants_it_is_given(jobs) -> None:
    job = jobs["nvlink4", "all_gather", "nccl"]
    truth = LinkModel(6e-6, 4e-7, 0.8, 9e-6)
    known = links.Job(job.where, job.price(truth), job.price, job.ranks, "made up")
    found = links.fit(known)
    for key in tunings.CONSTANTS:
        assert getattr(found, key) == pytest.approx(getattr(truth, key), rel=0.01)


def test_fixed_constants_stay(jobs) -> None:
    job = jobs["nvlink5", "moe_dispatch", "one-sided"]
    assert job.fixed == {"step_s": 0.0}
    assert links.fit(job).step_s == 0.0


def test_residuals_of_a_perfect_fit_are_zero_and_its_band_is_one() -> None:
    assert residuals([1.0, 2.0], [1.0, 2.0]) == {"n": 2, "median": 0.0, "p90": 0.0, "low": 1.0, "high": 1.0}
    assert significant(0.123456) == 0.1235


def test_data_files_are_written_in_order_below_their_header(tmp_path) -> None:
    file = tmp_path / "x.yaml"
    write_yaml({"b": 1, "a": [1, 2]}, file, "Made by hand.")
    assert file.read_text("utf-8") == "# Made by hand.\nb: 1\na: [1, 2]\n"


def test_the_command_fits_a_readers_own_table(tmp_path, capsys) -> None:
    rows = read_csv("gemm.csv")
    mask = (rows["system"] == "a100_sxm") & (rows["dtype"] == "bfloat16")
    file, out = tmp_path / "mine.csv", tmp_path / "mine.yaml"
    lines = [
        ",".join(rows),
        *(",".join(map(str, line)) for line in zip(*(v[mask] for v in rows.values()), strict=True)),
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    gemm.main([str(file), "--out", str(out)])
    assert "a100-sxm-80" in capsys.readouterr().out
    assert "a100-sxm-80" in out.read_text("utf-8")
    assert "h100-sxm:\n" not in out.read_text("utf-8")
