"""How to serve a model under limits: searched over splits, clients and pools, on scale-up domains of 8 and of 72.

`podscale serve scenarios/deepseek-v3-rack.yaml --search --flags` prints the same in full, with every engine's launch flags.
"""

from dataclasses import replace

from clusters.build import build
from clusters.spec import load, with_
from parallel.io import read_model
from parallel.serving.mappings import Ask
from parallel.serving.search import search
from parallel.serving.trust import trusted
from podscale.servewords import mapping_words

RACK = load("gb200-nvl72")
ASK = Ask(
    read_model("deepseek-v3"), build(RACK), "fp8", 4096, 1024, (trusted("sglang"),), ttft_s=3.0, tpot_s=0.03,
    requests_per_s=40.0,
)  # fmt: skip


def main() -> None:
    for domain in (8, 72):
        told = search(replace(ASK, cluster=build(with_(RACK, domain=domain))))
        print(f"domains of {domain}, 72 GPUs: {told['points']:,} mappings priced, {told['feasible']:,} keep the limits")
        for kind, best in told["best"].items():
            rate, made = best["tokens_per_s_per_gpu"], best["simulated"]
            print(f"  {kind:<13} {mapping_words(best):<24} {rate:>5,.0f} tokens/s/GPU, ", end="")
            print(f"simulated TTFT {made['ttft_s']:.2f} s, TPOT {made['tpot_s'] * 1e3:.1f} ms")
        few = told["fewest"]
        print(f"  40 requests/s take {few['gpus_used']} GPUs: {mapping_words(few)}")
    for role, launched in told["deploy"].items():
        print(f"{role}, as SGLang is told:\n  {launched['text']}")


if __name__ == "__main__":
    main()
