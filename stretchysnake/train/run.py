"""TrainRun: one complete training run as a value, with nothing left to defaults elsewhere.

Imports no torch, so that `stretchysnake train --help` stays quick.
"""

import difflib
import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import TYPE_CHECKING

from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.decoding.fit import checked_fit
from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.eval.features.placement import check_device
from stretchysnake.flexibility import NANO, Scale, ScaleSets, scales_at, variant_named
from stretchysnake.models.architectures import config_from_dict, config_named, config_to_dict
from stretchysnake.train.optim_config import OptimConfig

if TYPE_CHECKING:  # it needs torch, and --help does not
    from stretchysnake.models.backbone import BackboneConfig


@dataclass(frozen=True, kw_only=True)
class NonFiniteConfig:
    """What follows a step whose loss or gradient is not finite; that step itself never touches the weights."""

    patience: int = 5
    """Such steps in a row before `then`."""
    then: str = "rollback"
    """"rollback" goes back to the last good checkpoint with a lower learning rate; "stop" ends the run."""
    lr_factor: float = 0.5
    """Factor on the learning rate at each return."""
    max_rollbacks: int = 3
    """Returns before the run ends after all."""

    def __post_init__(self):
        if self.patience < 1 or self.max_rollbacks < 0:
            raise ValueError(
                f"patience ({self.patience}) must be at least 1, max_rollbacks ({self.max_rollbacks}) at least 0"
            )
        if self.then not in ("rollback", "stop"):
            raise ValueError(f'then ({self.then!r}) must be "rollback" or "stop"')
        if not 0 < self.lr_factor <= 1:
            raise ValueError(f"lr_factor ({self.lr_factor}) must be more than 0 and at most 1")


NO_EFFECT_ON_WEIGHTS = (
    "out",
    "cache",
    "verify_cache",
    "check_first",
    "checkpoint_every",
    "keep_checkpoints",
    "on_damaged",
    "num_workers",
    "timeout_seconds",
    "device",
    "parallel",
    "rank_timeout",
    "tensorboard",
    "max_bad_share",
    "held_out",
    "held_out_every",
)
ADDED_LATER = (
    "epochs", "weights", "trainable", "tokens_per_pass", "accumulate", "activation_checkpointing",
    "ema_decay", "non_finite", "on_error", "augmentation", "shuffle", "compile",
    "scales_per_step", "scale_draw", "decoder", "fit", "num_sample",
)  # fmt: skip
"""Enter the digest only where they differ from their defaults: runs of earlier versions keep their digests."""
DEALING = 2
"""Enters the digest of runs whose scales are dealt: before 2, a step that spans two decks was dealt unevenly."""


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """Everything that decides the weights a run ends with; `model.num_classes` 0 means: as many as the data."""

    data: str
    """A list file (CSV, TSV, space-separated, JSONL) or a folder with one sub-folder per class."""
    out: str
    """Folder for weights.safetensors, run.json, loss.jsonl, log.jsonl and checkpoints/."""
    variant: str = "static_tokens"
    sets: ScaleSets = NANO
    model: "BackboneConfig" = field(
        default_factory=lambda: config_named("videomamba-nano", num_classes=0)
    )
    optim: OptimConfig = field(default_factory=OptimConfig)
    weights: str | None = None
    """Checkpoint to start from, official or ours; resized to `model` where shapes differ. Null: from scratch."""
    trainable: str = "all"
    """"all", or "head" for a linear probe: the backbone is frozen and in eval mode."""
    steps: int = 1200
    epochs: float | None = None
    """Passes over the data; replaces `steps` where it is given."""
    batch_size: int = 32
    """Clips of one step, over all ranks, repeated draws counted."""
    num_sample: int = 1
    """Clips of each video of a step, each a draw of its own, out of one decoding (repeated augmentation)."""
    scales_per_step: int = 1
    """Groups of one scale each that the clips of a step are cut into; 1 is the paper's."""
    scale_draw: str = "dealt"
    """Of several: "dealt" like cards, deck after deck of the values of a set, or "independent" draws."""
    token_budget: int | None = None
    """Tokens per batch; the batch size then follows the scale, so that memory stays flat."""
    accumulate: int = 1
    """Parts in which each rank's share of a batch is computed one after the other; the step stays the same."""
    tokens_per_pass: int | None = None
    """Most patch tokens in one part; large scales are then split into more parts than small ones."""
    activation_checkpointing: bool = False
    """Compute each block again in the backward pass instead of keeping what is inside it."""
    ema_decay: float = 0.0
    """Decay of the moving average of the weights, written as weights_ema.safetensors; 0 turns it off."""
    label_smoothing: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    shuffle: bool = True
    """Another order of the clips in every epoch; false keeps the list's."""
    precision: str = "fp32"
    """"fp32"; "bf16" or "fp16" (autocast; parameters and scan state stay fp32, fp16 scales its loss); or "fp64"."""
    compile: bool = False
    """torch.compile of each block; needs a C++ compiler on the CPU."""
    parallel: str = "ddp"
    """With several ranks: "ddp" (every rank holds all weights) or "fsdp" (weights and moments sliced over them)."""
    rank_timeout: float = 600.0
    """Seconds that a rank waits for the others' step before it ends with an error; rank 0's own work is waited for."""
    device: str = "auto"
    """"cpu", "cuda" or e.g. "cuda:1", or "auto" for cuda where there is one."""
    seed: int = 0
    cache: str | None = None
    """Folder of the frame cache (videos are decoded once); null decodes every clip every time."""
    cache_frames: int = 16
    cache_size: int = 64
    verify_cache: bool = False
    """Hash the cache and the videos it was made of again; else they are known by their sizes and times of change."""
    check_first: bool = False
    """Open every video before the first step, each rank its share; else a bad one is met when it is drawn."""
    decoder: str = "pyav"
    """"pyav", or "torchcodec" where it is installed (an extra): the same frames, whose pixels may differ by rounding.
    The latter needs cache null."""
    fit: str = "square"
    """"square" squashes every picture to S x S (the paper's), "keep" gives each video a shape near its own of at most
    as many patches, "crop" takes the middle square."""
    on_error: str = "replace"
    """A video that cannot be decoded when drawn: "replace" by another of its class, "skip" the clip, or "stop"."""
    max_bad_share: float = 0.01
    """Share of bad clips among the last 10,000 that ends the run, where it is over 20 clips and over 3 files."""
    num_workers: int = 2
    """Processes that decode, where there is no cache or it has to be made; 0 decodes in the training process."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Time that each second of a video may take to decode; a file that takes longer is bad, see on_error."""
    non_finite: NonFiniteConfig = field(default_factory=NonFiniteConfig)
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 goes by time: once a minute, less often where that would cost over 2 %."""
    keep_checkpoints: int = 2
    """The last ones kept."""
    held_out: str | None = None
    """List or folder measured while training (top-1, loss; native scale); the best go to weights_best.safetensors."""
    held_out_every: int = 1000
    """Steps between measurements of `held_out`; the last step is always measured."""
    tensorboard: bool = False
    """Also write loss, learning rate and speed for TensorBoard, into out/tensorboard."""
    on_damaged: str = "previous"
    """When the newest checkpoint is damaged: "previous" goes on from the one before and says so, "stop" refuses."""

    def __post_init__(self):
        variant_named(self.variant)
        checked_fit(self.fit)
        counts = (
            "steps",
            "batch_size",
            "num_sample",
            "accumulate",
            "cache_frames",
            "cache_size",
            "keep_checkpoints",
            "held_out_every",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")
        if self.checkpoint_every < 0:
            raise ValueError(
                f"checkpoint_every ({self.checkpoint_every}) must be at least 0 (0 goes by time)"
            )
        if not self.rank_timeout > 0:
            raise ValueError(f"rank_timeout ({self.rank_timeout}) must be positive seconds")
        for name in ("epochs", "token_budget", "tokens_per_pass"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} ({getattr(self, name)}) must be positive, or null")
        for name, allowed in (
            ("precision", ("fp32", "bf16", "fp16", "fp64")),
            ("parallel", ("ddp", "fsdp")),
            ("trainable", ("all", "head")),
            ("on_damaged", ("previous", "stop")),
            ("decoder", ("pyav", "torchcodec")),
        ):
            if getattr(self, name) not in allowed:
                words = ", ".join(f'"{word}"' for word in allowed)
                raise ValueError(f"{name} ({getattr(self, name)!r}) must be one of: {words}")
        check_device(self.device)
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(
                f"max_bad_share ({self.max_bad_share}) must be between 0 and 1 (1 never ends a run)"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay ({self.ema_decay}) must be at least 0 and less than 1")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing ({self.label_smoothing}) must be at least 0 and less than 1"
            )
        if self.on_error not in ("replace", "skip", "stop"):
            raise ValueError(f"on_error ({self.on_error!r}) must be one of: replace, skip, stop")
        if self.num_workers < 0:
            raise ValueError(f"num_workers ({self.num_workers}) must be at least 0")
        self._check_groups()
        native = self.sets.native
        stored = self.model.native
        if (native.size, native.patch_size) != (stored.size, stored.patch_size):
            raise ValueError(
                f"sets.native ({native.size} px, patch {native.patch_size}) must equal the model's "
                f"image_size ({stored.size}) and patch_size ({stored.patch_size}); give both alike "
                "(--sets.native.size, --model.image_size), or sets=flexibility.sets_around(model.native)"
            )

    def _check_groups(self) -> None:
        groups, unit = self.scales_per_step, self.unit
        if self.token_budget is None and self.batch_size % self.num_sample:
            below = self.batch_size // self.num_sample * self.num_sample
            near = ", ".join(str(n) for n in (below, below + self.num_sample) if n)
            raise ValueError(
                f"batch_size ({self.batch_size}) counts clips and must be a multiple of num_sample "
                f"({self.num_sample}), the clips of a video; nearest: {near}"
            )
        try:
            self.scales_of(0)
        except ValueError as error:
            raise ValueError(
                str(error)
                .replace("groups (", "scales_per_step (")
                .replace("draw (", "scale_draw (")
            ) from None
        if self.token_budget is None and groups > 1 and groups * unit > self.batch_size:
            pairs = " pairs, since clips are mixed two and two" if self.augmentation.mixes else ""
            if self.num_sample > 1:
                pairs = f" in units of {unit}: num_sample ({self.num_sample}) clips of a video" + (
                    ", videos mixed two and two" if self.augmentation.mixes else ""
                )
            raise ValueError(
                f"scales_per_step ({groups}) must not exceed batch_size ({self.batch_size}){pairs}; "
                f"use at most {self.batch_size // unit}"
            )

    @property
    def unit(self) -> int:
        """Clips of a step that stay together, in a group of one scale and on one rank."""
        return self.num_sample * (2 if self.augmentation.mixes else 1)

    @property
    def clips_of_a_step(self) -> dict:
        """How many, as training_order.py takes it."""
        names = ("batch_size", "token_budget", "num_sample")
        return {name: getattr(self, name) for name in names} | {"unit": self.unit}

    @property
    def is_dealt(self) -> bool:
        """Whether its steps have several scales, dealt like cards."""
        return self.scales_per_step > 1 and self.scale_draw == "dealt"

    def scales_of(self, step: int) -> tuple[Scale, ...]:
        """The scales of a step's groups."""
        groups = {"groups": self.scales_per_step, "draw": self.scale_draw}
        return scales_at(self.bound_variant, seed=self.seed, step=step, **groups)

    @property
    def bound_variant(self):
        """The variant drawing from this run's values."""
        return variant_named(self.variant).using(self.sets)

    def digest(self, *, dealing: int = DEALING) -> str:
        """A hash of everything that decides the weights: two runs with equal digests give equal weights.

        `dealing` 1 is the digest of versions before even dealing.
        """
        values = {k: v for k, v in self.to_dict().items() if k not in NO_EFFECT_ON_WEIGHTS}
        for later in fields(self):
            if later.name in ADDED_LATER and getattr(self, later.name) == _default(later):
                del values[later.name]
        if self.optim.layer_decay == 1.0:
            del values["optim"]["layer_decay"]
        if self.is_dealt and dealing > 1:
            values["dealing"] = dealing
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict:
        """The fields as JSON keeps them, the model's architecture among its own."""
        return {**asdict(self), "model": config_to_dict(self.model)}

    @classmethod
    def from_dict(cls, values: dict) -> "TrainRun":
        """The run that `to_dict` and JSON made these values from; a wrong field is a ValueError."""
        try:
            values = dict(values)
            values["sets"] = ScaleSets.from_dict(values["sets"])
            values["model"] = config_from_dict(values["model"])
            optim = dict(values["optim"])
            optim["betas"] = tuple(optim.get("betas", OptimConfig.betas))
            values["optim"] = OptimConfig(**optim)
            values["non_finite"] = NonFiniteConfig(**values["non_finite"])
            values["augmentation"] = Augmentation.from_dict(values.get("augmentation", {}))
            unknown = values.keys() - {f.name for f in fields(cls)}
            if unknown:
                near = difflib.get_close_matches(min(unknown), [f.name for f in fields(cls)], n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"unknown field {min(unknown)}{hint}")
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"these are not the fields of a TrainRun: {error}") from None


def _default(field_):
    return field_.default if field_.default is not MISSING else field_.default_factory()
