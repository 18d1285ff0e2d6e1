"""The blackboard, read: what a lecture says of models on wires, by its own arithmetic and by the whole model."""

from parallel.claims import CLAIMS, ITEMS, claim, find, row_of
from parallel.claims.claim import RELATIONS, cases
from parallel.economics import PriceSheet, infer


def show(name: str, **given: str) -> None:
    """Print a claim's simple arithmetic beside what its source says."""
    one = find(name)
    v = one.values(given)
    print(f"  {one.text}")
    print(f"    source {one.relation} {one.expected:g} {one.unit}; its own arithmetic gives {one.simple(v):.4g}")


print(f"{len(CLAIMS)} claims in {len(ITEMS)} parts; a claim is {', '.join(RELATIONS)} a number, within a factor\n")

print("Slips of the source:")
for name in ("active-experts", "trains-per-second", "cache-per-token"):
    show(name)

print("\nThe 20 ms train, by data sheet and by what a read reaches and an engine leaves:")
row = row_of(find("train-interval"))
inside = [case["case"] for case in row["cases"] if 0.016 <= case["simple"] <= 0.025]
times = [1e3 * case["simple"] for case in row["cases"]]
print(
    f"  {min(times):.0f} to {max(times):.0f} ms on {len(times)} parts; within a quarter of 20 ms: {', '.join(inside)}"
)
print(f"  verdict: {row['verdict']}")

print("\nThe optimal batch, changed:")
for experts in ("32", "8"):
    show("optimal-batch", active_experts=experts)

print("\nA pipeline of racks: exchange over hop has to be 1 or more")
for part in ("h100-sxm", "gb200", "rubin-vr200"):
    one = find("rack-pipeline")
    print(f"  {part:<12} simple {one.simple(one.values({'accelerator': part})):.2f}")

print("\nHow far a trillion and a hundred trillion parameters fit:")
for name in ("trillion-in-rack", "one-domain"):
    one = find(name)
    told = ", ".join(f"{case['case']} {case['simple']:.2f}" for case in cases(one, {}))
    print(f"  {name}: memory over weights {told}")

print("\nA price sheet, read backwards: 2.50 in, 12.50 out, 0.25 for a hit, half as much again above 200k tokens")
leak = infer(PriceSheet(2.5, 12.5, 0.25, 1.5, 200e3), active_parameters=(50e9, 200e9), flop_per_byte=(180.0, 310.0))
low, high = leak.kv_bytes_per_token
print(
    f"  {low / 1e3:.1f} to {high / 1e3:.1f} kB of cache per token; decode uses {leak.decode_utilisation:.0%} of its compute"
)

print("\nWhat moves the price of an hour (per cent for one per cent, simple arithmetic):")
for moved in claim("cheap-money")["sensitivity"]:
    print(f"  {moved['input']:<10} {moved['simple']:+.2f}")
