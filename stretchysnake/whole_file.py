"""A file written whole or not at all: beside its place first, then moved there. Its hash shows it unchanged."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Damaged(ValueError):
    """What is stored is not what was written, or not finished; the message says which file, and the way out."""


@contextmanager
def unfinished_file(path: str | os.PathLike) -> Iterator[Path]:
    """A path beside `path` to write to; moved to `path` when the block ends, removed when it fails.

    The content is on the disk before it is moved, so a reader sees the old file or the new one, even after a
    power cut. The unfinished file carries the process's number, so that two writers do not share one,
    and the same ending. Who may read the file is up to the umask, whoever writes it: safetensors puts a file of its
    own there, which is the owner's alone.
    """
    path = Path(path)
    if path.is_dir():  # said of what was given, before half of it is written
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        part.unlink(missing_ok=True)
        part.touch()
        mode = stat.S_IMODE(part.stat().st_mode)
        part.unlink()
        yield part
        with open(part, "rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:
                os.chmod(part, mode)
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, to a file whole or not at all; folders on the way are made.

    A file name that is not UTF-8 stands in the text with backslashes, as on the terminal: \\udce9.
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    with unfinished_file(path) as part:
        part.write_bytes(content)


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file, as hexadecimal digits; read a MiB at a time."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
