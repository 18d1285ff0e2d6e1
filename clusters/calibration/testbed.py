"""Fit what Open MPI over TCP adds to the links of the testbed: five constants, shared by all wirings and operations.

The rule: the mean over wirings of their mean |ln(predicted / measured)| at the rungs `stepwise` and `fifo`
(one set serves all rungs), least by moving one constant at
a time up or down a ladder of two figures (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) until no move helps. What the protocol and the
machine say is not fitted: frames, acknowledgements, cores.

To renew `data/stacks.yaml`: ``python -m clusters.calibration.testbed``.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from clusters.testbed import STACKS, Wiring, measured, planned, rows, seconds, wirings
from collectives.ladder import Wire
from collectives.schedule import Schedule

FITTED: Final = ("hop_s", "message_s", "copy_s_per_byte", "turn_s", "relay_s")
START: Final[Mapping[str, float]] = {
    "hop_s": 1.5e-5,
    "message_s": 8e-5,
    "copy_s_per_byte": 4e-10,
    "turn_s": 1e-5,
    "relay_s": 1.5e-4,
}
FIGURES: Final = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
FACTS: Final = Wire(payload_bytes=3948, frame_bytes=4014, ack_bytes=66, payloads_per_ack=2, cores=2, buffered=True)
"""MTU 4000 with TCP timestamps; delayed acknowledgements; all ranks on a machine of two cores; eager sends."""

TOLD: Final = ("payload_bytes", "frame_bytes", "ack_bytes", "payloads_per_ack", "cores", "buffered")
RUNGS: Final = ("stepwise", "fifo")

Case = tuple[Schedule, Wiring, float]


def cases(names: Iterable[str] | None = None) -> list[Case]:
    """Return the eager rows of some of the shipped wirings (of all, by default): schedule, wiring, seconds."""
    table, held = rows(), wirings()
    wanted = set(held if names is None else names)
    found = []
    columns = (table["topology"], table["op"], table["algorithm"], table["proto"], table["bytes"])
    for name, op, algorithm, proto, size, time_s in zip(*columns, measured(table), strict=True):
        if proto != "eager" or name not in wanted:
            continue
        plan = planned(op, algorithm, len(held[name].ranks), float(size))
        if isinstance(plan, Schedule):
            found.append((plan, held[name], time_s))
    return found


Constants = Mapping[str, float]


def predicted(case: Case, constants: Constants, fidelity: str) -> float:
    """Return the price of a case with some constants."""
    plan, wiring, _ = case
    own = {key: value for key, value in constants.items() if key != "relay_s"}
    return seconds(plan, wiring, fidelity, replace(FACTS, **own), constants["relay_s"])  # type: ignore[arg-type]


def loss(constants: Constants, some: Sequence[Case]) -> float:
    """Return the mean over rungs and wirings of their mean |ln(predicted / measured)|."""
    errors: dict[str, list[float]] = defaultdict(list)
    for case in some:
        for fidelity in RUNGS:
            errors[case[1].name].append(abs(np.log(predicted(case, constants, fidelity) / case[2])))
    return float(np.mean([np.mean(each) for each in errors.values()]))


def neighbours(value: float) -> tuple[float, float]:
    """Return the figures below and above a value on the ladder.

    >>> neighbours(1e-5), neighbours(3e-5)
    ((8e-06, 1.2e-05), (2.5e-05, 4e-05))
    """
    power = int(np.floor(np.log10(value) + 1e-9))
    ladder = [float(f"{figure}e{power + step}") for step in (-1, 0, 1) for figure in FIGURES]
    at = int(np.argmin([abs(np.log(each / value)) for each in ladder]))
    return ladder[at - 1], ladder[at + 1]


def fit(some: Sequence[Case]) -> tuple[Constants, float]:
    """Return the constants with the least loss near the start, and that loss."""
    best = dict(START)
    least = loss(best, some)
    moved = True
    while moved:
        moved = False
        for name in FITTED:
            for way in (0, 1):
                while True:
                    trial = best | {name: neighbours(best[name])[way]}
                    found = loss(trial, some)
                    if found >= least:
                        break
                    best, least, moved = trial, found, True
    return best, least


def errors(constants: Constants, some: Sequence[Case], fidelity: str = "fifo") -> dict[str, float]:
    """Return median, 90th percentile and worst error of cases of 1 MiB and more, and the 90th of those of 64 KiB."""
    ratio = np.array([predicted(case, constants, fidelity) / case[2] for case in some])
    size = np.array([plan.size_bytes for plan, _, _ in some])
    large, small = np.abs(ratio[size >= 2**20] - 1), np.abs(ratio[size == 2**16] - 1)
    figures = {
        "median": np.median(large),
        "p90": np.quantile(large, 0.9),
        "worst": large.max(),
        "small_p90": np.quantile(small, 0.9),
    }
    return {key: round(float(value), 4) for key, value in figures.items()} | {"n": len(large)}


def held_out() -> dict[str, Any]:
    """Return, for each half of the wirings (every second one of the table), the errors of the fit to the other half."""
    names = list(wirings())
    halves = names[::2], names[1::2]
    found = {}
    for label, seen, unseen in (("odd", halves[1], halves[0]), ("even", halves[0], halves[1])):
        constants, _ = fit(cases(seen))
        scores = {rung: errors(constants, cases(unseen), rung) for rung in RUNGS}
        found[f"fitted_to_{label}"] = {"constants": dict(constants), "unseen": scores}
    return found


def residuals(constants: Constants, some: Sequence[Case]) -> dict[str, Any]:
    """Return measured / predicted of every regime (see `regime`), by wiring: what intervals are made of."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for case in some:
        plan, wiring, time_s = case
        ratio = time_s / predicted(case, constants, "fifo")
        found[regime(plan.op, plan.algorithm, plan.size_bytes)][wiring.name].append(round(ratio, 4))
    return {key: {name: list(ratios) for name, ratios in found[key].items()} for key in sorted(found)}


def regime(op: str, algorithm: str, size_bytes: float) -> str:
    """Return the regime whose residuals bound a price: operation, algorithm, and small or large at 1 MiB.

    >>> regime("all_reduce", "ring", 2**20)
    'all_reduce ring large'
    """
    return f"{op} {algorithm} {'large' if size_bytes >= 2**20 else 'small'}"


def main(arguments: list[str] | None = None) -> None:
    """Fit the shipped measurements and write the constants."""
    from clusters.calibration.residuals import write_yaml

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=STACKS)
    options = parser.parse_args(arguments)
    every = cases()
    constants, least = fit(every)
    facts = {key: getattr(FACTS, key) for key in TOLD}
    entry = {
        "wire": facts | {key: constants[key] for key in FITTED if key != "relay_s"},
        "relay_s": constants["relay_s"],
        "fitted": list(FITTED),
        "source": "fitted to the eager rows of measurements/mpi_testbed.csv; the other figures of wire are facts",
        "loss": round(least, 5),
        "errors": {rung: errors(constants, every, rung) for rung in RUNGS},
        "held_out": held_out(),
        "residuals": residuals(constants, every),
    }
    write_yaml({"open-mpi-tcp": entry}, options.out, "Written by python -m clusters.calibration.testbed.")
    sys.stdout.write(f"{entry['wire']} {entry['relay_s']}\n{entry['errors']}\n{entry['held_out']}\n")


if __name__ == "__main__":
    main()
