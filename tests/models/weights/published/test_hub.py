"""Weights by name from a Hub on 127.0.0.1, by the real huggingface_hub: what comes, what is kept, what is said."""

import errno
import hashlib
import os
import re
from dataclasses import asdict, replace
from pathlib import Path
from threading import Thread

import pytest
import torch
from fake_hub import FakeHub, running

from stretchysnake import VideoMamba, VideoMambaConfig, cli, from_pretrained, load_model, save_model
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.flexibility import sets_around
from stretchysnake.models.weights.published import named, table
from stretchysnake.models.weights.published.named import located, weights_file
from stretchysnake.search.index import read_index

pytestmark = pytest.mark.extra("hub")

A, B = "a" * 40, "b" * 40
CONFIG = VideoMambaConfig(embed_dim=16, depth=1, image_size=32, num_frames=2, num_classes=3)
NAME, FILE = "videomamba-t-k400-f8", "videomamba_t16_k400_f8_res224.pth"


def official(path: Path, seed: int) -> bytes:
    """A file laid out as the official training code writes it."""
    torch.manual_seed(seed)
    torch.save({"model": VideoMamba(CONFIG).state_dict(), "epoch": 3}, path)
    return path.read_bytes()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that holds org/model (a file of ours, at commit A, tagged v1) and the table's own repository."""
    from huggingface_hub import constants

    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("STRETCHYSNAKE_WEIGHTS", str(tmp_path / "kept"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub = FakeHub()
    torch.manual_seed(0)
    model = VideoMamba(CONFIG)
    sets = asdict(sets_around(CONFIG.native))
    save_model(tmp_path / "ours.safetensors", model, variant="static_tokens", sets=sets)
    hub.put(
        "org/model",
        A,
        "main",
        "v1",
        model__safetensors=(tmp_path / "ours.safetensors").read_bytes(),
    )
    hub.files["org/model"][A]["README.md"] = b"---\ntags: [video]\nlicense: mit\n---\n# model\n"
    hub.put(table.REPO, table.REVISION, "main")
    hub.files[table.REPO][table.REVISION][FILE] = official(tmp_path / "official.pth", 0)
    with running(hub):
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


def refused(weights) -> str:
    """What a user is told; one line, and nothing is left behind but what was there."""
    with pytest.raises((RuntimeError, ValueError)) as caught:
        weights_file(weights)
    text = str(caught.value)
    assert "\n" not in text and "Traceback" not in text
    return text


def kept(folder: Path) -> list[str]:
    """What is in the folder of weights, locks aside."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock"))


def test_a_published_name_is_fetched_converted_and_kept(hub, tmp_path):
    found = located(NAME)
    assert found.path == tmp_path / "kept" / f"{NAME}.safetensors"
    assert "OpenGVLab/VideoMamba" in found.said and table.REVISION[:12] in found.said
    assert "licence Apache-2.0" in found.said
    model, notes = load_model(NAME)
    assert notes[0] == found.said
    torch.manual_seed(0)
    wanted = VideoMamba(CONFIG).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())
    assert kept(tmp_path / "kept") == [f"{NAME}.safetensors", f"{NAME}.source.json"]
    assert model.trained["card"]["class_list"] == "kinetics-400"
    sent = [{k.lower(): v for k, v in headers.items()} for _, _, headers in hub.requests]
    assert any(headers.get("user-agent", "").startswith("stretchysnake/") for headers in sent)


def test_a_second_start_asks_nothing_and_reads_no_pickle(hub, tmp_path, monkeypatch):
    first = weights_file(NAME)
    hub.requests.clear()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was read"))
    assert weights_file(NAME) == first
    load_model(NAME)
    read_subject(NAME)
    assert hub.requests == []


def test_a_file_of_the_hub_by_tag_by_commit_and_without_a_file_name(hub, tmp_path):
    said = {}
    for weights in ("hf://org/model@v1", f"hf://org/model/model.safetensors@{A}", "hf://org/model"):
        found = located(weights)
        said[weights] = found.said
        assert found.path.read_bytes() == (tmp_path / "ours.safetensors").read_bytes()
    assert all(A[:12] in text and "licence mit" in text for text in said.values())
    model, variant, _ = read_subject("hf://org/model@v1")
    assert variant.name == "static_tokens" and model.config == CONFIG
    assert from_pretrained("hf://org/model@v1").trained["variant"] == "static_tokens"


def test_a_branch_means_what_it_was_at_first_until_renewed(hub, tmp_path):
    first = weights_file("hf://org/model").read_bytes()
    save_model(tmp_path / "new.safetensors", VideoMamba(CONFIG))
    new = (tmp_path / "new.safetensors").read_bytes()
    hub.put("org/model", B, "main", model__safetensors=new)
    assert weights_file("hf://org/model").read_bytes() == first
    located("hf://org/model").path.resolve().unlink()
    assert weights_file("hf://org/model").read_bytes() == first  # of the remembered commit
    assert cli.main(["weights", "get", "hf://org/model", "--renew", "true"]) == 0
    assert weights_file("hf://org/model").read_bytes() == new != first


def test_a_commit_that_is_gone_names_the_way_out(hub, tmp_path):
    path = weights_file("hf://org/model")
    path.resolve().unlink()
    path.unlink()
    hub.put(
        "org/model",
        B,
        "main",
        **{"model__safetensors": hub.files["org/model"].pop(A)["model.safetensors"]},
    )
    text = refused("hf://org/model")
    assert f"no revision {A} any more" in text and "weights get hf://org/model --renew true" in text
    assert B[:12] in located("hf://org/model", renew=True).said


def test_other_bytes_under_the_commit_of_the_first_use_are_refused_and_deleted(hub, tmp_path):
    path = weights_file("hf://org/model@v1")
    was = hashlib.sha256(path.read_bytes()).hexdigest()
    path.resolve().unlink()
    path.unlink()
    save_model(tmp_path / "new.safetensors", VideoMamba(CONFIG))
    hub.files["org/model"][A]["model.safetensors"] = (tmp_path / "new.safetensors").read_bytes()
    text = refused("hf://org/model@v1")
    assert f"at its first use it had {was[:12]}" in text
    assert "weights get hf://org/model@v1 --renew true" in text
    assert not any("model.safetensors" in name for name in kept(tmp_path / "hf"))


def test_bytes_that_are_not_the_announced_ones_are_noticed_and_deleted(hub, tmp_path, monkeypatch):
    """huggingface_hub stores them without a word."""
    row = table.published_named(NAME)
    content = hub.files[table.REPO][table.REVISION][FILE]
    sha256 = hashlib.sha256(content).hexdigest()
    rows = {**table.published(), NAME: replace(row, sha256=sha256)}
    monkeypatch.setattr(table, "published", lambda: rows)
    hub.sends = content[:-4] + b"evil"
    text = refused(NAME)
    wrong = hashlib.sha256(hub.sends).hexdigest()
    assert f"SHA-256 {wrong[:12]}, and it must have {sha256[:12]} (by the Hub's page)" in text
    assert kept(tmp_path / "kept") == []
    assert list((tmp_path / "hf").rglob("blobs/*")) == []
    hub.sends = None
    assert weights_file(NAME).is_file()


def test_large_files_come_from_another_host_which_does_not_see_the_token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.redirect = True
    load_model(NAME)
    seen = [(path, headers) for method, path, headers in hub.requests if method == "GET"]
    cdn = [headers for path, headers in seen if path.startswith("/cdn/")]
    assert cdn and all("Authorization" not in headers for headers in cdn)


@pytest.mark.parametrize(
    ("weights", "change", "text"),
    [
        ("hf://org/none", {}, "the Hub has no repository org/none, or it is private; check the spelling"),
        ("hf://org/model@v9", {}, "org/model has no revision v9; its commits: https://huggingface.co/org/model/commits"),
        ("hf://org/model/other.pth@v1", {}, "org/model has no file other.pth at v1; name one of"),
        (NAME, {"status": 401}, "the Hub answered 401: it wants you to log in"),
        ("hf://org/model", {"gated": True}, "org/model asks you to accept its terms first, on https://huggingface.co/org/model"),
        (NAME, {"status": 404}, "the Hub does not answer .*404"),
        (NAME, {"status": 500}, "the Hub does not answer .*500.*; try again, or fetch https://huggingface.co/OpenGVLab"),
        (NAME, {"status": 503}, "the Hub does not answer .*503.*; try again, or fetch"),
        (NAME, {"cut_after": 100}, "did not come whole from the Hub"),
        (NAME, {"cut_after": 0}, "did not come whole from the Hub"),
    ],
    ids=["repository", "revision", "file", "401", "gated", "404", "500", "503", "cut", "cut at once"],
)  # fmt: skip
def test_what_the_hub_refuses_is_said_in_our_words(hub, tmp_path, weights, change, text):
    for name, value in change.items():
        setattr(hub, name, value)
    assert re.search(text, refused(weights))
    assert kept(tmp_path / "kept") == []


def test_without_a_network_the_page_and_the_folder_are_named_and_a_file_put_there_is_found(
    hub, tmp_path, monkeypatch
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    text = refused(NAME)
    page = f"https://huggingface.co/{table.REPO}/blob/{table.REVISION}/{FILE}"
    assert page in text and f"as {FILE}, into {tmp_path / 'kept'}" in text
    (tmp_path / "kept" / FILE).write_bytes(hub.files[table.REPO][table.REVISION][FILE])
    assert "put there by hand" in located(NAME).said
    assert hub.requests == []


def test_a_cached_download_serves_where_the_hub_is_gone(hub, tmp_path):
    content = weights_file("hf://org/model@v1").read_bytes()
    for record in (tmp_path / "kept").glob("*.json"):
        record.unlink()
    hub.status = 500
    assert weights_file("hf://org/model@v1").read_bytes() == content


def test_a_page_without_a_licence_is_said(hub, tmp_path):
    hub.files["org/model"][A]["README.md"] = b"# no front matter\nlicense: mit\n"
    assert "licence not stated: ask its authors" in located("hf://org/model@v1").said
    del hub.files["org/model"][A]["README.md"]
    assert "licence not stated: ask its authors" in located(f"hf://org/model@{A}").said


def test_a_file_that_is_no_model_is_named_and_not_remembered(hub, tmp_path):
    torch.save({"model": {"conv1.weight": torch.ones(3, 3)}}, tmp_path / "other.pth")
    hub.files["org/model"][A]["other.pth"] = (tmp_path / "other.pth").read_bytes()
    assert "these are not VideoMamba weights" in refused("hf://org/model/other.pth@v1")
    hub.files["org/model"][A]["text.pth"] = b"<html>not found</html>"
    assert "cannot be read safely" in refused("hf://org/model/text.pth@v1")
    assert kept(tmp_path / "kept") == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_named(hub, tmp_path, monkeypatch, number):
    def full(*_, **__):
        raise OSError(number, os.strerror(number), str(tmp_path / "hf" / "blob"))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    text = refused(NAME)
    assert f"cannot be stored in {tmp_path}" in text and os.strerror(number).lower() in text
    assert "HF_HOME" in text
    assert kept(tmp_path / "kept") == []


def test_a_connection_that_is_reset_is_no_full_disk(hub, monkeypatch):
    def reset(*_, **__):
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", reset)
    text = refused(NAME)
    assert "did not come whole from the Hub" in text and "stored" not in text


def test_every_verb_takes_a_name_and_says_once_where_it_is_from(hub, clip_folder, tmp_path, capsys):
    video = str(clip_folder / "class0" / "0.mp4")
    out = str(tmp_path / "index")
    assert cli.main(["embed", video, "--weights", NAME, "--out", out, "--num_workers", "0"]) == 0
    told = capsys.readouterr().err
    assert told.count("OpenGVLab/VideoMamba") == 1 and "licence Apache-2.0" in told
    index = read_index(out)
    wanted = hashlib.sha256(weights_file(NAME).read_bytes()).hexdigest()
    assert index.settings.weights_sha256 == wanted


def test_weights_lists_gets_and_checks(hub, tmp_path, capsys):
    assert cli.main(["weights", "get", NAME, "hf://org/model@v1"]) == 0
    assert str(tmp_path / "kept" / f"{NAME}.safetensors") in capsys.readouterr().out
    assert cli.main(["weights"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert " yes " in lines[NAME] and " yes " not in lines["videomamba-s-k400-f8"]
    assert "licence mit" in lines["hf://org/model@v1:"]
    assert cli.main(["weights", "check"]) == 0
    assert "2 weights in" in capsys.readouterr().out
    path = weights_file(NAME)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cli.main(["weights", "check"]) == 1
    told = capsys.readouterr().out
    assert f"{NAME}: CHANGED" in told and "1 changed" in told


def test_publish_says_what_it_would_do_and_does_it_when_told(hub, tmp_path, capsys, monkeypatch):
    model = from_pretrained("hf://org/model@v1")
    model.save_pretrained(tmp_path / "mine", licence="Apache-2.0")
    (tmp_path / "mine" / "notes.txt").write_text("private")
    command = ["publish", str(tmp_path / "mine"), "me/mine"]
    hub.requests.clear()
    assert cli.main(command) == 0
    assert "nothing was sent" in capsys.readouterr().out and hub.requests == []
    assert cli.main([*command, "--send", "true"]) == 2
    assert "log in with `hf auth login` or set HF_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert cli.main([*command, "--send", "true"]) == 0
    assert "https://huggingface.co/me/mine" in capsys.readouterr().out
    assert hub.visibility == "private"
    (sent,) = hub.files["me/mine"].values()
    assert sorted(sent) == ["README.md", "config.json", "model.safetensors"]
    there = from_pretrained("hf://me/mine")
    assert there.trained["variant"] == "static_tokens"
    assert all(
        torch.equal(tensor, model.state_dict()[name]) for name, tensor in there.state_dict().items()
    )


def test_ranks_that_want_the_same_name_do_the_work_once(hub, monkeypatch):
    done = []
    convert = named.convert
    monkeypatch.setattr(named, "convert", lambda *a, **k: done.append(1) or convert(*a, **k))
    found = []
    threads = [Thread(target=lambda: found.append(weights_file(NAME))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and len({*found}) == 1 and done == [1]
