"""What a step of a deployment costs: a pass of the model, a cycle of pipeline stages, or a pass that checks drafts.

All three are a `parallel.serving.queueing.StepCost`, so that the simulation and its closed form do not know which it is.
Here stands what they need beside it: limits as the step counts them, and what a first token waits for after its step.
"""

from dataclasses import dataclass, replace
from math import ceil

from parallel.models import Model, compressed, indexed, layer_count, layer_order
from parallel.serving.drafts import Drafting, drafting, in_steps
from parallel.serving.engines import Settings
from parallel.serving.operators import dealt_ranks
from parallel.serving.passes import PassCost, Replica, Split, stage_counts
from parallel.serving.pipelines import Pipeline, piped, pipeline
from parallel.serving.queueing import Limits, Served
from parallel.speculation import Drafts, draft_faults
from topo.errors import Fault


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of one attention group.

    Attributes
    ----------
    cost : what a step costs
    limits : what the engine admits, counted in steps
    yielded : tokens that a sequence gets of a step
    lag_s : seconds that a first token comes after the step that its prompt was through with
    positions : cache positions that the memory holds for an attention group
    """

    cost: PassCost | Pipeline | Drafting
    limits: Limits
    positions: float
    yielded: float = 1.0
    lag_s: float = 0.0

    def outputs(self, osl: float) -> float:
        """Return how many steps an answer takes."""
        return osl / self.yielded

    def as_tokens(self, served: Served) -> Served:
        """Return the times of requests whose answers were counted in steps."""
        return as_tokens(served, self.yielded, self.lag_s)


def as_tokens(served: Served, yielded: float, lag_s: float) -> Served:
    """Return the times of requests whose answers were counted in steps, each first token so much later."""
    if yielded == 1.0 and not lag_s:
        return served
    first, whole = served.ttft_s + lag_s, served.e2e_s + lag_s
    return replace(served, ttft_s=first, e2e_s=whole, tpot_s=served.tpot_s / yielded)


def steps_of(
    replica: Replica,
    cost: PassCost,
    limits: Limits,
    settings: Settings,
    lengths: tuple[float, float],
    drafts: Drafts | None = None,
    pipe: Pipeline | None = None,
) -> Steps:
    """Return the steps of a replica whose passes cost so much, for requests of so many input and output tokens.

    `pipe` is its pipeline, where that is known.
    """
    isl, osl = lengths
    if replica.split.pp > 1:
        pipe = pipe or pipeline(replica, cost.engine, settings.tokens, graphs=settings.graphs)
        return Steps(pipe, piped(limits, replica.split.pp), limits.positions, lag_s=pipe.lag_s(isl))
    if drafts is not None:
        checked = drafting(replica, cost, drafts, osl)
        return Steps(checked, in_steps(limits, drafts, isl, osl), limits.positions, drafts.yielded)
    return Steps(cost, limits, limits.positions)


def split_faults(model: Model, split: Split, drafts: Drafts | None = None) -> list[Fault]:
    """Return what is wrong with stages, a dealt cache and drafts, all of it.

    >>> from parallel.io import read_model
    >>> [fault.field for fault in split_faults(read_model("llama-3.1-70b"), Split(tp=8, pp=100, dcp=2))]
    ['strategy.pp', 'strategy.dcp']
    """
    faults, layers = [], layer_count(model)
    if split.pp > layers:
        faults.append(Fault("strategy.pp", int(split.pp), f"exceeds {layers} layers", f"write {layers} or less"))
    elif lost := _without_index(model, split.pp):
        problem = f"begins stage {lost[0][0]} at layer {lost[0][1]}, whose index is of the stage before"
        faults.append(Fault("strategy.pp", int(split.pp), problem, "write pp: 1; stages hand on no chosen positions"))
    if split.dcp > 1:
        most = int(
            min(dealt_ranks(kind.attention, split.tp) for kind in model.layers if kind.attention.kind != "delta")
        )
        if split.tp % split.dcp or split.dcp > most:
            problem = f"deals the cache to ranks that hold copies of it: {most} of {split.tp:.0f}"
            if compressed(model):
                problem = "deals entries of several positions to ranks, which is not priced"
            elif indexed(model):
                problem = f"deals an indexed cache to ranks whose heads fit one kernel: {most} of {split.tp:.0f} (vLLM)"
            faults.append(Fault("strategy.dcp", int(split.dcp), problem, f"write a divisor of tp up to {most}"))
    if split.dcp <= 1 and split.dcp_comm != "ag_rs":
        problem = "is of a cache that ranks deal among them"
        faults.append(Fault("strategy.dcp_comm", split.dcp_comm, problem, "write dcp, or leave it out"))
    if split.cp > 1 and any(kind.attention.kind == "delta" for kind in model.layers):
        problem = "hands recurrent states from token to token, and prompts dealt over ranks are not in order"
        faults.append(Fault("strategy.cp", int(split.cp), problem, "write cp: 1"))
    faults += _entry_faults(model, split)
    if split.cp > 1 and split.dcp > 1:
        problem = "repeats the cache on ranks that share a prompt; one dealt over them too is not priced"
        faults.append(Fault("strategy.cp", int(split.cp), problem, "leave out cp or dcp"))
    if drafts is not None:
        faults += draft_faults(model, drafts.method, split.pp, "eagle or model")
    return faults


def _entry_faults(model: Model, split: Split) -> list[Fault]:
    """Return what is wrong with prompts and outputs of compressed attention that ranks share."""
    faults: list[Fault] = []
    if split.cp > 1 and compressed(model):
        problem = "hands on the positions that an entry is made of, which prompts dealt over ranks do not have together"
        faults.append(Fault("strategy.cp", int(split.cp), f"{problem}; not priced", "write cp: 1"))
    groups = [kind.attention.compression.groups for kind in model.layers if kind.attention.compression]
    if any(count % split.tp for count in groups):
        problem = f"does not divide the {min(groups)} groups of heads of the output"
        faults.append(Fault("strategy.tp", int(split.tp), problem, f"write a divisor of {min(groups)}"))
    return faults


def _without_index(model: Model, pp: float) -> list[tuple[int, int]]:
    """Return (stage, first layer) of the stages that begin with a layer which shares an index, all counted from 0.

    Positions that a layer chose are not sent from stage to stage (vllm-project/vllm-ascend, validate_indexer_pp_partition).
    """
    order, first, found = layer_order(model), 0, []
    for stage, counts in enumerate(stage_counts(model, pp)):
        indexer = model.layers[order[first]].attention.indexer
        if indexer and not indexer.scores:
            found.append((stage, first))
        first += sum(counts)
    return found


def prompt_terms(cost: PassCost, isl: float, budget: float) -> dict[str, float]:
    """Return the seconds of a prompt alone by name, fed in chunks of the token budget; they add up to its passes.

    `cp` is what ranks that share it wait for keys and values, and up-project again; `other` are starts, head and host.
    """
    chunks = ceil(isl / budget)
    each = isl / chunks
    fed = [(each, each * (at + 0.5) * each) for at in range(chunks)]
    parts = [cost.fed(0.0, *some) for some in fed]
    told = {name: cost.engine.prefill * sum(part[name] for part in parts) for name in parts[0]}
    return told | {"other": sum(cost(0.0, 0.0, *some) for some in fed) - sum(told.values())}


def prompt_summary(replica: Replica, cost: PassCost, isl: float, budget: float) -> dict[str, object]:
    """Return what an answer says of prompts that several ranks share; nothing where each group of tensor ranks has its own."""
    if replica.split.cp <= 1:
        return {}
    note = "new keys and values are gathered before attention; the cache, and what decodes, is repeated on every rank"
    return {"prompt": {"ranks": int(replica.split.cp), "terms": prompt_terms(cost, isl, budget), "note": note}}


def stage_summary(replica: Replica, steps: Steps, decoding: float, positions: float) -> dict[str, object]:
    """Return what an answer says of pipeline stages; nothing where there is one."""
    if not isinstance(steps.cost, Pipeline):
        return {}
    return {"pipeline": steps.cost.told(replica, decoding, positions)}
