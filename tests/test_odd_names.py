"""Every verb meets names that are no text, or that a terminal would obey: all lines are shown, no page is missing."""

import io
import os
import shutil
import sys

import pytest

from stretchysnake import cli

SHOWN = {
    b"caf\xe9.mp4": r"caf\udce9.mp4",
    b"new\nline.mp4": r"new\nline.mp4",
    b"esc\x1b[31m[red].mp4": r"esc\x1b[31m[red].mp4",
    b"<b onerror=x>.mp4": "<b onerror=x>.mp4",
    "片段.mp4".encode(): "片段.mp4",
    "段片.mp4".encode(): "段片.mp4",
}
"""Name -> how it is shown."""


@pytest.fixture
def odd(clip_folder, tmp_path):
    """Two classes, one with a name that is no text, of six clips with odd names."""
    clips = sorted(clip_folder.rglob("*.mp4"))
    folders = [os.path.join(os.fsencode(tmp_path), b"odd", name) for name in (b"plain", b"\xe9")]
    for folder in folders:
        os.makedirs(folder)
    for place, name in enumerate(SHOWN):
        shutil.copy(clips[place], os.path.join(folders[place % 2], name))
    return tmp_path / "odd"


@pytest.fixture
def called(monkeypatch):
    """Calls the command line with strict UTF-8 streams, as any UTF-8 locale but C has; returns (code, out, err)."""

    def call(*words):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict") for _ in "ab"]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        code = cli.main([str(word) for word in words])
        texts = []
        for stream in streams:
            stream.flush()
            texts.append(stream.buffer.getvalue().decode("utf-8"))
        assert not any("\x1b" in text or "\t" in text for text in texts)
        return code, *texts

    return call


def test_search_and_its_page(odd, called, trained, tmp_path):
    weights = trained[1].weights
    small = ("--frames", 4, "--size", 16)
    code, out, _ = called("embed", odd, "--weights", weights, "-o", tmp_path / "i", *small)
    assert code == 0 and "6 videos (6 new, 0 unreadable)" in out
    query, page = next(odd.rglob("*片*")), tmp_path / "page.html"
    code, out, _ = called("search", tmp_path / "i", query, "-k", 9, "-o", page)
    assert code == 0 and all(name in out for name in SHOWN.values()) and len(out.splitlines()) == 8
    text = page.read_text(encoding="utf-8")
    assert r"caf\udce9.mp4" in text and "&lt;b onerror=x&gt;.mp4" in text and "\x1b" not in text
    assert text.count("<img ") == 7


def test_data_check_and_classify_and_finetune(odd, called, trained, tmp_path):
    (odd / "plain" / "bad\n.mp4").write_bytes(b"\0" * 30)
    clean, report = tmp_path / "c.jsonl", tmp_path / "r.json"
    code, out, _ = called("data", "check", odd, "--report", report, "--clean", clean)
    assert code == 1 and r"bad\n.mp4: unreadable" in out and "6 of 7 videos are good" in out
    model = tmp_path / "model"
    small = ("--frames", 4, "--size", 16, "--method", "finetune", "--steps", 1, "--batch_size", 2)
    code, out, _ = called("finetune", clean, "--weights", trained[1].weights, "-o", model, *small)
    assert code == 0 and r"\udce9" in out and r"\udce9" in (model / "report.html").read_text()
    code, out, err = called("classify", odd, "--model", model)
    assert code == 1 and all(name in out for name in SHOWN.values()) and len(out.splitlines()) == 6
    assert r"skipped " in err and r"bad\n.mp4" in err


def test_long_and_visualize(odd, called, trained, tmp_path):
    weights = trained[1].weights
    code, out, _ = called("long", odd, "--weights", weights, "--out", tmp_path / "l", "--frames", 4)
    assert code == 0 and "6 of 6 videos" in out
    files = [*odd.rglob("*片*"), *odd.rglob("caf*")]
    small = ("--sizes", "[16]", "--frames", 2)
    code, _, _ = called("visualize", *files, "--weights", weights, "--out", tmp_path / "v", *small)
    assert code == 0
    assert len(list((tmp_path / "v").glob("activation-*.png"))) == 3  # none over another's
    assert r"caf\\udce9.mp4" in (tmp_path / "v" / "pictures.json").read_text()


@pytest.mark.slow
def test_the_plane_of_videos_and_classes_with_odd_names(odd, called, trained, tmp_path):
    code, _, _ = called(
        "visualize", next(odd.rglob("caf*")), "--weights", trained[1].weights, "--out", tmp_path / "v",
        "--sizes", "[16]", "--frames", 2, "--tsne", odd,
    )  # fmt: skip
    assert code == 0
    assert r"caf\udce9.mp4" in next((tmp_path / "v").glob("tsne-*.csv")).read_text()


@pytest.mark.parametrize("path", ["g\x1b[2J\n.csv", "x\ty\udce9.csv"])
def test_errors_show_the_name(called, tmp_path, path):
    code, out, err = called("data", "check", tmp_path / path)
    shown_as = {"g": r"g\x1b[2J\n.csv", "x": r"x\ty\udce9.csv"}[path[0]]
    assert code == 2 and out == "" and err.count("\n") == 1 and shown_as in err


def test_what_is_passed_over_is_the_last_line_of_every_verb(clip_folder, called, trained, tmp_path):
    data = tmp_path / "data"
    for label in ("class0", "class2"):
        shutil.copytree(clip_folder / label, data / label)
    (data / ".ipynb_checkpoints").mkdir()
    (data / "class0" / "notes.txt").write_text("x")
    os.symlink("class0", data / "link")
    last = (
        "passed over: 1 file that is no video (.txt 1), 1 hidden folder (.ipynb_checkpoints), "
        "1 linked folder seen already (link)"
    )
    weights, small = ("--weights", trained[1].weights), ("--frames", 4, "--size", 16)
    for words in (
        ["embed", data, *weights, "-o", tmp_path / "i", *small],
        ["long", data, *weights, "--out", tmp_path / "l", "--frames", 4, "--size", 16],
        ["finetune", data, *weights, "-o", tmp_path / "model", *small],
        ["data", "check", data, "--quick", "true", "--report", tmp_path / "r.json"],
    ):
        code, out, _ = called(*words)
        assert code == 0 and out.splitlines()[-1] == last, words[0]
    code, out, err = called("classify", data, "--model", tmp_path / "model")
    assert code == 0 and len(out.splitlines()) == 8 and err.splitlines()[-1] == last


@pytest.mark.slow
def test_a_training_says_what_it_passed_over(clip_folder, called, tmp_path):
    data = shutil.copytree(clip_folder, tmp_path / "data")
    (data / "__MACOSX").mkdir()
    small = ("--steps", 1, "--batch_size", 2)
    code, out, _ = called("train", "--data", data, "--out", tmp_path / "run", *small)
    assert code == 0 and out.splitlines()[-1] == "passed over: 1 hidden folder (__MACOSX)"


def test_options_that_begin_with_a_tilde_are_at_home(called, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "empty.csv").write_text("")
    code, _, err = called("train", "--data=~/empty.csv", "--out=~/run")
    assert code == 2 and f"{tmp_path}/empty.csv: found no row" in err
