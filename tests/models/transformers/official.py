"""Outputs of the official code, kept in tests/fixtures/peers, and in a folder of your own.

Files of the same form in the folder that the environment variable STRETCHYSNAKE_FIXTURES names are checked too.
"""

import json
import os
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

PEERS = Path(__file__).parents[2] / "fixtures" / "peers"


def fixtures_of(model: str) -> list[Path]:
    """The files whose `model` is this, by their metadata or else by the beginning of their name."""
    folders = [PEERS, *map(Path, filter(None, [os.environ.get("STRETCHYSNAKE_FIXTURES")]))]
    paths = sorted(path for folder in folders for path in folder.rglob("*.safetensors"))
    return [path for path in paths if _model_of(path) == model]


def read_fixture(path: Path) -> tuple[dict[str, Tensor], dict]:
    """(tensors, metadata with its JSON read) of a fixture."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 not a dict
        metadata = file.metadata()
    return tensors, {name: _read(text) for name, text in metadata.items()}


def weights_of(tensors: dict[str, Tensor], prefix: str = "model.") -> dict[str, Tensor]:
    """The official state dict of a fixture."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def full_size_keys(name: str) -> dict[str, list[int]]:
    """Name -> shape of every tensor of a published file."""
    return json.loads((PEERS / f"{name}_keys.json").read_text())


def relative(found: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((found.double() - wanted.double()).abs().max() / wanted.double().abs().max())


def _model_of(path: Path) -> str:
    with safe_open(path, framework="pt") as file:
        said = (file.metadata() or {}).get("model")
    names = ("timesformer", "uniformer_v2", "uniformer")  # their fixtures do not say it
    return said or next((name for name in names if path.name.startswith(name)), path.stem)


def _read(text: str):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
