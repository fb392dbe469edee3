"""AIM beside the official code's outputs and key lists."""

from dataclasses import replace

import pytest
import torch
from official import fixtures_of, full_size_keys, read_fixture, relative, weights_of
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.models.architectures import config_named, create_model
from stretchysnake.models.transformers.aim import AIM, AIMConfig
from stretchysnake.models.weights.loading import load_weights


def config_from(said: dict) -> AIMConfig:
    return AIMConfig(
        embed_dim=said["embed_dim"],
        depth=said["depth"],
        num_heads=said["num_heads"],
        patch_size=said["patch_size"],
        image_size=said["img_size"],
        num_frames=said["num_frames"],
        num_temporal_adapters=said["num_tadapter"],
        adapter_scale=said["adapter_scale"],
        num_classes=said["num_classes"],
    )


def loaded(path):
    tensors, metadata = read_fixture(path)
    model = AIM(config_from(metadata["config"])).eval()
    assert load_weights(model, weights_of(tensors)) == []
    return model, tensors


@pytest.mark.parametrize("path", fixtures_of("aim"), ids=lambda path: path.stem)
@torch.no_grad()
def test_parity_with_the_official_code(path):
    model, tensors = loaded(path)
    for end in ("", "_2", "_3"):
        if f"input{end}" not in tensors:
            continue
        for dtype, suffix, limit in ((torch.float32, "", 1e-5), (torch.float64, "_fp64", 1e-10)):
            model, video = model.to(dtype), tensors[f"input{end}"].to(dtype)
            assert relative(model.features(video), tensors[f"features{end}{suffix}"]) <= limit
            assert relative(model(video), tensors[f"logits{end}{suffix}"]) <= limit
    video = tensors["input"].double()
    per_frame = model.backbone.ln_post(model._encode(video, None, "exact")[0][:, :, 0])
    assert relative(per_frame, tensors["features_per_frame"]) <= 1e-5


@pytest.mark.parametrize(
    ("listing", "name", "trainable"),
    [
        ("aim_b16_8x224_k400", "aim-base", 10.97e6),
        ("aim_b16_32x224_k400", "aim-base-32", None),
        ("aim_b16_8x224_ssv2", "aim-base-ssv2", None),
    ],
)
def test_full_size_files_load_strictly(listing, name, trainable):
    state = {n: torch.empty(shape, device="meta") for n, shape in full_size_keys(listing).items()}
    assert AIM.config_of(state) == config_named(name)
    with torch.device("meta"):
        model = create_model(name, frozen=True)
    fitted, notes = model.fitted(state)
    assert notes == []
    model.load_state_dict(fitted, strict=True)
    assert sorted(fitted) == sorted(state)
    if trainable:
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert count == pytest.approx(trainable, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [("base", 96.76e6, 202.1), ("base-ssv2", 100.14e6, 207.7), ("large", 341.5e6, 3743.6)],
)
def test_parameters_and_gmacs_are_those_of_the_facts(name, parameters, gmacs):
    with torch.device("meta"):
        model = create_model(f"aim-{name}").eval()
        scale = model.config.native
        video = torch.empty(1, 3, scale.num_frames, scale.size, scale.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(video)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=1e-3)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=1e-3)


def test_sizes_that_do_not_go_are_named():
    config = AIMConfig()
    for change, text in (
        ({"num_temporal_adapters": 3}, r"num_temporal_adapters \(3\) must be 1 or 2"),
        ({"num_heads": 5}, r"embed_dim \(768\) must be a multiple of num_heads \(5\)"),
        ({"image_size": 225}, r"image_size \(225\) must be a multiple of .*nearest: 224, 240"),
        ({"depth": 0}, r"depth \(0\) must be a positive integer"),
    ):
        with pytest.raises(ValueError, match=text):
            replace(config, **change)
    with pytest.raises(ValueError, match=r"not AIM weights: backbone.conv1.weight"):
        AIM.config_of({"head.weight": torch.zeros(1)})
