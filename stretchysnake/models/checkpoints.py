"""Read and write weights: official VideoMamba files and our own, in safe formats only.

    model, notes = load_model("videomamba_t16_k400_f8_res224.pth")
    save_model("out/weights.safetensors", model)

Our files are safetensors with the config inside. Official files are pickles; they are read with
torch's restricted unpickler and never with the unrestricted one: a file that needs more is refused.
"""

import json
import math
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stretchysnake.models.checkpoint_file import loaded_safely
from stretchysnake.models.checkpoint_layout import FoundWeights, weights_in
from stretchysnake.models.config import VideoMambaConfig
from stretchysnake.models.resample import (
    inflate_patch_kernel,
    native_grid,
    resize_patch_kernel,
    resize_spatial_positions,
    resize_temporal_positions,
)
from stretchysnake.models.videomamba import VideoMamba
from stretchysnake.whole_file import unfinished_file

FORMAT = "stretchysnake-weights-1"


def save_model(path: str | os.PathLike, model: VideoMamba, **metadata) -> None:
    """Write the weights, with the config and any JSON-able metadata inside, whole or not at all."""
    save_weights(path, model.state_dict(), model.config, **metadata)


def save_weights(
    path: str | os.PathLike, state: dict[str, Tensor], config: VideoMambaConfig, **metadata
) -> None:
    """Write the state dict of a model of this config; as `save_model`."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    header = {
        "format": FORMAT,
        "config": json.dumps(config.to_dict()),
        "run": json.dumps(metadata),
    }
    with unfinished_file(path) as part:
        save_file(state, part, metadata=header)


def read_checkpoint(
    path: str | os.PathLike, *, part: str | None = None
) -> tuple[dict[str, Tensor], dict]:
    """The flat state dict in a file and its metadata ("config" as a dict and "run", where there).

    .safetensors or a torch file (.pth, .pt, .bin); weights are found however they are nested and prefixed
    (checkpoint_layout.py), and `part` chooses where a file holds several. ValueError when the file is damaged or holds
    no weights.
    """
    found, metadata = find_weights(path, part=part)
    return found.state, metadata


def find_weights(path: str | os.PathLike, *, part: str | None = None) -> tuple[FoundWeights, dict]:
    """As `read_checkpoint`, with which part of the file the weights are and what lies beside them."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint ({path}) must be an existing file; check the path")
    metadata = {}
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                loaded = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"checkpoint ({path}) is damaged or not safetensors: {error}"
            ) from None
        metadata = {
            key: _json(header[key], path, key) for key in ("config", "run") if key in header
        }
    else:
        loaded = loaded_safely(path)
    found = weights_in(loaded, path, part=part)
    _checked(found.state, path)
    return found, metadata


def config_of(state: dict[str, Tensor], **changes) -> VideoMambaConfig:
    """The VideoMambaConfig whose shapes a flat state dict has."""
    needed = ("patch_embed.proj.weight", "pos_embed", "cls_token", "layers.0.mixer.A_log")
    missing = [name for name in needed if name not in state]
    if missing:
        raise ValueError(f"these are not VideoMamba weights: {', '.join(missing)} missing")
    kernel = state["patch_embed.proj.weight"]
    tubelet = kernel.shape[2] if kernel.dim() == 5 else changes.get("tubelet_size", 1)
    frames = state.get("temporal_pos_embedding")
    inner, state_size = state["layers.0.mixer.A_log"].shape
    width, rank = kernel.shape[0], state["layers.0.mixer.dt_proj.weight"].shape[1]
    found = {
        "embed_dim": width,
        "depth": 1
        + max(int(name.split(".")[1]) for name in state if re.match(r"layers\.\d+\.", name)),
        "patch_size": kernel.shape[-1],
        "image_size": native_grid(state["pos_embed"]) * kernel.shape[-1],
        "num_frames": frames.shape[1] * tubelet if frames is not None else tubelet,
        "num_classes": state["head.weight"].shape[0] if "head.weight" in state else 0,
        "tubelet_size": tubelet,
        "state_size": state_size,
        "expand": inner // width,
        "conv_width": state["layers.0.mixer.conv1d.weight"].shape[-1],
        "dt_rank": 0 if rank == math.ceil(width / 16) else rank,
    }
    return VideoMambaConfig.from_dict({**found, **changes})


def load_model(
    path: str | os.PathLike, *, part: str | None = None, **changes
) -> tuple[VideoMamba, list[str]]:
    """A VideoMamba in eval mode with a file's weights, and one note for each thing that was changed or left out.

    The config comes from the file; `changes` overrides fields of it (num_frames=64, num_classes=101, …),
    and weights are then resized or, for the head alone, left at their initialisation: both are noted.
    """
    found, metadata = find_weights(path, part=part)
    state = found.state
    if "config" in metadata:
        config = _trusted_config(metadata["config"], state, path)
        config = VideoMambaConfig.from_dict({**config.to_dict(), **changes})
    else:
        try:
            config = config_of(state, **changes)
        except ValueError as error:
            raise ValueError(f"checkpoint ({path}): {error}{_if_a_shard(path)}") from None
    with torch.random.fork_rng(
        devices=[]
    ):  # a fresh head is drawn without moving the caller's generator
        model = VideoMamba(config)
    try:
        return model.eval(), [*found.notes, *load_weights(model, state)]
    except ValueError as error:
        if hint := _if_a_shard(path):
            raise ValueError(f"{error}{hint}") from None
        raise


def _if_a_shard(path: str | os.PathLike) -> str:
    """Advice where a file's name says that it is one of several."""
    named = re.search(r"\d+-of-0*(\d+)\b|mp_rank_\d+|rank_?\d+", Path(path).name)
    return (
        "; by its name it is a part of the weights: join all parts into one file first"
        if named
        else ""
    )


def _trusted_config(
    values: dict, state: dict[str, Tensor], path: str | os.PathLike
) -> VideoMambaConfig:
    """The config written in a file, once its sizes are those of the file's tensors."""
    # Before a model is built: a false config could ask for any amount of memory.
    found = config_of(state)
    try:
        claimed = VideoMambaConfig.from_dict(values)
    except TypeError as error:
        raise ValueError(f"checkpoint ({path}): its config is not valid ({error})") from None
    for name in (
        "embed_dim", "depth", "patch_size", "image_size", "num_frames", "num_classes", "tubelet_size",
        "state_size", "expand", "conv_width", "rank_of_delta",
    ):  # fmt: skip
        if getattr(claimed, name) != getattr(found, name):
            raise ValueError(
                f"checkpoint ({path}): its config says {name} {getattr(claimed, name)}, its tensors "
                f"{getattr(found, name)}; the file is damaged or not what it claims to be"
            )
    return claimed


def load_weights(model: VideoMamba, state: dict[str, Tensor]) -> list[str]:
    """Load a flat state dict, strictly, after fitting it to the model; returns what was changed.

    Fitting means: inflating a 2-D patch kernel, resizing patch kernel, E_pos and E_temp, and keeping
    the model's own head when the number of classes differs or the file has none. Any other missing,
    unexpected or wrongly shaped tensor, and any non-finite value, is a ValueError that names it.
    """
    state, notes = dict(state), []
    own = model.state_dict()
    _drop_pretraining_parts(state, own, notes)
    _fit_patch_kernel(state, own["patch_embed.proj.weight"], model.config, notes)
    _fit_positions(state, own, notes)
    _fit_head(state, own, notes)
    _fit_dtype(state, own, notes)
    problems = [f"missing {name}" for name in own if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in own]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems += [
        f"{name} holds {tensor.dtype} {tensor.layout} instead of dense floats or non-finite values"
        for name, tensor in state.items()
        if tensor.layout != torch.strided
        or not tensor.is_floating_point()
        or not tensor.isfinite().all()
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"weights do not fit the model: {'; '.join(problems[:5])}{more}")
    model.load_state_dict(state, strict=True)
    return notes


def _drop_pretraining_parts(state: dict, own: dict, notes: list[str]) -> None:
    # VideoMamba's masked pre-training keeps decoders beside the encoder and names its last norm `norm`, which the
    # official fine-tuning code does not find, so that norm_f starts at one; we do the same.
    decoders = [name for name in state if name.startswith("clip_decoder.")]
    if decoders:
        for name in [*decoders, "norm.weight"]:
            state.pop(name, None)
        state.setdefault("norm_f.weight", own["norm_f.weight"])
        notes.append("decoders of masked pre-training dropped; the final norm starts fresh")


def _fit_patch_kernel(state: dict, own: Tensor, config: VideoMambaConfig, notes: list[str]) -> None:
    kernel = state.get("patch_embed.proj.weight")
    if kernel is None or kernel.dim() not in (4, 5):
        return
    if kernel.dim() == 4:
        kernel = inflate_patch_kernel(kernel, config.tubelet_size)
        notes.append(
            f"patch kernel inflated from an image model to {config.tubelet_size} frames (centre)"
        )
    if kernel.shape[-1] != own.shape[-1] and kernel.shape[-1] == kernel.shape[-2]:
        notes.append(
            f"patch kernel {kernel.shape[-1]} -> {own.shape[-1]} px ({config.patch_resize})"
        )
        kernel = resize_patch_kernel(kernel, own.shape[-1], mode=config.patch_resize)
    state["patch_embed.proj.weight"] = kernel


def _fit_positions(state: dict, own: dict, notes: list[str]) -> None:
    positions = state.get("pos_embed")
    if positions is not None and positions.dim() == 3 and positions.shape != own["pos_embed"].shape:
        before, after = native_grid(positions), native_grid(own["pos_embed"])
        if before != after:
            notes.append(f"spatial positions {before}x{before} -> {after}x{after} (bicubic)")
            state["pos_embed"] = resize_spatial_positions(positions, (after, after))
    frames, wanted = state.get("temporal_pos_embedding"), own["temporal_pos_embedding"]
    if frames is None:
        notes.append("temporal positions absent (image model): kept at the model's own")
        state["temporal_pos_embedding"] = wanted
    elif frames.dim() == 3 and frames.shape[1] != wanted.shape[1]:
        notes.append(f"temporal positions {frames.shape[1]} -> {wanted.shape[1]} (linear)")
        state["temporal_pos_embedding"] = resize_temporal_positions(frames, wanted.shape[1])


def _fit_head(state: dict, own: dict, notes: list[str]) -> None:
    weight, wanted = state.get("head.weight"), own.get("head.weight")
    if wanted is None:
        if state.pop("head.weight", None) is not None:
            notes.append("head dropped (num_classes is 0)")
        state.pop("head.bias", None)
    elif weight is None or weight.shape[0] != wanted.shape[0]:
        found = "absent" if weight is None else f"of {weight.shape[0]} classes not used"
        notes.append(f"head {found}: a fresh one of {wanted.shape[0]} classes must be trained")
        state["head.weight"], state["head.bias"] = wanted, own["head.bias"]


def _checked(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The state, once every tensor is dense and no larger than what the file holds."""
    if not state:
        raise ValueError(f"checkpoint ({path}) holds no weights")
    for name, tensor in state.items():
        if tensor.layout != torch.strided:
            raise ValueError(f"checkpoint ({path}): {name} is {tensor.layout}, not a dense tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"checkpoint ({path}): {name} claims shape {tuple(tensor.shape)}, more than the file holds"
            )
    return state


def _fit_dtype(state: dict, own: dict, notes: list[str]) -> None:
    """Convert to the model's dtype, and say of each other dtype what that changed."""
    changes: dict[tuple, list[float]] = {}
    for name, tensor in state.items():
        wanted = own.get(name)
        if wanted is None or tensor.layout != torch.strided or not tensor.is_floating_point():
            continue  # named by whoever checks
        if tensor.dtype != wanted.dtype:
            state[name] = tensor.to(wanted.dtype)
            change = (state[name].double() - tensor.double()).abs()
            changes.setdefault((tensor.dtype, wanted.dtype), []).append(
                float(change.max()) if change.numel() else 0.0
            )
    for (before, after), largest in changes.items():
        words = f"{len(largest)} tensors of {before} ".replace("torch.", "")
        to = str(after).removeprefix("torch.")
        if max(largest) == 0:
            notes.append(f"{words}held as {to}: no value changed")
        else:
            notes.append(f"{words}rounded to {to}: largest change {max(largest):.1e}")


def _json(text: str, path: Path, key: str) -> dict:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"checkpoint ({path}) has damaged metadata {key!r}: {error}") from None
