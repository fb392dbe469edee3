"""UniFormer for any number of frames, frame size and patch size (Li et al. 2022, the video models S and B).

B batch, T frames, H W pixels, P patch size (stride of the first embedding), C channels, t = ceil(T / 2).
"""

import re
from dataclasses import dataclass
from functools import partial
from math import gcd, prod
from typing import ClassVar

from torch import Tensor, nn

from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import config_from_dict
from stretchysnake.models.backbone import Tokens, check_sizes, depth_by_name
from stretchysnake.models.config import StoredSizes, check_patch_resize
from stretchysnake.models.drop_path import draws_by_block, growing_rates
from stretchysnake.models.flexible_embedding import (
    ResizedWeights,
    fit_flexed,
    flexed_stem,
    token_grid,
)
from stretchysnake.models.recompute import run_stage
from stretchysnake.models.resample import inflate_patch_kernel
from stretchysnake.models.transformers.layers.attention import initialise_linears
from stretchysnake.models.transformers.layers.uniformer_blocks import (
    AttentionBlock,
    ConvBlock,
    Embedding,
)
from stretchysnake.models.weights.published.pretrained import save_pretrained

STEM = "patch_embed1.proj.weight"


@dataclass(frozen=True, kw_only=True)
class UniFormerConfig(StoredSizes):
    """The sizes of a UniFormer; the defaults are the published base model of Kinetics-400, 16 frames of 224 px."""

    architecture: str = "uniformer"
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.45, 0.45, 0.45)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.225, 0.225, 0.225)
    shaped: ClassVar[tuple[str, ...]] = (
        "embed_dims", "depths", "embed_strides", "mlp_widths", "qkv_bias", "patch_size", "num_classes",
    )  # fmt: skip

    embed_dims: tuple[int, ...] = (64, 128, 320, 512)
    """Channels of the four stages: two of convolutions, two of attention over all tokens of the clip."""
    depths: tuple[int, ...] = (5, 8, 20, 7)
    head_dim: int = 64
    """Channels of a head of attention; a stage has its channels // head_dim heads."""
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    embed_strides: tuple[int, ...] = (2, 2, 2)
    """Strides of the second to fourth embedding; what they halve to a half is left out, as in the official code."""
    patch_size: int = 4
    image_size: int = 224
    num_frames: int = 16
    """No weight depends on image_size and num_frames: they say where the weights were trained."""
    num_classes: int = 400
    """Outputs of the head; 0 leaves the head out, so that logits are the features."""
    drop_path: float = 0.3
    """Rate of the last block; earlier ones grow linearly from 0."""
    patch_resize: str = "bicubic"
    """How the patch kernel is resized: "bicubic" (paper), "area" or "pi"."""

    def __post_init__(self):
        check_sizes(self, "head_dim", "patch_size", "image_size", "num_frames")
        for name, count in (("embed_dims", 4), ("depths", 4), ("embed_strides", 3)):
            value = getattr(self, name)
            if len(value) != count or not all(isinstance(n, int) and n > 0 for n in value):
                raise ValueError(f"{name} ({value}) must be {count} positive integers")
        for width in self.embed_dims[2:]:
            if width < self.head_dim or width % (width // self.head_dim):
                rule = f"must be a multiple of {width} // head_dim ({self.head_dim}), its heads"
                raise ValueError(f"embed_dims ({width}) {rule}; choose a head_dim that divides it")
        if min(self.mlp_widths) < 1:
            raise ValueError(f"mlp_ratio ({self.mlp_ratio}) must give MLPs at least one channel")
        if self.image_size % self.patch_size or self.native.grid < self.smallest_grid:
            rule = f"must be a multiple of patch_size ({self.patch_size}), and at least"
            raise ValueError(
                f"image_size ({self.image_size}) {rule} {self.patch_size * self.smallest_grid}"
            )
        check_patch_resize(self)

    @property
    def mlp_widths(self) -> tuple[int, ...]:
        """Hidden channels of the stages; a ratio that was found as width / channels gives that width again."""
        return tuple(int(width * self.mlp_ratio + 1e-6) for width in self.embed_dims)

    @property
    def smallest_grid(self) -> int:
        """Patches per side that leave one token for the last stage."""
        return prod(self.embed_strides)

    @property
    def feature_dim(self) -> int:
        return self.embed_dims[-1]


NAMED: dict[str, dict] = {
    "small": {"depths": (3, 4, 8, 3), "drop_path": 0.1},
    "base": {},
    # 32 px are a seventh of 224: with the published stem the last stage would see one token a frame, and 16 px none.
    # So its embedding keeps the grid (8, 4, 2, 2 tokens per side), and P stays 4; drop path as in nano VideoMamba.
    "nano": {
        "embed_dims": (16, 24, 48, 64), "depths": (1, 1, 2, 2), "head_dim": 16, "embed_strides": (2, 2, 1),
        "image_size": 32, "num_frames": 8, "drop_path": 0.0,
    },
}  # fmt: skip


class UniFormer(nn.Module):
    """The backbone and its linear head; parameter names are those of the official files.

    No table of positions: any T, and H and W from 8 patches on (the product of the strides), which must be multiples
    of the patch unless `grid="floor"` leaves the rest unused. Where a later embedding does not divide the grid it
    leaves out tokens of the last row or column, as the official code does at 112 px; blocks before it have mixed them
    with their neighbours. The batch norms keep the statistics of the sizes they were trained at.
    """

    marks = ((STEM, "blocks3.0.attn.qkv.weight", "blocks1.0.pos_embed.weight"),)
    classifier = "head"
    save_pretrained = save_pretrained

    def __init__(self, config: UniFormerConfig):
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        widths, patch = config.embed_dims, config.patch_size
        self.patch_embed1 = Embedding(3, widths[0], (3, patch, patch), frames=(2, 1))
        rates = iter(growing_rates(config.drop_path, sum(config.depths)))
        for i, (width, hidden) in enumerate(zip(widths, config.mlp_widths, strict=True)):
            if i > 0:
                kernel = (1, config.embed_strides[i - 1], config.embed_strides[i - 1])
                self.add_module(f"patch_embed{i + 1}", Embedding(widths[i - 1], width, kernel))
            block = ConvBlock if i < 2 else partial(
                AttentionBlock, num_heads=width // config.head_dim, bias=config.qkv_bias
            )  # fmt: skip
            blocks = [block(width, hidden, next(rates)) for _ in range(config.depths[i])]
            self.add_module(f"blocks{i + 1}", nn.ModuleList(blocks))
        self.norm = nn.BatchNorm3d(widths[-1])
        classes = config.num_classes
        self.head = nn.Linear(widths[-1], classes) if classes else nn.Identity()
        self._resized = ResizedWeights()
        initialise_linears(self)  # convolutions begin as torch's, as in the official code

    def forward(self, video: Tensor, patch_size: int | None = None, **how) -> Tensor:
        """Class logits (B, num_classes); arguments as in `features`."""
        return self.head(self.features(video, patch_size, **how))

    def features(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact", drop_draws: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """The mean of the last tokens after the final norm, (B, C).

        drop_draws (B, 2 · blocks), block after block: its mixing, its MLP.
        """
        return self._encode(video, patch_size, grid, drop_draws).mean((2, 3, 4))

    def tokens(self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact") -> Tokens:  # fmt: skip
        """The last tokens after the final norm, t by what the strides leave of h and w; there is no [CLS]."""
        return Tokens(None, self._encode(video, patch_size, grid).movedim(1, -1))

    def _encode(
        self, video: Tensor, patch_size: int | None, grid: str, drop_draws: Tensor | None = None
    ) -> Tensor:
        """(B, C, t, h', w') after the final norm."""
        patch = self.config.patch_size if patch_size is None else patch_size
        shape = token_grid(video, patch, grid)
        if min(shape[1:]) < (smallest := self.config.smallest_grid):
            raise ValueError(
                f"size ({video.shape[3]}x{video.shape[4]}) must be at least {smallest * patch} px a side, {smallest} "
                f"patches of {patch}, which later embeddings make one; use larger frames or a smaller patch"
            )
        resize = partial(flexed_stem(self.config.patch_resize).resize, size=(patch, patch))
        stored = self.patch_embed1.proj.weight
        kernel = self._resized((STEM, patch), stored, resize, training=self.training)
        x = self.patch_embed1(video.to(kernel.dtype), kernel)
        drawn = iter(draws_by_block(drop_draws, len(x), sum(self.config.depths), 2))
        for stage in range(1, 5):
            if stage > 1:
                x = self.get_submodule(f"patch_embed{stage}")(x)
            for block in self.get_submodule(f"blocks{stage}"):
                x = run_stage(self, block, x, next(drawn))
        return self.norm(x)

    def num_drop_draws(self, scale: Scale) -> int:
        """Two for each block, whatever the scale."""
        return 2 * sum(self.config.depths)

    def stages(self) -> list[nn.Module]:
        return [*self.blocks1, *self.blocks2, *self.blocks3, *self.blocks4]

    def depth_of(self, parameter: str) -> int:
        """A later embedding is as deep as the block that it feeds."""
        fed = re.sub(r"^patch_embed([2-4])\.", r"blocks\1.0.", parameter)
        return depth_by_name(self, fed, bottom=("patch_embed1.",))

    def undecayed(self) -> tuple[str, ...]:
        return ()

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> UniFormerConfig:
        """Shapes say neither T nor S (the published ones unless changed) nor heads: of 64 channels, as published."""
        needed = [f"{name}{i}.{end}" for i in range(1, 5) for name, end in (
            ("patch_embed", "proj.weight"), ("blocks", "0.mlp.fc1.weight"))]  # fmt: skip
        if missing := [name for name in needed if name not in state]:
            raise ValueError(f"these are not UniFormer weights: {', '.join(missing)} missing")
        stems = [state[f"patch_embed{i}.proj.weight"] for i in range(1, 5)]
        widths = tuple(stem.shape[0] for stem in stems)
        common = gcd(*widths[2:])
        patch = stems[0].shape[-1]
        # The largest, since each stage rounds down.
        ratio = max(len(state[f"blocks{i}.0.mlp.fc1.weight"]) / widths[i - 1] for i in range(1, 5))
        classes = state.get("head.weight", ())
        numbers = [name.split(".")[:2] for name in state if re.match(r"blocks\d\.\d+\.", name)]
        depths = (1 + max(int(n) for at, n in numbers if at == f"blocks{i}") for i in range(1, 5))
        sizes = {
            "embed_dims": widths, "depths": tuple(depths), "mlp_ratio": ratio,
            "head_dim": next(n for n in range(min(64, common), 0, -1) if common % n == 0),
            "qkv_bias": "blocks3.0.attn.qkv.bias" in state, "patch_size": patch, "image_size": 56 * patch,
            "embed_strides": tuple(stem.shape[-1] for stem in stems[1:]), "num_classes": len(classes),
        }  # fmt: skip
        return config_from_dict({"architecture": "uniformer", **sizes, **changes})

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """The stem resized; the 2-D kernels of an image model spread evenly over the frames."""
        state, notes, target = dict(state), [], self.state_dict()
        flat = [
            n for n, x in state.items() if n in target and x.dim() == 4 and target[n].dim() == 5
        ]
        for name in flat:
            state[name] = inflate_patch_kernel(state[name], target[name].shape[2], mode="mean")
        if flat:
            notes.append(f"{len(flat)} kernels inflated from an image model (mean)")
        stem = flexed_stem(self.config.patch_resize)
        return state, [*notes, *fit_flexed(state, target, {STEM: stem})]
