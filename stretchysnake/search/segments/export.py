"""An index for other tools: its rows as one array with a line of JSON each, or its videos as a list to embed again."""

import os
from dataclasses import asdict
from pathlib import Path

from stretchysnake.data.records import VideoRecord, write_records
from stretchysnake.eval.features.feature_table import write_feature_table
from stretchysnake.search.index import Index
from stretchysnake.search.segments.flat import FLAT_FORMAT


def export_flat(index: Index, folder: str | os.PathLike) -> int:
    """Write features.npy, meta.jsonl and manifest.json, which this version reads too; the number of rows.

    All rows are described in memory at once. ValueError where the folder holds something.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"out ({folder}) is not empty; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    order = sorted(
        range(len(index.rows)), key=lambda i: (index.rows[i].file.path, index.rows[i].start)
    )

    def manifest(hashes: dict[str, str]) -> dict:
        return {
            "format": FLAT_FORMAT,
            "count": len(index.rows),
            "videos": index.num_videos,
            "settings": asdict(index.settings),
            "weights": index.weights,
            "versions": index.versions,
            "sha256": hashes,
            "failures": [{"path": path, "reason": reason} for path, reason in index.failures],
        }

    write_feature_table(
        folder,
        (index.pair(i)[1] for i in order),
        [index.rows[i].to_dict() for i in order],
        width=index.settings.width,
        manifest=manifest,
    )
    return len(order)


def export_list(index: Index, path: str | os.PathLike) -> int:
    """Write the videos as a list that `stretchysnake embed` reads (CSV, or JSON lines to a .jsonl); how many."""
    files = [segment.file(video) for segment in index.segments for video in segment.videos()]
    files.sort(key=lambda file: file.path)
    labels = {name: i for i, name in enumerate(sorted({file.class_name for file in files}))}
    write_records(
        path,
        [
            VideoRecord(
                path=file.path,
                label=labels[file.class_name],
                class_name=file.class_name,
                group=file.group,
            )
            for file in files
        ],
    )
    return len(files)
