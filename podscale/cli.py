"""The command `podscale`: which commands there are, and how each of them ends.

Exit codes: 0 for an answer, 2 for a wrong file or flag, 3 for a valid wish that cannot run, 1 for a fault of podscale's
own. Nothing that costs is imported here: ``podscale --help`` answers in a tenth of a second.
"""

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from podscale import __version__, door
from podscale.commands import (
    bench,
    breakeven,
    calibrate,
    claims,
    collective,
    compare,
    diff,
    doctor,
    explain,
    explore,
    listing,
    new,
    pipeline,
    rl,
    scenario,
    sensitivity,
    size,
    sweep,
    topo,
    validate,
)
from topo.errors import PodscaleError

app = typer.Typer(
    name="podscale",
    help="How should this model be split over this cluster, how fast will it go, what stops it going faster, "
    "and what would the same silicon do wired differently?",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_COMMANDS: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("compare", compare.compare, "Same silicon, other scale-up domains: split, speed, bottleneck."),
    ("train", scenario.train, "Price one training run."),
    ("serve", scenario.serve, "Price one serving deployment."),
    ("rl", rl.rl, "Price reinforcement learning: write, train, update."),
    ("sweep", sweep.sweep, "Search strategies, workloads and clusters: best, front, reasons."),
    ("explain", explain.explain, "Account for a result: equations, bottleneck, what would help."),
    ("sensitivity", sensitivity.sensitivity, "What moves throughput, and what to buy next."),
    ("break-even", breakeven.breakeven, "Where one design stops beating another."),
    ("size", size.size, "The smallest cluster for a demand, or the fastest for a budget."),
    ("diff", diff.diff, "What changed between two results, and why."),
    ("validate", validate.validate, "Score the predictions against measurements."),
    ("calibrate", calibrate.calibrate, "Fit the constants to your own measurements."),
    ("list", listing.listing, "List what can be named."),
    ("new", new.new, "Write a file to start from: a cluster, a model or a sweep."),
    ("topo", topo.topo, "Describe a cluster: tiers, parts, watts, price."),
    ("collective", collective.collective, "Price one collective, beside the bound that none beats."),
    ("pipeline", pipeline.pipeline, "Run a pipeline schedule exactly, and say why its stages wait."),
    ("claims", claims.claims, "Check the claims of the sources, all of them."),
    ("claim", claims.claim, "Run one claim, change its inputs, draw it."),
    ("explore", explore.explore, "Change a design by hand on a local page; the answer follows."),
    ("bench", bench.bench, "Measure podscale itself."),
    ("doctor", doctor.doctor, "Look whether everything is here."),
)
for _name, _command, _short in _COMMANDS:
    app.command(_name, short_help=_short)(_command)


def _version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        typer.echo(f"podscale {__version__}")
        raise typer.Exit


@app.callback()
def _podscale(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    >>> main(["--version"])
    podscale 0.1.0
    0
    """
    if argv is None:
        _start_lightly()
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    as_json = "--json" in args
    try:
        code: Any = app(args, prog_name="podscale", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, door.ReaderLeftError):
        return _reader_left()
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("podscale: stopped\n")
        return 130
    except PodscaleError as error:
        return door.complain(error, as_json=as_json)
    except Exception as error:
        return _fallen(error, as_json=as_json)
    return code if isinstance(code, int) else door.OK


def _start_lightly() -> None:
    """Leave out what a process of its own does not need: a tenth of a second of every answer.

    Pydantic looks for plugins in the metadata of every package; the interpreter looks for cycles among modules that stay,
    again and again, and once more before it drops them.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)


def _fallen(error: Exception, *, as_json: bool) -> int:
    """End a run on anything else: a flag that Typer refused, or a fault of podscale's own."""
    if not hasattr(error, "format_message"):
        if os.environ.get("PODSCALE_TRACEBACK"):
            raise error
        error = RuntimeError(
            f"a fault of podscale's own, {type(error).__name__}: {error}. "
            "Set PODSCALE_TRACEBACK=1 to see where, and please report it."
        )
    return door.complain(error, as_json=as_json)


def _reader_left() -> int:
    """End quietly: the interpreter's last flush goes nowhere."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return door.OK
