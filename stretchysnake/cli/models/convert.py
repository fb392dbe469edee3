"""`stretchysnake convert`: an official checkpoint of any architecture as safetensors with a card."""

from dataclasses import dataclass

from stretchysnake.cli.options import parsed

EXAMPLES = (
    "stretchysnake convert videomamba_t16_k400_f16_res224.pth --out tiny-k400.safetensors\n"
    "  stretchysnake convert mine.pth --out mine.safetensors --frames 32 --source 'our lab' --licence CC-BY-4.0\n"
    "  stretchysnake convert evl_b16_k400.pth --clip ViT-B-16.pt --out evl.safetensors"
)


@dataclass(frozen=True, kw_only=True)
class ConvertRun:
    """An official checkpoint (.pth) as safetensors with a card: source, licence, SHA-256, config, every resize."""

    out: str
    """File to write; .safetensors."""
    source: str | None = None
    """Where the file is from; known for files under their published names."""
    licence: str | None = None
    """Licence of the weights; null means not stated."""
    part: str | None = None
    """Which weights of a file that holds several, e.g. model_ema; null: the model rather than its average."""
    clip: str | None = None
    """CLIP's own file, for a published one that leaves its tower out; null: the file of its name beside it."""
    frames: int | None = None
    """Frames to store E_temp for; null means those of the file."""
    size: int | None = None
    """Pixels per side to store E_pos for; null means that of the file."""
    dtype: str = "fp32"
    """"bf16" halves the file: what is multiplied is rounded to bf16, biases, norms, positions and the scan's own
    parameters stay. Loaded, the weights are fp32 with the values of the file."""


def run(argv: list[str]) -> int:
    run, paths = parsed("convert", ConvertRun, EXAMPLES, argv, paths="one checkpoint")
    if len(paths) != 1:
        raise ValueError(
            f"checkpoints ({', '.join(paths)}) must be one file; convert one after another"
        )
    from stretchysnake.models.architectures import config_from_dict
    from stretchysnake.models.weights.converting import convert

    changes = {"num_frames": run.frames, "image_size": run.size}
    card = convert(
        paths[0],
        run.out,
        source=run.source,
        licence=run.licence,
        part=run.part,
        clip=run.clip,
        dtype=run.dtype,
        **{name: value for name, value in changes.items() if value is not None},
    )
    for name in ("source", "licence", "file", "sha256"):
        print(f"{name}: {card[name]}")
    if card["part"]:
        print(f"taken from it: {card['part']}")
    config = config_from_dict(card["config"])
    native = config.native
    print(
        f"config: {config.architecture}, C={config.feature_dim}, T={native.num_frames}, S={native.size}, "
        f"P={native.patch_size}, {config.num_classes} classes"
    )
    for note in card["changes"]:
        print(f"changed: {note}")
    if not card["changes"]:
        print("changed: nothing; every tensor is bit for bit the file's")
    for name in card["left_out"]:
        print(f"left out: {name}")
    print(f"weights: {run.out}")
    return 0
