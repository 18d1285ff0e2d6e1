import json
import subprocess
import sys
from dataclasses import dataclass, fields
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from types import ModuleType

import pytest

from podscale import cli, door
from podscale.commands import bench
from podscale.commands import compare as compare_command
from topo.errors import Fault, InfeasibleError, SpecError


@dataclass(frozen=True)
class Request:
    """Stands in for `parallel.compare.CompareRequest`."""

    model: str = "deepseek-v3"
    accelerator: str = "gb200"
    domains: tuple[int, ...] | None = None
    gpus: int = 4608
    nic: float | None = None
    oversubscription: float = 1.0
    isl: int = 4096
    osl: int = 1024
    tpot_ms: float = 50
    ttft_ms: float = 2000
    precision: str = "fp8"
    cluster: str | None = None
    pool: str | None = None
    sequence: int = 4096
    global_batch: int = 18432
    executor: str = "auto"

    def __post_init__(self):
        if self.model != "deepseek-v3":
            raise SpecError([Fault("--model", self.model, "no such model", "write deepseek-v3")])


@pytest.fixture
def asked(monkeypatch, document):
    """Let `compare` answer with the fixture; returns the requests it was asked."""
    requests = []

    def compare(request, progress=None):
        requests.append(request)
        return document

    module = ModuleType("parallel.compare")
    module.compare, module.CompareRequest = compare, Request
    monkeypatch.setitem(sys.modules, "parallel.compare", module)
    return requests


def only_json(capsys):
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_compare_hands_the_flags_down(asked, capsys):
    flags = ["--domains", "8, 72,500", "--nic", "400Gb/s", "--gpus", "4608", "--tpot-ms", "20", "--json"]
    assert cli.main(["compare", *flags]) == 0
    assert asked[0].domains == (8, 72, 500)
    assert asked[0].nic == 5e10
    assert asked[0].tpot_ms == 20
    assert asked[0].global_batch == 18432
    assert {row["domain"] for row in only_json(capsys)["rows"]} == {8, 72, 576}


@pytest.mark.skipif(not find_spec("parallel.compare"), reason="floor 4 has no comparison yet")
def test_compare_has_the_defaults_of_the_request():
    from parallel.compare import CompareRequest

    flags = {name: parameter.default for name, parameter in signature(compare_command.compare).parameters.items()}
    defaults = {field.name: field.default for field in fields(CompareRequest)}
    shared = flags.keys() & defaults.keys()
    assert len(shared) > 10
    assert {name: flags[name] for name in shared} == {name: defaults[name] for name in shared}


def test_json_holds_no_nan_and_no_numpy(asked, document, capsys):
    import numpy as np

    document["rows"][0]["terms"]["experts"] = float("nan")
    document["rows"][0]["gpus_used"] = np.int64(4608)
    document["search"]["seconds"] = np.float64("inf")
    assert cli.main(["compare", "--json"]) == 0
    told = only_json(capsys)
    assert told["rows"][0]["terms"]["experts"] is None
    assert told["rows"][0]["gpus_used"] == 4608
    assert told["search"]["seconds"] is None


def test_every_fault_comes_at_once_and_each_says_what_to_write(asked, capsys):
    assert cli.main(["compare", "--domains", "0,8,8,x,9999", "--nic", "fast", "--model", "nosuch"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "6 things to mend" in told.err
    for word in ("'0'", "'x'", "9999", "stands there twice", "--nic", "--model", "400Gb/s"):
        assert word in told.err
    assert "Traceback" not in told.err
    assert not asked


def test_errors_are_json_too_when_json_was_asked_for(asked, capsys):
    assert cli.main(["compare", "--nic", "-4Gb/s", "--json"]) == 2
    error = only_json(capsys)["error"]
    assert error["kind"] == "bad input"
    assert error["faults"][0]["field"] == "--nic"


def test_infeasible_exits_3(asked, monkeypatch, capsys):
    def compare(request, progress=None):
        raise InfeasibleError("decode", "TPOT limit 5 ms", "the fastest split takes 7 ms", "raise --tpot-ms to 7")

    sys.modules["parallel.compare"].compare = compare
    assert cli.main(["compare"]) == 3
    assert "raise --tpot-ms to 7" in capsys.readouterr().err


def test_a_comparison_without_any_feasible_row_still_answers_and_exits_3(asked, document, capsys):
    for row in document["rows"]:
        row.update(infeasible="TPOT limit 1 ms: the fastest split takes 7 ms", tokens_per_s_per_gpu=None)
    assert cli.main(["compare", "--json"]) == 3
    assert len(only_json(capsys)["rows"]) == 9


def test_a_fault_of_podscale_itself_is_no_traceback(asked, capsys):
    def compare(request, progress=None):
        raise ZeroDivisionError("division by zero")

    sys.modules["parallel.compare"].compare = compare
    assert cli.main(["compare"]) == 1
    err = capsys.readouterr().err
    assert "fault of podscale's own" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["comapre"], "'compare'"),
        (["compare", "--domian", "8"], "--domains"),
        (["list", "model"], "write models"),
        (["validate", "colectives"], "write collectives"),
        (["serve", "x.yaml", "--limit", "speed"], "write communication"),
        (["topo"], "Missing argument"),
        (["compare", "--gpus", "many"], "--gpus"),
    ],
)
def test_bad_input_exits_2_and_names_the_nearest(argv, word, capsys):
    assert cli.main(argv) == 2
    told = capsys.readouterr()
    assert word in told.err
    assert told.out == ""


def test_no_command_prints_the_help(capsys):
    assert cli.main([]) == 0
    assert "compare" in capsys.readouterr().out


def test_report_is_written_and_named_last(asked, tmp_path, capsys):
    target = tmp_path / "deep" / "compare.html"
    assert cli.main(["compare", "--report", str(target)]) == 0
    assert target.stat().st_size < 8e6
    assert str(target) in capsys.readouterr().out.strip().splitlines()[-1]


def test_report_place_is_checked_before_the_search(asked, tmp_path, capsys):
    assert cli.main(["compare", "--report", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert not asked


@pytest.mark.parametrize("argv", [["list", "models"], ["list", "schedules"], ["topo", "gb200-nvl72"]])
def test_commands_answer_in_json_and_in_words(argv, capsys):
    assert cli.main([*argv, "--json"]) == 0
    only_json(capsys)
    assert cli.main(argv) == 0
    assert capsys.readouterr().out


def test_topo_holds_what_scripts_depend_on(capsys):
    assert cli.main(["topo", "GB200_NVL72", "--json"]) == 0
    told = only_json(capsys)
    wanted = ("accelerators", "tiers", "bisection_Bps", "oversubscription", "diameter_hops", "parts", "power_W")
    assert all(key in told for key in (*wanted, "price_usd"))


def test_help_is_light():
    heavy = ("networkx", "numpy", "ray", "plotly", "pydantic", "scipy", "jinja2", "yaml")
    code = (
        f"import sys; from podscale.cli import main; main(['--help']); print(sorted(set({heavy}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip().splitlines()[-1] == "[]"


SCENARIOS = Path(__file__).parents[2] / "examples" / "scenarios"


@pytest.mark.parametrize(
    "argv",
    [
        ["serve", str(SCENARIOS / "llama-70b-serve.yaml")],
        ["serve", str(SCENARIOS / "llama-70b-vllm.yaml")],
        ["train", str(SCENARIOS / "llama-405b-h100.yaml")],
        ["compare", "--domains", "8", "--gpus", "512"],
        ["list", "accelerators"],
    ],
    ids=lambda argv: " ".join(argv).replace(f"{SCENARIOS}/", ""),
)
def test_a_first_answer_loads_only_what_it_needs(argv):
    later = ("networkx", "scipy", "ray", "plotly", "jinja2", "polars", "starlette", "topo.flows", "topo.wide")
    code = (
        "import sys; from podscale.cli import main; code = main([*sys.argv[1:], '--json']); "
        f"print(code, sorted(set({later}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip().splitlines()[-1] == "0 []"


def test_a_reader_who_leaves_early_sees_no_error():
    code = "import sys; from podscale.cli import main; sys.exit(main(['list', 'schedules', '--json']))"
    read = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603
    read.stdout.close()
    err = read.stderr.read()
    read.stderr.close()
    assert read.wait() == 0
    assert err == b""


def test_no_colour_where_none_is_wanted(asked, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert cli.main(["compare"]) == 0
    out = capsys.readouterr().out
    assert "\x1b[3" not in out  # bold may stay, colours may not


def test_progress_is_silent_without_a_terminal():
    with door.Door().progress("searching") as progress:
        assert progress is None


def test_a_first_answer_is_measured_beside_the_imports():
    told = bench.first_answer(repeats=1)
    assert told["first_answer_in_imports"] == told["first_answer_s"] / told["imports_s"] > 0
