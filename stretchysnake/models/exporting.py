"""A model as a program of its own: torch.export with any T, H and W where that can be, or ONNX at one scale; checked.

Both hold plain operations only, so they run without this package; the selective scan is a loop inside
(ops/selective_scan/exported.py).
"""

import copy
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stretchysnake.models.architectures import build_model
from stretchysnake.models.backbone import Backbone
from stretchysnake.models.weights.loading import load_weights
from stretchysnake.shown import first_line
from stretchysnake.whole_file import unfinished_file

TOLERANCE = 1e-4
"""Largest difference of features and logits from the model's own that a written program may show."""
INSTALL_ONNX = "pip install 'stretchysnake[export]'"
_LARGEST = {"tokens": 4096, "grid": 64}
"""Temporal tokens and patches per side that a dynamic program may be given; the least is 2 of each, for torch.export
makes a size of 1 a program of its own."""


def dynamic_ranges(frame_multiple: int, patch_size: int) -> str:
    """What a program of `export_program` takes, in words, where it is not of one scale."""
    steps = "" if frame_multiple == 1 else f" in steps of {frame_multiple}"
    return (
        f"1 video of T from {2 * frame_multiple} to {_LARGEST['tokens'] * frame_multiple}{steps}, H and W from "
        f"{2 * patch_size} to {_LARGEST['grid'] * patch_size} in steps of {patch_size}"
    )


def takes_any_size(model: Backbone) -> bool:
    """Whether torch.export keeps T, H and W of this model open: its config says so, as a test has seen.

    Others have Python numbers that follow from T or S (windows, strides, clips of frames) in their programs.
    """
    return getattr(model.config, "exports_any_size", False)


class Checked(NamedTuple):
    """What a written program was compared on."""

    shapes: list[tuple[int, ...]]
    """(B, 3, T, H, W) of each video."""
    difference: float
    """The largest difference from the model over all of them."""


class _Outputs(nn.Module):
    """video (1, 3, T, H, W) -> features (1, C) and, where the model has a head, logits (1, num_classes)."""

    def __init__(self, model: Backbone, patch_size: int):
        super().__init__()
        self.model, self.patch_size = model, patch_size

    def forward(self, video: Tensor) -> tuple[Tensor, ...]:
        features = self.model.features(video, self.patch_size)
        if self.model.config.num_classes:
            return features, self.model.head(features)
        return (features,)


def export_program(
    path: str | os.PathLike,
    model: Backbone,
    *,
    num_frames: int,
    size: int,
    patch_size: int,
    classes: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
) -> Checked:
    """Write a torch.export program (.pt2) for a video (1, 3, T, H, W) of any T, H and W in `dynamic_ranges`.

    Of a model that cannot be traced so (see `takes_any_size`) the program takes (1, 3, num_frames, size, size) alone.
    The patch is fixed; positions are resized inside. The names of the classes, where given, are the extra file
    classes.json (a list) of torch.export.load. Load with torch.export.load(path).module(). RuntimeError, and no file,
    where it cannot be traced or where what was written differs from the model by more than 1e-4 on the example and
    two other shapes; `device` is where the model computes for that.
    """
    tubelet = model.config.frame_multiple
    fixed = not takes_any_size(model)
    too_large = size > _LARGEST["grid"] * patch_size or num_frames > _LARGEST["tokens"] * tubelet
    if too_large and not fixed:
        raise ValueError(
            f"frames ({num_frames}) and size ({size}) are those of the example; the program takes "
            f"{dynamic_ranges(tubelet, patch_size)}"
        )
    whole = _Outputs(model.eval(), patch_size)
    Dim = torch.export.Dim
    dims = {
        2: _multiple(Dim("t", min=2, max=_LARGEST["tokens"]), tubelet),
        3: _multiple(Dim("h", min=2, max=_LARGEST["grid"]), patch_size),
        4: _multiple(Dim("w", min=2, max=_LARGEST["grid"]), patch_size),
    }
    side = max(size, 2 * patch_size)
    example = torch.zeros(1, 3, max(num_frames, 3 * tubelet), side, side)
    more = (
        (2 * tubelet, 3 * patch_size, 2 * patch_size),
        (5 * tubelet, 2 * patch_size, 4 * patch_size),
    )
    if fixed:
        example, more = torch.zeros(1, 3, num_frames, size, size), ()
    shapes = [tuple(example.shape), *((1, 3, *shape) for shape in more)]
    with unfinished_file(path) as part:
        with torch.inference_mode(False), torch.no_grad():
            program = _or_refused(
                "torch.export",
                lambda: torch.export.export(
                    whole,
                    (example,),
                    dynamic_shapes=None if fixed else (dims,),
                    prefer_deferred_runtime_asserts_over_guards=not fixed,
                ),
            )
            named = {} if classes is None else {"classes.json": json.dumps(list(classes))}
            torch.export.save(program, part, extra_files=named)
            with (
                warnings.catch_warnings()
            ):  # torch 2.11 reads weights from bytes that cannot be written
                warnings.filterwarnings("ignore", "The given buffer is not writable")
                loaded = torch.export.load(part).module()
        return _checked(path, whole, loaded, shapes, device)


def export_onnx(
    path: str | os.PathLike,
    model: Backbone,
    *,
    num_frames: int,
    size: int,
    patch_size: int,
    classes: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
) -> Checked:
    """Write an ONNX model for videos (1, 3, num_frames, size, size); weights are resized to this scale beforehand.

    Inputs and outputs are named video, features and logits; the names of the classes, where given, are
    the metadata property "classes" (a JSON list). RuntimeError, and no file, where onnx, onnxscript or
    onnxruntime is missing, where it cannot be converted, or where onnxruntime's outputs differ by more than 1e-4.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 torch.onnx needs it and would say so less clearly
    except ImportError as error:
        raise RuntimeError(f"export to ONNX needs {error.name}: {INSTALL_ONNX}") from None
    config = replace(model.config, num_frames=num_frames, image_size=size, patch_size=patch_size)
    with torch.random.fork_rng(devices=[]):
        fixed = build_model(config).eval()
    load_weights(fixed, {name: tensor.detach() for name, tensor in model.state_dict().items()})
    whole = _Outputs(fixed, patch_size)
    example = torch.zeros(1, 3, num_frames, size, size)
    names = ["features", "logits"][: 1 + bool(config.num_classes)]
    scans = False

    def convert():
        nonlocal scans
        program = torch.export.export(whole, (example,))
        scans = torch.ops.higher_order.scan in {node.target for node in program.graph.nodes}
        return torch.onnx.export(
            program, dynamo=True, input_names=["video"], output_names=names, verbose=False
        )

    with unfinished_file(path) as part, torch.inference_mode(False), torch.no_grad():
        with _quiet():
            converted = _or_refused("torch.onnx", convert)
            if classes is not None:
                converted.model.metadata_props["classes"] = json.dumps(list(classes))
            converted.save(part)
        if scans and not any(node.op_type == "Scan" for node in onnx.load(part).graph.node):
            raise RuntimeError(f"{path} was refused: the scan is not one Scan node of the graph")
        session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])

        def run(video: Tensor) -> Iterable[Tensor]:
            return map(torch.from_numpy, session.run(None, {"video": video.numpy()}))

        model_outputs = _Outputs(model.eval(), patch_size)  # resizes for itself: checked, too
        return _checked(path, model_outputs, run, [tuple(example.shape)], device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch.onnx says about its own future and about torchvision, which this model does not use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _multiple(dim, factor: int):
    return dim if factor == 1 else factor * dim


def _or_refused(tool: str, work: Callable):
    try:
        return work()
    except Exception as error:
        raise RuntimeError(f"{tool} refuses this model: {first_line(error, 300)}") from error


def _checked(
    path, whole: nn.Module, run: Callable, shapes: list[tuple[int, ...]], device: torch.device | str
) -> Checked:
    """Compare on random videos with the model on `device`; the file is not kept when this raises."""
    if torch.device(device).type != "cpu":
        whole = copy.deepcopy(whole).to(device)
    differences: list[float] = []
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for shape in shapes:
            video = torch.randn(shape, generator=generator)
            for output, wanted in zip(run(video), whole(video.to(device)), strict=True):
                differences.append(float((output - wanted.cpu()).abs().max()))
    difference = float(torch.tensor(differences).max())  # of NaN, NaN
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"{Path(path).name} was refused: its outputs differ from the model's by {difference:.1e}, "
            f"more than {TOLERANCE:g}; nothing was written"
        )
    return Checked(shapes, difference)
