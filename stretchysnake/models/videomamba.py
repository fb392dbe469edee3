"""VideoMamba for any number of frames, any frame size and any patch size (Li et al. 2024; paper §3).

B batch, T frames, H W pixels, P patch size, t = T / tubelet temporal tokens, h = H/P, w = W/P,
C width, L = 1 + t·h·w tokens.

    model = VideoMamba(VideoMambaConfig.named("tiny", num_classes=400))
    logits = model(video)                    # video (B, 3, T, H, W): the model reads T, H, W and flexes
    features = model.features(video, patch_size=9)
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stretchysnake.flexibility import size_message
from stretchysnake.models.config import VideoMambaConfig
from stretchysnake.models.mixer import BidirectionalMixer, Block, RMSNorm, drop_path
from stretchysnake.models.resample import (
    resize_patch_kernel,
    resize_spatial_positions,
    resize_temporal_positions,
)


class Tokens(NamedTuple):
    """What the encoder returns after the final norm."""

    cls: Tensor
    """(B, C), the [CLS] token: the feature used for retrieval."""
    patches: Tensor
    """(B, t, h, w, C)."""


class PatchEmbed(nn.Module):
    """Holder of the patch kernel, under the official name `patch_embed.proj`."""

    def __init__(self, config: VideoMambaConfig):
        super().__init__()
        kernel = (config.tubelet_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(3, config.embed_dim, kernel, stride=kernel)


class VideoMamba(nn.Module):
    """The backbone and its linear head; parameter names are those of the official checkpoints.

    Token order is frame-major (t h w) with [CLS] first. `pos_embed` is added per frame ([CLS] takes row
    0), then `temporal_pos_embedding` to every patch token of its frame. video is (B, 3, T, H, W),
    floating point, normalised as in training; it is cast to the parameters' dtype.
    """

    def __init__(self, config: VideoMambaConfig):
        super().__init__()
        self.config = config
        self.checkpoint_activations = False  # training only: compute a block again in backward
        width, grid = config.embed_dim, config.image_size // config.patch_size
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        self.temporal_pos_embedding = nn.Parameter(
            torch.zeros(1, config.num_frames // config.tubelet_size, width)
        )
        # Drop path grows linearly with depth, as in the official code; the last rate is also norm_f's.
        rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.layers = nn.ModuleList(
            Block(
                BidirectionalMixer(
                    width,
                    state_size=config.state_size,
                    expand=config.expand,
                    conv_width=config.conv_width,
                    dt_rank=config.rank_of_delta,
                ),
                width,
                drop_path=rates[max(0, i - 1)],
            )
            for i in range(config.depth)
        )
        self.norm_f = RMSNorm(width)
        self.head = (
            nn.Linear(width, config.num_classes) if config.num_classes > 0 else nn.Identity()
        )
        self._resized: dict[tuple, tuple[Tensor, Tensor]] = {}
        self._initialise()

    def forward(
        self,
        video: Tensor,
        patch_size: int | None = None,
        *,
        grid: str = "exact",
        drop_draws: Tensor | None = None,
    ) -> Tensor:
        """Class logits (B, num_classes) of the clips; arguments as in `features`."""
        return self.head(self.features(video, patch_size, grid=grid, drop_draws=drop_draws))

    def features(
        self,
        video: Tensor,
        patch_size: int | None = None,
        *,
        grid: str = "exact",
        drop_draws: Tensor | None = None,
    ) -> Tensor:
        """The [CLS] token after the final norm, (B, C): the frozen feature of paper A.3; arguments as in `tokens`.

        drop_draws (B, depth), in [0, 1), decide drop path in training mode: clip b goes without layer i where
        drop_draws[b, i] is below that layer's rate. Without them torch's generator decides.
        """
        sequence, _ = self._encode(video, patch_size, grid, drop_draws)
        return self.norm_f(sequence[:, 0])

    def tokens(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact"
    ) -> Tokens:
        """[CLS] and patch tokens after the final norm.

        patch_size defaults to the stored one. T must be a multiple of the tubelet, H and W of the patch
        (ValueError names the nearest sizes that fit); `grid="floor"` instead leaves the rest of H and W
        that does not fill a patch unused, as a plain convolution does.
        """
        sequence, shape = self._encode(video, patch_size, grid)
        sequence = self.norm_f(sequence)
        return Tokens(sequence[:, 0], sequence[:, 1:].unflatten(1, shape))

    def _encode(
        self, video: Tensor, patch_size: int | None, grid: str, drop_draws: Tensor | None = None
    ) -> tuple[Tensor, tuple]:
        """The residual stream before the final norm, (B, L, C), and (t, h, w)."""
        patch = self.config.patch_size if patch_size is None else patch_size
        shape = self._checked_grid(video, patch, grid)
        x = self._embed(video, patch, shape)
        residual = None
        again = self.checkpoint_activations and self.training and torch.is_grad_enabled()
        # A block drops the branch that it is handed, that of the layer before; the last one is dropped at the end.
        drawn = [None] * (len(self.layers) + 1)
        if drop_draws is not None:
            drawn[1:] = drop_draws.to(x.device).unbind(1)
        for layer, draws in zip(self.layers, drawn, strict=False):
            if again:
                x, residual = checkpoint(layer, x, residual, draws, use_reentrant=False)
            else:
                x, residual = layer(x, residual, draws)
        x = drop_path(x, self.config.drop_path, training=self.training, draws=drawn[-1])
        return residual + x, shape

    def embed_part(
        self,
        video: Tensor,
        patch_size: int | None = None,
        *,
        grid: str = "exact",
        first: int = 0,
        of: int | None = None,
    ) -> Tensor:
        """Tokens with positions of a clip, or of frames `first` and on of a longer one of `of` frames: (B, n, C).

        E_temp is resized to the longer clip, and [CLS] comes first where `first` is 0. Other arguments
        as in `tokens`.
        """
        patch = self.config.patch_size if patch_size is None else patch_size
        shape = self._checked_grid(video, patch, grid)
        tubelet = self.config.tubelet_size
        of = video.shape[2] if of is None else of
        if first % tubelet or of % tubelet or not 0 <= first <= of - video.shape[2]:
            raise ValueError(
                f"frames {first} to {first + video.shape[2]} of {of} must lie inside the clip and begin at a "
                f"multiple of tubelet_size ({tubelet})"
            )
        return self._embed(video, patch, shape, (first // tubelet, of // tubelet))

    def _embed(
        self,
        video: Tensor,
        patch: int,
        shape: tuple[int, int, int],
        part: tuple[int, int] | None = None,
    ) -> Tensor:
        """part: (first temporal token, their number in the whole clip); None where the video is the clip."""
        weight, positions, frames = self._weights_for(patch, shape, part)
        video = video.to(weight.dtype)
        stride = (self.config.tubelet_size, patch, patch)
        x = F.conv3d(video, weight, self.patch_embed.proj.bias, stride=stride)  # (B, C, t, h, w)
        x = x.flatten(3).permute(0, 2, 3, 1)  # (B, t, hw, C)
        x = x + positions[:, 1:].unsqueeze(1) + frames.unsqueeze(2)
        x = x.flatten(1, 2)
        if part is not None and part[0]:
            return x  # (B, thw, C)
        cls = (self.cls_token + positions[:, :1]).expand(x.shape[0], -1, -1)
        return torch.cat([cls, x], dim=1)  # (B, 1 + thw, C)

    def _weights_for(
        self, patch: int, shape: tuple[int, int, int], part: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Patch kernel, E_pos and E_temp at this scale; remembered while no gradient can flow."""
        t, h, w = shape
        mode = self.config.patch_resize
        if part is None or part == (0, t):
            frames = self._resize(
                ("frames", t),
                self.temporal_pos_embedding,
                lambda table: resize_temporal_positions(table, t),
            )
        else:  # not remembered: each part has other rows
            first, of = part
            span = (first, first + t)
            frames = resize_temporal_positions(self.temporal_pos_embedding, of, span=span)
        return (
            self._resize(
                ("patch", patch, mode),
                self.patch_embed.proj.weight,
                lambda weight: resize_patch_kernel(weight, patch, mode=mode),
            ),
            self._resize(
                ("grid", h, w),
                self.pos_embed,
                lambda table: resize_spatial_positions(table, (h, w)),
            ),
            frames,
        )

    def _resize(self, key: tuple, stored: Tensor, resize) -> Tensor:
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return resize(stored)
        # The copy is compared by content: version counters miss writes through `.data` (EMA, some loaders).
        remembered = self._resized.get(key)
        if remembered is not None:
            copy, resized = remembered
            if (
                copy.dtype == stored.dtype
                and copy.device == stored.device
                and torch.equal(copy, stored)
            ):
                return resized
        resized = resize(stored)
        if resized is stored:
            return stored
        if len(self._resized) >= 64:
            self._resized.clear()
        self._resized[key] = (stored.detach().clone(), resized.detach())
        return resized

    def _checked_grid(self, video: Tensor, patch: int, grid: str) -> tuple[int, int, int]:
        if video.dim() != 5 or video.shape[1] != 3 or not video.is_floating_point():
            raise ValueError(
                f"video (shape {tuple(video.shape)}, {video.dtype}) must be floating point of shape "
                "(B, 3, T, H, W); for one clip add a batch axis with video[None]"
            )
        if grid not in ("exact", "floor"):
            raise ValueError(f'grid ({grid!r}) must be "exact" or "floor"')
        if not isinstance(patch, int) or patch < 1:
            raise ValueError(f"patch_size ({patch!r}) must be a positive integer")
        _, _, num_frames, height, width = video.shape
        tubelet = self.config.tubelet_size
        if num_frames == 0 or num_frames % tubelet:
            nearest = num_frames // tubelet * tubelet
            near = f"{nearest}, {nearest + tubelet}" if nearest else f"{tubelet}"
            raise ValueError(
                f"num_frames ({num_frames}) must be a positive multiple of tubelet_size ({tubelet}); "
                f"nearest: {near}"
            )
        for name, size in (("height", height), ("width", width)):
            if size < patch or (size % patch and grid == "exact"):
                raise ValueError(size_message(name, size, patch))
        return num_frames // tubelet, height // patch, width // patch

    @torch.no_grad()
    def _initialise(self) -> None:
        fan_in = self.patch_embed.proj.weight[0].numel()
        nn.init.trunc_normal_(self.patch_embed.proj.weight, std=fan_in**-0.5)
        nn.init.zeros_(self.patch_embed.proj.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for block in self.layers:
            block.mixer.initialise(depth=self.config.depth, init=self.config.init)
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
