"""A block of CAST: CLIP's path over space, VideoMAE's path over space and time, and what they say to each other.

B batch, t h w tokens, N = h·w, C width, D = C / down_ratio the width in which the paths meet.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.models.drop_path import drop_path
from stretchysnake.models.flexible_embedding import ResizedWeights
from stretchysnake.models.transformers.layers.attention import (
    ClipAttention,
    ClipMlp,
    Mlp,
    merge_heads,
    split_heads,
)
from stretchysnake.models.transformers.layers.cast_stems import resize_cross_table

VMAE_EPS = 1e-6
"""Of the LayerNorms of VideoMAE's path and of the meeting; CLIP's have torch's 1e-5."""
BRANCHES = 6
"""Of a block, each dropped for itself: CLIP's and VideoMAE's attention, meeting, MLP."""


class Adapter(nn.Module):
    """D_fc2(GELU(D_fc1 x)) through a quarter of the width; starts as zero unless it is told not to."""

    def __init__(self, width: int, *, zero: bool = True):
        super().__init__()
        self.D_fc1 = nn.Linear(width, width // 4)
        self.D_fc2 = nn.Linear(width // 4, width)
        if zero:
            nn.init.zeros_(self.D_fc2.weight)
            nn.init.zeros_(self.D_fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.D_fc2(F.gelu(self.D_fc1(x)))


class VideoMAEAttention(nn.Module):
    """Self-attention whose keys have no bias, (B, N, C) -> (B, N, C); `qkv_bias` False: nor have the others."""

    def __init__(self, width: int, num_heads: int, *, qkv_bias: bool):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        bias = None
        if self.q_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = split_heads(qkv, self.num_heads, parts=3)
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))


class Meeting(nn.Module):
    """One path, the query, attends to the other: `t2s` over time at each place, `s2t` over the places of each frame.

    query and source are (B, t, N, D); each gets the table of its path first, so that positions are in the values too.
    clip_*_pos and vmae_*_pos are (t, D) for t2s and (N, D) for s2t, stored for `size`: (t,) or (h, w).
    """

    def __init__(self, way: str, width: int, num_heads: int, size: tuple[int, ...]):
        super().__init__()
        self.way, self.num_heads, self.size = way, num_heads, size
        rows = torch.Size(size).numel()
        for name in self.tables:
            setattr(self, name, nn.Parameter(torch.empty(rows, width)))
            nn.init.trunc_normal_(getattr(self, name), std=0.02)
        setattr(self, f"{way}_q", nn.Linear(width, width, bias=False))
        setattr(self, f"{way}_kv", nn.Linear(width, 2 * width, bias=False))
        setattr(self, f"{way}_q_bias", nn.Parameter(torch.zeros(width)))
        setattr(self, f"{way}_kv_bias", nn.Parameter(torch.zeros(2 * width)))
        self.t2s_proj = nn.Linear(width, width)  # the published name both ways
        self._resized = ResizedWeights()

    @property
    def tables(self) -> tuple[str, str]:
        """Names of the query's table and of the source's."""
        return {
            "t2s": ("clip_time_pos", "vmae_time_pos"),
            "s2t": ("vmae_space_pos", "clip_space_pos"),
        }[self.way]

    def forward(self, query: Tensor, source: Tensor, shape: tuple[int, int, int]) -> Tensor:
        size = shape[:1] if self.way == "t2s" else shape[1:]
        if self.way == "t2s":
            query, source = query.transpose(1, 2), source.transpose(1, 2)  # (B, N, t, D)
        query_table, source_table = (
            self._resized(
                (name, *size),
                getattr(self, name),
                lambda table: resize_cross_table(table, self.size, size),
                training=self.training,
            )
            for name in self.tables
        )
        weight, bias = getattr(self, f"{self.way}_q").weight, getattr(self, f"{self.way}_q_bias")
        q = F.linear((query + query_table).flatten(0, 1), weight, bias)
        weight, bias = getattr(self, f"{self.way}_kv").weight, getattr(self, f"{self.way}_kv_bias")
        kv = F.linear((source + source_table).flatten(0, 1), weight, bias)
        (q,) = split_heads(q, self.num_heads, parts=1)
        k, v = split_heads(kv, self.num_heads, parts=2)
        y = self.t2s_proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))
        y = y.unflatten(0, query.shape[:2])
        return y.transpose(1, 2) if self.way == "t2s" else y


class CASTBlock(nn.Module):
    """(s (B, t, 1 + N, C) with [CLS] first, v (B, t, N, C)) -> the same; s is CLIP's path, v VideoMAE's.

    draws (B, 6) decide drop path of: attention of s, of v; meeting of s, of v; MLP of s, of v.
    """

    def __init__(self, config, rate: float):
        super().__init__()
        width, cross_width, num_heads = config.embed_dim, config.cross_width, config.num_heads
        self.rate = rate
        self.clip_ln_1 = nn.LayerNorm(width)
        self.clip_attn = ClipAttention(width, num_heads)
        self.S_Adapter = Adapter(width)
        self.norm1 = nn.LayerNorm(width, eps=VMAE_EPS)
        self.attn = VideoMAEAttention(width, num_heads, qkv_bias=config.qkv_bias)
        self.T_Adapter = Adapter(width)
        self.cross_s_down = nn.Linear(width, cross_width)
        self.cross_t_down = nn.Linear(width, cross_width)
        self.ln_s_cross = nn.LayerNorm(cross_width, eps=VMAE_EPS)
        self.ln_t_cross = nn.LayerNorm(cross_width, eps=VMAE_EPS)
        self.t2s_cross = Meeting("t2s", cross_width, num_heads, config.shape[:1])
        self.s2t_cross = Meeting("s2t", cross_width, num_heads, config.shape[1:])
        self.cross_s_up = nn.Linear(cross_width, width)
        self.cross_t_up = nn.Linear(cross_width, width)
        self.clip_ln_2 = nn.LayerNorm(width)
        self.clip_mlp = ClipMlp(width, 4 * width)
        self.S_MLP_Adapter = Adapter(width)
        self.norm2 = nn.LayerNorm(width, eps=VMAE_EPS)
        self.mlp = Mlp(width, config.mlp_width)
        self.T_MLP_Adapter = Adapter(width)
        for up in (self.cross_s_up, self.cross_t_up):  # a fresh model is its two experts, unmixed
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)

    def forward(
        self, s: Tensor, v: Tensor, shape: tuple[int, int, int], draws: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        y = self.clip_attn(self.clip_ln_1(s).flatten(0, 1)).view_as(s)  # frame by frame
        s = s + self._dropped(y + self.S_Adapter(y), draws, 0)
        y = self.attn(self.norm1(v).flatten(1, 2)).view_as(v)  # over all t·N
        v = v + self._dropped(y + self.T_Adapter(y), draws, 1)

        ns, nv = self.ln_s_cross(self.cross_s_down(s)), self.ln_t_cross(self.cross_t_down(v))
        cls, places = ns[:, :, :1], ns[:, :, 1:]
        # [CLS] attends to nothing and goes through as it is
        to_s = torch.cat([cls, self.t2s_cross(places, nv, shape).to(cls.dtype)], dim=2)
        to_v = self.s2t_cross(nv, places, shape)
        s = s + self._dropped(self.cross_s_up(F.gelu(to_s)), draws, 2)
        v = v + self._dropped(self.cross_t_up(F.gelu(to_v)), draws, 3)

        y = self.clip_ln_2(s)
        s = s + self._dropped(self.clip_mlp(y) + 0.5 * self.S_MLP_Adapter(y), draws, 4)
        y = self.norm2(v)
        v = v + self._dropped(self.mlp(y) + 0.5 * self.T_MLP_Adapter(y), draws, 5)
        return s, v

    def _dropped(self, x: Tensor, draws: Tensor | None, branch: int) -> Tensor:
        drawn = None if draws is None else draws[:, branch]
        return drop_path(x, self.rate, training=self.training, draws=drawn)


class NounVerbHead(nn.Module):
    """(B, 2C) features to (B, nouns + verbs) logits; its layers are the model's head_noun and head_verb."""

    def __init__(self, head_noun: nn.Linear, head_verb: nn.Linear):
        super().__init__()
        self.head_noun, self.head_verb = head_noun, head_verb
        self.out_features = head_noun.out_features + head_verb.out_features

    def forward(self, x: Tensor) -> Tensor:
        noun, verb = x.chunk(2, dim=-1)
        return torch.cat([self.head_noun(noun), self.head_verb(verb)], dim=-1)
