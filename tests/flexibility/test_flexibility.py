"""The paper's five variants and vanilla: what they draw, and what is tested."""

import random
from collections import Counter
from itertools import chain
from statistics import mean

import pytest

from stretchysnake import NANO, PAPER, VARIANTS, Scale, ScaleSets, eval_scale, scale_at
from stretchysnake.flexibility import Variant, num_scales, scales_at

STEPS = range(400)


def drawn(variant):
    return {scale_at(variant, seed=3, step=step) for step in STEPS}


def test_variants_are_the_papers_six():
    assert list(VARIANTS) == [
        "vanilla", "temporal", "static_patch", "static_tokens", "flexivit", "flex_all",
    ]  # fmt: skip


def test_vanilla_draws_the_native_scale_only():
    assert drawn("vanilla") == {Scale(16, 224, 16)}


def test_temporal_changes_frames_only():
    assert drawn("temporal") == {Scale(t, 224, 16) for t in (8, 16, 32, 64)}


def test_static_patch_changes_frames_and_size():
    assert drawn("static_patch") == {Scale(t, s, 16) for t in PAPER.frames for s in PAPER.sizes}


def test_static_tokens_always_has_196_tokens_a_frame():
    scales = drawn("static_tokens")
    assert {scale.grid for scale in scales} == {14}
    assert {scale.size for scale in scales} == {98, 126, 224, 378}
    assert all(scale.size % scale.patch_size == 0 for scale in scales)


def test_static_tokens_with_floor_grid_keeps_the_size():
    floor = VARIANTS["static_tokens"].using(ScaleSets(grid="floor"))
    assert {scale.size for scale in drawn(floor)} == set(PAPER.sizes)
    assert eval_scale(floor, num_frames=16, size=96) == Scale(16, 96, 7)
    assert eval_scale(floor, num_frames=16, size=96).grid == 13


def test_flexivit_keeps_240_px_and_changes_the_patch():
    scales = drawn("flexivit")
    assert {scale.size for scale in scales} == {240}
    assert {scale.patch_size for scale in scales} == set(PAPER.flexivit_patches)


def test_flex_all_patches_divide_the_size_within_12_to_48():
    scales = drawn("flex_all")
    assert all(s.size % s.patch_size == 0 and 12 <= s.patch_size <= 48 for s in scales)
    assert {s.patch_size for s in scales if s.size == 224} == {14, 16, 28, 32}


def test_draw_depends_on_seed_and_step_alone():
    again = [scale_at("flex_all", seed=1, step=step) for step in STEPS]
    assert again == [scale_at(VARIANTS["flex_all"], seed=1, step=step) for step in STEPS]
    assert again != [scale_at("flex_all", seed=2, step=step) for step in STEPS]


def test_every_value_is_drawn_about_equally_often():
    draws = [scale_at("static_patch", seed=0, step=step).size for step in range(2000)]
    assert all(abs(draws.count(size) / 2000 - 0.25) < 0.05 for size in PAPER.sizes)


@pytest.mark.parametrize(
    ("size", "patch"),
    [(96, 7), (112, 8), (128, 9), (192, 14), (224, 16), (288, 21), (384, 27), (448, 32)],
)
def test_static_tokens_test_patches_are_table_a2s(size, patch):
    assert eval_scale("static_tokens", num_frames=8, size=size) == Scale(8, 14 * patch, patch)
    assert (
        eval_scale("vanilla", num_frames=8, size=size, patch_from="static_tokens").patch_size
        == patch
    )


@pytest.mark.parametrize("variant", ["vanilla", "temporal", "static_patch", "flexivit", "flex_all"])
def test_other_variants_are_tested_with_the_native_patch(variant):
    assert eval_scale(variant, num_frames=64, size=448) == Scale(64, 448, 16)


def test_nano_sets_keep_four_by_four_tokens():
    variant = VARIANTS["static_tokens"].using(NANO)
    assert {scale.grid for scale in drawn(variant)} == {4}
    assert eval_scale(variant, num_frames=8, size=64) == Scale(8, 64, 16)


def test_unknown_variant_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"variant \('static_token'\).*did you mean static_tokens\?"
    ):
        scale_at("static_token", seed=0, step=0)


def test_size_that_does_not_fit_names_the_nearest_that_do():
    with pytest.raises(
        ValueError, match=r"size \(225\) must be a multiple of patch_size \(16\).*224, 240"
    ):
        eval_scale("vanilla", num_frames=8, size=225)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0, 32, 8), r"num_frames \(0\) must be a positive integer"),
        ((8, 32.0, 8), r"size \(32.0\) must be a positive integer"),
        ((8, 8, 16), r"patch_size \(16\) must not exceed size \(8\)"),
    ],
)
def test_impossible_scale_is_refused(values, text):
    with pytest.raises(ValueError, match=text):
        Scale(*values)


@pytest.mark.parametrize("variant", ["vanilla", "static_tokens"])
@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"size": 0}, r"size \(0\) must be a positive integer"),
        ({"size": -32}, r"size \(-32\) must be a positive integer"),
        ({"num_frames": 0}, r"num_frames \(0\) must be a positive integer"),
    ],
)
def test_a_cell_without_frames_or_pixels_is_refused(variant, values, text):
    with pytest.raises(ValueError, match=text):
        eval_scale(variant, **values)


def test_a_cell_is_native_where_it_is_not_given():
    assert eval_scale("static_tokens") == PAPER.native
    assert eval_scale("vanilla", size=448) == Scale(16, 448, 16)
    assert eval_scale(VARIANTS["temporal"].using(NANO), num_frames=4) == Scale(4, 32, 8)


def test_a_step_before_the_first_is_refused():
    with pytest.raises(ValueError, match=r"step \(-1\) must be at least 0"):
        scale_at("static_tokens", seed=0, step=-1)


def test_flex_all_size_without_a_divisor_is_refused():
    with pytest.raises(ValueError, match=r"sizes \(97\) must have a divisor"):
        ScaleSets(sizes=(97,))


def test_tokens_are_those_of_all_frames_without_what_fills_no_patch():
    assert Scale(8, 224, 16).num_tokens == 8 * 14 * 14
    assert Scale(3, 100, 16).grid == 6 and Scale(3, 100, 16).num_tokens == 108


def test_paper_sets_are_those_of_section_3_3():
    assert PAPER.sizes == (96, 128, 224, 384) and PAPER.frames == (8, 16, 32, 64)
    assert PAPER.flexivit_size == 240 and all(240 % p == 0 for p in PAPER.flexivit_patches)
    of_96 = {s.patch_size for s in drawn("flex_all") if s.size == 96}
    assert of_96 == {12, 16, 24, 32, 48}


def test_one_scale_a_step_is_the_papers_draw():
    for variant in VARIANTS:
        for step in range(50):
            assert scales_at(variant, seed=3, step=step) == (scale_at(variant, seed=3, step=step),)


@pytest.mark.parametrize("groups", [2, 3, 4, 8])
@pytest.mark.parametrize("variant", ["static_tokens", "static_patch"])
def test_dealt_scales_come_equally_often_in_a_cycle_and_in_a_step_of_whole_decks(variant, groups):
    bound = VARIANTS[variant].using(NANO)
    for values, name in ((NANO.sizes, "size"), (NANO.frames, "num_frames")):
        drawn = [
            [getattr(scale, name) for scale in scales_at(bound, seed=1, step=step, groups=groups)]
            for step in range(10 * len(values))
        ]
        for cycle in range(0, len(drawn), len(values)):
            counts = Counter(value for step in drawn[cycle : cycle + len(values)] for value in step)
            assert len(counts) == len(values) and set(counts.values()) == {groups}
        if groups % len(values) == 0:
            assert all(set(Counter(step).values()) == {groups // len(values)} for step in drawn)
    pairs = Counter(
        (scale.size, scale.num_frames)
        for step in range(60)
        for scale in scales_at(bound, seed=1, step=step, groups=groups)
    )
    assert len(pairs) == 12  # sizes do not follow frames: their cards are shuffled apart


@pytest.mark.parametrize("sets", [NANO, PAPER])
@pytest.mark.parametrize("groups", [2, 3, 4, 5, 6, 7, 8, 12])
def test_values_come_equally_often_to_one_in_every_step(sets, groups):
    variant = VARIANTS["static_patch"].using(sets)
    for name, values in (("num_frames", sets.frames), ("size", sets.sizes)):
        steps = [
            [getattr(scale, name) for scale in scales_at(variant, seed=2, step=step, groups=groups)]
            for step in range(60)
        ]
        for step in steps:
            counts = [step.count(value) for value in values]
            assert max(counts) - min(counts) <= 1 and sum(counts) == groups
        cards = list(chain(*steps))  # and every deck still holds each once
        decks = [cards[i : i + len(values)] for i in range(0, len(cards), len(values))]
        assert all(sorted(deck) == sorted(values) for deck in decks if len(deck) == len(values))
        assert len({tuple(deck) for deck in decks}) > 2


def test_where_decks_do_not_end_inside_a_step_their_order_is_the_shuffled_one():
    """Weights trained on dealt scales of such sets are those of earlier versions."""
    variant = VARIANTS["static_tokens"].using(NANO)
    drawn = [s.size for step in range(4) for s in scales_at(variant, seed=7, step=step, groups=2)]
    expected = []
    for deck in range(2):
        order = list(range(4))
        random.Random(f"7/deck/2/{list(NANO.sizes)}/{deck}").shuffle(order)
        expected += [NANO.sizes[number] for number in order]
    assert drawn == expected


@pytest.mark.parametrize("groups", [2, 4, 5])
def test_what_a_step_holds_more_of_favours_no_value(groups):
    variant = VARIANTS["static_patch"].using(NANO)
    more = Counter()
    for step in range(3000):
        counts = Counter(
            scale.num_frames for scale in scales_at(variant, seed=5, step=step, groups=groups)
        )
        least = min(counts[value] for value in NANO.frames)
        more.update(value for value in NANO.frames if counts[value] > least)
    assert set(more.values()) == {sum(more.values()) // 3}  # three steps hold each as often


def test_patches_of_a_size_repeat_as_independent_draws_do():
    drawn = (scales_at("flex_all", seed=0, step=step, groups=4) for step in range(4000))
    patches = [scale.patch_size for scale in chain(*drawn) if scale.size == 224]
    assert len(set(patches)) == 4 and len(patches) == 4000
    repeats = [len(set(patches[i : i + 4])) < 4 for i in range(0, 4000, 4)]
    assert mean(repeats) == pytest.approx(1 - 24 / 256, abs=0.03)  # 4!/4^4 of four are different


def test_independent_scales_repeat_themselves_and_begin_with_the_papers():
    drawn = [
        scales_at("static_tokens", seed=0, step=step, groups=4, draw="independent")
        for step in range(200)
    ]
    assert [scales[0] for scales in drawn] == [
        scale_at("static_tokens", seed=0, step=step) for step in range(200)
    ]
    doubled = sum(len({scale.size for scale in scales}) < 4 for scales in drawn)
    assert abs(doubled / 200 - (1 - 24 / 256)) < 0.07  # 4!/4^4 of four draws are all different


def test_scales_of_a_step_depend_on_seed_and_step_alone():
    for draw in ("dealt", "independent"):
        one, again, other = (
            [scales_at("flex_all", seed=seed, step=s, groups=4, draw=draw) for s in range(20)]
            for seed in (0, 0, 1)
        )
        assert one == again and one != other


def test_number_of_scales_is_that_of_the_product_of_the_sets():
    assert num_scales("vanilla") == 1 and num_scales("temporal") == 4
    assert num_scales("static_tokens") == 16 and num_scales("flexivit") == 40
    patches = sum(1 for size in PAPER.sizes for patch in range(12, 49) if size % patch == 0)
    assert num_scales("flex_all") == 4 * patches


def test_sets_of_lists_are_those_of_tuples():
    values = {
        "sizes": [96, 128],
        "frames": [8, 16],
        "flexivit_patches": [12],
        "flex_all_patches": [12, 48],
    }
    lists, tuples = ScaleSets(**values), ScaleSets(**{k: tuple(v) for k, v in values.items()})
    assert lists == tuples and hash(lists) == hash(tuples)
    for draw in ("dealt", "independent"):
        one, other = (
            scales_at(VARIANTS["static_tokens"].using(sets), seed=0, step=3, groups=2, draw=draw)
            for sets in (lists, tuples)
        )
        assert one == other


@pytest.mark.parametrize("draw", ["dealt", "independent"])
def test_a_variant_of_several_scales_draws_by_choice_alone(draw):
    def drawing(frames_of):
        return Variant(name="mine", draw=lambda rng, sets: Scale(frames_of(rng), 32, 8))

    any_way = drawing(lambda rng: rng.randint(4, 16))
    assert 4 <= scale_at(any_way, seed=0, step=0).num_frames <= 16
    with pytest.raises(
        ValueError, match=r"rng \(randint\) must be .* choice alone .*one scale a step"
    ):
        scales_at(any_way, seed=0, step=0, groups=2, draw=draw)
    by_choice = drawing(lambda rng: rng.choice(range(4, 17)))
    assert num_scales(by_choice) == 13
    assert len(scales_at(by_choice, seed=0, step=0, groups=2, draw=draw)) == 2


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"variant": "vanilla", "groups": 2},
            r"groups \(2\) must not exceed the 1 scales that vanilla draws from; use at most 1",
        ),
        ({"variant": "temporal", "groups": 5}, r"the 4 scales that temporal draws from"),
        ({"variant": "temporal", "groups": 0}, r"groups \(0\) must be at least 1"),
        (
            {"variant": "temporal", "groups": 2, "draw": "cards"},
            r"draw \('cards'\) must be one of: dealt, independent",
        ),
    ],
)
def test_impossible_groups_are_refused(values, text):
    with pytest.raises(ValueError, match=text):
        scales_at(**{"seed": 0, "step": 0, **values})
