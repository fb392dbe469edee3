"""Counted operations against PyTorch's own counter, estimated memory against a measurement."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake import Scale, VideoMamba, VideoMambaConfig
from stretchysnake.eval.sweeps import cost
from stretchysnake.eval.sweeps.cost import (
    count_flops,
    estimate_memory,
    estimate_training_memory,
    measure_milliseconds,
    measure_peak_bytes,
)
from stretchysnake.eval.sweeps.live_storages import LiveStorages
from stretchysnake.ops.flops import selective_scan_flops
from stretchysnake.ops.native import library as native_library

CONFIG = VideoMambaConfig(
    embed_dim=32, depth=3, patch_size=8, image_size=32, num_frames=4, num_classes=0
)


@pytest.mark.parametrize("scale", [Scale(4, 32, 8), Scale(7, 48, 12), Scale(2, 64, 8)])
def test_matrix_products_match_torchs_counter(scale):
    model = VideoMamba(CONFIG).eval()
    video = torch.zeros(1, 3, scale.num_frames, scale.size, scale.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.features(video, scale.patch_size)
    unseen = 0  # the native operations carry their formulas; the plain ones are not all counted
    if not native_library.is_available():
        length, inner = 1 + scale.num_tokens, 64
        scan = selective_scan_flops(1, length, inner, 16)
        unseen = CONFIG.depth * 2 * (scan + 2 * length * inner * 4)
    assert count_flops(CONFIG, scale) - unseen == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_the_tiny_models_cost_is_mostly_its_two_big_projections():
    # The big matrices of 24 layers, by hand: in_proj 192x768 and out_proj 384x192 on 1,569 tokens.
    gflops = count_flops(VideoMambaConfig.named("tiny"), Scale(8, 224, 16)) / 1e9
    scan = 24 * 2 * selective_scan_flops(1, 1569, 384, 16) / 1e9
    big = 24 * 2 * 1569 * (192 * 768 + 384 * 192) / 1e9
    assert 0.7 * (gflops - scan) < big < gflops - scan


def test_cost_grows_linearly_with_tokens():
    one, four = (count_flops(CONFIG, Scale(t, 32, 8)) for t in (8, 32))
    assert 3.9 < four / one < 4.0


PROBE = """
import torch
from stretchysnake import VideoMamba, VideoMambaConfig
def peak():  # of this process alone; ru_maxrss would inherit the parent's
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1])
torch.set_num_threads(1)
model = VideoMamba(VideoMambaConfig.named("nano", num_classes=0)).eval()
with torch.inference_mode():
    model.features(torch.zeros(1, 3, 2, 16, 16))
    before = peak()
    model.features(torch.zeros(8, 3, 64, 64, 64, dtype=torch.uint8).float())
    print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_estimate_is_near_the_measured_peak():
    found = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True
    )
    measured = 1024 * int(found.stdout)
    estimate = estimate_memory(VideoMambaConfig.named("nano"), Scale(64, 64, 8), batch_size=8)
    assert measured / 1.7 < estimate < measured * 1.7


def test_time_is_the_median_of_several(monkeypatch):
    monkeypatch.setattr(cost, "measure_times", lambda *_, repeats: [9.0, 1.0, 5.0, 4.0, 70.0])
    assert measure_milliseconds(None, None) == 5.0


def test_measured_time_is_positive():
    assert measure_milliseconds(VideoMamba(CONFIG).eval(), Scale(2, 16, 8), repeats=1) > 0


@pytest.mark.parametrize("scale", [Scale(4, 32, 8), Scale(32, 64, 16), Scale(16, 64, 8)])
def test_memory_estimate_follows_the_counted_storages(scale):
    model = VideoMamba(VideoMambaConfig.named("nano", num_classes=0)).eval()
    peak = measure_peak_bytes(model, scale)
    assert peak == measure_peak_bytes(model, scale)  # counted, not sampled
    assert peak * 0.95 < estimate_memory(model.config, scale, batch_size=1) < peak * 4 / 3


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_training_memory_is_the_peak_of_a_real_step(recompute):
    config, scale = VideoMambaConfig.named("nano", depth=6, num_classes=3), Scale(4, 32, 8)
    model, video = VideoMamba(config).train(), torch.rand(2, 3, 4, 32, 32)
    model.checkpoint_activations = recompute
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    uncounted = (video, *model.parameters(), *(p.grad for p in model.parameters()))
    joined = torch.autocast("cpu", enabled=False)
    with joined, LiveStorages(uncounted) as live:
        model(video).sum().backward()
    estimate = estimate_training_memory(config, scale, clips=2, recompute=recompute)
    clips = 5 * video.numel()  # decoded and as floats
    assert estimate == pytest.approx(
        live.peak + clips, rel=0.02 if native_library.is_available() else 0.35
    )


def test_counting_draws_no_random_numbers_and_needs_no_memory():
    before = torch.get_rng_state()
    assert count_flops(VideoMambaConfig.named("middle"), Scale(64, 384, 16)) > 1e12
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "scale", "operations"),
    [
        ("nano", Scale(8, 32, 8), 59_418_624),
        ("nano", Scale(7, 50, 8), 116_557_824),
        ("tiny", Scale(16, 224, 16), 49_610_280_960),
        ("middle", Scale(64, 378, 27), 1_964_681_773_056),
    ],
)
def test_operations_are_those_of_the_published_rows(name, scale, operations):
    """By the formula that made them: embedding, and per block two projections, two convolutions and two scans."""
    assert count_flops(VideoMambaConfig.named(name), scale) == operations


class Steps(torch.nn.Module):
    """Stands for a model whose storages can be counted by hand."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(4))

    def features(self, video, patch_size, grid):
        doubled = 2 * video.reshape(-1)[:256]  # 1024 bytes; the slice itself is a view
        more = doubled + 1  # 1024
        del doubled
        four = torch.cat([more] * 4)  # 4096 beside `more`: the peak
        del more
        return four[:1] + self.weight[:1]


def test_peak_counts_storages_while_they_live():
    clip = 4 * 3 * 2 * 16 * 16
    assert measure_peak_bytes(Steps(), Scale(2, 16, 8)) == clip + 1024 + 4096
