"""What nccl-tests prints, in three of its forms and every way cut short: points, lines not used, or a fault with its line."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.calibration.nccl_log import NO_TEST, Log, bus_factor, parse, read_log, system_of
from topo.errors import SpecError

FILES = Path(__file__).parent / "nccl"
HEADER = "#  size  count  type  redop  root  time  algbw  busbw  #wrong  time  algbw  busbw  #wrong\n"
RANKS = "".join(
    f"#  Rank {i:2d} Group  0 Pid   2200 on     node-a device {i:2d} [0000:1b:00] NVIDIA H100 80GB HBM3\n"
    for i in range(4)
)
NAMED = "# Collective test starting: all_reduce_perf\n# nThread 1 nGpus 4 minBytes 8 maxBytes 8 step: 2(factor)\n"
ROW = "     1048576        262144     float     sum      -1    20.00   52.43   78.64       0    21.00   49.93   74.90       0\n"
LOG = NAMED + RANKS + HEADER + ROW


def counts(log: Log) -> dict[str, int]:
    return {held["reason"]: held["count"] for held in log.unused}


def kinds(log: Log) -> set[tuple[str, str, int, int]]:
    return {(point.op, point.system, point.ranks, point.nodes) for point in log.points}


# --- the three files -------------------------------------------------------------------------------------------------


def test_one_node_with_several_tests_and_nccls_own_log() -> None:
    log = read_log(FILES / "one-node-h100.log")
    assert kinds(log) == {
        ("all_reduce", "h100-sxm", 8, 1),
        ("all_gather", "h100-sxm", 8, 1),
        ("all_gather", "h100-sxm", 4, 1),
    }
    assert len(log.points) == 33
    assert counts(log) == {NO_TEST: 2, "NCCL's own log": 6, "no constants for broadcast": 3}
    assert log.warnings == ()


def test_a_row_that_nccls_log_broke_in_two_is_mended() -> None:
    first = read_log(FILES / "one-node-h100.log").points[0]
    assert first.size_bytes == 8192
    assert first.seconds == pytest.approx(16.2e-6)


def test_a_broken_row_is_forgotten_where_the_next_test_begins() -> None:
    broken = "     1048576        262144     float     sum      -1node-a:1:2 [0] NCCL INFO Connected all rings\n"
    assert len(parse(NAMED + RANKS + HEADER + broken + NAMED + "  20.00  52.43  78.64  0\n" + LOG).points) == 1


def test_two_nodes_with_the_tags_of_mpirun() -> None:
    log = read_log(FILES / "two-nodes-h200.log")
    ops = {"all_reduce", "reduce_scatter", "all_to_all", "send_recv"}
    assert kinds(log) == {(op, "h200-sxm", 16, 2) for op in ops}
    assert len(log.points) == 4 * 12
    assert counts(log) == {NO_TEST: 1}


def test_an_early_version_is_named_by_the_command_above_it() -> None:
    log = read_log(FILES / "early-a100.log")
    assert kinds(log) == {("reduce_scatter", "a100-sxm-80", 8, 1)}
    assert len(log.points) == 21


def test_an_early_version_may_be_named_by_its_file_or_by_a_flag(tmp_path: Path) -> None:
    text = (FILES / "early-a100.log").read_text().split("\n", 1)[1]
    (tmp_path / "reduce_scatter_perf_8.txt").write_text(text)
    assert len(read_log(tmp_path / "reduce_scatter_perf_8.txt").points) == 21
    assert len(parse(text, op="reduce-scatter").points) == 21
    with pytest.raises(SpecError, match="which test it was is not said"):
        parse(text)


@pytest.mark.parametrize("file", sorted(FILES.iterdir()), ids=lambda file: file.name)
def test_every_line_is_a_point_told_or_a_comment(file: Path) -> None:
    log = read_log(file)
    told = {point.line for point in log.points}
    for held in log.unused:
        for part in held["lines"].split(", "):
            first, _, end = part.partition("-")
            told |= set(range(int(first), int(end or first) + 1))
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        assert number in told or "#" in line or line.endswith(":")


# --- rows ------------------------------------------------------------------------------------------------------------


def test_the_time_is_the_mean_of_both_parts_where_both_are_checked() -> None:
    assert parse(LOG).points[0].seconds == pytest.approx(20.5e-6)
    swap = LOG.replace("all_reduce", "alltoall").replace("78.64", "39.32").replace("74.90", "37.45")
    assert parse(swap).points[0].seconds == pytest.approx(20e-6)


def test_rows_with_one_part_blank_reduction_stamp_or_statistics_are_read() -> None:
    one = ROW.replace("    20.00   52.43   78.64       0", " " * 32)
    assert parse(LOG.replace(ROW, one)).points[0].seconds == pytest.approx(21e-6)
    blank = LOG.replace("   sum      -1", "   ")
    assert parse(blank).points[0].seconds == pytest.approx(20.5e-6)
    stamped = LOG.replace("#wrong\n", "#wrong  timestamp\n").replace(ROW, ROW.rstrip() + "  2026-01-02 03:04:05\n")
    assert parse(stamped).points[0].seconds == pytest.approx(20.5e-6)
    four = "   19.0   22.0   21.9   1.5"
    wide = LOG.replace("#wrong", "#wrong i_min i_max i_p99 i_cv%").replace(
        ROW, ROW.replace("78.64       0", "78.64  0" + four).rstrip() + four + "\n"
    )
    assert parse(wide).points[0].seconds == pytest.approx(20.5e-6)


@pytest.mark.parametrize(
    "prefix", ["[1,0]<stdout>:", "[1,0]<stdout>: ", "0: ", "(head, rank=0, pid=38) [1,0]<stdout>:"]
)
def test_what_launchers_put_before_a_line_is_taken_off(prefix: str) -> None:
    assert len(parse("".join(prefix + line + "\n" for line in LOG.splitlines())).points) == 1


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("78.64       0", "78.64       3", "its results are wrong"),
        ("  time ", "  cputime ", "CPU time: the launch without the collective"),
        ("all_reduce_perf", "hypercube_perf", "no constants for hypercube"),
        ("Rank  3 Group  0", "Rank  0 Group  1", "several groups at once, which disturb one another"),
    ],
)
def test_rows_that_say_nothing_are_told(old: str, new: str, reason: str) -> None:
    both = LOG.replace(old, new) + LOG
    assert counts(parse(both)) == {reason: 1}
    assert len(parse(both).points) == 1
    with pytest.raises(SpecError, match=reason.split(":", maxsplit=1)[0]):
        parse(LOG.replace(old, new))


def test_na_in_the_last_column_is_no_wrong_result() -> None:
    assert len(parse(LOG.replace("       0", "     N/A")).points) == 1


def test_wrong_values_and_graphs_are_warned_of() -> None:
    log = parse(LOG.replace("factor)", "factor) graph: 2") + "# Out of bounds values : 3 FAILED\n")
    assert ["replayed" in log.warnings[0], "3 wrong values" in log.warnings[1]] == [True, True]


def test_a_comment_that_nobody_knows_is_told() -> None:
    assert counts(parse(LOG + "# rebooted node-b at noon\n")) == {"comment that says nothing here": 1}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("52.43", "35.43", "algbw 35.43 does not follow"),
        ("       0    21.00", " 21.00", "line 8 = "),
        ("20.00", "2O.00", "does not have the columns"),
        ("78.64", "45.88", "all_reduce of 4 ranks has 1.5"),
        (RANKS, "", "how many ranks there were is not said"),
    ],
)
def test_a_malformed_row_is_a_fault_with_file_and_line(old: str, new: str, words: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(LOG.replace(old, new) + ROW, "my.log")
    assert words in str(error.value)
    assert str(error.value).startswith("my.log: line ")


def test_all_malformed_rows_come_at_once() -> None:
    with pytest.raises(SpecError) as error:
        parse(LOG.replace("52.43", "35.43") + ROW.replace("20.00", "x") + ROW)
    assert len(error.value.faults) == 2


def test_the_flag_says_the_ranks_only_where_the_log_does_not() -> None:
    assert parse(LOG.replace(RANKS, ""), ranks=4).points[0].ranks == 4
    assert parse(LOG, ranks=16).points[0].ranks == 4


def test_a_list_of_devices_may_be_cut_in_the_middle() -> None:
    lines = RANKS.splitlines(keepends=True)
    assert parse(LOG.replace(RANKS, lines[0] + lines[3])).points[0].ranks == 4


@pytest.mark.parametrize("text", ["", "hello\n", "\0\1\2", HEADER + ROW.replace("float", "")])
def test_a_file_without_a_test_is_told(text: str) -> None:
    with pytest.raises(SpecError):
        parse(text)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        read_log(tmp_path / "absent.log")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_log_cut_anywhere_gives_points_or_a_fault(data: st.DataObject) -> None:
    text = (FILES / data.draw(st.sampled_from(["one-node-h100.log", "early-a100.log"]))).read_text()
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    full = {(point.size_bytes, point.seconds) for point in parse(text).points}
    try:
        log = parse(text[:end])
    except SpecError:
        pass
    else:
        assert isinstance(log, Log)
        known = {(point.size_bytes, point.seconds) for point in log.points[:-1]}
        assert known <= full
    for part in (text[start:end], text[:start] + text[end:]):
        try:
            assert isinstance(parse(part, ranks=8, op="all_reduce"), Log)
        except SpecError as error:
            assert error.faults  # noqa: PT017


def test_names_of_drivers() -> None:
    names = {
        "NVIDIA A100-SXM4-40GB": "a100-sxm-40",
        "A100-SXM4-80GB": "a100-sxm-80",
        "NVIDIA H100 80GB HBM3": "h100-sxm",
        "NVIDIA H100 NVL": "",
        "NVIDIA H200": "h200-sxm",
        "NVIDIA H20": "h20",
        "NVIDIA GB200": "gb200",
        "NVIDIA B200": "b200-sxm",
        "NVIDIA GH200 480GB": "gh200",
        "AMD Instinct MI300X OAM": "mi300x",
        "Tesla T4": "",
    }
    assert {name: system_of(name) for name in names} == names


def test_bus_factors_are_those_of_nccl_tests() -> None:
    assert [bus_factor(op, 4) for op in ("all_reduce", "all_to_all", "send_recv")] == [1.5, 0.75, 1.0]


# --- tables ----------------------------------------------------------------------------------------------------------


def test_a_table_of_kernels_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv.gz"
    lines = [
        "system,op,impl,num_gpus,message_bytes,latency_us",
        "h100_sxm,all_reduce,NCCL,8,1024,10",
        "h100_sxm,all_reduce,vllm_graph,8,1024,5",
        "h100_sxm,all_reduce,vllm_eager,8,1024,5",
        "h100_sxm,alltoall,NCCL,8,1024,10",
        "h100_sxm,broadcast,NCCL,8,1024,10",
    ]
    with gzip.open(file, "wt") as stream:
        stream.write("\n".join(lines))
    log = read_log(file)
    assert [(point.op, point.regime) for point in log.points] == [
        ("all_reduce", "nccl"),
        ("all_reduce", "graph"),
        ("all_to_all", "nccl"),
    ]
    assert counts(log) == {"no regime for the kernels of vllm_eager": 1, "no constants for broadcast": 1}


def test_a_table_of_benchmarks_takes_its_time_from_the_bus_bandwidth(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    rows = ["h100-sxm,all-reduce,16,2,1e9,187.5,", "h100-sxm,all_gather,8,1,1e6,,7", "h100-sxm,all_gather,8,1,,80,"]
    file.write_text("\n".join(["system,op,ranks,nodes,message_bytes,busbw_GBps,latency_us", *rows]))
    log = read_log(file)
    assert [point.seconds for point in log.points] == pytest.approx([1e-2, 7e-6])
    assert sum(counts(log).values()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("system,op\nx,y\n", "no such column"),
        ("system,op,ranks,nodes,latency_us\nh100,all_reduce,8,1,fast\n", "no number"),
        ("system,op,ranks,nodes\nh100,all_reduce,8,1\n", "no row that can be used"),
    ],
)
def test_a_wrong_table_is_told(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(text)
    with pytest.raises(SpecError, match=words):
        read_log(file)


def test_a_test_named_outside_holds_for_a_log_without_its_comments(tmp_path):
    file = tmp_path / "bare.txt"
    file.write_text(
        "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n"
        "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)\n"
        "     1048576        262144     float     sum      -1    50.00   20.97   36.70      0    50.00   20.97   36.70      0\n",
        encoding="utf-8",
    )
    [point] = read_log(file, 8, "all_reduce").points
    assert (point.op, point.ranks, point.size_bytes, point.seconds) == ("all_reduce", 8, 2**20, pytest.approx(50e-6))
