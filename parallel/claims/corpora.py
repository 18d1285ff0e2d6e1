"""How long to train, how much to serve, how fast it grows (parts 9 and 19 of the blackboard)."""

from typing import Any, Final

from clusters.build import build
from parallel import rooflines
from parallel.claims.claim import Claim, Input, Values
from parallel.claims.inputs import RACK, named
from parallel.claims.machines import active, best, model_of, peak_of, serve_work, spec_of, system, trained_best
from parallel.claims.passes import L
from parallel.claims.scaling import LAWS, cheapest_life, law
from parallel.claims.stores import rack_multiple, sheet_multiple
from parallel.workload import TrainWorkload

N: Final = "Satya Nadella on Microsoft's AGI plan"
X: Final = "Jensen Huang with Lex Fridman"


def efficiency(v: Values) -> float:
    """FLOP rate of decoding over that of training, both from their best split: what the lecture takes as 30 %."""
    model = model_of(v)
    decode = best("decode", model, spec_of(v), serve_work(v)).rate * 2.0 * active(v)
    work = TrainWorkload(precision=str(v["precision"]), global_batch=int(v["global_batch"]))
    train = best("train", model, spec_of({**v, "accelerators": v["training"]}), work)
    return float(decode / (float(train.priced.extra["mfu"][0]) * v["peak_flops"]))


def life(v: Values) -> tuple[float, float]:
    """Parameters and training tokens of the cheapest life, at the loss that the lecture's own model would have."""
    fit = law(str(v["law"]))
    loss = float(fit.of(v["active_parameters"], v["training_tokens"]))
    return cheapest_life(fit, loss, v["inference_tokens"], efficiency(v) / v["hour_ratio"], 6.0 * (1.0 + v["rl_share"]))


def lives(v: Values) -> list[dict[str, Any]]:
    """List the cheapest life under other traffic, at the same loss, by each fit."""
    rows = []
    for name in LAWS:
        for factor in (0.1, 1.0, 10.0):
            one = {**v, "law": name, "inference_tokens": factor * v["inference_tokens"]}
            size, tokens = life(one)
            rows.append(
                {
                    "law": name,
                    "inference_tokens": one["inference_tokens"],
                    "parameters": size,
                    "training_tokens": tokens,
                    "past_chinchilla": rooflines.past_chinchilla(tokens, size),
                }
            )
    return rows


def equal_cost(v: Values) -> float:
    """Training tokens at equal costs, with the lecture's efficiency of decoding."""
    return rooflines.equal_cost_tokens(v["inference_tokens"], v["decode_efficiency"] / v["hour_ratio"])


def growth(v: Values) -> float:
    """Growth of training tokens per second from one system to another, at the pace between their dates."""
    rates = []
    for name, precision in ((v["earlier"], v["precision"]), (v["later"], v["precision"])):
        spec = system(str(name))
        rates.append(trained_best({**v, "precision": precision}, spec, v["sequences"])[1].rate * spec.accelerators)
    return rooflines.growth_per(rates[1] / rates[0], v["months"], v["over_months"])


def sheet_growth(v: Values) -> float:
    """Growth of dense peaks between the same two."""
    flops = [
        c.accelerators * peak_of(c.accelerator, str(v["precision"]))
        for c in map(build, (system(str(v["earlier"])), system(str(v["later"]))))
    ]
    return rooflines.growth_per(flops[1] / flops[0], v["months"], v["over_months"])


_RATES: Final = named(
    f"{RACK} tpot",
    Input("decode_efficiency", 0.3, "", "decoding over training, in the simple answer"),
    Input("training", 576, "count", "accelerators of the training cluster", doubled=True),
    Input("global_batch", 4608, "count", "sequences of its step", doubled=True),
)  # fmt: skip
_LIFE: Final = (
    *_RATES,
    Input("active_parameters", 100e9, "count", "of the lecture's model"),
    Input("training_tokens", 150e12, "", "of the lecture's model"),
    Input("inference_tokens", 150e12, "", "over the life of the model"),
    Input("hour_ratio", 1.0, "", "price of an accelerator's hour for inference over that for training"),
    Input("rl_share", 1.0, "", "reinforcement learning over pre-training, in cost"),
    Input("law", "besiroglu-2024", says=f"one of {', '.join(LAWS)}"),
)  # fmt: skip

CLAIMS: Final = (
    Claim(
        "overtraining", 9,
        "Equal spending on pre-training, reinforcement learning and inference trains a model a hundred times past "
        "Chinchilla.",
        f"{L}, Reinforcement Learning and the 100x …",
        "training tokens over twenty per parameter", "times", 100.0, "about", 1.35,
        _LIFE,
        lambda v: rooflines.past_chinchilla(equal_cost(v), v["active_parameters"]),
        lambda v: rooflines.past_chinchilla(life(v)[1], life(v)[0]),
        over=("law", tuple(LAWS)),
        note="100 B active and 150 T tokens are 75 times. Full minimises the cost of the whole life at the loss of "
        "that model, with the efficiencies of priced steps: equal shares are a rule of thumb, and the optimum "
        "depends on the fit.",
    ),
    Claim(
        "lifetime-output", 9,
        "A model puts out over its life about as many tokens as it was trained on.",
        f"{L}, Each Model Should Output …",
        "training tokens of the optimum over lifetime output", "times", 1.0, "about", 1.5,
        _LIFE,
        lambda v: equal_cost(v) / v["inference_tokens"],
        lambda v: life(v)[1] / v["inference_tokens"],
        over=("inference_tokens", (15e12, 150e12, 1500e12)),
        note="Equal costs make the two proportional; at a given loss the optimum moves far less than the traffic does.",
    ),
    Claim(
        "decode-penalty", 9,
        "Decoding, for users or for reinforcement learning, runs at 30 % of the efficiency of training.",
        f"{L}, Reinforcement Learning and the 100x …",
        "FLOP rate of decoding over that of training", "times", 0.3, "about", 1.5,
        _RATES,
        lambda v: v["decode_efficiency"],
        efficiency,
        over=("accelerator", ("h100-sxm", "gb200", "rubin-vr200")),
        note="The source gives 30 % without a derivation; the simple answer repeats it.",
    ),
    Claim(
        "training-growth", 19,
        "Training capacity grows tenfold every 18 to 24 months.",
        f"{N}, Fairwater",
        "growth of the largest cluster over 21 months", "times", 10.0, "about", 1.5,
        named(
            "model precision",
            Input("earlier", "xai-colossus", says="a system: 100,000 H100, September 2024"),
            Input("later", "fairwater-2-4", says="a system: two sites of GB200, November 2025"),
            Input("months", 14.0, "", "between them"), Input("over_months", 21.0, "", "that the claim is about"),
            Input("sequences", 1.0, "", "of a step, for each accelerator", doubled=True),
        ),
        sheet_growth,
        growth,
        over=("later", ("fairwater-2", "fairwater-2-4")),
        note="Clusters of different companies, at the dates of their announcements.",
    ),
    Claim(
        "one-domain", 19,
        "A mixture of 100 T parameters runs on one NVLink72 rack as if on one GPU.",
        f"{X}, four kinds of scaling",
        "memory of the domain over the weights", "times", 1.0, "at least", 1.0,
        (
            Input("system", "gb200-nvl72", says="a name of `podscale list systems`"),
            Input("model", "kimi-k2", says="its shape, with other experts"),
            Input("precision", "nvfp4", says="bf16, fp8 or nvfp4"), Input("parameters", 100e12, "", "of the model"),
        ),
        sheet_multiple,
        rack_multiple,
        over=("system", ("gb200-nvl72", "gb300-nvl72", "vr-nvl72", "vr-nvl576")),
        note="At four bits and their scales the weights are 56 TB; one rack has 13 to 21.",
    ),
)  # fmt: skip
