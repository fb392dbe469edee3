"""The sample tables of an mp4 or QuickTime file: when are samples shown, do all lie in the file, does an edit list
hide some?

The last two are asked only where a file shows fewer frames than its header counts: a phone or an editor trims by an
edit list and leaves the samples where they are, which must be told from a file whose end is missing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_MOST_INDEX_BYTES = 2**28


def trimmed_samples(path: str, track: int) -> int | None:
    """How many samples a track has of which its edit list hides some; None where no edit list does, or some are lost.

    `track` is the track's number in its header. All tables must agree, and all samples lie inside the file.
    """
    try:
        index, body, size = _track(path, track)
        return _samples(index, body, size)
    except (OSError, KeyError, ValueError, IndexError):
        return None


def sample_times(path: str, track: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(delays, durations) (n,) int64 of a track's samples in ticks; None where the tables disagree or are not all.

    A sample is shown `delay` after it is decoded. Not all: further samples may lie in fragments.
    """
    try:
        index, body, _ = _track(path, track)
        if b"mvex" in dict(_boxes(index)):
            return None
        tables = _tables(dict(_boxes(body)))
        _, count = _lengths(tables[b"stsz"])
        durations = _one_each(tables[b"stts"], ">u4", count)
        if b"ctts" not in tables:
            return np.zeros_like(durations), durations
        return _one_each(tables[b"ctts"], ">i4", count), durations
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _track(path: str, number: int) -> tuple[bytes, bytes, int]:
    """(the index of the file, the part of it on this track, bytes of the file)"""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        index = _index_box(file, size)
    for kind, body in _boxes(index):
        if kind == b"trak" and _number(dict(_boxes(body))[b"tkhd"]) == number:
            return index, body, size
    raise KeyError(number)


def _tables(track: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return dict(_boxes(dict(_boxes(dict(_boxes(track[b"mdia"]))[b"minf"]))[b"stbl"]))


def _one_each(table: bytes, kind: str, count: int) -> np.ndarray:
    """The value of each sample, of a table of runs (samples, value); ValueError unless it has all `count`."""
    runs = _table(table, skip=0, kind=f">u4,{kind}")
    if int(runs["f0"].sum(dtype=np.int64)) != count:
        raise ValueError
    return np.repeat(runs["f1"].astype(np.int64), runs["f0"])


def _index_box(file, size: int) -> bytes:
    place = 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length, header = int.from_bytes(head[:4], "big"), 8
        if length == 1:
            length, header = int.from_bytes(head[8:16], "big"), 16
        length = length or size - place
        if head[4:8] == b"moov" and length <= _MOST_INDEX_BYTES:
            file.seek(place + header)
            return file.read(length - header)
        place += max(8, length)
    raise KeyError("moov")


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, body) of the boxes that follow one another in `content`."""
    place = 0
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big") or len(content) - place
        if length < 8 or place + length > len(content):
            raise ValueError
        yield content[place + 4 : place + 8], content[place + 8 : place + length]
        place += length


def _number(header: bytes) -> int:
    """The track's number: after the creation and modification times, which have 4 or 8 bytes."""
    at = 20 if header[0] else 12
    return int.from_bytes(header[at : at + 4], "big")


def _scale(header: bytes) -> int:
    """Ticks in a second, of a movie or media header."""
    at = 20 if header[0] else 12
    return int.from_bytes(header[at : at + 4], "big")


def _table(body: bytes, *, skip: int, kind: str) -> np.ndarray:
    """The entries of a table: version and flags, `skip` bytes, the number of entries, the entries."""
    count = int.from_bytes(body[4 + skip : 8 + skip], "big")
    return np.frombuffer(body, np.dtype(kind), count, 8 + skip)


def _samples(index: bytes, track: bytes, size: int) -> int | None:
    boxes = dict(_boxes(track))
    media = dict(_boxes(boxes[b"mdia"]))
    tables = _tables(boxes)
    lengths, count = _lengths(tables[b"stsz"])
    durations = _table(tables[b"stts"], skip=0, kind=">u4,>u4")
    if int(durations["f0"].sum()) != count:
        return None
    wide = b"co64" in tables
    offsets = _table(tables[b"co64" if wide else b"stco"], skip=0, kind=">u8" if wide else ">u4")
    runs = _table(tables[b"stsc"], skip=0, kind=">u4,>u4,>u4")
    chunks = np.diff(np.append(runs["f0"].astype(np.int64), len(offsets) + 1))
    per_chunk = np.repeat(runs["f1"].astype(np.int64), chunks)  # samples in each chunk
    stops = np.cumsum(per_chunk)
    if len(per_chunk) != len(offsets) or not len(stops) or stops[-1] != count:
        return None
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    bytes_of = ends[stops] - ends[stops - per_chunk]
    if int((offsets.astype(np.int64) + bytes_of).max()) > size:
        return None
    length = int((durations["f0"].astype(np.int64) * durations["f1"]).sum())
    shown = _shown_seconds(boxes, dict(_boxes(index))[b"mvhd"])
    frame = length / count
    whole = shown is None or shown * _scale(media[b"mdhd"]) > length - 0.5 * frame
    return None if whole else count


def _lengths(body: bytes) -> tuple[np.ndarray, int]:
    """(bytes of each sample, how many there are)"""
    same, count = int.from_bytes(body[4:8], "big"), int.from_bytes(body[8:12], "big")
    if same:
        return np.full(min(count, _MOST_INDEX_BYTES), same), count
    return _table(body, skip=4, kind=">u4"), count


def _shown_seconds(track: dict[bytes, bytes], movie_header: bytes) -> float | None:
    """What the pieces of the edit list last together; None without one."""
    pieces = dict(_boxes(track.get(b"edts", b""))).get(b"elst")
    if pieces is None:
        return None
    kind = ">u8,>i8,>u4" if pieces[0] else ">u4,>i4,>u4"
    entries = _table(pieces, skip=0, kind=kind)
    return float(entries["f0"][entries["f1"] >= 0].sum()) / _scale(movie_header)
