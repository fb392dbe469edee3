"""Table 2 without anything of others: small files of random weights as the published ones are laid out, and lists of
MotionDigits under the six data sets' names. Every step runs as with real files; its numbers mean nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from stretchysnake.models.architectures import build_model
from stretchysnake.recipes.table2.systems import DATASETS, SYSTEMS, System, systems_named
from stretchysnake.recipes.table2.table2 import Table2Run

NUM_FRAMES, SIZE, NUM_CLASSES = 4, 32, 5

_VIT = {"embed_dim": 64, "depth": 2, "num_heads": 1, "patch_size": 16}
_SWIN = {"embed_dim": 32, "depths": (1, 1), "num_heads": (1, 2), "window_size": (2, 4, 4)}
SMALL: dict[str, dict] = {
    "aim": _VIT,
    "cast": _VIT,
    "evl": {**_VIT, "decoder_depth": 1, "decoder_width": 64, "decoder_heads": 1},
    "fluxvit": {"embed_dim": 64, "depth": 1, "num_heads": 1, "patch_size": 16, "pool_heads": 16},
    "hiera": {"embed_dim": 8, "num_heads": 1, "depths": (1, 1, 1, 1)},
    "mvit": {"embed_dim": 8, "depth": 3, "pool_blocks": (1,), "kv_stride": 2},
    "omnivore": _SWIN,
    "timesformer": {"embed_dim": 64, "depth": 1, "num_heads": 1},
    "uniformer": {"embed_dims": (16, 16, 64, 64), "depths": (1, 1, 1, 1)},
    "uniformer_v2": {**_VIT, "global_layers": (0, 1), "global_heads": 1},
    "video_swin": _SWIN,
    "videomamba": {"embed_dim": 32, "depth": 2},
}
"""Architecture -> what of its config's defaults is small."""


def made_systems(systems: Sequence[System] = SYSTEMS) -> list[System]:
    """The systems at 4 × 32 px, with small models."""
    return [_made(system) for system in systems]


def _made(system: System) -> System:
    config = system.config()
    scale = {"num_frames": NUM_FRAMES, "image_size": SIZE, "num_classes": NUM_CLASSES}
    sizes = tuple({**SMALL[config.architecture], **scale}.items())
    # what the loader asks for beside a decoder of no published width
    companion = system.companion and "CLIP.pt"
    return replace(system, num_frames=NUM_FRAMES, size=SIZE, changes=sizes, companion=companion)


def make_weights(folder: Path, systems: Sequence[System]) -> list[Path]:
    """Write a file for each made system, under its published name, and its companion; their paths.

    Weights of the i-th of `systems` are drawn with seed i.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for place, system in enumerate(systems):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(place)
            state = dict(build_model(system.config()).state_dict())
        path = folder / (system.files or system.own_names)[0]
        if system.companion:
            tower = {
                n.removeprefix("clip."): state.pop(n) for n in list(state) if n.startswith("clip.")
            }
            torch.save(tower, folder / system.companion)
        torch.save(_wrapped(system, state), path)
        paths.append(path)
    return paths


def _wrapped(system: System, state: dict[str, Tensor]) -> dict:
    """As the authors' training saved it; around names that are theirs already."""
    match system.name:
        case "TimeSFormer":
            return {"epoch": 1, "model_state": {f"model.{n}": x for n, x in state.items()}}
        case "MViT" | "Hiera-B" | "Hiera-L":
            return {"epoch": 1, "model_state": state, "cfg": "made"}
        case "VideoSwin" | "AIM":
            return {"meta": {}, "state_dict": state}
        case "Omnivore":
            parts = {
                part: {
                    n.removeprefix(f"{part}."): x for n, x in state.items() if n.startswith(part)
                }
                for part in ("trunk", "heads")
            }
            return parts
        case "EVL":
            return {"model": {f"module.{n}": x for n, x in state.items()}, "next_step": 1}
        case "CAST" | "FluxViT-S" | "FluxViT-B":
            return {"module": state}
        case "vanilla" | "static_tokens":
            return {"model": state}
    return state


def make_lists(
    folder: Path,
    *,
    gallery: int = 24,
    queries: int = 12,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Write MotionDigits' videos, and a train and a test list (val for ssv2) of them for each data set."""
    from stretchysnake.data.motion_digits import MotionDigitsSizes, generate
    from stretchysnake.data.records import read_records, write_records

    sizes = MotionDigitsSizes(source=0, source_test=0, gallery=gallery, query=queries)
    lists = generate(folder.parent / "motion-digits", sizes=sizes, progress=progress)
    suites = ("short", "short", "long", "long", "fine", "fine")
    for (dataset, asks), suite in zip(DATASETS.items(), suites, strict=True):
        (folder / dataset).mkdir(parents=True, exist_ok=True)
        for subset, path in zip(("train", asks), lists[suite], strict=True):
            records = [replace(r, path=str(Path(r.path).resolve())) for r in read_records(path)]
            write_records(folder / dataset / f"{subset}.csv", records)


def make(
    run: Table2Run, *, progress: Callable[[str], None] | None = None
) -> tuple[Table2Run, list[System]]:
    """Weights, lists and videos under run.out; (the run on them, its systems). ValueError where real ones are given."""
    for name in ("weights", "data"):
        if (folder := getattr(run, name)) is not None:
            raise ValueError(
                f"{name} ({folder}) is of real files, and --demo makes its own; leave one of them out"
            )
    out, systems = Path(run.out), made_systems()
    make_weights(out / "weights", systems_named(run.systems, tuple(systems)))
    make_lists(out / "lists", progress=progress)
    return replace(run, weights=str(out / "weights"), data=str(out / "lists")), systems
