"""A checkpoint, official or another's, as safetensors, with a card that says what it is and what was changed."""

import os
from pathlib import Path

import torch

from stretchysnake.models.architectures import config_to_dict
from stretchysnake.models.backbone import Backbone
from stretchysnake.models.weights.files import (
    NOT_STATED,
    find_weights,
    read_checkpoint,
    save_weights,
)
from stretchysnake.models.weights.from_file import model_of
from stretchysnake.models.weights.published.table import published_named
from stretchysnake.whole_file import sha256_of


def convert(
    path: str | os.PathLike,
    out: str | os.PathLike,
    *,
    source: str | None = None,
    licence: str | None = None,
    part: str | None = None,
    clip: str | os.PathLike | None = None,
    class_list: str | None = None,
    dtype: str = "fp32",
    **changes,
) -> dict:
    """Write the weights of a checkpoint to `out` (.safetensors) and return its card, which is also inside.

    The card: source, licence, file name, sha256 of the file read, which `part` of it, config, every resize and
    rounding (`changes`) and what of the file was not taken (`left_out`). `part` chooses where a file holds several
    models; `clip` and `changes` (fields of the config) as in `load_model`; `class_list` names the list of classes that
    the outputs are in the order of. These, source and licence are known for files under their published names. A
    tensor that the model does not know, or lacks, is a ValueError. dtype "bf16" rounds what is multiplied, matrices and
    kernels, to bf16, which halves the file. What is written is read again and compared bit for
    bit.
    """
    path, out = Path(path), Path(out)
    if out.suffix != ".safetensors":
        raise ValueError(f"out ({out}) must end in .safetensors")
    if out.exists() and path.exists() and out.samefile(path):
        raise ValueError(f"out ({out}) must not be the checkpoint itself; choose another name")
    if dtype not in ("fp32", "bf16"):
        raise ValueError(f"dtype ({dtype!r}) must be one of: fp32, bf16")
    weights = find_weights(path, part=part)[0]
    model, notes = model_of(path, part=part, clip=clip, **changes)
    sha256 = sha256_of(path)
    published = published_named(path.name)
    if published is not None and published.sha256 in (None, sha256):
        source = source or f"{published.repo}, by its file name {path.name}"
        licence = licence or published.licence
        class_list = class_list or published.classes
    card = {
        "source": source or NOT_STATED,
        "licence": licence or NOT_STATED,
        "file": path.name,
        "sha256": sha256,
        "part": weights.part,
        "config": config_to_dict(model.config),
        "changes": [note for note in notes if note not in weights.notes],
        "left_out": weights.left_out,
    }
    if clip is not None:
        card["clip"] = {"file": Path(clip).name, "sha256": sha256_of(clip)}
    if class_list is not None and model.config.num_classes and "num_classes" not in changes:
        card["class_list"] = class_list
    named = {name: said for name, said in model.trained.items() if name == "classes"}
    state = model.state_dict() if dtype == "fp32" else in_bf16(model)
    if dtype == "bf16":
        count = sum(tensor.dtype == torch.bfloat16 for tensor in state.values())
        card["changes"].append(f"{count} of {len(state)} tensors rounded to bf16")
    save_weights(out, state, model.config, card=card, **named)
    written = read_checkpoint(out)[0]
    if written.keys() != state.keys() or not all(torch.equal(written[k], state[k]) for k in state):
        out.unlink()
        raise RuntimeError(f"{out} did not come back as written and was removed; check the disk")
    return card


def in_bf16(model: Backbone) -> dict[str, torch.Tensor]:
    """The model's state with what is multiplied in bf16: all but vectors and what `undecayed` names.

    Those are few, and small changes of them reach every token: A = -exp(A_log) would change by up to 1 %.
    """
    kept = model.undecayed()
    return {
        name: tensor.to(torch.bfloat16)
        if tensor.is_floating_point() and tensor.dim() > 1 and name.split(".")[-1] not in kept
        else tensor
        for name, tensor in model.state_dict().items()
    }
