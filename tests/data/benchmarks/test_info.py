import shutil

import pytest
from official_tree import touch, write

from stretchysnake import cli
from stretchysnake.data import benchmark_info, read_records
from stretchysnake.results.rows import read_rows

LISTS = {
    "ucfTrainTestlist/classInd.txt": "1 Archery\n2 Bowling\n",
    "ucfTrainTestlist/trainlist01.txt": "Archery/v_Archery_g08_c01.avi 1\n"
    "Archery/v_Archery_g08_c02.avi 1\nBowling/v_Bowling_g09_c01.avi 2\n",
    "ucfTrainTestlist/testlist01.txt": "Archery/v_Archery_g01_c01.avi\nBowling/v_Bowling_g02_c01.avi\n",
}
CLIPS = [
    f"UCF-101/{line.split()[0]}"
    for name, text in LISTS.items()
    if "list01" in name
    for line in text.splitlines()
]


@pytest.fixture
def root(tmp_path):
    return touch(write(tmp_path / "ucf", LISTS), *CLIPS)


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def test_a_complete_set_has_exit_code_0_and_says_source_and_licence(root, capsys):
    assert run("data", "info", "ucf101", root) == 0
    printed = capsys.readouterr().out
    assert (
        "train  3 listed (official: 9537), 3 found, 0 missing; 2 classes of 1 to 2 videos"
        in printed
    )
    assert "same file in train and test: 0" in printed
    assert "licence: none stated" in printed
    assert "UCF101.rar" in printed


def test_missing_videos_are_counted_named_and_written(root, tmp_path, capsys):
    (root / CLIPS[1]).unlink()
    (root / CLIPS[4]).unlink()
    code = run("data", "info", "ucf101", root, "--missing", tmp_path / "missing.txt")
    printed = capsys.readouterr().out
    assert code == 1
    assert "2 found, 1 missing" in printed and "1 found, 1 missing" in printed
    assert f"missing from train: {root / CLIPS[1]}" in printed
    assert (tmp_path / "missing.txt").read_text() == f"{root / CLIPS[1]}\n{root / CLIPS[4]}\n"


def test_doubled_videos_are_named(root):
    touch(root, "copy/v_Archery_g08_c01.mp4")
    write(root, {"ucfTrainTestlist/testlist01.txt": "Bowling/v_Bowling_g02_c01.avi\n" * 2})
    info = benchmark_info("ucf101", root)
    copy = str(root / "copy/v_Archery_g08_c01.mp4")
    assert info.doubles == {str(root / CLIPS[0]): [copy]}
    assert info.subsets["test"].listed_twice == [
        str(root / "UCF-101/Bowling/v_Bowling_g02_c01.avi")
    ]
    assert info.num_unlisted == 1  # the test clip that its list no longer names
    assert not info.is_complete


def test_files_and_groups_in_both_subsets_are_counted(root):
    both = "Archery/v_Archery_g08_c01.avi\nArchery/v_Archery_g08_c03.avi\n"
    write(root, {"ucfTrainTestlist/testlist01.txt": both})
    touch(root, "UCF-101/Archery/v_Archery_g08_c03.avi")
    info = benchmark_info("ucf101", root)
    assert info.shared_files[("train", "test")] == [str(root / CLIPS[0])]
    assert info.shared_groups[("train", "test")] == ["Archery_g08"]
    assert not info.is_complete


def test_groups_alone_do_not_make_a_set_incomplete(tmp_path):
    for subset, name in (("train", "a_1"), ("test", "a_2")):
        write(tmp_path, {f"Diving48_V2_{subset}.json": [{"vid_name": name, "label": 0}]})
        touch(tmp_path, f"rgb/{name}.mp4")
    info = benchmark_info("diving48", tmp_path)
    assert info.shared_groups[("train", "test")] == ["a"]
    assert info.is_complete


def test_a_subset_without_labels_is_said_and_does_not_count(tmp_path, capsys):
    write(
        tmp_path,
        {
            "labels/labels.json": {"Holding something": "0"},
            "labels/train.json": [{"id": "1", "template": "Holding [something]"}],
            "labels/validation.json": [{"id": "2", "template": "Holding [something]"}],
            "labels/test.json": [{"id": "3"}],
        },
    )
    touch(tmp_path, *(f"20bn-something-something-v2/{number}.webm" for number in (1, 2)))
    assert run("data", "info", "ssv2", tmp_path, "--per_class", "true") == 0
    printed = capsys.readouterr().out
    assert "test   not read: ssv2: no labels/test-answers.csv" in printed
    assert "a mirrored clip has another label (left, right): keep flips off" in printed
    assert "    0       1       1  Holding something" in printed


def test_without_the_queries_a_set_is_incomplete_and_without_any_list_an_error(root):
    (root / "ucfTrainTestlist/testlist01.txt").unlink()
    info = benchmark_info("ucf101", root)
    assert "no testlist01.txt" in info.unreadable["test"]
    assert not info.is_complete
    (root / "ucfTrainTestlist/trainlist01.txt").unlink()
    with pytest.raises(ValueError, match=r"no trainlist01\.txt"):
        benchmark_info("ucf101", root)


def test_without_a_list_the_official_number_tells(tmp_path, capsys):
    touch(tmp_path, "P03/cam01/P03_tea.avi", "P50/cam01/P50_tea.avi")
    assert run("data", "info", "breakfast", tmp_path) == 1
    assert "1 listed (official: 355)" in capsys.readouterr().out


def test_list_writes_what_the_other_verbs_read(root, tmp_path, monkeypatch, capsys):
    (root / CLIPS[0]).unlink()
    monkeypatch.chdir(root.parent)
    (tmp_path / "lists").mkdir()
    code = run(
        "data", "list", "ucf101", "ucf", "--subset", "train", "--out", tmp_path / "lists/train.csv"
    )
    assert code == 0
    assert "3 videos of ucf101 train, 1 of them not on disk" in capsys.readouterr().out
    records = read_records(tmp_path / "lists/train.csv")
    assert [record.path for record in records] == [str(root / name) for name in CLIPS[:3]]
    assert [record.label for record in records] == [0, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["data"], "data action is not given and must be one of: info, list, check"),
        (["data", "inof"], "data action (inof) must be one of"),
        (["data", "info", "ucf101"], "data info (ucf101) must name a benchmark and its folder"),
        (["data", "info", "ucf", "."], "did you mean ucf101?"),
        (["data", "info", "ucf101", "."], "ucf101: no classInd.txt under"),
        (["data", "info", "ucf101", ".", "--task", "scene"], "ucf101 option (task) is not known"),
        (["data", "info", "lvu", "."], "lvu task is not given"),
        (
            ["data", "list", "hmdb51", ".", "--split", "s1", "--out", "x"],
            "hmdb51 split ('s1') must be",
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    printed = capsys.readouterr().err.strip()
    assert text in printed
    assert len(printed.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_evaluate_counts_a_listed_query_that_is_missing(clip_folder, trained, tmp_path, capsys):
    root = write(tmp_path / "ucf", LISTS)
    for name, clip in zip(CLIPS[:4], sorted(clip_folder.rglob("*.mp4")), strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, root / name)
    for subset in ("train", "test"):
        run("data", "list", "ucf101", root, "--subset", subset, "--out", tmp_path / f"{subset}.csv")
    weights = ("--weights", trained[1].weights, "--out", tmp_path / "rows.jsonl")
    lists = ("--gallery", tmp_path / "train.csv", "--queries", tmp_path / "test.csv")
    assert run("evaluate", *weights, *lists, "--frames", "[4]", "--sizes", "[16]") == 1
    assert f"{root / CLIPS[4]}: missing" in capsys.readouterr().err
    (row,) = read_rows(tmp_path / "rows.jsonl")
    assert (row.num_queries, row.num_expected, row.num_gallery) == (1, 2, 3)
