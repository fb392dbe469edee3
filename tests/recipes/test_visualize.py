"""What visualize draws on real files: activation maps and t-SNE, from the weights of a real training."""

import csv
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stretchysnake import cli
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.data.decoding.video import read_frames
from stretchysnake.data.records import read_records
from stretchysnake.eval.activation_maps import patch_activations
from stretchysnake.eval.features.extraction import FeatureSet
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.tsne import leave_one_out_top1
from stretchysnake.flexibility import Scale
from stretchysnake.models.config import VideoMambaConfig
from stretchysnake.models.videomamba import Tokens, VideoMamba
from stretchysnake.models.weights.files import save_model
from stretchysnake.recipes.visualize import (
    default_sizes,
    named_subjects,
    told_apart,
    write_activation_maps,
    write_feature_maps,
)
from stretchysnake.report.figures.activation_picture import activation_picture, shown_frames
from stretchysnake.report.pages.context import read_pictures


@pytest.fixture
def video(clip_folder):
    return clip_folder / "class1" / "2.mp4"


def test_activation_is_the_cosine_of_each_patch_with_cls(trained, video):
    model, *_ = read_subject(trained[1].weights)
    frames = read_frames(video, [0, 3, 6, 9], size=(16, 24))
    found = patch_activations(model, frames, Scale(4, 16, 8))
    with torch.no_grad():
        tokens = model.tokens(normalise(torch.from_numpy(frames))[None], 8)
    assert found.shape == (4, 2, 3)
    for place in np.ndindex(found.shape):
        expected = F.cosine_similarity(tokens.patches[0][place], tokens.cls[0], dim=0)
        assert found[place] == pytest.approx(float(expected), abs=1e-5)


class PointsAt(torch.nn.Module):
    """A model whose [CLS] equals one patch token and is orthogonal to all others."""

    def __init__(self, place):
        super().__init__()
        self.place, self.weight = place, torch.nn.Parameter(torch.zeros(1))
        self.config = VideoMambaConfig.named("nano")

    def tokens(self, video, patch_size, *, grid):
        t, h, w = video.shape[2], video.shape[3] // patch_size, video.shape[4] // patch_size
        patches = torch.eye(t * h * w).view(1, t, h, w, -1)
        return Tokens(patches[0][self.place][None], patches)


def test_activation_lies_at_frame_row_and_column_of_its_token():
    found = patch_activations(
        PointsAt((2, 0, 1)), np.zeros((3, 16, 24, 3), np.uint8), Scale(3, 16, 8)
    )
    assert [tuple(map(int, place)) for place in np.argwhere(found == 1)] == [(2, 0, 1)]
    assert found.sum() == 1


def test_picture_draws_each_tubelets_map_over_its_frame():
    maps = {("vanilla", 16): np.array([[[0.0]], [[1.0]]], np.float32)}
    frames = {("vanilla", 16): np.full((4, 16, 16, 3), 200, np.uint8)}
    picture = activation_picture("x", maps, frames, title="clip.mp4", frame_numbers=[0, 5, 10, 15])
    from stretchysnake.report.figures.picture import style

    with style("black") as plt:
        figure = picture.draw(plt)
        drawn = [im.get_array() for im in figure.axes[1].images if im.get_cmap().name == "inferno"]
        words = [text.get_text() for text in figure.axes[0].texts]
        plt.close(figure)
    assert [float(found[0, 0]) for found in drawn] == [0, 0, 1, 1]
    assert words == ["frame 1", "frame 6", "frame 11", "frame 16"]


def test_black_frames_are_left_out_and_long_clips_thinned():
    frames = np.full((20, 4, 4, 3), 90, np.uint8)
    frames[:4] = 10
    assert shown_frames(frames) == ([4, 6, 8, 10, 12, 14, 16, 18], 4)
    assert shown_frames(frames[:3]) == ([0, 1, 2], 0)  # all black: nothing else to show


def test_default_sizes_are_the_papers_at_its_native_size():
    assert default_sizes(224, 16) == [112, 192, 224, 448]
    assert default_sizes(32, 8) == [16, 24, 32, 64]


def test_maps_of_both_kinds_are_written_with_their_numbers(trained, clip_folder, video, tmp_path):
    subjects = {"vanilla": trained[1].weights, "static_tokens": trained[1].weights}
    paths = write_activation_maps(tmp_path, subjects, [video], sizes=[16, 32], num_frames=4)
    assert [path.name for path in paths] == [
        "activation-2.svg",
        "activation-2.png",
        "activation-2.npz",
    ]
    numbers = np.load(paths[2])
    assert set(numbers) == {"frame_indices", *(f"{s}/{z}" for s in subjects for z in (16, 32))}
    assert numbers["vanilla/32"].shape == (4, 4, 4) and len(numbers["frame_indices"]) == 4
    assert np.array_equal(numbers["vanilla/16"], numbers["static_tokens/16"])  # the same weights
    records = read_records(clip_folder)
    paths = write_feature_maps(tmp_path, subjects, records, sizes=[16, 32], num_frames=4, title="t")
    assert [path.name for path in paths] == ["tsne-t.svg", "tsne-t.png", "tsne-t.csv"]
    with paths[2].open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12 * 2 * 2
    assert {line["path"] for line in lines} == {record.path for record in records}
    once = [line for line in lines if (line["model"], line["size"]) == ("vanilla", "16")]
    again = [line for line in lines if (line["model"], line["size"]) == ("static_tokens", "16")]
    assert [line["x"] for line in once] == [line["x"] for line in again]  # the same seed
    for path in tmp_path.glob("*.svg"):
        assert ET.parse(path).getroot().attrib["aria-label"]
    assert [p.section for p in read_pictures(tmp_path)] == [
        "Activation maps",
        "Features in the plane",
    ]


def test_command_names_bad_videos_and_ends_with_1(trained, video, tmp_path, capsys):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    words = [
        "visualize",
        video,
        bad,
        "--weights",
        trained[1].weights,
        "--weights",
        trained[1].weights,
    ]
    words += ["--names", "[first,second]", "--out", tmp_path / "seen", "--sizes", "[16]"]
    assert cli.main([str(word) for word in words]) == 1
    printed = capsys.readouterr()
    assert "skipped" in printed.err and "bad.mp4" in printed.err
    assert "activation-2.png" in printed.out
    assert set(np.load(tmp_path / "seen" / "activation-2.npz")) == {
        "frame_indices",
        "first/16",
        "second/16",
    }


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--names", "[a,b]"], "names (2) must be as many as weights (1)"),
        (["--sizes", "[20]"], "size (20) must be a multiple of patch_size (8); nearest: 16, 24"),
        (["--tsne", "absent.csv"], "absent.csv: no such list file or folder"),
    ],
)
def test_mistakes_are_one_line_before_any_work(words, text, video, tmp_path, capsys):
    weights = tmp_path / "vanilla.safetensors"
    save_model(weights, VideoMamba(VideoMambaConfig.named("nano", num_classes=0)))
    call = ["visualize", str(video), "--weights", str(weights), "--out", str(tmp_path / "seen")]
    assert cli.main([*call, *words]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "seen").exists()


def test_only_bad_videos_write_nothing(trained, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    with pytest.raises(ValueError, match=r"none of the 1 videos could be read: .*bad\.mp4"):
        write_activation_maps(tmp_path / "seen", {"m": trained[1].weights}, [bad])
    assert not (tmp_path / "seen").exists()


def test_models_are_named_by_their_variant_and_must_differ(trained):
    weights = trained[1].weights
    assert list(named_subjects([weights])) == [read_subject(weights)[1].name]
    with pytest.raises(ValueError, match=r"must differ; give --names \[a,b\]"):
        named_subjects([weights, weights])


@pytest.mark.parametrize(
    "paths, shown",
    [
        (["a/x.mp4", "b/y.mp4"], ["x.mp4", "y.mp4"]),
        (["d/a/t/x.mp4", "d/b/t/x.mp4"], ["a/t/x.mp4", "b/t/x.mp4"]),
        (["x.mp4", "a/x.mp4"], ["x.mp4", "a/x.mp4"]),
        (["x.mp4", "./x.mp4"], ["x.mp4", "x.mp4"]),
        ([], []),
    ],
)
def test_videos_of_one_name_are_told_apart_by_their_folders(paths, shown):
    assert told_apart(paths) == shown


def test_t_sne_needs_five_videos(trained, clip_folder, tmp_path):
    records = read_records(clip_folder)[:4]
    with pytest.raises(
        ValueError, match=r"videos for t-SNE \(4 that can be read\) must be at least 5"
    ):
        write_feature_maps(tmp_path, {"m": trained[1].weights}, records, sizes=[16], num_frames=4)
    assert list(tmp_path.iterdir()) == []


def test_classes_keep_their_look_in_every_panel_and_share_none():
    from stretchysnake.report.figures.feature_map_picture import LOOKS, _look

    looks = {tuple(_look(number).items()) for number in range(LOOKS)}
    assert len(looks) == LOOKS == 60
    assert _look(LOOKS) == _look(0)


def test_leave_one_out_is_measured_in_the_features_by_cosine():
    features = torch.tensor([[1.0, 0], [9, 1], [0, 1], [1, 9], [-1, 0]])
    found = FeatureSet(
        features, torch.tensor([0, 0, 1, 1, 0]), [""] * 5, list("abcde"), Scale(1, 8, 8), 5
    )
    assert (
        leave_one_out_top1(found) == 4 / 5
    )  # only the last is wrong; by L2 the first would be too
