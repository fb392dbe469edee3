"""Frames of others' loaders: the features of `embed` bit for bit, and every wrong layout refused with its way out."""

import numpy as np
import pytest
import torch

import stretchysnake
from stretchysnake import Scale, VideoMamba, VideoMambaConfig, features_of_frames
from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.decoding.video import read_frames


def test_the_same_frames_have_the_features_of_embed(trained, clip_folder):
    paths = [str(clip_folder / f"class{n}/0.mp4") for n in range(2)]
    weights = trained[1].weights
    wanted = stretchysnake.embed(paths, weights=weights, num_frames=4, size=24, num_workers=0)
    model, settings = stretchysnake.open_weights(weights, num_frames=4, size=24)
    chosen = uniform_indices(12, 4)
    frames = np.stack([read_frames(path, chosen, size=(24, 24)) for path in paths])
    for given, channels in (
        (frames, None),
        (torch.from_numpy(frames), "last"),
        (torch.from_numpy(frames).permute(0, 1, 4, 2, 3), "first"),
    ):
        found = features_of_frames(model, settings.scale, given, channels=channels)
        assert np.array_equal(found, wanted.features.numpy())
        together = features_of_frames(model, settings.scale, given, channels=channels, batch_size=2)
        np.testing.assert_allclose(together, wanted.features.numpy(), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def model():
    return VideoMamba(VideoMambaConfig.named("nano", embed_dim=8, depth=1, num_classes=0)).eval()


def test_heights_and_widths_are_read_as_they_are_and_no_clip_gives_no_row(model):
    frames = torch.randint(0, 255, (2, 4, 16, 24, 3), dtype=torch.uint8)
    wide = features_of_frames(model, Scale(4, 16, 8), frames)
    assert wide.shape == (2, 8) and wide.dtype == np.float32
    assert not np.allclose(wide, features_of_frames(model, Scale(4, 16, 8), frames[:, :, :, :16]))
    assert features_of_frames(model, Scale(4, 16, 8), frames[:0]).shape == (0, 8)


def test_at_three_frames_the_layout_must_be_said(model):
    """(n, T, 3, H, W) with T = 3 looks like the model's own (n, 3, T, H, W); what the caller says decides."""
    frames = torch.randint(0, 255, (1, 3, 16, 16, 3), dtype=torch.uint8)
    right = features_of_frames(model, Scale(3, 16, 8), frames)
    first = frames.permute(0, 1, 4, 2, 3)
    assert np.array_equal(
        features_of_frames(model, Scale(3, 16, 8), first, channels="first"), right
    )
    with pytest.raises(ValueError, match=r"say channels='first' if they are \(n, T, 3, H, W\), or "
                       r"frames.transpose\(1, 2\) and channels='first' if they are \(n, 3, T, H, W\)"):  # fmt: skip
        features_of_frames(model, Scale(3, 16, 8), first)
    assert not np.allclose(
        features_of_frames(model, Scale(3, 16, 8), first.transpose(1, 2), channels="first"), right
    )


@pytest.mark.parametrize(
    ("shape", "channels", "said"),
    [
        ((2, 4, 3, 16, 16), None, r"must be \(n, T, H, W, 3\); say channels='first'"),
        ((2, 3, 4, 16, 16), None, r"say frames.transpose\(1, 2\) and channels='first'"),
        ((2, 4, 16, 16, 4), None, "no axis holds the 3 of RGB"),
        ((2, 4, 3, 16, 3), None, "both axes hold 3; say which with channels='last' or"),
        ((2, 4, 16, 16, 3), "first", r"axis 2 holds 16; say channels='last'"),
        ((2, 4, 3, 16, 16), "last", r"axis 4 holds 16; say channels='first'"),
        ((4, 16, 16, 3), None, r"for one clip add an axis with frames\[None\]"),
        ((2, 8, 16, 16, 3), None, r"hold 8 frames a clip, and scale says 4; give clips of 4"),
        ((2, 4, 16, 16, 3), "second", r"channels \('second'\) must be one of: last, first"),
    ],
)
def test_wrong_layouts_are_refused(model, shape, channels, said):
    with pytest.raises(ValueError, match=said):
        features_of_frames(
            model, Scale(4, 16, 8), torch.zeros(shape, dtype=torch.uint8), channels=channels
        )


def test_floats_are_refused(model):
    with pytest.raises(ValueError, match=r"frames \(torch.float32\) must be uint8"):
        features_of_frames(model, Scale(4, 16, 8), torch.zeros(1, 4, 16, 16, 3))
