"""The parts of the pages that are formulas: equations from docstrings, tables of algorithms and schedules, worked terms."""

import inspect
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from lists import cell, table
from pages import ROOT

# --- equations -------------------------------------------------------------------------------------------------------

UNITS: Final[Mapping[str, str]] = {
    "_usd_per_byte_s": "USD/(B·s)",
    "_usd_per_byte": "USD/B",
    "usd_per_byte": "USD/B",
    "_per_kWh": "USD/kWh",
    "_usd_per_hour": "USD/h",
    "usd_per_hour": "USD/h",
    "tokens_per_s": "1/s",
    "_bytes": "B",
    "_Bps": "B/s",
    "peak_flops": "FLOP/s",
    "flops": "FLOP",
    "_usd": "USD",
    "_W": "W",
    "_s": "s",
}
"""End of a name -> its unit, the longest first."""

SECTION: Final = re.compile(r"\n(?:Parameters|Returns|Raises|Examples|Notes|See Also|Attributes|Errors)\n-+\n")

PLACES: Final[Mapping[str, tuple[str, str]]] = {
    "wires": (
        "What a message costs on a tier, and what no algorithm can beat.",
        "collectives.span: transfer_s latency_s bandwidths ring_steps ratio crossing by_plane with_own_piece; "
        "collectives.bounds: lower_bound; collectives.direct: mesh_shares torus_shares; collectives.point_to_point: send_recv",
    ),
    "exchange": (
        "The rows of tokens on their way to the ranks that hold their experts, and back.",
        "collectives.moe: expected_groups moe_exchange; collectives.moe_kernel: at_work busiest kernel_s",
    ),
    "operators": (
        "One kernel on one accelerator: launch, arithmetic, memory.",
        "clusters.kernels: exact_waves waves compute_s streaming_s memory_s gemm_bytes reread_bytes gemm_s grouped_gemm_s; "
        "clusters.attention: attention_s; clusters.kernel_models: under_load; parallel.roofline: power_share trained",
    ),
    "memory": (
        "Bytes per accelerator, by who holds them.",
        "parallel.memory: attention_shard dense_shard expert_shard stage_layers fullest_stage end_parameters "
        "serving_weights cache_bytes; parallel.training.activations: layer_tensors backward_bytes loss_bytes end_bytes; "
        "parallel.training.footprint: library_bytes place_parameters placeholder_bytes gathered_parameters flights rates",
    ),
    "training": (
        "What a training step adds to its operators and collectives.",
        "parallel.training.layer: host_s tensor_exposed_s exposed; "
        "parallel.training.step: pipeline_prices placed_prices optimizer_s stack_prices",
    ),
    "serving": (
        "Requests in a closed loop, and caches that move between pools.",
        "parallel.serving.steady: steady; parallel.serving.passes: stage_counts; "
        "parallel.serving.dealt: dealt_s gathered_sums swapped_parts; "
        "parallel.serving.contexts: block_bytes gathered_bytes unhidden_s; "
        "parallel.models: index_score_flops chosen_positions index_key_bytes latent_bytes; "
        "parallel.serving.indexed: chosen_flops chosen_prompt dealers picked_bytes; "
        "parallel.speculation: drafts_of; parallel.hotexperts: zipf_shares popular_shares copied packed; "
        "parallel.routing: largest gamma_at most busiest_rows busiest_hit tiles; "
        "parallel.serving.transfer: request_bytes wire_share transfer",
    ),
    "economics": (
        "What holding, owning and making cost.",
        "clusters.memories: drain_s holding_usd_per_byte_s holding_usd break_even_s; "
        "parallel.economics: annuity owned_hour_usd hour_parts usd_per_million tokens_per_joule memory_share reload_usd infer",
    ),
}
"""Marker of the equations page -> what its section is about, and its functions: ``module: name name; module: …``."""


def named(written: str) -> Iterator[Callable[..., Any]]:
    """Yield the functions that an entry of `PLACES` names."""
    for room in written.split(";"):
        module, _, names = room.partition(":")
        held = __import__(module.strip(), fromlist=["_"])
        yield from (getattr(held, name) for name in names.split())


def unit(name: str) -> str:
    """Return the unit that a name carries, in brackets.

    >>> unit("size_bytes"), unit("stages")
    (' (B)', '')
    """
    return next((f" ({said})" for end, said in UNITS.items() if name.endswith(end)), "")


def told(function: Callable[..., Any]) -> tuple[str, str]:
    """Return the formula of a function in words, and its worked number: what the docstring says of it, and the doctest."""
    text = inspect.getdoc(function) or ""
    head, *_ = re.split(r"\n+(?=>>>)", SECTION.split(text)[0], maxsplit=1)
    _, _, after = text.partition("\nExamples\n--------\n")
    worked = SECTION.split(after)[0] if after else text[len(head) :] if ">>>" in text else ""
    parts = [part.strip() for part in re.split(r"\n\n+", worked) if part.strip()]
    shown = [f"```text\n{part}\n```" if part.startswith(">>>") else part for part in parts]
    head = head.strip().removeprefix("Return ")
    sentence = re.match(r"[a-z]{2,} ", head) or re.match(r"a ", head)
    return head[:1].upper() + head[1:] if sentence else head, "\n\n".join(shown).replace("```\n\n```text\n", "")


def place(function: Callable[..., Any]) -> str:
    """Return a link to the file that holds a function."""
    file = Path(inspect.getsourcefile(function) or "").relative_to(ROOT).as_posix()
    return f"[`{function.__name__}` in {file}](../{file})"


def quoted(text: str) -> str:
    """Return text as a quotation of Markdown; lines of a list stay lines."""
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def equation(function: Callable[..., Any]) -> str:
    """Return one entry: what it takes and gives, the formula, a worked number, where it lives."""
    head, example = told(function)
    takes = ", ".join(f"`{name}`{unit(name)}" for name in inspect.signature(function).parameters)
    worked = f"\n\n{example}" if example else ""
    gives = unit(function.__name__)
    made = f" → {gives.strip(' ()')}" if gives else ""
    return f"### `{function.__name__}`\n\nTakes {takes}{made}. {place(function)}\n\n{quoted(head)}{worked}\n"


def equations(section: str) -> str:
    """Return a section of the equations page."""
    about, written = PLACES[section]
    return "\n".join([f"{about}\n", *(equation(function) for function in named(written))])


def microseconds(price: Callable[..., Any]) -> str:
    """Return the worked number of a collective: 1 MB over 8 ranks of one switch at 100 GB/s, 1 us per step."""
    from collectives.path import Hop, LinkModel

    path = (Hop(100e9, 0.0, LinkModel(base_s=0.0, step_s=1e-6, efficiency=1.0), in_network_reduction=True),)
    return f"{float(price(1e6, [8], path)[()]) * 1e6:.1f} µs"


def algorithms() -> str:
    """Return every collective algorithm."""
    from collectives.algorithms import ALGORITHMS

    out = []
    for operation, held in ALGORITHMS.items():
        out.append(f"### {operation}\n")
        for name, algorithm in held.items():
            head, _ = told(algorithm.fn)
            out.append(f"**`{name}`** · {algorithm.note} · {algorithm.source} · {place(algorithm.fn)}\n")
            out.append(f"{quoted(head)}\n>\n> Worked: {microseconds(algorithm.fn)}\n")
    return "\n".join(out)


def schedules() -> str:
    """Return every pipeline schedule: its bubble, and the micro-batches whose activations a stage holds."""
    from collectives.pipelines import SCHEDULES
    from collectives.pipelines import bubble_s as bubble

    out = []
    for name, schedule in SCHEDULES.items():
        chunks = schedule.chunks or 2
        seconds, executed = bubble(name, 4, 8, chunks, 1.0, 2.0, 0.0, 1.0)
        kept = float(schedule.in_flight(4, 8, chunks, 0)[()])
        how = "by execution" if bool(executed) else "by closed form"
        out.append(f"### {name}\n\n{schedule.note[0].upper()}{schedule.note[1:]}. Source: {schedule.source}\n")
        for what, form in (("Bubble", schedule.bubble_s), ("Stage i holds", schedule.in_flight)):
            head = told(form)[0] if closed(form) else "no closed form; the order is executed."
            out.append(f"{quoted(f'{what}: {head}')}" + (f"\n>\n> {place(form)}\n" if closed(form) else "\n"))
        out.append(f"Worked: a bubble of {float(seconds):g} s ({how}); stage 0 holds {kept:g} micro-batches.\n")
    return "\n".join(out)


def closed(function: Callable[..., Any]) -> bool:
    """Return whether a form of a schedule is an equation of its own, not the execution of its order."""
    return function.__module__.startswith("collectives.pipelines.closed") or function.__module__.endswith(".held")


# --- terms -----------------------------------------------------------------------------------------------------------

MIXTURE: Final = """
name: DeepSeek-V3 on 2,048 H800
model: deepseek-v3
cluster: deepseek-h800
workload: {sequence: 4096, global_batch: 16384, precision: fp8}
strategy: {tp: 1, pp: 16, vpp: 2, ep: 64, dp: 128, ep_overlap: 1, micro_batch: 1, zero: 1, recompute: selective}
"""
TERMS: Final[Mapping[str, tuple[str, str]]] = {
    "terms-dense": ("examples/scenarios/llama-405b-h100.yaml", ""),
    "terms-experts": ("deepseek-v3-h800.yaml", MIXTURE),
    "terms-decode": ("examples/scenarios/deepseek-v3-decode-h800.yaml", ""),
}
"""Marker -> the scenario whose terms are worked, and its text where it is no example."""


def terms(marker: str) -> str:
    """Return every term and every holder of memory of a scenario: equation, symbols with their values, result, source."""
    from parallel.explain.account import explain
    from parallel.explain.read import read_point
    from podscale.door import plain

    name, text = TERMS[marker]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name if text else ROOT / name
        if text:
            path.write_text(text, encoding="utf-8")
        point, _ = read_point(path)
    document = plain(explain(point))
    shown = f"```yaml{text}```\n\n" if text else f"[{name}](../{name})\n\n"
    heads = ("term", "equation", "where, here", "exposed", "source")
    held = [
        (_named(row), row["equation"], symbols(row), cell("_s", row["seconds"]), row["source"])
        for row in document["terms"]
    ]
    told_of = table(heads, [tuple(map(escaped, row)) for row in held])
    heads = ("memory", "equation", "where, here", "bytes", "source")
    held = [
        (_named(row), row["equation"], symbols(row), cell("_bytes", row["bytes"]), row["source"])
        for row in document["memory"]
    ]
    return f"{shown}{told_of}\n{table(heads, [tuple(map(escaped, row)) for row in held])}"


def _named(row: Mapping[str, Any]) -> str:
    from podscale.words import term

    return term(str(row["name"]))


def symbols(row: Mapping[str, Any]) -> str:
    """Return the inputs of an equation with their values."""
    from podscale.explainwords import value_said

    return "<br>".join(
        f"{symbol} = {value_said(held['value'], held['unit'])}, {held['meaning']}"
        for symbol, held in row["inputs"].items()
    )


def escaped(text: str) -> str:
    """Return text that a table can hold."""
    return text.replace("|", "\\|").replace("*", "\\*")
