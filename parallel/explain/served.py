"""`explain` for a deployment under an engine: the time per token term by term, what stops it, and what would help.

The answer is a simulation of requests (`parallel.serving.served`); its terms are those of a bare decoding step at the mean
batch, and what passes that hold prompts add between two tokens. Every change is the scenario changed and simulated again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clusters.spec import ClusterSpec
from parallel.explain.equation import Equation, Input, Inputs, computed
from parallel.explain.said import rate_said, share_said, time_said
from parallel.explain.servedops import collective_rows, operator_rows
from parallel.models import Model
from parallel.serving.served import Deployment, deployed, serve_engine
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
    def context(self) -> float:
        """Positions that a decoding sequence sees on average."""
        return self.held.isl + self.held.osl / 2.0

    @cached_property
    def parts(self) -> dict[str, float]:
        """Seconds of a bare step by term."""
        return self.held.cost.parts(self.batch, self.batch * self.context)

    @property
    def factor(self) -> float:
        """What the shown terms are of the bare step's: a calibration, and where no step is as long as the mean, its share."""
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
_ENGINES: Final = "parallel/data/engines.yaml, fitted by parallel/calibration/serving.py"


def _frame(asked: Asked) -> Inputs:
    return {
        "f": Input(asked.factor, "", "calibration of the answer, and a bare step's share where it is above the mean"),
        "b": Input(asked.batch, "", "sequences that decode at once in a group, mean of the simulation"),
    }


def _linear(asked: Asked) -> Inputs:
    seconds = Input(asked.parts["linear"], "s", "operators and reductions for b tokens, between priced token counts")
    return _frame(asked) | {"L": seconds}


def _ep(asked: Asked) -> Inputs:
    return _frame(asked) | {"X": Input(asked.parts["ep"], "s", "between attention groups and experts, b tokens each")}


def _cache(asked: Asked) -> Inputs:
    cost = asked.held.cost
    counts, widths, flops, states, windows = (np.array(column) for column in zip(*cost.reads, strict=True))
    seen = np.where(
        windows > 0, np.minimum(asked.batch * asked.context, asked.batch * windows), asked.batch * asked.context
    )
    return _frame(asked) | {
        "n": Input(counts, "", "layers of each kind"),
        "V": Input(seen * widths + asked.batch * states, "B", "cache read by a layer", {"context": asked.context}),
        "Φ": Input(seen * flops, "s", "scores and weighted sums over it"),
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
        "E": Input(each, "s", "of each further one"),
    }


def _starts(asked: Asked) -> Inputs:
    cost = asked.held.cost
    return _frame(asked) | {
        "λ": Input(cost.engine.launch, "", f"start of a kernel in a captured graph over an empty one: {_ENGINES}"),
        "K": Input(float(cost.kernels), "", "kernels of a pass"),
        "s": Input(cost.kernel_s, "s", "an empty kernel"),
    }


def _host(asked: Asked) -> Inputs:
    return _frame(asked) | {
        "h": Input(asked.held.cost.engine.request_s, "s", f"host, for each sequence of a step: {_ENGINES}")
    }


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
    "host": Equation("f·h·b", _host, lambda v: v["f"] * v["h"] * v["b"], _PASSES),
    "prompts": Equation(
        "T − D", _prompts, lambda v: np.maximum(v["T"] - v["D"], 0.0), "parallel/serving/queueing.py",
        note="passes that hold prompts are longer, and every sequence that decodes meanwhile waits for them",
    ),
}  # fmt: skip
"""Term -> its equation."""
WAITS_FOR: Final[Mapping[str, str]] = {
    "ep": "links between the accelerators of a replica, and their software",
    "kv read": "memory bandwidth of the accelerator",
    "head": "memory bandwidth of the accelerator",
    "starts": "the time that kernels take to start",
    "host": "the engine's host code",
    "prompts": "prefill on the same accelerators",
}
"""Term -> what it waits for; linear layers wait for what bounds the longest of them."""
NAMED: Final[Mapping[str, str]] = {
    "linear": "linear layers and their reductions", "ep": "the expert exchange", "kv read": "reading the KV cache",
    "head": "the language-model head", "starts": "starting kernels", "host": "the host",
    "prompts": "the share of prompts in its passes",
}  # fmt: skip
LINEAR: Final[Mapping[str, str]] = {
    "compute": "dense FLOP/s of the accelerator",
    "memory": "memory bandwidth of the accelerator",
    "wire": "links between the accelerators of a replica, and their software",
}


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
    memory = _memory(asked, room)
    advised, tried = advice(asked)
    neck = {
        "term": first["name"], "seconds": first["seconds"], "share": first["share"], "bound": first["bound"],
        "waits_for": WAITS_FOR.get(first["name"]) or LINEAR[first["bound"]],
        "on_the_wire": first["bound"] == "wire", **_link(asked),
    }  # fmt: skip
    return {
        "said": [*_sentences(asked, terms, neck, memory, room), _advised(advised, figure_of(asked.file))],
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
    whole, rows = asked.answer["tpot_s"], operator_rows(asked.held, asked.batch)
    wires = collective_rows(asked.held, asked.batch)
    found = []
    for name, seconds in asked.answer["terms"].items():
        law, operators = EQUATIONS[name], rows if name == "linear" else []
        inputs = law.inputs(asked)
        exposed, busy = computed(law, inputs)
        reduced = sum(row["times"] * row["seconds"] for row in wires)
        bound = {"ep": "wire", "kv read": "memory"}.get(name)
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
    ranks = replica.split.ranks
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


_MEMORY: Final[Mapping[str, tuple[str, str]]] = {
    "weights": ("weights of one rank", "parallel/memory.py"),
    "kv cache": ("b·(isl + osl/2)·bytes of a position, at most what is admitted", _PASSES),
    "cache to spare": ("positions that the engine sets aside, less those in use", _PASSES),
}


def _memory(asked: Asked, room: float) -> list[dict[str, Any]]:
    rows = [
        {"name": name, "bytes": held, "share": held / room, "equation": _MEMORY[name][0], "inputs": {}, "note": "",
         "source": _MEMORY[name][1]}
        for name, held in asked.answer["memory_bytes"].items() if name in _MEMORY
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row["bytes"])


def _sentences(
    asked: Asked, terms: list[dict[str, Any]], neck: Mapping[str, Any], memory: list[dict[str, Any]], room: float
) -> list[str]:
    answer, part = asked.answer, asked.held.replica.chip.accelerator
    said = [
        f"Every output token of {answer['model']} under {answer['engine']} takes {time_said(answer['tpot_s'])}, the first "
        f"{time_said(answer['ttft_s'])}, on {answer['gpus_used']:,} {part.title}: "
        f"{answer['tokens_per_s_per_gpu']:,.3g} tokens/s per GPU.",
        f"Most of a token's time, {share_said(neck['share'])}, is {NAMED[neck['term']]}: it waits for {neck['waits_for']}.",
    ]
    if after := [f"{NAMED[term['name']]} ({share_said(term['share'])})" for term in terms[1:3]]:
        said.append(f"Then come {' and '.join(after)}.")
    if neck["link"]:
        ends = " and ".join(f"{a} to {b}" for a, b in neck["nodes"]) or f"tier {neck['tier']}"
        said.append(
            f"A replica talks over {ends} ({neck['link']}, {rate_said(neck['bandwidth_Bps'])} per accelerator)."
        )
    if answer["saturated"]:
        said.append("The engine is saturated: requests wait for a place, and longer the longer the run.")
    used = sum(row["bytes"] for row in memory if row["name"] != "cache to spare")
    spare = answer["memory_bytes"].get("cache to spare", 0.0)
    said.append(
        f"Memory: {used / 2**30:.3g} of {room / 2**30:.3g} GiB in use, {spare / 2**30:.3g} GiB more set aside for caches."
    )
    if answer["limit_broken"]:
        said.append(f"It breaks the {answer['limit_broken']}.")
    return said


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
