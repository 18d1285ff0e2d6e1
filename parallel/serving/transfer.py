"""The key-value caches on their way from the pool that prefills to the pool that decodes.

A replica of the prefill pool ends a pass and sends the caches of its prompts. They go at the least of three rates: what
the network cards of that replica send, what those of the accelerators that take the caches receive, and what the traffic
of the other replicas leaves of the wire between the pools, of which each has at least an equal share. In steady state the
wire has to carry one cache for each request that both pools can serve; where it cannot, it sets the rate of the whole.

Sources of the scheme: DistServe (Zhong et al. 2401.09670), Splitwise (Patel et al. 2311.18677), which also sends layer
by layer while prefill runs; that would hide most of the time and is not counted here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from clusters.build import Cluster
from parallel.models import Model, kv_bytes_per_sequence
from parallel.priced import Priced
from parallel.serving.contexts import context_ranks
from parallel.serving.phases import replicas, stage_ranks
from parallel.strategy import Columns
from parallel.workload import ServeWorkload
from topo.columns import column

TERM = "kv_transfer"

BOUNDS = ("senders", "receivers", "wire")
"""What can limit the rate, as `Transfer.bound_by` names it."""


@dataclass(frozen=True, slots=True)
class Side:
    """One pool at work.

    Attributes
    ----------
    requests_per_s : what all of its replicas could serve
    replicas : copies of the model
    groups : attention groups, each of which holds the caches of its own requests
    group_Bps : what the network cards of one group carry, one way
    batch : requests of one pass of one replica
    """

    requests_per_s: float
    replicas: float
    groups: float
    group_Bps: float
    batch: float

    @classmethod
    def of(cls, cluster: Cluster, cols: Columns, requests_per_s: float) -> "Side":
        """Read it off one strategy."""
        ranks, pp, batch = (float(c[0]) for c in (stage_ranks(cols), cols["pp"], cols["batch"]))
        group = float(np.ravel(cols["tp"] * context_ranks(cols))[0])
        many = float(replicas(cluster, cols)[0])
        cards_Bps = group * pp * cluster.spec.scale_out.bandwidth_Bps
        return cls(requests_per_s, many, many * ranks / group, cards_Bps, batch * ranks)


@dataclass(frozen=True, slots=True)
class Transfer:
    """How the caches of one pass move.

    Attributes
    ----------
    bytes_per_request : of one cache
    wire_Bps : maximum flow between the pools
    share_Bps, bound_by : the rate of one replica, and which of `BOUNDS` sets it
    latency_s : of the path
    seconds : until the caches of the pass are there
    requests_per_s : caches that the whole wire carries
    load : steady traffic over the wire's bandwidth; above 1 it sets the rate of both pools
    """

    bytes_per_request: float
    wire_Bps: float
    share_Bps: float
    bound_by: str
    latency_s: float
    seconds: float
    requests_per_s: float
    load: float

    def added(self, priced: Priced) -> Priced:
        """Return the prices of a prefill with the transfer as one more term, exposed in full."""
        once = column(self.seconds) + np.zeros_like(priced.seconds)
        extra = {**priced.extra, "ttft_s": priced.extra["ttft_s"] + once}
        terms, busy = ({**held, TERM: once} for held in (priced.terms, priced.busy))
        return replace(priced, seconds=priced.seconds + once, terms=terms, busy=busy, extra=extra)


def request_bytes(model: Model, work: ServeWorkload) -> float:
    """Cache bytes of a request once its prompt has been read: values per token x prompt x bytes per value.

    >>> from parallel.io import read_model  # (512 + 64) x 2 bytes x 61 layers x 4,096 tokens
    >>> request_bytes(read_model("deepseek-v3"), ServeWorkload(isl=4096, kv_bytes=2.0))
    287834112.0
    """
    return float(kv_bytes_per_sequence(model, work.isl, work.kv_bytes))


def wire_share(wire_Bps: float, steady_Bps: float, senders: float) -> float:
    """Return what one of several replicas has of the wire: all that the others leave, or an equal share if that is more.

    ``max(B − steady·(R−1)/R, B/R)``: the others' part of the steady traffic is off; at full load an equal share is left.

    >>> wire_share(1e12, 0.0, 4), wire_share(1e12, 0.4e12, 4), wire_share(1e12, 9e12, 4)
    (1000000000000.0, 700000000000.0, 250000000000.0)
    """
    return max(wire_Bps - steady_Bps * (senders - 1.0) / senders, wire_Bps / senders)


def transfer(size_bytes: float, prefill: Side, decode: Side, wire: Mapping[str, Any]) -> Transfer:
    """Move the caches of one pass, `size_bytes` each, over what `clusters.build.between` found.

    ``seconds = latency + requests of a pass · bytes / min(senders, receivers, share of the wire)``.
    """
    wire_Bps, latency_s = float(wire["bandwidth_Bps"]), float(wire["latency_s"])
    served = min(prefill.requests_per_s, decode.requests_per_s)
    steady_Bps = served * size_bytes
    rates = (
        prefill.groups / prefill.replicas * prefill.group_Bps,
        min(prefill.batch, decode.groups) * decode.group_Bps,
        wire_share(wire_Bps, min(steady_Bps, wire_Bps), prefill.replicas),
    )
    share_Bps = min(rates)
    return Transfer(
        bytes_per_request=size_bytes,
        wire_Bps=wire_Bps,
        share_Bps=share_Bps,
        bound_by=BOUNDS[rates.index(share_Bps)],
        latency_s=latency_s,
        seconds=latency_s + prefill.batch * size_bytes / share_Bps,
        requests_per_s=wire_Bps / size_bytes,
        load=steady_Bps / wire_Bps,
    )
