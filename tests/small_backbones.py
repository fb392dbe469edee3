"""A small config of every backbone: what tests of the verbs train and measure. A new architecture gets a line here."""

import pytest

from stretchysnake.models.architectures import ARCHITECTURES, config_from_dict

CLIP = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8}
SWIN = {
    "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": (2, 4, 4), "drop_path": 0.2,
}  # fmt: skip
SMALL = {
    "videomamba": {"embed_dim": 16, "depth": 2, "patch_size": 8},
    "aim": {**CLIP, "drop_path": 0.2},
    "evl": {
        **CLIP, "decoder_depth": 1, "decoder_width": 16, "decoder_heads": 2, "drop_path": 0.2, "dropout": 0.3,
    },
    "cast": {**CLIP, "drop_path": 0.2},
    "fluxvit": {**CLIP, "clip_dim": 8, "pool_heads": 2, "token_budget": None, "drop_path": 0.2},
    "hiera": {"embed_dim": 8, "depths": (1, 1, 1, 1), "drop_path": 0.2},
    "mvit": {
        "embed_dim": 8, "depth": 3, "pool_blocks": (1,), "kv_stride": 4, "drop_path": 0.2, "head_dropout": 0.3,
    },
    "omnivore": {**SWIN, "dropout": 0.3},
    "timesformer": {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8},
    "uniformer": {
        "embed_dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "head_dim": 8, "embed_strides": (2, 2, 1),
        "drop_path": 0.2,
    },
    "uniformer_v2": {
        **CLIP, "global_layers": (0, 1), "global_heads": 2, "local_parts": 1, "drop_path": 0.2, "dropout": 0.3,
    },
    "video_swin": {**SWIN, "dropout": 0.3},
}  # fmt: skip
"""Architecture -> what is changed of its config's defaults, beside 4 frames of 32 px and a head for the data."""


def small_config(architecture: str, **changes):
    """The small config of an architecture, native at 4 x 32 px."""
    if architecture not in SMALL:
        pytest.fail(
            f"{architecture} has no small config: add a line to SMALL in tests/small_backbones.py"
        )
    scale = {"num_frames": 4, "image_size": 32, "num_classes": 0}
    return config_from_dict(
        {"architecture": architecture, **scale, **SMALL[architecture], **changes}
    )


def names() -> list[str]:
    """Every architecture of the table."""
    return list(ARCHITECTURES)
