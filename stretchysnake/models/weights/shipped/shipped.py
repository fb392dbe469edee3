"""Weights that come with the package: nano models of MotionDigits, so that a first minute needs no training.

    path = shipped("stretchysnake-nano").file

Each is a folder of `save_pretrained` beside this file, whose card and header say what it was trained on. table.json
says what they must be: the SHA-256 of the file, and the features of two made clips. Folders and table are written by
`python -m stretchysnake.recipes.shipping NAME=FOLDER_OF_A_TRAINING ...`, and nothing else depends on their bytes.
Imports no torch until a file is read: every verb that knows weights by name asks here, `--help` too.
"""

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stretchysnake.flexibility import Scale
from stretchysnake.models.architectures import config_from_dict

FOLDER = Path(__file__).parent
TABLE = "table.json"


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """One model of the package's own."""

    name: str
    folder: Path
    sha256: str
    """Of its file."""
    features: tuple[tuple[float, ...], ...]
    """Of each of the clips that probes.py makes."""

    @property
    def file(self) -> Path:
        from stretchysnake.models.weights.published.pretrained import WEIGHTS

        return self.folder / WEIGHTS

    @property
    def trained(self) -> dict:
        """What its header says of its training: variant, sets, steps, seed, trained_on, data_licence, …"""
        return self._header["run"]

    @property
    def native(self) -> Scale:
        """The scale that its config is made for."""
        return config_from_dict(self._header["config"]).native

    @property
    def _header(self) -> dict:
        from stretchysnake.models.weights.files import header_of

        return header_of(self.file)

    @property
    def said(self) -> str:
        """What it is, in a line."""
        run = self.trained
        begun = f" from weights of {run['begun']}," if "begun" in run else ""
        return (
            f"came with the package: variant {run['variant']}, trained for {run['steps']:,} steps,{begun} seed "
            f"{run['seed']}, on {run['trained_on']}; licence {run['licence']}, {run['data_licence']}"
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
