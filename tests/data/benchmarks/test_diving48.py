import pytest
from official_tree import rows, touch, write

from stretchysnake.data import load_benchmark

VOCABULARY = [
    ["Back", "15som", "05Twis", "FREE"],
    ["Back", "15som", "15Twis", "FREE"],
    ["Back", "Dive", "NoTwis", "PIKE"],
]


def item(name, label):
    return {"vid_name": name, "label": label, "start_frame": 0, "end_frame": 48}


@pytest.fixture
def root(tmp_path):
    train = [item("-mmq0PT-u8k_00155", 0), item("_0hmX9z_s8I_00001", 2)]
    write(
        tmp_path,
        {
            "Diving48_V2_train.json": train,
            "Diving48_V2_test.json": [item("-mmq0PT-u8k_00156", 1)],
            "Diving48_train.json": [item("-mmq0PT-u8k_00155", 2)],  # V1: other labels
            "Diving48_vocab.json": VOCABULARY,
        },
    )
    return touch(
        tmp_path, "rgb/-mmq0PT-u8k_00155.mp4", "rgb/_0hmX9z_s8I_00001.mp4", "rgb/unlisted_00001.mp4"
    )


def test_v2_labels_vocabulary_and_odd_names(root):
    assert rows(load_benchmark("diving48", root, "train"), root) == [
        ("rgb/-mmq0PT-u8k_00155.mp4", 0, "Back-15som-05Twis-FREE"),
        ("rgb/_0hmX9z_s8I_00001.mp4", 2, "Back-Dive-NoTwis-PIKE"),
    ]


def test_clips_are_whole_and_grouped_by_competition(root):
    train, test = (load_benchmark("diving48", root, subset)[0] for subset in ("train", "test"))
    assert (train.start, train.end) == (None, None)
    assert train.group == test.group == "-mmq0PT-u8k"


def test_v1_alone_is_refused(root):
    (root / "Diving48_V2_train.json").unlink()
    with pytest.raises(
        ValueError, match=r"found .*Diving48_train.json, whose labels are wrong .*V2_train.json"
    ):
        load_benchmark("diving48", root)


def test_a_label_beyond_the_vocabulary_is_named(root):
    write(root, {"Diving48_V2_train.json": [item("a_1", 0), item("b_1", 3)]})
    with pytest.raises(
        ValueError, match=r"V2_train.json entry 1 \(label\): found 3, expected 0 to 2"
    ):
        load_benchmark("diving48", root)
    (root / "Diving48_vocab.json").unlink()
    assert [record.class_name for record in load_benchmark("diving48", root)] == ["", ""]
