"""Several scales in one step: the gradient is the mean over all clips, whatever the groups, parts and resumptions."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from short_training import ShortTraining
from tiny_run import SCALE, state_of, tiny_run

from stretchysnake import VideoMamba, read_records
from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.clip_source import DecodedClips
from stretchysnake.data.clips.loader import Batch, MixedBatch, groups_of, training_batches
from stretchysnake.data.clips.training_order import group_sizes
from stretchysnake.flexibility import NANO, VARIANTS, Scale, scales_at
from stretchysnake.ranks import SINGLE
from stretchysnake.train import step
from stretchysnake.train.dry_run import run_cost
from stretchysnake.train.run import OptimConfig
from stretchysnake.train.step import compute_logits, packs_groups, passes_of, take_step
from stretchysnake.train.watch.memory import out_of_memory_message

SCALES = [
    SCALE,
    Scale(num_frames=4, size=24, patch_size=8),
    Scale(num_frames=2, size=32, patch_size=16),
]
SIZES = [2, 3, 1]
VARIANT = VARIANTS["static_tokens"].using(NANO)


def mixed_batch(**changes):
    generator = torch.Generator().manual_seed(1)
    groups, first = [], 0
    for scale, size in zip(SCALES, SIZES, strict=True):
        shape = (size, 3, scale.num_frames, scale.size, scale.size)
        labels = torch.arange(size) % 3
        video = torch.randn(shape, generator=generator)
        groups.append(Batch(0, scale, video, labels, size, list(range(first, first + size))))
        first += size
    return MixedBatch(0, tuple(groups), sum(SIZES), **changes)


@pytest.mark.parametrize("change", [{}, {"accumulate": 2}, {"tokens_per_pass": 8}])
def test_gradient_is_the_mean_over_all_clips_of_the_step(change):
    run = replace(tiny_run(depth=2, precision="fp64"), optim=OptimConfig(clip_norm=0.0), **change)
    state, batch = state_of(run), mixed_batch()
    take_step(state, state.model, batch, run, lr=0.0, runtime=SINGLE)
    gradients = {name: p.grad.clone() for name, p in state.model.named_parameters()}
    state.model.zero_grad()
    clip_losses = []
    for group in batch.groups:  # one clip after the other, by torch alone
        for video, label in zip(group.video, group.labels, strict=True):
            logits = compute_logits(state.model, video[None].double(), group.scale, run)
            clip_losses.append(torch.logsumexp(logits[0], 0) - logits[0, label])
    loss = torch.stack(clip_losses).sum() / sum(SIZES)
    loss.backward()
    for name, parameter in state.model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-10, atol=1e-12)
    assert state.losses[0][1] == pytest.approx(loss.item(), rel=1e-12)
    assert state.tokens == sum(
        size * scale.num_tokens for size, scale in zip(SIZES, SCALES, strict=True)
    )
    assert state.clips == sum(SIZES)


def test_a_step_of_several_scales_is_one_packed_pass_that_drops_what_its_parts_drop(monkeypatch):
    run = replace(tiny_run(depth=3, precision="fp64"), optim=OptimConfig(clip_norm=0.0))
    run = replace(run, model=replace(run.model, drop_path=0.5))
    batch, packed, alone = mixed_batch(), [], []
    one, several = step.compute_logits, step.compute_packed_logits

    def taken(changed):
        state = state_of(changed)
        take_step(state, state.model, batch, changed, lr=0.0, runtime=SINGLE)
        return state.losses, [p.grad.clone() for p in state.model.parameters()]

    monkeypatch.setattr(
        step, "compute_packed_logits", lambda *a: (packed.append(len(a[1])), several(*a))[1]
    )
    monkeypatch.setattr(step, "compute_logits", lambda *a: (alone.append(len(a[1])), one(*a))[1])
    (losses, found), counts = taken(run), (list(packed), list(alone))
    assert counts == ([3], [])
    # a step that is asked for in parts takes them one by one
    (in_parts, wanted), _ = taken(replace(run, accumulate=2)), packed.clear()
    assert len(alone) == 5 and losses[0][1] == pytest.approx(in_parts[0][1], rel=1e-12)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_groups_are_packed_by_a_model_that_is_whole_and_not_compiled(monkeypatch):
    run = tiny_run(depth=1, precision="fp32")
    model, batch = state_of(run).model, mixed_batch()
    assert packs_groups(model, batch, run)
    assert not packs_groups(model, batch.groups[0], run)  # one scale
    assert not packs_groups(model, batch, replace(run, compile=True))
    monkeypatch.setattr(step, "is_sharded", lambda model: True)
    assert not packs_groups(model, batch, run)


@pytest.mark.parametrize(
    ("most", "counts"), [(None, [3]), (124, [2, 1]), (123, [1, 2]), (20, [1, 1, 1])]
)
def test_packed_passes_hold_at_most_tokens_per_pass(most, counts):
    parts = [(group, range(len(group.labels))) for group in mixed_batch().groups]
    assert [group.scale.num_tokens * len(part) for group, part in parts] == [16, 108, 8]
    run = replace(tiny_run(depth=1, precision="fp32"), tokens_per_pass=most)
    passes = passes_of(parts, run, packs=True)
    assert [len(together) for together in passes] == counts
    assert [part for together in passes for part in together] == parts


def test_a_group_that_lost_all_its_clips_leaves_the_mean_over_the_others():
    run = replace(tiny_run(depth=1, precision="fp64"), optim=OptimConfig(clip_norm=0.0))
    batch = mixed_batch()
    first = batch.groups[0]
    empty = first._replace(video=first.video[:0], labels=first.labels[:0], places=[])
    grads = []
    for groups in ((empty, *batch.groups[1:]), batch.groups[1:]):
        state = state_of(run)
        asked = sum(SIZES) if len(groups) == 3 else sum(SIZES[1:])
        take_step(state, state.model, MixedBatch(0, groups, asked), run, lr=0.0, runtime=SINGLE)
        grads.append([p.grad.clone() for p in state.model.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


def test_clips_of_a_step_are_cut_into_groups_of_equal_size_and_dealt_scales(clip_folder):
    clips = DecodedClips(read_records(clip_folder))
    options = {"variant": VARIANT, "batch_size": 10, "seed": 2, "steps": 6, "prefetch": 0}
    one = list(training_batches(clips, **options))
    four = list(training_batches(clips, **options, scales_per_step=4))
    for whole, batch in zip(one, four, strict=True):
        assert batch.asked == 10 and isinstance(batch, MixedBatch) and isinstance(whole, Batch)
        assert sorted(len(group.labels) for group in batch.groups) == [2, 2, 3, 3]
        expected = scales_at(VARIANT, seed=2, step=batch.step, groups=4)
        assert tuple(group.scale for group in batch.groups) == expected
        places = [place for group in batch.groups for place in group.places]
        assert places == list(range(10))
        # the same clips in the same order, whatever the groups
        labels = torch.cat([group.labels for group in batch.groups])
        assert torch.equal(labels, whole.labels)
        for group in batch.groups:
            side = group.scale.size
            assert group.video.shape[1:] == (3, group.scale.num_frames, side, side)


def test_shares_of_two_ranks_are_the_step_of_one(clip_folder):
    clips = DecodedClips(
        read_records(clip_folder), augmentation=Augmentation(mixup=0.8, cutmix=1.0)
    )
    options = {"variant": VARIANT, "batch_size": 8, "seed": 2, "steps": 3, "prefetch": 0}
    options |= {"scales_per_step": 2}
    whole = list(training_batches(clips, **options))
    ranks = [list(training_batches(clips, **options, rank=r, world_size=2)) for r in (0, 1)]
    for batch, *shares in zip(whole, *ranks, strict=True):
        for group, *parts in zip(batch.groups, *(share.groups for share in shares), strict=True):
            assert {part.scale for part in parts} == {group.scale}
            assert [len(part.labels) for part in parts] == [2, 2]
            assert torch.equal(torch.cat([part.video for part in parts]), group.video)
            assert torch.equal(torch.cat([part.others for part in parts]), group.others)
            assert {part.share for part in parts} == {group.share}
    shares = Counter(group.share for batch in whole for group in batch.groups)
    assert max(shares.values()) == 1  # every group draws its own


def test_a_token_budget_is_that_of_the_step():
    scales = [Scale(16, 32, 8), Scale(4, 16, 4)]
    assert group_sizes(scales, batch_size=99, token_budget=1000) == [3, 3]  # 256 + 64 tokens a pair
    assert group_sizes(scales[:1], batch_size=99, token_budget=1000) == [3]
    assert group_sizes(scales, batch_size=99, token_budget=1000, unit=2) == [2, 2]
    assert group_sizes(scales, batch_size=99, token_budget=100, unit=2) == [2, 2]
    assert group_sizes(scales[:1], batch_size=99, token_budget=1000, unit=2) == [3]
    assert group_sizes(scales, batch_size=7) == [3, 4]
    assert group_sizes(scales, batch_size=10, unit=2) == [4, 6]


def test_a_training_of_several_scales_goes_on_exactly(clip_folder, tmp_path, monkeypatch):
    case = ShortTraining(clip_folder, tmp_path, monkeypatch)
    options = {"variant": "static_tokens", "scales_per_step": 3, "batch_size": 6, "steps": 4}
    whole = case.train(**options)
    out = str(tmp_path / "resumed")
    case.train(**options, out=out, checkpoint_every=1)
    (tmp_path / "resumed" / "run.json").unlink()
    for path in (tmp_path / "resumed" / "checkpoints").glob("step-*4"):
        path.rename(path.with_name("gone"))
    rest = case.train(**options, out=out, checkpoint_every=1)
    assert [batch.step for batch in rest.batches] == [3]
    for name, tensor in whole.weights.items():
        assert torch.equal(tensor, rest.weights[name])
    assert all(len(groups_of(batch)) == 3 for batch in whole.batches)
    ordinary = case.train(**{**options, "scales_per_step": 1})
    assert any(not torch.equal(whole.weights[n], t) for n, t in ordinary.weights.items())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"scales_per_step": 4, "batch_size": 3},
            r"scales_per_step \(4\) must not exceed batch_size \(3\)",
        ),
        (
            {"scales_per_step": 4, "batch_size": 6, "augmentation": Augmentation(mixup=0.8)},
            r"batch_size \(6\) pairs, since clips are mixed two and two; use at most 3",
        ),
        (
            {"scales_per_step": 2, "variant": "vanilla"},
            r"scales_per_step \(2\) must not exceed the 1 scales that vanilla draws from",
        ),
        (
            {"num_sample": 4, "batch_size": 6},
            r"batch_size \(6\) counts clips and must be a multiple of num_sample \(4\), the clips of a video; "
            "nearest: 4, 8",
        ),
        (
            {"num_sample": 3, "batch_size": 2},
            r"num_sample \(3\), the clips of a video; nearest: 3$",
        ),
        ({"num_sample": 0}, r"num_sample \(0\) must be at least 1"),
        (
            {"scales_per_step": 4, "batch_size": 6, "num_sample": 2},
            r"batch_size \(6\) in units of 2: num_sample \(2\) clips of a video; use at most 3",
        ),
        ({"scales_per_step": 0}, r"scales_per_step \(0\) must be at least 1"),
        (
            {"scales_per_step": 2, "scale_draw": "dice"},
            r"scale_draw \('dice'\) must be one of: dealt, independent",
        ),
    ],
)
def test_groups_that_cannot_be_are_refused(changes, text):
    run = tiny_run(depth=1, precision="fp32")
    with pytest.raises(ValueError, match=text):
        replace(run, **{"variant": "static_tokens", "sets": NANO_SETS, **changes})


NANO_SETS = replace(NANO, native=SCALE)


def test_cost_of_a_run_counts_every_group_of_a_step():
    run = replace(
        tiny_run(depth=1, precision="fp32"), variant="static_tokens", sets=NANO_SETS, steps=12
    )
    one = run_cost(replace(run, batch_size=8), num_clips=100)
    four = run_cost(replace(run, batch_size=8, scales_per_step=4), num_clips=100)
    assert sum(cost.share for cost in one.scales) == pytest.approx(1)
    assert sum(cost.share for cost in four.scales) == pytest.approx(4)
    assert {cost.clips for cost in four.scales} == {2}
    tokens = sum(cost.share * cost.tokens for cost in four.scales)
    counted = [
        2 * scale.num_tokens
        for step in range(12)
        for scale in replace(run, batch_size=8, scales_per_step=4).scales_of(step)
    ]
    assert tokens == pytest.approx(sum(counted) / 12)


def test_cost_of_a_run_of_packed_steps_holds_all_scales_of_the_largest_step():
    """Against the sums of the groups, step by step; in parts, the largest group alone counts."""
    run = replace(
        tiny_run(depth=1, precision="fp32"), variant="static_tokens", sets=NANO_SETS, steps=12
    )
    run = replace(run, batch_size=8, scales_per_step=4)
    cost = run_cost(run, num_clips=100)
    states = 16 * cost.parameters
    of_group = {(c.scale, c.clips): c.memory - states for c in cost.scales}
    steps = [sum(of_group[scale, 2] for scale in run.scales_of(step)) for step in range(12)]
    assert cost.memory == pytest.approx(states + max(steps), abs=8)
    in_parts = run_cost(replace(run, accumulate=2), num_clips=100)
    assert in_parts.memory == max(c.memory for c in in_parts.scales) < cost.memory


def test_a_packed_step_out_of_memory_says_what_fits(monkeypatch):
    """132 tokens together; of the largest scale, 3 clips of 36 each have about as many, and one fits."""
    whole = VideoMamba.forward

    def forward(self, video, *rest, **how):
        clips = list(video)
        if sum(clip.shape[1] * clip.shape[2] * clip.shape[3] // 64 for clip in clips) > 50:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, video, *rest, **how)

    monkeypatch.setattr(VideoMamba, "forward", forward)
    run = tiny_run(depth=1, precision="fp32")
    state = state_of(run)
    message = out_of_memory_message(state, mixed_batch(), run, runtime=SINGLE)
    assert message.startswith(
        "out of memory at step 0: 6 clips of 3 scales in one pass (132 tokens); "
        "1 of T=4 S=24 P=8 (36 tokens each) fit (36 tokens). Set tokens_per_pass to 36 (the same steps, in parts)"
    )
    take_step(
        state, state.model, mixed_batch(), replace(run, tokens_per_pass=36), lr=0.0, runtime=SINGLE
    )
