"""A scenario of reinforcement learning, answered: a step and where its time goes, side by side or in turns, at every ratio.

In turns, all accelerators write and then all train. Side by side, some write while the others train, at every ratio of the
two; what begins an answer may lag by `staleness` versions. Terms are the trainer's: what it waits for answers, and what it
does; they add up to the step.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clusters.build import build
from clusters.spec import ClusterSpec
from parallel.io import read_yaml
from parallel.models import Model
from parallel.rl.loop import Answers, Told, Trainer, loop
from parallel.rl.stages import (
    Engines,
    Training,
    answers_of,
    engines_of,
    shared_out,
    split_of,
    training_of,
    update_of,
)
from parallel.scenarioparts import cluster_of, model_of
from parallel.serving.passes import Split
from parallel.serving.reused import spread_of
from topo.errors import Fault, InfeasibleError, SpecError

if TYPE_CHECKING:
    from parallel.scenariofile import RlFile

SHARES: Final = tuple(eighth / 8.0 for eighth in range(1, 8))
"""Shares of the accelerators that write, where the file leaves it open."""
HOUR_S: Final = 3600.0
ASSUMES: Final = (
    "answers of a step are dealt evenly; a trainer packs them without loss; in turns, changing over is the weight update "
    "alone; engines know how long an answer will be when they admit it; no failures"
)
Progress = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Setting:
    """What every arrangement of one scenario has in common."""

    file: "RlFile"
    model: Model
    spec: ClusterSpec
    answers: Answers
    split: Split
    update: dict[str, Any]
    path: str

    def engines(self, count: int) -> Engines:
        """Return the engines of so many accelerators."""
        longest = self.answers.prompt + float(self.answers.lengths.draw(1, longest_of=self.answers.count)[0])
        return engines_of(self.file.rollout, self.model, shared_out(self.spec, count), self.split, longest)

    def training(self, count: int) -> Training:
        """Return the trainer on so many accelerators."""
        return training_of(self.file.trainer, self.model, shared_out(self.spec, count), self.answers, self.path)

    def run(self, engines: Engines, training: Training, staleness: int) -> Told:
        """Run the loop."""
        forward = training.forward_s + self.file.trainer.reward_s
        trainer = Trainer(forward, training.train_s, self.update["seconds"], refill=self.file.rollout.refill)
        return loop(engines.cost, engines.limits, engines.groups, self.answers, trainer, staleness)


def rl(path: str | Path, progress: Progress | None = None) -> dict[str, Any]:
    """Answer a scenario of reinforcement learning.

    Returns
    -------
    dict
        `step_time_s`, `terms`, `busy`, rates and `idle` of the arrangement that the file asks for (`staleness` 0: in turns);
        `in_turns` and `ratios` with every arrangement; `best`, the fastest of those side by side; `speedup` over in turns.

    Raises
    ------
    SpecError
        With every fault of the file, and every rule that its splits break.
    InfeasibleError
        Nothing fits in memory, at no ratio.
    """
    from parallel.scenariofile import RlFile, check

    file = check(RlFile, read_yaml(path), str(path))
    spec, model = cluster_of(file, path), model_of(file.model, path)
    if spec.pools:
        raise SpecError([Fault("cluster", None, "has unlike pools", "name one of a single kind", str(path))])
    answers = answers_of(file.answers, spread_of(file.answers.lengths))
    setting = Setting(
        file, model, spec, answers, split_of(file.rollout, model, str(path)), update_of(file, model, spec), str(path)
    )
    turns = _in_turns(setting)
    ratios = _side_by_side(setting, progress) if file.staleness else []
    made = [row for row in ratios if row["step_time_s"] is not None]
    if file.staleness and not made:
        raise InfeasibleError(
            file.name, "memory of the accelerators", ratios[0]["infeasible"], "split more, or buy more"
        )
    best = min(made, key=lambda row: row["step_time_s"]) if made else None
    chosen = best or turns
    if chosen["step_time_s"] is None:
        raise InfeasibleError(file.name, "memory of the accelerators", turns["infeasible"], "split more, or buy more")
    return {
        "name": file.name, "note": file.note, "phase": "rl", "model": model.name, "cluster": build(spec).name,
        "workload": {
            **file.answers.model_dump(), "answers": answers.count, "mean_tokens": answers.lengths.mean,
            "staleness": file.staleness, "minibatches": file.trainer.minibatches,
        },
        "strategy": {"rollout": file.rollout.model_dump(), "trainer": file.trainer.strategy.model_dump()},
        **{key: value for key, value in chosen.items() if key != "infeasible"},
        "bottleneck": max(chosen["terms"], key=lambda name: chosen["terms"][name]),
        "mfu": None, "interval": None, "interval_note": "no residuals: published loops do not tell their lengths",
        "update": setting.update, "in_turns": turns, "ratios": ratios, "best": best,
        "speedup": turns["step_time_s"] / chosen["step_time_s"] if turns["step_time_s"] else None,
        "run": _whole(file, chosen, build(spec).accelerators),
        "warnings": _warnings(chosen), "assumes": ASSUMES,
    }  # fmt: skip


def _in_turns(setting: Setting) -> dict[str, Any]:
    """Price the synchronous loop: every accelerator writes, and then trains."""
    count = build(setting.spec).accelerators
    return _row(setting, "in turns", (count, count), 0, count)


def _side_by_side(setting: Setting, progress: Progress | None) -> list[dict[str, Any]]:
    """Price the loop at every ratio of writing to training accelerators, or at the one that the file names."""
    count = build(setting.spec).accelerators
    named = setting.file.rollout.accelerators
    if named and not 0 < named < count:
        problem, remedy = f"leave no trainer of {count}", "give it fewer"
        raise SpecError([Fault("rollout.accelerators", named, problem, remedy, setting.path)])
    unit = min(build(setting.spec).domain, max(count // len(SHARES), 1))
    steps = {max(round(share * count / unit), 1) * unit for share in SHARES}
    counts = [named] if named else sorted(step for step in steps if step < count)
    rows: dict[int, dict[str, Any]] = {}

    def price(writers: int) -> None:
        if progress:
            progress(len(rows), len(counts) + 2, f"{writers} of {count} write")
        rows[writers] = _row(setting, "side by side", (writers, count - writers), setting.file.staleness, count)

    for writers in counts:
        price(writers)
    for writers in _between(rows, unit):
        price(writers)
    return [rows[writers] for writers in sorted(rows)]


def _between(rows: dict[int, dict[str, Any]], unit: int) -> list[int]:
    """Return the counts half way from the best ratio to its neighbours."""
    made = [writers for writers in rows if rows[writers]["step_time_s"] is not None]
    if not made:
        return []
    best = min(made, key=lambda writers: rows[writers]["step_time_s"])
    counts = sorted(rows)
    place = counts.index(best)
    near = [counts[at] for at in (place - 1, place + 1) if 0 <= at < len(counts)]
    halves = (round((best + other) / 2 / unit) * unit for other in near)
    return sorted({half for half in halves if half not in rows})


def _row(setting: Setting, how: str, pools: tuple[int, int], staleness: int, count: int) -> dict[str, Any]:
    """Price one arrangement; what does not fit says why."""
    head = {
        "arrangement": how,
        "writing_accelerators": pools[0],
        "training_accelerators": pools[1],
        "staleness": staleness,
    }
    try:
        engines, training = setting.engines(pools[0]), setting.training(pools[1])
    except (InfeasibleError, SpecError) as error:
        return {**head, "step_time_s": None, "infeasible": str(error)}
    told = setting.run(engines, training, staleness)
    own = {"reward and forwards": training.forward_s + setting.file.trainer.reward_s, "train": training.train_s}
    terms = {"rollout": told.waited_s, **own, "weight update": setting.update["seconds"]}
    tokens = setting.answers.count * setting.answers.lengths.mean * told.tokens
    writes = told.writing * told.step_s
    together = how == "in turns"
    trains = told.step_s - told.waited_s - setting.update["seconds"]
    busy = {**terms, "rollout": max(writes, told.waited_s)}
    return {
        **head,
        "step_time_s": told.step_s,
        "tokens_per_step": tokens,
        "tokens_per_s_per_gpu": tokens / told.step_s / count,
        "gpus_used": engines.used if together else engines.used + training.used,
        "terms": terms,
        "busy": busy,
        "idle": {
            "writing": 1.0 - told.writing - told.paused,
            "training": 0.0 if together else told.waited_s / told.step_s,
        },
        "trainer_busy": trains / told.step_s,
        "memory_bytes": training.memory,
        "train_terms": training.terms,
        **{name: value for name, value in asdict(told).items() if name in ("paused", "running", "lag")},
        "infeasible": None,
    }


def _whole(file: "RlFile", chosen: dict[str, Any], count: int) -> dict[str, float] | None:
    """Return the whole run, where the file says of how many steps."""
    if not file.steps:
        return None
    hours = file.steps * chosen["step_time_s"] / HOUR_S
    return {"steps": float(file.steps), "hours": hours, "accelerator_hours": hours * count}


def _warnings(chosen: dict[str, Any]) -> list[str]:
    """Return what a reader must know before trusting the answer."""
    if chosen["staleness"] and chosen["lag"] > 0.9 * chosen["staleness"]:
        return ["answers lag as far as they may: writing is ahead of training, and fewer could write"]
    return []
