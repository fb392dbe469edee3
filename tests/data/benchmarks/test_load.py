import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from official_tree import touch, write

from stretchysnake.data import BENCHMARKS, load_benchmark, read_records, write_records

CLASS_LIST = "1 Archery\n2 Bowling\n"
UCF101 = {
    "ucfTrainTestlist/classInd.txt": CLASS_LIST,
    "ucfTrainTestlist/trainlist01.txt": "Archery/v_Archery_g08_c01.avi 1\n",
    "ucfTrainTestlist/testlist01.txt": "Bowling/v_Bowling_g01_c01.avi\n",
}
# One small official file of each kind, for the fuzzing below.
OFFICIAL = {
    "ucf101": UCF101,
    "hmdb51": {"splits/climb_test_split1.txt": "a_climb_x.avi 1 \nb_climb_x.avi 2 \n"},
    "coin": {
        "COIN.json": '{"database": {"-a": {"subset": "training", "recipe_type": 3, "class": "Cut"}}}'
    },
    "ssv2": {
        "labels/labels.json": '{"Holding something": "0"}',
        "labels/train.json": '[{"id": "1", "template": "Holding [something]"}]',
    },
    "diving48": {"Diving48_V2_train.json": '[{"vid_name": "-a_1", "label": 0}]'},
    "kinetics400": {
        "annotations/train.csv": "label,youtube_id,time_start,time_end,split\nyoga,-a,0,10,train\n"
    },
    "lvu": {"lvu_1.0/scene/train.csv": "class_id class_name youtube_id imdb_id\n0 office -a tt1\n"},
}
OPTIONS = {"lvu": {"task": "scene"}}


def test_the_nine_benchmarks_are_there():
    names = "breakfast coin diving48 hmdb51 kinetics400 kinetics700 lvu ssv2 ucf101"
    assert sorted(BENCHMARKS) == names.split()
    for benchmark in BENCHMARKS.values():
        assert "train" in benchmark.subsets and benchmark.queries in benchmark.subsets


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            ("ucf-101",),
            {},
            r"benchmark \('ucf-101'\) must be one of: ucf101, .*; did you mean ucf101\?",
        ),
        (("imagenet",), {}, r"benchmark \('imagenet'\) must be one of"),
        (
            ("ucf101", "tests"),
            {},
            r"ucf101 subset \('tests'\) must be one of: train, test; did you mean test\?",
        ),
        (("ucf101", "val"), {}, r"ucf101 subset \('val'\) must be one of: train, test"),
        (("ucf101", "train", 4), {}, r"ucf101 split \(4\) must be one of: 1, 2, 3"),
        (("ucf101", "train", True), {}, r"ucf101 split \(True\)"),
        (
            ("breakfast", "train", "s5"),
            {},
            r"breakfast split \('s5'\) must be one of: 1, s1, s2, s3, s4",
        ),
        (("coin", "train", 2), {}, r"coin split \(2\) must be one of: 1"),
        (("ucf101",), {"task": "scene"}, r"ucf101 option \(task\) is not known; it has none"),
        (
            ("lvu",),
            {"tasks": "scene"},
            r"lvu option \('tasks'\) must be one of: task; did you mean task\?",
        ),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(tmp_path, arguments, options, message):
    name, *rest = arguments
    with pytest.raises(ValueError, match=message):
        load_benchmark(name, tmp_path, *rest, **options)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"absent: no such folder; give the folder that holds ucf101"
    ):
        load_benchmark("ucf101", tmp_path / "absent")


@pytest.mark.parametrize("name", [n for n in BENCHMARKS if n not in ("breakfast", "kinetics700")])
def test_a_missing_official_file_says_where_to_get_it(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: no \S+ under .*; get it from http") as raised:
        load_benchmark(name, tmp_path, **OPTIONS.get(name, {}))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", OFFICIAL)
@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_damaged_official_files_raise_typed_errors_only(tmp_path, name, data):
    files = dict(OFFICIAL[name])
    victim = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[victim].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content)))
        end = position + data.draw(st.integers(0, 3))
        content[position:end] = data.draw(st.binary(max_size=3))
    write(tmp_path, files)
    (tmp_path / victim).write_bytes(content)
    try:
        records = load_benchmark(name, tmp_path, "train", **OPTIONS.get(name, {}))
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert all(record.label >= 0 and record.path for record in records)


def test_a_written_benchmark_reads_back_equal(tmp_path):
    write(tmp_path, UCF101)
    records = load_benchmark("ucf101", tmp_path)
    write_records(tmp_path / "elsewhere.csv", records)
    assert read_records(tmp_path / "elsewhere.csv") == records


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    root = write(tmp_path / "root", UCF101)
    touch(tmp_path / "disk", "Archery/v_Archery_g08_c01.avi")
    os.symlink(tmp_path / "disk", root / "UCF-101")
    os.symlink(root, root / "loop")
    assert load_benchmark("ucf101", root)[0].path == str(
        root / "UCF-101/Archery/v_Archery_g08_c01.avi"
    )
