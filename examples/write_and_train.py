"""Reinforcement learning in turns and side by side: how many accelerators write, how many train, and what lagging buys.

A step of 8,192 answers by a 7B model on 192 H800. The published loop (AReaL, 57.7 and 25.4 hours for 1,000 steps) does not
say how long its answers were; a second table shows how much that matters.
"""

import tempfile
from pathlib import Path
from typing import Any

import yaml

import podscale

FOLDER = Path(__file__).parent
SCENARIO = FOLDER / "scenarios" / "rl-7b-h800.yaml"
ANSWERS = {"prompts": 512, "samples": 16, "prompt_tokens": 512}


def priced(**changes: Any) -> dict[str, Any]:
    """Price the scenario with some of its fields changed."""
    fields = yaml.safe_load(SCENARIO.read_text(encoding="utf-8"))
    fields |= {"model": str(FOLDER / "models" / "r1-distill-qwen-7b"), **changes}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "loop.yaml"
        file.write_text(yaml.safe_dump(fields), encoding="utf-8")
        return podscale.rl(file)


def main() -> None:
    told = priced()
    turns, best = told["in_turns"], told["best"]
    print(f"in turns      {turns['step_time_s']:>4.0f} s a step, of which {turns['terms']['rollout']:.0f} s write")
    write, train = best["writing_accelerators"], best["training_accelerators"]
    print(
        f"side by side  {best['step_time_s']:>4.0f} s a step: {write} write, {train} train, {told['speedup']:.1f} times as fast"
    )
    print()
    rollout = {**told["strategy"]["rollout"], "accelerators": write}
    for staleness in (1, 2, 4, 8):
        row = priced(staleness=staleness, rollout=rollout)
        idle = max(row["idle"]["writing"], 0.0)
        print(
            f"lagging {staleness} at most: {row['step_time_s']:>4.0f} s, writers idle {idle:>4.0%}, mean lag {row['lag']:.1f}"
        )
    print()
    for median, p90 in ((2500, 11000), (4000, 15000), (6500, 19000)):
        lengths = {"median": median, "p90": p90, "most": 27000}
        row = priced(rollout=rollout, answers={**ANSWERS, "lengths": lengths})
        mean = row["workload"]["mean_tokens"]
        print(f"answers of {mean:,.0f} tokens: {row['in_turns']['step_time_s']:.0f} s in turns, ", end="")
        print(f"{row['step_time_s']:.0f} s side by side, {row['speedup']:.1f} times")


if __name__ == "__main__":
    main()
