"""VideoMamba for any number of frames, any frame size and any patch size (Li et al. 2024; paper §3).

B batch, T frames, H W pixels, P patch size, t = T / tubelet temporal tokens, h = H/P, w = W/P,
C width, L = 1 + t·h·w tokens.

    model = VideoMamba(VideoMambaConfig.named("tiny", num_classes=400))
    logits = model(video)                    # video (B, 3, T, H, W): the model reads T, H, W and flexes
    features = model.features(video, patch_size=9)
    features = model.features_packed([video, longer_video], [9, 16])   # clips (3, T, H, W), one pass
"""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.flexibility import Scale
from stretchysnake.models.backbone import Tokens, depth_by_name
from stretchysnake.models.config import VideoMambaConfig
from stretchysnake.models.drop_path import drop_path, growing_rates
from stretchysnake.models.flexible_embedding import ResizedWeights, token_grid
from stretchysnake.models.mixer import BidirectionalMixer, Block, RMSNorm
from stretchysnake.models.recompute import run_stage
from stretchysnake.models.resample import (
    resize_patch_kernel,
    resize_spatial_positions,
    resize_temporal_positions,
)
from stretchysnake.models.sequences.packed import checked_draws, clip_groups, in_order, naming
from stretchysnake.models.weights.official.videomamba import config_of, fitted
from stretchysnake.models.weights.published.pretrained import save_pretrained


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

    marks = (("patch_embed.proj.weight",),)
    classifier = "head"
    save_pretrained = save_pretrained

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
        rates = growing_rates(config.drop_path, config.depth)
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
        self._resized = ResizedWeights()
        self._initialise()

    def forward(
        self,
        video: Tensor | Sequence[Tensor],
        patch_size: int | Sequence[int | None] | None = None,
        **how,
    ) -> Tensor:
        """Class logits (B, num_classes) of the clips; arguments as in `features`.

        A list or tuple of clips is packed: what wraps a model, as data-parallel training does, knows `forward` alone.
        """
        if isinstance(video, (list, tuple)):
            return self.forward_packed(video, patch_size, **how)
        return self.head(self.features(video, patch_size, **how))

    def features(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact", drop_draws: Tensor | None = None
    ) -> Tensor:  # fmt: skip
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
        shape = token_grid(video, patch, grid, tubelet=self.config.tubelet_size)
        x, residual = self._blocks(self._embed(video, patch, shape), drop_draws)
        last = None if drop_draws is None else drop_draws[:, -1]
        x = drop_path(x, self.config.drop_path, training=self.training, draws=last)
        return residual + x, shape

    def _blocks(
        self, x: Tensor, drop_draws: Tensor | None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x (B, L, C), or packed (L, C), through all blocks: the last branch, not yet dropped, and the residual.

        drop_draws (B, depth), packed (L, depth).
        """
        residual = None
        # A block drops the branch that it is handed, that of the layer before.
        drawn = [None] * (len(self.layers) + 1)
        if drop_draws is not None:
            drawn[1:] = drop_draws.to(x.device).unbind(1)
        packed = () if cu_seqlens is None else (cu_seqlens,)
        for layer, draws in zip(self.layers, drawn, strict=False):
            x, residual = run_stage(self, layer, x, residual, draws, *packed)
        return x, residual

    def forward_packed(
        self, clips: Sequence[Tensor], patch_sizes: Sequence[int | None] | None = None, **how
    ) -> Tensor:
        """Class logits (n, num_classes); arguments as in `features_packed`."""
        return self.head(self.features_packed(clips, patch_sizes, **how))

    def features_packed(
        self,
        clips: Sequence[Tensor],
        patch_sizes: Sequence[int | None] | None = None,
        *,
        grid: str = "exact",
        drop_draws: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The features (n, C) of n clips (3, T, H, W) of any shapes in one forward pass, as each has them alone.

        All tokens lie in one row without padding: linear layers and norms see them all at once, convolution and scan
        begin afresh at each clip. Positions and kernel are resized for each shape. One patch size for each clip; None,
        there or for all, is the stored one. drop_draws (n, depth) and other arguments as in `features`.
        """
        clips = list(clips)
        groups = clip_groups(clips, patch_sizes, stored=self.config.patch_size)
        draws = checked_draws(drop_draws, len(clips))
        tubelet, rows, lengths = self.config.tubelet_size, [], []
        for group in groups:
            with naming(group):
                shape = token_grid(group.video, group.patch_size, grid, tubelet=tubelet)
            x = self._embed(group.video, group.patch_size, shape)
            rows.append(x.flatten(0, 1))  # (B · (1 + thw), C)
            lengths += [x.shape[1]] * len(group.places)
        row = torch.cat(rows)  # (L, C)
        ends = torch.tensor([0, *accumulate(lengths)], device=row.device)
        if draws is None and self.training and self.config.drop_path:
            draws = torch.rand(len(lengths), len(self.layers), device=row.device)
        last = by_token = None
        if draws is not None:
            draws = torch.stack([draws[place] for group in groups for place in group.places])
            repeats = torch.tensor(lengths, device=draws.device)
            last, by_token = draws[:, -1], draws.repeat_interleave(repeats, dim=0)  # (L, depth)
        x, residual = self._blocks(row, by_token, ends)
        first = ends[:-1]  # the [CLS] tokens
        x = drop_path(x[first], self.config.drop_path, training=self.training, draws=last)
        return in_order(self.norm_f(residual[first] + x), [group.places for group in groups])

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
        shape = token_grid(video, patch, grid, tubelet=self.config.tubelet_size)
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
        resized = partial(self._resized, training=self.training)
        if part is None or part == (0, t):
            frames = resized(
                ("frames", t),
                self.temporal_pos_embedding,
                lambda table: resize_temporal_positions(table, t),
            )
        else:  # not remembered: each part has other rows
            first, of = part
            span = (first, first + t)
            frames = resize_temporal_positions(self.temporal_pos_embedding, of, span=span)
        return (
            resized(
                ("patch", patch, mode),
                self.patch_embed.proj.weight,
                lambda weight: resize_patch_kernel(weight, patch, mode=mode),
            ),
            resized(
                ("grid", h, w),
                self.pos_embed,
                lambda table: resize_spatial_positions(table, (h, w)),
            ),
            frames,
        )

    def num_drop_draws(self, scale: Scale) -> int:
        """One for each layer, whatever the scale."""
        return len(self.layers)

    def stages(self) -> list[nn.Module]:
        return list(self.layers)

    def depth_of(self, parameter: str) -> int:
        bottom = ("patch_embed.", "cls_token", "pos_embed", "temporal_pos_embedding")
        return depth_by_name(self, parameter, bottom=bottom)

    def undecayed(self) -> tuple[str, ...]:
        """Mamba marks A_log and D so: decay would pull every A to -1."""
        return "A_log", "A_b_log", "D", "D_b", "cls_token", "pos_embed", "temporal_pos_embedding"

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> VideoMambaConfig:
        return config_of(state, **changes)

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        return fitted(state, self)

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
