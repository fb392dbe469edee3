"""The selective scan: what it means, and which backend runs it.

Symbols: B batch, L tokens, D inner channels, N state size, S sequences packed into one row.
"""

from collections.abc import Callable

from torch import Tensor

from stretchysnake.ops.backend import Backend, choose_backend
from stretchysnake.ops.packing import check_form, check_one_row, on_device, scan_packed
from stretchysnake.ops.selective_scan.inputs import ScanInputs, check_inputs


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    backend: Backend = "auto",
    cu_seqlens: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the selective state space recurrence over the tokens of ``u``.

    With step_t = delta_t + delta_bias, through softplus where ``delta_softplus``::

        h_t = exp(step_t * A) * h_{t-1} + step_t * B_t * u_t        h_{-1} = initial_state or 0
        y_t = (C_t . h_t + D * u_t) * silu(z_t)

    Channels last: u, delta, z (B, L, D); A (D, N), already negative, i.e. -exp(A_log);
    B, C (B, L, N); D, delta_bias (D,); initial_state (B, D, N). Rows may be strided: slices of a
    wider projection are read in place.

    Returns y (B, L, D) in the dtype of u and, with ``return_final_state``, also the state (B, D, N)
    after the last token read. State and accumulation are fp32 whatever the inputs, fp64 where any
    input is fp64. ``reverse`` reads from the last token to the first without a flipped copy; the
    final state is then the one after token 0.

    cu_seqlens: int (S + 1,), 0 and then where each of S sequences packed into one row (batch 1) ends,
    as in flash-attention's varlen functions. The state starts afresh at each; initial_state and the
    final state are then (S, D, N).

    backend: "auto" takes the native kernel ("cpu") for CPU tensors where it is built, "triton" for CUDA
    tensors where Triton is installed, else "torch", and logs the choice once. Backends differ in
    speed only; "reference" is the plain loop, "exported" what torch.export and
    ONNX take. "triton" does not look at the values of a cu_seqlens
    that lies on the GPU: wrong ones give wrong results there, not an error.

    Source: Mamba (Gu & Dao, 2023), section 3; argument names and the Euler step B-bar = delta * B
    as in state-spaces/mamba, ``selective_scan_interface.py``.
    """
    if cu_seqlens is not None:
        check_form(cu_seqlens)
    num_states = u.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    inputs = ScanInputs(*tensors, delta_softplus, reverse)
    check_inputs(inputs, num_states)
    backend = choose_backend("selective_scan", u, backend, name="u")
    scan = _backend(backend)
    if cu_seqlens is None:
        y, final_state = scan(inputs)
    else:
        check_one_row("u", u)
        if backend in ("cpu", "meta", "triton"):
            y, final_state = scan(inputs, on_device(cu_seqlens, u))
        else:
            y, final_state = scan_packed(scan, cu_seqlens, inputs)
    return (y, final_state) if return_final_state else y


def _backend(name: str) -> Callable[..., tuple[Tensor, Tensor]]:
    match name:
        case "cpu" | "meta":
            from stretchysnake.ops.selective_scan.native import selective_scan_cpu

            return selective_scan_cpu
        case "triton":
            from stretchysnake.ops.selective_scan.triton import selective_scan_triton

            return selective_scan_triton
        case "torch":
            from stretchysnake.ops.selective_scan.chunked import selective_scan_torch

            return selective_scan_torch
        case "exported":
            from stretchysnake.ops.selective_scan.exported import selective_scan_exported

            return selective_scan_exported
        case _:
            from stretchysnake.ops.selective_scan.reference import selective_scan_reference

            return lambda inputs: selective_scan_reference(**inputs._asdict())
