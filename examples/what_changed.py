"""Two deployments of DeepSeek-V3, EP144 and EP72: which terms account for the difference.

`podscale diff A.json B.json` compares what compare, train, serve and sweep wrote.
"""

from pathlib import Path

from parallel.explain.read import read_point
from parallel.questions.difference import difference
from parallel.questions.outcome import held

SCENARIO = Path(__file__).parent / "scenarios" / "deepseek-v3-decode-h800.yaml"


def main() -> None:
    point, _ = read_point(SCENARIO)
    documents = []
    for ep in (144.0, 72.0):
        found = held(point.split(ep=ep))
        rate = found.tokens_per_s_per_gpu
        documents.append({"tokens_per_s_per_gpu": rate, "terms": found.terms, "strategy": found.strategy})
    (row,) = difference(*documents)["rows"]
    print(f"EP72 runs at {row['ratio']:.2f} of the rate of EP144")
    print(f"{row['terms'][0]['share']:.0%} of the change: {row['terms'][0]['term']}")


if __name__ == "__main__":
    main()
