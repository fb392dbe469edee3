"""The bidirectional Mamba mixer and the residual block around it.

B batch, L tokens, C width, Di inner width (expand·C), S state size, R rank of Δ.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stretchysnake.ops.causal_conv import causal_conv_silu
from stretchysnake.ops.selective_scan import selective_scan

DELTA_MIN, DELTA_MAX, DELTA_FLOOR = 1e-3, 0.1, 1e-4  # Gu & Dao 2023, §3.6 and their released code


class RMSNorm(nn.Module):
    """x / rms(x) · weight over the last axis, computed in at least fp32, returned in the weight's dtype."""

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        y = F.rms_norm(x.to(wide), (x.shape[-1],), self.weight.to(wide), self.eps)
        return y.to(self.weight.dtype)


class Carry(NamedTuple):
    """What one direction of one mixer takes from the tokens it has read to those it reads next."""

    state: Tensor
    """(B, Di, S) of the scan, at least fp32."""
    recent: Tensor
    """(B, K - 1, Di), the convolution's last inputs in sequence order; K is its width."""


class BidirectionalMixer(nn.Module):
    """VideoMamba's mixer, (B, L, C) -> (B, L, C): one projection, two scans (forward and backward), summed.

    Each direction has its own convolution, Δ, B, C, A and D; names follow the official checkpoints, where
    `_b` marks the backward direction. The backward direction reads the tokens from the last to the
    first. The two are added, not averaged, as in the official code. State and accumulation are fp32
    (fp64 for fp64 parameters) whatever the input type.
    """

    def __init__(self, width: int, *, state_size: int, expand: int, conv_width: int, dt_rank: int):
        super().__init__()
        inner = expand * width
        self.dt_rank, self.state_size = dt_rank, state_size
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, conv_width, groups=inner, padding=conv_width - 1)
        self.x_proj = nn.Linear(inner, dt_rank + 2 * state_size, bias=False)
        self.dt_proj = nn.Linear(dt_rank, inner)
        self.A_log = nn.Parameter(torch.empty(inner, state_size))
        self.D = nn.Parameter(torch.empty(inner))
        self.A_b_log = nn.Parameter(torch.empty(inner, state_size))
        self.conv1d_b = nn.Conv1d(inner, inner, conv_width, groups=inner, padding=conv_width - 1)
        self.x_proj_b = nn.Linear(inner, dt_rank + 2 * state_size, bias=False)
        self.dt_proj_b = nn.Linear(dt_rank, inner)
        self.D_b = nn.Parameter(torch.empty(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden, gate = self.in_proj(x).chunk(2, dim=-1)  # (B, L, Di) each
        forward, _ = self._scan(hidden, gate, reverse=False)
        backward, _ = self._scan(hidden, gate, reverse=True)
        return self.out_proj(forward + backward)

    def fresh_carry(self, x: Tensor) -> Carry:
        """What a direction carries before its first token, for tokens like x (B, L, C)."""
        weight = self.conv1d.weight
        inner, conv_width = weight.shape[0], weight.shape[-1]
        wide = torch.promote_types(weight.dtype, torch.float32)
        return Carry(
            weight.new_zeros(x.shape[0], inner, self.state_size, dtype=wide),
            weight.new_zeros(x.shape[0], conv_width - 1, inner),
        )

    def window(self, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """The mixer of one window: forwards on from `carry`, backwards from the window's own last token."""
        hidden, gate = self.in_proj(x).chunk(2, dim=-1)
        forward, carry = self._scan(hidden, gate, reverse=False, carry=carry)
        backward, _ = self._scan(hidden, gate, reverse=True)
        return self.out_proj(forward + backward), carry

    def one_direction(self, x: Tensor, carry: Carry, *, reverse: bool) -> tuple[Tensor, Carry]:
        """The share of one direction in the mixer's output for a part of a sequence, and the carry to its next part.

        The next part is the one after x, with `reverse` the one before it. out_proj has no bias, so the
        shares of both directions add up to `forward`.
        """
        hidden, gate = self.in_proj(x).chunk(2, dim=-1)
        y, carry = self._scan(hidden, gate, reverse=reverse, carry=carry)
        return self.out_proj(y), carry

    def _scan(
        self, hidden: Tensor, gate: Tensor, *, reverse: bool, carry: Carry | None = None
    ) -> tuple[Tensor, Carry | None]:
        if reverse:
            conv, x_proj, dt_proj = self.conv1d_b, self.x_proj_b, self.dt_proj_b
            A_log, D = self.A_b_log, self.D_b
        else:
            conv, x_proj, dt_proj = self.conv1d, self.x_proj, self.dt_proj
            A_log, D = self.A_log, self.D
        u, recent = _convolved(hidden, conv, carry, reverse=reverse)
        sizes = (self.dt_rank, self.state_size, self.state_size)
        dt, B, C = x_proj(u).split(sizes, dim=-1)
        delta = F.linear(dt, dt_proj.weight)  # the bias enters inside the scan, before softplus
        wide = torch.promote_types(A_log.dtype, torch.float32)
        y, state = selective_scan(
            u,
            delta.to(u.dtype),
            -torch.exp(A_log.to(wide)),
            B,
            C,
            D=D.to(wide),
            z=gate,
            delta_bias=dt_proj.bias.to(wide),
            delta_softplus=True,
            reverse=reverse,
            initial_state=None if carry is None else carry.state,
            return_final_state=True,
        )
        return y, None if carry is None else Carry(state, recent)

    @torch.no_grad()
    def initialise(self, *, depth: int, init: str) -> None:
        """Set the parameters; `init` is "mamba" or "official" (see VideoMambaConfig.init)."""
        for linear in (self.in_proj, self.x_proj, self.x_proj_b):
            if init == "official":
                nn.init.trunc_normal_(linear.weight, std=0.02)
            else:
                linear.reset_parameters()
        for dt_proj in (self.dt_proj, self.dt_proj_b):
            if init == "official":
                # What the official code does in effect: its generic init runs last and wipes Mamba's
                # Δ init (softplus(0) = 0.693 in every channel), first reported as Vim issue 19.
                nn.init.trunc_normal_(dt_proj.weight, std=0.02)
                nn.init.zeros_(dt_proj.bias)
            else:
                nn.init.uniform_(dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
                log_delta = torch.empty_like(dt_proj.bias).uniform_(
                    math.log(DELTA_MIN), math.log(DELTA_MAX)
                )
                delta = log_delta.exp().clamp(min=DELTA_FLOOR)
                dt_proj.bias.copy_(delta + torch.log(-torch.expm1(-delta)))  # inverse of softplus
        for A_log, D in ((self.A_log, self.D), (self.A_b_log, self.D_b)):
            A_log.copy_(
                torch.arange(1, self.state_size + 1, dtype=A_log.dtype).log().expand_as(A_log)
            )
            nn.init.ones_(D)
        for conv in (self.conv1d, self.conv1d_b):
            conv.reset_parameters()
        nn.init.kaiming_uniform_(self.out_proj.weight, a=math.sqrt(5))
        self.out_proj.weight /= math.sqrt(depth)


def _convolved(
    hidden: Tensor, conv: nn.Conv1d, carry: Carry | None, *, reverse: bool
) -> tuple[Tensor, Tensor | None]:
    """silu(conv(hidden)) and, with a carry, the inputs that the convolution of the next part needs."""
    weight = conv.weight.squeeze(1)
    if carry is None:
        return causal_conv_silu(hidden, weight, conv.bias, reverse=reverse), None
    length, before = hidden.shape[1], carry.recent.shape[1]
    pieces = [hidden, carry.recent] if reverse else [carry.recent, hidden]
    joined = torch.cat(pieces, dim=1)
    u = causal_conv_silu(joined, weight, conv.bias, reverse=reverse)
    # copied: a view would keep the whole part in memory
    if reverse:
        return u[:, :length], joined[:, :before].clone()
    return u[:, before:], joined[:, length:].clone()


class Block(nn.Module):
    """One residual step: residual += drop_path(x), then x = mixer(norm(residual)).

    The residual stream is kept in at least fp32, also when parameters or autocast are narrower.
    """

    def __init__(self, mixer: BidirectionalMixer, width: int, *, drop_path: float = 0.0):
        super().__init__()
        self.mixer = mixer
        self.norm = RMSNorm(width)
        self.drop_path = drop_path

    def forward(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        if residual is None:
            residual = x.to(torch.promote_types(x.dtype, torch.float32))
        else:
            residual = residual + drop_path(x, self.drop_path, training=self.training)
        return self.mixer(self.norm(residual)), residual

    def window(
        self, x: Tensor, residual: Tensor | None, carry: Carry
    ) -> tuple[Tensor, Tensor, Carry]:
        """`forward` of one window in evaluation: (x, residual, the carry to the next window)."""
        wide = torch.promote_types(x.dtype, torch.float32)
        residual = x.to(wide) if residual is None else residual + x
        x, carry = self.mixer.window(self.norm(residual), carry)
        return x, residual, carry


def drop_path(x: Tensor, rate: float, *, training: bool) -> Tensor:
    """Zero whole samples with probability `rate`, scaling the rest by 1 / (1 - rate); identity in eval."""
    if rate == 0.0 or not training:
        return x
    keep = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= rate
    return x * keep.to(x.dtype) / (1.0 - rate)
