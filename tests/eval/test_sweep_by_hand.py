"""A sweep whose queries are not in the gallery: every value against numpy on features taken without the sweep."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stretchysnake import Scale, read_records
from stretchysnake.data.clips.loader import DecodedClips
from stretchysnake.data.decoding.video import read_frames
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.protocols.protocol import Protocol
from stretchysnake.eval.sweeps.cost import count_flops
from stretchysnake.eval.sweeps.model_under_test import ModelUnderTest
from stretchysnake.eval.sweeps.resumed_sweep import resumed_sweep
from stretchysnake.eval.sweeps.sweep import scale_matches_native, sweep
from stretchysnake.flexibility import variant_named
from stretchysnake.results.comparison import unpack_correct
from stretchysnake.results.rows import read_rows

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CELLS = {(t, 48): Scale(t, 48, 12) for t in (3, 4, 8)}  # the videos' own size: nothing is resized


@pytest.fixture(scope="module")
def split(clip_folder):
    """(gallery, queries) of two videos of each class each, with labels that are not the classes': some are hard."""
    records = [replace(r, label=i % 3) for i, r in enumerate(read_records(clip_folder))]
    return [r for i, r in enumerate(records) if i % 4 < 2], [
        r for i, r in enumerate(records) if i % 4 > 1
    ]


def features_of(model, records, scale):
    found = []
    for record in records:
        centres = [int((i + 0.5) * 12 / scale.num_frames) for i in range(scale.num_frames)]
        frames = read_frames(record.path, centres) / 255
        video = torch.from_numpy(((frames - MEAN) / STD).transpose(3, 0, 1, 2)).float()[None]
        with torch.no_grad():
            found.append(model.eval().features(video, scale.patch_size)[0].double().numpy())
    return np.stack(found)


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_values_are_those_of_numpy(trained, split, similarity):
    gallery, queries = split
    model, variant, _ = read_subject(trained[1].weights)
    tested = ModelUnderTest(model=model, variant=variant, seed=0, run_id="r")
    protocol = Protocol(metrics=("top1", "recall@2", "knn@3", "map"), similarity=similarity)
    sources = DecodedClips(gallery), DecodedClips(queries)
    rows = list(sweep(tested, "toy", *sources, CELLS, protocols=[protocol], batch_size=2))
    labels = np.array([record.label for record in gallery])
    asked = np.array([record.label for record in queries])
    assert len(rows) == 12
    for (cell, scale), place in zip(CELLS.items(), range(0, 12, 4), strict=True):
        a, b = features_of(model, queries, scale), features_of(model, gallery, scale)
        if similarity == "cosine":
            a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        distance = ((a[:, None] - b[None]) ** 2).sum(-1)
        right = labels[distance.argsort(1)] == asked[:, None]
        precision = right.cumsum(1) / np.arange(1, 7)
        votes = [
            np.bincount(labels[order[:3]], minlength=3).argmax() for order in distance.argsort(1)
        ]
        wanted = {
            "top1": right[:, 0],
            "recall@2": right[:, :2].any(1),
            "knn@3": np.array(votes) == asked,
            "map": (precision * right).sum(1) / right.sum(1),
        }
        for row in rows[place : place + 4]:
            assert (row.num_frames, row.size, row.patch_size) == (*cell, scale.patch_size)
            assert row.value == pytest.approx(wanted[row.metric].mean())
            if row.metric != "map":
                assert unpack_correct(row.correct, 6) == wanted[row.metric].tolist()
            assert (row.num_queries, row.num_expected, row.num_gallery) == (6, 6, 6)
    assert len({row.value for row in rows}) > 3  # some are right and some are wrong


def test_rows_say_what_a_cell_is_and_costs(trained, split):
    model, variant, _ = read_subject(trained[1].weights)
    tested = ModelUnderTest(
        model=model, variant=variant, seed=3, run_id="r", commit="c", device="d"
    )
    sources = DecodedClips(split[0]), DecodedClips(split[1])
    (row,) = sweep(tested, "toy", *sources, [(4, 32)])
    assert row.gflops == pytest.approx(count_flops(model.config, Scale(4, 32, 8)) / 1e9)
    assert (row.native, row.trained, row.patch_size) == (False, True, 8)
    assert (row.dataset, row.model, row.seed) == ("toy", "static_tokens", 3)
    assert (row.run_id, row.commit, row.device) == ("r", "c", "d")
    assert [scale_matches_native(variant, *cell) for cell in ((8, 32), (4, 32), (8, 16))] == [
        1,
        0,
        0,
    ]


def test_borrowed_patches_are_those_of_static_tokens(trained, split):
    model, variant, _ = read_subject(trained[1].weights)
    vanilla = variant_named("vanilla").using(variant.sets)
    tested = ModelUnderTest(model=model, variant=vanilla, seed=0, run_id="r")
    sources = DecodedClips(split[0]), DecodedClips(split[1])
    for patch_from, patch in ((None, 8), ("static_tokens", 4)):
        (row,) = sweep(tested, "toy", *sources, [(4, 16)], patch_from=patch_from)
        assert row.patch_size == patch
        assert row.protocol == "retrieval" + ("-static_tokens-patches" if patch_from else "")


def test_rows_of_another_data_set_or_run_are_not_taken(trained, split, tmp_path):
    model, variant, _ = read_subject(trained[1].weights)
    sources = DecodedClips(split[0]), DecodedClips(split[1])
    for number, (dataset, run_id) in enumerate((("a", "r"), ("b", "r"), ("b", "s"), ("b", "s")), 1):
        tested = ModelUnderTest(model=model, variant=variant, seed=0, run_id=run_id)
        (row,) = resumed_sweep(tmp_path / "rows", tested, dataset, lambda: sources, [(3, 16)])
        assert (row.dataset, row.run_id) == (dataset, run_id)
        assert len(read_rows(tmp_path / "rows")) == min(number, 3)
