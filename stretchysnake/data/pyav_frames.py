"""The frames of an opened file, decoded with PyAV: by seeking to time stamps, or in order from the first.

Both are generators of (frame index, pixels), in presentation order, so that a long video need not be held.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from stretchysnake.data.decode_error import damaged_file, reason_of
from stretchysnake.data.watchdog import watched


class SeekMissed(Exception):
    """Seeking did not go as it should; what was yielded before it is right."""


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
                position = frame.pts
                if position >= target:
                    break
            else:
                raise SeekMissed
            if position != target:
                raise SeekMissed
            yield i, pixels_of(frame)
    except av.FFmpegError as error:
        raise SeekMissed from error


def frames_in_order(
    path, container, stream, index, wanted: Sequence[int], pixels_of
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode from the first frame and count, or match time stamps where they can be trusted."""
    import av

    places = {stamp: i for i, stamp in enumerate(index.stamps)}
    remaining, count = set(wanted), 0
    try:
        for frame in watched(container.decode(stream), index.fps):
            i = count if index.ordinal else places.get(frame.pts, -1)
            count += 1
            if frame.is_corrupt and i >= 0:
                reason = f"frame {i} is damaged; fetch the file again or leave it out."
                raise damaged_file(path, reason)
            if i not in remaining:
                continue
            yield i, pixels_of(frame)
            remaining.discard(i)
            if not remaining:
                return
    except av.FFmpegError as error:
        reason = f"decoding fails after {count} frames ({reason_of(error)}); fetch the file again or leave it out."
        raise damaged_file(path, reason) from error
    if remaining:
        place = f"frame {min(remaining)} of {len(index.stamps)}"
        reason = f"{place} cannot be decoded; fetch the file again or leave it out."
        raise damaged_file(path, reason)
