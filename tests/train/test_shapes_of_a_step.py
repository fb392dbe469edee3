"""Videos that keep their shape in training: groups of one shape in a step, whose gradient is the mean over all."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from shaped_clips import GRIDS, shape_of, write_shaped
from short_training import ShortTraining
from tiny_run import SCALE, state_of, tiny_run

from stretchysnake import read_records
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.clip_source import DecodedClips
from stretchysnake.data.clips.loader import Batch, MixedBatch, groups_of, training_batches
from stretchysnake.data.clips.seeds import AUGMENTATION, seed_of
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.flexibility import NANO, VARIANTS, sets_around
from stretchysnake.models.architectures import config_named
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.ranks import SINGLE, Runtime
from stretchysnake.train import step as one_step
from stretchysnake.train.loop import train
from stretchysnake.train.run import OptimConfig
from stretchysnake.train.step import compute_logits, take_step

VARIANT = VARIANTS["static_tokens"].using(NANO)


@pytest.fixture(scope="module")
def shaped(tmp_path_factory):
    return write_shaped(tmp_path_factory.mktemp("shaped"))


def step_of_shapes():
    """Six clips of 2 frames in patches of 8: two of 16 x 16, three of 8 x 32, one of 24 x 8."""
    generator, groups, first = torch.Generator().manual_seed(1), [], 0
    for count, height, width in ((2, 16, 16), (3, 8, 32), (1, 24, 8)):
        video = torch.randn((count, 3, 2, height, width), generator=generator)
        places = list(range(first, first + count))
        groups.append(Batch(0, SCALE, video, torch.arange(count) % 3, None, places))
        first += count
    return MixedBatch(0, tuple(groups), 6)


def gradients_after(run, *, runtime=SINGLE):
    state = state_of(run)
    take_step(state, state.model, step_of_shapes(), run, lr=0.0, runtime=runtime)
    return state, [p.grad.clone() for p in state.model.parameters()]


RUN = replace(tiny_run(depth=2, precision="fp64"), optim=OptimConfig(clip_norm=0.0), fit="keep")


@pytest.mark.parametrize("change", [{}, {"accumulate": 2}, {"tokens_per_pass": 8}])
def test_gradient_is_the_mean_over_all_clips_whatever_their_shape(change):
    state, found = gradients_after(replace(RUN, **change))
    alone = state_of(RUN)
    losses = []
    for group in step_of_shapes().groups:  # one clip after the other, by torch alone
        for video, label in zip(group.video, group.labels, strict=True):
            logits = compute_logits(alone.model, video[None].double(), SCALE, RUN)
            losses.append(torch.logsumexp(logits[0], 0) - logits[0, label])
    (sum(losses) / 6).backward()
    for one, parameter in zip(found, alone.model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-10, atol=1e-12)
    # 2 frames of 2 x 2, 1 x 4 and 3 x 1 patches
    assert state.tokens == 2 * (2 * 4 + 3 * 4 + 1 * 3) and state.clips == 6


@dataclass(frozen=True)
class OfSeven(Runtime):
    """A rank whose fellow has seven passes in this step."""

    def most(self, number):
        assert number == 3
        return 7


def test_a_sliced_model_makes_as_many_passes_as_any_rank_and_learns_nothing_from_them(monkeypatch):
    _, wanted = gradients_after(RUN)
    passes = []
    monkeypatch.setattr(one_step, "is_sharded", lambda model: True)
    monkeypatch.setattr(
        one_step,
        "compute_logits",
        lambda *args: passes.append(len(args[1])) or compute_logits(*args),
    )
    _, found = gradients_after(RUN, runtime=OfSeven())
    assert passes == [2, 3, 1, 1, 1, 1, 1]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def batches_of(records, *, augmentation=None, **options):
    clips = DecodedClips(records, augmentation=augmentation, fit="keep")
    options = {"variant": VARIANT, "seed": 2, "steps": 3, "prefetch": 0, **options}
    return list(training_batches(clips, **options))


def test_every_clip_of_a_step_has_its_own_shape_and_its_place(shaped):
    records = read_records(shaped)
    clips = DecodedClips(records, fit="keep")
    for batch in batches_of(records, batch_size=10, scales_per_step=2, shuffle=False):
        assert batch.asked == 10
        places = [place for group in batch.groups for place in group.places]
        assert sorted(places) == list(range(10))
        assert {len(group.labels) for group in batch.groups} == {1, 2}  # five of a scale
        for group in batch.groups:
            patch, grids = group.scale.patch_size, set()
            for video, place in zip(group.video, group.places, strict=True):
                rows, columns = GRIDS[shape_of(place)]
                assert video.shape[2:] == (rows * patch, columns * patch)
                grids.add((rows, columns))
                drawn = torch.Generator().manual_seed(seed_of(2, AUGMENTATION, batch.step, place))
                clip = clips.clip(place, group.scale, generator=drawn)
                assert torch.equal(video, normalise(clip))
            assert len(grids) == 1
            assert group.num_tokens == len(group.labels) * group.scale.num_frames * rows * columns


def test_shares_of_two_ranks_are_the_step_of_one(shaped):
    records = read_records(shaped)
    mixing = Augmentation(mixup=0.8, cutmix=1.0)
    options = {"augmentation": mixing, "batch_size": 8}
    whole = batches_of(records, **options)
    shares = [batches_of(records, **options, rank=rank, world_size=2) for rank in (0, 1)]

    def by_place(batch):
        return {
            place: (video, group.share, int(other), int(label))
            for group in groups_of(batch)
            for place, video, other, label in zip(
                group.places, group.video, group.others, group.labels, strict=True
            )
        }

    for batch, *parts in zip(whole, *shares, strict=True):
        wanted, found = by_place(batch), {}
        for part in parts:
            assert not found.keys() & by_place(part).keys()
            found |= by_place(part)
        assert found.keys() == wanted.keys() == set(range(8))
        for place, (video, *told) in wanted.items():
            assert torch.equal(video, found[place][0]) and told == list(found[place][1:])


def test_clips_are_mixed_with_those_of_their_shape_alone(shaped):
    records = read_records(shaped)
    options = {"batch_size": 10, "shuffle": False, "steps": 1}
    (mixed,) = batches_of(records, augmentation=Augmentation(mixup=1.0), **options)
    (plain,) = batches_of(records, **options)
    changed = {}
    for one, other in zip(groups_of(mixed), groups_of(plain), strict=True):
        for place, a, b in zip(one.places, one.video, other.video, strict=True):
            changed[place] = not torch.allclose(a, b, atol=1e-5)
    alike = {place for place in range(10) if shape_of(place) == shape_of(place ^ 1)}
    assert {place for place, is_changed in changed.items() if is_changed} == alike == {2, 3}


def test_a_training_that_keeps_shapes_goes_on_exactly_and_says_so(shaped, tmp_path, monkeypatch):
    case = ShortTraining(shaped, tmp_path, monkeypatch)
    held_out = write_shaped(tmp_path, count=4, first=30)
    options = {"variant": "static_tokens", "batch_size": 5, "steps": 3, "fit": "keep"}
    options |= {"held_out": str(held_out), "held_out_every": 3}
    whole = case.train(**options)
    out = tmp_path / "resumed"
    case.train(**options, out=str(out), checkpoint_every=1)
    (out / "run.json").unlink()
    (out / "checkpoints" / "step-00000003").rename(tmp_path / "gone")
    rest = case.train(**options, out=str(out), checkpoint_every=1)
    assert [batch.step for batch in rest.batches] == [2]
    assert all(torch.equal(tensor, rest.weights[name]) for name, tensor in whole.weights.items())
    header = read_checkpoint(whole.result.weights)[1]["run"]
    assert header["fit"] == "keep"
    (score,) = json.loads((whole.out / "run.json").read_text())["held_out"]["scores"]
    assert score["num_clips"] == 4
    told = [json.loads(line) for line in (whole.out / "log.jsonl").read_text().splitlines()]
    (last,) = [line for line in told if line["event"] == "step" and line["step"] == 2]
    assert sorted(map(tuple, last["shapes"])) == sorted(
        tuple(group.video.shape[-2:]) for group in groups_of(whole.batches[2])
    )
    square = case.train(**{**options, "fit": "square"})
    assert "fit" not in read_checkpoint(square.result.weights)[1]["run"]
    assert any(not torch.equal(whole.weights[n], t) for n, t in square.weights.items())


def test_a_model_that_cannot_is_told_before_anything_is_decoded(shaped, tmp_path):
    hiera = config_named("hiera-base", num_classes=0)
    scales = {"sets": sets_around(hiera.native), "variant": "vanilla", "model": hiera}
    run = tiny_run(depth=1, precision="fp32")
    run = replace(run, **scales, fit="keep", data=str(shaped), out=str(tmp_path))
    text = r"fit \(keep\) gives clips of \d+ x \d+ .* hiera cannot take: .*; use fit square or crop"
    with pytest.raises(ValueError, match=text):
        train(run)
