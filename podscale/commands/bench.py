"""`podscale bench`: how fast podscale itself is, on this machine."""

import sys
from typing import Final

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door

_SCENARIO: Final = "{model: llama-3.1-70b, cluster: hgx-h100, strategy: {tp: 8, batch: 16}}"
_ANSWER: Final = "import sys; from podscale.cli import main; sys.exit(main())"
_IMPORTS: Final = "import numpy, networkx"


def bench(as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Measure podscale itself: a first answer, strategies priced per second and core, graphs built, collectives priced."""
    from parallel.bench import bench as run

    door = Door(as_json, quiet)
    with door.progress("measuring"):
        document = {**first_answer(), **run()}
    from podscale.tables import draw_bench

    door.answer(document, draw_bench)


def first_answer(repeats: int = 5) -> dict[str, float]:
    """Return the seconds of a whole `podscale serve`, Python's start included, alone and beside those of two imports.

    Returns
    -------
    dict
        `first_answer_s` and `imports_s` (Python with NumPy and NetworkX), the best of some runs, and `first_answer_in_imports`.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        file = Path(folder) / "serve.yaml"
        file.write_text(_SCENARIO, encoding="utf-8")
        answer_s = min(_run_s(_ANSWER, "serve", str(file)) for _ in range(repeats))
    imports_s = min(_run_s(_IMPORTS) for _ in range(repeats))
    return {"first_answer_s": answer_s, "imports_s": imports_s, "first_answer_in_imports": answer_s / imports_s}


def _run_s(code: str, *args: str) -> float:
    """Return the seconds of a Python process of its own."""
    import subprocess
    import time

    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *args], check=True, capture_output=True)  # noqa: S603 (our own code)
    return time.perf_counter() - start
