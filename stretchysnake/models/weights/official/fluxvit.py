"""Weights of FluxViT: the sizes that their tensors have, and what of a file fits a model of other sizes.

T frames, g rows and columns of a table of places.
"""

import math

from torch import Tensor, nn

from stretchysnake.models.resample import resize_patch_kernel
from stretchysnake.models.transformers.layers.fluxvit_blocks import (
    resize_pixel_weights,
    resize_positions,
)
from stretchysnake.models.weights.official.clip import depth_in, heads_of, needed


def sizes_in(state: dict[str, Tensor]) -> dict:
    """The fields of FluxViTConfig that the shapes of a flat state dict decide.

    A table of positions does not say its number of frames: see `likely_shape`.
    """
    needed(
        state, "FluxViT", "patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight",
        "clip_projector.0.cross_attn.proj.weight",
    )  # fmt: skip
    width, patch = (state["patch_embed.proj.weight"].shape[i] for i in (0, -1))
    frames, side, _ = likely_shape(state["pos_embed"].shape[1] - 1)
    return {
        "embed_dim": width,
        "depth": depth_in(state, "blocks."),
        "num_heads": heads_of(width),
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "patch_size": patch,
        "image_size": side * patch,
        "num_frames": frames,
        "clip_dim": state["clip_projector.0.cross_attn.proj.weight"].shape[0],
        "pool_heads": math.gcd(16, width),
        "num_classes": len(state.get("head.0.weight", ())),
    }


def likely_shape(
    num_places: int, wanted: tuple[int, int, int] | None = None
) -> tuple[int, int, int]:
    """(T, g, g) of a table of so many places: the one with T nearest to 1.5 g, as the published 24 x 18 x 18 and
    32 x 20 x 20 have it; where one has the T or the g of `wanted`, only such are thought of.
    """
    sides = [g for g in range(1, math.isqrt(num_places) + 1) if num_places % g**2 == 0]
    shapes = [(num_places // g**2, g, g) for g in sides]
    alike = [s for s in shapes if wanted and (s[0] == wanted[0] or s[1] == wanted[1])]
    return min(alike or shapes, key=lambda shape: abs(math.log(shape[0] / (1.5 * shape[1]))))


def fitted(state: dict[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict as a FluxViT of this config holds it, and a note for each kind of change."""
    state, notes = dict(state), []
    _fit_sizes(state, model.config, notes)
    _fit_heads(state, model, notes)
    return state, notes


def _fit_sizes(state: dict, config, notes: list[str]) -> None:
    table, wanted = state.get("pos_embed"), config.shape
    if table is not None and table.dim() == 3 and table.shape[1] != 1 + config.num_places:
        before = likely_shape(table.shape[1] - 1, wanted)
        names = ("x".join(map(str, shape)) for shape in (before, wanted))
        notes.append("positions {} -> {} (linear over time, bicubic over space)".format(*names))
        state["pos_embed"] = resize_positions(table, before, wanted)
    kernel, pixels = (state.get(f"patch_embed.{n}") for n in ("proj.weight", "norm_before.weight"))
    patch = config.patch_size
    if kernel is None or kernel.dim() != 5 or kernel.shape[-1] == patch:
        return
    notes.append(
        f"patch kernel and weights of its pixels {kernel.shape[-1]} -> {patch} px (bicubic)"
    )
    state["patch_embed.proj.weight"] = resize_patch_kernel(kernel, patch)
    if pixels is not None:
        state["patch_embed.norm_before.weight"] = resize_pixel_weights(pixels, patch)


def _fit_heads(state: dict, model: nn.Module, notes: list[str]) -> None:
    """Heads beside the one in use, and the LayerNorm before them; the one in use is whoever loads' matter."""
    initial = {n: t for n, t in model.state_dict().items() if n.startswith(("head.", "fc_norm."))}
    if not initial:
        dropped = [n for n in state if n.startswith(("head.", "fc_norm."))]
        for name in dropped:
            del state[name]
        if dropped:
            notes.append("heads and their LayerNorm dropped (num_classes is 0)")
        return
    fresh = [
        name
        for name, tensor in initial.items()
        if not name.startswith(f"{model.classifier}.")
        and (name not in state or state[name].shape[0] != tensor.shape[0])
    ]
    if fresh:
        state |= {name: initial[name] for name in fresh}
        notes.append(f"absent, or of other classes, and fresh: {', '.join(fresh)}")
