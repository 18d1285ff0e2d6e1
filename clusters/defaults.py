"""What a cluster file leaves out: every default of its networks, from the accelerator's entry in the catalogue."""

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from clusters import catalogue
from clusters.sections import JoinSpec, ScaleOutSpec, ScaleUpSpec, SitesSpec, SpanSpec, TieSpec
from topo.errors import Fault

Values = Mapping[str, Any]
"""Checked fields of a file or a section."""

DIRECT: Final = ("ring", "line", "torus")
"""Kinds of scale-out networks that join domains to their neighbours, without switches."""

UP_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "nested": ("levels",),
    "torus": ("shape", "wrap", "cube", "optical_link", "link_bandwidth"),
    "mesh": ("link_bandwidth",),
    "switch": (
        "layers", "inner", "oversubscription", "in_network_reduction", "switch", "switches", "outer_switches",
        "sub_planes", "outer_latency",
    ),
}  # fmt: skip
"""Kind of scale-up network -> the fields that act on it and not on every kind."""

_MADE: Final = {"switched": "switch", "mesh": "mesh", "torus": "torus"}
"""Topology of the catalogue -> kind of scale-up network; a dragonfly or direct links leave open how."""

AXES: Final = 3
"""Axes of a torus whose part names none."""


# --- arithmetic ------------------------------------------------------------------------------------------------------


def largest_divisor(size: int, most: int) -> int:
    """Return the largest proper divisor of `size` that is at most `most`.

    >>> largest_divisor(576, 72), largest_divisor(500, 72), largest_divisor(577, 72)
    (72, 50, 1)
    """
    return next((d for d in range(min(most, size - 1), 0, -1) if size % d == 0), 1)


@lru_cache
def near_cube(size: int, axes: int) -> tuple[int, ...]:
    """Return the shape of `axes` whose product is `size` and whose edges add up to the least, shortest first.

    >>> near_cube(8960, 3), near_cube(256, 2), near_cube(14, 3)
    ((16, 20, 28), (16, 16), (1, 2, 7))
    """
    if axes == 1:
        return (size,)
    edges = (d for d in range(1, round(size ** (1 / axes)) + 1) if size % d == 0)
    return min(((d, *near_cube(size // d, axes - 1)) for d in edges), key=lambda shape: (sum(shape), max(shape)))


def chips(block: int, links: int, ports: int) -> int:
    """Return the fewest switch chips that share each accelerator's links evenly and have ports for the whole block.

    A block too large for its links' chips gets one chip for each link.

    >>> chips(72, 18, 72), chips(8, 18, 72)
    (18, 2)
    """
    return next((n for n in range(1, links + 1) if links % n == 0 and block * (links // n) <= ports), links)


def ports_at(box: catalogue.Switch, rate_Bps: float) -> int:
    """Return the ports that a switch offers at a NIC's rate: split where the port is faster, ganged where slower.

    >>> ports_at(catalogue.switch("sn5600"), 50e9), ports_at(catalogue.switch("quantum-2"), 100e9)
    (128, 32)
    """
    if rate_Bps <= box.rate_Bps:
        return box.ports * int(box.rate_Bps // rate_Bps)
    return int(box.ports // (rate_Bps / box.rate_Bps))


def refit(levels: list[dict[str, Any]], domain: int) -> list[dict[str, Any]]:
    """Return the levels of a nested domain of another size: full ones as far as they divide it, the outermost the rest.

    >>> board, rack = {"name": "board", "size": 4}, {"name": "rack", "size": 18}
    >>> [level["size"] for level in refit([board, rack], 72)], [level["size"] for level in refit([board, rack], 6)]
    ([4, 18], [3, 2])
    """
    left, found = domain, []
    for level in levels[:-1]:
        size = level["size"] if left % level["size"] == 0 else largest_divisor(left, level["size"])
        found.append({**level, "size": size})
        left //= size
    return [*found, {**levels[-1], "size": left}]


# --- inside a domain -------------------------------------------------------------------------------------------------


def _figure(part: catalogue.Accelerator, topology: str) -> int:
    """Size of the maker's wiring, where it is of that kind: axes of a torus, peers of a mesh; else 0."""
    return round(part.figures["scale_up_topology"].value) if part.topology == topology else 0


def kind_of(up: Values, part: catalogue.Accelerator, domain: int) -> str:
    """Return how a domain is wired: as the file says or implies, else as the maker does; "" where that leaves it open.

    A full mesh has a link for each peer: a larger domain of the same parts is taken as a switch of the same bandwidth.

    >>> box = catalogue.accelerator("mi300x")
    >>> kind_of({}, box, 8), kind_of({}, box, 72), kind_of({"layers": 1}, box, 8)
    ('mesh', 'switch', 'switch')
    """
    if "kind" in up:
        return str(up["kind"])
    implied = [
        kind for kind, fields in UP_FIELDS.items() if kind != "mesh" and ({*fields} - {"link_bandwidth"}) & {*up}
    ]
    if implied:
        return implied[0]
    made = _MADE.get(part.topology, "")
    switched = "link" in up and catalogue.link(up["link"]).switch
    return "switch" if switched or domain == 1 or (made == "mesh" and domain > _figure(part, "mesh") + 1) else made


def open_kind(part: catalogue.Accelerator, values: Values, file: str) -> Iterator[Fault]:
    """Yield a fault where neither the file nor the catalogue says how a domain is wired."""
    up = values.get("scale_up", {})
    if not kind_of(up, part, values.get("domain", part.domain)):
        built = {"direct": "joined by direct links"}.get(part.topology, f"a {part.topology}")
        problem = f"is needed: a domain of the {part.title} is {built}, and no source says how in full"
        remedy = (
            "write scale_up: {kind: switch} for one switch of the same bandwidth, or say the levels of a nested one"
        )
        yield Fault("scale_up.kind", None, problem, remedy, file)


def scale_up(up: Values, part: catalogue.Accelerator, domain: int) -> ScaleUpSpec:
    """Fill in the scale-up network."""
    key = up.get("link", part.link)
    link = catalogue.link(key) if key else None
    kind = kind_of(up, part, domain) or "switch"
    total_Bps = up.get("bandwidth", part.scale_up_Bps)
    fields = _KINDS[kind](up, part, domain, total_Bps, link)
    plain = {
        "bandwidth_Bps": total_Bps,
        "latency_s": up.get("latency", link.latency_s if link else 0.0),
        "layers": 1,
        "inner": domain,
        "oversubscription": 1.0,
        "in_network_reduction": False,
        "link": link.name if link else "",
        "switch": "",
        "switches": 0,
        "kind": kind,
    }
    return ScaleUpSpec(**{**plain, **fields})


def _switch(
    up: Values, part: catalogue.Accelerator, domain: int, total_Bps: float, link: catalogue.Link | None
) -> dict[str, Any]:
    """Two layers where one layer of the part's switches does not reach.

    Where no switch of the link is public, one ideal switch takes any number of accelerators.
    """
    key = up.get("switch", link.switch if link else "")
    chip = catalogue.switch(key) if key else None
    ports = chip.ports if chip else domain
    one_layer = domain <= min(ports, up.get("inner", ports)) and "outer_switches" not in up
    layers = up.get("layers", 1 if one_layer else 2)
    inner = domain if layers == 1 else up.get("inner", largest_divisor(domain, ports))
    usual = part.switches if layers == 1 and domain == part.domain else None
    # The part's links, where they are not public, are as many of the switch's as carry the bandwidth.
    links = part.scale_up_links or (max(1, math.ceil(total_Bps / chip.rate_Bps)) if chip else 1)
    return {
        "layers": layers,
        "inner": inner,
        "oversubscription": up.get("oversubscription", 1.0),
        "in_network_reduction": up.get("in_network_reduction", chip is not None and chip.in_network_reduction),
        "switch": chip.name if chip else "",
        "switches": up.get("switches") or usual or (chips(inner, links, chip.ports) if chip else 1),
        "outer_latency_s": up.get("outer_latency"),
        "outer_switches": up.get("outer_switches"),
        "sub_planes": up.get("sub_planes", 1),
    }


def _mesh(up: Values, part: catalogue.Accelerator, domain: int, total_Bps: float, _: object) -> dict[str, Any]:
    """Links of the maker's mesh that lead to no one in a smaller domain are idle; a larger one divides the same total."""
    made = _figure(part, "mesh")
    peers = domain - 1 if "bandwidth" in up else max(domain - 1, made)
    links = part.scale_up_links or 0
    count = links // peers if peers and links and links % peers == 0 else 1
    each_Bps = _first(up["link_bandwidth"]) if "link_bandwidth" in up else total_Bps / max(1, peers) / count
    return {
        "bandwidth_Bps": each_Bps * count * (domain - 1) if domain > 1 else total_Bps,
        "links_per_pair": count,
        "link_Bps": (each_Bps,),
    }


def _torus(
    up: Values, part: catalogue.Accelerator, domain: int, total_Bps: float, link: catalogue.Link | None
) -> dict[str, Any]:
    """Two neighbours on each axis; ends joined unless the file says otherwise."""
    stated = [len(up[key]) for key in ("shape", "wrap", "link_bandwidth") if isinstance(up.get(key), (list, tuple))]
    shape = tuple(up.get("shape") or near_cube(domain, stated[0] if stated else _figure(part, "torus") or AXES))
    wrap = for_each(up.get("wrap", True), len(shape))
    link_Bps = for_each(up.get("link_bandwidth", total_Bps / (2 * len(shape))), len(shape))
    ways = [0 if size == 1 else 2 if closed or size > 2 else 1 for size, closed in zip(shape, wrap, strict=False)]
    name = link.name if link else ""
    return {
        "bandwidth_Bps": sum(many * each_Bps for many, each_Bps in zip(ways, link_Bps, strict=False)) or total_Bps,
        "shape": shape,
        "wrap": wrap,
        "link_Bps": link_Bps,
        "cube": up.get("cube", 0),
        "optical_link": up.get("optical_link", f"{name}-optical") if "cube" in up else "",
    }


def _nested(up: Values, _part: object, _domain: int, total_Bps: float, link: catalogue.Link | None) -> dict[str, Any]:
    """Fill in the levels."""

    def tie(level: Values) -> TieSpec:
        own = catalogue.link(level["link"]) if "link" in level else link
        latency_s = up.get("latency", own.latency_s if own else 0.0)
        key = level.get("switch", own.switch if own and level.get("switches") else "")
        chip = catalogue.switch(key) if key else None
        return TieSpec(
            name=level["name"],
            size=level["size"],
            bandwidth_Bps=level["bandwidth"],
            latency_s=level.get("latency", latency_s),
            link=own.name if own else "",
            switches=level.get("switches", 0),
            ports=level.get("ports", 0),
            switch=chip.name if chip else "",
            in_network_reduction=level.get("in_network_reduction", chip is not None and chip.in_network_reduction),
        )

    levels = tuple(map(tie, up.get("levels", ())))
    return {
        "bandwidth_Bps": sum(level.bandwidth_Bps for level in levels if level.size > 1) or total_Bps,
        "levels": levels,
    }


_KINDS: Final = {"switch": _switch, "mesh": _mesh, "torus": _torus, "nested": _nested}


def for_each(value: Any, many: int) -> tuple[Any, ...]:
    """Return one value for each axis."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * many


def _first(value: Any) -> Any:
    """Return a value, or the first of several."""
    return value[0] if isinstance(value, (list, tuple)) else value


def _plain(value: Any) -> Any:
    """Return a list as a tuple."""
    return tuple(value) if isinstance(value, list) else value


# --- between domains -------------------------------------------------------------------------------------------------


def scale_out(out: Values, part: catalogue.Accelerator, usual: str | float, domains: int) -> ScaleOutSpec:
    """Fill in the scale-out network: link and switch follow from the NIC, the radix from the switch.

    `usual` is the part's NIC, by its name or its rate.
    """
    given = out.get("nic", usual)
    nic = catalogue.nic(given) if isinstance(given, str) else catalogue.nic_for(given)
    rate_Bps = nic.rate_Bps if isinstance(given, str) else float(given)
    link = catalogue.link(out.get("link", nic.link))
    kind, planes = out.get("kind", "fat-tree"), out.get("planes", 1)
    named = out.get("switch", link.switch)
    boxes = [catalogue.switch(name) for name in for_each(named, 1)]
    ports = tuple(ports_at(box, rate_Bps / planes) for box in boxes)
    stated = "switch" in out or kind not in DIRECT  # a terminal is no switch that the catalogue knows
    return ScaleOutSpec(
        nic=nic.name,
        nic_Bps=rate_Bps,
        nics_per_accelerator=out.get("nics_per_accelerator", 1.0 if "nic" in out else part.nics),
        rails=out.get("rails", part.rails),
        radix=_plain(out.get("radix", ports if len(ports) > 1 else ports[0])),
        levels=out.get("levels"),
        oversubscription=_plain(out.get("oversubscription", 1.0)),
        link=link.name,
        latency_s=out.get("latency", link.latency_s),
        switch=(tuple(box.name for box in boxes) if len(boxes) > 1 else boxes[0].name) if stated else "",
        switch_latency_s=boxes[0].latency_s or 0.0,
        in_network_reduction=out.get("in_network_reduction", False),
        kind=kind,
        down=_plain(out.get("down")),
        planes=planes,
        trunk=out.get("trunk", 1),
        spines=out.get("spines", "auto"),
        top=out.get("top", "core"),
        global_links=out.get("global_links"),
        ocs_radix=out.get("ocs_radix", 136),
        leaf_link=out.get("leaf_link", ""),
        shape=_rows(out, kind, domains),
        link_Bps=out.get("link_bandwidth"),
        links_per_neighbour=out.get("links_per_neighbour", 1),
        km=out.get("km", 0.0),
        medium=out.get("medium", "fibre"),
    )


def _rows(out: Values, kind: str, domains: int) -> tuple[int, ...]:
    """Domains along each axis of a network without switches."""
    if kind == "torus":
        return tuple(out.get("shape") or near_cube(max(1, domains), 2))
    return (max(1, domains),) if kind in DIRECT else ()


def sites(given: Values, out: ScaleOutSpec) -> SitesSpec:
    """Fill in the lines between sites."""
    return SitesSpec(
        count=given["count"],
        km=given["km"],
        bandwidth_Bps=given["bandwidth"],
        order=given.get("order", "set"),
        link=given.get("link", out.link),
        link_Bps=given.get("link_bandwidth"),
        switches=given.get("switches", 1),
    )


def join(given: Values, out: ScaleOutSpec, pools: list[str]) -> JoinSpec:
    """Fill in what joins pools; `out` is the first one's network."""
    link = catalogue.link(given.get("link", out.link))
    box = catalogue.switch(given.get("switch", link.switch))
    lines = given.get("spans") or (
        [{"between": (a, b)} for i, a in enumerate(pools) for b in pools[i + 1 :]] if "km" in given else []
    )
    lines = [{**{key: given[key] for key in ("km", "bandwidth") if key in given}, **line} for line in lines]
    return JoinSpec(
        link=link.name,
        latency_s=given.get("latency", link.latency_s),
        switch=box.name,
        switch_latency_s=box.latency_s or 0.0,
        cable_Bps=box.rate_Bps,
        bandwidth_Bps=given.get("bandwidth"),
        oversubscription=given.get("oversubscription", 1.0),
        switches=given.get("switches"),
        radix=given.get("radix"),
        spans=tuple(SpanSpec(line["between"][0], line["between"][1], line["bandwidth"], line["km"]) for line in lines),
    )
