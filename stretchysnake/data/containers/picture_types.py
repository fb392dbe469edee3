"""Which pictures a packet holds, read from its start codes: for codecs whose packets and frames may not be one to one.

b"... 00 00 01 b6 ..." -> "P"; two pictures packed into one packet -> "PB"; a placeholder -> "N"
"""

from __future__ import annotations

from collections.abc import Callable

from stretchysnake.data.containers.h264_fields import field_types

_MOST_PLACEHOLDER_BYTES = 19
"""A packet of MPEG-4 no longer than this may say "no picture here", and the decoder takes it so after a packed one."""


def picture_types(codec: str, extradata: bytes | None) -> Callable | None:
    """A function from a packet to its pictures' types, IPBS, N (perhaps none), "" (hidden); None where each has one.

    It is to see all packets in their order, and says p or b of half a frame whose other half comes next.
    """
    if codec == "h264":
        return field_types(extradata)
    if codec in ("mpeg1video", "mpeg2video"):
        return _mpeg2_types()
    return {"mpeg4": _mpeg4, "vp8": _vp8}.get(codec)


def _mpeg4(packet) -> str:
    content = bytes(packet)
    types = "".join("IPBS"[content[at] >> 6] for at in _after(content, b"\0\0\1\xb6"))
    return "N" if len(types) == 1 and len(content) <= _MOST_PLACEHOLDER_BYTES else types or "N"


def _mpeg2_types() -> Callable:
    """Two fields of one frame may share a packet, so only one type is told; with N where the picture changes its size,
    since the decoder may drop the frame that it holds."""
    size = None

    def types_of(packet) -> str:
        nonlocal size
        content, before = bytes(packet), size
        for at in _after(content, b"\0\0\1\xb3", 3):
            size = content[at : at + 3]
        types = {content[at + 1] >> 3 & 7 for at in _after(content, b"\0\0\1\0", 2)}
        return ("B" if 3 in types else "P") + "N" * (before not in (None, size))

    return types_of


def _vp8(packet) -> str:
    return "P" if bytes(packet)[0] & 16 else ""


def _after(content: bytes, code: bytes, room: int = 1):
    at = content.find(code)
    while 0 <= at < len(content) - len(code) - room + 1:
        yield at + len(code)
        at = content.find(code, at + len(code))
