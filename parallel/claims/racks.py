"""What a rack is for, and what a pipeline of racks can and cannot do (parts 5 to 7 of the blackboard)."""

from typing import Any, Final

import numpy as np

from clusters.build import Cluster, build, path
from clusters.tunings import collective_s
from parallel import rooflines
from parallel.claims.claim import Claim, Input, Values
from parallel.claims.inputs import RACK, named, without
from parallel.claims.machines import (
    decode_on,
    model_of,
    moe_of,
    part_of,
    priced_at,
    serve_work,
    spec_of,
    step_at,
    system,
    width_of,
)
from parallel.claims.passes import NVIDIA, L
from parallel.exchange import exchange_s
from parallel.models import layer_count, parameters
from parallel.placement import members_of
from parallel.precision import recipe
from parallel.priced import Priced
from parallel.workload import TrainWorkload

WIRED: Final = ("h100-sxm", "b200-sxm", "b300-sxm", "gb200", "rubin-vr200", "mi455x")
SERVED: Final = without(RACK, "accelerators", "hbm_capacity")
"""A batch that is given, on racks whose number is given, whether or not its caches fit."""
SENT: Final = "model accelerator precision"
"""What rows are sent over which wires."""
MANY: Final = 64.0
"""Sequences per accelerator and micro-batch where their number does not matter."""
STAGES: Final = Input("stages", 4, "count", "racks in the pipeline", doubled=True)
BATCH: Final = Input("batch", 64, "count", "sequences per accelerator and micro-batch")
TRAINED: Final = named(
    "model precision",
    Input("system", "superpod-gb200", says="a name of `podscale list systems`"),
    Input("ep", 8, "count", "expert parallel ranks", doubled=True),
    Input("stages", 8, "count", "pipeline stages", doubled=True),
    Input("microbatches", 64, "count", "sequences of a replica in one step", doubled=True),
)


def _racks(v: Values, many: int, **changes: Any) -> Cluster:
    """Return several domains of an accelerator."""
    domain = int(changes.get("domain") or part_of(v).domain)
    return build(spec_of({**v, "accelerators": many * domain, "domain": domain}))


# --- wires ----------------------------------------------------------------------------------------------------------


def sheet_ratio(v: Values) -> float:
    """Scale-up over scale-out bandwidth of one accelerator, from the data sheets."""
    spec = spec_of({**v, "accelerators": 8 * part_of(v).domain})
    return float(part_of(v).scale_up_Bps) / spec.scale_out.bandwidth_Bps


def reached_ratio(v: Values) -> float:
    """Time of an all-to-all of 8 ranks in 8 domains over that of 8 ranks in one."""
    cluster = _racks(v, 8)
    used, road = np.array([float(cluster.domain)]), path(cluster, "all_to_all")
    times = [
        float(
            collective_s(
                "all_to_all", np.array([v["size_bytes"]]), members_of(cluster, used, 8.0, stride), road, "nccl"
            )[0]
        )
        for stride in (1.0, float(cluster.domain))
    ]
    return times[1] / times[0]


def exchange_of(v: Values, domain: int) -> float:
    """Seconds of dispatch and combine of one layer over some ranks, in domains of a size."""
    spec = spec_of({**v, "accelerators": max(8 * domain, 576), "domain": domain})
    cluster, model, ranks = build(spec), model_of(v), float(v["ranks"])
    used = np.array([domain - domain % ranks if domain >= ranks else float(domain)])
    swap = exchange_s(
        cluster, moe_of(model), model.hidden, np.array([v["batch"]]), members_of(cluster, used, ranks, 1.0),
        recipe(str(v["precision"])), phase=str(v["phase"]),
    )  # fmt: skip
    return float((swap["dispatch"] + swap["combine"])[0])


def exchanges(v: Values) -> list[dict[str, Any]]:
    """List the seconds of that exchange by domain."""
    return [{"domain": domain, "exchange_s": exchange_of(v, domain)} for domain in (8, 72, 576)]


# --- a pipeline of racks --------------------------------------------------------------------------------------------


def piped(v: Values, stages: float) -> Priced:
    """Price decode over a pipeline of racks, one stage each, `batch` sequences per accelerator in every micro-batch."""
    cluster = _racks(v, int(stages))
    return priced_at(
        "decode", model_of(v), cluster.spec, serve_work(v), used=cluster.domain, ep=cluster.domain, pp=stages,
        batch=v["batch"],
    )[1]  # fmt: skip


def hop_s(v: Values, times: float = 1.0) -> float:
    """Seconds of one hop between racks, for that many times the rows of a micro-batch."""
    more = piped({**v, "batch": v["batch"] * times}, v["stages"])
    return float(more.busy["pp"][0] / v["stages"])


def rack_balance(v: Values) -> float:
    """Exchange time of the layers of a stage over the time of its hop."""
    priced = piped(v, v["stages"])
    layers = sum(kind.count for kind in model_of(v).layers if hasattr(kind.mlp, "topk"))
    return float(float(priced.busy["ep"][0]) / layers * v["layers_per_stage"] / hop_s(v))


def piped_ratio(v: Values, holder: str = "") -> float:
    """Compare a pipeline of racks with one rack: time per output token, or bytes of a holder."""
    one, many = piped(v, 1.0), piped(v, v["stages"])
    if holder:
        return float(many.memory[holder][0] / one.memory[holder][0])
    return float(many.seconds[0] / one.seconds[0])


# --- domains --------------------------------------------------------------------------------------------------------


def one_domain_s(v: Values, domain: float) -> float:
    """Time per output token of a batch on one domain alone, its experts spread over all of it."""
    return float(decode_on({**v, "accelerators": domain, "domain": domain}, v["batch"]).seconds[0])


def servable(v: Values, domain: float) -> float:
    """Parameters that one domain serves in time, and holds: the model's, with more or fewer layers."""
    spec = spec_of({**v, "accelerators": domain, "domain": domain})
    room = (v["hbm_capacity"] - serve_work(v).reserve_bytes) * spec.accelerators
    held = room / width_of(str(v["precision"]))
    return float(min(held, float(parameters(model_of(v))) * v["tpot"] / one_domain_s(v, domain)))


def sheet_servable(v: Values, domain: float) -> float:
    """Parameters whose weights are read in time and fit, by the two terms."""
    width = width_of(str(v["precision"]))
    return float(min(v["tpot"] * v["hbm_bandwidth"], v["hbm_capacity"]) * domain / width)


def servables(v: Values) -> list[dict[str, Any]]:
    """List the largest model in time by domain, in parameters."""
    return [
        {"domain": domain, "two_terms": sheet_servable(v, domain), "whole_model": servable(v, domain)}
        for domain in (8.0, 72.0, 576.0)
    ]


# --- training -------------------------------------------------------------------------------------------------------


def trained(v: Values, recompute: float = 0.0, microbatches: float = 64.0) -> Priced:
    """Price a training step: 1F1B, `microbatches` of one sequence for each replica."""
    cluster = build(system(str(v["system"])))
    dp = cluster.usable // int(v["stages"])
    work = TrainWorkload(global_batch=int(dp * microbatches), precision=str(v["precision"]))
    return step_at(
        model_of(v), cluster.spec, work, used=cluster.domain, tp=1, sp=1, cp=1, ep=v["ep"], etp=1, micro_batch=1,
        pp=v["stages"], dp=dp, vpp=1, zero=1, order=0, recompute=recompute, ep_overlap=0,
    )  # fmt: skip


def waiting_share(v: Values) -> float:
    """Share of the step that the stages wait while the pipe fills and drains."""
    step = trained(v, microbatches=v["microbatches"])
    return float((step.terms["bubble"] / step.seconds)[0])


_SMALLER: Final = Input(
    "smaller", lambda v: 8.0 if v["domain"] == 72.0 else max(1.0, v["domain"] // 8), "count",
    "the domain of the step before", doubled=True,
)  # fmt: skip
_CROWD: Final = Input("batch", 512, "count", "sequences of the domain: enough to visit every expert")
_LARGER: Final = Input("domain", 72, "count", "accelerators of a scale-up domain", doubled=True)
_PIPE: Final = named(SERVED, STAGES, BATCH)

CLAIMS: Final = (
    Claim(
        "scale-out-slower", 5,
        "Scale-out is about eight times slower than scale-up.",
        f"{L}, Mixture of Experts Wants to Live Inside a Rack",
        "scale-up over scale-out bandwidth", "times", 8.0, "about", 1.25,
        named("accelerator", Input("size_bytes", 2.0**28, "bytes", "of the all-to-all, for each rank")),
        sheet_ratio,
        reached_ratio,
        over=("accelerator", WIRED),
        note="Simple divides data sheets, with the network card that its maker pairs with the part; full times an "
        "all-to-all of eight ranks inside a domain and across eight.",
    ),
    Claim(
        "expert-rack", 5,
        "An expert layer wants to live inside a rack: across racks its exchange is eight times slower.",
        f"{L}, Mixture of Experts Wants to Live Inside a Rack",
        "exchange over ranks in domains of 8, over that in one domain", "times", 8.0, "about", 1.5,
        named(
            SENT, BATCH,
            Input("ranks", 64, "count", "ranks of the exchange", doubled=True),
            Input("phase", "decode", says="decode (low-latency kernels) or prefill"),
            Input("domain", 72, "count", "accelerators of the domain that holds all ranks", doubled=True),
            Input("smaller", 8, "count", "accelerators of the smaller domains", doubled=True),
        ),
        lambda v: rooflines.crossing_slowdown(v["ranks"], v["smaller"],
            sheet_ratio({k: x for k, x in v.items() if k != "domain"})),
        lambda v: exchange_of(v, int(v["smaller"])) / exchange_of(v, int(v["domain"])),
        over=("accelerator", NVIDIA),
        note="Kernels that send one copy per domain over the network and starts that do not grow with the rows soften "
        "it; a link ratio above eight sharpens it.",
    ),
    Claim(
        "rack-pipeline", 5,
        "In a pipeline of racks scale-up stays the slower term: experts x 2 x layers per stage / ratio is 1 or more.",
        f"{L}, background to Mixture of Experts Wants to Live Inside a Rack",
        "exchange of a stage over its hop", "times", 1.0, "at least", 1.0,
        named(SENT, STAGES, BATCH, Input("layers_per_stage", 1, "count", "layers on each rack")),
        lambda v: rooflines.rack_condition(moe_of(model_of(v)).topk, v["layers_per_stage"], sheet_ratio(v)),
        rack_balance,
        over=("accelerator", NVIDIA),
        note="Simple sends a row per expert; kernels that send one per rank, and FP8 rows out with BF16 rows back, "
        "send less.",
    ),
    Claim(
        "domain-bandwidth", 6,
        "Domains of 8, 72, 500+ raise the bandwidth that a token sees about eight times a step.",
        f"{L}, Mixture of Experts Wants to Live Inside a Rack",
        "speed of a token on one domain over that on the one before", "times", 8.0, "about", 1.25,
        named(SERVED, _LARGER, _SMALLER, _CROWD),
        lambda v: v["domain"] / v["smaller"],
        lambda v: one_domain_s(v, v["smaller"]) / one_domain_s(v, v["domain"]),
        over=("domain", (72.0, 576.0)),
        note="The bandwidth is there; starts, attention and the exchange do not shrink with it, so a token gets less.",
    ),
    Claim(
        "servable-size", 6,
        "Each step of the domain makes models eight times as large servable in the same time.",
        f"{L}, Mixture of Experts Wants to Live Inside a Rack",
        "largest model in time on one domain over that on the one before", "times", 8.0, "about", 1.25,
        named(f"{SERVED} hbm_capacity tpot", _LARGER, _SMALLER, _CROWD, tpot=0.02),
        lambda v: sheet_servable(v, v["domain"]) / sheet_servable(v, v["smaller"]),
        lambda v: servable(v, v["domain"]) / servable(v, v["smaller"]),
        over=("domain", (72.0, 576.0)),
        note="Full deepens the model until it no longer fits in the time or in the memory, whichever is first.",
    ),
    Claim(
        "pipeline-time", 7,
        "Pipelining in inference saves no time.",
        f"{L}, Pipeline Parallelism",
        "time per token over racks in a pipeline over that of one rack", "times", 1.0, "about", 1.1,
        _PIPE,
        lambda _: 1.0,
        piped_ratio,
        over=("accelerator", ("gb200", "rubin-vr200")),
        note="All micro-batches of the round are in flight: the stages' times add up to the whole, and the hops come "
        "on top.",
    ),
    Claim(
        "pipeline-cache", 7,
        "Pipelining saves no cache capacity: more sequences have to be in flight.",
        f"{L}, Pipeline Parallelism",
        "cache per accelerator over that of one rack", "times", 1.0, "about", 1.1,
        named(SENT, STAGES),
        lambda _: 1.0,
        lambda v: piped_ratio({**v, "batch": MANY}, "kv cache"),
        over=("accelerator", ("gb200", "rubin-vr200")),
    ),
    Claim(
        "pipeline-weights", 7,
        "Pipelining over racks divides the weights by their number.",
        f"{L}, Pipeline Parallelism",
        "weights per accelerator over those of one rack", "times", 0.25, "about", 1.25,
        named(SENT, STAGES),
        lambda v: 1.0 / v["stages"],
        lambda v: piped_ratio({**v, "batch": MANY}, "weights"),
        over=("accelerator", ("gb200", "rubin-vr200")),
    ),
    Claim(
        "hop-latency", 7,
        "A hop between racks takes milliseconds.",
        f"{L}, Pipeline Parallelism",
        "time of one hop", "s", 1e-3, "at least", 1.0,
        named(SENT, STAGES, BATCH),
        lambda v: 2.0 * v["batch"] * model_of(v).hidden / spec_of({**v,
            "accelerators": 2 * part_of(v).domain}).scale_out.bandwidth_Bps,
        hop_s,
        over=("accelerator", NVIDIA),
        note="Every accelerator sends its own rows through its own card. Milliseconds need a hundred times the rows, "
        "or distance.",
    ),
    Claim(
        "pipeline-bubble", 7,
        "In training micro-batches keep the bubble of a pipeline small.",
        f"{L}, Pipeline Parallelism",
        "share of the step that is bubble", "share", 0.1, "at most", 1.0,
        TRAINED,
        lambda v: rooflines.bubble_share(v["stages"], v["microbatches"]),
        waiting_share,
        over=("microbatches", (8.0, 32.0, 64.0, 256.0)),
    ),
    Claim(
        "residual-boundary", 7,
        "Residuals across layers fight the boundaries of stages.",
        f"{L}, Pipeline Parallelism (Kimi)",
        "time that the carried residuals add to a pass", "share", 0.1, "at least", 1.0,
        (*_PIPE, Input("blocks", 8, "count", "earlier blocks whose outputs cross each boundary")),
        lambda v: v["blocks"] * v["stages"] * 2.0 * v["batch"] * model_of(v).hidden
        / spec_of({**v,
            "accelerators": 2 * part_of(v).domain}).scale_out.bandwidth_Bps / (v["stages"] * _stage_read_s(v)),
        lambda v: v["stages"] * (hop_s(v, 1.0 + v["blocks"]) - hop_s(v)) / float(piped(v, v["stages"]).seconds[0]),
        over=("accelerator", NVIDIA),
        note="In training every micro-batch pays it, both ways, and keeps the rows; here it is one decode pass.",
    ),
)  # fmt: skip


def _stage_read_s(v: Values) -> float:
    """Two-term time of one stage: its layers' weights, read by a rack."""
    bytes_each = parameters(model_of(v)) * width_of(str(v["precision"])) / layer_count(model_of(v))
    layers = layer_count(model_of(v)) / v["stages"]
    return rooflines.weights_s(bytes_each * layers, 1.0, v["hbm_bandwidth"] * part_of(v).domain)
