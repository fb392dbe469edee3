"""EVL's weights: a trained decoder in its own file, CLIP's frozen tower in OpenAI's.

N = 1 + h·w tokens of a frame, C width.
"""

import math

from torch import Tensor, nn

from stretchysnake.models.resample import resize_table
from stretchysnake.models.transformers.layers.clip.evl_decoder import offsets_of, resize_frames
from stretchysnake.models.weights.official.clip import (
    depth_in,
    drop_last_norm,
    fit_head_norm,
    fit_tower,
    heads_of,
    needed,
    start_fresh,
    tower_of_blocks,
    visual_tower,
)

_TOWER = "clip.visual."


def sizes_in(state: dict[str, Tensor]) -> dict:
    """Fields of the config that the tensors say: of EVL with its CLIP tower, or of CLIP's tower alone.

    A grid that is no square is taken to be wider than high.
    """
    state, _ = joined(state)
    has_decoder = "decoder.cls_token" in state
    needed(
        state, "EVL", f"{_TOWER}conv1.weight", f"{_TOWER}positional_embedding",
        f"{_TOWER}transformer.resblocks.0.mlp.c_fc.weight",
    )  # fmt: skip
    kernel = state[f"{_TOWER}conv1.weight"]
    width, patch = kernel.shape[0], tuple(kernel.shape[-2:])
    grid = stored_grid(state)
    size = tuple(cells * side for cells, side in zip(grid, patch, strict=True))
    hidden = state[f"{_TOWER}transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
    sizes = {
        "embed_dim": width,
        "depth": depth_in(state, f"{_TOWER}transformer.resblocks."),
        "num_heads": heads_of(width),
        "patch_size": _one_or_two(patch),
        "image_size": _one_or_two(size),
        "mlp_factor": hidden / width,
        "num_classes": len(state.get("proj.2.weight", ())),
    }
    if not has_decoder:
        inner = {"decoder_width": width, "decoder_heads": heads_of(width)}
        return {**sizes, **inner, "decoder_depth": min(4, sizes["depth"])}
    layer = "decoder.decoder_layers.0."
    needed(
        state, "EVL", f"{layer}attn.q_proj.weight", f"{layer}mlp.fc1.weight",
        "decoder.temporal_pos_embed.0", "decoder.cross_attention.0.w1",
    )  # fmt: skip
    inner = state[f"{layer}attn.q_proj.weight"].shape[0]
    return {
        **sizes,
        "num_frames": state["decoder.temporal_pos_embed.0"].shape[0],
        "decoder_depth": depth_in(state, "decoder.decoder_layers."),
        "decoder_width": inner,
        "decoder_heads": heads_of(inner),
        "decoder_mlp_factor": state[f"{layer}mlp.fc1.weight"].shape[0] / width,
    }


def fitted(state: dict[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict under the model's names and sizes, and notes; of CLIP's tower alone, the decoder starts fresh."""
    state, notes = joined(state)
    needed(state, "EVL", f"{_TOWER}positional_embedding")
    config, target_grid = model.config, model.config.grid
    before = target_grid if _fits(state, target_grid) else stored_grid(state)
    if before[0] != before[1] and before != target_grid:
        notes.append(f"stored grid taken as {before[0]}x{before[1]}, wider than high")
    fit_tower(state, _TOWER, model.clip["visual"], notes, before=before)
    if "decoder.cls_token" not in state:
        start_fresh(state, model, notes, what="decoder")
        return state, notes
    offsets = [offsets_of(grid) for grid in (before, target_grid)]
    count = math.prod(offsets[0])
    resized: set[str] = set()
    for name, tensor in state.items():
        part = name.split(".")[1] if name.startswith("decoder.") else ""
        if part == "temporal_pos_embed" and tensor.shape[0] != config.num_frames:
            resized.add(f"temporal positions {tensor.shape[0]} -> {config.num_frames} (linear)")
            state[name] = resize_frames(tensor, config.num_frames)
        if part == "cross_attention" and before != target_grid and tensor.shape[0] == count:
            rows = [f"{high}x{wide}" for high, wide in offsets]
            resized.add(f"tables of the cross attention {rows[0]} -> {rows[1]} offsets (bicubic)")
            state[name] = resize_table(tensor, *offsets)
    notes += sorted(resized)
    fit_head_norm(state, "proj.0", model, notes)
    return state, notes


def joined(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The state with CLIP's tower under "clip.visual.", wherever it lay; ValueError where there is none."""
    trained = {n: t for n, t in state.items() if n.startswith(("decoder.", "proj."))}
    rest = {name: tensor for name, tensor in state.items() if name not in trained}
    prefix = "backbone." if "backbone.patch_embed.proj.weight" in rest else ""
    if f"{prefix}patch_embed.proj.weight" in rest:
        # the tower that was trained along goes before the one it started from
        inside = {n.removeprefix(prefix): t for n, t in rest.items() if n.startswith(prefix)}
        if not prefix:
            inside = {
                name: tensor for name, tensor in inside.items() if not name.startswith("clip.")
            }
        tower, notes = tower_of_blocks(inside, _patch_of(inside["patch_embed.proj.weight"]))
    elif visual := visual_tower(rest):
        tower, notes = visual
    elif trained:
        raise ValueError(_missing(trained))
    else:
        tower, notes = {}, []
    drop_last_norm(tower, notes)
    return {**trained, **{_TOWER + name: tensor for name, tensor in tower.items()}}, notes


def stored_grid(state: dict[str, Tensor]) -> tuple[int, int]:
    """(h, w) of the stored tables: h·w from the positions, h + w from the offsets; a rectangle as wider than high."""
    cells = state[f"{_TOWER}positional_embedding"].shape[0] - 1
    table = state.get("decoder.cross_attention.0.w1")
    # (2h - 1)(2w - 1) = 4hw - 2(h + w) + 1
    total = 2 * math.isqrt(cells) if table is None else (4 * cells + 1 - table.shape[0]) // 2
    root = math.isqrt(max(0, total * total - 4 * cells))
    high, wide = (total - root) // 2, (total + root) // 2
    if (
        cells < 1
        or high * wide != cells
        or (table is not None and (2 * high - 1) * (2 * wide - 1) != table.shape[0])
    ):
        raise ValueError(
            f"positional_embedding holds {cells} patch positions, which "
            + (
                "is no square number"
                if table is None
                else f"do not fit the {table.shape[0]} offsets of decoder.cross_attention.0.w1"
            )
        )
    return high, wide


def _fits(state: dict[str, Tensor], grid: tuple[int, int]) -> bool:
    table = state.get("decoder.cross_attention.0.w1")
    offsets = math.prod(offsets_of(grid))
    return state[f"{_TOWER}positional_embedding"].shape[0] - 1 == math.prod(grid) and (
        table is None or table.shape[0] == offsets
    )


def left_out(state: dict[str, Tensor]) -> str:
    """Name of the file, as OpenAI publishes it, whose tower a trained decoder needs; "" where the tower is there."""
    trained = {n: t for n, t in state.items() if n.startswith(("decoder.", "proj."))}
    rest = {name: tensor for name, tensor in state.items() if name not in trained}
    held = any(name.endswith("patch_embed.proj.weight") for name in rest)
    return "" if held or not trained or visual_tower(rest) else _clip_file(trained)


def _clip_file(trained: dict[str, Tensor]) -> str:
    width = trained["decoder.cls_token"].shape[-1] if "decoder.cls_token" in trained else 768
    return {768: "ViT-B-16.pt", 1024: "ViT-L-14.pt"}.get(width, "CLIP.pt")


def _missing(trained: dict[str, Tensor]) -> str:
    file = _clip_file(trained)
    return (
        f"EVL's file holds the trained decoder only, and CLIP's visual tower (clip.visual.*) is missing: {file}, "
        f"which OpenAI publishes (github.com/openai/CLIP lists the address); put {file} beside this file, or "
        f"join both into one: stretchysnake convert FILE --clip {file} --out model.safetensors"
    )


def _patch_of(weight: Tensor) -> tuple[int, int]:
    """Of a linear stem (C, 3·P·P)."""
    side = math.isqrt(weight.shape[-1] // 3)
    if weight.dim() != 2 or 3 * side * side != weight.shape[-1]:
        raise ValueError(
            f"patch_embed.proj.weight has shape {tuple(weight.shape)}; a linear map of square RGB patches is needed"
        )
    return side, side


def _one_or_two(pair: tuple[int, int]) -> int | tuple[int, int]:
    return pair[0] if pair[0] == pair[1] else pair
