"""The unrolled order of Hiera's tokens by its formula, and what a block pools and mixes in it."""

import pytest
import torch

from stretchysnake.models.transformers.layers.mask_unit_attention import Block, rerolled, unrolled


@pytest.mark.parametrize(
    ("grid", "levels"), [((2, 16, 8), 3), ((3, 8, 24), 3), ((1, 12, 8), 2), ((2, 3, 5), 0)]
)
def test_order_is_the_formula_token_by_token(grid, levels):
    t, h, w = grid
    side = 2**levels
    names = torch.arange(t * h * w).reshape(1, t, h, w, 1)
    found = unrolled(names, levels)[0, :, 0]
    units = t * (h // side) * (w // side)
    for i in range(t):
        for y in range(h):
            for x in range(w):
                place = 0
                for k in range(levels):  # the least significant bit is the outermost digit
                    place = place * 4 + 2 * (y >> k & 1) + (x >> k & 1)
                unit = (i * (h // side) + y // side) * (w // side) + x // side
                assert found[place * units + unit] == names[0, i, y, x, 0]
    assert torch.equal(rerolled(unrolled(names, levels), (t, h // side, w // side), levels), names)


def test_quarters_of_the_axis_are_the_corners_of_squares():
    x = torch.randn(2, 3, 16, 24, 5)
    pooled = unrolled(x, 3).unflatten(1, (4, -1)).amax(1)
    squares = x.reshape(2, 3, 8, 2, 12, 2, 5).amax(dim=(3, 5))
    assert torch.equal(rerolled(pooled, (3, 2, 3), 2), squares)


def block(**changes):
    values = {"pool": 1, "mask_units": True, "mlp_ratio": 2, "drop_path": 0.0}
    return Block(8, 8, 2, **{**values, **changes}).double().eval()


@pytest.mark.parametrize("mask_units", [True, False])
def test_attention_stays_inside_mask_units_or_sees_all(mask_units):
    own, x = block(mask_units=mask_units), torch.randn(1, 2, 8, 16, 8, dtype=torch.float64)
    other = x.clone()
    other[0, 1, 3, 9, 0] += 1.0  # in the right unit of the second time
    with torch.no_grad():
        before, after = (
            rerolled(own(unrolled(each, 3), 4, None), (2, 1, 2), 3) for each in (x, other)
        )
    changed = (before != after).any(-1)[0]
    wanted = torch.zeros_like(changed)
    wanted[1, :, 8:] = True
    assert torch.equal(changed, wanted if mask_units else torch.ones_like(wanted))


def test_a_pooling_block_by_hand():
    own, x = (
        Block(8, 16, 2, pool=4, mask_units=True, mlp_ratio=2, drop_path=0.0).double().eval(),
        torch.randn(1, 2, 4, 4, 8, dtype=torch.float64),
    )
    with torch.no_grad():
        found = rerolled(own(unrolled(x, 1), 8, None), (2, 2, 2), 0)
        # square by square: four keys, one query, one residual
        normed = own.norm1(x)
        for t in range(2):
            for y in range(2):
                for i in range(2):
                    square = normed[0, t, 2 * y : 2 * y + 2, 2 * i : 2 * i + 2].reshape(4, 8)
                    q, k, v = own.attn.qkv(square).reshape(4, 3, 2, 8).permute(1, 2, 0, 3)
                    q = q.max(dim=1, keepdim=True).values
                    scores = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1) @ v
                    token = own.proj(square).max(dim=0).values + own.attn.proj(scores.reshape(16))
                    hidden = torch.nn.functional.gelu(own.mlp.fc1(own.norm2(token)))
                    torch.testing.assert_close(found[0, t, y, i], token + own.mlp.fc2(hidden))
