"""Models that mix full attention with recurrent layers (gated delta rule): serving prices them, training does not.

They ship in `data/hybrids` as `config.json` files. Every `full_attention_interval`-th layer attends to all positions, the
others keep a state (Qwen3-Next, Qwen3.5: transformers, configuration_qwen3_next.py).
"""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from clusters.catalogue import key_of
from parallel.configs import model_from_config
from parallel.io import read_json, read_model
from parallel.models import Attention, Model

DATA: Final = Path(__file__).parent / "data" / "hybrids"
STATE: Final = ("full_attention_interval", "linear_num_value_heads", "linear_num_key_heads", "linear_value_head_dim")


def hybrid_names() -> tuple[str, ...]:
    """Return the hybrids that ship.

    >>> hybrid_names()
    ('qwen3.5-397b-a17b',)
    """
    return tuple(sorted(path.stem for path in DATA.glob("*.json")))


@cache
def hybrid(name: str) -> Model:
    """Return a hybrid by name: its layers alternate, recurrent ones first.

    >>> [(kind.name, kind.count) for kind in hybrid("qwen3.5-397b-a17b").layers]
    [('moe-delta', 45), ('moe-full', 15)]
    """
    path = DATA / f"{name}.json"
    config = read_json(path)
    every, values, keys, width = (int(config.pop(key)) for key in STATE)
    plain = model_from_config({**config, "model_type": "qwen3_moe"}, name, str(path))
    kind = plain.layers[0]
    delta = Attention("delta", heads=values, kv_heads=keys, head_dim=width)
    full = kind.count // every
    layers = (
        replace(kind, name=f"{kind.name}-delta", attention=delta, count=kind.count - full),
        replace(kind, name=f"{kind.name}-full", count=full),
    )
    return replace(plain, layers=layers, pattern=(*[0] * (every - 1), 1))


def served_model(name: str) -> Model:
    """Return a model that serving prices, by its own or a repository's name.

    Raises
    ------
    SpecError
        There is no such model.

    >>> served_model("Qwen/Qwen3.5-397B-A17B").name, served_model("nvidia/DeepSeek-R1-NVFP4").name
    ('qwen3.5-397b-a17b', 'deepseek-v3')
    """
    short = key_of(name.rsplit("/", 1)[-1])
    found = next((known for known in hybrid_names() if short.startswith(known)), None)
    return hybrid(found) if found else read_model(name)
