"""Every example runs on its own and prints what is committed beside it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
ON_RAY = ("sweep_on_ray",)
MARKED = [pytest.param(path, id=path.stem, marks=[pytest.mark.ray] if path.stem in ON_RAY else []) for path in SCRIPTS]


@pytest.mark.parametrize("script", MARKED)
def test_an_example_prints_its_committed_output(script: Path) -> None:
    printed = subprocess.run(  # noqa: S603  (our own script, by our own interpreter)
        [sys.executable, "-W", "error", str(script)],
        cwd=EXAMPLES.parent,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (printed.returncode, printed.stderr) == (0, "")
    committed = script.with_suffix(".out").read_text(encoding="utf-8")
    remedy = f"if the change is meant: python examples/{script.name} > examples/{script.stem}.out"
    assert printed.stdout.splitlines() == committed.splitlines(), remedy


def test_every_committed_output_has_its_script() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.out")} == {script.stem for script in SCRIPTS}


def test_the_readme_names_every_example() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = [path for path in EXAMPLES.rglob("*") if path.suffix in (".py", ".yaml", ".json", ".log")]
    missing = [name for path in files if (name := path.relative_to(EXAMPLES).as_posix()) not in readme]
    assert not missing
