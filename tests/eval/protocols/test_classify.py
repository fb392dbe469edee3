"""Trained heads on real files: views and crops averaged, cached or decoded; bad files absent; heads that do not fit."""

import shutil
from dataclasses import replace

import pytest
import torch
from painted_video import quarters, write_painted

from stretchysnake import Scale, VideoMambaConfig, read_records
from stretchysnake.data.clips.loader import DecodedClips, open_clips
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.data.records import VideoRecord
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.protocols.classify import classify
from stretchysnake.eval.sweeps.evaluate import evaluate
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun

SCALE = Scale(4, 32, 8)


@pytest.fixture
def model(trained):
    return read_subject(trained[1].weights)[0]


@pytest.mark.parametrize("views, crops", [(1, 1), (2, 1), (2, 3)])
def test_probabilities_of_views_and_crops_are_averaged(model, clip_folder, views, crops):
    clips = DecodedClips(read_records(clip_folder))
    found = classify(model, clips, SCALE, num_views=views, num_crops=crops, batch_size=7)
    for index in range(len(clips)):
        video = clips.views(index, SCALE, num_views=views, num_crops=crops)
        assert len(video) == views * crops
        with torch.no_grad():
            answer = model(normalise(video), 8).softmax(1).mean(0).argmax()
        assert bool(found.right[index]) == bool(answer == clips.labels[index])
    assert found.num_expected == 12 and found.paths == [r.path for r in clips.records]


class Sure(torch.nn.Module):
    """A model that gives the views of a video these logits, one after another; it says in which mode it ran."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.head, self.modes = torch.tensor(logits), torch.nn.Linear(1, 2), []
        self.config = VideoMambaConfig.named("nano", num_classes=2)

    def forward(self, video, patch_size, *, grid):
        self.modes.append(self.training)
        return self.logits[: len(video)]


def test_what_is_averaged_are_probabilities_not_logits(clip_folder):
    """One view is sure of class 1 beyond measure, two are quite sure of class 0: a mean of logits says 1."""
    model = Sure([[0.0, 30.0], [12.0, 0.0], [12.0, 0.0]])
    clips = DecodedClips(read_records(clip_folder)[:1])
    assert classify(model, clips, SCALE, num_views=3).right.tolist() == [True]
    assert classify(Sure([[0.0, 30.0]]), clips, SCALE).right.tolist() == [False]
    assert model.modes == [False]


def test_views_are_of_their_own_video(clip_folder):
    """Logits in the order of the clips: each video has its own two."""
    model = Sure([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.0, 9.0], [9.0, 0.0], [9.0, 0.0]])
    records = [r for r in read_records(clip_folder) if r.path.endswith(("0.mp4", "1.mp4"))]
    clips = DecodedClips([records[0], records[2], records[3]])  # of class 0, 1 and 1
    assert classify(model, clips, SCALE, num_views=2).right.tolist() == [True, True, False]


class SeesWidth(Sure):
    """Answers class 1 where a clip is wider than high."""

    def forward(self, video, patch_size, *, grid):
        wide = torch.tensor(video.shape[-1] > video.shape[-2])
        return torch.stack([~wide, wide]).float().expand(len(video), 2)


@pytest.mark.parametrize("views", [1, 2])
def test_answers_of_several_shapes_are_of_their_own_videos(tmp_path, views):
    shapes = [(48, 96), (96, 48), (48, 96), (64, 64), (96, 48)]
    records = [
        VideoRecord(
            str(write_painted(tmp_path / f"{i}.mp4", quarters(height=h, width=w))), int(w > h)
        )
        for i, (h, w) in enumerate(shapes)
    ]
    found = classify(SeesWidth([]), DecodedClips(records, fit="keep"), SCALE, num_views=views)
    assert found.right.all() and found.labels.tolist() == [1, 0, 1, 0, 0]


def test_answers_behind_a_bad_video_are_compared_with_their_own_labels(clip_folder, tmp_path):
    records = read_records(clip_folder)
    shutil.copy(records[0].path, tmp_path / "cut.mp4")
    with open(tmp_path / "cut.mp4", "r+b") as file:
        file.truncate(100)
    cut = replace(records[0], path=str(tmp_path / "cut.mp4"))
    clips = DecodedClips([records[0], cut, records[4]])  # labels 0, 0 and 1
    found = classify(Sure([[9.0, 0.0], [0.0, 9.0]]), clips, SCALE)
    assert found.right.tolist() == [True, True] and found.labels.tolist() == [0, 1]


def test_cached_frames_give_views_too(model, clip_folder, tmp_path):
    records = read_records(clip_folder)
    cached = open_clips(records, cache=str(tmp_path), num_frames=12, size=48)
    decoded = DecodedClips(records)
    ours, theirs = (
        list(clips.draw_views([0, 5], SCALE, num_views=3)) for clips in (cached, decoded)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, torch.as_tensor(b)) and a.shape == (3, 4, 32, 32, 3)
    with pytest.raises(ValueError, match=r"num_crops \(3\) needs the picture's own shape"):
        classify(model, cached, SCALE, num_crops=3)


def test_unreadable_videos_are_absent(model, clip_folder, tmp_path):
    videos = shutil.copytree(clip_folder, tmp_path / "videos")
    clips = DecodedClips(read_records(videos))
    (videos / "class1" / "2.mp4").write_bytes(b"")
    found = classify(model, clips, SCALE, num_views=2)
    assert len(found.right) == len(found.labels) == 11 and found.num_expected == 12
    assert not any(path.endswith("class1/2.mp4") for path in found.paths)
    assert len(clips.bad.quarantine) == 1


def test_a_head_of_too_few_classes_is_refused(model, clip_folder):
    records = [replace(record, label=record.label + 5) for record in read_records(clip_folder)]
    with pytest.raises(ValueError, match="classify 3 classes, and the queries have labels up to 7"):
        classify(model, DecodedClips(records), SCALE)


def test_scores_without_meaning_are_refused(model, clip_folder, tmp_path):
    clips = DecodedClips(read_records(clip_folder)[:2])
    with torch.no_grad():
        model.head.bias[1] = float("nan")
    with pytest.raises(
        ValueError, match=r"hold non-finite values, first of .*class0/0.mp4; the wei"
    ):
        classify(model, clips, SCALE)
    for record in clips.records:
        path = tmp_path / record.path.rsplit("/", 1)[-1]
        path.write_bytes(b"")
        clips.records[clips.records.index(record)] = replace(record, path=str(path))
    with pytest.raises(ValueError, match=r"queries \(0 of 2 videos\) must hold at least one"):
        classify(model, clips, SCALE)


def test_evaluate_tests_a_head_beside_other_protocols(trained, clip_folder, query_folder, tmp_path):
    run = EvaluateRun(
        weights=trained[1].weights,
        gallery=str(clip_folder),
        queries=str(query_folder),
        out=str(tmp_path / "rows.jsonl"),
        frames=[4],
        sizes=[32],
        protocols=["retrieval", "finetune", "probe-sgd"],
        num_views=2,
        num_crops=3,
    )
    rows = evaluate(run)
    assert [row.protocol for row in rows] == ["retrieval", "finetune", "probe-sgd"]
    assert rows[1].note == "2 views x 3 crops" and rows[1].value == rows[2].value
    assert evaluate(run) == rows
    with pytest.raises(
        ValueError, match="num_views and num_crops belong to finetune and probe-sgd"
    ):
        evaluate(replace(run, protocols=["retrieval"]))
