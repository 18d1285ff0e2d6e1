"""Attention over positions that an indexer chooses (DeepSeek Sparse Attention): what it reads and computes while serving.

A token is scored against all earlier positions, by small queries in FP8 that every rank works on whole, and attends to the
``k`` highest: of ``n`` cached positions it reads n index keys and min(n, k) latents. Sequences of a pass count as equally
long. Source: DeepSeek-V3.2 2512.02556 §2.1; kernels as in vllm-project/vllm (vllm/model_executor/models/deepseek_v2.py, class
Indexer; vllm/v1/attention/backends/mla/flashmla_sparse.py).
"""

from dataclasses import dataclass

import numpy as np

from parallel.models import Attention, chosen_positions, index_key_bytes, index_score_flops, latent_bytes
from parallel.operators import (
    ACTIVATION_BYTES,
    PROJECTIONS,
    SCORE_BYTES,
    Operator,
    core_bytes,
    index_projections,
    index_scores,
    qk_width,
    sparse_heads,
    v_width,
)
from topo.columns import Column, ColumnLike, column

DEALT_HEADS, ENVELOPE = 32.0, 64.0
"""Query heads of a rank from which on vLLM deals no cache under an indexer, and most of all ranks together."""
PICK_BYTES = 8.0
"""Of a candidate that ranks exchange: an FP32 score and an int32 position."""


def chosen_flops(att: Attention, tp: ColumnLike, generation: str) -> Column:
    """FLOPs per (token, chosen position), heads meeting the latent itself: ``2·heads·(2·r_kv + rope)``.

    >>> from parallel.io import read_model  # 128 heads · (1024 + 64)
    >>> float(chosen_flops(read_model("deepseek-v3.2").layers[0].attention, 1, "hopper"))
    278528.0
    """
    return column(2.0 * sparse_heads(att, tp, generation) * (2.0 * att.kv_lora_rank + att.qk_rope_head_dim))


def plain_flops(att: Attention, tp: ColumnLike) -> Column:
    """FLOPs per (token, position) of attention that is not absorbed: ``2·heads/tp·(d_qk + d_v)``."""
    return column(2.0 * att.heads / column(tp) * (qk_width(att) + v_width(att)))


def chosen_prompt(
    att: Attention, h: float, t: ColumnLike, first: float, last: float, tp: ColumnLike, generation: str
) -> list[Operator]:
    """Attention of prompt tokens at positions `first` to `last`, to those that an indexer chooses.

    Up to its top-k nothing is left out, and engines attend unabsorbed (sgl-project/sglang, python/sglang/srt/environ.py,
    SGLANG_DSA_PREFILL_DENSE_ATTN_KV_LEN_THRESHOLD); beyond, heads meet the chosen latents, which neighbouring tokens share.

    >>> from parallel.io import read_model
    >>> att = read_model("deepseek-v3.2").layers[0].attention
    >>> spans = (0, 2048), (4096, 8192)  # 1024 positions on average, unabsorbed; then 2048, absorbed
    >>> [float(chosen_prompt(att, 7168, 1, first, last, 1, "")[-1].flops) for first, last in spans]
    [83886080.0, 570425344.0]
    """
    t, topk = column(t), att.indexer.topk if att.indexer else np.inf
    each = np.where(column(last) <= topk, plain_flops(att, tp), chosen_flops(att, tp, generation))
    core = Operator(
        *("attention core", "attention", "attention core"),
        k=last,
        flops=t * chosen_positions(first, last, topk) * each,
        bytes=core_bytes(att, t, column(tp)),
        weights=False,
    )
    return [*PROJECTIONS[att.kind](att, h, t, tp), *index_scores(att, t, (first + last) / 2.0, last), core]


def index_linear(att: Attention, h: float, t: ColumnLike) -> list[Operator]:
    """Kernels of an indexer for `t` tokens, cache reads left out; nothing where a layer scores no positions.

    Projections, the key's norm and rotation, the cache write, the scores, the choice, and its places in the paged cache.

    >>> from parallel.io import read_model
    >>> len(index_linear(read_model("deepseek-v3.2").layers[0].attention, 7168, 1))
    9
    """
    if not (att.indexer and att.indexer.scores):
        return []
    wide = 2.0 * ACTIVATION_BYTES * column(t) * att.indexer.head_dim
    around = (("index key norm", wide), ("index key rope", wide), ("index cache write", 0.75 * wide))
    bare = ("index scores", "index top-k", "index places")
    return [
        *index_projections(att, h, t),
        *(Operator(name, "vector", "vector", bytes=size) for name, size in around),
        *(Operator(name, "vector", "vector") for name in bare),
    ]


def dealers(att: Attention, tp: float) -> float:
    """Ranks that can deal the cache under an indexer among them: the kernel that pads takes the heads of all at once.

    ``min(tp, 64/(heads/tp))``, one from 32 heads a rank up. Source: vllm-project/vllm,
    vllm/v1/attention/backends/mla/flashmla_sparse.py, FlashMLASparseMetadataBuilder.

    >>> from parallel.io import read_model
    >>> latent = read_model("deepseek-v3.2").layers[0].attention  # 128 heads
    >>> dealers(latent, 4.0), dealers(latent, 8.0), dealers(read_model("glm-5").layers[0].attention, 8.0)
    (1.0, 4.0, 8.0)
    """
    heads = att.heads / tp
    return 1.0 if heads >= DEALT_HEADS else min(tp, ENVELOPE // heads)


def picked_bytes(att: Attention, tokens: ColumnLike, dcp: float) -> Column:
    """Bytes that ranks which deal the cache gather of each other's best candidates: ``8·k·tokens·dcp``.

    Source: vllm-project/vllm, pull request 46178 (top-k candidates merged across ranks).
    """
    return column(PICK_BYTES * (att.indexer.topk if att.indexer else 0.0) * column(tokens) * dcp)


@dataclass(frozen=True, slots=True)
class Indexed:
    """Layers of one kind under an indexer, on one rank of those that deal the cache among them.

    Attributes
    ----------
    count, topk : layers, and positions that a token attends to
    key_bytes, latent_bytes : of a cached position: its index key, and what attention reads where it is chosen
    score_bytes : of an index score, written once and read once
    score_s, chosen_s : arithmetic of a (token, position) scored, and of one attended to
    pair_s : that of a (token, position) of a short prompt, whose tokens attend to all
    """

    count: float
    topk: float
    key_bytes: float
    latent_bytes: float
    score_bytes: float
    score_s: float
    chosen_s: float
    pair_s: float

    @classmethod
    def of(
        cls, att: Attention, count: float, tp: float, dcp: float, kv_bytes: float, generation: str,
        rates: tuple[float, float, float],
    ) -> "Indexed":  # fmt: skip
        """Read them off an attention; `rates` are FLOP/s of index scores, of reads of the cache, and of prompts."""
        scored, read, prompt = rates
        heads = float(sparse_heads(att, tp / dcp, generation)) / dcp
        return cls(
            count,
            att.indexer.topk if att.indexer else np.inf,
            index_key_bytes(att) / dcp,
            latent_bytes(att, kv_bytes) / dcp,
            SCORE_BYTES / dcp if att.indexer and att.indexer.scores else 0.0,
            float(index_score_flops(att, 1.0)) / dcp / scored,
            2.0 * heads * (2.0 * att.kv_lora_rank + att.qk_rope_head_dim) / read,
            float(plain_flops(att, tp)) / prompt,
        )

    def reads(self, decoding: float, positions: float, each: float) -> tuple[tuple[float, float, float], ...]:
        """Return (layers, bytes, seconds of arithmetic) of the scores, the choice and the attention of decoding tokens.

        `each` tokens of every sequence share its index keys; the latents that they choose are each one's own.
        """
        scored, chosen = each * positions, each * min(positions, decoding * self.topk)
        return (
            (self.count, positions * self.key_bytes + scored * self.score_bytes, scored * self.score_s),
            (self.count, scored * self.score_bytes, 0.0),
            (self.count, chosen * self.latent_bytes, chosen * self.chosen_s),
        )

    def prompts(self, prompt: float, pairs: float, cp: float = 1.0) -> tuple[tuple[float, float, float], ...]:
        """Return the same of prompt tokens with so many (token, earlier position) pairs, shared by cp ranks.

        Their positions are spread evenly about the mean: as wide as the tokens of one chunk, or from 0 where these are of
        several prompts.
        """
        mean = pairs / prompt
        half = min(prompt / 2.0, mean)
        seen = prompt * float(chosen_positions(mean - half, mean + half, self.topk))
        attended_s = pairs * self.pair_s if mean + half <= self.topk else seen * self.chosen_s
        own = pairs / cp
        return (
            (self.count, own * self.score_bytes, own * self.score_s),
            (self.count, own * self.score_bytes, 0.0),
            (self.count, 0.0, attended_s / cp),
        )
