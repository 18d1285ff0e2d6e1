"""What the explorer shows, as a typed value and as the text behind the ``#`` of its address; each makes the other.

A state is two designs, A and B, and which of their answers is looked at. Of design B the address holds only what differs
from A. Everything that comes from an address is checked here, every fault at once, and nothing else is read from it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from topo.errors import Fault, SpecError

OWN = "own"
"""In place of a catalogue's name: the text that was pasted beside it."""

MOST_TEXT = 32_768
"""Characters of a pasted file."""

PHASES = ("decode", "prefill", "train")
_SIZES = (1, 2, 4, 8, 16, 18, 32, 36, 64, 72, 128, 144, 256, 288, 512, 576, 1024, 1152)
_COUNTS = tuple(base * 2**power for power in range(15) for base in (8, 9, 12))
_LENGTHS = tuple(128 * 2**power * part // 4 for power in range(11) for part in (4, 5, 6, 7))


@dataclass(frozen=True, slots=True)
class Field:
    """One thing about a design that can be set.

    Attributes
    ----------
    name : of the attribute of `Design`, and of the entry in the address
    label, unit, hint : what the page says beside its control
    kind : "whole", "number", "name" or "file" (a text of several lines)
    low, high : bounds of a number
    notches : where the slider stops; the number beside it takes any value between the bounds
    group : the section of the page
    """

    name: str
    label: str
    kind: str
    group: str
    unit: str = ""
    hint: str = ""
    low: float = 0.0
    high: float = 0.0
    notches: tuple[float, ...] = ()


FIELDS: tuple[Field, ...] = (
    Field("cluster", "Silicon", "name", "cluster", hint="an accelerator, a system, or a file of your own"),
    Field("cluster_file", "Cluster file", "file", "cluster", hint="YAML, as podscale new cluster writes it"),
    Field("pool", "Pool", "name", "cluster", hint="of a cluster of unlike racks: which of them"),
    Field("gpus", "GPUs", "whole", "cluster", "", "bought", 1, 1_000_000, tuple(sorted(_COUNTS))),
    Field("domain", "Scale-up domain", "whole", "cluster", "GPUs", "need not divide the GPUs", 1, 100_000, _SIZES),
    Field(
        "scale_up", "Scale-up bandwidth", "number", "cluster", "GB/s", "of a GPU, one direction", 1, 100_000,
        (50, 100, 200, 300, 450, 600, 900, 1200, 1500, 1800, 2400, 3600, 7200),
    ),
    Field(
        "nic", "NIC speed", "number", "cluster", "Gb/s", "of one NIC, one direction", 1, 100_000,
        (25, 50, 100, 200, 300, 400, 500, 600, 800, 1200, 1600, 2400, 3200),
    ),
    Field(
        "oversubscription", "Oversubscription", "number", "cluster", ": 1", "down to up, of the scale-out fabric", 1, 100,
        (1, 1.5, 2, 3, 4, 6, 8, 12, 16),
    ),
    Field("model", "Model", "name", "model", hint="of the catalogue, or a file of your own"),
    Field("model_file", "Model file", "file", "model", hint="a Hugging Face config.json, or the same fields as YAML"),
    Field("precision", "Precision", "name", "model", hint="number formats of weights and products"),
    Field("tpot_ms", "Time per output token", "number", "workload", "ms", "at most", 0.1, 10_000,
        (2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 75, 100, 150, 200)),
    Field("ttft_ms", "Time to first token", "number", "workload", "ms", "at most", 1, 1_000_000,
        (50, 100, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 7500, 10_000)),
    Field("isl", "Input", "whole", "workload", "tokens", "of a request", 1, 10_000_000, _LENGTHS),
    Field("osl", "Output", "whole", "workload", "tokens", "of a request", 1, 10_000_000, _LENGTHS),
    Field("sequence", "Training sequence", "whole", "workload", "tokens", "", 1, 10_000_000, _LENGTHS[12:]),
    Field("global_batch", "Training batch", "whole", "workload", "sequences", "per step", 1, 10_000_000,
        tuple(sorted(_COUNTS))[6:]),
)  # fmt: skip
"""The table that the page, the address and the checks are made of."""

BY_NAME: Mapping[str, Field] = {field.name: field for field in FIELDS}


@dataclass(frozen=True, slots=True)
class Design:
    """A cluster, a model and a workload. What is None is as the catalogue or the file has it (GPUs: 4,608)."""

    cluster: str = "gb200"
    cluster_file: str = ""
    pool: str = ""
    gpus: int | None = None
    domain: int | None = None
    scale_up: float | None = None
    nic: float | None = None
    oversubscription: float | None = None
    model: str = "deepseek-v3"
    model_file: str = ""
    precision: str = "fp8"
    tpot_ms: float = 50.0
    ttft_ms: float = 2000.0
    isl: int = 4096
    osl: int = 1024
    sequence: int = 4096
    global_batch: int = 18432


_DEFAULT = Design()
_BLANK = {field.name for field in fields(Design) if getattr(_DEFAULT, field.name) in (None, "")}


@dataclass(frozen=True, slots=True)
class State:
    """All that the page shows.

    Attributes
    ----------
    a, b : the designs
    compare : whether B is shown beside A
    phase : whose charts are shown
    edit : the design that the controls change, "a" or "b"
    """

    a: Design = _DEFAULT
    b: Design = _DEFAULT
    compare: bool = False
    phase: str = "decode"
    edit: str = "a"

    @property
    def designs(self) -> dict[str, Design]:
        """The designs that are shown, by side."""
        return {"a": self.a, "b": self.b} if self.compare else {"a": self.a}


_VIEW = {"compare": ("", "1"), "phase": PHASES, "edit": ("a", "b")}
"""What is not of a design: the values that it may have, the default first."""


def parse(address: str) -> State:
    """Read a state from the text behind the ``#`` of an address.

    Raises
    ------
    SpecError
        With every entry that is unknown, stands there twice, or has a value that cannot be.

    >>> parse("domain=8&b.domain=72&compare=1").b.domain
    72
    """
    given, faults = dict[str, str](), list[Fault]()
    try:
        pairs = parse_qsl(address, keep_blank_values=True, max_num_fields=4 * len(FIELDS), errors="strict")
    except ValueError:
        raise SpecError([Fault("address", None, "cannot be read", "start again from the page without it")]) from None
    for key, text in pairs:
        if key in given:
            faults.append(Fault(key, text[:80], "stands there twice", "keep one of them"))
        elif key not in _VIEW and key.removeprefix("b.") not in BY_NAME:
            faults.append(Fault(key[:80], None, "is nothing that can be set", "leave it out"))
        given[key] = text
    view = _view(given, faults)
    a = replace(_DEFAULT, **_values(given, "", faults))
    b = replace(a, **_values(given, "b.", faults))
    if faults:
        raise SpecError(faults)
    return State(a, b, bool(view["compare"]), view["phase"], view["edit"])


def write(state: State) -> str:
    """Write a state as the text behind the ``#`` of an address; `parse` inverts it.

    >>> write(State(a=Design(domain=8, nic=400.0), b=Design(domain=72, nic=400.0), compare=True))
    'domain=8&nic=400&b.domain=72&compare=1'
    >>> write(State())
    ''
    """
    pairs = [*_entries(state.a, _DEFAULT, ""), *_entries(state.b, state.a, "b.")]
    shown = {"compare": "1" if state.compare else "", "phase": state.phase, "edit": state.edit}
    pairs += [(key, text) for key, text in shown.items() if text != _VIEW[key][0]]
    return urlencode(pairs)


def text_of(value: Any) -> str:
    """Write a value as an address and a control hold it.

    >>> text_of(400.0), text_of(None), text_of(1.5)
    ('400', '', '1.5')
    """
    return "" if value is None else repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _entries(design: Design, like: Design, prefix: str) -> Iterable[tuple[str, str]]:
    """Yield the entries in which a design differs from another."""
    for field in FIELDS:
        value = getattr(design, field.name)
        if value != getattr(like, field.name):
            yield prefix + field.name, text_of(value)


def _view(given: Mapping[str, str], faults: list[Fault]) -> dict[str, str]:
    """Read what is not of a design."""
    found = {key: given.get(key, known[0]) for key, known in _VIEW.items()}
    for key, text in found.items():
        if text not in _VIEW[key]:
            faults.append(Fault(key, text[:80], "is not known", f"choose {' or '.join(filter(None, _VIEW[key]))}"))
    return found


def _values(given: Mapping[str, str], prefix: str, faults: list[Fault]) -> dict[str, Any]:
    """Read the values of one design."""
    found: dict[str, Any] = {}
    for field in FIELDS:
        text = given.get(prefix + field.name)
        if text is None:
            continue
        try:
            found[field.name] = _value(field, text)
        except ValueError as error:
            faults.append(Fault(prefix + field.name, text[:80], *error.args))
    return found


def _value(field: Field, text: str) -> Any:
    """Read one value; a ValueError holds what is wrong and what to write instead."""
    if field.kind in ("name", "file"):
        most = MOST_TEXT if field.kind == "file" else 200
        if len(text) > most:
            raise ValueError(f"has {len(text):,} characters", f"write {most:,} at most")
        if not text and field.name not in _BLANK:
            raise ValueError("is empty", "choose one of the list")
        return text
    if not text.strip() and field.name in _BLANK:
        return None
    return _number(field, text)


def _number(field: Field, text: str) -> int | float:
    """Read a number between the bounds of its field."""
    remedy = (
        f"write a {field.kind if field.kind == 'number' else 'whole number'} from {field.low:g} to {field.high:,.0f}"
    )
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is no number", remedy) from None
    if not math.isfinite(value) or not field.low <= value <= field.high:
        raise ValueError("is out of bounds", remedy)
    if field.kind == "number":
        return value
    if value != int(value):
        raise ValueError("is no whole number", remedy)
    return int(value)
