"""The nouns of a cluster file: frozen, in SI, with every default filled in. `clusters.spec` reads and varies them."""

import math
from dataclasses import dataclass, field
from typing import Any

Spans = tuple[tuple[str, tuple[int, int]], ...]
"""Coordinates as [start, stop) intervals of axes, in the order of their names."""


@dataclass(frozen=True, slots=True)
class TieSpec:
    """One level of a nested domain: `size` blocks joined by `switches`, or, with none, each to each."""

    name: str
    size: int
    bandwidth_Bps: float
    latency_s: float
    link: str
    switches: int = 0
    ports: int = 0
    switch: str = ""
    in_network_reduction: bool = False


@dataclass(frozen=True, slots=True)
class ScaleUpSpec:
    """The network inside a domain; `kind` says which of the other fields count.

    `switches` are the first-layer switches of one block of `inner` accelerators, `outer_*` the second layer's. A mesh and a
    torus have `link_Bps` to a neighbour on each axis (a mesh: over `links_per_pair`), a nested domain has `levels`.
    """

    bandwidth_Bps: float
    latency_s: float
    layers: int
    inner: int
    oversubscription: float
    in_network_reduction: bool
    link: str
    switch: str
    switches: int
    kind: str = "switch"
    outer_latency_s: float | None = None
    outer_switches: int | None = None
    sub_planes: int = 1
    links_per_pair: int = 1
    shape: tuple[int, ...] = ()
    wrap: tuple[bool, ...] = ()
    link_Bps: tuple[float, ...] = ()
    cube: int = 0
    optical_link: str = ""
    levels: tuple[TieSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class ScaleOutSpec:
    """The network between domains; `radix` counts switch ports of one NIC port's rate, `latency_s` is of one cable.

    `shape`, `link_Bps`, `links_per_neighbour`, `km` and `medium` are of domains that are joined directly. Of `radix`,
    `oversubscription`, `switch` and `down`, one value is for every level and a tuple from the leaf up.
    """

    nic: str
    nic_Bps: float
    nics_per_accelerator: float
    rails: int
    radix: int | tuple[int, ...]
    levels: int | None
    oversubscription: float | tuple[float, ...]
    link: str
    latency_s: float
    switch: str | tuple[str, ...]
    switch_latency_s: float
    in_network_reduction: bool
    kind: str = "fat-tree"
    down: int | tuple[int, ...] | None = None
    planes: int = 1
    trunk: int = 1
    spines: str = "auto"
    top: str = "core"
    global_links: int | None = None
    ocs_radix: int = 136
    leaf_link: str = ""
    shape: tuple[int, ...] = ()
    link_Bps: float | None = None
    links_per_neighbour: int = 1
    km: float = 0.0
    medium: str = "fibre"

    @property
    def bandwidth_Bps(self) -> float:  # noqa: N802  (the unit is part of the name)
        """Per accelerator and direction: all its NICs together."""
        return self.nic_Bps * self.nics_per_accelerator


@dataclass(frozen=True, slots=True)
class SitesSpec:
    """Equal sites: `bandwidth_Bps` of each line between two, of at most `link_Bps` per fibre where that is given."""

    count: int
    km: float
    bandwidth_Bps: float
    order: str
    link: str
    link_Bps: float | None
    switches: int


@dataclass(frozen=True, slots=True)
class SpanSpec:
    """A long line between two pools."""

    a: str
    b: str
    bandwidth_Bps: float
    km: float


@dataclass(frozen=True, slots=True)
class JoinSpec:
    """What joins pools: shared switches, into which each pool puts `bandwidth_Bps`, or, where there are `spans`, fibre."""

    link: str
    latency_s: float
    switch: str
    switch_latency_s: float
    cable_Bps: float
    bandwidth_Bps: float | None
    oversubscription: float
    switches: int | None
    radix: int | None
    spans: tuple[SpanSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class ChangeSpec:
    """What is missing or slower: every node at `remove`, or those of class `node`, `at` places or drawn at random."""

    remove: Spans = ()
    node: str = ""
    at: Spans = ()
    to: str = ""
    to_at: Spans = ()
    factor: float = 0.0
    count: int = 0
    share: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """A graph file: its content, by its digest, tells it from others, not where it lies.

    `rates` and `latencies` are of words that its format has no figure for; an empty `format` is recognised.
    """

    sha256: str
    format: str = ""
    rates: tuple[tuple[str, float], ...] = ()
    latencies: tuple[tuple[str, float], ...] = ()
    file: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A tunings file that a cluster names: its content, by its digest, tells it from others, not where it lies."""

    sha256: str
    file: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """A cluster with every default filled in. `accelerators` are bought; whole domains of `domain` are used.

    `override` holds figures in SI that replace those of the accelerator, `own` the fields of an accelerator that the
    file itself describes, `tunings` the constants of its links. A cluster of `pools` has what one of them has: the one
    in `focus`, or, where the whole is meant and `focus` is empty, the first; `accelerators` are then those of all.
    `written` holds the fields that were given (canonical JSON), from which `with_` starts again; neither it nor `file`
    tells two specs apart.
    """

    name: str
    accelerator: str
    accelerators: int
    domain: int
    scale_up: ScaleUpSpec
    scale_out: ScaleOutSpec
    override: tuple[tuple[str, float], ...] = ()
    own: tuple[tuple[str, Any], ...] = ()
    sites: SitesSpec | None = None
    pools: "tuple[ClusterSpec, ...]" = ()
    join: JoinSpec | None = None
    focus: str = ""
    changes: tuple[ChangeSpec, ...] = ()
    graph: GraphSpec | None = None
    tunings: OwnFile | None = None
    file: str = field(default="", compare=False)
    written: str = field(default="", compare=False, repr=False)

    @property
    def layers(self) -> int:
        """Switch layers inside a domain."""
        return self.scale_up.layers

    @property
    def domains(self) -> int:
        """Whole domains that the accelerators fill, equally many at every site."""
        if self.pools and not self.focus:
            return sum(pool.domains for pool in self.pools)
        sites = self.sites.count if self.sites else 1
        return self.accelerators // (sites * self.domain) * sites

    @property
    def usable(self) -> int:
        """Accelerators in whole domains; the rest are idle."""
        if self.pools and not self.focus:
            return sum(pool.usable for pool in self.pools)
        return self.domains * self.domain


def ports_each(out: ScaleOutSpec, ports: int | tuple[int, ...] | None = None) -> int | tuple[int, ...]:
    """Return ports of a switch (by default `radix`) counted in accelerators: each takes as many as it has NICs."""
    counted = out.radix if ports is None else ports
    if isinstance(counted, tuple):
        return tuple(math.floor(each / out.nics_per_accelerator) for each in counted)
    return math.floor(counted / out.nics_per_accelerator)
