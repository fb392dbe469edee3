"""A checkpoint, official or another's, as safetensors, with a card that says what it is and what was changed."""

import hashlib
import os
import re
from pathlib import Path

import torch

from stretchysnake.models.architectures import config_to_dict
from stretchysnake.models.weights.files import find_weights, read_checkpoint, save_model
from stretchysnake.models.weights.loading import load_model

# Names under which OpenGVLab publishes VideoMamba's weights.
PUBLISHED = re.compile(
    r"videomamba_(t|s|m)16_(in1k_res\d+|k400_f\d+_res\d+|k400_mask_(pt|ft)_f\d+_res\d+)\.pth"
)
NOT_STATED = "not stated"


def convert(
    path: str | os.PathLike,
    out: str | os.PathLike,
    *,
    source: str | None = None,
    licence: str | None = None,
    part: str | None = None,
    clip: str | os.PathLike | None = None,
    **changes,
) -> dict:
    """Write the weights of a checkpoint to `out` (.safetensors) and return its card, which is also inside.

    The card: source, licence, file name, sha256 of the file read, which `part` of it, config, every resize and
    rounding (`changes`) and what of the file was not taken (`left_out`). `part` chooses where a file holds several
    models; `clip` and `changes` (fields of the config) as in `load_model`. A tensor that the model does not know, or
    lacks, is a ValueError. What is written is read again and compared bit for bit.
    """
    path, out = Path(path), Path(out)
    if out.suffix != ".safetensors":
        raise ValueError(f"out ({out}) must end in .safetensors")
    if out.exists() and path.exists() and out.samefile(path):
        raise ValueError(f"out ({out}) must not be the checkpoint itself; choose another name")
    weights = find_weights(path, part=part)[0]
    model, notes = load_model(path, part=part, clip=clip, **changes)
    if source is None:
        published = PUBLISHED.fullmatch(path.name)
        source = f"OpenGVLab/VideoMamba, by its file name {path.name}" if published else NOT_STATED
    card = {
        "source": source,
        "licence": licence or NOT_STATED,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "part": weights.part,
        "config": config_to_dict(model.config),
        "changes": [note for note in notes if note not in weights.notes],
        "left_out": weights.left_out,
    }
    if clip is not None:
        digest = hashlib.sha256(Path(clip).read_bytes()).hexdigest()
        card["clip"] = {"file": Path(clip).name, "sha256": digest}
    run = read_checkpoint(path)[1].get("run", {})
    named = isinstance(run, dict) and "classes" in run and "num_classes" not in changes
    save_model(out, model, card=card, **({"classes": run["classes"]} if named else {}))
    written = read_checkpoint(out)[0]
    state = model.state_dict()
    if written.keys() != state.keys() or not all(torch.equal(written[k], state[k]) for k in state):
        out.unlink()
        raise RuntimeError(f"{out} did not come back as written and was removed; check the disk")
    return card
