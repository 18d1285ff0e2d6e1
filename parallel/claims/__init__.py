"""The blackboard: every claim of the sources as a computation that a reader can run, change and challenge.

Each `Claim` has named inputs with defaults,
an answer by the lecture's own two-term arithmetic (`parallel.rooflines`), an
answer by the whole model, and a verdict that follows from the numbers:

    holds                      the full answer agrees with the source, within the tolerance, in every case
    holds on these parts only  in some of them: the note and `cases` name them
    does not hold              in none

>>> from parallel.claims import claim
>>> row = claim("active-experts")["rows"][0]
>>> row["expected"], row["simple"], row["verdict"]
(8.0, 32.0, 'does not hold')
>>> claim("train-interval", {"accelerator": "h100"})["rows"][0]["verdict"]
'holds'
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from clusters.catalogue import key_of, nearest
from parallel.claims import corpora, edges, fleets, leaks, passes, prices, racks, stores
from parallel.claims.claim import Chart, Claim, curve, most, row_of, sensitivity, verdict
from topo.errors import Fault, SpecError

__all__ = [
    "CLAIMS",
    "DETAILS",
    "ITEMS",
    "Claim",
    "claim",
    "claims",
    "curve",
    "find",
    "most",
    "row_of",
    "sensitivity",
    "verdict",
]

ITEMS: Final[Mapping[int, str]] = MappingProxyType(
    {
        1: "time and cost of a pass",
        2: "the optimal batch",
        3: "the 20 ms train",
        4: "fast mode and slow mode",
        5: "experts inside a rack",
        6: "wider domains",
        7: "pipelines of racks",
        8: "the memory wall",
        9: "how long to train",
        10: "what prices leak",
        11: "long contexts",
        12: "memory against compute",
        13: "what to measure",
        14: "from one generation to the next",
        15: "old behind new",
        16: "fast tokens",
        17: "several sites",
        18: "racks in orbit",
        19: "growth",
        20: "agents",
    }
)
"""The parts of the blackboard."""

CLAIMS: Final[Mapping[str, Claim]] = MappingProxyType(
    {
        one.id: one
        for one in sorted(
            (one for theme in (passes, racks, stores, corpora, leaks, prices, fleets, edges) for one in theme.CLAIMS),
            key=lambda one: one.item,
        )
    }
)
"""Every claim by its name, in the order of the blackboard."""

Rows = list[dict[str, Any]]
DETAILS: Final[Mapping[str, Mapping[str, Callable[[Mapping[str, Any]], Rows]]]] = MappingProxyType(
    {
        "expert-rack": {"seconds of the exchange by domain": racks.exchanges},
        "servable-size": {"the largest model in time by domain": racks.servables},
        "overtraining": {"the cheapest life at that loss, by fit and traffic": corpora.lives},
        "generation-watts": {"the gain, step by step": fleets.generation_steps},
        "generation-rubin": {"the gain, step by step": fleets.generation_steps},
        "rotating-bottleneck": {"shadow prices": fleets.shadow_prices},
        "sram-tier": {"USD per million tokens at each interactivity": edges.tiers},
        "agent-tools": {"seats that wait": edges.idle_seats},
        "leaked-cache": {"the price sheet read backwards": leaks.architectures},
        "api-price": {
            "cost of a million tokens at three interactivities": prices.costs,
            "public prices, and what they are over the cost of the request": prices.asked,
            "published measurements, at the hours of the first table": prices.measured,
        },
    }
)
"""Claims with tables beside them: each title, and its rows from the inputs."""

CHARTS: Final[Mapping[str, Callable[[Mapping[str, Any]], Chart]]] = MappingProxyType(
    {
        "pass-time": passes.two_times,
        "cost-knee": passes.token_cost,
        "fast-mode": passes.speed_price,
        "api-price": prices.speeds,
    }
)
"""Claims with more to draw than how they move with one input."""


def find(name: str) -> Claim:
    """Return the claim of that name.

    Raises
    ------
    SpecError
        There is none; the remedy names the nearest.
    """
    key = key_of(name)
    if key not in CLAIMS:
        raise SpecError([Fault("claim", name, "is no claim", nearest(key, tuple(CLAIMS)))])
    return CLAIMS[key]


def claims(
    given: Mapping[str, Any] | None = None, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Run every claim; `given` inputs go to those that have them.

    Raises
    ------
    SpecError
        An input that no claim has.
    """
    given = dict(given or {})
    known = {one.name for held in CLAIMS.values() for one in held.inputs}
    if strange := [name for name in given if name not in known]:
        raise SpecError(
            [
                Fault(f"--set {name}", given[name], "is an input of no claim", nearest(name, sorted(known)))
                for name in strange
            ]
        )
    rows = []
    for done, held in enumerate(CLAIMS.values()):
        mine = {one.name for one in held.inputs}
        rows.append(row_of(held, {name: value for name, value in given.items() if name in mine}))
        if progress is not None:
            progress(done + 1, len(CLAIMS))
    return {"rows": rows, "items": {str(number): title for number, title in ITEMS.items()}}


def claim(name: str, given: Mapping[str, Any] | None = None, *, drawn: bool = False) -> dict[str, Any]:
    """Run one claim and return its row, its inputs, how it moves with them, and its tables where it has any.

    `drawn` adds the curve that a drawing needs, and the chart where it has one.
    """
    one = find(name)
    row, moved = row_of(one, given), sensitivity(one, given)
    return {
        "rows": [row],
        "inputs": [
            {"name": held.name, "value": row["inputs"][held.name], "dimension": held.dimension, "says": held.says}
            for held in one.inputs
        ],
        "sensitivity": moved,
        "moves_most": most(moved),
        "curve": curve(one, given) if drawn else None,
        "chart": CHARTS[one.id](row["inputs"]).document() if drawn and one.id in CHARTS else None,
        "details": [{"title": title, "rows": table(row["inputs"])} for title, table in DETAILS.get(one.id, {}).items()],
    }
