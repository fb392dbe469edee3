"""The paper's five variants and vanilla: what they draw, and what is tested."""

import pytest

from stretchysnake import NANO, PAPER, VARIANTS, Scale, ScaleSets, eval_scale, scale_at

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
