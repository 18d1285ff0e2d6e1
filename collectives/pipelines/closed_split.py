"""Closed forms of the bubble for schedules that split backwards or run both ways; signature and proof as in `closed`.

F, I = B - W and W are one micro-batch's forward, gradient of the input and gradient of the weights on a whole stage. The
zero-bubble forms count a step whose optimizer is not synchronised (the papers' post-validation): a synchronised one adds
the stagger of the stages' starts, up to (p - 1)F.
"""

import numpy as np

from collectives.pipelines.closed import wide_trips
from topo.columns import Column, ColumnLike, column


def zb_h1_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
) -> Column:
    """Return (p - 1)(F + I - W + 4c), or (p - 1)(I + 2c) where W > F; hops longer than W/2 cost as in 1F1B.

    The largest of (p - 1)(I + 2c) and (p - 1)(F + I + 2c) + n(2c - W) for n = p - 1 and n = (m - 1) - ⌈(m - 1)/p⌉: weight
    gradients fill what round trips leave open. Exact for m > p.
    Source: Qi et al. 2023 (arXiv 2401.10241) §2.1, (p - 1)(F + I - W); hops by longest path.

    Examples
    --------
    >>> print(zb_h1_bubble_s(4, 12, 1, 1.0, 2.0, 0.0, 1.0))
    3.0
    """
    del chunks
    p, m, f, i, w, c = _split(stages, microbatches, forward_s, backward_s, hop_s, weight_s)
    trips = np.maximum((p - 1) * (2 * c - w), ((m - 1) - np.ceil((m - 1) / p)) * (2 * c - w))
    return column(np.maximum((p - 1) * (i + 2 * c), (p - 1) * (f + i + 2 * c) + trips))


def zb_h2_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
) -> Column:
    """Return (p - 1)(F + I - 2W + 2c), at least 0 and (p - 1)(I - F + 2c); more where a round trip outlasts a period.

    Round trips add as in eager 1F1B: (p - 1)(F + I + 2c) + n(2c - F - I - 2W). Exact for m ≥ 2p.
    Source: Qi et al. 2023 (arXiv 2401.10241) §2.2, (p - 1)(F + I - 2W); hops by longest path.

    Examples
    --------
    >>> print(zb_h2_bubble_s(4, 12, 1, 1.0, [2.0, 2.5], 0.0, 1.0))
    [0.  1.5]
    """
    del chunks
    p, m, f, i, w, c = _split(stages, microbatches, forward_s, backward_s, hop_s, weight_s)
    gain = 2 * c - f - i - 2 * w
    trips = (p - 1) * (f + i + 2 * c) + np.maximum((p - 1) * gain, wide_trips(p, m) * gain)
    short = (p - 1) * np.maximum(i - f + 2 * c, f + i - 2 * w + 2 * c)
    return column(np.maximum(0.0, np.maximum(short, trips)))


def zb_v_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
) -> Column:
    """Return (p - 1)·max(0, I - W) + (6p - 8)c + max(0, 2c - W/2): none where F = I = W.

    Exact for W ≤ F ≤ I, 2c ≤ F + W and m ≥ 2p - 1.
    Source: Qi et al. 2023 (arXiv 2401.10241) §6; form by longest path.

    Examples
    --------
    >>> print(zb_v_bubble_s(4, 12, 2, 1.0, [2.0, 2.5], 0.0, 1.0))
    [0.  1.5]
    """
    del chunks
    p, m, f, i, w, c = _split(stages, microbatches, forward_s, backward_s, hop_s, weight_s)
    hops = np.maximum(0.0, 6 * p - 8) * c + np.where(p > 1, np.maximum(0.0, 2 * c - w / 2), 0.0)
    return column((p - 1) * np.maximum(0.0, i - w) + hops + 0.0 * (m + f))


def dualpipe_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
) -> Column:
    """Return (p/2 - 1)(F&B + B - 3W) with F&B = F + B, where F = I ≥ W and hops are free; in general the longest path.

    With n = p/2 - 1, x = m/2 - p and k = 7p/2 - 5 + 2x - ⌈2(x - 1)/p⌉ hops:
    max(2nF, (n - 1)F + nI + nc) + n·max(0, I - W + c) + (k - n)c. Exact for c ≤ I/2, and for any hop
    where I ≥ F.
    Source: deepseek-ai/DualPipe README for the first; form and hops by longest path.

    Examples
    --------
    >>> print(dualpipe_bubble_s(8, 20, 1, 1.0, 2.0, 0.0, 1.0))
    6.0
    """
    del chunks
    p, m, f, i, w, c = _split(stages, microbatches, forward_s, backward_s, hop_s, weight_s)
    n, more = p / 2 - 1, m / 2 - p
    hops = 3.5 * p - 5 + 2 * more - np.ceil(2 * (more - 1) / p)
    fill = np.where(n > 0, np.maximum(2 * n * f, (n - 1) * f + n * (i + c)), 0.0)
    return column(np.where(p > 1, fill + n * np.maximum(0.0, i - w + c) + (hops - n) * c, 0.0))


def dualpipe_v_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
) -> Column:
    """Return (p - 1)(F&B + B - 3W)/2 with F&B = F + B, where F = I ≥ W and hops are free: DualPipe's on half the devices.

    With n = p - 1, x = m - 2p and k = 6p - 8 + 2x - 2⌈(x - 1)/p⌉ hops (the turn is free):
    ½·max(2nF, (n - 1)F + nI + 4nc) + n·max(0, (I - W)/2 + c) + (k - n)c. Exact without hops, and with them where I is at
    least F and W.
    Source: deepseek-ai/DualPipe README for the first; form and hops by longest path.

    Examples
    --------
    >>> print(dualpipe_v_bubble_s(4, 10, 2, 1.0, 2.0, 0.0, 1.0))
    3.0
    """
    del chunks
    p, m, f, i, w, c = _split(stages, microbatches, forward_s, backward_s, hop_s, weight_s)
    n, more = p - 1, m - 2 * p
    hops = 6 * p - 8 + 2 * more - 2 * np.ceil((more - 1) / p)
    fill = np.where(n > 0, np.maximum(2 * n * f, (n - 1) * f + n * (i + 4 * c)) / 2, 0.0)
    return column(np.where(n > 0, fill + n * np.maximum(0.0, (i - w) / 2 + c) + (hops - n) * c, 0.0))


def chimera_bubble_s(
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
) -> Column:
    """Return (p/2 - 1)(F + B) where F = B and hops are free; unequal ones and hops leave bubbles between the units too.

    With u = m/p units, the larger of (p - 2)·max(F, B) + [2(p - 1)u + p - 3]c and
    (p - 2)·[max(F, B) + (u - 1)|F - B|] + [2(p - 2)u + p - 1]c. Exact for every m, p and c.
    Source: Li and Hoefler 2021 (arXiv 2107.06925), (p - 2)/(2m + p - 2) of the step; form by longest path.

    Examples
    --------
    >>> print(chimera_bubble_s(4, 8, 1, [1.5, 1.0], [1.5, 2.0], 0.0))
    [3. 6.]
    """
    del chunks, weight_s
    p, m, f, b, c = (column(x) for x in (stages, microbatches, forward_s, backward_s, hop_s))
    units, longer = m / p, np.maximum(f, b)
    near = (p - 2) * longer + (2 * (p - 1) * units + p - 3) * c
    apart = (p - 2) * (longer + (units - 1) * np.abs(f - b)) + (2 * (p - 2) * units + p - 1) * c
    return column(np.where(p > 2, np.maximum(near, apart), np.where(p > 1, 2 * units * c, 0.0)))


def _split(
    stages: ColumnLike,
    microbatches: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike,
) -> tuple[Column, Column, Column, Column, Column, Column]:
    """Return p, m, F, I, W and c as columns."""
    w = column(weight_s)
    return column(stages), column(microbatches), column(forward_s), column(backward_s) - w, w, column(hop_s)
