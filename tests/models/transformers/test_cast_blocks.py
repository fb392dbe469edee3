"""What the blocks of CAST do with the two paths, with gradients and with drop path."""

from dataclasses import replace

import torch
from small_cast_fluxvit import CAST_SMALL as SMALL
from small_cast_fluxvit import randomised

from stretchysnake.flexibility import Scale
from stretchysnake.models.transformers.cast import CAST


@torch.no_grad()
def test_clip_sees_the_odd_frames_and_videomae_all_in_order():
    model = randomised(SMALL)
    for block in model.blocks:  # the paths apart
        for up in (block.cross_s_up, block.cross_t_up):
            up.weight.zero_()
    video = torch.randn(1, 3, 4, 12, 12)
    s, v = model.both(video)
    changed = video.clone()
    changed[:, :, [0, 2]] += 1.0
    assert torch.equal(model.both(changed)[0], s) and not torch.allclose(model.both(changed)[1], v)
    swapped = video[:, :, [2, 3, 0, 1]]  # CLIP's path, apart, knows no order
    torch.testing.assert_close(model.both(swapped)[0], s)
    assert not torch.allclose(model.both(swapped)[1], v)


@torch.no_grad()
def test_cls_of_the_last_block_attends_to_nothing():
    model = randomised(SMALL)
    video = torch.randn(1, 3, 4, 12, 12)
    before = model(video)
    for parameter in model.blocks[-1].t2s_cross.parameters():
        parameter.normal_()
    assert torch.equal(model(video), before)
    model.blocks[0].t2s_cross.t2s_kv_bias.normal_()
    assert not torch.allclose(model(video), before)


def test_gradients_reach_everything_at_another_scale():
    model = randomised(SMALL).train()
    model(torch.randn(2, 3, 6, 10, 15), patch_size=5).square().sum().backward()
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == {n for n, _ in model.named_parameters() if n.startswith("blocks.1.t2s_cross")}
    assert all(p.grad is not None for p in model.parameters())  # or ranks would wait for them


def test_draws_decide_what_each_clip_leaves_out():
    model = randomised(replace(SMALL, drop_path=0.6)).double().train()
    video = torch.randn(4, 3, 4, 12, 12, dtype=torch.float64)
    count = model.num_drop_draws(Scale(4, 12, 4))
    assert count == 12
    draws = torch.rand(4, count, generator=torch.Generator().manual_seed(3))
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
        # the first block's rate is 0
        assert torch.equal(changed[1], kept[1]) == (column < 6), column
    # the last block left out as a whole: what is before it, here a model without it
    none = ones.clone()
    none[:, 6:] = 0.0
    shorter = CAST(replace(SMALL, depth=1)).double().eval()
    state = {n: t for n, t in model.state_dict().items() if not n.startswith("blocks.1.")}
    shorter.load_state_dict(state)
    torch.testing.assert_close(model(video, drop_draws=none), shorter(video))


def test_eval_mode_drops_nothing_and_torch_draws_where_none_are_given():
    model = randomised(replace(SMALL, drop_path=0.5))
    plain = CAST(SMALL).eval()
    plain.load_state_dict(model.state_dict())
    video = torch.randn(2, 3, 4, 12, 12)
    assert torch.equal(model(video), plain(video))
    model.train()
    drawn = []
    for seed in (0, 1, 2, 0):
        torch.manual_seed(seed)
        drawn.append(model(video))
    assert torch.equal(drawn[0], drawn[3])
    assert not all(torch.equal(drawn[0], other) for other in drawn[1:3])


def test_recomputing_gives_the_same_gradients():
    model = randomised(replace(SMALL, drop_path=0.3)).double().train()
    video = torch.randn(2, 3, 4, 12, 12, dtype=torch.float64)
    draws, grads = torch.rand(2, 12), []
    for model.checkpoint_activations in (False, True):
        model.zero_grad()
        model(video, drop_draws=draws).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_half_precision_runs_near_the_whole():
    model = randomised(SMALL)
    video = torch.randn(2, 3, 6, 10, 15)
    wanted = model(video, patch_size=5)
    with torch.autocast("cpu", torch.bfloat16):
        near = model(video, patch_size=5)
    assert (near.float() - wanted).norm() / wanted.norm() < 0.05
    low = CAST(SMALL).eval()
    low.load_state_dict(model.state_dict())
    found = low.to(torch.bfloat16)(video, patch_size=5)
    assert found.dtype == torch.bfloat16 and (found.float() - wanted).norm() / wanted.norm() < 0.05
