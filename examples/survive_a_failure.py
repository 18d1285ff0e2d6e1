"""What a failure costs 64 H100 in boxes of eight: an all-reduce, training and decode of Llama 3.1 70B.

`changes` stands so in a cluster file too. The all-reduce of 64 MiB is a ring on the graph, link by link. Training and decode
are searched anew on what is left, by closed forms that know one rate for each tier: that of the slowest box, all its NICs
together. A ring is as slow as its slowest link, so what one slow NIC really costs a training run lies between its row and
that of NICs all as slow. A lost box costs training more than its eighth: 56 do not split as well as 64.
"""

from clusters.build import build
from clusters.collective import collective
from clusters.spec import parse
from parallel.explain.point import Point
from parallel.io import read_model
from parallel.questions.outcome import best_of
from parallel.workload import ServeWorkload, TrainWorkload

HEALTHY = {"accelerator": "h100-sxm", "accelerators": 64, "domain": 8, "scale_out": {"nic": "400Gb/s", "rails": 8}}
CHANGES = {
    "healthy": [],
    "a NIC at a quarter": [{"node": "nic", "at": {"domain": 3, "rail": 5}, "factor": 0.25}],
    "all NICs at a quarter": [{"node": "nic", "at": {"rail": "0:8"}, "factor": 0.25}],
    "a rail at half": [{"node": "nic", "at": {"rail": 5}, "to": "leaf", "factor": 0.5}],
    "an NVSwitch lost": [{"node": "scale-up-switch", "at": {"domain": 3, "port": 0}}],
    "a box lost": [{"node": "accelerator", "at": {"domain": 3}}],
}
TRAIN = TrainWorkload(global_batch=448)  # seven boxes share it evenly, and eight
SERVE = ServeWorkload(isl=2048, osl=512, tpot_s=0.03, precision="fp8")


def main() -> None:
    model = read_model("llama-3.1-70b")
    first: list[float] = []
    for name, changes in CHANGES.items():
        spec = parse({"name": name, **HEALTHY, "changes": changes}, wiring=True)
        cluster = build(spec)
        took_s = collective(cluster, "all_reduce", cluster.usable, 2**26, "ring", "stepwise")["time_s"]
        found = [best_of(Point(phase, model, spec, TRAIN, SERVE), spec).tokens_per_s for phase in ("train", "decode")]
        first = first or found
        train, decode = (rate / whole for rate, whole in zip(found, first, strict=True))
        print(f"{name:<22} {cluster.usable} left, all-reduce {took_s * 1e3:.2f} ms, ", end="")
        print(f"training {train:>4.0%}, decode {decode:>4.0%}")


if __name__ == "__main__":
    main()
