"""A data set with its own way of naming files: write a list, and everything else reads it.

    python examples/own_data_set.py recordings/ runs/mine 1000

Here the class is the name of the folder and the group is the first letter of the file: clips of one group are never on
both sides.
"""

import sys
from pathlib import Path

from stretchysnake.data.records import VideoRecord, find_videos, read_records, write_records
from stretchysnake.eval.sweeps.evaluate import evaluate
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.train.loop import train
from stretchysnake.train.run import TrainRun


def main(folder: str, out: str, steps: str) -> None:
    videos = [Path(video).resolve() for video in find_videos(folder)]
    classes = sorted({video.parent.name for video in videos})
    records = [
        VideoRecord(str(v), classes.index(v.parent.name), v.parent.name, group=v.stem[0])
        for v in videos
    ]
    last = max(record.group for record in records)
    lists = {"train": [], "test": []}
    for record in records:
        lists["test" if record.group == last else "train"].append(record)
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, part in lists.items():
        write_records(Path(out) / f"{name}.csv", part)
        print(f"{name}: {len(read_records(Path(out) / f'{name}.csv'))} videos")
    model = train(
        TrainRun(data=f"{out}/train.csv", out=f"{out}/model", steps=int(steps), batch_size=4)
    )
    rows = evaluate(
        EvaluateRun(
            weights=model.weights,
            gallery=f"{out}/train.csv",
            queries=f"{out}/test.csv",
            out=f"{out}/rows.jsonl",
            frames=[4, 8],
            sizes=[16, 32],
        )
    )
    for row in rows:
        print(
            f"T={row.num_frames} S={row.size}: top-1 {100 * row.value:.1f} % of {row.num_queries} queries"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
