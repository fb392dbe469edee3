"""Does search find a video again that was encoded anew? And how far are different videos from it?

    python benchmarks/reencoded_search.py --weights runs/mine/weights.safetensors --clips 48 --data motion-digits/ \\
        [--frames 8 --size 32] [--out benchmarks/results/reencoded_search.json]

MotionDigits clips of the short suite's test list (drawn into --data when they are not there) make the index; some of
them are encoded anew in five ways. Top-1 counts how often the original is the first hit; the cosines of the original
and of the nearest other video stand beside each other.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from stretchysnake.data.clips.transforms import resize_frames
from stretchysnake.data.decoding.video import read_frames, write_video
from stretchysnake.data.motion_digits import MotionDigitsSizes, generate
from stretchysnake.data.records import read_records
from stretchysnake.results.intervals import wilson_interval
from stretchysnake.results.rows import environment
from stretchysnake.search.embed import embed_into
from stretchysnake.search.query import search

CRF35 = {"preset": "ultrafast", "crf": "35"}
VP9 = {"crf": "35", "b": "0", "deadline": "realtime"}
WAYS = {
    "crf 35": (112, ".mp4", "libx264", CRF35),
    "80 px": (80, ".mp4", "libx264", None),
    "176 px": (176, ".mp4", "libx264", None),
    "MPEG-4 in AVI": (112, ".avi", "mpeg4", None),
    "VP9 in WebM, crf 35, 80 px": (80, ".webm", "libvpx-vp9", VP9),
}


def encode_anew(source: str, target: Path, size: int, codec: str, options: dict | None) -> None:
    frames = read_frames(source, range)
    resized = resize_frames(torch.from_numpy(frames), size).numpy()
    write_video(target, resized, codec=codec, options=options)


def measure(index: str, path: str, query: Path) -> tuple[int, float, float]:
    """(the original's rank, its cosine, the nearest other video's cosine)"""
    hits = search(index, query, k=600).hits
    rank = next(i for i, hit in enumerate(hits, 1) if hit.row.file.path == path)
    return rank, hits[rank - 1].score, hits[0 if rank > 1 else 1].score


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--gallery", type=int, default=300)
    parser.add_argument("--clips", type=int, default=40, help="originals encoded anew")
    parser.add_argument("--out", default="benchmarks/results/reencoded_search.json")
    run = parser.parse_args()
    listed = Path(run.data) / "short-test.csv"
    if not listed.exists():
        sizes = MotionDigitsSizes(source=1, source_test=1, gallery=10, query=run.gallery)
        generate(run.data, sizes=sizes)
    records = read_records(listed)[: run.gallery]
    paths = [str(Path(record.path).resolve()) for record in records]
    chosen = paths[:: max(1, len(paths) // run.clips)][: run.clips]
    found: dict[str, list] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        index = str(Path(folder) / "index")
        options = {"num_frames": run.frames, "size": run.size}
        settings = embed_into(index, paths, weights=run.weights, **options).settings
        for way, (size, suffix, codec, encoding) in WAYS.items():
            for number, path in enumerate(chosen):
                query = Path(folder) / f"query{number}{suffix}"
                encode_anew(path, query, size, codec, encoding)
                found[way].append(measure(index, path, query))
            show(way, found[way])
    everything = [one for ones in found.values() for one in ones]
    show("all", everything)
    result = {
        "environment": environment(),
        "settings": asdict(settings),
        "gallery": len(paths),
        "ways": {way: summary(ones) for way, ones in {**found, "all": everything}.items()},
    }
    Path(run.out).write_text(json.dumps(result, indent=1) + "\n")


def summary(ones: list) -> dict:
    right = sum(rank == 1 for rank, _, _ in ones)
    same, other = [one[1] for one in ones], [one[2] for one in ones]
    return {
        "reencodings": len(ones),
        "top1": right / len(ones),
        "interval": wilson_interval(right, len(ones)),
        "worst_rank": max(rank for rank, _, _ in ones),
        "cosine_of_original": {"median": statistics.median(same), "least": min(same)},
        "cosine_of_nearest_other": {"median": statistics.median(other), "most": max(other)},
        "gap_median": statistics.median(s - o for _, s, o in ones),
    }


def show(way: str, ones: list) -> None:
    told = summary(ones)
    print(
        f"{way:<30} top-1 {100 * told['top1']:5.1f} % of {told['reencodings']}, original "
        f"{told['cosine_of_original']['median']:.4f} (least {told['cosine_of_original']['least']:.4f}), "
        f"nearest other {told['cosine_of_nearest_other']['median']:.4f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
