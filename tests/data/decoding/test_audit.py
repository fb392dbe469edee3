"""`data check`: a verdict per file, nothing decoded twice, nothing left out in silence."""

import errno
import io
import json
import os
import shutil
from dataclasses import replace

import pytest
from numbered_video import write_numbered

from stretchysnake import cli
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding import audit as audit_module
from stretchysnake.data.decoding.audit import CheckRun, check
from stretchysnake.data.decoding.verdicts import render_audit
from stretchysnake.data.records import read_records


@pytest.fixture
def folder(tmp_path):
    """Two classes: three good videos (two of them copies), one empty, one cut, and a text beside them."""
    root = tmp_path / "clips"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
    write_numbered(root / "a" / "one.mp4", 20)
    shutil.copy(root / "a" / "one.mp4", root / "b" / "copy.mp4")
    write_numbered(root / "b" / "two é.mkv", 30)
    (root / "a" / "empty.mp4").write_bytes(b"")
    content = (root / "a" / "one.mp4").read_bytes()
    (root / "b" / "cut.mp4").write_bytes(content[: len(content) // 2])
    (root / "notes.txt").write_text("not a video")
    return root


def run(tmp_path, **options):
    return CheckRun(report=str(tmp_path / "out" / "check.json"), num_workers=1, **options)


def test_every_file_has_a_verdict_and_nothing_is_passed_over_in_silence(folder, tmp_path):
    audit = check(folder, run(tmp_path))
    kinds = {v.path.rsplit("/", 1)[-1]: v.kind for v in audit.verdicts}
    good = {"one.mp4": "ok", "copy.mp4": "ok", "two é.mkv": "ok"}
    assert kinds == {**good, "empty.mp4": "empty", "cut.mp4": "truncated"}
    assert [v.num_frames for v in audit.verdicts if v.kind == "ok"] == [20, 20, 30]
    assert audit.other_files == {".txt": 1}
    assert [[path[-8:] for path in group] for group in audit.copies] == [["/one.mp4", "copy.mp4"]]
    text = render_audit(audit)
    assert "3 of 5 videos are good, 1 truncated, 1 empty" in text
    assert "empty.mp4: empty: the file has 0 bytes" in text and ".txt 1" in text


def test_the_report_holds_all_of_it(folder, tmp_path):
    audit = check(folder, run(tmp_path))
    report = json.loads((tmp_path / "out" / "check.json").read_text())
    assert report == audit.as_json()
    assert report["counts"] == {"ok": 3, "truncated": 1, "empty": 1}
    assert report["clips_per_class"] == {"a": 1, "b": 2}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["check.json"]


def test_a_repeated_check_decodes_only_what_changed(folder, tmp_path, monkeypatch):
    check(folder, run(tmp_path))
    write_numbered(folder / "a" / "empty.mp4", 25)
    examined = []

    def counted(paths, settings):
        examined.extend(paths)
        return audit_module_verdicts(paths, settings)

    audit_module_verdicts = audit_module._verdicts
    monkeypatch.setattr(audit_module, "_verdicts", counted)
    audit = check(folder, run(tmp_path))
    assert [path[-9:] for path in examined] == ["empty.mp4"]
    assert audit.reused == 4 and audit.counts() == {"ok": 4, "truncated": 1}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_storage_that_errs_is_named_and_the_check_goes_on(folder, monkeypatch, num_workers):
    held_open = open

    def stumbling(path, mode="r", *arguments, **options):
        file = held_open(path, mode, *arguments, **options)
        if path == str(folder / "a" / "one.mp4"):
            file.close()
            file = Stumbling(path)
        return file

    class Stumbling(io.FileIO):
        """Its first bytes can be read, not all of it."""

        def read(self, size=-1):
            if size > 1000:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    monkeypatch.setattr("builtins.open", stumbling)
    audit = check(folder, CheckRun(report=None, num_workers=num_workers))
    assert audit.counts() == {"ok": 2, "unreadable": 1, "truncated": 1, "empty": 1}
    (bad,) = [verdict for verdict in audit.bad if verdict.kind == "unreadable"]
    assert bad.path.endswith("one.mp4") and "Input/output error" in bad.reason


@pytest.mark.parametrize(
    "error",
    [
        DecodeError("unreadable", "v.mp4", "cannot be read (Input/output error).", True),
        DecodeError("corrupt", "v.mp4", "needs more than 4 GiB to decode.", limited=True),
    ],
    ids=str,
)
def test_a_verdict_that_may_pass_is_not_kept(folder, tmp_path, monkeypatch, error):
    def bad(path):
        raise error

    settings = replace(run(tmp_path), num_workers=0)
    with monkeypatch.context() as patch:
        patch.setattr(audit_module, "verify", bad)
        assert check(folder, settings).counts() == {"ok": 0, error.kind: 5}
    audit = check(folder, settings)
    assert audit.counts() == {"ok": 3, "truncated": 1, "empty": 1} and audit.reused == 0


def test_an_interrupted_check_goes_on(folder, tmp_path):
    def interrupt(text):
        if "checked 3" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(folder, run(tmp_path), progress=interrupt)
    assert not (tmp_path / "out" / "check.json").exists()
    audit = check(folder, run(tmp_path))
    assert audit.reused == 3 and len(audit.verdicts) == 5


def test_a_full_check_does_not_believe_a_quick_one(folder, tmp_path):
    check(folder, run(tmp_path, quick=True))
    assert check(folder, run(tmp_path, quick=True)).reused == 5
    assert check(folder, run(tmp_path)).reused == 0
    assert check(folder, run(tmp_path, quick=True)).reused == 5


def test_the_clean_list_holds_the_good_records_with_their_labels(folder, tmp_path):
    check(folder, run(tmp_path, clean=str(tmp_path / "clean.csv")))
    records = read_records(tmp_path / "clean.csv")
    assert [(r.path[-8:], r.label, r.class_name) for r in records] == [
        ("/one.mp4", 0, "a"), ("copy.mp4", 1, "b"), ("wo é.mkv", 1, "b")]  # fmt: skip


def test_segments_outside_their_video_are_named(folder, tmp_path):
    video = folder / "a" / "one.mp4"
    (tmp_path / "list.csv").write_text(
        f"path,label,class_name,group,split,start,end\n{video},0,,,,0.1,0.5\n{video},0,,,,9,11\n"
    )
    audit = check(tmp_path / "list.csv", run(tmp_path, clean=str(tmp_path / "clean.csv")))
    assert len(audit.verdicts) == 1 and audit.bad == []
    (bad,) = audit.bad_records
    assert "between 9.0 s and 11.0 s" in bad[1]
    assert len(read_records(tmp_path / "clean.csv")) == 1


def test_one_file_under_two_labels_is_an_error(folder, tmp_path, capsys):
    video, other = folder / "a" / "one.mp4", folder / "b" / "two é.mkv"
    os.symlink(video, tmp_path / "link.mp4")
    source = tmp_path / "list.csv"
    source.write_text(f"{video},run\n{other},run\n{other},run\nlink.mp4,eat\n")
    audit = check(source, run(tmp_path, clean=str(tmp_path / "clean.csv")))
    assert audit.bad == [] and not audit.sound
    assert [double.lines for double in audit.contradictions] == [(1, 4)]
    text = render_audit(audit)
    assert "are one file (lines 1, 4), with different labels: run, eat" in text
    assert "two é.mkv is named 2 times (lines 2, 3)" in text
    assert "3 of 3 videos are good, 1 with different labels" in text
    assert [r.path for r in read_records(tmp_path / "clean.csv")] == [str(other)] * 2
    assert cli.main(["data", "check", str(source), "--report", str(tmp_path / "r.json")]) == 1
    assert "with different labels" in capsys.readouterr().out
    source.write_text(f"{video},run\n{other},eat\n{other},eat\n")  # twice alike: told, no error
    assert cli.main(["data", "check", str(source), "--report", str(tmp_path / "r.json")]) == 0


def test_files_of_two_lists_are_told(folder, tmp_path):
    video, copy = folder / "a" / "one.mp4", folder / "b" / "copy.mp4"
    (tmp_path / "train.csv").write_text(f"{video},0\n")
    (tmp_path / "test.csv").write_text(f"{copy},0\n")
    audit = check([tmp_path / "train.csv", tmp_path / "test.csv"], run(tmp_path))
    assert audit.shared == [str(video)] and audit.sound
    assert "1 file(s) lie in more than one of the lists or folders" in render_audit(audit)


def test_hidden_folders_and_links_are_passed_over_and_said_last(folder, tmp_path):
    (folder / "__MACOSX" / "a").mkdir(parents=True)
    (folder / "__MACOSX" / "a" / "._one.mp4").write_bytes(b"\0" * 24)
    os.symlink("a", folder / "again")
    audit = check(folder, run(tmp_path, quick=True))
    assert {record.class_name for record in audit.records} == {"a", "b"}
    assert render_audit(audit).splitlines()[-1] == (
        "passed over: 1 file that is no video (.txt 1), 1 hidden folder (__MACOSX), "
        "1 linked folder seen already (again)"
    )
    assert audit.as_json()["passed_over"]["links"] == ["again"]


def test_a_clean_list_that_cannot_hold_a_name_is_refused_before_decoding(folder, tmp_path):
    os.rename(folder / "a" / "one.mp4", os.fsencode(folder / "a") + b"/caf\xe9.mp4")
    with pytest.raises(
        ValueError, match=r"clean \(c.csv\) cannot hold .*give a name that ends in .jsonl"
    ):
        check(folder, run(tmp_path, clean="c.csv"))
    audit = check(folder, run(tmp_path, clean=str(tmp_path / "c.jsonl")))
    assert len(read_records(tmp_path / "c.jsonl")) == len(audit.good_records) == 3
    assert r"caf\udce9.mp4" in render_audit(audit)


def test_a_clean_list_needs_labels(tmp_path):
    write_numbered(tmp_path / "v.mp4", 5)
    with pytest.raises(ValueError, match=r"clean \(c.csv\) needs labels"):
        check(tmp_path / "v.mp4", CheckRun(report=None, clean="c.csv"))


def test_a_foreign_file_is_not_overwritten_as_a_report(folder, tmp_path):
    (tmp_path / "mine.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"mine.json\) exists and is not a report of data check"):
        check(folder, CheckRun(report=str(tmp_path / "mine.json")))


def test_the_command_line_reports_with_its_exit_code(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "check", str(folder), "--clean", "clean.csv"]) == 1
    printed = capsys.readouterr().out
    assert "3 of 5 videos are good" in printed and "data-check.json" in printed
    assert cli.main(["data", "check", "clean.csv", "--report", "again.json"]) == 0
    assert cli.main(["data", "chekc", "clean.csv"]) == 2
    assert "data action (chekc) must be one of: info, list, check" in capsys.readouterr().err
    assert cli.main(["data", "check", "gone.csv"]) == 2
    assert "gone.csv" in capsys.readouterr().err


def test_the_help_of_data_check_shows_an_example(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "check", "--help"])
    assert ended.value.code == 0 and "data check clips/" in capsys.readouterr().out
