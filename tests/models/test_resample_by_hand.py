"""Every formula of resample.py against one written out in numpy: the cubic of Keys, the line, the pseudo-inverse."""

import numpy as np
import pytest
import torch

from stretchysnake.models.resample import (
    resize_patch_kernel,
    resize_spatial_positions,
    resize_temporal_positions,
)

A = -0.75
"""Of Keys' cubic, as in PyTorch and OpenCV (-0.5 in others)."""


def cubic(distance):
    d = abs(distance)
    if d <= 1:
        return (A + 2) * d**3 - (A + 3) * d**2 + 1
    return A * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def weights_of(kind, before, after):
    """(after, before): shares of the old places in each new one; centres aligned, borders repeated, no antialiasing."""
    table = np.zeros((after, before))
    for row in range(after):
        place = (row + 0.5) * before / after - 0.5
        if kind == "linear":
            place = min(max(place, 0.0), before - 1)
        for near in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            share = cubic(place - near) if kind == "cubic" else max(0.0, 1 - abs(place - near))
            table[row, min(max(near, 0), before - 1)] += share
    return table


def pixels_averaged(before, after):
    """(after, before): antialiased bilinear, as frames are resized."""
    table, scale = np.zeros((after, before)), before / after
    reach = max(1.0, scale)
    for row in range(after):
        centre = (row + 0.5) * scale
        for column in range(before):
            table[row, column] = max(0.0, 1 - abs(column + 0.5 - centre) / reach)
        table[row] /= table[row].sum()
    return table


def test_the_weights_written_out_are_a_partition_of_one():
    for kind in ("cubic", "linear"):
        for after in (3, 8, 13):
            assert weights_of(kind, 8, after).sum(1) == pytest.approx(np.ones(after))
    assert (weights_of("cubic", 8, 8) == np.eye(8)).all()


@pytest.mark.parametrize("patch", [3, 7, 9, 12, 20])
@pytest.mark.parametrize("mode", ["bicubic", "area", "pi"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
def test_patch_kernel_is_the_formula(mode, patch, dtype):
    kernel = torch.randn(4, 3, 2, 8, 8, dtype=dtype)
    stored = kernel.double().numpy()
    if mode == "pi":
        resize = np.kron(pixels_averaged(8, patch), pixels_averaged(8, patch))  # (P², P0²)
        inverse = np.linalg.pinv(resize.T)
        wanted = (stored.reshape(4, 3, 2, 64) @ inverse.T).reshape(4, 3, 2, patch, patch)
    else:
        rows = weights_of("cubic", 8, patch)
        wanted = np.einsum("yi,xj,ctdij->ctdyx", rows, rows, stored)
        wanted = wanted * ((8 / patch) ** 2 if mode == "area" else 1)
    found = resize_patch_kernel(kernel, patch, mode=mode)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found.double().numpy(), wanted, atol=1e-10 if dtype == torch.float64 else 2e-5
    )


@pytest.mark.parametrize("grid", [(4, 4), (14, 14), (3, 9), (8, 7)], ids=str)
def test_spatial_positions_are_bicubic_and_the_class_row_stays(grid):
    table = torch.randn(1, 1 + 7 * 7, 5, dtype=torch.float64)
    plane = table[0, 1:].numpy().reshape(7, 7, 5)
    rows, columns = weights_of("cubic", 7, grid[0]), weights_of("cubic", 7, grid[1])
    wanted = np.einsum("yi,xj,ijc->yxc", rows, columns, plane).reshape(-1, 5)
    found = resize_spatial_positions(table, grid)[0].numpy()
    np.testing.assert_allclose(found[1:], wanted, atol=1e-12)
    np.testing.assert_array_equal(found[0], table[0, 0].numpy())


@pytest.mark.parametrize("frames", [1, 3, 8, 13, 64])
def test_temporal_positions_are_linear(frames):
    table = torch.randn(1, 5, 4, dtype=torch.float64)
    wanted = weights_of("linear", 5, frames) @ table[0].numpy()
    np.testing.assert_allclose(
        resize_temporal_positions(table, frames)[0].numpy(), wanted, atol=1e-12
    )
    for first, stop in ((0, frames), (frames // 2, frames), (frames - 1, frames)):
        part = resize_temporal_positions(table, frames, span=(first, stop))
        np.testing.assert_allclose(part[0].numpy(), wanted[first:stop], atol=1e-12)


def test_half_precision_is_interpolated_in_fp32():
    kernel = torch.randn(4, 3, 1, 8, 8)
    table, line = torch.randn(1, 17, 6), torch.randn(1, 4, 6)
    for exact, narrow in (
        (
            resize_patch_kernel(kernel.bfloat16().float(), 5),
            resize_patch_kernel(kernel.bfloat16(), 5),
        ),
        (
            resize_spatial_positions(table.bfloat16().float(), (3, 5)),
            resize_spatial_positions(table.bfloat16(), (3, 5)),
        ),
        (
            resize_temporal_positions(line.bfloat16().float(), 7),
            resize_temporal_positions(line.bfloat16(), 7),
        ),
    ):
        assert torch.equal(exact.bfloat16(), narrow)
