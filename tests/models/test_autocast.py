"""bf16 autocast on the CPU: parameters, residual stream and scan state stay fp32, so features stay close."""

import pytest
import torch

from stretchysnake import VideoMamba, VideoMambaConfig

BUDGET = 2e-2
"""Largest error of a feature relative to the largest feature: bf16 has 8 bits, a rounding is 4e-3."""


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VideoMamba(VideoMambaConfig.named("nano", num_classes=5))


@pytest.mark.parametrize(("shape", "patch_size"), [((8, 32, 32), 8), ((5, 48, 36), 12)])
def test_features_under_autocast_stay_within_the_budget(model, shape, patch_size):
    video = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    model.eval()
    with torch.no_grad():
        wanted = model.features(video, patch_size)
        with torch.autocast("cpu", torch.bfloat16):
            found = model.features(video, patch_size)
    error = (found.float() - wanted).abs().max() / wanted.abs().max()
    assert 0 < error < BUDGET


def test_gradients_under_autocast_are_fp32_and_point_the_same_way(model):
    video = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([1, 3])

    def gradient(enabled):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = model(video)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        assert all(p.grad.dtype == torch.float32 for p in model.parameters())
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    cosine = torch.nn.functional.cosine_similarity(gradient(False), gradient(True), dim=0)
    assert cosine > 0.999
