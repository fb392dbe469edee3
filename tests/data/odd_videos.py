"""Videos as people's programs leave them, made by code: 48 x 96 pixels, numbered in colour, and what each must show.

`ODD` maps a kind to its maker: a function from a folder to (path, the numbers shown, a part of the note or "").
"""

import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numbered_video import numbered_frames

COLOURS = ((20, 30, 110), (250, 200, 60))
HEIGHT, WIDTH = 48, 96
FIXTURES = Path(__file__).parent.parent / "fixtures"
TICK = 512
"""Ticks of one frame of an mp4 of 30 frames/s, whose clock has 15,360 a second."""

PLAIN = {"bf": "0", "g": "10"}
REORDERED = {"bf": "2", "g": "20", "x264-params": "b-adapt=0"}
OPEN_GOP = {"bf": "2", "g": "12", "x264-params": "b-adapt=0:open-gop=1"}
MJPEG = {"codec": "mjpeg", "pixels": "yuvj420p", "options": {"qmin": "1", "qmax": "3"}}
MPEG4 = {"codec": "mpeg4", "options": {"b": "2M", "bf": "0", "g": "20"}}
MPEG4_B = {"codec": "mpeg4", "options": {"b": "2M", "bf": "2", "g": "20"}}
MPEG2 = {"codec": "mpeg2video", "options": {"b": "4M", "bf": "2"}}
HEVC = {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params":
        "log-level=none:pools=1:frame-threads=1:bframes=3:b-adapt=0:keyint=20"}}  # fmt: skip


def painted(numbers):
    """The pictures (T, 48, 96, 3) that show these numbers."""
    return numbered_frames(256, height=HEIGHT, width=WIDTH, colours=COLOURS)[list(numbers)]


def encode(path, numbers, *, codec="libx264", options=None, pixels="yuv420p", place=None, last=None,
           sound=0, rate=30, container=None):  # fmt: skip
    """Write frames; `place` moves frame t on the clock (in frames), `last` is the last packet's length (in frames)."""
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=options or PLAIN)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.thread_count = 1
        voice = out.add_stream("aac", rate=16000, layout="mono") if sound else None
        packets = []
        for t, picture in enumerate(painted(numbers)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (place(t) if place else t), 1 / Fraction(rate)
            packets += stream.encode(frame)
        packets += stream.encode()
        if last:
            packets[-1].duration = last
        for start in range(0, 16000 * sound, 1024):
            piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            piece.sample_rate, piece.pts = 16000, start
            packets += voice.encode(piece)
        packets += voice.encode() if sound else []
        for packet in packets:
            out.mux(packet)
    return Path(path)


def copy(source, path, change=lambda number, packet: None):
    """Copy the packets into another container; `change(number, packet)` sets times."""
    with av.open(str(source)) as read, av.open(str(path), "w") as out:
        stream = read.streams.video[0]
        target = out.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in read.demux(stream) if p.size):
            packet.stream = target
            change(number, packet)
            out.mux(packet)
    return Path(path)


def times_of_decoding(number, packet):
    """As programs write that know no composition offsets: pts = dts, in the order of the file."""
    packet.time_base, packet.duration = Fraction(1, 15360), TICK
    packet.pts = packet.dts = number * TICK


def moved(seconds):
    def change(number, packet):
        ticks = round(seconds / packet.time_base)
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks

    return change


def find_box(content, *kinds):
    """(place, length) of a box inside boxes; None where there is none."""
    start, stop = 0, len(content)
    for kind in kinds:
        place = start
        while place + 8 <= stop:
            length = int.from_bytes(content[place : place + 4], "big")
            if content[place + 4 : place + 8] == kind:
                break
            place += length
        else:
            return None
        start, stop = place + 8, place + length
    return place, length


def edit(path, *pieces, rate=30):
    """Have an mp4 whose index is at its end show pieces (first frame, number of frames) through an edit list."""
    content = bytearray(path.read_bytes())

    def ticks(*box):
        place, _ = find_box(content, *box)
        return int.from_bytes(content[place + 20 : place + 24], "big")

    movie, media = ticks(b"moov", b"mvhd"), ticks(b"moov", b"trak", b"mdia", b"mdhd")
    old, delay = find_box(content, b"moov", b"trak", b"edts"), 0
    if old:  # the delay that B-frames need
        place, _ = find_box(content, b"moov", b"trak", b"edts", b"elst")
        delay = int.from_bytes(content[place + 20 : place + 24], "big")
    entries = b"".join(
        struct.pack(">IiI", n * movie // rate, delay + first * media // rate, 1 << 16)
        for first, n in pieces
    )
    body = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(pieces)) + entries
    body = struct.pack(">I4s", 8 + len(body), b"edts") + body
    header = find_box(content, b"moov", b"trak", b"tkhd")
    place, length = old or (sum(header), 0)
    grown = [(box, find_box(content, *box)) for box in ((b"moov",), (b"moov", b"trak"))]
    content[place : place + length] = body
    for _, (at, size) in grown:
        content[at : at + 4] = (size + len(body) - length).to_bytes(4, "big")
    path.write_bytes(content)
    return path


def behind(path, extra):
    path.write_bytes(path.read_bytes() + extra)
    return path


def joined(folder, name, *, settings=None, first=0.0, second=0.0, numbers=(range(40), range(30))):
    """Two recordings one after the other, their clocks moved by seconds."""
    content = b""
    for number, (shown, by) in enumerate(zip(numbers, (first, second), strict=True)):
        piece = encode(
            folder / f"piece{number}-{name}", shown, **(settings or {"options": REORDERED})
        )
        if by:
            piece = copy(piece, folder / f"moved{number}-{name}", moved(by))
        content += piece.read_bytes()
    (folder / name).write_bytes(content)
    return folder / name, [*numbers[0], *numbers[1]], "its clock starts anew"


def _reordered(name, settings=None):
    """B-frames whose packets say pts = dts."""

    def make(folder):
        source = encode(folder / "source.mp4", range(60), **(settings or {"options": REORDERED}))
        return copy(source, folder / name, times_of_decoding), range(60), ""

    return make


def _copied(settings, source, name):
    def make(folder):
        return (
            copy(encode(folder / f"s-{source}", range(60), **settings), folder / name),
            range(60),
            "",
        )

    return make


def _edited(*pieces, options=PLAIN):
    def make(folder):
        path = edit(encode(folder / "v.mp4", range(60), options=options), *pieces)
        return path, [first + i for first, count in pieces for i in range(count)], ""

    return make


def _plain(name, shown=range(60), **settings):
    return lambda folder: (encode(folder / name, shown, **settings), shown, "")


def _moved(name, seconds, shown=range(60)):
    def make(folder):
        source = encode(folder / "source.mp4", range(60))
        return copy(source, folder / name, moved(seconds)), shown, ""

    return make


def _behind(extra, name="v.mp4", shown=range(60), **settings):
    return lambda folder: (behind(encode(folder / name, shown, **settings), extra), shown, "")


def _late_start(settings):
    """A transport stream received from its middle on."""

    def make(folder):
        path = encode(folder / "v.ts", range(60), **settings)
        content = path.read_bytes()
        path.write_bytes(content[len(content) // 4 // 188 * 188 :])
        return path, None, "refer to pictures before its beginning"

    return make


def _joined_late(folder):
    """A recording received from its middle on, and then a whole one."""
    late, _, _ = _late_start({"options": REORDERED})(folder)
    whole = encode(folder / "whole.ts", range(60), options=REORDERED)
    path = folder / "joined.ts"
    path.write_bytes(late.read_bytes() + whole.read_bytes())
    return path, [*range(16, 60), *range(60)], "its clock starts anew"


def _stopped(folder):
    """Stopped by hand in the second packet of a frame whose first is there; with B-frames the file's order differs."""
    path = encode(folder / "v.ts", range(60), codec="mpeg2video", options={"b": "4M", "bf": "0"})
    with av.open(str(path)) as read:
        starts = [packet.pos for packet in read.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: starts[40] + 188 + 100])
    return path, range(40), "it ends inside a packet"


def _stopped_between(folder):
    """Stopped in the first packet of a frame: all before it is whole."""
    path, _, note = _stopped(folder)
    path.write_bytes(path.read_bytes()[:-188])
    return path, range(40), note


def _packed(folder):
    """Two pictures in a packet and a placeholder after it; the encoder dropped 57 and 58."""
    return Path(shutil.copy(FIXTURES / "xvid-packed-bframes.avi", folder)), [*range(57), 59], ""


def _packed_copied(folder):
    return copy(_packed(folder)[0], folder / "v.mp4"), [*range(57), 59], ""


def _doubled_time(folder):
    def change(number, packet):
        packet.time_base, packet.duration = Fraction(1, 1000), 33
        packet.pts = packet.dts = 33 * (number - (number == 20))

    return copy(encode(folder / "s.mp4", range(60)), folder / "v.mkv", change), range(60), ""


def dropped(t):
    """Two gaps, as capture programs leave: 40 frames in 46 places."""
    return t + (t >= 10) + 5 * (t >= 20)


FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
LIVE_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+skip_trailer"}
ALTREF = {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}
GIF = {"codec": "gif", "pixels": "rgb8", "rate": 10}
TEXT = b"made with a phone" * 40
SHORT = range(40)

ODD = {
    "h264-no-ctts-mp4": _reordered("v.mp4"),
    "h264-pts-is-dts-mkv": _reordered("v.mkv"),
    "hevc-no-ctts-mp4": _reordered("v.mp4", HEVC),
    "mpeg4-no-ctts-mp4": _reordered("v.mp4", MPEG4_B),
    "mpeg4-no-ctts-mov": _reordered("v.mov", MPEG4_B),
    "h264-bframes-avi": _plain("v.avi", options=REORDERED),
    "avi-copied-to-mp4": _copied(MPEG4_B, "v.avi", "v.mp4"),
    "packed-xvid-avi": _packed,
    "packed-xvid-mp4": _packed_copied,
    "mpeg2-bframes-ts": _plain("v.ts", **MPEG2),
    "mpeg2-no-bframes-ts": _plain("v.ts", codec="mpeg2video", options={"b": "4M", "bf": "0"}),
    "doubled-time-mkv": _doubled_time,
    "vp8-altref-webm": _plain("v.webm", codec="libvpx", options=ALTREF),
    "vp8-altref-ivf": _plain("v.ivf", codec="libvpx", options=ALTREF),
    "edit-tail-cut": _edited((0, 30)),
    "edit-tail-cut-bframes": _edited((0, 33), options=REORDERED),
    "edit-start-and-tail-cut": _edited((25, 30)),
    "edit-start-cut-bframes": _edited((25, 35), options=REORDERED),
    "edit-pieces": _edited((5, 10), (40, 15)),
    "edit-pieces-backwards": _edited((40, 10), (5, 20)),
    "edit-pieces-twice-bframes": _edited((3, 20), (3, 20), (30, 7), options=REORDERED),
    "starts-late-mp4": _moved("v.mp4", 3),
    "starts-late-mkv": _moved("v.mkv", 3),
    "starts-early-mp4": _moved("v.mp4", -0.5, range(15, 60)),
    "dropped-mpeg4-avi": _plain("v.avi", SHORT, place=dropped, **MPEG4),
    "dropped-mpeg4-bframes-avi": _plain("v.avi", SHORT, place=dropped, **MPEG4_B),
    "dropped-h264-avi": _plain("v.avi", SHORT, place=dropped),
    "dropped-mjpeg-avi": _plain("v.avi", SHORT, place=dropped, **MJPEG),
    "last-held-mkv": _plain("v.mkv", last=120),
    "sound-longer-flv": _plain("v.flv", sound=5),
    "sound-longer-mkv": _plain("v.mkv", sound=5),
    "sound-longer-mp4": _plain("v.mp4", sound=5),
    "sound-longer-avi": _plain("v.avi", sound=5, **MPEG4),
    "bytes-behind-gif": _behind(TEXT, "v.gif", range(12), **GIF),
    "semicolons-behind-gif": _behind(b"\0;;x" * 99, "v.gif", range(12), **GIF),
    "text-behind-mp4": _behind(TEXT),
    "three-bytes-behind-mp4": _behind(b"\0\0\0"),
    "text-behind-fragments": _behind(TEXT, container=FRAGMENTS),
    "three-bytes-behind-fragments": _behind(b"\0\0\0", container=FRAGMENTS),
    "text-behind-live-fragments": _behind(TEXT, container=LIVE_FRAGMENTS),
    "stopped-ts": _stopped,
    "stopped-between-frames-ts": _stopped_between,
    "late-start-ts": _late_start({"options": REORDERED}),
    "late-start-open-gop-ts": _late_start({"options": OPEN_GOP}),
    "late-start-mpeg2-ts": _late_start(MPEG2),
    "joined-same-clock-ts": lambda folder: joined(folder, "v.ts"),
    "joined-overlap-ts": lambda folder: joined(folder, "v.ts", second=0.511),
    "joined-overlap-mpeg2-ts": lambda folder: joined(folder, "v.ts", second=0.511, settings=MPEG2),
    "joined-ahead-100-ts": lambda folder: joined(folder, "v.ts", second=100),
    "joined-back-10-ts": lambda folder: joined(folder, "v.ts", first=10),
    "joined-back-100-ts": lambda folder: joined(folder, "v.ts", first=100),
    "joined-late-start-ts": _joined_late,
    "joined-mpg": lambda folder: joined(folder, "v.mpg", settings=MPEG2),
    "clock-wraps-ts": _moved("v.ts", 2**33 / 90000 - 2.5),
}
