"""A checkpoint: a directory written whole or not at all, and believed only when every byte is as written.

    out/checkpoints/step-00000500/
      weights.safetensors    the model, in the form that `evaluate` and `embed` read
      training.safetensors   optimiser moments, moving average, loss series
      slices/                the first two, one file a rank, of a run whose weights are sliced over ranks
      state.json             step, clips, tokens, seconds, learning-rate factor, run
      manifest.json          size and SHA-256 of each file above, and its own SHA-256 as last line

Nothing is pickled. safetensors alone does not notice a flipped bit (295 of 300 load silently); the manifest does.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stretchysnake.models.backbone import BackboneConfig
from stretchysnake.models.weights.files import save_weights
from stretchysnake.whole_file import Damaged, sha256_of, unfinished_file

FORMAT = "stretchysnake-checkpoint-1"
WEIGHTS, TRAINING, STATE, MANIFEST = (
    "weights.safetensors", "training.safetensors", "state.json", "manifest.json",
)  # fmt: skip
CONTENT = (WEIGHTS, TRAINING, STATE)
SLICES = "slices"
SLICE_NAME = re.compile(SLICES + r"/shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")


class CheckpointNotWritten(RuntimeError):
    """A checkpoint that could not be written; every earlier one is as it was."""


def write_checkpoint(
    folder: Path,
    step: int,
    *,
    weights: dict[str, Tensor],
    config: BackboneConfig,
    metadata: dict,
    training: dict[str, Tensor],
    state: dict,
    write_slices: Callable[[Path], None] | None = None,
) -> Path:
    """Write the checkpoint of `step` into `folder` and return its path; CheckpointNotWritten says why not.

    Files are written and synced under a temporary name, then one rename makes them the checkpoint: a kill at
    any moment leaves the old state or the new one. An existing checkpoint of this step is replaced.
    `write_slices` fills the sub-folder it is given together with the other ranks.
    """
    final = folder / f"step-{step:08d}"
    partial = folder / f".{final.name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        partial.mkdir()
        save_weights(partial / WEIGHTS, weights, config, **metadata)
        with unfinished_file(partial / TRAINING) as part:  # for its mode, the umask's
            save_file({name: t.detach().cpu().contiguous() for name, t in training.items()}, part)
        (partial / STATE).write_text(json.dumps({**state, "step": step}))
        if write_slices:
            (partial / SLICES).mkdir()
            write_slices(partial / SLICES)
            _sync(partial / SLICES)
        content = [*CONTENT, *_slices_in(partial)]
        files = {
            name: {"bytes": (partial / name).stat().st_size, "sha256": sha256_of(partial / name)}
            for name in content
        }
        (partial / MANIFEST).write_text(_manifest_text({"format": FORMAT, "files": files}))
        for name in (*content, MANIFEST):
            _sync(partial / name)
        _sync(partial)
        if final.exists():
            _remove(final)
        os.rename(partial, final)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointNotWritten(
            f"checkpoint of step {step} could not be written to {folder}: {_reason(error)}. "
            f"{_survivors(folder)}; the same command goes on from there once there is room to write"
        ) from None
    return final


def verify(path: Path) -> None:
    """Raise Damaged unless the directory holds exactly the files written, every byte the same."""
    name = path.name
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise Damaged(
            f"checkpoint {name}: manifest.json cannot be read ({_reason(error)})"
        ) from None
    body = text.split(b"\n", 1)[0]
    if text != _manifest_bytes(body):
        raise Damaged(f"checkpoint {name}: manifest.json is cut short or changed")
    manifest = _parsed(body, name, MANIFEST)
    files = manifest.get("files")
    if manifest.get("format") != FORMAT or not _are_entries(files):
        raise Damaged(f"checkpoint {name}: manifest.json is not of format {FORMAT}")
    for file in _slices_in(path):
        if file not in files or (path / SLICES).is_symlink():
            raise Damaged(f"checkpoint {name}: {file} is not one of its files")
    for file, wanted in files.items():
        if not (path / file).is_file() or (path / file).is_symlink():
            raise Damaged(f"checkpoint {name}: {file} is missing")
        size = (path / file).stat().st_size
        if size != wanted["bytes"]:
            raise Damaged(
                f"checkpoint {name}: {file} has {size} bytes, {wanted['bytes']} were written"
            )
        if sha256_of(path / file) != wanted["sha256"]:
            raise Damaged(f"checkpoint {name}: {file} has changed since it was written (SHA-256)")


def read_state(path: Path) -> dict:
    """The JSON part of a checkpoint (not verified)."""
    try:
        state = _parsed((path / STATE).read_bytes(), path.name, STATE)
    except OSError as error:
        raise Damaged(
            f"checkpoint {path.name}: state.json cannot be read ({_reason(error)})"
        ) from None
    if state.get("step") != int(path.name.removeprefix("step-")):
        raise Damaged(f"checkpoint {path.name}: state.json tells of step {state.get('step')!r}")
    return state


def read_tensors(path: Path, file: str) -> dict[str, Tensor]:
    """All tensors of one file of a checkpoint."""
    try:
        with safe_open(path / file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 not a dict
    except (SafetensorError, OSError) as error:
        raise Damaged(f"checkpoint {path.name}: {file} cannot be read ({error})") from None


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoint directories of a folder, oldest first, good or not."""
    paths = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(paths, key=lambda path: int(path.name.removeprefix("step-")))


def newest_good(
    folder: Path, *, on_damaged: str = "previous", say: Callable[[str], None] | None = None
) -> Path | None:
    """The newest checkpoint whose every byte is as written; None where there is no checkpoint.

    A damaged one is passed over and told to `say`, or refused with on_damaged="stop"; Damaged in
    both cases when none is good.
    """
    troubles: list[str] = []
    for path in reversed(checkpoints_in(folder)):
        try:
            verify(path)
            read_state(path)
        except Damaged as error:
            troubles.append(str(error))
            continue
        if troubles and on_damaged == "stop":
            raise Damaged(
                f"{troubles[0]}. The newest good one is {path.name}; remove the damaged one, "
                "or set on_damaged to previous, to go on from there"
            )
        for trouble in troubles if say else ():
            say(f"{trouble}; going back to {path.name}")
        return path
    if troubles:
        raise Damaged(f"{troubles[0]}. None of the {len(troubles)} checkpoints in {folder} is good")
    return None


def prune(folder: Path, *, keep: int) -> None:
    """Remove all but the last `keep` checkpoints."""
    for path in checkpoints_in(folder)[:-keep]:
        _remove(path)


def _slices_in(path: Path) -> list[str]:
    return sorted(f"{SLICES}/{file.name}" for file in (path / SLICES).glob("*"))


def _are_entries(files: object) -> bool:
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        return False
    slices = files.keys() - set(CONTENT)
    return (
        all(SLICE_NAME.fullmatch(name) for name in slices)
        and files.keys() >= set(CONTENT)
        and all(entry.keys() == {"bytes", "sha256"} for entry in files.values())
    )


def _remove(path: Path) -> None:
    # Renamed first: a kill half-way through must not leave a checkpoint with files missing.
    trash = path.with_name(f".{path.name}.removed")
    shutil.rmtree(trash, ignore_errors=True)
    os.rename(path, trash)
    shutil.rmtree(trash, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    for pattern in (".step-*.partial", ".step-*.removed"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def _survivors(folder: Path) -> str:
    paths = checkpoints_in(folder)
    return f"{paths[-1].name} is untouched" if paths else "there is no earlier one"


def _manifest_text(manifest: dict) -> str:
    return _manifest_bytes(json.dumps(manifest).encode()).decode()


def _manifest_bytes(body: bytes) -> bytes:
    return body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n"


def _parsed(text: bytes, name: str, file: str) -> dict:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"checkpoint {name}: {file} is not JSON ({error})") from None
    if not isinstance(parsed, dict):
        raise Damaged(f"checkpoint {name}: {file} is not a JSON object")
    return parsed


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: Exception) -> str:
    text = str(error)
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text
    if full:
        return "the disk is full"
    if getattr(error, "errno", None) in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "the folder is read-only"
    return getattr(error, "strerror", None) or text
