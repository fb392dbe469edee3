"""What training, evaluation, search and export may ask of a model, and nothing else.

B batch, T frames, H W pixels, P patch size (the stride of the stem), C feature width.

A backbone is one file in models/ or models/transformers/ (its frozen config and its nn.Module) and one line in
architectures.py. There is no class to inherit from; the functions below are what all of them would write again.
"""

import os
from collections.abc import Collection
from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from stretchysnake.flexibility import Scale


class Tokens(NamedTuple):
    """What the encoder returns after the final norm."""

    cls: Tensor | None
    """(B, C), the [CLS] token; None where a model has none."""
    patches: Tensor
    """(B, t, h, w, C)."""


class BackboneConfig(Protocol):
    """A frozen keyword-only dataclass; its sizes are those of the *stored* weights."""

    architecture: str
    """Its name in architectures.py, written into weights files: a field, so that every dict of the config holds it."""
    pixel_mean: ClassVar[tuple[float, float, float]]
    pixel_std: ClassVar[tuple[float, float, float]]
    """Of RGB in [0, 1], as the published weights were trained."""
    shaped: ClassVar[tuple[str, ...]]
    """Fields and properties that the shapes of the weights decide; `config_of` finds the same."""
    num_classes: int
    """Outputs of the head; 0 leaves the head out, so that logits are the features."""
    drop_path: float

    @property
    def feature_dim(self) -> int: ...
    @property
    def native(self) -> Scale: ...
    @property
    def frame_multiple(self) -> int:
        """What T must be a multiple of."""


class Backbone(Protocol):
    """An nn.Module. video is (B, 3, T, H, W), floating point, standardised by the config's pixel statistics.

    patch_size None is the stored one. `grid="exact"` refuses sizes of which pixels would go unused;
    `grid="floor"` leaves them unused, as the stem's convolution does. drop_draws (B, num_drop_draws(scale)), uniform
    in [0, 1), decide drop path in training; without them torch's generator does.
    """

    marks: ClassVar[tuple[tuple[str, ...], ...]]
    """Names of weights that tell this architecture, all under one prefix; one tuple for each published layout."""
    classifier: ClassVar[str]
    """Name of the linear layer whose rows are the classes: "head", or what the official files call it."""
    config: BackboneConfig
    head: nn.Module
    """(B, C) features to (B, num_classes) logits; nn.Identity for none."""
    checkpoint_activations: bool
    """Training only: compute a stage again in the backward pass instead of keeping what is inside it."""

    def features(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact", drop_draws: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """(B, C): what retrieval, probe and head read."""

    def forward(
        self, video: Tensor, patch_size: int | None = None, *, grid: str = "exact", drop_draws: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """head(features)."""

    def num_drop_draws(self, scale: Scale) -> int:
        """Numbers that decide drop path for one clip of this scale; one that is no square may leave the last unused."""

    def stages(self) -> list[nn.Module]:
        """The blocks in depth order: units of sharding, compiling and recomputation."""

    def depth_of(self, parameter: str) -> int:
        """0 embeddings, i + 1 stage i, len(stages) + 1 what follows them: for layer decay."""

    def undecayed(self) -> Collection[str]:
        """Last parts of the names of parameters that weight decay leaves alone, beside every 1-D tensor."""

    @classmethod
    def config_of(cls, state: dict[str, Tensor], **changes) -> BackboneConfig:
        """The config whose shapes an official or our own flat state dict has; ValueError names what is missing."""

    def fitted(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """The state dict under this model's names and shapes (head and dtype apart), and a note for each change."""

    def save_pretrained(
        self, folder: str | os.PathLike, *, licence: str | None = None, **training
    ) -> None:
        """That of weights/published/pretrained.py, the same for all."""


# A model that was read from a file has `trained`: what the file's header says of its training (variant, sets, classes).
# A config may say `equal_blocks = True`: it has `depth` blocks, and from the third on each costs the same; and
# `exports_any_size = True`: torch.export keeps T, H and W open (exporting.py); and `same_in_any_batch = True`: in fp32
# on the CPU nothing that it does to a clip is shaped by the others, but for what a library of products does.
# A model may also have `tokens(video, patch_size, grid=) -> Tokens`, where its tokens form a grid at the end
# (activation maps); `features_packed` and `forward_packed`, where clips of different shapes make one forward pass
# (sequences/packed.py asks any model, and hands others the clips shape by shape); its class
# `left_out(state) -> str`, where published files leave another's weights out: the name of that file, "" where nothing
# is missing (weights/loading.py looks beside the file); and VideoMamba alone has what sequences/long_sequence.py
# needs. Who asks says what is missing.


def pixels_of(config: BackboneConfig) -> dict[str, tuple[float, float, float]]:
    """What a model's video is standardised by, as `normalise` and the loader take it."""
    return {"mean": config.pixel_mean, "std": config.pixel_std}


def depth_by_name(model: Backbone, parameter: str, *, bottom: tuple[str, ...]) -> int:
    """`depth_of` from the names of the stages; `bottom` are the beginnings of what lies before them."""
    stages = {id(stage): depth for depth, stage in enumerate(model.stages(), 1)}
    for name, module in model.named_modules():
        if id(module) in stages and parameter.startswith(name + "."):
            return stages[id(module)]
    return 0 if parameter.startswith(bottom) else len(stages) + 1


def check_sizes(config: BackboneConfig, *positive: str) -> None:
    """ValueError unless these fields are positive integers, num_classes one of at least 0, drop_path in [0, 1)."""
    architecture = type(config).architecture
    if config.architecture != architecture:
        raise ValueError(
            f"architecture ({config.architecture}) must be {architecture}, which has these fields"
        )
    for name in positive:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} ({value!r}) must be a positive integer")
    if not isinstance(config.num_classes, int) or config.num_classes < 0:
        raise ValueError(f"num_classes ({config.num_classes!r}) must be an integer of at least 0")
    if not 0.0 <= config.drop_path < 1.0:
        raise ValueError(f"drop_path ({config.drop_path}) must be at least 0 and less than 1")
