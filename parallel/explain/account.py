"""`explain`: a point turned into an account, term by term, that its reader can check with a pencil."""

from typing import Any

from parallel import results
from parallel.explain.advice import advice
from parallel.explain.equation import Equation, computed
from parallel.explain.intervals import term_interval
from parallel.explain.links import WIRES, Wire, bottleneck, wires
from parallel.explain.memory import memory_rows
from parallel.explain.operators import operator_rows
from parallel.explain.point import Point
from parallel.explain.said import sentences
from parallel.explain.scene import Scene, TrainScene, scene_of
from parallel.explain.serving import serve_equations
from parallel.explain.traffic import collective_rows
from parallel.explain.training import train_equations


def explain(point: Point) -> dict[str, Any]:
    """Price a point again and tell where its time and memory go, which link stops it, and what would help.

    Parameters
    ----------
    point : what is explained; it need not fit in memory

    Returns
    -------
    dict
        `said`: sentences, the answer first. `terms`: by share, each with `seconds`, `busy_s`, `equation`, `inputs` (value,
        unit, meaning), `computed_s` (the equation on these inputs), `operators`, `collectives`, `source`, `note`,
        `interval`. `memory`: the same in bytes. `bottleneck`: the largest term, and the link in the graph. `advice`: the
        three cheapest changes that help, re-priced; `tried`: all of them. `interval` of the whole; `warnings`; `row`, as
        the point's own command tells it; `point`, what prices it again.

    Raises
    ------
    SpecError
        With every rule that the strategy breaks.

    Examples
    --------
    >>> from clusters.spec import load
    >>> from parallel.io import read_model
    >>> split = {"used": 8.0, "tp": 8.0, "ep": 1.0, "pp": 1.0, "microbatches": 1.0, "batch": 8.0}
    >>> told = explain(Point("decode", read_model("llama-3.1-70b"), load("hgx-h100"), strategy=split))
    >>> told["terms"][0]["name"], told["terms"][0]["equation"]
    ('kv read', 'Σ n·u·(ℓ + max(Φ/(ε·Π), V/(η·M) + √(τ·V/M)))')
    >>> abs(sum(term["seconds"] for term in told["terms"]) / told["seconds"] - 1.0) < 1e-12
    True
    """
    point = point.settled
    point.check()
    scene = scene_of(point)
    listed, tiers = operator_rows(scene), wires(scene)
    bounds = {term: rows[0]["bound"] for term, rows in listed.items()}
    terms = [_term(scene, name, listed.get(name, []), tiers) for name in _by_share(scene)]
    neck, memory = bottleneck(scene, bounds, tiers), memory_rows(scene)
    advised, tried = advice(scene)
    row = results.row_of(point.bound, point.cols, scene.priced, 0)
    return {
        "said": sentences(scene, neck, memory, advised),
        "phase": point.phase,
        "model": point.model.name,
        "cluster": scene.cluster.name,
        "strategy": row["strategy"],
        "seconds": scene.seconds,
        "tokens_per_s_per_gpu": row["tokens_per_s_per_gpu"],
        "gpus_used": row["gpus_used"],
        "terms": terms,
        "memory": memory,
        "memory_capacity_bytes": scene.cluster.accelerator.usable_bytes,
        "bottleneck": neck,
        "advice": advised,
        "tried": tried,
        "interval": row["interval"],
        "interval_note": row["interval_note"],
        "warnings": row["warnings"],
        "row": row,
        "point": point.to_dict(),
    }


def _by_share(scene: Scene) -> list[str]:
    """Return every term that takes time, hidden ones last."""
    return sorted(scene.busy, key=lambda name: (-scene.terms.get(name, 0.0), -scene.busy[name]))


def _equations(scene: Scene) -> dict[str, Equation[Any]]:
    return dict(train_equations(scene)) if isinstance(scene, TrainScene) else dict(serve_equations(scene))  # type: ignore[arg-type]


def _term(scene: Scene, name: str, operators: list[dict[str, Any]], tiers: list[Wire]) -> dict[str, Any]:
    law = _equations(scene)[name]
    inputs = law.inputs(scene)
    exposed, busy = computed(law, inputs)
    installed = scene.job.scale if isinstance(scene, TrainScene) else 1.0
    scaled = f"[{law.text}] · {installed:.4g} (installation, release)" if installed != 1.0 else law.text
    return {
        "name": name,
        "seconds": scene.terms.get(name, 0.0),
        "share": scene.terms.get(name, 0.0) / scene.seconds,
        "busy_s": scene.busy[name],
        "equation": scaled,
        "inputs": {symbol: given.written() for symbol, given in inputs.items()},
        "computed_s": installed * exposed,
        "computed_busy_s": installed * busy,
        "source": law.source,
        "note": law.note,
        "operators": operators,
        "collectives": collective_rows(scene, name),
        "bound": operators[0]["bound"] if operators else "wire" if name in WIRES else None,
        **term_interval(scene, name, tiers, bool(operators)),
    }
