"""Compare scale-up domains for an accelerator of one's own, described with its cluster in one file.

The same as ``podscale compare --cluster examples/clusters/my-own.yaml``, which draws it and names the best splits.
Speeds are relative to the smallest domain and rounded, for nobody has measured this accelerator: its kernels borrow the
constants of the part that it is like.
"""

from pathlib import Path

from clusters.spec import load, part_of
from parallel.compare import CompareRequest, compare

FILE = Path(__file__).parent / "clusters" / "my-own.yaml"


def main() -> None:
    spec = load(FILE)
    part = part_of(spec)
    print(f"{spec.accelerators:,} x {part.name}, like {part.like}: the memory drains in {part.drain_s * 1e3:.0f} ms")
    document = compare(CompareRequest(cluster=str(FILE), executor="serial"))
    first: dict[str, float] = {}
    for row in document["rows"]:
        phase, rate = row["phase"], row["tokens_per_s_per_gpu"]
        gain = rate / first.setdefault(phase, rate)
        print(f"{phase:<7} in domains of {row['domain']:>3}: {gain:.1f}x, longest: {row['bottleneck']}")
    borrowed = {warning for row in document["rows"] for warning in row["warnings"] if part.name in warning}
    print(f"borrowed constants are said in the answer: {'yes' if borrowed else 'no'}")


if __name__ == "__main__":
    main()
