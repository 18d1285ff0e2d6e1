"""Count DeepSeek-V3 from its published shape: parameters, active parameters, FLOPs and key-value cache.

Everything follows from the fields of its `config.json`. The paper (arXiv 2412.19437) states 671 B parameters, of which
37 B are active for a token; the cache of its latent attention is (512 + 64) values per layer and token.
"""

from parallel.io import read_model
from parallel.models import (
    active_parameters,
    flops_per_token_forward,
    kv_bytes_per_sequence,
    kv_bytes_per_token,
    layer_count,
    layer_parameters,
    mtp_parameters,
    parameters,
)

CONTEXT = 4096


def main() -> None:
    model = read_model("deepseek-v3")
    print(f"{model.name}: {layer_count(model)} layers, hidden size {model.hidden}, {model.vocab} tokens")
    for kind in model.layers:
        one, active = layer_parameters(model, kind), layer_parameters(model, kind, active=True)
        print(f"  {kind.count:>2} x {kind.name:<6} {one / 1e9:>6.2f} B each, {active / 1e9:.2f} B active")
    print(f"parameters            {parameters(model) / 1e9:>8.2f} B")
    print(f"  of one token        {active_parameters(model) / 1e9:>8.2f} B")
    print(f"  prediction modules  {mtp_parameters(model) / 1e9:>8.2f} B on top")

    flops = {name: float(value) for name, value in flops_per_token_forward(model, CONTEXT).items()}
    print(f"forward, {CONTEXT} tokens  {sum(flops.values()) / 1e9:>8.2f} GFLOP per token")
    for name, value in flops.items():
        print(f"  {name:<22} {value / sum(flops.values()):>6.1%}")

    print(f"key-value cache       {kv_bytes_per_token(model):>8,.0f} bytes per token (BF16)")
    print(f"  {CONTEXT} tokens         {float(kv_bytes_per_sequence(model, CONTEXT)) / 2**20:>8.1f} MiB")


if __name__ == "__main__":
    main()
