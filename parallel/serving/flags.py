"""Launch flags: a deployment in the words of vLLM, SGLang and TensorRT-LLM.

`data/flags.yaml` holds the rules, a setting to a row, each engine's flag in a column, and names the sources and the release
that they were read in. What an engine cannot be told is a fault of the deployment, not a flag left out.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from math import ceil
from typing import Any, Final

from clusters.catalogue import Accelerator
from parallel.hotexperts import UNTOLD, HotExperts, stays
from parallel.io import read_yaml
from parallel.models import Model, Moe, compressed, indexed
from parallel.serving.engines import DATA, Settings, engine, engine_names, kv_bytes, launched
from parallel.serving.passes import Split
from parallel.speculation import Drafts
from topo.errors import Fault, SpecError

NAME: Final = re.compile(r"\$(\w+)")
OPTIONS_FILE: Final = "options.yaml"
Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is to be launched: one replica, or one worker of a pool.

    Attributes
    ----------
    model : repository or folder that the engine loads
    split : of one replica
    settings : sequences and tokens of each attention group, share of the memory, looks at the queue
    kv_bytes : bytes of a cached value
    context : tokens of the longest request
    role : "" for both phases, prefill or decode for a pool
    drafts, drafter : tokens that are drafted for each step, and what drafts: a key of `parallel.speculation.METHODS`
    per_host : accelerators of a host
    batch : sequences that an attention group is meant to decode at once, for the captured graphs; 0 where unknown
    experts, copies : routed experts, and those that a balancer holds twice or more often; None where nothing is said of one
    indexed : whether an indexer chooses the positions that a token attends to
    compressed : whether tokens attend to entries of several positions
    """

    model: str
    split: Split
    settings: Settings
    kv_bytes: float
    context: int
    role: str = ""
    drafts: int = 0
    drafter: str = "mtp"
    per_host: int = 8
    batch: float = 0.0
    experts: int = 0
    copies: int | None = None
    indexed: bool = False
    compressed: bool = False

    @property
    def balanced(self) -> bool:
        """Whether a balancer moves experts: it was asked for, or they lie in several boxes (`parallel.hotexperts`)."""
        return bool(self.experts) and self.split.ep > 1 and not stays(self.copies, self.split.ep)

    @property
    def ranks(self) -> int:
        """Accelerators of the replica."""
        return int(self.split.ranks)

    @property
    def group(self) -> int:
        """Accelerators of an attention group: its ranks on all stages."""
        return int(self.split.tp * self.split.cp * self.split.pp)

    @property
    def hosts(self) -> int:
        """Hosts of the replica."""
        return -(-self.ranks // self.per_host)


@dataclass(frozen=True, slots=True)
class Launch:
    """How one engine is told: a command line, for TensorRT-LLM also a file of options, and what to mind.

    `rules` names the setting behind every flag and every key of the options.
    """

    engine: str
    release: str
    command: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    rules: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """The command as a shell takes it, a flag to a line."""
        lines = [" ".join(self.command[:1])]
        for word in self.command[1:]:
            if word.startswith("--"):
                lines.append(word)
            else:
                lines[-1] += f" {word}"
        return " \\\n  ".join(lines)


@cache
def rules() -> Mapping[str, Any]:
    """Return the table of rules with engines, their releases and sources.

    >>> [rules()["engines"][name]["release"] for name in ("vllm", "sglang", "trtllm")]
    ['0.11', '0.5', '1.2']
    """
    held: Mapping[str, Any] = read_yaml(DATA / "flags.yaml")
    return held


def launch(deployment: Deployment, name: str) -> Launch:
    r"""Return how an engine is launched for a deployment.

    Raises
    ------
    SpecError
        The engine cannot be told: every part of the deployment that it has no words for, at once.

    >>> split = Split(tp=2, dp=4, etp=1, ep=8)
    >>> one = Deployment("deepseek-ai/DeepSeek-V3", split, Settings(8192, 256, 0.85), 1.0, 9216)
    >>> print(launch(one, "sglang").text)  # doctest: +ELLIPSIS
    python -m sglang.launch_server \
      --model-path deepseek-ai/DeepSeek-V3 \
      --tp-size 8 \
      --dp-size 4 \
      --enable-dp-attention \
      --ep-size 8 \
    ...
    """
    if found := faults(deployment, name):
        raise SpecError(found)
    told = rules()["engines"][name]
    known = values(deployment, name)
    command, used = [_filled(told["command"], known)], []
    options: dict[str, Any] = {}
    for row in rules()["settings"]:
        for rule in _each(row.get(name)):
            for key, template in rule.items() if isinstance(rule, Mapping) else ((None, rule),):
                value = _filled(template, known)
                if value is None:
                    continue
                if key is None:
                    command.append(value)
                    used.append((row["setting"], value))
                else:
                    _set(options, key.split("."), value)
                    used.append((row["setting"], f"{key}: {_word(value)}"))
    if name == "trtllm":
        command.append(f"--extra_llm_api_options {OPTIONS_FILE}")
    words = _spread(tuple(" ".join(command).split()), deployment, name)
    return Launch(name, told["release"], words, options, tuple(_notes(deployment, name)), tuple(used))


def values(deployment: Deployment, name: str) -> dict[str, Value]:
    """Return what the rules may name; None is what a deployment has not, so that no flag says it.

    >>> one = Deployment("m", Split(8, 1, 8, 1), Settings(), 2.0, 2048)
    >>> [values(one, "vllm")[name] for name in ("tp", "groups", "experts_split", "kv")]
    [8, None, None, 'auto']
    """
    split, kept = deployment.split, deployment.settings
    tp, groups, ep, etp, stage = (int(n) for n in (split.tp, split.dp, split.ep, split.etp, split.stage))
    words, hosts = rules()["engines"][name]["words"], deployment.hosts
    grouped, routed = groups > 1 or None, ep > 1 or None
    within, own = deployment.group <= deployment.per_host, deployment.drafter == "mtp" and deployment.drafts > 0
    apart = hosts > 1 and within
    return {
        "model": deployment.model,
        "tp": tp, "ranks": stage, "groups": groups if grouped else None, "grouped": grouped,
        "ep": ep if routed else None, "experts_split": routed,
        "etp": etp if routed and etp > 1 else None,
        "balanced": deployment.balanced or None, "updates": 1 if deployment.balanced else None,
        "copies": deployment.copies or None if deployment.balanced else None,
        "slots": deployment.experts + (deployment.copies or 0) if deployment.balanced else None,
        "exchange": words["exchange"].get(deployment.role) if routed and grouped and ep == stage else None,
        "pp": int(split.pp) if split.pp > 1 else None,
        "dcp": int(split.dcp) if split.dcp > 1 else None,
        "dcp_comm": split.dcp_comm if split.dcp > 1 and split.dcp_comm != "ag_rs" else None,
        "cp": int(split.cp) if split.cp > 1 else None, "shared": split.cp > 1 or None,
        "dealing": words["dealing"]["indexed" if deployment.indexed else "dense"] if split.cp > 1 else None,
        "kv": words["kv"].get(deployment.kv_bytes),
        "sequences": int(kept.sequences), "all_sequences": int(kept.sequences) * groups,
        "tokens": int(kept.tokens), "all_tokens": int(kept.tokens) * groups,
        "chunked": True if kept.tokens < deployment.context else None,
        "mixed": kept.mixed or None,
        "context": deployment.context,
        "memory": kept.memory,
        "poll": kept.poll_steps if kept.poll_steps > 1 else None,
        "wait": kept.wait_steps or None, "wait_share": kept.wait_share or None,
        "captured": ceil(min(deployment.batch, kept.sequences, kept.graphs)) or None,
        "eager": kept.graphs == 0 or None,
        "drafts": deployment.drafts or None,
        "drafter": words["drafter"].get(deployment.drafter) if deployment.drafts else None,
        "own_drafts": deployment.drafts if own else None, "other_drafts": None if own else deployment.drafts or None,
        "draft_model": None if own or not deployment.drafts else "$DRAFT",
        "single": 1 if deployment.drafts else None,
        "drafted": deployment.drafts + 1 if deployment.drafts else None,
        "role": words["role"].get(deployment.role), "pooled": bool(deployment.role) or None,
        "prefills": deployment.role == "prefill" or None,
        "hosts": hosts if hosts > 1 else None,
        "host": "$HOST" if hosts > 1 else None, "head": "$HEAD" if apart else None,
        "head_port": "$HEAD:5000" if hosts > 1 else None,
        "groups_here": groups // hosts if apart and groups > 1 else None,
        "first_group": f"$((HOST * {groups // hosts}))" if apart and groups > 1 else None,
        "ray": True if hosts > 1 and not within else None,
    }  # fmt: skip


def deploy(deployment: Deployment, name: str) -> dict[str, Any]:
    """Return a launch as a document; one that cannot be has its faults instead."""
    try:
        made = launch(deployment, name)
    except SpecError as error:
        return {"engine": name, "faults": [asdict(fault) for fault in error.faults]}
    return {**asdict(made), "text": made.text, "sources": rules()["engines"][name]["sources"]}


def launches(
    model: Model,
    part: Accelerator,
    precision: str,
    split: Split,
    clients: float,
    lengths: tuple[int, int],
    kv: float | None,
    drafts: Drafts | None = None,
    given: Mapping[str, Any] | None = None,
    hot: HotExperts = UNTOLD,
) -> dict[str, Any]:
    """Return how each engine is launched for a split under a load, with what it is usually set to; faults where it cannot.

    `kv` is the width of a cached value, None for what the engine and the checkpoint bring; `given` is set otherwise.
    """
    told = {}
    for name in engine_names():
        settings = launched(engine(name), model, part, precision, split.tp, clients, *lengths, split.dp)
        settings = replace(settings, **(given or {}))
        width = kv or kv_bytes(settings, precision, model)
        one = Deployment(
            repository(model),
            split,
            settings,
            width,
            sum(lengths),
            per_host=max(part.rails, 1),
            batch=clients / split.dp,
            indexed=indexed(model),
            compressed=compressed(model),
            **drafted(drafts),
            **balanced(model, hot),
        )
        told[name] = deploy(one, name)
    return told


def drafted(drafts: Drafts | None) -> dict[str, Any]:
    """Return what a `Deployment` holds of drafts.

    >>> from parallel.speculation import drafts_of
    >>> drafted(None), drafted(drafts_of(2, 0.8))
    ({}, {'drafts': 2, 'drafter': 'mtp'})
    """
    return {"drafts": drafts.tokens, "drafter": drafts.method} if drafts else {}


def balanced(model: Model, hot: HotExperts) -> dict[str, Any]:
    """Return what a `Deployment` holds of experts.

    >>> from parallel.io import read_model
    >>> balanced(read_model("deepseek-v3"), HotExperts(copies=32))
    {'experts': 256, 'copies': 32}
    """
    experts = max((kind.mlp.experts for kind in model.layers if isinstance(kind.mlp, Moe)), default=0)
    return {"experts": experts, "copies": hot.copies}


def repository(model: Model) -> str:
    """Return the repository that a shipped shape was read in, or the model's own name.

    >>> from parallel.io import read_model
    >>> repository(read_model("deepseek-v3"))
    'deepseek-ai/DeepSeek-V3'
    """
    held = read_yaml(DATA / "models" / "sources.yaml").get(model.name, {})
    found = re.match(r"https://huggingface\.co/([^/]+/[^/]+)/", held.get("config", ""))
    return found[1] if found else model.name


def faults(deployment: Deployment, name: str) -> list[Fault]:
    """Return what an engine has no words for, all of it.

    >>> one = Deployment("m", Split(8, 1, 2, 4), Settings(), 2.0, 2048)
    >>> [fault.field for fault in faults(one, "vllm")], faults(one, "sglang")
    (['strategy.ep'], [])
    """
    return list(_cannot(deployment, name))


def _cannot(deployment: Deployment, name: str) -> Iterator[Fault]:
    """Yield what an engine has no words for."""
    if name not in rules()["engines"]:
        yield Fault("engine", name, "has no launch flags here", f"choose one of {', '.join(rules()['engines'])}")
        return
    told, split = rules()["engines"][name], deployment.split
    title, words = told["title"], told["words"]
    if deployment.kv_bytes not in words["kv"]:
        known = ", ".join(f"{size:g}" for size in words["kv"])
        problem = f"{title} has no cache of so many bytes a value"
        yield Fault("workload.kv_bytes", deployment.kv_bytes, problem, f"choose one of {known}")
    if deployment.compressed and name == "sglang" and deployment.role and split.pp > 1:
        problem = f"{title} sends entries of several positions from pools of one stage alone (deepseek_v4_hook.py)"
        yield Fault("strategy.pp", int(split.pp), problem, "write pp: 1")
    if name == "vllm" and 1 < split.ep < split.stage:
        problem = f"{title} splits experts over all {split.stage:.0f} ranks of a stage or over none"
        yield Fault("strategy.ep", int(split.ep), problem, f"write ep: {split.stage:.0f} or 1")
    if name == "trtllm" and split.dp > 1 and split.tp > 1:
        problem = f"{title} gives every rank of a replica an attention group of its own, or all of them one"
        yield Fault("strategy.tp", int(split.tp), problem, "write tp: 1, or split the experts over tp ranks at most")
    if split.dcp > 1 and not told["dcp"]:
        problem = f"{title} {told['release']} deals no cache to its tensor ranks"
        yield Fault("strategy.dcp", int(split.dcp), problem, "write dcp: 1, or take vllm")
    if split.cp > 1:
        yield from _cannot_share(deployment, name)
    if deployment.drafts and deployment.drafter not in words["drafter"]:
        known = ", ".join(words["drafter"])
        problem = f"{title} has no words for it here"
        yield Fault("drafts.method", deployment.drafter, problem, f"write one of {known}")
    if name == "vllm" and deployment.hosts > 1 and split.dp > 1 and deployment.group > deployment.per_host:
        problem = f"{title} keeps each attention group on a host of {deployment.per_host}"
        yield Fault("strategy.tp", int(split.tp), problem, f"write tp: {deployment.per_host} or less")


def _cannot_share(deployment: Deployment, name: str) -> Iterator[Fault]:
    """Yield why an engine cannot deal prompts over ranks like that."""
    told, split = rules()["engines"][name], deployment.split
    cp, title = int(split.cp), told["title"]
    if not told["cp"]:
        problem = (
            f"{title} {told['release']} shares no prompt out: its context parallelism (Helix) is of decoding workers"
        )
        yield Fault("strategy.cp", cp, problem, "write cp: 1, or take vllm or sglang")
    if name == "vllm" and split.dp > 1:
        problem = (
            f"{title} shares prompts of one attention group alone (vllm/config/parallel.py; pull request 57075 is open)"
        )
        yield Fault("strategy.cp", cp, problem, f"write cp: {split.groups:.0f} or 1, so that ep is tp·cp")
    if deployment.role == "decode":
        yield Fault("strategy.cp", cp, "is of prompts, and this pool has none", "write cp: 1")


def _notes(deployment: Deployment, name: str) -> Iterator[str]:
    """Yield what the command does not say."""
    told = rules()["engines"][name]
    yield f"flags as {told['title']} {told['release']} takes them"
    if deployment.compressed:
        yield f"compressed attention: {told['compressed']}"
    if deployment.split.cp > 1:
        yield f"the flags of a shared prompt are those of {told['cp']}"
    if deployment.hosts > 1 and name != "trtllm":
        hosts = f"run on each of {deployment.hosts} hosts with HOST=0 to {deployment.hosts - 1} and HEAD the first one's address"
        yield hosts + ("; on all but the first add --headless" if name == "vllm" and deployment.split.dp > 1 else "")
    if deployment.drafts and deployment.drafter != "mtp":
        yield "DRAFT is the repository of what drafts"
    if deployment.settings.graphs == 0 and name == "trtllm":
        yield "cuda_graph_config: null in the YAML file runs it without CUDA graphs"
    if deployment.role:
        yield f"in front of both pools: {told['router']}"


def _spread(words: tuple[str, ...], deployment: Deployment, name: str) -> tuple[str, ...]:
    """Start a replica of several hosts as TensorRT-LLM does: a task for each accelerator, all of one launcher."""
    if name != "trtllm" or deployment.hosts == 1:
        return words
    tasks = f"-N {deployment.hosts} --ntasks {deployment.ranks} --ntasks-per-node {deployment.per_host}"
    return (*f"srun {tasks} --mpi=pmix trtllm-llmapi-launch".split(), *words)


def _each(rule: Any) -> list[Any]:
    return [] if rule is None else rule if isinstance(rule, list) else [rule]


def _filled(template: str | bool, known: Mapping[str, Value]) -> Any:
    """Fill a template in; None where a value that it names is none. A value that is only on leaves nothing behind it.

    >>> _filled("--ep-size $ep", {"ep": 8}), _filled("--ep-size $ep", {"ep": None}), _filled("--on $a", {"a": True})
    ('--ep-size 8', None, '--on')
    >>> _filled("$a", {"a": True})
    True
    """
    if isinstance(template, bool):
        return template
    names = NAME.findall(template)
    if any(known[name] is None for name in names):
        return None
    if len(names) == 1 and template == f"${names[0]}":
        return known[names[0]]
    return NAME.sub(lambda found: "" if known[found[1]] is True else _word(known[found[1]]), template).strip()


def _word(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _set(options: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        options = options.setdefault(key, {})
    options[path[-1]] = value
