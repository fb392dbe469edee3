"""Videos whose colours say which way up, how wide and of which track a picture is; and what ffmpeg shows of them."""

import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
NAMES = {"R": RED, "G": GREEN, "B": BLUE, "W": WHITE}


def quarters(count=3, *, height=64, width=96, colours="RGBW"):
    """Frames (T, H, W, 3) of four quarters: top left, top right, bottom left, bottom right."""
    picture = np.zeros((height, width, 3), np.uint8)
    for number, name in enumerate(colours):
        top, left = number // 2 * height // 2, number % 2 * width // 2
        picture[top : top + height // 2, left : left + width // 2] = NAMES[name]
    return np.repeat(picture[None], count, 0)


def colours_of(frame):
    """The names of the four quarters' colours, looked up at their middles."""
    height, width = frame.shape[:2]
    found = ""
    for y, x in ((1, 1), (1, 3), (3, 1), (3, 3)):
        pixel = frame[y * height // 4, x * width // 4].astype(int)
        distances = {name: abs(pixel - colour).sum() for name, colour in NAMES.items()}
        name = min(distances, key=distances.get)
        found += name if distances[name] < 90 else "?"
    return found


def circle(count=3, *, height=90, width=160, aspect=1.0):
    """Frames with a white disc that is round where pixels are `aspect` times as wide as high; radius a third of H."""
    y, x = np.mgrid[:height, :width] + 0.5
    inside = (y - height / 2) ** 2 + ((x - width / 2) * float(aspect)) ** 2 < (height / 3) ** 2
    picture = np.where(inside[..., None], 255, 0).astype(np.uint8).repeat(3, -1)
    return np.repeat(picture[None], count, 0)


def width_and_height_of(frame):
    """Of the white in a frame, in pixels, through its middle."""
    grey = frame.astype(float).mean(-1) > 127
    return int(grey[frame.shape[0] // 2].sum()), int(grey[:, frame.shape[1] // 2].sum())


def encoded(frames, *, codec="libx264", aspect=None, rate=10, options=None):
    """(the encoder's context, packets) of frames (T, H, W, 3)."""
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = frames.shape[1:3]
    context.pix_fmt, context.time_base, context.thread_count = "yuv420p", Fraction(1, rate), 1
    context.framerate = rate
    if aspect is not None:
        context.sample_aspect_ratio = aspect
    if options or codec == "libx264":
        context.options = options or {"preset": "ultrafast", "crf": "5"}
    else:
        context.options = {"deadline": "realtime", "crf": "4", "b": "4M"}
    packets = []
    for t, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = t, Fraction(1, rate)
        packets += context.encode(frame)
    return context, packets + context.encode(None)


def write_painted(path, frames, *, codec="libx264", aspect=None, default=None, matrix=None):
    """A file with one track for each of `frames`; `default` names the tracks that are marked so."""
    tracks = frames if isinstance(frames, list) else [frames]
    with av.open(str(path), "w") as out:
        streams = []
        for pixels in tracks:
            stream = out.add_stream(codec, rate=10)
            stream.height, stream.width = pixels.shape[1:3]
            stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
            stream.options = {"preset": "ultrafast", "crf": "5"} if codec == "libx264" else {}
            if aspect is not None:
                stream.codec_context.sample_aspect_ratio = aspect
            if default is not None:
                stream.disposition = int(len(streams) in default)
            streams.append(stream)
        for stream, pixels in zip(streams, tracks, strict=True):
            for picture in pixels:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(stream.encode())
    if matrix is not None:
        write_matrix(path, *matrix)
    return path


def write_matrix(path, a, b, c, d):
    """The display matrix of an mp4's or mov's first track: 16.16 fixed point, rows (a b u) (c d v)."""
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd")
    for place, value in zip((0, 4, 12, 16), (a, b, c, d), strict=True):
        at = header + 4 + 4 + 36 + place
        content[at : at + 4] = round(value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(content)


def write_changing(path, *parts, codec="libvpx", rate=10, options=None):
    """A file whose picture changes its size: parts (T, H, W, 3), one after another in one track (VP8)."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.height, stream.width = parts[0].shape[1:3]
        stream.pix_fmt = "yuv420p"
        first = 0
        for frames in parts:
            for packet in encoded(frames, codec=codec, rate=rate, options=options)[1]:
                packet.pts, packet.dts = packet.pts + first, packet.dts + first
                packet.time_base, packet.stream = Fraction(1, rate), stream
                out.mux(packet)
            first += len(frames)
    return path


def ffmpeg_frames(path):
    """What ffmpeg shows, upright (T, H, W, 3); None where it is not installed."""
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        return None
    shown = ["-fps_mode", "passthrough", "-pix_fmt", "rgb24"]
    png = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", path, "-frames:v", "1", "-c:v", "ppm", "-f", "image2pipe", "-"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    width, height = map(int, png.split(maxsplit=3)[1:3])
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", path, *shown, "-f", "rawvideo", "-"], capture_output=True, check=True
    ).stdout  # fmt: skip
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
