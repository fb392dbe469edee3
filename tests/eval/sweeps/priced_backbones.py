"""A small config of every architecture, with every kind of layer that it has."""

_CLIP = {"embed_dim": 64, "depth": 3, "num_heads": 2, "image_size": 64, "num_classes": 5}
_SWIN = {
    "embed_dim": 32, "depths": (2, 2), "num_heads": (1, 2), "window_size": (4, 4, 4), "num_frames": 8,
    "image_size": 32, "num_classes": 5, "drop_path": 0.0,
}  # fmt: skip
SMALL: dict[str, tuple[str, dict]] = {
    "videomamba": ("videomamba-nano", {"depth": 6, "num_classes": 5}),
    "aim": ("aim", _CLIP),
    "cast": ("cast", {**_CLIP, "num_frames": 4}),
    "evl": ("evl", {**_CLIP, "decoder_depth": 2, "decoder_width": 64, "decoder_heads": 2, "num_frames": 4}),
    "fluxvit": ("fluxvit", {
        "embed_dim": 256, "depth": 3, "num_heads": 4, "pool_heads": 4, "clip_dim": 24, "image_size": 56,
        "num_frames": 6, "num_classes": 5, "token_budget": None,
    }),
    "hiera": ("hiera", {"embed_dim": 16, "depths": (1, 2, 2, 1), "image_size": 64, "num_frames": 4, "num_classes": 5}),
    "mvit": ("mvit-nano", {"num_classes": 5}),
    "omnivore": ("omnivore", _SWIN),
    "timesformer": ("timesformer-nano", {"num_classes": 5}),
    "uniformer": ("uniformer-nano", {"num_classes": 5}),
    "uniformer_v2": ("uniformer-v2", {
        **_CLIP, "num_frames": 4, "tubelet_size": 2, "local_parts": 2, "global_layers": (1, 2), "global_heads": 2,
    }),
    "video_swin": ("video-swin", _SWIN),
}  # fmt: skip
"""Architecture -> a published size and what is made smaller in it."""
