"""The clips of a step over its ranks: each has as many as another, whatever the scales, and the mean is that of one."""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from tiny_run import SCALE, state_of, tiny_run

from stretchysnake import read_records
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.clip_source import DecodedClips
from stretchysnake.data.clips.loader import groups_of, training_batches
from stretchysnake.data.clips.training_order import group_sizes, share_of, shares_of
from stretchysnake.flexibility import NANO, VARIANTS
from stretchysnake.ranks import SINGLE, Runtime
from stretchysnake.train import step as one_step
from stretchysnake.train.run import OptimConfig
from stretchysnake.train.step import compute_logits, most_clips, take_step

SETS = replace(NANO, native=SCALE)
VARIANT = VARIANTS["static_tokens"].using(SETS)


def steps():
    """(clips of each group, unit, ranks), each group at least a unit, the last perhaps with part of one more."""
    for unit in (1, 2, 3, 4):
        for groups in (1, 2, 3, 4, 8):
            for clips in range(groups * unit, 30):
                for ranks in (1, 2, 3, 4, 5, 8):
                    sizes = group_sizes([SCALE] * groups, batch_size=clips, unit=unit)
                    yield sizes, unit, ranks


def test_ranks_hold_each_clip_once_and_as_many_as_another_in_a_step_and_in_each_scale():
    for sizes, unit, world in steps():
        told = f"{sizes} in {unit} over {world}"
        options = {"world_size": world, "unit": unit}
        ranks = [shares_of(sizes, rank=r, **options) for r in range(world)]
        places = [place for shares in zip(*ranks, strict=True) for s in shares for place in s]
        assert places == list(range(sum(sizes))), told
        of_step = [sum(map(len, shares)) for shares in ranks]
        assert max(of_step) - min(of_step) <= unit, told
        ends = [sum(sizes[:g]) for g in range(len(sizes) + 1)]
        run = replace(tiny_run(depth=1, precision="fp32"), num_sample=unit, batch_size=unit)
        for g, (first, last) in enumerate(pairwise(ends)):
            own = [shares[g] for shares in ranks]
            assert all(first <= s.start and s.stop <= last for s in own), told
            assert all((s.start - first) % unit == 0 for s in own if s), told
            assert max(map(len, own)) - min(map(len, own)) <= unit, told
            # what a step cuts its passes by
            largest = most_clips(sizes[g], run, Runtime(world_size=world))
            assert max(map(len, own)) == largest, told


def test_one_scale_a_step_is_shared_as_ever():
    for clips in range(1, 40):
        for unit, world in ((1, 3), (2, 4), (4, 5)):
            for rank in range(world):
                options = {"rank": rank, "world_size": world, "unit": unit}
                assert shares_of([clips], **options) == [share_of(clips, **options)]


@pytest.mark.parametrize(("clips", "groups", "unit", "world"), [(16, 4, 2, 4), (8, 4, 1, 4)])
def test_no_rank_is_left_without_clips(clips, groups, unit, world):
    """Each group by itself would give the second and last rank all of it."""
    sizes = group_sizes([SCALE] * groups, batch_size=clips, unit=unit)
    ranks = [shares_of(sizes, rank=r, world_size=world, unit=unit) for r in range(world)]
    assert [sum(map(len, shares)) for shares in ranks] == [clips // world] * world


@dataclass(frozen=True, kw_only=True)
class OfFour(Runtime):
    """One of four ranks, asked alone: the others' clips are counted."""

    world_size: int = 4

    def sum(self, values):
        values[1] = 8.0
        return values


def batches(clips, **options):
    options |= {"variant": VARIANT, "batch_size": 8, "seed": 2, "steps": 3, "prefetch": 0}
    return list(training_batches(clips, **options, scales_per_step=4))


@pytest.mark.parametrize("sliced", [False, True])
def test_the_mean_of_four_ranks_gradients_is_the_gradient_of_one(clip_folder, monkeypatch, sliced):
    run = tiny_run(depth=1, precision="fp64")
    run = replace(run, optim=OptimConfig(clip_norm=0.0), variant="static_tokens", sets=SETS)
    run = replace(run, batch_size=8, scales_per_step=4)
    passes = Counter()
    if sliced:  # every pass needs all ranks, those without a clip of its scale too
        monkeypatch.setattr(one_step, "is_sharded", lambda model: True)
        monkeypatch.setattr(
            one_step,
            "compute_logits",
            lambda *args: passes.update([args[2]]) or compute_logits(*args),
        )
    clips = DecodedClips(read_records(clip_folder))
    whole = batches(clips)
    ranks = [batches(clips, rank=rank, world_size=4) for rank in range(4)]

    def gradients(batch, runtime):
        state = state_of(run)
        passes.clear()
        take_step(state, state.model, batch, run, lr=0.0, runtime=runtime)
        return [p.grad.clone() for p in state.model.parameters()], Counter(passes)

    for batch, *parts in zip(whole, *ranks, strict=True):
        for part in parts:
            assert sum(len(group.labels) for group in part.groups) == 2
        for group, *own in zip(batch.groups, *map(groups_of, parts), strict=True):
            assert torch.equal(torch.cat([part.video for part in own]), group.video)
        wanted, _ = gradients(batch, SINGLE)
        found = [gradients(part, OfFour(rank=rank)) for rank, part in enumerate(parts)]
        for one, *four in zip(wanted, *(grads for grads, _ in found), strict=True):
            torch.testing.assert_close(torch.stack(four).mean(0), one, rtol=1e-9, atol=1e-12)
        assert all(counted == found[0][1] for _, counted in found)
        assert not sliced or sum(found[0][1].values()) == 4


def test_a_token_budget_of_several_scales_parts_no_clips_that_are_mixed(clip_folder):
    """700 tokens are one and three clips of each of two scales, which would leave clips without a partner."""
    clips = DecodedClips(read_records(clip_folder), augmentation=Augmentation(mixup=0.8))
    options = {"variant": VARIANTS["static_tokens"].using(NANO), "batch_size": 1, "steps": 3}
    options |= {"seed": 2, "token_budget": 700, "scales_per_step": 2, "prefetch": 0}
    whole = list(training_batches(clips, **options))
    ranks = [list(training_batches(clips, **options, rank=r, world_size=2)) for r in (0, 1)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        labels = torch.cat([group.labels for group in batch.groups])
        for group, *own in zip(batch.groups, *map(groups_of, parts), strict=True):
            assert [int(labels[place ^ 1]) for place in group.places] == group.others.tolist()
            filled = [part for part in own if part.places]
            assert torch.equal(torch.cat([part.video for part in filled]), group.video)
            assert torch.equal(torch.cat([part.others for part in filled]), group.others)
