"""The cluster file as Pydantic checks it: imported only while a file is read, for Pydantic takes a tenth of a second.

`check` returns plain values (SI floats, whole numbers, catalogue names) and every fault at once, each with its field
path, what the field holds and what to write instead. No Pydantic exception leaves this module.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from clusters import catalogue
from clusters.units import EXAMPLES, format_quantity, parse_quantity
from topo.errors import Fault, SpecError

WORDS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _wrong(problem: str, remedy: str) -> PydanticCustomError:
    """Build the error of one field, with its remedy."""
    return PydanticCustomError("podscale", "{problem}", {"problem": problem, "remedy": remedy})


def _parsed(text: object, dimension: str) -> float:
    """SI value, or the error that says which units are accepted."""
    try:
        return parse_quantity(text, dimension)
    except ValueError as error:
        problem, remedy = str(error).split("; ", 1)
        raise _wrong(problem, remedy) from None


def _quantity(dimension: str, least: float = 0.0, most: float = float("inf")) -> Callable[[object], float]:
    """Check a positive quantity; outside [least, most] it was probably meant in another unit."""

    def check_quantity(text: object) -> float:
        value = _parsed(text, dimension)
        if value < 0 or (value == 0 and dimension != "seconds"):
            raise _wrong("must be positive", f"write for instance {EXAMPLES[dimension]}")
        if not least <= value <= most:
            raise _wrong(f"would be {format_quantity(value, dimension)}", f"write for instance {EXAMPLES[dimension]}")
        return value

    return check_quantity


def _whole(text: object) -> int:
    """Check a count: whole and at least 1."""
    value = _parsed(text, "count")
    if value < 1:
        raise _wrong("must be at least 1", "write a whole number, such as 8")
    return int(value)


def _up_to(most: int) -> Callable[[object], int]:
    """Check a small count."""

    def check_count(text: object) -> int:
        value = _whole(text)
        if value > most:
            raise _wrong(f"must be at most {most}", f"write a whole number from 1 to {most}")
        return value

    return check_count


def _share(text: object) -> float:
    """Check a positive number without a unit."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise _wrong("is not a positive number", "write a number, such as 1, 2 or 0.5")
    return value


def _number(text: object) -> float:
    """Return a number, or a ratio written 2:1, as a float; -1 where it is neither."""
    down, colon, up = str(text).partition(":")
    try:
        return -1.0 if isinstance(text, bool) else float(down) / float(up if colon else 1)
    except (ValueError, ZeroDivisionError):
        return -1.0


def _ratio(text: object) -> float:
    """Check an oversubscription, written 2 or 2:1."""
    value = _number(text)
    if not 1 <= value < float("inf"):
        raise _wrong("is not a ratio of 1 or more", "write down over up, such as 2 or 2:1; 1 is no oversubscription")
    return value


def _ratios(value: object) -> object:
    """Check one ratio, or a list of them from the leaf up."""
    if not isinstance(value, (list, tuple)):
        return _ratio(value)
    if not value:
        raise _wrong("is empty", "write a ratio, such as 2, or one ratio for each level from the leaf up")
    return tuple(_ratio(item) for item in value)


def _flag(value: object) -> bool:
    """Check true or false."""
    if isinstance(value, bool):
        return value
    if str(value).lower() not in WORDS:
        raise _wrong("is neither true nor false", "write true or false")
    return WORDS[str(value).lower()]


def _text(value: object) -> str:
    """Check a name: text on one line."""
    if not isinstance(value, str) or not value.strip() or len(value.splitlines()) != 1:
        raise _wrong("is not a name", "write text on one line")
    return value.strip()


def _part(find: Callable[[str], Any]) -> Callable[[object], str]:
    """Check that the catalogue holds the part, and return its canonical name."""

    def check_part(value: object) -> str:
        try:
            return str(find(_text(value)).name)
        except SpecError as error:
            raise _wrong(error.faults[0].problem, error.faults[0].remedy) from None

    return check_part


def _own_name(value: object) -> str:
    """Check the name of an accelerator of one's own: none that the catalogue gives to a part."""
    name = catalogue.key_of(_text(value))
    taken = (*catalogue.names(), *catalogue.links(), *catalogue.nics(), *catalogue.switches())
    if name in taken:
        raise _wrong("is a part of the catalogue", f"take another name, or write accelerator: {name} and override it")
    return name


def _link(plane: str) -> Callable[[object], str]:
    """Check that the catalogue holds the link and that it belongs to the plane."""

    def check_link(value: object) -> str:
        name = _part(catalogue.link)(value)
        if catalogue.link(name).plane != plane:
            fitting = [key for key in catalogue.links() if catalogue.link(key).plane == plane]
            raise _wrong(f"is no {plane} link", f"write one of {', '.join(fitting)}")
        return name

    return check_link


def _nic(value: object) -> str | float:
    """Check a NIC: a name of the catalogue, or the rate of one NIC, which comes back in bytes per second."""
    if not isinstance(value, str) or value.strip()[:1] in "0123456789+-.":
        return _quantity("bandwidth", least=1e6)(value)
    try:
        return catalogue.nic(value).name
    except SpecError as error:
        fault = error.faults[0]
        raise _wrong(fault.problem, f"{fault.remedy}; or write a rate, such as 400Gb/s") from None


QUANTITY: Final = WithJsonSchema({"type": ["string", "number"]})
COUNT: Final = WithJsonSchema({"type": ["integer", "string"]})
NAME: Final = WithJsonSchema({"type": "string"})

Name = Annotated[str, BeforeValidator(_text), NAME]
Flag = Annotated[bool, BeforeValidator(_flag)]
Count = Annotated[int, BeforeValidator(_whole), COUNT]
Layers = Annotated[int, BeforeValidator(_up_to(2)), COUNT]
Levels = Annotated[int, BeforeValidator(_up_to(3)), COUNT]
Bandwidth = Annotated[float, BeforeValidator(_quantity("bandwidth", least=1e6)), QUANTITY]
Latency = Annotated[float, BeforeValidator(_quantity("seconds", most=1.0)), QUANTITY]
Bytes = Annotated[float, BeforeValidator(_quantity("bytes", least=1e3)), QUANTITY]
Flops = Annotated[float, BeforeValidator(_quantity("flops", least=1e9)), QUANTITY]
Power = Annotated[float, BeforeValidator(_quantity("power")), QUANTITY]
Price = Annotated[float, BeforeValidator(_quantity("price")), QUANTITY]
Share = Annotated[float, BeforeValidator(_share), QUANTITY]
Ratio = Annotated[float, BeforeValidator(_ratio), QUANTITY]
Ratios = Annotated[
    float | tuple[float, ...], BeforeValidator(_ratios), WithJsonSchema({"type": ["number", "string", "array"]})
]
AcceleratorName = Annotated[str, BeforeValidator(_part(catalogue.accelerator)), NAME]
OwnName = Annotated[str, BeforeValidator(_own_name), NAME]
SwitchName = Annotated[str, BeforeValidator(_part(catalogue.switch)), NAME]
NicOrRate = Annotated[str | float, BeforeValidator(_nic), QUANTITY]
UpLink = Annotated[str, BeforeValidator(_link("scale-up")), NAME]
OutLink = Annotated[str, BeforeValidator(_link("scale-out")), NAME]


NAMED, OWN = "(name)", "(own)"
"""The two ways to say which accelerator; Pydantic puts them into the paths of faults."""


class Section(BaseModel):
    """A section of the file: unknown fields are faults."""

    model_config = ConfigDict(extra="forbid")


class ScaleUpFile(Section):
    """The network inside a domain (NVLink and its like)."""

    bandwidth: Bandwidth | None = Field(None, description="per accelerator, one way, all links together")
    latency: Latency | None = Field(None, description="accelerator to accelerator through one switch")
    layers: Layers | None = Field(None, description="switch layers: 1 or 2")
    inner: Count | None = Field(None, description="accelerators under one first-layer block, when there are two layers")
    oversubscription: Ratio | None = Field(None, description="down over up between the two layers")
    in_network_reduction: Flag | None = Field(None, description="whether the switches can add (NVLS)")
    link: UpLink | None = Field(None, description="link key, such as nvlink5")


class ScaleOutFile(Section):
    """The network between domains (NICs and switches)."""

    nic: NicOrRate | None = Field(None, description="'400Gb/s' or a NIC's name")
    nics_per_accelerator: Share | None = Field(None, description="2 for two NICs each, 0.5 for one NIC between two")
    rails: Count | None = Field(None, description="rails of the leaf layer")
    radix: Count | None = Field(None, description="ports of a switch at the NIC's rate")
    levels: Levels | None = Field(None, description="switching levels: 1, 2 or 3")
    oversubscription: Ratios | None = Field(
        None, description="down over up, one number or one for each level from the leaf up"
    )
    link: OutLink | None = Field(None, description="link key, such as ib-ndr")
    switch: SwitchName | None = Field(None, description="switch of the catalogue")
    latency: Latency | None = Field(None, description="one cable with its NIC or transceivers")
    in_network_reduction: Flag | None = Field(None, description="whether reductions run in the switches (SHARP)")


class AcceleratorFile(Section):
    """The user's own figures of the accelerator; peaks are dense, bandwidths one way."""

    hbm_bandwidth: Bandwidth | None = None
    hbm_capacity: Bytes | None = None
    sram: Bytes | None = None
    host_bandwidth: Bandwidth | None = None
    power: Power | None = None
    price: Price | None = None
    peak_fp32: Flops | None = None
    peak_tf32: Flops | None = None
    peak_bf16: Flops | None = None
    peak_int8: Flops | None = None
    peak_fp8: Flops | None = None
    peak_fp4: Flops | None = None


class OverrideFile(Section):
    """Figures of the user's own in place of the catalogue's."""

    accelerator: AcceleratorFile | None = Field(None, description="figures of the accelerator")


class OwnAcceleratorFile(AcceleratorFile):
    """An accelerator of one's own. It needs peak_bf16, the memory's two figures, and what no part lends that it is like."""

    name: OwnName = Field("my-accelerator", description="what bills call it")
    like: AcceleratorName | None = Field(
        None, description="part that lends its wiring and the constants of its kernels"
    )
    link: UpLink | None = Field(None, description="link key, such as nvlink5")
    scale_up_bandwidth: Bandwidth | None = Field(None, description="one way, all links together")
    scale_up_links: Count | None = None
    domain: Count | None = Field(None, description="accelerators in a usual scale-up domain")
    rails: Count | None = None
    nic: NicOrRate | None = Field(None, description="'400Gb/s' or a NIC's name")
    nics: Share | None = Field(None, description="NICs per accelerator")


NamedOrOwn = Annotated[
    Annotated[AcceleratorName, Tag(NAMED)] | Annotated[OwnAcceleratorFile, Tag(OWN)],
    Discriminator(lambda value: OWN if isinstance(value, (Mapping, BaseModel)) else NAMED),
]


class ClusterFile(Section):
    """A cluster: which accelerator, how many, and how they are wired. What is left out comes from the catalogue."""

    name: Name | None = Field(None, description="what reports call the cluster")
    accelerator: NamedOrOwn = Field(description="accelerator's name, or an accelerator of one's own as a section")
    accelerators: Count = Field(description="how many are bought")
    domain: Count | None = Field(None, description="accelerators in one scale-up domain")
    scale_up: ScaleUpFile | None = None
    scale_out: ScaleOutFile | None = None
    override: OverrideFile | None = None


SECTIONS: Final[Mapping[tuple[str, ...], type[BaseModel]]] = {
    (): ClusterFile,
    ("scale_up",): ScaleUpFile,
    ("scale_out",): ScaleOutFile,
    ("override",): OverrideFile,
    ("override", "accelerator"): AcceleratorFile,
    ("accelerator",): OwnAcceleratorFile,
}
"""Path of a section in the file -> its model."""


def _stray(path: tuple[str, ...]) -> str:
    """Remedy for an unknown field: the nearest of its section, or the section where a field of that name lives."""
    elsewhere = [where for where, model in SECTIONS.items() if path[-1] in model.model_fields]
    if elsewhere:
        return f"write {'.'.join((*elsewhere[0], path[-1]))}"
    return catalogue.nearest(path[-1], SECTIONS[path[:-1]].model_fields)


def _path(error: ErrorDetails) -> tuple[str, ...]:
    """Field path of a Pydantic error, without the names that Pydantic gives to the ways a value may be read."""
    return tuple(part for part in map(str, error["loc"]) if part not in ("float", "str", NAMED, OWN))


def _fault(error: ErrorDetails, file: str) -> Fault:
    """Fault of one Pydantic error."""
    path = _path(error)
    field, value, kind = ".".join(path) or "cluster", error["input"], error["type"]
    shown = value if isinstance(value, (str, int, float, list, tuple)) else None
    if kind == "podscale":
        return Fault(field, shown, error["ctx"]["problem"], error["ctx"]["remedy"], file)
    if kind == "extra_forbidden":
        return Fault(field, shown, "is no field of a cluster file", _stray(path), file)
    if kind == "missing":
        example = {"accelerator": "accelerator: gb200", "accelerators": "accelerators: 72"}[field]
        return Fault(field, None, "is missing", f"write for instance {example}", file)
    known = ", ".join(SECTIONS[path].model_fields) if path in SECTIONS else ""
    return Fault(field, shown, "must be a section of fields", f"write fields under it: {known}" if known else "", file)


def check(data: Mapping[str, Any], file: str = "") -> tuple[dict[str, Any], list[Fault], list[tuple[str, ...]]]:
    """Check a file's content.

    Returns
    -------
    values : dict
        The fields given, as plain SI values; empty where there are faults.
    faults : list of Fault
        All of them.
    paths : list of tuple of str
        Where they lie.
    """
    try:
        return ClusterFile.model_validate(data).model_dump(exclude_none=True), [], []
    except ValidationError as error:
        details = error.errors(include_url=False)
        return {}, [_fault(d, file) for d in details], [_path(d) for d in details]


def json_schema() -> dict[str, Any]:
    """JSON Schema of the cluster file, for editors."""
    return ClusterFile.model_json_schema()
