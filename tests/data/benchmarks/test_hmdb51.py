import pytest
from official_tree import rows, touch, write

from stretchysnake.data import load_benchmark

SPLITS = "testTrainMulti_7030_splits"
CLIPS = {
    "climb": {"A_climb_f_cm_np1_ba_med_0.avi": 1, "same_name_0.avi": 2, "unused_climb_0.avi": 0},
    "climb_stairs": {"B_climb_stairs_f_cm_np1_ba_med_0.avi": 1, "same_name_0.avi": 1},
    "brush_hair": {
        "April_09_brush_hair_u_nm_np1_ba_goo_0.avi": 1,
        "a;strange!(name)+_brush_hair_h_nm_np1_fr_goo_3.avi": 1,
        "with blanks_brush_hair_u_cm_np1_le_bad_2.avi": 2,
    },
    "sword": {"C_sword_f_cm_np1_fr_med_1.avi": 2},
    "sword_exercise": {"D_sword_exercise_f_cm_np1_fr_med_1.avi": 1},
}
CLASSES = sorted(CLIPS)


@pytest.fixture
def root(tmp_path):
    for name, clips in CLIPS.items():
        text = "".join(f"{clip} {code} \r\n" for clip, code in clips.items())
        write(tmp_path, {f"{SPLITS}/{name}_test_split1.txt": text})
        other = "".join(f"{clip} {(code + 1) % 3} \n" for clip, code in clips.items())
        write(tmp_path, {f"{SPLITS}/{name}_test_split2.txt": other})
        touch(tmp_path, *(f"hmdb51_org/{name}/{clip}" for clip in clips))
    return tmp_path


@pytest.mark.parametrize(("subset", "code"), [("train", 1), ("test", 2)])
def test_codes_choose_and_zero_is_in_neither(root, subset, code):
    assert sorted(rows(load_benchmark("hmdb51", root, subset), root)) == sorted(
        (f"hmdb51_org/{name}/{clip}", CLASSES.index(name), name)
        for name, clips in CLIPS.items()
        for clip, found in clips.items()
        if found == code
    )


def test_the_other_split_reads_its_own_files(root):
    first = {record.path for record in load_benchmark("hmdb51", root, "train", split=1)}
    second = {record.path for record in load_benchmark("hmdb51", root, "train", split=2)}
    assert second == {str(root / "hmdb51_org/climb/unused_climb_0.avi")}
    assert not first & second
    with pytest.raises(ValueError, match=r"no testTrainMulti_7030_splits/<class>_test_split3.txt"):
        load_benchmark("hmdb51", root, split=3)


def test_a_missing_clip_is_not_replaced_by_one_of_another_class(root):
    (root / "hmdb51_org/climb/same_name_0.avi").unlink()
    paths = [record.path for record in load_benchmark("hmdb51", root, "test")]
    assert str(root / "hmdb51_org/climb/same_name_0.avi") in paths
    assert str(root / "hmdb51_org/climb_stairs/same_name_0.avi") not in paths


def test_the_group_is_the_film(root):
    groups = {record.group for record in load_benchmark("hmdb51", root, "train")}
    assert {"brush_hair/April_09", "climb_stairs/B", "brush_hair/a;strange!(name)+"} <= groups


def test_class_folders_directly_under_root(root):
    for folder in (root / "hmdb51_org").iterdir():
        folder.rename(root / folder.name)
    path = load_benchmark("hmdb51", root, "train")[0].path
    assert path == str(root / "brush_hair" / next(iter(CLIPS["brush_hair"])))


@pytest.mark.parametrize("line", ["clip.avi 3", "clip.avi", "clip.avi one"])
def test_another_code_is_named(root, line):
    write(root, {f"{SPLITS}/sword_test_split1.txt": f"a.avi 1 \n{line}\n"})
    with pytest.raises(
        ValueError, match=r"sword_test_split1.txt line 2 column 2 \(code\): found '"
    ):
        load_benchmark("hmdb51", root)
