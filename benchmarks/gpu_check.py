"""Checks the GPU kernels against fp64: outputs, every gradient, odd lengths, both directions, poisoned memory."""

import sys

import torch

TOKENS = ("u", "delta", "B", "C", "z")
LIMIT = 1e-5  # relative to each tensor's largest value; or twice the error of the eager path, where that is more


def problem(shape: tuple, dtype: torch.dtype, device: str) -> dict:
    """Inputs of one scan; those with tokens in dtype, the others in fp32."""
    batch, length, channels, state = shape
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, device=device)

    tensors = {
        "u": normal(batch, length, channels),
        "delta": 0.5 * normal(batch, length, channels),
        "A": -torch.arange(1.0, state + 1, device=device).repeat(channels, 1),
        "B": normal(batch, length, state),
        "C": normal(batch, length, state),
        "D": normal(channels),
        "z": normal(batch, length, channels),
        "delta_bias": normal(channels) - 4,
        "initial_state": normal(batch, channels, state),
    }
    return {name: t.to(dtype) if name in TOKENS else t for name, t in tensors.items()}


def outcome(tensors: dict, **options) -> dict:
    """y, the final state and every gradient."""
    from stretchysnake.ops import selective_scan

    leaves = {name: t.detach().requires_grad_() for name, t in tensors.items()}
    y, state = selective_scan(**leaves, delta_softplus=True, return_final_state=True, **options)
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64, device=y.device).view_as(y)
    gradients = torch.autograd.grad(
        (y, state), list(leaves.values()), (weights.to(y), torch.ones_like(state))
    )
    return {"y": y.detach(), "state": state.detach(), **dict(zip(leaves, gradients, strict=True))}


def limit(eager: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> float:
    """The largest error that passes; a bf16 result may also be rounded once more than the eager path's."""
    error = float((eager - exact).abs().max() / exact.abs().max())
    rounding = torch.finfo(eager.dtype).eps if dtype != torch.float32 else 0.0
    return max(LIMIT, 2 * (error + rounding))


def gate(device: str, *, tiny: bool) -> dict:
    """Largest errors against fp64 by case, fresh memory full of NaN. Ends the program where one is too large."""
    from stretchysnake.ops.selective_scan import triton_tiles

    lengths, channels, state = ((1, 35), 3, 2) if tiny else ((1, 2, 63, 64, 65, 1000, 3137), 72, 16)
    torch.use_deterministic_algorithms(True)  # fills fresh tensors with NaN
    found, wrong = {}, []
    uncut = triton_tiles.cut_segments
    for length in lengths:
        for reverse in (False, True):
            for segments in (False, True):
                tokens = 32 if tiny else 128
                if segments and length <= tokens:
                    continue
                triton_tiles.cut_segments = (
                    (lambda n, *_, t=tokens: (-(-n // t), t)) if segments else lambda n, *_: (1, n)
                )
                for dtype in (torch.float32, torch.bfloat16):
                    title = f"L{length} {'reverse' if reverse else 'forward'}{' cut' if segments else ''} {dtype}"
                    inputs = problem((2, length, channels, state), dtype, device)
                    judge = "reference" if length <= 1000 else "torch"
                    exact = outcome(
                        {n: t.double() for n, t in inputs.items()}, reverse=reverse, backend=judge
                    )
                    ours = outcome(inputs, reverse=reverse, backend="triton")
                    again = outcome(inputs, reverse=reverse, backend="triton")
                    errors = {
                        n: float((ours[n] - e).abs().max() / e.abs().max())
                        for n, e in exact.items()
                    }
                    eager = outcome(inputs, reverse=reverse, backend="torch")
                    limits = {n: limit(eager[n], e, dtype) for n, e in exact.items()}
                    found[title] = max(errors.values())
                    wrong += [
                        f"{title}: {n} {e:.1e} > {limits[n]:.1e}"
                        for n, e in errors.items()
                        if not e <= limits[n]
                    ]
                    wrong += [
                        f"{title}: {n} differs from run to run"
                        for n in ours
                        if not torch.equal(ours[n], again[n])
                    ]
    triton_tiles.cut_segments = uncut
    torch.use_deterministic_algorithms(False)
    for dtype in (torch.float32, torch.bfloat16):
        worst = max((error, title) for title, error in found.items() if title.endswith(str(dtype)))
        print(
            f"{dtype}: largest error of outputs and gradients against fp64 {worst[0]:.1e} ({worst[1]})"
        )
    if wrong:
        print("\n".join(wrong))
        sys.exit("a kernel is wrong: nothing is timed.")
    return found
