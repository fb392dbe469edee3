"""Official Hiera weights: the sizes that their tensors have, and what is fitted to other sizes."""

import math
import re
from itertools import pairwise

from torch import Tensor, nn

from stretchysnake.models.transformers.layers.separable_stem import fit_stem, stem_sizes

_PRETRAINING = ("decoder_", "mask_token", "encoder_norm.", "multi_scale_fusion_heads.")
"""What masked pre-training keeps beside the encoder; it has neither `norm` nor `head`."""
_HEAD_WIDTHS = (96, 72)
"""Of the published sizes: base, large."""


def sizes_of(state: dict[str, Tensor]) -> dict:
    """The fields of a HieraConfig that a flat state dict tells; ValueError names what is missing.

    num_heads is no shape: heads are 96 or 72 wide, as the published ones, else there is one.
    """
    needed = (
        "patch_embed.proj.weight", "pos_embed_spatial", "pos_embed_temporal", "blocks.0.attn.qkv.weight",
        "blocks.0.mlp.fc1.weight",
    )  # fmt: skip
    missing = [name for name in needed if name not in state]
    if missing:
        raise ValueError(f"these are not Hiera weights: {', '.join(missing)} missing")
    if "pos_embed_class" in state:
        raise ValueError("these are not Hiera weights: pos_embed_class is MViT's")
    blocks = {int(name.split(".")[1]) for name in state if re.match(r"blocks\.\d+\.", name)}
    starts = [0, *sorted(i for i in blocks if f"blocks.{i}.proj.weight" in state), 1 + max(blocks)]
    depths = tuple(after - before for before, after in pairwise(starts))
    sizes = stem_sizes(state)
    width, patch = sizes["embed_dim"], sizes["patch_size"]
    rows, columns = _grid(state["pos_embed_spatial"].shape[1], 2 ** (len(depths) - 1))
    head = state.get("head.projection.weight")
    return {
        **sizes,
        "num_heads": next((width // size for size in _HEAD_WIDTHS if width % size == 0), 1),
        "depths": depths,
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] // width,
        "image_size": rows * patch,
        "image_width": 0 if rows == columns else columns * patch,
        "num_classes": 0 if head is None else head.shape[0],
    }


def fitted(state: dict[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict as a Hiera of this config holds it, and a note for each thing that was changed."""
    state, notes = dict(state), []
    initial, config = model.state_dict(), model.config
    dropped = [name for name in state if name.startswith(_PRETRAINING)]
    if dropped:
        for name in dropped:
            del state[name]
        state |= {f"norm.{part}": initial[f"norm.{part}"] for part in ("weight", "bias")}
        notes.append(
            f"{len(dropped)} tensors of masked pre-training dropped; the final norm starts fresh"
        )
    before, places = None, state.get("pos_embed_spatial")
    if places is not None and places.dim() == 3:
        count = places.shape[1]
        same_size = count == config.num_positions
        before = config.table_grid if same_size else _grid(count, config.unit_side)
        if before[0] != before[1]:
            notes.append(f"{count} spatial positions taken as {before[0]} rows of {before[1]}")
    fit_stem(state, config, before, notes)
    return state, notes


def _grid(count: int, side: int) -> tuple[int, int]:
    """(h, w) of a table of this many positions: whole mask units, the squarest grid that is not higher than wide."""
    units = count // side**2
    if units * side**2 != count or not units:
        raise ValueError(
            f"pos_embed_spatial holds {count} positions; a multiple of {side**2} is needed, whole mask units"
        )
    rows = next(rows for rows in range(math.isqrt(units), 0, -1) if units % rows == 0)
    return rows * side, units // rows * side
