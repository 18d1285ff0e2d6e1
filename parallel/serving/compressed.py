"""Compressed attention (DeepSeek-V4) under an engine: the kernels of its linear part, and what it reads and computes.

A token is scored against one key for every 4 positions where its layer has an indexer, and attends to the last 128 positions
and to entries, chosen or all. Sequences of a pass count as equally long. Kernels as in vllm-project/vllm,
vllm/models/deepseek_v4 (attention.py, compressor.py, nvidia/flashmla.py); SGLang's are the same but for one norm.
"""

from dataclasses import dataclass

from parallel.compressed import passing, projections, seen_flops
from parallel.entries import chosen_positions, entry_bytes, most_entries, pace
from parallel.models import Attention, index_key_bytes, index_score_flops
from parallel.operators import SCORE_BYTES, Operator
from topo.columns import ColumnLike

Rows = tuple[tuple[float, float, float], ...]
"""Kernels as (layers, bytes, seconds of arithmetic)."""


def compressed_linear(att: Attention, h: float, t: ColumnLike, tp: float) -> list[Operator]:
    """Kernels of a layer's attention for `t` tokens, cache reads left out: products, what passes between them, bare starts.

    Scores, the choice and its places of an indexer; splits of attention, and their sum.

    >>> from parallel.io import read_model
    >>> [len(compressed_linear(kind.attention, 4096, 1, 1)) for kind in read_model("deepseek-v4-flash").layers]
    [9, 21, 12]
    """
    bare = ("index scores", "index top-k", "index places") if att.indexer else ()
    starts = (Operator(name, "vector", "vector") for name in (*bare, "scores", "combine"))
    return [*projections(att, h, t, tp), *passing(att, t, tp), *starts]


@dataclass(frozen=True, slots=True)
class Compressed:
    """Layers of one kind of compressed attention, on one rank.

    Attributes
    ----------
    count : layers
    ratio, window, topk : positions of an entry, positions seen as they are, and entries that a token attends to at most
    key_bytes, entry_bytes : of an index key, for each position; and of what attention reads of an entry, or of a position
    score_bytes : of index scores for each (token, position), written once and read once
    score_s, seen_s : arithmetic of a (token, position) scored, and of a (token, entry or position) attended to
    """

    count: float
    ratio: float
    window: float
    topk: float
    key_bytes: float
    entry_bytes: float
    score_bytes: float
    score_s: float
    seen_s: float

    @classmethod
    def of(cls, att: Attention, count: float, tp: float, scored: float, read: float) -> "Compressed":
        """Read them off an attention; the rates are FLOP/s of index scores, and of attention."""
        return cls(
            count,
            pace(att),
            float(att.compression.window if att.compression else 0),
            most_entries(att),
            index_key_bytes(att),
            entry_bytes(att),
            SCORE_BYTES / pace(att) if att.indexer else 0.0,
            float(index_score_flops(att, 1.0)) / scored,
            float(seen_flops(att, tp)) / read,
        )

    def reads(self, decoding: float, positions: float, each: float) -> Rows:
        """Return the scores, the choice and the attention of decoding tokens.

        `each` tokens of every sequence share its index keys; what they attend to each gathers for itself.
        """
        scored = each * positions
        seen = min(positions, decoding * self.window) + min(positions / self.ratio, decoding * self.topk)
        return (
            (self.count, positions * self.key_bytes + scored * self.score_bytes, scored * self.score_s),
            (self.count, scored * self.score_bytes, 0.0),
            (self.count, each * seen * self.entry_bytes, each * seen * self.seen_s),
        )

    def prompts(self, prompt: float, pairs: float, cp: float = 1.0) -> Rows:
        """Return the same of prompt tokens with so many (token, earlier position) pairs, shared by cp ranks.

        Their positions are spread evenly about the mean, as `parallel.serving.indexed.Indexed.prompts` has them.
        """
        mean = pairs / prompt
        half = min(prompt / 2.0, mean)
        first, last = mean - half, mean + half
        seen = float(chosen_positions(first, last, self.window))
        seen += float(chosen_positions(first / self.ratio, last / self.ratio, self.topk))
        own = pairs / cp
        return (
            (self.count, own * self.score_bytes, own * self.score_s),
            (self.count, own * self.score_bytes, 0.0),
            (self.count, 0.0, prompt * seen * self.seen_s / cp),
        )
