"""What a training does about a file that turns out bad on the way, and the list of all of them.

| `on_error` | a clip that cannot be decoded                                                     |
|------------|-----------------------------------------------------------------------------------|
| `replace`  | another video of the same class takes its place in the batch (default)            |
| `skip`     | the batch is one clip smaller; a batch that would be empty is left out            |
| `stop`     | the error is raised                                                               |

Every case is counted and listed in `events`. A replacement is drawn from (seed, step, place) alone, so that a resumed
run replaces alike. Evaluation knows no replacement at all: it leaves the clip out, and says n of N.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.data.decode_error import DecodeError

ON_ERROR = ("replace", "skip", "stop")


class BadDraw(NamedTuple):
    """A clip that a training step asked for and could not get."""

    step: int
    path: str
    kind: str
    reason: str
    replaced_by: str | None
    """Path of the video of the same class that took its place; None when the batch got smaller."""


class BadClips:
    """The bad files met so far (`quarantine`: index -> DecodeError) and what was done each time (`events`)."""

    def __init__(self, on_error: str = "replace"):
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error ({on_error!r}) must be one of: {', '.join(ON_ERROR)}.")
        self.on_error = on_error
        self.quarantine: dict[int, DecodeError] = {}
        self.events: list[BadDraw] = []

    def resolve(
        self, clips, request, error: DecodeError, *, step: int, generator: torch.Generator
    ) -> Tensor | None:
        """Return the clip that takes the place of a bad one, or None to go without it.

        Raises the error itself under `stop`, and ValueError when no video of the whole list is left.
        """
        if self.on_error == "stop":
            raise error
        index, found = None, None
        if self.on_error == "replace":
            index, found = self._replacement(clips, request, generator)
        if len(self.quarantine) == len(clips):
            raise ValueError(
                f"none of the {len(clips)} videos can be decoded; the last: {error} "
                "Try stretchysnake data check on the list."
            )
        path = None if index is None else clips.records[index].path
        self.events.append(BadDraw(step, error.path, error.kind, error.reason, path))
        return found

    def _replacement(self, clips, request, generator) -> tuple[int | None, Tensor | None]:
        """Another video of the same class, in an order drawn by the generator alone: a file known to be bad is
        passed over just as if it failed now."""
        label = clips.labels[request.index]
        others = torch.nonzero(clips.labels == label).flatten().tolist()
        order = [others[i] for i in torch.randperm(len(others), generator=generator).tolist()]
        for index in order:
            if index not in self.quarantine:
                answer = clips.draw_one(request._replace(index=index))
                if not isinstance(answer, DecodeError):
                    return index, answer
        return None, None

    @property
    def summary(self) -> dict:
        """Counts and list, as JSON takes them."""
        replaced = sum(event.replaced_by is not None for event in self.events)
        return {
            "on_error": self.on_error,
            "replaced": replaced,
            "skipped": len(self.events) - replaced,
            "files": sorted({str(error) for error in self.quarantine.values()}),
        }


def joined_summaries(summaries: list[dict]) -> dict:
    """One summary of those of several ranks, each of which met other clips."""
    return {
        "on_error": summaries[0]["on_error"],
        "replaced": sum(summary["replaced"] for summary in summaries),
        "skipped": sum(summary["skipped"] for summary in summaries),
        "files": sorted({file for summary in summaries for file in summary["files"]}),
    }
