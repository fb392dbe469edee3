"""H.264 of field pictures (PAFF), as AVCHD and DVB have it, which no encoder at hand writes: raw samples, by hand."""

from fractions import Fraction

import av
import numpy as np
from numbered_video import numbered_frames

_SQUARES = 4
"""Macroblocks (16 x 16) in a row; a field has one row, a frame of 64 x 32 has two fields."""
_START = b"\0\0\0\1"


class _Bits:
    def __init__(self):
        self.bits = ""

    def put(self, length, *values):
        self.bits += "".join(f"{value:0{length}b}" for value in values)

    def golomb(self, *values):
        for value in values:
            self.put(2 * (value + 1).bit_length() - 1, value + 1)

    def align(self):
        self.bits += "0" * (-len(self.bits) % 8)

    def unit(self, kind):
        """The NAL unit, with the bytes that keep start codes out of it."""
        self.bits += "1"
        self.align()
        content, zeros = bytearray(_START + bytes([kind])), 0
        for at in range(0, len(self.bits), 8):
            byte = int(self.bits[at : at + 8], 2)
            if zeros >= 2 and byte <= 3:
                content.append(3)
                zeros = 0
            content.append(byte)
            zeros = 0 if byte else zeros + 1
        return bytes(content)


def _settings():
    """Sequence and picture parameters: main profile, fields allowed, 25 frames a second, nothing reordered."""
    sequence = _Bits()
    sequence.put(8, 77, 0, 30)
    sequence.golomb(0, 0, 0, 4, 1)
    sequence.put(1, 0)
    sequence.golomb(_SQUARES - 1, 0)
    sequence.put(1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1)
    sequence.put(32, 1, 50)
    sequence.put(1, 1, 0, 0, 0, 1, 1)
    sequence.golomb(0, 0, 10, 10, 0, 1)
    picture = _Bits()
    picture.golomb(0, 0)
    picture.put(1, 0, 0)
    picture.golomb(0, 0, 0)
    picture.put(1, 0, 0, 0)
    picture.golomb(0, 0, 0)
    picture.put(1, 1, 0, 0)
    return sequence.unit(0x67) + picture.unit(0x68)


def _field(luma, number, bottom):
    """A field (16, 64) of frame `number`, of which every tenth is a key frame."""
    place, field = number % 10, _Bits()
    key = place == 0 and not bottom
    field.golomb(0, 7 if key else 5, 0)
    field.put(4, place)
    field.put(1, 1, bottom)
    if key:
        field.golomb(number // 10 % 2)
    field.put(8, 2 * place + bottom)
    field.put(1, *([0, 0] if key else [0, 0, 0]))
    field.golomb(0, 1)
    for square in np.split(luma, _SQUARES, axis=1):
        field.golomb(*([25] if key else [0, 30]))  # raw samples
        field.align()
        field.put(8, *square.flatten().tolist(), *[128] * 128)
    return _START + b"\x09\x10" + (_settings() if key else b"") + field.unit(0x65 if key else 0x61)


def fields(num_frames):
    """The packets of both fields of each frame, which shows its number."""
    grey = np.clip(numbered_frames(num_frames, height=32, width=64)[..., 0], 16, 235)
    return [_field(grey[t][bottom::2], t, bottom) for t in range(num_frames) for bottom in (0, 1)]


def write_fields(path, packets, place):
    """Mux them; packet i has the time stamp place(i) / 90000, or none."""
    raw = path.with_suffix(".h264")
    raw.write_bytes(b"".join(packets))
    clock = Fraction(1, 90000)
    with av.open(str(raw)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        stream.time_base = clock
        for i, content in enumerate(packets):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, clock
            packet.pts = packet.dts = place(i)
            packet.is_keyframe = b"\0\0\1\x65" in content
            out.mux(packet)
    return path
