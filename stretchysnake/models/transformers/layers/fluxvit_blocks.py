"""The parts of FluxViT: its stem, its blocks, its attention pooling, its heads, and which tokens a budget keeps.

B batch, T frames, P patch size, h w tokens of a frame, N tokens in all, C width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.models.drop_path import drop_path
from stretchysnake.models.mixer import RMSNorm
from stretchysnake.models.resample import resize_patch_kernel, resize_table, resize_volume
from stretchysnake.models.transformers.layers.attention import merge_heads, split_heads
from stretchysnake.ops.add_rms_norm import rms_norm

EPS = 1e-6
"""Of every RMSNorm."""


class ChannelScale(nn.Module):
    """x · weight + bias channel by channel, under the names of the depth-wise 1 × 1 × 1 convolution it is."""

    def __init__(self, width: int, *, scale: float):
        super().__init__()
        self.depthwise_conv = nn.Conv3d(width, width, 1, groups=width)
        nn.init.constant_(self.depthwise_conv.weight, scale)
        nn.init.zeros_(self.depthwise_conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.depthwise_conv.weight.flatten() + self.depthwise_conv.bias


class NormedPatches(nn.Module):
    """Pixels of a patch through an RMSNorm, the patch kernel and another RMSNorm: (B, T, h, w, C)."""

    def __init__(self, width: int, patch_size: int):
        super().__init__()
        self.norm_before = RMSNorm(3 * patch_size**2, EPS)
        kernel = (1, patch_size, patch_size)
        self.proj = nn.Conv3d(3, width, kernel, stride=kernel)
        self.norm = RMSNorm(width, EPS)

    def forward(self, video: Tensor, patch: int, grid: tuple[int, int], resized) -> Tensor:
        """resized is a ResizedWeights with its `training` said; (h, w) = grid says how much of the frames is used."""
        kernel = resized(
            ("kernel", patch), self.proj.weight, lambda stored: resize_patch_kernel(stored, patch)
        )
        pixels = resized(
            ("pixels", patch),
            self.norm_before.weight,
            lambda stored: resize_pixel_weights(stored, patch),
        )
        h, w = grid
        x = video[..., : h * patch, : w * patch].to(kernel.dtype)
        x = x.unflatten(-1, (w, patch)).unflatten(-3, (h, patch))  # (B, 3, T, h, P, w, P)
        x = x.permute(0, 2, 3, 5, 4, 6, 1).flatten(-3)  # pixel by pixel, its three colours together
        x = rms_norm(x, pixels, self.norm_before.eps)
        kernel = kernel.squeeze(2).permute(0, 2, 3, 1).flatten(1)
        return self.norm(F.linear(x, kernel, self.proj.bias))


def resize_pixel_weights(weight: Tensor, patch_size: int) -> Tensor:
    """norm_before's (P0·P0·3,), a picture with its colours last, for another patch size: bicubic."""
    native = round((weight.numel() / 3) ** 0.5)
    table = weight.unflatten(0, (-1, 3))
    resized = resize_table(table, (native, native), (patch_size, patch_size))
    return weight if resized is table else resized.flatten()


def resize_positions(
    table: Tensor, before: tuple[int, int, int], after: tuple[int, int, int]
) -> Tensor:
    """pos_embed (1, 1 + T·h·w, C) for another (T, h, w); the row of [CLS] is kept."""
    if tuple(before) == tuple(after):
        return table
    return torch.cat([table[:, :1], resize_volume(table[0, 1:], before, after)[None]], dim=1)


class FluxAttention(nn.Module):
    """Self-attention with normed queries and keys; values, scaled by channel, are added to it. (B, N, C) -> same."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm, self.k_norm = RMSNorm(width, EPS), RMSNorm(width, EPS)  # all heads together
        self.lpe = ChannelScale(width, scale=0.0)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        q, k, heads = (split_heads(part, self.num_heads, parts=1)[0] for part in (q, k, v))
        y = merge_heads(F.scaled_dot_product_attention(q, k, heads))
        return self.proj(y + self.lpe(v))


class FluxMlp(nn.Module):
    """fc2(GELU(fc1 x)), the GELU by its tanh approximation or exact."""

    def __init__(self, width: int, hidden: int, *, exact: bool):
        super().__init__()
        self.approximate = "none" if exact else "tanh"
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


class LayerScale(nn.Module):
    """x · gamma."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class FluxBlock(nn.Module):
    """(B, N, C) -> (B, N, C); draws (B, 2) decide drop path of the attention and of the MLP."""

    def __init__(self, config, rate: float):
        super().__init__()
        width = config.embed_dim
        self.rate = rate
        self.norm1 = RMSNorm(width, EPS)
        self.attn = FluxAttention(width, config.num_heads)
        self.ls1 = LayerScale(width)
        self.norm2 = RMSNorm(width, EPS)
        self.mlp = FluxMlp(width, config.mlp_width, exact=config.exact_gelu)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor, draws: Tensor | None) -> Tensor:
        first, second = (None, None) if draws is None else draws.unbind(1)
        y = self.ls1(self.attn(self.norm1(x)))
        x = x + drop_path(y, self.rate, training=self.training, draws=first)
        y = self.ls2(self.mlp(self.norm2(x)))
        return x + drop_path(y, self.rate, training=self.training, draws=second)


class PoolAttention(nn.Module):
    """(B, 1, C) attends to (B, N, C), keys and values each from their own tokens: (B, 1, out)."""

    def __init__(self, width: int, num_heads: int, out: int):
        super().__init__()
        self.num_heads = num_heads
        for name in "qkv":
            setattr(self, name, nn.Linear(width, width, bias=False))
            setattr(self, f"{name}_bias", nn.Parameter(torch.zeros(width)))
        self.proj = nn.Linear(width, out)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        q = F.linear(query, self.q.weight, self.q_bias)
        k = F.linear(keys, self.k.weight, self.k_bias)
        v = F.linear(values, self.v.weight, self.v_bias)
        q, k, v = (split_heads(part, self.num_heads, parts=1)[0] for part in (q, k, v))
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))


class AttentionPool(nn.Module):
    """The tokens' mean attends to the tokens, [CLS] among them both times: (B, N, C) -> (B, out)."""

    def __init__(self, width: int, num_heads: int, out: int):
        super().__init__()
        self.norm1_q, self.norm1_k, self.norm1_v = (nn.LayerNorm(width) for _ in range(3))
        self.cross_attn = PoolAttention(width, num_heads, out)

    def forward(self, x: Tensor) -> Tensor:
        query = self.norm1_q(x.mean(dim=1, keepdim=True))
        return self.cross_attn(query, self.norm1_k(x), self.norm1_v(x)).squeeze(1)


class BudgetHeads(nn.ModuleList):
    """A linear head for each of the budgets of training, one of which is used, behind a LayerNorm that they share.

    The LayerNorm has a name of its own in the model and is not registered here.
    """

    def __init__(self, norm: nn.LayerNorm, num_classes: int, *, count: int, used: int):
        super().__init__(nn.Linear(norm.normalized_shape[0], num_classes) for _ in range(count))
        self.used, self.out_features = used, num_classes
        self._norm = (norm,)

    def forward(self, x: Tensor) -> Tensor:
        return self[self.used](self._norm[0](x))

    def requires_grad_(self, requires_grad: bool = True) -> "BudgetHeads":
        """Of what `forward` uses alone: a parameter without a gradient stops a training on several ranks."""
        self._norm[0].requires_grad_(requires_grad)
        self[self.used].requires_grad_(requires_grad)
        return self


def kept_tokens(tokens: Tensor, budget: int) -> Tensor:
    """Places (B, kept), ascending, of the tokens (B, T, N, C) that have changed most since the frame before.

    Frames are cut into groups, 4 where they divide T, else 2 (1 for two frames), and each keeps an equal share of the
    budget. A token's weight is its distance from the one at its place a frame earlier; the first frame of a group has
    the second's, so that the two are equal everywhere, and of equal ones the earlier goes first.
    """
    _, num_frames, places, _ = tokens.shape
    groups = 4 if num_frames % 4 == 0 else 1 if num_frames == 2 else 2
    if num_frames % groups or num_frames == groups:
        near = 2 if num_frames <= 5 else num_frames - 1, 6 if num_frames < 6 else num_frames + 1
        raise ValueError(
            f"num_frames ({num_frames}) must be even and not 4 where token_budget ({budget}) leaves out some of "
            f"{num_frames * places} tokens; nearest: {near[0]}, {near[1]}; token_budget=None keeps all"
        )
    of_group = num_frames // groups * places
    # As the official code has it, in doubles: rounding makes some budgets one token a group shorter.
    ratio = 1 - budget / (num_frames * places)
    keep = int((1 - ratio) * of_group)
    if keep < 1:
        raise ValueError(
            f"token_budget ({budget}) must leave each of {groups} groups of frames a token; use {2 * groups} or more"
        )
    x = tokens.detach()
    x = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(1, (groups, -1))
    change = torch.linalg.vector_norm(
        x[:, :, 1:] - x[:, :, :-1], dim=-1
    )  # (B, groups, frames - 1, N)
    change = torch.cat([change[:, :, :1], change], dim=2).flatten(2)
    order = (
        change.sort(dim=-1, descending=True, stable=True).indices[..., :keep].sort(dim=-1).values
    )
    first = torch.arange(groups, device=x.device).unsqueeze(1) * of_group
    return (order + first).flatten(1)
