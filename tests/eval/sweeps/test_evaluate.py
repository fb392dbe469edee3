"""evaluate on real files: interrupted and resumed, several protocols, refusals before any work."""

import shutil
from dataclasses import replace

import pytest

import stretchysnake.eval.sweeps.evaluate as module
import stretchysnake.eval.sweeps.resumed_sweep as resumed_sweep
from stretchysnake import read_records
from stretchysnake.data.records import write_records
from stretchysnake.eval.sweeps.evaluate import evaluate, read_lists
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.results.comparison import paired_test, unpack_correct
from stretchysnake.results.rows import append_rows, read_rows


def run_on(trained, clip_folder, query_folder, out):
    return EvaluateRun(
        weights=trained[1].weights,
        gallery=str(clip_folder),
        queries=str(query_folder),
        out=str(out / "rows.jsonl"),
        frames=[4],
        sizes=[16, 32],
        protocols=["retrieval", "probe"],
        metrics=["top1", "knn@3", "map", "gallery_top1"],
    )


@pytest.fixture
def run(trained, clip_folder, query_folder, tmp_path):
    return run_on(trained, clip_folder, query_folder, tmp_path)


@pytest.fixture(scope="module")
def whole(trained, clip_folder, query_folder, tmp_path_factory):
    """The rows of the same run, never interrupted."""
    return evaluate(run_on(trained, clip_folder, query_folder, tmp_path_factory.mktemp("whole")))


def fixed(row):
    """A row without what a clock, or an edit of the tree meanwhile, decides."""
    return replace(row, milliseconds=None, created="", commit="")


def test_every_cell_protocol_and_metric_has_one_row(run):
    rows = evaluate(run)
    assert len(rows) == len(read_rows(run.out)) == 2 * 5
    assert {(row.protocol, row.metric) for row in rows} == {
        ("retrieval", "top1"),
        ("retrieval", "knn@3"),
        ("retrieval", "map"),
        ("retrieval", "gallery_top1"),
        ("probe", "top1"),
    }
    for row in rows:
        assert row.low <= row.value <= row.high and row.peak_mib > 0 and row.num_queries == 12
    assert (
        rows[0].value == 1.0
    )  # no query is in the gallery; the classes differ in brightness alone
    assert all(
        row.value == sum(unpack_correct(row.correct, 12)) / 12 for row in rows if row.correct
    )
    assert paired_test(rows[0], rows[5]).p_value == 1


@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_an_interrupted_sweep_resumes_with_the_same_rows_and_no_cell_twice(
    run, whole, tmp_path, monkeypatch, stop_after
):
    run = replace(run, feature_cache=str(tmp_path / "features"))
    written = []

    def torn(path, rows):
        if len(written) == stop_after:
            raise KeyboardInterrupt
        written.append(rows)
        append_rows(path, rows)

    monkeypatch.setattr(resumed_sweep, "append_rows", torn)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run)
    assert len(read_rows(run.out)) == stop_after
    monkeypatch.undo()
    assert [fixed(row) for row in evaluate(run)] == [fixed(row) for row in whole]
    assert (
        len(list((tmp_path / "features").glob("*.safetensors"))) == 4
    )  # gallery and queries of two cells
    lines = read_rows(run.out)
    places = {(row.protocol, row.metric, row.num_frames, row.size) for row in lines}
    assert len(lines) == len(places) == 10


def test_a_finished_sweep_opens_no_clip(run, monkeypatch):
    run = replace(run, protocols=["retrieval"])
    rows = evaluate(run)

    def never(*args, **kwargs):
        raise AssertionError("clips were opened again")

    monkeypatch.setattr(module, "open_clips", never)
    assert evaluate(run) == rows


def test_metrics_added_later_measure_only_themselves(run):
    small = replace(run, frames=[4], sizes=[16], protocols=["retrieval"], metrics=["top1"])
    (first,) = evaluate(small)
    more = evaluate(replace(small, metrics=["top1", "recall@2"]))
    assert more[0] == first and more[1].metric == "recall@2"
    assert len(read_rows(run.out)) == 2


def test_cells_that_do_not_fit_are_rows_of_every_metric(run):
    rows = evaluate(replace(run, frames=[4], sizes=[16], memory_limit_gib=1e-6))
    assert len(rows) == 5 and {row.status for row in rows} == {"oom"}
    assert all(row.value is None and "needs" in row.note for row in rows)


def test_settings_that_change_the_number_change_the_protocol(run):
    one = replace(run, frames=[4], sizes=[16], protocols=["retrieval"], metrics=["top1"])
    changes = {"similarity": "l2"}, {"patch_from": "static_tokens"}
    names = [evaluate(replace(one, **change))[0].protocol for change in changes]
    assert names == ["retrieval-l2", "retrieval-static_tokens-patches"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"protocols": []}, r"protocols \(none\) must name at least one"),
        ({"protocols": ["probe", "probe"], "metrics": ["top1"]}, "must name each once"),
        ({"protocols": ["probe"]}, "do not ask for it; add retrieval or leave them out"),
        ({"metrics": ["recall@13"]}, r"more neighbours than the gallery has \(12\)"),
        ({"similarity": "dot"}, r"similarity \('dot'\)"),
        ({"protocols": ["retrieval"], "group_safe": True}, "needs groups, and no clip has one"),
    ],
)
def test_mistakes_are_named(run, changes, text):
    with pytest.raises(ValueError, match=text):
        evaluate(replace(run, frames=[4], sizes=[16], **changes))


def test_queries_are_numbered_like_the_gallery(clip_folder, tmp_path):
    shutil.copytree(clip_folder / "class2", tmp_path / "queries" / "class2")
    gallery, queries = read_lists(str(clip_folder), str(tmp_path / "queries"))
    assert {record.label for record in gallery} == {0, 1, 2}
    assert {record.label for record in queries} == {2}  # alone it would have been 0


def test_labels_missing_in_the_gallery_are_refused_before_any_work(run, clip_folder, tmp_path):
    records = [replace(record, class_name="") for record in read_records(clip_folder)]
    write_records(tmp_path / "gallery.csv", [r for r in records if r.label != 2])
    write_records(tmp_path / "one.csv", [r for r in records if r.label == 2])
    write_records(tmp_path / "queries.csv", records)
    lists = {"gallery": str(tmp_path / "gallery.csv"), "queries": str(tmp_path / "queries.csv")}
    with pytest.raises(ValueError, match=r"labels \(2\) of 4 queries occur in no gallery video"):
        evaluate(replace(run, **lists))
    with pytest.raises(ValueError, match=r"gallery holds one class \(label 2\)"):
        evaluate(replace(run, gallery=str(tmp_path / "one.csv"), queries=str(tmp_path / "one.csv")))
    assert not (tmp_path / "rows.jsonl").exists()
