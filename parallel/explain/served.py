"""`explain` for a deployment under an engine: the time per token term by term, what stops it, and what would help.

The answer is a simulation of requests (`parallel.serving.served`); its terms are those of a bare decoding step at the mean
batch, and what passes that hold prompts add between two tokens. Every change is the scenario changed and simulated again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clusters.spec import ClusterSpec
from parallel.explain.answered import BOUND, LINEAR, WAITS_FOR, memory_rows, sentences
from parallel.explain.equation import Equation, Input, Inputs, computed
from parallel.explain.servedops import collective_rows, operator_rows
from parallel.models import Model
from parallel.serving.deployed import Deployment, deployed
from parallel.serving.pipelines import Pipeline
from parallel.serving.served import serve_engine
from topo.columns import Column

if TYPE_CHECKING:
    from parallel.scenariofile import ServeFile


@dataclass(frozen=True)
class Asked:
    """A scenario that names an engine, as read: what is simulated, and changed to be simulated again."""

    file: "ServeFile"
    spec: ClusterSpec
    model: Model
    path: str

    @cached_property
    def answer(self) -> dict[str, Any]:
        """What `podscale serve` answers; raises what it raises."""
        return serve_engine(self.file, self.spec, self.model, self.path)

    @cached_property
    def held(self) -> Deployment:
        """The deployment behind the answer."""
        return deployed(self.file, self.spec, self.model, self.path)

    @property
    def batch(self) -> float:
        """Sequences that decode at once in an attention group, averaged over the run."""
        return max(float(self.answer["decoding"]), 1.0)

    @property
    def each(self) -> float:
        """Sequences of a pass: of one micro-batch, where stages keep several in flight."""
        cost = self.held.steps.cost
        return self.batch / (cost.micro_batches(self.batch) if isinstance(cost, Pipeline) else 1.0)

    @property
    def checked(self) -> float:
        """Tokens of a sequence in a pass: its last one, and its drafts."""
        return self.held.drafts.checked if self.held.drafts else 1.0

    @property
    def context(self) -> float:
        """Positions that a decoding sequence sees on average."""
        return self.held.isl + self.held.osl / 2.0

    @cached_property
    def parts(self) -> dict[str, float]:
        """Seconds of a bare step by term."""
        steps = self.held.steps
        found = steps.cost.parts(self.batch, self.batch * self.held.context)
        return {name: steps.yielded * seconds for name, seconds in found.items()}

    @property
    def factor(self) -> float:
        """What the shown terms are of the bare step's: a calibration, the tokens of a step, and its share of the mean."""
        bare = sum(self.parts.values())
        return float(sum(s for name, s in self.answer["terms"].items() if name != "prompts") / bare)


def read_served(path: str | Path) -> Asked | None:
    """Return a scenario that names an engine; None where the file is something else.

    Raises
    ------
    SpecError
        The scenario is wrong, with every fault.
    """
    from parallel.io import read_yaml
    from parallel.scenariofile import ServeFile, check, load_faults, pool_faults
    from parallel.scenarioparts import cluster_of, model_of, pool_of
    from topo.errors import SpecError

    if Path(path).suffix.lower() not in (".yaml", ".yml"):
        return None
    raw = read_yaml(path)
    if raw.get("engine") in (None, "none") or "vary" in raw:
        return None
    file = check(ServeFile, raw, str(path))
    if faults := [*load_faults(file, str(path)), *pool_faults(file, str(path))]:
        raise SpecError(faults)
    spec, model = cluster_of(file, path), model_of(file.model, path)
    return Asked(file, pool_of(spec, "pool", file.pool, path), model, str(path))


# --- equations ------------------------------------------------------------------------------------------------------------

_PASSES: Final = "parallel/serving/passes.py"
_PIPELINES: Final = "parallel/serving/pipelines.py"
_ENGINES: Final = "parallel/data/engines.yaml, fitted by parallel/calibration/serving.py"


def _frame(asked: Asked) -> Inputs:
    return {
        "f": Input(
            asked.factor, "", "calibration, one over a step's tokens, a bare step's share where it is above the mean"
        ),
        "b": Input(
            asked.each, "", "sequences of a pass: those that decode at once in a group, or in a micro-batch of it"
        ),
    }


def _given(name: str, symbol: str, said: str) -> Callable[["Asked"], Inputs]:
    """Return the inputs of a term whose seconds are those of a step."""
    return lambda asked: _frame(asked) | {symbol: Input(asked.parts[name], "s", said)}


def _linear(asked: Asked) -> Inputs:
    seconds = Input(asked.parts["linear"], "s", "operators and reductions for b tokens, between priced token counts")
    return _frame(asked) | {"L": seconds}


def _ep(asked: Asked) -> Inputs:
    return _frame(asked) | {"X": Input(asked.parts["ep"], "s", "between attention groups and experts, b tokens each")}


def _cache(asked: Asked) -> Inputs:
    cost = asked.held.cost
    whole = asked.each * asked.context
    rows = [row for held in cost.indexed for row in held.reads(asked.each, whole, asked.checked)]
    for count, width, flops, state, window in cost.reads:
        seen = min(whole, asked.each * window) if window else whole
        rows.append((count, seen * width + asked.each * state, asked.checked * seen * flops))
    counts, read, busy = (np.array(column) for column in zip(*rows, strict=True))
    said = "layers of each kind" + ": index scores, choice and attention of each" * bool(cost.indexed)
    return _frame(asked) | {
        "n": Input(counts, "", said),
        "V": Input(read, "B", "cache read by a layer", {"context": asked.context}),
        "Φ": Input(busy, "s", "scores and weighted sums over it"),
        "M": Input(cost.hbm_Bps, "B/s", "memory bandwidth, data sheet"),
        "η": Input(cost.hbm_efficiency, "", "share of it that streaming reaches"),
        "τ": Input(cost.hbm_ramp_s, "s", "ramp of the memory"),
    }


def _cache_s(v: Mapping[str, Column]) -> Column:
    wire = v["V"] / v["M"]
    return np.asarray(np.sum(v["f"] * v["n"] * np.maximum(wire / v["η"] + np.sqrt(v["τ"] * wire), v["Φ"])))


def _head(asked: Asked) -> Inputs:
    first, each = asked.held.cost.head_s
    return _frame(asked) | {
        "H": Input(first, "s", "head of one sequence"),
        "E": Input(each * asked.checked, "s", "of each further one, its drafts too"),
    }


def _starts(asked: Asked) -> Inputs:
    cost = asked.held.cost
    return _frame(asked) | {
        "λ": Input(cost.engine.launch, "", f"start of a kernel in a captured graph over an empty one: {_ENGINES}"),
        "K": Input(float(cost.kernels), "", "kernels of a pass"),
        "s": Input(cost.kernel_s, "s", "an empty kernel"),
    }


def _host(asked: Asked) -> Inputs:
    each = {"request_s": asked.held.cost.engine.request_s}
    said = f"host's work on b sequences, as far as the accelerator waits for it: {_ENGINES}"
    return _frame(asked) | {"W": Input(asked.parts["host"], "s", said, each)}


def _prompts(asked: Asked) -> Inputs:
    shown = sum(seconds for name, seconds in asked.answer["terms"].items() if name != "prompts")
    return {
        "T": Input(asked.answer["tpot_s"], "s", "mean time per token of the simulated requests"),
        "D": Input(shown, "s", "a bare decoding step: the terms above"),
    }


EQUATIONS: Final[Mapping[str, Equation[Asked]]] = {
    "linear": Equation("f·L(b)", _linear, lambda v: v["f"] * v["L"], f"{_PASSES}; operators in parallel/serving/operators.py"),
    "ep": Equation("f·X(b)", _ep, lambda v: v["f"] * v["X"], f"{_PASSES}, parallel/exchange.py"),
    "kv read": Equation("Σ f·n·max(V/(η·M) + √(τ·V/M), Φ)", _cache, _cache_s, f"{_PASSES}; ramp: clusters/kernels.py"),
    "head": Equation("f·(H + E·b)", _head, lambda v: v["f"] * (v["H"] + v["E"] * v["b"]), "parallel/operators.py"),
    "starts": Equation("f·λ·K·s", _starts, lambda v: v["f"] * v["λ"] * v["K"] * v["s"], _PASSES),
    "host": Equation("f·W(b)", _host, lambda v: v["f"] * v["W"], _PASSES),
    "dcp": Equation(
        "f·G(b)", _given("dcp", "G", "ranks that deal the cache gather queries and add up outputs, b tokens"),
        lambda v: v["f"] * v["G"], f"{_PASSES}, dealt_s",
    ),
    "hops": Equation(
        "f·P(b)", _given("hops", "P", "messages between the stages, b tokens, and the tokens' way back"),
        lambda v: v["f"] * v["P"], _PIPELINES,
    ),
    "uneven stages": Equation(
        "f·U(b)", _given("uneven stages", "U", "all micro-batches at the slowest stage, less one's way through all"),
        lambda v: v["f"] * v["U"], _PIPELINES, note="layers do not divide, or the last stage has the head",
    ),
    "drafts": Equation(
        "f·Q(b)", _given("drafts", "Q", "passes that draft, one after the other"),
        lambda v: v["f"] * v["Q"], "parallel/serving/drafts.py",
    ),
    "prompts": Equation(
        "T − D", _prompts, lambda v: np.maximum(v["T"] - v["D"], 0.0), "parallel/serving/queueing.py",
        note="passes that hold prompts are longer, and every sequence that decodes meanwhile waits for them",
    ),
}  # fmt: skip
"""Term -> its equation."""


# --- the account ----------------------------------------------------------------------------------------------------------


def explain_served(asked: Asked) -> dict[str, Any]:
    """Simulate a deployment, and tell where its time and memory go and what would help.

    Returns
    -------
    dict
        In the form of `parallel.explain.account.explain`; `row` is what `podscale serve` answers, and `gain_of` what the
        gains of `advice` are of: tokens per second under clients that wait, whole answers under requests at a rate.

    Raises
    ------
    SpecError, InfeasibleError
        As `parallel.serving.served.serve_engine`.
    """
    from parallel.explain.servedadvice import advice, figure_of

    answer, terms = asked.answer, _terms(asked)
    first = terms[0]
    room = asked.held.replica.chip.accelerator.usable_bytes
    memory = memory_rows(answer, room)
    advised, tried = advice(asked)
    neck = {
        "term": first["name"], "seconds": first["seconds"], "share": first["share"], "bound": first["bound"],
        "waits_for": WAITS_FOR.get(first["name"]) or LINEAR[first["bound"]],
        "on_the_wire": first["bound"] == "wire", **_link(asked),
    }  # fmt: skip
    return {
        "said": [*sentences(answer, terms, neck, memory, room), _advised(advised, figure_of(asked.file))],
        "phase": answer["phase"],
        "model": answer["model"],
        "cluster": answer["cluster"],
        "engine": answer["engine"],
        "strategy": answer["strategy"],
        "seconds": answer["tpot_s"],
        "tokens_per_s_per_gpu": answer["tokens_per_s_per_gpu"],
        "gpus_used": answer["gpus_used"],
        "terms": terms,
        "memory": memory,
        "memory_capacity_bytes": room,
        "bottleneck": neck,
        "advice": advised,
        "tried": tried,
        "gain_of": figure_of(asked.file),
        "interval": answer["interval"],
        "interval_note": answer["interval_note"],
        "warnings": answer["warnings"],
        "row": answer,
        "point": None,
    }


def _terms(asked: Asked) -> list[dict[str, Any]]:
    """Return the terms of the time per token, the largest first."""
    tokens = asked.each * asked.checked
    whole, rows = asked.answer["tpot_s"], operator_rows(asked.held, tokens)
    wires = collective_rows(asked.held, tokens)
    found = []
    for name, seconds in asked.answer["terms"].items():
        law, operators = EQUATIONS[name], rows if name == "linear" else []
        inputs = law.inputs(asked)
        exposed, busy = computed(law, inputs)
        reduced = sum(row["times"] * row["seconds"] for row in wires)
        bound = BOUND.get(name)
        if operators:
            bound = "wire" if reduced > sum(row["seconds"] for row in operators) else operators[0]["bound"]
        if seconds > 0:
            found.append(
                {
                    "name": name, "seconds": seconds, "share": seconds / whole, "busy_s": seconds,
                    "equation": law.text, "inputs": {symbol: given.written() for symbol, given in inputs.items()},
                    "computed_s": exposed, "computed_busy_s": busy, "source": law.source, "note": law.note,
                    "operators": operators, "collectives": wires if name == "linear" else [], "bound": bound,
                    "interval": None, "interval_note": "only whole requests were measured: their interval is the time's",
                }
            )  # fmt: skip
    return sorted(found, key=lambda term: -term["seconds"])


def _link(asked: Asked) -> dict[str, Any]:
    """Return the tier that holds a replica: what its reductions and exchanges cross."""
    replica = asked.held.replica
    ranks = replica.split.stage
    nothing: dict[str, Any] = {
        "link": None,
        "tier": None,
        "nodes": [],
        "bandwidth_Bps": None,
        "load": None,
        "wires": [],
    }
    tier = next((tier for tier in replica.cluster.tiers if tier.size >= ranks), None)
    if ranks <= 1 or tier is None:
        return nothing
    from parallel.explain.links import cut_of

    cut = cut_of(replica.cluster, replica.cluster.tiers.index(tier))
    nodes = [[row["from"], row["to"]] for row in cut]
    return {**nothing, "link": tier.link, "tier": tier.name, "nodes": nodes, "bandwidth_Bps": tier.bandwidth_Bps}


def _advised(advised: list[dict[str, Any]], figure: str) -> str:
    if not advised:
        return "No change that was tried would help: see what was tried, and why not."
    price = {"strategy": "free", "software": "a switch"}
    said = []
    for row in advised:
        dear = price.get(row["kind"]) or ("price unknown" if row["price_usd"] is None else f"${row['price_usd']:,.0f}")
        note = f", {row['note']}" if row["note"] else ""
        said.append(f"{row['said']} ({row['gain'] * 100:+.1f} % {figure}, {dear}{note})")
    return f"Cheapest first, what would help: {'; '.join(said)}."
