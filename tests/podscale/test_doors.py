"""The command line from end to end, as a shell sees it: one document on stdout, the exit code, never a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "examples" / "scenarios"
SMALL = (
    "--gpus",
    "64",
    "--domains",
    "8,16",
    "--accelerator",
    "h100",
    "--model",
    "mixtral-8x7b",
    "--global-batch",
    "512",
)
ROW = {
    "domain", "phase", "strategy", "gpus_used", "tokens_per_s_per_gpu", "step_time_s", "ttft_s", "tpot_s", "terms",
    "busy", "bottleneck", "interval",
}  # fmt: skip


def podscale(*args: object) -> tuple[int, str, str]:
    """Run the command in a process of its own, warnings being errors, and return exit code, stdout and stderr."""
    done = subprocess.run(  # noqa: S603  (our own command, by our own interpreter)
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            "from podscale.cli import main; raise SystemExit(main())",
            *map(str, args),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def answer(*args: object) -> dict:
    """The one JSON document of a command that succeeds, with nothing else on stdout or stderr."""
    code, out, err = podscale(*args, "--json")
    assert (code, err) == (0, "")
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def refusal(*args: object, code: int = 2) -> str:
    """What a refused command says on stderr: a paragraph, no traceback, and its document with --json."""
    status, out, err = podscale(*args)
    assert status == code
    assert out == ""
    assert err.startswith("podscale: ")
    assert "Traceback" not in err
    return err


def test_compare_answers_with_a_row_for_every_wiring_and_phase_and_a_report(tmp_path):
    report = tmp_path / "answer.html"
    document = answer("compare", *SMALL, "--report", report)
    assert {(row["domain"], row["phase"]) for row in document["rows"]} == {
        (domain, phase) for domain in (8, 16) for phase in ("train", "prefill", "decode")
    }
    assert all(set(row) >= ROW for row in document["rows"])
    assert document["workload"]["gpus"] == 64
    for row in document["rows"]:
        assert sum(row["terms"].values()) == pytest.approx(row["step_time_s"], rel=1e-9)
    assert document["report"] == str(report)
    assert report.read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_serve_gives_the_published_communication_limit():
    document = answer("serve", SCENARIOS / "isca25-infiniband.yaml", "--limit", "communication")
    assert document["tpot_s"] == pytest.approx(14.76e-3, rel=0.005)
    assert len(document["ladder"]) == 7


def test_list_names_the_models():
    names = [row["name"] for row in answer("list", "models")["rows"]]
    assert {"deepseek-v3", "llama-3.1-70b", "mixtral-8x7b"} <= set(names)


def test_topo_describes_a_system():
    document = answer("topo", "gb200-nvl72")
    assert document["accelerators"] == 72
    keys = {"tiers", "bisection_Bps", "oversubscription", "diameter_hops", "parts", "power_W", "price_usd"}
    assert keys <= set(document)


def test_topo_says_what_an_all_to_all_gets_and_which_ports_are_in_use():
    document = answer("topo", "superpod-b200")
    # 1,016 of 1,023 others lie outside the box, and traffic to them shares 50 GB/s.
    assert document["all_to_all_Bps"] == pytest.approx(50e9 * 1023 / 1016, rel=1e-6)
    # Eight NICs bring in for a box what its NVLink then deals out: of 1,023 shards 1,016 come from outside.
    assert document["all_gather_Bps"] == pytest.approx(8 * 50e9 * 1023 / 1016, rel=1e-6)
    assert [(row["node"], row["switches"], row["down"], row["up"]) for row in document["ports"]] == [
        ("scale-up-switch", 256, 8, 0),
        ("leaf", 32, 32, 32),
        ("spine", 16, 64, 0),
    ]


def test_topo_needs_no_figure_of_the_silicon():
    document = answer("topo", "tpu-8t-pod")
    assert document["accelerators"] == 9600
    assert document["tiers"][0]["kind"] == "torus"


def test_topo_of_unlike_racks_and_a_slow_rail_tells_the_pools_apart():
    document = answer("topo", str(ROOT / "examples" / "clusters" / "two-racks-slow-rail.yaml"))
    assert {tier["pool"] for tier in document["tiers"]} == {"old.accelerator", "new.accelerator"}
    assert document["between_pools"][0]["bandwidth_Bps"] > 0


def test_topo_reads_a_graph_of_another_tool():
    document = answer("topo", str(ROOT / "tests" / "topo" / "formats" / "hgx.txt"))
    assert document["accelerators"] == 8
    assert document["tiers"][0]["bandwidth_Bps"] == 450e9


def test_collective_prices_an_operation_beside_its_bound():
    document = answer("collective", "all-gather", "--cluster", "gb200-nvl72", "--ranks", 64, "--bytes", "256MiB")
    assert {"time_s", "lower_bound_s", "algorithm", "busbw_Bps", "terms"} <= set(document)
    assert document["fidelity"] == "stepwise"
    assert document["lower_bound_s"] == pytest.approx(63 / 64 * 2**28 / 900e9)
    assert document["lower_bound_s"] < document["time_s"] == pytest.approx(sum(document["terms"].values()))


def test_a_wrong_collective_is_told_in_full():
    code, out, err = podscale("collective", "allgather", "--cluster", "gb200-nvl72", "--ranks", 100, "--bytes", "1GB")
    assert (code, out) == (2, "")
    assert "did you mean all_gather" in err
    assert "at least 2 ranks, of 72" in err


@pytest.mark.parametrize(
    "args",
    [("compare", *SMALL, "--quiet"), ("train", SCENARIOS / "llama-405b-h100.yaml")],
    ids=lambda args: args[0],
)
def test_a_drawn_answer_goes_to_stdout_alone(args):
    code, out, err = podscale(*args)
    assert (code, err) == (0, "")
    assert out.strip()


def test_an_unknown_accelerator_gets_the_nearest():
    assert "did you mean gb200" in refusal("compare", "--accelerator", "gb2000")


def test_every_wrong_name_of_a_flag_is_told_at_once():
    said = refusal("compare", "--accelerator", "gb2000", "--model", "deepsek-v3", "--precision", "fp9")
    assert said.startswith("podscale: 3 things to mend:")


def test_a_negative_bandwidth_in_a_cluster_file_is_told_with_its_field(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text("accelerator: h100\naccelerators: 64\nscale_up: {bandwidth: -450GB/s}\n")
    said = refusal("compare", "--cluster", file)
    assert f"{file}: scale_up.bandwidth" in said
    assert "positive" in said


def test_a_strategy_that_does_not_divide_is_told_with_the_rule(tmp_path):
    file = tmp_path / "scenario.yaml"
    file.write_text("model: llama-3.1-8b\ncluster: hgx-h100\naccelerators: 64\nstrategy: {tp: 3, dp: 7}\n")
    said = refusal("train", file)
    assert "tp divides the attention heads" in said
    assert "the batch divides" in said


def test_a_config_without_the_needed_fields_is_told_all_of_them(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"model_type": "llama", "hidden_size": 4096}')
    said = refusal("compare", "--model", file)
    assert "num_hidden_layers" in said
    assert "num_attention_heads" in said


@pytest.mark.parametrize("command", [("train",), ("compare", "--model")])
def test_a_file_that_cannot_be_read_is_told(command, tmp_path):
    assert "nowhere.yaml" in refusal(*command, tmp_path / "nowhere.yaml")


def test_a_refusal_with_json_is_one_document():
    code, out, err = podscale("compare", "--accelerator", "gb2000", "--json")
    assert code == 2
    assert json.loads(out)["error"]["faults"][0]["field"] == "accelerator"
    assert err.startswith("podscale: ")


def test_a_split_that_overflows_memory_exits_with_three(tmp_path):
    file = tmp_path / "scenario.yaml"
    file.write_text("model: deepseek-v3\ncluster: hgx-h200\naccelerators: 64\nstrategy: {ep: 1, batch: 8}\n")
    said = refusal("serve", file, code=3)
    assert "140 GiB of memory per accelerator cannot be met" in said


def test_limits_that_no_wiring_meets_exit_with_three_and_an_answer():
    code, out, err = podscale(
        "compare",
        "--model",
        "deepseek-v3",
        "--gpus",
        "16",
        "--domains",
        "8",
        "--tpot-ms",
        "1",
        "--ttft-ms",
        "1",
        "--json",
    )
    assert (code, err) == (3, "")
    rows = json.loads(out)["rows"]
    assert all(row["infeasible"] for row in rows)
