"""How torch differentiates and counts the scan, whichever kernels compute it.

Symbols: B batch, L tokens, D inner channels, N state size.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from stretchysnake.ops.flops import selective_scan_backward_flops, selective_scan_flops
from stretchysnake.ops.native.library import refuse_double_backward


def new_gradients(tensors: Sequence[Tensor | None]) -> list[Tensor]:
    """Room for the gradients of the scan's nine tensors; an empty tensor stands for that of an absent one."""
    return [
        tensors[0].new_empty(0) if tensor is None else tensor.new_empty(tensor.shape)
        for tensor in tensors
    ]


def register_gradient(name: str, backward: Callable[..., list[Tensor]], backend: str) -> None:
    """Tell torch the gradient and the FLOPs of operation `name` and of its backward, `<name>_backward`.

    `name` takes the tensors of a scan, cu_seqlens, then delta_softplus, reverse and whether states are kept, and
    returns y, the final state and the states kept. `backward` takes the gradients of the first two, the tensors,
    cu_seqlens, the states, delta_softplus and reverse, and returns the gradients of the first nine.
    """

    def setup_context(ctx, inputs, output):
        *tensors, ctx.delta_softplus, ctx.reverse, _ = inputs
        ctx.save_for_backward(*tensors, output[2])
        ctx.mark_non_differentiable(output[2])
        ctx.set_materialize_grads(False)

    def differentiate(ctx, grad_y, grad_final_state, _):
        refuse_double_backward("selective_scan", backend)
        *tensors, _ = saved = ctx.saved_tensors
        gradients = backward(grad_y, grad_final_state, *saved, ctx.delta_softplus, ctx.reverse)
        given = (g if t is not None else None for g, t in zip(gradients, tensors, strict=False))
        return *given, *[None] * (3 + len(tensors) - len(gradients))

    full = f"stretchysnake::{name}"
    torch.library.register_autograd(full, differentiate, setup_context=setup_context)
    torch.library.register_fake(
        f"{full}_backward", lambda grad_y, grad_final_state, *rest: new_gradients(rest[:9])
    )

    @register_flop_formula(getattr(torch.ops.stretchysnake, name))
    def _(u_shape, delta_shape, A_shape, *_, **__) -> int:
        return selective_scan_flops(*u_shape, A_shape[1])

    @register_flop_formula(getattr(torch.ops.stretchysnake, f"{name}_backward"))
    def _(grad_y_shape, grad_final_shape, u_shape, delta_shape, A_shape, *_, **__) -> int:
        return selective_scan_backward_flops(*u_shape, A_shape[1])
