"""Where clips come from: two sources that answer `clip(index, scale, generator=...)` and `draw(requests)` alike.

`CachedClips` holds frames decoded once (see frame_cache.py), `DecodedClips` decodes at every call; open_clips.py picks.
With a generator the clip is drawn for training (jittered frames, random crop); with None it is the evaluation
clip (segment centres, the picture whole or its centre), the same every time. `fit` (decoding/fit.py) says which shape
clips have: where pictures keep theirs, each video its own. What a training does about a file that
turns out bad on the way is in bad_clips.py; an evaluation never puts another in its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from stretchysnake.data.clips.augmentation import Augmentation
from stretchysnake.data.clips.bad_clips import BadClips
from stretchysnake.data.clips.frame_choice import Sampling
from stretchysnake.data.clips.loading.cached_clips import CachedClips
from stretchysnake.data.clips.loading.decoded_clip import (
    Answer,
    ClipDecoder,
    ClipRequest,
    RepeatedClip,
    UnfinishedClip,
)
from stretchysnake.data.clips.seen_picture import checked_picture
from stretchysnake.data.decode_error import DecodeError
from stretchysnake.data.decoding.video import checked_decoder
from stretchysnake.data.processes.decoder_pool import (
    MEMORY_GIB,
    TIMEOUT_SECONDS,
    DecoderPool,
    check_limits,
    map_decoding,
)
from stretchysnake.data.processes.shared_memory import ClipMemory, KeptClips, can_share
from stretchysnake.data.records import VideoRecord
from stretchysnake.flexibility import Scale


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """How decoding is done and contained."""

    num_workers: int = 2
    """Processes that decode, one thread each; 0 decodes in this process, without the limits below."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """Wall-clock time for each second of video on the way to a clip; a file that takes longer is a `timeout`."""
    memory_gib: float = MEMORY_GIB
    """Memory that decoding one clip may take; a file that needs more is left out."""

    def __post_init__(self):
        check_limits(timeout_seconds=self.timeout_seconds, memory_gib=self.memory_gib)


IN_THIS_PROCESS = DecodingLimits(num_workers=0)


class DecodedClips:
    """Clips decoded from their files at every call.

    `clip` decodes in this process and raises DecodeError for a file that cannot be trusted; `draw` decodes under
    `limits`, and remembers bad files, so that each is tried once.
    """

    def __init__(
        self,
        records: Sequence[VideoRecord],
        *,
        failures: Sequence[tuple[VideoRecord, DecodeError]] = (),
        augmentation: Augmentation | None = None,
        sampling: Sampling | None = None,
        picture: str | None = None,
        decoder: str = "pyav",
        fit: str = "square",
        limits: DecodingLimits = IN_THIS_PROCESS,
        bad: BadClips | None = None,
    ):
        self.augmentation, self.limits = augmentation or Augmentation(), limits
        self.sampling, self.picture = sampling or Sampling(), checked_picture(picture, fit=fit)
        self.decoder, self.fit = checked_decoder(decoder), fit
        self.records, self.failures = list(records), list(failures)
        self.labels = torch.tensor([record.label for record in self.records])
        self.bad = bad or BadClips()
        self._spare: DecoderPool | None = None

    def __len__(self) -> int:
        return len(self.records)

    def clip(self, index: int, scale: Scale, *, generator: torch.Generator | None = None) -> Tensor:
        """Return uint8 frames (T, S, S, 3), with fit keep (T, H, W, 3)."""
        return self._decoder.clip(self.records[index], scale, generator=generator).finished

    @property
    def _decoder(self) -> ClipDecoder:
        names = ("augmentation", "sampling", "picture", "decoder", "fit")
        return ClipDecoder(**{name: getattr(self, name) for name in names})

    def views(self, index: int, scale: Scale, *, num_views: int, num_crops: int = 1) -> Tensor:
        """Return uint8 frames (num_views * num_crops, T, S, S, 3) of one video, decoded once: views in order, and of
        each 1 (middle) or 3 crops of the picture at a short side of S; of a source with `picture` "whole", that, with
        fit keep in its shape (.., T, H, W, 3). Their predictions are averaged at test."""
        counts = {"num_views": num_views, "num_crops": num_crops}
        return self._decoder.views(self.records[index], scale, **counts)

    @property
    def shares_memory(self) -> bool:
        """Whether processes of `draw` write into slots."""
        return can_share(self.limits.num_workers)

    def draw(
        self,
        requests: Iterable[ClipRequest | None],
        *,
        memory: ClipMemory | None = None,
        num_kept: int = 1,
    ) -> Iterator[Answer]:
        """Yield for each request, in order, its clip or why there is none; a few are decoded ahead, or as many as have
        a slot of `memory`. A request of None says that there is none yet (`DecoderPool.map`). Without a memory of the
        caller's, who keeps `num_kept` clips at once, there is one all the same where processes decode."""
        return self._drawn(self._decoder.answer, requests, memory=memory, num_kept=num_kept)

    def _drawn(
        self,
        answer_of: Callable,
        requests: Iterable[ClipRequest | None],
        *,
        memory: ClipMemory | None = None,
        num_kept: int,
    ) -> Iterator[Answer]:
        given: deque[ClipRequest] = deque()
        if memory is None and self.shares_memory:
            memory = KeptClips(num_kept=num_kept, num_workers=self.limits.num_workers)
            requests = _with_slots(requests, memory, given)

        def tasks():
            for request in requests:
                if request is None:
                    yield None
                    continue
                given.append(request)
                record = self.records[request.index]
                error = self.bad.quarantine.get(request.index)  # a bad file is not tried again
                yield record.path, error or (record, request)

        options = {**asdict(self.limits), "memory": memory}
        for answer in map_decoding(answer_of, tasks(), **options):
            request = given.popleft()
            alone = self.records[request.index], request._replace(slot=None)
            answer = self._waited(request.index, answer, answer_of, alone)
            yield self._noted(request, answer, memory)

    def draw_views(
        self,
        indices: Iterable[int],
        scale: Scale,
        *,
        num_views: int,
        num_crops: int = 1,
        num_kept: int = 1,
    ) -> Iterator[Tensor | DecodeError]:
        """Yield the `views` of each video, in order, or why there are none; decoded under `limits`. `num_kept` as in
        `draw`."""
        answer_of = partial(self._decoder.answer_views, num_views=num_views, num_crops=num_crops)
        num_clips = num_views * num_crops
        requests = (ClipRequest(index, scale, num_clips=num_clips) for index in indices)
        yield from self._drawn(answer_of, requests, num_kept=num_kept)

    def draw_one(self, request: ClipRequest) -> Answer:
        """The clip of one request between those of `draw`, from a process of its own, which has no slots."""
        answer_of, request = self._decoder.answer, request._replace(slot=None)
        if self.limits.num_workers and self._spare is None:
            self._spare = DecoderPool(answer_of, **{**asdict(self.limits), "num_workers": 1})
        record = self.records[request.index]
        task = (record.path, (record, request))
        if self._spare is None:
            (answer,) = map_decoding(answer_of, [task], num_workers=0)
        else:
            (answer,) = self._spare.map([task])
        return self._noted(request, answer)

    def close(self) -> None:
        """End the process of `draw_one`; it starts again when needed."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _waited(self, index: int, answer, function: Callable, argument):
        """The answer, or for a file out of reach a later one, of a process of its own."""
        if not isinstance(answer, DecodeError):
            return answer
        limits = {**asdict(self.limits), "num_workers": min(1, self.limits.num_workers)}

        def ask():
            (again,) = map_decoding(function, [(self.records[index].path, argument)], **limits)
            return again

        return self.bad.asked_again(index, answer, ask)

    def _noted(
        self,
        request: ClipRequest,
        answer: UnfinishedClip | RepeatedClip | DecodeError,
        memory: ClipMemory | None = None,
    ) -> Answer:
        if isinstance(answer, DecodeError):
            self.bad.failed(request.index, answer)
        elif request.index in self.bad.quarantine:  # given up while this was decoded ahead
            answer = self.bad.quarantine[request.index]
        in_slot = not isinstance(answer, DecodeError) and isinstance(answer.frames, tuple)
        if request.slot is not None and not in_slot:
            memory.free(request.slot)
        if isinstance(answer, DecodeError):
            return answer
        self.bad.was_read(request.index, self.records[request.index].path)
        frames = answer.frames
        if in_slot:
            frames = memory.array(request.slot, frames)
        frames = torch.from_numpy(frames)
        return answer._replace(frames=frames) if request.unfinished else frames


def _with_slots(
    requests: Iterable[ClipRequest], memory: KeptClips, in_work: Sized
) -> Iterator[ClipRequest | None]:
    for request in requests:
        slot = yield from memory.waited_for(request.num_bytes, in_work)
        yield request._replace(slot=slot)


Clips = CachedClips | DecodedClips
