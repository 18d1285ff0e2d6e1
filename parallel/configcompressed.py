"""Fields of DeepSeek-V4's `config.json`: attention over a window and over entries, and what its layers are."""

from collections.abc import Mapping

from parallel.configreader import Reader, read_indexer
from parallel.layerkinds import HEAVY, SPARSE, WINDOW, Row
from parallel.shapes import Attention, Compression

#: Field of `Compression` -> the key that holds it.
COMPRESSION: Mapping[str, str] = {"window": "sliding_window", "groups": "o_groups", "rank": "o_lora_rank"}


def read_compressed(reader: Reader, heads: int | None) -> Attention | None:
    """Return compressed attention as its layers with an indexer have it; `Row` says what the others have."""
    held = reader.build(
        Compression,
        COMPRESSION,
        ratio=max(RATIOS),  # of no layer: each row brings its own
        **{ours: reader.whole(key) for ours, key in COMPRESSION.items()},
    )
    return reader.build(
        Attention,
        {"groups": "o_groups"},
        kind="compressed",
        heads=heads,
        kv_heads=reader.whole("kv_heads", default=1),
        head_dim=reader.whole("head_dim"),
        q_lora_rank=reader.whole("q_lora_rank"),
        qk_rope_head_dim=reader.whole("qk_rope_head_dim"),
        sinks=True,
        indexer=read_indexer(reader),
        compression=held,
    )


#: Positions for an entry -> what a layer of DeepSeek-V4 is called in `layer_types`.
RATIOS: Mapping[int, str] = {0: WINDOW, 1: WINDOW, 4: SPARSE, 128: HEAVY}


def compressed_rows(reader: Reader, routed: list[bool]) -> list[Row]:
    """Return the layers of DeepSeek-V4: `compress_ratios`, whose further entries are of prediction modules, or `layer_types`.

    Source: huggingface/transformers, src/transformers/models/deepseek_v4/configuration_deepseek_v4.py.
    """
    listed, types = reader.raw.get("compress_ratios"), reader.raw.get("layer_types")
    rates = reader.raw.get("compress_rates")
    of_type = {WINDOW: 0, SPARSE: 4, HEAVY: 128} | (rates if isinstance(rates, dict) else {})
    if not isinstance(listed, list) and isinstance(types, list):
        listed = [of_type.get(str(name)) for name in types]
    ratios = [ratio for ratio in (listed if isinstance(listed, list) else []) if isinstance(ratio, int)]
    if len(ratios) < max(len(routed), len(listed or ())) or any(ratio not in RATIOS for ratio in ratios):
        known = ", ".join(map(str, RATIOS))
        reader.fault("compress_ratios", f"must name every layer's ratio, each of {known}", "write one for each layer")
        return [Row(each) for each in routed]
    return [Row(each, attends=RATIOS[ratio], ratio=ratio) for each, ratio in zip(routed, ratios, strict=False)]


def hash_layers(reader: Reader) -> int | None:
    """Return how many of the first layers route by token id."""
    types = reader.raw.get("mlp_layer_types")
    if isinstance(types, list):
        return [str(name) for name in types].count("hash_moe")
    return reader.whole("hash_layers", default=0, minimum=0)
