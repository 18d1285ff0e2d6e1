"""Which strategies a search looks at: all that can be valid, or the usual ones; every axis a tuple of values.

Axes come slowest first, and those that few terms depend on last: a block of rows then shares most of its prices.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from clusters.build import Cluster
from collectives.pipelines import SCHEDULES as PIPELINES
from parallel.models import Model, Moe, layer_count
from parallel.placement import ORDERS, domain_size, fillings, world
from parallel.precision import RECIPES, recipe
from parallel.strategy import Space, powers_of_two
from parallel.training.layer import RECOMPUTE
from parallel.training.step import SCHEDULES
from topo.errors import Fault, SpecError

Values = tuple[float, ...]
Axes = tuple[tuple[str, Values], ...]
NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "recompute": RECOMPUTE,
    "order": ORDERS,
    "precision": tuple(RECIPES),
    "schedule": SCHEDULES,
}
"""Columns of codes, and what the codes stand for."""


def _precision_axis(names: tuple[str, ...]) -> Axes:
    """Return the axis of several recipes; none where the workload's own is meant."""
    codes = tuple(float(list(RECIPES).index(recipe(name).name)) for name in names)
    return (("precision", codes),) if codes else ()


def _experts(model: Model) -> int:
    return max((k.mlp.experts for k in model.layers if isinstance(k.mlp, Moe)), default=1)


def divisors(number: int, most: int | None = None) -> tuple[int, ...]:
    """Return the divisors of a number, up to the largest wanted.

    >>> divisors(12, 6)
    (1, 2, 3, 4, 6)
    """
    return tuple(d for d in range(1, min(number, most or number) + 1) if number % d == 0)


def usual_train(cluster: Cluster, model: Model, precisions: tuple[str, ...] = ()) -> Space:
    """Return the training strategies worth a look: powers of two, all placements, recomputation and ZeRO stages."""
    experts = _experts(model)
    return Space(
        (
            *_precision_axis(precisions),
            ("used", fillings(cluster)),
            ("order", (0, 1)),
            ("tp", (1, 2, 4, 8)),
            ("sp", (1,)),
            ("cp", (1,)),
            ("ep", tuple(p for p in powers_of_two(experts) if p <= 256)),
            ("etp", (1,)),
            ("micro_batch", (1, 2, 4)),
            ("pp", powers_of_two(16)),
            ("recompute", tuple(range(len(RECOMPUTE)))),
            ("ep_overlap", (0, 1) if experts > 1 else (0,)),
            ("vpp", (1, 2, 4)),
            ("schedule", (0,)),
            ("zero", (1, 2, 3)),
        )
    )


def usual_serve(cluster: Cluster, model: Model, phase: str, precisions: tuple[str, ...] = ()) -> Space:
    """Return the serving strategies worth a look: expert groups of powers of two and of whole domains."""
    experts = _experts(model)
    wide = set(powers_of_two(experts)) if experts > 1 else {1}
    if experts > 1:
        wide |= {tier.size for tier in cluster.tiers if tier.plane == "scale-up" and 1 < tier.size <= 4 * experts}
        wide |= {2 * size for size in wide if 2 * size <= 2 * experts}
    return Space(
        (
            *_precision_axis(precisions),
            ("used", fillings(cluster)),
            ("tp", (1, 2, 4, 8)),
            ("ep", tuple(sorted(wide))),
            ("pp", (1, 2, 4, 8)),
            ("microbatches", (1, 2) if experts > 1 else (1,)),
            ("batch", _batches(phase)),
        )
    )


def _batches(phase: str) -> Values:
    """Sequences (decode) or prompts (prefill) per accelerator: four to an octave."""
    if phase == "decode":
        return tuple(sorted({max(1, p * quarter // 4) for p in powers_of_two(1024) for quarter in (4, 5, 6, 7)}))
    return (0.125, 0.25, 0.5, 1, 2, 4, 8, 16)


def _heads(model: Model) -> int:
    return max(kind.attention.heads for kind in model.layers)


def all_train(cluster: Cluster, model: Model, precisions: tuple[str, ...] = ()) -> Space:
    """Return every training strategy that the rules can let pass.

    Every tp that divides the heads, any number of stages and of chunks, every expert group, all placements, schedules
    with a closed form, recomputation and ZeRO stages; dp is the largest that fits. Sequences are split in powers of two, a
    micro-batch has at most 16 of them.
    """
    experts, layers = _experts(model), layer_count(model)
    width = max((k.mlp.intermediate for k in model.layers if isinstance(k.mlp, Moe)), default=1)
    ranks = int(world(cluster, float(domain_size(cluster))))
    schedules = (0.0, *(float(code) for code, name in enumerate(SCHEDULES) if PIPELINES[name].closed))
    return Space(
        (
            *_precision_axis(precisions),
            ("used", fillings(cluster)),
            ("tp", divisors(_heads(model), ranks)),
            ("cp", powers_of_two(64)),
            ("ep", divisors(experts, ranks)),
            ("etp", tuple(p for p in powers_of_two(64) if width % p == 0)),
            ("pp", tuple(range(1, min(layers, ranks) + 1))),
            ("micro_batch", powers_of_two(16)),
            ("vpp", tuple(range(1, layers + 1))),
            ("order", (0, 1)),
            ("schedule", schedules),
            ("sp", (0, 1)),
            ("recompute", tuple(range(len(RECOMPUTE)))),
            ("ep_overlap", (0, 1) if experts > 1 else (0,)),
            ("zero", (0, 1, 2, 3)),
        )
    )


def all_serve(cluster: Cluster, model: Model, phase: str, precisions: tuple[str, ...] = ()) -> Space:
    """Return every serving strategy that the rules can let pass: every tp, any number of stages, every expert group.

    Expert groups are any divisor of the experts, or of a domain, or whole domains, up to twice the experts (redundant
    copies).
    """
    experts, domain = _experts(model), domain_size(cluster)
    wide = {1}
    if experts > 1:
        most = min(2 * experts, int(world(cluster, float(domain))))
        wide |= {*divisors(experts), *divisors(domain), *range(domain, most + 1, domain)}
        wide |= {2 * size for size in wide}
        wide = {size for size in wide if size <= most}
    batches = tuple(range(1, 257)) + tuple(range(260, 1025, 4)) if phase == "decode" else _batches(phase)
    return Space(
        (
            *_precision_axis(precisions),
            ("used", fillings(cluster)),
            ("tp", divisors(_heads(model))),
            ("ep", tuple(sorted(wide))),
            ("microbatches", (1, 2) if experts > 1 else (1,)),
            ("batch", batches),
            ("pp", tuple(range(1, layer_count(model) + 1))),
        )
    )


SPACES: Final[Mapping[str, tuple[Callable[..., Space], Callable[..., Space]]]] = {
    "all": (all_train, all_serve),
    "usual": (usual_train, usual_serve),
}
"""Name of a space -> how it is made for training, and for serving."""


def space_of(
    phase: str, cluster: Cluster, model: Model, precisions: tuple[str, ...] = (), name: str = "usual"
) -> Space:
    """Return the strategies of a phase, in the named recipes or in the workload's own."""
    if name not in SPACES:
        raise SpecError([Fault("strategy.space", name, "is not known", f"choose from {', '.join(SPACES)}")])
    train, serve = SPACES[name]
    return train(cluster, model, precisions) if phase == "train" else serve(cluster, model, phase, precisions)


def narrowed(space: Space, given: Mapping[str, tuple[Any, ...]], where: str = "strategy", file: str = "") -> Space:
    """Return a space with some axes replaced by the values given; names stand for codes.

    Raises
    ------
    SpecError
        With every axis that the space does not have, and every name that none of its codes has.

    >>> narrowed(Space((("tp", (1, 2)), ("recompute", (0, 1, 2)))), {"recompute": ("none",)}).axes
    (('tp', (1, 2)), ('recompute', (0.0,)))
    """
    given = {_WRITTEN.get(axis, axis): values for axis, values in given.items()}
    known = {axis for axis, _ in space.axes} | EXTRA
    faults: list[Fault] = []
    coded: dict[str, Values] = {}
    for axis, values in given.items():
        if axis not in known:
            near = get_close_matches(axis, sorted(known), 1)
            remedy = f"did you mean {near[0]}" if near else f"choose from {', '.join(sorted(known))}"
            faults.append(Fault(f"{where}.{axis}", list(values), "is no axis of the space", remedy, file))
            continue
        names = NAMES.get(axis, ())
        codes = []
        for value in values:
            if isinstance(value, str) and value not in names:
                remedy = f"choose from {', '.join(names)}" if names else "write a number"
                faults.append(Fault(f"{where}.{axis}", value, "is not known", remedy, file))
            else:
                codes.append(float(names.index(value)) if isinstance(value, str) else float(value))
        coded[axis] = tuple(codes)
    if faults:
        raise SpecError(faults)
    kept = tuple((axis, coded.pop(axis, values)) for axis, values in space.axes)
    return Space((*coded.items(), *kept))


EXTRA: Final = frozenset({"dp", "cp"})
"""Columns that follow from others, or are 1 while serving, unless an axis gives them."""
_WRITTEN: Final[Mapping[str, str]] = {"ranks_per_domain": "used"}
