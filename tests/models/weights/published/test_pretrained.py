"""save_pretrained and from_pretrained: every backbone, its variant and sets, strictly."""

import json
import re
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_backbones import SMALL, small_config

from stretchysnake import cli, from_pretrained, load_model
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.flexibility import sets_around
from stretchysnake.models.architectures import build_model, create_model


def made(name="videomamba", **changes):
    torch.manual_seed(0)
    return build_model(small_config(name, **{"num_classes": 5, **changes})).eval()


@pytest.mark.parametrize("name", SMALL)
def test_every_backbone_comes_back_with_its_variant_and_sets(name, tmp_path):
    model = made(name)
    sets = asdict(sets_around(model.config.native))
    model.save_pretrained(tmp_path / "m", variant="static_tokens", sets=sets)
    back = from_pretrained(tmp_path / "m")
    assert back.config == model.config and not back.training
    state = model.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in back.state_dict().items())
    _, variant, metadata = read_subject(tmp_path / "m")
    assert variant.name == "static_tokens" and asdict(variant.sets) == sets
    assert back.trained == metadata


def test_what_a_file_said_goes_on_through_loading_and_saving(tmp_path):
    names = [f"class {i}" for i in range(made().config.num_classes)]
    made().save_pretrained(
        tmp_path / "a", variant="flexivit", sets={}, classes=names, licence="MIT"
    )
    back = from_pretrained(tmp_path / "a")
    back.save_pretrained(tmp_path / "b")
    assert from_pretrained(tmp_path / "b").trained == back.trained
    assert back.trained["classes"] == names and back.trained["licence"] == "MIT"
    files = [(tmp_path / x / "model.safetensors").read_bytes() for x in "ab"]
    assert files[0] == files[1]
    other, _ = load_model(tmp_path / "a", num_classes=2)
    assert "classes" not in other.trained


def test_the_card_has_front_matter_that_the_hub_reads(tmp_path):
    made().save_pretrained(tmp_path / "m", licence="Apache-2.0", datasets=["kinetics: 400"])
    text = (tmp_path / "m" / "README.md").read_text()
    front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1]
    values = {
        line.split(": ", 1)[0]: json.loads(line.split(": ", 1)[1]) for line in front.splitlines()
    }
    assert values["license"] == "apache-2.0" and values["library_name"] == "stretchysnake"
    assert values["pipeline_tag"] == "video-classification"
    assert values["datasets"] == ["kinetics: 400"]
    made().save_pretrained(tmp_path / "n")
    text = (tmp_path / "n" / "README.md").read_text()
    assert "license:" not in text and "Licence: not stated" in text


def test_a_folder_that_holds_a_model_is_not_written_over(tmp_path):
    made().save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        ValueError, match=r"already holds config.json, model.safetensors, README.md"
    ):
        made().save_pretrained(tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_names_of_classes_must_be_as_many_as_outputs(tmp_path):
    with pytest.raises(ValueError, match=r"classes \(1\) must be one name for each of the"):
        made().save_pretrained(tmp_path / "m", classes=["one"])
    assert not (tmp_path / "m").exists()


def damaged(folder, kind):
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    if kind == "other config":
        config["config"]["drop_path"] = 0.5
    elif kind == "other training":
        config["training"]["variant"] = "flexivit"
    elif kind == "no weights":
        (folder / "model.safetensors").unlink()
    elif kind == "no json":
        return (folder / "config.json").write_text("{")
    elif kind == "missing tensor":
        from safetensors import safe_open

        with safe_open(folder / "model.safetensors", "pt") as file:
            header = file.metadata()
        weights.pop("norm_f.weight")
        save_file(weights, folder / "model.safetensors", metadata=header)
    (folder / "config.json").write_text(json.dumps(config))
    return None


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("other config", "config.json and model.safetensors differ in drop_path"),
        ("other training", "config.json and model.safetensors differ in variant"),
        ("no weights", "must be an existing file, or a folder of save_pretrained with model.safetensors"),
        ("no json", "config.json. cannot be read"),
        ("missing tensor", "missing norm_f.weight"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_whole_is_refused(tmp_path, kind, text):
    made().save_pretrained(tmp_path, variant="vanilla")
    damaged(tmp_path, kind)
    with pytest.raises(ValueError, match=text):
        from_pretrained(tmp_path)


def test_a_folder_of_a_training_names_its_file(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"; give {tmp_path}/weights.safetensors"):
        from_pretrained(tmp_path)


def test_from_pretrained_warns_of_what_it_changed(tmp_path):
    made().save_pretrained(tmp_path / "m")
    with pytest.warns(UserWarning, match="a fresh one of 2 classes must be trained"):
        from_pretrained(tmp_path / "m", num_classes=2)


def test_a_fresh_model_has_no_training_to_tell(tmp_path):
    create_model("videomamba-nano", num_classes=2).save_pretrained(tmp_path / "m")
    assert from_pretrained(tmp_path / "m").trained == {"licence": "not stated"}
    assert "not said how it was trained" in (tmp_path / "m" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["DIR"], "must name a folder and a repository: DIR org/name"),
        (["DIR", "name"], "must name a folder and a repository: DIR org/name"),
        (
            ["DIR/none", "org/name"],
            "must be an existing file, or a folder of save_pretrained|No such file",
        ),
    ],
)
def test_publish_refuses_what_cannot_be_published(tmp_path, capsys, words, text):
    made().save_pretrained(tmp_path / "m")
    words = [word.replace("DIR", str(tmp_path / "m")) for word in words]
    assert cli.main(["publish", *words]) == 2
    told = capsys.readouterr().err
    assert re.search(text, told) and len(told.splitlines()) == 1


def test_publish_says_what_it_would_send_and_that_no_licence_is_stated(tmp_path, capsys):
    made().save_pretrained(tmp_path / "m")
    assert cli.main(["publish", str(tmp_path / "m"), "org/name"]) == 0
    told = capsys.readouterr().out
    assert "model.safetensors: " in told and "licence: not stated" in told
    assert "nothing was sent; to put it into org/name: --send true" in told
    (tmp_path / "m" / "README.md").unlink()
    assert cli.main(["publish", str(tmp_path / "m"), "org/name"]) == 2
    assert "lacks README.md" in capsys.readouterr().err
