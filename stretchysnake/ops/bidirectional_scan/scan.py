"""What VideoMamba's mixer does between its two outer projections: both directions, one operation.

Symbols: B batch, L tokens, Di inner channels, K convolution width, N state size, R rank of delta.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stretchysnake.ops.backend import Backend, choose_backend, is_narrow_fit, is_native_fit
from stretchysnake.ops.bidirectional_scan.direction import Carry, Direction
from stretchysnake.ops.causal_conv.convolution import causal_conv_silu
from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.packing import check_one_row, on_device
from stretchysnake.ops.selective_scan.scan import selective_scan


def bidirectional_scan(
    xz: Tensor,
    forward: Direction,
    backward: Direction,
    *,
    backend: Backend = "auto",
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """Return the sum of the forward and the backward scan of x, gated by z; xz = [x, z] (B, L, 2 Di).

    Each direction: u = silu(conv(x)); [dt, B, C] = u x_proj^T; delta = dt dt_proj^T; then
    ``selective_scan`` of u with delta_bias = dt_bias, softplus, D and gate z. The backward one reads
    from the last token to the first. Returns (B, L, Di) in the dtype of xz; state and accumulation are
    fp32, fp64 for fp64 parameters. backend and cu_seqlens as in ``selective_scan``; where the backend is the
    native one and xz and the parameters share fp32 or fp64, outside autocast, or xz is bf16 and no gradient is wanted,
    the threads are woken twice for all of it, delta is never stored, and the gate is applied once to the sum. Of a
    bf16 xz the products between are then fp32 too. ValueError names a wrong shape.

    Source: Vision Mamba (Zhu et al., 2024), algorithm 1; VideoMamba adds the two without halving.
    """
    _check_inputs(xz, forward, backward)
    if cu_seqlens is not None:
        check_one_row("xz", xz)
        cu_seqlens = on_device(cu_seqlens, xz)
    if _is_native(xz, (*forward, *backward), backend):
        from stretchysnake.ops.bidirectional_scan.native import bidirectional_scan_cpu

        return bidirectional_scan_cpu(xz, forward, backward, cu_seqlens)
    how = {"backend": backend, "cu_seqlens": cu_seqlens}
    ahead, _ = one_direction(xz, forward, reverse=False, **how)
    return ahead + one_direction(xz, backward, reverse=True, **how)[0]


def _check_inputs(xz: Tensor, forward: Direction, backward: Direction) -> None:
    if xz.dim() != 3 or xz.shape[2] % 2:
        raise ValueError(
            f"xz (shape {tuple(xz.shape)}) must be (B, L, 2 Di): x and z behind one another"
        )
    inner, (_, rank), (_, num_state) = (
        xz.shape[2] // 2,
        forward.dt_proj.shape,
        forward.A_log.shape,
    )
    width = forward.conv_weight.shape[-1]
    wanted = Direction(
        conv_weight=(inner, width),
        conv_bias=(inner,),
        x_proj=(rank + 2 * num_state, inner),
        dt_proj=(inner, rank),
        dt_bias=(inner,),
        A_log=(inner, num_state),
        D=(inner,),
    )
    for way, direction in (("forward", forward), ("backward", backward)):
        for name, tensor, shape in zip(Direction._fields, direction, wanted, strict=True):
            if tensor.shape != shape:
                raise ValueError(
                    f"{way}.{name} (shape {tuple(tensor.shape)}) must have shape {shape}, as xz and "
                    "forward's dt_proj, A_log and conv_weight give it"
                )


def _is_native(xz: Tensor, parameters: tuple[Tensor, ...], backend: Backend) -> bool:
    chosen = choose_backend("bidirectional_scan", xz, backend)
    if chosen != "meta" and not (chosen == "cpu" and native_library.is_available()):
        return False
    wide = is_native_fit(xz, *parameters) and not torch.is_autocast_enabled("cpu")
    return wide or is_narrow_fit(xz, *parameters)


def one_direction(
    xz: Tensor,
    direction: Direction,
    *,
    reverse: bool,
    carry: Carry | None = None,
    backend: Backend = "auto",
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Carry | None]:
    """One direction of `bidirectional_scan`: (its share (B, L, Di), the carry to its next part).

    With a carry, xz is a part of a longer sequence: the next part is the one after it, with `reverse` the
    one before it. Without one the sequence is whole, and nothing is carried; with cu_seqlens there is none.
    """
    x, z = xz.chunk(2, dim=-1)
    assert carry is None or cu_seqlens is None, "a part of one sequence is not packed"
    how = {"reverse": reverse, "backend": backend, "cu_seqlens": cu_seqlens}
    u, recent = _convolved(x, direction, carry, **how)
    rank, num_state = direction.dt_proj.shape[1], direction.A_log.shape[1]
    dt, B, C = F.linear(u, direction.x_proj).split((rank, num_state, num_state), dim=-1)
    wide = torch.promote_types(direction.A_log.dtype, torch.float32)
    y, state = selective_scan(
        u,
        F.linear(dt, direction.dt_proj).to(u.dtype),
        -torch.exp(direction.A_log.to(wide)),
        B,
        C,
        D=direction.D.to(wide),
        z=z,
        delta_bias=direction.dt_bias.to(wide),
        delta_softplus=True,
        initial_state=None if carry is None else carry.state,
        return_final_state=True,
        **how,
    )
    return y, None if carry is None else Carry(state, recent)


def _convolved(
    x: Tensor, direction: Direction, carry: Carry | None, *, reverse: bool, **how
) -> tuple[Tensor, Tensor | None]:
    """silu(conv(x)) and, with a carry, the inputs that the convolution of the next part needs."""
    options = {"reverse": reverse, **how}
    if carry is None:
        return causal_conv_silu(x, direction.conv_weight, direction.conv_bias, **options), None
    length, before = x.shape[1], carry.recent.shape[1]
    joined = torch.cat([x, carry.recent] if reverse else [carry.recent, x], dim=1)
    u = causal_conv_silu(joined, direction.conv_weight, direction.conv_bias, **options)
    # copied: a view would keep the whole part in memory
    if reverse:
        return u[:, :length], joined[:, :before].clone()
    return u[:, before:], joined[:, length:].clone()
