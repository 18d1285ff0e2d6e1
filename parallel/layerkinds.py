"""Layers as their kinds: what tells one from another, how a model calls them, and the order in which they repeat."""

from dataclasses import replace
from typing import NamedTuple

from parallel.shapes import Attention, LayerKind, Mlp, Moe

WINDOW, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
"""Layers of compressed attention, as Hugging Face's `layer_types` call them."""
SHORT = {WINDOW: "-window", SPARSE: "-csa", HEAVY: "-hca"}
"""What they are called here."""


class Row(NamedTuple):
    """What tells one layer from another: whether it holds experts, its window, and whether another one's index serves it.

    `attends` is a key of `SHORT` in compressed attention, `ratio` the positions of its entries.
    """

    routed: bool
    window: int = 0
    shared: bool = False
    attends: str = ""
    ratio: int = 0

    def name(self, windowed: bool) -> str:
        """Return what the kind of layer is called in a model that has windows, or none."""
        slides = f"-{'sliding' if self.window else 'full'}" if windowed else SHORT.get(self.attends, "")
        return f"{'moe' if self.routed else 'dense'}{slides}{'-shared-index' * self.shared}"

    def attention(self, usual: Attention) -> Attention:
        """Return the attention of such a layer."""
        if usual.compression and self.attends:
            return self._compressed(usual)
        indexer = replace(usual.indexer, heads=0, head_dim=0) if usual.indexer and self.shared else usual.indexer
        return replace(usual, sliding_window=self.window, indexer=indexer)

    def _compressed(self, usual: Attention) -> Attention:
        """Return compressed attention with the entries of such a layer; of the window alone, as a layer that slides."""
        if usual.compression is None:
            return usual
        held = replace(usual.compression, ratio=0 if self.attends == WINDOW else self.ratio)
        return replace(
            usual,
            compression=held,
            indexer=usual.indexer if self.attends == SPARSE else None,
            sliding_window=0 if held.ratio else held.window,
        )


def _stack(rows: list[Row]) -> tuple[list[Row], tuple[int, ...]]:
    """Return the distinct kinds of layer in order of appearance, and the shortest order that repeats ( () if sorted).

    >>> kinds, order = _stack([Row(False), Row(True), Row(False), Row(True)])
    >>> [kind.name(False) for kind in kinds], order
    (['dense', 'moe'], (0, 1))
    """
    kinds = list(dict.fromkeys(rows))
    order = [kinds.index(row) for row in rows]
    if order == sorted(order):
        return kinds, ()
    fits = (n for n in range(1, len(order) + 1) if all(order[i] == order[i % n] for i in range(len(order))))
    return kinds, tuple(order[: next(fits)])


def layer_kinds(
    rows: list[Row], attention: Attention, mlp: Mlp | None, moe: Moe | None
) -> tuple[tuple[LayerKind, ...], tuple[int, ...]]:
    """Return the kinds of the layers, and their repeating order."""
    kinds, pattern = _stack(rows)
    windowed = any(kind.window for kind in kinds)
    made = []
    for kind in kinds:
        block = moe if kind.routed else mlp
        if block is not None:
            made.append(LayerKind(kind.name(windowed), kind.attention(attention), block, rows.count(kind)))
    return tuple(made), pattern
