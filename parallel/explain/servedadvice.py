"""What could be changed about a deployment under an engine: the split, the software, the hardware, each simulated again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from clusters.build import build
from clusters.spec import with_
from parallel.explain.advice import ADVISED, LEAST
from parallel.explain.changes import CLASSES, NUMERICS, extra_usd, hardware, narrower, runs_on
from parallel.explain.point import Point
from parallel.models import Moe
from parallel.precision import RECIPES
from parallel.serving.engines import engine_names
from topo.errors import PodscaleError

if TYPE_CHECKING:
    from parallel.explain.served import Asked
    from parallel.scenariofile import ServeFile

FIGURES: Final[Mapping[bool, str]] = {True: "tokens/s", False: "speed of whole answers"}
"""What a gain is of: tokens per second where clients wait for their answer, else (at a given rate) one over a request's time."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One change: as `parallel.explain.changes.Change`, of a scenario under an engine."""

    axis: str
    kind: str
    said: str
    asked: "Asked"
    note: str = ""


def figure_of(file: "ServeFile") -> str:
    """Return what gains are of, under the load of a scenario."""
    return FIGURES[file.load.requests_per_s is None]


def _merit(asked: "Asked", answer: Mapping[str, Any]) -> float:
    """Return what a change should raise."""
    if asked.file.load.requests_per_s is None:
        return float(answer["tokens_per_s_per_gpu"])
    osl = answer["workload"]["osl"]
    return float(1.0 / (answer["ttft_s"] + (osl - 1) * answer["tpot_s"]))


def trials(asked: "Asked") -> Iterator[Trial]:
    """Yield every change, cheapest kind first."""
    yield from _splits(asked)
    yield from _software(asked)


def _splits(asked: "Asked") -> Iterator[Trial]:
    """Yield splits one step away."""
    chosen = asked.file.strategy
    axes = (
        ["tp"]
        + ["ep"] * any(isinstance(kind.mlp, Moe) for kind in asked.model.layers)
        + ["pp"] * (not asked.file.drafts)
    )
    for axis in axes:
        now = int(getattr(chosen, axis))
        for value in (2 * now, *([now // 2] if now % 2 == 0 else [])):
            changed = chosen.model_copy(update={axis: value})
            yield Trial(axis, "strategy", f"{axis} {value} instead of {now}", _with(asked, strategy=changed))


def _software(asked: "Asked") -> Iterator[Trial]:
    """Yield other engines, a narrower cache, narrower numbers."""
    work, held = asked.file.workload, asked.held
    for name in engine_names():
        told = "faults" not in asked.answer["deploy"].get(name, {})
        if name != asked.file.engine and asked.file.calibration is None and told:
            yield Trial("engine", "software", f"{name} instead of {asked.file.engine}", _with(asked, engine=name))
    if held.replica.kv_bytes > 1.0:
        made = _with(asked, workload=work.model_copy(update={"kv_bytes": 1.0}))
        yield Trial("kv_bytes", "software", "an FP8 cache", made, NUMERICS)
    for name in RECIPES:
        if narrower(name, held.precision) and runs_on(name, held.replica.cluster):
            made = _with(asked, workload=work.model_copy(update={"precision": name}))
            yield Trial("precision", "software", f"precision {name} instead of {held.precision}", made, NUMERICS)


def _with(asked: "Asked", **fields: Any) -> "Asked":
    return replace(asked, file=asked.file.model_copy(update=fields))


def advice(asked: "Asked") -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the cheapest changes that help, one for each axis, and all that were tried, cheapest first.

    In the form of `parallel.explain.advice.advice`; a change that breaks a limit of the scenario does not help.
    """
    base = _merit(asked, asked.answer)
    rows = [_row(asked, trial, base, (0.0, "a switch" if trial.kind == "software" else "")) for trial in trials(asked)]
    before = build(asked.spec)
    for wish in hardware(Point("decode", asked.model, asked.spec), before):
        price: tuple[float | None, str] = (None, "no part of the catalogue has it")
        try:
            made = replace(asked, spec=with_(asked.spec, **wish.fields))
            price = extra_usd(before, build(made.spec)) if wish.buyable else price
        except PodscaleError as error:
            rows.append(_refused(Trial(wish.axis, "hardware", wish.said, asked), error, price))
            continue
        rows.append(_row(asked, Trial(wish.axis, "hardware", wish.said, made), base, price))
    rows.sort(key=lambda row: (CLASSES.index(row["kind"]), -(row["gain"] or 0.0)))
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["helps"]:
            best.setdefault(row["change"], row)
    return list(best.values())[:ADVISED], rows


def _row(asked: "Asked", trial: Trial, base: float, price: tuple[float | None, str]) -> dict[str, Any]:
    """Simulate one change."""
    try:
        answer = trial.asked.answer
    except PodscaleError as error:
        return _refused(trial, error, price)
    gain = _merit(asked, answer) / base - 1.0
    mends = bool(asked.answer["limit_broken"]) and not answer["limit_broken"]
    return {
        **_named(trial, price),
        "feasible": not answer["limit_broken"],
        "helps": not answer["limit_broken"] and (gain > LEAST or mends),
        "makes_it_run": mends,
        "reason": f"breaks the {answer['limit_broken']}" if answer["limit_broken"] else None,
        "gain": gain,
        "tokens_per_s_per_gpu": answer["tokens_per_s_per_gpu"],
        "ttft_s": answer["ttft_s"],
        "tpot_s": answer["tpot_s"],
        "memory_bytes": sum(answer["memory_bytes"].values()),
        "strategy": answer["strategy"],
        "note": trial.note,
    }


def _refused(trial: Trial, error: PodscaleError, price: tuple[float | None, str]) -> dict[str, Any]:
    nothing = dict.fromkeys(("gain", "tokens_per_s_per_gpu", "ttft_s", "tpot_s", "memory_bytes"))
    reason = str(error).splitlines()[0]
    flags = {"feasible": False, "helps": False, "makes_it_run": False, "reason": reason}
    return {**_named(trial, price), **flags, **nothing, "strategy": {}, "note": trial.note}


def _named(trial: Trial, price: tuple[float | None, str]) -> dict[str, Any]:
    return {
        "change": trial.axis, "kind": trial.kind, "said": trial.said, "price_usd": price[0], "price_note": price[1],
    }  # fmt: skip
