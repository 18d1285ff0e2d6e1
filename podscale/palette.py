"""Colours that mean the same in every picture: one per wiring, one per term, chosen to read on white and on black.

A term's hue says what kind of thing the time went into (computing, talking, reading memory, waiting, overhead); terms
of one kind are told apart by shade.
"""

import re
from collections.abc import Iterable
from itertools import cycle

WIRINGS = ("#8a7be0", "#12a594", "#e08a1e", "#d6549b", "#5b8def", "#8d9a3a")
"""In the order of the domain sizes; a seventh starts again."""

FAMILIES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "talking",
        "tp ep etp dp pp cp exchange dispatch combine reduce gather scatter broadcast communication comm send recv hop "
        "p2p gradient transfer network sync contention",
        ("#e4572e", "#f2a541", "#b83b5e", "#f7c59f", "#8f2d13", "#e88fa2"),
    ),
    (
        "waiting",
        "bubble idle wait waiting imbalance straggler stragglers skew queue",
        ("#8d99a6", "#b9c2cb", "#66717c"),
    ),
    (
        "reading memory",
        "kv hbm optimizer weights weight stream memory cache norm vector elementwise",
        ("#2a9d6f", "#8fd3a8", "#14664a", "#bfe6cd"),
    ),
    ("overhead", "launch host scheduler scheduling overhead sampling framework", ("#a68a64", "#d3c1a3", "#78613f")),
)
"""Kind of time, the words that give it away (first match wins), its shades."""

COMPUTING = ("#2f6fde", "#7fb2f5", "#1d3f91", "#4cc3d9", "#a9c9f7", "#5c63c7", "#16808f", "#b3b7ee")
"""Shades of every other term."""

MEMORY = {
    "weights": "#2f6fde",
    "gradients": "#f2a541",
    "optimizer": "#5c63c7",
    "activations": "#b83b5e",
    "kv cache": "#2a9d6f",
    "reserve": "#8d99a6",
}
"""Kinds of tensor; any other takes one of `OTHER_MEMORY`."""
OTHER_MEMORY = ("#4cc3d9", "#a68a64", "#7fb2f5", "#8fd3a8", "#e88fa2")


def family(term: str) -> str:
    """Return what kind of time a term is.

    >>> family("moe_dispatch"), family("pipeline_bubble"), family("kv read"), family("experts")
    ('talking', 'waiting', 'reading memory', 'computing')
    """
    said = set(re.split(r"[^a-z0-9]+", term.lower()))
    return next((name for name, marks, _ in FAMILIES if said & set(marks.split())), "computing")


def rank(term: str) -> int:
    """Return the place of a term's family in the order of `FAMILIES`; computing comes last.

    >>> rank("dispatch") < rank("experts")
    True
    """
    return [*(name for name, _, _ in FAMILIES), "computing"].index(family(term))


def of_wirings(domains: Iterable[int]) -> dict[int, str]:
    """Return a colour per domain size, by size.

    >>> of_wirings([72, 8])[8] == WIRINGS[0]
    True
    """
    return {domain: WIRINGS[place % len(WIRINGS)] for place, domain in enumerate(sorted(set(domains)))}


def of_terms(terms: Iterable[str]) -> dict[str, str]:
    """Return a colour per term: the next shade of its family, in the order given (the first is the strongest).

    >>> colours = of_terms(["experts", "dispatch", "attention"])
    >>> len(set(colours.values()))
    3
    """
    shades = {name: hues for name, _, hues in FAMILIES} | {"computing": COMPUTING}
    seen: dict[str, int] = {}
    colours = {}
    for term in dict.fromkeys(terms):
        kind = family(term)
        place = seen.get(kind, 0)
        colours[term] = shades[kind][place % len(shades[kind])]
        seen[kind] = place + 1
    return colours


def of_memory(names: Iterable[str]) -> dict[str, str]:
    """Return a colour per kind of tensor.

    >>> of_memory(["kv_cache"])["kv_cache"] == MEMORY["kv cache"]
    True
    """
    others = cycle(OTHER_MEMORY)
    return {name: MEMORY.get(name.replace("_", " ")) or next(others) for name in dict.fromkeys(names)}
