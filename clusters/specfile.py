"""The cluster file as Pydantic checks it: imported only while a file is read, for Pydantic takes a tenth of a second.

`check` returns plain values (SI floats, whole numbers, catalogue names) and every fault at once, each with its field
path, what the field holds and what to write instead. No Pydantic exception leaves this module.
"""

from collections.abc import Mapping
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

from clusters import catalogue
from clusters import fieldvalues as read
from clusters.filefaults import NAMED, OWN, fault_of, path_of
from topo.errors import Fault

QUANTITY: Final = WithJsonSchema({"type": ["string", "number"]})
COUNT: Final = WithJsonSchema({"type": ["integer", "string"]})
NAME: Final = WithJsonSchema({"type": "string"})


def _list(item: str, *, alone: bool = True) -> WithJsonSchema:
    """Return the schema of a list, or, with `alone`, of one value or a list."""
    items = {"type": [item, "string"] if item != "string" else "string"}
    one = [items["type"]] if isinstance(items["type"], str) else items["type"]
    return WithJsonSchema({"type": [*one, "array"] if alone else "array", "items": items})


def _words() -> WithJsonSchema:
    """Return the schema of quantities under words of the user's own."""
    return WithJsonSchema({"type": "object", "additionalProperties": {"type": ["number", "string"]}})


def _choice(*known: str) -> Any:
    """Type of one of a few words."""
    return Annotated[str, BeforeValidator(read.choice(*known)), WithJsonSchema({"enum": list(known)})]


Name = Annotated[str, BeforeValidator(read.text), NAME]
Label = Annotated[str, BeforeValidator(read.label), NAME]
Flag = Annotated[bool, BeforeValidator(read.flag)]
Flags = Annotated[
    bool | tuple[bool, ...],
    BeforeValidator(read.one_or_several(read.flag, "[true, false]")),
    WithJsonSchema({"type": ["boolean", "array"], "items": {"type": "boolean"}}),
]
Count = Annotated[int, BeforeValidator(read.whole()), COUNT]
FromZero = Annotated[int, BeforeValidator(read.whole(0)), COUNT]
Shape = Annotated[
    tuple[int, ...], BeforeValidator(read.several(read.whole(), "[4, 4, 4]")), _list("integer", alone=False)
]
Counts = Annotated[
    int | tuple[int, ...], BeforeValidator(read.one_or_several(read.whole(), "[64, 144]")), _list("integer")
]
Layers = Annotated[int, BeforeValidator(read.whole(1, 2)), COUNT]
Levels = Annotated[int, BeforeValidator(read.whole(1, 3)), COUNT]
_RATE = read.quantity("bandwidth", least=1e6)
Bandwidth = Annotated[float, BeforeValidator(_RATE), QUANTITY]
Bandwidths = Annotated[
    float | tuple[float, ...],
    BeforeValidator(read.one_or_several(_RATE, "[100GB/s, 50GB/s]")),
    _list("number"),
]
Latency = Annotated[float, BeforeValidator(read.quantity("seconds", most=1.0)), QUANTITY]
Bytes = Annotated[float, BeforeValidator(read.quantity("bytes", least=1e3)), QUANTITY]
Flops = Annotated[float, BeforeValidator(read.quantity("flops", least=1e9)), QUANTITY]
Power = Annotated[float, BeforeValidator(read.quantity("power")), QUANTITY]
Price = Annotated[float, BeforeValidator(read.quantity("price")), QUANTITY]
Share = Annotated[float, BeforeValidator(read.share), QUANTITY]
Part = Annotated[float, BeforeValidator(read.part), QUANTITY]
Amount = Annotated[float, BeforeValidator(read.amount), QUANTITY]
Ratio = Annotated[float, BeforeValidator(read.ratio), QUANTITY]
AnyRatio = Annotated[float, BeforeValidator(read.any_ratio), QUANTITY]
Ratios = Annotated[
    float | tuple[float, ...],
    BeforeValidator(read.one_or_several(read.any_ratio, "2, or [1, 7] from the leaf up")),
    WithJsonSchema({"type": ["number", "string", "array"]}),
]
AcceleratorName = Annotated[str, BeforeValidator(read.named(catalogue.accelerator)), NAME]
OwnName = Annotated[str, BeforeValidator(read.own_name), NAME]
SwitchName = Annotated[str, BeforeValidator(read.named(catalogue.switch)), NAME]
SwitchNames = Annotated[
    str | tuple[str, ...],
    BeforeValidator(read.one_or_several(read.named(catalogue.switch), "[quantum-2, quantum-x800]")),
    _list("string"),
]
NicOrRate = Annotated[str | float, BeforeValidator(read.nic), QUANTITY]
UpLink = Annotated[str, BeforeValidator(read.link("scale-up")), NAME]
OutLink = Annotated[str, BeforeValidator(read.link("scale-out")), NAME]
Rates = Annotated[dict[str, float], BeforeValidator(read.by_name(_RATE, "{PIX: 25GB/s}")), _words()]
Latencies = Annotated[
    dict[str, float], BeforeValidator(read.by_name(read.quantity("seconds", most=1.0), "{PIX: 1us}")), _words()
]
Place = Annotated[dict[str, str], BeforeValidator(read.place), _words()]
Pair = Annotated[tuple[str, ...], BeforeValidator(read.several(read.label, "[old, new]")), _list("string", alone=False)]


class Section(BaseModel):
    """A section of the file: unknown fields are faults."""

    model_config = ConfigDict(extra="forbid")


class LevelFile(Section):
    """One level of a nested domain, with links of its own at every accelerator."""

    name: Label = Field(description="of what is joined: chip, board, sled, rack")
    size: Count = Field(description="how many of them are joined")
    bandwidth: Bandwidth = Field(description="per accelerator, one way, its links of this level together")
    latency: Latency | None = Field(None, description="accelerator to accelerator [default: scale_up.latency]")
    link: UpLink | None = Field(None, description="link key [default: scale_up.link]")
    switches: FromZero | None = Field(None, description="switches that join them; 0, the default: each to each")
    ports: FromZero | None = Field(
        None, description="links per accelerator, where there is not one to each peer or switch"
    )
    switch: SwitchName | None = Field(None, description="switch of the catalogue")
    in_network_reduction: Flag | None = Field(None, description="whether the switches can add")


class ScaleUpFile(Section):
    """The network inside a domain (NVLink and its like)."""

    kind: _choice("switch", "mesh", "torus", "nested") | None = Field(  # type: ignore[valid-type]
        None,
        description="how accelerators are joined: through switches, each to each, to neighbours on axes, or in levels "
        "[default: as the maker does; a full mesh of more than a part has links for becomes a switch of its bandwidth]",
    )
    bandwidth: Bandwidth | None = Field(None, description="per accelerator, one way, all links together")
    latency: Latency | None = Field(
        None, description="accelerator to accelerator: through one switch, or over one link"
    )
    link: UpLink | None = Field(None, description="link key, such as nvlink5")
    layers: Layers | None = Field(None, description="switch: layers, 1 or 2")
    inner: Count | None = Field(None, description="switch: accelerators under one first-layer block, with two layers")
    oversubscription: Ratio | None = Field(None, description="switch: down over up between the two layers")
    in_network_reduction: Flag | None = Field(None, description="switch: whether the switches can add (NVLS)")
    switch: SwitchName | None = Field(None, description="switch: its chip, of the catalogue [default: the link's]")
    switches: Count | None = Field(None, description="switch: chips of one first-layer block")
    outer_switches: Count | None = Field(None, description="switch: second-layer chips of a domain")
    sub_planes: Count | None = Field(None, description="switch: equal parts of both layers that do not meet")
    outer_latency: Latency | None = Field(None, description="switch: through both layers [default: twice latency]")
    shape: Shape | None = Field(
        None, description="torus: accelerators along each axis; a domain of another size gets the nearest to a cube"
    )
    wrap: Flags | None = Field(None, description="torus: whether the ends of an axis are joined, for all or each axis")
    link_bandwidth: Bandwidths | None = Field(
        None,
        description="torus: to one neighbour, one way, for all or each axis [default: an equal share of bandwidth]; "
        "mesh: of one link",
    )
    cube: Count | None = Field(None, description="torus: edge of the cubes that optical circuit switches join")
    optical_link: Name | None = Field(None, description="torus: key of the links that leave a cube")
    levels: tuple[LevelFile, ...] | None = Field(None, description="nested: what is joined how, innermost first")


class ScaleOutFile(Section):
    """The network between domains (NICs and switches)."""

    kind: _choice("fat-tree", "ring", "line", "torus") | None = Field(  # type: ignore[valid-type]
        None, description="a fat tree of switches [default], or domains joined directly to their neighbours"
    )
    nic: NicOrRate | None = Field(None, description="'400Gb/s' or a NIC's name")
    nics_per_accelerator: Share | None = Field(None, description="2 for two NICs each, 0.5 for one NIC between two")
    rails: Count | None = Field(None, description="rails of the leaf layer")
    radix: Counts | None = Field(
        None,
        description="ports of a switch at the rate of a NIC's port, one number or one for each level from the leaf up",
    )
    levels: Levels | None = Field(None, description="switching levels: 1, 2 or 3")
    oversubscription: Ratios | None = Field(
        None,
        description="down over up, one number or one for each level from the leaf up; below 1 there is more up than down",
    )
    link: OutLink | None = Field(None, description="link key, such as ib-ndr")
    switch: SwitchNames | None = Field(None, description="switch of the catalogue, one or one for each level")
    latency: Latency | None = Field(None, description="one cable with its NIC or transceivers")
    in_network_reduction: Flag | None = Field(None, description="whether reductions run in the switches (SHARP)")
    down: Counts | None = Field(None, description="ports of radix that look down, of the leaf or of each level")
    planes: Count | None = Field(None, description="ports per NIC, each into a copy of the tree of its own")
    trunk: Count | None = Field(None, description="NIC ports' rates that one cable between switches carries")
    spines: _choice("auto", "shared", "rail") | None = Field(  # type: ignore[valid-type]
        None, description="spines shared by all rails, each rail's own, or [default] shared where they reach"
    )
    top: _choice("core", "mesh", "ocs") | None = Field(  # type: ignore[valid-type]
        None, description="what joins the pods of three levels: core switches, a mesh of the spines, circuit switches"
    )
    global_links: Count | None = Field(None, description="top mesh: cables from a spine to each other pod")
    ocs_radix: Count | None = Field(None, description="top ocs: fibres per circuit switch")
    leaf_link: Name | None = Field(None, description="key of the cable between NIC and leaf, where it is another")
    shape: Shape | None = Field(None, description="torus: domains along each axis [default: nearest to a square]")
    link_bandwidth: Bandwidth | None = Field(
        None, description="ring, line, torus: one link between neighbours, one way"
    )
    links_per_neighbour: Count | None = Field(None, description="ring, line, torus: links between two neighbours")
    km: Amount | None = Field(None, description="ring, line, torus: way between neighbours, added to the latency")
    medium: _choice("fibre", "vacuum") | None = Field(  # type: ignore[valid-type]
        None, description="ring, line, torus: light takes 5 us/km in fibre [default], 3.34 us/km in vacuum (lasers)"
    )


class SitesFile(Section):
    """Equal sites, which the accelerators are dealt to, joined by fibre through border switches."""

    count: Count = Field(description="how many sites")
    km: Amount = Field(description="length of a line between two sites: 5 us/km")
    bandwidth: Bandwidth = Field(description="of each line between two sites, one way")
    order: _choice("set", "ring", "line") | None = Field(  # type: ignore[valid-type]
        None, description="each site joined to each [set, the default], or to its neighbours"
    )
    link: OutLink | None = Field(None, description="link key of the lines [default: scale_out.link]")
    link_bandwidth: Bandwidth | None = Field(None, description="the most one fibre carries: lines are counted by it")
    switches: Count | None = Field(None, description="border switches per site")


class SpanFile(Section):
    """A line of fibre between two pools."""

    between: Pair = Field(description="names of two pools")
    km: Amount | None = Field(None, description="its length [default: join.km]")
    bandwidth: Bandwidth | None = Field(None, description="one way [default: join.bandwidth]")


class JoinFile(Section):
    """What joins pools: a layer of shared switches, or, with km or spans, fibre between sites."""

    bandwidth: Bandwidth | None = Field(
        None, description="what each pool puts in, one way [default: all its NICs]; with km or spans: of each line"
    )
    oversubscription: AnyRatio | None = Field(None, description="NICs of a pool over what it puts in")
    link: OutLink | None = Field(None, description="link key [default: the first pool's]")
    switch: SwitchName | None = Field(None, description="switch of the catalogue [default: the link's]")
    switches: Count | None = Field(None, description="shared switches; with km or spans: border switches per pool")
    radix: Count | None = Field(None, description="ports of a shared switch; without it ports are not counted")
    latency: Latency | None = Field(None, description="one cable with its transceivers")
    km: Amount | None = Field(None, description="every two pools are joined by fibre of this length: 5 us/km")
    spans: tuple[SpanFile, ...] | None = Field(None, description="these pools are joined by fibre")


class RandomFile(Section):
    """A seeded random draw of nodes: a number or a share of them."""

    count: Count | None = Field(None, description="how many")
    share: Part | None = Field(None, description="which part of them, such as 0.01")
    seed: FromZero | None = Field(None, description="another seed is another draw [default: 0]")


class ChangeFile(Section):
    """What is missing or slower than the rest of the file says."""

    remove: Place | None = Field(
        None, description="every node at this place, of all classes that have these axes: {domain: 3}, {site: 0}"
    )
    node: Name | None = Field(
        None, description="class of the nodes: accelerator, nic, leaf, spine, scale-up-switch ..."
    )
    at: Place | None = Field(None, description="where: axes and values or ranges, {rail: 3, domain: 0:4}")
    to: Name | None = Field(None, description="only their links to nodes of this class")
    to_at: Place | None = Field(None, description="only those at this place")
    factor: Amount | None = Field(None, description="what is left of their bandwidth [default: 0, they are gone]")
    random: RandomFile | None = Field(None, description="draw them among those `at` the place, or among all")


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


Changes = Annotated[tuple[ChangeFile, ...], Field(description="what is missing or slower than the rest says")]


class Wiring(Section):
    """Accelerators of one kind and how they are wired: a cluster, or a pool of one."""

    accelerator: NamedOrOwn | None = Field(
        None, description="accelerator's name, or an accelerator of one's own as a section"
    )
    accelerators: Count | None = Field(None, description="how many are bought, at all sites together")
    domain: Count | None = Field(None, description="accelerators in one scale-up domain")
    scale_up: ScaleUpFile | None = None
    scale_out: ScaleOutFile | None = None
    override: OverrideFile | None = None
    changes: Changes | None = None


class GraphFile(Section):
    """A graph in a file of another tool: nvidia-smi, NCCL XML, ibnetdiscover, GraphML, node-link JSON, ASTRA-sim ..."""

    file: Name = Field(description="its path, from this file")
    format: Name | None = Field(None, description="name of the format, where it is not recognised")
    rates: Rates | None = Field(None, description="bandwidths of words that the format has no figure for, one way")
    latencies: Latencies | None = Field(None, description="latencies of such words")


Graph = Annotated[
    GraphFile,
    BeforeValidator(lambda given: {"file": given} if isinstance(given, str) else given),
    WithJsonSchema({"anyOf": [{"type": "string"}, GraphFile.model_json_schema()]}),
]


class PoolFile(Wiring):
    """A part of the cluster that is unlike the others."""

    name: Label = Field(description="how the pool is called, and how its nodes' names begin")


class ClusterFile(Wiring):
    """A cluster: which accelerator, how many, and how they are wired. What is left out comes from the catalogue."""

    name: Name | None = Field(None, description="what reports call the cluster")
    sites: SitesFile | None = None
    pools: tuple[PoolFile, ...] | None = Field(
        None, description="unlike parts, in place of accelerator, accelerators, domain, scale_up, scale_out, override"
    )
    join: JoinFile | None = None
    graph: Graph | None = Field(
        None, description="file that another tool wrote, in place of accelerators and how they are wired"
    )
    tunings: Name | None = Field(
        None, description="file of constants of its links that podscale calibrate collectives wrote, from this file"
    )


SECTIONS: Final[Mapping[tuple[str, ...], type[BaseModel]]] = {
    (): ClusterFile,
    ("scale_up",): ScaleUpFile,
    ("scale_up", "levels"): LevelFile,
    ("scale_out",): ScaleOutFile,
    ("sites",): SitesFile,
    ("graph",): GraphFile,
    ("join",): JoinFile,
    ("join", "spans"): SpanFile,
    ("changes",): ChangeFile,
    ("changes", "random"): RandomFile,
    ("override",): OverrideFile,
    ("override", "accelerator"): AcceleratorFile,
    ("accelerator",): OwnAcceleratorFile,
}
"""Path of a section in the file, without places in lists -> its model."""
FIELDS: Final = {path: tuple(model.model_fields) for path, model in SECTIONS.items()}
"""The same -> the names of its fields."""

Checked = tuple[dict[str, Any], list[Fault], list[tuple[str, ...]]]
"""Values, faults and where they lie."""


def check(data: Mapping[str, Any], file: str = "", *, pool: bool = False) -> Checked:
    """Check a file's content, or that of one of its pools.

    Returns
    -------
    values : dict
        The fields given, as plain SI values; empty where there are faults.
    faults : list of Fault
        All of them.
    paths : list of tuple of str
        Where they lie.
    """
    model = PoolFile if pool else ClusterFile
    try:
        return model.model_validate(data).model_dump(exclude_none=True), [], []
    except ValidationError as error:
        details = [dict(one) for one in error.errors(include_url=False)]
        return {}, [fault_of(one, FIELDS, file) for one in details], [path_of(one) for one in details]


def json_schema() -> dict[str, Any]:
    """JSON Schema of the cluster file, for editors."""
    schema = ClusterFile.model_json_schema()
    schema["anyOf"] = [
        {"required": held} for held in (["accelerator", "accelerators"], ["accelerator", "graph"], ["pools"])
    ]
    schema["$defs"]["PoolFile"]["required"] = ["name", "accelerator", "accelerators"]
    return schema
