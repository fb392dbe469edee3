"""Every architecture of the table through every verb: two training steps, measures, an index, a classifier, files."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import pytest
import torch
import toy_backbone
from small_backbones import SMALL, small_config

from stretchysnake import cli
from stretchysnake.data.clips.loader import open_clips
from stretchysnake.data.clips.transforms import normalise
from stretchysnake.data.records import read_records
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.protocols.classifier import load_classifier
from stretchysnake.flexibility import sets_around
from stretchysnake.models import exporting
from stretchysnake.models.architectures import ARCHITECTURES, build_model
from stretchysnake.models.backbone import pixels_of
from stretchysnake.models.exporting import export_onnx, export_program
from stretchysnake.models.weights.files import read_checkpoint
from stretchysnake.models.weights.loading import load_model
from stretchysnake.results.rows import read_rows
from stretchysnake.search.index import read_index
from stretchysnake.search.query import search
from stretchysnake.train.loop import train
from stretchysnake.train.run import TrainRun

NAMES = [*ARCHITECTURES, "toy"]
every = pytest.mark.parametrize("name", NAMES)
PROGRAM = Path(__file__).parent / "train" / "two_ranks.py"
SLICED = ("videomamba", "uniformer", "mvit")
"""Whose training with sliced weights every run of the tests does: the SSM, one with batch norms, one that pools. The
others, which share their layers, are among the slow tests."""


@pytest.fixture(scope="module", autouse=True)
def toy():
    """A backbone of the tests' own among those of the table."""
    with pytest.MonkeyPatch.context() as patch:
        toy_backbone.install(patch)
        yield


def config_of(name, **changes):
    if name == "toy":
        return toy_backbone.ToyConfig(**changes)
    return small_config(name, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("backbones")


@pytest.fixture(scope="module")
def run_of(clip_folder, folder):
    """run_of(architecture, out): two steps of static tokens; all read one frame cache."""

    def run(name, out, **changes):
        config = config_of(name)
        return TrainRun(
            **{
                "data": str(clip_folder), "out": str(folder / out), "model": config, "steps": 2,
                "sets": sets_around(config.native), "batch_size": 4, "cache": str(folder / "cache"),
                "cache_frames": 8, "cache_size": 56, "checkpoint_every": 1, "ema_decay": 0.9, "seed": 3, **changes,
            }
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def weights_of(run_of):
    """architecture -> weights file of its training, made when first asked for."""
    return cache(lambda name: str(train(run_of(name, name)).weights))


def test_every_architecture_has_a_small_config():
    assert set(SMALL) == set(ARCHITECTURES) - {"toy"}


@every
def test_two_steps_train_most_weights_and_resume_bit_for_bit(name, run_of, weights_of):
    """Dropout, drop path and running statistics among what comes back; the global generator has no part in it."""
    ended = read_checkpoint(weights_of(name))[0]
    torch.manual_seed(3)
    fresh = build_model(load_model(weights_of(name))[0].config).state_dict()
    same = {key for key in ended if torch.equal(ended[key], fresh[key])}
    assert len(same) < len(ended) / 2, same
    run, again = run_of(name, name), run_of(name, f"{name}-resumed")
    shutil.copytree(run.out, again.out)
    Path(again.out, "run.json").unlink()
    shutil.rmtree(*Path(again.out, "checkpoints").glob("step-*2"))
    torch.manual_seed(99)
    for file in ("weights.safetensors", "weights_ema.safetensors"):
        Path(again.out, file).unlink()
    train(again)
    for file in ("weights.safetensors", "weights_ema.safetensors"):
        before, after = (read_checkpoint(Path(one.out, file))[0] for one in (run, again))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), file


@every
def test_evaluate_measures_features_and_head(name, weights_of, query_folder, clip_folder, folder):
    """Retrieval and the head agree with what is computed here by hand on the clips' own pixels."""
    out = folder / f"{name}.jsonl"
    native = config_of(name).native
    words = [
        "--gallery",
        clip_folder,
        "--queries",
        query_folder,
        "--out",
        out,
        "--cache",
        folder / "eval",
    ]
    words += ["--cache_frames", 8, "--cache_size", 56, "--protocols", "[retrieval,finetune]"]
    words += ["--frames", f"[{native.num_frames}]", "--sizes", f"[{native.size}]"]
    assert cli.main(["evaluate", "--weights", weights_of(name), *map(str, words)]) == 0
    rows = {row.protocol: row for row in read_rows(out)}
    assert {row.architecture for row in rows.values()} == {name}
    assert {row.num_queries for row in rows.values()} == {12}
    right = 0
    model, _, metadata = read_subject(weights_of(name))
    records = read_records(query_folder)
    clips = open_clips(records, cache=str(folder / "eval"), num_frames=8, size=56)
    with torch.no_grad():
        for record, views in zip(
            records, clips.draw_views(range(12), native, num_views=1, num_crops=1), strict=True
        ):
            video = normalise(torch.as_tensor(views), **pixels_of(model.config))
            logits = model(video, native.patch_size)
            right += metadata["classes"][int(logits.argmax())] == record.class_name
    assert rows["finetune"].value == pytest.approx(right / 12)


@every
def test_an_index_is_searched_with_the_model_that_made_it(name, weights_of, clip_folder, folder):
    index, query = folder / f"{name}-index", str(Path(clip_folder, "class1", "2.mp4"))
    assert (
        cli.main(["embed", str(clip_folder), "--weights", weights_of(name), "--out", str(index)])
        == 0
    )
    found = read_index(index)
    assert found.settings.architecture == name
    assert found.features.shape == (12, config_of(name).feature_dim)
    best = search(str(index), query, k=1).hits[0]
    assert best.row.file.path == query and best.score == pytest.approx(1, abs=1e-5)


@every
def test_a_head_is_trained_on_top_and_classifies(name, weights_of, clip_folder, folder, capsys):
    out = str(folder / f"{name}-classes")
    words = ["--steps", "1", "--batch_size", "2", "--method", "finetune"]
    assert (
        cli.main(
            ["finetune", str(clip_folder), "--weights", weights_of(name), "--out", out, *words]
        )
        == 0
    )
    classifier = load_classifier(out)
    assert classifier.model.config.num_classes == 3
    capsys.readouterr()
    assert (
        cli.main(["classify", str(Path(clip_folder, "class1", "2.mp4")), "--model", out, "-k", "3"])
        == 0
    )
    told = capsys.readouterr().out
    assert all(f"class{label}" in told for label in range(3))


@every
def test_converting_our_own_file_changes_nothing(name, weights_of, folder, capsys):
    out = str(folder / f"{name}-again.safetensors")
    assert cli.main(["convert", weights_of(name), "--out", out]) == 0
    assert f"config: {name}, C=" in capsys.readouterr().out
    before, after = read_checkpoint(weights_of(name))[0], read_checkpoint(out)[0]
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in ("toy", "evl") else pytest.mark.slow) for n in NAMES]
)
def test_a_program_has_logits_where_the_model_has_a_head(name, weights_of, folder, monkeypatch):
    """At one scale, which every model can be traced at; of any size in the slow test below."""
    model = load_model(weights_of(name))[0]
    monkeypatch.setattr(exporting, "takes_any_size", lambda model: False)
    native = model.config.native
    scale = {"num_frames": native.num_frames, "size": native.size, "patch_size": native.patch_size}
    found = export_program(folder / f"{name}.pt2", model, **scale)
    assert found.shapes == [(1, 3, native.num_frames, native.size, native.size)]
    assert found.difference < 1e-5
    outputs = torch.export.load(folder / f"{name}.pt2").module()(torch.zeros(found.shapes[0]))
    assert [tuple(one.shape) for one in outputs] == [(1, model.config.feature_dim), (1, 3)]


@pytest.fixture(scope="module")
def on_two_ranks(run_of, folder):
    """(architecture, "ddp" or "fsdp") -> what two ranks said of the training; all of them in one start of torchrun."""
    asked = [(name, "ddp") for name in ARCHITECTURES] + [(name, "fsdp") for name in SLICED]
    return trained_on_two_ranks(run_of, folder, asked)


@pytest.fixture(scope="module")
def others_sliced(run_of, folder):
    """The same of "fsdp" for the others."""
    asked = [(name, "fsdp") for name in ARCHITECTURES if name not in SLICED]
    return trained_on_two_ranks(run_of, folder, asked)


def trained_on_two_ranks(run_of, folder, asked):
    jobs = []
    for name, parallel in asked:
        if name == "toy":  # the other processes do not know it
            continue
        run = whole_run(run_of, name, f"{name}-one")
        train(run)  # once; the second time it is found
        two = replace(run, parallel=parallel, out=str(folder / f"{name}-{parallel}"))
        jobs.append({"run": asdict(two)})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *command, str(PROGRAM), str(folder / "jobs.json")],
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            told = json.loads(line)
            name, parallel = Path(told["out"]).name.rsplit("-", 1)
            said.setdefault((name, parallel), []).append(told)
    return said


def whole_run(run_of, name, out):
    """Two steps in fp64 without dropout, whose masks are each rank's own; drop path follows the clips and stays."""
    run = run_of(name, out, precision="fp64", checkpoint_every=2)
    rates = {field: 0.0 for field in ("dropout", "head_dropout") if hasattr(run.model, field)}
    return replace(run, model=replace(run.model, **rates))


@pytest.mark.parametrize(
    ("name", "parallel"),
    [*((name, "ddp") for name in ARCHITECTURES), *((name, "fsdp") for name in SLICED)],
)
def test_two_ranks_train_as_one(name, parallel, on_two_ranks, folder):
    as_one(name, parallel, on_two_ranks[name, parallel], folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in SLICED])
def test_two_ranks_with_sliced_weights_train_as_one(name, others_sliced, folder):
    as_one(name, "fsdp", others_sliced[name, "fsdp"], folder)


def as_one(name, parallel, told, folder):
    assert sorted(one["rank"] for one in told) == [0, 1]
    first, second = (one["statistics"] for one in told)
    assert first == second
    alone, together = (
        read_checkpoint(folder / f"{name}-{how}" / "weights.safetensors")[0]
        for how in ("one", parallel)
    )
    assert alone.keys() == together.keys()
    if first:  # batch norms see the clips of their own rank: the weights are others, the statistics agreed on
        kept = [
            key
            for key in together
            if key.endswith(("running_mean", "running_var", "num_batches_tracked"))
        ]
        assert sorted(together[key].double().sum().item() for key in kept) == pytest.approx(
            sorted(first)
        )
        assert any(together[key].double().sum() != 0 for key in kept if key.endswith("mean"))
        return
    for key, tensor in alone.items():
        assert (tensor - together[key]).abs().max() < 1e-9, key


@pytest.mark.extra("export")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name != "toy" else []) for name in NAMES],
)
def test_onnx_of_another_scale_has_the_models_outputs(name, weights_of, folder):
    import onnx

    model = load_model(weights_of(name))[0]
    native, path = model.config.native, folder / f"{name}.onnx"
    scale = {
        "num_frames": native.num_frames,
        "size": 2 * native.size,
        "patch_size": 2 * native.patch_size,
    }
    assert export_onnx(path, model, **scale).difference < 1e-4
    scans = [node.op_type for node in onnx.load(path).graph.node].count("Scan")
    assert scans == (2 * model.config.depth if name == "videomamba" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_a_program_of_any_size_is_written_where_a_config_says_so(name, weights_of, folder, capsys):
    out = str(folder / f"{name}-any.pt2")
    assert cli.main(["export", weights_of(name), "--out", out]) == 0
    told = capsys.readouterr().out
    assert ("one scale only" in told) == (name not in ("videomamba", "aim"))
