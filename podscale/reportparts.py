"""What a report says beside its rows: what to buy next, a roofline, a pipeline drawn, and which measurements back a number.

Each looks at the fastest row of a phase, priced again from the `point` that the row carries; a row without one has no such
parts. Nothing here is computed unless a report is written.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from podscale import words
from podscale.questionwords import figure_value
from topo.errors import InfeasibleError, SpecError

if TYPE_CHECKING:
    from parallel.explain.scene import Scene, ServeScene, TrainScene

Row = Mapping[str, Any]
MOST_BOXES: Final = 4_000
"""Passes of micro-batches through chunks that a drawing of a pipeline holds; more could not be told apart."""
MOST_STAGES: Final = 64
PRODUCTS: Final = ("gemm", "grouped_gemm")
_WORTH_SAYING: Final = 0.005  # share of a step


def parts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the parts of each phase, in the order of reading.

    Each: `phase`, `domain` and `strategy` of the row they are about, `buys`, `roofline`, `timeline` (None where there is no
    pipeline) and `backing`.
    """
    return [_part(row) for row in fastest(rows)]


def fastest(rows: Sequence[Row]) -> list[Row]:
    """Return the fastest row of each phase that can be priced again.

    >>> row = {"phase": "decode", "point": {"phase": "decode"}, "tokens_per_s_per_gpu": 10.0}
    >>> [each["tokens_per_s_per_gpu"] for each in fastest([row, {**row, "tokens_per_s_per_gpu": 20.0}])]
    [20.0]
    """
    known = [row for row in rows if row.get("point") and not row.get("infeasible")]
    by_phase = [[row for row in known if row["phase"] == phase] for phase in words.PHASES]
    return [max(some, key=lambda row: float(row["tokens_per_s_per_gpu"])) for some in by_phase if some]


def loads(rows: Iterable[Row]) -> dict[int, dict[str, dict[str, float]]]:
    """Return, by domain and tier, the share of the step in which each phase's best strategy keeps the tier's wire at work."""
    from parallel.explain.loads import tier_loads
    from parallel.explain.point import Point
    from parallel.explain.scene import scene_of

    found: dict[int, dict[str, dict[str, float]]] = {}
    for row in rows:
        if row.get("point") and not row.get("infeasible"):
            for tier, load in tier_loads(scene_of(Point.from_dict(row["point"]))).items():
                found.setdefault(row["domain"], {}).setdefault(tier, {})[row["phase"]] = load
    return found


def _part(row: Row) -> dict[str, Any]:
    from parallel.explain.point import Point
    from parallel.explain.scene import TrainScene, scene_of

    point = Point.from_dict(row["point"]).settled
    scene = scene_of(point)
    drawn = roofline(scene)
    return {
        "phase": row["phase"],
        "domain": row["domain"],
        "strategy": row["strategy"],
        "buys": buys(scene),
        "roofline": drawn,
        "timeline": timeline(scene) if isinstance(scene, TrainScene) else None,
        "backing": list(backing(scene, drawn["operators"])),
    }


# --- what to buy next ---------------------------------------------------------------------------------------------


def buys(scene: "Scene") -> dict[str, Any]:
    """Return what each figure of the cluster gives, a quarter better by itself, with the split held.

    `rows`, the largest gain first, each with `title`, `now`, `better`, `gain` in tokens/s (a share), `share` of the largest
    gain, `worth` [$ per accelerator: what as many more tokens/s would cost in accelerators]; `idle`, the titles of rates that
    give nothing. `podscale sensitivity` says more, at three times the pricings.
    """
    from parallel.questions import prices
    from parallel.questions.figures import figures_of
    from parallel.questions.outcome import held
    from parallel.questions.sensitivity import FACTOR, SMALL

    point, base, rows, idle = scene.point, held(scene.point), list[dict[str, Any]](), list[str]()
    each = prices.of_accelerator(point.cluster.accelerator)
    for figure in figures_of(point.cluster).values():
        _, better = figure.steps(point.cluster, FACTOR)
        if figure.name == "accelerators" or better is None:
            continue
        try:
            bought = held(point, figure.changed(point.cluster, better))
        except SpecError:  # no such cluster can be wired
            continue
        gain = bought.tokens_per_s / base.tokens_per_s - 1.0 if bought.feasible else 0.0
        if gain <= SMALL:
            idle += [figure.title] if figure.kind == "rate" else []
            continue
        now, next_one = (figure_value(value, figure.dimension) for value in (figure.value(point.cluster), better))
        told = {"title": figure.title, "now": now, "better": next_one, "gain": gain}
        rows.append({**told, "worth": None if each is None else gain * each})
    rows.sort(key=lambda row: -row["gain"])
    return {"rows": [{**row, "share": row["gain"] / rows[0]["gain"]} for row in rows], "idle": idle}


# --- roofline -----------------------------------------------------------------------------------------------------


def roofline(scene: "Scene") -> dict[str, Any]:
    """Return the operators of a step under the roofs of its chip.

    `operators`, those that take longest first, each with `flops_per_byte` and `reached` (FLOP/s) of one run forward, `share`
    of the step's seconds, `roof` (FLOP/s) and `bound`; `roofs` (FLOP/s by number format) and `bandwidth` of memory [B/s].
    """
    from parallel.explain.operators import operator_rows, runs
    from parallel.precision import FORMATS

    chip = scene.chip
    known = {(run.layer, run.op.name): run for run in runs(scene)}
    found: dict[tuple[str, float, float], dict[str, Any]] = {}
    for term, rows in operator_rows(scene).items():
        for row in rows:
            run = known[row["layers"], row["operator"]]
            low = run.op.kind in PRODUCTS and run.op.role != "core"
            fmt = chip.format(run.op.role) if low else FORMATS["bf16"]  # attention computes in 16 bits
            ahead = replace(run, trains=None, share=1.0).seconds(chip)
            seen = found.setdefault(
                (row["operator"], row["flops"], row["bytes"]),
                {
                    "operator": row["operator"],
                    "term": term,
                    "product": run.op.kind in PRODUCTS,
                    "format": fmt.name,
                    "flops_per_byte": row["flops"] / row["bytes"] if row["bytes"] else 0.0,
                    "reached": row["flops"] / ahead,
                    "moved_Bps": row["bytes"] / ahead,
                    "roof": chip.peak(fmt),
                    "bound": row["bound"],
                    "share": 0.0,
                },
            )
            seen["share"] += row["seconds"] / scene.seconds
    operators = sorted(found.values(), key=lambda each: -each["share"])
    roofs = {each["format"]: each["roof"] for each in operators if each["reached"]}
    return {"operators": operators, "roofs": roofs, "bandwidth": chip.accelerator.hbm_Bps}


# --- pipeline -----------------------------------------------------------------------------------------------------


def timeline(scene: "TrainScene") -> dict[str, Any] | None:
    """Return a training step's pipeline as `svg` with a `note`, or only why it is left out; None where there is none."""
    from parallel.explain.lanes import play
    from podscale.gantt import Panel, gantt_svg

    stages, chunks, many = int(scene.read("pp")), int(scene.read("vpp")), int(scene.microbatches)
    if stages < 2:
        return None
    said = f"{stages} stages of {chunks} chunk{'s' if chunks > 1 else ''}, {many} micro-batches"
    boxes = 2 * stages * chunks * many
    if boxes > MOST_BOXES or stages > MOST_STAGES:
        most = f"at most {MOST_BOXES:,} and {MOST_STAGES} stages are drawn"
        return {"svg": "", "note": f"{said} are {boxes:,} boxes: left out, {most}. A smaller global batch has fewer."}
    try:
        played = play(scene)
    except InfeasibleError as error:
        return {"svg": "", "note": f"{said}: left out, {error}"}
    panel = Panel("One step", played.run, played.costs, played.causes)
    note = f"{said}. One replica is shown, the others do the same; the update after the last box is not drawn."
    return {"svg": gantt_svg([panel], f"Pipeline of {said}"), "note": note}


# --- accuracy -----------------------------------------------------------------------------------------------------


def backing(scene: "Scene", operators: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yield the groups of measurements behind a number: those of the whole, then those of its parts.

    Each: `what`, `share` of the step (None for the whole), `group` and the `validate` set it is of, `n` measurements,
    `median` and `p90` of the error, `band` of measured/predicted (90 %), `note` on what is borrowed; what is not stored is
    None.
    """
    from parallel.explain.scene import ServeScene, TrainScene

    if isinstance(scene, TrainScene):
        yield from _training_runs(scene)
    elif isinstance(scene, ServeScene):
        yield from _served_runs(scene)
    backed = [*_products(scene, operators), *_exchanges(scene)]
    yield from backed
    left = 1.0 - sum(group["share"] for group in backed)
    if left > _WORTH_SAYING:
        what = "the rest: attention cores, operators bound by memory, waits"
        yield _group(what, left, "no group of its own", "", {})


def _group(
    what: str, share: float | None, group: str, kind: str, held: Mapping[str, Any], note: str = ""
) -> dict[str, Any]:
    band = [held[end] for end in ("low", "high")] if "low" in held else None
    figures = {name: held.get(name) for name in ("n", "median", "p90")}
    return {"what": what, "share": share, "group": group, "set": kind, **figures, "band": band, "note": note}


def _training_runs(scene: "TrainScene") -> Iterator[dict[str, Any]]:
    """Yield the runs of the step's engine class, with experts or without."""
    from clusters.software import document, regime

    name = regime(scene.point.train.software.engine, scene.moe is not None)
    held = document().get("bands", {}).get(name)
    if held is not None:
        low, high = held["all"]
        sources = ", ".join(source for source in held if source != "all")
        yield _group("whole steps", None, f"{name} ({sources})", "training", {"low": low, "high": high})


def _served_runs(scene: "ServeScene") -> Iterator[dict[str, Any]]:
    """Yield the measured passes of the phase, in the numbers of the split."""
    from parallel.serving.bands import document, width_of

    phase, bands = scene.point.phase, document()["bands"][scene.point.phase]
    width = width_of(scene.chip.recipe, routed=scene.moe is not None)
    held = bands.get(width, bands["all"])
    figures = {**held, "median": held["median_ape"], "p90": held["p90_ape"]}
    group = f"{width if width in bands else 'all formats'}, {', '.join(held['parts'])}"
    yield _group(f"{phase} passes of a stated batch", None, group, "serving", figures)


def _products(scene: "Scene", operators: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Yield the matrix products of each number format, as fits price them that have not seen their shapes."""
    from clusters.kernels import table

    shares: dict[str, float] = {}
    for row in operators:
        if row["product"]:
            shares[row["format"]] = shares.get(row["format"], 0.0) + row["share"]
    for name, share in shares.items():
        model = scene.chip.kernels[name]
        entry = table()["measured"].get(model.accelerator, {}).get(model.precision, {})
        held = {**entry.get("residuals", {}), **entry.get("held_out", {})}
        if share > _WORTH_SAYING:
            yield _group(f"{name.upper()} products", share, f"{model.accelerator} {model.precision}", "gemm", held)


def _exchanges(scene: "Scene") -> Iterator[dict[str, Any]]:
    """Yield the collectives of each term that shows, on the link that it leans on most."""
    from clusters.tunings import tuning
    from parallel.explain.links import WIRES, wires

    tiers = wires(scene)
    for term in WIRES:
        share = scene.terms.get(term, 0.0) / scene.seconds
        mine = [wire for wire in tiers if wire.saved_s.get(term, 0.0) > 0]
        if share < _WORTH_SAYING or not mine:
            continue
        link = max(mine, key=lambda wire: wire.saved_s[term]).tier.link
        sent = _operations(scene, term)
        for op, regime in sent:
            held = tuning(link, op, regime)
            kind = "moe" if op.startswith("moe_") else "collectives"
            group = f"{link} {words.phrase(op)}, {regime}"
            yield _group(words.term(term), share / len(sent), group, kind, held.residuals, held.note)


def _operations(scene: "Scene", term: str) -> list[tuple[str, str]]:
    """Return the operations of a term and the regimes of their kernels."""
    from parallel.exchange import EXCHANGES
    from parallel.explain.scene import ServeScene, TrainScene, train_swap

    sent = dict.fromkeys((message.op, message.regime) for message in scene.messages.get(term, ()))
    if sent or term != "ep":
        return list(sent)
    swap = train_swap(scene) if isinstance(scene, TrainScene) else None
    if isinstance(scene, ServeScene):
        swap = scene.exchange
    return [(op, EXCHANGES[swap.kernels].regime) for op in ("moe_dispatch", "moe_combine")] if swap else []
