"""EVL's decoder by hand: loops over frames and cells, torch's own attention."""

import torch
import torch.nn.functional as F
from torch import nn

from stretchysnake.models.transformers.evl import EVLConfig
from stretchysnake.models.transformers.layers.clip.evl_decoder import Decoder, DecoderLayer

CONFIG = EVLConfig(
    embed_dim=32, depth=3, num_heads=2, decoder_depth=2, decoder_width=32, decoder_heads=2, num_frames=3,
    num_classes=4, patch_size=4, image_size=(8, 12),
)  # fmt: skip


def randomised(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double().eval()


@torch.no_grad()
def test_cross_attention_by_hand():
    """Loops over frames and cells, from the facts: w1 for the frame before, w2 for the one after, mean of the heads."""
    high, wide, heads = 2, 3, 2
    torch.manual_seed(1)
    q, k = torch.randn(2, 1, 3, heads, 6, 16, dtype=torch.float64)
    cross = randomised(Decoder(CONFIG)).cross_attention[0]
    found = cross(q, k, (cross.w1, cross.w2), (high, wide))
    for t in range(3):
        for a in range(6):
            wanted = torch.zeros(32, dtype=torch.float64)
            for other, table in ((t - 1, cross.w1), (t + 1, cross.w2)):
                if not 0 <= other < 3:
                    continue
                alike = torch.stack(
                    [(k[0, other, n] @ q[0, t, n, a] / 4).softmax(0) for n in range(heads)]
                ).mean(0)
                for b in range(6):
                    row = (
                        (a // wide - b // wide + high - 1) * (2 * wide - 1)
                        + a % wide
                        - b % wide
                        + wide
                        - 1
                    )
                    wanted += alike[b] * table[row]
            torch.testing.assert_close(found[0, t, a], wanted)


@torch.no_grad()
def test_frame_gathers_three_things_from_what_the_block_gave():
    decoder = randomised(Decoder(CONFIG))
    torch.manual_seed(1)
    x = torch.randn(2, 3, 7, 32, dtype=torch.float64)
    q, k = torch.randn(2, 2, 3, 2, 7, 16, dtype=torch.float64)
    found = decoder.gathered(1, x, q, k, (2, 3))
    cross = decoder.cross_attention[1]
    added = cross(q[..., 1:, :], k[..., 1:, :], (cross.w1, cross.w2), (2, 3))
    weight, bias = decoder.temporal_conv[1].weight[:, 0], decoder.temporal_conv[1].bias
    for t in range(3):
        near = [x[:, t + step] if 0 <= t + step < 3 else 0 * x[:, 0] for step in (-1, 0, 1)]
        wanted = x[:, t] + sum(near[i] * weight[:, i] for i in range(3)) + bias
        wanted = wanted + decoder.temporal_pos_embed[1][t]
        wanted[:, 1:] += added[:, t]  # [CLS] takes no part in it
        torch.testing.assert_close(found[:, t], wanted)


@torch.no_grad()
def test_layer_beside_torchs_attention():
    layer = randomised(DecoderLayer(CONFIG, 0.0))
    torch.manual_seed(1)
    x, frames = torch.randn(2, 1, 32).double(), torch.randn(2, 9, 32).double()
    attention = nn.MultiheadAttention(32, 2, batch_first=True).double()
    own = layer.attn
    parts = own.q_proj, own.k_proj, own.v_proj
    attention.load_state_dict(
        {
            "in_proj_weight": torch.cat([part.weight for part in parts]),
            "in_proj_bias": torch.cat([part.bias for part in parts]),
            "out_proj.weight": own.out_proj.weight,
            "out_proj.bias": own.out_proj.bias,
        }
    )
    keys = F.layer_norm(frames, (32,), layer.norm3.weight, layer.norm3.bias)
    y = F.layer_norm(x, (32,), layer.norm1.weight, layer.norm1.bias)
    y = x + attention(y, keys, keys, need_weights=False)[0]
    z = layer.mlp.fc1(F.layer_norm(y, (32,), layer.norm2.weight, layer.norm2.bias))
    wanted = y + layer.mlp.fc2(z / (1 + torch.exp(-1.702 * z)))
    torch.testing.assert_close(layer(x, frames, None), wanted)
