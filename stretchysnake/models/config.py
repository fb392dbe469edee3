"""VideoMambaConfig: everything that fixes the shapes of a VideoMamba, checked once, here.

Imports no torch, so that `stretchysnake train --help` stays quick.
"""

import difflib
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import ClassVar

from stretchysnake.flexibility import Scale, size_message

PATCH_RESIZES = ("bicubic", "area", "pi")


def config_of_fields(cls: type, values: dict):
    """The config of a class with these fields; an unknown field is an error that names the nearest known one."""
    names = [f.name for f in fields(cls) if f.name != "architecture"]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else f"; fields: {', '.join(names)}"
            raise ValueError(f"model config field ({key!r}) is not known{hint}")
    return cls(**{key: _tupled(value) for key, value in values.items()})  # JSON knows no tuples


def _tupled(value):
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def check_patch_resize(config) -> None:
    """ValueError unless the field patch_resize is a way to resize a patch kernel."""
    if (mode := config.patch_resize) not in PATCH_RESIZES:
        raise ValueError(f"patch_resize ({mode!r}) must be one of: {', '.join(PATCH_RESIZES)}")


@dataclass(frozen=True, kw_only=True)
class StoredSizes:
    """What a config says of its scale: the stored num_frames, image_size and patch_size; the model flexes to others."""

    @property
    def native(self) -> Scale:
        """The scale of the stored weights."""
        return Scale(self.num_frames, self.image_size, self.patch_size)

    @property
    def frame_multiple(self) -> int:
        """Any T."""
        return 1


@dataclass(frozen=True, kw_only=True)
class VideoMambaConfig(StoredSizes):
    """The sizes of a VideoMamba; the defaults are the official tiny model.

    image_size, patch_size and num_frames are those of the *stored* weights; the model accepts others.
    """

    architecture: ClassVar[str] = "videomamba"
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    pixel_std: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)
    shaped: ClassVar[tuple[str, ...]] = (
        "embed_dim", "depth", "patch_size", "image_size", "num_frames", "num_classes", "tubelet_size",
        "state_size", "expand", "conv_width", "rank_of_delta",
    )  # fmt: skip
    """What the shapes of the weights decide."""
    equal_blocks: ClassVar[bool] = True
    exports_any_size: ClassVar[bool] = True
    same_in_any_batch: ClassVar[bool] = True

    embed_dim: int = 192
    depth: int = 24
    patch_size: int = 16
    image_size: int = 224
    num_frames: int = 16
    num_classes: int = 400
    """Outputs of the head; 0 leaves the head out, so that logits are the features."""
    tubelet_size: int = 1
    """Frames per temporal token."""
    state_size: int = 16
    expand: int = 2
    conv_width: int = 4
    dt_rank: int = 0
    """Rank of Δ; 0 means ceil(embed_dim / 16)."""
    drop_path: float = 0.0
    """Rate of the last block; earlier ones grow linearly from 0."""
    patch_resize: str = "bicubic"
    """How the patch kernel is resized: "bicubic" (paper), "area" or "pi"."""
    init: str = "mamba"
    """"mamba" is the initialisation Mamba intends, with Δ log-uniform in [1e-3, 0.1]; the default, because
    the slowest state then forgets over 7 to 700 tokens. "official" is what VideoMamba's code really does:
    its last step wipes Δ to 0.693 everywhere, so that the slowest state halves after every token."""

    def __post_init__(self):
        for name in (
            "embed_dim", "depth", "patch_size", "image_size", "num_frames", "tubelet_size",
            "state_size", "expand", "conv_width",
        ):  # fmt: skip
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)!r}) must be a positive integer")
        for name in ("num_classes", "dt_rank"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise ValueError(
                    f"{name} ({getattr(self, name)!r}) must be an integer of at least 0"
                )
        if self.image_size % self.patch_size:
            raise ValueError(size_message("image_size", self.image_size, self.patch_size))
        if self.num_frames % self.tubelet_size:
            raise ValueError(
                f"num_frames ({self.num_frames}) must be a multiple of tubelet_size ({self.tubelet_size})"
            )
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path ({self.drop_path}) must be at least 0 and less than 1")
        check_patch_resize(self)
        if self.init not in ("mamba", "official"):
            raise ValueError(f'init ({self.init!r}) must be "mamba" or "official"')

    @property
    def feature_dim(self) -> int:
        return self.embed_dim

    @property
    def frame_multiple(self) -> int:
        return self.tubelet_size

    def kept_floats(self, *, joined: bool) -> float:
        """Floats per token and block that wait for the backward pass; `joined`: a mixer is one native operation.

        Fitted to measured steps: 2·C + 8·Di + 0.19·Di·S, joined 2·C + 5·Di + 2·(R + 2·S) + Di·S / 16.
        """
        C, Di, S, R = (
            self.embed_dim,
            self.expand * self.embed_dim,
            self.state_size,
            self.rank_of_delta,
        )
        if joined:
            return 2 * C + 5 * Di + 2 * (R + 2 * S) + Di * S / 16
        return 2 * C + 8 * Di + 0.19 * Di * S

    @property
    def rank_of_delta(self) -> int:
        return self.dt_rank or math.ceil(self.embed_dim / 16)

    @classmethod
    def named(cls, name: str, **changes) -> "VideoMambaConfig":
        """A published size ("tiny", "small", "middle") or "nano" (the built-in benchmark's), with changes."""
        if name not in NAMED:
            raise ValueError(f"model size ({name!r}) must be one of: {', '.join(NAMED)}")
        return cls.from_dict({**NAMED[name], **changes})

    @classmethod
    def from_dict(cls, values: dict) -> "VideoMambaConfig":
        """As `config_of_fields`."""
        return config_of_fields(cls, values)

    def to_dict(self) -> dict:
        return asdict(self)

    def but(self, **changes) -> "VideoMambaConfig":
        """A copy with other values."""
        return replace(self, **changes)


NAMED: dict[str, dict] = {
    "tiny": {"embed_dim": 192, "depth": 24},
    "small": {"embed_dim": 384, "depth": 24},
    "middle": {"embed_dim": 576, "depth": 32},
    "nano": {"embed_dim": 64, "depth": 4, "patch_size": 8, "image_size": 32, "num_frames": 8},
}
