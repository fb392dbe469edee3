"""A model as a folder that can be passed on and published: config.json, model.safetensors, README.md.

    save_pretrained(model, "my-model", licence="Apache-2.0")
    model = from_pretrained("my-model")          (weights/loading.py)

The weights' own header holds config and training too, so model.safetensors alone is enough to load; config.json is
for those who read the folder, and must say the same.
"""

import json
import os
import re
from pathlib import Path

from stretchysnake.models.architectures import config_to_dict
from stretchysnake.models.backbone import Backbone
from stretchysnake.models.weights.files import NOT_STATED, header_of, save_model
from stretchysnake.whole_file import write_whole

FORMAT = "stretchysnake-model-1"
PARTS = CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def save_pretrained(
    self: Backbone, folder: str | os.PathLike, *, licence: str | None = None, **training
) -> None:
    """Write config.json, model.safetensors and a card with front matter into a new or empty folder.

    A method of every backbone. `training` is what the files say of it beside its config: variant, sets (a dict),
    classes, datasets, …; by default what the weights that it was loaded from said (`model.trained`). The weights are
    written last, so a folder without them is unfinished. ValueError where the folder already holds a model.
    """
    folder = Path(folder)
    if there := [name for name in PARTS if (folder / name).exists()]:
        raise ValueError(f"folder ({folder}) already holds {', '.join(there)}; choose another")
    said = {**getattr(self, "trained", {}), **training}
    classes = said.get("classes")
    if classes is not None and len(classes) != self.config.num_classes:
        raise ValueError(
            f"classes ({len(classes)}) must be one name for each of the {self.config.num_classes} outputs of the head; "
            "give classes=[...], or classes=None for none"
        )
    said = json.loads(
        json.dumps({name: value for name, value in said.items() if value is not None})
    )
    if licence is None:
        licence = said.get("licence") or _card_of(said).get("licence") or NOT_STATED
    said["licence"] = licence
    config = {"format": FORMAT, "library_name": "stretchysnake", **_described(self, said)}
    write_whole(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    write_whole(folder / CARD, card(folder.resolve().name, self, said))
    save_model(folder / WEIGHTS, self, **said)


def model_in_folder(folder: Path) -> Path:
    """model.safetensors of a folder of `save_pretrained`; ValueError for another folder, or where its parts differ."""
    path = folder / WEIGHTS
    if not path.is_file():
        of_training = folder / "weights.safetensors"
        hint = f"; give {of_training}" if of_training.is_file() else ""
        raise ValueError(
            f"weights ({folder}) must be an existing file, or a folder of save_pretrained with {WEIGHTS}{hint}"
        )
    try:
        said = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return path
    except (OSError, ValueError) as error:
        raise ValueError(
            f"config ({folder / CONFIG}) cannot be read ({error}); write the folder again"
        ) from None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        return path  # another library's
    header = header_of(path)
    for name, there in (("config", said.get("config")), ("run", said.get("training"))):
        if there != header.get(name):
            raise ValueError(
                f"weights ({folder}): {CONFIG} and {WEIGHTS} differ in {_first_difference(there, header.get(name))}; "
                "they are not of one model, or one was changed by hand: write the folder again with save_pretrained"
            )
    return path


def card(name: str, model: Backbone, said: dict) -> str:
    """README.md: front matter as the Hub reads it, and in words what the model is and how it is used."""
    licence, native = said["licence"], model.config.native
    front = {
        "license": _hub_licence(licence),
        "library_name": "stretchysnake",
        "pipeline_tag": "video-classification",
        "base_model": _base_model(said),
        "datasets": said.get("datasets"),
        "tags": ["video", model.config.architecture],
    }
    lines = [
        f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items() if value
    ]
    trained = f"variant {said['variant']}" if "variant" in said else "not said how it was trained"
    if "trained_on" in said:
        steps = f" for {said['steps']:,} steps" if "steps" in said else ""
        seed = f", seed {said['seed']}" if "seed" in said else ""
        begun = f", from weights of {said['begun']}," if "begun" in said else ""
        trained += f", trained{steps}{begun} on {said['trained_on']}{seed}"
    of_data = f"; {said['data_licence']}" if "data_licence" in said else ""
    classes = f"{model.config.num_classes} classes" if model.config.num_classes else "no head"
    return "\n".join(
        [
            "---",
            *lines,
            "---",
            "",
            f"# {name}",
            "",
            f"{model.config.architecture}, {model.config.feature_dim} features, {classes}; stored for "
            f"{native.num_frames} frames of {native.size} × {native.size} px, patches of {native.patch_size} px; "
            f"{trained}. Licence: {licence}{of_data}.",
            "",
            "```python",
            "import stretchysnake",
            "",
            f'model = stretchysnake.from_pretrained("{name}")  # this folder, or hf://org/name',
            "```",
            "",
        ]
    )


def _described(model: Backbone, said: dict) -> dict:
    config = json.loads(json.dumps(config_to_dict(model.config)))
    return {"config": config, "training": said}


def _card_of(said: dict) -> dict:
    card = said.get("card")
    return card if isinstance(card, dict) else {}


def _base_model(said: dict) -> str | None:
    """org/name of the published file that these weights were converted from."""
    found = re.match(r"hf://([^/@]+/[^/@]+)", str(_card_of(said).get("source", "")))
    return found[1] if found else None


def _hub_licence(licence: str) -> str | None:
    """As the Hub writes it: lower case; None, no line at all, where it is not stated."""
    return None if licence == NOT_STATED else re.sub(r"\s+", "-", licence.strip().lower())


def _first_difference(there, here) -> str:
    if not isinstance(there, dict) or not isinstance(here, dict):
        return "config or training"
    return next((name for name in {**here, **there} if here.get(name) != there.get(name)), "order")
