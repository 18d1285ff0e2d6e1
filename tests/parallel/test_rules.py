"""Each rule has a strategy that breaks it and nothing else; the data-parallel size against a plain search."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.build import Cluster, build
from clusters.spec import load, with_
from parallel.hybrids import hybrid, hybrid_names
from parallel.io import read_model
from parallel.models import Mlp, Model
from parallel.placement import ORDERS, world
from parallel.rules import (
    DECODE_RULES,
    SERVE_RULES,
    TRAIN_RULES,
    Rule,
    Setting,
    check,
    data_parallel,
    divides,
    first_broken,
)
from parallel.strategy import Columns
from parallel.training.step import SCHEDULES
from parallel.workload import ServeWorkload, TrainWorkload
from topo.errors import SpecError

quick = settings(max_examples=50, deadline=None)
NEAR = float(ORDERS.index("tp-cp-ep-pp-dp"))
DEEPSEEK, LLAMA, GPT_OSS = (read_model(name) for name in ("deepseek-v3", "llama-3.1-8b", "gpt-oss-120b"))


@lru_cache
def cluster(accelerators: int = 256) -> Cluster:
    return build(with_(load("hgx-h100"), accelerators=accelerators, domain=8))


def odd_width() -> Model:
    return replace(LLAMA, layers=(replace(LLAMA.layers[0], mlp=Mlp(14337)),))


@dataclass(frozen=True)
class Case:
    """What differs from the valid strategy."""

    changes: dict[str, float]
    model: Model = DEEPSEEK
    work: TrainWorkload | ServeWorkload | None = None


#: 2 · 32 · 4 = 256 ranks, 30 micro-batches.
TRAIN: dict[str, float] = {
    "used": 8,
    "order": 0,
    "tp": 2,
    "sp": 1,
    "cp": 1,
    "ep": 8,
    "etp": 1,
    "micro_batch": 1,
    "pp": 4,
    "vpp": 1,
    "schedule": 0,
    "dp": 32,
    "recompute": 0,
    "ep_overlap": 0,
    "zero": 1,
}
SERVE: dict[str, float] = {"used": 8, "tp": 2, "ep": 8, "pp": 2, "microbatches": 2, "batch": 4}
WORK = TrainWorkload(sequence=4096, global_batch=960)

TRAIN_CASES = {
    "training prices no indexed attention": Case({}, read_model("deepseek-v3.2")),
    "tp divides the attention heads": Case({"tp": 3, "dp": 16}, GPT_OSS),  # 64 heads; no dense MLP
    "tp divides the MLP width": Case({"ep": 1}, odd_width()),
    "ep needs experts": Case({"ep": 2}, LLAMA),
    "ep divides the experts": Case({"ep": 24, "dp": 12}),
    "etp divides the expert width": Case({"etp": 3, "dp": 12}),
    "cp divides the sequence": Case({"cp": 3, "dp": 8}),
    "stages hold at least one layer": Case({"tp": 1, "pp": 64, "dp": 4, "ep": 4}),
    "interleaving needs stages": Case({"pp": 1, "vpp": 2}),
    "the ranks suffice": Case({"dp": 64}),
    "expert groups tile the ranks": Case({"ep": 64, "dp": 16}),
    "the batch divides": Case({"dp": 28}),
    "micro-batches fill whole rounds": Case({"vpp": 2}),
    "the schedule runs with these numbers": Case({"schedule": SCHEDULES.index("zb-h1"), "vpp": 2}),
    "near pipelines fold onto the expert grid": Case({"order": NEAR}),
    "overlapped exchange needs experts on several ranks and interleaving": Case({"ep_overlap": 1}),
    "copies of shards divide the replicas": Case({"replicate": 3}),
    "recomputing some layers is full recomputation": Case({"recompute_layers": 4}),
    "the layout places the layers on these stages": Case({}, work=replace(WORK, layout="E(t*15|)*3t*15L")),
    "a domain holds its ranks": Case({"used": 9}),
}
SERVE_CASES = {
    "tp divides the attention heads": Case({"tp": 3, "ep": 12}, GPT_OSS),
    "tp divides the MLP width": Case({"ep": 1, "microbatches": 1}, odd_width()),
    "ep needs experts": Case({"ep": 2}, LLAMA),
    "attention groups tile the expert group": Case({"tp": 8, "ep": 12}),
    "every rank of a prompt has two pieces of it": Case({"cp": 4}, work=ServeWorkload(isl=8192, cached=8185)),
    "a recurrent state is computed in order": Case({"cp": 4}, hybrid(hybrid_names()[0])),
    "an entry is made of positions of one rank": Case({"cp": 4}, read_model("deepseek-v4-flash")),
    "stages hold at least one layer": Case({"tp": 1, "ep": 4, "pp": 64}),
    "a replica fits the cluster": Case({"ep": 256, "pp": 2}),
    "micro-batches are whole": Case({"tp": 1, "batch": 3}),
    "two micro-batches need an exchange to hide": Case({"ep": 1}),
    "a domain holds its ranks": Case({"used": 9}),
    "the exchange kernels reach the whole expert group": Case({"ep": 16}, work=ServeWorkload(exchange="one-sided")),
}
DECODE_CASES = {"context parallelism is of prompts": Case({"cp": 4})}
Table = tuple[tuple[Rule, ...], dict[str, Case], dict[str, float], TrainWorkload | ServeWorkload]
TABLES: dict[str, Table] = {
    "train": (TRAIN_RULES, TRAIN_CASES, TRAIN, WORK),
    "serve": (SERVE_RULES, SERVE_CASES, SERVE, ServeWorkload()),
    "decode": (DECODE_RULES[-1:], DECODE_CASES, SERVE, ServeWorkload()),
}
EVERY_RULE = [pytest.param(table, rule, id=f"{table}: {rule.name}") for table in TABLES for rule in TABLES[table][0]]


def judged(table: str, case: Case) -> tuple[tuple[Rule, ...], Columns, Setting]:
    rules, _, valid, work = TABLES[table]
    setting = Setting(case.model, cluster(), case.work or work)
    return rules, Columns.of(**{**valid, **case.changes}), setting


def broken(table: str, case: Case) -> list[str]:
    """Names of all rules that a strategy breaks, from the error of `check`."""
    try:
        check(*judged(table, case))
    except SpecError as error:
        return [fault.problem.removeprefix("breaks the rule: ") for fault in error.faults]
    return []


# --- the tables ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "rule"), EVERY_RULE)
def test_every_rule_has_a_strategy_that_breaks_it_alone(table: str, rule: Rule) -> None:
    case = TABLES[table][1][rule.name]  # a new rule needs a case
    assert broken(table, case) == [rule.name]
    rules, cols, setting = judged(table, case)
    assert rules[int(first_broken(rules, cols, setting)[0])] is rule


@pytest.mark.parametrize("table", TABLES)
def test_cases_and_rules_are_the_same_set_and_each_has_a_remedy(table: str) -> None:
    rules, cases, _, _ = TABLES[table]
    assert sorted(cases) == sorted(rule.name for rule in rules)
    assert all(rule.remedy for rule in rules)


@pytest.mark.parametrize("table", TABLES)
def test_a_valid_strategy_breaks_none(table: str) -> None:
    rules, cols, setting = judged(table, Case({}))
    assert first_broken(rules, cols, setting).tolist() == [-1]
    check(rules, cols, setting)


@pytest.mark.parametrize(
    ("table", "case"),
    [
        ("train", Case({"order": NEAR, "tp": 8, "ep": 8, "dp": 8})),
        ("train", Case({"vpp": 2, "dp": 24, "ep_overlap": 1})),  # 40 micro-batches, pp 4
        ("train", Case({"ep": 1}, LLAMA)),
        ("train", Case({"cp": 2, "dp": 16})),
        ("train", Case({"dp": 20})),  # 96 ranks stay idle
        ("train", Case({"schedule": SCHEDULES.index("zb-v"), "vpp": 2})),
        ("serve", Case({"tp": 8, "ep": 1, "microbatches": 1}, LLAMA)),
        ("serve", Case({"tp": 4, "ep": 72, "pp": 1})),  # 288 slots of 256 experts
        ("serve", Case({"batch": 0.5, "tp": 4})),  # half a prompt per accelerator, two per attention group
        ("serve", Case({"tp": 8}, GPT_OSS, ServeWorkload(exchange="one-sided"))),
        ("serve", Case({"tp": 8, "ep": 1, "microbatches": 1}, LLAMA, ServeWorkload(exchange="one-sided"))),
    ],
)
def test_unusual_but_valid_strategies_pass(table: str, case: Case) -> None:
    assert broken(table, case) == []


def test_tp_may_be_a_multiple_of_the_key_value_heads() -> None:
    # Qwen3-235B: 64 heads over 4 key-value heads; tp 8 copies these, tp 3 cuts them.
    qwen = read_model("qwen3-235b-a22b")
    assert broken("serve", Case({"tp": 8, "ep": 8}, qwen)) == []
    assert broken("serve", Case({"tp": 3, "ep": 12}, qwen)) == ["tp divides the attention heads"]


def test_no_replica_at_all_is_one_fault_and_no_warning() -> None:
    assert broken("train", Case({"dp": 0})) == ["the ranks suffice"]
    assert broken("train", Case({"dp": 0, "vpp": 2})) == ["the ranks suffice"]


def test_check_raises_all_faults_with_file_field_value_and_remedy() -> None:
    rules, cols, setting = judged("train", Case({"ep": 24, "pp": 1, "vpp": 2, "cp": 3, "used": 9}))
    with pytest.raises(SpecError) as error:
        check(rules, cols, setting, "job.yaml")
    faults = error.value.faults
    assert [fault.problem.removeprefix("breaks the rule: ") for fault in faults] == [
        "ep divides the experts",
        "cp divides the sequence",
        "interleaving needs stages",
        "a domain holds its ranks",
    ]
    assert {fault.file for fault in faults} == {"job.yaml"}
    assert faults[2].field == "strategy.pp, vpp"
    assert faults[2].value == {"pp": 1, "vpp": 2}
    assert faults[3].field == "strategy.ranks_per_domain"  # as files call it
    assert all(fault.remedy for fault in faults)


@quick
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "tp": st.sampled_from([1, 2, 3, 8]),
                "ep": st.sampled_from([1, 8, 24]),
                "pp": st.sampled_from([1, 4, 64]),
                "vpp": st.sampled_from([1, 2]),
                "dp": st.sampled_from([0, 1, 12, 32]),
                "ep_overlap": st.sampled_from([0, 1]),
                "order": st.sampled_from([0, 1]),
            }
        ),
        min_size=1,
        max_size=8,
    )
)
def test_a_block_is_judged_like_its_rows_one_by_one(rows: list[dict[str, float]]) -> None:
    setting = Setting(DEEPSEEK, cluster(), WORK)
    table = [{**TRAIN, **row} for row in rows]
    block = Columns.of(**{name: [row[name] for row in table] for name in TRAIN})
    names = [rule.name for rule in TRAIN_RULES]
    expected = []
    for row in rows:
        found = broken("train", Case(row))
        expected.append(names.index(found[0]) if found else -1)
    assert first_broken(TRAIN_RULES, block, setting).tolist() == expected


@quick
@given(st.integers(1, 100), st.integers(1, 10_000))
def test_divides_is_the_remainder_of_integers(part: int, whole: int) -> None:
    assert bool(divides(np.array(float(part)), float(whole))) == (whole % part == 0)


def test_training_rules_refuse_a_serving_workload() -> None:
    rules, cols, _ = judged("train", Case({"cp": 2}))
    with pytest.raises(TypeError, match="training workload"):
        check(rules, cols, Setting(DEEPSEEK, cluster(), ServeWorkload()))


# --- the data-parallel size ---------------------------------------------------------------------------------------


@quick
@given(
    st.sampled_from([8, 64, 200, 256]),
    st.sampled_from([6, 8]),
    st.sampled_from([1, 2, 3, 8]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 4, 16, 61]),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 500),
)
def test_data_parallel_is_the_largest_that_divides_the_batch_and_fits(
    accelerators: int, used: int, tp: int, cp: int, pp: int, micro_batch: int, rounds: int
) -> None:
    batch = rounds * micro_batch
    setting = Setting(DEEPSEEK, cluster(accelerators), TrainWorkload(global_batch=batch))
    cols = Columns.of(used=used, tp=tp, cp=cp, pp=pp, micro_batch=micro_batch)
    ranks = int(world(setting.cluster, used))
    fitting = [d for d in range(1, ranks + 1) if d * tp * cp * pp <= ranks and batch % (d * micro_batch) == 0]
    assert data_parallel(setting, cols).tolist() == [max(fitting, default=0)]


def test_data_parallel_of_a_column_equals_each_row_and_leaves_ranks_idle_rather_than_fail() -> None:
    setting = Setting(DEEPSEEK, cluster(), WORK)
    cols = Columns.of(used=8, tp=[1, 2, 8, 8], cp=1, pp=[1, 4, 4, 64], micro_batch=[1, 2, 1, 1])
    found = data_parallel(setting, cols)
    assert found.tolist() == [240, 32, 8, 0]  # 256 does not divide 960; 240 does
    assert found.tolist() == [float(data_parallel(setting, cols.take(np.array([i])))[0]) for i in range(4)]
