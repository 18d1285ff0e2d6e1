"""Fused attention on one accelerator: what share of the BF16 peak its scores and weighted sums reach."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from clusters.kernels import KernelModel, streaming_s
from topo.columns import Column, ColumnLike, column

_FILE = Path(__file__).parent / "data" / "attention.yaml"


@dataclass(frozen=True, slots=True)
class AttentionModel:
    """Efficiency of fused attention kernels, as shares of the dense BF16 peak.

    Attributes
    ----------
    forward, backward : attention over keys and values of each head
    latent : decoding over a latent that all heads share, absorbed into the queries (DeepSeek-V2 2405.04434 §2.1.2)
    """

    forward: float
    backward: float
    latent: float
    note: str = ""


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    data: dict[str, Any] = yaml.load(_FILE.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return data


@lru_cache(maxsize=64)
def attention_model(generation: str) -> AttentionModel:
    """Return the constants of a GPU generation, or those of the default one with a note that says so.

    >>> round(attention_model("ampere").forward, 2)
    0.61
    """
    data = _data()
    known = generation in data["forward"]
    used = generation if known else data["default"]
    forward = float(data["forward"][used]["value"])
    note = "" if known else f"no published attention figure for {generation}: that of {used} is used"
    latent = float(data["latent"].get(used, data["forward"][used])["value"])
    return AttentionModel(forward, forward * float(data["backward"]["value"]), latent, note)


def attention_s(
    flops: ColumnLike, size_bytes: ColumnLike, efficiency: float, kernel: KernelModel, peak_flops: float, hbm_Bps: float
) -> Column:
    """Time of an attention core: launch + max(flops / (efficiency · peak), streaming of its bytes).

    >>> from clusters.kernels import kernel
    >>> h100 = kernel("h100-sxm", "bf16")
    >>> seconds = float(attention_s(1e12, 0.0, 0.5, h100, 1e15, 3.35e12))
    >>> round(seconds - h100.launch_s, 6)  # 1 TFLOP at half of 1 PFLOP/s
    0.002
    """
    return kernel.launch_s + np.maximum(
        column(flops) / (efficiency * peak_flops), streaming_s(size_bytes, kernel, hbm_Bps)
    )
