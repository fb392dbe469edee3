"""What a training tells of the clips it could not have: each new bad file at once, their share as it goes, and an end
when there are too many.

A run ends when all of this holds: more than `max_bad_share` of the clips asked for were bad, over the last 10,000 of
this sitting; these are more than 20 clips; and more than three files of the list are bad. So one bad file among twelve
ends nothing, however often it is drawn, while a storage that goes away does at once.
"""

import json
from collections import deque

from stretchysnake.data.clips.bad_clips import bad_file_of
from stretchysnake.data.clips.loader import Batch, MixedBatch
from stretchysnake.ranks import Runtime
from stretchysnake.train.checkpoints.outputs import RunLog
from stretchysnake.train.checkpoints.state import TrainState
from stretchysnake.train.run import TrainRun
from stretchysnake.train.step import StepOutcome

WINDOW, FEWEST_CLIPS, FEWEST_FILES = 10_000, 20, 3
"""Clips over which the share is taken; a run never ends for so few bad clips, or for so few bad files."""


class TooManyBadFiles(RuntimeError):
    """More clips were bad than `max_bad_share` allows."""


class BadFileWatch:
    """Call it after every step: it counts into the state, tells what is new, and knows when it is too much."""

    def __init__(self, state: TrainState, run: TrainRun, *, log: RunLog | None, runtime: Runtime):
        self.state, self.run, self.log, self.runtime = state, run, log, runtime
        self._recent: deque[tuple[int, int]] = deque()
        self._clips = self._bad = 0

    @property
    def share(self) -> float:
        """Bad clips among the last ones asked for, over all ranks."""
        return self._bad / max(1, self._clips)

    def __call__(self, batch: Batch | MixedBatch, outcome: StepOutcome) -> None:
        """All ranks call it after the same step; where a file is new, they tell each other."""
        clips = len(batch.labels) if batch.asked is None else batch.asked
        bad = outcome.replaced + outcome.left_out
        self.state.replaced += outcome.replaced
        self.state.left_out += outcome.left_out
        self._recent.append((clips, bad))
        self._clips, self._bad = self._clips + clips, self._bad + bad
        while len(self._recent) > 1 and self._clips - self._recent[0][0] >= WINDOW:
            old_clips, old_bad = self._recent.popleft()
            self._clips, self._bad = self._clips - old_clips, self._bad - old_bad
        if outcome.news:
            self._tell(batch)

    def is_too_much(self) -> bool:
        """Whether the run has to end; the same on every rank."""
        return (
            self._bad > max(FEWEST_CLIPS, self.run.max_bad_share * self._clips)
            and len(self.state.bad_files) > FEWEST_FILES
        )

    def error(self) -> TooManyBadFiles:
        """The end of the run, with the files."""
        files = [f"{file.path}: {file.kind}" for file in self.state.bad_files.values()]
        if self.log:
            self.log("too_many_bad_files", step=self.state.step, files=files)
        more = f" and {len(files) - 10} more, all in log.jsonl" if len(files) > 10 else ""
        return TooManyBadFiles(
            f"{self._bad} of the last {self._clips} clips ({self.share:.1%}) could not be had, more than max_bad_share "
            f"({self.run.max_bad_share:.1%}); {len(files)} bad files: {', '.join(files[:10])}{more}. Look at them with "
            "`stretchysnake data check`, which also writes a clean list; or set max_bad_share higher. The same command "
            "goes on from the last checkpoint"
        )

    def _tell(self, batch: Batch | MixedBatch) -> None:
        told = json.dumps([batch.news, {draw.path: draw.replaced_by for draw in batch.bad}])
        news, places = [], {}
        for text in self.runtime.gather(told):
            files, taken = json.loads(text)
            news += [bad_file_of(values) for values in files]
            places |= taken
        for file in sorted(dict.fromkeys(news), key=lambda file: file.index):
            if file.outlook in ("back", "waited"):
                listed = self.state.bad_files.pop(file.index, None)
            else:
                listed, self.state.bad_files[file.index] = None, file
            if not self.runtime.is_first:
                continue
            taken = places.get(file.path)
            if file.outlook == "back":
                text = f"bad file {file.path}: could be read again"
            elif file.outlook == "waited":
                text = f"file out of reach {file.path}: {file.kind}: {file.reason} (could be read when tried again)"
            else:
                again = (
                    "not tried again" if file.outlook == "out" else "tried again when drawn next"
                )
                text = f"bad file {file.path}: {file.kind}: {file.reason} ({again}); "
                if taken:
                    text += f"{taken} takes its place in step {batch.step}"
                elif file.path in places or self.run.on_error == "skip":
                    text += f"left out of step {batch.step}"
                else:  # not drawn yet
                    text += "another of its class takes its place when it is drawn"
            if file.outlook != "back" or listed:
                self.runtime.say(text)
            if self.log:
                self.log(
                    "bad_file",
                    step=batch.step,
                    path=file.path,
                    kind=file.kind,
                    reason=file.reason,
                    outlook=file.outlook,
                    replaced_by=taken,
                )
