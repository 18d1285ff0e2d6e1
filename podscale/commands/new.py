"""`podscale new`: a commented file to start from, and the JSON Schema with which editors complete and check it."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door
from topo.errors import Fault, SpecError

STARTERS = Path(__file__).parents[1] / "starters"


@dataclass(frozen=True, slots=True)
class Starter:
    """A kind of file: where its starter lies, what makes its schema, and the command to run next."""

    file: str
    schema: Callable[[], dict[str, Any]]
    next: str

    @property
    def text(self) -> str:
        """The starter, as it is written."""
        return (STARTERS / self.file).read_text(encoding="utf-8")


def _cluster_schema() -> dict[str, Any]:
    """Return the schema of a cluster file."""
    from clusters.specfile import json_schema

    return json_schema()


def _model_schema() -> dict[str, Any]:
    """Return the schema of a model file."""
    from parallel.modelschema import model_schema

    return model_schema()


def _sweep_schema() -> dict[str, Any]:
    """Return the schema of a sweep file."""
    from parallel.sweeps.specfile import json_schema

    return json_schema()


KINDS: dict[str, Starter] = {
    "cluster": Starter("cluster.yaml", _cluster_schema, "podscale topo {file}"),
    "model": Starter("model.yaml", _model_schema, "podscale compare --model {file}"),
    "sweep": Starter("sweep.yaml", _sweep_schema, "podscale sweep {file}"),
}


def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of {', '.join(KINDS)}.")],
    out: Annotated[Path | None, typer.Option(help="Write it here instead of on stdout.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="The JSON Schema of the file, for editors.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a commented file to start from: a cluster, a model or a sweep."""
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1)
        remedy = f"write {near[0]}" if near else f"choose one of {', '.join(KINDS)}"
        raise SpecError([Fault("KIND", kind, "there is no starter of that kind", remedy)])
    starter = KINDS[kind]
    text = schema_text(kind) if schema else starter.text
    if out is not None:
        write(out, text, force=force)
    document: dict[str, Any] = {"kind": kind, "file": None if out is None else str(out)}
    document |= {"schema": json.loads(text)} if schema else {"text": text}
    said = text
    if out is not None:
        said = f"wrote {out}\n" if quiet or schema else f"wrote {out}; next: {starter.next.format(file=out)}\n"
    Door(as_json, quiet).answer(document, lambda *_: _say(said))


def _say(text: str) -> None:
    """Print text as it is, without the widths and colours of a console."""
    sys.stdout.write(text)


def schema_text(kind: str) -> str:
    """Return the JSON Schema of a kind of file, as it is published."""
    return json.dumps(KINDS[kind].schema(), indent=2, ensure_ascii=False) + "\n"


def write(out: Path, text: str, *, force: bool = False) -> None:
    """Write a file.

    Raises
    ------
    SpecError
        The place is taken (and `force` is not set), a folder, or cannot be written.
    """
    if out.is_dir():
        raise SpecError([Fault("--out", str(out), "is a folder", f"name a file: {out / 'my.yaml'}")])
    if out.exists() and not force:
        raise SpecError([Fault("--out", str(out), "exists already", "choose another name, or add --force")])
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as why:
        raise SpecError(
            [Fault("--out", str(out), f"cannot be written ({why.strerror})", "choose another place")]
        ) from None
