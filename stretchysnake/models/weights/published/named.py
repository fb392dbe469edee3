"""Weights by name made a file on disk: the package's own, or fetched once, checked by SHA-256, converted, kept.

path = weights_file("videomamba-m-k400-f16")
"""

import os
from dataclasses import dataclass
from pathlib import Path

from stretchysnake.models.weights.converting import convert
from stretchysnake.models.weights.files import NOT_STATED, header_of
from stretchysnake.models.weights.published.cache import (
    VARIABLE,
    Record,
    one_at_a_time,
    read_record,
    weights_folder,
    write_record,
)
from stretchysnake.models.weights.published.hub import deleted, fetched, licence_of
from stretchysnake.models.weights.published.pretrained import model_in_folder
from stretchysnake.models.weights.published.reference import Reference, reference_of
from stretchysnake.models.weights.shipped.shipped import shipped
from stretchysnake.whole_file import sha256_of


@dataclass(frozen=True, kw_only=True)
class Located:
    """A weights file, and where it is from."""

    path: Path
    said: str | None = None
    """Source, revision, licence, in a line; None for a path of the caller's."""


def weights_file(weights: str | os.PathLike) -> Path:
    """The file of these weights: the path itself, model.safetensors of a folder, or what a name stands for."""
    return located(weights).path


def located(weights: str | os.PathLike, *, renew: bool = False) -> Located:
    """The file of these weights, fetched where it is not here yet, with its source.

    A name means the same bytes on this machine for ever: of files without a published hash the SHA-256 of the first
    use is remembered (cache.py), and others are refused; `renew` takes what the revision is today. Weights that are
    here are used without a request and without reading them once more. RuntimeError where they cannot be had.
    """
    if (own := shipped(weights)) is not None:
        return Located(path=own.file, said=own.said)
    reference = reference_of(weights)
    if reference is None:
        path = Path(weights)
        return Located(path=model_in_folder(path) if path.is_dir() else path)
    folder = weights_folder()
    record = _current(folder, reference)
    if record is None or renew:
        try:
            with one_at_a_time(folder, reference.key):
                record = None if renew else _current(folder, reference)  # another process had it
                record = record or _obtained(folder, reference, renew=renew)
        except OSError as error:
            raise RuntimeError(
                f"weights ({reference.name}) cannot be kept in {folder}: {(error.strerror or str(error)).lower()}; run "
                f"`stretchysnake weights get {reference.name}` once where it may be written and has room, or set "
                f"{VARIABLE} to such a folder"
            ) from None
    return Located(path=record.file(folder), said=said(record))


def file_here(weights: str | os.PathLike) -> Path | None:
    """The file of these weights where it can be read at once: nothing is fetched, converted or written for it."""
    if shipped(weights) is not None or (reference := reference_of(weights)) is None:
        return located(weights).path if is_here(weights) else None
    folder = weights_folder()
    record = _current(folder, reference)
    return None if record is None else record.file(folder)


def is_here(name: str) -> bool:
    """Whether weights of this name can be used without a request."""
    if shipped(name) is not None:
        return True
    reference = reference_of(name)
    if reference is None:
        return Path(name).exists()
    folder = weights_folder()
    return _current(folder, reference) is not None or (folder / reference.by_hand).is_file()


def said(record: Record) -> str:
    """Where weights are from, in a line."""
    licence = f"licence {record.licence}"
    if record.licence == NOT_STATED:
        licence += ": ask its authors before you pass anything on"
    return f"from {record.source}, SHA-256 {record.sha256[:12]}, {licence}"


def _current(folder: Path, reference: Reference) -> Record | None:
    """What is kept of a name, where it is all there and what the table says."""
    record = read_record(folder, reference.key)
    if record is None or not record.is_there(folder):
        return None
    return record if reference.sha256 in (None, record.sha256) else None


def _obtained(folder: Path, reference: Reference, *, renew: bool) -> Record:
    before = None if renew else read_record(folder, reference.key)
    path = folder / reference.by_hand
    if path.is_file():
        source, commit, licence = f"{path.name}, put there by hand", None, reference.licence
        sha256 = _checked(path, reference, before, by_hand=True)
    else:
        path, commit = fetched(reference, commit=before and before.commit, by_hand=folder)
        source = f"hf://{reference.repo}/{reference.file}@{commit[:12]}"
        sha256 = _checked(path, reference, before, by_hand=False)
        licence = reference.licence or licence_of(reference.repo, commit)
    licence = licence or NOT_STATED
    kept = path
    if path.suffix == ".safetensors":
        header_of(path)  # a page of words under that name is not remembered
    else:
        kept = folder / f"{reference.key}.safetensors"
        convert(
            path,
            kept,
            source=f"hf://{reference.repo}/{reference.file}",
            licence=licence,
            class_list=reference.class_list,
        )
    record = Record(
        name=reference.name,
        source=source,
        commit=commit or (before and before.commit),
        sha256=sha256,
        licence=licence,
        path=str(kept.relative_to(folder) if kept.parent == folder else kept),
        num_bytes=kept.stat().st_size,
        path_sha256=sha256_of(kept),
    )
    write_record(folder, reference.key, record)
    return record


def _checked(path: Path, reference: Reference, before: Record | None, *, by_hand: bool) -> str:
    """The SHA-256 of a file, once it is the published or the remembered one; a wrong download is deleted."""
    sha256 = sha256_of(path)
    wanted = reference.sha256 or (before and before.sha256)
    if wanted in (None, sha256):
        return sha256
    if by_hand:
        what = f"the file {path}, put there by hand,"
    else:
        deleted(path)
        what = "what the Hub sent, now deleted,"
    if reference.sha256:
        rule = f"and it must have {wanted[:12]} (by {reference.hash_by})"
        way = (
            f"fetch it again; hf://{reference.repo}/{reference.file}@{reference.revision} takes it as it is"
            if not by_hand
            else "delete it, or put the right one there"
        )
    else:
        rule = f"and at its first use it had {wanted[:12]}"
        way = f"if the change is meant: stretchysnake weights get {reference.name} --renew true"
    raise RuntimeError(
        f"weights ({reference.name}): {what} has SHA-256 {sha256[:12]}, {rule}; {way}"
    )
