"""TimeSformer: the official outputs, its files, every scale, drop path."""

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
from stretchysnake.models.transformers.timesformer import TimeSformer, TimeSformerConfig
from stretchysnake.models.weights.loading import load_weights


def config_of_fixture(said: dict) -> TimeSformerConfig:
    """The config that a fixture's metadata says; what this architecture has no field for must be as published."""
    config = said["config"]
    assert config["in_chans"] == 3 and config["attention_type"] == "divided_space_time"
    side = config["img_size"] // config["patch_size"]  # the official stem floors
    return TimeSformerConfig(
        image_size=side * config["patch_size"],
        **{
            name: config[name]
            for name in (
                "embed_dim",
                "depth",
                "num_heads",
                "mlp_ratio",
                "qkv_bias",
                "norm_eps",
                "patch_size",
                "num_frames",
                "num_classes",
            )
        },
        table_resize="nearest",
    )


@pytest.mark.parametrize("path", fixtures_of("timesformer"), ids=lambda path: path.stem)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_features_and_logits_are_the_official_ones(path, dtype, limit):
    tensors, said = read_fixture(path)
    model = TimeSformer(config_of_fixture(said)).eval()
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
