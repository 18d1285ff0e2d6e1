"""Speculative decoding: what drafts, how many tokens, and how many of them hold.

Where a draft holds with probability p, whatever came before, a step with n of them yields

    E = (1 − p^(n+1)) / (1 − p)

tokens: those that hold up to the first that does not, and one of the model's own (Leviathan et al. 2211.17192 §3).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from parallel.models import LayerKind, Mlp, Model, Moe, module_kind
from topo.errors import Fault, SpecError

METHODS: Final[Mapping[str, str]] = {
    "mtp": "a layer like the model's last one after its projection of two states to one (DeepSeek-V3 2412.19437 §2.2)",
    "eagle": "a dense layer like the model's after the same projection (EAGLE 2401.15077 §3)",
    "model": "a model of its own",
}
"""Method -> what drafts."""


@dataclass(frozen=True, slots=True)
class Drafts:
    """What is drafted.

    Attributes
    ----------
    tokens : n, drafts of a step
    holds : for every draft, the share of the steps in which it and those before it hold
    method : one of `METHODS`
    model : of the method `model`
    """

    tokens: int
    holds: tuple[float, ...]
    method: str = "mtp"
    model: Model | None = None

    @property
    def checked(self) -> float:
        """Tokens of every sequence in a pass that checks."""
        return self.tokens + 1.0

    @property
    def yielded(self) -> float:
        """Mean tokens of a step.

        >>> Drafts(1, (0.85,)).yielded
        1.85
        """
        return 1.0 + sum(self.holds)


def drafts_of(tokens: int, acceptance: float | list[float], method: str = "mtp", model: Model | None = None) -> Drafts:
    """Return drafts of one rate for all, given that those before hold; or of the share that each position held in.

    Raises
    ------
    SpecError
        There are not as many shares as drafts, one is none, or they rise from position to position: every fault.

    >>> f"{drafts_of(3, 0.8).yielded:.3f} {(1 - 0.8**4) / (1 - 0.8):.3f} {drafts_of(2, [0.9, 0.6]).yielded:.3f}"
    '2.952 2.952 2.500'
    """
    listed = isinstance(acceptance, list)
    holds = tuple(acceptance) if isinstance(acceptance, list) else tuple(acceptance**n for n in range(1, tokens + 1))
    faults = []
    if listed and len(holds) != tokens:
        problem = f"has {len(holds)} shares for {tokens} drafts"
        faults.append(Fault("drafts.acceptance", acceptance, problem, "write one for each, or a single rate"))
    if any(not 0 <= share <= 1 for share in holds):
        faults.append(Fault("drafts.acceptance", acceptance, "is no share", "write numbers from 0 to 1"))
    if any(later > earlier for earlier, later in pairwise(holds)):
        problem, remedy = (
            "rises: a draft counts only if those before it hold",
            "write shares of all steps, as vLLM logs them",
        )
        faults.append(Fault("drafts.acceptance", acceptance, problem, remedy))
    if (method == "model") != (model is not None):
        remedy = "name it for method: model alone"
        faults.append(Fault("drafts.model", model.name if model else None, "goes with a model that drafts", remedy))
    if faults:
        raise SpecError(faults)
    return Drafts(tokens, holds, method, model)


def drafts_yielding(tokens: int, yielded: float, method: str = "mtp", model: Model | None = None) -> Drafts:
    """Return drafts of the one rate that gives a mean of so many tokens a step, as benchmarks tell an acceptance length.

    Raises
    ------
    SpecError
        No rate does: a step yields one token at least and one more than drafts at most.

    >>> f"{drafts_yielding(3, 2.952).holds[0]:.3f}"
    '0.800'
    """
    if not 1.0 <= yielded <= tokens + 1.0:
        problem = f"is no mean of 1 to {tokens + 1} tokens a step"
        raise SpecError([Fault("drafts.yielded", yielded, problem, "count the model's own token too")])
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (middle, high) if drafts_of(tokens, middle).yielded < yielded else (low, middle)
    return drafts_of(tokens, high, method, model)


def draft_faults(model: Model, method: str, stages: float, otherwise: str = "eagle") -> list[Fault]:
    """Return why drafts do not go with a model over so many pipeline stages, all of it.

    >>> from parallel.io import read_model
    >>> [fault.field for fault in draft_faults(read_model("llama-3.1-70b"), "mtp", 2)]
    ['strategy.pp', 'drafts.method']
    """
    faults = []
    if stages > 1:
        problem = "is not priced beside drafts: vLLM does not start so (vllm-project/vllm issue 52069)"
        faults.append(Fault("strategy.pp", int(stages), problem, "leave out one of them"))
    if method == "mtp" and not model.mtp_layers:
        problem = f"is a part of checkpoints, and {model.name} has none"
        faults.append(Fault("drafts.method", "mtp", problem, f"write {otherwise}"))
    return faults


def drafting_layer(model: Model, method: str) -> LayerKind:
    """Return the layer that drafts: like the last one; for EAGLE dense, as wide as what a token meets of it.

    >>> from parallel.io import read_model
    >>> drafting_layer(read_model("deepseek-v3"), "eagle").mlp.intermediate  # 8 of 2048, and the shared one
    18432
    """
    kind = replace(module_kind(model), name="draft", count=1)
    if method != "eagle" or not isinstance(kind.mlp, Moe):
        return kind
    return replace(kind, mlp=Mlp(kind.mlp.topk * kind.mlp.intermediate + kind.mlp.shared_intermediate, kind.mlp.gated))


def draft_model(model: Model, drafts: Drafts) -> Model:
    """Return what drafts for a model: one of its own, or a single layer between the model's embedding and head.

    >>> from parallel.io import read_model
    >>> draft_model(read_model("deepseek-v3"), Drafts(1, (0.85,))).layers[0].count
    1
    """
    if drafts.model is not None:
        return drafts.model
    return replace(model, layers=(drafting_layer(model, drafts.method),), pattern=(), mtp_layers=0)


def told(drafts: Drafts) -> dict[str, Any]:
    """Return what an answer says of drafts."""
    return {
        "method": drafts.method,
        "model": drafts.model.name if drafts.model else None,
        "tokens": drafts.tokens,
        "holds": list(drafts.holds),
        "tokens_per_step": drafts.yielded,
    }
