"""Rows of a table of serving measurements, as runs: which model, accelerator, split and load each one names.

A row that cannot be a run is skipped for one of `SKIPS`, found from its inputs before anything is priced.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from clusters.catalogue import key_of
from clusters.measurements import Table
from parallel.hybrids import served_model
from parallel.models import Moe
from parallel.serving.engines import ALIASES, engine_names
from parallel.serving.passes import Split
from parallel.serving.runs import Run
from parallel.validation.cases import Skip
from parallel.validation.link_rows import part
from topo.errors import SpecError

SKIPS: Final = {
    "engine not modelled": "no constants stand for it",
    "model not known": "its shape does not ship",
    "accelerator not in the catalogue": "no data sheet figures, so no price",
    "clients not stated": "the load is unknown",
    "worker counts not stated": "what each of several workers does is unknown",
    "split not of one replica": "tp, or the product of the experts' split, is of a whole system or of nothing",
}
"""Reason -> what it means. A row's `skipped_because` is one of these, with the particulars after a colon."""

TOTAL: Final = "tp may be a total"
DIFFERS: Final = "differs from gpus"
DRAFTS: Final = "speculative decoding"
MOST_TP: Final = 16
"""Ranks that an engine splits attention over; a larger tp in a table counts the accelerators of a whole system."""
Cells = Mapping[str, str]


def cells(table: Table) -> Iterator[Cells]:
    """Yield the rows of a table as words."""
    columns = {key: [_word(value) for value in values.tolist()] for key, values in table.items()}
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _word(value: object) -> str:
    """Return a cell as it was written: blank where there is no number, whole numbers without a point."""
    if not isinstance(value, float):
        return str(value)
    return "" if value != value else f"{value:.17g}"  # noqa: PLR0124


def number(row: Cells, key: str, default: float = 0.0) -> float:
    """Return a cell as a number, the default where it is blank or absent."""
    cell = row.get(key, "")
    return float(cell) if cell else default


def run_of(row: Cells, *, sized: bool = True) -> Run:
    """Turn a row into a run; `sized` where its tool sizes the token budget by the load.

    Raises
    ------
    Skip
        It is none.
    """
    name = ALIASES.get(key_of(row["engine"]), key_of(row["engine"]))
    if name not in engine_names():
        raise Skip("engine not modelled", row["engine"])
    chip = part(row["system"])
    if chip is None:
        raise Skip("accelerator not in the catalogue", row["system"])
    try:
        model = served_model(row["model"])
    except SpecError:
        raise Skip("model not known", row["model"]) from None
    clients = number(row, "concurrency")
    if not clients:
        raise Skip("clients not stated")
    note = row.get("note", "")
    common: dict[str, Any] = {
        "engine": name,
        "model": model,
        "part": chip,
        "precision": row.get("precision", "") or "bf16",
        "isl": number(row, "isl"),
        "osl": number(row, "osl"),
        "gemm_quant": row.get("gemm_quant", ""),
        "version": row.get("engine_version", ""),
        "sized": sized,
        "drafted": DRAFTS in note,
    }
    routed = any(isinstance(kind.mlp, Moe) for kind in model.layers)
    if row.get("mode") == "disagg":
        before, after = number(row, "prefill_num_workers"), number(row, "decode_num_workers")
        if not before or not after:
            raise Skip("worker counts not stated")
        splits = {side: _split(row, f"{side}_", routed=routed) for side in ("prefill", "decode")}
        return Run(
            clients=clients, split=splits["decode"], prefill=splits["prefill"], workers=(before, after), **common
        )
    if TOTAL in note or DIFFERS in note:
        raise Skip("split not of one replica", note)
    split = _split(row, "", routed=routed)
    if split.tp > MOST_TP:
        raise Skip("split not of one replica", f"tp {split.tp:.0f}")
    return Run(clients=clients / _replicas(row, clients, split), split=split, **common)


def _split(row: Cells, side: str, *, routed: bool) -> Split:
    tp, dp = number(row, f"{side}tp", 1.0), number(row, f"{side}attention_dp", 1.0) or 1.0
    etp, ep = number(row, f"{side}moe_tp") or 0.0, number(row, f"{side}moe_ep") or 0.0
    if side and dp == tp > 1 and etp * ep == tp:
        tp = 1.0  # attention-DP over the ranks that tp counts
    if not routed or not etp or not ep:
        return Split(tp, dp, 1.0, 1.0)
    if etp * ep != tp * dp:
        raise Skip("split not of one replica", f"{etp:.0f}·{ep:.0f} expert ranks on {tp * dp:.0f}")
    return Split(tp, dp, etp, ep)


def _replicas(row: Cells, clients: float, split: Split) -> float:
    """Replicas behind one address: a batch listed below the clients of a worker without attention-DP is one replica's."""
    listed = number(row, "listed_batch_size", clients)
    return clients / listed if split.dp == 1 and 0 < listed < clients else 1.0
