"""Drop path by hand: which clips go without which layer, what the others are multiplied by, whence the draws."""

import pytest
import torch

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.models.mixer import drop_path

DEPTH = 4


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VideoMamba(
        VideoMambaConfig(
            embed_dim=16,
            depth=DEPTH,
            patch_size=8,
            image_size=16,
            num_frames=2,
            num_classes=3,
            drop_path=0.3,
        )
    ).double()


def features_by_hand(model, video, kept):
    """The features of a clip (1, 3, T, H, W) where branch i is multiplied by kept[i]: the stream written out."""
    x, stream = model.embed_part(video), 0.0
    for i, block in enumerate(model.layers):
        stream = stream + (x if i == 0 else x * kept[i - 1])
        x = block.mixer(block.norm(stream))
    return model.norm_f((stream + x * kept[-1])[:, 0])


def test_samples_are_kept_whole_and_divided_by_what_is_kept():
    x = torch.arange(1.0, 25.0).view(4, 3, 2)
    draws = torch.tensor([0.1, 0.4, 0.39, 0.9])
    wanted = torch.zeros_like(x)
    wanted[1], wanted[3] = x[1] / 0.6, x[3] / 0.6
    assert torch.allclose(drop_path(x, 0.4, training=True, draws=draws), wanted)
    assert drop_path(x, 0.4, training=False, draws=draws) is x
    assert drop_path(x, 0.0, training=True, draws=draws) is x


def test_the_mean_is_that_of_the_input_and_a_sample_is_all_or_nothing():
    found = drop_path(torch.ones(20_000, 3, 2), 0.25, training=True)  # torch's own generator
    values = found.flatten(1)
    assert (values == values[:, :1]).all()
    assert set(values[:, 0].tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    # standard error of the mean: sqrt(0.25 / 0.75 / 20000) = 0.004
    assert abs(found.mean().item() - 1.0) < 0.016


def test_draws_decide_which_clip_goes_without_which_layer(model):
    model.train()
    torch.manual_seed(1)
    video, draws = torch.randn(5, 3, 2, 16, 16).double(), torch.rand(5, DEPTH)
    draws[:2] = torch.tensor([[0.0] * DEPTH, [0.99] * DEPTH])
    rates = torch.tensor(
        [0.0, 0.1, 0.2, 0.3]
    )  # linear in depth; the last branch has the last rate too
    # block i drops the branch of block i - 1 at rates[i - 1]
    kept = torch.where(draws >= rates, 1 / (1 - rates), 0.0).double()
    found = model.features(video, drop_draws=draws)
    for i in range(5):
        assert torch.allclose(found[i], features_by_hand(model, video[i : i + 1], kept[i])[0])
    assert not torch.allclose(found[0], found[1])


def test_draws_make_a_clip_independent_of_its_batch(model):
    model.train()
    video, draws = torch.randn(4, 3, 2, 16, 16).double(), torch.rand(4, DEPTH)
    whole = model(video, drop_draws=draws)
    parts = [model(video[i : i + 1], drop_draws=draws[i : i + 1]) for i in range(4)]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-13)


def test_plain_training_mode_draws_from_the_generator_of_torch(model):
    model.train()
    video = torch.randn(8, 3, 2, 16, 16).double()
    torch.manual_seed(5)
    first, second = model(video), model(video)
    torch.manual_seed(5)
    assert torch.equal(model(video), first) and not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(video), model(video, drop_draws=torch.zeros(8, DEPTH)))
