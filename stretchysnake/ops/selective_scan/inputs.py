"""What one selective scan reads, as one value, and the schema by which torch knows it.

Symbols: B batch, L tokens, D inner channels, N state size, S sequences packed into one row.
"""

from typing import NamedTuple

from torch import Tensor

SCHEMA = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "Tensor? initial_state"
)
"""The nine tensors in the order of `ScanInputs`, as arguments of an operation of torch."""


class ScanInputs(NamedTuple):
    """The tensors of one scan and how it reads them; their meaning is that of ``selective_scan``."""

    u: Tensor
    """(B, L, D)"""
    delta: Tensor
    """(B, L, D)"""
    A: Tensor
    """(D, N)"""
    B: Tensor
    """(B, L, N)"""
    C: Tensor
    """(B, L, N)"""
    D: Tensor | None
    """(D,)"""
    z: Tensor | None
    """(B, L, D)"""
    delta_bias: Tensor | None
    """(D,)"""
    initial_state: Tensor | None
    """(B, D, N), packed (S, D, N)"""
    delta_softplus: bool
    reverse: bool

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self[:9]

    def needs_gradient(self) -> bool:
        """Whether any of the tensors takes a gradient."""
        return any(tensor is not None and tensor.requires_grad for tensor in self.tensors)


def check_inputs(inputs: ScanInputs, num_states: int) -> None:
    """ValueError for a tensor of a wrong shape, dtype or device; num_states initial states are wanted."""
    u, A = inputs.u, inputs.A
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
    wanted = {
        "delta": (tokens, "(batch, L, D)"),
        "A": ((channels, num_state), "(D, N)"),
        "B": (states, "(batch, L, N)"),
        "C": (states, "(batch, L, N)"),
        "D": ((channels,), "(D,)"),
        "z": (tokens, "(batch, L, D)"),
        "delta_bias": ((channels,), "(D,)"),
        "initial_state": ((num_states, channels, num_state), "(batch, D, N)"),
    }
    for name, (shape, axes) in wanted.items():
        tensor = getattr(inputs, name)
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
