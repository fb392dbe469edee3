"""Clips of several shapes: features in order, as of each alone; which backbones take them, and which say that not."""

import json

import pytest
import torch
from small_backbones import names, small_config

from stretchysnake.data.clips.loader import clips_of_shapes
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.eval.features.extraction import FeatureSet, check_comparable
from stretchysnake.eval.features.feature_cache import load_features, save_features
from stretchysnake.eval.features.shapes import TRIED, check_fit, features_in_order
from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import build_model

REFUSING = {
    "hiera": r"height \(24\) must be a multiple of 32, a mask unit of 8 patches",
    "uniformer": r"size \(8x128\) must be at least 16 px a side",  # a strip of 1 : 20 at 32 px
}


def clips(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (4, *size, 3), generator=generator, dtype=torch.uint8)
        for size in sizes
    ]


@pytest.mark.parametrize("architecture", names())
def test_features_of_several_shapes_are_those_of_each_alone_in_order(architecture):
    torch.manual_seed(1)
    config = small_config(architecture, num_classes=3)
    model, patch = build_model(config).eval(), config.native.patch_size
    if architecture in REFUSING:
        text = f"fit .keep. gives .*{REFUSING[architecture]}.*; use fit square or crop"
        with pytest.raises(ValueError, match=text):
            check_fit(config, [config.native], fit="keep", way_out="x")
        for fit in ("square", "crop"):
            check_fit(config, [config.native], fit=fit, way_out="x")
        return
    check_fit(config, [config.native], fit="keep", way_out="x")
    mixed = clips((24, 40), (40, 24), (24, 40), (32, 32), (40, 24))
    with torch.no_grad():
        found = features_in_order(model, clips_of_shapes(mixed), patch)
        for row, clip in zip(found, mixed, strict=True):
            alone = model.features(normalise(clip)[None], patch)[0]
            torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-5)
    assert (found[0] - found[2]).abs().max() > 1e-4  # no two are alike


def test_drop_path_of_a_rectangle_takes_the_first_numbers_of_the_square():
    """TimeSformer draws one for each place; with all of them at 1 nothing is dropped, and with 0 every branch is."""
    config = small_config("timesformer", num_classes=3, drop_path=0.5)
    model = build_model(config).train()
    video = normalise(clips((24, 40))[0])[None]
    draws = torch.ones(1, model.num_drop_draws(config.native))
    used = 2 * (4 + 15 + 1)  # two blocks: 4 frames, 3 x 5 places, the MLP
    assert draws.shape[1] == used + 2
    kept = model.features(video, 8, drop_draws=draws)
    draws[:, used:] = 0
    assert torch.equal(model.features(video, 8, drop_draws=draws), kept)
    draws[:, used - 1] = 0
    assert not torch.equal(model.features(video, 8, drop_draws=draws), kept)


def test_films_and_phones_are_tried_either_way_round():
    assert {(width, height) for height, width in TRIED[:4]} == set(TRIED[:4])
    check_fit(small_config("hiera"), [Scale(4, 32, 4)], fit="square", way_out="x")


def test_kept_features_say_their_fit_and_two_fits_are_not_compared(tmp_path):
    places = {"groups": ["", ""], "paths": ["a.mp4", "b.mp4"], "scale": Scale(4, 32, 8)}
    labels = torch.tensor([0, 1])
    made = FeatureSet(torch.eye(2), labels, **places, num_expected=2, model="m", fit="keep")
    save_features(tmp_path / "f.safetensors", made)
    assert load_features(tmp_path / "f.safetensors").fit == "keep"
    manifest = json.loads((tmp_path / "f.json").read_text())
    assert manifest.pop("fit") == "keep"
    (tmp_path / "f.json").write_text(json.dumps(manifest))
    earlier = load_features(tmp_path / "f.safetensors")
    assert earlier.fit == "square"  # an earlier version's do not say
    with pytest.raises(ValueError, match="gallery has fit square, queries keep; extract both with"):
        check_comparable(earlier, made)
