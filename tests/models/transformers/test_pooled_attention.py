"""MViT's block written out token by token."""

import pytest
import torch
import torch.nn.functional as F

from stretchysnake.models.transformers.layers.pooled_attention import Block


def pooled_by_hand(x, weight, norm, stride):
    """(1 + N, d) of a (2, 4, 4) grid: each place of the output sums 27 taps of its channel; [CLS] is only normed."""
    volume = x[1:].reshape(2, 4, 4, -1)
    rows = [x[0]]
    for t in range(2):
        for y in range(0, 4, stride):
            for i in range(0, 4, stride):
                total = torch.zeros_like(x[0])
                for a in range(3):
                    for b in range(3):
                        for c in range(3):
                            place = (t + a - 1, y + b - 1, i + c - 1)
                            if all(0 <= p < n for p, n in zip(place, (2, 4, 4), strict=True)):
                                total += volume[place] * weight[:, 0, a, b, c]
                rows.append(total)
    return norm(torch.stack(rows))


@pytest.mark.parametrize(
    ("strides", "out"),
    [({"k": 2, "v": 2}, 8), ({"q": 2, "k": 1, "v": 1}, 8), ({"k": 4, "v": 4}, 16), ({}, 16)],
)
def test_block_by_hand(strides, out):
    block = (
        Block(8, out, 2, strides, mlp_ratio=3, drop_path=0.0, pool_norm_eps=1e-3).double().eval()
    )
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        x = torch.randn(1, 33, 8, dtype=torch.float64)
        found, grid = block(x, (2, 4, 4), None)
        normed = F.layer_norm(x[0], (8,), block.norm1.weight, block.norm1.bias, 1e-6)
        heads = []
        for head in range(2):
            parts = {}
            for number, part in enumerate("qkv"):
                rows = slice(8 * number + 4 * head, 8 * number + 4 * head + 4)
                y = normed @ block.attn.qkv.weight[rows].T + block.attn.qkv.bias[rows]
                if part in strides:
                    weight = block.attn.get_parameter(f"pool_{part}.weight")
                    norm = block.attn.get_submodule(f"norm_{part}")
                    assert norm.eps == 1e-3
                    y = pooled_by_hand(y, weight, norm, strides[part])
                parts[part] = y
            scores = (parts["q"] @ parts["k"].T / 4**0.5).softmax(-1)
            heads.append(scores @ parts["v"])
        shortcut = x[0]
        if "q" in strides:
            volume = torch.full((2, 5, 5, 8), -torch.inf, dtype=torch.float64)
            volume[:, 1:, 1:] = x[0, 1:].reshape(2, 4, 4, 8)
            squares = [
                volume[t, a : a + 3, b : b + 3].amax((0, 1))
                for t in (0, 1)
                for a in (0, 2)
                for b in (0, 2)
            ]
            shortcut = torch.stack([x[0, 0], *squares])
        y = shortcut + block.attn.proj(torch.cat(heads, dim=1))
        b = F.layer_norm(y, (8,), block.norm2.weight, block.norm2.bias, 1e-6)
        residual = y if out == 8 else b @ block.proj.weight.T + block.proj.bias
        wanted = residual + block.mlp.fc2(F.gelu(block.mlp.fc1(b)))
    assert grid == ((2, 2, 2) if "q" in strides else (2, 4, 4))
    torch.testing.assert_close(found[0], wanted, rtol=1e-10, atol=1e-10)


def test_odd_grids_round_up_the_same_way_on_both_paths():
    block = Block(8, 8, 1, {"q": 2, "k": 4, "v": 4}, mlp_ratio=1, drop_path=0.0, pool_norm_eps=1e-6)
    for grid, half in (((1, 9, 5), (1, 5, 3)), ((3, 1, 2), (3, 1, 1))):
        found, after = block(torch.randn(2, 1 + grid[0] * grid[1] * grid[2], 8), grid, None)
        assert after == half and found.shape == (2, 1 + half[0] * half[1] * half[2], 8)
