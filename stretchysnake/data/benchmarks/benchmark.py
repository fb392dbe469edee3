"""Benchmark: one public data set as a value: its reader, its subsets, where it comes from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

from stretchysnake.data.records import VideoRecord


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What the reader cannot say itself."""

    name: str
    read: Callable[..., list[VideoRecord]]
    """`read(tree, subset, split, **options)`; its keyword-only arguments are the options."""
    subsets: tuple[str, ...]
    queries: str
    """The subset whose videos are the queries of the retrieval protocol; the gallery is "train"."""
    splits: tuple[int | str, ...] = (1,)
    sizes: dict[tuple[int | str, str], int] = field(default_factory=dict)
    """Official number of videos by (split, subset), for LVU (task, subset), where counted in the official files."""
    has_list: bool = True
    """False where the videos themselves are the list, so that a missing one shows only in their number."""
    mirrors: bool = True
    """Whether a mirrored clip keeps its label; where it does not, `Augmentation.flip` must stay off."""
    lists_from: str
    videos_from: str
    licence: str
    note: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options `load_benchmark` takes for this data set."""
        parameters = inspect.signature(self.read).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
