"""A point as priced, with the floors of its price laid open: what the inputs of equations are read from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clusters.build import Cluster, path
from clusters.tunings import collective_s
from collectives.path import Path
from collectives.point_to_point import farthest
from parallel.exchange import EXCHANGES, candidates, exchange_s
from parallel.explain.point import Point
from parallel.models import LayerKind, Moe
from parallel.placement import group_members, members_of
from parallel.priced import Priced
from parallel.results import at
from parallel.roofline import Chip
from parallel.serving import phases as serving
from parallel.serving.phases import ServeJob, stage_ranks
from parallel.strategy import Columns
from parallel.training import footprint
from parallel.training import step as training
from parallel.training.layer import TrainJob, exposed, layer_prices
from parallel.training.stages import balanced_stage
from topo.columns import Column, column
from topo.errors import Fault, SpecError


def one(values: Column) -> float:
    """Return the only value of a column."""
    return float(np.ravel(values)[0])


@dataclass(frozen=True)
class Message:
    """One collective of a term: what is sent, over whom, how often a step.

    Attributes
    ----------
    op, regime : of `clusters.tunings`
    size_bytes : as nccl-tests counts it
    members : members of the group in the block of each tier, innermost first
    times : how often it runs in a step, one after the other
    """

    op: str
    regime: str
    size_bytes: float
    members: tuple[float, ...]
    times: float

    def seconds(self, road: Path) -> float:
        """Seconds of one of them on a road."""
        members = np.array(self.members)[:, None]
        if self.op == "send_recv":
            return one(farthest(np.array([self.size_bytes]), members, road))
        return one(collective_s(self.op, np.array([self.size_bytes]), members, road, self.regime))


@dataclass(frozen=True)
class Scene(ABC):
    """What training and serving share."""

    point: Point

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster as built."""
        return self.point.built

    @cached_property
    def priced(self) -> Priced:
        """The price of the point."""
        return self.point.price()

    @cached_property
    def terms(self) -> dict[str, float]:
        """Exposed seconds by term, zeros left out."""
        return at(self.priced.terms, 0)

    @cached_property
    def busy(self) -> dict[str, float]:
        """Seconds by term before overlap, zeros left out."""
        return at(self.priced.busy, 0)

    @property
    def seconds(self) -> float:
        """The step, the pass or the time per output token."""
        return one(self.priced.seconds)

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """The model's kinds of layer."""
        return self.point.model.layers

    @property
    def moe(self) -> Moe | None:
        """The expert layer, if there is one."""
        return next((kind.mlp for kind in self.kinds if isinstance(kind.mlp, Moe)), None)

    @property
    @abstractmethod
    def chip(self) -> Chip:
        """What prices operators."""

    @property
    @abstractmethod
    def messages(self) -> dict[str, list[Message]]:
        """Collectives by the term that they make, experts' kernels left out."""

    @abstractmethod
    def read(self, name: str) -> float:
        """Return one column of the strategy."""

    def road(self, op: str, regime: str) -> Path:
        """Return the tiers as one operation sees them."""
        return path(self.cluster, op, regime)


@dataclass(frozen=True)
class TrainScene(Scene):
    """A training step laid open."""

    @cached_property
    def job(self) -> TrainJob:
        """What stays fixed while strategies vary."""
        return TrainJob.of(self.point.model, self.cluster, self.point.train)

    @property
    def chip(self) -> Chip:
        """The chip as a step of seconds finds it."""
        return self.job.chip

    @cached_property
    def cols(self) -> Columns:
        """The strategy with every default filled in."""
        return self.point.cols

    def read(self, name: str) -> float:
        """Return one column of the strategy."""
        return one(self.cols[name])

    @property
    def microbatches(self) -> float:
        """Micro-batches per step."""
        return self.point.train.global_batch / (self.read("dp") * self.read("micro_batch"))

    @property
    def modules(self) -> float:
        """Multi-token-prediction modules that are trained."""
        return training.modules_trained(self.job)

    @property
    def counts(self) -> list[float]:
        """Layers of each kind, the modules among the last."""
        return [kind.count + self.modules * (kind is self.kinds[-1]) for kind in self.kinds]

    @cached_property
    def layers(self) -> Mapping[str, Column]:
        """Prices of one layer of each kind."""
        return layer_prices(self.job, self.cols)

    @cached_property
    def shown(self) -> list[dict[str, Column]]:
        """Exposed seconds of one layer of each kind."""
        return [exposed(self.job, self.layers, index, self.cols) for index in range(len(self.kinds))]

    @cached_property
    def stages(self) -> Mapping[str, Column]:
        """All layers together, hops and reductions."""
        return training.stage_prices(self.job, self.cols)

    @cached_property
    def slowest(self) -> float:
        """Seconds of the slowest stage for one micro-batch."""
        layers, counts = (
            [self.stages[f"layer {index}"] for index in range(len(self.kinds))],
            [k.count for k in self.kinds],
        )
        end = self.stages["end"] - self.put_off
        balanced = balanced_stage(layers, counts, self.cols["pp"], last=end)
        return one(training.slowest(self.job, {**self.stages, "balanced": balanced, "end": end}, self.cols))

    @property
    def put_off(self) -> float:
        """Seconds of the last stage that a micro-batch leaves to the drain."""
        m = np.array([self.microbatches])
        return one(training.put_off_s(self.job, self.stages, m, self.cols["pp"]))

    @cached_property
    def loads(self) -> Mapping[str, Column]:
        """What each place of the pipeline holds."""
        return footprint.stage_loads(self.point.model, self.point.train, self.cols, training.SCHEDULES)

    def group(self, name: str) -> tuple[float, ...]:
        """Members of a group in the block of each tier."""
        return tuple(group_members(self.cluster, self.cols, name)[:, 0].tolist())

    def layer(self, name: str) -> list[float]:
        """Return one price of a layer, for each kind."""
        return [one(self.layers[f"{index} {name}"]) for index in range(len(self.kinds))]

    @cached_property
    def messages(self) -> dict[str, list[Message]]:
        """Collectives by term, experts' kernels left out."""
        from parallel.explain.traffic import train_messages

        return train_messages(self)


@dataclass(frozen=True)
class ServeScene(Scene):
    """A prefill or a decoding pass laid open."""

    @cached_property
    def job(self) -> ServeJob:
        """What stays fixed while strategies vary."""
        return ServeJob.of(self.point.model, self.cluster, self.point.serve, self.point.exchange)

    @property
    def chip(self) -> Chip:
        """The chip at the clocks of a short benchmark."""
        return self.job.chip

    @property
    def phase(self) -> serving.Phase:
        """What differs between prefill and decode."""
        return serving.PHASES[self.point.phase]

    @property
    def cols(self) -> Columns:
        """The strategy."""
        return self.point.cols

    def read(self, name: str) -> float:
        """Return one column of the strategy."""
        return one(self.cols[name])

    @property
    def ranks(self) -> float:
        """Ranks of one stage."""
        return one(stage_ranks(self.cols))

    @property
    def parts(self) -> float:
        """Micro-batches that a pass is cut into."""
        return self.read("microbatches")

    @property
    def tokens(self) -> float:
        """Tokens of one attention group and micro-batch."""
        return self.read("batch") * self.read("tp") * self.phase.tokens_per_batch(self.point.serve) / self.parts

    @property
    def counts(self) -> list[float]:
        """Layers of each kind."""
        return [float(kind.count) for kind in self.kinds]

    @cached_property
    def layers(self) -> Mapping[str, Column]:
        """Prices of one layer of each kind, all micro-batches."""
        return serving.layer_prices(self.job, self.phase, self.cols)

    @cached_property
    def passes(self) -> Mapping[str, Column]:
        """Totals of one pass, the slowest stage, one hop."""
        return serving.pass_prices(self.job, self.phase, self.cols)

    def layer(self, name: str) -> list[float]:
        """Return one price of a layer, for each kind."""
        return [one(self.layers[f"{index} {name}"]) for index in range(len(self.kinds))]

    def group(self, ranks: float, stride: float = 1.0) -> tuple[float, ...]:
        """Members of so many ranks in the block of each tier."""
        members = members_of(self.cluster, self.cols["used"], np.array([ranks]), np.array([stride]))
        return tuple(members[:, 0].tolist())

    @cached_property
    def exchange(self) -> "Swap | None":
        """The kernels that carry the expert exchange, as priced; None for a dense model."""
        moe = self.moe
        if moe is None:
            return None
        index = next(i for i, kind in enumerate(self.kinds) if kind.mlp is moe)
        busy = one(self.layers[f"{index} busy ep"])
        group, options = column(self.group(self.ranks))[:, None], []
        for name in candidates(self.point.serve.exchange, self.point.phase):
            swap = exchange_s(
                self.cluster, moe, self.point.model.hidden, np.array([self.tokens / self.read("tp")]), group,
                self.chip.recipe, name=name, phase=self.point.phase, rules=self.point.exchange,
            )  # fmt: skip
            options.append(Swap(name, one(swap["dispatch"]), one(swap["combine"]), tuple(group[:, 0].tolist())))
        load = self.parts * self.point.serve.hot.busiest(moe.experts, self.ranks)
        return min(options, key=lambda swap: abs(load * (swap.dispatch_s + swap.combine_s) - busy))

    @cached_property
    def messages(self) -> dict[str, list[Message]]:
        """Collectives by term, experts' kernels left out."""
        from parallel.explain.traffic import serve_messages

        return serve_messages(self)


@dataclass(frozen=True)
class Swap:
    """One dispatch and one combine, by the kernels that a layer uses."""

    kernels: str
    dispatch_s: float
    combine_s: float
    members: tuple[float, ...]

    @property
    def taken(self) -> float | None:
        """Share of the multiprocessors that the kernels take; None where nothing can compute beside them."""
        return EXCHANGES[self.kernels].sm_share


def train_swap(scene: TrainScene) -> Swap | None:
    """Return the kernels of a training step's expert exchange; None where there is none, or it is NCCL's."""
    moe = scene.moe
    if moe is None or scene.point.train.software.dispatcher == "alltoall":
        return None
    group = column(scene.group("ep"))[:, None]
    brought = scene.read("micro_batch") * scene.point.train.sequence / scene.read("cp") / scene.read("tp")
    swap = exchange_s(
        scene.cluster, moe, scene.point.model.hidden, np.array([brought]), group, scene.chip.recipe, phase="train"
    )
    name = candidates("auto", "train")[int(swap["kernels"][0])]
    return Swap(name, one(swap["dispatch"]), one(swap["combine"]), tuple(group[:, 0].tolist()))


def scene_of(point: Point) -> TrainScene | ServeScene:
    """Lay open the price of a point.

    Raises
    ------
    SpecError
        It decodes with drafts: a step is a pass that checks and passes that draft, told under an engine alone.
    """
    settled = point.settled
    if settled.phase == "decode" and settled.serve.drafts:
        problem, remedy = "are laid open under an engine alone", "write engine: and load:, or leave drafts out"
        raise SpecError([Fault("drafts", settled.serve.drafts, problem, remedy)])
    return TrainScene(settled) if settled.phase == "train" else ServeScene(settled)
