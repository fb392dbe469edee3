"""Rows say their precision and device: a cell is measured anew in another, and neither report nor plan mixes them."""

import shutil
from dataclasses import replace

import pytest
import torch

from stretchysnake.eval.features.placed_model import placed
from stretchysnake.eval.features.placement import ON_CPU, Placement
from stretchysnake.eval.features.subject import read_subject
from stretchysnake.eval.sweeps import model_under_test as testing
from stretchysnake.eval.sweeps.cost import estimate_memory, is_joined
from stretchysnake.eval.sweeps.evaluate import evaluate
from stretchysnake.eval.sweeps.evaluate_run import EvaluateRun
from stretchysnake.flexibility import Scale
from stretchysnake.results.rows import latest, read_rows
from stretchysnake.search import plan as planning
from stretchysnake.search.budget import Budget
from stretchysnake.search.plan import plan

BF16 = {"device": "cpu", "precision": "bf16"}


@pytest.fixture(scope="module")
def asked(trained, clip_folder, query_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    return EvaluateRun(
        weights=trained[1].weights, gallery=str(clip_folder), queries=str(query_folder), out=str(out), frames=[4],
        sizes=[16], dataset="toy", device="cpu", num_workers=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows(asked):
    """Of fp32 and of bf16."""
    return [*evaluate(asked), *evaluate(replace(asked, precision="bf16"))]


def test_a_cell_is_measured_once_in_each_precision(asked, rows):
    assert [row.precision for row in rows] == ["fp32", "bf16"]
    assert rows[0].run_id != rows[1].run_id and rows[0].weights == rows[1].weights
    assert read_rows(asked.out) == rows
    assert evaluate(asked) == rows[:1] and evaluate(replace(asked, precision="bf16")) == rows[1:]
    assert len(read_rows(asked.out)) == 2
    with pytest.raises(ValueError, match="was measured in fp32 and in bf16"):
        latest(rows)


def test_a_plan_takes_the_rows_of_its_precision(asked, rows, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "ROUNDS", 1)
    monkeypatch.setattr(planning, "REPEATS", 1)
    weights = shutil.copyfile(trained[1].weights, tmp_path / "weights.safetensors")
    plans = [
        plan(weights, Budget("mebibytes", 1e6), rows, placement=placement)
        for placement in (ON_CPU, Placement(**BF16))
    ]
    assert [len(made.cells) for made in plans] == [1, 1]
    kept = (tmp_path / "weights.safetensors.cost.json").read_text()
    assert (
        kept.count('"4x16x4"') == 2 and kept.count("bf16") == 1
    )  # measured in each, and told apart
    with pytest.raises(
        ValueError, match=r"no cell measured in precision bf16, only in: fp32; measure it with"
    ):
        plan(weights, Budget("mebibytes", 1e6), rows[:1], placement=Placement(**BF16))


def test_memory_is_counted_as_the_device_and_precision_need_it(trained):
    model, *_ = read_subject(trained[1].weights, ON_CPU)
    assert is_joined(model)
    assert is_joined(placed(model, Placement(**BF16)))  # the kernels take bf16 in and out
    one, several = (
        estimate_memory(model.config, Scale(8, 32, 8), batch_size=1, joined=joined)
        for joined in (True, False)
    )
    assert several > one  # the single operations hold more than the one that joins them


def test_rows_name_the_gpu_that_measured(trained, monkeypatch):
    monkeypatch.setattr(testing, "device_of", lambda model: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA H100 {device}")
    assert testing.model_under_test(trained[1].weights).device == "NVIDIA H100 cuda:0"


def test_a_run_refuses_what_cannot_be(asked):
    for name, value, told in (
        ("device", "tpu", r"device \('tpu'\) must be one of"),
        ("precision", "int4", r"precision \('int4'\) must be one of"),
        ("batch_size", 0, r"batch_size \(0\) must be at least 1"),
        ("num_workers", -1, r"num_workers \(-1\) must be at least 0"),
    ):
        with pytest.raises(ValueError, match=told):
            replace(asked, **{name: value})
