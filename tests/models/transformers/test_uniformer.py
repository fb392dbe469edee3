"""UniFormer: the official outputs, its files, every scale, batch norms, drop path."""

import pytest
import torch
import torch.nn.functional as F
from official import fixtures_of, full_size_keys, read_fixture, relative, weights_of

from stretchysnake.flexibility import NANO, Scale, eval_scale
from stretchysnake.models.architectures import (
    build_model,
    config_from_dict,
    config_to_dict,
    create_model,
)
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


# The official module itself is 1.3e-6 off its own float64, and 1e-9 is asked of a float64 port.
@pytest.mark.parametrize("path", fixtures_of("uniformer"), ids=lambda path: path.stem)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
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
        print(relative(features, tensors[f"features{number}{suffix}"]))
        assert relative(features, tensors[f"features{number}{suffix}"]) <= limit
        assert relative(logits, tensors[f"logits{number}{suffix}"]) <= limit
