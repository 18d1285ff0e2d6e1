"""Kernels of MoE exchanges: what each regime's kernels do, and how many multiprocessors they keep busy.

Regimes are those of `clusters.tunings`, whose constants the same kernels have.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from clusters.kernel_models import kernel as kernel_model
from collectives.moe_kernel import Kernel, at_work
from topo.columns import Column, ColumnLike

LOW_LATENCY: Final = Kernel("expert", per_expert=True)
NORMAL: Final = Kernel("node", lent=20)
STORES: Final = Kernel("rank", in_turn=True)

KERNELS: Final[Mapping[str, Kernel]] = MappingProxyType(
    {
        "low-latency": LOW_LATENCY,
        "normal": NORMAL,
        **{f"low-latency-{who}": LOW_LATENCY for who in ("vllm", "trtllm", "v2")},
        **{f"normal-{who}": NORMAL for who in ("vllm", "trtllm", "v2")},
        **dict.fromkeys(("one-sided", "two-sided", "mnnvl"), STORES),
    }
)
"""Regime -> its kernels. Sources: deepseek-ai/DeepEP, README (copies) and Buffer.num_sms (20 multiprocessors unless told);
NVIDIA/TensorRT-LLM, moeAlltoAllKernels.cu (a row goes once to each rank; rows of a token are added once they have come)."""


def multiprocessors(part: str, like: str = "") -> int:
    """Return the multiprocessors of an accelerator; those of its stand-in where it has no constants of kernels.

    >>> multiprocessors("h100-sxm"), multiprocessors("b200-sxm")
    (132, 148)
    """
    return kernel_model(part, "bf16", like).multiprocessors


def workers(regime: str, part: str, experts: ColumnLike, like: str = "", lent: ColumnLike | None = None) -> Column:
    """Return the multiprocessors that a regime's kernels keep busy on an accelerator.

    Parameters
    ----------
    regime, part, like
        Keys of the kernels, the accelerator and, for one's own, the accelerator that it is like.
    experts
        Experts of the group.
    lent
        Multiprocessors lent to kernels that run on a part of them; their own default where None.

    Examples
    --------
    >>> workers("normal", "h100-sxm", 256), workers("low-latency", "h100-sxm", 256), workers("one-sided", "gb200", 256)
    (array(20.), array(128.), array(152.))
    """
    kernel = KERNELS[regime]
    given = (kernel.lent if lent is None else lent) if kernel.lent else multiprocessors(part, like)
    return at_work(kernel, experts, given)
