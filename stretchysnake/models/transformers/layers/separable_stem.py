"""The stem of MViT and Hiera: a convolution whose patches overlap, and a position of its place plus one of its time.

B batch, T frames, H W pixels, P patch size (the stride in space), τ tubelet (the stride in time), t h w tokens,
C width. A model that has it has `patch_embed.proj`, `pos_embed_spatial` (1, h·w, C), `pos_embed_temporal` (1, t, C),
and a config with tubelet_size, patch_size, num_frames, patch_resize and `table_grid`, the stored (h, w).
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.flexibility import size_message
from stretchysnake.models.config import check_patch_resize
from stretchysnake.models.flexible_embedding import ResizedWeights
from stretchysnake.models.resample import (
    resize_patch_kernel,
    resize_table,
    resize_temporal_positions,
)


def check_stem(config, *sides: int) -> None:
    """ValueError unless heads share the width, the stored sides are multiples of P, the frames of τ, and patch_resize
    is known."""
    if config.embed_dim % config.num_heads:
        raise ValueError(
            f"embed_dim ({config.embed_dim}) must be a multiple of num_heads ({config.num_heads})"
        )
    for side in sides:
        if side % config.patch_size:
            raise ValueError(size_message("image_size", side, config.patch_size))
    if config.num_frames % config.tubelet_size:
        raise ValueError(
            f"num_frames ({config.num_frames}) must be a multiple of tubelet_size ({config.tubelet_size})"
        )
    check_patch_resize(config)


class PatchEmbed(nn.Module):
    """Holder of the stem's kernel, 2τ-1 frames of 2P-1 pixels, under the official name `patch_embed.proj`."""

    def __init__(self, width: int, tubelet: int, patch_size: int):
        super().__init__()
        kernel = (2 * tubelet - 1, 2 * patch_size - 1, 2 * patch_size - 1)
        self.proj = nn.Conv3d(3, width, kernel, stride=(tubelet, patch_size, patch_size))
        self.resized = ResizedWeights()


def embed(model: nn.Module, video: Tensor, patch_size: int) -> Tensor:
    """Tokens with positions, (B, ⌈T/τ⌉, ⌈H/P⌉, ⌈W/P⌉, C), of a clip of any size."""
    config, stem = model.config, model.patch_embed.proj
    resized = partial(model.patch_embed.resized, training=model.training)
    # Paper does not say how overlapping stems flex; we resize to 2P-1 taps with P-1 of padding because the stored
    # stems (7/4/3) are so, and because every kernel's centre then stays on the pixel that its patch begins with.
    kernel = resized(
        ("stem", patch_size),
        stem.weight,
        lambda weight: resize_patch_kernel(weight, 2 * patch_size - 1, mode=config.patch_resize),
    )
    tubelet = config.tubelet_size
    x = F.conv3d(
        video.to(kernel.dtype),
        kernel,
        stem.bias,
        stride=(tubelet, patch_size, patch_size),
        padding=(tubelet - 1, patch_size - 1, patch_size - 1),
    ).permute(0, 2, 3, 4, 1)  # (B, t, h, w, C)
    t, h, w = x.shape[1:4]
    places = resized(
        ("places", h, w),
        model.pos_embed_spatial,
        lambda table: resize_table(table, config.table_grid, (h, w)),
    )
    times = resized(
        ("times", t),
        model.pos_embed_temporal,
        lambda table: resize_temporal_positions(table, t),
    )
    return x + (places.unflatten(1, (h, w)).unsqueeze(1) + times[:, :, None, None])


def fit_stem(
    state: dict[str, Tensor], config, before: tuple[int, int] | None, notes: list[str]
) -> None:
    """Resize the stem and both tables of a state dict to the config's sizes, with a note for each.

    before: the (h, w) of the file's table; None leaves it as it is.
    """
    kernel = state.get("patch_embed.proj.weight")
    taps = 2 * config.patch_size - 1
    if kernel is not None and kernel.dim() == 5 and kernel.shape[-1] != taps:
        notes.append(f"stem {kernel.shape[-1]} -> {taps} px ({config.patch_resize})")
        state["patch_embed.proj.weight"] = resize_patch_kernel(
            kernel, taps, mode=config.patch_resize
        )
    places, after = state.get("pos_embed_spatial"), config.table_grid
    if places is not None and before is not None and before != after:
        notes.append(
            f"spatial positions {before[0]}x{before[1]} -> {after[0]}x{after[1]} (bicubic)"
        )
        state["pos_embed_spatial"] = resize_table(places, before, after)
    times = state.get("pos_embed_temporal")
    num_times = config.num_frames // config.tubelet_size
    if times is not None and times.dim() == 3 and times.shape[1] != num_times:
        notes.append(f"temporal positions {times.shape[1]} -> {num_times} (linear)")
        state["pos_embed_temporal"] = resize_temporal_positions(times, num_times)


def stem_sizes(state: dict[str, Tensor]) -> dict[str, int]:
    """embed_dim, patch_size, tubelet_size and num_frames of a state dict, by its kernel and tables.

    ValueError where these are not of a video model.
    """
    for name, axes in (
        ("patch_embed.proj.weight", 5),
        ("pos_embed_spatial", 3),
        ("pos_embed_temporal", 3),
    ):
        if state[name].dim() != axes:
            raise ValueError(
                f"{name} has shape {tuple(state[name].shape)}; a video model's has {axes} axes"
            )
    width, _, frames, _, taps = state["patch_embed.proj.weight"].shape
    tubelet = (frames + 1) // 2
    return {
        "embed_dim": width,
        "patch_size": (taps + 1) // 2,
        "tubelet_size": tubelet,
        "num_frames": state["pos_embed_temporal"].shape[1] * tubelet,
    }


def initialise(model: nn.Module) -> None:
    """Linear layers, [CLS] and position tables from a normal of 0.02, biases 0, norms and convolutions as
    torch makes them."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        if name.startswith(("pos_embed", "cls_token")):
            nn.init.normal_(parameter, std=0.02)


class ProjectedHead(nn.Module):
    """Linear classes under the official name `head.projection`; (B, C) -> (B, num_classes)."""

    def __init__(self, width: int, num_classes: int, *, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(width, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.projection(self.dropout(features))
