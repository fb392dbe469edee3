"""Official weights of Video Swin and Omnivore: the sizes that their tensors have, and what is fitted to other sizes."""

import math
import re

import torch
from torch import Tensor

from stretchysnake.models.resample import (
    resize_patch_kernel,
    resize_table,
    resize_temporal_positions,
)
from stretchysnake.models.transformers.layers.windows import relative_index

Triple = tuple[int, int, int]


def swin_sizes(state: dict[str, Tensor], prefix: str, classifier: str, changes: dict) -> dict:
    """Fields of the config that the shapes of a trunk under `prefix`, and of the classifier, decide.

    The window comes from the number of its offsets and, where the file keeps it, the shape of its index buffer; rows
    and columns are taken as equal.
    """
    stem, block = f"{prefix}patch_embed.proj.weight", f"{prefix}layers.0.blocks.0."
    table, hidden = f"{block}attn.relative_position_bias_table", f"{block}mlp.fc1.weight"
    if missing := [name for name in (stem, table, hidden) if name not in state]:
        raise ValueError(f"these are not weights of a Swin: {', '.join(missing)} missing")
    kernel = state[stem]
    if kernel.dim() != 5:
        raise ValueError(
            f"{stem} has shape {tuple(kernel.shape)}: an image model; weights of a video model are needed"
        )
    blocks: dict[int, set[int]] = {}
    heads: dict[int, int] = {}
    for name, tensor in state.items():
        if match := re.match(re.escape(prefix) + r"layers\.(\d+)\.blocks\.(\d+)\.", name):
            stage = int(match[1])
            blocks.setdefault(stage, set()).add(int(match[2]))
            if name.endswith("relative_position_bias_table"):
                heads[stage] = tensor.shape[1]
    if sorted(heads) != list(range(len(blocks))):
        raise ValueError(
            f"these are not weights of a Swin: tables of relative positions in {len(heads)} of its {len(blocks)} stages"
        )
    index = state.get(f"{block}attn.relative_position_index")
    head = state.get(f"{classifier}.weight")
    return {
        "embed_dim": kernel.shape[0],
        "depths": tuple(len(blocks[stage]) for stage in sorted(blocks)),
        "num_heads": tuple(heads[stage] for stage in sorted(heads)),
        "window_size": changes.get("window_size") or _windows(state[table].shape[0], index)[0],
        "patch_size": kernel.shape[-1],
        "tubelet_size": kernel.shape[2],
        "num_classes": 0 if head is None else head.shape[0],
        "mlp_ratio": state[hidden].shape[0] / kernel.shape[0],
        "qkv_bias": f"{block}attn.qkv.bias" in state,
        "patch_norm": f"{prefix}patch_embed.norm.weight" in state,
    }


def fit_trunk(state: dict[str, Tensor], prefix: str, config) -> list[str]:
    """Fit the trunk's tensors in `state` to the config, in place; a note for each kind of change.

    Index buffers are left out, the stem's kernel and the tables of biases resized. ValueError where a file's index is
    not that of the config's window, or where its window cannot be told.
    """
    notes: list[str] = []
    names = [name for name in state if name.endswith(".attn.relative_position_index")]
    indexes = {name: state.pop(name) for name in names}
    if indexes:
        notes.append(f"{len(indexes)} index buffers left out: the window says what they hold")
    stem = f"{prefix}patch_embed.proj.weight"
    kernel, patch = state.get(stem), config.patch_size
    if kernel is not None and kernel.dim() == 5 and kernel.shape[-2:] != (patch, patch):
        notes.append(f"patch kernel {kernel.shape[-1]} -> {patch} px (bicubic)")
        state[stem] = resize_patch_kernel(kernel, patch)
    resized = set()
    for name in [name for name in state if name.endswith(".relative_position_bias_table")]:
        index = indexes.get(name.replace("_bias_table", "_index"))
        if state[name].dim() != 2:
            continue  # named by whoever checks
        if state[name].shape[0] == config.bias_rows:
            _check_index(index, name, config.window_size)
            continue
        before, *others = _windows(state[name].shape[0], index)
        # a window (4, 3, 2) has as many offsets as (53, 1, 1)
        if others or (index is None and before[1] == 1):
            raise ValueError(
                f"{name}: {state[name].shape[0]} rows are not of one window_size alone ({before} is one), so they "
                f"cannot be resized to {config.window_size}; load the weights at their own window_size"
            )
        state[name] = resize_bias_table(state[name], before, config.window_size)
        resized.add(before)
    notes += [
        f"tables of relative positions {_shown(before)} -> {_shown(config.window_size)} (bicubic, linear in time)"
        for before in sorted(resized)
    ]
    return notes


def resize_bias_table(table: Tensor, before: Triple, after: Triple) -> Tensor:
    """A table of biases for another window: (offsets, heads), time slowest; the very table where they are equal.

    Offsets inside a frame are interpolated bicubically, offsets in time linearly.
    """
    (t0, h0, w0), (t, h, w) = ([2 * size - 1 for size in window] for window in (before, after))
    planes = resize_table(table.unflatten(0, (t0, h0 * w0)), (h0, w0), (h, w))  # (t0, h·w, heads)
    line = resize_temporal_positions(planes.flatten(1)[None], t)[0]
    return table if before == after else line.reshape(t * h * w, table.shape[1])


def _windows(rows: int, index: Tensor | None) -> list[Triple]:
    """The windows (time, side, side) of so many offsets, widest first; a side of 1 where nothing else fits."""
    sides = range(1, (math.isqrt(rows) + 1) // 2 + 1)
    windows = [
        ((rows // (2 * side - 1) ** 2 + 1) // 2, side, side)
        for side in reversed(sides)
        if rows % (2 * side - 1) ** 2 == 0
    ]
    if index is not None:
        windows = [window for window in windows if math.prod(window) == index.shape[0]]
    windows = [window for window in windows if window[1] > 1] or windows
    if not windows:
        raise ValueError(
            f"tables of {rows} offsets belong to no window of equal sides; give window_size=(time, rows, columns)"
        )
    return windows


def _check_index(index: Tensor | None, name: str, window: Triple) -> None:
    if index is None or index.is_meta:
        return
    wanted = relative_index(window, window, "official", index.device)
    if index.shape != wanted.shape or not torch.equal(index, wanted):
        raise ValueError(
            f"{name} is not a table of window_size {window}: the file's index of it is another; "
            "give the window_size that the weights were trained with"
        )


def _shown(window: Triple) -> str:
    return "x".join(map(str, window))
