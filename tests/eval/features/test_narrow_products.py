"""Linear layers in bf16 and int8 on a CPU: the products they stand for, whose they are, when they are made anew."""

import logging

import pytest
import torch
import torch.nn.functional as F
from small_backbones import small_config

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.eval.features import narrow_products as narrow
from stretchysnake.eval.features.placed_model import inference, placed
from stretchysnake.eval.features.placement import Placement
from stretchysnake.models.architectures import build_model
from stretchysnake.ops.narrow_products import bf16
from stretchysnake.ops.narrow_products.int8 import int8_linear, int8_weight, why_no_int8
from stretchysnake.ranks import Runtime

needs_int8 = pytest.mark.skipif(why_no_int8() is not None, reason=f"{why_no_int8()}")


def features(model, video, precision):
    with inference(placed(model, Placement(device="cpu", precision=precision))):
        return model.features(video).float()


def nano(**changes):
    torch.manual_seed(0)
    config = VideoMambaConfig.named("nano", depth=2, num_classes=3, **changes)
    return VideoMamba(config).eval()


@needs_int8
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 64, 64), (7, 65, 33), (2, 300, 18)])
def test_int8_products_are_those_of_whole_numbers(rows, inputs, outputs):
    """Against fp64 of numbers rounded by hand: nothing is lost between the rounding and the answer."""
    generator = torch.Generator().manual_seed(inputs)
    x = torch.randn(rows, inputs, generator=generator) * 10 ** torch.arange(rows)[:, None]
    weight, bias = torch.randn(outputs, inputs, generator=generator), torch.randn(outputs)
    of_x, of_weight = x.abs().amax(1, True) / 63, weight.abs().amax(1, True) / 127
    whole = (x / of_x).round().double() @ (weight / of_weight).round().double().T
    wanted = whole * of_x.double() * of_weight.double().T + bias
    found = int8_linear(x[None], int8_weight(weight), bias)
    assert found.dtype == torch.float32 and found.shape == (1, rows, outputs)
    torch.testing.assert_close(found[0].double(), wanted, rtol=1e-5, atol=1e-6)


@needs_int8
def test_the_largest_sums_of_int8_do_not_overflow_and_bad_rows_stay_alone():
    x, weight = torch.full((3, 512), 63.0), torch.full((64, 512), 127.0)
    assert (int8_linear(x, int8_weight(weight), None) == 63 * 127 * 512).all()
    assert (int8_linear(-x, int8_weight(weight), None) == -63 * 127 * 512).all()
    x[1, 5], x[2] = torch.nan, 0
    found = int8_linear(x, int8_weight(weight), None)
    assert found[1].isnan().all() and (found[0] == 63 * 127 * 512).all() and (found[2] == 0).all()


def test_bf16_products_are_those_of_rounded_numbers():
    x, weight, bias = torch.randn(5, 40), torch.randn(9, 40), torch.randn(9)
    low = [t.bfloat16().double() for t in (x, weight, bias)]
    exact = F.linear(*low)
    found = bf16.bf16_linear(x, bf16.bf16_weight(weight), bias)
    assert found.dtype == torch.bfloat16
    # rounded once to bf16; a processor may round the product before the bias is added
    step = torch.finfo(torch.bfloat16).eps / 2
    assert ((found.double() - exact).abs() <= 2 * step * (exact.abs() + low[2].abs()) + 1e-5).all()


def test_without_bf16_products_it_is_told_once_and_no_bf16_is_multiplied(monkeypatch, caplog):
    monkeypatch.setattr(bf16, "has_bf16_products", lambda: False)
    monkeypatch.setattr(narrow, "has_bf16_products", lambda: False)
    monkeypatch.setattr(narrow, "_told", set())
    model, video = nano(), torch.randn(1, 3, 4, 16, 16)
    seen, plain = [], narrow.bf16_linear

    def watched(x, weight, bias):
        seen.append(weight.dtype)
        return plain(x, weight, bias)

    monkeypatch.setattr(narrow, "bf16_linear", watched)
    with caplog.at_level(logging.WARNING):
        found = features(model, video, "bf16")
        features(model, video, "bf16")
    told = [r.message for r in caplog.records if "no products of bf16" in r.message]
    assert len(told) == 1 and "no faster than precision fp32" in told[0]
    assert (
        set(seen) == {torch.float32} and len(seen) >= 2 * 2 * 2
    )  # as the weights are, so is the product
    wanted = features(model, video, "fp32")
    assert 1e-4 < (found - wanted).norm() / wanted.norm() < 3e-2


@needs_int8
def test_int8_is_of_the_layers_that_pay_and_leaves_the_head_in_fp32():
    model, video = nano(), torch.randn(2, 3, 4, 32, 32)
    wanted = features(model, video, "fp32")
    found = features(model, video, "int8")
    assert 1e-4 < (found - wanted).norm() / wanted.norm() < 0.1
    names = [name for name, _ in narrow._layers(model, "int8")]
    assert names == [f"layers.{i}.mixer.{p}" for i in (0, 1) for p in ("in_proj", "out_proj")]
    with inference(model):
        assert torch.equal(model(video), F.linear(model.features(video), *model.head.parameters()))
    alone = torch.cat([features(model, clip[None], "int8") for clip in video])
    torch.testing.assert_close(alone, found, rtol=1e-3, atol=1e-4)  # a row's own scale
    assert narrow.narrow_bytes(model) == 2 * 3 * 2 * 64 * 64  # a byte each of in_proj and out_proj


@needs_int8
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_weights_written_to_are_rounded_anew(precision):
    model, video = nano(), torch.randn(1, 3, 4, 16, 16)
    before = features(model, video, precision)
    with inference(model):
        assert torch.equal(model.features(video).float(), before)
    with torch.no_grad():
        model.layers[1].mixer.out_proj.weight.mul_(-1)
    with inference(model):
        after = model.features(video).float()
    torch.testing.assert_close(after, features(model, video, "fp32"), rtol=0.2, atol=0.2)
    assert not torch.allclose(after, before, rtol=0.05, atol=0.05)


@needs_int8
@pytest.mark.parametrize("name", ["timesformer", "hiera"])
def test_other_backbones_compute_in_int8(name):
    torch.manual_seed(0)
    config = small_config(name)
    model, native = build_model(config).eval(), config.native
    video = torch.randn(1, 3, native.num_frames, native.size, native.size)
    wanted, found = features(model, video, "fp32"), features(model, video, "int8")
    assert (found - wanted).norm() / wanted.norm() < 0.2
    assert narrow._layers(model, "int8") == [] or not torch.equal(found, wanted)


def test_int8_is_refused_where_it_is_not_to_be_had(monkeypatch):
    monkeypatch.setattr(Runtime, "device", lambda self, wanted: torch.device("cuda:0"))
    with pytest.raises(
        ValueError,
        match=r"precision \(int8\) is not to be had on cuda:0: it is for a CPU; give --device cpu",
    ):
        placed(nano(), Placement(precision="int8"))
    monkeypatch.undo()
    where = "stretchysnake.eval.features.placed_model.why_no_int8"
    monkeypatch.setattr(where, lambda: "no oneDNN; use fp32")
    with pytest.raises(ValueError, match=r"not to be had on cpu: no oneDNN; use fp32"):
        placed(nano(), Placement(device="cpu", precision="int8"))
