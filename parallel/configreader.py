"""A Hugging Face `config.json` as typed fields: which key holds which size, and every fault of a file at once."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from parallel.shapes import Indexer
from topo.errors import Fault, SpecError

_T = TypeVar("_T")

#: For each size of ours, the keys that may hold it, first found first taken.
KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "layers": ("num_hidden_layers", "n_layer"),
        "hidden": ("hidden_size", "n_embd"),
        "heads": ("num_attention_heads", "n_head"),
        "kv_heads": ("num_key_value_heads",),
        "head_dim": ("head_dim",),
        "intermediate": ("intermediate_size", "n_inner"),
        "vocab": ("vocab_size",),
        "experts": ("n_routed_experts", "num_experts", "num_local_experts"),
        "topk": ("num_experts_per_tok", "num_experts_per_token", "experts_per_token"),
        "expert_intermediate": ("moe_intermediate_size", "intermediate_size"),
        "shared_experts": ("n_shared_experts",),
        "shared_intermediate": ("shared_expert_intermediate_size", "shared_intermediate_size"),
        "groups": ("n_group",),
        "topk_groups": ("topk_group",),
        "first_dense": ("first_k_dense_replace",),
        "moe_every": ("decoder_sparse_step", "moe_layer_freq", "interleave_moe_layer_step"),
        "learned_positions": ("n_positions", "max_position_embeddings"),
        "mtp_layers": ("num_nextn_predict_layers",),
        "sliding_window": ("sliding_window", "attention_chunk_size"),
        "streams": ("hc_mult",),
        "hash_layers": ("num_hash_layers",),
    }
)

#: More layers than any transformer has; a larger number is a slip of the pen.
MOST_LAYERS = 10_000


class Reader:
    """A config as typed fields: every getter records a fault instead of raising, so that all are reported at once."""

    def __init__(self, raw: Mapping[str, Any], file: str, keys: Mapping[str, tuple[str, ...]]) -> None:
        self.raw, self.file, self.keys = raw, file, {**KEYS, **keys}
        self.faults: list[Fault] = []

    def key(self, name: str) -> str:
        """Return the key of the file that holds `name`, or the usual one where none does."""
        options = self.keys.get(name, (name,))
        return next((key for key in options if self.raw.get(key) is not None), options[0])

    def fault(self, name: str, problem: str, remedy: str) -> None:
        """Record a fault of the key that holds `name`."""
        key = self.key(name)
        self.faults.append(Fault(key, self.raw.get(key), problem, remedy, self.file))

    def whole(self, name: str, default: int | None = None, minimum: int = 1, maximum: int = 10**12) -> int | None:
        """Return an integer in [minimum, maximum]; None, with a fault, where it is missing or anything else."""
        value = self.raw.get(self.key(name))
        if value is None:
            if default is None:
                self.fault(name, "is missing", "add it")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            self.fault(name, "must be a whole number", f"write a number from {minimum} to {maximum:,}")
            return None
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Return a truth value; a fault where it is anything else."""
        value = self.raw.get(self.key(name))
        if value is not None and not isinstance(value, bool):
            self.fault(name, "must be true or false", "write true or false")
        return value if isinstance(value, bool) else default

    def build(self, make: Callable[..., _T], names: Mapping[str, str], **values: Any) -> _T | None:
        """Return `make(**values)`; None where a value is missing, or where they disagree (recorded by file key)."""
        if any(value is None for value in values.values()):
            return None
        try:
            return make(**values)
        except SpecError as error:
            for found in error.faults:
                key = self.key(names.get(found.field, found.field))
                self.faults.append(Fault(key, found.value, found.problem, found.remedy, self.file))
            return None


def read_indexer(reader: Reader) -> Indexer | None:
    """Return the indexer of sparse attention."""
    names = {"heads": "index_n_heads", "head_dim": "index_head_dim", "topk": "index_topk"}
    return reader.build(Indexer, names, **{name: reader.whole(key) for name, key in names.items()})
