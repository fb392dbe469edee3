"""UniFormerV2's weights: the sizes that its files say, and what is fitted to other sizes or taken from CLIP alone.

C width.
"""

from torch import Tensor

from stretchysnake.models.transformers.layers.clip.tower import ClipTower
from stretchysnake.models.weights.official.clip import (
    depth_in,
    drop_last_norm,
    fit_head_norm,
    fit_tower,
    heads_of,
    needed,
    square_grid,
    start_fresh,
    visual_tower,
)

_QUERY = "transformer.temporal_cls_token"


def sizes_in(state: dict[str, Tensor]) -> dict:
    """Fields of the config that the tensors say: of UniFormerV2, or of CLIP's tower alone (then without a head).

    Which blocks have a global one is not in the weights: the last ones, as in every published file; nor is the number
    of frames: 16 where the stem halves them, else 8.
    """
    clip = None if _QUERY in state else visual_tower(state)
    state = clip[0] if clip else state
    hidden, local = "transformer.dec.0.mlp.c_fc.weight", "transformer.resblocks.0.lmhra"
    needed(
        state, "UniFormerV2", "conv1.weight", "positional_embedding", *([] if clip else [_QUERY, hidden])
    )  # fmt: skip
    kernel, depth = state["conv1.weight"], depth_in(state, "transformer.resblocks.")
    width = kernel.shape[0]
    tubelet = (kernel.shape[2] + 1) // 2 if kernel.dim() == 5 else 1
    layers = 4 if clip else depth_in(state, "transformer.dec.")
    sizes = {
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads_of(width),
        "patch_size": kernel.shape[-1],
        "image_size": square_grid(state["positional_embedding"])[0] * kernel.shape[-1],
        "num_frames": 8 * tubelet,
        "tubelet_size": tubelet,
        "global_layers": tuple(range(max(0, depth - layers), depth)),
        "global_heads": heads_of(width),
        "num_classes": len(state.get("transformer.proj.2.weight", ())),
    }
    if not clip:
        sizes["global_mlp_factor"] = state[hidden].shape[0] / width
        sizes["mixed"] = "transformer.balance" in state
    parts = [number for number in (1, 2) if f"{local}{number}.pos_embed.1.weight" in state]
    if parts:
        inner = state[f"{local}1.pos_embed.1.weight"].shape[0]
        sizes["local_parts"] = len(parts)
        # any number from C / (inner + 1) to C / inner gives this width; 1.5 is the published one
        sizes["local_reduction"] = 1.5 if int(width // 1.5) == inner else width / (inner + 0.5)
    return sizes


def fitted(state: dict[str, Tensor], model: ClipTower) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict under the model's sizes, and notes; of CLIP's tower alone, all else starts fresh."""
    state, notes = dict(state), []
    clip = None if _QUERY in state else visual_tower(state)
    if clip:
        state, notes = clip
        drop_last_norm(state, notes)
    fit_tower(state, "", model, notes)
    if clip:
        start_fresh(state, model, notes, what="global blocks and local parts")
    fit_head_norm(state, "transformer.proj.0", model, notes)
    return state, notes
