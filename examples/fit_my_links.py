"""Fit the constants of a network to what nccl-tests printed, and see how far they are off at each size.

The log is one that its authors published: two AWS p5.48xlarge, 16 H100. It names no hosts, so the ranks are told, and the
cluster. `podscale calibrate collectives LOG --ranks 16 --cluster FILE --out F` is the same. A cluster file that says
`tunings: F` is priced with what was fitted.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from clusters.build import build
from clusters.calibration.own_links import calibrate_file
from clusters.collective import collective
from clusters.spec import load

HERE = Path(__file__).parent
LOG, CLUSTER = HERE / "logs" / "all_reduce_perf-p5.log", HERE / "clusters" / "two-p5.yaml"


def main() -> None:
    with TemporaryDirectory() as folder:
        document = calibrate_file(LOG, Path(folder) / "tunings.yaml", ranks=16, cluster=str(CLUSTER))
        mine = Path(folder) / "measured.yaml"
        mine.write_text(CLUSTER.read_text(encoding="utf-8") + "tunings: tunings.yaml\n", encoding="utf-8")
        before, after = (collective(build(load(file)), "all_reduce", 16, 2.0**28) for file in (CLUSTER, mine))
    for link, tests in document["constants"].items():
        for test, fitted in tests.items():
            launch_us, ramp_us, share = fitted["base_s"] * 1e6, fitted["ramp_s"] * 1e6, fitted["efficiency"]
            print(f"{link} {test}: launch {launch_us:.0f} us, ramp {ramp_us:.0f} us, {share:.0%} of the NICs' rate")
            off = document["residuals"][link][test]
            print(f"{off['n']} sizes, off by {off['median']:.0%} in the median, {off['p90']:.0%} at p90")
    for row in document["rows"][7::6]:
        print(f"{row['bytes']:>14,.0f} bytes: {row['measured'] * 1e6:>6,.0f} us measured, off by {row['ape']:.0%}")
    print(f"256 MiB: {before['time_s'] * 1e6:,.0f} us without the fit, {after['time_s'] * 1e6:,.0f} us with it")
    print(*document["warnings"], sep="\n")


if __name__ == "__main__":
    main()
