"""What slow axes alone already decide: conditions that follow from the rules or from the memory, asked early.

Pruning is exact: every strategy that an entry of `IMPLIED` refuses would break a rule or not fit in memory (a property
test prices them). `SAME` drops strategies that are another one under another name, so that each is counted once: one
without stages has no schedule, though a schedule may still ask for more memory.
"""

from typing import Final

import numpy as np

from parallel.memory import PLACES, serving_weights
from parallel.placement import world
from parallel.precision import RECIPES, recipe
from parallel.rules import Mask, Rule, Setting
from parallel.serving.phases import stage_ranks
from parallel.strategy import Columns, Space
from parallel.training.footprint import place_parameters, rates
from parallel.workload import TrainWorkload
from topo.columns import Column

MEMORY: Final = "memory, for the weights alone"


def state_bytes(c: Columns, s: Setting) -> Column:
    """Weights, gradients and optimizer of the fullest stage under the ZeRO stage that keeps least: no step holds less."""
    if not isinstance(s.work, TrainWorkload):
        raise TypeError("a training step needs a training workload")
    held = place_parameters(s.model, c, s.work)
    replicas = c["dp"] * c["cp"]
    expert_replicas = np.maximum(c["tp"] * replicas / (c["ep"] * c["etp"]), 1.0)
    pairs = list(rates(s.work).values())
    least = np.full(c.rows, np.inf)
    for zero in range(4):
        whole, divided = (sum(float(pair[side][zero]) for pair in pairs) for side in (0, 1))
        most = np.zeros(c.rows)
        for place in PLACES:
            dense, experts = held[f"dense {place}"], held[f"experts {place}"]
            bytes_here = whole * (dense + experts) + divided * (dense / replicas + experts / expert_replicas)
            most = np.maximum(most, np.where((place == "inner") & (c["pp"] <= 2), 0.0, bytes_here))
        least = np.minimum(least, most)
    return least


def weight_bytes(c: Columns, s: Setting) -> Column:
    """Weights of the fullest stage while serving: no pass holds less."""
    names = [s.work.precision] * c.rows
    if "precision" in c:
        names = [tuple(RECIPES)[int(code)] for code in c["precision"]]
    out = np.zeros(c.rows)
    for name in set(names):
        mine = np.array([other == name for other in names])
        out[mine] = serving_weights(s.model, c, recipe(name))[mine]
    return out


def _fits(bytes_: Column, s: Setting) -> Mask:
    return np.asarray(bytes_ <= s.cluster.accelerator.usable_bytes)


def _room(c: Columns, s: Setting, ranks: Column) -> Mask:
    return np.asarray(ranks <= world(s.cluster, c["used"]))


IMPLIED: Final[dict[str, tuple[Rule, ...]]] = {
    "train": (
        Rule("the ranks suffice", ("used", "tp", "cp"), lambda c, s: _room(c, s, c["tp"] * c["cp"]), ""),
        Rule(
            "the ranks suffice", ("used", "tp", "cp", "pp"), lambda c, s: _room(c, s, c["tp"] * c["cp"] * c["pp"]), ""
        ),
        Rule(
            MEMORY,
            ("used", "tp", "cp", "ep", "etp", "pp", "dp"),
            lambda c, s: (c["dp"] < 1) | _fits(state_bytes(c, s), s),
            "",
        ),
    ),
    "serve": (
        Rule("a replica fits the cluster", ("used", "tp", "cp", "ep"), lambda c, s: _room(c, s, stage_ranks(c)), ""),
        Rule(MEMORY, ("precision", "tp", "cp", "ep", "pp"), lambda c, s: _fits(weight_bytes(c, s), s), ""),
    ),
}
"""Conditions that follow from later ones: the ranks of a prefix, and what its weights alone take."""

AGAIN: Final = "is another strategy under another name"
SAME: Final[dict[str, tuple[tuple[float, Rule], ...]]] = {
    "train": (
        (0.0, Rule(AGAIN, ("schedule", "pp"), lambda c, s: (c["schedule"] == 0) | (c["pp"] > 1), "")),
        (1.0, Rule(AGAIN, ("sp", "tp"), lambda c, s: (c["sp"] == 1) | (c["tp"] > 1), "")),
        (1.0, Rule(AGAIN, ("etp",), lambda c, s: (c["etp"] == 1) | np.full(c.rows, s.moe is not None), "")),
    ),
    "serve": (),
}
"""Without stages no schedule differs from another, without a tensor group no sequence parallelism, and so on.

Each rule with the value of its first axis that stands for the others.
"""


def same(phase: str, space: Space) -> tuple[Rule, ...]:
    """Return what drops strategies under another name, as far as the space holds those that stand for them.

    >>> [rule.axes for rule in same("train", Space((("sp", (0,)), ("schedule", (0, 1)))))]
    [('schedule', 'pp')]
    """
    held = dict(space.axes)
    return tuple(rule for kept, rule in SAME[side(phase)] if kept in held.get(rule.axes[0], ()))


def side(phase: str) -> str:
    """Return the half of the tables that a phase belongs to."""
    return "train" if phase == "train" else "serve"
