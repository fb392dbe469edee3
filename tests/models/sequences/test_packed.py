"""Clips of different shapes in one pass give what each gives alone: features, logits and every parameter's gradient."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from small_backbones import names, small_config

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.models.architectures import build_model
from stretchysnake.models.sequences.packed import features_packed, forward_packed
from stretchysnake.ops.bidirectional_scan import scan as packed_scan
from stretchysnake.ops.causal_conv import convolution
from stretchysnake.ops.causal_conv import triton as causal_conv_triton
from stretchysnake.ops.native import library as native_library
from stretchysnake.ops.selective_scan import scan as selective_scan_module
from stretchysnake.ops.selective_scan import triton_tiles
from stretchysnake.ops.triton import runtime as triton_runtime

DEPTH = 2
# (T, H, W, P): the stored scale, odd sides, one frame, one token a frame, two clips of one shape, one shape at two P
SHAPES = [
    (4, 32, 32, 8), (3, 15, 25, 5), (1, 48, 16, 8), (2, 7, 7, 7), (3, 15, 25, 5), (6, 30, 30, 10), (6, 30, 30, 15),
]  # fmt: skip


def videomamba(dtype=torch.float64, **changes):
    torch.manual_seed(0)
    sizes = {"embed_dim": 24, "depth": DEPTH, "patch_size": 8, "image_size": 32, "num_frames": 4}
    return VideoMamba(VideoMambaConfig(**sizes, num_classes=5, **changes)).to(dtype)


def clips_of(shapes, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(3, t, h, w, generator=generator, dtype=torch.float64).to(device, dtype)
        for t, h, w, _ in shapes
    ]


def with_gradients(model, compute):
    """What compute() gives, (n, k), and the gradient of every parameter under a fixed cotangent."""
    model.zero_grad()
    found = compute()
    weights = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).view_as(found.cpu())
    (found * weights.to(found)).sum().backward()
    return found.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def alone(model, clips, shapes, draws=None):
    drawn = [None] * len(clips) if draws is None else draws[:, None]
    return torch.cat(
        [
            model(clip[None], patch, drop_draws=own)
            for clip, (*_, patch), own in zip(clips, shapes, drawn, strict=True)
        ]
    )


def assert_equal(found, wanted, tolerance):
    torch.testing.assert_close(found[0], wanted[0], rtol=tolerance, atol=tolerance)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in found[1].items():
        largest = wanted[1][name].abs().max().item()
        assert (gradient - wanted[1][name]).abs().max() <= tolerance * max(1.0, largest), name


@pytest.fixture(params=["native", "torch"])
def backend(request, monkeypatch):
    if request.param == "native" and not native_library.is_available():
        pytest.skip(f"{native_library.unavailable_reason()}")
    if request.param == "torch":
        monkeypatch.setattr(native_library, "is_available", lambda: False)
        monkeypatch.setattr(native_library, "unavailable_reason", lambda: "a test without it")
    return request.param


@pytest.mark.parametrize(
    ("dtype", "tolerance", "count"),
    [(torch.float64, 1e-10, 1), (torch.float64, 1e-10, len(SHAPES)), (torch.float32, 1e-5, len(SHAPES))],
    ids=["one clip", "fp64", "fp32"],
)  # fmt: skip
def test_packed_is_each_clip_alone(backend, dtype, tolerance, count):
    shapes = SHAPES[:count]
    model, clips = videomamba(dtype), clips_of(shapes, dtype)
    patches = [patch for *_, patch in shapes]
    found = with_gradients(model, lambda: model.forward_packed(clips, patches))
    assert_equal(found, with_gradients(model, lambda: alone(model, clips, shapes)), tolerance)


def test_packed_is_the_stream_written_out_clip_by_clip():
    """Against the blocks by hand, which share no code with the packed pass but the mixer of one clip."""
    model, clips = videomamba().eval(), clips_of(SHAPES)
    with torch.no_grad():
        wanted = []
        for clip, (*_, patch) in zip(clips, SHAPES, strict=True):
            stream, x = 0.0, model.embed_part(clip[None], patch)
            for block in model.layers:
                stream = stream + x
                x = block.mixer(block.norm(stream))
            wanted.append(model.norm_f(stream + x)[:, 0])
        found = model.features_packed(clips, [patch for *_, patch in SHAPES])
    torch.testing.assert_close(found, torch.cat(wanted), rtol=1e-11, atol=1e-11)


def test_stored_patch_size_and_what_is_remembered():
    model, clips = videomamba().eval(), clips_of(SHAPES[:1] + SHAPES[2:3])
    with torch.inference_mode():
        wanted = torch.cat([model.features(clip[None]) for clip in clips])
        for sizes in (None, [None, None], [8, None]):
            torch.testing.assert_close(model.features_packed(clips, sizes), wanted)


def test_grid_floor_leaves_pixels_unused_as_alone():
    model, clips = videomamba().eval(), clips_of([(2, 19, 33, 0), (1, 9, 9, 0)])
    wanted = torch.cat([model.features(clip[None], grid="floor") for clip in clips])
    torch.testing.assert_close(model.features_packed(clips, grid="floor"), wanted)
    with pytest.raises(ValueError, match=r"clips\[0\]: height \(19\) must be a multiple of patch"):
        model.features_packed(clips)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_drop_path_is_decided_for_each_clip(recompute):
    model, clips = videomamba(drop_path=0.5).train(), clips_of(SHAPES)
    model.checkpoint_activations = recompute
    draws = torch.rand(len(SHAPES), DEPTH, generator=torch.Generator().manual_seed(2))
    patches = [patch for *_, patch in SHAPES]
    wanted = with_gradients(model, lambda: alone(model, clips, SHAPES, draws))
    packed = with_gradients(model, lambda: model.forward_packed(clips, patches, drop_draws=draws))
    assert_equal(packed, wanted, 1e-10)
    # without draws the generator decides, once for each clip and block
    torch.manual_seed(3)
    drawn = with_gradients(model, lambda: model.forward_packed(clips, patches))
    torch.manual_seed(3)
    in_groups = torch.rand(len(SHAPES), DEPTH)
    assert not torch.equal(in_groups, draws)
    wanted = with_gradients(model, lambda: alone(model, clips, SHAPES, in_groups))
    assert_equal(drawn, wanted, 1e-10)


def test_autocast_and_half_precision_keep_close():
    model, clips = videomamba(torch.float32).eval(), clips_of(SHAPES, torch.float32)
    patches = [patch for *_, patch in SHAPES]
    with torch.no_grad():
        wanted = model.features_packed(clips, patches)
        with torch.autocast("cpu", torch.bfloat16):
            cast = model.features_packed(clips, patches)
    assert (cast.float() - wanted).norm() / wanted.norm() < 0.03


@pytest.mark.parametrize("architecture", names())
def test_every_backbone_answers_clips_of_different_shapes(architecture):
    """Those that cannot pack take each shape as a batch; the order stays that of the clips."""
    config = small_config(architecture, num_classes=3)
    torch.manual_seed(0)
    model = build_model(config).eval()
    native = config.native
    frames = native.num_frames * 2 // config.frame_multiple * config.frame_multiple
    sizes = [
        (native.num_frames, native.size),
        (frames, native.size),
        (native.num_frames, native.size),
    ]
    clips = clips_of([(t, s, s, 0) for t, s in sizes], torch.float32)
    with torch.inference_mode():
        wanted = torch.cat([model(clip[None]) for clip in clips])
        found = forward_packed(model, clips)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        assert features_packed(model, clips).shape == (3, config.feature_dim)


@pytest.mark.parametrize("model", ["videomamba", "aim"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, p: ([], []), r"^clips \(none\) must hold at least one clip \(3, T, H, W\); leave the call out"),
        (lambda c, p: (c, p[:1]), r"^patch_sizes \(1 of them\) must be a list of one for each of the 2 clips"),
        (lambda c, p: (c, 8), r"^patch_sizes \(8\) must be a list of one for each of the 2 clips; None takes the"),
        (lambda c, p: ([c[0], c[1][None]], p), r"^clips\[1\] \(shape \(1, 3, 4, 32, 32\).* must be one floating point "
         r"clip \(3, T, H, W\); cut a batch into its clips with list\(video\)$"),
        (lambda c, p: ([c[0][:2], c[1]], p), r"^clips\[0\] \(shape \(2, 4, 32, 32\), torch.float32\) must be one"),
        (lambda c, p: ([c[0], c[1].int()], p), r"^clips\[1\] \(shape .*, torch.int32\) must be one floating point"),
        (lambda c, p: ([c[0], c[1].double()], p), r"^clips\[1\] \(torch.float64\) must have the dtype of clips\[0\] "
         r"\(torch.float32\); convert it with .to\(torch.float32\)$"),
        (lambda c, p: ([c[0], c[1].to("meta")], p), r"^clips\[1\] \(device meta\) must be on the device of clips\[0\] "
         r"\(cpu\); move it with .to\('cpu'\)$"),
        (lambda c, p: (c, [8, 0]), r"^clips\[1\]: patch_size \(0\) must be a positive integer"),
    ],
)  # fmt: skip
def test_wrong_clips_are_named(model, change, message):
    model = build_model(small_config(model))
    clips, patches = change(clips_of([(4, 32, 32, 8)] * 2, torch.float32), [8, 8])
    with pytest.raises(ValueError, match=message):
        features_packed(model, clips, patches)


@pytest.mark.parametrize("architecture", ["videomamba", "aim"])
def test_clips_may_come_as_a_tuple_or_one_by_one(architecture):
    model = build_model(small_config(architecture)).eval()
    clips = clips_of([(4, 32, 32, 8)] * 2, torch.float32)
    wanted = features_packed(model, clips)
    assert torch.equal(features_packed(model, tuple(clips)), wanted)
    assert torch.equal(features_packed(model, iter(clips)), wanted)
    if architecture == "videomamba":
        assert torch.equal(model(tuple(clips), (8, 8)), model(clips))


@pytest.mark.parametrize("model", ["videomamba", "aim"])
def test_as_many_draws_as_clips(model):
    model = build_model(small_config(model))
    with pytest.raises(
        ValueError, match=r"^drop_draws \(1 rows\) must have one row for each of the 2"
    ):
        features_packed(
            model, clips_of([(4, 32, 32, 8)] * 2, torch.float32), drop_draws=torch.rand(1, 2)
        )


@pytest.mark.skipif(
    not (triton_runtime.is_available() and triton_runtime.is_interpreted()),
    reason="run by test_triton_packs_clips_by_its_interpreter",
)
@pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")
def test_interpreted_triton_packs_clips(monkeypatch):
    """Tiles that the interpreter can afford; both directions by single operations, packed and each clip alone."""
    for module in (packed_scan, selective_scan_module, convolution):
        monkeypatch.setattr(module, "choose_backend", lambda *_, **__: "triton")
    monkeypatch.setattr(triton_tiles, "checkpoint_tokens", lambda state: 8)
    monkeypatch.setattr(triton_tiles, "forward_tiles", lambda *_: triton_tiles.Tiles(8, 4, 1))
    monkeypatch.setattr(triton_tiles, "backward_tiles", lambda *_: triton_tiles.Tiles(4, 4, 1))
    for name in ("FORWARD", "BACKWARD"):
        monkeypatch.setattr(causal_conv_triton, name, triton_tiles.Tiles(8, 4, 1))
    monkeypatch.setattr(causal_conv_triton, "SPAN_TOKENS", 16)
    torch.manual_seed(0)
    sizes = {"embed_dim": 4, "depth": 1, "patch_size": 8, "image_size": 16, "num_frames": 2}
    model = VideoMamba(VideoMambaConfig(**sizes, state_size=2, num_classes=3)).double()
    shapes = [(2, 16, 16, 8), (1, 15, 20, 5), (1, 8, 8, 8)]
    clips = clips_of(shapes)
    found = with_gradients(
        model, lambda: model.forward_packed(clips, [patch for *_, patch in shapes])
    )
    monkeypatch.undo()
    assert_equal(found, with_gradients(model, lambda: alone(model, clips, shapes)), 1e-10)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_triton_packs_clips_by_its_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-k", "interpreted", __file__],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_packed_is_each_clip_alone_on_a_gpu(dtype, tolerance):
    model, clips = videomamba(dtype).cuda(), clips_of(SHAPES, dtype, "cuda")
    patches = [patch for *_, patch in SHAPES]
    found = with_gradients(model, lambda: model.forward_packed(clips, patches))
    assert_equal(found, with_gradients(model, lambda: alone(model, clips, SHAPES)), tolerance)
