"""How many bytes a video file lacks, read from its own structure; no decoder is asked.

Most containers write lengths in front of their parts. A part that runs beyond the end of the file was cut off,
which tells a download that stopped from a file that rotted.
"""

from __future__ import annotations

import os
from typing import BinaryIO


def missing_bytes(path: str) -> int:
    """Return by how many bytes (at least) the file ends before its structure does; 0 when whole, or unknown."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(16)
            for name, measure in _MEASURES:
                if name(head):
                    return max(0, measure(file, size))
    except OSError:
        pass
    return 0


def _mp4(file: BinaryIO, size: int) -> int:
    """Boxes in a row: 4 bytes of length, 4 of type; length 1 means 8 bytes follow, 0 means to the end."""
    place, index_seen = 0, False
    while place < size:
        file.seek(place)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if len(header) < 8:
            return 8 - len(header)
        if length == 0:
            return 0
        if length < 8 or not all(32 <= byte < 127 or byte == 169 for byte in kind):
            return 0  # not a box: damaged, not cut
        index_seen |= kind == b"moov"
        place += length
    return (
        place - size if place > size or index_seen else 1
    )  # without its index it was never finished


def _riff(file: BinaryIO, size: int) -> int:
    """RIFF, 4 bytes of length; a recording beyond 1 GB goes on in further RIFF chunks."""
    place = 0
    while place < size:
        file.seek(place)
        header = file.read(8)
        if len(header) < 8 or header[:4] != b"RIFF":
            return 0
        place += 8 + int.from_bytes(header[4:8], "little")
        place += place % 2
    return place - size if place - size > 1 else 0


def _ebml_number(file: BinaryIO, *, keep_marker: bool) -> tuple[int, bool]:
    """A variable-length number and whether all its bits are ones (which means: length unknown)."""
    first = file.read(1)
    if not first or not first[0]:
        raise EOFError
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        raise EOFError
    value = int.from_bytes(first + rest, "big")
    ones = (1 << 7 * length) - 1
    return (value if keep_marker else value & ones), value & ones == ones


_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675


def _matroska(file: BinaryIO, size: int) -> int:
    """Elements of id and length; a live recording leaves the lengths of segment and clusters open."""
    place = 0
    try:
        while place < size:
            file.seek(place)
            kind, _ = _ebml_number(file, keep_marker=True)
            length, unknown = _ebml_number(file, keep_marker=False)
            if kind == _SEGMENT and not unknown:
                return file.tell() + length - size
            place = file.tell()
            if kind not in (_SEGMENT, _CLUSTER):
                place += length
    except EOFError:
        return 1
    return place - size


def _gif(file: BinaryIO, size: int) -> int:
    """A GIF ends with a semicolon; some programs pad after it."""
    file.seek(max(0, size - 512))
    return 0 if file.read().rstrip(b"\0\r\n ").endswith(b";") else 1


def _transport_stream(file: BinaryIO, size: int) -> int:
    """Packets of 188 bytes, each beginning with 0x47."""
    file.seek(188)
    return -size % 188 if file.read(1) == b"\x47" else 0


def _flv(file: BinaryIO, size: int) -> int:
    """Tags of an 11-byte header, a body, and 4 bytes after it."""
    place = 13
    while place < size:
        file.seek(place)
        header = file.read(4)
        if len(header) < 4:
            return 11 - len(header)
        if header[0] & 0x1F not in (8, 9, 18):
            return 0  # not a tag: damaged, not cut
        place += 11 + int.from_bytes(header[1:4], "big") + 4
    return place - size


_BOXES = (b"ftyp", b"moov", b"mdat", b"styp", b"free", b"skip", b"wide")
_MEASURES = (
    (lambda head: head[4:8] in _BOXES, _mp4),
    (lambda head: head[:4] == b"RIFF" and head[8:11] == b"AVI", _riff),
    (lambda head: head[:4] == b"\x1a\x45\xdf\xa3", _matroska),
    (lambda head: head[:4] == b"GIF8", _gif),
    (lambda head: head[:3] == b"FLV", _flv),
    (lambda head: head[:1] == b"\x47", _transport_stream),
)


def is_container(path: str) -> bool:
    """Whether the file begins like a video container, whatever follows."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return any(name(head) for name, _ in _MEASURES[:-1])
