"""UniFormerV2's blocks: CLIP's with convolutions over time, and the global ones that gather all frames.

B batch, t h w tokens, N = 1 + h·w, C width.
"""

import torch
from torch import Tensor, nn

from stretchysnake.models.drop_path import drop_path
from stretchysnake.models.transformers.layers.attention import ClipBlock


class LocalPart(nn.Module):
    """A depth-wise convolution over three frames between two linear maps, (B, C, t, h, w); starts as zero."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.pos_embed = nn.Sequential(
            nn.BatchNorm3d(width),
            nn.Conv3d(width, inner, 1),
            nn.Conv3d(inner, inner, (3, 1, 1), padding=(1, 0, 0), groups=inner),
            nn.Conv3d(inner, width, 1),
        )
        nn.init.zeros_(self.pos_embed[3].weight)
        nn.init.zeros_(self.pos_embed[3].bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.pos_embed(x)


class LocalBlock(ClipBlock):
    """CLIP's block per frame, local parts on the patch tokens before its branches: (B, t, N, C) -> (B, t, N, C).

    draws (B, 2 + local parts) decide drop path of the branches in the order in which they are added.
    """

    def __init__(self, config, rate: float):
        super().__init__(config.embed_dim, config.num_heads)
        self.rate = rate
        for number in range(1, config.local_parts + 1):
            self.add_module(f"lmhra{number}", LocalPart(config.embed_dim, config.local_width))

    def forward(self, x: Tensor, grid: tuple[int, int], draws: Tensor | None) -> Tensor:
        drawn = iter(() if draws is None else draws.unbind(1))
        if hasattr(self, "lmhra1"):
            x = on_patches(x, grid, lambda y: self._dropped(self.lmhra1(y), drawn))
        y = self.attn(self.ln_1(x).flatten(0, 1)).view_as(x)
        x = x + self._dropped(y, drawn)
        if hasattr(self, "lmhra2"):
            x = on_patches(x, grid, lambda y: self._dropped(self.lmhra2(y), drawn))
        return x + self._dropped(self.mlp(self.ln_2(x)), drawn)

    def _dropped(self, x: Tensor, drawn) -> Tensor:
        draws = next(drawn, None)
        return x if draws is None else drop_path(x, self.rate, training=self.training, draws=draws)


class GlobalBlock(ClipBlock):
    """The clip's query (B, 1, C) attends to all tokens of all frames, keys (B, tokens, C); starts as identity."""

    def __init__(self, config):
        super().__init__(config.embed_dim, config.global_heads, mlp_width=config.global_mlp_width)
        self.ln_3 = nn.LayerNorm(config.embed_dim)
        nn.init.xavier_uniform_(self.mlp.c_fc.weight)
        for layer in (self.attn.out_proj, self.mlp.c_proj):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        query = query + self.attn(self.ln_1(query), self.ln_3(keys))
        return query + self.mlp(self.ln_2(query))


def on_patches(x: Tensor, grid: tuple[int, int], branch) -> Tensor:
    """x (B, t, N, C) with branch(y) added to its patch tokens y (B, C, t, h, w); [CLS] stays."""
    patches = x[:, :, 1:]
    added = branch(patches.unflatten(2, grid).permute(0, 4, 1, 2, 3))
    added = added.flatten(3).permute(0, 2, 3, 1)  # (B, t, hw, C)
    return torch.cat([x[:, :, :1], patches + added], dim=2)
