"""A classifier from a folder per class: the kind follows the number of clips, and what is written classifies alike."""

import shutil
from pathlib import Path

import pytest
import torch

from stretchysnake import cli
from stretchysnake.data.records import VideoRecord
from stretchysnake.eval.features.subject import fit_of, read_subject
from stretchysnake.eval.protocols.classifier import WEIGHTS, load_classifier
from stretchysnake.recipes.finetuning import _method, finetune_folder
from stretchysnake.search.embed import embed


def records(*counts):
    return [
        VideoRecord(f"{i}.mp4", label, f"c{label}")
        for label, n in enumerate(counts)
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("counts", "kind", "text"),
    [
        ((4, 90), "knn", "k-NN instead of fine-tuning: 4 training clips in the smallest class (c0)"),
        ((50, 1), "knn", "1 training clip in the smallest class (c1)"),
        ((5, 30), "probe", "a linear probe instead of fine-tuning: 5 training clips"),
        ((20, 20), "finetune", "fine-tuned: 20 training clips"),
    ],
)  # fmt: skip
def test_the_kind_follows_the_smallest_class_and_says_so(counts, kind, text):
    found, reason = _method("auto", records(*counts), ["c0", "c1"])
    assert found == kind and text in reason


@pytest.mark.parametrize("method", ["knn", "probe", "finetune"])
def test_what_is_written_predicts_what_was_measured(trained, clip_folder, tmp_path, method):
    done = finetune_folder(
        str(clip_folder), weights=trained[1].weights, out=str(tmp_path / "out"), method=method,
        num_frames=4, size=16, steps=2 if method == "finetune" else None, batch_size=4,
    )  # fmt: skip
    assert done.kind == method and done.classes == ["class0", "class1", "class2"]
    assert len(done.labels) == 2 and done.num_train == 10
    assert sum(map(sum, done.confusion)) == 2
    assert sum(done.confusion[i][i] for i in range(3)) == done.num_right
    stored = load_classifier(tmp_path / "out")
    features = embed(
        done.paths, weights=tmp_path / "out/weights.safetensors", num_frames=4, size=16
    ).features
    chances = stored.probabilities(features)
    assert chances.argmax(1).tolist() == done.predicted
    torch.testing.assert_close(chances.sum(1), torch.ones(2, dtype=torch.float64))


def test_a_fine_tuned_model_is_trained_and_asked_with_its_fit(
    trained, clip_folder, tmp_path, capsys
):
    scale, out = {"num_frames": 4, "size": 16}, tmp_path / "out"
    done = finetune_folder(
        str(clip_folder), weights=trained[1].weights, out=str(out), method="finetune", fit="crop",
        steps=1, batch_size=2, num_workers=0, **scale,
    )  # fmt: skip
    assert fit_of(read_subject(out / WEIGHTS)[2]) == load_classifier(out).fit == "crop"
    features = embed(done.paths, weights=out / WEIGHTS, fit="crop", **scale).features
    chances = load_classifier(out).probabilities(features)
    capsys.readouterr()
    assert cli.main(["classify", *done.paths, "--model", str(out), "-k", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, path, chance in zip(lines, done.paths, chances, strict=True):
        assert line == f"{path}: class{int(chance.argmax())} {100 * chance.max():.1f} %"


@pytest.mark.slow
def test_the_head_alone_is_new_when_fine_tuning_and_the_classes_are_learnt(
    trained, clip_folder, tmp_path
):
    """The clips differ in brightness, which even a few steps tell apart."""
    many = tmp_path / "many"
    for label in range(3):
        (many / f"c{label}").mkdir(parents=True)
        for number in range(4):
            shutil.copyfile(
                clip_folder / f"class{label}/{number}.mp4", many / f"c{label}/{number}.mp4"
            )
    done = finetune_folder(
        str(many),
        weights=trained[1].weights,
        out=str(tmp_path / "out"),
        method="finetune",
        steps=30,
        batch_size=6,
    )
    assert done.accuracy == 1.0
    assert load_classifier(tmp_path / "out").model.config.num_classes == 3


def test_nearest_neighbour_votes_break_ties_by_distance(trained, clip_folder, tmp_path):
    finetune_folder(str(clip_folder), weights=trained[1].weights, out=str(tmp_path / "out"), method="knn",
                    num_frames=4, size=16)  # fmt: skip
    stored = load_classifier(tmp_path / "out")
    stored.tensors.update(features=torch.eye(3, 64), labels=torch.tensor([2, 0, 1]))
    query = torch.zeros(1, 64)
    query[0, :3] = torch.tensor([0.9, 0.5, 0.1])
    assert stored.probabilities(query).argmax(1).tolist() == [2]


def test_the_verbs(trained, clip_folder, tmp_path, capsys):
    weights, out = str(trained[1].weights), str(tmp_path / "out")
    assert (
        cli.main(["finetune", str(clip_folder), "--weights", weights, "-o", out, "--frames", "4"])
        == 0
    )
    said = capsys.readouterr().out
    assert "k-NN instead of fine-tuning" in said and "of 2 videos held out are right" in said
    page = (tmp_path / "out/report.html").read_text()
    assert "Confusion matrix" in page and page.count("<td") == 9 and "http" not in page
    assert (tmp_path / "out/confusion.csv").read_text().splitlines()[
        0
    ] == "true \\ predicted,class0,class1,class2"
    video = str(clip_folder / "class1/2.mp4")
    assert cli.main(["classify", video, "--model", out, "-k", "2"]) == 0
    assert f"{video}: class" in capsys.readouterr().out
    for words, text in (
        (
            ["classify", video, "--model", str(clip_folder)],
            "holds no classifier.safetensors; make it with",
        ),
        (
            ["classify", video, "--model", out, "--budget", "5 ms"],
            "needs a fine-tuned model; this one (knn)",
        ),
        (["classify", video, "--model", out, "-k", "0"], "k (0) must be at least 1"),
        (
            ["finetune", str(clip_folder), "x", "--weights", weights, "-o", out],
            "must be one folder or list",
        ),
        (
            ["finetune", str(clip_folder), "--weights", weights, "-o", out, "--method", "svm"],
            "method ('svm') must be",
        ),
        (
            ["finetune", str(clip_folder), "--weights", weights, "-o", out, "--steps", "0"],
            "steps (0) are of fine-tuning, and this is none (k-NN instead of fine-tuning: 3 training",
        ),
        (["finetune", str(clip_folder / "class0"), "--weights", weights, "-o", out], "class0"),
    ):
        assert cli.main(words) == 2
        assert text in capsys.readouterr().err
    (tmp_path / "out/weights.safetensors").write_bytes(trained[1].weights.encode())
    with pytest.raises(ValueError, match=r"weights\.safetensors is not the one it was made with"):
        load_classifier(out)


def copied(clip_folder, root, times):
    """The clips of two classes, each `times` over with the same bytes under other names."""
    for label in ("class0", "class2"):
        (root / label).mkdir(parents=True)
        for clip in sorted((clip_folder / label).iterdir()):
            for number in range(times):
                shutil.copy(clip, root / label / f"{clip.stem} ({number}).mp4")
    return root


@pytest.mark.parametrize("seed", [0, 1])
def test_copies_stand_on_one_side_and_count_once(trained, clip_folder, tmp_path, capsys, seed):
    data = copied(clip_folder, tmp_path / "data", 3)
    done = finetune_folder(
        str(data), weights=trained[1].weights, out=str(tmp_path / "out"), num_frames=4, size=16, seed=seed
    )  # fmt: skip
    held = {Path(path).read_bytes() for path in done.paths}
    others = {path.read_bytes() for path in data.rglob("*.mp4") if str(path) not in done.paths}
    assert len(done.paths) == 3 and done.num_train == 21 and not held & others
    assert done.kind == "knn" and "3 training clips in the smallest class" in done.reason
    told = capsys.readouterr().err
    assert "16 of 24 files are copies of others" in told and "held out together" in told


def test_nothing_but_copies_leaves_nothing_to_judge(trained, clip_folder, tmp_path):
    data = tmp_path / "data"
    for label in ("class0", "class2"):
        (data / label).mkdir(parents=True)
        clip = next((clip_folder / label).iterdir())
        for number in range(3):
            shutil.copy(clip, data / label / f"{number}.mp4")
    with pytest.raises(ValueError, match="that are no copies or parts of one file; add videos"):
        finetune_folder(str(data), weights=trained[1].weights, out=str(tmp_path / "out"))


def test_labels_with_gaps_are_classes_called_by_their_numbers(
    trained, clip_folder, tmp_path, capsys
):
    clips = sorted(clip_folder.rglob("*.mp4"))
    numbers = {"class0": 5, "class1": 705, "class2": 100_000_005}
    lines = [f"{clip},{numbers[clip.parent.name]}" for clip in clips]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    done = finetune_folder(
        str(tmp_path / "list.csv"), weights=trained[1].weights, out=str(tmp_path / "out"),
        method="finetune", num_frames=4, size=16, steps=1, batch_size=4,
    )  # fmt: skip
    assert done.classes == ["5", "705", "100000005"] and len(done.confusion) == 3
    assert "labels 5 to 100000005 are 3 classes" in capsys.readouterr().err
    stored = load_classifier(tmp_path / "out")
    assert stored.classes == done.classes and stored.model.config.num_classes == 3
    true = [str(numbers[Path(path).parent.name]) for path in done.paths]
    assert [done.classes[label] for label in done.labels] == true
