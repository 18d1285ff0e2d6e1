"""The longest context of Llama 3.1 70B that fits on eight H100, by split and by format of the cache.

One sequence per replica, memory alone: prompt and answer together, to the next 1,024 tokens below. (The model was trained
for 131,072.) A sweep file with a list of `isl` asks for the fastest split at each length instead.
"""

from bisect import bisect_left
from dataclasses import replace
from math import inf
from pathlib import Path

from parallel.explain.point import Point
from parallel.explain.read import read_point
from parallel.questions.outcome import held

SCENARIO = Path(__file__).parent / "scenarios" / "llama-70b-serve.yaml"
LENGTHS = range(1024, 2**20, 1024)


def longest(point: Point, kv_bytes: float) -> int:
    """Return the longest context that fits: of the lengths in order, those up to the first that does not."""

    def too_long(context: int) -> bool:
        asked = replace(point.serve, isl=context - point.serve.osl, tpot_s=inf, kv_bytes=kv_bytes)
        return bool(held(replace(point, serve=asked)).broken)

    return 1024 * bisect_left(LENGTHS, True, key=too_long)


def main() -> None:
    point, _ = read_point(SCENARIO)
    for tp, pp in ((2, 1), (4, 1), (8, 1), (4, 2), (2, 4), (1, 8)):
        split = point.split(tp=float(tp), pp=float(pp), batch=1.0)
        bf16, fp8 = longest(split, 2.0), longest(split, 1.0)
        print(f"{8 // (tp * pp)} x (tp {tp}, pp {pp}): {bf16:>7,} tokens, {fp8:>7,} with an FP8 cache")


if __name__ == "__main__":
    main()
