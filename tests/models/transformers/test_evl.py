"""EVL beside the official code's outputs and key lists; its two files."""

from dataclasses import replace

import pytest
import torch
from official import fixtures_of, full_size_keys, read_fixture, relative, weights_of
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.models.architectures import (
    config_from_dict,
    config_named,
    config_to_dict,
    create_model,
)
from stretchysnake.models.transformers.evl import EVL, EVLConfig
from stretchysnake.models.weights.loading import load_weights

SMALL = {
    "embed_dim": 32, "depth": 3, "num_heads": 2, "decoder_depth": 2, "decoder_width": 32, "decoder_heads": 2,
    "num_frames": 3, "num_classes": 4,
}  # fmt: skip


def config_from(said: dict) -> EVLConfig:
    return EVLConfig(
        embed_dim=said["embed_dim"],
        depth=said["depth"],
        num_heads=said["num_heads"],
        mlp_factor=said["mlp_factor"],
        patch_size=tuple(said["patch_size"]),
        image_size=tuple(said["img_size"]),
        num_frames=said["num_frames"],
        decoder_depth=said["decoder_num_layers"],
        decoder_width=said["decoder_qkv_dim"],
        decoder_heads=said["decoder_num_heads"],
        decoder_mlp_factor=said["decoder_mlp_factor"],
        num_classes=said["num_classes"],
    )


def both_files(tensors: dict) -> dict:
    """The decoder, and CLIP's tower under "clip.", as load_model hands them over."""
    clip = {name: tensor for name, tensor in tensors.items() if name.startswith("clip.")}
    return {**weights_of(tensors), **clip}


def randomised(config: EVLConfig, seed: int = 0) -> EVL:
    torch.manual_seed(seed)
    model = EVL(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("path", fixtures_of("evl"), ids=lambda path: path.stem)
@torch.no_grad()
def test_parity_with_the_official_code(path):
    tensors, metadata = read_fixture(path)
    model = EVL(config_from(metadata["config"])).eval()
    assert load_weights(model, both_files(tensors)) == []
    for end in ("", "_2", "_3"):
        if f"input{end}" not in tensors:
            continue
        for dtype, suffix, limit in ((torch.float32, "", 1e-5), (torch.float64, "_fp64", 1e-10)):
            model, video = model.to(dtype), tensors[f"input{end}"].to(dtype)
            features = model.features(video)
            assert relative(features, tensors[f"features{end}{suffix}"]) <= limit
            assert relative(model(video), tensors[f"logits{end}{suffix}"]) <= limit
        assert relative(model.proj[0](features), tensors[f"features_normed{end}"]) <= 1e-5


def meta_state(*listings: tuple[str, str]) -> dict:
    return {
        prefix + name: torch.empty(shape, device="meta")
        for listing, prefix in listings
        for name, shape in full_size_keys(listing).items()
    }


@pytest.mark.parametrize(
    "tower", [("evl_b16_clip_visual", "clip."), ("evl_b16_backbone_official_names", "backbone.")]
)
def test_full_size_files_load_strictly(tower):
    state = meta_state(("evl_b16_8x224_k400", ""), tower)
    assert EVL.config_of(state) == config_named("evl-base")
    with torch.device("meta"):
        model = create_model("evl-base")
    fitted, notes = model.fitted(state)
    if "clip" in tower[0]:
        assert notes == []
    model.load_state_dict(fitted, strict=True)


@pytest.mark.parametrize(
    ("name", "gmacs", "trained"),
    [("base", 151.3, 33.18e6), ("base-16", 303.0, 33.21e6), ("base-32", 606.5, 33.26e6)],
)
def test_parameters_and_gmacs_are_those_of_the_facts(name, gmacs, trained):
    with torch.device("meta"):
        model = create_model(f"evl-{name}", frozen=True).eval()
        video = torch.empty(1, 3, model.config.num_frames, 224, 224)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(video)
    counts = [
        sum(p.numel() for p in model.parameters() if p.requires_grad == on) for on in (True, False)
    ]
    assert counts == [pytest.approx(trained, rel=1e-3), pytest.approx(85.80e6, rel=1e-3)]
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=1e-3)


def test_clip_file_that_is_missing_is_named():
    state = meta_state(("evl_b16_8x224_k400", ""))
    text = r"ViT-B-16.pt, which OpenAI publishes .*put ViT-B-16.pt beside .*FILE --clip ViT-B-16.pt"
    with pytest.raises(ValueError, match=text):
        EVL.config_of(state)
    with torch.device("meta"), pytest.raises(ValueError, match=text):
        EVL(EVLConfig()).fitted(state)
    with pytest.raises(ValueError, match=r"ViT-L-14\.pt"):
        EVL.config_of({"decoder.cls_token": torch.zeros(1024)})


@torch.no_grad()
def test_rectangles_keep_their_shape():
    config = EVLConfig(**SMALL, patch_size=(4, 8), image_size=(8, 32))
    assert (config.grid, config.num_patches, config.num_offsets) == ((2, 4), 8, 21)
    assert config_from_dict(config_to_dict(config)) == config
    model = randomised(config)
    video = torch.randn(1, 3, 3, 8, 32)
    assert torch.equal(model(video), model(video, patch_size=4))  # P is the height
    assert model.tokens(video).patches.shape == (1, 3, 2, 4, 32)
    assert model(torch.randn(1, 3, 3, 12, 24), patch_size=2).shape == (1, 4)
    with pytest.raises(ValueError, match=r"width \(28\) must be a multiple of .*8"):
        model(torch.randn(1, 3, 3, 8, 28))
    with pytest.raises(
        ValueError, match=r"patch_size \(3\) must be a multiple of 2: .*4x6 and keeps"
    ):
        EVL(EVLConfig(**SMALL, patch_size=(4, 6), image_size=(8, 12)))(
            torch.randn(1, 3, 3, 9, 9), 3
        )


def test_sizes_that_do_not_go_are_named():
    config = EVLConfig()
    for change, text in (
        ({"decoder_depth": 13}, r"decoder_depth \(13\) must be at most depth \(12\)"),
        ({"decoder_heads": 5}, r"decoder_width \(768\) must be a multiple of decoder_heads \(5\)"),
        ({"image_size": (224, 225)}, r"image_size \(225\) must be a multiple"),
        ({"patch_size": (16,)}, r"patch_size \(\(16,\)\) must be a positive integer or a pair"),
        ({"dropout": -0.1}, r"dropout \(-0.1\) must be"),
    ):
        with pytest.raises(ValueError, match=text):
            replace(config, **change)
    with pytest.raises(ValueError, match=r"not EVL weights: clip.visual.conv1.weight"):
        EVL.config_of({"head.weight": torch.zeros(1)})
