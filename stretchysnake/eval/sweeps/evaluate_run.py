"""EvaluateRun: one evaluation as a value. Imports no torch, so that `evaluate --help` stays quick."""

from dataclasses import dataclass, field

from stretchysnake.data.processes.decoder_pool import TIMEOUT_SECONDS
from stretchysnake.eval.features.placement import Placement
from stretchysnake.eval.unused_fields import refuse_unused


@dataclass(frozen=True, kw_only=True)
class EvaluateRun:
    """Retrieval, and a linear probe on request, of one model over the cells frames × sizes."""

    weights: str
    """weights.safetensors of a training, an official checkpoint, or a name: `stretchysnake weights` lists them."""
    gallery: str
    """List or folder of the training videos."""
    queries: str
    """List or folder of the test videos."""
    out: str
    """Rows are appended to this .jsonl file; cells already there are not measured again."""
    frames: list[int] | None = None
    """T values; null means the native one."""
    sizes: list[int] | None = None
    """S values in pixels; null means the native one."""
    model: str | None = None
    """Name of the model in the rows, so that one report can hold several of one variant; null means the variant."""
    dataset: str | None = None
    """Name written into the rows; null means the name of the queries' file or folder."""
    protocols: list[str] = field(default_factory=lambda: ["retrieval"])
    """"retrieval" and "probe" (a linear probe trained on the gallery), on features computed once for both; "finetune"
    and "probe-sgd" test the classifier that the weights hold (trained by finetune_* and linear_probe_* recipes), "head"
    one that was trained with its backbone from the start."""
    metrics: list[str] = field(default_factory=lambda: ["top1"])
    """Of retrieval: top1, recall@K, knn@K, map, gallery_top1 (leave-one-out inside the gallery)."""
    similarity: str = "cosine"
    """"cosine" or "l2"."""
    group_safe: bool = False
    """Retrieval skips the gallery videos of the query's own group."""
    allow_self: bool = False
    """Queries may be in the gallery too, each left out of its own ranking, and the note says so; else refused."""
    num_views: int = 1
    """Clips of each query whose class probabilities are averaged; of finetune, probe-sgd and head."""
    num_crops: int = 1
    """1 (middle) or 3 squares of each picture; of finetune, probe-sgd and head. Above 1 needs cache null."""
    picture: str | None = None
    """"whole" squashes it to S x S, "centre" takes the middle square of a short side of S, as official weights were
    tested; null: as `fit` says, else whole for features, centre for finetune, probe-sgd and head. "centre" needs cache
    null."""
    fit: str | None = None
    """"square" squashes pictures (unless `picture` says centre), "keep" gives each video a shape near its own of no
    more patches, "crop" takes the middle square; null: keep or crop where the weights were trained with it and neither
    `picture` nor num_crops is given, else squares as `picture` has them."""
    sampling: str = "uniform"
    """Which frames make a clip: "uniform" (segment centres), "strided", or as published weights were tested (docs/
    table2.md): "videomamba", "timesformer", "mvit" (Hiera), "uniformer", "swin" (AIM), "evl", "omnivore", "cast"."""
    stride: int = 1
    """Frames from one to the next; of sampling strided and of all published ones but videomamba and omnivore."""
    decoder: str = "pyav"
    """"pyav", or "torchcodec" where it is installed (an extra): the same frames, whose pixels may differ by rounding.
    The latter needs cache null."""
    patch_from: str | None = None
    """"static_tokens" tests any model with the static-tokens patches (paper Table A2)."""
    device: str = "auto"
    """Where the model computes: "cpu", "cuda" (under torchrun each rank its own) or e.g. "cuda:1"; "auto" means a GPU
    if there is one, else the CPU."""
    precision: str = "fp32"
    """"fp32"; "bf16": products in bfloat16, sums and the scan's state in fp32; or, on a CPU, "int8": linear layers of
    8-bit numbers. Part of the rows, which say it."""
    batch_size: int = 32
    """Clips in a forward pass; halved where a cell's memory would not suffice."""
    num_workers: int = 2
    """Processes of each rank that decode; 0 decodes in this process, where a bad file may take it down."""
    cache: str | None = None
    """Folder of the frame cache; null decodes every clip for every cell."""
    cache_frames: int = 16
    cache_size: int = 64
    verify_cache: bool = False
    """Hash the cache and the videos it was made of again; else they are known by their sizes and times of change."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Time that each second of a video may take to decode; a file that takes longer is unreadable, see on_error."""
    feature_cache: str | None = None
    """Folder that keeps features, so that the same cell of the same weights is never computed twice."""
    on_error: str = "report"
    """Unreadable videos: "report" and "exclude" leave them out (n of N shown), "wrong" counts them as misses."""
    rank_timeout: float = 600.0
    """Seconds that a rank waits for the others' share of a cell; what rank 0 measures alone is waited for."""
    memory_limit_gib: float | None = None
    """A cell that needs more is written as OOM; null means what the device has free (on the CPU:
    the machine, within its container's limit). Cells written as OOM are tried again by the next call."""

    def __post_init__(self):
        for name in ("frames", "sizes"):
            if getattr(self, name) == []:
                raise ValueError(f"{name} ([]) must hold at least one; null means the native one")
        if self.batch_size < 1:
            raise ValueError(f"batch_size ({self.batch_size}) must be at least 1")
        if self.num_workers < 0:
            raise ValueError(f"num_workers ({self.num_workers}) must be at least 0")
        if self.memory_limit_gib is not None and not self.memory_limit_gib > 0:
            raise ValueError(
                f"memory_limit_gib ({self.memory_limit_gib}) must be positive, or null"
            )
        refuse_unused(self, "cache", "cache_frames", "cache_size", "verify_cache")
        _ = self.placement  # checks both

    @property
    def placement(self) -> Placement:
        return Placement(device=self.device, precision=self.precision)
