"""StudyRun: what `study motion-digits` trains and measures, as a value, and the list of its trainings and cells."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from stretchysnake.eval.features.placement import check_device
from stretchysnake.flexibility import NANO, VARIANTS, variant_named
from stretchysnake.models.architectures import config_named
from stretchysnake.recipes.motion_digits import MODEL, nano_run
from stretchysnake.recipes.side_by_side import check_jobs
from stretchysnake.recipes.transfer import finetune_nano
from stretchysnake.train.run import OptimConfig, TrainRun

STATIC_PATCHES = "static_tokens"
"""Whose patches Table A2's ablation borrows."""
ABLATED = ("flexivit", "flex_all")
"""Methods of Table A2: those that vary P in training."""
TRANSFERRED = ("vanilla", "static_tokens")
"""Methods of Fig. 4."""
COMPARED = ("vanilla", "static_tokens")
"""Methods that the peers of A.2 are trained with."""


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """Every table and figure of the paper, on MotionDigits: what is trained, and what is measured."""

    out: str = "runs/study"
    data: str | None = None
    """Folder of the MotionDigits videos; null puts them under `out`."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    peers: tuple[str, ...] = ("timesformer-nano", "uniformer-nano", "mvit-nano")
    """Models beside nano VideoMamba (A.2), each trained as vanilla and static tokens and asked for retrieval; [] for
    none. A name of create_model whose native T and S are those of the study."""
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 600
    batch_size: int = 32
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=4e-3))
    suites: tuple[str, ...] = ("short", "fine", "long")
    frames: tuple[int, ...] = (4, 8, 16)
    """T of the grid; vanilla is also trained at each of them (Table A3)."""
    sizes: tuple[int, ...] = (16, 24, 32, 48, 64)
    source_clips: int = 2000
    gallery_clips: int = 300
    query_clips: int = 300
    data_seed: int = 0
    device: str = "auto"
    """Where models are trained and measured: "cpu", "cuda" or e.g. "cuda:1"; "auto": a GPU if there is one."""
    finetune_steps: int = 200
    """Steps of fine-tuning on each suite's gallery; 0 leaves fine-tuning out."""
    sgd_probe: bool = False
    """Also a linear probe trained by SGD with augmentation, for as many steps as fine-tuning."""
    num_views: int = 2
    """Clips of each query that fine-tuned models are tested on; MotionDigits is square, so crops would be equal."""
    jobs: int | None = None
    """Trainings side by side, each measured where it was trained; null for what processors and memory are enough for.
    The rows are the same, whatever it is."""
    threads: int = 1
    """Threads of each, on which the last bits of a training depend."""

    def __post_init__(self):
        check_device(self.device)
        check_jobs(self.jobs, self.threads)
        for name in ("variants", "seeds", "suites", "frames", "sizes"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(
                    f"{name} ({', '.join(map(str, values))}) must hold one or more, each once"
                )
        for variant in self.variants:
            variant_named(variant)
        if len(set(self.peers)) < len(self.peers):
            raise ValueError(f"peers ({', '.join(self.peers)}) must name each model once")
        for peer in self.peers:
            self._check_peer(peer)
        if missing := {"vanilla", "static_tokens"} - set(self.variants):
            raise ValueError(
                f"variants ({', '.join(self.variants)}) must hold {' and '.join(sorted(missing))}: "
                "the paper's claims compare these two"
            )
        native = NANO.native
        if native.num_frames not in self.frames or native.size not in self.sizes:
            raise ValueError(
                f"frames and sizes must hold vanilla's own scale ({native.num_frames} and {native.size}): "
                "claims are made at it and away from it"
            )
        for size in self.sizes:
            if size % native.patch_size:
                raise ValueError(
                    f"sizes ({size}) must be multiples of the native patch ({native.patch_size})"
                )
        if self.finetune_steps < 0 or self.steps < 1 or self.num_views < 1:
            raise ValueError(
                f"finetune_steps ({self.finetune_steps}) must be at least 0, steps ({self.steps}) and "
                f"num_views ({self.num_views}) at least 1"
            )
        if self.sgd_probe and not self.finetune_steps:
            raise ValueError("sgd_probe takes finetune_steps steps; give more than 0")

    def _check_peer(self, peer: str) -> None:
        found, native = config_named(peer, num_classes=0).native, NANO.native
        if (found.num_frames, found.size) != (native.num_frames, native.size):
            raise ValueError(
                f"peers ({peer}) must be made for T = {native.num_frames}, {native.size} px, as the study's videos and "
                f"its own model are; {peer} is for T = {found.num_frames}, {found.size} px: take one of the nano size"
            )

    @property
    def cells(self) -> list[tuple[int, int]]:
        """(T, S) of the grid."""
        return [(t, s) for t in self.frames for s in self.sizes]

    def cells_of(self, training: "Training") -> list[tuple[int, int]]:
        """(T, S) that its model is measured at: a vanilla of another T at that T alone."""
        if training.peer or training.is_main:
            return self.cells
        return [(training.num_frames, size) for size in self.sizes]

    @property
    def cross(self) -> list[tuple[int, int]]:
        """The cells that share T or S with vanilla's own scale: where fine-tuned models are tested."""
        native = NANO.native
        return [(t, s) for t, s in self.cells if t == native.num_frames or s == native.size]


def quick_study() -> StudyRun:
    """The same study in a few minutes: every part runs, and nothing is learned well enough to conclude from."""
    return StudyRun(
        out="runs/study-quick",
        seeds=(0,),
        steps=40,
        frames=(4, 8),
        sizes=(16, 32, 48),
        source_clips=320,
        gallery_clips=96,
        query_clips=48,
        finetune_steps=10,
    )


class Training(NamedTuple):
    """One pre-training of the study."""

    method: str
    seed: int
    num_frames: int
    """Native T: vanilla's own training length."""
    run: TrainRun
    peer: str = ""
    """The model's name where it is not the study's own."""

    @property
    def is_main(self) -> bool:
        """Whether it is no peer, and no vanilla of another T."""
        return not self.peer and self.num_frames == NANO.native.num_frames

    @property
    def row_model(self) -> str:
        """What its rows call it."""
        return f"{self.peer} {self.method}" if self.peer else self.method

    @property
    def shown(self) -> str:
        """Its name on the page, which tells a vanilla of another T."""
        own = self.num_frames == NANO.native.num_frames
        return self.row_model if own else f"{self.row_model} T={self.num_frames}"


def trainings(study: StudyRun, *, data: str, cache: str) -> Iterator[Training]:
    """Every pre-training: each method, vanilla at the other T of the grid, then the peers; seed after seed."""
    home = NANO.native.num_frames
    lengths = [t for t in study.frames if t != home]
    for seed in study.seeds:
        for peer, method, num_frames in [
            *(("", m, home) for m in study.variants),
            *(("", "vanilla", t) for t in lengths),
            *((peer, m, home) for peer in study.peers for m in COMPARED),
        ]:
            name = method if num_frames == home else f"{method}-T{num_frames}"
            name = f"{peer}-{name}" if peer else name
            run = nano_run(
                method,
                seed,
                out=Path(study.out) / f"{name}-seed{seed}-{study.steps}",
                data=data,
                cache=cache,
                steps=study.steps,
                batch_size=study.batch_size,
                optim=study.optim,
                num_frames=num_frames,
                model_name=peer or MODEL,
                device=study.device,
            )
            yield Training(method, seed, num_frames, run, peer)


def transfers(
    study: StudyRun, suite: str, method: str, seed: int, *, weights: str, data: str, cache: str
) -> Iterator[tuple[str, TrainRun]]:
    """(protocol, training) of fine-tuning, and of the SGD probe where asked for, on a suite's gallery."""
    if not study.finetune_steps or method not in TRANSFERRED:
        return
    for protocol, trainable in (("finetune", "all"), ("probe-sgd", "head")):
        if trainable == "all" or study.sgd_probe:
            out = f"{protocol}-{suite}-{method}-seed{seed}-{study.steps}-{study.finetune_steps}"
            yield (
                protocol,
                finetune_nano(
                    weights=weights,
                    data=data,
                    out=str(Path(study.out) / out),
                    cache=cache,
                    steps=study.finetune_steps,
                    batch_size=study.batch_size,
                    seed=seed,
                    trainable=trainable,
                    device=study.device,
                ),
            )
