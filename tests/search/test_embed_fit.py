"""An index of pictures in their own shape, or of their middle: features by hand, settings that are not compared."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from painted_video import quarters, write_painted
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stretchysnake import VideoMamba, cli
from stretchysnake.data.clips.transforms import IMAGENET_MEAN, IMAGENET_STD
from stretchysnake.data.decoding.video import read_frames
from stretchysnake.eval.features import passes
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.protocols.classifier import CLASSIFIER, load_classifier
from stretchysnake.recipes.finetuning import finetune_folder
from stretchysnake.search.embed import embed, embed_into
from stretchysnake.search.index import read_index
from stretchysnake.search.query import search

SIZES = {"wide": (54, 96), "high": (96, 54), "square": (64, 64), "film": (40, 96)}
KEPT = {"wide": (12, 20), "high": (20, 12), "square": (16, 16), "film": (8, 20)}
"""At S = 16, whose patch is 4: 3 x 5, 5 x 3, 4 x 4 and 2 x 5 of 16."""


@pytest.fixture
def videos(tmp_path):
    (tmp_path / "videos").mkdir()
    rng = np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        frames = quarters(8, height=height, width=width)
        frames = frames // 2 + rng.integers(0, 120, frames.shape, dtype=np.uint8)
        write_painted(tmp_path / "videos" / f"{name}.mp4", frames)
    return tmp_path / "videos"


def by_hand(weights, frames):
    """(C,) of frames (T, H, W, 3): ImageNet's pixels, patches of 4."""
    model = read_subject(weights)[0]
    pixels = (frames / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    video = torch.from_numpy(pixels.transpose(3, 0, 1, 2)).float()[None]
    with torch.no_grad():
        return model.features(video, 4)[0]


def read_by_hand(path, indices, fit):
    """Frames as the clip has them; the middle square cut out with numpy."""
    if fit == "keep":
        return read_frames(path, indices, size=KEPT[Path(path).stem])
    height, width = SIZES[Path(path).stem]
    short = (16, 16 * width // height) if height <= width else (16 * height // width, 16)
    frames = read_frames(path, indices, size=short)
    top, left = (round((side - 16) / 2) for side in short)
    return frames[:, top : top + 16, left : left + 16]


def test_videos_of_several_shapes_share_one_packed_pass_where_a_size_is_asked(
    trained, videos, monkeypatch
):
    packed, real = [], VideoMamba.features_packed

    def counted(model, clips, *rest, **how):
        packed.append(sorted(tuple(clip.shape[1:]) for clip in clips))
        return real(model, clips, *rest, **how)

    monkeypatch.setattr(VideoMamba, "features_packed", counted)
    how = {"weights": trained[1].weights, "num_frames": 4, "size": 16, "fit": "keep"}
    alone = embed(videos, **how)
    assert packed == []  # each has a pass of its own, and its own bits
    together = embed(videos, batch_size=3, **how)
    assert [len(clips) for clips in packed] == [3] and len({*packed[0]}) == 3  # and the last alone
    assert together.paths == alone.paths
    torch.testing.assert_close(together.features, alone.features, rtol=1e-5, atol=1e-5)
    for path, feature in zip(together.paths, together.features, strict=True):
        wanted = by_hand(trained[1].weights, read_by_hand(path, [1, 3, 5, 7], "keep"))
        torch.testing.assert_close(feature, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fit", ["keep", "crop"])
def test_features_are_of_the_clip_in_its_shape_whole_and_in_windows(trained, videos, tmp_path, fit):
    weights = trained[1].weights
    scale = {"num_frames": 4, "size": 16, "fit": fit}
    found = embed(videos, weights=weights, **scale)
    assert found.fit == fit and [Path(p).stem for p in found.paths] == sorted(SIZES)
    for path, row in zip(found.paths, found.features, strict=True):
        wanted = by_hand(weights, read_by_hand(path, [1, 3, 5, 7], fit))
        torch.testing.assert_close(row, wanted, rtol=1e-4, atol=1e-5)
    # 0.8 s at 10 frames a second: two windows of four frames, each once
    windows = embed(videos, weights=weights, window_seconds=0.4, **scale)
    assert len(windows.paths) == 8
    for path, (start, _), row in zip(windows.paths, windows.times, windows.features, strict=True):
        first = round(10 * start)
        wanted = by_hand(weights, read_by_hand(path, range(first, first + 4), fit))
        torch.testing.assert_close(row, wanted, rtol=1e-4, atol=1e-5)


def test_indexes_of_another_fit_are_neither_extended_nor_compared(trained, videos, tmp_path):
    scale = {"weights": trained[1].weights, "num_frames": 4, "size": 16}
    for fit in ("square", "keep"):
        embed_into(tmp_path / fit, videos, fit=fit, **scale)
        assert read_index(tmp_path / fit).settings.fit == fit
    with pytest.raises(ValueError, match="fit keep against square"):
        embed_into(tmp_path / "keep", videos, **scale)
    with pytest.raises(ValueError, match="fit keep against square"):
        search([str(tmp_path / "keep"), str(tmp_path / "square")], videos / "wide.mp4")
    (hit,) = search(str(tmp_path / "keep"), videos / "film.mp4", k=1).hits
    assert Path(hit.row.file.path).stem == "film" and hit.score == pytest.approx(1, abs=1e-5)
    # an index of an earlier version does not say, and is square: nothing is to be done
    manifest = tmp_path / "square" / "manifest.json"
    written = json.loads(manifest.read_text())
    assert written["settings"].pop("fit") == "square"
    manifest.write_text(json.dumps(written))
    assert read_index(tmp_path / "square").settings.fit == "square"
    assert embed_into(tmp_path / "square", videos, **scale).num_new == 0


def test_no_pass_of_several_shapes_is_tried_however_many_videos_there_are(
    trained, videos, monkeypatch
):
    def refuse(*_):
        raise AssertionError("a pass was tried")

    monkeypatch.setattr(passes, "_SHARE_TRIED", 1)  # as of 32 times as many
    monkeypatch.setattr(passes, "same_alone", refuse)
    how = {"weights": trained[1].weights, "num_frames": 4, "size": 16}
    assert len(embed(videos, fit="keep", **how).paths) == 4
    with pytest.raises(AssertionError, match="a pass was tried"):
        embed(videos, fit="square", **how)


def test_a_classifier_says_its_fit_and_classify_follows(trained, videos, tmp_path, capsys):
    for number, name in enumerate(SIZES):
        folder = videos / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        (videos / f"{name}.mp4").rename(folder / f"{name}.mp4")
    out = tmp_path / "out"
    done = finetune_folder(
        str(videos), weights=trained[1].weights, out=str(out), method="knn", num_frames=4, size=16,
        fit="keep",
    )  # fmt: skip
    stored = load_classifier(out)
    assert stored.fit == "keep" and len(stored.tensors["features"]) == done.num_train
    kept = [path for path in sorted(videos.rglob("*.mp4")) if str(path) not in done.paths]
    wanted = torch.stack(
        [by_hand(trained[1].weights, read_by_hand(p, [1, 3, 5, 7], "keep")) for p in kept]
    )
    nearest = torch.cdist(wanted, stored.tensors["features"]).min(1).values
    assert nearest.max() < 1e-3  # these very features, in whichever order
    chances = stored.probabilities(wanted)
    assert cli.main(["classify", *map(str, kept), "--model", str(out), "-k", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for path, chance in zip(kept, chances, strict=True):
        line = next(line for line in lines if line.startswith(str(path)))
        assert line.endswith(f"class{int(chance.argmax())} {100 * chance.max():.1f} %")
    with safe_open(out / CLASSIFIER, framework="pt") as file:
        header = {name: value for name, value in file.metadata().items() if name != "fit"}
    save_file(load_file(out / CLASSIFIER), out / CLASSIFIER, metadata=header)
    assert load_classifier(out).fit == "square"  # of an earlier version


def test_embed_takes_the_fit_of_the_weights_and_a_word_for_another(
    trained, videos, tmp_path, capsys
):
    words = ["embed", str(videos), "--weights", trained[1].weights, "--frames", "4", "--size", "16"]
    assert cli.main([*words, "-o", str(tmp_path / "a"), "--fit", "crop"]) == 0
    assert read_index(tmp_path / "a").settings.fit == "crop"
    assert cli.main([*words, "-o", str(tmp_path / "b")]) == 0
    assert read_index(tmp_path / "b").settings.fit == "square"
    capsys.readouterr()
    assert cli.main([*words, "-o", str(tmp_path / "c"), "--fit", "fill"]) == 2
    assert "fit ('fill') must be one of: square, keep, crop" in capsys.readouterr().err
