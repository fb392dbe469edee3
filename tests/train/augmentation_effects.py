"""What each field of an Augmentation changes in the batches of a training; to pixels: tests/data/test_augment.py."""

from dataclasses import replace

import torch
from short_training import with_augmentation

from stretchysnake.flexibility import NANO


def pixels(case, **changes):
    """Of twelve clips of four frames; there are three to choose each from."""
    four = {"variant": "temporal", "sets": replace(NANO, frames=(4,)), "steps": 6}
    done = case.train(**four, **with_augmentation(**changes))
    return torch.cat([batch.video for batch in done.batches])


def changed(case, **changes):
    """Share of the twelve clips that are not those without any augmentation."""
    return (pixels(case, **changes) != pixels(case)).flatten(1).any(1).double().mean()


def flip(case):
    plain, found = pixels(case), pixels(case, flip=True)
    mirrored = [torch.equal(f, p.flip(-1)) for f, p in zip(found, plain, strict=True)]
    same = [torch.equal(f, p) for f, p in zip(found, plain, strict=True)]
    assert sum(mirrored) >= 2 and sum(same) >= 2 and sum(mirrored) + sum(same) == 12


def mixing(case, kind):
    batches = case.train(steps=3, batch_size=4, **with_augmentation(**{kind: 1.0})).batches
    plain = case.train(steps=3, batch_size=4).batches
    for batch, clean in zip(batches, plain, strict=True):
        assert batch.others.tolist() == clean.labels[[1, 0, 3, 2]].tolist() and 0 < batch.share < 1
        whole = clean.video * batch.share + clean.video[[1, 0, 3, 2]] * (1 - batch.share)
        assert torch.allclose(batch.video, whole, atol=1e-5) == (kind == "mixup")
    assert case.train().batches[0].others is None


def jitter(case):
    assert changed(case, jitter=True) > 0.9


def crop_scale(case):
    assert changed(case, crop_scale=(0.3, 0.5)) == 1


def crop_ratio(case):
    """Of a crop: the whole picture, crop_scale (1, 1), has the ratio it has."""
    assert changed(case, crop_ratio=(2.0, 3.0)) == 0
    square, wide = (pixels(case, crop_scale=(0.3, 0.5), crop_ratio=(r, r)) for r in (1.0, 2.0))
    assert (square != wide).flatten(1).any(1).all()


def rand_augment(case):
    assert changed(case, rand_augment=(3, 20)) > 0.7


def erase(case):
    assert changed(case, erase=1.0) == 1


def mixup(case):
    mixing(case, "mixup")


def cutmix(case):
    mixing(case, "cutmix")
