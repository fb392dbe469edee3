"""Where a model computes and in which precision: the device asked for, one line where it is absent, bf16, keys."""

import pytest
import torch
from small_backbones import names, small_config

from stretchysnake import Scale, VideoMamba, VideoMambaConfig
from stretchysnake.eval.features.extraction import extract
from stretchysnake.eval.features.feature_cache import features_key, load_features, save_features
from stretchysnake.eval.features.placed_model import inference, placed, precision_of
from stretchysnake.eval.features.placement import ON_CPU, Placement
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.models.architectures import build_model
from stretchysnake.ops.out_of_memory import memory_in_words
from stretchysnake.ranks import SINGLE, Runtime

BF16 = Placement(device="cpu", precision="bf16")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def nano(**changes) -> VideoMamba:
    config = VideoMambaConfig.named("nano", embed_dim=16, depth=2, num_classes=0, **changes)
    return VideoMamba(config).eval()


def test_a_placement_names_what_it_may_be():
    with pytest.raises(
        ValueError, match=r"device \('gpu'\) must be one of: auto, cpu, cuda, or one GPU: cuda:0"
    ):
        Placement(device="gpu")
    with pytest.raises(ValueError, match=r"precision \('fp8'\) must be one of: fp32, bf16, int8"):
        Placement(precision="fp8")


@pytest.mark.parametrize(
    ("wanted", "rank", "device"),
    [("auto", 0, "cuda:0"), ("auto", 1, "cuda:1"), ("cuda", 1, "cuda:1"), ("cpu", 1, "cpu")],
)
def test_a_rank_has_the_gpu_of_its_number(two_gpus, wanted, rank, device):
    runtime = Runtime(rank=rank, local_rank=rank, world_size=2)
    assert runtime.device(wanted) == torch.device(device)


def test_one_gpu_is_chosen_by_its_number(two_gpus):
    assert SINGLE.device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(
        RuntimeError, match=r"device \(cuda:2\) is not there: this machine has 2 GPUs, from cuda:0"
    ):
        SINGLE.device("cuda:2")
    with pytest.raises(
        RuntimeError,
        match=r"device \(cuda:2\) is not there.*start no more ranks than there are GPUs",
    ):
        Runtime(rank=2, local_rank=2, world_size=3).device("cuda")
    with pytest.raises(
        ValueError, match=r"device \(cuda:1\) is one GPU, and 2 ranks need one each; use cuda"
    ):
        Runtime(rank=0, world_size=2).device("cuda:1")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_an_absent_gpu_is_told_before_the_file_is_read(tmp_path):
    with pytest.raises(
        RuntimeError, match=r"device \(cuda:1\) is not there: this torch sees no GPU"
    ):
        read_subject(tmp_path / "missing.safetensors", Placement(device="cuda:1"))


def test_bf16_computes_products_in_bf16_and_fp32_does_not():
    torch.manual_seed(0)
    model, video = nano(), torch.randn(2, 3, 4, 32, 32)
    seen = []
    hook = model.layers[0].mixer.in_proj.register_forward_hook(
        lambda _, __, out: seen.append(out.dtype)
    )
    found = {}
    for precision in ("fp32", "bf16"):
        placed(model, Placement(device="cpu", precision=precision))
        with inference(model) as device:
            assert device == torch.device("cpu")
            found[precision] = model.features(video, 8)
            found[precision].sum()
            assert torch.is_inference_mode_enabled()
    hook.remove()
    assert torch.bfloat16 in seen and precision_of(model) == "bf16"
    assert all(p.dtype == torch.float32 for p in model.parameters())
    wide, narrow = found["fp32"].double(), found["bf16"].double()
    error = (wide - narrow).norm() / wide.norm()
    assert 1e-4 < error < 3e-2  # bf16 keeps 8 bits: 2^-9 a product, and two layers of them


@pytest.mark.parametrize("name", names())
def test_every_backbone_computes_where_it_is_placed(name, monkeypatch):
    """On "meta", whose tensors know their device and hold nothing: what stayed behind cannot meet them."""
    config = small_config(name)
    model, native = build_model(config).eval(), config.native
    clip = torch.rand(1, 3, native.num_frames, 2 * native.size, 2 * native.size)
    with inference(
        model
    ) as device:  # what is kept of weights resized for a scale moves along, or is made anew
        model.features(clip.to(device), native.patch_size, grid="floor")
    monkeypatch.setattr(Runtime, "device", lambda self, wanted: torch.device("meta"))
    with inference(placed(model, ON_CPU)) as device:
        assert device == torch.device("meta")
        features = model.features(clip.to(device), native.patch_size, grid="floor")
    assert features.device == device and features.shape == (1, config.feature_dim)


def test_features_of_two_precisions_have_two_keys_and_are_kept_as_such(
    trained, clip_folder, tmp_path
):
    from stretchysnake.data.clips.loader import open_clips
    from stretchysnake.data.records import read_records

    clips, scale = open_clips(read_records(str(clip_folder))[:3], cache=None), Scale(4, 16, 4)
    model, *_ = read_subject(trained[1].weights, BF16)
    found = extract(model, clips, scale)
    wide = extract(read_subject(trained[1].weights, ON_CPU)[0], clips, scale)
    assert (found.precision, wide.precision) == ("bf16", "fp32")
    assert not torch.equal(found.features, wide.features)
    torch.testing.assert_close(found.features, wide.features, rtol=0.1, atol=0.1)
    keys = {features_key(found.model, clips, scale, precision=name) for name in ("fp32", "bf16")}
    assert len(keys) == 2 and features_key(found.model, clips, scale) in keys
    save_features(tmp_path / "f.safetensors", found)
    assert load_features(tmp_path / "f.safetensors").precision == "bf16"


def test_a_gpu_says_its_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    said = memory_in_words(torch.device("cuda:0"))
    assert said == "cuda:0 (NVIDIA H100) has 80.0 GiB, 3.0 of them free"
    assert memory_in_words(torch.device("cpu")) == ""


@pytest.mark.gpu
@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(("precision", "error"), [("fp32", 5e-3), ("bf16", 5e-2)])
def test_features_of_a_gpu_are_those_of_the_cpu(name, precision, error):
    config = small_config(name)
    model, native = build_model(config).eval(), config.native
    clip = torch.rand(2, 3, native.num_frames, native.size, native.size)
    with inference(placed(model, ON_CPU)):
        wanted = model.features(clip, native.patch_size, grid="floor").double()
    with inference(placed(model, Placement(device="cuda", precision=precision))) as device:
        found = model.features(clip.to(device), native.patch_size, grid="floor").double().cpu()
    assert (found - wanted).norm() / wanted.norm() < error  # fp32: convolutions may be of TF32
