"""UniFormerV2's blocks by hand: shifted frames, torch's own attention."""

import torch
import torch.nn.functional as F
from torch import nn

from stretchysnake.models.transformers.layers.clip.uniformer_v2_blocks import (
    GlobalBlock,
    LocalBlock,
    LocalPart,
)
from stretchysnake.models.transformers.uniformer_v2 import UniFormerV2Config

CONFIG = UniFormerV2Config(
    embed_dim=32, depth=2, num_heads=2, patch_size=4, image_size=12, local_parts=2, global_layers=(1,), global_heads=2,
    global_mlp_factor=3.0,
)  # fmt: skip


def randomised(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double().eval()


def attended(own, query, keys):
    attention = nn.MultiheadAttention(32, 2, batch_first=True).double()
    attention.load_state_dict(own.state_dict())
    return attention(query, keys, keys, need_weights=False)[0]


def mlp(own, x):
    y = F.linear(x, own.c_fc.weight, own.c_fc.bias)
    return F.linear(y / (1 + torch.exp(-1.702 * y)), own.c_proj.weight, own.c_proj.bias)


def local_by_hand(part, x):
    """x (B, t, hw, C): norm by the running statistics, in, three frames, out."""
    norm, inward, middle, out = part.pos_embed
    y = (x - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
    y = F.linear(y, inward.weight.flatten(1), inward.bias)
    weight = middle.weight.flatten(1)  # (inner, 3)
    padded = F.pad(y, (0, 0, 0, 0, 1, 1))
    t = x.shape[1]
    y = sum(padded[:, i : i + t] * weight[:, i] for i in range(3)) + middle.bias
    return F.linear(y, out.weight.flatten(1), out.bias)


@torch.no_grad()
def test_local_part_is_a_convolution_over_time():
    part = randomised(LocalPart(32, 21))
    part.pos_embed[0].running_mean.normal_()
    part.pos_embed[0].running_var.uniform_(0.5, 2)
    x = torch.randn(2, 4, 6, 32).double()
    found = part(x.unflatten(2, (2, 3)).permute(0, 4, 1, 2, 3))
    torch.testing.assert_close(found.flatten(3).permute(0, 2, 3, 1), local_by_hand(part, x))


@torch.no_grad()
def test_local_block_leaves_cls_to_the_attention():
    block = randomised(LocalBlock(CONFIG, 0.0))
    x = torch.randn(2, 4, 7, 32).double()

    def with_local(x, part):
        return torch.cat([x[:, :, :1], x[:, :, 1:] + local_by_hand(part, x[:, :, 1:])], 2)

    y = with_local(x, block.lmhra1)
    normed = block.ln_1(y).flatten(0, 1)
    y = with_local(y + attended(block.attn, normed, normed).view_as(y), block.lmhra2)
    wanted = y + mlp(block.mlp, block.ln_2(y))
    torch.testing.assert_close(block(x, (2, 3), None), wanted)


@torch.no_grad()
def test_global_block_has_a_norm_for_the_keys():
    block = randomised(GlobalBlock(CONFIG))
    assert block.mlp.c_fc.out_features == 96
    query, keys = torch.randn(2, 1, 32).double(), torch.randn(2, 9, 32).double()
    normed = F.layer_norm(keys, (32,), block.ln_3.weight, block.ln_3.bias)
    y = query + attended(block.attn, block.ln_1(query), normed)
    torch.testing.assert_close(block(query, keys), y + mlp(block.mlp, block.ln_2(y)))
