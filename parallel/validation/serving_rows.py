"""Rows of a table of serving measurements, as runs: which model, accelerator, split and load each one names.

A row that cannot be a run is skipped for one of `SKIPS`, found from its inputs before anything is priced.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from clusters.catalogue import key_of
from clusters.measurements import Table
from parallel.hybrids import served_model
from parallel.models import Moe
from parallel.placement import BOX
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
    "row set aside": "it measures something else; parallel.validation.serving_rows lists which and why",
}
"""Reason -> what it means. A row's `skipped_because` is one of these, with the particulars after a colon."""

ASIDE: Final = (
    *(
        f"2026_04_06_gpt_oss_120b_h100_sxm_vllm_fp4_agg_1024x1024_c512_{end}"
        for end in ("tp8_ep1_1134", "tp2_ep1_1135")
    ),
    *(
        f"2026_04_06_gpt_oss_120b_h100_sxm_vllm_fp4_agg_1024x8192_c512_{end}"
        for end in ("tp8_ep1_1128", "tp2_ep1_1131", "tp4_ep1_1132")
    ),
    *(
        f"2026_04_06_gpt_oss_120b_h100_sxm_vllm_fp4_agg_8192x1024_c512_{end}"
        for end in ("tp2_ep1_1129", "tp4_ep1_1130")
    ),
)
"""Rows labelled with 512 clients whose places in the engine are not stated. Their TPOT is that of twins with 4 to 64 clients, and
a first token takes 4.5 whole decodings: what ten prompts for each place take if all are sent at once."""
TOTAL: Final = "tp may be a total"
DIFFERS: Final = "differs from gpus"
DRAFTED: Final = re.compile(
    r"20\d\d_\d\d_\d\d_deepseek_r1_"
    r"|2026_03_25_qwen3_5_397b_b200_sxm_sglang_fp8_"
    r"|qwen3_5_397b_gap_analysis_.*_b200_sxm_sglang_fp8_agg_.*_tp4_ep1_"
)
"""How the ids begin of sheets that hold InferenceX's runs with multi-token prediction (its configurations named -mtp), and of
copies of these. Twins of one release without it, whose ids begin otherwise, take 1.2 to 2.3 times as long for a token, and less
for the first one."""
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
    if row.get("id") in ASIDE:
        raise Skip("row set aside", "512 clients on fewer places")
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
        "drafted": DRAFTED.match(row.get("id", "")) is not None,
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
    if dp > BOX and ep == 1 and row["engine"] == "sglang":
        etp, ep = 1.0, etp  # DeepEP, which decodes across boxes, sets the expert group to all ranks (server_args.py)
    if etp * ep != tp * dp:
        raise Skip("split not of one replica", f"{etp:.0f}·{ep:.0f} expert ranks on {tp * dp:.0f}")
    return Split(tp, dp, etp, ep)


def _replicas(row: Cells, clients: float, split: Split) -> float:
    """Replicas behind one address: a batch listed below the clients of a worker without attention-DP is one replica's."""
    listed = number(row, "listed_batch_size", clients)
    return clients / listed if split.dp == 1 and 0 < listed < clients else 1.0
