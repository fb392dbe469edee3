"""What a training does about a clip that cannot be decoded, and which files are tried again.

| `on_error` | a clip that cannot be decoded                                                     |
|------------|-----------------------------------------------------------------------------------|
| `replace`  | another video of the same class takes its place in the batch (default)            |
| `skip`     | the batch is one clip smaller, at worst empty                                     |
| `stop`     | the error is raised                                                               |

A file out of reach (an error of its storage, or missing) is tried again first, after growing pauses. Every case that is
left is listed in `events`, every change of a file's standing in `news`. A replacement is drawn from (seed, step,
place) alone, and a file known to be bad is passed over just as if it failed now: so a resumed run replaces alike, and
what is bad changes no other place of any batch. Evaluation knows no replacement at all: it leaves the clip out, and
says n of N.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from stretchysnake.data.decode_error import ERROR_KINDS, DecodeError
from stretchysnake.data.records_key import file_stamp

ON_ERROR = ("replace", "skip", "stop")
TRIES = 3
"""Draws after which a file that may only be out of reach (DecodeError.transient) is bad for the rest of a training."""

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds after which a file out of reach is tried again at once: a disk of the network stumbles. The first two for a
missing one, which may just be replaced but mostly is not there."""
MOST_IN_VAIN = 3
"""Files of a kind that stay out of reach all this time, until the next ones are no longer waited for."""

MOST_CANDIDATES = 32
"""Videos of the class that may take a place, the first of the order drawn: where all are bad, so is the list."""


def pauses_for(error: DecodeError) -> tuple[float, ...]:
    """Seconds to wait before each further try of a file that failed so; none where trying at once is of no use."""
    if not error.transient or error.kind == "timeout":
        return ()
    return PAUSES[:2] if error.kind == "missing" else PAUSES


class BadDraw(NamedTuple):
    """A clip that a training step asked for and could not get, or all clips it asked for of one video."""

    step: int
    path: str
    kind: str
    reason: str
    replaced_by: str | None
    """Path of the video of the same class that took its place; None when the batch got smaller."""
    num_clips: int = 1


def counts_of(draws: Iterable[BadDraw]) -> tuple[int, int]:
    """How many clips were replaced, and how many left out."""
    counts = [0, 0]
    for draw in draws:
        counts[draw.replaced_by is None] += draw.num_clips
    return tuple(counts)


class BadFile(NamedTuple):
    """How a file of the list stands; `index` is its place there."""

    index: int
    path: str
    kind: str
    reason: str
    stamp: tuple[int, int] | None
    """Size and time of change when it was found bad; None where there is no such file."""
    outlook: str = "out"
    """"out": not tried again; "again": tried again when it is drawn next; "back": it could be read after all; "waited":
    it could be read when tried again at once."""

    @property
    def error(self) -> DecodeError:
        return DecodeError(self.kind, self.path, self.reason)


def bad_file_of(values: object) -> BadFile:
    """The BadFile that JSON made these values from; ValueError for anything else."""
    match values:
        case [int(index), str(path), str(kind), str(reason), stamp, str(outlook)] if (
            index >= 0 and kind in ("", *ERROR_KINDS)
        ):
            match stamp:
                case None | [int(), int()]:
                    return BadFile(index, path, kind, reason, stamp and tuple(stamp), outlook)
    raise ValueError(f"{values!r:.80} tells of no bad file")


class BadClips:
    """The files known to be bad (`quarantine`: index -> DecodeError) and what was done each time (`events`).

    A file whose trouble may pass is given up after `tries` draws; until then it is in `failing`.
    """

    def __init__(self, on_error: str = "replace", *, tries: int = 1):
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error ({on_error!r}) must be one of: {', '.join(ON_ERROR)}.")
        self.on_error, self.tries = on_error, tries
        self.quarantine: dict[int, DecodeError] = {}
        self.failing: dict[int, int] = {}
        """How often each was tried in vain so far."""
        self.events: list[BadDraw] = []
        self.news: list[BadFile] = []
        """What is new about files and was not taken yet (`take_news`)."""
        self._waited_for: set[int] = set()
        self._in_vain: Counter[str] = Counter()

    def failed(self, index: int, error: DecodeError, *, for_good: bool = False) -> None:
        """Note that this record could not be decoded just now, or `for_good`."""
        if index in self.quarantine:
            return
        count = self.failing.pop(index, 0) + 1
        out = for_good or count >= self.tries or not error.transient
        if out:
            self.quarantine[index] = error
        else:
            self.failing[index] = count
        if out or count == 1:
            stamp, outlook = file_stamp(error.path), "out" if out else "again"
            self.news.append(BadFile(index, error.path, error.kind, error.reason, stamp, outlook))

    def asked_again(
        self, index: int, error: DecodeError, ask: Callable[[], Tensor | DecodeError]
    ) -> Tensor | DecodeError:
        """What `ask` says of this record after growing pauses, where its trouble may pass; else its error.

        So a disk that is away for a moment costs a moment. One that stays away is waited for MOST_IN_VAIN times, until
        something can be read again; then each draw fails at once, and the policy decides.
        """
        answer, known = error, index in self.quarantine
        if known or self._in_vain[error.kind] >= MOST_IN_VAIN:
            return error
        pauses = pauses_for(error)
        for pause in pauses:
            time.sleep(pause)
            answer = ask()
            if not isinstance(answer, DecodeError):
                self._in_vain.clear()
                if index not in self._waited_for:
                    self._waited_for.add(index)
                    told = (index, error.path, error.kind, error.reason, None, "waited")
                    self.news.append(BadFile(*told))
                return answer
            if not answer.transient:
                return answer
        self._in_vain[error.kind] += bool(pauses)
        return answer

    def was_read(self, index: int, path: str) -> None:
        """Note that this record could be decoded."""
        # the storage answers; that other files are missing has nothing to do with it
        self._in_vain = Counter(missing=self._in_vain["missing"])
        if self.failing.pop(index, 0):
            self.news.append(BadFile(index, path, "", "", None, "back"))

    def take_news(self) -> tuple[BadFile, ...]:
        """What is new about files since the last call."""
        news, self.news = self.news, []
        return tuple(news)

    def resolve(
        self, clips, request, error: DecodeError, *, step: int, generator: torch.Generator
    ) -> Tensor | None:
        """Return the clip that takes the place of a bad one, or None to go without it.

        Raises the error itself under `stop`, and ValueError when no video of the whole list is left.
        """
        if self.on_error == "stop":
            raise error
        index, clip = None, None
        if self.on_error == "replace":
            index, clip = self._replacement(clips, request, generator)
        if len(self.quarantine) + len(self.failing) == len(clips):
            raise ValueError(
                f"none of the {len(clips)} videos can be decoded; the last: {error} "
                "Try stretchysnake data check on the list."
            )
        path = None if index is None else clips.records[index].path
        num_clips = len(request.generators)
        self.events.append(BadDraw(step, error.path, error.kind, error.reason, path, num_clips))
        return clip

    def _replacement(self, clips, request, generator) -> tuple[int | None, Tensor | None]:
        """Another video of the same class, in an order drawn by the generator alone.

        After as many time-outs as a file has tries, the clip is left out: with a storage that hangs, a whole class
        would have to time out one by one.
        """
        label = clips.labels[request.index]
        others = torch.nonzero(clips.labels == label).flatten().tolist()
        order = [others[i] for i in torch.randperm(len(others), generator=generator).tolist()]
        left = self.tries
        for index in order[:MOST_CANDIDATES]:
            if index in self.quarantine or index == request.index:
                continue
            answer = clips.draw_one(request._replace(index=index))
            if not isinstance(answer, DecodeError):
                return index, answer
            left -= answer.kind == "timeout"
            if not left:
                break
        return None, None

    @property
    def summary(self) -> dict:
        """Counts and list, as JSON takes them."""
        replaced, left_out = counts_of(self.events)
        return {
            "on_error": self.on_error,
            "replaced": replaced,
            "skipped": left_out,
            "files": sorted({str(error) for error in self.quarantine.values()}),
        }


def changed_since(clips, bad_files: Iterable[BadFile]) -> list[BadFile]:
    """Of the files that were found bad before, those that are others now and worth another try."""
    return [
        file
        for file in bad_files
        if file.index >= len(clips)
        or clips.records[file.index].path != file.path
        or file_stamp(file.path) != file.stamp
    ]


def pass_over(clips, bad_files: Iterable[BadFile]) -> None:
    """Take these files for bad without trying them: so a resumed training draws what it would have drawn."""
    for file in bad_files:
        clips.bad.quarantine.setdefault(file.index, file.error)
