"""The weights that come with the package load by name, are what the table says, and were trained on what they say."""

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from stretchysnake import cli, load_model
from stretchysnake.cli.installation import checks
from stretchysnake.data.motion_digits import info, render_clip
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.models.weights.published.named import is_here, located
from stretchysnake.models.weights.published.pretrained import model_in_folder
from stretchysnake.models.weights.published.reference import is_by_name
from stretchysnake.models.weights.shipped import shipped as shipped_module
from stretchysnake.models.weights.shipped.probes import LIMIT, feature_error, probe_clip
from stretchysnake.models.weights.shipped.shipped import all_shipped, shipped

NAMES = ("stretchysnake-nano", "videomamba-nano")


def test_the_winner_and_vanilla_come_with_the_package_and_can_be_paired():
    runs = [all_shipped()[name].trained for name in NAMES]
    assert list(all_shipped()) == list(NAMES)
    assert runs[1]["variant"] == "vanilla" != runs[0]["variant"]
    assert runs[0]["seed"] == runs[1]["seed"]
    assert runs[0]["begun"] == "videomamba-nano" and "begun" not in runs[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_card_names_what_it_was_trained_on_and_every_licence(name):
    model = all_shipped()[name]
    assert model_in_folder(model.folder) == model.file  # config.json and header agree
    run, text = model.trained, (model.folder / "README.md").read_text(encoding="utf-8")
    assert run["steps"] >= 500 and run["trained_on"].startswith("MotionDigits, version ")
    for said in ("UCI digits", "CC BY 4.0", "Apache-2.0", f"{run['steps']:,} steps"):
        assert said in text and said in model.said
    assert ("from weights of videomamba-nano" in text) == ("begun" in run)
    assert re.search(r'^license: "apache-2.0"$', text, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_and_features_are_those_of_the_table(name):
    model = all_shipped()[name]
    assert hashlib.sha256(model.file.read_bytes()).hexdigest() == model.sha256
    assert feature_error(model) <= LIMIT
    other = all_shipped()[NAMES[1 - NAMES.index(name)]]
    assert feature_error(replace(model, features=other.features)) > 1000 * LIMIT


def test_the_probe_clip_by_numpy():
    count = 3 * 4 * 16 * 16
    wanted = (np.arange(count) * 7919 % 251).astype(np.float32) / np.float32(125) - np.float32(1)
    found = probe_clip(4, 16)
    assert np.array_equal(found.numpy(), wanted.reshape(1, 3, 4, 16, 16))
    assert found.min() == -1 and found.max() == 1


def test_a_name_is_taken_wherever_weights_are_and_a_path_goes_before_it(tmp_path, monkeypatch):
    monkeypatch.setenv("STRETCHYSNAKE_WEIGHTS", str(tmp_path / "nothing is kept"))
    model, notes = load_model("stretchysnake-nano")
    assert notes[0].startswith("came with the package: variant ") and not model.training
    assert read_subject("videomamba-nano")[1].name == "vanilla"
    assert is_here("videomamba-nano") and is_by_name("videomamba-nano")
    assert not (tmp_path / "nothing is kept").exists()
    with pytest.raises(ValueError, match=r"did you mean: stretchysnake-nano\?"):
        located("stretchysnake-nan")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videomamba-nano").write_bytes(b"")
    assert shipped("videomamba-nano") is None and not is_by_name("videomamba-nano")
    assert located("videomamba-nano").said is None


def test_doctor_and_weights_check_notice_a_file_that_is_another(tmp_path, monkeypatch, capsys):
    assert all(good and "MotionDigits" in line for good, line in checks.shipped_weights())
    assert cli.main(["weights", "check"]) == 0
    assert capsys.readouterr().out.count(": as it came") == 2
    table, rows = tmp_path / "table.json", {}
    for name, other in (NAMES, NAMES[::-1]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(all_shipped()[other].file.read_bytes())
        model = all_shipped()[name]
        rows[name] = {"sha256": model.sha256, "features": model.features}
    table.write_text(json.dumps(rows))
    exchanged = all_shipped(tmp_path)
    monkeypatch.setattr(shipped_module, "all_shipped", lambda: exchanged)
    told = checks.shipped_weights()
    assert [good for good, _ in told] == [False, False] and "WRONG (above 1e-04)" in told[0][1]
    assert cli.main(["weights", "check"]) == 1
    assert "stretchysnake-nano: CHANGED" in capsys.readouterr().out
    (tmp_path / NAMES[0] / "model.safetensors").write_bytes(b"\0" * 8)
    assert "install the package again" in checks.shipped_weights()[0][1]


def test_it_finds_the_digit_that_acts():
    """Nearest neighbours of real clips, none of whose images it was trained on: far above chance (10 %)."""
    model, _ = load_model("stretchysnake-nano")

    def features(split: str, number: int):
        labels = [index % len(info("short")["classes"]) for index in range(number)]
        clips = [render_clip("short", split, index)[::4, :112] for index in range(number)]
        grey = torch.from_numpy(np.stack(clips)).float()
        small = torch.nn.functional.interpolate(grey, size=(32, 32), mode="area") / 255
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1, 1)
        with torch.inference_mode():
            found = model.features((small[:, None] - mean) / std)
        return torch.nn.functional.normalize(found, dim=1), torch.tensor(labels)

    gallery, names = features("train", 30)
    queries, wanted = features("test", 20)
    assert (names[(queries @ gallery.T).argmax(1)] == wanted).float().mean() >= 0.3
