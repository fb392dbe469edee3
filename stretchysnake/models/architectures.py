"""Which backbones there are: a new one is its file and one line here. Imports no torch until a model is made.

model = create_model("videomamba-tiny", num_classes=101)
model = create_model("hiera-large")
"""

import difflib
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING

from stretchysnake.models.config import config_of_fields

if TYPE_CHECKING:
    from stretchysnake.models.backbone import Backbone, BackboneConfig

ARCHITECTURES: dict[str, tuple[str, str, str]] = {
    "videomamba": ("config", "videomamba", "VideoMamba"),
    "aim": ("transformers.aim", "transformers.aim", "AIM"),
    "cast": ("transformers.cast", "transformers.cast", "CAST"),
    "evl": ("transformers.evl", "transformers.evl", "EVL"),
    "fluxvit": ("transformers.fluxvit", "transformers.fluxvit", "FluxViT"),
    "hiera": ("transformers.hiera", "transformers.hiera", "Hiera"),
    "mvit": ("transformers.mvit", "transformers.mvit", "MViT"),
    "omnivore": ("transformers.omnivore", "transformers.omnivore", "Omnivore"),
    "timesformer": ("transformers.timesformer", "transformers.timesformer", "TimeSformer"),
    "uniformer": ("transformers.uniformer", "transformers.uniformer", "UniFormer"),
    "uniformer_v2": ("transformers.uniformer_v2", "transformers.uniformer_v2", "UniFormerV2"),
    "video_swin": ("transformers.video_swin", "transformers.video_swin", "VideoSwin"),
}
"""Architecture -> module of the config, module of the model, its class; the config's class has "Config" behind."""


def config_class(architecture: str) -> type:
    """The config class of an architecture; an unknown name lists the known ones."""
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture ({architecture!r}) must be one of: {', '.join(ARCHITECTURES)}"
        )
    module, _, name = ARCHITECTURES[architecture]
    return getattr(import_module(f"stretchysnake.models.{module}"), f"{name}Config")


def model_class(architecture: str) -> type:
    """The nn.Module class of an architecture."""
    config_class(architecture)
    _, module, name = ARCHITECTURES[architecture]
    return getattr(import_module(f"stretchysnake.models.{module}"), name)


def marks_of(*architectures: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Architecture -> names of weights that tell it; of all where none is named, VideoMamba's single one last."""
    names = architectures or sorted(ARCHITECTURES, key=lambda name: name == "videomamba")
    return {name: model_class(name).marks for name in names}


def build_model(config: "BackboneConfig") -> "Backbone":
    """A model of this config, freshly initialised, in training mode."""
    return model_class(config.architecture)(config)


def create_model(name: str, **changes) -> "Backbone":
    """A freshly initialised model of a published size ("videomamba-middle", "hiera-large", "mvit"), with changes.

    An architecture's name alone is its config's defaults. An unknown name is a ValueError with the near ones.
    """
    return build_model(config_named(name, **changes))


def config_named(name: str, **changes) -> "BackboneConfig":
    """The config of a published size; as `create_model`."""
    plain = str(name).lower().replace("_", "-")
    for architecture in sorted(ARCHITECTURES, key=len, reverse=True):
        family = architecture.replace("_", "-")
        if plain == family:
            return config_from_dict({"architecture": architecture, **changes})
        size = plain.removeprefix(family + "-")
        if size != plain and size in sizes_of(architecture):
            values = {**sizes_of(architecture)[size], **changes}
            return config_from_dict({"architecture": architecture, **values})
    near = difflib.get_close_matches(plain, model_names(), n=3, cutoff=0.4)
    hint = f"did you mean: {', '.join(near)}?" if near else f"names: {', '.join(model_names())}"
    raise ValueError(f"model ({name}) is not known; {hint}")


def sizes_of(architecture: str) -> dict[str, dict]:
    """The published sizes of an architecture and what they change of its config's defaults: NAMED of its module."""
    return import_module(config_class(architecture).__module__).NAMED


def model_names() -> list[str]:
    """Every name that `create_model` takes with a size."""
    return [name for architecture in ARCHITECTURES for name in names_of(architecture)]


def names_of(architecture: str) -> list[str]:
    """Those of one architecture: "hiera-base"."""
    return [f"{architecture.replace('_', '-')}-{size}" for size in sizes_of(architecture)]


def config_from_dict(values: dict) -> "BackboneConfig":
    """The config with these fields, "architecture" among them (absent: videomamba, as in files of before).

    An unknown field is an error that names the nearest known one.
    """
    values = dict(values)
    architecture = values.pop("architecture", "videomamba")
    return config_of_fields(config_class(architecture), values)


def config_to_dict(config: "BackboneConfig") -> dict:
    """The fields as JSON keeps them: "architecture" is one, but for videomamba, whose files came first."""
    return asdict(config)
