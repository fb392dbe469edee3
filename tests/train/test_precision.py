"""Narrow numbers and compiled blocks: the loss scale of fp16, its place in checkpoints, the same run compiled."""

from dataclasses import replace

import pytest
import torch
from tiny_run import SCALE, state_of, tiny_run, weights

from stretchysnake.data.clips.loader import Batch
from stretchysnake.ranks import SINGLE
from stretchysnake.train import loop
from stretchysnake.train.checkpoints.checkpoint import checkpoints_in, read_state
from stretchysnake.train.checkpoints.outputs import RunLog
from stretchysnake.train.checkpoints.restoring import restore_state
from stretchysnake.train.checkpoints.saving import Saver
from stretchysnake.train.loop import fit
from stretchysnake.train.loss_scale import FIRST_SCALE, STEPS_TO_GROW, after_overflow, after_step
from stretchysnake.train.run import NonFiniteConfig

RUN = tiny_run(depth=2, precision="fp16")


def batches_from(start):
    for step in range(start, RUN.steps):
        generator = torch.Generator().manual_seed(step)
        video = torch.randn(4, 3, 2, 16, 16, generator=generator)
        yield Batch(step, SCALE, video, torch.tensor([0, 1, 2, 0]))


def test_fp16_trains_fp32_parameters_near_fp32():
    narrow, wide = state_of(RUN), state_of(RUN)
    fit(narrow, batches_from, RUN)
    fit(wide, batches_from, replace(RUN, precision="fp32"))
    assert all(p.dtype == torch.float32 for p in narrow.model.parameters())
    assert (narrow.loss_scale, narrow.loss_scale_age) == (FIRST_SCALE, 6)
    for (_, a), (_, b) in zip(narrow.losses, wide.losses, strict=True):
        assert a == pytest.approx(b, abs=5e-3) and a != b


def test_scaling_the_loss_changes_nothing_but_rounding():
    exact = replace(RUN, precision="fp64")
    plain, scaled = state_of(exact), state_of(exact)
    plain.model.double(), scaled.model.double()
    scaled.loss_scale = 2.0**10
    fit(plain, batches_from, exact)
    fit(scaled, batches_from, exact)
    assert all(torch.equal(weights(plain)[n], weights(scaled)[n]) for n in weights(plain))


def test_overflow_halves_the_scale_skips_the_step_and_is_no_bad_step(tmp_path):
    state = state_of(RUN)
    parameter = state.model.layers[0].mixer.in_proj.weight
    handle = parameter.register_hook(lambda g: g / 0 if state.loss_scale > FIRST_SCALE / 8 else g)
    log = RunLog(tmp_path / "log.jsonl")
    run = replace(RUN, non_finite=NonFiniteConfig(patience=1, then="stop"))
    saver = Saver(tmp_path / "c", run, metadata={}, key="k", log=log)
    fit(state, batches_from, run, saver=saver)
    handle.remove()
    assert state.loss_scale == FIRST_SCALE / 8
    assert [step for step, _ in state.losses] == [3, 4, 5]
    assert (tmp_path / "log.jsonl").read_text().count('"overflow"') == 3


def test_gradient_that_is_bad_at_any_scale_is_a_bad_step(capsys):
    state = state_of(RUN)
    state.loss_scale = 2.0
    state.model.head.weight.register_hook(lambda g: g * float("nan"))
    fit(state, batches_from, replace(RUN, non_finite=NonFiniteConfig(patience=9)))
    assert (state.loss_scale, state.losses, state.bad_in_a_row) == (1.0, [], 5)
    assert "first bad gradient head" in capsys.readouterr().err


def test_scale_is_in_the_checkpoint(tmp_path):
    state = state_of(RUN)
    state.loss_scale, state.loss_scale_age = 512.0, 7
    Saver(tmp_path, RUN, metadata={}, key="k", log=RunLog(None)).save(state, runtime=SINGLE)
    (path,) = checkpoints_in(tmp_path)
    assert read_state(path)["loss_scale"] == 512.0
    again = state_of(RUN)
    restore_state(again, path)
    assert (again.loss_scale, again.loss_scale_age) == (512.0, 7)


def test_scale_grows_after_many_steps_and_never_falls_below_one():
    assert after_step(4.0, 3) == (4.0, 4)
    assert after_step(4.0, STEPS_TO_GROW - 1) == (8.0, 0)
    assert after_step(2.0**24, STEPS_TO_GROW - 1)[0] == 2.0**24
    assert after_overflow(1.0) == 1.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_compiled_blocks_take_the_same_steps():
    run = replace(RUN, precision="fp32")
    plain, compiled = state_of(run), state_of(replace(run, compile=True))
    with torch.compiler.set_stance(
        "force_eager"
    ):  # compiling takes a minute of g++: see the slow test
        fit(plain, batches_from, run)
        fit(compiled, batches_from, replace(run, compile=True))
    assert all(block._compiled_call_impl is not None for block in compiled.model.layers)
    assert all(torch.equal(weights(plain)[n], weights(compiled)[n]) for n in weights(plain))


def test_failed_compiling_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise torch._dynamo.exc.TorchRuntimeError("no working C++ compiler\nlong story")

    monkeypatch.setattr(loop, "take_step", fail)
    with pytest.raises(
        RuntimeError, match=r"^compile \(true\) failed: no working C\+\+ compiler; .*to false"
    ):
        fit(state_of(RUN), batches_from, replace(RUN, compile=True))
    with pytest.raises(torch._dynamo.exc.TorchRuntimeError):
        fit(state_of(RUN), batches_from, RUN)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_really_compiled_blocks_stay_near():
    run = replace(RUN, precision="fp32", steps=3)
    plain, compiled = state_of(run), state_of(replace(run, compile=True))
    fit(plain, batches_from, run, steps=3)
    fit(compiled, batches_from, run, steps=3)
    for (_, a), (_, b) in zip(plain.losses, compiled.losses, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
