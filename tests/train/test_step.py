"""One step: parts, average, layer decay, recomputation, and what happens when a number is not finite."""

from dataclasses import replace

import pytest
import torch
from tiny_run import SCALE, state_of, tiny_run, weights

from stretchysnake import VideoMamba, VideoMambaConfig
from stretchysnake.data.clips.loader import Batch
from stretchysnake.data.clips.seeds import DROP_PATH, seed_of
from stretchysnake.data.clips.training_order import share_of
from stretchysnake.flexibility import NANO, Scale
from stretchysnake.train.checkpoints import checkpoint
from stretchysnake.train.checkpoints.outputs import RunLog
from stretchysnake.train.checkpoints.saving import Saver
from stretchysnake.train.loop import fit
from stretchysnake.train.optim import parameter_groups
from stretchysnake.train.run import NonFiniteConfig, OptimConfig
from stretchysnake.train.step import drop_draws_of, parts_of

RUN = tiny_run(depth=3, precision="fp64")


def batches(run, *, bad=()):
    """A function giving batches of five random clips from a step on; those of the steps `bad` hold a NaN in clip 3."""

    def start_at(start):
        for step in range(start, run.steps):
            generator = torch.Generator().manual_seed(step)
            video = torch.randn(5, 3, 2, 16, 16, generator=generator)
            if step in bad:
                video[3, 0, 0, 0, 0] = float("nan")
            yield Batch(step, SCALE, video, torch.tensor([0, 1, 2, 0, 1]))

    return start_at


def files_of(step):
    return [f"{step}-{place}.mp4" for place in range(5)]


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("change", [{"accumulate": 2}, {"tokens_per_pass": 16}, {"accumulate": 9}])
def test_parts_make_the_same_step(change):
    whole, parts = state_of(RUN), state_of(RUN)
    fit(whole, batches(RUN), RUN)
    fit(parts, batches(RUN), replace(RUN, **change))
    for name, tensor in weights(whole).items():
        assert (weights(parts)[name] - tensor).abs().max() < 1e-10, name


@pytest.mark.parametrize("change", [{"accumulate": 2}, {"tokens_per_pass": 16}])
def test_parts_make_the_same_step_with_drop_path(change):
    run = replace(RUN, model=RUN.model.but(drop_path=0.1), steps=3)
    whole, parts = state_of(run), state_of(run)
    fit(whole, batches(run), run)
    fit(parts, batches(run), replace(run, **change))
    for name, tensor in weights(whole).items():
        assert (weights(parts)[name] - tensor).abs().max() <= 1e-12, name
    without = state_of(replace(RUN, steps=3))
    fit(without, batches(run), replace(RUN, steps=3))
    assert not same(weights(whole), weights(without))  # something was dropped


def test_drop_path_is_drawn_from_seed_step_place_and_layer():
    run = replace(RUN, model=RUN.model.but(drop_path=0.5), seed=7)
    video, labels = torch.zeros(3, 3, 2, 16, 16), torch.zeros(3, dtype=torch.int64)
    whole = drop_draws_of(Batch(4, SCALE, video, labels), run, 3)
    assert whole[1, 2].item() == pytest.approx(seed_of(7, DROP_PATH, 4, 1, 2) / 2**64, abs=1e-7)
    share = Batch(4, SCALE, video[:2], labels[:2], asked=3, places=[2, 1])
    assert torch.equal(drop_draws_of(share, run, 3), whole[[2, 1]])
    for other, of in ((Batch(5, SCALE, video, labels), run), (share, replace(run, seed=8))):
        assert not torch.isin(drop_draws_of(other, of, 3), whole).any()
    assert drop_draws_of(share, RUN, 3) is None


def test_parts_and_shares_cover_every_clip_once():
    for clips in range(1, 12):
        for world in range(1, 5):
            shares = [share_of(clips, rank=r, world_size=world) for r in range(world)]
            assert [place for share in shares for place in share] == list(range(clips))
            for share in shares:
                parts = parts_of(share, SCALE, replace(RUN, accumulate=3, tokens_per_pass=20))
                assert [place for part in parts for place in part] == list(share)
                assert all(
                    len(part) * SCALE.num_tokens <= 20 or len(part) == 1 for part in parts if part
                )


def test_recomputed_activations_give_the_same_weights_with_drop_path():
    run = replace(RUN, model=RUN.model.but(drop_path=0.5))
    kept, recomputed = state_of(run), state_of(run)
    fit(kept, batches(run), run)
    fit(recomputed, batches(run), replace(run, activation_checkpointing=True))
    assert same(weights(kept), weights(recomputed))


def test_average_follows_the_weights():
    run = replace(RUN, ema_decay=0.9, steps=2)
    state = state_of(run)
    start = weights(state)
    seen = []
    for batch in batches(run)(0):
        fit(state, lambda _, batch=batch: [batch], replace(run, steps=state.step + 1), steps=2)
        seen.append(weights(state))
        if len(seen) == 1:  # after n steps the decay is min(0.9, (1 + n) / (10 + n))
            wanted = {n: start[n] + (1 - 2 / 11) * (seen[0][n] - start[n]) for n in start}
            assert all(torch.allclose(state.average[n], wanted[n], atol=1e-12) for n in wanted)


def test_layer_decay_falls_from_the_head_to_the_embeddings():
    state = state_of(replace(RUN, optim=OptimConfig(layer_decay=0.5)))
    scales = {
        id(p): group["lr_scale"] for group in state.optimizer.param_groups for p in group["params"]
    }
    named = {name: scales[id(p)] for name, p in state.model.named_parameters()}
    assert named["head.weight"] == named["norm_f.weight"] == 1.0
    assert [named[f"layers.{i}.mixer.A_log"] for i in range(3)] == [0.125, 0.25, 0.5]
    assert named["patch_embed.proj.weight"] == named["pos_embed"] == named["cls_token"] == 0.0625
    assert len(parameter_groups(state.model, 0.05)) == 2


def test_probe_trains_the_head_alone():
    run = replace(RUN, trainable="head")
    state = state_of(run)
    before = weights(state)
    fit(state, batches(run), run)
    changed = {
        name for name, tensor in weights(state).items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"head.weight", "head.bias"}


def test_nan_in_a_batch_skips_the_step_and_names_the_file(capsys):
    state, clean = state_of(RUN), state_of(replace(RUN, steps=2))
    fit(clean, batches(RUN), replace(RUN, steps=2), steps=2)
    stopped = replace(RUN, steps=3)
    # the schedule depends on the number of steps, so the first two steps are compared with steps=3 of both
    clean = state_of(stopped)
    fit(clean, lambda start: list(batches(stopped)(start))[: 2 - start], stopped)
    fit(state, batches(stopped, bad=(2,)), stopped, files_of=files_of)
    assert same(weights(state), weights(clean))
    assert [step for step, _ in state.losses] == [0, 1]
    said = capsys.readouterr().err
    assert "step 2 at T=2 S=16 P=8" in said and "pixels in files 2-3.mp4" in said
    assert "weights unchanged" in said


def test_nan_from_a_layer_names_the_layer_and_the_files(capsys, monkeypatch):
    state = state_of(RUN)
    mixer = state.model.layers[1].mixer
    whole = type(mixer).forward

    def broken(self, x, *row):
        y = whole(self, x, *row)
        if self is mixer:
            y = y.clone()
            y[1] = float("inf")
        return y

    monkeypatch.setattr(type(mixer), "forward", broken)
    before = weights(state)
    run = replace(RUN, steps=1)
    fit(state, batches(run), run, files_of=files_of)
    assert same(before, weights(state))
    assert "first bad layer layers.1.mixer, files 0-1.mp4;" in capsys.readouterr().err


def test_nan_in_a_gradient_skips_the_step_and_names_the_parameter(capsys):
    state = state_of(RUN)
    before = weights(state)
    handle = state.model.layers[1].mixer.in_proj.weight.register_hook(lambda g: g * float("nan"))
    run = replace(RUN, steps=1)
    fit(state, batches(run), run, files_of=files_of)
    handle.remove()
    assert same(before, weights(state))
    assert not state.optimizer.state
    assert "first bad gradient layers.1.mixer.in_proj.weight" in capsys.readouterr().err


def saver_in(folder, run):
    return Saver(folder, run, metadata={}, key="k", log=RunLog(None))


def test_nan_in_a_weight_returns_to_the_last_good_checkpoint_with_a_lower_rate(tmp_path, capsys):
    run = replace(
        RUN, steps=9, checkpoint_every=3, non_finite=NonFiniteConfig(patience=2, lr_factor=0.1)
    )
    state, poisoned = state_of(run), []

    def poisoning(start):
        for batch in batches(run)(start):
            if batch.step == 4 and not poisoned:
                poisoned.append(True)
                with torch.no_grad():
                    state.model.layers[0].mixer.D[0] = float("nan")
            yield batch

    fit(state, poisoning, run, saver=saver_in(tmp_path, run))
    said = capsys.readouterr().err
    assert "weight layers.0.mixer.D holds non-finite values" in said
    assert "going on from" in said and "step 3" in said and "learning rate times 0.1" in said
    assert [step for step, _ in state.losses] == list(range(9))
    assert (state.rollbacks, state.lr_factor, state.bad_in_a_row) == (1, 0.1, 0)
    assert all(tensor.isfinite().all() for tensor in weights(state).values())


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (NonFiniteConfig(patience=2, then="stop"), "2 steps in a row were not finite.*1-3.mp4"),
        (NonFiniteConfig(patience=1, max_rollbacks=2), "went back 2 times"),
        (NonFiniteConfig(patience=1), "no checkpoint yet to go back to"),
    ],
    ids=["stop", "too often", "nothing to go back to"],
)
def test_run_that_cannot_go_on_ends_with_the_reason(tmp_path, config, text):
    run = replace(RUN, non_finite=config, checkpoint_every=1)
    first_bad = 0 if "checkpoint yet" in text else 2
    bad = (0, 1) if config.then == "stop" else (first_bad,)
    with pytest.raises(RuntimeError, match=text):
        fit(
            state_of(run),
            batches(run, bad=bad),
            run,
            saver=saver_in(tmp_path, run),
            files_of=files_of,
        )
    assert all(step.name != "step-00000003" for step in checkpoint.checkpoints_in(tmp_path))


def limited(monkeypatch, most_tokens):
    """A model whose forward pass has memory for so many patch tokens."""
    whole = VideoMamba.forward

    def forward(self, video, patch_size=None, *, grid="exact"):
        tokens = video.shape[0] * video.shape[2] * (video.shape[3] // patch_size) ** 2
        if tokens > most_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, video, patch_size, grid=grid)

    monkeypatch.setattr(VideoMamba, "forward", forward)


@pytest.mark.parametrize(
    ("most", "text"),
    [
        (
            16,
            r"5 clips of T=2 S=16 P=8 \(8 tokens each\).*; 2 fit \(16 tokens\).*token_budget to 16",
        ),
        (7, r"not even one fits, no scale of this run fits"),
    ],
)
def test_out_of_memory_says_what_fits_and_what_to_set(monkeypatch, most, text):
    limited(monkeypatch, most)
    with pytest.raises(RuntimeError, match=text):
        fit(state_of(RUN), batches(RUN), RUN)


def test_out_of_memory_names_the_largest_scale_that_fits(monkeypatch):
    limited(monkeypatch, 40)
    run = replace(
        RUN,
        variant="temporal",
        sets=replace(NANO, frames=(1, 2, 4, 8)),
        model=VideoMambaConfig.named("nano", num_classes=3, depth=1, embed_dim=16),
    )
    state = state_of(run)
    batch = Batch(0, Scale(8, 32, 8), torch.zeros(1, 3, 8, 32, 32), torch.tensor([0]))
    with pytest.raises(RuntimeError, match=r"largest scale that fits is T=2 S=32 P=8 \(32 tokens"):
        fit(state, lambda start: [batch], run)


def test_run_in_the_limit_goes_through_in_parts(monkeypatch):
    limited(monkeypatch, 16)
    run = replace(RUN, tokens_per_pass=16)
    assert fit(state_of(run), batches(run), run).step == RUN.steps
