"""TimeSformer's block: attention over time, over space, then the MLP (Bertasius et al. 2021).

B batch, T frames, N patches of a frame, C width.
"""

from functools import partial

import torch
from torch import Tensor, nn

from stretchysnake.models.drop_path import drop_path
from stretchysnake.models.transformers.layers.attention import Attention, Mlp


class DividedBlock(nn.Module):
    """Attention over the frames of each location, over the patches of each frame, then the MLP, all pre-norm.

    cls (B, 1, C) and patches (B, T, N, C) in and out. draws (B, N + T + 1) decide drop path: the locations row by row,
    the frames, the MLP.
    """

    def __init__(self, config, rate: float):
        super().__init__()
        width, self.rate = config.embed_dim, rate
        norm = partial(nn.LayerNorm, width, eps=config.norm_eps)
        attention = partial(Attention, width, config.num_heads, bias=config.qkv_bias)
        self.temporal_norm1, self.temporal_attn = norm(), attention()
        self.temporal_fc = nn.Linear(width, width)
        self.norm1, self.attn = norm(), attention()
        self.norm2, self.mlp = norm(), Mlp(width, config.mlp_width)

    def forward(self, cls: Tensor, patches: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        batch, frames, places = patches.shape[:3]
        drawn = [None] * 3 if draws is None else draws.split((places, frames, 1), dim=1)
        drop = partial(drop_path, rate=self.rate, training=self.training)

        line = patches.transpose(1, 2).flatten(0, 1)  # (B·N, T, C)
        line = drop(self.temporal_attn(self.temporal_norm1(line)), draws=drawn[0])
        # After drop path, as in the official code: the bias of a dropped branch still acts.
        line = self.temporal_fc(line)
        patches = patches + line.unflatten(0, (batch, places)).transpose(1, 2)

        # Every frame attends to the same incoming [CLS]; the answers of all frames are averaged.
        frame = torch.cat([cls.unsqueeze(1).expand(-1, frames, -1, -1), patches], dim=2)
        frame = drop(self.attn(self.norm1(frame.flatten(0, 1))), draws=drawn[1])
        frame = frame.unflatten(0, (batch, frames))  # (B, T, 1 + N, C)
        cls, patches = cls + frame[:, :, :1].mean(1), patches + frame[:, :, 1:]

        x = torch.cat([cls, patches.flatten(1, 2)], dim=1)  # (B, 1 + T·N, C)
        x = x + drop(self.mlp(self.norm2(x)), draws=drawn[2])
        return x[:, :1], x[:, 1:].unflatten(1, (frames, places))
