"""Which tokens FluxViT keeps, token by token, and what its blocks do with drop path."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_cast_fluxvit import FLUXVIT_SMALL as SMALL
from small_cast_fluxvit import randomised

from stretchysnake.flexibility import Scale
from stretchysnake.models.transformers.fluxvit import FluxViT
from stretchysnake.models.transformers.layers.fluxvit_blocks import kept_tokens


def kept_by_hand(x: np.ndarray, budget: int) -> np.ndarray:
    """Which tokens of x (T, N, C) are kept, as the facts say it, token by token."""
    frames, places, _ = x.shape
    groups = 4 if frames % 4 == 0 else 1 if frames == 2 else 2
    n = frames // groups
    keep = int((1 - (1 - budget / (frames * places))) * (n * places))
    kept = np.zeros((frames, places), dtype=bool)
    for group in range(groups):
        weighed = []
        for j in range(n):
            for place in range(places):
                later = group * n + max(j, 1)
                distance = np.sqrt(((x[later, place] - x[later - 1, place]) ** 2).sum())
                weighed.append((-distance, j, place))
        for _, j, place in sorted(weighed)[:keep]:
            kept[group * n + j, place] = True
    return np.flatnonzero(kept)


@pytest.mark.parametrize(
    ("frames", "places", "budget"), [(2, 9, 7), (6, 4, 10), (8, 9, 20), (10, 5, 17), (12, 4, 13), (16, 6, 41)]
)  # fmt: skip
def test_kept_tokens_are_those_of_the_facts(frames, places, budget):
    """All but the first cut between the equal weights of a group's first two frames somewhere: the earlier is kept."""
    generator = torch.Generator().manual_seed(frames)
    tokens = torch.randn(3, frames, places, 4, generator=generator, dtype=torch.float64)
    found = kept_tokens(tokens, budget)
    for row, x in zip(found, tokens, strict=True):
        np.testing.assert_array_equal(row.numpy(), kept_by_hand(x.numpy(), budget))
    assert torch.equal(kept_tokens(tokens.flip(0), budget).flip(0), found)


def test_equal_weights_are_kept_in_order():
    still = torch.zeros(1, 8, 3, 4)  # nothing moves: all weights are equal
    assert kept_tokens(still, 12).tolist() == [[0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20]]


@pytest.mark.parametrize(
    ("frames", "grid", "budget", "kept"),
    [
        (24, 16, 1024, 1020), (24, 16, 2048, 2044), (12, 16, 1024, 1020), (20, 16, 1024, 1020), (16, 14, 2048, 2044),
        (32, 20, 1024, 1020), (8, 16, 1024, 1024),
    ],
)  # fmt: skip
def test_official_rounding_of_budgets(frames, grid, budget, kept):
    assert kept_tokens(torch.zeros(1, frames, grid**2, 1), budget).shape == (1, kept)


@torch.no_grad()
def test_budget_says_what_it_cannot_do():
    model = randomised(replace(SMALL, token_budget=20))
    for frames, near in ((3, "2, 6"), (4, "2, 6"), (5, "2, 6"), (7, "6, 8")):
        text = (
            rf"num_frames \({frames}\) must be even and not 4 where token_budget \(20\) leaves out some of "
            rf"{frames * 16} tokens; nearest: {near}; token_budget=None keeps all"
        )
        with pytest.raises(ValueError, match=text):
            model(torch.randn(1, 3, frames, 16, 16))
    assert model(torch.randn(1, 3, 5, 8, 8)).isfinite().all()  # exactly 20 tokens
    with pytest.raises(ValueError, match=r"token_budget \(20\) leaves 20 of 32 tokens, .*no grid"):
        model.tokens(torch.randn(1, 3, 2, 16, 16))
    with pytest.raises(
        ValueError, match=r"token_budget \(3\) must leave each of 4 groups .* use 8"
    ):
        kept_tokens(torch.zeros(1, 8, 16, 2), 3)


@torch.no_grad()
def test_what_is_not_kept_does_not_matter():
    """One place moves: its tokens are all that the budget keeps, so the rest may be anything that stands still."""
    model = randomised(replace(SMALL, token_budget=8))
    still = torch.randn(1, 3, 1, 16, 16).expand(-1, -1, 8, -1, -1).clone()
    still[..., 4:8, 8:12] = torch.randn(1, 3, 8, 4, 4)
    other = torch.randn(1, 3, 1, 16, 16).expand(-1, -1, 8, -1, -1).clone()
    other[..., 4:8, 8:12] = still[..., 4:8, 8:12]
    torch.testing.assert_close(model(still), model(other))
    whole = randomised(SMALL)
    assert not torch.allclose(whole(still), whole(other))


def test_draws_decide_what_each_clip_leaves_out():
    model = randomised(replace(SMALL, drop_path=0.6, token_budget=30)).double().train()
    video = torch.randn(4, 3, 6, 16, 16, dtype=torch.float64)
    count = model.num_drop_draws(Scale(6, 16, 4))
    assert count == 4
    draws = torch.rand(4, count, generator=torch.Generator().manual_seed(1))
    whole = model(video, drop_draws=draws)
    parts = [model(video[i : i + 2], drop_draws=draws[i : i + 2]) for i in (0, 2)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-10, atol=1e-10)
    ones = torch.ones(4, count)
    kept = model(video, drop_draws=ones)
    for column in range(count):
        one = ones.clone()
        one[1, column] = 0.0
        changed = model(video, drop_draws=one)
        assert torch.equal(changed[0], kept[0])
        assert torch.equal(changed[1], kept[1]) == (column < 2), column  # the first rate is 0
    none = ones.clone()
    none[:, 2:] = 0.0
    shorter = FluxViT(replace(model.config, depth=1)).double().eval()
    state = {n: t for n, t in model.state_dict().items() if not n.startswith("blocks.1.")}
    shorter.load_state_dict(state)
    torch.testing.assert_close(model(video, drop_draws=none), shorter(video))


def test_eval_mode_drops_nothing_and_torch_draws_where_none_are_given():
    model = randomised(replace(SMALL, drop_path=0.5))
    plain = FluxViT(SMALL).eval()
    plain.load_state_dict(model.state_dict())
    video = torch.randn(2, 3, 6, 16, 16)
    assert torch.equal(model(video), plain(video))
    model.train()
    drawn = []
    for seed in (0, 1, 2, 3, 0):
        torch.manual_seed(seed)
        drawn.append(model(video))
    assert torch.equal(drawn[0], drawn[4])
    assert not all(torch.equal(drawn[0], other) for other in drawn[1:4])


def test_recomputing_gives_the_same_gradients():
    model = randomised(replace(SMALL, drop_path=0.3, token_budget=30)).double().train()
    video = torch.randn(2, 3, 6, 16, 16, dtype=torch.float64)
    draws, grads = torch.rand(2, 4), []
    for model.checkpoint_activations in (False, True):
        model.zero_grad()
        model(video, drop_draws=draws).square().sum().backward()
        grads.append([p.grad for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_fresh_values():
    model = FluxViT(SMALL)
    for block in model.blocks:
        for scale in (block.ls1, block.ls2):
            torch.testing.assert_close(scale.gamma, torch.full((32,), 1e-5))
