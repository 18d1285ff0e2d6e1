"""Compressed attention and hyper-connections (DeepSeek-V4), counted: what a token sees, what is cached, what the streams hold.

A token sees the last ``w`` positions, and of the entries that stand for ``r`` positions each those that an indexer chooses,
or all. Sources: DeepSeek-V4 2606.19348 §2.2, §2.3; huggingface/transformers,
src/transformers/models/deepseek_v4/modular_deepseek_v4.py; caches as in vllm-project/vllm, vllm/models/deepseek_v4.
"""

import numpy as np

from parallel.shapes import Attention, Model, pooled_width
from topo.columns import Column, ColumnLike, column

SCALED_VALUES = 64
"""FP8 values of an entry that share a scale of one byte; one byte more fills the row (vLLM, deepseek_v4/compressor.py)."""
WINDOW_SHARE, RING, PAGE = 0.1, 8.0, 256.0
"""Positions of windows that engines pool for each position, those of a state's ring, and of a page (SGLang's defaults)."""
STATE_BYTES = 4.0
"""Of a key or gate that waits for its entry: FP32 (vLLM, deepseek_v4/compressor.py, CompressorStateCache)."""


def pace(att: Attention) -> float:
    """Positions for each cached key of an index: those that an entry stands for, or one.

    >>> pace(Attention("gqa", heads=8, kv_heads=8, head_dim=64))
    1.0
    """
    return float(max(att.compression.ratio, 1)) if att.compression else 1.0


def chosen_positions(first: ColumnLike, last: ColumnLike, topk: float) -> Column:
    """Return how many of the positions before it a token attends to, on average of those at `first` to `last`.

    ``E[min(x, k)] = (a + b)/2 − ((b − k)₊² − (a − k)₊²) / (2(b − a))`` of x spread evenly from a to b.

    >>> [float(chosen_positions(0, last, 2048)) for last in (2048, 4096)], float(chosen_positions(8192, 9000, 2048))
    ([1024.0, 1536.0], 2048.0)
    """
    a, b = column(first), column(last)
    beyond = np.maximum(b - topk, 0.0) ** 2 - np.maximum(a - topk, 0.0) ** 2
    return column((a + b) / 2.0 - beyond / (2.0 * np.maximum(b - a, 1e-9)))


def most_entries(att: Attention) -> float:
    """Entries that a token attends to at most: an indexer's top-k, none under a window alone, else all."""
    if att.compression is None or not att.compression.ratio:
        return 0.0
    return float(att.indexer.topk) if att.indexer else np.inf


def seen_at(att: Attention, context: ColumnLike) -> Column:
    """Positions and entries that a token at the end of a context attends to: ``min(c, w) + min(c/r, k)``.

    >>> from parallel.io import read_model
    >>> window, sparse, heavy = (kind.attention for kind in read_model("deepseek-v4-flash").layers)
    >>> [float(seen_at(att, 8192)) for att in (window, sparse, heavy)]  # 128; 128 + 512; 128 + 8192/128
    [128.0, 640.0, 192.0]
    """
    tokens, window = column(context), float(att.compression.window if att.compression else 0)
    return column(np.minimum(tokens, window) + np.minimum(tokens / pace(att), most_entries(att)))


def seen_between(att: Attention, first: ColumnLike, last: ColumnLike) -> Column:
    """Positions and entries that tokens at positions `first` to `last` attend to, on average."""
    window, every = float(att.compression.window if att.compression else 0), pace(att)
    entries = chosen_positions(column(first) / every, column(last) / every, most_entries(att))
    return column(chosen_positions(first, last, window) + entries)


def entry_bytes(att: Attention) -> float:
    """Bytes of a cached position of the window, or of an entry: FP8 with a scale for each 64 values, the rotary part in BF16.

    ``nope + 2·rope + nope/64 + 1``, whatever width is asked for: SGLang has no other layout, vLLM's FlashMLA none but this
    one (sgl-project/sglang, mem_cache/deepseek_v4_memory_pool.py; vllm-project/vllm, models/deepseek_v4/attention.py).

    >>> from parallel.io import read_model
    >>> entry_bytes(read_model("deepseek-v4-flash").layers[0].attention)  # 448 + 128 + 7 + 1
    584.0
    """
    plain = att.head_dim - att.qk_rope_head_dim
    return plain + 2.0 * att.qk_rope_head_dim + plain // SCALED_VALUES + 1.0


def state_bytes(att: Attention) -> float:
    """Bytes of the keys and gates of one position that wait for their entries, those of an indexer's keys too."""
    if att.compression is None or not att.compression.ratio:
        return 0.0
    widths = pooled_width(att, att.head_dim) + (pooled_width(att, att.indexer.head_dim) if att.indexer else 0)
    return 2.0 * STATE_BYTES * widths


def kept_bytes(att: Attention, context: ColumnLike) -> Column:
    """Cache bytes of a sequence that do not grow: the window beside entries, and what waits for an entry.

    ``min(c, w)·entry + min(c, overlap·r)·state``; 0 of other kinds, and of a window alone, which is counted as windows are.

    >>> from parallel.io import read_model
    >>> _, sparse, heavy = (kind.attention for kind in read_model("deepseek-v4-flash").layers)
    >>> float(kept_bytes(sparse, 8192)), float(kept_bytes(heavy, 8192))  # 128·584 + 8·8·(1024 + 256); 128·584 + 128·8·512
    (156672.0, 599040.0)
    """
    held, tokens = att.compression, column(context)
    if held is None or not held.ratio:
        return np.zeros_like(tokens)
    reach = pooled_width(att, held.ratio)
    return column(np.minimum(tokens, held.window) * entry_bytes(att) + np.minimum(tokens, reach) * state_bytes(att))


def pooled_bytes(att: Attention) -> float:
    """Bytes that engines set aside for windows with each position of their pool; 0 of other kinds.

    ``s·(entry + ring/page·state)`` with s = 0.1 of a window's positions for each position, and for every 256 of these the state
    of a ring of 8, where entries are of so few (sgl-project/sglang, model_executor/pool_configurator.py,
    DSV4PoolConfigurator; swa_full_tokens_ratio). What waits for entries of more positions is kept by each sequence:
    `waiting_bytes`. vLLM's log of a start tells as much of its own pool (vllm-project/vllm, issue 51454).

    >>> from parallel.io import read_model
    >>> window, sparse, heavy = (kind.attention for kind in read_model("deepseek-v4-flash").layers)
    >>> [round(pooled_bytes(att), 1) for att in (window, sparse, heavy)]  # 58.4; and 0.1·8/256·10240 more
    [58.4, 90.4, 58.4]
    """
    if att.compression is None:
        return 0.0
    rings = RING / PAGE * state_bytes(att) if att.indexer else 0.0
    return WINDOW_SHARE * (entry_bytes(att) + rings)


def waiting_bytes(att: Attention) -> float:
    """Bytes that each sequence keeps of positions whose entries are not full yet, where engines do not pool them.

    >>> from parallel.io import read_model
    >>> waiting_bytes(read_model("deepseek-v4-flash").layers[2].attention)  # 128 · 8 · 512
    524288.0
    """
    return 0.0 if att.compression is None or att.indexer else att.compression.ratio * state_bytes(att)


def compression_vectors(att: Attention) -> int:
    """Parameters beside the matrices: norms of query latent, keys and entries, and what positions add to their gates.

    ``r_q + d``, and ``r·o·d + d`` of entries (o = 2 where they overlap), those of an indexer's keys too.
    """
    if att.compression is None:
        return 0
    widths = [att.head_dim, *([att.indexer.head_dim] if att.indexer else [])] if att.compression.ratio else []
    pooled = sum(att.compression.ratio * pooled_width(att, width) + width for width in widths)
    return att.q_lora_rank + att.head_dim + pooled


# --- residual streams ---------------------------------------------------------------------------------------------


def stream_weights(streams: int, hidden: int) -> tuple[int, int]:
    """Return (inputs, outputs) of the projection that mixes n streams around a block: ``n·h`` to ``(2 + n)·n`` weights.

    One for each stream into the block, one for each out of it, and n² among them (Xie et al. 2512.24880 §4).
    """
    return streams * hidden, (2 + streams) * streams


def stream_parameters(model: Model) -> int:
    """Parameters of the hyper-connections of one layer, of which attention and experts have one each; 0 with one stream.

    ``2·((2 + n)·n·(n·h + 1) + 3)``: projection, offsets and three scales.
    """
    if model.streams == 1:
        return 0
    inputs, outputs = stream_weights(model.streams, model.hidden)
    return 2 * (outputs * (inputs + 1) + 3)


def stream_products(model: Model) -> int:
    """Weights of a layer's hyper-connections that multiply: ``2·(2 + n)·n·n·h``; 0 with one stream."""
    inputs, outputs = stream_weights(model.streams, model.hidden)
    return 2 * inputs * outputs if model.streams > 1 else 0


def collapse_parameters(model: Model) -> int:
    """Parameters that join the streams after the last layer, ``n·(n·h + 1) + 1``; 0 with one stream."""
    n = model.streams
    return n * (n * model.hidden + 1) + 1 if n > 1 else 0
