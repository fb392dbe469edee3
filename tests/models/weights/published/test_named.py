"""Weights by name as files: hashes, first use, files put there by hand; the download is a copy from a dict."""

import errno
import hashlib
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stretchysnake import VideoMamba, VideoMambaConfig, cli, load_model
from stretchysnake.models.weights.files import read_checkpoint, save_model
from stretchysnake.models.weights.from_file import fill
from stretchysnake.models.weights.loading import start_from
from stretchysnake.models.weights.published import hub, named, table
from stretchysnake.models.weights.published.cache import read_record
from stretchysnake.models.weights.published.named import (
    file_here,
    is_here,
    located,
    weights_file,
)

CONFIG = VideoMambaConfig(embed_dim=16, depth=1, image_size=32, num_frames=2, num_classes=3)
NAME, FILE = "videomamba-t-k400-f8", "videomamba_t16_k400_f8_res224.pth"
COMMIT = "c" * 40


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("STRETCHYSNAKE_WEIGHTS", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def there(tmp_path, monkeypatch):
    """(repo, file) -> bytes that the Hub has now; asked[...] lists what was downloaded."""
    files = {(table.REPO, FILE): official(tmp_path, seed=0)}
    files["asked"] = []

    def download(repo, file, revision):
        files["asked"].append((repo, file, revision))
        place = tmp_path / "hf" / "snapshots" / COMMIT / file
        place.parent.mkdir(parents=True, exist_ok=True)
        if (repo, file) not in files:
            raise OSError(errno.ENOENT, "nothing")
        place.write_bytes(files[repo, file])
        return place

    monkeypatch.setattr(hub, "_download", download)
    return files


def official(tmp_path, *, seed) -> bytes:
    torch.manual_seed(seed)
    torch.save({"model": VideoMamba(CONFIG).state_dict()}, tmp_path / "official.pth")
    return (tmp_path / "official.pth").read_bytes()


def with_hash(monkeypatch, sha256):
    rows = {**table.published(), NAME: replace(table.published_named(NAME), sha256=sha256)}
    monkeypatch.setattr(table, "published", lambda: rows)


def test_the_first_use_downloads_converts_and_remembers(folder, there):
    found = located(NAME)
    record = read_record(folder, NAME)
    content = there[table.REPO, FILE]
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    assert record.commit == COMMIT and record.licence == "Apache-2.0"
    assert found.path == folder / f"{NAME}.safetensors"
    assert record.path_sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
    assert found.said == (
        f"from hf://OpenGVLab/VideoMamba/{FILE}@{COMMIT[:12]}, SHA-256 {record.sha256[:12]}, licence Apache-2.0"
    )
    card = read_checkpoint(found.path)[1]["run"]["card"]
    assert card["sha256"] == record.sha256 and card["class_list"] == "kinetics-400"
    assert card["source"] == f"hf://OpenGVLab/VideoMamba/{FILE}"


def test_later_uses_ask_nothing_and_read_nothing(folder, there, monkeypatch):
    first = weights_file(NAME)
    there["asked"].clear()
    monkeypatch.setattr(named, "sha256_of", lambda path: pytest.fail("read once more"))
    start = time.perf_counter()
    assert weights_file(NAME) == first
    assert time.perf_counter() - start < 0.2
    assert there["asked"] == [] and is_here(NAME)


def test_a_file_that_is_here_is_known_without_fetching_or_writing_one(folder, there, tmp_path):
    assert file_here(NAME) is None and there["asked"] == []
    folder.mkdir(exist_ok=True)
    (folder / FILE).write_bytes(there[table.REPO, FILE])  # by hand, and not yet converted
    assert is_here(NAME) and file_here(NAME) is None
    assert file_here(folder / FILE) == folder / FILE and file_here(tmp_path / "absent.pth") is None
    assert [path.name for path in folder.iterdir()] == [FILE]
    assert located(NAME).path == file_here(NAME)


def test_the_converted_bytes_are_the_same_on_every_machine(folder, there, monkeypatch, tmp_path):
    """An index knows its weights by their SHA-256, and shards of many machines become one index."""
    first = weights_file(NAME).read_bytes()
    monkeypatch.setenv("STRETCHYSNAKE_WEIGHTS", str(tmp_path / "another machine"))
    assert weights_file(NAME).read_bytes() == first
    length = int.from_bytes(first[:8], "little")
    header = json.loads(first[8 : 8 + length])
    assert list(header["__metadata__"]) == sorted(header["__metadata__"])


def test_a_converted_name_starts_a_training_as_the_published_file_does(folder, there, tmp_path):
    wider = CONFIG.but(num_frames=4, image_size=48, num_classes=5)
    models = [VideoMamba(wider) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    (tmp_path / FILE).write_bytes(there[table.REPO, FILE])
    notes = start_from(NAME, models[0])
    assert notes[0].startswith("from hf://OpenGVLab/VideoMamba")
    assert fill(tmp_path / FILE, models[1]) == notes[1:]
    left, right = (model.state_dict() for model in models)
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_known_hash_that_does_not_fit_is_refused_and_the_download_deleted(
    folder, there, monkeypatch, tmp_path
):
    with_hash(monkeypatch, "ab" * 32)
    with pytest.raises(
        RuntimeError, match=r"now deleted, has SHA-256 \w{12}, and it must have abab"
    ):
        located(NAME)
    assert not list((tmp_path / "hf").rglob("*.pth"))
    assert not is_here(NAME) and not list(folder.glob("*.*s*"))
    with_hash(monkeypatch, hashlib.sha256(there[table.REPO, FILE]).hexdigest())
    assert weights_file(NAME).is_file()


def test_an_unknown_hash_is_that_of_the_first_use(folder, there, tmp_path):
    first = read_checkpoint(weights_file(NAME))[0]
    weights_file(NAME).unlink()
    there[table.REPO, FILE] = official(tmp_path, seed=1)
    with pytest.raises(
        RuntimeError, match=f"at its first use it had .* weights get {NAME} --renew true"
    ):
        located(NAME)
    assert there["asked"][-1][2] == COMMIT  # of the first use, not what the branch is today
    renewed = read_checkpoint(located(NAME, renew=True).path)[0]
    assert not torch.equal(renewed["head.weight"], first["head.weight"])
    assert weights_file(NAME).is_file()


def test_a_table_that_learns_another_hash_does_not_believe_what_is_kept(folder, there, monkeypatch):
    located(NAME)
    with_hash(monkeypatch, "ab" * 32)
    assert not is_here(NAME)
    with pytest.raises(RuntimeError, match="it must have abab"):
        located(NAME)


def test_a_file_put_there_by_hand_is_found_checked_and_never_deleted(folder, there, monkeypatch):
    folder.mkdir()
    (folder / FILE).write_bytes(there[table.REPO, FILE])
    found = located(NAME)
    assert f"{FILE}, put there by hand" in found.said and there["asked"] == []
    found.path.unlink()
    (folder / FILE).write_bytes(b"other")
    with pytest.raises(RuntimeError, match=r"put there by hand, has SHA-256 .* at its first use"):
        located(NAME)
    assert (folder / FILE).read_bytes() == b"other"


def test_without_the_extra_the_command_the_page_and_the_folder_are_named(
    folder, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert cli.main(["embed", "clip.mp4", "--weights", NAME, "--out", "index"]) == 2
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1 and "pip install 'stretchysnake[hub]'" in text
    page = f"https://huggingface.co/OpenGVLab/VideoMamba/blob/{table.REVISION}/{FILE}"
    assert f"fetch {page} by hand and put it, as {FILE}, into {folder}" in text
    assert list(folder.glob("*.json")) == []


def test_a_file_that_is_no_model_leaves_nothing(folder, there, tmp_path):
    torch.save({"model": {"conv1.weight": torch.ones(3)}}, tmp_path / "other.pth")
    there[table.REPO, FILE] = (tmp_path / "other.pth").read_bytes()
    with pytest.raises(ValueError, match="these are not VideoMamba weights"):
        located(NAME)
    assert [p.name for p in folder.iterdir() if not p.name.startswith(".")] == []


def test_a_page_of_words_under_the_name_of_weights_is_not_remembered(folder, there):
    there["org/m", "model.safetensors"] = b"<html>sign in</html>"
    with pytest.raises(ValueError, match="damaged or not safetensors"):
        located("hf://org/m")
    assert list(folder.glob("*.json")) == []


def test_a_file_of_a_names_own_is_not_taken_for_it(folder, there, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).write_bytes(b"mine")
    assert located(NAME).path == Path(NAME)
    assert cli.main(["weights"]) == 0
    assert there["asked"] == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_folder_without_room_or_read_only_is_named_and_nothing_stays(
    folder, there, monkeypatch, number
):
    from safetensors import SafetensorError

    def full(state, part, metadata):
        part.write_bytes(b"half")
        words = f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})"
        raise SafetensorError(words)

    monkeypatch.setattr("stretchysnake.models.weights.files.save_file", full)
    text = os.strerror(number).lower()
    with pytest.raises(
        RuntimeError, match=f"cannot be kept in {folder}: {text}; .*STRETCHYSNAKE_WEIGHTS"
    ):
        located(NAME)
    assert [p.name for p in folder.iterdir() if not p.name.startswith(".video")] == []
    assert [p.suffix for p in folder.iterdir()] == [".lock"]


def test_a_read_only_folder_that_was_filled_serves(folder, there, monkeypatch):
    path = weights_file(NAME)
    monkeypatch.setattr(named, "one_at_a_time", lambda *_: pytest.fail("wrote"))
    assert weights_file(NAME) == path


def test_a_folder_that_cannot_be_made_is_named(there, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("STRETCHYSNAKE_WEIGHTS", str(tmp_path / "file" / "kept"))
    with pytest.raises(RuntimeError, match=r"cannot be kept in .*: not a directory"):
        located(NAME)


def test_a_damaged_record_says_which(folder, there):
    located(NAME)
    (folder / f"{NAME}.source.json").write_text("{")
    with pytest.raises(
        ValueError, match=rf"record \({folder}/{NAME}.source.json\) is damaged .* delete it"
    ):
        located(NAME)


def test_a_safetensors_file_is_used_as_it_is_and_its_page_asked_for_the_licence(
    folder, there, tmp_path
):
    save_model(tmp_path / "m.safetensors", VideoMamba(CONFIG))
    there["org/m", "model.safetensors"] = (tmp_path / "m.safetensors").read_bytes()
    there["org/m", "README.md"] = b'---\nlicense: "cc-by-4.0"\n---\n'
    found = located("hf://org/m@v1")
    assert found.said.endswith("licence cc-by-4.0") and found.path.parent.name == COMMIT
    assert [asked[2] for asked in there["asked"]] == ["v1", COMMIT]
    assert load_model("hf://org/m@v1")[1] == [found.said]


@pytest.mark.parametrize("page", [None, b"# a page\nlicense: mit\n", b"---\ntags: [x]\n---\n"])
def test_a_page_without_a_licence_is_said(folder, there, tmp_path, page):
    save_model(tmp_path / "m.safetensors", VideoMamba(CONFIG))
    there["org/m", "model.safetensors"] = (tmp_path / "m.safetensors").read_bytes()
    if page is not None:
        there["org/m", "README.md"] = page
    assert "licence not stated: ask its authors" in located("hf://org/m").said


def test_the_lists_says_what_is_here(folder, there, capsys):
    located(NAME)
    assert cli.main(["weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("videomamba-")]
    assert len(rows) == 62 + 1  # the package's own vanilla
    own = ["stretchysnake-nano", "videomamba-nano"]
    assert [line.split()[0] for line in lines if " yes " in line] == [*own, NAME]
    assert cli.main(["weights", "gett"]) == 2
    assert "must be one of" in capsys.readouterr().err
