"""A number is of this data, these classes, these weights, and of no query that finds itself."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from stretchysnake import VideoMambaConfig, cli, read_records
from stretchysnake.data.clips.loader import DecodedClips
from stretchysnake.data.records import VideoRecord, write_records
from stretchysnake.eval.features.extraction import extract, model_hash
from stretchysnake.eval.features.feature_cache import features_key
from stretchysnake.eval.features.subject import class_names, read_subject
from stretchysnake.eval.protocols.head_classes import BY_NUMBER, head_labels
from stretchysnake.eval.protocols.self_matches import meetings, refuse_self_matches
from stretchysnake.eval.sweeps import sweep as sweeping
from stretchysnake.eval.sweeps.evaluate import evaluate
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.eval.sweeps.model_under_test import ModelUnderTest
from stretchysnake.flexibility import Scale
from stretchysnake.models.videomamba import VideoMamba
from stretchysnake.models.weights.converting import convert
from stretchysnake.models.weights.files import read_checkpoint, save_model
from stretchysnake.models.weights.loading import load_model
from stretchysnake.results.comparison import unpack_correct
from stretchysnake.results.rows import append_rows, latest, read_rows


@pytest.fixture
def run(trained, clip_folder, query_folder, tmp_path):
    for name, folder in (("gallery", clip_folder), ("queries", query_folder)):
        write_records(
            tmp_path / f"{name}.csv", read_records(shutil.copytree(folder, tmp_path / name))
        )
    return EvaluateRun(
        weights=trained[1].weights,
        gallery=str(tmp_path / "gallery.csv"),
        queries=str(tmp_path / "queries.csv"),
        out=str(tmp_path / "rows.jsonl"),
        frames=[4],
        sizes=[16],
    )


def relist(path, change):
    write_records(path, [change(record) for record in read_records(path)])


# A1: classes by name


def without(run, name, **changes):
    """The run with both lists rid of a class; what is left is numbered from 0 again."""
    for path in (run.gallery, run.queries):
        write_records(path, [r for r in read_records(path) if r.class_name != name])
    return replace(run, protocols=["finetune"], **changes)


def test_a_head_is_scored_by_names_where_lists_lack_a_class(run):
    (whole,) = evaluate(replace(run, protocols=["finetune"]))
    right = unpack_correct(whole.correct, 12)
    (rest,) = evaluate(without(run, "class0"))
    assert unpack_correct(rest.correct, 8) == right[4:]
    assert (whole.note, rest.note) == ("1 views x 1 crops",) * 2
    assert any(right[4:])


def test_a_class_that_the_head_does_not_know_is_refused_and_retrieval_is_not(run):
    for path in (run.gallery, run.queries):
        relist(path, lambda r: replace(r, class_name=r.class_name.replace("class1", "jump")))
    (row,) = evaluate(run)
    assert row.status == "ok"
    with pytest.raises(
        ValueError,
        match=r"classes \(jump\) of 4 queries are none of the 3 that these weights were trained on \(class0, class1, "
        r"class2\); leave these videos out, or give weights fine-tuned",
    ):
        evaluate(replace(run, protocols=["finetune"]))


def named(*pairs):
    return [VideoRecord(f"{i}.mp4", label, name) for i, (label, name) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("classes", "pairs", "wanted", "note"),
    [
        (["a", "b", "c"], [(0, "b"), (1, "c")], [1, 2], ""),
        (["5", "705"], [(0, "705")], [1], ""),
        (["0", "1", "2"], [(2, ""), (1, "")], [2, 1], ""),
        (
            ["a", "b", "c"],
            [(2, ""), (1, "")],
            [2, 1],
            "lists without class names: matched by number",
        ),
        (None, [(2, ""), (1, "")], [2, 1], BY_NUMBER),
        (None, [(0, "2")], [2], BY_NUMBER),
        (None, [(0, "x"), (1, "y"), (2, "z")], [0, 1, 2], BY_NUMBER),
    ],
)
def test_labels_of_a_head(classes, pairs, wanted, note):
    assert head_labels(classes, 2 if classes == ["5", "705"] else 3, [], named(*pairs)) == (
        wanted,
        note,
    )


@pytest.mark.parametrize(
    ("classes", "outputs", "pairs", "text"),
    [
        (["a", "b"], 2, [(0, "a"), (1, "")], r"query 1.mp4 has no class name \(label 1\), and others have"),
        (["a", "b"], 2, [(2, "")], "weights classify 2 classes, and the queries have labels up to 2"),
        (["0", "1"], 2, [(2, "")], r"classes \(2\) of 1 queries are none of the 2"),
        (["0", "1"], 2, [(0, "run")], r"classes \(run\) of 1 queries are none of the 2"),
        (None, 3, [(0, "x"), (1, "y")], r"classify 3 classes and do not say which, and .* hold 2, so"),
        (None, 0, [(0, "x")], "weights classify 0 classes; give weights fine-tuned"),
    ],
)  # fmt: skip
def test_labels_that_fit_no_head_are_refused(classes, outputs, pairs, text):
    with pytest.raises(ValueError, match=text):
        head_labels(classes, outputs, [], named(*pairs))


def test_weights_without_names_are_matched_by_number_and_the_row_says_so(run, tmp_path):
    model, _, metadata = read_subject(run.weights)
    metadata.pop("classes")
    save_model(tmp_path / "old.safetensors", model, **metadata)
    run = replace(
        run, weights=str(tmp_path / "old.safetensors"), protocols=["retrieval", "finetune"]
    )
    rows = evaluate(run)
    assert [row.note for row in rows] == ["", f"1 views x 1 crops; {BY_NUMBER}"]
    with pytest.raises(ValueError, match=r"classify 3 classes and do not say which, and .* hold 2"):
        evaluate(without(run, "class0"))


def test_conversion_keeps_the_names_unless_the_head_is_replaced(trained, tmp_path):
    convert(trained[1].weights, tmp_path / "a.safetensors")
    metadata = read_checkpoint(tmp_path / "a.safetensors")[1]["run"]
    assert metadata["classes"] == ["class0", "class1", "class2"] and "card" in metadata
    convert(trained[1].weights, tmp_path / "b.safetensors", num_classes=5)
    assert "classes" not in read_checkpoint(tmp_path / "b.safetensors")[1]["run"]


def test_names_that_do_not_fit_the_head_are_damage(trained):
    model, _ = load_model(trained[1].weights)
    assert (
        class_names(model, {}) is None and class_names(model, {"classes": ["a", "a", "b"]}) is None
    )
    for wrong in (["a", "b"], "abc", [1, 2, 3]):
        with pytest.raises(ValueError, match="must be a list of 3 names"):
            class_names(model, {"classes": wrong})


# A2: other data is measured anew


def test_the_same_videos_with_other_segments_are_measured_anew(run):
    (first,) = evaluate(run)
    relist(run.queries, lambda record: replace(record, start=0.1, end=0.2))
    (second,) = evaluate(run)
    assert second.run_id != first.run_id and second.queries != first.queries
    assert len(read_rows(run.out)) == 2 and evaluate(run) == [second]


def test_a_replaced_video_is_measured_anew_and_a_moved_set_is_not(run, tmp_path):
    (first,) = evaluate(run)
    (tmp_path / "new").mkdir()
    for name in ("gallery", "queries"):
        shutil.move(tmp_path / name, tmp_path / "new")
        relist(
            tmp_path / f"{name}.csv",
            lambda r, n=name: replace(
                r, path=r.path.replace(str(tmp_path / n), str(tmp_path / "new" / n))
            ),
        )
    assert evaluate(run) == [first]
    path = read_records(run.queries)[0].path
    Path(path).write_bytes(Path(path).read_bytes())
    assert evaluate(run)[0].run_id != first.run_id


def test_features_are_kept_for_these_segments_and_files(trained, run):
    model, _ = load_model(trained[1].weights)
    records, scale = read_records(run.queries), Scale(4, 16, 4)

    def key():
        return features_key(model_hash(model), DecodedClips(records), scale)

    first = key()
    records[2] = replace(records[2], end=0.2)
    second = key()
    os.utime(records[5].path, ns=(1, 1))
    assert len({first, second, key()}) == 3
    assert extract(model, DecodedClips(records), scale).segments[2] == (None, 0.2)


# A3: whose weights


def test_rows_name_their_weights_and_heads_apart(run, trained):
    rows = evaluate(replace(run, protocols=["retrieval", "finetune"], model="mine"))
    model, _ = load_model(trained[1].weights)
    hashes = [model_hash(model), model_hash(model, head=True)]
    assert [row.weights for row in rows] == hashes and hashes[0] != hashes[1]
    assert {row.model for row in rows} == {"mine"}
    model.head.weight.data += 1
    assert model_hash(model) == hashes[0] and model_hash(model, head=True) != hashes[1]


def test_another_name_is_another_row(run):
    (first,) = evaluate(run)
    (second,) = evaluate(replace(run, model="mine"))
    assert (first.model, second.model) == ("static_tokens", "mine")
    assert evaluate(run) == [first] and len(read_rows(run.out)) == 2


def test_a_cell_of_other_weights_is_not_done(run):
    (first,) = evaluate(run)
    os.unlink(run.out)
    append_rows(run.out, [replace(first, weights="0123456789abcdef", value=0.0)])
    assert evaluate(run)[0].value == first.value and len(read_rows(run.out)) == 2
    os.unlink(run.out)
    old = replace(first, weights="", value=0.0)  # same run_id, as a study of an earlier version has
    append_rows(run.out, [old])
    assert evaluate(run) == [old]


def test_two_models_of_one_variant_are_no_plan_and_no_report(run, trained, tmp_path, capsys):
    metadata = read_checkpoint(run.weights)[1]["run"]
    other = VideoMamba(VideoMambaConfig.named("nano", num_classes=3))
    save_model(tmp_path / "other.safetensors", other, **metadata)
    evaluate(run)
    theirs = replace(run, weights=str(tmp_path / "other.safetensors"), sizes=[32])
    evaluate(theirs)
    assert cli.main(["report", run.out, "--out", str(tmp_path / "report.html")]) == 2
    said = capsys.readouterr().err.strip()
    hashes = [model_hash(m) for m in (load_model(run.weights)[0], other)]
    assert all(text in said for text in (*hashes, "evaluate --model NAME")), said
    assert len(said.splitlines()) == 1
    os.unlink(run.out)
    evaluate(run)
    evaluate(replace(theirs, model="other"))
    rows = latest(read_rows(run.out))
    assert [row.model for row in rows] == ["static_tokens", "other"]


# A4: memory


def test_cells_that_did_not_fit_are_tried_again(run):
    (full,) = evaluate(replace(run, memory_limit_gib=1e-6))
    evaluate(replace(run, memory_limit_gib=1e-6))
    assert full.status == "oom" and len(read_rows(run.out)) == 1  # said once
    (row,) = evaluate(run)
    assert row.status == "ok" and evaluate(run) == [row]
    assert [one.status for one in read_rows(run.out)] == ["oom", "ok"]


def test_the_limit_is_the_models_devices(run, trained, monkeypatch):
    asked = []
    monkeypatch.setattr(sweeping, "available_memory", lambda device: asked.append(device) or 1)
    assert evaluate(replace(run, device="cpu"))[0].status == "oom"
    assert [device.type for device in asked] == ["cpu"]


# A5: queries in the gallery


def test_queries_in_the_gallery_are_refused(run, tmp_path):
    both = read_records(run.queries) + read_records(run.gallery)[:3]
    write_records(tmp_path / "both.csv", both)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gallery")
    for protocols in (["retrieval"], ["finetune"], ["probe"]):
        with pytest.raises(
            ValueError, match=r"queries \(3 of 15, first .*class0/0.mp4\) are in the ga"
        ):
            evaluate(replace(run, queries=str(tmp_path / "both.csv"), protocols=protocols))
    with pytest.raises(ValueError, match=r"queries \(12 of 12, .*give allow_self true"):
        evaluate(replace(run, queries=str(link)))
    assert not os.path.exists(run.out)


def test_a_query_allowed_to_be_in_the_gallery_is_left_out_of_its_own_ranking(run):
    itself = replace(run, queries=run.gallery, allow_self=True)
    top1, others = evaluate(replace(itself, metrics=["top1", "gallery_top1"], sizes=[16]))
    assert (top1.correct, top1.value) == (others.correct, others.value)
    assert top1.note == "12 of 12 queries are in the gallery too, each left out of its own ranking"
    assert others.note == ""
    (probe,) = evaluate(replace(itself, protocols=["probe"]))
    assert probe.note.endswith("; 12 of 12 queries are in the gallery too")


def test_the_sweep_refuses_too(trained, clip_folder):
    model, variant, _ = read_subject(trained[1].weights)
    tested = ModelUnderTest(model=model, variant=variant, seed=0, run_id="r")
    clips = DecodedClips(read_records(clip_folder))
    with pytest.raises(ValueError, match=r"queries \(12 of 12"):
        list(sweeping.sweep(tested, "toy", clips, clips, [(4, 16)]))


def test_copies_are_counted_in_the_note(run, tmp_path):
    for index, record in enumerate(read_records(run.gallery)[:5]):
        shutil.copyfile(record.path, tmp_path / "queries" / "class1" / f"copy{index}.mp4")
    copied = [
        VideoRecord(str(tmp_path / "queries" / "class1" / f"copy{i}.mp4"), 1, "class1")
        for i in range(5)
    ]
    write_records(run.queries, read_records(run.queries) + copied)
    (row,) = evaluate(run)
    assert row.note == "5 of 17 queries are copies of a gallery video's bytes"


@pytest.fixture
def file(tmp_path):
    def write(name, content=b"same"):
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return write


def test_meetings_count_each_query_once(file):
    a, b, other = file("a"), file("b"), file("c", b"diff")
    held = [VideoRecord(a, 0, start=0.0, end=5.0), VideoRecord(a, 0, start=10.0, end=12.0)]
    asked = [
        VideoRecord(a, 0, end=5.0),  # the same: no start is 0
        VideoRecord(a, 0, start=4.0, end=6.0),  # overlaps
        VideoRecord(a, 0, start=5.0, end=10.0),  # touches only
        VideoRecord(a, 0, start=11.0),  # overlaps
        VideoRecord(b, 0, start=1.0, end=2.0),  # copy, with seconds in common
        VideoRecord(b, 0, start=6.0, end=7.0),  # copy of other seconds
        VideoRecord(other, 0),  # same size, other bytes
        VideoRecord(str(file("d")) + "-missing", 0),
    ]
    found = meetings(held, asked)
    assert (found.same, found.overlapping, found.copies, found.total) == (1, 2, 1, 8)
    assert len(found.notes("probe")) == 3
    with pytest.raises(ValueError, match=r"queries \(1 of 8"):
        refuse_self_matches(held, asked)
    refuse_self_matches(held, asked[1:])


def test_files_that_differ_in_the_middle_alone_are_no_copies(file):
    whole = bytearray(os.urandom(1 << 18))
    first = file("x", whole)
    whole[1 << 17] ^= 1
    second = file("y", whole)
    assert meetings([VideoRecord(first, 0)], [VideoRecord(second, 0)]).copies == 0
    third = file("z", whole)
    assert meetings([VideoRecord(second, 0)], [VideoRecord(third, 0)]).copies == 1
