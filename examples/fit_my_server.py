"""Calibrate an engine to a load test, and see what that does for runs it has not seen.

The load test is one that was published: MiniMax-M2.5 under vLLM 0.16 on four H200, cut out of the measurements that ship.
`podscale calibrate serving FILE --out F` is the same, and reads what `vllm bench serve`, SGLang and GenAI-Perf write; a
scenario then says `calibration: F`. These runs gain more than most: where a table mixes splits, or the errors lie in what no
engine's constant stands for, the residuals that are printed say that nothing was won.
"""

import csv
from pathlib import Path
from tempfile import TemporaryDirectory

from clusters.measurements import read_csv
from parallel.calibration.serving_own import calibrate_file
from parallel.validation.serving_rows import cells

WANTED = {"model": "MiniMaxAI/MiniMax-M2.5", "system": "h200_sxm", "engine_version": "0.16.0", "tp": "4"}


def main() -> None:
    rows = [row for row in cells(read_csv("serving_silicon.csv")) if all(row[k] == v for k, v in WANTED.items())]
    with TemporaryDirectory() as folder:
        table = Path(folder) / "load_test.csv"
        for many in (1, len(rows)):
            with table.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.DictWriter(stream, rows[0].keys())
                writer.writeheader()
                writer.writerows(rows[:many])
            told = calibrate_file(table, Path(folder) / "mine.yaml")
            fitted = ", ".join(f"{name} {value:.3g}" for name, value in told["constants"].items())
            print(f"{many} run{'s' if many > 1 else ''}, {told['level']}: {fitted}")
            for metric, held in told["residuals"].items():
                unseen = held["after"].get("held_out", {}).get("median")
                after = f", {unseen:.1%} of runs left out of the fit" if unseen else ""
                print(f"  {metric.upper()} off by {held['before']['median']:.1%} in the median before{after}")


if __name__ == "__main__":
    main()
