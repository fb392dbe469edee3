"""The bidirectional Mamba mixer and the residual block around it.

B batch, L tokens, C width, Di inner width (expand·C), S state size, R rank of Δ.

Where cu_seqlens is given, x is (L, C): the tokens of n clips of any lengths one after another. cu_seqlens (n + 1,) says
where: 0, then where each ends. Scan and convolution begin afresh at each.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn

from stretchysnake.models.drop_path import drop_path
from stretchysnake.ops.add_rms_norm import add_rms_norm, rms_norm
from stretchysnake.ops.bidirectional_scan.direction import Carry, Direction
from stretchysnake.ops.bidirectional_scan.scan import bidirectional_scan, one_direction

DELTA_MIN, DELTA_MAX, DELTA_FLOOR = 1e-3, 0.1, 1e-4  # Gu & Dao 2023, §3.6 and their released code


class RMSNorm(nn.Module):
    """x / rms(x) · weight over the last axis, computed in at least fp32, returned in the weight's dtype."""

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


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

    def forward(self, x: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
        xz, directions = self.in_proj(x), self.forward_and_backward()
        if cu_seqlens is None:
            return self.out_proj(bidirectional_scan(xz, *directions))
        row = bidirectional_scan(xz.unsqueeze(0), *directions, cu_seqlens=cu_seqlens)
        return self.out_proj(row.squeeze(0))

    def forward_and_backward(self) -> tuple[Direction, Direction]:
        """The parameters of both directions."""
        return (
            Direction(
                self.conv1d.weight.squeeze(1),
                self.conv1d.bias,
                self.x_proj.weight,
                self.dt_proj.weight,
                self.dt_proj.bias,
                self.A_log,
                self.D,
            ),
            Direction(
                self.conv1d_b.weight.squeeze(1),
                self.conv1d_b.bias,
                self.x_proj_b.weight,
                self.dt_proj_b.weight,
                self.dt_proj_b.bias,
                self.A_b_log,
                self.D_b,
            ),
        )

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
        xz, (forward, backward) = self.in_proj(x), self.forward_and_backward()
        ahead, carry = one_direction(xz, forward, reverse=False, carry=carry)
        return self.out_proj(ahead + one_direction(xz, backward, reverse=True)[0]), carry

    def one_direction(self, x: Tensor, carry: Carry, *, reverse: bool) -> tuple[Tensor, Carry]:
        """The share of one direction in the mixer's output for a part of a sequence, and the carry to its next part.

        The next part is the one after x, with `reverse` the one before it. out_proj has no bias, so the
        shares of both directions add up to `forward`.
        """
        direction = self.forward_and_backward()[reverse]
        y, carry = one_direction(self.in_proj(x), direction, reverse=reverse, carry=carry)
        return self.out_proj(y), carry

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


class Block(nn.Module):
    """One residual step: residual += drop_path(x), then x = mixer(norm(residual)).

    The residual stream is kept in at least fp32, also when parameters or autocast are narrower.
    """

    def __init__(self, mixer: BidirectionalMixer, width: int, *, drop_path: float = 0.0):
        super().__init__()
        self.mixer = mixer
        self.norm = RMSNorm(width)
        self.drop_path = drop_path

    def forward(
        self,
        x: Tensor,
        residual: Tensor | None,
        draws: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """draws (B,), of packed clips (L,): numbers of `drop_path` for x, the branch before.

        None takes torch's generator, which packed clips must not.
        """
        mixer = self.mixer if cu_seqlens is None else partial(self.mixer, cu_seqlens=cu_seqlens)
        if residual is None:
            residual = x.to(torch.promote_types(x.dtype, torch.float32))
            return mixer(self.norm(residual)), residual
        x = drop_path(x, self.drop_path, training=self.training, draws=draws)
        normed, residual = add_rms_norm(x, residual, self.norm.weight, self.norm.eps)
        return mixer(normed), residual

    def window(
        self, x: Tensor, residual: Tensor | None, carry: Carry
    ) -> tuple[Tensor, Tensor, Carry]:
        """`forward` of one window in evaluation: (x, residual, the carry to the next window)."""
        wide = torch.promote_types(x.dtype, torch.float32)
        residual = x.to(wide) if residual is None else residual + x
        x, carry = self.mixer.window(self.norm(residual), carry)
        return x, residual, carry
