"""CLIP's visual tower as video models take it in: its names, stem and positions, and its weights in a file.

B batch, T frames, P patch size, t h w tokens, C width.
"""

import math
import re
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.models.flexible_embedding import ResizedWeights
from stretchysnake.models.resample import inflate_patch_kernel, resize_patch_kernel, resize_table

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipTower(nn.Module):
    """conv1, class_embedding, positional_embedding, ln_pre and transformer.resblocks, for (B, 3, T, H, W).

    grid is (h, w) of the stored positions. A kernel (P, P) sees one frame; (3, P, P) sees three and is meant for every
    second frame. Initial values of the embeddings: normal, C^-0.5.
    """

    def __init__(
        self, width: int, grid: tuple[int, int], kernel: tuple[int, ...], blocks: Iterable
    ):
        super().__init__()
        self.grid = grid
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(
            torch.randn(1 + math.prod(grid), width) * width**-0.5
        )
        conv = nn.Conv2d if len(kernel) == 2 else nn.Conv3d
        self.conv1 = conv(3, width, kernel, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(blocks)})
        self.resized = ResizedWeights()

    @property
    def blocks(self) -> nn.ModuleList:
        return self.transformer["resblocks"]

    def embedded(
        self, video: Tensor, patch: tuple[int, int], shape: tuple[int, int, int]
    ) -> Tensor:
        """[CLS] and the patches of each frame with their positions, before ln_pre: (B, t, 1 + hw, C)."""
        t, *grid = shape
        weight = self.resized(
            ("kernel", patch),
            self.conv1.weight,
            lambda stored: resize_clip_kernel(stored, patch),
            training=self.training,
        )
        positions = self.resized(
            ("grid", *grid),
            self.positional_embedding,
            lambda stored: resize_clip_positions(stored, self.grid, tuple(grid)),
            training=self.training,
        )
        if weight.dim() == 4:
            weight = weight.unsqueeze(2)
        frames = weight.shape[2]  # 1, or 3 around every second frame
        x = F.conv3d(
            video.to(weight.dtype),
            weight,
            stride=(1 if frames == 1 else 2, *patch),
            padding=(frames // 2, 0, 0),
        )  # (B, C, t, h, w)
        x = x.flatten(3).permute(0, 2, 3, 1)  # (B, t, hw, C)
        cls = self.class_embedding.expand(x.shape[0], t, 1, -1)
        return torch.cat([cls.to(x.dtype), x], dim=2) + positions


def resize_clip_kernel(weight: Tensor, patch: tuple[int, int]) -> Tensor:
    """conv1's kernel (C, 3, [t,] P, Q) for patches of another height and width; bicubic."""
    before = tuple(weight.shape[-2:])
    if before == tuple(patch):
        return weight
    if before[0] == before[1] and patch[0] == patch[1]:
        frames = weight if weight.dim() == 5 else weight.unsqueeze(2)
        resized = resize_patch_kernel(frames, patch[0])
    else:
        resized = resize_table(weight.flatten(-2).unsqueeze(-1), before, patch)
    return resized.reshape(*weight.shape[:-2], *patch)


def resize_clip_positions(
    table: Tensor, before: tuple[int, int], after: tuple[int, int]
) -> Tensor:
    """positional_embedding (1 + hw, C) for another grid; bicubic, the row of [CLS] kept."""
    if tuple(before) == tuple(after):
        return table
    return torch.cat([table[:1], resize_table(table[1:], before, after)])


def normed_head(width: int, num_classes: int, dropout: float) -> nn.Module:
    """LayerNorm, dropout, Linear, as EVL and UniFormerV2 call them proj.0, 1, 2; nn.Identity for no classes."""
    if num_classes == 0:
        return nn.Identity()
    return nn.Sequential(
        nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, num_classes)
    )


def fit_head_norm(state: dict, name: str, model: nn.Module, notes: list[str]) -> None:
    """Drop the head's LayerNorm where the model has no head, or start a fresh one where the file has none."""
    own = {n: t for n, t in model.state_dict().items() if n.startswith(f"{name}.")}
    found = [n for n in state if n.startswith(f"{name}.")]
    if found and not own:
        for n in found:
            del state[n]
        notes.append("LayerNorm of the head dropped (num_classes is 0)")
    elif own and not found:
        state.update(own)
        notes.append("LayerNorm of the head absent: it starts fresh")


def draws_of(
    drop_draws: Tensor | None, video: Tensor, count: int, *, rate: float, training: bool
) -> Tensor | None:
    """(B, count) numbers that decide drop path, drawn here where none were given; None where nothing is dropped."""
    if rate == 0.0 or not training:
        return None
    if drop_draws is None:
        return torch.rand(video.shape[0], count, device=video.device)
    return drop_draws.to(video.device)


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
    return max(numbers, default=-1) + 1


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
    tell = ("conv1.weight", "class_embedding", "ln_pre.weight", "transformer.resblocks.0.ln_1.weight")
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
        name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)
    }
    notes = []
    if others := len(state) - len(tower):
        notes.append(f"CLIP's text tower not used ({others} tensors)")
    if tower.pop("proj", None) is not None:
        notes.append("CLIP's projection (proj) not used")
    return tower, notes


def fit_tower(
    state: dict[str, Tensor],
    prefix: str,
    tower: ClipTower,
    notes: list[str],
    *,
    before: tuple[int, int] | None = None,
) -> None:
    """Bring conv1 and positional_embedding, under a prefix, to the tower's sizes; before is the stored grid."""
    kernel, own = state.get(f"{prefix}conv1.weight"), tower.conv1.weight
    if kernel is not None and kernel.dim() in (4, 5):
        if kernel.dim() == 4 and own.dim() == 5:
            if own.shape[2] > 1:
                notes.append(
                    f"patch kernel inflated from an image model to {own.shape[2]} frames (centre)"
                )
            kernel = inflate_patch_kernel(kernel, own.shape[2])
        was, wanted = tuple(kernel.shape[-2:]), tuple(own.shape[-2:])
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


def start_fresh(
    state: dict[str, Tensor], model: nn.Module, notes: list[str], *, what: str
) -> None:
    """Give the model's own values to whatever a file of CLIP alone lacks, the classifier apart; one note."""
    own = model.state_dict()
    fresh = [
        name
        for name in own
        if name not in state and not name.startswith(f"{model.classifier}.")
    ]
    state.update({name: own[name] for name in fresh})
    if fresh:
        notes.append(f"only CLIP's visual tower is in the file: {what} start fresh ({len(fresh)} tensors)")


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"
