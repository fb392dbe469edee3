"""What the study trains and measures, as data: parts, conditions, budgets, and rows of an earlier sitting."""

from dataclasses import replace
from itertools import product

import pytest

from stretchysnake.eval.sweeps.cost import count_flops
from stretchysnake.flexibility import NANO, Scale
from stretchysnake.models.architectures import config_named
from stretchysnake.recipes.study.conditions import conditions, trainings
from stretchysnake.recipes.study.design import PARTS, RATES, StudyRun
from stretchysnake.recipes.study.kept_rows import is_measured, places_of, rows_of
from stretchysnake.recipes.study.measuring import equal_views, measurements, parts_of
from stretchysnake.recipes.study.stored_rows import check_weights
from stretchysnake.results.rows import Row, append_rows

ONE = StudyRun(seeds=(0, 1), only=("main",), finetune_steps=0)
TUNED = ("finetune", "probe-sgd")


def plan(study):
    return list(trainings(study, data="-", cache="-"))


def test_every_part_has_a_condition_or_a_measurement_and_is_done_seed_after_seed():
    study = StudyRun(seeds=(3, 1))
    parts = {part for c in conditions(study) for part in parts_of(study, c)}
    assert parts == set(PARTS)
    listed = [(t.condition.part, t.seed) for t in plan(study)]
    assert listed == sorted(
        listed, key=lambda one: (list(PARTS).index(one[0]), study.seeds.index(one[1]))
    )
    assert [t.shown for t in plan(study)[:3]] == ["vanilla", "static_tokens", "vanilla"]
    assert all(rate > 0 for rate in RATES.values())


def test_conditions_differ_from_the_main_runs_in_what_they_say():
    study = StudyRun(seeds=(0,), steps=100, start_steps=300, rates={"mvit-nano vanilla": 1e-3})
    by_name = {training.shown: training for training in plan(study)}
    static = by_name["static_tokens"].run
    assert replace(by_name["static_tokens k=4"].run, scales_per_step=1, out=static.out) == static
    pi = by_name["static_tokens pi kernels"].run
    assert pi.model.patch_resize == "pi" and static.model.patch_resize == "bicubic"
    scratch = by_name["static_tokens from scratch"]
    assert scratch.start is None and scratch.run.weights is None and scratch.run.steps == 400
    assert replace(scratch.run, steps=100, weights=static.weights, out=static.out) == static
    equal = by_name["static_patch equal tokens"].run
    tokens = [
        (size // 8) ** 2 for size in equal.sets.sizes
    ]  # a frame's, each size as often as another
    assert sum(tokens) / len(tokens) == pytest.approx(16, rel=0.02)
    assert by_name["mvit-nano vanilla"].run.optim.lr == 1e-3
    other = by_name["mvit-nano static_tokens"]
    assert other.run.optim.lr == study.optim.lr
    # what both go on from has vanilla's rate, whatever their own
    assert other.start == by_name["mvit-nano vanilla"].start and other.start.optim.lr == 1e-3
    assert by_name["vanilla"].start.optim.lr == study.optim.lr


def test_all_of_a_seed_and_model_go_on_from_one_vanilla_at_the_native_scale():
    for training in plan(StudyRun(seeds=(2,), steps=100, start_steps=300)):
        if training.condition.scratch:
            continue
        start = training.start
        assert training.run.weights == f"{start.out}/weights.safetensors"
        name = f"{training.peer}-start" if training.peer else "start"
        assert start.out.endswith(f"/{name}-seed2-300") and start.variant == "vanilla"
        assert (start.steps, start.seed, start.sets.native.num_frames) == (300, 2, 8)
        assert start.model.patch_resize == "bicubic" and start.optim == training.run.optim
        assert training.num_steps == 400
    scratch = plan(StudyRun(seeds=(2,), start_steps=0))
    assert not [t for t in scratch if t.start or t.run.weights or t.condition.scratch]


def test_a_sitting_does_what_it_names_and_a_wrong_name_is_told():
    far = StudyRun(only=("far",), seeds=(0,))
    wanted = [
        c.shown for c in conditions(far) if any(far.wants(p, c.shown) for p in parts_of(far, c))
    ]
    assert wanted == ["vanilla", "static_tokens"]
    assert (
        len(list(places_of(far, plan(far)[0], only_wanted=True))) == 3 * 3
    )  # three cells, three suites
    with pytest.raises(
        ValueError, match=r"only \(mian\) is not in this study \(did you mean main\?\)"
    ):
        conditions(StudyRun(only=("mian",)))
    with pytest.raises(
        ValueError, match=r"rates \(vanila\) is not in this study \(did you mean vanilla"
    ):
        conditions(StudyRun(rates={"vanila": 1.0}))
    with pytest.raises(
        ValueError, match=r"far_size \(110\) must be a multiple of the native patch \(8\)"
    ):
        StudyRun(far_size=110)


def test_views_make_vanilla_cost_what_static_tokens_costs():
    config = config_named("videomamba-nano", num_classes=0)
    found = {cell: views for views, cells in equal_views(StudyRun()).items() for cell in cells}
    assert (
        found[NANO.native.num_frames, NANO.native.size] == 2
    )  # at T = 16 static tokens costs twice
    # four views of 16 frames would be two, twice: the shortest clips have 32 frames
    assert (16, 16) not in found and found[16, 24] == 2
    assert equal_views(StudyRun(suites=("long",)))[4] == [(4, 16), (8, 16), (16, 16)]
    for (t, s), views in found.items():
        spent = views * count_flops(config, Scale(t, s, 8))
        frames = 2 * t if (t, s) == (8, 32) else t
        assert spent == pytest.approx(count_flops(config, Scale(frames, 32, 8)), rel=0.3)


def row(place, seed=0, **changes):
    fields = {
        "run_id": f"{place.settings}-times", "protocol": place.protocol, "dataset": place.dataset,
        "model": place.model, "seed": seed, "num_frames": place.num_frames, "size": place.size,
        "patch_size": 8, "metric": place.metric, "value": 0.5, "num_queries": 600, "num_expected": 600,
        "num_gallery": 480, "gflops": 1.0, "milliseconds": 1.0, "trained": False, "native": False,
        "train_data": "videos", "weights": "a", "train_steps": place.train_steps,
    }  # fmt: skip
    if place.metric == "gallery_top1":
        fields["num_expected"] = 480
    return Row(**(fields | changes))


def test_rows_alone_keep_a_training_from_being_done_again():
    first, second = [t for t in plan(ONE) if t.shown == "vanilla"]
    rows = [row(place) for place in places_of(ONE, first, only_wanted=True)]
    assert (
        len(rows) == 3 * 15 * 6
    )  # suites, cells; retrieval by three metrics, group-safe by two, probe
    assert is_measured(ONE, first, rows, source="videos")
    assert not is_measured(ONE, second, rows, source="videos")  # of another seed
    assert not is_measured(ONE, first, rows[:-1], source="videos")
    assert not is_measured(ONE, first, rows, source="other videos")
    assert not is_measured(
        replace(ONE, steps=3), first._replace(run=replace(first.run, steps=3)), rows
    )
    assert not is_measured(replace(ONE, query_clips=300), first, rows)
    assert not is_measured(replace(ONE, only=("main", "far")), first, rows)
    from_scratch = replace(ONE, start_steps=0)  # the same settings, and not the same training
    assert not is_measured(from_scratch, plan(from_scratch)[0], rows, source="videos")
    oom = [replace(rows[0], value=None, status="oom"), *rows[1:]]
    assert not is_measured(ONE, first, oom, source="videos")


def test_rows_of_two_trainings_of_the_same_settings_are_not_mixed():
    first = plan(ONE)[0]
    places = list(places_of(ONE, first, only_wanted=True))
    before = [row(place) for place in places]
    again = [row(place, run_id=f"{place.settings}-later", weights="b") for place in places[:5]]
    strange = [row(places[0], model="mine", run_id="other")]
    found = rows_of(ONE, [first], [*again, *before, *strange], source="videos")
    assert sorted(map(str, found)) == sorted(map(str, before))
    same = [replace(one, weights="a") for one in again]  # the same bits, trained on another machine
    assert len(rows_of(ONE, [first], [*before, *same], source="videos")) == len(before) + 5


def test_weights_that_differ_from_those_of_the_rows_are_not_measured_beside_them(tmp_path):
    """Rows brought from another machine, whose trainings ended in other bits."""
    run = replace(ONE, out=str(tmp_path))
    first, second = [t for t in plan(run) if t.shown == "vanilla"]
    rows = [row(place) for place in places_of(run, first, only_wanted=True)]
    append_rows(tmp_path / "rows.jsonl", rows)
    check_weights(run, first, "a", source="videos")
    for other in (second, plan(run)[1], first._replace(run=replace(first.run, steps=3))):
        check_weights(run, other, "b", source="videos")
    check_weights(run, first, "b", source="other videos")
    with pytest.raises(
        ValueError, match=r"rows of vanilla, seed 0, of other weights \(a\) .* \(b\)"
    ):
        check_weights(run, first, "b", source="videos")


def test_rows_of_models_tuned_on_each_suite_are_all_kept():
    """Each suite has fine-tuned weights of its own: they are no second training of one model."""
    run = replace(
        ONE, suites=("short", "fine"), finetune_steps=1, sgd_probe=True, source_test_clips=0
    )
    first = plan(run)[0]
    places = list(places_of(run, first, only_wanted=False))
    rows = [
        row(p, weights=f"{p.protocol} {p.dataset}" if p.protocol in TUNED else "a") for p in places
    ]
    assert {(one.protocol, one.dataset) for one in rows} > set(
        product(TUNED, ("motion-digits/short", "motion-digits/fine"))
    )
    assert rows_of(run, [first], rows, source="videos") == rows
    again = [replace(one, weights="later") for one in rows if one.protocol == "finetune"][:2]
    assert rows_of(run, [first], [*again, *rows], source="videos") == rows


def test_each_measurement_has_rows_of_a_name_of_its_own():
    study = StudyRun(seeds=(0,))
    for training in plan(study):
        places = list(places_of(study, training, only_wanted=False))
        assert len(set(places)) == len(places), training.shown
    vanilla = conditions(study)[0]
    assert [m.part for m in measurements(study, vanilla)].count("kernels") == 3
