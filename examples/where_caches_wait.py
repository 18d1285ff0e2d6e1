"""Conversations whose caches wait in HBM, host memory and flash: what each memory adds, and how long a cache may wait.

The scenario's own memories are taken away one by one; then the pause between two turns is stretched.
"""

import tempfile
from pathlib import Path
from typing import Any

import yaml

import podscale

SCENARIO = Path(__file__).parent / "scenarios" / "llama-70b-sessions.yaml"


def served(**changes: Any) -> dict[str, Any]:
    """Serve the scenario with its `reuse` changed."""
    fields = yaml.safe_load(SCENARIO.read_text(encoding="utf-8"))
    fields["reuse"] |= changes
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sessions.yaml"
        file.write_text(yaml.safe_dump(fields), encoding="utf-8")
        return podscale.serve(file)


def main() -> None:
    tiers = yaml.safe_load(SCENARIO.read_text(encoding="utf-8"))["reuse"]["tiers"]
    print("memories               found   first token   requests/s")
    for count, name in enumerate(("HBM", "and host memory", "and flash")):
        told = served(tiers=tiers[:count])
        found, rate = told["reuse"]["hit_rate"], told["requests_per_s"]
        print(f"{name:<20} {found:>7.0%} {told['ttft_s']:>11.1f} s {rate:>12.1f}")
    before = told["reuse"]["without"]
    print(f"{'nothing is kept':<20} {0:>7.0%} {before['ttft_s']:>11.1f} s {before['requests_per_s']:>12.1f}")
    print()
    for tier in told["reuse"]["tiers"]:
        hours, worth = tier["break_even_s"] / 3600, tier["saves_usd_per_hour"] / tier["costs_usd_per_hour"]
        print(f"{tier['name']:<16} pays for a cache that waits up to {hours:,.0f} h; saves {worth:.0f} times its price")
    print()
    for pause in ("10s", "1min", "10min", "1h"):
        kept = served(revisit={"median": pause, "p90": pause})["reuse"]["tiers"]
        where = ", ".join(f"{tier['name']} {tier['hits']:.0%}" for tier in kept if tier["hits"] > 0.005) or "nowhere"
        print(f"back after {pause:<6} found in {where}")


if __name__ == "__main__":
    main()
