"""CLIP's visual tower in a file of weights, and what of it, and around it, a video model takes.

C width, P patch size, h w tokens of a frame.
"""

import math
import re

import torch
from torch import Tensor, nn

from stretchysnake.models.resample import inflate_patch_kernel
from stretchysnake.models.transformers.layers.clip.tower import (
    ClipTower,
    resize_clip_kernel,
    resize_clip_positions,
)

_OF_CLIP = re.compile(
    r"(^|\.)(class_embedding|positional_embedding|conv1\.weight|ln_(pre|post)\.\w+|"
    r"transformer\.resblocks\.\d+\.(ln_1|ln_2|attn|mlp)\..*)$"
)
"""Names in CLIP's visual tower, whatever stands before them."""


def heads_of(width: int) -> int:
    """Heads of 64 channels, as every published size has; 1 where 64 does not divide the width."""
    return width // 64 if width % 64 == 0 else 1


def depth_in(state: dict[str, Tensor], blocks: str) -> int:
    """How many blocks a state dict holds under these beginnings of names ("transformer.resblocks.")."""
    numbers = {
        int(name.removeprefix(blocks).split(".")[0])
        for name in state
        if re.match(re.escape(blocks) + r"\d+\.", name)
    }
    return len(numbers)  # not the highest: a name alone could ask for any number of blocks


def needed(state: dict[str, Tensor], model: str, *names: str) -> None:
    """ValueError that lists which of these names a state dict lacks."""
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"these are not {model} weights: {', '.join(missing)} missing")


def square_grid(table: Tensor) -> tuple[int, int]:
    """(h, w) of a positional_embedding (1 + hw, C), which must be a square."""
    count = table.shape[0] - 1
    side = math.isqrt(max(count, 0))
    if count < 1 or side * side != count:
        raise ValueError(
            f"positional_embedding holds {count} patch positions; a square number is needed"
        )
    return side, side


def visual_tower(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]] | None:
    """(visual tower under its own names, notes of what else lay there) of CLIP's file; None if it is none.

    proj, which maps to the space shared with texts, is left out: no video model here has it.
    """
    tell = (
        "conv1.weight",
        "class_embedding",
        "ln_pre.weight",
        "transformer.resblocks.0.ln_1.weight",
    )
    prefix = next(
        (
            prefix
            for prefix in ("clip.visual.", "visual.", "clip.", "")
            if all(prefix + name in state for name in tell)
        ),
        None,
    )
    if prefix is None:
        return None
    tower = {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    notes = []
    if others := len(state) - len(tower):
        notes.append(f"CLIP's text tower not used ({others} tensors)")
    if tower.pop("proj", None) is not None:
        notes.append("CLIP's projection (proj) not used")
    return tower, notes


def drop_last_norm(tower: dict[str, Tensor], notes: list[str]) -> None:
    """Take out ln_post, which EVL and UniFormerV2 do not have."""
    norms = [name for name in tower if name.startswith("ln_post.")]
    for name in norms:
        del tower[name]
    if norms:
        notes.append("CLIP's last LayerNorm (ln_post) not used")


def fit_tower(
    state: dict[str, Tensor],
    prefix: str,
    tower: ClipTower,
    notes: list[str],
    *,
    before: tuple[int, int] | None = None,
) -> None:
    """Bring conv1 and positional_embedding, under a prefix, to the tower's sizes; before is the stored grid."""
    kernel, stem = state.get(f"{prefix}conv1.weight"), tower.conv1.weight
    if kernel is not None and kernel.dim() in (4, 5):
        if kernel.dim() == 4 and stem.dim() == 5:
            if stem.shape[2] > 1:
                notes.append(
                    f"patch kernel inflated from an image model to {stem.shape[2]} frames (centre)"
                )
            kernel = inflate_patch_kernel(kernel, stem.shape[2])
        was, wanted = tuple(kernel.shape[-2:]), tuple(stem.shape[-2:])
        if was != wanted:
            notes.append(f"patch kernel {_by(was)} -> {_by(wanted)} px (bicubic)")
            kernel = resize_clip_kernel(kernel, wanted)
        state[f"{prefix}conv1.weight"] = kernel
    table = state.get(f"{prefix}positional_embedding")
    if table is not None and table.dim() == 2:
        before = square_grid(table) if before is None else before
        if before != tower.grid:
            notes.append(f"spatial positions {_by(before)} -> {_by(tower.grid)} (bicubic)")
            state[f"{prefix}positional_embedding"] = resize_clip_positions(
                table, before, tower.grid
            )


def start_fresh(state: dict[str, Tensor], model: nn.Module, notes: list[str], *, what: str) -> None:
    """Give the model's own values to what CLIP does not have, the classifier apart; one note.

    What CLIP has and the file lacks stays missing, for whoever loads it to name.
    """
    initial = model.state_dict()
    fresh = [
        name
        for name in initial
        if not (_OF_CLIP.search(name) or name.startswith(f"{model.classifier}."))
    ]
    state.update({name: initial[name] for name in fresh})
    if fresh:
        notes.append(
            f"only CLIP's visual tower is in the file: {what} start fresh ({len(fresh)} tensors)"
        )


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"


def fit_head_norm(state: dict, name: str, model: nn.Module, notes: list[str]) -> None:
    """Drop the head's LayerNorm where the model has no head, or start a fresh one where the file has none."""
    initial = {n: t for n, t in model.state_dict().items() if n.startswith(f"{name}.")}
    in_file = [n for n in state if n.startswith(f"{name}.")]
    if in_file and not initial:
        for n in in_file:
            del state[n]
        notes.append("LayerNorm of the head dropped (num_classes is 0)")
    elif initial and not in_file:
        state.update(initial)
        notes.append("LayerNorm of the head absent: it starts fresh")


def tower_of_blocks(
    state: dict[str, Tensor], patch: tuple[int, int]
) -> tuple[dict[str, Tensor], list[str]]:
    """A tower under the names of EVL's own code (patch_embed, blocks) as CLIP names it, with notes.

    That code holds q, k, v apart and the stem as a linear map with a bias, which joins the positions of the patches.
    """
    pairs = {
        "mlp.fc1.": "mlp.c_fc.",
        "mlp.fc2.": "mlp.c_proj.",
        "norm1.": "ln_1.",
        "norm2.": "ln_2.",
        "cls_token": "class_embedding",
        "pos_embed": "positional_embedding",
        "blocks.": "transformer.resblocks.",
    }
    tower, notes, joined = {}, [], {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.([qkv])_proj\.(weight|bias)", name):
            block, part, kind = match.groups()
            joined.setdefault(f"transformer.resblocks.{block}.attn.in_proj_{kind}", {})[part] = (
                tensor
            )
            continue
        for theirs, ours in pairs.items():
            name = name.replace(theirs, ours)
        tower[name] = tensor
    for name, parts in joined.items():
        if missing := [part for part in "qkv" if part not in parts]:
            raise ValueError(f"of {name}, the part of {', '.join(missing)} is missing in the file")
        tower[name] = torch.cat([parts[part] for part in "qkv"])
    tower["conv1.weight"] = tower.pop("patch_embed.proj.weight").unflatten(1, (3, *patch))
    bias = tower.pop("patch_embed.proj.bias", None)
    if bias is not None and (bias.is_meta or bias.any()):
        table = tower["positional_embedding"]
        tower["positional_embedding"] = torch.cat([table[:1], table[1:] + bias])
        notes.append("bias of the patch embedding added to the positions")
    return tower, notes
