"""Labels are names: the classes are those that occur, and a head that is there keeps its numbers."""

from dataclasses import replace

import pytest
import torch

from stretchysnake.data.classes import contradictions, number_classes
from stretchysnake.data.records import VideoRecord
from stretchysnake.models.config import VideoMambaConfig
from stretchysnake.models.videomamba import VideoMamba
from stretchysnake.models.weights.files import save_model
from stretchysnake.train.labels import labelled_records
from stretchysnake.train.run import TrainRun


def records(*labels, names=None):
    names = names or [""] * len(labels)
    return [VideoRecord(f"{i}.mp4", k, n) for i, (k, n) in enumerate(zip(labels, names, strict=True))]  # fmt: skip


@pytest.mark.parametrize("labels", [(5, 705), (5, 9_000_005), (5, 100_000_005), (1, 10**17)])
def test_gaps_make_no_classes(labels):
    found = number_classes(records(*labels[::-1], *labels))
    assert found.names == [str(label) for label in labels]
    assert [record.label for record in found.records] == [1, 0, 0, 1]
    assert [record.class_name for record in found.records[:2]] == found.names[::-1]
    (note,) = found.notes
    assert note.startswith(f"labels {labels[0]} to {labels[1]} are 2 classes")


def test_labels_without_gaps_are_left_as_they_are():
    given = records(2, 0, 1, 0, names=["c", "a", "b", "a"])
    found = number_classes(given)
    assert found.records == given and found.names == ["a", "b", "c"] and found.notes == []


def test_a_clip_with_two_labels_is_told_and_parts_of_a_video_are_not():
    given = [VideoRecord("a.mp4", 0, "run"), VideoRecord("a.mp4", 1), VideoRecord("b.mp4", 1)]
    (note,) = contradictions(given)
    assert note.startswith("1 clip is listed with different labels, first a.mp4 (run, 1)")
    parts = [replace(record, start=float(i)) for i, record in enumerate(given)]
    assert contradictions(parts) == []


def test_names_of_labels_stay_their_names():
    found = number_classes(records(7, 3, names=["run", ""]))
    assert found.names == ["3", "run"]
    assert [(r.label, r.class_name) for r in found.records] == [(1, "run"), (0, "3")]


def test_a_head_keeps_its_numbers_whichever_of_them_occur():
    given = records(399, 3, names=["zumba", ""])
    found = number_classes(given, num_classes=400)
    assert found.records == given and len(found.names) == 400
    assert (found.names[3], found.names[17], found.names[399]) == ("3", "17", "zumba")
    with pytest.raises(
        ValueError, match=r"num_classes \(399\) must cover .* 0..399; use 400, or 0 for .*\(2\)"
    ):
        number_classes(given, num_classes=399)


@pytest.mark.parametrize(
    ("num_classes", "head", "labels", "classes"),
    [(0, None, [0, 1], 2), (6, None, [2, 5], 6), (0, 6, [2, 5], 6), (0, 7, [0, 1], 2)],
    ids=[
        "from the data",
        "as the run says",
        "as the weights' head ends",
        "a head of other classes",
    ],
)
def test_a_training_numbers_labels_for_its_head(tmp_path, num_classes, head, labels, classes):
    (tmp_path / "list.csv").write_text("a.mp4,2\nb.mp4,5\n")
    config = VideoMambaConfig.named("nano", num_classes=num_classes)
    run = TrainRun(data=str(tmp_path / "list.csv"), out=str(tmp_path / "out"), model=config)
    if head is not None:
        save_model(tmp_path / "w.safetensors", VideoMamba(replace(config, num_classes=head)))
        run = replace(run, weights=str(tmp_path / "w.safetensors"))
    found = labelled_records(run)
    assert [record.label for record in found.records] == labels
    assert len(found.names) == classes


def test_any_number_may_be_a_label_when_videos_are_held_out():
    from stretchysnake.eval.protocols.probe import held_out

    small = torch.tensor([0, 0, 0, 1, 1, 1])
    assert held_out(small, [""] * 6).equal(held_out(small * (10**17) + 5, [""] * 6))
