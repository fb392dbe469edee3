"""Exported programs: dynamic and without our operations, ONNX with a Scan node, and nothing written that is wrong."""

import contextlib
import importlib.util
import io
import json
import subprocess
import sys

import pytest
import torch

from stretchysnake import VideoMamba, VideoMambaConfig, cli, save_model
from stretchysnake.models import exporting
from stretchysnake.models.exporting import export_onnx, export_program

pytestmark = [
    pytest.mark.filterwarnings("ignore:The given buffer is not writable"),
]  # torch 2.11

NATIVE = {"num_frames": 4, "size": 16, "patch_size": 8}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(2)
    model = VideoMamba(
        VideoMambaConfig(
            embed_dim=16, depth=1, patch_size=8, image_size=16, num_frames=4, num_classes=3
        )
    )
    with torch.no_grad():
        torch.nn.init.normal_(model.temporal_pos_embedding)
        torch.nn.init.normal_(model.cls_token)
    return model.eval()


@pytest.fixture(scope="module")
def program(model, tmp_path_factory):
    """(the exported file, what the command printed)"""
    folder = tmp_path_factory.mktemp("export")
    save_model(folder / "w.safetensors", model, classes=["run", "jump", "läuft"])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        arguments = [folder / "w.safetensors", "--out", folder / "model.pt2"]
        assert cli.main(["export", *map(str, arguments)]) == 0
    return folder / "model.pt2", printed.getvalue()


def test_one_program_takes_any_frames_and_sizes(model, program):
    path, printed = program
    takes = "takes 1 video of T from 2 to 4096, H and W from 16 to 512 in steps of 8; largest"
    assert takes in printed
    assert printed.rstrip().endswith("on 4x16x16, 2x24x16, 5x16x32")
    written = torch.export.load(path)
    assert "stretchysnake" not in str(written.graph)
    assert str(written.graph).count("torch.ops.higher_order.scan") == 2  # loops, not unrolled
    loaded = written.module()
    for shape in ((4, 16, 16), (2, 16, 24), (3, 16, 16), (9, 40, 16), (31, 24, 24), (64, 16, 16)):
        video = torch.randn(1, 3, *shape)
        with torch.no_grad():
            for found, wanted in zip(
                loaded(video), (model.features(video), model(video)), strict=True
            ):
                torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "shape",
    [(1, 3, 1, 16, 16), (1, 3, 4, 8, 16), (1, 3, 4, 16, 17), (1, 3, 4, 16, 520), (2, 3, 4, 16, 16)],
    ids=["one frame", "one patch", "no multiple", "too wide", "two videos"],
)
def test_what_the_printed_ranges_leave_out_is_refused_not_answered(program, shape):
    loaded = torch.export.load(program[0]).module()
    with pytest.raises((AssertionError, RuntimeError), match=r"Guard failed|assertion failed"):
        loaded(torch.zeros(shape))


def test_an_example_outside_the_ranges_is_named_before_tracing(model, tmp_path):
    text = r"size \(520\) are those of the example; .* H and W from 16 to 512 in steps of 8"
    with pytest.raises(ValueError, match=text):
        export_program(tmp_path / "m.pt2", model, num_frames=4, size=520, patch_size=8)


def test_the_program_holds_the_names_of_its_classes(program):
    held = {"classes.json": ""}
    torch.export.load(program[0], extra_files=held)
    assert json.loads(held["classes.json"]) == ["run", "jump", "läuft"]


@pytest.mark.slow
def test_the_program_runs_without_this_package(program, tmp_path):
    script = (
        "import sys, torch; sys.modules['stretchysnake'] = None; "
        f"print(torch.export.load({str(program[0])!r}).module()(torch.zeros(1, 3, 5, 24, 16))[0].shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == "torch.Size([1, 16])", done.stderr


@pytest.mark.extra("export")
def test_onnx_holds_scan_nodes_and_agrees(model, tmp_path):
    import onnx

    path = tmp_path / "model.onnx"
    names = ["run", "jump", "läuft"]
    found = export_onnx(path, model, num_frames=5, size=24, patch_size=8, classes=names)
    held = {one.key: one.value for one in onnx.load(path).metadata_props}
    assert json.loads(held["classes"]) == names
    assert found.shapes == [(1, 3, 5, 24, 24)]
    assert found.difference <= 1e-5
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    assert nodes.count("Scan") == 2
    assert {node.domain for node in onnx.load(path).graph.node} <= {"", "pkg.onnxscript.torch_lib"}


def test_a_program_that_differs_is_refused(model):
    whole = exporting._Outputs(model, 8)
    with pytest.raises(
        RuntimeError, match=r"m\.pt2 was refused: its outputs differ .* by 1\.0e-03"
    ):
        exporting._checked(
            "m.pt2",
            whole,
            lambda video: [t + 1e-3 for t in whole(video)],
            [(1, 3, 4, 16, 16)],
            "cpu",
        )


@pytest.mark.parametrize("stage", ["export", "load"])
def test_nothing_is_left_where_it_fails(model, tmp_path, monkeypatch, stage):
    def fails(*_, **__):
        raise RuntimeError("on purpose")

    traced = fails if stage == "export" else lambda *_, **__: None
    monkeypatch.setattr(torch.export, "export", traced)
    monkeypatch.setattr(torch.export, "save", lambda _, part, **__: part.write_bytes(b"x"))
    monkeypatch.setattr(torch.export, "load", fails)
    with pytest.raises(RuntimeError, match="on purpose"):
        export_program(tmp_path / "m.pt2", model, **NATIVE)
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_are_not_numbers_are_refused(model):
    whole = exporting._Outputs(model, 8)
    with pytest.raises(RuntimeError, match="was refused"):
        exporting._checked(
            "m.pt2",
            whole,
            lambda v: [t * float("nan") for t in whole(v)],
            [(1, 3, 4, 16, 16)],
            "cpu",
        )


def test_missing_onnx_names_the_command(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RuntimeError, match=r"needs onnx: pip install 'stretchysnake\[export\]'"):
        export_onnx(tmp_path / "m.onnx", model, **NATIVE)


def test_mistakes_are_one_line_and_write_nothing(model, tmp_path, capsys, monkeypatch):
    save_model(tmp_path / "w.safetensors", model)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", "w.safetensors", "--out", "m.pt"]) == 2
    assert "out (m.pt) must end in .pt2 (torch.export) or .onnx" in capsys.readouterr().err
    assert cli.main(["export", "w.safetensors", "w.safetensors", "--out", "m.pt2"]) == 2
    assert "must be one file" in capsys.readouterr().err
    if importlib.util.find_spec("onnxruntime") is None:
        assert cli.main(["export", "w.safetensors", "--out", "m.onnx"]) == 2
        assert "pip install 'stretchysnake[export]'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
