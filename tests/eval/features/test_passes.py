"""Features of decoded clips: those of the model at their scale, and to the last bit those of a pass of their own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stretchysnake import Scale, VideoMamba, VideoMambaConfig
from stretchysnake.eval.features import passes
from stretchysnake.eval.features.passes import clips_a_pass, features_of, same_alone
from stretchysnake.eval.features.placed_model import placed
from stretchysnake.eval.features.placement import Placement
from stretchysnake.ops.out_of_memory import is_out_of_memory

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.mark.parametrize("batch_size", [1, 2, 64], ids=["one by one", "two and one", "together"])
@pytest.mark.parametrize("scale", [Scale(3, 24, 6), Scale(2, 32, 8), Scale(2, 30, 8)], ids=str)
def test_features_are_those_of_the_model_at_this_scale(scale, batch_size):
    model = VideoMamba(VideoMambaConfig.named("nano", embed_dim=16, depth=2, num_classes=0)).eval()
    shape = (3, scale.num_frames, scale.size, scale.size, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = features_of(model, scale, frames, batch_size=batch_size)
    used = scale.grid * scale.patch_size  # what fills no patch is left out
    pixels = ((frames / 255 - MEAN) / STD)[:, :, :used, :used].transpose(0, 4, 1, 2, 3)
    with torch.no_grad():
        wanted = model.features(torch.from_numpy(pixels).float(), scale.patch_size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)


def random_frames(scale: Scale, count: int) -> np.ndarray:
    shape = (count, scale.num_frames, scale.size, scale.size, 3)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def nano() -> VideoMamba:
    return VideoMamba(VideoMambaConfig.named("nano", embed_dim=32, depth=2, num_classes=0)).eval()


@pytest.mark.parametrize("scale", [Scale(4, 32, 8), Scale(5, 24, 6), Scale(8, 40, 8)], ids=str)
def test_clips_share_a_pass_only_where_their_bits_stay(scale):
    model, frames = nano(), random_frames(scale, 13)
    count = clips_a_pass(model, scale, num_clips=10_000, most=6)
    assert count in (1, 6)  # by what this processor's library does
    alone = np.stack(
        [features_of(model, scale, frames[i : i + 1], batch_size=1)[0] for i in range(13)]
    )
    np.testing.assert_array_equal(
        features_of(model, scale, frames[:12], batch_size=count), alone[:12]
    )


class Leaning(torch.nn.Module):
    """A model whose features lean on the clips beside them, in the last bit."""

    def __init__(self, config):
        super().__init__()
        self.config, self.weight = config, torch.nn.Parameter(torch.ones(1))

    def features(self, video, patch_size, *, grid):
        means = video.mean((2, 3, 4))
        return means * (1 + 1e-7 * len(video))


def test_clips_do_not_share_a_pass_that_changes_a_bit():
    model, scale = nano(), Scale(2, 16, 8)
    leaning = Leaning(model.config)
    assert not same_alone(leaning, scale, 4)
    assert clips_a_pass(leaning, scale, num_clips=10_000, most=6) == 1
    undeclared = Leaning(replace(model.config))
    undeclared.config = type("Config", (), {"pixel_mean": (0,) * 3, "pixel_std": (1,) * 3})()
    assert clips_a_pass(undeclared, scale, num_clips=10_000, most=6) == 1


def test_few_clips_are_no_reason_to_try_and_bf16_needs_none(monkeypatch):
    tried = []
    monkeypatch.setattr(passes, "same_alone", lambda model, scale, count: not tried.append(count))
    model, scale = nano(), Scale(2, 16, 8)
    sizes = [clips_a_pass(model, scale, num_clips=n, most=40) for n in (1, 63, 64, 320, 100_000)]
    assert sizes == [1, 1, 2, 10, 16] and tried == [2, 10, 16]
    placed(model, Placement(device="cpu", precision="bf16"))
    assert clips_a_pass(model, scale, num_clips=3, most=40) == 40 and len(tried) == 3


def test_a_pass_that_does_not_fit_says_what_to_do(monkeypatch):
    model, scale = nano(), Scale(2, 16, 8)

    def full(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB and so on")

    monkeypatch.setattr(model, "features", full)
    monkeypatch.setattr(passes, "memory_in_words", lambda device: "cuda:0 has 1.0 GiB free")
    told = "not enough memory for a forward pass of 3 clips at T=2 S=16; cuda:0 has 1.0 GiB free; "
    with pytest.raises(RuntimeError, match=told + "give a smaller --batch_size") as met:
        features_of(model, scale, random_frames(scale, 3), batch_size=8)
    assert is_out_of_memory(met.value)
    with pytest.raises(
        RuntimeError, match=r"pass of 1 clip at .* choose fewer --frames or a smaller --size"
    ):
        features_of(model, scale, random_frames(scale, 3), batch_size=1)
