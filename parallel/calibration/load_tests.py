"""What load generators write, as rows of a table of serving runs: vLLM, SGLang, GenAI-Perf and AIPerf.

Sources of the fields: vllm/benchmarks/serve.py (`vllm bench serve --save-result`), python/sglang/bench_serving.py
(`--output-file`, a line per run), genai_perf/export_data/json_exporter.py (`profile_export_genai_perf.json`),
ai-dynamo/aiperf (`profile_export_aiperf.json`). What none of them writes (accelerator, split, precision) is told beside.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from parallel.io import read_text
from topo.errors import Fault, SpecError

ENDINGS: Final = (".json", ".jsonl")
UNIT_S: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}
TOLD: Final = ("model", "system", "engine", "engine_version", "precision", "tp", "attention_dp", "moe_tp", "moe_ep")
"""Columns that a result takes over where it has them under that name (`vllm bench serve --metadata tp=8`)."""
Found = dict[str, Any]


def bench_serving(result: Mapping[str, Any]) -> Found:
    """Read a result of vLLM's or SGLang's load generator; lengths are those that were really sent and received.

    >>> found = bench_serving({"backend": "vllm", "model_id": "m", "max_concurrency": 8, "completed": 10,
    ...     "total_input_tokens": 10240, "total_output_tokens": 5120, "mean_ttft_ms": 90.0, "mean_tpot_ms": 9.0})
    >>> found["concurrency"], found["isl"], found["osl"], found["engine"]
    (8, 1024.0, 512.0, 'vllm')
    """
    done = result.get("completed") or 0
    return {
        "model": result.get("model_id"),
        "engine": result.get("backend"),
        "concurrency": result.get("max_concurrency"),
        "isl": result.get("total_input_tokens", 0) / done if done else None,
        "osl": result.get("total_output_tokens", 0) / done if done else None,
        "ttft_ms": result.get("mean_ttft_ms"),
        "tpot_ms": result.get("mean_tpot_ms"),
    }


def perf(result: Mapping[str, Any]) -> Found:
    """Read an export of GenAI-Perf or AIPerf, whose inter-token latency is a request's mean after its first token.

    >>> found = perf({"time_to_first_token": {"unit": "ms", "avg": 90.0}, "inter_token_latency": {"avg": 9.0},
    ...     "input_sequence_length": {"avg": 1024.0}, "output_sequence_length": {"avg": 512.0},
    ...     "input_config": {"model_names": ["m"], "perf_analyzer": {"stimulus": {"concurrency": 8}}}})
    >>> found["concurrency"], found["ttft_ms"], found["model"]
    (8, 90.0, 'm')
    """
    config = result.get("input_config") or {}
    names = _first(config, ("model_names",), ("endpoint", "model_names"), ("model",), ("models", "items"))
    name = names[0] if isinstance(names, list) and names else names
    return {
        "model": name.get("name") if isinstance(name, Mapping) else name,
        "engine": None,
        "concurrency": _first(config, ("perf_analyzer", "stimulus", "concurrency"), ("loadgen", "concurrency")),
        "isl": _average(result, "input_sequence_length"),
        "osl": _average(result, "output_sequence_length"),
        "ttft_ms": _average(result, "time_to_first_token", 1e3),
        "tpot_ms": _average(result, "inter_token_latency", 1e3),
    }


FORMATS: Final[Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Found]]]] = {
    "vllm bench serve, SGLang bench_serving": ("mean_ttft_ms", bench_serving),
    "GenAI-Perf, AIPerf": ("time_to_first_token", perf),
}
"""Load generators -> the key that their results are known by, and what reads them."""


def read_results(path: Path) -> Iterator[tuple[str, Found]]:
    """Yield every run of a result file, or of all those in a folder, with where it stands.

    Raises
    ------
    SpecError
        A file cannot be read, or holds what none of `FORMATS` writes: every one of them.
    """
    files = sorted(p for p in path.rglob("*") if p.suffix in ENDINGS) if path.is_dir() else [path]
    faults, found = [], []
    for file in files:
        try:
            results = _documents(read_text(file))
        except (SpecError, ValueError) as why:
            remedy = "give what the load generator wrote"
            faults.append(Fault("FILE", None, f"cannot be read: {why}", remedy, str(file)))
            continue
        for number, result in enumerate(results, start=1):
            reader = next((read for key, read in FORMATS.values() if key in result), None)
            if reader is not None:
                found.append((f"{file.stem}:{number}" if len(results) > 1 else file.stem, _told(result, reader)))
            elif not path.is_dir():
                known = "; ".join(f"{name} ({key})" for name, (key, _) in FORMATS.items())
                faults.append(Fault(f"result {number}", None, "is of no known load generator", known, str(file)))
    if not found and not faults:
        remedy = f"give a folder of {', '.join(ENDINGS)} files that a load generator wrote"
        faults.append(Fault("FILE", None, "holds no result of a load test", remedy, str(path)))
    if faults:
        raise SpecError(faults)
    yield from found


def _told(result: Mapping[str, Any], reader: Callable[[Mapping[str, Any]], Found]) -> Found:
    """Read a result; what it says under a table's own column name counts before the rest."""
    own = {key: result[key] for key in TOLD if isinstance(result.get(key), str | int | float)}
    return {**reader(result), **own}


def _documents(text: str) -> list[Mapping[str, Any]]:
    """Return the documents of a file: one, a list of them, or one a line."""
    try:
        held = json.loads(text)
    except json.JSONDecodeError:
        held = [json.loads(line) for line in text.splitlines() if line.strip()]
    held = held if isinstance(held, list) else [held]
    if not all(isinstance(one, Mapping) for one in held):
        raise ValueError("holds something other than results")
    return held


def _first(held: Mapping[str, Any], *paths: tuple[str, ...]) -> Any:
    """Return what stands at the first of several paths, or None."""
    for path in paths:
        at: Any = held
        for key in path:
            at = at.get(key) if isinstance(at, Mapping) else None
        if at is not None:
            return at
    return None


def _average(result: Mapping[str, Any], key: str, scale: float = 0.0) -> float | None:
    """Return the mean of a metric: a count, or, with a `scale`, a time in that many parts of a second."""
    metric = result.get(key) or {}
    mean = metric.get("avg")
    if mean is None or not scale:
        return None if mean is None else float(mean)
    return float(mean) * UNIT_S.get(metric.get("unit", "ms"), 1e-3) * scale
