"""Layouts: which layer sits on which pipeline stage, in Megatron-Core's layout strings, in words and in seconds.

A `Layout` lists what each virtual stage holds, in the order of the model; virtual stage j sits on stage j mod `stages`.
It is a table of counts, so the times of its stages are columns: one layout, any number of strategies. The rules that
choose a layout are in `parallel.training.splits`.
Printed, a layout is the string that Megatron-Core reads (`pipeline_model_parallel_layout`); `describe` tells it in words.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError

Counts = npt.NDArray[np.int64]
_MOST = 100_000  # layers that a layout string may unroll to
_LETTERS = {"E": "embedding", "t": "decoder", "m": "mtp", "L": "loss"}


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one virtual stage holds: layers, modules for multi-token prediction (MTP), and the ends of the model."""

    layers: int
    embedding: bool = False
    mtp: int = 0
    head: bool = False

    def __str__(self) -> str:
        """Megatron-Core's letters."""
        body = "t" * self.layers if self.layers < 3 else f"t*{self.layers}"
        return "E" * self.embedding + body + "m" * self.mtp + "L" * self.head


@dataclass(frozen=True, slots=True)
class Layout:
    """A placement of the layers: the virtual stages in the order of the model.

    Examples
    --------
    >>> layout = Layout(2, (Chunk(2, embedding=True), Chunk(2), Chunk(2), Chunk(1, head=True)))
    >>> layout.chunks, layout.layers, str(layout)
    (2, 7, 'Ett|tt|tt|tL')
    """

    stages: int
    virtual: tuple[Chunk, ...]

    @property
    def chunks(self) -> int:
        """Virtual stages per stage (vpp)."""
        return len(self.virtual) // self.stages

    @property
    def layers(self) -> int:
        """All layers, MTP modules not counted."""
        return sum(chunk.layers for chunk in self.virtual)

    def __str__(self) -> str:
        """Return the layout string of Megatron-Core, repeated stages folded."""
        last = len(self.virtual) - 1
        runs = [list(run) for _, run in groupby(enumerate(self.virtual), key=lambda at: (at[1], at[0] == last))]
        said = []
        for run in runs:
            index, chunk = run[-1]
            one = f"{chunk}|" if index != last else f"{chunk}"
            said.append(f"({one})*{len(run)}" if len(run) > 2 else one * len(run))
        return "".join(said)


def describe(layout: Layout) -> str:
    """Tell a layout in words: per (virtual) stage its layers, equal neighbours together.

    Examples
    --------
    >>> describe(parse_layout("Et*4|(t*4|)*14tmL", stages=4))
    '4 stages × 4 chunks: embedding + 4, 14 × 4, 1 + MTP + head'
    """

    def said(chunk: Chunk) -> str:
        ends = ["embedding"] * chunk.embedding, ["MTP"] * bool(chunk.mtp), ["head"] * chunk.head
        return " + ".join(
            [*ends[0], *([str(chunk.layers)] if chunk.layers or not any(ends) else []), *ends[1], *ends[2]]
        )

    runs = [(text, len(list(run))) for text, run in groupby(map(said, layout.virtual))]
    where = f"{layout.stages} stages" + (f" × {layout.chunks} chunks" if layout.chunks > 1 else "")
    return f"{where}: " + ", ".join(text if n == 1 else f"{n} × {text}" for text, n in runs)


def of_sizes(sizes: Sequence[int], stages: int, mtp: int = 0) -> Layout:
    """Return the layout with that many layers in each virtual stage, the embedding first, MTP and head last.

    >>> print(of_sizes([3, 4], 2))
    Et*3|t*4L
    """
    last = len(sizes) - 1
    virtual = (Chunk(int(n), i == 0, mtp if i == last else 0, i == last) for i, n in enumerate(sizes))
    return Layout(stages, tuple(virtual))


# --- reading ----------------------------------------------------------------------------------------------------


def parse_layout(
    layout: str | Sequence[Sequence[str]],
    stages: int,
    *,
    layers: int | None = None,
    mtp: int | None = None,
    chunks: int | None = None,
    field: str = "pipeline_model_parallel_layout",
) -> Layout:
    """Read a layout as Megatron-Core writes it: a string, or lists of "embedding", "decoder", "mtp" and "loss".

    In a string, ``|`` parts the virtual stages; E is the embedding, t a layer, m an MTP module, L head and loss; ``t*4``
    is four of them, ``(tt|)*3`` a repeated group; commas mean nothing. The virtual stages go round the stages.

    Parameters
    ----------
    stages : pipeline stages (pp)
    layers, mtp, chunks : what the model and the strategy hold, to be checked where given

    Raises
    ------
    SpecError
        With everything that is wrong: unknown letters, a count that is not the model's, an end that is missing, MTP
        modules before layers, apart from one another, on the first stage or not in a stage's last chunk.
        Source: Megatron-LM, megatron/core/transformer/pipeline_parallel_layer_layout.py.

    Examples
    --------
    >>> print(parse_layout("Et*2|(tt|)*2,tL", stages=2, layers=7))
    Ett|tt|tt|tL
    """
    written = layout if isinstance(layout, str) else "|".join("".join(_letter(name) for name in row) for row in layout)

    def fault(problem: str, remedy: str) -> Fault:
        return Fault(field, written, problem, remedy)

    flat = _unrolled(written)
    if flat is None:
        raise SpecError([fault(f"unrolls to more than {_MOST:,} layers", "repeat less often")])
    unknown = sorted(set(flat) - {*_LETTERS, "|"})
    if unknown:
        remedy = "E, t, m and L stand for embedding, layer, MTP and loss; write t*4 or (tt|)*3 for several, unnested"
        raise SpecError([fault(f"holds {' '.join(map(repr, unknown))}, which stands for nothing", remedy)])
    rows = flat.split("|")
    faults = [
        *_ends(rows, fault),
        *_totals(rows, stages, {"layers": layers, "MTP modules": mtp, "chunks per stage": chunks}, fault),
        *_mtp(rows, stages, fault),
    ]
    if faults:
        raise SpecError(faults)
    virtual = (Chunk(row.count("t"), "E" in row, row.count("m"), "L" in row) for row in rows)
    return Layout(stages, tuple(virtual))


def _letter(name: object) -> str:
    """Return the letter of a layer type."""
    return next((letter for letter, said in _LETTERS.items() if said == str(name).strip().lower()), f"<{name}>")


def _unrolled(text: str) -> str | None:
    """Write out the repetitions, groups first; nothing where that is too long."""
    flat = re.sub(r"[,\s]", "", text)
    for pattern in (r"\(([^()]+)\)\*(\d+)", r"([^*|()])\*(\d+)"):
        if sum(len(m[1]) * int(m[2]) for m in re.finditer(pattern, flat)) > _MOST:
            return None
        flat = re.sub(pattern, lambda m: m[1] * int(m[2]), flat)
    return flat


def _ends(rows: Sequence[str], fault: Callable[[str, str], Fault]) -> list[Fault]:
    """Check that the embedding opens the first stage and the loss closes the last, once each."""
    flat = "".join(rows)
    faults = []
    if flat.count("E") != 1 or not rows[0].startswith("E"):
        faults.append(fault("does not begin with the one embedding", "write E first, and only there"))
    if flat.count("L") != 1 or not rows[-1].endswith("L"):
        faults.append(fault("does not end with the one loss", "write L last, and only there"))
    return faults


def _totals(
    rows: Sequence[str], stages: int, wanted: dict[str, int | None], fault: Callable[[str, str], Fault]
) -> list[Fault]:
    """Check the counts against the model's and the strategy's."""
    flat = "".join(rows)
    found = {"layers": flat.count("t"), "MTP modules": flat.count("m"), "chunks per stage": len(rows) // max(stages, 1)}
    if stages < 1 or len(rows) % stages:
        return [
            fault(f"has {len(rows)} virtual stages, not a multiple of {stages} stages", "write as many | as needed")
        ]
    return [
        fault(f"has {found[name]} {name}, not {wish}", f"make it {wish}")
        for name, wish in wanted.items()
        if wish is not None and found[name] != wish
    ]


def _mtp(rows: Sequence[str], stages: int, fault: Callable[[str, str], Fault]) -> list[Fault]:
    """Check where the MTP modules stand."""
    at = [index for index, row in enumerate(rows) if "m" in row]
    if not at:
        return []
    faults = []
    if "t" in "".join(rows).partition("m")[2]:
        faults.append(fault("has layers after an MTP module", "write every m behind the last t"))
    if len(at) > 1:
        faults.append(fault("parts the MTP modules", "write every m in one virtual stage"))
    if stages > 1 and any(index % stages == 0 for index in at):
        faults.append(fault("puts MTP modules on the first stage", "write m on a later stage"))
    if any(index < len(rows) - stages for index in at):
        faults.append(fault("puts MTP modules before a stage's last chunk", "write m in the last round of stages"))
    return faults


# --- times ------------------------------------------------------------------------------------------------------


def kind_counts(layout: Layout, order: Sequence[int]) -> Counts:
    """Return the layers of each kind on each virtual stage, (virtual stages, kinds); `order` is the kind of each layer.

    >>> kind_counts(of_sizes([3, 2], 2), (0, 1, 1, 1, 1)).tolist()
    [[1, 2], [0, 2]]
    """
    if len(order) != layout.layers:
        raise SpecError([Fault("layout", str(layout), f"has {layout.layers} layers, the model {len(order)}")])
    where = np.repeat(np.arange(len(layout.virtual)), [chunk.layers for chunk in layout.virtual])
    held = np.zeros((len(layout.virtual), max(order, default=0) + 1), dtype=np.int64)
    np.add.at(held, (where, np.asarray(order, dtype=np.int64)), 1)
    return held


def chunk_times(
    layout: Layout,
    order: Sequence[int],
    costs: Sequence[ColumnLike],
    *,
    first: ColumnLike = 0.0,
    last: ColumnLike = 0.0,
    mtp: ColumnLike = 0.0,
) -> Column:
    """Return the time of each virtual stage, (virtual stages, *columns).

    Parameters
    ----------
    order : the kind of each layer, from first to last (`parallel.shapes.layer_order`)
    costs : seconds per layer of each kind
    first, last, mtp : seconds of the embedding, of head and loss, of one MTP module

    Examples
    --------
    >>> chunk_times(of_sizes([3, 2], 2), (0, 1, 1, 1, 1), [1.0, 2.0], last=0.5).tolist()
    [5.0, 4.5]
    """
    chunks = layout.virtual
    ends = np.array([[chunk.embedding, chunk.head, chunk.mtp] for chunk in chunks], dtype=np.float64)
    amounts = np.stack(np.broadcast_arrays(*(column(c) for c in costs), column(first), column(last), column(mtp)))
    held = np.hstack([np.zeros((len(chunks), len(costs))), ends])
    kinds = kind_counts(layout, order)
    held[:, : kinds.shape[1]] = kinds
    return np.asarray(np.tensordot(held, amounts, axes=1))


def stage_times(
    layout: Layout,
    order: Sequence[int],
    costs: Sequence[ColumnLike],
    *,
    first: ColumnLike = 0.0,
    last: ColumnLike = 0.0,
    mtp: ColumnLike = 0.0,
) -> Column:
    """Return the time of each stage, all its chunks together, (stages, *columns); arguments as `chunk_times`.

    >>> stage_times(of_sizes([2, 2, 2, 1], 2), (0,) * 7, [1.0], last=0.5).tolist()
    [4.0, 3.5]
    """
    times = chunk_times(layout, order, costs, first=first, last=last, mtp=mtp)
    return np.asarray(times.reshape(layout.chunks, layout.stages, *times.shape[1:]).sum(axis=0))


def stage_rows(
    layout: Layout, order: Sequence[int], names: Sequence[str], times: Sequence[float] | None = None
) -> list[dict[str, Any]]:
    """Return a row per virtual stage for tables and JSON: stage, chunk, layers by kind, ends, and seconds where known.

    >>> stage_rows(of_sizes([2, 1], 2), (0, 1, 1), ("dense", "moe"))[1]
    {'stage': 1, 'chunk': 0, 'layers': {'moe': 1}, 'embedding': False, 'mtp': 0, 'head': True}
    """
    rows = []
    for index, (chunk, held) in enumerate(zip(layout.virtual, kind_counts(layout, order), strict=True)):
        layers = {name: int(n) for name, n in zip(names, held, strict=False) if n}
        row = {"stage": index % layout.stages, "chunk": index // layout.stages, "layers": layers}
        row |= {"embedding": chunk.embedding, "mtp": chunk.mtp, "head": chunk.head}
        rows.append(row | ({} if times is None else {"seconds": float(times[index])}))
    return rows
