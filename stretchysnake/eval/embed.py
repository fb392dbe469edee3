"""Features of any videos: one vector per file, on disk with what is needed to trust them later."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stretchysnake.data.clips import uniform_indices
from stretchysnake.data.decoder_pool import map_decoding
from stretchysnake.data.records import find_videos
from stretchysnake.data.transforms import normalise
from stretchysnake.data.video import DecodeError, read_frames
from stretchysnake.eval.subject import read_subject
from stretchysnake.flexibility import Scale, eval_scale
from stretchysnake.train.checkpoint import sha256_of
from stretchysnake.whole_file import unfinished_file, write_whole


@dataclass(frozen=True)
class Embeddings:
    """features (n, C) fp32, the paths they belong to, the scale used, and the files that could not be read."""

    features: Tensor
    paths: list[str]
    scale: Scale
    failures: list[tuple[str, str]]
    """(path, reason) of each file left out."""
    repeated: list[str]
    """Videos with fewer frames than T, whose frames were repeated."""
    weights_sha256: str
    sampling: str = "uniform segments, frames repeated when the clip is shorter than T"


def embed(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    weights: str | os.PathLike,
    num_frames: int | None = None,
    size: int | None = None,
    num_workers: int = 2,
    progress: Callable[[str], None] | None = None,
) -> Embeddings:
    """The [CLS] features of videos: files, or folders searched for videos, whatever their length and size.

    T and S default to the weights' native scale; each video gives num_frames frames spread evenly over
    its whole length, resized to S×S; a video with fewer frames repeats them (listed in `repeated`).
    A file that cannot be read, or that crashes or stalls the decoder, is listed in `failures` with the reason, never
    replaced; ValueError when there is nothing to read at all. Files are decoded in `num_workers` processes.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    videos = find_videos(paths)
    model, variant, _ = read_subject(weights)
    native = variant.sets.native
    scale = eval_scale(
        variant, num_frames=num_frames or native.num_frames, size=size or native.size
    )
    kept, features, failures, repeated = [], [], [], []
    decode = partial(_decode, num_frames=scale.num_frames, size=scale.size)
    answers = map_decoding(decode, ((path, path) for path in videos), num_workers=num_workers)
    for number, (path, answer) in enumerate(zip(videos, answers, strict=True), 1):
        if isinstance(answer, DecodeError):
            failures.append((str(path), str(answer)))
            continue
        frames, total = answer
        video = normalise(torch.from_numpy(frames))[None]
        with torch.inference_mode():
            features.append(model.features(video, scale.patch_size, grid="floor").float())
        kept.append(str(path))
        if total < scale.num_frames:
            repeated.append(str(path))
        if progress:
            progress(f"embedded {number}/{len(videos)} videos")
    stacked = torch.cat(features).clone() if features else torch.empty(0, model.config.embed_dim)
    return Embeddings(stacked, kept, scale, failures, repeated, sha256_of(Path(weights)))


def _decode(path: str, *, num_frames: int, size: int) -> tuple[np.ndarray, int]:
    """(frames, number of frames in the video)"""
    totals = []

    def indices(total: int) -> list[int]:
        totals.append(total)
        return uniform_indices(total, num_frames)

    frames = read_frames(path, indices, size=(size, size))
    return frames, totals[0]


def save_embeddings(folder: str | os.PathLike, embeddings: Embeddings) -> None:
    """Write features.npy, meta.jsonl (one line per row) and manifest.json; the manifest comes last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "count": len(embeddings.paths),
        "width": embeddings.features.shape[1],
        "weights_sha256": embeddings.weights_sha256,
        "scale": asdict(embeddings.scale),
        "sampling": embeddings.sampling,
        "failures": [{"path": path, "reason": reason} for path, reason in embeddings.failures],
    }
    meta = "".join(
        json.dumps({"row": row, "path": path, "repeated": path in embeddings.repeated}) + "\n"
        for row, path in enumerate(embeddings.paths)
    )
    (folder / "manifest.json").unlink(missing_ok=True)
    with unfinished_file(folder / "features.npy") as part:
        np.save(part, embeddings.features.numpy())
    write_whole(folder / "meta.jsonl", meta)
    write_whole(folder / "manifest.json", json.dumps(manifest, indent=1))
