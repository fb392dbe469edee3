"""The study, shrunk: every part from generated videos to the summary, interrupted and resumed."""

import gzip
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import stretchysnake.eval.sweeps.resumed_sweep as resumed_sweep
import stretchysnake.train.loop as loop
from stretchysnake import cli
from stretchysnake.flexibility import Scale, eval_scale, scale_at, sets_around
from stretchysnake.models.architectures import build_model
from stretchysnake.recipes.motion_digits import make_suites
from stretchysnake.recipes.study import pages, publishing
from stretchysnake.recipes.study.conditions import trainings
from stretchysnake.recipes.study.cost import study_cost
from stretchysnake.recipes.study.design import StudyRun, quick_study
from stretchysnake.recipes.study.pages import command_of, notes
from stretchysnake.recipes.study.publishing import publish, redraw
from stretchysnake.recipes.study.stopwatch import Stopwatch
from stretchysnake.recipes.study.study import study
from stretchysnake.report.pages.context import (
    PictureFile,
    ReportContext,
    TrainingInfo,
    read_context,
    write_context,
)
from stretchysnake.results.rows import append_rows, read_rows, select

SHRUNK = StudyRun(
    variants=("vanilla", "flexivit", "static_tokens"),
    peers=("timesformer-nano",),
    seeds=(0,),
    start_steps=1,
    steps=1,
    batch_size=2,
    scales_per_step=(),
    only=("main", "variants", "peers", "lengths", "transfer", "scratch", "source", "views"),
    suites=("short",),
    frames=(4, 8),
    sizes=(16, 32),
    source_clips=40,
    source_test_clips=40,
    gallery_clips=24,
    query_clips=10,
    finetune_steps=1,
    sgd_probe=True,
    jobs=1,
)


@pytest.fixture(scope="module")
def shrunk(tmp_path_factory):
    """The study, stopped once while it writes rows, and then finished."""
    run = replace(SHRUNK, out=str(tmp_path_factory.mktemp("study")))
    written = []

    def torn(path, rows):
        if len(written) == 30:
            raise KeyboardInterrupt
        written.append(rows)
        append_rows(path, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumed_sweep, "append_rows", torn)
        with pytest.raises(KeyboardInterrupt):
            study(run)
    assert len(read_rows(f"{run.out}/rows.jsonl")) == 30
    return run, study(run)


def test_every_protocol_is_measured_once(shrunk):
    run, _ = shrunk
    rows = read_rows(f"{run.out}/rows.jsonl")
    keys = {(r.run_id, r.dataset, r.protocol, r.metric, r.num_frames, r.size) for r in rows}
    assert len(keys) == len(rows)
    counts = {
        name: len(select(rows, protocol=name, metric="top1")) for name in {r.protocol for r in rows}
    }
    assert counts == {
        # and vanilla trained at T = 4, in its two cells; the peer; static tokens from scratch
        "retrieval": 3 * 4 + 2 + 2 * 4 + 4,
        "retrieval-group-safe": 3 * 4,
        "probe": 3 * 4,
        "retrieval-static_tokens-patches": 4,
        "finetune": 2 * 3,
        "probe-sgd": 2 * 3,
        "head": 3 * 4,
        "retrieval-4-views": 2,  # at 16 px, 16 tokens a frame for 4
    }
    for row in rows:
        assert row.commit and row.train_steps == 2  # one and one, or both at once
        assert row.train_clips == row.train_steps * run.batch_size
    # two steps of two clips of 8 frames of 4 x 4 patches
    assert {r.train_tokens for r in rows if r.model == "vanilla" and r.num_frames == 8} == {
        2 * 2 * 8 * 16
    }
    assert {r.model for r in select(rows, protocol="finetune")} == {"vanilla", "static_tokens"}
    assert {
        r.patch_size for r in select(rows, protocol="finetune", model="static_tokens", size=16)
    } == {4}
    peer = [r for r in rows if r.model.startswith("timesformer-nano ")]
    assert {r.model.split()[1] for r in peer} == {"vanilla", "static_tokens"}
    assert {(r.protocol, r.metric) for r in peer} == {("retrieval", "top1")}
    assert {r.patch_size for r in peer if r.size == 16} == {4, 8}  # by its own rule of patches
    own = {
        (r.run_id, r.num_frames)
        for r in rows
        if r.native and r.model == "vanilla" and r.protocol == "retrieval"
    }
    assert {t for _, t in own} == {4, 8} and len(own) == 2


def test_summary_says_what_holds_with_seeds_intervals_and_command(shrunk):
    run, (report, lines) = shrunk
    summary = Path(run.out, "summary.md").read_text()
    for text in ("(i) static tokens beats vanilla away", "(ii) static tokens ≥ vanilla at its own",
                 "equal patches", "trained at the tested T", "finetune: static tokens", "the methods in order",
                 "10 of 10", "(queries)", "One seed", "stretchysnake study motion-digits --out"):  # fmt: skip
        assert text in summary, text
    assert all(
        any(word in line for word in ("holds", "hold on", "settled", "measured"))
        for line in lines[1:]
    )
    assert "not measured" not in summary
    assert "(iv) flexible training gains more on the SSM than on timesformer-nano" in summary
    assert Path(run.out, "tables", "size-timesformer-nano-motion-digits-short.png").is_file()
    page = Path(report).read_text()
    assert "The same training on other models" in page and "What flexible training gains" in page
    assert "flexivit" in page.lower() and Path(run.out, "tables", "claims.csv").is_file()


def test_second_call_repeats_nothing(shrunk):
    run, first = shrunk
    before = Path(run.out, "rows.jsonl").read_text()
    assert study(run) == first
    assert Path(run.out, "rows.jsonl").read_text() == before


@pytest.mark.slow
def test_rows_alone_are_not_trained_for_again_and_are_reported(shrunk, tmp_path, monkeypatch):
    """The next sitting, of a fresh checkout: nothing but the rows and videos that are made again."""
    run, (_, lines) = shrunk
    for name in ("rows.jsonl", "context.json"):
        (tmp_path / name).write_bytes(Path(run.out, name).read_bytes())
    told = read_context(tmp_path / "context.json").training
    again = replace(run, out=str(tmp_path), data=f"{run.out}/motion-digits")
    monkeypatch.setattr(loop, "train", lambda *args, **options: pytest.fail("trained again"))
    assert study(again)[1] == lines
    assert (tmp_path / "rows.jsonl").read_bytes() == Path(run.out, "rows.jsonl").read_bytes()
    there = read_context(tmp_path / "context.json").training
    assert {(one.model, one.seed, one.final_loss) for one in there} == {
        (one.model, one.seed, one.final_loss) for one in told
    }
    more = replace(again, only=(*run.only, "far"))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        study(more)


def test_trainings_of_a_sitting_elsewhere_are_told_where_their_rows_are_here(tmp_path):
    """Not those that are here, nor those that are no longer of the plan."""

    def told(model, seed, loss):
        return TrainingInfo(
            model=model, seed=seed, steps=1, seconds=1.0, clips=2, final_loss=loss, parameters=3, scales="8"
        )  # fmt: skip

    path = tmp_path / "context.json"
    assert pages._told_before(path, [], []) == []
    earlier = [told("vanilla", 0, 1.5), told("vanilla", 1, 1.6), told("static_tokens k=4", 0, 1.7)]
    write_context(path, ReportContext(training=earlier))
    plan = trainings(replace(SHRUNK, seeds=(0, 1)), data="-", cache="-")
    measured = [one for one in plan if one.shown == "vanilla"]
    assert len(measured) == 2
    (found,) = pages._told_before(path, measured, [told("vanilla", 1, 0.5)])
    assert (found.model, found.seed, found.final_loss) == ("vanilla", 0, 1.5)


def test_suites_are_opened_again_by_the_process_that_they_are_sent_to(shrunk):
    run, _ = shrunk
    there = make_suites(run, Stopwatch(), source_test=run.source_test_clips)
    here = pickle.loads(pickle.dumps(there))
    assert here.source_key == there.source_key and len(here.source_key) == 8
    for suite in ("short", "source"):
        for sent, opened in zip(there.open(suite), here.open(suite), strict=True):
            assert sent.records == opened.records and len(opened.records) >= 10
            assert torch.equal(sent.clip(3, Scale(4, 16, 4)), opened.clip(3, Scale(4, 16, 4)))
    far = Scale(28, 112, 28)  # beyond what the frame cache holds
    gallery, _ = here.open("short", from_files=True)
    assert gallery.clip(0, far).shape == (28, 112, 112, 3)


def test_a_published_study_is_told_anew_from_its_files(shrunk, tmp_path, monkeypatch):
    """Published slim, with rows compressed, and drawn again: the tables, words and pictures of the study itself."""
    run, _ = shrunk
    monkeypatch.setattr(publishing, "COMPRESSED_FROM", 1000)
    copy, again = tmp_path / "published", tmp_path / "again"
    lines = publish(run.out, copy)
    assert {path.name for path in copy.iterdir()} == {
        *("README.md", "report.html", "overview.png", "context.json", "rows.jsonl.gz"),
        *("pictures", "samples"),
    }
    assert not [*copy.rglob("*.svg"), *copy.rglob("*.npz"), *copy.rglob("*.csv")]
    assert (
        gzip.decompress((copy / "rows.jsonl.gz").read_bytes())
        == Path(run.out, "rows.jsonl").read_bytes()
    )
    pictures = Path(run.out, "report.html").read_text().count("data:image")
    shutil.move(copy, tmp_path / "moved")  # what it shows lies beside it
    assert redraw(tmp_path / "moved" / "rows.jsonl.gz", again) == lines
    for folder in (tmp_path / "moved", again):
        assert (folder / "report.html").read_text().count("data:image") == pictures > 0
    summary = Path(run.out, "summary.md").read_text().replace("rows.jsonl;", "rows.jsonl.gz;")
    assert (again / "README.md").read_text() == summary
    tables = [*Path(run.out, "tables").glob("*.csv")]
    assert len(tables) > 10
    for path in tables:
        assert (again / "tables" / path.name).read_text() == path.read_text()
    with pytest.raises(ValueError, match=r"must be new or empty: nothing is written over"):
        publish(run.out, again)
    gone = next((tmp_path / "moved" / "pictures").iterdir())
    gone = gone.rename(tmp_path / gone.name)
    with pytest.raises(
        ValueError, match=rf"every file .*, and 1 are missing, first .*{gone.name};"
    ):
        publish(tmp_path / "moved", tmp_path / "not written")
    assert not (tmp_path / "not written").exists()
    gone.rename(tmp_path / "moved" / "pictures" / gone.name)
    rows = Path(run.out, "rows.jsonl").read_bytes().splitlines(keepends=True)
    # a sitting that went on from published rows
    (tmp_path / "moved" / "rows.jsonl.gz").write_bytes(gzip.compress(b"".join(rows[:50])))
    (tmp_path / "moved" / "rows.jsonl").write_bytes(b"".join(rows[50:]))
    assert publish(tmp_path / "moved", tmp_path / "joined") == lines
    joined = (tmp_path / "joined" / "rows.jsonl.gz").read_bytes()
    assert gzip.decompress(joined) == b"".join(rows)


@pytest.mark.parametrize("written", ["pictures/a.png", "runs/study/pictures/a.png"])
def test_what_a_page_shows_is_found_beside_it_or_from_here(tmp_path, monkeypatch, written):
    """A published context names files from its own folder, that of a study with a relative `out` from here."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs", "study")
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / "a.png").write_bytes(b"drawn")
    shown = PictureFile(path=written, alt="a")
    write_context(folder / "context.json", ReportContext(pictures=[shown]))
    (found,) = publishing._read(folder / "context.json").pictures
    assert Path(found.path).read_bytes() == b"drawn"


@pytest.mark.slow
def test_rows_alone_are_enough_for_every_table_and_the_page(shrunk, tmp_path, capsys):
    run, _ = shrunk
    rows = tmp_path / "rows.jsonl.gz"
    rows.write_bytes(gzip.compress(Path(run.out, "rows.jsonl").read_bytes()))
    assert cli.main(["study", "report", str(rows), "--out", str(tmp_path / "alone")]) == 0
    assert "report.html" in capsys.readouterr().out
    for path in Path(run.out, "tables").glob("*.csv"):
        assert (tmp_path / "alone" / "tables" / path.name).read_text() == path.read_text()
    page = (tmp_path / "alone" / "report.html").read_text()
    assert "The trainings were not recorded with these rows." in page and "chance 10.0 %" in page


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["report"], "paths"),
        (["report", "a", "b"], "study report (a b) must name ROWS, one file or folder"),
        (["publish", "a"], "study publish (a) must name two folders: STUDY INTO"),
        (["report", "nothing.jsonl"], "rows (nothing.jsonl) must be a file"),
        (["report", "."], "study (.) must hold rows.jsonl or rows.jsonl.gz"),
        (["report", "--quick", "rows.jsonl"], "--quick"),
    ],
)
def test_what_cannot_be_told_anew_is_named(words, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        assert cli.main(["study", *words]) == 2
    except SystemExit as stop:
        assert stop.code == 2
    assert text in capsys.readouterr().err


def test_command_names_what_differs():
    assert command_of(StudyRun()) == "stretchysnake study motion-digits"
    assert command_of(StudyRun(seeds=(4,), steps=9)).endswith("--seeds [4] --steps 9")

    assert command_of(StudyRun(peers=())).endswith(" --peers []")


def test_notes_say_how_the_peers_were_trained_or_that_there_are_none():
    run = StudyRun(rates={})
    untuned = "learning rate 0.004 included, which was not tuned for"
    all_there, one = notes(run, run.peers), " ".join(notes(run, ["uniformer-nano"]))
    assert any(f"{untuned} {', '.join(run.peers)}" in note for note in all_there)
    assert f"{untuned} uniformer-nano;" in one and "mvit-nano" not in one
    none = " ".join(notes(run, []))
    assert "nano VideoMamba trained for" in none and "not measured yet: A.2 and claim (iv)" in none
    assert any("claim (iv) are left out" in note for note in notes(StudyRun(peers=()), []))
    rated = notes(StudyRun(rates={"mvit-nano vanilla": 1e-3}), ["mvit-nano"])
    assert any("other than 0.004: mvit-nano vanilla 0.001." in note for note in rated)
    assert not any("not tuned" in note for note in rated)
    measured = " ".join(notes(StudyRun(), run.peers))
    assert "mvit-nano static_tokens 0.001" in measured and "not tuned" not in measured
    assert "uniformer-nano vanilla 0.004" not in measured  # the study's own


def test_vanilla_is_trained_at_every_frame_count_of_the_grid():
    found = list(trainings(StudyRun(), data="-", cache="-"))
    assert len(found) == 3 * (6 + 2 + 3 * 2 + 1 + 1 + 2)  # with groups, scratch and reasons
    own = [t for t in found if not t.peer]
    vanillas = [t for t in own if t.method == "vanilla" and t.seed == 0]
    assert sorted(t.run.sets.native.num_frames for t in vanillas) == [4, 8, 16]
    assert all(t.run.model.native.num_frames == t.num_frames for t in found)
    assert len({t.run.out for t in found}) == len(found)


def test_peers_are_data_and_leave_the_trainings_of_before_as_they_were():
    found = list(trainings(StudyRun(seeds=(0,)), data="-", cache="-"))
    before = list(trainings(StudyRun(seeds=(0,), peers=()), data="-", cache="-"))
    assert [t.run for t in found if not t.peer] == [t.run for t in before]
    peers = [t for t in found if t.peer]
    assert [t.shown for t in peers[:2]] == [
        "timesformer-nano vanilla",
        "timesformer-nano static_tokens",
    ]
    assert Path(peers[-1].run.out).name == "mvit-nano-static_tokens-seed0-500"
    for t in peers:
        assert t.run.sets == sets_around(t.run.model.native) and not t.is_main
        lr = {"timesformer-nano": 2e-3, "uniformer-nano": 4e-3, "mvit-nano": 1e-3}[t.peer]
        assert t.run.optim == replace(found[0].run.optim, lr=lr)
        assert t.start.optim.lr == lr and t.run.steps == found[0].run.steps
    assert {t.run.sets.native.patch_size for t in peers} == {4, 8}


@pytest.mark.slow
@pytest.mark.parametrize("peer", StudyRun().peers)
def test_every_cell_and_every_scale_of_training_is_one_that_the_peer_takes(peer):
    study = StudyRun(seeds=(0,), peers=(peer,), steps=60)
    for training in [t for t in trainings(study, data="-", cache="-") if t.peer]:
        variant = training.run.bound_variant
        tested = {eval_scale(variant, num_frames=t, size=s) for t, s in study.cells}
        drawn = {scale_at(variant, seed=0, step=step) for step in range(study.steps)}
        with torch.device("meta"):  # shapes alone
            model = build_model(training.run.model).eval()
            for t, s, p in {(x.num_frames, x.size, x.patch_size) for x in tested | drawn}:
                features = model.features(torch.empty(1, 3, t, s, s), p)
                assert features.shape == (1, training.run.model.feature_dim)


def test_dry_run_counts_trainings_and_cells():
    lines = study_cost(replace(SHRUNK, batch_size=1))
    # 26 of before (six trainings), 4 of static tokens from scratch, 12 of the source's classes, 2 with views
    assert lines[0] == "7 trainings of 1 steps, from a vanilla of 1, seeds 0; 44 cells of 34 clips"
    assert lines[1] == "0 more are finished and measured; trained of the whole study: 0 of 9"
    assert any(line.startswith("  train timesformer-nano static_tokens ") for line in lines)
    assert "in all" in lines[-1]
    assert quick_study().seeds == (0,)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"variants": ("vanilla",)}, r"variants \(vanilla\) must hold static_tokens"),
        ({"variants": ("vanilla", "static_token")}, "did you mean static_tokens"),
        ({"peers": ("mvit-nono",)}, "did you mean: mvit-nano"),
        ({"peers": ("mvit-nano", "mvit-nano")}, r"peers \(mvit-nano, mvit-nano\) must name each"),
        ({"peers": ("timesformer-base",)}, r"timesformer-base is for T = 8, 224 px: take one of"),
        ({"seeds": (1, 1)}, r"seeds \(1, 1\) must hold one or more, each once"),
        ({"frames": (4, 16)}, r"must hold vanilla's own scale \(8 and 32\)"),
        ({"sizes": (32, 36)}, r"size \(36\) must be a multiple of patch_size \(8\)"),
        ({"suites": ("foo",)}, r"suites \(foo\) must be of: short, fine, long"),
        ({"sizes": (32, -16)}, r"size \(-16\) must be a positive integer"),
        ({"far_size": 0}, r"far_size \(0\) must be a multiple of the native patch"),
        ({"query_clips": -1}, r"query_clips \(-1\) must be at least 1"),
        ({"batch_size": 0}, r"batch_size \(0\) must be at least 1"),
        ({"finetune_steps": 0, "sgd_probe": True}, "sgd_probe takes finetune_steps"),
    ],
)
def test_mistakes_are_named(changes, text):
    with pytest.raises(ValueError, match=text):
        StudyRun(**changes)
