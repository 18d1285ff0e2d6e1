"""Columns against a loop over rows, and spaces against nested loops."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel import strategy
from parallel.strategy import Columns, Space, powers_of_two
from topo.errors import SpecError

NAMES = ("tp", "pp", "dp")
Table = dict[str, list[float]]

quick = settings(max_examples=50, deadline=None)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    rows = draw(st.integers(1, 12))
    values = st.sampled_from([0.5, 1.0, 2.0, 3.0, 8.0])
    return {name: draw(st.lists(values, min_size=rows, max_size=rows)) for name in NAMES}


subsets = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)


def rows_of(table: Table, names: list[str]) -> list[tuple[float, ...]]:
    return list(zip(*(table[name] for name in names), strict=True))


@pytest.fixture(params=[64, 0], ids=["table of presence", "sort"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy, "_SPARSE", request.param)


# --- columns ------------------------------------------------------------------------------------------------------


@quick
@given(tables())
def test_columns_hold_what_they_were_made_of(table: Table) -> None:
    block = Columns.of(**table)
    assert list(block) == list(NAMES)
    assert len(block) == 3
    assert block.rows == len(table["tp"])
    for name, values in table.items():
        assert block[name].tolist() == values


def test_scalars_are_repeated_and_unequal_lengths_refused() -> None:
    assert Columns.of(tp=2, pp=[1, 4])["tp"].tolist() == [2.0, 2.0]
    assert Columns.of(tp=2).rows == 1
    with pytest.raises(ValueError, match="broadcast"):
        Columns.of(tp=[1, 2, 3], pp=[1, 2])


@quick
@given(tables(), st.data())
def test_take_equals_picking_rows_one_by_one(table: Table, data: st.DataObject) -> None:
    rows = len(table["tp"])
    picked = data.draw(st.lists(st.integers(0, rows - 1), max_size=20))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    block = Columns.of(**table)
    for name, values in table.items():
        assert block.take(np.array(picked, dtype=np.int64))[name].tolist() == [values[i] for i in picked]
        assert block.take(mask)[name].tolist() == [v for v, kept in zip(values, mask, strict=True) if kept]


@quick
@given(tables(), st.data())
def test_row_equals_the_row_of_the_table(table: Table, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(table["tp"]) - 1))
    row = Columns.of(**table).row(index)
    assert row == {name: values[index] for name, values in table.items()}
    assert all(isinstance(value, int) == float(value).is_integer() for value in row.values())


@pytest.mark.usefixtures("_way")
class TestDistinct:
    @quick
    @given(tables(), subsets)
    def test_distinct_rows_are_those_of_a_set_and_gather_back(self, table: Table, names: list[str]) -> None:
        sub, where = Columns.of(**table).distinct(names)
        rows = rows_of(table, names)
        found = rows_of({name: sub[name].tolist() for name in names}, names)
        assert sorted(found) == sorted(set(rows))
        assert [found[i] for i in where] == rows

    @quick
    @given(tables(), subsets)
    def test_derived_column_equals_the_formula_row_by_row(self, table: Table, names: list[str]) -> None:
        def formula(columns: Columns) -> np.ndarray:
            return sum((columns[name] * (i + 2) for i, name in enumerate(names)), np.zeros(columns.rows))

        block = Columns.of(**table).derive("new", names, formula)
        assert block["new"].tolist() == [sum(v * (i + 2) for i, v in enumerate(row)) for row in rows_of(table, names)]
        assert [block[name].tolist() for name in NAMES] == [table[name] for name in NAMES]

    @quick
    @given(tables(), subsets)
    def test_pricing_on_distinct_rows_equals_pricing_every_row(self, table: Table, names: list[str]) -> None:
        priced: list[int] = []

        def price(columns: Columns) -> dict[str, np.ndarray]:
            priced.append(columns.rows)
            value = np.prod([columns[name] for name in names], axis=0)
            return {"value": value, "pair": np.stack([value, -value]), "constant": np.asarray(7.0)}

        found = Columns.of(**table).on_distinct(names, price)
        rows = rows_of(table, names)
        expected = [float(np.prod(row)) for row in rows]
        assert priced == [len(set(rows))]
        assert found["value"].tolist() == expected
        assert found["pair"].tolist() == [expected, [-v for v in expected]]
        assert found["constant"].tolist() == [7.0] * len(rows)

    def test_a_derived_column_can_be_derived_from(self) -> None:
        block = Columns.of(tp=[1, 2, 2], pp=[4, 2, 1]).derive("model", ["tp", "pp"], lambda c: c["tp"] * c["pp"])
        block = block.derive("dp", ["model"], lambda c: 8 / c["model"])
        assert block["dp"].tolist() == [2.0, 2.0, 4.0]

    def test_an_empty_block_stays_empty(self) -> None:
        block = Columns.of(tp=[1, 2]).take(np.array([], dtype=np.int64))
        assert block.rows == 0
        assert block.derive("dp", ["tp"], lambda c: c["tp"])["dp"].tolist() == []
        assert block.on_distinct(["tp"], lambda c: {"x": c["tp"]})["x"].tolist() == []


# --- spaces -------------------------------------------------------------------------------------------------------

axes = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True), min_size=1, max_size=4)


@quick
@given(axes, st.data())
def test_decoding_equals_nested_loops_with_the_last_axis_fastest(levels: list[list[int]], data: st.DataObject) -> None:
    space = Space(tuple((f"axis {i}", tuple(map(float, values))) for i, values in enumerate(levels)))
    rows = list(product(*levels))
    assert space.size == len(rows)
    lo = data.draw(st.integers(0, len(rows)))
    hi = data.draw(st.integers(lo, len(rows) + 3))
    block = space.decode(lo, hi)
    assert list(zip(*(block[f"axis {i}"] for i in range(len(levels))), strict=True)) == rows[lo:hi]


def test_blocks_of_a_space_join_to_the_whole() -> None:
    space = Space((("tp", (1, 2, 4)), ("pp", (1, 3)), ("dp", (5, 7))))
    whole = space.decode(0, space.size)
    for name in whole:
        parts = [space.decode(lo, lo + 5)[name] for lo in range(0, space.size, 5)]
        assert np.concatenate(parts).tolist() == whole[name].tolist()


def test_every_empty_axis_is_named() -> None:
    with pytest.raises(SpecError) as error:
        Space((("tp", ()), ("pp", (1,)), ("dp", ())))
    assert [fault.field for fault in error.value.faults] == ["tp", "dp"]


@pytest.mark.parametrize(
    ("limit", "powers"), [(0, (1,)), (1, (1,)), (7, (1, 2, 4)), (8, (1, 2, 4, 8)), (9, (1, 2, 4, 8))]
)
def test_powers_of_two_end_at_the_limit(limit: int, powers: tuple[int, ...]) -> None:
    assert powers_of_two(limit) == powers


def test_a_formula_sees_only_the_columns_it_names() -> None:
    seen: list[str] = []

    def formula(columns: Columns) -> np.ndarray:
        seen.extend(columns)
        return columns["tp"]

    Columns.of(tp=[1, 2], pp=1, dp=[3, 4]).derive("x", ["tp"], formula)
    assert seen == ["tp"]


def test_filling_adds_the_missing_columns_alone() -> None:
    block = Columns.of(tp=[1, 2, 4]).filled({"tp": 8, "sp": 1})
    assert block["tp"].tolist() == [1, 2, 4]
    assert block["sp"].tolist() == [1, 1, 1]
    assert block.filled({"tp": 3}) is block


# --- trees --------------------------------------------------------------------------------------------------------


@quick
@given(axes, st.data())
def test_a_tree_of_any_rows_equals_the_same_rows_without_one(levels: list[list[int]], data: st.DataObject) -> None:
    space = Space(tuple((f"axis {i}", tuple(map(float, values))) for i, values in enumerate(levels)))
    index = np.array(data.draw(st.lists(st.integers(0, space.size - 1), max_size=200)), dtype=np.int64)
    names = data.draw(st.lists(st.sampled_from([name for name, _ in space.axes]), unique=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategy, "_FEW", 1)
        tree = space.at(index)
    parts = zip(space.axes, np.unravel_index(index, space.shape), strict=True)
    flat = {name: np.array(values, dtype=np.float64)[code].tolist() for (name, values), code in parts}
    assert list(tree) == list(flat)
    assert {name: tree[name].tolist() for name in tree} == flat
    sub, where = tree.distinct(names)
    rows = set(zip(*(flat[name] for name in names), strict=True)) if names else set(index[:0].tolist())
    assert not names or sorted(zip(*(sub[name].tolist() for name in names), strict=True)) == sorted(rows)
    assert all(sub[name][where].tolist() == flat[name] for name in names)
    picked = data.draw(st.lists(st.integers(0, len(index) - 1), max_size=20)) if len(index) else []
    some = tree.take(np.array(picked, dtype=np.int64))
    assert {name: some[name].tolist() for name in some} == {name: [flat[name][i] for i in picked] for name in flat}


def test_prices_of_a_slower_floor_pass_through_the_floors_above() -> None:
    block = Columns.of(tp=[1, 2, 2, 1], pp=[1, 1, 4, 4], zero=[0, 1, 0, 1])

    def stage(cols: Columns) -> strategy.Floor:
        layer = cols.on_distinct(["tp"], lambda sub: {"layer": 10 * sub["tp"], "same": 10 * sub["tp"]})
        return layer | {"stage": layer["layer"] / cols["pp"], "same": cols["pp"]}

    floor = block.on_distinct(["tp", "pp"], stage)
    assert set(floor) == {"layer", "same", "stage"}
    assert len(floor) == 3
    assert floor["layer"].tolist() == [10, 20, 20, 10]
    assert floor["stage"].tolist() == [10, 20, 5, 2.5]
    assert floor["same"].tolist() == [1, 1, 4, 4]
    with pytest.raises(KeyError):
        floor["none"]


def test_each_row_takes_its_choice_of_a_price_of_several() -> None:
    block = Columns.of(tp=[1, 2, 2], zero=[0, 0, 1])
    floor = block.on_distinct(["tp"], lambda sub: {"held": np.stack([sub["tp"], 10 * sub["tp"]])})
    which = block["zero"].astype(np.int64)
    assert floor.chosen("held", which).tolist() == [1, 2, 20]
    assert (floor | {"held": floor["held"]}).chosen("held", which).tolist() == [1, 2, 20]


def test_a_memo_keeps_the_last_few_blocks() -> None:
    memo, priced = strategy.Memo(2), []

    def price(cols: Columns) -> dict[str, np.ndarray]:
        priced.append(cols["tp"].tolist())
        return {"x": cols["tp"]}

    for tp in (1, 2, 1, 3, 3, 1):
        assert Columns.of(tp=tp, pp=7).on_distinct(["tp"], price, memo)["x"].tolist() == [tp]
    assert priced == [[1], [2], [3], [1]]
