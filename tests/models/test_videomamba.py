"""VideoMamba against the official outputs, at any scale, and never with a stale kernel."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.models.resample import resize_patch_kernel
from stretchysnake.models.weights.official.videomamba import config_of

FIXTURES = Path(__file__).parents[1] / "fixtures"


def tiny(**changes):
    values = {
        "embed_dim": 32,
        "depth": 2,
        "patch_size": 8,
        "image_size": 32,
        "num_frames": 4,
        "num_classes": 5,
    }
    return VideoMamba(VideoMambaConfig(**{**values, **changes}))


@pytest.mark.parametrize("name", ["public_small", "public_odd"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
def test_equals_the_official_model(name, dtype, tolerance):
    # In fp64 the difference stays near 3e-8, not 1e-16: the official code keeps A_log and D in fp32.
    path = FIXTURES / f"{name}.safetensors"
    stored = load_file(path)
    state = {
        key.removeprefix("model."): value
        for key, value in stored.items()
        if key.startswith("model.")
    }
    config = config_of(state)
    with safe_open(path, "pt") as file:
        official = json.loads(file.metadata()["config"])
    assert (config.embed_dim, config.depth, config.image_size) == (
        official["embed_dim"],
        official["depth"],
        official["img_size"],
    )
    model = VideoMamba(config).to(dtype).eval()
    model.load_state_dict(state, strict=True)
    with torch.no_grad():
        video = stored["input"].to(dtype)
        for found, wanted in (
            (model.features(video), stored["features"]),
            (model(video), stored["logits"]),
        ):
            error = (found - wanted).abs().max() / wanted.abs().max()
            assert error < tolerance


@pytest.mark.parametrize("shape", [(4, 32, 32), (1, 8, 8), (7, 32, 64), (9, 24, 40), (2, 64, 16)])
def test_any_length_and_any_frame_size_runs_unasked(shape):
    t, h, w = shape
    tokens = tiny().eval().tokens(torch.randn(2, 3, t, h, w))
    assert tokens.cls.shape == (2, 32)
    assert tokens.patches.shape == (2, t, h // 8, w // 8, 32)
    assert tokens.cls.isfinite().all()
    assert tokens.patches.isfinite().all()


def test_patch_size_9_gives_the_same_grid_at_36_px():
    assert tiny().tokens(torch.randn(1, 3, 4, 36, 36), patch_size=9).patches.shape == (
        1,
        4,
        4,
        4,
        32,
    )


def test_features_are_the_cls_token_and_logits_their_head():
    model, video = tiny().eval(), torch.randn(2, 3, 4, 32, 32)
    features = model.features(video)
    torch.testing.assert_close(features, model.tokens(video).cls)
    torch.testing.assert_close(model(video), model.head(features))


def test_native_scale_uses_the_stored_weights_bitwise():
    model = tiny().eval()
    weights = model._weights_for(8, (4, 4, 4))
    stored = (model.patch_embed.proj.weight, model.pos_embed, model.temporal_pos_embedding)
    assert all(used is kept for used, kept in zip(weights, stored, strict=True))


def test_patch_tokens_follow_their_frame_and_place():
    # With no mixing layer the token at (t, i, j) may depend on its own patch alone: an executable token order.
    model = tiny(depth=1).eval()
    with torch.no_grad():
        model.layers[0].mixer.out_proj.weight.zero_()
    video = torch.zeros(1, 3, 4, 32, 32)
    other = video.clone()
    other[0, :, 2, 8:16, 24:32] = 1.0
    changed = (model.tokens(video).patches != model.tokens(other).patches).any(-1)[0]
    assert changed.nonzero().tolist() == [[2, 1, 3]]


@pytest.mark.parametrize("change", ["optimizer", "data", "load_state_dict"])
def test_inference_never_uses_a_stale_kernel(change):
    model, video = tiny().eval(), torch.randn(1, 3, 6, 24, 24)
    with torch.no_grad():
        before = model.features(video, 6)
        assert torch.equal(model.features(video, 6), before)
    weight = model.patch_embed.proj.weight
    if change == "optimizer":
        model.features(video, 6).sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.5).step()
    elif change == "data":
        weight.data.mul_(2.0)  # moves no version counter
    else:
        model.load_state_dict(
            {**model.state_dict(), "patch_embed.proj.weight": weight.detach() * 2}
        )
    with torch.no_grad():
        after = model.features(video, 6)
        fresh = copy.deepcopy(model)
        fresh._resized.clear()
        assert torch.equal(after, fresh.features(video, 6))
        assert not torch.equal(after, before)


def test_scales_one_after_another_are_remembered_apart():
    model = tiny().eval()
    scales = [((6, 24, 24), 6), ((6, 48, 48), 12), ((3, 24, 48), 6), ((6, 24, 24), 12)]
    with torch.no_grad():
        for (t, h, w), patch in scales * 2:
            video = torch.randn(1, 3, t, h, w)
            fresh = copy.deepcopy(model)
            fresh._resized.clear()
            assert torch.equal(model.features(video, patch), fresh.features(video, patch))


def test_training_resizes_anew_and_gradients_reach_every_stored_weight():
    model = tiny().eval()
    video = torch.randn(2, 3, 6, 24, 24)
    with torch.no_grad():
        model(video, 6)  # fills the inference cache
    model.train()
    model(video, 6).square().sum().backward()
    flexed = (model.patch_embed.proj.weight, model.pos_embed, model.temporal_pos_embedding)
    assert all(p.grad is not None and (p.grad != 0).any(-1).all() for p in flexed)


@pytest.mark.parametrize("mode", ["bicubic", "area", "pi"])
def test_another_patch_is_a_model_with_the_kernel_resized_by_the_configured_way(mode):
    model = tiny(patch_resize=mode).eval()
    other = tiny(patch_size=12, image_size=48).eval()  # the same grid of 4 x 4
    weights = model.state_dict()
    kernel = resize_patch_kernel(weights["patch_embed.proj.weight"], 12, mode=mode)
    other.load_state_dict({**weights, "patch_embed.proj.weight": kernel})
    video = torch.randn(2, 3, 4, 48, 48)
    with torch.no_grad():
        assert torch.equal(model.features(video, 12), other.features(video))


def test_features_do_not_depend_on_the_rest_of_the_batch():
    model, video = tiny().eval(), torch.randn(3, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            model.features(video)[1:2], model.features(video[1:2]), rtol=1e-5, atol=1e-5
        )


def test_floor_grid_leaves_the_border_unused():
    model = tiny().eval()
    video = torch.randn(1, 3, 2, 35, 38)
    with torch.no_grad():
        assert torch.equal(
            model.features(video, grid="floor"), model.features(video[..., :32, :32])
        )


def test_mamba_init_spreads_delta_and_official_wipes_it():
    def delta(init):
        mixer = tiny(init=init).layers[0].mixer
        return [torch.nn.functional.softplus(p.bias) for p in (mixer.dt_proj, mixer.dt_proj_b)]

    for found in delta("mamba"):
        assert found.min() >= 1e-3 * 0.99 and found.max() <= 0.1 * 1.01
        assert found.log().std() > 0.8  # log-uniform over two decades: 1.33
    for found in delta("official"):
        torch.testing.assert_close(found, torch.full_like(found, 0.693147))


def test_blocks_are_computed_again_in_backward_only_where_asked_and_only_in_training():
    model, calls = tiny(), []
    for block in model.layers:
        block.mixer.register_forward_pre_hook(lambda *_: calls.append(1))
    video = torch.randn(1, 3, 4, 32, 32)
    for asked, training, times in ((False, True, 2), (True, True, 4), (True, False, 2)):
        calls.clear()
        model.checkpoint_activations = asked
        model.train(training)(video).sum().backward()
        assert len(calls) == times, (asked, training)


def test_drop_path_is_off_in_eval_and_random_in_training():
    model, video = tiny(drop_path=0.5), torch.randn(4, 3, 4, 32, 32)
    model.eval()
    assert torch.equal(model.features(video), model.features(video))
    model.train()
    assert not torch.equal(model.features(video), model.features(video))


@pytest.mark.parametrize(
    ("shape", "patch", "text"),
    [
        (
            (1, 3, 4, 225, 224),
            16,
            r"height \(225\) must be a multiple of patch_size \(16\); nearest: 224, 240",
        ),
        ((1, 3, 4, 32, 4), None, r"width \(4\) must be a multiple of patch_size \(8\); nearest: 8"),
        ((1, 4, 3, 32, 32), None, r"must be floating point of shape \(B, 3, T, H, W\)"),
        ((3, 4, 32, 32), None, r"add a batch axis with video\[None\]"),
        ((1, 3, 4, 32, 32), 0, r"patch_size \(0\) must be a positive integer"),
    ],
)
def test_input_that_does_not_fit_says_what_to_do(shape, patch, text):
    with pytest.raises(ValueError, match=text):
        tiny().features(torch.zeros(shape), patch)


def test_frames_that_do_not_fill_a_tubelet_say_the_nearest():
    model = tiny(tubelet_size=2)
    assert model.tokens(torch.zeros(1, 3, 6, 32, 32)).patches.shape[1] == 3
    with pytest.raises(ValueError, match=r"num_frames \(5\).*tubelet_size \(2\); nearest: 4, 6"):
        model.features(torch.zeros(1, 3, 5, 32, 32))


def test_uint8_video_is_refused():
    with pytest.raises(ValueError, match="must be floating point"):
        tiny()(torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8))


def test_named_sizes_and_unknown_ones():
    assert VideoMambaConfig.named("middle", num_classes=0).depth == 32
    with pytest.raises(
        ValueError, match=r"model size \('large'\) must be one of: tiny, small, middle, nano"
    ):
        VideoMambaConfig.named("large")
    with pytest.raises(
        ValueError, match=r"field \('embed_dims'\) is not known \(did you mean embed_dim\?\)"
    ):
        VideoMambaConfig.named("tiny", embed_dims=3)


def test_bf16_autocast_stays_near_fp32():
    model, video = tiny().eval(), torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        exact = model.features(video)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.features(video).float()
    assert (exact - rounded).norm() / exact.norm() < 3e-2
