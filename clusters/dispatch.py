"""Which of its all-reduce kernels a serving engine runs for so many ranks and bytes: by its own rules, which are facts.

A regime has rows for a link, or for a generation of GPUs, as `collectives.path.Dispatch`: ranks up to, then (bytes
below, algorithms) in order; the fastest of several runs. A larger group, a size beyond the last, or no algorithm is for
NCCL. Engines have these kernels for up to eight ranks.

Sources: vLLM, `csrc/custom_all_reduce.cuh` (one or two shots) and `vllm/distributed/device_communicators` (largest sizes
of `all_reduce_utils.py`, worlds that the switches add for of `symm_mem.py`); TensorRT-LLM,
`cpp/tensorrt_llm/common/customAllReduceUtils.h`, the tables of strategies for a hidden size of 4096 and no fusion, as of
1.2 and of 1.3; the limits of TensorRT-LLM 1.0 and of SGLang 0.5.14 are as measured.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from collectives.path import Dispatch, LinkModel
from topo.columns import Column

KiB: Final = 2.0**10
MiB: Final = 2.0**20
ONE, TWO, MANY = ("one_shot",), ("two_shot",), ("multimem",)
LIBRARY: Final = ()


def _custom(below: float) -> Dispatch:
    """Return the rules of vLLM's own kernels up to a size: two ranks read each other, four below 512 KiB, eight below 256.

    >>> _custom(8 * MiB)[1]
    (4, ((524288.0, ('one_shot',)), (8388608.0, ('two_shot',))))
    """
    return (
        (2, ((below, ONE),)),
        (4, ((512 * KiB, ONE), (below, TWO))),
        (8, ((256 * KiB, ONE), (below, TWO))),
    )


_UP_TO_8_MIB: Final = _custom(8 * MiB + 1)

#: vLLM with symmetric memory; the switches add for four ranks and eight of Hopper, for eight of Blackwell.
_SYMMETRIC_HOPPER: Final[Dispatch] = (
    (2, ((8 * MiB, ONE),)),
    (4, ((512 * KiB, ONE), (8 * MiB, TWO), (32 * MiB, MANY))),
    (8, ((256 * KiB, ONE), (64 * MiB, MANY))),
)
_SYMMETRIC_BLACKWELL: Final[Dispatch] = (
    (2, ((2 * MiB, ONE),)),
    (4, ((512 * KiB, ONE), (32 * MiB, TWO))),
    (8, ((256 * KiB, ONE), (1 * MiB, TWO), (128 * MiB, MANY))),
)
_SYMMETRIC_ULTRA: Final[Dispatch] = (
    (2, ((4 * MiB, ONE),)),
    (4, ((512 * KiB, ONE), (32 * MiB, TWO))),
    (8, ((256 * KiB, ONE), (4 * MiB, TWO), (64 * MiB, MANY))),
)

_TABLE_12_HOPPER: Final[Dispatch] = (
    (2, ((16 * KiB, ONE), (32 * KiB, TWO), (64 * KiB, ONE), (128 * KiB, TWO), (16 * MiB, ONE))),
    (4, ((64 * KiB, ONE), (1 * MiB, TWO), (2 * MiB, ONE), (8 * MiB, TWO))),
    (8, ((512 * KiB, ONE), (8 * MiB, TWO))),
)
_TABLE_12_BLACKWELL: Final[Dispatch] = (
    (2, ((16 * MiB, ONE),)),
    (4, ((4 * MiB, ONE), (8 * MiB, TWO))),
    (8, ((2 * MiB, ONE), (8 * MiB, TWO))),
)
_TABLE_13_HOPPER: Final[Dispatch] = (
    (2, ((32 * MiB, ONE),)),
    (4, ((2 * MiB, ONE), (16 * MiB, TWO))),
    (8, ((1 * MiB, ONE), (2 * MiB, LIBRARY), (8 * MiB, TWO))),
)
_TABLE_13_BLACKWELL: Final[Dispatch] = (
    (2, ((32 * MiB, ONE),)),
    (4, ((8 * MiB, ONE), (32 * MiB, TWO))),
    (8, ((4 * MiB, ONE), (64 * MiB, TWO))),
)
_OWN_2_MIB: Final[Dispatch] = ((8, ((2 * MiB, ONE + TWO),)),)
_OWN_16_MIB: Final[Dispatch] = ((8, ((16 * MiB + 1, ONE + TWO),)),)

#: Regime -> link or generation -> rules; "" for those that are not named.
DISPATCH: Final[Mapping[str, Mapping[str, Dispatch]]] = MappingProxyType(
    {
        "graph": {"": _UP_TO_8_MIB},
        "vllm-0.14": {"": _custom(8 * MiB)},
        "vllm": {
            "": _custom(8 * MiB),
            "nvlink4": _SYMMETRIC_HOPPER,
            "nvlink5": _SYMMETRIC_BLACKWELL,
            "blackwell-ultra": _SYMMETRIC_ULTRA,
        },
        "sglang": {"": _OWN_16_MIB},
        "trtllm": {"": _TABLE_13_HOPPER, "nvlink5": _TABLE_13_BLACKWELL},
        "trtllm-1.2": {"": _TABLE_12_HOPPER, "nvlink5": _TABLE_12_BLACKWELL, "nvlink3": _OWN_2_MIB},
    }
)


def dispatch_of(regime: str, link: str, generation: str = "") -> Dispatch:
    """Return the rules of a regime for a generation, else on a link; () where it has no kernels of its own.

    >>> dispatch_of("nccl", "nvlink4"), dispatch_of("vllm", "nvlink5")[0]
    ((), (2, ((2097152.0, ('one_shot',)),)))
    """
    rules = DISPATCH.get(regime, {})
    return next((rules[name] for name in (generation or link, link, "") if name in rules), ())


def ruled(model: LinkModel, regime: str, link: str, generation: str) -> LinkModel:
    """Return a model with the rules that its regime has for a generation, where it has rules.

    >>> from collectives.path import IDEAL
    >>> ruled(IDEAL, "vllm", "nvlink5", "blackwell-ultra") == IDEAL  # a model without rules
    True
    """
    return replace(model, dispatch=dispatch_of(regime, link, generation)) if model.dispatch else model


def kernels_of(rules: Dispatch, sizes: Column, ranks: Column) -> tuple[list[tuple[str, ...]], npt.NDArray[np.intp]]:
    """Return the kernels that run somewhere, () for the library's, and which of them runs where.

    >>> kernels, which = kernels_of(_custom(8 * MiB), np.array([1e3, 1e6, 1e9]), np.array([8.0]))
    >>> [kernels[index] for index in which]
    [('one_shot',), ('two_shot',), ()]
    """
    known, tables = _tables(rules)
    row = np.where(ranks > 1, np.searchsorted([*tables], ranks), len(tables))
    which = np.zeros(np.broadcast_shapes(sizes.shape, row.shape), dtype=np.intp)
    for number, (edges, kernel) in enumerate(tables.values()):
        which = np.where(row == number, kernel[np.searchsorted(edges, sizes, side="right")], which)
    used = np.flatnonzero(np.bincount(which.ravel(), minlength=len(known)))
    return [known[index] for index in used.tolist()], np.searchsorted(used, which)


@lru_cache
def _tables(rules: Dispatch) -> tuple[list[tuple[str, ...]], dict[float, tuple[Column, npt.NDArray[np.intp]]]]:
    """Return the kernels of some rules, and for groups of up to so many ranks where each begins and which it is."""
    known = list(dict.fromkeys([(), *(names for _, row in rules for _, names in row)]))
    return known, {
        ranks: (np.array([below for below, _ in row]), np.array([*(known.index(names) for _, names in row), 0]))
        for ranks, row in rules
    }
