"""The table of published weights: every file has a name, a source, a licence and a config that its tensors have."""

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch

from stretchysnake.models.architectures import build_model, model_class
from stretchysnake.models.config import VideoMambaConfig
from stretchysnake.models.weights.from_file import model_of
from stretchysnake.models.weights.published.reference import is_by_name, reference_of
from stretchysnake.models.weights.published.table import (
    REPO,
    near_names,
    published,
    published_named,
)
from stretchysnake.recipes.pretrain import START

VIDEOMAMBA = [row for row in published().values() if row.repo == REPO]
ids = {"ids": lambda row: row.name}


def counted() -> int:
    """Files of the repository, from the pattern in which their names are told."""
    sizes, long = 3, ("breakfast", "coin")
    k400 = sizes * 4 + sizes + 1 + 4 + 1  # f8 to f64, 384 px, mask_pt, mask_ft, mask_ft at 384
    ssv2 = sizes * 2 + sizes + 3 + 1
    images = (2 + 3 + 3) + 1
    return k400 + ssv2 + len(long) * (sizes * 2 + 2) + images + 3


def test_there_are_62_files_of_videomamba_and_no_name_or_hash_twice():
    assert len(VIDEOMAMBA) == counted() == 62
    assert len({row.file for row in VIDEOMAMBA}) == 62
    hashes = [row.sha256 for row in published().values() if row.sha256]
    assert len(hashes) == len({*hashes}) == 32
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in hashes)
    assert Counter(row.licence for row in VIDEOMAMBA) == {"Apache-2.0": 62}


@pytest.mark.parametrize("row", published().values(), **ids)
def test_each_has_source_licence_and_config(row):
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", row.repo) and row.file and row.revision
    assert row.licence and row.trained_on
    assert (row.classes is None) == (row.num_classes == 0)
    config = row.config()
    assert (config.native.num_frames, config.native.size) == (row.num_frames, row.size)
    assert config.num_classes == row.num_classes
    assert published_named(row.name) is row
    assert reference_of(row.name).licence == row.licence and is_by_name(row.name)


@cache
def whole(width: int, depth: int) -> dict:
    """Names and shapes of a model of this size at 224 px; its layers are one, many times over."""
    state = build_model(VideoMambaConfig(embed_dim=width, depth=1)).state_dict()
    layer = {
        name.removeprefix("layers.0."): tensor
        for name, tensor in state.items()
        if name.startswith("layers.0.")
    }
    return state | {
        f"layers.{i}.{name}": tensor for i in range(depth) for name, tensor in layer.items()
    }


def official_layout(row, state: dict) -> dict:
    """Tensors as the official code names them for this file: images have 2-D kernels and no temporal positions."""
    state = dict(state)
    if row.num_frames == 1:
        state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, 0]
        del state["temporal_pos_embedding"]
    if row.num_classes == 0:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    if "mask-pt" in row.name:
        norm = state.pop("norm_f.weight")
        state |= {"norm.weight": norm, "clip_decoder.0.head.weight": norm}
    return state


@pytest.mark.parametrize("row", VIDEOMAMBA, **ids)
def test_the_config_is_read_off_the_shapes_of_the_whole_file(row):
    width, depth = {"t": (192, 24), "s": (384, 24), "m": (576, 32), "b": (768, 24)}[row.file[11]]
    shapes = {
        "pos_embed": (1, (row.size // 16) ** 2 + 1, width),
        "temporal_pos_embedding": (1, row.num_frames, width),
        "head.weight": (row.num_classes, width),
        "head.bias": (row.num_classes,),
    }
    sized = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    state = official_layout(row, {**whole(width, depth), **sized})
    assert model_class("videomamba").config_of(state) == row.config()


@pytest.mark.parametrize(
    "row",
    VIDEOMAMBA[:1] + VIDEOMAMBA[15:16] + VIDEOMAMBA[31:32] + VIDEOMAMBA[50:51] + VIDEOMAMBA[61:],
    **ids,
)
def test_a_made_file_of_each_layout_loads(row, tmp_path):
    config = row.config().but(embed_dim=16, depth=1)
    torch.save(
        {"model": official_layout(row, build_model(config).state_dict())}, tmp_path / row.file
    )
    model, _ = model_of(tmp_path / row.file)
    assert model.config == config


@pytest.mark.parametrize("name", ["uniformer-base-k400-16x4", "hiera-base-k400"])
def test_peers_are_what_their_key_lists_say(name):
    """Shapes of the published files as their authors' code has them."""
    peers = Path(__file__).parents[3] / "fixtures" / "peers"
    lists = {
        "uniformer-base-k400-16x4": "uniformer_b_16x4_k400_keys.json",
        "hiera-base-k400": "hiera_base_16x224_keys.json",
    }
    keys = json.loads((peers / lists[name]).read_text())
    keys = keys.get("keys", keys)
    state = {key: torch.zeros(()).expand(shape) for key, shape in keys.items()}
    row = published_named(name)
    found = model_class(row.config().architecture).config_of(state)
    assert found == row.config()


def test_names_say_size_data_and_scale():
    row = published_named("videomamba-m-k400-f16")
    assert row.file == "videomamba_m16_k400_f16_res224.pth"
    assert row.sha256.startswith("727c0fc98f06")
    assert published_named("videomamba_m16_k400_f16_res224") is row is published_named(row.file)
    wide = published_named("videomamba-t-in1k-576")
    assert (wide.file, wide.num_frames, wide.size) == (
        "videomamba_t16_in1k_res224to448to576.pth",
        1,
        576,
    )
    assert published_named("videomamba-s-ssv2-f16-288").num_classes == 174
    assert published_named("videomamba-t-k400-f16").hash_by == "a third party"


def test_the_recipes_start_is_the_papers():
    assert published_named(START).file == "videomamba_m16_k400_mask_pt_f8_res224.pth"
    assert published_named(START).sha256.startswith("8815a5a87221")
    assert published_named(START).classes is None


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("videomamba-m-k400-f61", "did you mean: videomamba-m-k400-f64, videomamba-m-k400-f16"),
        ("videomamba_m16_k400_f12_res224.pth", "did you mean: videomamba-m-k400-f"),
        ("resnet", "must be an existing file or folder, or a published name; all names: stretchysnake weights"),
        ("hf://org", "must have the form hf://org/name"),
        ("hf://org/name/../../x", "must have the form hf://org/name"),
        ("hf://org/name@", "must have the form hf://org/name"),
        (Path("hf://org/name"), "must be text, not a Path"),
    ],
)  # fmt: skip
def test_a_name_that_is_none_says_what_is_near(typed, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        reference_of(typed)


def test_paths_stay_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videomamba-m-k400-f16").write_bytes(b"")
    for path in ("runs/mine/weights.safetensors", "weights.safetensors", "videomamba-m-k400-f16"):
        assert reference_of(path) is None and not is_by_name(path)


def test_parts_of_a_name_on_the_hub():
    found = reference_of("hf://org/name/sub/file.pth@v1.0")
    assert (found.repo, found.file, found.revision) == ("org/name", "sub/file.pth", "v1.0")
    found = reference_of("hf://org/name")
    assert (found.file, found.revision) == ("model.safetensors", "main")
    assert found.by_hand == "org--name.safetensors"
    assert near_names("VideoMamba_t_k400_f8")[0] == "videomamba-t-k400-f8"
