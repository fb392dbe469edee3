import pytest
from official_tree import rows, touch

from stretchysnake.data import load_benchmark

DISHES = ["cereals", "coffee", "friedegg", "juice", "milk", "pancake", "salat", "sandwich"]
DISHES += ["scrambledegg", "tea"]


@pytest.fixture
def root(tmp_path):
    """Every participant prepares one dish before three cameras, one of them stereo."""
    for number in range(3, 55):
        person, dish = f"P{number:02d}", DISHES[number % 10]
        touch(
            tmp_path,
            f"BreakfastII_15fps_qvga_sync/{person}/cam01/{person}_{dish}.avi",
            f"BreakfastII_15fps_qvga_sync/{person}/cam01/{person}_{dish}.avi.labels",
            f"BreakfastII_15fps_qvga_sync/{person}/webcam02/{person}_{dish}.avi",
            f"BreakfastII_15fps_qvga_sync/{person}/stereo/{person}_{dish}_ch0.avi",
            f"BreakfastII_15fps_qvga_sync/{person}/stereo/{person}_{dish}_ch1.avi",
        )
    return tmp_path


def people(records):
    return sorted({record.group for record in records})


def numbered(*numbers):
    return [f"P{number:02d}" for number in numbers]


def test_the_default_split_is_timeceptions(root):
    train, test = (load_benchmark("breakfast", root, subset) for subset in ("train", "test"))
    assert people(train) == numbered(*range(3, 47))
    assert people(test) == numbered(*range(47, 55))


@pytest.mark.parametrize(
    ("split", "first", "last"), [("s1", 3, 15), ("s2", 16, 28), ("s3", 29, 41), ("s4", 42, 54)]
)
def test_the_official_folds_hold_out_thirteen_people_each(root, split, first, last):
    train, test = (load_benchmark("breakfast", root, s, split=split) for s in ("train", "test"))
    assert people(test) == numbered(*range(first, last + 1))
    assert set(people(train)) == set(numbered(*range(3, 55))) - set(people(test))


def test_only_the_first_stereo_channel_counts(root):
    paths = [record.path for record in load_benchmark("breakfast", root, "test")]
    assert len(paths) == 8 * 3
    assert any(path.endswith("_ch0.avi") for path in paths)
    assert not any(path.endswith("_ch1.avi") for path in paths)


def test_the_label_is_the_dish_in_alphabetical_order(root):
    found = rows(load_benchmark("breakfast", root, "train"), root)
    assert found[0] == ("BreakfastII_15fps_qvga_sync/P03/cam01/P03_juice.avi", 3, "juice")
    assert {(label, name) for _, label, name in found} == set(enumerate(DISHES))


@pytest.mark.parametrize(
    "name",
    [
        "P03/cam01/P03_tea.avi",
        "P03-cam01-P03_tea.avi",
        "videos/P03_cam01_P03_tea.mp4",
        "P03/stereo01/P03_tea_ch0.avi",
    ],
)
def test_flat_copies_are_read_too(tmp_path, name):
    touch(tmp_path, name)
    assert rows(load_benchmark("breakfast", tmp_path), tmp_path) == [(name, 9, "tea")]


@pytest.mark.parametrize("name", ["P01/cam01/P01_tea.avi", "P03/cam01/P03_salad.avi"])
def test_other_people_and_dishes_are_named(root, name):
    touch(root, name)
    with pytest.raises(ValueError, match=f"{name}: found P0"):
        load_benchmark("breakfast", root)


def test_an_empty_folder_says_where_to_get_the_videos(tmp_path):
    with pytest.raises(ValueError, match=r"breakfast: no P03/cam01/P03_cereals.avi .*serre-lab"):
        load_benchmark("breakfast", tmp_path)
