"""What cells cost on a machine, kept as JSON: beside the weights, or in the folder of weights by name.

There for weights that came with the package, whose folder is no user's, and where no file can be written beside them.
"""

import json
from pathlib import Path

from stretchysnake.models.weights.published.cache import weights_folder
from stretchysnake.models.weights.shipped.shipped import FOLDER
from stretchysnake.whole_file import write_whole


def read_costs(weights: Path, key: str) -> dict:
    """Cell -> its costs, as kept under this key; {} where nothing is, or nothing to believe."""
    beside, away = _places(weights)
    return {**_read(beside).get(key, {}), **_read(away).get(key, {})}


def keep_costs(weights: Path, key: str, costs: dict) -> None:
    """Keep them where there is a place; OSError of the last one that took no file."""
    beside, away = _places(weights)
    if not beside.resolve().is_relative_to(FOLDER.resolve()):
        try:
            return _keep(beside, key, costs)
        except OSError:
            pass  # a folder of others, or full: the other place says so if it is too
    _keep(away, key, costs)


def _places(weights: Path) -> tuple[Path, Path]:
    name = f"{weights.name}.cost.json"
    return weights.with_name(name), weights_folder() / f"{weights.resolve().parent.name}-{name}"


def _keep(path: Path, key: str, costs: dict) -> None:
    write_whole(path, json.dumps({**_read(path), key: costs}, indent=1))


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}  # absent, or not ours to believe: measured again
    return content if isinstance(content, dict) else {}
