"""Sequences of different lengths packed one after another into one row (flash-attention's varlen convention).

Symbols: S sequences, L tokens of all together, D inner channels, N state size.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from stretchysnake.ops.selective_scan.inputs import ScanInputs


def check_form(cu_seqlens: Tensor) -> None:
    """ValueError where cu_seqlens is not (S + 1,) integers, S at least 1. Looks at no value."""
    if not isinstance(cu_seqlens, Tensor):
        raise ValueError(
            f"cu_seqlens ({type(cu_seqlens).__name__}) must be a tensor of int32 or int64; "
            "make one with torch.tensor(cu_seqlens)."
        )
    if (
        cu_seqlens.dim() != 1
        or len(cu_seqlens) < 2
        or cu_seqlens.dtype not in (torch.int32, torch.int64)
    ):
        raise ValueError(
            f"cu_seqlens (shape {tuple(cu_seqlens.shape)}, {cu_seqlens.dtype}) must be one row of int32 or int64: "
            "0, then where each sequence ends."
        )


def packed_lengths(cu_seqlens: Tensor, total: int) -> list[int]:
    """The lengths that cu_seqlens, (S + 1,) integers from 0 to `total` and strictly increasing, cuts a row into."""
    check_form(cu_seqlens)
    ends = cu_seqlens.tolist()
    if ends[0] != 0 or ends[-1] != total:
        raise ValueError(
            f"cu_seqlens ({ends[0]} .. {ends[-1]}) must begin with 0 and end with the row's length, {total}."
        )
    lengths = [end - start for start, end in itertools.pairwise(ends)]
    for number, length in enumerate(lengths):
        if length < 1:
            raise ValueError(
                f"cu_seqlens ({ends[number]}, {ends[number + 1]} at {number}) must increase strictly; "
                "leave empty sequences out."
            )
    return lengths


def on_device(cu_seqlens: Tensor, rows: Tensor) -> Tensor:
    """cu_seqlens (S + 1,) where `rows` (1, total, ...) lie. Its values are checked on the way from the CPU; values that
    are on a GPU already are not read, since that would make the CPU wait for it."""
    check_form(cu_seqlens)
    if cu_seqlens.is_cpu:
        packed_lengths(cu_seqlens, rows.shape[1])
    return cu_seqlens.to(rows.device)


def check_one_row(name: str, tensor: Tensor) -> None:
    """ValueError where a packed batch (1, L, D) has more than one row."""
    if tensor.shape[0] != 1:
        raise ValueError(
            f"{name} (batch {tensor.shape[0]}) must have batch 1 with cu_seqlens; "
            "put all sequences one after another into one row."
        )


def scan_packed(
    scan: Callable[[ScanInputs], tuple[Tensor, Tensor]], cu_seqlens: Tensor, inputs: ScanInputs
) -> tuple[Tensor, Tensor]:
    """`scan` of each sequence on its own: y (1, total, D) and the final states (S, D, N).

    initial_state is (S, D, N) or None. Nothing is padded. Cutting is by views; the outputs are joined once.
    """
    lengths = packed_lengths(cu_seqlens, inputs.u.shape[1])
    rows = {name: getattr(inputs, name) for name in ("u", "delta", "B", "C", "z")}
    pieces = {name: t.split(lengths, dim=1) for name, t in rows.items() if t is not None}
    if inputs.initial_state is not None:
        pieces["initial_state"] = inputs.initial_state.split(1)
    ys, states = zip(
        *(
            scan(inputs._replace(**{name: piece[number] for name, piece in pieces.items()}))
            for number in range(len(lengths))
        ),
        strict=True,
    )
    return torch.cat(ys, dim=1), torch.cat(states)
