import gzip
import json
import math
from dataclasses import asdict

import pytest

from stretchysnake.results.rows import (
    Row,
    append_rows,
    environment,
    latest,
    native_cells,
    read_rows,
    select,
)

PLAIN = {
    "run_id": "r",
    "protocol": "retrieval",
    "dataset": "motion-digits/short",
    "model": "vanilla",
    "seed": 0,
    "num_frames": 8,
    "size": 32,
    "patch_size": 8,
    "metric": "top1",
    "value": 0.5,
    "num_queries": 100,
    "num_expected": 100,
    "num_gallery": 400,
    "gflops": 1.0,
    "milliseconds": None,
    "trained": False,
    "native": False,
}


def row(**changes) -> Row:
    return Row(**(PLAIN | changes))


def test_rows_come_back_as_written(tmp_path):
    rows = [row(), row(model="ünïcode\n", value=None, status="oom", note="needs 9 GiB")]
    append_rows(tmp_path / "new" / "rows.jsonl", rows[:1])
    append_rows(tmp_path / "new" / "rows.jsonl", rows[1:])
    assert read_rows(tmp_path / "new" / "rows.jsonl") == rows


def test_compressed_rows_are_read_under_any_name_and_none_is_added(tmp_path):
    plain, packed = tmp_path / "rows.jsonl", tmp_path / "copy"
    append_rows(plain, [row(seed=seed) for seed in range(50)])
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_rows(packed) == read_rows(plain)
    before = packed.read_bytes()
    with pytest.raises(ValueError, match=r"copy\) are compressed, and none is added; gunzip them"):
        append_rows(packed, [row()])
    assert packed.read_bytes() == before
    for damaged in (before[:-20], before[:20] + bytes(30) + before[50:]):
        packed.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"copy\) are damaged, not gzip to the end"):
            read_rows(packed)


def test_torn_last_line_is_skipped_with_a_warning(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [row(), row(size=64)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.warns(UserWarning, match=r"rows.jsonl, line 2: torn last line skipped"):
        assert read_rows(path) == [row()]


def test_appending_after_a_torn_line_does_not_glue_to_it(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [row(), row(size=64)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.warns(UserWarning, match="cut off the torn last line"):
        append_rows(path, [row(size=96)])
    assert read_rows(path) == [row(), row(size=96)]


def test_appending_after_a_whole_line_without_newline_keeps_it(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [row()])
    path.write_bytes(path.read_bytes()[:-1])
    append_rows(path, [row(size=96)])
    assert read_rows(path) == [row(), row(size=96)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", r"rows.jsonl, line 2: not JSON .*found '\{not json'"),
        ("[1]", r"line 2: a row must be a JSON object; found '\[1\]'"),
        (json.dumps(PLAIN | {"acuracy": 1}), "line 2: unknown fields acuracy; a row has run_id"),
        (json.dumps({"run_id": "r"}), "line 2: missing fields protocol, dataset"),
        (json.dumps(PLAIN | {"value": 50}), r"line 2: value \(50\) must be a fraction"),
        (json.dumps(PLAIN | {"seed": "0"}), r"line 2: seed \('0'\) must be int"),
        (json.dumps(PLAIN | {"trained": 1}), r"line 2: trained \(1\) must be bool"),
    ],
    ids=["json", "list", "unknown", "missing", "percent", "type", "bool"],
)
def test_malformed_inner_line_names_file_line_and_cause(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(asdict(row()))}\n{line}\n{json.dumps(asdict(row()))}\n")
    with pytest.raises(ValueError, match=message):
        read_rows(path)


@pytest.mark.parametrize(
    "changes",
    [{"value": None}, {"status": "oom"}, {"status": "odd"}, {"value": math.nan}],
    ids=["ok without value", "oom with value", "unknown status", "nan"],
)
def test_row_refuses_a_value_that_contradicts_its_status(changes):
    with pytest.raises(ValueError, match=r"value|status"):
        row(**changes)


def test_select_takes_one_value_or_several():
    rows = [row(size=size) for size in (16, 32, 64)]
    assert select(rows, size=32) == rows[1:2]
    assert select(rows, size=(16, 64), model="vanilla") == [rows[0], rows[2]]
    with pytest.raises(ValueError, match="did you mean num_frames"):
        select(rows, num_frame=8)


def test_environment_is_plain_text():
    found = environment()
    assert {"commit", "python", "torch", "numpy", "av", "cpu", "cores", "platform"} <= found.keys()
    assert all(isinstance(value, str) for value in found.values())


def test_latest_keeps_the_last_row_of_each_cell_at_its_place():
    kinds = ("protocol", "probe"), ("dataset", "d"), ("metric", "map"), ("model", "m"), ("seed", 1)
    others = [row(**{name: value}) for name, value in (*kinds, ("num_frames", 9), ("size", 9))]
    first, again = row(value=0.1), row(value=0.9)
    assert latest([first, *others, again]) == [*others, again]
    assert latest([row(run_id="a"), row(run_id="b")]) == [row(run_id="b")]


def test_native_cells_are_where_vanilla_was_trained():
    rows = [row(native=True), row(size=64), row(num_frames=16, native=True)]
    assert native_cells(rows) == {(8, 32), (16, 32)}


def of(weights, run_id="r", **changes):
    return row(weights=weights, run_id=run_id, **changes)


def test_the_last_row_of_a_cell_counts():
    first, second, other = of("a", value=0.1), of("a", value=0.2), of("a", size=64)
    assert latest([first, other, second]) == [other, second]


@pytest.mark.parametrize(
    "rows",
    [
        [of("a"), of("b", "s")],
        [of("a"), of("b", "s", size=64)],  # no cell in common: an average would mix them
        [of("a"), of("b", "s", metric="map")],
        [of("a", seed=1), of("a"), of("b", "s", seed=1)],
    ],
)
def test_two_weights_of_one_name_and_seed_are_refused_by_their_hashes(rows):
    with pytest.raises(
        ValueError,
        match=r"model vanilla, seed \d, stands for .* a \(run r\) and b \(run s\); name one",
    ):
        latest(rows)


@pytest.mark.parametrize(
    "change",
    [{"model": "mine"}, {"seed": 1}, {"dataset": "other"}, {"protocol": "finetune"}],
    ids=lambda change: next(iter(change)),
)
def test_other_weights_of_another_place_are_no_conflict(change):
    assert len(latest([of("a"), of("b", "s", **change)])) == 2


def test_rows_that_do_not_say_their_weights():
    old, new = of("", "r"), of("a", "s", size=64)
    with pytest.raises(
        ValueError, match=r"unknown ones \(run r\) and a \(run s\), some of an earlier"
    ):
        latest([old, new])
    assert len(latest([old, of("a", "r", size=64)])) == 2  # its run's other rows say them
    assert len(latest([old, of("", "s", size=64)])) == 2  # as it always was


def test_one_model_in_two_precisions_is_refused_and_two_names_are_not():
    both = [row(), row(precision="bf16", size=64)]
    with pytest.raises(
        ValueError,
        match=r"vanilla, seed 0, was measured in fp32 and in bf16 .* evaluate --model NAME",
    ):
        latest(both)
    named = [row(), row(precision="bf16", model="vanilla bf16")]
    assert latest(named) == named
