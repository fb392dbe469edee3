"""Long videos: peak memory of an hour against a minute, the exact form against one shot, and what retrieval says.

    python benchmarks/long_video.py [--out benchmarks/results/long_video.json]
    python benchmarks/long_video.py --weights A.safetensors B.safetensors --data MOTION_DIGITS   # and retrieval

Memory (Linux): the largest resident set of a process of its own, and of its decoding process, which shares most of its
pages; it embeds one video of 48 × 48 pixels and 10 frames a second, read at 2 frames a second by a nano model of random
weights. "one shot" is `embed` of as many frames. Retrieval: top-1 on MotionDigits' long suite (the order of three acts,
chance 4.2 %), gallery and queries at the same T, windows of 8 frames; "in order" puts the windows' features behind one
another in place of the mean.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from stretchysnake import VideoMamba, VideoMambaConfig, save_model
from stretchysnake.data.clips.frame_choice import uniform_indices
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.data.decoding.video import read_frames, write_video
from stretchysnake.data.records import read_records
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.long_reading import window_spans
from stretchysnake.eval.protocols.nearest import nearest
from stretchysnake.flexibility import eval_scale
from stretchysnake.models.sequences.long_sequence import exact_features, window_features
from stretchysnake.results.intervals import wilson_interval
from stretchysnake.results.rows import environment
from stretchysnake.whole_file import write_whole

# Not ru_maxrss of the process itself: exec hands on that of its parent.
WORKER = """
import json, re, resource, sys, time
import torch
from stretchysnake import embed, keep_freed_memory, long_features
form, path, weights, num_frames, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
keep_freed_memory()
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
import stretchysnake.eval.long_video
before, started = peak(), time.perf_counter()
if form == "one shot":
    feature = embed(path, weights=weights, num_frames=int(num_frames), num_workers=1).features[0]
else:
    feature = long_features(path, weights=weights, num_frames=int(num_frames), exact=form == "exact").feature
print(json.dumps({
    "seconds": time.perf_counter() - started, "imports_mib": before, "peak_mib": peak(),
    "decoder_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, "feature": feature.tolist()}))
"""
MINUTES = (1, 60)
FORMS = ("window", "exact", "one shot")


def memory(threads: int) -> dict:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        weights = f"{folder}/weights.safetensors"
        save_model(weights, VideoMamba(VideoMambaConfig.named("nano", num_classes=0)))
        rng = np.random.default_rng(0)
        scene = rng.integers(0, 255, (600, 72, 48), dtype=np.uint8)  # yuv420p of one minute
        for minutes in MINUTES:
            path = f"{folder}/{minutes}.mp4"
            write_video(path, np.tile(scene, (minutes, 1, 1)), fps=10)
            for form in FORMS:
                command = [sys.executable, "-c", WORKER, form, path, weights, str(120 * minutes)]
                done = subprocess.run([*command, str(threads)], capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(done.stderr)
                row = json.loads(done.stdout)
                row["total_mib"] = row["peak_mib"] + row["decoder_mib"]
                found.setdefault(form, {})[str(minutes)] = row
                print(f"{form}, {minutes} min: {row['peak_mib']:.0f} MiB + decoder {row['decoder_mib']:.0f} MiB "
                      f"(imports {row['imports_mib']:.0f}), {row['seconds']:.1f} s", flush=True)  # fmt: skip
    short, long = map(str, MINUTES)
    for form in FORMS:
        own = {m: found[form][m]["peak_mib"] - found[form][m]["imports_mib"] for m in (short, long)}
        found[form]["ratio"] = found[form][long]["total_mib"] / found[form][short]["total_mib"]
        found[form]["ratio_beyond_imports"] = own[long] / max(1, own[short])
        print(f"{form}: an hour takes {found[form]['ratio']:.2f} × the memory of a minute")
    for minutes in map(str, MINUTES):
        one, exact = (torch.tensor(found[f][minutes].pop("feature")) for f in ("one shot", "exact"))
        found[f"exact_difference_{minutes}"] = difference = float((one - exact).abs().max())
        print(f"exact against one shot, {minutes} min: {difference:.1e}")
        found["window"][minutes].pop("feature")
    return found


def pixels(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    records = read_records(path)
    frames = np.stack([read_frames(r.path, range(96), size=(32, 32)) for r in records])
    return torch.from_numpy(frames), torch.tensor([r.label for r in records])


def top1(gallery, queries, gallery_labels, query_labels) -> dict:
    places = nearest(queries, gallery)[:, 0]
    right = int((gallery_labels[places] == query_labels).sum())
    low, high = wilson_interval(right, len(query_labels))
    return {"top1": 100 * right / len(query_labels), "low": 100 * low, "high": 100 * high}


def retrieval(weights: list[str], data: Path) -> dict:
    gallery, gallery_labels = pixels(data / "long-train.csv")
    queries, query_labels = pixels(data / "long-test.csv")
    found = {"gallery": len(gallery), "queries": len(queries), "window": 8}
    for path in weights:
        model, variant, _ = read_subject(path)
        patch = eval_scale(variant, num_frames=8, size=32).patch_size
        rows = found.setdefault("rows", [])
        for num_frames in (16, 32, 96):
            chosen = uniform_indices(96, num_frames)
            lengths = [stop - start for start, stop in window_spans(num_frames, 8)]

            def features(videos, chosen=chosen, lengths=lengths, model=model, patch=patch):
                exact, windows = [], []
                for clips in videos.split(25):
                    video = normalise(clips[:, chosen])
                    parts = video.split(lengths, 2)
                    exact.append(exact_features(model, parts, patch, num_frames=len(chosen)))
                    windows.append(torch.stack(list(window_features(model, parts, patch)), 1))
                return torch.cat(exact), torch.cat(windows)

            (exact_g, windows_g), (exact_q, windows_q) = features(gallery), features(queries)
            labels = gallery_labels, query_labels
            row = {
                "variant": variant.name,
                "num_frames": num_frames,
                "exact": top1(exact_g, exact_q, *labels),
                "window": top1(windows_g.mean(1), windows_q.mean(1), *labels),
                "in_order": top1(windows_g.flatten(1), windows_q.flatten(1), *labels),
            }
            rows.append(row)
            print(", ".join(f"{k} {v['top1']:.1f}" if isinstance(v, dict) else f"{k} {v}"
                            for k, v in row.items()), flush=True)  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", nargs="*", default=[])
    parser.add_argument("--data", type=Path, help="folder of MotionDigits, for retrieval")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/long_video.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {
        "environment": environment(),
        "threads": options.threads,
        "memory": memory(options.threads),
    }
    if options.weights:
        found["retrieval"] = retrieval(options.weights, options.data)
    write_whole(options.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
