"""Score peak throughputs: the most output tokens per second of a system, whatever the load (TensorRT-LLM's overview).

As many sequences decode at once as memory and engine admit. B of them take B prompts, as many to a pass as its token budget
holds, and ``osl − 1`` steps:

    rate = B / (B·prompt + (osl − 1)·step(B)),    tokens/s = osl·rate

The overview runs models with experts under attention-DP, with experts over all ranks, whether the table calls that TP or
DEP (docs/source/developer-guide/perf-overview.md, "Running the Benchmark").
"""

import math
import re
from pathlib import Path
from typing import Any, Final

from clusters.measurements import path as shipped_file
from clusters.tablefile import read_table
from parallel.hybrids import served_model
from parallel.models import Moe
from parallel.serving.engines import engine
from parallel.serving.passes import Split
from parallel.serving.pipelines import pipeline, slot_s
from parallel.serving.queueing import StepCost
from parallel.serving.runs import Run, limits_of, worker
from parallel.validation import scoring
from parallel.validation.cases import Skip
from parallel.validation.link_rows import part
from parallel.validation.serving_rows import Cells, cells
from topo.errors import SpecError

SHIPPED: Final = "serving_trtllm_max_throughput.csv"
TEXTS: Final = ("model", "gpu", "parallel", "precision", "units")
NUMBERS: Final = ("isl", "osl", "value")
ASKED: Final = {(1024, 1024): 3000, (8192, 1024): 1500, (1024, 8192): 1500, (32768, 1024): 1000, (1024, 32768): 1000}
"""Lengths -> requests of a run (same page, "Preparing a Dataset"); 1000 tokens count as 1024."""
PARTS: Final = {
    "h100": "h100-sxm",
    "h200": "h200-sxm",
    "b200": "b200-sxm",
    "a100": "a100-sxm-80",
    "rtx": "rtx-pro-6000-server",
}
Row = dict[str, Any]


def read(file: str | Path | None) -> list[Cells]:
    """Return the lines of the shipped table, or of anyone's own."""
    table = read_table(file or shipped_file(SHIPPED), NUMBERS, TEXTS, ("doc_version",))
    table.pop("line")
    return list(cells(table))


def peak_rate(step_s: StepCost, prompt_s: float, room: float, isl: float, osl: float, asked: float = math.inf) -> float:
    """Most requests per second of a replica with room for so many, `prompt_s` being what a prompt takes.

    All that are asked come at once and are of one length, so they run in waves of the room, the last one of what is left.

    >>> def step_s(decoding, *rest): return 0.01
    >>> [round(peak_rate(step_s, 0.001, 4, 10, 101, n), 3) for n in (math.inf, 4, 6)]  # 4 in 4 ms + 1 s, 2 in 2 ms + 1 s
    [3.984, 3.984, 2.991]
    """

    def wave_s(batch: float) -> float:
        return batch * prompt_s + (osl - 1.0) * step_s(batch, batch * (isl + osl / 2.0), 0.0, 0.0)

    if asked == math.inf or asked <= room:
        batch = min(asked, room)
        return batch / wave_s(batch)
    full, left = divmod(asked, room)
    return asked / (full * wave_s(room) + (wave_s(left) if left >= 1.0 else 0.0))


def rows_of(lines: list[Cells], progress: Any = None) -> list[Row]:
    """Return a row for each line."""
    found = []
    for done, line in enumerate(lines, start=1):
        row: Row = {
            "id": f"{Path(SHIPPED).stem}:{done + 1}",
            "metric": "tokens_per_s",
            "kind": "peak throughput",
            "measured": float(line["value"]),
            "predicted": None,
            "ape": None,
            "interval": None,
            "interval_note": "no residuals of peak throughputs are stored",
            "skipped_because": None,
            "group": f"trtllm {line['gpu'].lower()} {line['model'].lower()} {line['precision']}, peak throughput",
            "notes": [],
            **{name: line.get(name, "") for name in ("model", "gpu", "parallel", "precision", "isl", "osl", "units")},
        }
        try:
            value = tokens_per_s(line)
        except Skip as why:
            row["skipped_because"], row["interval_note"] = why.reason, None
        else:
            row["predicted"], row["ape"] = value, scoring.ape(value, row["measured"])
        found.append(row)
        if progress is not None and done % 50 == 0:
            progress(done, len(lines), SHIPPED)
    return found


def tokens_per_s(line: Cells) -> float:
    """Return the peak of one line in its units: of the system, or of one accelerator.

    Raises
    ------
    Skip
        It names no system that can be priced.
    """
    name = line["gpu"].split(" ")[0].lower()
    chip = part(PARTS.get(name, name))
    if chip is None:
        raise Skip("accelerator not in the catalogue", line["gpu"])
    try:
        model = served_model(line["model"])
    except SpecError:
        raise Skip("model not known", line["model"]) from None
    sizes = {key.lower(): float(value) for key, value in re.findall(r"([A-Za-z]+)\s*=?\s*(\d+)", line["parallel"])}
    tp, pp = sizes.get("tp", 1.0), sizes.get("pp", 1.0)
    routed = any(isinstance(kind.mlp, Moe) for kind in model.layers)
    ranks = max(tp, sizes.get("dep", 1.0))
    split = Split(1.0, ranks, 1.0, ranks, pp) if routed else Split(tp, pp=pp)
    base = engine("trtllm")
    precision = {"nvfp4": "fp4", "mxfp4": "fp4"}.get(line["precision"], line["precision"])
    isl, osl = float(line["isl"]), float(line["osl"])
    run = Run("trtllm", model, chip, precision, split, 1.0, isl, osl)
    replica, whole = worker(run, split, base, base.defaults)
    limits = limits_of(replica, base.defaults, base)
    cost = pipeline(replica, base, limits.tokens, graphs=base.defaults.graphs) if pp > 1 else whole
    asked = ASKED.get((_rounded(isl), _rounded(osl)), math.inf) / split.dp
    room = min(limits.sequences, limits.positions / (isl + osl + limits.kept))
    if room < 1:
        raise Skip("split not of one replica", "the weights leave no room for a sequence")
    tokens = osl * peak_rate(cost, slot_s(cost, limits.tokens, isl), room, isl, osl, asked) * split.dp
    return tokens / split.ranks if "gpu" in line["units"].lower() else tokens


def _rounded(tokens: float) -> int:
    return 1024 if tokens == 1000 else int(tokens)
