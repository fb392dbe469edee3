"""Costs of every architecture on tensors without content, beside real passes, real steps and counts by hand."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from priced_backbones import SMALL
from torch.utils.flop_counter import FlopCounterMode

from stretchysnake.eval.sweeps.cost import (
    count_flops,
    estimate_memory,
    estimate_training_memory,
    measure_peak_bytes,
)
from stretchysnake.eval.sweeps.fused_attention import FUSED, attention_flops, fused_attention
from stretchysnake.eval.sweeps.live_storages import LiveStorages
from stretchysnake.flexibility import Scale, sets_around
from stretchysnake.models.architectures import ARCHITECTURES, build_model, config_named
from stretchysnake.ops.native import library as native_library
from stretchysnake.train.dry_run import run_cost
from stretchysnake.train.run import TrainRun

architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


def small(architecture):
    name, changes = SMALL[architecture]
    return config_named(name, **changes)


def scales(config):
    native = config.native
    return native, Scale(2 * native.num_frames, native.size * 3 // 2, native.patch_size)


@architectures
def test_memory_of_features_is_near_what_a_real_pass_holds(architecture):
    config = small(architecture)
    model = build_model(config).eval()
    for scale in scales(config):
        peak = measure_peak_bytes(model, scale)
        assert peak * 0.95 < estimate_memory(config, scale, batch_size=1) < peak * 4 / 3


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@architectures
def test_memory_of_training_is_the_peak_of_a_real_step(architecture, recompute):
    config = small(architecture)
    scale = scales(config)[1]
    model = build_model(config).train()
    model.checkpoint_activations = recompute
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    video = torch.rand(2, 3, scale.num_frames, scale.size, scale.size)
    uncounted = (video, *model.state_dict().values(), *(p.grad for p in model.parameters()))
    with LiveStorages(uncounted) as live:
        model(video, scale.patch_size, grid="floor").sum().backward()
    estimate = estimate_training_memory(config, scale, clips=2, recompute=recompute)
    joined = architecture != "videomamba" or native_library.is_available()
    clips = 5 * video.numel()  # decoded and as floats
    assert estimate == pytest.approx(live.peak + clips, rel=0.02 if joined else 0.35)


@architectures
def test_operations_are_as_many_as_those_of_a_real_pass(architecture):
    """By torch's counter, which does not know the fused attention of the CPU: here it is told the products by hand."""
    config = small(architecture)
    if architecture == "videomamba" and not native_library.is_available():
        pytest.skip("the plain scan's operations are not all counted")
    products = 0

    def by_hand(query, key, value, *rest, **options):
        nonlocal products
        products += 1
        (batch, heads, queries, width), keys = query, key[2]
        return 2 * batch * heads * queries * keys * width * 2

    for scale in scales(config):
        model = build_model(config).eval().requires_grad_(False)
        video = torch.zeros(1, 3, scale.num_frames, scale.size, scale.size)
        known = {FUSED.overloadpacket: by_hand}
        with FlopCounterMode(display=False, custom_mapping=known) as counter, torch.no_grad():
            model.features(video, scale.patch_size, grid="floor")
        assert count_flops(config, scale) == pytest.approx(counter.get_total_flops(), rel=1e-6)
    assert bool(products) == (architecture != "videomamba")


@architectures
def test_a_dry_run_prices_the_scales_of_any_model(architecture):
    config = small(architecture)
    sets = sets_around(config.native)
    run = TrainRun(
        data="-", out="-", model=config, sets=sets, variant="vanilla", steps=2, batch_size=2
    )
    found, again = (
        run_cost(replace(run, activation_checkpointing=on), num_clips=4) for on in (False, True)
    )
    (cost,) = found.scales
    assert cost.scale == config.native
    assert cost.gflops == pytest.approx(3 * 2 * count_flops(config, config.native) / 1e9)
    assert again.scales[0].gflops == pytest.approx(cost.gflops * 4 / 3)
    assert 16 * found.parameters < again.memory < found.memory


def test_attention_without_content_holds_no_scores_and_costs_its_two_products():
    q, k, v = (torch.empty(2, 3, n, 32, device="meta", requires_grad=True) for n in (50, 70, 70))
    with LiveStorages() as held, fused_attention():
        out = F.scaled_dot_product_attention(q, k, v)
    assert out.shape == q.shape
    assert held.peak == 4 * 2 * 3 * 50 * (32 + 1)  # the output, and a sum for each query
    assert attention_flops(q.shape, k.shape, v.shape) == 2 * (2 * 3 * 50 * 70 * 32) * 2


def test_attention_whose_mask_learns_holds_its_scores():
    q, k, v = (torch.empty(2, 3, 50, 32, device="meta", requires_grad=True) for _ in range(3))
    table = torch.empty(1, 3, 50, 50, device="meta", requires_grad=True)
    with LiveStorages() as held, fused_attention():
        F.scaled_dot_product_attention(q, k, v, attn_mask=table)
    assert held.peak > 4 * 2 * 3 * 50 * 50


def test_attention_with_content_is_torchs_own():
    q, k, v = (torch.randn(2, 3, 5, 8) for _ in range(3))
    outside = F.scaled_dot_product_attention
    with fused_attention():
        within = F.scaled_dot_product_attention(q, k, v)
    assert torch.equal(within, outside(q, k, v))
    assert F.scaled_dot_product_attention is outside
