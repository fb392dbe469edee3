"""What a UniFormer is made of: embeddings, blocks of convolutions, blocks of attention (Li et al. 2022).

B batch, C channels, (t, h, w) token grid.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.models.drop_path import drop_path
from stretchysnake.models.transformers.layers.attention import Attention, Mlp


class Embedding(nn.Module):
    """A convolution without overlap in space, then a LayerNorm over the channels."""

    def __init__(self, before: int, after: int, kernel: tuple[int, ...], frames: tuple[int, int] = (1, 0)):  # fmt: skip
        super().__init__()
        stride, padding = (frames[0], *kernel[1:]), (frames[1], 0, 0)
        self.proj = nn.Conv3d(before, after, kernel, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(after)

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """(B, C, t, h, w) in and out; `weight` stands in for the stored kernel, its size being the stride."""
        weight = self.proj.weight if weight is None else weight
        stride = (self.proj.stride[0], *weight.shape[-2:])
        x = F.conv3d(x, weight, self.proj.bias, stride=stride, padding=self.proj.padding)
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class ConvMlp(nn.Module):
    """An MLP of every place, by convolutions of one place."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv3d(width, hidden, 1), nn.Conv3d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """x + position, x + mixing, x + MLP; (B, C, t, h, w) in and out. draws (B, 2): mixing, MLP."""

    def __init__(self, width: int, rate: float):
        super().__init__()
        self.rate = rate
        self.pos_embed = nn.Conv3d(width, width, 3, padding=1, groups=width)

    def drop(self, x: Tensor, draws: Tensor | None, place: int) -> Tensor:
        drawn = None if draws is None else draws[:, place]
        return drop_path(x, self.rate, training=self.training, draws=drawn)


class ConvBlock(Block):
    """Mixes the 5×5×5 places around each, channel by channel; with batch norms."""

    def __init__(self, width: int, hidden: int, rate: float):
        super().__init__(width, rate)
        self.norm1, self.norm2 = nn.BatchNorm3d(width), nn.BatchNorm3d(width)
        self.conv1, self.conv2 = nn.Conv3d(width, width, 1), nn.Conv3d(width, width, 1)
        self.attn = nn.Conv3d(width, width, 5, padding=2, groups=width)
        self.mlp = ConvMlp(width, hidden)

    def forward(self, x: Tensor, draws: Tensor | None = None) -> Tensor:
        x = x + self.pos_embed(x)
        x = x + self.drop(self.conv2(self.attn(self.conv1(self.norm1(x)))), draws, 0)
        return x + self.drop(self.mlp(self.norm2(x)), draws, 1)


class AttentionBlock(Block):
    """Mixes all tokens of the clip by attention."""

    def __init__(self, width: int, hidden: int, rate: float, *, num_heads: int, bias: bool):
        super().__init__(width, rate)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, num_heads, bias=bias)
        self.mlp = Mlp(width, hidden)

    def forward(self, x: Tensor, draws: Tensor | None = None) -> Tensor:
        x = x + self.pos_embed(x)
        shape, x = x.shape[2:], x.flatten(2).transpose(1, 2)  # (B, thw, C)
        x = x + self.drop(self.attn(self.norm1(x)), draws, 0)
        x = x + self.drop(self.mlp(self.norm2(x)), draws, 1)
        return x.transpose(1, 2).unflatten(2, shape)
