"""Features of decoded windows: those of the model at the index's scale, each window alone."""

import numpy as np
import pytest
import torch

from stretchysnake import Scale, VideoMamba, VideoMambaConfig
from stretchysnake.eval.features.passes import features_of

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
