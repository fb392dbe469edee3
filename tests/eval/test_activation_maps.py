"""Maps of activation: the cosine of each patch token with [CLS], at its place."""

import numpy as np
import torch

from stretchysnake import Scale, VideoMamba, VideoMambaConfig
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.eval.activation_maps import patch_activations


def test_map_is_the_cosine_of_every_patch_with_the_class_token():
    model = VideoMamba(VideoMambaConfig.named("nano", embed_dim=16, depth=2, num_classes=3)).train()
    with torch.no_grad():  # lengths that differ: a dot product is no cosine
        model.norm_f.weight.copy_(torch.linspace(0.1, 4, 16))
    frames = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    found = patch_activations(model, frames, Scale(3, 24, 6))
    with torch.no_grad():
        tokens = model.eval().tokens(normalise(torch.from_numpy(frames))[None], 6)
    patches, own = tokens.patches[0].double().numpy(), tokens.cls[0].double().numpy()
    wanted = patches @ own / np.linalg.norm(patches, axis=-1) / np.linalg.norm(own)
    assert found.shape == (3, 4, 4)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
