"""Sweeps over real files: rows, OOM cells."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from stretchysnake import NANO, VARIANTS, Scale, read_records
from stretchysnake.data.clips.loader import DecodedClips
from stretchysnake.eval.features.extraction import extract, model_hash
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.sweeps.evaluate import evaluate
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.eval.sweeps.model_under_test import ModelUnderTest
from stretchysnake.eval.sweeps.sweep import seen_in_training, sweep
from stretchysnake.results.comparison import unpack_correct
from stretchysnake.results.rows import read_rows


@pytest.fixture
def tested(trained):
    model, variant, metadata = read_subject(trained[1].weights)
    return ModelUnderTest(model=model, variant=variant, seed=0, run_id=metadata["digest"])


def test_features_do_not_depend_on_batch_size_or_order(tested, clip_folder):
    records = read_records(clip_folder)
    scale = Scale(4, 24, 6)
    one, five = (extract(tested.model, DecodedClips(records), scale, batch_size=b) for b in (1, 5))
    back = extract(tested.model, DecodedClips(records[::-1]), scale)
    torch.testing.assert_close(one.features, five.features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.features, back.features.flip(0), rtol=1e-5, atol=1e-5)
    assert one.paths == back.paths[::-1]
    assert one.labels.tolist() == [record.label for record in records]


@pytest.fixture
def mixed(clip_folder, query_folder):
    """(gallery, queries) as clip sources; every gallery video has another label than its looks, so answers differ."""
    gallery = [replace(r, label=(5 * i + 1) % 3) for i, r in enumerate(read_records(clip_folder))]
    return DecodedClips(gallery), DecodedClips(read_records(query_folder))


def top1_by_hand(tested, gallery, queries, scale):
    """Which queries are right, by numpy in fp64."""
    query, stored = (
        extract(tested.model, clips, scale).features.double().numpy()
        for clips in (queries, gallery)
    )
    query, stored = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (query, stored))
    nearest = (query @ stored.T).argmax(1)
    return gallery.labels.numpy()[nearest] == queries.labels.numpy()


def test_sweep_gives_a_row_per_cell(tested, mixed):
    gallery, queries = mixed
    rows = list(sweep(tested, "toy", gallery, queries, [(4, 16), (8, 32), (16, 40)]))
    assert [(row.num_frames, row.size, row.patch_size) for row in rows] == [
        (4, 16, 4), (8, 32, 8), (16, 40, 10),
    ]  # fmt: skip
    for row in rows:
        right = top1_by_hand(tested, *mixed, Scale(row.num_frames, row.size, row.patch_size))
        assert unpack_correct(row.correct, 12) == right.tolist() and 0 < row.value < 1
        assert row.value == right.mean()
        assert row.weights == model_hash(tested.model) and row.model == "static_tokens"
    assert [row.native for row in rows] == [False, True, False]
    assert [row.trained for row in rows] == [True, True, False]
    assert rows[0].gflops < rows[1].gflops < rows[2].gflops
    assert all(row.num_queries == row.num_expected == 12 for row in rows)


def test_cell_that_does_not_fit_becomes_oom(tested, mixed):
    (row,) = sweep(tested, "toy", *mixed, [(8, 32)], memory_limit=1000)
    assert (row.status, row.value, row.num_expected) == ("oom", None, 12)
    assert "needs" in row.note


def test_scale_that_the_model_cannot_take_is_an_error_or_a_row_that_says_why(tested, mixed):
    fixed = replace(tested, variant=VARIANTS["vanilla"].using(NANO))
    cells, text = [(8, 20), (8, 32)], r"size \(20\) must be a multiple of patch_size \(8\)"
    with pytest.raises(ValueError, match=text):
        list(sweep(fixed, "toy", *mixed, cells))
    refused, row = sweep(fixed, "toy", *mixed, cells, refused_as_rows=True)
    assert (refused.status, refused.value, refused.gflops) == ("refused", None, None)
    assert re.match(text, refused.note) and (refused.size, refused.num_expected) == (20, 12)
    assert row.status == "ok" and row.weights == refused.weights


def test_seen_in_training_follows_the_variant():
    def seen(name, scale):
        return seen_in_training(VARIANTS[name].using(NANO), scale)

    assert seen("vanilla", Scale(8, 32, 8)) and not seen("vanilla", Scale(4, 32, 8))
    assert seen("temporal", Scale(4, 32, 8)) and not seen("temporal", Scale(4, 16, 8))
    assert seen("static_tokens", Scale(4, 56, 14)) and not seen("static_tokens", Scale(4, 64, 16))


def test_evaluate_resumes_cell_by_cell(trained, clip_folder, query_folder, tmp_path):
    run = EvaluateRun(
        weights=trained[1].weights,
        gallery=str(clip_folder),
        queries=str(query_folder),
        out=str(tmp_path / "rows.jsonl"),
        frames=[4],
        sizes=[16, 32],
    )
    first = evaluate(run)
    again = evaluate(EvaluateRun(**{**vars(run), "sizes": [16, 32, 48]}))
    assert again[:2] == first
    assert len(read_rows(tmp_path / "rows.jsonl")) == 3
