from pathlib import Path

import pytest
from official_tree import rows, touch, write

from stretchysnake.data import benchmark_info, load_benchmark
from stretchysnake.data.benchmarks.kinetics import RENAMED, kinetics400_classes

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
KINETICS700 = (
    (Path(__file__).parents[2] / "fixtures/kinetics700_classes.txt").read_text("utf-8").splitlines()
)


def video_id(number):
    return f"{number:011d}"


@pytest.fixture
def root(tmp_path):
    train = (
        '"air drumming",-dbcJuKJQNs,40,50,train,0\r\n'
        "abseiling,_4YTwq0-73Y,347,357,train,1\r\n"
        '"massaging person\'s head",abc_12_3456,5,15,train,0\r\n'
    )
    write(
        tmp_path,
        {
            "annotations/train.csv": HEADER + train,
            "annotations/val.csv": HEADER
            + '"petting animal (not cat)",0wR5jVB-WPk,417,427,val,0\n',
            "annotations/test.csv": "youtube_id,time_start,time_end,split,is_cc\n00S8YMrmYSw,5,15,test,0\n",
        },
    )
    return touch(
        tmp_path,
        "train/air_drumming/-dbcJuKJQNs_000040_000050.mp4",
        "train/abseiling/_4YTwq0-73Y_000001_000011.mp4",  # another part of the same video
        "train/_4YTwq0-73Y_000347_000357.mp4",
        "train/abc_12_3456.mp4",
        "val/petting animal (not cat)/0wR5jVB-WPk.mp4",
    )


def test_labels_are_alphabetical_over_all_subsets_and_files_match_by_id_and_start(root):
    assert rows(load_benchmark("kinetics400", root, "train"), root) == [
        ("train/air_drumming/-dbcJuKJQNs_000040_000050.mp4", 1, "air drumming"),
        ("train/_4YTwq0-73Y_000347_000357.mp4", 0, "abseiling"),
        ("train/abc_12_3456.mp4", 2, "massaging person's head"),
    ]
    assert rows(load_benchmark("kinetics400", root, "val"), root) == [
        ("val/petting animal (not cat)/0wR5jVB-WPk.mp4", 3, "petting animal (not cat)")
    ]


def test_a_missing_video_keeps_its_official_name(root):
    (root / "train/air_drumming/-dbcJuKJQNs_000040_000050.mp4").unlink()
    path = load_benchmark("kinetics400", root)[0].path
    assert path == str(root / "train/-dbcJuKJQNs_000040_000050.mp4")


def test_held_out_labels_are_an_error_and_deepminds_file_names_are_known(root):
    with pytest.raises(
        ValueError, match=r"test.csv: holds no labels \(they are held out\); use subset='val'"
    ):
        load_benchmark("kinetics400", root, "test")
    (root / "annotations/val.csv").rename(root / "validate.csv")
    assert len(load_benchmark("kinetics400", root, "val")) == 1


def test_a_replacement_wins_over_the_corrupted_file(root):
    better = "replacement/replacement_for_corrupted_k400/-dbcJuKJQNs_000040_000050.mp4"
    touch(root, better)
    assert load_benchmark("kinetics400", root)[0].path == str(root / better)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path label\nx 1\n", r"train.csv line 1: found no column youtube_id in 'path label'"),
        (HEADER + "abseiling,abc\n", r"train.csv line 2: found 2 cells, expected 6"),
        (HEADER + "abseiling,abc,x,10,train,0\n", r"line 2 \(time_start\): found 'x'"),
        (
            HEADER + ",abc,0,10,train,0\nabseiling,abd,0,10,train,0\n",
            r"line 2 \(label\): found nothing",
        ),
    ],
)
def test_a_damaged_list_is_named(root, text, message):
    write(root, {"annotations/train.csv": text})
    with pytest.raises(ValueError, match=message):
        load_benchmark("kinetics400", root)


def test_the_official_order_is_the_sorted_one():
    names = kinetics400_classes()
    assert len(names) == 400
    assert list(names) == sorted(set(names))
    assert names[1] == "air drumming"
    assert set(RENAMED) <= set(names)
    assert set(RENAMED.values()) <= set(KINETICS700) - set(names)


@pytest.fixture
def roots(tmp_path):
    """All 700 classes with one training video each, beside a Kinetics-400 that shares some videos."""
    lines = [f'"{name}",{video_id(i)},0,10,train' for i, name in enumerate(KINETICS700)]
    header = "label,youtube_id,time_start,time_end,split\n"
    write(tmp_path / "k700", {"kinetics700/train.csv": header + "\n".join(lines) + "\n"})
    shared = [KINETICS700.index("acting in play"), KINETICS700.index("abseiling")]
    write(
        tmp_path / "k400",
        {
            "annotations/train.csv": HEADER + f"abseiling,{video_id(shared[1])},0,10,train,0\n",
            "annotations/test.csv": f"youtube_id,time_start,time_end,split\n{video_id(shared[0])},0,10,test\n",
        },
    )
    return tmp_path / "k700", tmp_path / "k400"


@pytest.mark.parametrize(
    ("classes", "number"), [("novel", 322), ("novel_renamed", 312), ("all", 700)]
)
def test_the_classes_absent_from_kinetics400(roots, classes, number):
    records = load_benchmark("kinetics700", roots[0], classes=classes, shared="keep")
    assert sorted({record.label for record in records}) == list(range(number))
    names = [record.class_name for record in sorted(records, key=lambda record: record.label)]
    assert names == sorted(names)
    assert ("tying necktie" in names) == (classes != "novel_renamed")
    assert ("abseiling" in names) == (classes == "all")


def test_videos_that_kinetics400_lists_too_are_dropped_and_labels_stay(roots):
    kept = load_benchmark("kinetics700", roots[0], shared="keep")
    dropped = load_benchmark("kinetics700", roots[0], kinetics400=roots[1])
    assert len(kept) - len(dropped) == 1
    gone = set(kept) - set(dropped)
    assert [record.class_name for record in gone] == ["acting in play"]
    assert set(dropped) < set(kept)


def test_info_says_how_many_videos_were_left_out(roots):
    info = benchmark_info("kinetics700", roots[0], kinetics400=roots[1])
    assert "train: 1 videos left out, Kinetics-400 lists their YouTube ids too" in list(
        info.lines()
    )


def test_both_sets_side_by_side_are_told_apart(roots):
    both = roots[0].parent
    roots[1].rename(both / "k700" / "k400")
    names = {record.class_name for record in load_benchmark("kinetics400", both / "k700")}
    assert names == {"abseiling"}
    assert len(load_benchmark("kinetics700", both / "k700", classes="all")) == 700
    (both / "k700/k400/annotations/train.csv").unlink()
    with pytest.raises(ValueError, match=r"kinetics700 lists 700 classes, expected at most 400"):
        load_benchmark("kinetics400", both / "k700")


def test_dropping_needs_the_other_annotations(roots):
    with pytest.raises(
        ValueError,
        match=r"shared \('drop'\) .*as kinetics400 \(--kinetics400 FOLDER\), or shared 'keep'",
    ):
        load_benchmark("kinetics700", roots[0])
    (roots[0] / "empty").mkdir()
    with pytest.raises(ValueError, match=r"kinetics400: no annotations/train.csv under"):
        load_benchmark("kinetics700", roots[0], kinetics400=roots[0] / "empty")
    with pytest.raises(
        ValueError, match=r"none of the 700 classes is absent .* check that kinetics400"
    ):
        load_benchmark("kinetics700", roots[0], kinetics400=roots[0])
    with pytest.raises(ValueError, match=r"kinetics700 classes \('new'\) must be one of: novel"):
        load_benchmark("kinetics700", roots[0], classes="new")
