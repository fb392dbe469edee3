"""EVL: a decoder that gathers a video from the last blocks of a frozen CLIP (Lin et al. 2022).

B batch, T frames, P patch size, h w tokens of a frame, N = 1 + h·w, C width, n heads, d head width.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from stretchysnake.flexibility import Scale, size_message
from stretchysnake.models.backbone import Tokens, check_sizes, depth_by_name
from stretchysnake.models.flexible_embedding import check_clip
from stretchysnake.models.recompute import run_stage
from stretchysnake.models.transformers.layers.attention import ClipBlock
from stretchysnake.models.transformers.layers.clip.evl_decoder import Decoder, offsets_of
from stretchysnake.models.transformers.layers.clip.tower import (
    CLIP_MEAN,
    CLIP_STD,
    ClipSizes,
    ClipTower,
    draws_of,
    head_of,
)
from stretchysnake.models.weights.official.evl import fitted, left_out, sizes_in
from stretchysnake.models.weights.published.pretrained import save_pretrained


@dataclass(frozen=True, kw_only=True)
class EVLConfig(ClipSizes):
    """The sizes of an EVL; the defaults are B/16 of Kinetics-400 with 8 frames.

    image_size and patch_size may be (height, width). drop_path concerns the decoder; frozen trains all but CLIP.
    """

    architecture: str = "evl"
    pixel_mean: ClassVar[tuple[float, float, float]] = CLIP_MEAN
    pixel_std: ClassVar[tuple[float, float, float]] = CLIP_STD
    shaped: ClassVar[tuple[str, ...]] = (
        "embed_dim", "depth", "mlp_width", "patch", "num_patches", "num_offsets", "num_frames",
        "decoder_depth", "decoder_width", "decoder_mlp_width", "num_classes",
    )  # fmt: skip

    patch_size: int | tuple[int, int] = 16
    image_size: int | tuple[int, int] = 224
    mlp_factor: float = 4.0
    decoder_depth: int = 4
    """So many of CLIP's last blocks are read."""
    decoder_width: int = 768
    """Of queries, keys and values of all heads together."""
    decoder_heads: int = 12
    decoder_mlp_factor: float = 4.0
    dropout: float = 0.5
    """In the head, in front of the linear layer."""

    def __post_init__(self):
        super().__post_init__()
        check_sizes(self, "decoder_depth", "decoder_width", "decoder_heads")
        self.check_multiple("decoder_heads", of="decoder_width")
        self.check_dropout()
        if self.decoder_depth > self.depth:
            raise ValueError(
                f"decoder_depth ({self.decoder_depth}) must be at most depth ({self.depth})"
            )

    def _check_picture(self) -> None:
        for name in ("image_size", "patch_size"):
            value = getattr(self, name)
            sides = value if isinstance(value, tuple) and len(value) == 2 else (value,)
            if not all(isinstance(side, int) and side > 0 for side in sides):
                raise ValueError(
                    f"{name} ({value!r}) must be a positive integer or a pair (height, width) of them"
                )
        for size, patch in zip(_pair(self.image_size), self.patch, strict=True):
            if size % patch:
                raise ValueError(size_message("image_size", size, patch))

    @property
    def patch(self) -> tuple[int, int]:
        return _pair(self.patch_size)

    @property
    def grid(self) -> tuple[int, int]:
        return tuple(s // p for s, p in zip(_pair(self.image_size), self.patch, strict=True))

    @property
    def num_patches(self) -> int:
        return math.prod(self.grid)

    @property
    def num_offsets(self) -> int:
        return math.prod(offsets_of(self.grid))

    @property
    def mlp_width(self) -> int:
        return round(self.mlp_factor * self.embed_dim)

    @property
    def decoder_mlp_width(self) -> int:
        return round(self.decoder_mlp_factor * self.embed_dim)

    @property
    def native(self) -> Scale:
        """Of a rectangle, its height."""
        return Scale(self.num_frames, _pair(self.image_size)[0], self.patch[0])


_LARGE = {
    "embed_dim": 1024, "depth": 24, "num_heads": 16, "patch_size": 14, "decoder_width": 1024, "decoder_heads": 16,
}  # fmt: skip
NAMED: dict[str, dict] = {
    "base": {},
    "base-16": {"num_frames": 16},
    "base-32": {"num_frames": 32},
    "large": _LARGE,
    "large-16": {**_LARGE, "num_frames": 16},
    "large-32": {**_LARGE, "num_frames": 32},
}


class ReadBlock(ClipBlock):
    """CLIP's block, (rows, N, C) -> its output and the queries and keys of its attention, (rows, n, N, d)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.ln_1(x)
        q, k, v = self.attn.projected(y, y)
        x = x + self.attn.attended(q, k, v)
        return x + self.mlp(self.ln_2(x)), q, k


class EVL(nn.Module):
    """EVL for any number of frames, frame size and patch size: `clip.visual` as CLIP names it, `decoder`, `proj`."""

    marks = (("decoder.cls_token", "decoder.cross_attention.0.w1"),)
    classifier = "proj.2"
    save_pretrained = save_pretrained

    def __init__(self, config: EVLConfig):
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        blocks = (
            ReadBlock(config.embed_dim, config.num_heads, mlp_width=config.mlp_width)
            for _ in range(config.depth)
        )
        visual = ClipTower(config.embed_dim, config.grid, config.patch, blocks)
        self.clip = nn.ModuleDict({"visual": visual.requires_grad_(not config.frozen)})
        self.decoder = Decoder(config)
        self.proj = head_of(config)

    @property
    def head(self) -> nn.Module:
        return self.proj

    def forward(self, video: Tensor, patch_size: int | None = None, **how) -> Tensor:
        """Class logits (B, num_classes); arguments as in `features`."""
        return self.head(self.features(video, patch_size, **how))

    def features(
        self, video: Tensor, patch_size: int | None = None, *, grid="exact", drop_draws=None
    ) -> Tensor:
        """The query after the last decoder layer, before the LayerNorm of the head: (B, C)."""
        return self._encode(video, patch_size, grid, drop_draws)[0]

    def tokens(self, video: Tensor, patch_size: int | None = None, *, grid="exact") -> Tokens:
        """The features, and the patch tokens that the last decoder layer attends to."""
        features, frames, shape = self._encode(video, patch_size, grid)
        return Tokens(features, frames[:, :, 1:].unflatten(2, shape[1:]))

    def _encode(
        self, video: Tensor, patch_size: int | None, grid: str, drop_draws: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
        """(features, frame features of the last layer (B, T, N, C), (T, h, w))."""
        patch, shape = self._grid(video, patch_size, grid)
        tower, clips = self.clip["visual"], video.shape[0]
        x = tower.ln_pre(tower.embedded(video, patch, shape)).flatten(0, 1)  # (B·T, N, C)
        # not expand: a view of a parameter breaks the counting of FLOPs by module without gradients
        query = self.decoder.cls_token.repeat(clips, 1, 1)
        layers = self.decoder.decoder_layers
        draws = draws_of(
            drop_draws, video, 2 * len(layers), rate=self.config.drop_path, training=self.training
        )
        first = len(tower.blocks) - len(layers)
        for number, block in enumerate(tower.blocks):
            x, q, k = run_stage(self, block, x)
            if (i := number - first) >= 0:
                read = [tensor.unflatten(0, (clips, shape[0])) for tensor in (x, q, k)]
                frames = run_stage(self, self.decoder.gathered, i, *read, shape[1:])
                part = None if draws is None else draws[:, 2 * i : 2 * i + 2]
                query = run_stage(self, layers[i], query, frames.flatten(1, 2), part)
        return query[:, 0], frames, shape

    def _grid(
        self, video: Tensor, patch_size: int | None, grid: str
    ) -> tuple[tuple[int, int], tuple[int, int, int]]:
        """((P, Q), (T, h, w)); a patch size is the height of a patch whose shape is the stored one's."""
        high, wide = self.config.patch
        height = high if patch_size is None else patch_size
        check_clip(video, height, grid)
        if height * wide % high:
            raise ValueError(
                f"patch_size ({height}) must be a multiple of {high // math.gcd(high, wide)}: the stored patch is "
                f"{high}x{wide} and keeps its shape"
            )
        patch = height, height * wide // high
        if video.shape[2] == 0:
            raise ValueError("num_frames (0) must be at least 1")
        for name, size, side in zip(("height", "width"), video.shape[3:], patch, strict=True):
            if size < side or (size % side and grid == "exact"):
                raise ValueError(size_message(name, size, side))
        return patch, (video.shape[2], video.shape[3] // patch[0], video.shape[4] // patch[1])

    def num_drop_draws(self, scale: Scale) -> int:
        """Two for each decoder layer: attention, MLP; CLIP drops nothing."""
        return 2 * len(self.decoder.decoder_layers)

    def stages(self) -> list[nn.Module]:
        """CLIP's blocks, then the decoder layers, which read the last of these."""
        return [*self.clip["visual"].blocks, *self.decoder.decoder_layers]

    def depth_of(self, parameter: str) -> int:
        """What makes the frame features with its decoder layer, decoder.cls_token with the first."""
        for part in ("temporal_conv", "temporal_pos_embed", "cross_attention"):
            parameter = parameter.replace(f"decoder.{part}.", "decoder.decoder_layers.")
            if parameter[-1].isdigit():
                parameter += "."
        parameter = parameter.replace("decoder.cls_token", "decoder.decoder_layers.0.cls_token")
        bottom = ("conv1.", "class_embedding", "positional_embedding", "ln_pre.")
        return depth_by_name(
            self, parameter, bottom=tuple(f"clip.visual.{name}" for name in bottom)
        )

    def undecayed(self) -> tuple[str, ...]:
        """The numbers are the names of temporal_pos_embed's tables."""
        tables = map(str, range(self.config.decoder_depth))
        return "class_embedding", "positional_embedding", "cls_token", "w1", "w2", *tables

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> EVLConfig:
        return EVLConfig(**{**sizes_in(state), **changes})

    @classmethod
    def left_out(cls, state: dict[str, Tensor]) -> str:
        return left_out(state)

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        return fitted(state, self)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
