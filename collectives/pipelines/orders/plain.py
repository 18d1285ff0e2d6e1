"""One virtual stage per device: GPipe, 1F1B and eager 1F1B differ only in how many forwards come first."""

from collectives.pipelines.actions import BACKWARD, FORWARD, Action
from collectives.pipelines.nouns import Order


def gpipe(stages: int, microbatches: int, chunks: int = 1) -> Order:
    """Return all forwards, then all backwards. Source: Huang et al. 2019 (arXiv 1811.06965) §2.3.

    >>> text(gpipe(2, 3))
    ['F0 F1 F2 B0 B1 B2', 'F0 F1 F2 B0 B1 B2']
    """
    del chunks
    return _warmed(stages, microbatches, [microbatches] * stages)


def one_f_one_b(stages: int, microbatches: int, chunks: int = 1) -> Order:
    """Return p - 1 - i forwards at stage i, then one forward and one backward in turn.

    Source: Narayanan et al. 2021 (arXiv 2104.04473) §2.2; Megatron-Core `get_pp_rank_microbatches`.

    >>> text(one_f_one_b(2, 3))
    ['F0 F1 B0 F2 B1 B2', 'F0 B0 F1 B1 F2 B2']
    """
    del chunks
    return _warmed(stages, microbatches, [stages - 1 - i for i in range(stages)])


def eager_one_f_one_b(stages: int, microbatches: int, chunks: int = 1) -> Order:
    """Return 1F1B with twice the forwards ahead, 2(p - 1 - i), so that a hop has a period to travel in.

    Source: Zhuang et al. 2023 (arXiv 2211.05322).

    >>> text(eager_one_f_one_b(2, 4))
    ['F0 F1 F2 B0 F3 B1 B2 B3', 'F0 B0 F1 B1 F2 B2 F3 B3']
    """
    del chunks
    return _warmed(stages, microbatches, [2 * (stages - 1 - i) for i in range(stages)])


def text(order: Order) -> list[str]:
    """Return the actions of each device in words: kind and micro-batch, `'` for the second pipe, `.v` for its chunk."""
    out = []
    for d, listed in enumerate(order.actions):
        chunk = [{v: n for n, v in enumerate(v for v, at in enumerate(held) if at == d)} for held in order.device]
        words = []
        for a in listed:
            word = f"{a.kind}{a.microbatch}{chr(39) * a.pipe}" + (
                f".{chunk[a.pipe][a.virtual]}" if order.chunks > 1 else ""
            )
            words.append(("&" if a.paired else " ") + word)
        out.append("".join(words).strip())
    return out


def _warmed(stages: int, microbatches: int, ahead: list[int]) -> Order:
    """Return `ahead` forwards at each stage, then forward and backward in turn, then the backwards that are left."""
    actions = []
    for stage, most in enumerate(ahead):
        warm = min(microbatches, most)
        listed = [Action(FORWARD, stage, k) for k in range(warm)]
        for k in range(microbatches):
            if warm + k < microbatches:
                listed.append(Action(FORWARD, stage, warm + k))
            listed.append(Action(BACKWARD, stage, k))
        actions.append(tuple(listed))
    return Order(tuple(actions), (tuple(range(stages)),))
