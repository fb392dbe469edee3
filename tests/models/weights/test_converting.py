"""Official checkpoints to safetensors: bit for bit, with a card, every change said, nothing unknown let through."""

import argparse
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stretchysnake import cli, load_model
from stretchysnake.models.weights.converting import NOT_STATED, convert
from stretchysnake.models.weights.files import read_checkpoint

STORED = load_file(Path(__file__).parents[2] / "fixtures" / "public_small.safetensors")
OFFICIAL = {
    name.removeprefix("model."): tensor
    for name, tensor in STORED.items()
    if name.startswith("model.")
}


@pytest.fixture
def official(tmp_path):
    """A file laid out as the official training code writes it, under a published name."""
    path = tmp_path / "videomamba_t16_k400_f8_res224.pth"
    content = {
        "model": {name: tensor.clone() for name, tensor in OFFICIAL.items()},
        "args": argparse.Namespace(lr=1e-3, data_path="your_k400_path"),
        "epoch": 49,
        "optimizer": {"state": {}},
    }
    torch.save(content, path)
    return path


def test_weights_come_back_bitwise_and_give_the_official_features(official, tmp_path):
    card = convert(official, tmp_path / "out.safetensors")
    model, notes = load_model(tmp_path / "out.safetensors")
    assert notes == card["changes"] == []
    assert all(torch.equal(tensor, OFFICIAL[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        found = model.features(STORED["input"])
    torch.testing.assert_close(found, STORED["features"].float(), rtol=1e-5, atol=1e-5)


def test_the_card_is_inside_and_says_where_it_is_from(official, tmp_path):
    card = convert(official, tmp_path / "out.safetensors", licence="Apache-2.0")
    assert read_checkpoint(tmp_path / "out.safetensors")[1]["run"]["card"] == card
    assert card["source"].startswith("OpenGVLab/VideoMamba, by its file name")
    assert card["licence"] == "Apache-2.0"
    assert card["sha256"] == hashlib.sha256(official.read_bytes()).hexdigest()
    assert card["config"]["depth"] == 3
    assert card["left_out"] == ["args", "epoch", "optimizer"]


def test_a_file_of_another_name_has_no_source_unless_told(official, tmp_path):
    other = official.rename(tmp_path / "mine.pth")
    card = convert(other, tmp_path / "out.safetensors")
    assert card["source"] == card["licence"] == NOT_STATED
    told = convert(other, tmp_path / "out.safetensors", source="our lab")
    assert told["source"] == "our lab"


def test_every_resize_is_reported_and_stored(official, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert (
        cli.main(["convert", str(official), "--out", str(out), "--frames", "8", "--size", "48"])
        == 0
    )
    printed = capsys.readouterr().out
    assert "changed: spatial positions 4x4 -> 6x6 (bicubic)" in printed
    assert "changed: temporal positions 4 -> 8 (linear)" in printed
    assert "left out: optimizer" in printed
    assert load_model(out)[0].config.num_frames == 8


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda state: state.update({"layers.0.mixer.extra": torch.ones(2)}), "unexpected layers.0.mixer.extra"),
        (lambda state: state.pop("norm_f.weight"), "missing norm_f.weight"),
    ],
    ids=["unknown", "missing"],
)  # fmt: skip
def test_names_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path, capsys, change, text):
    state = dict(OFFICIAL)
    change(state)
    torch.save({"model": state}, tmp_path / "odd.pth")
    out = tmp_path / "out.safetensors"
    assert cli.main(["convert", str(tmp_path / "odd.pth"), "--out", str(out)]) == 2
    printed = capsys.readouterr().err.strip()
    assert text in printed
    assert len(printed.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("out", "text"),
    [
        ("out.pt", "must end in .safetensors"),
        ("w.safetensors", "must not be the checkpoint itself"),
    ],
)
def test_an_out_that_cannot_be_is_refused(official, tmp_path, out, text):
    convert(official, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=text):
        convert(tmp_path / "w.safetensors", tmp_path / out)


def test_the_converted_file_serves_the_other_verbs(official, clip_folder, tmp_path):
    out = tmp_path / "out.safetensors"
    convert(official, out)
    video = clip_folder / "class0" / "0.mp4"
    assert cli.main(["embed", str(video), "--weights", str(out), "--out", str(tmp_path / "f")]) == 0
    assert json.loads((tmp_path / "f" / "manifest.json").read_text())["count"] == 1


def test_bf16_halves_the_file_and_is_loaded_as_it_says(official, tmp_path):
    convert(official, tmp_path / "wide.safetensors")
    card = convert(official, tmp_path / "narrow.safetensors", dtype="bf16")
    assert "tensors rounded to bf16" in card["changes"][-1]
    model, notes = load_model(tmp_path / "narrow.safetensors")
    assert any("bfloat16 held as float32" in note for note in notes)
    kept = rounded = 0
    for name, tensor in model.state_dict().items():
        whole = tensor.dim() < 2 or name.split(".")[-1] in model.undecayed()
        wanted = OFFICIAL[name] if whole else OFFICIAL[name].bfloat16().float()
        assert torch.equal(tensor, wanted), name
        kept, rounded = kept + whole * tensor.numel(), rounded + (not whole) * tensor.numel()
    wide, narrow = ((tmp_path / f"{n}.safetensors").stat().st_size for n in ("wide", "narrow"))
    assert abs(wide - narrow - 2 * rounded) < 200  # the headers
    with pytest.raises(ValueError, match=r"dtype \('fp16'\) must be one of: fp32, bf16"):
        convert(official, tmp_path / "other.safetensors", dtype="fp16")
