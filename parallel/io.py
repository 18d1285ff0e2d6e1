"""Files in, records out: the only module of `parallel` that opens a file.

`read_model` takes the name of a model that ships in `data/models` or a path to a Hugging Face `config.json`;
`read_yaml` serves scenario and sweep files. What the fields mean is `parallel.configs`'s work. A file that cannot be
read, or is wrong, gives one `SpecError` with the reason and the remedy.
"""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from clusters import figures
from parallel.configs import FAMILIES, model_from_config
from parallel.models import Model, Moe, active_parameters, kv_bytes_per_token, layer_count, parameters
from parallel.validation.model_cases import Inexpressible, model_from_case
from topo.errors import Fault, SpecError

__all__ = [
    "FAMILIES",
    "Inexpressible",
    "model_from_case",
    "model_from_config",
    "model_names",
    "model_rows",
    "read_json",
    "read_model",
    "read_text",
    "read_yaml",
]

MODELS = Path(__file__).parent / "data" / "models"


# --- files --------------------------------------------------------------------------------------------------------


def read_text(path: Path | str) -> str:
    """Return a file's text; a `SpecError` with the system's reason where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise SpecError([Fault("path", None, reason, "check the path and its permissions", str(path))]) from None
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
        raise SpecError([Fault("path", None, problem, "save it as UTF-8", str(path))]) from None


def _mapping(value: Any, path: Path | str, form: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    problem = f"holds {type(value).__name__}, not named fields"
    raise SpecError([Fault("(file)", None, problem, f"write a {form}", str(path))])


def read_json(path: Path | str) -> dict[str, Any]:
    """Return the object in a JSON file; a `SpecError` with line and column where it is not JSON."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        problem = f"is not JSON: {error.msg} at {place}"
        raise SpecError([Fault("(file)", None, problem, "mend the syntax there", str(path))]) from None
    return _mapping(value, path, "JSON object: {...}")


def _parsed(text: str) -> Any:
    """Parse YAML fast; what is wrong is read again by the slow parser, which says more exactly where."""
    import yaml

    try:
        return figures.read_yaml(text)
    except yaml.YAMLError:
        return yaml.safe_load(text)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Return the mapping in a YAML file (scenario, sweep, model); a `SpecError` with the place of a syntax error."""
    import yaml

    try:
        value = _parsed(read_text(path))
    except yaml.YAMLError as error:
        mark, what = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = f"is not YAML: {what or error}{place}"
        raise SpecError([Fault("(file)", None, problem, "mend the syntax there", str(path))]) from None
    return _mapping(value, path, "YAML mapping: `field: value` lines")


# --- models -------------------------------------------------------------------------------------------------------


def _canonical(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")


@cache
def model_names() -> tuple[str, ...]:
    """Return the names of the models that ship, sorted.

    >>> "deepseek-v3" in model_names()
    True
    """
    return tuple(sorted(path.stem for path in MODELS.glob("*.json")))


@cache
def _aliases() -> Mapping[str, str]:
    """Return other names of the shipped shapes (a release of the same shape, a repository's name) -> ours."""
    sources = read_yaml(MODELS / "sources.yaml")
    return {_canonical(other): name for name, entry in sources.items() for other in entry.get("same_shape", ())}


@cache
def _shipped(name: str) -> Model:
    path = MODELS / f"{name}.json"
    return model_from_config(read_json(path), name, str(path))


def _by_name(name: str) -> Model:
    wanted = _canonical(name)
    for candidate in (wanted, wanted.rsplit("/", 1)[-1]):
        if candidate in model_names():
            return _shipped(candidate)
        if candidate in _aliases():
            return _shipped(_aliases()[candidate])
    near = get_close_matches(wanted[:200], [*model_names(), *_aliases()], n=1, cutoff=0.5)
    nearest = f"did you mean {near[0]}? Or" if near else f"choose one of {', '.join(model_names())}, or"
    raise SpecError([Fault("model", name, "unknown model", f"{nearest} give the path of a config.json")])


def _is_path(text: str) -> bool:
    try:
        return bool(text.strip()) and (Path(text).suffix.lower() in (".json", ".yaml", ".yml") or Path(text).exists())
    except OSError:  # too long to be the name of a file
        return False


def read_model(name_or_path: str | Path) -> Model:
    """Return the model of a shipped name, of a `config.json`, or of a folder that holds one.

    Names ignore case and take `_` for `-`; the name of a repository or of a release with the same shape also works
    (`data/models/sources.yaml`). A file may be JSON or YAML with the same fields.

    Raises
    ------
    SpecError
        If the name is unknown (with the nearest), the file cannot be read, or its fields are wrong (all of them).

    Examples
    --------
    >>> read_model("DeepSeek_V3").hidden, read_model("deepseek-ai/DeepSeek-R1").name
    (7168, 'deepseek-v3')
    >>> read_model("deepsek-v3")
    Traceback (most recent call last):
    ...
    topo.errors.SpecError: model = 'deepsek-v3': unknown model. did you mean deepseek-v3? Or give the path of a
    config.json.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, str) and (_canonical(text) in model_names() or not _is_path(text)):
        return _by_name(text)
    path = Path(text)
    path = path / "config.json" if path.is_dir() else path
    fields = read_yaml(path) if path.suffix.lower() in (".yaml", ".yml") else read_json(path)
    stem = path.resolve().parent.name if path.name == "config.json" else path.stem
    return model_from_config(fields, stem, str(path))


def model_rows() -> list[dict[str, Any]]:
    """Return one row per shipped model: name, sizes, counts, cache bytes per token (bf16) and published precision."""
    rows = []
    for model in map(_shipped, model_names()):
        last = model.layers[-1].mlp
        rows.append(
            {
                "name": model.name,
                "parameters": parameters(model),
                "active_parameters": active_parameters(model),
                "layers": layer_count(model),
                "hidden": model.hidden,
                "experts": last.experts if isinstance(last, Moe) else 0,
                "topk": last.topk if isinstance(last, Moe) else 0,
                "kv_bytes_per_token": kv_bytes_per_token(model),
                "native_precision": model.native_precision,
                "expert_precision": model.expert_precision or model.native_precision,
            }
        )
    return rows
