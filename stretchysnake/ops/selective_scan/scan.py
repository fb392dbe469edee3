"""The selective scan: its public function and the check of its inputs.

Symbols: B batch, L tokens, D inner channels, N state size.
"""

from collections.abc import Callable

from torch import Tensor

from stretchysnake.ops.backend import Backend, choose_backend
from stretchysnake.ops.packing import check_one_row, on_device, scan_packed


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
    num_states = u.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
    _check_inputs(u, delta, A, B, C, D, z, delta_bias, initial_state, num_states)
    backend = choose_backend("selective_scan", u) if backend == "auto" else backend
    scan = _backend(backend)
    rest = {"A": A, "D": D, "delta_bias": delta_bias}
    rest |= {"delta_softplus": delta_softplus, "reverse": reverse}
    rows = {"u": u, "delta": delta, "B": B, "C": C, "z": z}
    if cu_seqlens is None:
        y, final_state = scan(**rows, **rest, initial_state=initial_state)
    else:
        check_one_row("u", u)
        if backend == "triton":
            rest["cu_seqlens"] = on_device(cu_seqlens, u)
            y, final_state = scan(**rows, **rest, initial_state=initial_state)
        else:
            y, final_state = scan_packed(scan, cu_seqlens, rows, rest, initial_state)
    return (y, final_state) if return_final_state else y


def _backend(name: str) -> Callable[..., tuple[Tensor, Tensor]]:
    match name:
        case "cpu":
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
        case "reference":
            from stretchysnake.ops.selective_scan.reference import selective_scan_reference

            return selective_scan_reference
        case _:
            raise ValueError(
                f"backend ({name!r}) must be one of 'auto', 'reference', 'torch', 'cpu', 'triton', 'exported'."
            )


def _check_inputs(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    num_states: int,
) -> None:
    if u.dim() != 3:
        raise ValueError(
            f"u (shape {tuple(u.shape)}) must have 3 dimensions (batch, L, D); "
            "transpose channels-first input with u.transpose(1, 2)."
        )
    if A.dim() != 2:
        raise ValueError(f"A (shape {tuple(A.shape)}) must have 2 dimensions (D, N).")
    num_batch, length, channels = u.shape
    num_state = A.shape[1]
    if length < 1:
        raise ValueError(f"u (shape {tuple(u.shape)}) must hold at least one token along dim 1.")
    if num_state < 1:
        raise ValueError(f"A (shape {tuple(A.shape)}) must hold at least one state along dim 1.")
    tokens, states = (num_batch, length, channels), (num_batch, length, num_state)
    for name, tensor, shape, axes in (
        ("delta", delta, tokens, "(batch, L, D)"),
        ("A", A, (channels, num_state), "(D, N)"),
        ("B", B, states, "(batch, L, N)"),
        ("C", C, states, "(batch, L, N)"),
        ("D", D, (channels,), "(D,)"),
        ("z", z, tokens, "(batch, L, D)"),
        ("delta_bias", delta_bias, (channels,), "(D,)"),
        ("initial_state", initial_state, (num_states, channels, num_state), "(batch, D, N)"),
    ):
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ValueError(
                f"{name} (shape {tuple(tensor.shape)}) must have shape {axes} = {shape}, "
                "as u and A give it; all sequences are channels-last."
            )
        if not tensor.is_floating_point():
            raise ValueError(
                f"{name} (dtype {tensor.dtype}) must be floating point; convert it with .float()."
            )
        if tensor.device != u.device:
            raise ValueError(
                f"{name} (device {tensor.device}) must be on the device of u ({u.device}); "
                f"move it with .to({str(u.device)!r})."
            )
    if not u.is_floating_point():
        raise ValueError(f"u (dtype {u.dtype}) must be floating point; convert it with .float().")
