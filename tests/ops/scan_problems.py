"""Random selective-scan problems for the tests, and their fp64 answers with every gradient."""

import functools

import torch
from torch import Tensor

from stretchysnake.ops.selective_scan.scan import selective_scan

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")


def make_inputs(
    length: int,
    channels: int,
    num_state: int,
    *,
    batch: int = 2,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Every input of one scan, drawn in fp64 and rounded to fp32 so that both dtypes start equal."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.float().to(dtype)

    tokens, states = (batch, length, channels), (batch, length, num_state)
    return {
        "u": draw(*tokens),
        "delta": draw(*tokens),
        "A": -8 * torch.sigmoid(draw(channels, num_state)).float().to(dtype),
        "B": draw(*states),
        "C": draw(*states),
        "D": draw(channels),
        "z": draw(*tokens),
        "delta_bias": draw(channels),
        "initial_state": draw(batch, channels, num_state),
    }


def run_with_gradients(inputs: dict[str, Tensor], **options) -> dict[str, Tensor]:
    """y, final_state and the gradient of every input under a fixed pair of cotangents."""
    leaves = {name: t.detach().requires_grad_() for name, t in inputs.items()}
    y, state = selective_scan(**leaves, delta_softplus=True, return_final_state=True, **options)
    generator = torch.Generator().manual_seed(1)
    cotangents = [
        torch.randn(t.shape, generator=generator, dtype=torch.float64).float().to(t)
        for t in (y, state)
    ]
    gradients = torch.autograd.grad((y, state), list(leaves.values()), cotangents)
    found = {"y": y.detach(), "final_state": state.detach()}
    return found | {f"grad {name}": g for name, g in zip(leaves, gradients, strict=True)}


@functools.cache
def expected(length: int, channels: int, num_state: int, reverse: bool) -> dict[str, Tensor]:
    """The answers of the plain loop in fp64."""
    inputs = make_inputs(length, channels, num_state)
    return run_with_gradients(inputs, reverse=reverse, backend="reference")


def relative_rms(found: Tensor, wanted: Tensor) -> float:
    """RMS of the error over RMS of what was wanted."""
    error = (found.double() - wanted.double()).square().mean().sqrt()
    return float(error / wanted.double().square().mean().sqrt().clamp_min(1e-30))
