"""What would make Llama 3.1 70B faster on one H100 box: each figure a quarter better, the split searched anew.

`podscale sensitivity SCENARIO` prints the same with prices, and draws it with --plot.
"""

from pathlib import Path

from parallel.explain.read import read_point
from parallel.questions.sensitivity import sensitivity

SCENARIO = Path(__file__).parent / "scenarios" / "llama-70b-serve.yaml"


def main() -> None:
    point, _ = read_point(SCENARIO)
    document = sensitivity(point)
    for row in document["rows"]:
        if row["kind"] in ("rate", "amount") and row["gain"] > 0.01:
            print(f"{row['title']:<20} elasticity {row['held']:+.1f} held, gain {row['gain']:+.0%} searched anew")
    print(f"fixed: {document['account']['fixed']:.0%} of the time")


if __name__ == "__main__":
    main()
