"""CLIP's visual tower as video models take it in: its sizes and names, its stem and its positions.

B batch, T frames, H W pixels, P Q height and width of a patch, t h w tokens, C width.
How its weights are found in a file: weights/clip.py.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.flexibility import size_message
from stretchysnake.models.backbone import check_sizes
from stretchysnake.models.config import StoredSizes
from stretchysnake.models.flexible_embedding import ResizedWeights
from stretchysnake.models.resample import resize_patch_kernel, resize_table

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class ClipSizes(StoredSizes):
    """The fields that AIM, EVL and UniFormerV2 share; the defaults are ViT-B/16 with 8 frames of Kinetics-400."""

    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    patch_size: int = 16
    image_size: int = 224
    num_frames: int = 8
    num_classes: int = 400
    """Outputs of the head; 0 leaves the head out, so that logits are the features."""
    drop_path: float = 0.0
    """Rate of the last block; earlier ones grow linearly from 0."""
    frozen: bool = False
    """True trains only what the official code trains beside a frozen CLIP."""

    def __post_init__(self):
        check_sizes(self, "embed_dim", "depth", "num_heads", "num_frames")
        self._check_picture()
        self.check_multiple("num_heads")

    def _check_picture(self) -> None:
        check_sizes(self, "image_size", "patch_size")
        if self.image_size % self.patch_size:
            raise ValueError(size_message("image_size", self.image_size, self.patch_size))

    def check_multiple(self, heads: str, of: str = "embed_dim") -> None:
        """ValueError unless the field `of` is a multiple of the field `heads`."""
        if getattr(self, of) % getattr(self, heads):
            raise ValueError(
                f"{of} ({getattr(self, of)}) must be a multiple of {heads} ({getattr(self, heads)})"
            )

    def check_dropout(self) -> None:
        """ValueError unless the field `dropout` is a rate."""
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout ({self.dropout}) must be at least 0 and less than 1")

    @property
    def feature_dim(self) -> int:
        return self.embed_dim


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
        self.conv1 = conv(3, width, kernel, stride=kernel, bias=False)
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
    """conv1's kernel (C, 3, P, Q) or (C, 3, t, P, Q) for patches of another height and width; bicubic."""
    before = tuple(weight.shape[-2:])
    if before == tuple(patch):
        return weight
    if before[0] == before[1] and patch[0] == patch[1]:
        frames = weight if weight.dim() == 5 else weight.unsqueeze(2)
        resized = resize_patch_kernel(frames, patch[0])
    else:
        resized = resize_table(weight.flatten(-2).unsqueeze(-1), before, patch)
    return resized.reshape(*weight.shape[:-2], *patch)


def resize_clip_positions(table: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """positional_embedding (1 + hw, C) for another grid; bicubic, the row of [CLS] kept."""
    if tuple(before) == tuple(after):
        return table
    return torch.cat([table[:1], resize_table(table[1:], before, after)])


class NormedHead(nn.Sequential):
    """LayerNorm, dropout, Linear: proj.0, proj.1 and proj.2 of EVL and UniFormerV2."""

    def __init__(self, width: int, num_classes: int, dropout: float):
        super().__init__(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, num_classes))
        self.out_features = num_classes


def head_of(config) -> nn.Module:
    """The NormedHead of a config with `dropout`; nn.Identity for no classes."""
    if config.num_classes == 0:
        return nn.Identity()
    return NormedHead(config.embed_dim, config.num_classes, config.dropout)


def draws_of(
    drop_draws: Tensor | None, video: Tensor, count: int, *, rate: float, training: bool
) -> Tensor | None:
    """(B, count) numbers that decide drop path, drawn here where none were given; None where nothing is dropped."""
    if rate == 0.0 or not training:
        return None
    if drop_draws is None:
        return torch.rand(video.shape[0], count, device=video.device)
    return drop_draws.to(video.device)
