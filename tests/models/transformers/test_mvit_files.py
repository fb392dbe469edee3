"""MViT's weights from files: every published layout of names, other sizes, our own, and broken ones."""

import pytest
import torch
from official import full_size_keys

from stretchysnake.models.architectures import (
    config_from_dict,
    config_to_dict,
    create_model,
    marks_of,
)
from stretchysnake.models.transformers.mvit import MViT, MViTConfig
from stretchysnake.models.weights.files import find_weights, save_model
from stretchysnake.models.weights.layout import weights_in
from stretchysnake.models.weights.loading import load_model, load_weights


def small(**changes):
    values = {
        "embed_dim": 8, "depth": 4, "num_heads": 1, "pool_blocks": (1, 2), "kv_stride": 4, "image_size": 32,
        "num_frames": 8, "num_classes": 5,
    }  # fmt: skip
    return MViT(MViTConfig(**{**values, **changes}))


def torchvision_names(state):
    """The other way round than the loader, written down from the facts."""
    found = {}
    for name, tensor in state.items():
        for ours, theirs in (
            ("patch_embed.proj.", "conv_proj."), ("pos_embed_spatial", "pos_encoding.spatial_pos"),
            ("pos_embed_temporal", "pos_encoding.temporal_pos"), ("pos_embed_class", "pos_encoding.class_pos"),
            ("cls_token", "pos_encoding.class_token"), ("attn.proj.", "attn.project.0."),
            ("head.projection.", "head.1."), ("mlp.fc1.", "mlp.0."), ("mlp.fc2.", "mlp.3."),
            ("attn.pool_q.", "attn.pool_q.pool."),
            ("attn.pool_k.", "attn.pool_k.pool."), ("attn.pool_v.", "attn.pool_v.pool."),
            ("attn.norm_q.", "attn.pool_q.norm_act.0."), ("attn.norm_k.", "attn.pool_k.norm_act.0."),
            ("attn.norm_v.", "attn.pool_v.norm_act.0."),
        ):  # fmt: skip
            name = name.replace(ours, theirs)
        if "attn" not in name and ".proj." in name:
            name = name.replace(".proj.", ".project.")
        found[name] = tensor.squeeze(0).squeeze(0) if "pos_encoding" in name else tensor
    return found


def separate_names(state):
    found = {}
    for name, tensor in state.items():
        if ".qkv." in name:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                found[name.replace(".qkv.", f".{part}.")] = third.clone()
        else:
            found[name] = tensor
    return found


def pytorchvideo_names(state):
    found = {}
    for name, tensor in separate_names(state).items():
        if name.startswith(("cls_token", "pos_embed")):
            name = f"cls_positional_encoding.{name}"
        name = name.replace("patch_embed.proj.", "patch_embed.patch_model.")
        name = name.replace("head.projection.", "head.proj.")
        name = name.replace("norm.", "norm_embed.") if name.startswith("norm.") else name
        found[name] = tensor
    found["blocks.0.attn._attention_pool_k.pool.weight"] = torch.ones(2)
    return found


@pytest.mark.parametrize(
    ("layout", "eps", "notes"),
    [
        (torchvision_names, 1e-6, []),
        (separate_names, 1e-5, ["attn.q, attn.k and attn.v joined to attn.qkv"]),
        (
            pytorchvideo_names,
            1e-6,
            [
                "1 tensors of _attention_pool_* left out: pool_* and norm_* hold the same",
                "attn.q, attn.k and attn.v joined to attn.qkv",
            ],
        ),
    ],
)
def test_other_layouts_are_the_same_model(layout, eps, notes):
    model = small()
    ours = {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    theirs = layout(ours)
    assert not set(theirs) >= set(ours)
    config = MViT.config_of(theirs)
    assert config.pool_norm_eps == eps
    assert MViT.config_of(theirs, pool_norm_eps=1e-6) == model.config
    assert load_weights(model, theirs) == notes
    assert model.state_dict().keys() == ours.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ("mvit_slowfast_b_16x4", "mvit-base"),
        ("mvit_slowfast_b_16x4_2021", "mvit-base-2021"),
        ("mvit_torchvision_v1_b", "mvit"),
        ("mvit_pytorchvideo_base_16x4", "mvit"),
    ],
)
def test_published_files_fit_by_name_and_shape(keys, name):
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in full_size_keys(keys).items()}
        model = create_model(name)
        assert MViT.config_of(state) == model.config
        fitted, _ = model.fitted(state)
        model.load_state_dict(fitted, strict=True)


def test_a_file_at_other_sizes_is_resized_with_notes():
    first, second = small(), small(image_size=24, patch_size=2, num_frames=4, num_classes=3)
    notes = load_weights(second, first.state_dict())
    assert notes == [
        "stem 7 -> 3 px (bicubic)",
        "spatial positions 8x8 -> 12x12 (bicubic)",
        "temporal positions 4 -> 2 (linear)",
        "head of 5 classes not used: a fresh one of 3 classes must be trained",
    ]
    video = torch.randn(2, 3, 4, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(
            second.eval().features(video), first.eval().features(video, 2), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("kv_stride", [2, 4, 16])
def test_saved_and_loaded_is_the_same_bit_for_bit(tmp_path, kv_stride):
    model = small(pool_unstrided=False, pool_norm_eps=1e-4, kv_stride=kv_stride).eval()
    video = torch.randn(2, 3, 6, 24, 20)
    if kv_stride < 16:
        assert MViT.config_of(model.state_dict()).kv_stride == kv_stride
    save_model(tmp_path / "w.safetensors", model)
    again, notes = load_model(tmp_path / "w.safetensors")
    assert (
        again.config == model.config == config_from_dict(config_to_dict(model.config))
        and notes == []
    )
    with torch.no_grad():
        assert torch.equal(again.features(video), model.features(video))


def test_a_broken_file_is_named():
    state = separate_names(small().state_dict())
    with pytest.raises(ValueError, match=r"hold norm\.bias twice, once as norm_embed\.bias"):
        MViT.config_of({**state, "norm_embed.bias": torch.zeros(32)})
    state["blocks.2.attn.k.weight"] = torch.zeros(16, 15)
    del state["blocks.3.attn.v.bias"]
    with pytest.raises(
        ValueError,
        match=r"missing blocks\.2\.attn\.qkv\.weight; missing blocks\.3\.attn\.qkv\.bias",
    ):
        load_weights(small(), state)


def test_weights_of_something_else_are_named():
    state = small().state_dict()
    del state["pos_embed_class"]
    with pytest.raises(ValueError, match="these are not MViT weights: pos_embed_class missing"):
        MViT.config_of(state)
    state = small().state_dict()
    state["pos_embed_spatial"] = state["pos_embed_spatial"][:, :-1]
    with pytest.raises(ValueError, match="holds 63 positions; a square number is needed"):
        MViT.config_of(state)


@pytest.mark.parametrize(
    ("keys", "wrap", "architecture"),
    [
        ("mvit_slowfast_b_16x4", "model_state", "mvit"),
        ("mvit_slowfast_b_16x4_2021", "model_state", "mvit"),
        ("mvit_pytorchvideo_base_16x4", "model_state", "mvit"),
        ("mvit_torchvision_v1_b", None, "mvit"),
        ("hiera_base_16x224", "model_state", "hiera"),
        ("hiera_large_16x224", None, "hiera"),
    ],
)
def test_mvit_and_hiera_are_told_apart_whose_names_are_alike(tmp_path, keys, wrap, architecture):
    state = {name: torch.zeros(1) for name in full_size_keys(keys)}
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "official.pth")
    found, _ = find_weights(tmp_path / "official.pth")
    assert found.architecture == architecture and found.state.keys() == state.keys()
    # whatever order the architectures are asked in
    marks = {name: marks_of(name)[name] for name in ("mvit", "hiera", "videomamba")}
    for one in (marks, dict(sorted(marks.items()))):
        assert weights_in(state, tmp_path, one).architecture == architecture
