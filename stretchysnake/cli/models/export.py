"""`stretchysnake export`: a model as a program that runs without this package."""

from dataclasses import dataclass

from stretchysnake.cli.options import fetched, parsed
from stretchysnake.eval.features.placement import check_device

EXAMPLES = (
    "stretchysnake export runs/mine/weights.safetensors --out model.pt2\n"
    "  stretchysnake export runs/mine/weights.safetensors --out model.onnx --frames 16 --size 32"
)


@dataclass(frozen=True, kw_only=True)
class ExportRun:
    """A program of its own, kept only if its outputs are the model's to 1e-4.

    .pt2 is of torch.export and takes any T, H and W of two tokens or more, where the model can be traced so; .onnx
    takes one scale.
    """

    out: str
    """File to write; .pt2 or .onnx."""
    frames: int | None = None
    """Frames of the ONNX model, or of the example a .pt2 is traced with; null means the native number."""
    size: int | None = None
    """Pixels per side, likewise; it also chooses the patch. null means the native size."""
    device: str = "cpu"
    """Where the model computes what the program's outputs are compared with: "cpu", "cuda" or e.g. "cuda:1"; the
    program is in fp32 and of the CPU, whatever is said here."""

    def __post_init__(self):
        check_device(self.device)


def run(argv: list[str]) -> int:
    run, paths = parsed("export", ExportRun, EXAMPLES, argv, paths="one file of weights, or a name")
    if len(paths) != 1:
        raise ValueError(f"weights ({', '.join(paths)}) must be one file; export one after another")
    if not run.out.endswith((".pt2", ".onnx")):
        raise ValueError(f"out ({run.out}) must end in .pt2 (torch.export) or .onnx")
    from stretchysnake.eval.features.placement import ON_CPU
    from stretchysnake.eval.features.subject import class_names, read_subject
    from stretchysnake.flexibility import eval_scale
    from stretchysnake.models.accepted_scales import check_scales
    from stretchysnake.models.exporting import (
        TOLERANCE,
        dynamic_ranges,
        export_onnx,
        export_program,
        takes_any_size,
    )
    from stretchysnake.ranks import SINGLE

    device = SINGLE.device(run.device)
    model, variant, metadata = read_subject(fetched(paths[0]), ON_CPU)
    scale = eval_scale(variant, num_frames=run.frames, size=run.size)
    check_scales(model.config, [scale], way_out="choose other --frames or --size")
    export = export_onnx if run.out.endswith(".onnx") else export_program
    found = export(
        run.out,
        model,
        num_frames=scale.num_frames,
        size=scale.size,
        patch_size=scale.patch_size,
        classes=class_names(model, metadata),
        device=device,
    )
    takes = f"1 video of T={scale.num_frames} S={scale.size}"
    if export is export_program and takes_any_size(model):
        takes = dynamic_ranges(model.config.frame_multiple, scale.patch_size)
    shapes = ", ".join("x".join(map(str, shape[2:])) for shape in found.shapes)
    print(
        f"{run.out}: patch {scale.patch_size}, takes {takes}; largest difference from the model "
        f"{found.difference:.1e} (allowed {TOLERANCE:g}) on {shapes}"
    )
    if export is export_program and not takes_any_size(model):
        print(
            f"one scale only: torch.export cannot keep T, H and W of {model.config.architecture} open"
        )
    return 0
