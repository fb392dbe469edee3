import json

import numpy as np
import pytest

from stretchysnake.data import motion_digits
from stretchysnake.data.acting import SIZE, ActorPath, act_path, move_in_turn, render
from stretchysnake.data.decoding.video import probe
from stretchysnake.data.motion_digits import (
    SUITES,
    MotionDigitsSizes,
    contact_sheet,
    frame_size,
    generate,
    info,
)
from stretchysnake.data.records import read_records

pytestmark = pytest.mark.extra("probe")
SIZES = MotionDigitsSizes(source=8, source_test=4, gallery=6, query=4)


@pytest.fixture(scope="module")
def benchmark_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("motion") / "digits"
    generate(root, sizes=SIZES, num_workers=1)
    return root


def bytes_of(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_generate_is_deterministic_and_independent_of_workers(benchmark_root, tmp_path):
    generate(tmp_path / "again", sizes=SIZES, num_workers=2)
    assert bytes_of(tmp_path / "again") == bytes_of(benchmark_root)


def test_another_seed_gives_other_clips():
    a, b = (motion_digits.render_clip("fine", "train", 0, seed=seed) for seed in (0, 1))
    assert not np.array_equal(a, b)


@pytest.mark.parametrize("suite", SUITES)
def test_lists_name_files_of_the_right_length(benchmark_root, suite):
    for split, count in zip(("train", "test"), (6, 4), strict=True):
        records = read_records(benchmark_root / f"{suite}-{split}.csv")
        assert len(records) == (count if suite != "source" else {"train": 8, "test": 4}[split])
        video = probe(records[0].path)
        assert (video.num_frames, video.width, video.height, video.codec) == (
            motion_digits.NUM_FRAMES[suite],
            SIZE,
            SIZE,
            "h264",
        )
        assert all(r.class_name == info(suite)["classes"][r.label] for r in records)


def test_actors_of_train_and_test_are_disjoint():
    train, test = (
        {actor for digit in range(10) for actor in motion_digits._actors(split, digit)}
        for split in ("train", "test")
    )
    assert len(train) == 1150 and len(test) == 507 and max(train) + 138 < min(test)


def test_groups_are_the_actors_of_their_split(benchmark_root):
    for suite in SUITES:
        assert all(int(r.group) < 1150 for r in read_records(benchmark_root / f"{suite}-train.csv"))
        assert all(int(r.group) >= 1290 for r in read_records(benchmark_root / f"{suite}-test.csv"))


@pytest.mark.parametrize(
    ("suite", "num_classes"),
    {"source": 10 * len(motion_digits.SOURCE_ACTS), "short": 10, "fine": 8, "long": 24}.items(),
)
def test_info_states_classes_and_chance(suite, num_classes):
    assert len(info(suite)["classes"]) == num_classes
    assert info(suite)["chance"] == pytest.approx(1 / num_classes)


def test_suites_ask_for_other_acts_than_the_source():
    assert not set(motion_digits.SHORT_ACTS) & set(motion_digits.SOURCE_ACTS)


def test_an_interrupted_generation_goes_on(benchmark_root, tmp_path):
    calls = []

    def interrupt(text):
        calls.append(text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "m", sizes=SIZES, num_workers=1, progress=interrupt)
    assert not (tmp_path / "m" / "manifest.json").exists()
    assert not list((tmp_path / "m").rglob("*.part*"))
    generate(tmp_path / "m", sizes=SIZES, num_workers=1)
    assert bytes_of(tmp_path / "m") == bytes_of(benchmark_root)


def test_a_second_call_writes_nothing(benchmark_root, monkeypatch):
    monkeypatch.setattr(motion_digits, "write_video", None)
    monkeypatch.setattr(motion_digits, "write_records", None)
    assert set(generate(benchmark_root, sizes=SIZES)) == set(SUITES)


def test_a_lost_clip_is_written_again(benchmark_root):
    clip = benchmark_root / "fine" / "test" / "00002.mp4"
    content = clip.read_bytes()
    clip.unlink()
    generate(benchmark_root, sizes=SIZES, num_workers=1)
    assert clip.read_bytes() == content


def test_another_seed_in_the_same_folder_is_refused(benchmark_root):
    with pytest.raises(ValueError, match=r"other settings .seed 0"):
        generate(benchmark_root, sizes=SIZES, seed=1)


@pytest.mark.parametrize(
    ("aspect", "size"),
    [("1:1", (112, 112)), ("16:9", (112, 200)), ("9:16", (200, 112)), ("239:100", (112, 268))],
)
def test_the_shorter_side_stays_and_the_longer_one_is_even(aspect, size):
    assert frame_size(aspect) == size  # 199.1, 267.7


@pytest.mark.parametrize("aspect", ["wide", "16:0", "16:9:1", "-1:2"])
def test_an_aspect_that_is_none_is_told_before_a_folder_is_made(tmp_path, aspect):
    with pytest.raises(ValueError, match=r"must be width:height of whole numbers, e.g. 16:9"):
        generate(tmp_path / "m", sizes=SIZES, aspect=aspect)
    assert not (tmp_path / "m" / "settings.json").exists()


def test_wide_videos_show_the_whole_frame_and_stand_apart_from_squares(benchmark_root, tmp_path):
    few = MotionDigitsSizes(source=1, source_test=0, gallery=1, query=1)
    root = tmp_path / "wide"
    generate(root, sizes=few, num_workers=0, aspect="16:9")
    video = probe(read_records(root / "short-test.csv")[0].path)
    assert (video.width, video.height) == (200, 112)
    assert "aspect" not in json.loads((benchmark_root / "settings.json").read_text())
    for folder, other in ((root, "1:1"), (benchmark_root, "9:16")):
        with pytest.raises(
            ValueError, match=r"other settings \(seed 0, version 2, aspect (16:9|1:1)\)"
        ):
            generate(folder, sizes=few, aspect=other)


@pytest.mark.parametrize("frame", [(112, 112), (112, 200), (200, 112)])
def test_a_digit_has_its_shape_and_size_in_every_frame(frame):
    """A full block of ink at 60 % of the shorter side in the middle of the frame; its sides, over several draws."""
    height, width = frame
    sides = []
    for seed in range(12):
        middle = np.array([width / SIZE / 2]), np.array([height / SIZE / 2])
        path = ActorPath(*middle, np.zeros(1), np.full(1, 0.6), np.ones(1))
        rng = np.random.default_rng(seed)
        (picture,) = render(rng, np.full((8, 8), 16.0), path, frame=frame)
        assert picture.shape == (height * 3 // 2, width)
        ink = picture[:height] > 130
        sides.append((ink[:, width // 2].sum(), ink[height // 2].sum()))
    high, wide = np.mean(sides, 0)
    # the mask's 0.8 of a side holds the 8 x 8 pixels of ten
    assert high == pytest.approx(0.6 * SIZE, rel=0.1) and wide / high == pytest.approx(1, abs=0.1)


def test_an_actor_in_a_wide_frame_uses_its_room():
    places = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        room = (200 / SIZE, 1.0)
        path = act_path(rng, "up", num_frames=8, extent=0.5, travel=0.4, room=room)
        assert path.x[0] - 0.25 >= 0 and path.x[0] + 0.25 <= 200 / SIZE
        assert path.y.min() >= 0.25 - 1e-9 and path.y.max() <= 0.75 + 1e-9
        places.append(path.x[0])
    assert min(places) < 0.4 and max(places) > 1.35


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="choose an empty or new folder"):
        generate(tmp_path, sizes=SIZES)


def test_contact_sheet_is_a_png_of_rows(benchmark_root, tmp_path):
    labels = contact_sheet(benchmark_root, "fine", tmp_path / "sheet.png", num_clips=3)
    content = (tmp_path / "sheet.png").read_bytes()
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    assert content.startswith(b"\x89PNG") and (width, height) == (8 * (SIZE + 4), 3 * (SIZE + 4))
    assert len(labels) == 3 and set(labels) <= set(info("fine")["classes"])


def test_an_unknown_suite_is_named():
    with pytest.raises(
        ValueError, match=r"suite .'tall'. must be one of source, short, fine, long"
    ):
        info("tall")


@pytest.mark.parametrize("act", [*motion_digits.FINE_DIRECTIONS, *motion_digits.SHORT_ACTS])
def test_actors_stay_visible(act):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        path = act_path(rng, act, num_frames=32, extent=0.5, travel=0.4)
        for centre in (path.x, path.y):
            assert np.all(centre - path.extent / 2 > -0.06) and np.all(
                centre + path.extent / 2 < 1.06
            )


def test_moves_in_turn_follow_their_order():
    path = move_in_turn(
        np.random.default_rng(0), ("right", "up", "left"), num_frames=96, extent=0.5, travel=0.3
    )
    thirds = [(0, 31), (33, 63), (65, 95)]
    signs = [
        (np.sign(np.round(path.x[b] - path.x[a], 6)), np.sign(np.round(path.y[b] - path.y[a], 6)))
        for a, b in thirds
    ]
    assert signs == [(1, 0), (0, -1), (-1, 0)]


def test_manifest_comes_last_and_states_the_settings(benchmark_root):
    manifest = json.loads((benchmark_root / "manifest.json").read_text())
    assert manifest["seed"] == 0 and manifest["sizes"]["gallery"] == 6


def straight_speed(planes):
    """How far the brightest part of a clip moves from its first frame to its last, (right, down) in shares of SIZE."""
    places = []
    for luma in (planes[0, :SIZE].astype(float), planes[-1, :SIZE].astype(float)):
        ink = luma > np.percentile(luma, 85)
        places.append([np.average(np.arange(SIZE), weights=ink.sum(axis)) for axis in (0, 1)])
    return (np.array(places[1]) - places[0]) / SIZE


def test_the_source_shows_what_its_labels_say():
    """Seen in the pixels: slow moves go less far than fast ones, in their direction; orders end where they say."""
    names = info("source")["classes"]
    travelled = {"slow": [], "fast": []}
    ways = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}
    for label in range(0, 200, 7):
        _, act = names[label].split(" ", 1)
        moved = straight_speed(motion_digits.render_clip("source", "train", label))
        if ", " in act:
            wanted = np.sum([ways[one] for one in act.split(", ")], 0)
            if wanted.any():  # there and back ends where it began
                assert np.dot(moved, wanted) > 0.1
        else:
            direction, speed = act.split()
            travelled[speed].append(np.dot(moved, ways[direction]))
    assert max(travelled["slow"]) < 0.22 < min(travelled["fast"])


def test_a_source_of_an_earlier_version_is_told(benchmark_root, tmp_path):
    old = json.loads((benchmark_root / "settings.json").read_text()) | {"version": 1}
    (tmp_path / "settings.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match=r"version 1, .*delete it or choose another folder"):
        generate(tmp_path, sizes=SIZES)
