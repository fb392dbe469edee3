"""What a file of UniFormerV2 says about the model."""

import torch

from stretchysnake.models.transformers.uniformer_v2 import UniFormerV2, UniFormerV2Config


def test_sizes_are_found_again():
    config = UniFormerV2Config(
        embed_dim=64, depth=5, num_heads=1, patch_size=4, image_size=8, num_frames=16, tubelet_size=2,
        local_parts=1, local_reduction=3.0, global_layers=(3, 4), global_heads=1, global_mlp_factor=2.5, mixed=False,
        num_classes=6,
    )  # fmt: skip
    with torch.device("meta"):
        state = UniFormerV2(config).state_dict()
    found = UniFormerV2.config_of(state)
    # the width of local parts says the reduction only to a rounding
    assert found.local_width == 21 and abs(found.local_reduction - 3) < 0.1
    assert found == UniFormerV2Config(**{**vars(config), "local_reduction": found.local_reduction})
    assert UniFormerV2.config_of(state, num_frames=4, num_classes=2).num_frames == 4
