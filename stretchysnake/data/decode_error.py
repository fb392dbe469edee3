"""Why a video cannot be trusted: one typed error, and what can be seen before a decoder is asked."""

from __future__ import annotations

import errno
import os

from stretchysnake.data.containers.container_length import is_container, is_special, missing_bytes
from stretchysnake.shown import reason_of

ERROR_KINDS = ("missing", "unreadable", "no_video", "truncated", "corrupt", "timeout", "empty")
TRANSIENT_KINDS = ("missing", "timeout")
TRANSIENT_ERRORS = frozenset(
    getattr(errno, name)
    for name in (
        "EIO", "ESTALE", "ENOENT", "ETIMEDOUT", "EAGAIN", "EINTR", "ENODEV", "ENXIO", "EREMOTEIO", "ENOLINK",
        "ENOTCONN", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN",
        "ENETUNREACH", "EMFILE", "ENFILE", "ENOMEM",
    )
    if hasattr(errno, name)
)  # fmt: skip
"""Of the system, that say nothing about a file: its storage is out of reach, or something else is used up."""
_OF_WRITING = (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EPIPE)
_IMAGE_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}


class DecodeError(Exception):
    """A video that cannot be trusted; the message names the file, the kind and the way out.

    `kind` is one of `ERROR_KINDS`.
    """

    def __init__(
        self, kind: str, path: str, reason: str, transient: bool = False, limited: bool = False
    ):
        assert kind in ERROR_KINDS, kind
        super().__init__(f"{path}: {kind}: {reason}")
        self.kind, self.path, self.reason = kind, path, reason
        self._transient, self._limited = transient, limited

    @property
    def transient(self) -> bool:
        """Whether it may pass: too slow, not there, or an error of its storage (which its cause tells)."""
        if self._transient or self.kind in TRANSIENT_KINDS:
            return True
        return getattr(self.__cause__, "errno", None) in TRANSIENT_ERRORS

    @property
    def may_pass(self) -> bool:
        """Whether a later run may read it: what is transient, or met a limit (`limited`) that may be set higher."""
        return self.transient or self._limited

    def __reduce__(self):  # errors travel from worker processes, their causes do not
        return DecodeError, (self.kind, self.path, self.reason, self.transient, self._limited)


def check_file(path: str) -> bytes:
    """Return the first bytes of a file that may be a video; raise for one that cannot be."""
    if os.path.isdir(path):
        raise DecodeError("unreadable", path, "is a folder; give a video file.")
    if is_special(path):
        reason = "is a pipe, a socket or a device, not a file; write it to a file first."
        raise DecodeError("unreadable", path, reason)
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise unread_file(path, error) from None
    if not head:
        raise DecodeError("empty", path, "the file has 0 bytes; fetch it again.")
    image = next((name for sign, name in _IMAGE_SIGNATURES.items() if head.startswith(sign)), None)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        image = "WebP"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"avif"):
        image = "HEIF"
    if image:
        raise DecodeError("no_video", path, f"is a {image} image, not a video; give a video file.")
    return head


def unread_file(path: str, error: OSError) -> DecodeError:
    """The DecodeError of a file that the system does not read."""
    if isinstance(error, FileNotFoundError):
        reason = "no such file; check the path in the list and its root folder."
        return DecodeError("missing", path, reason)
    passes = error.errno in TRANSIENT_ERRORS
    advice = "check its storage" if passes else "check permissions"
    return DecodeError(
        "unreadable", path, f"cannot be read ({reason_of(error)}); {advice}.", passes
    )


def error_of_file(path: str | os.PathLike, error: DecodeError | OSError) -> DecodeError | None:
    """What was raised while a file was read, as its own error; None where it is not about the file.

    An OSError is about it unless it names another file, comes from writing (no space, nobody listens) or from no call
    of the system.
    """
    if isinstance(error, DecodeError):
        return error
    path = os.fspath(path)
    if error.errno in _OF_WRITING or error.filename not in (None, path):
        return None
    return unread_file(path, error)


def unopened_file(path: str, error: Exception) -> DecodeError:
    """The DecodeError of a file that the decoder refuses to open."""
    if missing := missing_bytes(path):
        return DecodeError("truncated", path, f"{_cut_off(missing)}; fetch it again.")
    if is_container(path):
        reason = f"its header is damaged ({reason_of(error)}); fetch it again."
        return DecodeError("corrupt", path, reason)
    return DecodeError("unreadable", path, f"not a video file ({reason_of(error)}).")


def damaged_file(path: str, reason: str) -> DecodeError:
    """The DecodeError of a file that stops decoding: truncated when its end is missing, else corrupt."""
    if missing := missing_bytes(path):
        return DecodeError("truncated", path, f"{_cut_off(missing)}; {reason}")
    return DecodeError("corrupt", path, reason)


def _cut_off(missing: int) -> str:
    return f"its end is missing (at least {missing} bytes): it was cut off or never finished"
