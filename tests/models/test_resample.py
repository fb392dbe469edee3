"""Interpolation of patch kernel and positions: identity, meaning, gradients."""

import pytest
import torch

from stretchysnake.models.resample import (
    inflate_patch_kernel,
    resize_patch_kernel,
    resize_spatial_positions,
    resize_temporal_positions,
)


@pytest.fixture
def kernel():
    return torch.randn(6, 3, 2, 8, 8, requires_grad=True)


@pytest.mark.parametrize("mode", ["bicubic", "area", "pi"])
def test_native_patch_is_the_very_tensor(kernel, mode):
    assert resize_patch_kernel(kernel, 8, mode=mode) is kernel


def test_native_positions_are_the_very_tensors():
    grid, frames = torch.randn(1, 17, 5), torch.randn(1, 4, 5)
    assert resize_spatial_positions(grid, (4, 4)) is grid
    assert resize_temporal_positions(frames, 4) is frames


@pytest.mark.parametrize("mode", ["bicubic", "area", "pi"])
@pytest.mark.parametrize("patch", [3, 7, 9, 16])
def test_gradient_reaches_the_stored_kernel(kernel, mode, patch):
    resized = resize_patch_kernel(kernel, patch, mode=mode)
    assert resized.shape == (6, 3, 2, patch, patch)
    resized.square().sum().backward()
    assert kernel.grad.abs().sum() > 0


@pytest.mark.parametrize("patch", [12, 16, 24])
def test_pi_keeps_the_embedding_of_an_enlarged_patch(patch):
    # The meaning of the pseudo-inverse resize: enlarging patch and kernel together changes nothing.
    kernel, image = torch.randn(5, 3, 1, 8, 8), torch.randn(2, 3, 8, 8)
    larger = torch.nn.functional.interpolate(image, size=(patch, patch), mode="bilinear")
    before = torch.einsum("ncij,kcij->nk", image, kernel[:, :, 0])
    after = torch.einsum(
        "ncij,kcij->nk", larger, resize_patch_kernel(kernel, patch, mode="pi")[:, :, 0]
    )
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("patch", "ratio"), [(8, 1 / 4), (32, 4.0)])
def test_bicubic_scales_a_smooth_embedding_by_the_area_and_area_undoes_it(patch, ratio):
    kernel = torch.ones(1, 3, 1, 16, 16)
    response = {
        mode: resize_patch_kernel(kernel, patch, mode=mode).sum().item()
        for mode in ("bicubic", "area")
    }
    assert response["bicubic"] / kernel.sum().item() == pytest.approx(ratio, rel=1e-4)
    assert response["area"] / kernel.sum().item() == pytest.approx(1.0, rel=1e-4)


def test_spatial_positions_keep_the_class_row_and_axis_order():
    table = torch.zeros(1, 17, 1)
    table[0, 0, 0] = 7.0
    table[0, 1:, 0] = torch.arange(4.0).repeat_interleave(
        4
    )  # grows along the rows (h), flat along w
    resized = resize_spatial_positions(table, (8, 2))
    plane = resized[0, 1:, 0].reshape(8, 2)
    assert resized[0, 0, 0] == 7.0
    assert (plane.diff(dim=0) > 0).all()
    torch.testing.assert_close(plane[:, 0], plane[:, 1])


def test_temporal_positions_are_linear_without_aligned_corners():
    table = torch.tensor([0.0, 1.0]).reshape(1, 2, 1)
    resized = resize_temporal_positions(table, 4)
    torch.testing.assert_close(resized.flatten(), torch.tensor([0.0, 0.25, 0.75, 1.0]))


def test_half_precision_keeps_its_dtype():
    kernel = torch.randn(4, 3, 1, 8, 8, dtype=torch.bfloat16)
    assert resize_patch_kernel(kernel, 5).dtype == torch.bfloat16


def test_inflated_mean_kernel_sees_a_still_clip_as_the_image():
    kernel, image = torch.randn(4, 3, 8, 8), torch.randn(1, 3, 8, 8)
    clip = image.unsqueeze(2).expand(-1, -1, 3, -1, -1)
    still = torch.nn.functional.conv3d(clip, inflate_patch_kernel(kernel, 3, mode="mean"))
    torch.testing.assert_close(
        still[:, :, 0], torch.nn.functional.conv2d(image, kernel), rtol=1e-4, atol=1e-4
    )


def test_inflated_centre_kernel_sees_the_middle_frame():
    kernel = torch.randn(4, 3, 8, 8)
    inflated = inflate_patch_kernel(kernel, 3)
    assert torch.equal(inflated[:, :, 1], kernel)
    assert inflated[:, :, [0, 2]].abs().sum() == 0


def test_unknown_mode_is_refused(kernel):
    with pytest.raises(
        ValueError, match=r"patch_resize \('nearest'\) must be one of: bicubic, area, pi"
    ):
        resize_patch_kernel(kernel, 4, mode="nearest")


def test_positions_of_no_square_are_refused():
    with pytest.raises(ValueError, match="pos_embed holds 15 patch positions; a square number"):
        resize_spatial_positions(torch.zeros(1, 16, 2), (2, 2))
