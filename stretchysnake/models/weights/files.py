"""Weights on disk: our safetensors files written whole, and any file's tensors found.

    state, metadata = read_checkpoint("out/weights.safetensors")

Covered: official pickles are read with torch's restricted unpickler only (torch_file.py), no tensor may claim more
than the file holds, every file is written whole or not at all. Not covered: what weights make a model answer; a file
of the right shapes with chosen values is read like any other, so its source is a matter of trust or of a hash.
"""

import json
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stretchysnake.models.architectures import ARCHITECTURES, config_to_dict, marks_of
from stretchysnake.models.backbone import Backbone, BackboneConfig
from stretchysnake.models.weights.layout import FoundWeights, weights_in
from stretchysnake.models.weights.torch_file import loaded_safely
from stretchysnake.whole_file import unfinished_file

FORMAT = "stretchysnake-weights-1"
NOT_STATED = "not stated"
"""Of a source or licence that nobody said."""


def save_model(path: str | os.PathLike, model: Backbone, **metadata) -> None:
    """Write the weights, with the config and any JSON-able metadata inside, whole or not at all."""
    save_weights(path, model.state_dict(), model.config, **metadata)


def save_weights(
    path: str | os.PathLike, state: dict[str, Tensor], config: BackboneConfig, **metadata
) -> None:
    """Write the state dict of a model of this config; as `save_model`."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    header = {
        "format": FORMAT,
        "architecture": config.architecture,
        "config": json.dumps(config_to_dict(config)),
        "run": json.dumps(metadata),
    }
    with unfinished_file(path) as part:
        try:
            save_file(state, part, metadata=header)
        except SafetensorError as error:  # a full disk, in words that are no OSError
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        _sort_header(part)


def _sort_header(path: Path) -> None:
    """Put a safetensors file's metadata in the order of its names: it is written in another one by each process.

    So equal weights are equal bytes, on any machine, and so are the hashes by which an index knows them.
    """
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        written = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(written) <= length, "the same words in another order"
        file.seek(8)
        file.write(written.ljust(length))


def header_of(path: str | os.PathLike) -> dict:
    """ "config" and "run" of a safetensors file, where there, without its tensors."""
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint ({path}) is damaged or not safetensors: {error}") from None
    return {key: _json(header[key], path, key) for key in ("config", "run") if key in header}


def read_checkpoint(
    path: str | os.PathLike, *, part: str | None = None
) -> tuple[dict[str, Tensor], dict]:
    """The flat state dict in a file and its metadata ("config" as a dict and "run", where there).

    .safetensors or a torch file (.pth, .pt, .bin); weights are found however they are nested and prefixed
    (layout.py), and `part` chooses where a file holds several. ValueError when the file is damaged or holds
    no weights.
    """
    weights, metadata = find_weights(path, part=part)
    return weights.state, metadata


def find_weights(path: str | os.PathLike, *, part: str | None = None) -> tuple[FoundWeights, dict]:
    """As `read_checkpoint`, with which part of the file the weights are and what lies beside them."""
    path = Path(path)
    loaded, header = _loaded(path)
    metadata = {key: _json(header[key], path, key) for key in ("config", "run") if key in header}
    # files of before said no architecture
    ours = header.get("architecture", "videomamba") if "config" in header else None
    if ours not in (None, *ARCHITECTURES):
        raise ValueError(
            f"checkpoint ({path}): its architecture ({ours}) is not known to this version; "
            f"it knows: {', '.join(ARCHITECTURES)}"
        )
    weights = weights_in(loaded, path, marks_of(*([ours] if ours else [])), part=part)
    _checked(weights.state, path)
    return weights, metadata


def read_clip_tower(path: str | os.PathLike) -> dict[str, Tensor]:
    """CLIP's visual tower of a file, its names under "clip.visual.": what EVL's files leave out.

    OpenAI's own archive (ViT-B-16.pt), or a state dict of the tower or of all CLIP.
    """
    path = Path(path)
    weights = weights_in(_loaded(path)[0], path, {"clip": CLIP_TOWER})
    missing = [name for name in CLIP_TOWER[0] if name not in weights.state]
    if missing:
        raise ValueError(
            f"clip ({path}) must hold CLIP's visual tower; it lacks: {', '.join(missing)}"
        )
    state = _checked(weights.state, path)
    return {f"clip.visual.{name}": tensor for name, tensor in state.items()}


CLIP_TOWER = (("class_embedding", "conv1.weight", "ln_pre.weight", "positional_embedding"),)
"""Names that tell CLIP's visual tower, in whatever it stands."""


def _loaded(path: Path) -> tuple[object, dict[str, str]]:
    """(what a file holds, its safetensors header or {}); ValueError where it is absent or damaged."""
    if not path.is_file():
        raise ValueError(f"checkpoint ({path}) must be an existing file; check the path")
    if path.suffix != ".safetensors":
        return loaded_safely(path), {}
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"checkpoint ({path}) is damaged or not safetensors: {error}") from None


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


def _json(text: str, path: Path, key: str) -> dict:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"checkpoint ({path}) has damaged metadata {key!r}: {error}") from None
