"""`stretchysnake classify`: the classes of videos, by a fine-tuned model or by the head that weights bring."""

import re
import sys
from dataclasses import dataclass

from stretchysnake.cli.budget import within_budget
from stretchysnake.cli.options import VIDEOS, parsed, tell_passed_over
from stretchysnake.cli.progress import Progress
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.shown import shown

EXAMPLES = (
    "stretchysnake classify clip.mp4 --weights videomamba_m16_k400_f16_res224.pth --html classes.html\n"
    "  stretchysnake classify holiday/ --weights W --classes names.txt --views 4x3\n"
    "  stretchysnake classify new.mp4 holiday/ --model runs/my-classes -k 3"
)
FLAGS = ("--top",)
"""-k in a word; the parser knows --k."""


@dataclass(frozen=True, kw_only=True)
class ClassifyRun:
    """The most probable classes of videos: by weights that bring a classifier (--weights), or by a folder that
    `stretchysnake finetune` wrote (--model)."""

    weights: str | None = None
    """Weights with a classifier: an official checkpoint, a fine-tuned weights.safetensors, or a name: `stretchysnake
    weights` lists them."""
    model: str | None = None
    """Instead of weights: folder that finetune wrote."""
    classes: str | None = None
    """What the outputs of --weights are called: a file (one name a line, JSON as labels.json, or a list with label and
    class_name), or kinetics400, kinetics400-opengvlab, ssv2, breakfast, breakfast-vis4mer, imagenet1k. Null: what the
    weights say, classes.txt beside them, or the order of a published file that is known."""
    k: int = 5
    """-k or --top: how many classes per video."""
    html: str | None = None
    """-o: write a page with the frames looked at and the classes of every video."""
    views: str = "1x1"
    """Clips x crops of each video whose probabilities are averaged, e.g. 4x3: of a fine-tuned head. Crops: 1 (the
    middle) or 3 squares along the longer side."""
    frames: int | None = None
    """Frames of a clip; null means the native number, or what the classifier was made with."""
    size: int | None = None
    """Pixels per side; null means the native size, or what the classifier was made with."""
    picture: str | None = None
    """"whole" squashes it to a square, "centre" takes the middle square, as official weights were tested; null: centre
    for --weights, whole for --model unless there are 3 crops."""
    sampling: str = "uniform"
    """Which frames make a clip: "uniform", "strided", or as published weights were tested (docs/table2.md):
    "videomamba", "timesformer", "mvit", "uniformer", "swin", "evl", "omnivore", "cast"."""
    stride: int = 1
    """Frames from one to the next; of sampling strided and of all published ones but videomamba and omnivore."""
    budget: str | None = None
    """What one clip may cost, e.g. "5 GFLOPs"; of a fine-tuned head only, which reads any scale. Needs rows."""
    rows: str | None = None
    """Rows of `stretchysnake evaluate`, which tell the accuracy of every scale."""
    device: str = "auto"
    """Where the model computes: "cpu", "cuda" or e.g. "cuda:1"; "auto" means a GPU if there is one, else the CPU."""
    precision: str | None = None
    """"fp32", "bf16" or, on a CPU, "int8"; null means the model's own. Another one only for a fine-tuned head: k-NN and
    probe compare features of one precision."""
    batch_size: int | None = None
    """Clips in a forward pass; null: all of a video."""
    num_workers: int = 2
    """Processes that decode; 0 decodes in this process, where a bad file may take it down."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Time that each second of a video may take to decode; a file that takes longer is left out."""


def run(argv: list[str]) -> int:
    short = {"-k": "--k", "--top": "--k", "-o": "--html"}
    argv = [
        f"--k={word.removeprefix('--top=')}" if word.startswith("--top=") else word for word in argv
    ]
    run, paths = parsed("classify", ClassifyRun, EXAMPLES, argv, paths=VIDEOS, short=short)
    if run.k < 1:
        raise ValueError(f"k ({run.k}) must be at least 1")
    if run.batch_size is not None and run.batch_size < 1:
        raise ValueError(f"batch_size ({run.batch_size}) must be at least 1, or null")
    if (run.weights is None) == (run.model is None):
        both = "both are given" if run.weights else "neither is given"
        raise ValueError(
            f"weights and model ({both}): give --weights FILE, whose head is used, or --model FOLDER of finetune"
        )
    if run.classes is not None and run.model is not None:
        raise ValueError(
            f"classes ({run.classes}) name the outputs of --weights; a model of finetune knows its own"
        )
    views, crops = _views(run.views)
    if crops > 1 and run.picture == "whole":
        raise ValueError(
            f"views ({run.views}) cuts {crops} squares out of the picture, and picture (whole) squashes it into one; "
            f"use views {views}x1, or picture centre"
        )
    if run.html:
        from stretchysnake.report.pages.template import check_page

        check_page("html", run.html)  # before the work, not after it
    from stretchysnake.data.clips.clip_source import DecodingLimits
    from stretchysnake.data.clips.frame_choice import Sampling
    from stretchysnake.data.decode_error import DecodeError
    from stretchysnake.eval.protocols.video_classes import classes_of
    from stretchysnake.search.named_videos import videos_named

    videos = [video.path for video in videos_named(paths)]
    progress = Progress()
    classifier = _opened(run, views, crops, progress)
    picture = run.picture
    if picture is None and run.model is not None and crops == 1 and classifier.fit == "square":
        picture = "whole"  # as finetune's own test
    answers = classes_of(
        classifier,
        videos,
        num_views=views,
        num_crops=crops,
        picture=picture,
        sampling=Sampling(rule=run.sampling, stride=run.stride),
        batch_size=run.batch_size,
        limits=DecodingLimits(num_workers=run.num_workers, timeout_seconds=run.timeout_seconds),
        progress=progress,
    )
    found, failures = [], []
    for answer in answers:
        if isinstance(answer, DecodeError):
            failures.append(answer)
            continue
        chances, order = answer.probabilities.sort(descending=True, stable=True)
        best = [
            (classifier.classes[label], chance)
            for label, chance in zip(
                order[: run.k].tolist(), chances[: run.k].tolist(), strict=True
            )
        ]
        found.append(_shown(answer, best, views, crops) if run.html else (answer.path, best))
    progress.close()
    for error in failures:
        print(f"skipped {shown(error)}", file=sys.stderr)
    for path, best in ((one.path, one.best) if run.html else one for one in found):
        told = ", ".join(f"{name} {100 * chance:.1f} %" for name, chance in best)
        print(shown(f"{path}: {told}"))
    if run.html:
        _write_page(run, classifier, found, [str(error) for error in failures])
    tell_passed_over(paths, file=sys.stderr)
    return 0 if not failures else 1


def _views(text: str) -> tuple[int, int]:
    """(clips, crops) of "4x3"."""
    match = re.fullmatch(r"([1-9]\d{0,3})\s*[x×]\s*([13])", str(text).strip())
    if match is None:
        raise ValueError(
            f"views ({text}) must be clips x crops, with 1 or 3 crops: e.g. 1x1, 4x1 or 4x3"
        )
    return int(match[1]), int(match[2])


def _opened(run: ClassifyRun, views: int, crops: int, progress: Progress):
    """The classifier asked for, at the scale asked for; says where the class names are from."""
    from dataclasses import replace

    from stretchysnake.eval.features.placed_model import placed
    from stretchysnake.eval.features.placement import Placement
    from stretchysnake.eval.protocols.classifier import (
        WEIGHTS,
        classifier_of_weights,
        load_classifier,
        precision_for,
    )
    from stretchysnake.flexibility import eval_scale

    if run.rows is not None and run.budget is None:
        raise ValueError(
            f"rows ({run.rows}) say which scale is best for a budget; give --budget too"
        )
    frames, size = run.frames, run.size
    given = run.frames, run.size
    if run.weights is not None:
        placement = Placement(device=run.device, precision=run.precision or "fp32")
        if run.budget is not None:
            asked = (run.weights, run.budget, run.rows, given, progress, placement)
            frames, size = within_budget(*asked)
        options = {"num_frames": frames, "size": size, "classes": run.classes}
        classifier, source = classifier_of_weights(run.weights, placement=placement, **options)
        _check_crops(run, classifier, crops)
        print(f"class names: {shown(source)}", file=sys.stderr)
        return classifier
    classifier = load_classifier(run.model)
    _check_crops(run, classifier, crops)
    placement = Placement(device=run.device, precision=precision_for(classifier, run.precision))
    placed(classifier.model, placement)
    own = classifier.scale
    asked = {"budget": run.budget, "frames": frames, "size": size}
    for name, value in asked.items() if classifier.kind != "finetune" else ():
        if value is not None:
            raise ValueError(
                f"{name} ({value}) needs a fine-tuned model; this one ({classifier.kind}) compares features of one "
                f"scale (T={own.num_frames} S={own.size}): choose the scale when it is made, finetune --frames --size"
            )
    if (views, crops) != (1, 1) and classifier.kind != "finetune":
        raise ValueError(
            f"views ({run.views}) needs a fine-tuned model; this one ({classifier.kind}) compares whole videos: 1x1"
        )
    if run.budget is not None:
        weights = f"{run.model}/{WEIGHTS}"
        frames, size = within_budget(weights, run.budget, run.rows, given, progress, placement)
    if frames is None and size is None:
        return classifier
    from stretchysnake.eval.features.placement import ON_CPU
    from stretchysnake.eval.features.shapes import check_fit
    from stretchysnake.eval.features.subject import read_subject

    variant = read_subject(f"{run.model}/{WEIGHTS}", ON_CPU)[1]
    frames, size = own.num_frames if frames is None else frames, own.size if size is None else size
    scale = eval_scale(variant, num_frames=frames, size=size)
    way_out = "choose other --frames or --size"
    check_fit(classifier.model.config, [scale], fit=classifier.fit, way_out=way_out)
    return replace(classifier, scale=scale)


def _check_crops(run: ClassifyRun, classifier, crops: int) -> None:
    if crops > 1 and classifier.fit == "keep":
        raise ValueError(
            f"views ({run.views}) cuts squares out of the picture, and these weights see it whole (fit keep); "
            "use one crop"
        )


_ROW, _HEIGHT = 8, 96


def _shown(answer, best: list[tuple[str, float]], views: int, crops: int):
    """A video as the page shows it: a strip of the frames of every clip, rows of 8."""
    import numpy as np
    import torch

    from stretchysnake.data.clips.transforms import resize_frames
    from stretchysnake.data.decoding.video import jpeg_bytes
    from stretchysnake.report.pages.classes_page import ShownClasses

    height, width = answer.clips.shape[-3:-1]
    size = _HEIGHT, max(2, 2 * round(_HEIGHT * width / height / 2))
    small = resize_frames(torch.as_tensor(answer.clips), size).numpy()
    strips = []
    for number, frames in enumerate(small):
        rows = [list(frames[start : start + _ROW]) for start in range(0, len(frames), _ROW)]
        blank = np.full_like(frames[0], 127)
        rows = [row + [blank] * (min(_ROW, len(frames)) - len(row)) for row in rows]
        picture = np.concatenate([np.concatenate(row, axis=1) for row in rows])
        view, crop = divmod(number, crops)
        what = f"clip {view + 1} of {views}" + (
            f", crop {crop + 1} of {crops}" if crops > 1 else ""
        )
        strips.append((what, jpeg_bytes(picture)))
    return ShownClasses(path=answer.path, best=best, strips=strips)


def _write_page(run: ClassifyRun, classifier, found: list, failures: list[str]) -> None:
    from stretchysnake.report.pages.classes_page import write_classes_page

    scale = classifier.scale
    facts = [
        ("Classes", f"{len(classifier.classes)} known to the model"),
        ("Scale", f"T={scale.num_frames} frames, S={scale.size} px, P={scale.patch_size} px"),
        (
            "Looked at",
            f"{run.views.replace('×', 'x')} clips x crops a video, frames by rule {run.sampling}",
        ),
        ("Weights", run.weights or run.model),
    ]
    write_classes_page(run.html, found, facts=facts, failures=failures)
    print(f"page: {run.html}")
