import pytest
from official_tree import rows, touch, write

from stretchysnake.data import load_benchmark


def item(subset, label=131, name="ReplaceCDDriveWithSSD"):
    return {
        "duration": 131.03,
        "class": name,
        "video_url": "https://www.youtube.com/embed/x",
        "start": 56.6,
        "end": 85.7,
        "subset": subset,
        "recipe_type": label,
        "annotation": [{"id": "212", "segment": [60.0, 69.0], "label": "take out the drive"}],
    }


DATABASE = {
    "-Dash_first": item("training"),
    "upperUPPER1": item("training", 0, "UseAnalyticalBalance"),
    "upperupper1": item("train", 179, "WrapGiftBox"),
    "testing0001": item("testing"),
    "testing0002": item("validation", 0, "UseAnalyticalBalance"),
    "testing0003": item("val"),
    "testing0004": item("test"),
}


@pytest.fixture
def root(tmp_path):
    write(tmp_path, {"COIN.json": {"database": DATABASE}})
    touch(tmp_path, *(f"videos/{v['recipe_type']}/{k}.mp4" for k, v in DATABASE.items()))
    return tmp_path


def test_the_label_is_the_recipe_type_from_zero(root):
    assert rows(load_benchmark("coin", root, "train"), root) == [
        ("videos/131/-Dash_first.mp4", 131, "ReplaceCDDriveWithSSD"),
        ("videos/0/upperUPPER1.mp4", 0, "UseAnalyticalBalance"),
        ("videos/179/upperupper1.mp4", 179, "WrapGiftBox"),
    ]


def test_every_spelling_of_the_held_out_subset_is_the_test_subset(root):
    groups = [record.group for record in load_benchmark("coin", root, "test")]
    assert groups == ["testing0001", "testing0002", "testing0003", "testing0004"]


def test_the_whole_video_is_the_clip(root):
    record = load_benchmark("coin", root)[0]
    assert (record.start, record.end, record.split) == (None, None, "train")


def test_any_container_and_a_flat_folder_are_found_ids_keep_their_case(root):
    (root / "videos/0/upperUPPER1.mp4").unlink()
    assert load_benchmark("coin", root)[1].path.endswith("videos/0/upperUPPER1.mp4")
    touch(root, "flat/upperUPPER1.webm")
    assert load_benchmark("coin", root)[1].path == str(root / "flat/upperUPPER1.webm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"subset": "holdout"},
            r"COIN.json entry 'x' \(subset\): found 'holdout', expected one of",
        ),
        (
            {"recipe_type": "131"},
            r"COIN.json entry 'x' \(recipe_type\): found '131', expected a whole number",
        ),
        ({"recipe_type": -1}, r"COIN.json entry 'x' \(recipe_type\): found '-1'"),
        ({"class": None}, r"COIN.json entry 'x' \(class\): found 'None', expected a string"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, message):
    write(tmp_path, {"COIN.json": {"database": {"x": item("training") | change}}})
    with pytest.raises(ValueError, match=message):
        load_benchmark("coin", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"COIN.json line 1 column 2: is no valid JSON"),
        ("[]", r"COIN.json: found no object at the top"),
        ("{}", r"COIN.json \(database\): found 'None', expected an object"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, message):
    write(tmp_path, {"COIN.json": text})
    with pytest.raises(ValueError, match=message):
        load_benchmark("coin", tmp_path)
