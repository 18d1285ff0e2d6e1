"""Assumptions that many claims share, by name: the model, the accelerator and its figures, the workload, the fleet."""

from dataclasses import replace
from typing import Any, Final

from parallel import economics
from parallel.claims.claim import Input
from parallel.claims.machines import part_of, peak_of

_ALL: Final = (
    Input("model", "deepseek-v3", says="a name of `podscale list models`"),
    Input("accelerator", "gb200", says="a name of `podscale list accelerators`"),
    Input("precision", "fp8", says="bf16, fp8 or nvfp4"),
    Input("hbm_bandwidth", lambda v: part_of(v).hbm_Bps, "bandwidth", "of one accelerator"),
    Input("hbm_capacity", lambda v: part_of(v).hbm_bytes, "bytes", "of one accelerator"),
    Input("peak_flops", lambda v: peak_of(part_of(v), v["precision"]), "flops", "dense, of one accelerator"),
    Input("kv_bytes", 1.0, "", "bytes per cached value"),
    Input("isl", 4096, "count", "tokens of the prompt"),
    Input("osl", 1024, "count", "tokens of the answer"),
    Input("tpot", 0.05, "seconds", "limit on the time per output token"),
    Input("ttft", 2.0, "seconds", "limit on the first token"),
    Input("accelerators", 72, "count", "accelerators in the cluster", doubled=True),
    Input("hour", lambda v: economics.hour_usd(str(v["accelerator"])), "", "USD for an accelerator's hour"),
)
SHARED: Final = {one.name: one for one in _ALL}
"""The shared inputs by name, in the order in which their defaults follow from each other."""
PART: Final = "accelerator precision hbm_bandwidth hbm_capacity peak_flops"
"""One accelerator and its figures."""
RACK: Final = f"model {PART} kv_bytes isl osl accelerators"
"""One model served on a cluster: 72 accelerators, wired as their makers do."""


def named(names: str, *own: Input, **defaults: Any) -> tuple[Input, ...]:
    """Return shared inputs by their names, some with another default, and then a claim's own.

    >>> [one.name for one in named("model isl", Input("batch", 8.0), isl=65536)]
    ['model', 'isl', 'batch']
    >>> named("isl", isl=65536)[0].default
    65536
    """
    picked = (SHARED[name] for name in names.split())
    return (*(replace(one, default=defaults.get(one.name, one.default)) for one in picked), *own)


def without(names: str, *dropped: str) -> str:
    """Return names without some of them.

    >>> without("model isl osl", "isl")
    'model osl'
    """
    return " ".join(name for name in names.split() if name not in dropped)
