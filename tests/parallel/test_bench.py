"""The benchmark's keys, on few and small blocks: its figures are for machines, not for tests."""

import pytest

from collectives import bench as collectives_bench
from parallel import bench
from topo import bench as topo_bench

KEYS = {
    "train_points_per_s_per_core",
    "train_moe_points_per_s_per_core",
    "serve_points_per_s_per_core",
    "rejected_per_s",
    "terms_per_point",
    "quotient_s",
    "tiers_s",
    "collective_s",
    "reference_s",
    "quotient_500k_s",
    "tiers_500k_s",
    "expand_100k_s",
    "expand_100k_MiB",
    "min_cut_100k_s",
    "all_to_all_16k_s",
    "stepwise_all_reduce_512_s",
    "stepwise_all_to_all_512_s",
    "stepwise_all_to_all_4096_s",
    "quotient_all_to_all_100k_s",
}


@pytest.fixture
def document(monkeypatch):
    monkeypatch.setattr(bench, "BLOCK", 1 << 10)
    monkeypatch.setattr(bench, "PLACES", 2)
    monkeypatch.setattr(bench, "RUN", 1)
    monkeypatch.setattr(bench, "topo_bench", lambda: topo_bench.bench(4096, 1024, 1024))
    monkeypatch.setattr(bench, "collectives_bench", lambda: collectives_bench.bench(64, 128, 1024))
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "best_of", lambda work, repeats=1, measure=bench.best_of: measure(work, repeats))
    return bench.bench()


def test_every_figure_is_there_and_positive(document):
    assert set(document) >= KEYS
    assert all(document[key] > 0 for key in KEYS)
    assert document["repeats"] == 1
    assert "Python" in document["machine"]


def test_terms_count_exposed_busy_and_memory(document, bind, valid):
    bound = bind("train", "deepseek-v3", "gb200-nvl72", 576)
    priced = bound.price(valid(bound, 20))
    assert document["terms_per_point"] == len(priced.terms) + len(priced.busy) + len(priced.memory)


def test_the_least_of_several_runs_counts():
    runs = []
    seconds = bench.best_of(lambda: runs.append(sum(range(20_000 * (3 - len(runs))))), repeats=3)
    assert len(runs) == 3
    assert seconds > 0
