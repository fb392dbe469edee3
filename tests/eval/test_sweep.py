"""Sweeps over real files: rows, OOM cells."""

import pytest
import torch

from stretchysnake import NANO, VARIANTS, Scale, read_records
from stretchysnake.comparison import unpack_correct
from stretchysnake.data.loader import DecodedClips
from stretchysnake.eval.evaluate import evaluate
from stretchysnake.eval.features import extract
from stretchysnake.eval.run import EvaluateRun
from stretchysnake.eval.subject import read_subject
from stretchysnake.eval.sweep import Subject, seen_in_training, sweep
from stretchysnake.results import read_rows


@pytest.fixture
def subject(trained):
    model, variant, metadata = read_subject(trained[1].weights)
    return Subject(model=model, variant=variant, seed=0, run_id=metadata["digest"])


def test_features_do_not_depend_on_batch_size_or_order(subject, clip_folder):
    records = read_records(clip_folder)
    scale = Scale(4, 24, 6)
    one, five = (extract(subject.model, DecodedClips(records), scale, batch_size=b) for b in (1, 5))
    back = extract(subject.model, DecodedClips(records[::-1]), scale)
    torch.testing.assert_close(one.features, five.features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.features, back.features.flip(0), rtol=1e-5, atol=1e-5)
    assert one.paths == back.paths[::-1]
    assert one.labels.tolist() == [record.label for record in records]


def test_sweep_gives_a_row_per_cell(subject, clip_folder):
    clips = DecodedClips(read_records(clip_folder))
    rows = list(
        sweep(subject, "toy", clips, clips, [(4, 16), (8, 32), (16, 40)])
    )  # values: by hand
    assert [(row.num_frames, row.size, row.patch_size) for row in rows] == [
        (4, 16, 4), (8, 32, 8), (16, 40, 10),
    ]  # fmt: skip
    assert all(row.value == sum(unpack_correct(row.correct, 12)) / 12 for row in rows)
    assert [row.native for row in rows] == [False, True, False]
    assert [row.trained for row in rows] == [True, True, False]
    assert rows[0].gflops < rows[1].gflops < rows[2].gflops
    assert all(row.num_queries == row.num_expected == 12 for row in rows)


def test_cell_that_does_not_fit_becomes_oom(subject, clip_folder):
    clips = DecodedClips(read_records(clip_folder))
    (row,) = sweep(subject, "toy", clips, clips, [(8, 32)], memory_limit=1000)
    assert (row.status, row.value, row.num_expected) == ("oom", None, 12)
    assert "needs" in row.note


def test_seen_in_training_follows_the_variant():
    def seen(name, scale):
        return seen_in_training(VARIANTS[name].using(NANO), scale)

    assert seen("vanilla", Scale(8, 32, 8)) and not seen("vanilla", Scale(4, 32, 8))
    assert seen("temporal", Scale(4, 32, 8)) and not seen("temporal", Scale(4, 16, 8))
    assert seen("static_tokens", Scale(4, 56, 14)) and not seen("static_tokens", Scale(4, 64, 16))


def test_evaluate_resumes_cell_by_cell(trained, clip_folder, tmp_path):
    run = EvaluateRun(
        weights=trained[1].weights,
        gallery=str(clip_folder),
        queries=str(clip_folder),
        out=str(tmp_path / "rows.jsonl"),
        frames=[4],
        sizes=[16, 32],
    )
    first = evaluate(run)
    again = evaluate(EvaluateRun(**{**vars(run), "sizes": [16, 32, 48]}))
    assert again[:2] == first
    assert len(read_rows(tmp_path / "rows.jsonl")) == 3
