"""The commands as Python functions: each returns the document that `--json` prints, which shows itself.

>>> import podscale
>>> answer = podscale.collective("all_reduce", cluster="hgx-h100", ranks=8, size_bytes=2**28)
>>> answer["algorithm"], answer["time_s"] > answer["lower_bound_s"]
('nvls', True)

At a prompt an answer prints what the command prints; in a notebook it shows itself as HTML (`_repr_html_`).
"""

from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podscale.door import plain

if TYPE_CHECKING:
    from rich.console import Console

Draw = Callable[["Console", Mapping[str, Any]], None]
WIDTH = 110


class Answer(dict[str, Any]):
    """A document that knows how it is shown."""

    def __init__(self, document: Mapping[str, Any], draw: Draw) -> None:
        super().__init__(plain(document))
        self._draw = draw

    def _recorded(self) -> "Console":
        from rich.console import Console

        console = Console(record=True, width=WIDTH, file=StringIO(), highlight=False)
        self._draw(console, self)
        return console

    def __str__(self) -> str:
        """Write what the command prints, without colours."""
        return self._recorded().export_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Write what the command prints as HTML, for notebooks."""
        return self._recorded().export_html(inline_styles=True, code_format="<pre style='line-height:1.2'>{code}</pre>")


def compare(**fields: Any) -> Answer:
    """Compare scale-up domains; fields as of `parallel.compare.CompareRequest`."""
    from parallel.compare import CompareRequest
    from parallel.compare import compare as run
    from podscale.render import draw_compare

    return Answer(run(CompareRequest(**fields)), draw_compare)


def train(scenario: str | Path) -> Answer:
    """Price the training run of a scenario file."""
    from parallel.scenario import train as run
    from podscale.tables import draw_train

    return Answer(run(scenario), draw_train)


def serve(scenario: str | Path, limit: str | None = None) -> Answer:
    """Price the deployment of a scenario file."""
    from parallel.scenario import serve as run
    from podscale.tables import draw_serve

    return Answer(run(scenario, limit=limit), draw_serve)


def rl(scenario: str | Path) -> Answer:
    """Price the reinforcement learning of a scenario file."""
    from parallel.rl.answer import rl as run
    from podscale.rlwords import draw_rl

    return Answer(run(scenario), draw_rl)


def sweep(spec: str | Path, executor: str = "auto", budget: int = 0) -> Answer:
    """Do the sweep of a file."""
    from dataclasses import replace

    from parallel.sweeps.answer import sweep as run
    from parallel.sweeps.specfile import read_sweep
    from podscale.sweepwords import draw_sweep

    asked = read_sweep(spec)
    return Answer(run(replace(asked, budget=budget or asked.budget), executor), draw_sweep)


def collective(
    op: str, *, cluster: str, ranks: int, size_bytes: float, algorithm: str = "auto", fidelity: str = "stepwise"
) -> Answer:
    """Price one collective on a cluster, beside the bound that none beats."""
    from clusters.build import build
    from clusters.collective import collective as price
    from clusters.spec import load
    from podscale.tables import draw_collective

    built = build(load(cluster, wiring=True))
    return Answer(price(built, op, ranks, size_bytes, algorithm, fidelity), draw_collective)


def validate(name: str, file: str | None = None) -> Answer:
    """Score the predictions against measurements, those that ship or your own."""
    from parallel.validation.sets import validate as run
    from podscale.tables import draw_validation

    return Answer(run(name, file=file), draw_validation)


def claims(**inputs: str) -> Answer:
    """Run every claim of the sources."""
    from parallel.claims import claims as run
    from podscale.claimwords import draw_claims

    return Answer(run(inputs), draw_claims)


def claim(name: str, **inputs: str) -> Answer:
    """Run one claim."""
    from parallel.claims import claim as run
    from podscale.claimwords import draw_claim

    return Answer(run(name, inputs), draw_claim)
