"""The figure of the token order, drawn from what the model does.

Command: `python -m stretchysnake.recipes.token_order docs/`.
"""

import os
import sys
from pathlib import Path

import torch

from stretchysnake.models.architectures import create_model
from stretchysnake.report.figures.token_order_picture import token_order_picture
from stretchysnake.report.pages.export import write_pictures

Patch = tuple[int, int, int]


def model_token_order(num_frames: int, height: int, width: int) -> list[Patch | None]:
    """The patch (t, h, w) at every place of the encoder's input, None for [CLS]; height and width in patches.

    Measured: every patch of a clip is painted with a number of its own, and the numbers are read back
    where the first layer receives them.
    """
    patch = 2
    model = create_model(
        "videomamba-nano", image_size=2 * patch, patch_size=patch, num_classes=0
    ).eval()
    count = num_frames * height * width
    numbers = torch.arange(1.0, 1 + count).view(num_frames, height, width)
    video = numbers.repeat_interleave(patch, 1).repeat_interleave(patch, 2).expand(1, 3, -1, -1, -1)
    received = []
    with torch.no_grad():
        model.patch_embed.proj.weight.fill_(1 / (3 * patch * patch))  # a patch's token is its mean
        for added in (model.patch_embed.proj.bias, model.pos_embed, model.temporal_pos_embedding):
            added.zero_()
        model.cls_token.zero_()
        hook = model.layers[0].register_forward_pre_hook(lambda _, given: received.append(given[0]))
        model.tokens(video.contiguous())
        hook.remove()
    places = [round(float(value)) - 1 for value in received[0][0, :, 0]]
    return [
        None if n < 0 else (n // (height * width), n // width % height, n % width) for n in places
    ]


def model_scan_orders(length: int) -> dict[str, list[int]]:
    """direction -> the tokens of a sequence in the order that this scan of the mixer reads them.

    Measured: with the other direction silenced, a changed token changes the outputs of all that are read
    after it, and of itself.
    """
    torch.manual_seed(0)
    mixer = create_model("videomamba-nano", num_classes=0).eval().layers[0].mixer
    orders = {}
    for direction, silenced in (("forward", mixer.conv1d_b), ("backward", mixer.conv1d)):
        with torch.no_grad():
            stored = [parameter.clone() for parameter in (silenced.weight, silenced.bias)]
            silenced.weight.zero_()  # its scan then reads zeros, and adds zeros
            silenced.bias.zero_()
            still = torch.randn(1, length, mixer.in_proj.in_features)
            before = mixer(still)
            reach = []
            for place in range(length):
                moved = still.clone()
                moved[0, place] += 1
                reach.append(int((mixer(moved) != before).any(-1).sum()))
            silenced.weight.copy_(stored[0])
            silenced.bias.copy_(stored[1])
        orders[direction] = sorted(range(length), key=lambda place: -reach[place])
    return orders


def write_token_order(
    out: str | os.PathLike, *, num_frames: int = 2, height: int = 2, width: int = 3
) -> list[Path]:
    """Writes token-order.svg and .png of a small clip; returns the paths."""
    order = model_token_order(num_frames, height, width)
    return write_pictures(out, [token_order_picture(order, model_scan_orders(len(order)))])


if __name__ == "__main__":
    print(*write_token_order(sys.argv[1] if len(sys.argv) > 1 else "."), sep="\n")
