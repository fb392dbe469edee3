import pytest
from official_tree import rows, touch, write

from stretchysnake.data import load_benchmark

HEADER = "class_id class_name youtube_id imdb_id\n"
RELATIONSHIP = (
    HEADER + "0 friend -e6lEsIUf3U tt0161100\n3 boyfriend_girlfriend abcdefghijk tt0000002\n"
)
WRITER = HEADER + "0 \\N -e6lEsIUf3U tt0161100\n9 nm0000095 abcdefghijk tt0000002\n"


@pytest.fixture
def root(tmp_path):
    write(
        tmp_path,
        {
            "lvu_1.0/relationship/train.csv": RELATIONSHIP,
            "lvu_1.0/writer/train.csv": WRITER,
            "lvu_1.0/writer/test.csv": HEADER + "2 nm0000108 zzzzzzzzzzz tt0000003\n",
            "lvu_1.0/like_ratio/train.csv": "like_count dislike_count youtube_id imdb_id\n1 2 a b\n",
        },
    )
    return touch(tmp_path, "videos/-e6lEsIUf3U.mp4", "videos/abcdefghijk.mkv")


def test_blank_separated_and_ids_that_begin_with_a_dash(root):
    assert rows(load_benchmark("lvu", root, task="relationship"), root) == [
        ("videos/-e6lEsIUf3U.mp4", 0, "friend"),
        ("videos/abcdefghijk.mkv", 3, "boyfriend_girlfriend"),
    ]


def test_class_ids_keep_their_gaps_and_the_unknown_writer_is_a_class(root):
    found = load_benchmark("lvu", root, "train", task="writer")
    assert [(r.label, r.class_name, r.group) for r in found] == [
        (0, "\\N", "tt0161100"),
        (9, "nm0000095", "tt0000002"),
    ]
    assert load_benchmark("lvu", root, "test", task="writer")[0].path == str(
        root / "videos/zzzzzzzzzzz.mp4"
    )


def test_the_task_must_be_one_of_seven(root):
    with pytest.raises(
        ValueError, match=r"lvu task is not given and must be one of: relationship, way_sp"
    ):
        load_benchmark("lvu", root)
    with pytest.raises(ValueError, match=r"lvu task \('like_ratio'\) must be one of"):
        load_benchmark("lvu", root, task="like_ratio")


def test_a_missing_and_a_torn_list_are_named(root):
    with pytest.raises(ValueError, match=r"lvu: no writer/val.csv .* get it from .*lvu_1.0.tar.gz"):
        load_benchmark("lvu", root, "val", task="writer")
    write(root, {"lvu_1.0/writer/test.csv": HEADER + "2 nm0000108 zzz\n"})
    with pytest.raises(
        ValueError, match=r"writer/test.csv line 2: found 3 blank-separated cells, expected 4"
    ):
        load_benchmark("lvu", root, "test", task="writer")
