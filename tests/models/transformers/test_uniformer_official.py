"""UniFormer beside the official code: its outputs, its full-size names and shapes, its operations."""

import pytest
import torch
from official import fixtures_of, full_size_keys, read_fixture, relative, weights_of
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.models.architectures import create_model
from stretchysnake.models.transformers.uniformer import UniFormer, UniFormerConfig
from stretchysnake.models.weights.loading import load_weights


def config_of_fixture(said: dict) -> UniFormerConfig:
    """The config that a fixture's metadata says; what this architecture has no field for must be as published."""
    config = said["config"]
    assert config["in_chans"] == 3 and not config["split"] and not config["std"]
    assert config["qkv_scale"] is None and config["representation_size"] is None
    return UniFormerConfig(
        embed_dims=tuple(config["embed_dim"]),
        depths=tuple(config["depth"]),
        image_size=config["img_size"],
        num_frames=config["T"],
        **{name: config[name] for name in ("head_dim", "mlp_ratio", "qkv_bias", "num_classes")},
    )


@pytest.mark.parametrize("path", fixtures_of("uniformer"), ids=lambda path: path.stem)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_features_and_logits_are_the_official_ones(path, dtype, limit):
    tensors, said = read_fixture(path)
    model = UniFormer(config_of_fixture(said)).eval()
    assert load_weights(model, weights_of(tensors)) == []
    model = model.to(dtype)
    suffix = "_fp64" if dtype == torch.float64 else ""
    inputs = [name for name in tensors if name == "input" or name.startswith("input_")]
    assert "input" in inputs
    for name in inputs:
        number = name.removeprefix("input")
        with torch.no_grad():
            features = model.features(tensors[name].to(dtype), grid="floor")
            logits = model(tensors[name].to(dtype), grid="floor")
        assert relative(features, tensors[f"features{number}{suffix}"]) <= limit
        assert relative(logits, tensors[f"logits{number}{suffix}"]) <= limit


@pytest.mark.parametrize(
    ("size", "entries", "parameters"), [("small", 331, 21_400_400), ("base", 687, 49_813_200)]
)
def test_published_file_gives_its_config_and_every_name_and_shape(size, entries, parameters):
    keys = full_size_keys(f"uniformer_{size[0]}_16x4_k400")
    state = {name: torch.empty(shape, device="meta") for name, shape in keys.items()}
    assert len(state) == entries
    rate = {"small": 0.1, "base": 0.3}[size]  # in no file
    with torch.device("meta"):
        model = create_model(f"uniformer-{size}")
    assert model.config == UniFormer.config_of(state, drop_path=rate)
    found, notes = model.fitted(state)
    assert notes == [] and {n: x.shape for n, x in found.items()} == {
        n: x.shape for n, x in model.state_dict().items()
    }
    model.load_state_dict(found, strict=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("size", "frames", "pixels", "gmacs"),
    [
        ("small", 16, 224, 41.663),
        ("small", 8, 224, 17.566),
        ("small", 16, 112, 7.690),
        ("base", 16, 224, 96.554),
        ("base", 32, 224, 258.251),
    ],
)
def test_published_sizes_have_their_operations(size, frames, pixels, gmacs):
    with torch.device("meta"):
        model = create_model(f"uniformer-{size}").eval()
        video = torch.empty(1, 3, frames, pixels, pixels)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert model(video).shape == (1, 400)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=1e-4)
