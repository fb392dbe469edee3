"""Files of AIM, EVL and UniFormerV2: our own, without a head, and CLIP's tower alone."""

from dataclasses import replace

import pytest
import torch
from small_clip_models import SMALL, clip_of, each, randomised

from stretchysnake.models.architectures import build_model, config_from_dict, config_to_dict
from stretchysnake.models.weights.files import save_model
from stretchysnake.models.weights.loading import load_model, load_weights


@each
@torch.no_grad()
def test_file_of_ours_gives_the_same_features(name, tmp_path):
    model = randomised(SMALL[name])
    video = torch.randn(1, 3, 4, 12, 12)
    # without the search for weights in a file, which has tests of its own
    config = config_from_dict(config_to_dict(SMALL[name]))
    assert config == SMALL[name] and hash(config) == hash(SMALL[name])
    found = type(model).config_of(model.state_dict())
    assert all(getattr(found, field) == getattr(config, field) for field in config.shaped)
    again = build_model(config).eval()
    assert load_weights(again, model.state_dict()) == []
    assert torch.equal(again.features(video), model.features(video))
    headless = build_model(replace(config, num_classes=0)).eval()
    notes = load_weights(headless, model.state_dict())
    assert "head dropped (num_classes is 0)" in notes
    assert torch.equal(headless(video), model.features(video))
    fresh = build_model(replace(config, num_classes=7)).eval()
    notes = load_weights(fresh, headless.state_dict())
    assert "head absent: a fresh one of 7 classes must be trained" in notes
    assert torch.equal(fresh.features(video), model.features(video))


@each
@torch.no_grad()
def test_saved_and_loaded_as_a_file(name, tmp_path):
    model = randomised(SMALL[name])
    save_model(tmp_path / "w.safetensors", model)
    again, notes = load_model(tmp_path / "w.safetensors")
    video = torch.randn(1, 3, 4, 12, 12)
    assert notes == [] and torch.equal(again.features(video), model.features(video))


@each
@pytest.mark.parametrize("prefix", ["visual.", "", "clip.visual."])
@torch.no_grad()
def test_starts_from_clip_alone(name, prefix):
    model = randomised(SMALL[name])
    own = clip_of(name)
    own_only = (
        "Adapter",
        "temporal",
        "ln_post",
        "decoder",
        "lmhra",
        "balance",
        "dec.",
        "dpe.",
        "proj.",
        "head",
    )
    tower = {
        n.removeprefix(own): t
        for n, t in model.state_dict().items()
        if n.startswith(own) and not any(word in n.replace("out_proj", "").replace("c_proj", "") for word in own_only)
    }  # fmt: skip
    if name == "uniformer_v2 local":
        tower["conv1.weight"] = tower["conv1.weight"][:, :, 1]
    elif name.startswith("uniformer"):
        tower["conv1.weight"] = tower["conv1.weight"][:, :, 0]
    tower |= {"ln_post.weight": torch.full((64,), 2.0), "ln_post.bias": torch.zeros(64)}
    state = {prefix + n: t.half() for n, t in tower.items()}
    state[f"{prefix}proj"] = torch.zeros(64, 32).half()
    if prefix:
        state["token_embedding.weight"] = torch.zeros(10, 32).half()
        state["transformer.resblocks.0.ln_1.weight"] = torch.zeros(32).half()  # of the text tower
    found = type(model).config_of(state)
    assert (found.embed_dim, found.depth, found.image_size, found.num_classes) == (64, 3, 12, 0)
    started = build_model(SMALL[name]).eval()
    notes = load_weights(started, state)
    assert "CLIP's projection (proj) not used" in notes
    assert any("only CLIP's visual tower is in the file" in note for note in notes)
    assert any("head absent: a fresh one of 5 classes" in note for note in notes)
    assert ("CLIP's text tower not used (2 tensors)" in notes) == bool(prefix)
    assert ("CLIP's last LayerNorm (ln_post) not used" in notes) == (name != "aim")
    loaded = started.state_dict()
    assert torch.equal(
        loaded[f"{own}positional_embedding"], tower["positional_embedding"].half().float()
    )
    assert torch.equal(
        loaded[f"{own}transformer.resblocks.2.mlp.c_fc.weight"],
        tower["transformer.resblocks.2.mlp.c_fc.weight"].half().float(),
    )
    gone = f"{prefix}transformer.resblocks.1.attn.out_proj.bias"
    with pytest.raises(
        ValueError, match=r"missing .*transformer\.resblocks\.1\.attn\.out_proj\.bias"
    ):
        load_weights(started, {n: t for n, t in state.items() if n != gone})
    if name == "aim":
        assert torch.equal(loaded["backbone.ln_post.weight"], torch.full((64,), 2.0))
    if name == "uniformer_v2 local":
        assert not loaded["conv1.weight"][:, :, [0, 2]].any()
        assert "patch kernel inflated from an image model to 3 frames (centre)" in notes
