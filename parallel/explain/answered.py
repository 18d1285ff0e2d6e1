"""`explain` for a document of ``podscale serve --json`` under an engine: an account from the document's own terms.

Nothing is simulated again, so that operators and changes that would help are not told: the scenario tells them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from parallel.explain.said import rate_said, share_said, time_said
from parallel.io import read_json

BOUND: Final[Mapping[str, str]] = {"ep": "wire", "dcp": "wire", "hops": "wire", "kv read": "memory"}
"""Term -> what bounds it, where that does not depend on sizes."""
WAITS_FOR: Final[Mapping[str, str]] = {
    "ep": "links between the accelerators of a replica, and their software",
    "kv read": "memory bandwidth of the accelerator",
    "head": "memory bandwidth of the accelerator",
    "starts": "the time that kernels take to start",
    "host": "the engine's host code",
    "dcp": "links between the tensor ranks, and their software",
    "hops": "links between pipeline stages",
    "uneven stages": "the slowest pipeline stage",
    "drafts": "the passes of what drafts",
    "prompts": "prefill on the same accelerators",
}
"""Term -> what it waits for; linear layers wait for what bounds the longest of them."""
NAMED: Final[Mapping[str, str]] = {
    "linear": "linear layers and their reductions", "ep": "the expert exchange", "kv read": "reading the KV cache",
    "head": "the language-model head", "starts": "starting kernels", "host": "the host",
    "dcp": "gathering what ranks with parts of the cache found", "hops": "hops between pipeline stages",
    "uneven stages": "waiting for the slowest stage", "drafts": "drafting",
    "prompts": "the share of prompts in its passes",
}  # fmt: skip
LINEAR: Final[Mapping[str, str]] = {
    "compute": "dense FLOP/s of the accelerator",
    "memory": "memory bandwidth of the accelerator",
    "wire": "links between the accelerators of a replica, and their software",
}


_MEMORY: Final[Mapping[str, tuple[str, str]]] = {
    "weights": ("weights of one rank", "parallel/memory.py"),
    "kv cache": ("b·(isl + osl/2)·bytes of a position, at most what is admitted", "parallel/serving/passes.py"),
    "draft": ("weights of what drafts", "parallel/serving/drafts.py"),
    "cache to spare": ("positions that the engine sets aside, less those in use", "parallel/serving/passes.py"),
}


def memory_rows(answer: Mapping[str, Any], room: float) -> list[dict[str, Any]]:
    """Return what one accelerator holds, the largest first."""
    rows = [
        {"name": name, "bytes": held, "share": held / room, "equation": _MEMORY[name][0], "inputs": {}, "note": "",
         "source": _MEMORY[name][1]}
        for name, held in answer["memory_bytes"].items() if name in _MEMORY
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row["bytes"])


def sentences(
    answer: Mapping[str, Any],
    terms: list[dict[str, Any]],
    neck: Mapping[str, Any],
    memory: list[dict[str, Any]],
    room: float,
) -> list[str]:
    """Say where time and memory go."""
    said = [
        f"Every output token of {answer['model']} under {answer['engine']} takes {time_said(answer['tpot_s'])}, the first "
        f"{time_said(answer['ttft_s'])}, on {answer['gpus_used']:,} {answer['accelerator']}: "
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


def read_answer(path: str | Path) -> dict[str, Any] | None:
    """Return a document of a deployment under an engine; None where the file is something else."""
    if Path(path).suffix.lower() != ".json":
        return None
    document = read_json(path)
    known = isinstance(document, Mapping) and {"engine", "terms", "tpot_s", "ttft_s", "memory_bytes"} <= set(document)
    return dict(document) if known and document["engine"] not in (None, "none") else None


def explain_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Tell a document's own terms and memory, in the form of `parallel.explain.served.explain_served`."""
    held = answer["memory_bytes"]
    room = answer.get("memory_capacity_bytes") or sum(held.values())
    answer = {"accelerator": "accelerators", **answer}
    terms, memory = _terms(answer), memory_rows(answer, room)
    first = terms[0]
    neck = {
        "term": first["name"], "seconds": first["seconds"], "share": first["share"], "bound": first["bound"],
        "waits_for": WAITS_FOR.get(first["name"], "arithmetic, memory or links, whichever the scenario tells"),
        "on_the_wire": first["bound"] == "wire", "link": None, "tier": None, "nodes": [], "bandwidth_Bps": None,
        "load": None, "wires": [],
    }  # fmt: skip
    told = "This is the document's own account: give the scenario, to see operators and what would help."
    kept = ("phase", "model", "cluster", "engine", "strategy", "tokens_per_s_per_gpu", "gpus_used", "warnings")
    return {
        "said": [*sentences(answer, terms, neck, memory, room), told],
        **{name: answer[name] for name in kept},
        "seconds": answer["tpot_s"],
        "terms": terms,
        "memory": memory,
        "memory_capacity_bytes": room,
        "bottleneck": neck,
        "advice": [],
        "tried": [],
        "interval": answer.get("interval"),
        "interval_note": answer.get("interval_note"),
        "row": answer,
        "point": None,
    }


def _terms(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the terms of a document, the largest first, with the equations behind them."""
    from parallel.explain.served import EQUATIONS

    found = []
    for name, seconds in answer["terms"].items():
        law = EQUATIONS.get(name)
        if seconds > 0:
            found.append(
                {
                    "name": name, "seconds": seconds, "share": seconds / answer["tpot_s"],
                    "busy_s": answer.get("busy", answer["terms"]).get(name, seconds),
                    "equation": law.text if law else "", "inputs": {}, "source": law.source if law else "",
                    "note": law.note if law else "", "operators": [], "collectives": [], "bound": BOUND.get(name),
                    "interval": None, "interval_note": "only whole requests were measured: their interval is the time's",
                }
            )  # fmt: skip
    return sorted(found, key=lambda term: -term["seconds"])
