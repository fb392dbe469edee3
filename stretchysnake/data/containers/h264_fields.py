"""Interlaced H.264 whose packets may be fields (AVCHD, DVB): which packet begins a frame, read from its slice headers.

the file's packets    top 0 | bottom 0 | top 1 | bottom 1 | frame 2 | top 3, bottom 3
what each begins      frame 0          | frame 1          | frame 2 | frame 3
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import NamedTuple

_SLICES, _SEQUENCE = (1, 2, 5), 7
"""Types of NAL units."""
_WITH_CHROMA = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)
"""Profiles whose sequence parameters tell the chroma format and scaling lists."""
_OTHER = {"top": "bottom", "bottom": "top"}
_HEAD = 32
"""Bytes of a slice that surely hold what is read of it."""


class _Sequence(NamedTuple):
    has_fields: bool
    frame_bits: int
    has_planes: bool


def field_types(extradata: bytes | None) -> Callable | None:
    """A function from a packet to "P" or "B" (p, b: a field that waits for the other one), or "" for a frame's second
    field; None where no picture of the stream is a field."""
    extradata = extradata or b""
    length = (extradata[4] & 3) + 1 if len(extradata) > 8 and extradata[0] == 1 else 0
    head = extradata[8:] if length else next(_units(extradata, 0, _SEQUENCE), b"")
    sequence = _sequence(head) if head else None
    if sequence is None or not sequence.has_fields:
        return None
    first = None

    def types_of(packet) -> str:
        nonlocal sequence, first
        slices = []
        for unit in _units(bytes(packet), length, _SEQUENCE, *_SLICES):
            if unit[0] & 31 == _SEQUENCE:
                sequence = _sequence(unit)
            else:
                slices.append(_slice(unit, sequence))
        fields = {(number, field) for _, number, field in slices}
        number, field = fields.pop() if len(fields) == 1 else (0, "")
        if first == (number, _OTHER.get(field)):
            first = None
            return ""
        first = (number, field) if field else None
        kind = "B" if any(is_b for is_b, _, _ in slices) else "P"
        return kind.lower() if field else kind

    return types_of


def _units(content: bytes, length: int, *kinds: int) -> Iterator[bytes]:
    """The NAL units of these types, behind start codes or each behind its length of so many bytes."""
    if length:
        at = 0
        while at + length < len(content):
            size = int.from_bytes(content[at : at + length], "big")
            if content[at + length] & 31 in kinds:
                yield content[at + length : at + length + size]
            at += length + size
    else:
        yield from (unit for unit in content.split(b"\0\0\1")[1:] if unit and unit[0] & 31 in kinds)


def _reader(unit: bytes) -> tuple[Callable[[int], int], Callable[[], int]]:
    """(take(n bits), take an Exp-Golomb number), which read on behind the unit's type; zeros behind its end."""
    bits = iter("".join(f"{byte:08b}" for byte in unit[1:].replace(b"\0\0\3", b"\0\0")))

    def take(count: int) -> int:
        return int("".join(islice(bits, count)) or "0", 2)

    def golomb() -> int:
        zeros = sum(1 for _ in takewhile("0".__eq__, bits))
        return (1 << zeros) - 1 + take(zeros)

    return take, golomb


def _sequence(unit: bytes) -> _Sequence:
    take, golomb = _reader(unit)
    profile, has_planes = take(8), False
    take(16), golomb()
    if profile in _WITH_CHROMA:
        chroma = golomb()
        has_planes = chroma == 3 and take(1) == 1
        golomb(), golomb(), take(1)
        if take(1):
            for number in range(12 if chroma == 3 else 8):
                if take(1):
                    _pass_scaling_list(16 if number < 6 else 64, golomb)
    frame_bits = 4 + golomb()
    order = golomb()
    if order == 0:
        golomb()
    elif order == 1:
        take(1), golomb(), golomb()
        for _ in range(min(255, golomb())):
            golomb()
    golomb(), take(1), golomb(), golomb()
    return _Sequence(not take(1), frame_bits, has_planes)


def _pass_scaling_list(length: int, golomb: Callable[[], int]) -> None:
    last = 8
    for _ in range(length):
        code = golomb()
        last = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
        if not last:  # the rest repeats
            return


def _slice(unit: bytes, sequence: _Sequence) -> tuple[bool, int, str]:
    """(whether it is bidirectional, the number of its frame, "top", "bottom" or "" for a frame)."""
    take, golomb = _reader(unit[:_HEAD])
    golomb()
    kind = golomb()
    golomb(), take(2 if sequence.has_planes else 0)
    number = take(sequence.frame_bits)
    field = ("top", "bottom")[take(1)] if sequence.has_fields and take(1) else ""
    return kind % 5 == 1, number, field
