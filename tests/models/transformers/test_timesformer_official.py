"""TimeSformer beside the official code: its outputs, its full-size names and shapes, its operations."""

import pytest
import torch
from official import fixtures_of, full_size_keys, read_fixture, relative, weights_of
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.models.architectures import create_model
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


def test_published_file_gives_the_base_config_and_every_name_and_shape():
    keys = full_size_keys("timesformer_b_divst_8x224_k400")
    state = {
        name.removeprefix("model."): torch.empty(shape, device="meta")
        for name, shape in keys.items()
    }
    assert len(state) == 249
    assert TimeSformer.config_of(state) == TimeSformerConfig()
    assert (
        TimeSformerConfig().num_heads == 12 and TimeSformerConfig().norm_eps == 1e-6
    )  # in no file
    with torch.device("meta"):
        model = TimeSformer(TimeSformer.config_of(state))
    found, notes = model.fitted(state)
    assert notes == [] and {n: x.shape for n, x in found.items()} == {
        n: x.shape for n, x in model.state_dict().items()
    }
    model.load_state_dict(found, strict=True)


@pytest.mark.parametrize(
    ("name", "frames", "places", "parameters", "gmacs"),
    [
        ("timesformer-base", 8, 196, 121_566_352, 195.830),
        ("timesformer-hr", 16, 784, 122_024_080, 1702.686),
        ("timesformer-large", 96, 196, 121_633_936, 2379.857),
    ],
)
def test_published_sizes_have_their_parameters_and_operations(
    name, frames, places, parameters, gmacs
):
    with torch.device("meta"):
        model = create_model(name).eval()
        scale = model.config.native
        video = torch.empty(1, 3, scale.num_frames, scale.size, scale.size)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.time_embed.shape == (1, frames, 768)
    assert model.pos_embed.shape == (1, 1 + places, 768)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert model(video).shape == (1, 400)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=1e-5)
    # its own shapes say its own config
    assert TimeSformer.config_of(model.state_dict()) == model.config
