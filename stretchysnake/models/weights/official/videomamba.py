"""Official VideoMamba weights: the sizes that their tensors have, and what is fitted to other sizes."""

import math
import re

from torch import Tensor, nn

from stretchysnake.models.config import VideoMambaConfig
from stretchysnake.models.resample import (
    inflate_patch_kernel,
    native_grid,
    resize_patch_kernel,
    resize_spatial_positions,
    resize_temporal_positions,
)


def config_of(state: dict[str, Tensor], **changes) -> VideoMambaConfig:
    """The VideoMambaConfig whose shapes a flat state dict has."""
    needed = ("patch_embed.proj.weight", "pos_embed", "cls_token", "layers.0.mixer.A_log")
    missing = [name for name in needed if name not in state]
    if missing:
        raise ValueError(f"these are not VideoMamba weights: {', '.join(missing)} missing")
    kernel = state["patch_embed.proj.weight"]
    tubelet = kernel.shape[2] if kernel.dim() == 5 else changes.get("tubelet_size", 1)
    frames = state.get("temporal_pos_embedding")
    inner, state_size = state["layers.0.mixer.A_log"].shape
    width, rank = kernel.shape[0], state["layers.0.mixer.dt_proj.weight"].shape[1]
    sizes = {
        "embed_dim": width,
        "depth": 1
        + max(int(name.split(".")[1]) for name in state if re.match(r"layers\.\d+\.", name)),
        "patch_size": kernel.shape[-1],
        "image_size": native_grid(state["pos_embed"]) * kernel.shape[-1],
        "num_frames": frames.shape[1] * tubelet if frames is not None else tubelet,
        "num_classes": state["head.weight"].shape[0] if "head.weight" in state else 0,
        "tubelet_size": tubelet,
        "state_size": state_size,
        "expand": inner // width,
        "conv_width": state["layers.0.mixer.conv1d.weight"].shape[-1],
        "dt_rank": 0 if rank == math.ceil(width / 16) else rank,
    }
    return VideoMambaConfig.from_dict({**sizes, **changes})


def fitted(state: dict[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict as a VideoMamba of this config holds it, and a note for each thing that was changed.

    A 2-D patch kernel is inflated; patch kernel, E_pos and E_temp are resized.
    """
    state, notes = dict(state), []
    target = model.state_dict()
    _drop_pretraining_parts(state, target, notes)
    _fit_patch_kernel(state, target["patch_embed.proj.weight"], model.config, notes)
    _fit_positions(state, target, notes)
    return state, notes


def _drop_pretraining_parts(state: dict, target: dict, notes: list[str]) -> None:
    # VideoMamba's masked pre-training keeps decoders beside the encoder and names its last norm `norm`, which the
    # official fine-tuning code does not find, so that norm_f starts at one; we do the same.
    decoders = [name for name in state if name.startswith("clip_decoder.")]
    if decoders:
        for name in [*decoders, "norm.weight"]:
            state.pop(name, None)
        state.setdefault("norm_f.weight", target["norm_f.weight"])
        notes.append("decoders of masked pre-training dropped; the final norm starts fresh")


def _fit_patch_kernel(
    state: dict, stem: Tensor, config: VideoMambaConfig, notes: list[str]
) -> None:
    kernel = state.get("patch_embed.proj.weight")
    if kernel is None or kernel.dim() not in (4, 5):
        return
    if kernel.dim() == 4:
        kernel = inflate_patch_kernel(kernel, config.tubelet_size)
        notes.append(
            f"patch kernel inflated from an image model to {config.tubelet_size} frames (centre)"
        )
    if kernel.shape[-1] != stem.shape[-1] and kernel.shape[-1] == kernel.shape[-2]:
        notes.append(
            f"patch kernel {kernel.shape[-1]} -> {stem.shape[-1]} px ({config.patch_resize})"
        )
        kernel = resize_patch_kernel(kernel, stem.shape[-1], mode=config.patch_resize)
    state["patch_embed.proj.weight"] = kernel


def _fit_positions(state: dict, target: dict, notes: list[str]) -> None:
    positions = state.get("pos_embed")
    if (
        positions is not None
        and positions.dim() == 3
        and positions.shape != target["pos_embed"].shape
    ):
        before, after = native_grid(positions), native_grid(target["pos_embed"])
        if before != after:
            notes.append(f"spatial positions {before}x{before} -> {after}x{after} (bicubic)")
            state["pos_embed"] = resize_spatial_positions(positions, (after, after))
    frames, wanted = state.get("temporal_pos_embedding"), target["temporal_pos_embedding"]
    if frames is None:
        notes.append("temporal positions absent (image model): kept at the model's own")
        state["temporal_pos_embedding"] = wanted
    elif frames.dim() == 3 and frames.shape[1] != wanted.shape[1]:
        notes.append(f"temporal positions {frames.shape[1]} -> {wanted.shape[1]} (linear)")
        state["temporal_pos_embedding"] = resize_temporal_positions(frames, wanted.shape[1])
