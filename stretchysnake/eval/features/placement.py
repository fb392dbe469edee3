"""Placement: where a model computes and in which precision, as every verb that runs a model takes it.

Imports no torch, so that `--help` stays quick; placed_model.py carries it out.
"""

import re
from dataclasses import dataclass

PRECISIONS = ("fp32", "bf16", "int8")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a model computes, and in which precision."""

    device: str = "auto"
    """Where the model computes: "cpu", "cuda" or e.g. "cuda:1"; "auto" means a GPU if there is one, else the CPU."""
    precision: str = "fp32"
    """"fp32"; "bf16": products in bfloat16, sums and the scan's state in fp32; or, on a CPU, "int8": linear layers of
    8-bit numbers. Features of different precisions are never compared with one another."""

    def __post_init__(self):
        check_device(self.device)
        check_precision(self.precision)


def check_device(device: str) -> None:
    """ValueError for the name of no device; whether it is there is for `Runtime.device` to say."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(
            f"device ({device!r}) must be one of: auto, cpu, cuda, or one GPU: cuda:0, cuda:1, ..."
        )


def check_precision(precision: str) -> None:
    """ValueError for a precision that does not exist."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision ({precision!r}) must be one of: {', '.join(PRECISIONS)}")


AUTO = Placement()
ON_CPU = Placement(device="cpu")
