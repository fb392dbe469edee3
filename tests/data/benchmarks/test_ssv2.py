import pytest
from official_tree import rows, touch, write

from stretchysnake.data import load_benchmark

LABELS = {
    "Approaching something with your camera": "0",
    "Holding something next to something": "1",
    "Pushing something from left to right": "2",
    "Stacking number of something": "3",
    "Taking one of many similar things on the table": "4",
    "Touching (without moving) part of something": "5",
}
TEMPLATES = [
    "Approaching [something] with your camera",
    "Holding [something] next to [something]",
    "Pushing [something] from left to right",
    "Stacking [number of] [something]",
    "Taking [one of many similar things on the table]",
    "Touching (without moving) [part] of [something]",
]
IDS = ["78687", "9", "1000", "220847", "42", "100"]


def items(ids):
    return [
        {"id": video, "label": "holding a potato", "template": template, "placeholders": ["x"]}
        for video, template in zip(ids, TEMPLATES, strict=True)
    ]


RELEASES = {
    "older": "something-something-v2-{}.json",
    "newer": "labels/{}.json",
}


@pytest.fixture(params=RELEASES)
def root(tmp_path, request):
    name = RELEASES[request.param]
    write(
        tmp_path,
        {
            name.format("labels"): LABELS,
            name.format("train"): items(IDS),
            name.format("validation"): items([str(500 + i) for i in range(6)]),
            name.format("test"): [{"id": "7"}, {"id": "8"}],
        },
    )
    touch(tmp_path, *(f"20bn-something-something-v2/{video}.webm" for video in IDS))
    return tmp_path


def test_brackets_go_and_ids_sort_as_numbers(root):
    expected = [
        (
            f"20bn-something-something-v2/{video}.webm",
            IDS.index(video),
            list(LABELS)[IDS.index(video)],
        )
        for video in sorted(IDS, key=int)
    ]
    assert rows(load_benchmark("ssv2", root, "train"), root) == expected


def test_validation_is_val_and_counts_what_is_missing(root):
    records = load_benchmark("ssv2", root, "val")
    assert [record.label for record in records] == [0, 1, 2, 3, 4, 5]
    assert {record.split for record in records} == {"val"}
    assert records[0].path == str(root / "20bn-something-something-v2/500.webm")


def test_a_test_subset_without_labels_points_to_val(root):
    with pytest.raises(ValueError, match=r"no labels/test-answers.csv .* subset='val'"):
        load_benchmark("ssv2", root, "test")


def test_the_newer_release_brings_the_test_answers(root):
    lines = "8;Pushing something from left to right\r\n7;Stacking number of something\r\n"
    write(root, {"labels/test-answers.csv": lines})
    touch(root, "mp4/7.mp4")
    assert rows(load_benchmark("ssv2", root, "test"), root) == [
        ("mp4/7.mp4", 3, "Stacking number of something"),
        ("20bn-something-something-v2/8.webm", 2, "Pushing something from left to right"),
    ]


def test_a_jester_file_of_the_same_name_is_told_apart(root):
    for name in RELEASES.values():
        if (root / name.format("train")).exists():
            write(root, {name.format("train"): [{"id": "1", "template": "Swiping Left"}]})
    with pytest.raises(
        ValueError, match=r"train.json entry 0 \(template\): found 'Swiping Left'.*Jester"
    ):
        load_benchmark("ssv2", root)
