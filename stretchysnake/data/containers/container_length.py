"""How many bytes a video file lacks, read from its own structure; no decoder is asked.

Most containers write lengths in front of their parts. A part that runs beyond the end of the file was cut off,
which tells a download that stopped from a file that rotted.
"""

from __future__ import annotations

import os
import stat
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


_MP4_BOXES = frozenset(
    b"ftyp moov moof mdat mfra free skip wide uuid sidx ssix styp emsg prft meta pdin pnot udta junk".split()
)


def _mp4(file: BinaryIO, size: int) -> int:
    """Boxes in a row: 4 bytes of length, 4 of type; length 1 means 8 bytes follow, 0 means to the end."""
    place, index_seen, ended, fragmented, more_may_come = 0, False, False, False, True
    while place < size:
        file.seek(place)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if ended and kind != b"moof":  # whatever follows the index of fragments is no part of it
            return 0
        if len(header) < 8:
            cut = _begins_box(header) and more_may_come
            return 8 - len(header) if cut or not index_seen else 0
        if length == 0:
            return 0
        if length < 8 or not all(32 <= byte < 127 or byte == 169 for byte in kind):
            return 0  # not a box: damaged, not cut
        if place + length > size and index_seen and kind not in _MP4_BOXES:
            return 0  # text or a signature behind the end, whose letters read like a box
        index_seen |= kind == b"moov"
        ended = kind == b"mfra"
        fragmented |= kind == b"moof"
        more_may_come = fragmented or (more_may_come and kind != b"mdat")
        place += length
    # without its index it was never finished
    return place - size if place > size or index_seen else 1


def _begins_box(rest: bytes) -> bool:
    """Whether fewer than 8 bytes may be the beginning of a box that was cut: a small length, a known type."""
    if len(rest) < 4:
        return rest[:1] == b"\0"
    kind_fits = any(kind.startswith(rest[4:]) for kind in _MP4_BOXES)
    return rest[:1] == b"\0" and int.from_bytes(rest[:4], "big") >= 8 and kind_fits


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


def avi_places(path: str, stream: int) -> int | None:
    """How many pictures an AVI file has room for, empty chunks (dropped: the one before is held) included.

    None where a chunk runs beyond the end, or the index that follows the chunks is missing.
    """
    places, lists = 0, (b"RIFF", b"LIST")
    name, indexed = b"%02d" % stream, False
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        place = 0
        while place + 8 <= size:
            file.seek(place)
            head = file.read(12)
            length = int.from_bytes(head[4:8], "little")
            if head[:4] in lists:
                if head[:4] == b"LIST" and head[8:12] not in (b"movi", b"rec "):
                    place += 8 + length + length % 2
                else:
                    place += 12
                continue
            places += head[:2] == name and head[2:4] in (b"dc", b"db", b"DC", b"DB")
            indexed |= head[:4] == b"idx1"
            place += 8 + length + length % 2
            if place - length % 2 > size:
                return None
    return places if indexed and not missing_bytes(path) else None


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
    """A header, then blocks until a semicolon: an image (,) or an extension (!), each ending in counted pieces."""

    def colours(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 128 else 0

    file.seek(0)
    head = file.read(13)
    file.seek(colours(head[10]) if len(head) == 13 else 0, os.SEEK_CUR)
    while kind := file.read(1):
        if kind == b";":
            return 0
        if kind == b",":
            place = file.read(9)
            file.seek(1 + (colours(place[8]) if len(place) == 9 else 0), os.SEEK_CUR)
        elif kind == b"!":
            file.seek(1, os.SEEK_CUR)
        else:
            return 0  # not a block: damaged, not cut
        while (length := file.read(1)) not in (b"", b"\0"):
            file.seek(length[0], os.SEEK_CUR)
    return 1


def _transport_stream(file: BinaryIO, size: int) -> int:
    """Packets of 188 bytes, each beginning with 0x47; a camera's have 4 bytes of time before them."""
    packet = _packet_bytes(file)
    return -size % packet if packet and _last_byte_at(file, size, packet) == b"\x47" else 0


def _packet_bytes(file: BinaryIO) -> int:
    for packet in (188, 192):
        places = (packet - 188, 2 * packet - 188)
        if all(file.seek(place) >= 0 and file.read(1) == b"\x47" for place in places):
            return packet
    return 0


def _last_byte_at(file: BinaryIO, size: int, packet: int) -> bytes:
    """The first byte of the packet that the file ends in; 0x47 also where too little of it is left to tell."""
    place = size - size % packet + packet - 188
    file.seek(place)
    return file.read(1) or b"\x47"


def ends_inside_packet(path: str, stream_id: int) -> str | None:
    """What a transport stream that ends inside a packet was cut in; None where it does not.

    "picture": a frame of this stream that had begun before, of which a part is there. "other": something else, so that
    all frames before it are whole.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not _transport_stream(file, size):
            return None
        packet = _packet_bytes(file)
        file.seek(size - size % packet + packet - 188)
        head = file.read(3)
    begins = len(head) > 1 and head[1] & 64  # this packet is the first of what it carries
    other = len(head) == 3 and (head[1] & 31) << 8 | head[2] != stream_id
    return "other" if begins or other else "picture"


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


def _ivf(file: BinaryIO, size: int) -> int:
    """A header, then frames of a 12-byte header and as many bytes as its first four say."""
    file.seek(6)
    place = int.from_bytes(file.read(2), "little")
    while place < size:
        file.seek(place)
        header = file.read(12)
        if len(header) < 12:
            return 12 - len(header)
        place += 12 + int.from_bytes(header[:4], "little")
    return place - size


_BOXES = (b"ftyp", b"moov", b"mdat", b"styp", b"free", b"skip", b"wide")
_MEASURES = (
    (lambda head: head[4:8] in _BOXES, _mp4),
    (lambda head: head[:4] == b"RIFF" and head[8:11] == b"AVI", _riff),
    (lambda head: head[:4] == b"\x1a\x45\xdf\xa3", _matroska),
    (lambda head: head[:4] == b"GIF8", _gif),
    (lambda head: head[:3] == b"FLV", _flv),
    (lambda head: head[:4] == b"DKIF", _ivf),
    (lambda head: b"\x47" in (head[:1], head[4:5]), _transport_stream),
)


def is_special(path: str | os.PathLike) -> bool:
    """Whether this name leads to a pipe, a socket or a device, which may keep who opens it waiting for ever."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def first_bytes(path: str, count: int) -> bytes:
    """The first bytes of a file, at most `count`; none where it cannot be read."""
    if is_special(path):
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except OSError:
        return b""


def is_container(path: str) -> bool:
    """Whether the file begins like a video container, whatever follows."""
    head = first_bytes(path, 16)
    return any(name(head) for name, _ in _MEASURES[:-1])
