"""EvaluateRun: one evaluation as a value. Imports no torch, so that `evaluate --help` stays quick."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EvaluateRun:
    """Retrieval top-1 of one model over the cells frames × sizes."""

    weights: str
    """weights.safetensors of a training, or an official checkpoint."""
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
    dataset: str | None = None
    """Name written into the rows; null means the name of the queries' file or folder."""
    metric: str = "cosine"
    """"cosine" or "l2"."""
    patch_from: str | None = None
    """"static_tokens" tests any model with the static-tokens patches (paper Table A2)."""
    batch_size: int = 32
    cache: str | None = None
    """Folder of the frame cache; null decodes every clip for every cell."""
    cache_frames: int = 16
    cache_size: int = 64
    on_error: str = "report"
    """Unreadable videos: "report" and "exclude" leave them out (n of N shown), "wrong" counts them as misses."""
    memory_limit_gib: float | None = None
    """A cell that needs more is written as OOM; null means what the machine has free."""
