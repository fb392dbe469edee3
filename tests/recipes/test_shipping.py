"""Weights of a training put into a folder of shipped weights, and the table renewed beside them."""

import json
import shutil

import pytest
import torch

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.models.weights.files import save_model
from stretchysnake.models.weights.shipped.probes import feature_error
from stretchysnake.models.weights.shipped.shipped import FOLDER, TABLE, all_shipped
from stretchysnake.recipes import shipping


@pytest.fixture
def training(tmp_path):
    """As much of a training's folder, and of its videos', as shipping reads."""
    folder, data = tmp_path / "run", tmp_path / "digits"
    folder.mkdir()
    data.mkdir()
    (data / "settings.json").write_text('{"benchmark": "MotionDigits", "version": 3, "seed": 5}')
    (data / "source-train.csv").write_text("path,label\na.mp4,0\nb.mp4,1\n")
    run = {"data": str(data / "source-train.csv"), "steps": 1234, "batch_size": 8}
    written = {"run": run, "environment": {"commit": "abc"}}
    (folder / "run.json").write_text(json.dumps(written))
    model = VideoMamba(VideoMambaConfig.named("nano", depth=1, num_classes=2))
    save_model(folder / "weights.safetensors", model, variant="temporal", sets={}, seed=7)
    return folder


def test_a_training_is_put_there_with_its_card_and_its_features(training, tmp_path):
    into = tmp_path / "shipped"
    into.mkdir()
    shipping.ship("new", training, into=into)
    shipping.renew_table(into)
    model = all_shipped(into)["new"]
    assert feature_error(model) < 1e-6
    assert model.said.startswith(
        "came with the package: variant temporal, trained for 1,234 steps, seed 7, on MotionDigits, version 3, "
        "data seed 5, 2 clips; licence Apache-2.0, its videos are drawn from the UCI digits"
    )
    before = (into / TABLE).read_bytes()
    torch.manual_seed(1)
    other = VideoMamba(VideoMambaConfig.named("nano", depth=1, num_classes=2))
    save_model(training / "weights.safetensors", other, variant="temporal", sets={}, seed=8)
    shipping.ship("new", training, into=into)  # in the place of the one before
    shipping.renew_table(into)
    again = all_shipped(into)["new"]
    assert again.trained["seed"] == 8 and (into / TABLE).read_bytes() != before
    assert feature_error(again) < 1e-6 and feature_error(model) > 0.1


def test_what_it_went_on_from_is_said(training, tmp_path):
    written = json.loads((training / "run.json").read_text())
    first = tmp_path / "first"
    first.mkdir()
    (first / "run.json").write_text('{"run": {"variant": "vanilla", "steps": 2000}}')
    written["run"]["weights"] = str(first / "weights.safetensors")
    (training / "run.json").write_text(json.dumps(written))
    into = tmp_path / "shipped"
    into.mkdir()
    shipping.ship("new", training, into=into)
    shipping.renew_table(into)
    said = "trained for 1,234 steps, from weights of vanilla, 2,000 steps, seed 7, on MotionDigits"
    assert said in all_shipped(into)["new"].said


def test_weights_of_the_package_that_it_went_on_from_are_named(training, tmp_path):
    written = json.loads((training / "run.json").read_text())
    written["run"]["weights"] = "videomamba-nano"
    (training / "run.json").write_text(json.dumps(written))
    (tmp_path / "shipped").mkdir()
    shipping.ship("new", training, into=tmp_path / "shipped")
    shipping.renew_table(tmp_path / "shipped")
    assert (
        "steps, from weights of videomamba-nano, seed 7"
        in all_shipped(tmp_path / "shipped")["new"].said
    )


def test_the_table_is_what_the_command_writes(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "copy", ignore=lambda *_: ["__pycache__"])
    shipping.renew_table(tmp_path / "copy")
    kept, renewed = all_shipped(), all_shipped(tmp_path / "copy")
    assert kept.keys() == renewed.keys()
    for name, model in kept.items():  # the last digits of features are another machine's
        assert renewed[name].sha256 == model.sha256
        for one, other in zip(renewed[name].features, model.features, strict=True):
            assert one == pytest.approx(other, abs=1e-4)


def test_what_is_no_training_on_motion_digits_is_named_and_nothing_is_deleted(
    training, tmp_path, capsys
):
    assert shipping.main([]) == 2 and "NAME" not in capsys.readouterr().err
    assert shipping.main([f"new={tmp_path / 'none'}"]) == 2
    assert "run.json must be readable, as of a finished training" in capsys.readouterr().err
    (tmp_path / "digits" / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match=r"must be on MotionDigits; its data is"):
        shipping.ship("new", training, into=tmp_path)
    assert not (tmp_path / "new").exists()
