"""One step against the same step written out: loss, gradient, its norm, clipping and the update, not a repetition."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_run import SCALE, state_of, tiny_run, weights

from stretchysnake import VideoMamba
from stretchysnake.data.clips.loader import Batch
from stretchysnake.data.clips.seeds import seed_of
from stretchysnake.ranks import SINGLE
from stretchysnake.train.loop import fit
from stretchysnake.train.optim import lr_at, parameter_groups
from stretchysnake.train.run import OptimConfig
from stretchysnake.train.step import compute_logits, drop_draws_of, take_step

RUN = replace(tiny_run(depth=2, precision="fp64"), optim=OptimConfig(clip_norm=0.0))
LABELS, OTHERS = [0, 1, 2, 0], [1, 0, 0, 2]


def batch(**mixture):
    generator = torch.Generator().manual_seed(3)
    video = torch.randn(4, 3, 2, 16, 16, generator=generator)
    return Batch(0, SCALE, video, torch.tensor(LABELS), **mixture)


def loss_by_hand(logits, *, smoothing=0.0, share=1.0):
    """Mean over clips of -Σ target · log softmax; the target is both labels by their shares, and a little of all."""
    classes = logits.shape[1]
    target = torch.full_like(logits, smoothing / classes)
    for row, (label, other) in enumerate(zip(LABELS, OTHERS, strict=True)):
        target[row, label] += (1 - smoothing) * share
        target[row, other] += (1 - smoothing) * (1 - share)
    exponentials = logits.exp()
    log_softmax = (exponentials / exponentials.sum(1, keepdim=True)).log()
    return -(target * log_softmax).sum() / len(logits)


@pytest.mark.parametrize(
    ("change", "mixture"),
    [
        ({}, {}),
        ({"label_smoothing": 0.3}, {}),
        ({}, {"others": torch.tensor(OTHERS), "share": 0.8}),
        ({"label_smoothing": 0.1, "accumulate": 2}, {"others": torch.tensor(OTHERS), "share": 0.3}),
        ({"optim": OptimConfig(clip_norm=0.05)}, {}),
        ({"optim": OptimConfig(clip_norm=0.0, layer_decay=0.5)}, {}),
        ({"optim": OptimConfig(clip_norm=1e6)}, {}),
    ],
    ids=["plain", "smoothing", "mixed", "mixed in parts", "clipped", "layer decay", "not clipped"],
)
def test_one_step_of_sgd_is_the_one_written_out(change, mixture):
    run, lr = replace(RUN, **change), 0.7
    state = state_of(run)
    start = weights(state)
    groups = parameter_groups(state.model, 0.0, layer_decay=run.optim.layer_decay)
    state.optimizer = torch.optim.SGD(
        groups, lr=1.0
    )  # AdamW's first step hides the gradient's size
    state.model.train()
    outcome = take_step(state, state.model, batch(**mixture), run, lr=lr, runtime=SINGLE)

    model = VideoMamba(run.model).double().train()
    model.load_state_dict(start)
    logits = model(batch().video.double(), SCALE.patch_size)
    loss = loss_by_hand(logits, smoothing=run.label_smoothing, share=mixture.get("share", 1.0))
    loss.backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    assert (outcome.loss, outcome.gradient_norm) == pytest.approx((loss.item(), norm), rel=1e-9)
    assert outcome.clips == 4 and state.losses == [(0, outcome.loss)]
    longest = run.optim.clip_norm or math.inf
    for name, parameter in model.named_parameters():
        step = parameter.grad * min(1.0, longest / norm) * lr
        if run.optim.layer_decay < 1:
            step = step * 0.5 ** (3 - depth_of(name))
        wanted = start[name] - step
        torch.testing.assert_close(weights(state)[name], wanted, rtol=0, atol=1e-6 * lr)


def depth_of(name):
    """0 for what comes before the blocks, 1 and 2 for these, 3 for what comes after."""
    if name.startswith("layers."):
        return 1 + int(name[len("layers.")])
    return 3 if name.startswith(("norm_f.", "head.")) else 0


def test_adamw_of_three_steps_of_a_head_is_numpys():
    run = replace(
        RUN,
        trainable="head",
        steps=3,
        optim=OptimConfig(lr=0.1, weight_decay=0.2, betas=(0.7, 0.9), warmup=1 / 3, clip_norm=0.0),
    )
    state = state_of(run)
    with torch.no_grad():
        torch.nn.init.normal_(state.model.head.weight)
        x = state.model.eval().features(batch().video.double(), SCALE.patch_size).numpy()
    w, b = (state.model.head.weight.detach().numpy().copy(), np.zeros(3))
    fit(state, lambda start: [batch()._replace(step=step) for step in range(start, 3)], run)
    moments = [np.zeros_like(w), np.zeros_like(b)], [np.zeros_like(w), np.zeros_like(b)]
    for number, rate in enumerate((0.05, 0.1, 0.05), 1):  # one step of warm-up, then half a cosine
        logits = x @ w.T + b
        error = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[LABELS]
        for place, gradient in enumerate((error.T @ x / 4, error.mean(0))):
            first, second = moments
            first[place] = 0.7 * first[place] + 0.3 * gradient
            second[place] = 0.9 * second[place] + 0.1 * gradient**2
            size = np.sqrt(second[place] / (1 - 0.9**number)) + 1e-8
            step = rate * first[place] / (1 - 0.7**number) / size
            if place == 0:
                w = w * (1 - rate * 0.2) - step
            else:
                b = b - step
    np.testing.assert_allclose(state.model.head.weight.detach().numpy(), w, rtol=1e-9)
    np.testing.assert_allclose(state.model.head.bias.detach().numpy(), b, rtol=1e-9)


def test_rate_is_a_line_and_half_a_cosine():
    config = OptimConfig(lr=2.0, warmup=0.3)
    rates = [lr_at(config, step=step, steps=10) for step in range(10)]
    cosine = [1 + math.cos(math.pi * place / 7) for place in range(7)]
    assert rates == pytest.approx([0.5, 1.0, 1.5, *cosine])
    assert lr_at(OptimConfig(lr=2.0, warmup=0.0), step=0, steps=10) == 2.0


def test_blocks_are_computed_again_only_where_asked_and_only_in_training():
    """Counted, since weights and memory of a run that never does it are those of one that does."""
    state = state_of(RUN)
    calls = []
    for block in state.model.layers:
        block.mixer.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    one = replace(RUN, steps=1)
    for asked, times in ((False, 2), (True, 4)):
        calls.clear()
        state.step = 0
        fit(state, lambda start: [batch()], replace(one, activation_checkpointing=asked))
        assert len(calls) == times, asked
    calls.clear()
    state.model(batch().video.double(), SCALE.patch_size)  # in evaluation
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("precision", "inside"),
    [
        ("fp32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
        ("fp64", torch.float64),
    ],
)
def test_precision_of_every_stream(precision, inside):
    run = replace(RUN, precision=precision)
    state, seen = state_of(run), {}
    model = state.model.train()
    model.layers[1].register_forward_hook(lambda _, given, got: seen.update(x=got[0], r=got[1]))
    model.layers[1].mixer.in_proj.register_forward_hook(lambda _, given, got: seen.update(xz=got))
    logits = compute_logits(model, batch().video.to(next(model.parameters()).dtype), SCALE, run)
    wide = torch.float64 if precision == "fp64" else torch.float32
    assert seen["xz"].dtype == seen["x"].dtype == inside
    assert seen["r"].dtype == wide  # the residual stream is never narrow
    assert logits.dtype == wide
    assert {p.dtype for p in model.parameters()} == {wide}


def test_training_mode_of_a_whole_model_and_of_a_probe():
    for trainable, training in (("all", True), ("head", False)):
        run, seen = replace(RUN, trainable=trainable, steps=1), []
        state = state_of(run)
        state.model.layers[0].register_forward_hook(
            lambda m, *_, seen=seen: seen.append(m.training)
        )
        fit(state, lambda start: [batch()], run)
        assert seen == [training] and not state.model.training


def test_labels_and_pixels_reach_the_loss_in_one_order():
    """A head that reads nothing but its bias has a loss that tells how often each label was there."""
    state = state_of(RUN)
    with torch.no_grad():
        state.model.head.weight.zero_()
        state.model.head.bias.copy_(torch.tensor([0.0, 1.0, 3.0]))
    outcome = take_step(state, state.model, batch(), RUN, lr=0.0, runtime=SINGLE)
    total = math.log(1 + math.e + math.e**3)
    assert outcome.loss == pytest.approx(((total - 0) * 2 + (total - 1) + (total - 3)) / 4)
    assert (state.clips, state.tokens) == (4, 4 * 8)


def test_average_after_each_step_is_the_recursion():
    run = replace(RUN, ema_decay=0.15, steps=3)
    state = state_of(run)
    wanted = weights(state)["head.bias"]
    for step in range(3):
        take_step(state, state.model, batch()._replace(step=step), run, lr=0.1, runtime=SINGLE)
        decay = min(0.15, (2 + step) / (11 + step))
        wanted = decay * wanted + (1 - decay) * weights(state)["head.bias"]
    assert torch.allclose(state.average["head.bias"], wanted, rtol=1e-12, atol=0)


def test_masks_of_drop_path_are_new_at_every_step_and_the_same_when_drawn_again():
    run = replace(RUN, model=RUN.model.but(drop_path=0.5))
    state, kept = state_of(run), []
    state.model.train()
    state.model.norm_f.register_forward_pre_hook(lambda _, given: kept.append(given[0].detach()))
    for step in (0, 1, 0):
        take_step(state, state.model, batch()._replace(step=step), run, lr=0.0, runtime=SINGLE)
    assert torch.equal(kept[0], kept[2]) and not torch.equal(kept[0], kept[1])
    with torch.no_grad():
        first = state.model.embed_part(batch().video.double())
        stream, branch = first, first
        for number, block in enumerate(state.model.layers):  # the first branch has rate 0
            stream = stream if number == 0 else stream + branch
            branch = block.mixer(block.norm(stream))
        for step in (0, 1):
            numbers = [seed_of(run.seed, 4, step, place, 1) / 2**64 for place in range(4)]
            factor = torch.tensor([2.0 if number >= 0.5 else 0.0 for number in numbers]).double()
            wanted = (stream + factor[:, None, None] * branch)[:, 0]
            torch.testing.assert_close(kept[step].reshape(wanted.shape), wanted)


def test_rate_after_a_return_is_the_lower_one():
    state = state_of(RUN)
    state.lr_factor = 0.25
    fit(state, lambda start: [batch()], replace(RUN, steps=1))
    rate = lr_at(RUN.optim, step=0, steps=1) * 0.25
    assert {group["lr"] for group in state.optimizer.param_groups} == {rate}


def test_draws_depend_on_seed_step_place_and_layer_and_on_nothing_else():
    drawn, run = {}, replace(RUN, model=RUN.model.but(drop_path=0.5))
    for seed, step in itertools.product((0, 1), (0, 1)):
        found = drop_draws_of(batch()._replace(step=step), replace(run, seed=seed), 2)
        for place, layer in itertools.product(range(4), range(2)):
            drawn[seed, step, place, layer] = found[place, layer].item()
            wanted = seed_of(seed, 4, step, place, layer) / 2**64
            assert found[place, layer].item() == pytest.approx(wanted, abs=1e-7)
    assert len(set(drawn.values())) == 2 * 2 * 4 * 2 and min(drawn.values()) >= 0
    share = drop_draws_of(batch()._replace(step=1, places=[2, 3]), replace(run, seed=1), 2)
    assert share.tolist() == [[drawn[1, 1, place, layer] for layer in (0, 1)] for place in (2, 3)]
    assert drop_draws_of(batch(), RUN, 2) is None


def test_a_step_that_lost_clips_is_the_mean_over_those_left():
    """Five were asked for and one was bad: the same step as of four."""
    states = []
    for asked in (None, 5):
        state = state_of(RUN)
        state.optimizer = torch.optim.SGD(parameter_groups(state.model, 0.0), lr=1.0)
        state.model.train()
        given = batch()._replace(asked=asked, places=[0, 1, 3, 4] if asked else None)
        outcome = take_step(state, state.model, given, RUN, lr=0.3, runtime=SINGLE)
        assert (outcome.clips, state.clips) == (4, 4)
        states.append((outcome.loss, outcome.gradient_norm, weights(state)))
    (loss, norm, whole), (again, norm_again, found) = states
    assert (again, norm_again) == pytest.approx((loss, norm), rel=1e-12)
    assert all(torch.allclose(found[name], whole[name], rtol=0, atol=1e-12) for name in whole)
