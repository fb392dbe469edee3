"""What an index says of itself, in lines."""

from pathlib import Path

from stretchysnake.search.index import Index, made_otherwise
from stretchysnake.search.stores.found_indexes import renewal


def info_lines(index: Index) -> list[str]:
    """Settings, counts and segments; nothing of a row is read."""
    settings, scale = index.settings, index.settings.scale
    cut = "one row per video"
    if settings.window_seconds is not None:
        cut = f"windows of {settings.window_seconds:g} s every {settings.stride_seconds:g} s"
    there = "" if Path(index.weights).is_file() else ", not there any more"
    lines = [
        f"index:     {index.folder}",
        f"videos:    {index.num_videos}, {len(index.rows)} rows of {settings.width} numbers, {cut}",
        f"scale:     T={scale.num_frames} S={scale.size} P={scale.patch_size}",
        f"weights:   {settings.architecture or 'of a model it does not name'}, SHA-256 "
        f"{settings.weights_sha256[:12]}, {index.weights}{there}",
        f"read by:   {settings.decoder} {index.av}, resized by {settings.resampler}".replace(
            "  ", " "
        ),
    ]
    shown = {"weights_sha256", "width", "scale", "window_seconds", "stride_seconds", "sampling"}
    shown |= {"decoder", "resampler", "architecture"}
    others = {name: value for name, value in vars(settings).items() if name not in shown}
    if others:
        lines.append("settings:  " + ", ".join(f"{name} {value}" for name, value in others.items()))
    if index.failures:
        lines.append(f"unread:    {len(index.failures)} videos, the first: {index.failures[0][1]}")
    for segment in index.segments:
        gone = len(segment.features) - segment.num_rows
        removed = f", {gone} rows removed" if gone else ""
        name = segment.name or "format of earlier versions, renewed by the next embed"
        lines.append(f"segment:   {segment.num_rows} rows{removed} ({name})")
    if lists := index.approximate:
        lines.append(
            f"lists:     for {len(lists['files'])} of {len(index.segments)} segments; {lists['recall']:.1%} of the "
            f"{lists['nearest']} nearest were found for {lists['sample']} rows of {lists['rows']}"
        )
    if said := made_otherwise(settings, index.av):
        lines.append(f"note:      {said}; to renew it: {renewal(index.folder)}")
    return lines
