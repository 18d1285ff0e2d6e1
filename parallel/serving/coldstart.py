"""From nothing to the first token: weights come from a disk, a memory, storage across the network or other accelerators.

What is read goes through the source, the network card where it comes from outside, and the host's bus, all at once, so
that the slowest sets the rate:

    seconds = latency + bytes of one accelerator / min(source, network card, bus)

Sources of the scheme: ServerlessLLM (Fu et al. 2401.14351 §4), whose loader keeps all of them busy; loaders that do not are
slower by what they leave idle.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clusters.build import Cluster, path
from clusters.memories import memory
from collectives.point_to_point import farthest
from parallel.placement import domain_size, members_of

if TYPE_CHECKING:
    from parallel.scenariofile import StartFile

PEERS: Final = "peers"
"""Name of the source that is other accelerators with the same weights."""


@dataclass(frozen=True, slots=True)
class Start:
    """How a replica starts.

    Attributes
    ----------
    rates_Bps : what each stage carries for one accelerator
    latency_s : before the first byte
    weight_bytes : of one accelerator
    before_s : starting the process, building graphs: what nothing here prices
    """

    rates_Bps: dict[str, float]
    latency_s: float
    weight_bytes: float
    before_s: float

    @property
    def stages_s(self) -> dict[str, float]:
        """Seconds that each stage is busy: bytes / rate."""
        return {name: self.weight_bytes / rate for name, rate in self.rates_Bps.items()}

    @property
    def load_s(self) -> float:
        """Seconds until the weights are there.

        >>> Start({"disk": 2e9, "bus": 50e9}, 1.0, 20e9, 0.0).load_s
        11.0
        """
        return self.latency_s + max(self.stages_s.values())


def start_of(file: "StartFile", cluster: Cluster, weight_bytes: float, used: int, ranks: float) -> Start:
    """Return how the replicas of a deployment start, all of them at once.

    Devices are shared by all that load. `peers` are replicas that run, `donors` of them: each sends to its share of the others,
    from the same rank to the same rank, over the farthest tier that two neighbours span.

    Parameters
    ----------
    weight_bytes, used : of one accelerator, and accelerators that load
    ranks : accelerators of one replica, of which each reads its own part
    """
    bus_Bps = cluster.accelerator.host_Bps
    if file.source == PEERS:
        takers = max((used / ranks - file.donors) / file.donors, 1.0)
        return Start({"wire": wire_rate(cluster, weight_bytes, ranks) / takers}, 0.0, weight_bytes, file.before_s)
    held = memory(file.source)
    many = float(used) if held.per == "accelerator" else float(file.devices or used)
    rates = {"source": held.bandwidth_Bps * many / used}
    if file.network or held.name == "network-flash":
        rates["network card"] = cluster.spec.scale_out.bandwidth_Bps
    if held.kind != "host" and bus_Bps:
        rates["bus"] = bus_Bps
    return Start(rates, held.latency_s or 0.0, weight_bytes, file.before_s)


def wire_rate(cluster: Cluster, size_bytes: float, ranks: float) -> float:
    """Rate at which a rank of one replica sends to the same rank of the next one, over the cluster's links.

    >>> from clusters.build import build
    >>> from clusters.spec import load, with_
    >>> boxes = build(with_(load("hgx-h100"), accelerators=16))
    >>> wire_rate(boxes, 1e10, 8) < 50e9 < wire_rate(boxes, 1e10, 4)  # across two boxes, and within one
    True
    """
    one = np.ones(1)
    room = min(2.0 * ranks, float(cluster.accelerators))
    span = members_of(cluster, one * domain_size(cluster), one * room, one)
    return size_bytes / float(farthest(one * size_bytes, span, path(cluster, "send_recv", "nccl"))[0])


def started(start: Start, first_token_s: float, source: str) -> dict[str, Any]:
    """Return the section `cold_start` of the answer: until the first token, by part, and what sets the rate."""
    stages = start.stages_s
    slowest = max(stages, key=lambda name: stages[name])
    return {
        "source": source,
        "seconds": start.before_s + start.load_s + first_token_s,
        "terms": {"before": start.before_s, "weights": start.load_s, "first token": first_token_s},
        "weight_bytes": start.weight_bytes,
        "stages": stages,
        "rates_Bps": start.rates_Bps,
        "bottleneck": slowest,
        "load_Bps": start.weight_bytes / start.load_s,
    }
