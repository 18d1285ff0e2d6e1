"""The `models` table of a training-case file as `Model` records. Opens no file."""

import re
from collections.abc import Mapping
from typing import Any

from parallel.layerkinds import Row, layer_kinds
from parallel.shapes import Attention, Mlp, Model, Moe
from topo.errors import SpecError

ASSUMED_VOCABULARIES = {"zb_": 32_000}
"""Start of a model's name -> tokens, where the file says that it assumed a vocabulary. Zero Bubble's script reads a
SentencePiece model (sail-sg/zero-bubble-pipeline-parallelism, examples/pretrain_zero_bubble.sh), LLaMA's at the time."""


BIASED_EXPERTS = ("gpt_oss",)
"""Starts of the names of models whose experts have biases and clamped gates, which the file does not say (openai/gpt-oss)."""


class Inexpressible(Exception):  # noqa: N818 - a reason to skip a case, not a mistake
    """A model shape that the records cannot hold, or that its authors did not publish; says which."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


_CASE_SIZES = ("layers", "hidden", "heads", "kv_heads", "head_dim", "vocab")
_MOE_SIZES = ("experts", "topk", "expert_ffn")
_MLA_KEYS = {
    "q_lora_rank": "q_lora",
    "kv_lora_rank": "kv_lora",
    "qk_nope_head_dim": "qk_nope",
    "qk_rope_head_dim": "qk_rope",
    "v_head_dim": "v_head",
}


def _known(case: Mapping[str, Any], *names: str) -> None:
    missing = [name for name in names if isinstance(case.get(name), bool) or not isinstance(case.get(name), int)]
    if missing:
        raise Inexpressible(f"not published: {', '.join(missing)}")


def _case_attention(case: Mapping[str, Any], biased: bool) -> Attention:
    mla = case.get("mla")
    if not mla:
        sizes = {name: case[name] for name in ("heads", "kv_heads", "head_dim")}
        return Attention("gqa", **sizes, bias=biased, output_bias=biased)
    _known(mla, *_MLA_KEYS.values())
    latent = {ours: mla[theirs] for ours, theirs in _MLA_KEYS.items()}
    return Attention("mla", case["heads"], case["heads"], mla["v_head"], **latent)


def _case_moe(moe: Mapping[str, Any], gated: bool, biased: bool) -> Moe:
    _known(moe, *_MOE_SIZES)
    shared = (moe.get("shared_experts") or 0) * (moe.get("shared_expert_ffn") or moe["expert_ffn"])
    return Moe(moe["experts"], moe["topk"], moe["expert_ffn"], shared, gated, bias=biased)


def _case_rows(case: Mapping[str, Any]) -> list[Row]:
    """Return what tells the layers apart; a window stands in the case's note only."""
    moe, note = case.get("moe") or {}, case.get("note") or ""
    found = re.search(r"sliding-window\((\d+)\)/full", note)
    window, first, every = int(found[1]) if found else 0, moe.get("dense_layers") or 0, moe.get("moe_layer_every") or 1
    return [
        Row(bool(moe) and index >= first and (index + 1) % every == 0, 0 if index % 2 else window)
        for index in range(case["layers"])
    ]


def _vocabulary(case: Mapping[str, Any], name: str) -> int:
    """Tokens of the vocabulary; where the file assumed them and the source's scripts tell, theirs."""
    told = [tokens for start, tokens in ASSUMED_VOCABULARIES.items() if name.startswith(start)]
    return told[0] if told and "vocab assumed" in (case.get("note") or "") else int(case["vocab"])


def model_from_case(case: Mapping[str, Any], name: str) -> Model:
    """Turn an entry of the training cases' `models` table into a `Model`.

    Models with learned or ALiBi positions are of the GPT-3 and BLOOM line: every matrix has a bias. An MLP without a
    gate goes with LayerNorm, a gated one with RMSNorm. Position tables are not counted (the length is the case's),
    and attention in chunks no shorter than the sequence is full attention.

    Raises
    ------
    Inexpressible
        If the architecture is neither dense nor mixture-of-experts, or a size is missing or contradicts another.

    Examples
    --------
    >>> model_from_case({"arch": "hybrid-mamba"}, "nemotron-h")
    Traceback (most recent call last):
    ...
    parallel.validation.model_cases.Inexpressible: architecture hybrid-mamba
    """
    if case.get("arch") not in ("dense", "moe"):
        raise Inexpressible(f"architecture {case.get('arch')}")
    _known(case, *_CASE_SIZES)
    biased, gated = case.get("pos") in ("learned", "alibi"), case.get("gated_mlp") is not False
    try:
        moe = _case_moe(case["moe"], gated, name.startswith(BIASED_EXPERTS)) if case.get("moe") else None
        rows = _case_rows(case)
        if not all(row.routed for row in rows):
            _known(case, "ffn")
        mlp = Mlp(case["ffn"], gated, biased) if case.get("ffn") else None
        kinds, pattern = layer_kinds(rows, _case_attention(case, biased), mlp, moe)
        return Model(
            name,
            case["hidden"],
            _vocabulary(case, name),
            kinds,
            tied_embeddings=bool(case.get("tied_embeddings")),
            mtp_layers=case.get("mtp_layers") or 0,
            norm="rmsnorm" if gated else "layernorm",
            embedding_norm="embedding layernorm" in (case.get("note") or ""),
            pattern=pattern,
        )
    except SpecError as error:
        raise Inexpressible(str(error)) from None
