"""MotionDigits, the built-in benchmark: real handwritten digits act in real h264 files beside CSV lists.

The actors are the 1,797 UCI digits that come with scikit-learn, written by 13 people (about 138 images each). Train
lists use images 0..1149, test lists 1290..1796; the 140 between are left out. No file says who wrote which image: we
assume that they are stored writer after writer, so writers are disjoint only as far as that holds. No image is on
both sides in any case.

Every clip is a pure function of (seed, suite, split, index); files are written whole or not at all; the manifest comes
last. A second call with the same settings checks that every file is there and writes only what is missing.
"""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stretchysnake.data.acting import SIZE, ActorPath, act_path, move, move_in_turn, render
from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.decoding.video import read_frames, write_image, write_video
from stretchysnake.data.processes.workers import map_in_processes
from stretchysnake.data.records import VideoRecord, read_records, write_records
from stretchysnake.whole_file import unfinished_file, write_whole

VERSION = 2
"""Raise it when any pixel of any clip changes. 1: the source's acts were four straight moves of any speed."""
SUITES = ("source", "short", "fine", "long")
SPLITS = ("train", "test")
TRAIN_ACTORS = range(0, 1150)
TEST_ACTORS = range(1290, 1797)

SHORT_ACTS = ("up-right", "up-left", "down-right", "down-left", "circle", "bounce", "blink")
FINE_DIRECTIONS = ("right", "left", "up", "down")
FINE_SPEEDS = {"slow": (0.10, 0.14), "fast": (0.28, 0.36)}
LONG_ACTS = ("right", "left", "up", "down")
STRAIGHT_MOVES = tuple(
    f"{direction} {speed}" for direction in FINE_DIRECTIONS for speed in FINE_SPEEDS
)
MOVES_IN_TURN = tuple(", ".join(order) for order in itertools.permutations(LONG_ACTS, 2))
SOURCE_ACTS = STRAIGHT_MOVES + MOVES_IN_TURN
"""What the suites ask for is taught: a digit, how fast, in which order (docs/study.md)."""
NUM_FRAMES = {"source": 32, "short": 32, "fine": 32, "long": 96}


@dataclass(frozen=True, kw_only=True)
class MotionDigitsSizes:
    """Number of clips: the source's two lists; train list (gallery) and test list (query) of each other suite."""

    source: int = 2400
    source_test: int = 240
    gallery: int = 480
    query: int = 240

    def num_clips(self, suite: str, split: str) -> int:
        if suite == "source":
            return self.source if split == "train" else self.source_test
        return self.gallery if split == "train" else self.query


def info(suite: str) -> dict:
    """Return `classes` (names in label order), `chance` (a blind guess's accuracy) and a `description`."""
    digits = tuple(map(str, range(10)))
    match suite:
        case "source":
            names = tuple(f"{digit} {act}" for digit in digits for act in SOURCE_ACTS)
            text = "Pre-training: which digit makes which straight move, slowly or fast, or which two in turn?"
        case "short":
            names = digits
            text = "Which digit acts? The acts (diagonals, circle, bounce, blink) were never seen in pre-training."
        case "fine":
            names = STRAIGHT_MOVES
            text = "Any digit moves straight: in which of four directions, and slowly or fast?"
        case "long":
            names = tuple(", ".join(order) for order in itertools.permutations(LONG_ACTS, 3))
            text = "A digit makes three of four moves, one after the other, in a longer clip: in which order?"
        case _:
            raise ValueError(f"suite ({suite!r}) must be one of {', '.join(SUITES)}.")
    return {"classes": names, "chance": 1 / len(names), "description": text}


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        command = "pip install 'stretchysnake[probe]'"
        raise RuntimeError(
            f"MotionDigits takes its digits from scikit-learn; install it: {command}"
        ) from error
    digits = load_digits()
    return digits.images, digits.target


@cache
def _actors(split: str, digit: int) -> tuple[int, ...]:
    """Image numbers of one digit on one side of the writers' border."""
    target = _digits()[1]
    return tuple(
        i for i in (TRAIN_ACTORS if split == "train" else TEST_ACTORS) if target[i] == digit
    )


def frame_size(aspect: str) -> tuple[int, int]:
    """(height, width) of the frames of an aspect "W:H": SIZE for the shorter side, the longer one to an even number.

    >>> frame_size("16:9"), frame_size("9:16")
    ((112, 200), (200, 112))
    """
    sides = aspect.split(":")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise ValueError(f"aspect ({aspect!r}) must be width:height of whole numbers, e.g. 16:9")
    width, height = map(int, sides)
    longer = 2 * round(SIZE * max(width, height) / min(width, height) / 2)
    return (SIZE, longer) if width >= height else (longer, SIZE)


class _Scene(NamedTuple):
    label: int
    actor: int
    path: ActorPath
    rng: np.random.Generator


def _scene(seed: int, suite: str, split: str, index: int, aspect: str) -> _Scene:
    """Draw one clip: labels go round evenly, everything else is random; another aspect gives the actor more room."""
    rng = np.random.default_rng([seed, SUITES.index(suite), SPLITS.index(split), index])
    classes = info(suite)["classes"]
    label = index % len(classes)
    digit = int(rng.integers(10))
    extent = rng.uniform(0.62, 0.72)
    height, width = frame_size(aspect)
    place = {"num_frames": NUM_FRAMES[suite], "room": (width / SIZE, height / SIZE)}
    match suite:
        case "source":
            digit, act = divmod(label, len(SOURCE_ACTS))
            path = _source_path(rng, SOURCE_ACTS[act], place)
        case "short":
            digit, act = label, SHORT_ACTS[int(rng.integers(len(SHORT_ACTS)))]
            travel = rng.uniform(0.24, 0.98 - extent)
            path = act_path(rng, act, extent=extent, travel=travel, **place)
        case "fine":
            path = _straight(rng, classes[label], place)
        case "long":
            order, travel = tuple(classes[label].split(", ")), rng.uniform(0.24, 0.98 - extent)
            path = move_in_turn(rng, order, extent=extent, travel=travel, **place)
    actors = _actors(split, digit)
    return _Scene(label, actors[int(rng.integers(len(actors)))], path, rng)


def _source_path(rng, act: str, place: dict) -> ActorPath:
    if act in STRAIGHT_MOVES:
        return _straight(rng, act, place)
    extent = rng.uniform(0.58, 0.70)
    travel = rng.uniform(0.20, 0.98 - extent)
    return move_in_turn(rng, tuple(act.split(", ")), extent=extent, travel=travel, **place)


def _straight(rng, act: str, place: dict) -> ActorPath:
    direction, speed = act.split()
    extent, travel = rng.uniform(0.56, 0.64), rng.uniform(*FINE_SPEEDS[speed])
    return move(rng, direction, extent=extent, travel=travel, **place)


def render_clip(
    suite: str, split: str, index: int, *, seed: int = 0, aspect: str = "1:1"
) -> np.ndarray:
    """Return the frames of one clip before encoding, yuv420p (T, H * 3 // 2, W) uint8; H = W = 112 at 1:1."""
    scene = _scene(seed, suite, split, index, aspect)
    return render(scene.rng, _digits()[0][scene.actor], scene.path, frame=frame_size(aspect))


def _write_clips(root: str, seed: int, aspect: str, clips: list[tuple[str, str, int]]) -> int:
    for suite, split, index in clips:
        path = _clip_path(Path(root), suite, split, index)
        with unfinished_file(path) as part:
            frames = render_clip(suite, split, index, seed=seed, aspect=aspect)
            write_video(part, frames, options={"preset": "ultrafast", "crf": "26"})
    return len(clips)


def _clip_path(root: Path, suite: str, split: str, index: int) -> Path:
    return root / suite / split / f"{index:05d}.mp4"


def _settings(seed: int, aspect: str) -> dict:
    suites = {suite: info(suite)["classes"] for suite in SUITES}
    text = json.dumps([suites, SHORT_ACTS, FINE_SPEEDS, NUM_FRAMES, SIZE])
    return {
        "benchmark": "MotionDigits",
        "version": VERSION,
        "seed": seed,
        "acts": zlib.crc32(text.encode()),
        **({} if aspect == "1:1" else {"aspect": aspect}),
    }


def generate(
    root: str | os.PathLike,
    *,
    sizes: MotionDigitsSizes | None = None,
    seed: int = 0,
    aspect: str = "1:1",
    num_workers: int = 2,
    progress: Callable[[str], None] | None = None,
) -> dict[str, tuple[Path, Path]]:
    """Write the benchmark under `root` and return suite -> (train list, test list).

    `progress` gets one line of text after every few clips. Finished clips of the same settings are kept, so an
    interrupted call goes on where it stopped; another seed, version or aspect in the same folder is refused. `aspect`
    is width:height of the frames ("16:9", "9:16"): digits and their moves keep their shape and size, and there is more
    background.
    """
    root, sizes = Path(root), sizes or MotionDigitsSizes()
    frame_size(aspect)  # an unknown one is told before a folder is made
    root.mkdir(parents=True, exist_ok=True)
    settings = _settings(seed, aspect)
    settings_path, manifest_path = root / "settings.json", root / "manifest.json"
    if settings_path.exists():
        stored = json.loads(settings_path.read_text())
        if stored != settings:
            other = f"seed {stored.get('seed')}, version {stored.get('version')}, aspect {stored.get('aspect', '1:1')}"
            raise ValueError(
                f"{root} holds MotionDigits of other settings ({other}); delete it or choose another folder."
            )
    elif any(root.iterdir()):
        raise ValueError(
            f"{root} holds files that are not MotionDigits; choose an empty or new folder."
        )
    else:
        write_whole(settings_path, json.dumps(settings))
    lists = {suite: tuple(root / f"{suite}-{split}.csv" for split in SPLITS) for suite in SUITES}
    clips = [
        (s, split, i) for s in SUITES for split in SPLITS for i in range(sizes.num_clips(s, split))
    ]
    missing = [clip for clip in clips if not _clip_path(root, *clip).exists()]
    manifest = {**settings, "sizes": asdict(sizes)}
    if not missing and manifest_path.exists() and json.loads(manifest_path.read_text()) == manifest:
        return lists
    manifest_path.unlink(missing_ok=True)
    _digits()  # loaded once, before the workers are forked
    for suite, split in itertools.product(SUITES, SPLITS):
        (root / suite / split).mkdir(parents=True, exist_ok=True)
    _write_all(partial(_write_clips, str(root), seed, aspect), missing, num_workers, progress)
    for suite in SUITES:
        for split, path in zip(SPLITS, lists[suite], strict=True):
            _write_list(path, suite, split, sizes.num_clips(suite, split), seed, aspect)
    write_whole(manifest_path, json.dumps(manifest, indent=1))
    return lists


def _write_all(write: Callable[[list], int], clips: list, num_workers: int, progress) -> None:
    chunks, done = [clips[i : i + 16] for i in range(0, len(clips), 16)], 0
    for count in map_in_processes(write, chunks, num_workers=num_workers):
        done += count
        if progress:
            progress(f"MotionDigits: {done} of {len(clips)} clips written")


def _write_list(path: Path, suite: str, split: str, num_clips: int, seed: int, aspect: str) -> None:
    names, records = info(suite)["classes"], []
    for index in range(num_clips):
        scene = _scene(seed, suite, split, index, aspect)
        relative = _clip_path(Path(), suite, split, index).as_posix()
        records.append(
            VideoRecord(relative, scene.label, names[scene.label], str(scene.actor), split)
        )
    with unfinished_file(path) as part:
        write_records(part, records)


def contact_sheet(
    root: str | os.PathLike,
    suite: str,
    path: str | os.PathLike,
    *,
    num_clips: int = 6,
    num_frames: int = 8,
) -> list[str]:
    """Write a PNG, one row per class (`num_clips` of them, evenly), and return the rows' class names."""
    records = read_records(Path(root) / f"{suite}-test.csv")
    first = {record.label: record for record in reversed(records)}
    labels = sorted(first)
    chosen = [first[labels[i]] for i in uniform_indices(len(labels), num_clips)]
    gap, rows = 4, []
    for record in chosen:
        frames = read_frames(record.path, lambda total: uniform_indices(total, num_frames))
        height, width = frames.shape[1:3]
        cells = np.full((num_frames, height + gap, width + gap, 3), 255, np.uint8)
        cells[:, gap // 2 : -gap // 2, gap // 2 : -gap // 2] = frames
        rows.append(np.concatenate(list(cells), axis=1))
    write_image(path, np.concatenate(rows))
    return [record.class_name for record in chosen]
