"""The example of a Ray cluster: its files hold against Ray's own schema, and the job's command runs on a head started so."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from parallel.sweeps.specfile import read_sweep

FOLDER = Path(__file__).parents[2] / "examples" / "ray_cluster"
SWEEPS = FOLDER.parent / "sweeps"
BIN = Path(sys.executable).parent
TEXT = (FOLDER / "cluster.yaml").read_text(encoding="utf-8")
CLUSTER: dict[str, Any] = yaml.safe_load(TEXT)


def cloud() -> dict[str, Any]:
    """The cluster with the commented lines of its end in place of what they replace."""
    lines = TEXT[TEXT.index("# max_workers:") :].splitlines()
    changed = yaml.safe_load("\n".join(line.removeprefix("# ") for line in lines))
    return {**{name: value for name, value in CLUSTER.items() if name not in ("provider", "auth")}, **changed}


def jobs() -> list[list[str]]:
    """The commands that the README submits."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    return [shlex.split(line.split(" -- ")[1]) for line in text.splitlines() if line.startswith("ray job submit")]


@pytest.mark.ray
@pytest.mark.parametrize("config", [CLUSTER, cloud()], ids=["own machines", "cloud"])
def test_the_cluster_file_holds_against_rays_schema(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    made = prepare_config(dict(config))
    validate_config(made)
    workers = [kind for name, kind in made["available_node_types"].items() if name != "head"]
    assert sum(kind["max_workers"] for kind in workers) == config["max_workers"]


def test_the_places_of_the_cluster_file_are_there() -> None:
    assert len(CLUSTER["provider"]["worker_ips"]) == CLUSTER["max_workers"]
    assert "ray[default]==" in "".join(CLUSTER["setup_commands"])


def test_the_readme_submits_sweeps_that_exist() -> None:
    named = [command[2] for command in jobs()]
    assert named == ["domains.yaml", "sweep.yaml"]
    assert read_sweep(SWEEPS / named[0]).cells == 8
    assert read_sweep(FOLDER / named[1]).space == "all"


@pytest.fixture
def head(tmp_path: Path) -> Iterator[str]:
    """The address of a Ray head on a free port, in processes of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = f"{BIN}/ray start --head --block --port={port} --num-cpus=1 --include-dashboard=false"
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    with (tmp_path / "head.log").open("w") as log:
        started = subprocess.Popen(  # noqa: S603  (our own command)
            [*shlex.split(command), "--object-store-memory=100000000", "--disable-usage-stats"],
            env={**os.environ, **quiet},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(tmp_path / "head.log", started)
        yield f"127.0.0.1:{port}"
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(timeout=30)


def _wait(log: Path, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if "will now block" in log.read_text(encoding="utf-8"):
            return
        if process.poll() is not None:
            pytest.fail(log.read_text(encoding="utf-8"))
        time.sleep(0.1)
    pytest.fail("the head did not start")


@pytest.mark.ray
def test_the_job_of_the_readme_gives_the_serial_answer(head: str, tmp_path: Path) -> None:
    job = jobs()[0]
    assert job[:2] == ["podscale", "sweep"]
    env = {**os.environ, "RAY_ADDRESS": head, "RAY_AUTH_MODE": "disabled"}  # as Ray sets it for a job
    answers = []
    for name, command in (("job", job), ("serial", [*job[:-2], "--executor", "serial"])):
        out = tmp_path / f"{name}.json"
        line = [str(BIN / command[0]), *command[1:], "--state", str(tmp_path), "--out", str(out)]
        subprocess.run(line, cwd=SWEEPS, env=env, check=True, capture_output=True, timeout=120)  # noqa: S603
        answers.append(json.loads(out.read_text(encoding="utf-8")))
    assert [answer.pop("executor") for answer in answers] == ["ray", "serial"]
    first, second = ({**answer, "seconds": 0.0} for answer in answers)
    assert first == second
