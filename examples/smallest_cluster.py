"""The smallest H100 cluster that serves Llama 3.1 70B at 100,000 tokens per second, and what 500 kW would serve.

`podscale size SCENARIO --tokens-per-s 100000` and `--power 500kW` are the same.
"""

from pathlib import Path

from parallel.explain.read import read_point
from parallel.questions.sizing import Wish, size

SCENARIO = Path(__file__).parent / "scenarios" / "llama-70b-serve.yaml"


def main() -> None:
    point, _ = read_point(SCENARIO)
    for wish in (Wish(tokens_per_s=100_000), Wish(power_W=500e3)):
        found = size(point, wish)
        split = found["strategy"]
        print(f"{found['accelerators']} accelerators, tp {split['tp']}, {found['power_W'] / 1e3:.0f} kW of known parts")
        print(f"  binds: {found['binding'].partition(':')[0]}")


if __name__ == "__main__":
    main()
