"""Running statistics of batch norms, and dropout: what a step leaves behind, on one rank and on several."""

from dataclasses import replace

import pytest
import torch
from small_backbones import small_config
from tiny_run import weights

from stretchysnake.data.clips.loader import Batch
from stretchysnake.flexibility import ScaleSets
from stretchysnake.models.architectures import build_model
from stretchysnake.ranks import SINGLE
from stretchysnake.train.batch_norm import average_over_ranks, running_statistics
from stretchysnake.train.checkpoints.state import new_state
from stretchysnake.train.loop import fit
from stretchysnake.train.run import TrainRun

SIZES = {"num_frames": 2, "num_classes": 3}


def run_of(name, **changes):
    config = small_config(name, **SIZES)
    return TrainRun(
        data="-", out="-", variant="vanilla", steps=2, model=config, precision="fp64",
        sets=ScaleSets(native=config.native, sizes=(32,), frames=(2,), flex_all_patches=(4, 8)), **changes,
    )  # fmt: skip


def fresh(run):
    torch.manual_seed(0)
    return new_state(build_model(run.model).double(), run)


def batches(run, *, bad=()):
    def start_at(start):
        for step in range(start, run.steps):
            video = torch.randn(4, 3, 2, 32, 32, generator=torch.Generator().manual_seed(step))
            if step in bad:
                video[3, 0, 0, 0, 0] = float("nan")
            yield Batch(step, run.sets.native, video, torch.tensor([0, 1, 2, 0]))

    return start_at


class TwoRanks:
    """The second of two, whose sums have the first one's numbers in them."""

    world_size = 2

    def __init__(self, other):
        self.other = other

    def sum(self, values):
        return values + self.other


def test_ranks_weigh_as_many_as_their_clips():
    means = [torch.tensor([1.0, 5.0]), torch.tensor([4], dtype=torch.int64)]
    theirs = torch.tensor([5.0, 1.0, 2.0], dtype=torch.float64)
    average_over_ranks(
        means, clips=1, runtime=TwoRanks(torch.cat([3 * theirs, torch.tensor([3.0])]))
    )
    assert torch.equal(means[0], torch.tensor([4.0, 2.0]))  # (1·1 + 3·5) / 4, (1·5 + 3·1) / 4
    assert means[1].item() == 2 and means[1].dtype == torch.int64  # (4 + 3·2) / 4 is 2.5, to even


def test_one_rank_keeps_its_statistics():
    means = [torch.tensor([1.0])]
    average_over_ranks(means, clips=1, runtime=SINGLE)
    assert means[0].item() == 1


def test_a_step_that_is_not_finite_leaves_the_running_statistics():
    run = run_of("uniformer")
    state = fresh(run)
    before = [one.clone() for one in running_statistics(state.model)]
    assert len(before) > 3
    fit(state, batches(run, bad=(0, 1)), run)
    assert all(map(torch.equal, before, running_statistics(state.model)))
    fit(good := fresh(run), batches(run), run)
    assert not any(map(torch.equal, before, running_statistics(good.model)))


@pytest.mark.parametrize("name", ["evl", "omnivore", "mvit"])
def test_dropout_follows_seed_and_step_and_not_torchs_generator(name):
    run = run_of(name, seed=5)
    first, second = fresh(run), fresh(run)
    fit(first, batches(run), run)
    torch.manual_seed(123)
    kept = torch.get_rng_state()
    fit(second, batches(run), run)
    assert torch.equal(torch.get_rng_state(), kept)  # nothing of it was drawn
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(first).values(), weights(second).values(), strict=True)
    )
    fit(other := fresh(run), batches(run), replace(run, seed=6))
    assert any(
        not torch.equal(a, b)
        for a, b in zip(weights(first).values(), weights(other).values(), strict=True)
    )
