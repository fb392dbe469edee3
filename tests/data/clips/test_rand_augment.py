"""RandAugment and plain transforms against values recorded from torchvision (tests/fixtures/record_torchvision.py)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stretchysnake.data.clips.rand_augment import OPERATIONS, rand_augment
from stretchysnake.data.clips.transforms import (
    center_crop,
    flip_frames,
    normalise,
    resize_frames,
    short_side_size,
)

RECORDED = load_file(Path(__file__).parents[2] / "fixtures" / "torchvision_transforms.safetensors")
FRAMES = RECORDED["frames"]
CASES = [name for name in RECORDED if name.split("/")[0] in OPERATIONS]


@pytest.mark.parametrize("name", CASES)
def test_operations_give_torchvisions_pixels(name):
    kind, magnitude = name.split("/")
    operation, strength, _ = OPERATIONS[kind]
    amount = strength(abs(int(magnitude)) / 30, *FRAMES.shape[1:3])
    found = operation(FRAMES, -amount if int(magnitude) < 0 else amount)
    expected = RECORDED[name]
    assert found.dtype == torch.uint8 and found.shape == expected.shape
    if kind in ("shear_x", "shear_y", "translate_x", "translate_y", "rotate"):
        # where a sample falls between two pixels, rounding decides
        assert (found != expected).any(-1).float().mean() < 0.01
    else:
        assert (found.int() - expected.int()).abs().max() <= 1
        assert (
            found != expected
        ).float().mean() < 0.1  # the last bit of a product decides what is cut off


def test_every_operation_was_recorded_and_does_something():
    assert {name.split("/")[0] for name in CASES} == OPERATIONS.keys() - {"identity"}
    assert all((RECORDED[name] != FRAMES).any() for name in CASES if name != "solarize/9")


def test_plain_transforms_give_torchvisions_pixels():
    pairs = {
        "resize/9x13": resize_frames(FRAMES, (9, 13)),
        "resize/40x50": resize_frames(FRAMES, (40, 50)),
        "short_side/10": resize_frames(FRAMES, short_side_size(*FRAMES.shape[1:3], size=10)),
    }
    for name, found in pairs.items():
        assert (found.int() - RECORDED[name].int()).abs().max() <= 1, name
    assert torch.equal(center_crop(FRAMES, 12), RECORDED["center_crop/12"])
    assert torch.equal(flip_frames(FRAMES), RECORDED["flip"])
    torch.testing.assert_close(
        normalise(FRAMES).permute(1, 2, 3, 0), RECORDED["normalise"], atol=1e-5, rtol=1e-5
    )


def test_one_draw_serves_all_frames():
    still = FRAMES[:1].expand(4, -1, -1, -1)
    for seed in range(20):
        found = rand_augment(still, torch.Generator().manual_seed(seed), num_ops=3, magnitude=15)
        assert (found == found[:1]).all()


def test_the_draw_depends_on_the_generator_alone_and_uses_as_many_numbers_always():
    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return rand_augment(FRAMES, generator), generator.get_state()

    assert torch.equal(draw(1)[0], draw(1)[0])
    generator = torch.Generator().manual_seed(1)
    torch.rand(2, 2, generator=generator)
    assert torch.equal(draw(1)[1], generator.get_state())
    assert len({draw(seed)[0].sum().item() for seed in range(10)}) > 5


def test_all_operations_are_drawn():
    drawn = {
        int(torch.rand(1, 2, generator=torch.Generator().manual_seed(s))[0, 0] * 14)
        for s in range(300)
    }
    assert drawn == set(range(len(OPERATIONS)))


@pytest.mark.parametrize("settings", [{"num_ops": -1}, {"magnitude": 31}], ids=str)
def test_impossible_settings_are_named(settings):
    with pytest.raises(
        ValueError, match=r"num_ops \(.*\) must be at least 0 and magnitude \(.*\) between 0 and 30"
    ):
        rand_augment(FRAMES, torch.Generator(), **settings)


def test_operations_with_a_sign_go_both_ways():
    """Brightness, where it is the one drawn: half of the clips become darker and half brighter."""
    grey, darker, brighter = torch.full((1, 8, 8, 3), 100, dtype=torch.uint8), 0, 0
    place = list(OPERATIONS).index("brightness")
    for seed in range(600):
        kind = torch.rand(1, 2, generator=torch.Generator().manual_seed(seed))[0, 0].item()
        if int(kind * len(OPERATIONS)) == place:
            generator = torch.Generator().manual_seed(seed)
            found = int(rand_augment(grey, generator, num_ops=1, magnitude=15)[0, 0, 0, 0])
            assert found in (55, 145)  # 100 · (1 ± 0.45)
            darker, brighter = darker + (found < 100), brighter + (found > 100)
    assert darker > 10 and brighter > 10
