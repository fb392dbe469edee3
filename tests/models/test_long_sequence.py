"""Long clips in parts: exact equals one shot, windows carry exactly the forward state, and memory is bounded."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.models.long_sequence import exact_features, window_features
from stretchysnake.models.resample import resize_temporal_positions


def tiny(depth=3, **changes):
    torch.manual_seed(1)
    config = VideoMambaConfig(
        **{"embed_dim": 16, "depth": depth, "patch_size": 4, "image_size": 8, "num_frames": 4, "num_classes": 3,
           **changes}
    )  # fmt: skip
    model = VideoMamba(config)
    with torch.no_grad():
        torch.nn.init.normal_(model.temporal_pos_embedding)
        torch.nn.init.normal_(model.cls_token)
    return model.eval()


MODELS = {depth: tiny(depth) for depth in (1, 2, 3)}


@st.composite
def clips_in_parts(draw):
    """(number of frames, frames of each part)"""
    parts = draw(st.lists(st.integers(1, 7), min_size=1, max_size=9))
    return sum(parts), parts


@given(
    clip=clips_in_parts(),
    depth=st.sampled_from((1, 2, 3)),
    size=st.sampled_from(((8, 8), (4, 4), (12, 8), (7, 9))),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_exact_is_the_one_shot_feature(clip, depth, size, seed):
    num_frames, parts = clip
    generator = torch.Generator().manual_seed(seed)
    video = torch.randn(2, 3, num_frames, *size, generator=generator)
    model = MODELS[depth]
    found = exact_features(model, video.split(parts, 2), num_frames=num_frames, grid="floor")
    with torch.inference_mode():
        wanted = model.features(video, grid="floor")
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
