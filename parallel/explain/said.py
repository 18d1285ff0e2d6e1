"""An account in plain words: what it comes to, what takes most of it, what waits for what, what would help."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from parallel.explain.scene import Scene
from parallel.results import STOPS

WHOLE: Final[Mapping[str, str]] = {
    "train": "One training step of {model} takes {time}",
    "prefill": "One prefill pass of {model} takes {time}",
    "decode": "Every output token of {model} takes {time}",
}
_TIMES: Final = ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (0.0, 1e6, "µs"))
SHORTER: Final[Mapping[str | None, str]] = {
    "compute": "more FLOP/s, or a narrower number format",
    "memory": "more memory bandwidth, or fewer bytes: a narrower format, a larger batch per weight read",
    "launch": "fewer and larger kernels: CUDA graphs, fusion, a larger batch",
}
"""What bounds the operators of a term -> what would shorten it."""
NAMES: Final[Mapping[str, str]] = {
    "ep": "the expert exchange",
    "tp": "tensor-parallel collectives",
    "cp": "the context-parallel exchange",
    "dp": "gradient reduction",
    "pp": "hops between stages",
    "kv read": "reading the KV cache",
    "mlp": "the dense MLPs",
    "experts": "the routed experts",
    "shared expert": "the shared expert",
    "vector": "memory-bound operations",
    "attention": "attention projections",
    "attention core": "attention scores",
    "bubble": "the pipeline bubble",
    "imbalance": "uneven stages",
    "host": "launching kernels",
    "step": "the host between steps",
    "head": "the language-model head",
    "optimizer": "the optimizer",
    "recompute": "recomputed activations",
    "contention": "contention with hidden communication",
    "router": "the gate of the experts",
    "amax": "agreeing on FP8 scales",
    "evaluation": "evaluations",
}
"""Term -> what to call it in a sentence."""


def time_said(seconds: float) -> str:
    """Write a time in three figures.

    >>> time_said(5.853), time_said(0.0123), time_said(4.2e-6)
    ('5.85 s', '12.3 ms', '4.2 µs')
    """
    _, factor, unit = next(row for row in _TIMES if abs(seconds) >= row[0])
    return f"{seconds * factor:.3g} {unit}"


def share_said(share: float) -> str:
    """Write a share in whole percents, small ones in one figure more.

    >>> share_said(0.42), share_said(0.0123), share_said(0.0004)
    ('42 %', '1.2 %', '0.04 %')
    """
    return f"{share * 100:.0f} %" if share >= 0.1 else f"{share * 100:.2g} %"


def rate_said(Bps: float) -> str:
    """Write a bandwidth.

    >>> rate_said(50e9), rate_said(1.8e12)
    ('50 GB/s', '1.8 TB/s')
    """
    return f"{Bps / 1e12:.3g} TB/s" if Bps >= 1e12 else f"{Bps / 1e9:.3g} GB/s"


def sentences(
    scene: Scene, neck: Mapping[str, Any], memory: Sequence[Mapping[str, Any]], advised: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return the account in a few sentences, the answer first."""
    held = _memory(scene, memory)
    fits = sum(row["bytes"] for row in memory) <= scene.cluster.accelerator.usable_bytes
    middle = [*_largest(scene, neck), *_wire(neck)]
    return [_whole(scene), *([*middle, held] if fits else [held, *middle]), _advice(advised)]


def _whole(scene: Scene) -> str:
    rate = float(scene.priced.extra["tokens_per_s_per_gpu"][0])
    shown = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
    told = WHOLE[scene.point.phase].format(model=scene.point.model.name, time=time_said(scene.seconds))
    return f"{told} on {scene.cluster.accelerators:,} {scene.cluster.accelerator.title}: {shown} tokens/s per GPU."


def _largest(scene: Scene, neck: Mapping[str, Any]) -> Iterator[str]:
    """Say what takes most, what it waits for, and what follows it."""
    terms = sorted(scene.terms, key=lambda name: -scene.terms[name])
    first = NAMES.get(neck["term"], neck["term"])
    yield f"Most of it, {share_said(neck['share'])}, is {first}, waiting for {neck['waits_for']}."
    after = [f"{NAMES.get(name, name)} ({share_said(scene.terms[name] / scene.seconds)})" for name in terms[1:3]]
    if after:
        yield f"Then come {' and '.join(after)}."
    remedy = SHORTER.get(neck["bound"]) or STOPS.get(neck["term"], "").partition(": ")[2]
    if remedy:
        yield f"What would shorten it: {remedy}."


def _wire(neck: Mapping[str, Any]) -> Iterator[str]:
    """Name the link in the graph."""
    if neck["link"] is None:
        yield "Nothing travels between accelerators."
        return
    ends = " and ".join(f"{a} to {b}" for a, b in neck["nodes"]) or f"tier {neck['tier']}"
    wire = next(row for row in neck["wires"] if row["tier"] == neck["tier"] and row["link"] == neck["link"])
    role = "It crosses" if neck["on_the_wire"] and wire["terms"].get(neck["term"]) else "The busiest wire is"
    hidden = (
        "is hidden behind work"
        if wire["saved_by_twice"] < 0.005
        else f"at twice the bandwidth the step is {share_said(wire['saved_by_twice'])} shorter"
    )
    yield (
        f"{role} {ends} ({neck['link']}, {rate_said(neck['bandwidth_Bps'])} per accelerator, tier {neck['tier']}): "
        f"at work {share_said(neck['load'])} of the time; {'its traffic ' if 'hidden' in hidden else ''}{hidden}."
    )


def _memory(scene: Scene, memory: Sequence[Mapping[str, Any]]) -> str:
    room = scene.cluster.accelerator.usable_bytes
    needed = sum(row["bytes"] for row in memory)
    most = memory[0]
    state = "does not fit" if needed > room else f"leaves {share_said(1.0 - needed / room)} free"
    return (
        f"Memory: {needed / 2**30:.3g} of {room / 2**30:.3g} GiB, {most['bytes'] / 2**30:.3g} GiB of it {most['name']}; "
        f"that {state}."
    )


def _advice(advised: Sequence[Mapping[str, Any]]) -> str:
    if not advised:
        return "No change that was tried would help: see what was tried, and why not."
    return f"Cheapest first, what would help: {'; '.join(map(advice_said, advised))}."


def advice_said(row: Mapping[str, Any]) -> str:
    """Write one change and what it gives."""
    price = row["price_usd"]
    dear = "free" if row["kind"] == "strategy" else "a switch" if row["kind"] == "software" else "price unknown"
    if row["kind"] == "hardware" and price is not None:
        dear = f"${price:,.0f}"
    gain = f"{row['gain'] * 100:+.1f} % tokens/s" if row["gain"] is not None else "no rate to compare"
    gain = f"then it runs, {gain}" if row["makes_it_run"] else gain
    note = f", {row['note']}" if row["note"] else ""
    return f"{row['said']} ({gain}, {dear}{note})"
