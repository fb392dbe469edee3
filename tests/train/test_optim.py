"""Parameter groups and the learning rate."""

import pytest

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.train.optim import build_optimizer, lr_at, parameter_groups
from stretchysnake.train.run import OptimConfig


def test_no_decay_on_biases_norms_states_and_embeddings():
    model = VideoMamba(
        VideoMambaConfig(embed_dim=32, depth=1, patch_size=8, image_size=16, num_classes=3)
    )
    decayed, rest = parameter_groups(model, 0.05)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {
        "patch_embed.proj.weight",
        "head.weight",
        *(
            f"layers.0.mixer.{name}.weight"
            for name in (
                "in_proj", "out_proj", "conv1d", "conv1d_b", "x_proj", "x_proj_b", "dt_proj", "dt_proj_b",
            )
        ),
    }  # fmt: skip
    assert len(decayed["params"]) + len(rest["params"]) == len(names)
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.05, 0.0)
    assert build_optimizer(model, OptimConfig()).defaults["betas"] == (0.9, 0.999)


def test_rate_warms_up_and_falls_to_zero():
    config = OptimConfig(lr=1.0, warmup=0.1)
    rates = [lr_at(config, step=step, steps=100) for step in range(100)]
    assert max(rates) == rates[10] == 1.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert 0 < rates[0] < 0.1


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"lr": 0.0}, r"lr \(0.0\) must be positive"),
        ({"warmup": 5}, r"warmup \(5\) must be .*fraction"),
        ({"betas": (2.0, 3.0)}, r"betas \(2.0, 3.0\) must each be at least 0 and less than 1"),
    ],
)
def test_impossible_values_are_refused(values, text):
    with pytest.raises(ValueError, match=text):
        OptimConfig(**values)
