import pytest
from official_tree import rows, touch, write

from stretchysnake.data import load_benchmark

# The order of the official file, in which case is ignored: sorted() puts HammerThrow and JumpRope first of their pairs.
CLASSES = [
    "ApplyEyeMakeup",
    "Hammering",
    "HammerThrow",
    "HandstandPushups",
    "JumpingJack",
    "JumpRope",
]
CLASS_LIST = "".join(f"{number} {name}\r\n" for number, name in enumerate(CLASSES, 1))


def clip(name, group, number=1, file_name=None):
    return f"{name}/v_{file_name or name}_g{group:02d}_c{number:02d}.avi"


HANDSTAND = clip("HandstandPushups", 8, file_name="HandStandPushups")
TRAIN = [clip("ApplyEyeMakeup", 8), clip("HammerThrow", 9), HANDSTAND, clip("JumpRope", 25)]
TEST = [clip("ApplyEyeMakeup", 1), clip("Hammering", 7), clip("JumpingJack", 2)]
INDICES = [1, 3, 4, 6]


@pytest.fixture
def root(tmp_path):
    lists = {
        "ucfTrainTestlist/classInd.txt": CLASS_LIST,
        "ucfTrainTestlist/trainlist01.txt": "".join(
            f"{name} {index}\r\n" for name, index in zip(TRAIN, INDICES, strict=True)
        ),
        "ucfTrainTestlist/testlist01.txt": "".join(f"{name}\r\n" for name in TEST),
        "ucfTrainTestlist/trainlist02.txt": f"{TEST[0]} 1\n",
        "ucfTrainTestlist/testlist02.txt": f"{TRAIN[0]}\n",
    }
    return touch(write(tmp_path, lists), *(f"UCF-101/{name}" for name in TRAIN + TEST))


def test_labels_follow_the_official_order_and_not_the_sorted_one(root):
    found = rows(load_benchmark("ucf101", root, "train"), root)
    assert found == [
        (f"UCF-101/{name}", index - 1, CLASSES[index - 1])
        for name, index in zip(TRAIN, INDICES, strict=True)
    ]


def test_a_test_list_without_labels_gets_them_from_the_folder(root):
    found = rows(load_benchmark("ucf101", root, "test", split=1), root)
    assert [(label, name) for _, label, name in found] == [
        (0, "ApplyEyeMakeup"),
        (1, "Hammering"),
        (4, "JumpingJack"),
    ]
    assert not any(part.endswith("\r") for row in found for part in row if isinstance(part, str))


def test_a_test_list_with_labels_appended_by_a_mirror_reads_the_same(root):
    plain = load_benchmark("ucf101", root, "test")
    write(root, {"ucfTrainTestlist/testlist01.txt": "".join(f"{name} 1\n" for name in TEST)})
    assert load_benchmark("ucf101", root, "test") == plain


def test_group_split_and_the_other_splits(root):
    record = load_benchmark("ucf101", root, "train")[1]
    assert (record.group, record.split) == ("HammerThrow_g09", "train")
    assert (record.start, record.end) == (None, None)
    assert rows(load_benchmark("ucf101", root, "test", split=2), root)[0][0].endswith(TRAIN[0])
    with pytest.raises(ValueError, match=r"ucf101: no trainlist03.txt .*crcv\.ucf\.edu"):
        load_benchmark("ucf101", root, split=3)


@pytest.mark.parametrize(
    "on_disk",
    [
        "UCF-101/HandStandPushups/v_HandStandPushups_g08_c01.avi",  # a mirror that renames the folder
        "UCF-101/HandstandPushups/v_HandstandPushups_g08_c01.avi",  # and one that renames the files
        "videos/HandstandPushups/v_HandStandPushups_g08_c01.mp4",  # converted
        "v_HandStandPushups_g08_c01.avi",
    ],
)
def test_handstand_pushups_is_found_under_every_spelling(root, on_disk):
    (root / "UCF-101" / HANDSTAND).unlink()
    touch(root, on_disk)
    assert rows(load_benchmark("ucf101", root), root)[2] == (on_disk, 3, "HandstandPushups")


def test_the_folder_of_the_list_may_be_spelled_either_way(root):
    line = "HandStandPushups/v_HandStandPushups_g08_c01.avi 4\n"
    write(root, {"ucfTrainTestlist/trainlist01.txt": line})
    assert rows(load_benchmark("ucf101", root), root)[0][1:] == (3, "HandstandPushups")


def test_missing_videos_are_kept_with_their_official_path(root):
    (root / "UCF-101" / TRAIN[1]).unlink()
    found = load_benchmark("ucf101", root)
    assert len(found) == len(TRAIN)
    assert found[1].path == str(root / "UCF-101" / TRAIN[1])


def test_a_class_that_classind_lacks_is_named(root):
    write(root, {"ucfTrainTestlist/testlist01.txt": f"{TEST[0]}\nWalking/v_Walking_g01_c01.avi\n"})
    with pytest.raises(ValueError, match=r"testlist01.txt line 2: found class 'Walking'"):
        load_benchmark("ucf101", root, "test")


def test_lists_may_lie_elsewhere(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("lists") / "ucfTrainTestlist"
    (root / "ucfTrainTestlist").rename(elsewhere)
    with pytest.raises(
        ValueError,
        match=r"no classInd.txt .*UCF101TrainTestSplits.*as annotations \(--annotations FOLDER\)",
    ):
        load_benchmark("ucf101", root)
    assert len(load_benchmark("ucf101", root, annotations=elsewhere)) == len(TRAIN)
