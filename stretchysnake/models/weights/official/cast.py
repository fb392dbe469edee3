"""Weights of CAST: the sizes that their tensors have, what of a file fits a model, and its two experts to start from.

t h w tokens, N = h·w, C width.
"""

import math
import re

from torch import Tensor, nn

from stretchysnake.models.transformers.layers.cast_stems import resize_cross_table
from stretchysnake.models.transformers.layers.clip.tower import (
    resize_clip_kernel,
    resize_clip_positions,
)
from stretchysnake.models.weights.official.clip import depth_in, heads_of, needed

CLIP = "clip.visual."
"""Before the names of CLIP's visual tower, where it comes from a file of its own."""
ADDED = ("Adapter", "cross", "vmae_fc_norm")
"""Parts of the names of what neither expert has."""


def sizes_in(state: dict[str, Tensor]) -> dict:
    """The fields of CASTConfig that the shapes of a flat state dict decide; without a head for two experts."""
    if is_videomae(state):
        state = experts(state)[0]
    needed(
        state, "CAST", "clip_conv1.weight", "clip_positional_embedding", "blocks.0.mlp.fc1.weight",
    )  # fmt: skip
    width, patch = state["clip_conv1.weight"].shape[0], state["clip_conv1.weight"].shape[-1]
    sizes = {
        "embed_dim": width,
        "depth": depth_in(state, "blocks."),
        "num_heads": heads_of(width),
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "qkv_bias": "blocks.0.attn.q_bias" in state,
        "patch_size": patch,
        "image_size": _side(state["clip_positional_embedding"].shape[0] - 1) * patch,
        "num_classes": len(state.get("head.weight", ())),
    }
    if "blocks.0.t2s_cross.clip_time_pos" in state:
        frames, cross_width = state["blocks.0.t2s_cross.clip_time_pos"].shape
        sizes |= {"num_frames": 2 * frames, "down_ratio": width // cross_width}
        sizes["composition"] = "noun_last_Adapter.D_fc1.weight" not in state
    if "head_noun.weight" in state and "head_verb.weight" in state:
        nouns, verbs = (len(state[f"head_{kind}.weight"]) for kind in ("noun", "verb"))
        sizes |= {"num_classes": nouns + verbs, "num_verbs": verbs}
    return sizes


def fitted(state: dict[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict as a CAST of this config holds it, and a note for each kind of change."""
    state, notes = dict(state), []
    target = model.state_dict()
    stored, wanted = stored_shape(state), model.config.shape
    if is_videomae(state):
        state, notes = experts(state)
        fresh = [n for n in target if n not in state and any(part in n for part in ADDED)]
        state |= {name: target[name] for name in fresh}
        notes.append(
            f"only the two experts are in the files: what joins them starts fresh ({len(fresh)} tensors)"
        )
    if stored not in (None, wanted) and model.config.sine_shape is None:
        notes.append(
            f"VideoMAE's fixed positions are computed for {wanted}; sine_shape={stored} keeps the file's"
        )
    _fit_sizes(state, target, model.config, notes)
    _fit_ends(state, target, model.config, notes)
    return state, notes


def stored_shape(state: dict[str, Tensor]) -> tuple[int, int, int] | None:
    """(t, h, w) of the tables of a CAST's state dict; None for its experts, which have none of time."""
    if not {"clip_positional_embedding", "blocks.0.t2s_cross.clip_time_pos"} <= state.keys():
        return None
    side = _side(state["clip_positional_embedding"].shape[0] - 1)
    return state["blocks.0.t2s_cross.clip_time_pos"].shape[0], side, side


def is_videomae(state: dict[str, Tensor]) -> bool:
    """Whether this is VideoMAE's encoder, with CLIP's tower or without, and no CAST."""
    return "blocks.0.attn.qkv.weight" in state and "blocks.0.t2s_cross.clip_time_pos" not in state


def experts(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """VideoMAE's encoder and CLIP's tower (names after clip.visual.) under CAST's names, with notes of what is left."""
    if f"{CLIP}conv1.weight" not in state:
        raise ValueError(
            "these are VideoMAE's weights alone, of which CAST is one half; the other is CLIP's visual tower "
            "(ViT-B-16.pt): give its file as clip"
        )
    tensors, left = {}, {"CLIP": [], "VideoMAE": []}
    for name, tensor in state.items():
        if bare := name.removeprefix(CLIP) if name.startswith(CLIP) else "":
            block = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", bare)
            if bare == "proj":
                left["CLIP"].append(bare)
            else:
                tensors[f"blocks.{block[1]}.clip_{block[2]}" if block else f"clip_{bare}"] = tensor
        elif name.startswith(("blocks.", "patch_embed.")):
            tensors[name] = tensor
        else:
            left["VideoMAE"].append(name)
    notes = [f"of {who} not used: {', '.join(names)}" for who, names in left.items() if names]
    return tensors, notes


def _fit_sizes(state: dict, target: dict, config, notes: list[str]) -> None:
    """Stems, positions and the tables of the meetings, brought to the config's sizes."""
    t, *grid = config.shape
    said = set()
    for name, tensor in list(state.items()):
        if (
            name not in target
            or tensor.dim() != target[name].dim()
            or tensor.shape == target[name].shape
        ):
            continue
        end = name.rsplit(".", 1)[-1]
        if name in ("clip_conv1.weight", "patch_embed.proj.weight"):
            said.add(f"patch kernels {tensor.shape[-1]} -> {config.patch_size} px (bicubic)")
            state[name] = resize_clip_kernel(tensor, (config.patch_size, config.patch_size))
        elif end == "clip_positional_embedding" or end.endswith("_space_pos"):
            first = end == "clip_positional_embedding"
            side = _side(tensor.shape[0] - first)
            said.add(f"spatial positions {side}x{side} -> {grid[0]}x{grid[1]} (bicubic)")
            resize = resize_clip_positions if first else resize_cross_table
            state[name] = resize(tensor, (side, side), tuple(grid))
        elif end.endswith("_time_pos"):
            said.add(f"temporal positions {tensor.shape[0]} -> {t} (linear)")
            state[name] = resize_cross_table(tensor, (tensor.shape[0],), (t,))
    notes += sorted(said)


def _fit_ends(state: dict, target: dict, config, notes: list[str]) -> None:
    """Last adapters and heads, of which the two forms have different ones; `head` itself is whoever loads' matter."""
    absent = ("noun_last_Adapter.", "verb_last_Adapter.")
    heads = ("head_noun.", "head_verb.")
    for what, names in (("last adapters", absent), ("heads of nouns and verbs", heads)):
        norms = [name for name in state if name.startswith(names) and name not in target]
        for name in norms:
            del state[name]
        if norms:
            why = (
                "composition"
                if names == absent
                else "num_classes is 0"
                if config.composition
                else "one head"
            )
            notes.append(f"{what} dropped ({why})")
    fresh = [name for name in target if name.startswith(absent) and name not in state]
    if fresh:
        state |= {name: target[name] for name in fresh}
        notes.append("last adapters absent: they start fresh")
    for weight, bias in ((f"{name}weight", f"{name}bias") for name in heads):
        if weight not in target or (
            weight in state and state[weight].shape[0] == target[weight].shape[0]
        ):
            continue
        before = f"of {state[weight].shape[0]} classes not used" if weight in state else "absent"
        name = weight.removesuffix(".weight")
        notes.append(
            f"{name} {before}: a fresh one of {len(target[weight])} classes must be trained"
        )
        state |= {weight: target[weight], bias: target[bias]}
    if config.composition and state.pop("head.weight", None) is not None:
        state.pop("head.bias", None)
        notes.append("head of one kind of class dropped (composition)")


def _side(count: int) -> int:
    """Of a square grid of so many places; ValueError where it is none."""
    side = math.isqrt(max(count, 0))
    if count < 1 or side * side != count:
        raise ValueError(f"positions of {count} places are stored; a square number is needed")
    return side
