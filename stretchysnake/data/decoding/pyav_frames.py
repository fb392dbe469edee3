"""The frames of an opened file, decoded with PyAV: by seeking to time stamps, or in order from the first.

Both are generators of (frame index, pixels), in presentation order, so that a long video need not be held; pixels are
what `pixels_of(frame, index)` makes of a decoded frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from stretchysnake.data.containers.promised_length import header_rate
from stretchysnake.data.decode_error import damaged_file
from stretchysnake.data.processes.watchdog import watched
from stretchysnake.shown import reason_of


class SeekMissed(Exception):
    """Seeking did not go as it should; what was yielded before it is right."""


class TimesGoBack(Exception):
    """Frames come in another order than their time stamps say: only counting finds them."""


def packets_of(path: str, container, stream) -> Iterator:
    """The packets of a stream, undecoded; raises DecodeError."""
    import av

    try:
        yield from watched(container.demux(stream), header_rate(stream))
    except av.FFmpegError as error:
        reason = f"its packets cannot be read to the end ({reason_of(error)}); fetch it again."
        raise damaged_file(path, reason) from error


def frames_by_stamp(
    container, stream, index, wanted: Sequence[int], pixels_of
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the wanted frames (ascending), seeking only past key frames; raises SeekMissed.

    A damaged frame spoils all that follow it up to the next key frame, so those on the way count too.
    """
    import av

    stamps, position, clean_from = index.stamps, None, None
    target, decoded = None, None

    def decoded_from_here():
        for packet in watched(container.demux(stream), index.fps):
            # frames on the way that no other one refers to need no decoding
            if packet.pts in index.damaged:
                raise SeekMissed
            passed_over = packet.pts is not None and packet.pts < target
            stream.codec_context.skip_frame = "NONREF" if passed_over else "DEFAULT"
            yield from packet.decode()

    try:
        for i in wanted:
            target = stamps[i]
            at = bisect_right(index.keyframes, target) - 1
            keyframe = index.keyframes[at] if at >= 0 else None
            if position is None or (keyframe is not None and keyframe > position):
                # demuxing has run to the end, so the first frame always needs a seek
                clean_from = stamps[0] if keyframe is None else keyframe
                container.seek(clean_from, stream=stream, backward=True)
                decoded = decoded_from_here()
            for frame in decoded:
                if frame.pts is None or (frame.is_corrupt and frame.pts >= clean_from):
                    raise SeekMissed
                if position is not None and clean_from <= frame.pts < position:
                    raise SeekMissed  # time goes back
                position = frame.pts
                if position >= target:
                    break
            else:
                raise SeekMissed
            if position != target:
                raise SeekMissed
            yield i, pixels_of(frame, i)
    except av.FFmpegError as error:
        raise SeekMissed from error


_MOST_REORDERED = 16
"""Frames that a decoder may hold back to put them in order (H.264 and HEVC allow 16)."""


def frames_in_order(
    path, container, stream, index, wanted: Sequence[int], pixels_of
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode from the first frame and count, or match time stamps where they can be trusted.

    Where a stamp is passed over, frames are held until it is clear that it is missing and not late. Raises TimesGoBack
    when it is late; what was yielded before is right.
    """
    import av

    stamps = range(len(index.stamps)) if index.ordinal else index.stamps
    places = {stamp: i for i, stamp in enumerate(stamps)}
    remaining, count, last, held, in_doubt = set(wanted), 0, -1, [], 0
    try:
        for frame in watched(container.decode(stream), index.fps):
            i = places.get(count if index.ordinal else frame.pts, -1)
            count += 1
            if (frame.is_corrupt or frame.pts in index.damaged) and i >= 0:
                what = (
                    "is damaged" if frame.is_corrupt else "or one beside it is missing or damaged"
                )
                reason = f"frame {i} {what}; fetch the file again or leave it out."
                raise damaged_file(path, reason)
            if 0 <= i <= last:
                raise TimesGoBack
            in_doubt = _MOST_REORDERED if i > last + 1 else in_doubt - 1
            last = max(last, i)
            if i in remaining:
                held.append((i, pixels_of(frame, i)))
                remaining.discard(i)
            if in_doubt <= 0:
                yield from held
                held.clear()
                if not remaining:
                    return
    except av.FFmpegError as error:
        reason = f"decoding fails after {count} frames ({reason_of(error)}); fetch the file again or leave it out."
        raise damaged_file(path, reason) from error
    yield from held
    if remaining:
        place = f"frame {min(remaining)} of {len(index.stamps)}"
        reason = f"{place} cannot be decoded; fetch the file again or leave it out."
        raise damaged_file(path, reason)


def shown_stamps(path: str, container, stream, before: float) -> tuple[tuple[int | None, ...], int]:
    """(time stamps of the frames that are shown, in order, how many of these are interlaced), until one is at `before`.

    Raises DecodeError for damage behind the first key frame.
    """
    import av

    stamps, num_interlaced = [], 0
    try:
        for frame in watched(container.decode(stream), header_rate(stream)):
            if frame.is_corrupt and not stamps:  # before the first whole picture
                continue
            if frame.is_corrupt:
                reason = f"frame {len(stamps)} is damaged; fetch the file again or leave it out."
                raise damaged_file(path, reason)
            if frame.pts is not None and frame.pts >= before:
                break
            stamps.append(frame.pts)
            num_interlaced += frame.interlaced_frame
    except av.FFmpegError as error:
        reason = f"decoding fails after {len(stamps)} frames ({reason_of(error)})"
        raise damaged_file(path, f"{reason}; fetch the file again or leave it out.") from error
    return tuple(stamps), num_interlaced


def sound_seconds(container) -> float:
    """When the last of the sound ends, read from its packets; 0 without sound."""
    end = 0.0
    if container.streams.audio:
        for packet in watched(container.demux(container.streams.audio), 50):
            if packet.size and packet.pts is not None:
                stop = (packet.pts + (packet.duration or 0)) * packet.time_base
                end = max(end, float(stop))
    return end
