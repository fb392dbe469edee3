"""Weights that come with the package: nano models of MotionDigits, so that a first minute needs no training.

    path = shipped("stretchysnake-nano").file

Each is a folder of `save_pretrained` beside this file, whose card and header say what it was trained on. table.json
says what they must be: the SHA-256 of the file, and the features of two made clips. Folders and table are written by
`python -m stretchysnake.recipes.shipping NAME=FOLDER_OF_A_TRAINING ...`, and nothing else depends on their bytes.

Shapes: B clips, T frames, S pixels, P the patch size, C features.
"""

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import config_from_dict
from stretchysnake.models.weights.files import header_of
from stretchysnake.models.weights.from_file import model_of
from stretchysnake.models.weights.published.pretrained import WEIGHTS

FOLDER = Path(__file__).parent
TABLE = "table.json"
PROBES = ((8, 32, 8), (4, 48, 12))
"""(T, S, P) of the clips whose features are stored: the native scale, and one that resizes kernel and positions."""
LIMIT = 1e-4
"""Largest difference from the stored features, relative to the largest of them: far above the rounding of another
processor or release of torch (1e-6), far below what other weights give."""


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """One model of the package's own."""

    name: str
    folder: Path
    sha256: str
    """Of its file."""
    features: tuple[tuple[float, ...], ...]
    """(C) of each clip of PROBES."""

    @property
    def file(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def trained(self) -> dict:
        """What its header says of its training: variant, sets, steps, seed, trained_on, data_licence, …"""
        return header_of(self.file)["run"]

    @property
    def native(self) -> Scale:
        """The scale that its config is made for."""
        return config_from_dict(header_of(self.file)["config"]).native

    @property
    def said(self) -> str:
        """What it is, in a line."""
        run = self.trained
        return (
            f"came with the package: variant {run['variant']}, trained for {run['steps']:,} steps, seed {run['seed']}, "
            f"on {run['trained_on']}; licence {run['licence']}, {run['data_licence']}"
        )


def all_shipped(folder: Path = FOLDER) -> dict[str, Shipped]:
    """Name -> model, the package's own first."""
    table = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    return {
        name: Shipped(
            name=name,
            folder=folder / name,
            sha256=row["sha256"],
            features=tuple(map(tuple, row["features"])),
        )
        for name, row in table.items()
    }


@cache
def _of_the_package() -> dict[str, Shipped]:
    return all_shipped()


def shipped(name: str | os.PathLike) -> Shipped | None:
    """The model of this name; None where it is none, or is a path that exists, which goes before a name."""
    text = os.fspath(name)
    return None if os.path.exists(text) else _of_the_package().get(text)


def shipped_names() -> tuple[str, ...]:
    return tuple(_of_the_package())


def probe_clip(num_frames: int, size: int) -> Tensor:
    """(1, 3, T, S, S) in [-1, 1]: whole numbers, so that every machine makes the same one."""
    count = 3 * num_frames * size * size
    return ((torch.arange(count) * 7919 % 251).float() / 125 - 1).view(1, 3, num_frames, size, size)


def probe_features(file: Path) -> list[list[float]]:
    """(C) features of each clip of PROBES, in fp32 on the CPU."""
    model, _ = model_of(file)
    with torch.inference_mode():
        return [
            model.features(probe_clip(num_frames, size), patch_size=patch)[0].tolist()
            for num_frames, size, patch in PROBES
        ]


def feature_error(model: Shipped) -> float:
    """Largest difference between the features computed here and those stored, relative to the largest stored one."""
    wanted = torch.tensor(model.features)
    found = torch.tensor(probe_features(model.file))
    return float((found - wanted).abs().max() / wanted.abs().max())
