"""Table 2: its list beside the paper's, files as they are published, cells computed another way, what is missing."""

import re
import shutil
from dataclasses import replace

import pytest
import torch

from stretchysnake import cli
from stretchysnake.data.clips.frame_choice import Sampling
from stretchysnake.data.clips.loader import open_clips
from stretchysnake.data.decoding.video import probe, read_frames
from stretchysnake.data.records import read_records, read_with_shared_labels, write_records
from stretchysnake.eval.sweeps.evaluate import evaluate
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import build_model, model_names
from stretchysnake.models.backbone import pixels_of
from stretchysnake.models.weights.loading import load_model
from stretchysnake.recipes.table2.demo import made_systems, make_weights
from stretchysnake.recipes.table2.systems import DATASETS, SYSTEMS, systems_named
from stretchysnake.recipes.table2.table2 import Table2Run, plan, table2
from stretchysnake.report.tables.paper import paper_numbers
from stretchysnake.results.rows import read_rows

pytestmark = [
    pytest.mark.filterwarnings("ignore:weights:UserWarning"),
]
MADE = made_systems()


@pytest.fixture(scope="module")
def folders(tmp_path_factory, clip_folder, query_folder):
    """(weights, lists): a made file of every system, and one data set's lists."""
    root = tmp_path_factory.mktemp("table2")
    make_weights(root / "weights", MADE)
    (root / "lists" / "ucf101").mkdir(parents=True)
    for name, source in (("train", clip_folder), ("test", query_folder)):
        write_records(root / "lists" / "ucf101" / f"{name}.csv", read_records(source))
    return root / "weights", root / "lists"


def run_on(folders, out, **changes):
    weights, lists = map(str, folders)
    return Table2Run(weights=weights, data=lists, out=str(out), datasets=["ucf101"], **changes)


def test_the_list_is_the_papers_in_its_order():
    numbers = paper_numbers("2")
    assert [system.name for system in SYSTEMS] == list(dict.fromkeys(n.model for n in numbers))
    assert list(DATASETS) == list(dict.fromkeys(n.dataset for n in numbers))
    assert {s.model for s in SYSTEMS} <= set(model_names())


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.label)
def test_every_system_can_be_measured_at_its_scale(system):
    config = system.config()
    assert system.num_frames % config.frame_multiple == 0
    assert system.picture == "whole" or system.size % config.native.patch_size == 0
    assert Sampling(rule=system.sampling, stride=system.stride).name


@torch.no_grad()
@pytest.mark.parametrize("place", range(len(MADE)), ids=[system.label for system in MADE])
def test_files_are_found_as_they_are_published(folders, place):
    system = MADE[place]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(place)
        wanted = build_model(system.config()).eval()
    model, _ = load_model(folders[0] / (system.files or system.own_names)[0])
    video = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    patch = system.config().native.patch_size
    assert torch.equal(model(video, patch), wanted(video, patch))


@torch.no_grad()
@pytest.mark.parametrize("system", MADE, ids=lambda system: system.label)
def test_evaluate_takes_every_published_file_over_a_grid(
    folders, clip_folder, query_folder, system, tmp_path, tmp_path_factory
):
    path = folders[0] / (system.files or system.own_names)[0]
    frames = str(tmp_path_factory.getbasetemp() / "table2-frames")  # decoded once for all systems
    run = EvaluateRun(
        weights=str(path), gallery=str(clip_folder), queries=str(query_folder), cache=frames, cache_frames=8,
        out=str(tmp_path / "rows.jsonl"), frames=[8], sizes=[32, 64], batch_size=8,
    )  # fmt: skip
    rows = evaluate(run)
    model, _ = load_model(path)
    lists = read_with_shared_labels(clip_folder, query_folder)
    opened = [open_clips(one, cache=frames, num_frames=8, size=64) for one in lists]
    patch = model.config.native.patch_size
    for row, (num_frames, size) in zip(rows, [(8, 32), (8, 64)], strict=True):
        scale = Scale(num_frames, size, patch)
        assert (row.num_frames, row.size, row.patch_size) == (num_frames, size, patch)
        features = [
            torch.cat([features_of_clip(model, clips.clip(i, scale)) for i in range(len(clips))])
            for clips in opened
        ]
        assert features[0].shape == (12, model.config.feature_dim)
        assert row.value == pytest.approx(top1(lists, features))


def features_of_clip(model, frames):
    """(1, C) of uint8 frames (T, S, S, 3), standardised by hand."""
    video = frames.permute(3, 0, 1, 2)[None].double() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in pixels_of(model.config).values())
    return model.features(((video - mean) / std).float())


def features_of(model, records, indices):
    """(videos, C), each video alone: these frames of it, its whole square picture at 32 px."""
    return torch.cat([
        features_of_clip(model, torch.from_numpy(read_frames(record.path, indices, size=(32, 32))))
        for record in records
    ])  # fmt: skip


def top1(lists, features):
    gallery, queries = (torch.nn.functional.normalize(f.double(), dim=1) for f in features)
    nearest = (queries @ gallery.T).argmax(dim=1)
    right = [q.label == lists[0][int(i)].label for q, i in zip(lists[1], nearest, strict=True)]
    return sum(right) / len(right)


BY_HAND = {
    # 4 frames 4 / 30 s apart of 30 fps: a clip of 16 in 12 frames, from 0: 0 5 10 15
    "Hiera-B": [0, 5, 10, 11],
    # 4 frames 16 apart: the first, and the last one held
    "EVL": [0, 11, 11, 11],
    # 160 frames of 12, 78 to 81 of them: i · 11 / 159
    "Omnivore": [5, 5, 5, 5],
    # every 4th of 12, the last one held
    "CAST": [0, 4, 8, 8],
    # a quarter of 11 apart, 2.75: round(0, 2.75, 5.5, 8.25), and half of it further on, rounded down
    "FluxViT-S": [1, 4, 7, 9],
    # 2 apart, 12 - 8 + 1 = 5 starts, the middle one
    "VideoSwin": [2, 4, 6, 8],
    # 4 apart would need 16 frames: from 0, around the end
    "AIM": [0, 4, 8, 0],
}


@torch.no_grad()
def test_cells_of_the_table_are_what_is_computed_another_way(folders, tmp_path):
    lists = read_with_shared_labels(
        *(folders[1] / "ucf101" / f"{n}.csv" for n in ("train", "test"))
    )
    assert probe(lists[0][0].path).fps == 30
    run = run_on(folders, tmp_path, systems=list(BY_HAND))
    result = table2(run, systems=MADE, made=True)
    assert result.troubles == result.missing == []
    rows = {row.model: row for row in read_rows(tmp_path / "rows.jsonl")}
    assert {(row.dataset, row.picture) for row in rows.values()} == {("demo/ucf101", "centre")}
    for system in systems_named(list(BY_HAND), tuple(MADE)):
        model, _ = load_model(folders[0] / (system.files or system.own_names)[0])
        features = [features_of(model, one, BY_HAND[system.label]) for one in lists]
        value = top1(lists, features)
        assert rows[system.name].value == pytest.approx(value)
        (paper,) = (
            n.value for n in paper_numbers("2") if (n.model, n.dataset) == (system.name, "ucf101")
        )
        mine, theirs, apart = (line for line in result.table.rows if line[0] == system.label)
        assert mine[3].startswith(f"{100 * value:.1f} [") and theirs[3] == f"{paper:.1f}"
        assert float(apart[3].replace("−", "-")) == pytest.approx(100 * value - paper, abs=0.051)
    # the same call again measures nothing
    table2(run, systems=MADE, made=True)
    assert len(read_rows(tmp_path / "rows.jsonl")) == len(BY_HAND)
    text = (tmp_path / "table2.md").read_text()
    assert "| Hiera-B | 4 × 32 | ours |" in text and "MADE weights" in text


def test_without_any_file_the_plan_names_all_of_them():
    text = "\n".join(plan(Table2Run()))
    for system in SYSTEMS:
        assert f"{system.label}: {system.model}, {system.num_frames} × {system.size} px" in text
        assert system.published in text and system.own_names[0] in text
        assert all(name in text for name in system.files)
    assert "ViT-B-16.pt beside evl.pth" in text
    assert "stretchysnake data list ssv2 FOLDER --subset val --out LISTS/ssv2/val.csv" in text
    assert text.endswith("0 of 90 cells can be measured")


def test_the_plan_says_what_is_there(folders, tmp_path):
    lines = plan(run_on(folders, tmp_path), systems=MADE)
    assert sum(line.startswith("    there: ") for line in lines) == len(MADE) + 2
    assert lines[-1] == f"{len(MADE)} of {len(MADE)} cells can be measured"


def test_missing_files_leave_their_cells_empty_and_are_named(folders, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    shutil.copy(folders[0] / "hiera_base_16x224.pth", weights / "aim.pth")
    shutil.copy(folders[0] / "evl.pth", weights)
    run = replace(
        run_on(folders, tmp_path, systems=["Hiera-B", "EVL", "AIM"]), weights=str(weights)
    )
    run = replace(run, datasets=["ucf101", "hmdb51"])
    result = table2(run, systems=MADE, made=True)
    cells = {line[0]: line[3:5] for line in result.table.rows if line[2] == "ours"}
    assert cells["Hiera-B"] == ("– (no weights)", "– (no weights)")
    assert cells["EVL"] == cells["AIM"] == ("– (see below)", "– (no lists)")
    assert [trouble.split(":")[0] for trouble in result.troubles] == ["EVL", "AIM"]
    text = "\n".join([*result.troubles, *result.missing])
    assert "EVL: missing: CLIP.pt beside evl.pth: CLIP's own file, published by OpenAI" in text
    assert (
        "AIM: weights" in text
        and "hold a model of architecture hiera, and aim-base-32 has aim" in text
    )
    assert "missing: hiera_base_16x224.pth or hiera-b.pth in" in text
    assert f"--subset test --out {folders[1]}/hmdb51/test.csv" in text
    assert text in (tmp_path / "table2.md").read_text().replace("- ", "")
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_file_of_another_size_is_named(folders, tmp_path):
    (small,) = systems_named(["FluxViT-S"], tuple(MADE))
    deeper = replace(small, changes=tuple({**dict(small.changes), "depth": 2}.items()))
    make_weights(tmp_path, [deeper])
    run = replace(run_on(folders, tmp_path, systems=["FluxViT-S"]), weights=str(tmp_path))
    (trouble,) = table2(run, systems=MADE, made=True).troubles
    assert (
        "hold a model of depth 2, and fluxvit-small has 1; the file must be: OpenGVLab/" in trouble
    )
    with pytest.raises(ValueError, match=r"on_error \('stop'\) must be one of: report"):
        table2(replace(run, on_error="stop"), systems=MADE)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--systems", "[Sora]"], r"system \(Sora\) must be one of: Uniformer, MViT"),
        (["--datasets", "[k400]"], r"dataset \(k400\) must be one of: ucf101"),
        (["--weights", "/nowhere"], r"weights \(/nowhere\) must be a folder"),
        (["--demo", "--data", "."], r"data \(\.\) is of real files, and --demo makes its own"),
        (["--quick"], "--quick belongs to stretchysnake study motion-digits"),
    ],
)
def test_mistakes_on_the_command_line_are_named(words, text, capsys):
    assert cli.main(["study", "table2", *words]) == 2
    assert re.search(text, capsys.readouterr().err)


def test_the_command_line_prints_the_plan(capsys):
    assert cli.main(["study", "table2", "--systems", "[Hiera-L]", "--datasets", "[coin]"]) == 0
    out = capsys.readouterr().out
    assert "hiera_large_16x224.pth" in out and "0 of 1 cells can be measured" in out
    assert cli.main(["study", "motion-digits", "--demo"]) == 2
    assert "--demo belongs to stretchysnake study table2" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_measures_every_cell(tmp_path, capsys):
    assert cli.main(["study", "table2", "--demo", "--out", str(tmp_path)]) == 0
    rows = read_rows(tmp_path / "rows.jsonl")
    assert {(r.model, r.dataset) for r in rows} == {
        (s.name, f"demo/{d}") for s in MADE for d in DATASETS
    }
    assert all(r.status == "ok" and r.num_queries == r.num_expected == 12 for r in rows)
    assert "see below" not in capsys.readouterr().out
