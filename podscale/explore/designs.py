"""From a design to what can be priced: the cluster's spec, the model, the request; and the files that say the same.

Pasted files are data: read by parsers that make text, numbers, lists and fields only, of bounded size and depth, without
aliases (which multiply), and without names of other files.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from podscale.explore.state import OWN, Design, text_of
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from clusters.spec import ClusterSpec
    from parallel.compare import CompareRequest
    from parallel.models import Model

_DEEPEST = 24
_PLACES = {
    "accelerators": "gpus",
    "domain": "domain",
    "scale_up.bandwidth": "scale_up",
    "scale_out.nic": "nic",
    "scale_out.oversubscription": "oversubscription",
    "pool": "pool",
    "precision": "precision",
}
"""Field of a cluster file or a request -> the control that sets it."""


@dataclass(frozen=True)
class Built:
    """A design, ready to be priced. `settled` is what the fields left open came to, as their controls would say it."""

    design: Design
    request: "CompareRequest"
    model: "Model"
    spec: "ClusterSpec"
    settled: Mapping[str, str]


@lru_cache(maxsize=128)
def built(design: Design) -> Built:
    """Read a design's cluster and model.

    Raises
    ------
    SpecError
        With the faults of both, their fields named after the controls of the page.

    >>> built(Design(domain=8)).spec.domains
    576
    """
    from clusters.build import build
    from parallel.compare import CompareRequest

    faults, found = list[Fault](), list[Any]()
    for what, read in (("cluster", _cluster), ("model", _model), ("precision", _recipe)):
        try:
            found.append(read(design))
        except SpecError as error:
            faults += [_placed(fault, what, design) for fault in error.faults]
    if faults:
        raise SpecError(faults)
    spec, model, _ = found
    try:
        build(spec)
    except SpecError as error:
        raise SpecError([_placed(fault, "cluster", design) for fault in error.faults]) from None
    request = CompareRequest(
        isl=design.isl,
        osl=design.osl,
        tpot_ms=design.tpot_ms,
        ttft_ms=design.ttft_ms,
        precision=design.precision,
        sequence=design.sequence,
        global_batch=design.global_batch,
    )
    return Built(design, request, model, spec, _settled(spec))


def _placed(fault: Fault, what: str, design: Design) -> Fault:
    """Name a fault after the control that can mend it; the file keeps the path of the field."""
    own = {"cluster": design.cluster, "model": design.model}.get(what) == OWN
    control = _PLACES.get(fault.field)
    if control is None or (own and control != "pool" and getattr(design, control) is None):
        control = f"{what}_file" if own else what
    return Fault(control, fault.value, fault.problem, fault.remedy, fault.field)


# --- clusters ---------------------------------------------------------------------------------------------------------


def _cluster(design: Design) -> "ClusterSpec":
    """Return the cluster of a design: silicon of the catalogue, or a cluster of its own with some fields changed."""
    from clusters import catalogue
    from clusters.spec import focus, load, parse, systems, with_
    from parallel.compare import CompareRequest

    changes = _changes(design)
    if design.cluster == OWN:
        fields = read_fields(design.cluster_file, "cluster file", numbers=False)
        _refuse_graphs(fields)
        base = parse(fields)
    elif design.cluster in systems():
        base = load(design.cluster)
    else:
        part = catalogue.accelerator(design.cluster).name
        count = CompareRequest().gpus if design.gpus is None else design.gpus
        return parse({"name": f"{part}-x{count}", "accelerator": part, "accelerators": count, **changes})
    base = focus(base, design.pool)
    if base.pools and not design.pool:
        names = ", ".join(pool.name for pool in base.pools)
        raise SpecError([Fault("pool", None, "has to be chosen: the cluster has unlike ones", f"write one of {names}")])
    return with_(base, **changes) if changes else base


def _changes(design: Design) -> dict[str, Any]:
    """Return what a design sets of a cluster, as fields of its file, in SI."""
    fields: dict[str, Any] = {"accelerators": design.gpus, "domain": design.domain}
    if design.scale_up is not None:
        fields["scale_up"] = {"bandwidth": design.scale_up * 1e9}
    out = {
        "nic": None if design.nic is None else design.nic * 1e9 / 8,
        "oversubscription": design.oversubscription,
    }
    if any(value is not None for value in out.values()):
        fields["scale_out"] = {key: value for key, value in out.items() if value is not None}
    return {key: value for key, value in fields.items() if value is not None}


def _settled(spec: "ClusterSpec") -> dict[str, str]:
    """Return what the numbers of a cluster came to."""
    taper = spec.scale_out.oversubscription
    return {
        "gpus": text_of(spec.accelerators),
        "domain": text_of(spec.domain),
        "scale_up": text_of(round(spec.scale_up.bandwidth_Bps / 1e9, 3)),
        "nic": text_of(round(spec.scale_out.nic_Bps * 8 / 1e9, 3)),
        "oversubscription": ", ".join(map(text_of, taper)) if isinstance(taper, tuple) else text_of(taper),
    }


def _refuse_graphs(fields: Mapping[str, Any]) -> None:
    """Refuse a file that names another file: a page may not ask this machine for its files."""
    held = [fields, *(pool for pool in fields.get("pools") or () if isinstance(pool, Mapping))]
    if any("graph" in section for section in held):
        remedy = "give the file to podscale compare --cluster instead"
        raise SpecError([Fault("graph", None, "names another file, which the explorer does not open", remedy)])


# --- models -----------------------------------------------------------------------------------------------------------


def _model(design: Design) -> "Model":
    """Return the model of a design: one of the catalogue by its name, or the pasted one."""
    from parallel.configs import model_from_config
    from parallel.io import model_names, read_model

    if design.model == OWN:
        return model_from_config(read_fields(design.model_file, "model file"), "own-model")
    if design.model not in model_names():  # never a path
        raise SpecError([Fault("model", design.model, "is no model of the catalogue", "choose one of the list")])
    return read_model(design.model)


def _recipe(design: Design) -> Any:
    """Return the number formats of a design."""
    from parallel.precision import recipe

    return recipe(design.precision)


# --- pasted files -----------------------------------------------------------------------------------------------------


def read_fields(text: str, what: str, *, numbers: bool = True) -> dict[str, Any]:
    """Read pasted JSON or YAML as fields; without `numbers` every scalar stays text.

    Raises
    ------
    SpecError
        Where it is empty, no JSON or YAML, nested too deep, has aliases, a field twice, or no fields at all.

    >>> read_fields("accelerator: h100", "cluster file"), read_fields('{"layers": 2}', "model file")
    ({'accelerator': 'h100'}, {'layers': 2})
    """
    import yaml

    if not text.strip():
        raise SpecError([Fault(what, None, "is empty", "paste the file's text, or choose it")])
    try:
        faults = list(_unsafe(text))
        value = None if faults else _parsed(text, numbers=numbers)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else what
        raise SpecError([Fault(where, None, f"is not YAML: {problem or error}", "mend that line")]) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise SpecError([Fault(where, None, f"is not JSON: {error.msg}", "mend that line")]) from None
    except ValueError as error:
        raise SpecError([Fault(what, None, f"cannot be read: {error}", "write plain values")]) from None
    if faults:
        raise SpecError(faults)
    if not isinstance(value, dict):
        raise SpecError([Fault(what, None, "holds no fields", "write lines such as field: value")])
    return value


def _parsed(text: str, *, numbers: bool) -> Any:
    """Parse a text that `_unsafe` has passed."""
    import yaml

    if not numbers:
        return yaml.load(text, yaml.BaseLoader)  # noqa: S506  (the base loader makes only text)
    return json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)


def _unsafe(text: str) -> Iterator[Fault]:
    """Yield what a pasted file may not have, before anything is made of it."""
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    depth = 0
    for event in yaml.parse(text, loader):
        where = _line(event)
        if isinstance(event, yaml.AliasEvent):
            yield Fault(where, f"*{event.anchor}", "is an alias", "write out what it stands for")
            return
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            yield Fault(where, None, f"is nested more than {_DEEPEST} deep", "write fewer levels")
            return
    for node in _nodes(yaml.compose(text, loader)):
        keys = [key.value for key, _ in node.value]
        for key in sorted({key for key in keys if isinstance(key, str) and keys.count(key) > 1}):
            yield Fault(_line(node), key, "is written twice", "keep one of them")


def _line(held: Any) -> str:
    """Say where an event or a node stands."""
    return f"line {held.start_mark.line + 1}"


def _nodes(node: Any) -> Iterator[Any]:
    """Yield all mappings of a composed document."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from _nodes(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _nodes(value)


# --- the same on the command line -------------------------------------------------------------------------------------


def command(design: Design, mark: str = "") -> str:
    """Return the command that gives the same answer from the files of `files`; `mark` tells the files of designs apart.

    >>> command(Design(domain=72), "-a")
    'podscale compare --cluster cluster-a.yaml --domains 72 --model deepseek-v3 --precision fp8 --isl 4096 --osl 1024
    --tpot-ms 50 --ttft-ms 2000 --sequence 4096 --global-batch 18432'
    """
    spec = built(design).spec
    words = ["podscale", "compare", "--cluster", f"cluster{mark}.yaml"]
    if spec.focus:
        words += ["--pool", spec.focus]
    elif spec.scale_up.kind == "switch":  # what switches make could be wired otherwise too: name this wiring
        words += ["--domains", str(spec.domain)]
    words += ["--model", _model_file(design, mark) if design.model == OWN else design.model]
    for name in ("precision", "isl", "osl", "tpot_ms", "ttft_ms", "sequence", "global_batch"):
        words += [f"--{name.replace('_', '-')}", text_of(getattr(design, name))]
    return shlex.join(words)


def files(design: Design, mark: str = "") -> dict[str, str]:
    """Return the files that reproduce a design, by name: its cluster, and its model where it is pasted."""
    found = {f"cluster{mark}.yaml": f"# {command(design, mark)}\n{cluster_text(design)}"}
    return found | ({_model_file(design, mark): design.model_file} if design.model == OWN else {})


def cluster_text(design: Design) -> str:
    """Return the cluster of a design as a file."""
    import yaml

    fields = _quantities(json.loads(built(design).spec.written))
    return str(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True))


def texts(design: Design) -> dict[str, str]:
    """Return the files that a change by hand starts from: the cluster's, and the model's."""
    from parallel.io import MODELS, read_text

    model = design.model_file if design.model == OWN else read_text(MODELS / f"{built(design).model.name}.json")
    return {"cluster": cluster_text(design), "model": model}


def _model_file(design: Design, mark: str) -> str:
    """Name the pasted model's file after its format."""
    return f"model{mark}.{'json' if design.model_file.lstrip().startswith('{') else 'yaml'}"


def _quantities(fields: Any, name: str = "") -> Any:
    """Write bandwidths with their unit, where that says exactly the same."""
    from clusters.units import format_quantity, parse_quantity

    if isinstance(fields, dict):
        return {key: _quantities(value, key) for key, value in fields.items()}
    if isinstance(fields, list):
        return [_quantities(value, name) for value in fields]
    if isinstance(fields, float) and name in ("bandwidth", "nic", "link_bandwidth"):
        said = format_quantity(fields, "bandwidth").replace(" ", "")
        return said if parse_quantity(said, "bandwidth") == fields else fields
    return fields
