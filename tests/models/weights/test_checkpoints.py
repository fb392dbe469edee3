"""Reading and writing weights: official layouts, safe formats, every change reported."""

import argparse
import json
import os
import pickle
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from stretchysnake import VideoMamba, VideoMambaConfig, load_model, save_model
from stretchysnake.models.resample import (
    resize_patch_kernel,
    resize_spatial_positions,
    resize_temporal_positions,
)
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.models.weights.loading import load_weights
from stretchysnake.models.weights.official.videomamba import config_of

CONFIG = VideoMambaConfig(
    embed_dim=32, depth=2, patch_size=8, image_size=32, num_frames=4, num_classes=5
)


@pytest.fixture
def model():
    return VideoMamba(CONFIG)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


def test_files_without_an_architecture_are_videomambas(model, tmp_path):
    header = {"config": json.dumps(model.config.to_dict())}
    for name, more in (("before", {}), ("later", {"architecture": "mamba3"})):
        save_file(model.state_dict(), tmp_path / name, metadata=header | more)
        (tmp_path / name).rename(tmp_path / f"{name}.safetensors")
    loaded, _ = load_model(tmp_path / "before.safetensors")
    assert loaded.config == CONFIG and same(loaded.state_dict(), model.state_dict())
    with pytest.raises(
        ValueError,
        match=r"architecture \(mamba3\) is not known to this version; it knows: videomamba",
    ):
        load_model(tmp_path / "later.safetensors")


def test_saved_model_comes_back_bitwise_with_its_config(model, tmp_path):
    save_model(tmp_path / "w.safetensors", model, variant="static_tokens")
    loaded, notes = load_model(tmp_path / "w.safetensors")
    assert loaded.config == CONFIG
    assert notes == []
    assert same(loaded.state_dict(), model.state_dict())
    assert read_checkpoint(tmp_path / "w.safetensors")[1]["run"] == {"variant": "static_tokens"}
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("nest", ["bare", "model", "module", "prefix"])
def test_official_files_load_strictly_with_a_namespace_inside(model, tmp_path, nest):
    state = model.state_dict()
    content = {
        "bare": state,
        "model": {"model": state, "args": argparse.Namespace(lr=1.0), "epoch": 3},
        "module": {"module": state},
        "prefix": {f"module.{name}": tensor for name, tensor in state.items()},
    }[nest]
    torch.save(content, tmp_path / "official.pth")
    loaded, notes = load_model(tmp_path / "official.pth")
    assert loaded.config == CONFIG
    assert notes == []
    assert same(loaded.state_dict(), state)


def test_hostile_pickle_is_refused_and_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/owned",)

    torch.save({"model": Hostile()}, tmp_path / "bad.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Hostile()))
    for name in ("bad.pth", "raw.pth"):
        with pytest.raises(ValueError, match="cannot be read safely"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_image_checkpoint_is_inflated_and_reported(model):
    state = dict(model.state_dict())
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, 0]
    del state["temporal_pos_embedding"]
    notes = load_weights(VideoMamba(CONFIG), state)
    assert notes == [
        "patch kernel inflated from an image model to 1 frames (centre)",
        "temporal positions absent (image model): kept at the model's own",
    ]


def test_every_resize_is_reported(model, tmp_path):
    save_model(tmp_path / "w.safetensors", model)
    changes = {"num_frames": 8, "image_size": 48, "num_classes": 9}
    loaded, notes = load_model(tmp_path / "w.safetensors", **changes)
    assert loaded.config == CONFIG.but(**changes)
    assert notes == [
        "spatial positions 4x4 -> 6x6 (bicubic)",
        "temporal positions 4 -> 8 (linear)",
        "head of 5 classes not used: a fresh one of 9 classes must be trained",
    ]


def test_loading_does_not_move_the_random_generator(model, tmp_path):
    save_model(tmp_path / "w.safetensors", model)
    before = torch.random.get_rng_state()
    load_model(tmp_path / "w.safetensors", num_classes=9)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda s: s.pop("norm_f.weight"), "missing norm_f.weight"),
        (lambda s: s.update(extra=torch.ones(1)), "unexpected extra"),
        (lambda s: s["norm_f.weight"].fill_(float("nan")), "norm_f.weight holds .* non-finite"),
        (lambda s: s.update({"norm_f.weight": torch.ones(7)}), r"shape \(7,\), expected \(32,\)"),
        (lambda s: s.update({"norm_f.weight": torch.eye(32).to_sparse()[0]}), "sparse"),
    ],
    ids=["missing", "unexpected", "nan", "shape", "sparse"],
)
def test_weights_that_do_not_fit_are_named(model, damage, text):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    damage(state)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=text):
        load_weights(model, state)
    assert same(model.state_dict(), before)


def test_damaged_and_missing_files_are_named(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 nothing")
    save_file({"x": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is damaged or not safetensors"):
        read_checkpoint(tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match=r"cannot be read safely: it is damaged \("):
        read_checkpoint(tmp_path / "cut.pth")
    (tmp_path / "text.pth").write_text("# no weights", encoding="utf-8")
    (tmp_path / "empty.pth").touch()
    for name in ["text.pth", "empty.pth"]:
        with pytest.raises(ValueError, match=r"safely: it is no file of torch\.save, damaged, or"):
            read_checkpoint(tmp_path / name)
    with pytest.raises(ValueError, match="must be an existing file"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match=r"not VideoMamba weights: patch_embed\.proj\.weight"):
        load_model(tmp_path / "other.safetensors")


def test_config_is_read_off_the_shapes(model):
    assert config_of(model.state_dict()) == CONFIG


def hostile(kind, state, folder):
    """A weights file of that kind; returns its path."""
    state = {name: tensor.clone() for name, tensor in state.items()}
    config = {"format": "stretchysnake-weights-1", "config": json.dumps(CONFIG.to_dict())}
    safe = folder / "w.safetensors"

    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {folder}/owned",)

    match kind:
        case "sparse":
            state["norm_f.weight"] = torch.eye(32).to_sparse()
        case "absurd shape":
            state["head.weight"] = torch.zeros(1).expand(10**7, 10**6)
        case "code among the weights":
            state["extra"] = Runs()
        case "code deep inside":
            state = {"model": state, "args": {"a": [(Runs(),)]}}
        case "code by its name alone":  # named, not called
            state["extra"] = os.system
        case "zip bomb":
            torch.save(state, folder / "w.pth")
            with zipfile.ZipFile(folder / "w.pth", "a", zipfile.ZIP_DEFLATED) as file:
                file.writestr("archive/data/9999", bytes(10**8))
            return folder / "w.pth"
        case "two entries of one name":
            torch.save(state, folder / "w.pth")
            with zipfile.ZipFile(folder / "w.pth") as file:
                name = file.namelist()[0]
            with zipfile.ZipFile(folder / "w.pth", "a") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                file.writestr(name, pickle.dumps(Runs()))
            return folder / "w.pth"
        case "cut in the middle":
            torch.save(state, folder / "w.pth")
            content = (folder / "w.pth").read_bytes()
            (folder / "w.pth").write_bytes(content[: len(content) // 2])
            return folder / "w.pth"
        case "no tensors":
            state = dict.fromkeys(state, "weights")
        case "texts among the weights":
            state["norm_f.weight"] = "1.0"
        case "aliases of one storage":  # a small file that claims many tensors of full size
            whole = torch.ones(4)
            state["pos_embed"] = whole.as_strided((1, 17, 32), (0, 0, 0))
        case "folder":
            (folder / "w.pth").mkdir()
            return folder / "w.pth"
        case "two tensors of one name":
            header = (
                b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                b'"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
            )
            safe.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
            return safe
        case "two tensors in one place":
            header = (
                b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
                b'"y":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
            )
            safe.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 12)
            return safe
        case "header of no JSON":
            safe.write_bytes((8).to_bytes(8, "little") + b"\xff" * 8)
            return safe
        case "code in place of weights":
            (folder / "w.pth").write_bytes(pickle.dumps(Runs()))
            return folder / "w.pth"
        case "not finite":
            state["layers.0.mixer.D"][0] = float("inf")
        case "integers":
            state["norm_f.weight"] = torch.ones(32, dtype=torch.int64)
        case "false depth" | "false width" | "false config":
            changes = {
                "false depth": {"depth": 10**9},
                "false width": {"embed_dim": 10**9},
                "false config": {"drop_path": "x"},
            }[kind]
            config["config"] = json.dumps({**CONFIG.to_dict(), **changes})
            save_file(state, safe, metadata=config)
            return safe
        case "deep header":
            save_file(state, safe, metadata={**config, "config": "[" * 100_000})
            return safe
        case "header of any length":
            safe.write_bytes((2**62).to_bytes(8, "little") + b"{}")
            return safe
        case "header out of the file":
            header = b'{"x":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'
            safe.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
            return safe
    torch.save(state, folder / "w.pth")
    return folder / "w.pth"


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch 2.11, on reading one
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("sparse", "norm_f.weight is torch.sparse_coo, not a dense tensor"),
        ("absurd shape", "head.weight claims shape .* more than the file holds"),
        (
            "code among the weights",
            r"cannot be read safely: it holds objects of \w+\.system beside weights",
        ),
        ("code deep inside", "cannot be read safely"),
        ("code in place of weights", "cannot be read safely"),
        ("code by its name alone", "cannot be read safely"),
        ("zip bomb", "entries are compressed or repeated .* bytes unpacked"),
        ("two entries of one name", "cannot be read safely"),
        ("cut in the middle", "cannot be read safely"),
        ("no tensors", "holds no weights"),
        ("texts among the weights", "missing norm_f.weight"),
        ("aliases of one storage", "pos_embed claims shape .* more than the file holds"),
        ("folder", "must be an existing file"),
        ("two tensors of one name", "damaged or not safetensors"),
        ("two tensors in one place", "damaged or not safetensors"),
        ("header of no JSON", "damaged or not safetensors"),
        ("not finite", "layers.0.mixer.D holds .* non-finite"),
        ("integers", "norm_f.weight holds torch.int64"),
        ("false depth", "its config says depth 1000000000, its tensors 2"),
        ("false width", "its config says embed_dim"),
        ("false config", "its config is not valid"),
        ("deep header", "damaged metadata"),
        ("header of any length", "damaged or not safetensors"),
        ("header out of the file", "damaged or not safetensors"),
    ],
)
def test_hostile_weights_are_refused_before_use_and_nothing_runs(model, tmp_path, kind, text):
    path = hostile(kind, model.state_dict(), tmp_path)
    with pytest.raises(ValueError, match=text):
        load_model(path)
    assert not (tmp_path / "owned").exists()


def test_self_supervised_weights_load_without_their_decoders(model):
    state = dict(model.state_dict())
    state["norm.weight"] = state.pop("norm_f.weight") * 3
    state["clip_decoder.0.head.weight"] = torch.ones(4, 4)
    del state["head.weight"], state["head.bias"]
    fresh = VideoMamba(CONFIG)
    notes = load_weights(fresh, state)
    assert "decoders of masked pre-training dropped; the final norm starts fresh" in notes
    assert torch.equal(fresh.norm_f.weight, torch.ones(32))
    assert torch.equal(fresh.layers[1].mixer.D, model.layers[1].mixer.D)


@pytest.mark.parametrize("mode", ["bicubic", "area", "pi"])
def test_resized_weights_are_those_of_resample(model, mode):
    """Of a model of 12-px patches on a grid of 6 x 6 and 7 frames; everything else stays as it was."""
    state = {name: tensor + 0.1 for name, tensor in model.state_dict().items()}
    kernel, grid, frames = (
        state[name] for name in ("patch_embed.proj.weight", "pos_embed", "temporal_pos_embedding")
    )
    other = VideoMamba(CONFIG.but(patch_size=12, image_size=72, num_frames=7, patch_resize=mode))
    load_weights(other, state)
    found = other.state_dict()
    wanted = {
        **state,
        "patch_embed.proj.weight": resize_patch_kernel(kernel, 12, mode=mode),
        "pos_embed": resize_spatial_positions(grid, (6, 6)),
        "temporal_pos_embedding": resize_temporal_positions(frames, 7),
    }
    assert same(found, wanted) and found.keys() == wanted.keys()


def test_config_of_tubelets_counts_their_frames():
    config = CONFIG.but(tubelet_size=2, num_frames=8)
    assert config_of(VideoMamba(config).state_dict()) == config


def test_a_head_of_other_classes_is_fresh_and_a_fitting_one_is_kept(model):
    other = VideoMamba(CONFIG.but(num_classes=9))
    fresh = other.head.weight.detach().clone()
    load_weights(other, dict(model.state_dict()))
    assert torch.equal(other.head.weight, fresh)
    fitting = VideoMamba(CONFIG)
    load_weights(fitting, dict(model.state_dict()))
    assert torch.equal(fitting.head.weight, model.head.weight)
