"""The same sweep on one core and on Ray: every figure the same, to the last bit.

Ray starts here; `podscale sweep FILE --executor ray --address auto` joins a cluster that runs, see `ray_cluster/`. Only who
did the work and how long it took may differ.
"""

from pathlib import Path

import podscale

SPEC = Path(__file__).parent / "sweeps" / "domains.yaml"


def main() -> None:
    serial, ray = (podscale.sweep(SPEC, executor=name) for name in ("serial", "ray"))
    print(f"{serial['points']:,} strategies in {len(serial['cells'])} cells, {serial['feasible']:,} feasible")
    for row in ray["best"]:
        settings = row["settings"]
        print(f"{settings['phase']:<6} best in domains of {settings['domain']}: {row['rank']:,.0f} tokens/s per GPU")
    print(f"differs: {', '.join(key for key in serial if serial[key] != ray[key])}")


if __name__ == "__main__":
    main()
