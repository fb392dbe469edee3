"""A corpus of videos with everything wrong that people's collections have, and what should be said of each file."""

import random
import shutil
from pathlib import Path

import av
import numpy as np
from numbered_video import turn_header, write_numbered
from test_frame_exactness import KINDS, write

from stretchysnake.data.decoding.video import write_image, write_video

CUTS = (0.1, 0.5, 0.9)


def textured(num_frames=40, seed=0):
    """Moving texture, so that a file has enough bytes for damage to hit pictures."""
    rng = np.random.default_rng(seed)
    picture = np.kron(rng.integers(0, 256, (30, 40, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    frames = np.stack([picture[t : t + 96, 2 * t : 2 * t + 128] for t in range(num_frames)])
    return frames + rng.integers(0, 8, frames.shape).astype(np.uint8)


def flip_bits(content, *, count, seed):
    """The file with `count` bits of its pictures changed, spread over them."""
    changed, draw = bytearray(content), random.Random(seed)
    first = content.index(b"mdat") + 64 if b"mdat" in content else len(content) // 3
    last = content.index(b"moov") - 8 if content.find(b"moov") > first else len(content) - 64
    for _ in range(count):
        changed[draw.randrange(first, last)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _sound(path, codec, layout="mono"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=16000, layout=layout)
        for start in range(0, 16000, 1024):
            samples = np.zeros((1, 1024), np.float32 if codec == "aac" else np.int16)
            kind = "fltp" if codec == "aac" else "s16"
            frame = av.AudioFrame.from_ndarray(samples, format=kind, layout=layout)
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def build(folder):
    """Write the corpus; return path -> (what is wrong with it, kinds that name it right). "ok" is a kind, too."""
    folder, found = Path(folder), {}

    def note(name, wrong, *kinds):
        found[str(folder / name)] = (wrong, kinds)
        return folder / name

    plain = write_numbered(note("plain.mp4", "nothing", "ok"), 40)
    for name, (extension, settings) in KINDS.items():  # odd but right: VFR, rotation, 10 bit ...
        write(note(f"{name}-{extension}", f"nothing ({name})", "ok"), **settings)
    shutil.copy(plain, note("turned.mp4", "nothing (rotated)", "ok"))
    turn_header(folder / "turned.mp4", 90)
    for name in ("with space.mp4", "ünï-日本.mp4", "-dash.mp4", "a:b.mp4", "quote'%s.mp4"):
        shutil.copy(plain, note(name, "nothing (name)", "ok"))
    shutil.copy(plain, note("mp4-named.avi", "wrong extension only", "ok"))

    write_video(folder / "t.mp4", textured(), options={"g": "20", "bf": "2", "crf": "26"})
    for name in ("mp4", "avi", "mkv", "webm"):
        codec = {"avi": "mpeg4", "webm": "libvpx-vp9"}.get(name, "libx264")
        options = {"deadline": "realtime"} if name == "webm" else {"b": "1M"}
        write_video(folder / f"t.{name}", textured(), codec=codec, options=options)
        content = (folder / f"t.{name}").read_bytes()
        for share in CUTS:
            path = note(f"cut{share}.{name}", f"cut at {share}", "truncated")
            path.write_bytes(content[: int(share * len(content))])
    moved = folder / "moov-first.mp4"
    with av.open(str(moved), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "20"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for pixels in textured():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    content = moved.read_bytes()
    for share in (0.3, *CUTS[1:]):
        path = note(f"moov-first-cut{share}.mp4", "half of its packets", "truncated")
        path.write_bytes(content[: int(share * len(content))])

    good = (folder / "t.mp4").read_bytes()
    for seed in range(20):
        path = note(f"flipped{seed}.mp4", "60 flipped bits", "corrupt")
        path.write_bytes(flip_bits(good, count=60, seed=seed))
    for seed in range(6):
        path = note(f"shredded{seed}.mp4", "2,000 flipped bits", "corrupt")
        path.write_bytes(flip_bits(content, count=2000, seed=seed))
    hole = bytearray(good)
    hole[len(good) // 3 : len(good) // 2] = bytes(len(good) // 2 - len(good) // 3)
    note("hole.mp4", "a hole of zeros", "corrupt").write_bytes(hole)
    index = good.index(b"moov")
    rotten = good[: index + 40] + bytes(len(good) - index - 40)
    note("index-rotten.mp4", "its index is zeros", "corrupt", "truncated").write_bytes(rotten)
    note("no-moov.mp4", "no index", "truncated").write_bytes(good[:index])
    note("moov-only.mp4", "pictures gone", "truncated", "corrupt").write_bytes(
        good[: good.index(b"mdat") - 4] + good[index - 4 :]
    )

    note("zero.mp4", "0 bytes", "empty").write_bytes(b"")
    note("406.mp4", "406 bytes of a video", "truncated").write_bytes(good[:406])
    note("html406.mp4", "406 bytes of a page", "unreadable").write_bytes(
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 9)[:406]
    )
    note("text.mp4", "text", "unreadable").write_text("this is not a video\n" * 50)
    note("list.mp4", "text", "unreadable").write_text("path,label\na.mp4,0\n" * 20)
    note("playlist.mp4", "a playlist", "unreadable").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{plain}\n#EXT-X-ENDLIST\n"
    )
    note("zeros.mp4", "zeros", "unreadable").write_bytes(bytes(20000))
    note("noise.avi", "noise", "unreadable").write_bytes(
        np.random.default_rng(0).integers(0, 256, 20000, dtype=np.uint8).tobytes()
    )
    note("zip.mp4", "an archive", "unreadable").write_bytes(b"PK\x03\x04" + bytes(2000))
    note("folder.mp4", "a folder", "unreadable").mkdir()
    note("link.mp4", "a dangling link", "missing").symlink_to(folder / "nowhere.mp4")
    note("gone.mp4", "not there", "missing")
    write_image(note("png.mp4", "an image", "no_video"), textured(1)[0])
    note("jpeg.avi", "an image", "no_video").write_bytes(b"\xff\xd8\xff\xe0" + bytes(3000))
    _sound(note("sound.mp4", "audio only", "no_video"), "aac")
    _sound(note("wave.wav", "audio only", "no_video"), "pcm_s16le")
    shutil.copy(folder / "wave.wav", note("wave-named.mp4", "audio only", "no_video"))
    for name in ("t.mp4", "t.avi", "t.mkv", "t.webm", "moov-first.mp4"):
        note(name, "nothing", "ok")
    return found
