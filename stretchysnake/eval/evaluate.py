"""Retrieval of one weights file over a grid of scales, resumable cell by cell."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from stretchysnake.data.loader import open_clips
from stretchysnake.data.records import read_with_shared_labels
from stretchysnake.eval.bad_videos import bad_lines, check_on_error, counted
from stretchysnake.eval.retrieval import METRICS
from stretchysnake.eval.run import EvaluateRun
from stretchysnake.eval.subject import read_subject
from stretchysnake.eval.sweep import Subject, sweep
from stretchysnake.flexibility import eval_scale
from stretchysnake.results import Row, append_rows, environment, read_rows


def evaluate(run: EvaluateRun, *, progress: Callable[[str], None] | None = None) -> list[Row]:
    """The rows of every cell frames × sizes of the run, measured now or found in run.out.

    Every cell is checked before the first is measured.
    """
    if run.metric not in METRICS:
        raise ValueError(f"metric ({run.metric!r}) must be one of: {', '.join(METRICS)}")
    check_on_error(run.on_error)
    model, variant, metadata = read_subject(run.weights)
    native = variant.sets.native
    cells = [(t, s) for t in run.frames or [native.num_frames] for s in run.sizes or [native.size]]
    for num_frames, size in cells:
        eval_scale(variant, num_frames=num_frames, size=size, patch_from=run.patch_from)
    lists = read_with_shared_labels(run.gallery, run.queries)
    listed = [[(record.path, record.label) for record in records] for records in lists]
    choices = [listed, run.metric, run.patch_from]
    choices += (
        [run.on_error] if run.on_error == "wrong" else []
    )  # the others measure the same number
    settings = json.dumps(choices).encode()
    run_id = hashlib.sha256(Path(run.weights).read_bytes() + settings).hexdigest()[:16]
    environment_now = environment()
    subject = Subject(
        model=model,
        variant=variant,
        seed=metadata.get("seed", 0),
        run_id=run_id,
        commit=environment_now.get("commit", ""),
        device=environment_now.get("cpu", ""),
    )
    dataset = run.dataset or Path(run.queries).stem
    known = read_rows(run.out) if Path(run.out).exists() else []
    known = [row for row in known if row.run_id == run_id and row.dataset == dataset]
    done = {(row.num_frames, row.size) for row in known}
    todo = [cell for cell in cells if cell not in done]
    if todo:
        gallery, queries = (
            open_clips(
                records,
                cache=run.cache,
                num_frames=run.cache_frames,
                size=run.cache_size,
                progress=progress,
            )
            for records in lists
        )
        for row in sweep(
            subject,
            dataset,
            gallery,
            queries,
            todo,
            batch_size=run.batch_size,
            metric=run.metric,
            patch_from=run.patch_from,
            memory_limit=None
            if run.memory_limit_gib is None
            else int(run.memory_limit_gib * 2**30),
            progress=progress,
        ):
            row = counted(row, run.on_error)
            append_rows(run.out, [row])
            known.append(row)
        for name, clips in (("gallery", gallery), ("queries", queries)):
            for line in bad_lines(clips, name):
                print(line, file=sys.stderr)
    return [row for row in known if (row.num_frames, row.size) in cells]
