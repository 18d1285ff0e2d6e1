"""Drafts of several tokens: a small model proposes n, the model checks all of them in one pass.

A step is one pass with n + 1 tokens of every sequence, which share the reads of its cache, and n passes of the draft one
after the other, the first of them over what was checked. It yields `parallel.speculation.Drafts.yielded` tokens.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from parallel import memory
from parallel.models import Moe
from parallel.operators import Operator
from parallel.precision import FORMATS
from parallel.serving.engines import Engine
from parallel.serving.kernels import work_s
from parallel.serving.passes import GRID, PassCost, Replica, Split, pass_cost, position_bytes, weight_bytes
from parallel.serving.queueing import Limits
from parallel.speculation import Drafts, draft_model

ENTRY_KERNELS: Final = 4
"""Of a drafting layer before its block: two norms, joining two states, their projection."""


def draft_replica(replica: Replica, drafts: Drafts) -> Replica:
    """Return what drafts, on the accelerators of the model; without experts, its ranks are tensor ranks alone."""
    model, split = draft_model(replica.model, drafts), replica.split
    if not any(isinstance(kind.mlp, Moe) for kind in model.layers):
        split = Split(split.tp, split.dp, cp=split.cp)
    return replace(replica, model=model, split=replace(split, pp=1.0, dcp=1.0, dcp_comm="ag_rs"))


def draft_cost(replica: Replica, engine: Engine, drafts: Drafts) -> PassCost:
    """Price a pass of what drafts; the host's work on a step is counted with the pass that checks."""
    small = draft_replica(replica, drafts)
    cost = pass_cost(small, replace(engine, request_s=0.0))
    if drafts.model is not None:
        return cost
    h = replica.model.hidden
    rows = (
        np.array(GRID) * (1.0 + replica.model.streams) / 2.0
    )  # one half of the product for a token, one for each stream
    entry = work_s(Operator("draft in", "gemm", "attention", m=rows, n=h, k=2 * h), replica.chip)
    linear = np.array(cost.linear_s) + entry
    return replace(cost, linear_s=tuple(linear.tolist()), kernels=cost.kernels + ENTRY_KERNELS)


def draft_memory(replica: Replica, drafts: Drafts) -> tuple[float, float]:
    """Return the weight bytes of what drafts on one rank, and its cache bytes for each position.

    A drafting layer shares embedding and head with the model; its projection of ``2h·h`` is held whole.
    """
    small = draft_replica(replica, drafts)
    held, each = weight_bytes(small), position_bytes(small)
    if drafts.model is not None:
        return held, each
    recipe, tp, one = replica.chip.recipe, np.array([small.split.tp]), np.ones(1)
    ends = float(memory.end_parameters(small.model, tp, one)[0]) * FORMATS[recipe.head].bytes_per_value
    entry = 2.0 * replica.model.hidden**2 * FORMATS[recipe.attention].bytes_per_value
    return held - ends + entry, each


@dataclass(frozen=True, slots=True)
class Drafting:
    """What a step with drafts costs: a `parallel.serving.queueing.StepCost` whose sequences get `Drafts.yielded` tokens.

    Attributes
    ----------
    cost, draft : passes of the model, and of what drafts
    further : positions that a sequence sees beyond one for each step, on average
    """

    cost: PassCost
    draft: PassCost
    drafts: Drafts
    further: float = 0.0

    def __call__(self, decoding: float, positions: float, prompt: float, pairs: float, /) -> float:
        """Return the seconds of a step: a prompt passes through model and draft, and drafts no further."""
        seen, each = positions + decoding * self.further, self.drafts.checked
        seconds = self.cost.checking(each, decoding, seen, prompt, pairs)
        return seconds + self.drafting(decoding, seen, prompt, pairs)

    def drafting(self, decoding: float, positions: float, prompt: float, pairs: float) -> float:
        """Return the seconds of all passes of the draft."""
        first = self.draft.checking(self.drafts.checked, decoding, positions, prompt, pairs)
        if not decoding:
            return first
        return first + (self.drafts.tokens - 1) * self.draft(decoding, positions, 0.0, 0.0)

    def parts(self, decoding: float, positions: float) -> dict[str, float]:
        """Return the seconds of a token by name: a step's, over the tokens that it yields."""
        seen = positions + decoding * self.further
        found = self.cost.parts(decoding, seen, self.drafts.checked)
        found["drafts"] = self.drafting(decoding, seen, 0.0, 0.0)
        return {name: seconds / self.drafts.yielded for name, seconds in found.items()}


def drafting(replica: Replica, cost: PassCost, drafts: Drafts, osl: float) -> Drafting:
    """Return the steps of a replica with drafts, for answers of so many tokens."""
    small = draft_cost(replica, cost.engine, drafts)
    further = (1.0 - 1.0 / drafts.yielded) * osl / 2.0
    return Drafting(cost, replace(small, graphs=cost.graphs), drafts, further)


def in_steps(limits: Limits, drafts: Drafts, isl: float, osl: float) -> Limits:
    """Return limits for requests counted in steps: ``isl + osl/E`` of them take the room of ``isl + osl`` positions."""
    return replace(limits, positions=limits.positions * (isl + osl / drafts.yielded) / (isl + osl))
